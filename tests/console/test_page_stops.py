"""The shift lead's pages in a real browser: which stops need a reason, saying why, losses, and all that happened."""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.pages import Stage, Watched, picture, until, violations

STOPS: Final = "#/stops?machine=filler-1"
PAGES: Final = {"stops": STOPS, "events": "#/events"}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage"), 10, "filler") as stage:
        yield stage


def opened(page: Page, start: str) -> Locator:
    """The stop of the running shift that began at this minute of an hour, opened."""
    stop = page.locator("li", has=page.locator("button.stop", has_text=re.compile(rf"^\d\d:{start}")))
    expect(stop).to_have_count(1)
    if stop.locator("button.stop").get_attribute("aria-expanded") == "false":
        stop.locator("button.stop").click()
    return stop


def stops(plant: Stage) -> list[dict[str, Any]]:
    live = plant.ask("api/machines/filler-1/kpi")["live"]
    found: list[dict[str, Any]] = plant.ask(f"api/machines/filler-1/stops?from={live['start'] * 10**6}")["stops"]
    return found


@pytest.mark.parametrize("name", PAGES)
def test_page_on_a_desktop_is_complete_and_accessible(desktop: Watched, plant: Stage, name: str) -> None:
    page = desktop.open(plant, PAGES[name])
    expect(page.locator("main li").first).to_be_visible()
    if name == "stops":
        opened(page, "40")
        page.get_by_role("button", name="Split at a time").click()
    page.set_viewport_size({"width": 1440, "height": 1700})
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
        picture(page, f"{name}-{scheme}")
    assert desktop.complaints == []
    assert desktop.hosts == {f"127.0.0.1:{plant.port}"}


@pytest.mark.parametrize("name", PAGES)
def test_page_on_a_phone_fits_and_is_accessible(phone: Watched, plant: Stage, name: str) -> None:
    page = phone.open(plant, PAGES[name])
    expect(page.locator("main li").first).to_be_visible()
    if name == "stops":
        opened(page, "40")
        small = page.locator("main button:visible").evaluate_all(
            "all => all.filter(b => b.getBoundingClientRect().height < 40 && !b.classList.contains('open'))"
            ".map(b => b.textContent)"
        )
        assert small == []
    wide = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert violations(page) == []
    picture(page, f"{name}-phone")
    assert phone.complaints == []


def test_from_the_overview_to_a_reason_and_back_by_keyboard(desktop: Watched, plant: Stage) -> None:
    """The card counts the stop; it gets its reason with a comment; the count is gone; undone, it is there again."""
    page = desktop.open(plant, "#/")
    page.locator("article", has_text="Filler 1").get_by_role("link", name="1 stop without a reason").press("Enter")
    expect(page.get_by_role("heading", name="1 stop needs a reason")).to_be_visible()
    stop = page.locator("button.stop")
    expect(stop).to_have_count(1)
    expect(stop).to_contain_text(re.compile(r"\d\d:58–\d\d:15\s*17 min"))
    stop.press("Enter")
    save = page.get_by_role("button", name=re.compile("^(Save|Choose)"))
    expect(save).to_be_disabled()
    page.get_by_role("button", name="Valve worn").press("Enter")
    expect(save).to_be_disabled()  # this reason needs a comment
    page.get_by_label("Comment, needed for this reason").fill("seat of valve 3")
    page.get_by_label("Comment, needed for this reason").press("Enter")
    expect(page.get_by_role("heading", name="No stop needs a reason")).to_be_visible()
    expect(stop).to_contain_text("Valve worn")
    expect(stop).to_contain_text("console@127.0.0.1: “seat of valve 3”")
    assert until(lambda: plant.ask("api/machines")["machines"][-1]["live"]["unexplained"] == 0)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name="1 stop needs a reason")).to_be_visible()
    page.get_by_text(re.compile("What was said of this stop")).click()
    expect(page.get_by_text("Taken back by console@127.0.0.1")).to_be_visible()
    assert desktop.complaints == []


def test_a_stop_is_split_joined_and_as_the_machine_says(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, STOPS)
    stop = opened(page, r"10–\d\d:38")
    expect(stop).to_contain_text("28 min: Hydraulics, says the machine.")
    page.get_by_role("button", name="Split at a time").click()
    begin = stop.locator("button.stop strong").inner_text()[:2]
    clock = page.get_by_label("Time of the split")
    clock.fill(f"{begin}:25:00")
    clock.press("Tab")
    page.get_by_role("button", name="Split here").click()
    pieces = page.get_by_role("group", name="Parts of the stop").get_by_role("button")
    expect(pieces).to_have_count(2)
    page.get_by_role("button", name="Team meeting").click()
    page.get_by_role("button", name="Save: Team meeting").click()
    expect(pieces.nth(1)).to_contain_text("Team meeting")
    parts = until(lambda: next(s for s in stops(plant) if len(s["reasons"]) > 1))["reasons"]
    assert [(part["reason"], part["seconds"]) for part in parts] == [
        ("machine/hydraulics", 15 * 60),
        ("organisation/meeting", 13 * 60),
    ]
    losses = page.get_by_role("region", name="Time lost")
    expect(losses.locator("tbody tr", has_text="Organisation")).to_contain_text("13 min")
    pieces.nth(0).click()
    page.get_by_role("button", name="Same as after: Team meeting").click()
    expect(stop).to_contain_text("28 min: Team meeting, says console@127.0.0.1.")
    page.get_by_role("button", name="As the machine says").click()
    expect(stop).to_contain_text("28 min: Hydraulics, says the machine.")
    expect(losses.locator("tbody tr", has_text="Organisation")).to_have_count(0)
    assert desktop.complaints == []


def test_what_is_refused_is_said_and_nothing_is_changed(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, STOPS)
    opened(page, "58")
    page.route(
        "**/reasons",
        lambda route: (
            route.fulfill(
                status=503,
                content_type="application/problem+json",
                body='{"title": "This is not there now", "detail": "the disk is full"}',
            )
            if route.request.method == "POST"
            else route.continue_()
        ),
    )
    before = stops(plant)
    page.get_by_role("button", name="No operator").click()
    page.get_by_role("button", name="Save: No operator").click()
    expect(page.get_by_text("the disk is full")).to_be_visible()
    expect(page.get_by_role("button", name="Save: No operator")).to_be_enabled()
    assert [stop["reasons"] for stop in stops(plant)] == [stop["reasons"] for stop in before]


def test_losses_by_duration_and_count_by_category_and_reason(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, STOPS)
    losses = page.get_by_role("region", name="Time lost")
    rows = losses.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text(re.compile(r"Machine.*60 %\s*28 min\s*1", re.DOTALL))
    lost = plant.ask("api/machines/filler-1/kpi")["live"]["losses"].values()
    assert sum(loss["seconds"] for loss in lost) == 47 * 60
    expect(losses.locator("tfoot")).to_contain_text(re.compile(r"Together\s*47 min\s*6"))
    losses.get_by_role("button", name="Stops").click()
    expect(rows.nth(0)).to_contain_text("No reason given")
    losses.get_by_role("button", name="Machine").click()
    expect(page.get_by_role("heading", name="Time lost: Machine")).to_be_focused()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Hydraulics")
    page.get_by_role("button", name="All categories").click()
    expect(rows).to_have_count(3)


def test_of_other_shifts_of_days_and_of_hours(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, STOPS)
    time = page.get_by_label("Time", exact=True)
    expect(time.locator("option:checked")).to_have_text(re.compile("^early, .*, running$"))
    page.get_by_role("button", name="Earlier").click()
    expect(time.locator("option:checked")).to_have_text(re.compile("^night, "))
    expect(page.get_by_role("heading", name="1 stop needs a reason")).to_be_visible()
    page.get_by_role("button", name="Hour", exact=True).click()
    expect(time.locator("option:checked")).to_have_text(re.compile(r", \d\d:00–\d\d:00$"))
    page.get_by_role("button", name="Day", exact=True).click()
    expect(time.locator("option:checked")).to_have_text(re.compile(r"^\w{3},? \d+ \w{3}"))
    expect(page.get_by_role("region", name="Time lost").locator("tfoot")).to_contain_text("Together")


def test_events_of_a_kind_and_older_ones(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/events")
    lines = page.locator("main li")
    expect(lines.filter(has_text="A state that nobody explained: “42”").first).to_be_visible()
    expect(lines.filter(has_text="Why: a stop became longer than a minor one").first).to_be_visible()
    page.get_by_label("Kind").select_option(label="Unknown states")
    expect(lines).to_have_count(3)
    page.get_by_role("button", name="Show older events").click()
    expect(lines).to_have_count(4)
    assert page.url.endswith("#/events?kind=unknown_state")


def test_a_plant_without_figures_says_how_to_get_them(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/stops")
    expect(page.get_by_text("{name: oee, type: machine}").first).to_be_visible()
    assert violations(page) == []
