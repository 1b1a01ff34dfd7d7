"""The pages with machines' figures in a real browser: a filler five hours into its shift, with all that can happen."""

import csv
import re
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.console.pages import Stage, Watched, picture, settled, until, violations

PAGES: Final = {"figures": "#/machines/filler-1", "cards": "#/", "report": "#/report"}
FIGURE: Final = re.compile(r"^\d+\.\d %$")


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage"), 10, "filler") as stage:
        yield stage


def shown(page: Page) -> None:
    """Wait for the figures."""
    settled(page)
    expect(page.get_by_text("OEE").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"^\d+\.\d %")).first).to_be_visible()


@pytest.mark.parametrize("name", PAGES)
def test_page_on_a_desktop_is_complete_and_accessible(desktop: Watched, plant: Stage, name: str) -> None:
    page = desktop.open(plant, PAGES[name])
    shown(page)
    page.get_by_text("Everything but production, in words").click() if name == "figures" else None
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
        page.set_viewport_size({"width": 1440, "height": 1900}) if name == "figures" else None
        picture(page, f"{name}-{scheme}")
    assert desktop.complaints == []
    assert desktop.hosts == {f"127.0.0.1:{plant.port}"}


@pytest.mark.parametrize("name", PAGES)
def test_page_on_a_phone_fits_and_is_accessible(phone: Watched, plant: Stage, name: str) -> None:
    page = phone.open(plant, PAGES[name])
    shown(page)
    wide = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    assert violations(page) == []
    picture(page, f"{name}-phone")
    assert phone.complaints == []


def figure(page: Page, name: str) -> str:
    found = page.locator("dl > div", has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd")
    expect(found).to_be_visible()
    return found.inner_text()


def running(plant: Stage) -> Any:
    return plant.ask("api/machines/filler-1/kpi")["live"]


def rounded(fraction: float) -> str:
    return f"{int(fraction * 1000 + 0.5) / 10:.1f} %"


def test_the_machine_says_its_state_and_the_figures_of_the_shift(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/machines/filler-1")
    shown(page)
    expect(page.locator(".state")).to_contain_text(
        re.compile(r"running\s*since \d\d:33, (2\d|[345]\d|1 h \d\d) ?(min)?")
    )
    for name in ("Availability", "Performance", "Quality"):
        assert FIGURE.match(figure(page, name))
    assert until(lambda: figure(page, "Availability") == rounded(running(plant)["availability"]))
    assert until(lambda: figure(page, "Stops").startswith(str(running(plant)["incidents"])))
    expect(page.get_by_role("heading", name=re.compile(r"Shift early, \d\d:00–\d\d:00"))).to_be_visible()


def test_what_makes_the_figures_less_than_they_seem_is_said_with_what_to_do(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/machines/filler-1")
    shown(page)
    expect(page.get_by_text(re.compile("a state that nobody explained: “42”"))).to_be_visible()
    expect(page.locator("pre", has_text="42: running")).to_contain_text("- id: filler-1\n    states:")
    expect(page.get_by_text(re.compile(r"Only 9[78]\.\d % of the planned time is known"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"lies between \d+\.\d % and \d+\.\d %"))).to_be_visible()


def test_the_shift_is_a_bar_with_a_legend_and_in_words(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/machines/filler-1")
    bar = page.get_by_role("img", name=re.compile("The shift so far: Production"))
    expect(bar).to_be_visible()
    legend = page.get_by_role("list", name="Times of the shift")
    for text in ("Minor stop 5 min 00 s", "Stop 42 min", "Setup 20 min", "Blocked 4 min 00 s", "Planned stop 15 min",
                 "Unknown 6 min 00 s"):  # fmt: skip
        expect(legend).to_contain_text(text)
    page.get_by_text("Everything but production, in words").click()
    expect(page.get_by_text("Stop: Hydraulics")).to_be_visible()
    expect(page.get_by_text("Stop: fault 22")).to_be_visible()
    stop = bar.locator("g.unplanned_stop title").first
    assert re.fullmatch(r"\d\d:10–\d\d:38 Stop, Hydraulics, 28 min", stop.text_content() or "")


def test_hours_and_reasons_of_the_shift(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/machines/filler-1")
    hours = page.get_by_role("region", name="Hours")
    rows = hours.locator("tbody tr:not(.note)")
    assert until(lambda: rows.count() == len(plant.ask("api/machines/filler-1/kpi")["records"]) > 0)
    expect(hours.get_by_text("% known")).to_be_visible()
    losses = page.get_by_role("region", name="Stops by reason").locator("tbody tr")
    expect(losses.nth(0)).to_contain_text(re.compile(r"Hydraulics\s*28 min\s*1"))
    expect(losses.nth(1)).to_contain_text(re.compile(r"fault 22\s*12 min\s*1"))
    expect(losses.nth(2)).to_contain_text(re.compile(r"No reason given\s*7 min 00 s\s*4"))
    scrap = page.get_by_role("region", name="Scrap by reason")
    for text in ("Underfilled", "Cap missing"):
        expect(scrap).to_contain_text(text)


def test_figures_follow_the_machine(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/machines/filler-1")
    shown(page)
    before = figure(page, "Good")
    good = page.locator("dl > div", has=page.locator("dt", has_text=re.compile("^Good$"))).locator("dd")
    expect(good).not_to_have_text(before)


def test_a_card_says_state_and_oee(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/")
    card = page.locator("article", has=page.get_by_role("heading", name="Filler 1"))
    expect(card).to_contain_text(re.compile(r"OEE of this shift\s*\d+\.\d %\s*below 90\.0 %\s*9[78]\.\d % known"))
    expect(card.locator(".badge")).to_have_text("running")
    expect(page.locator("article", has_text="Press 1")).not_to_contain_text("OEE")


def test_a_line_stands_above_its_machines_with_figures_of_its_own(desktop: Watched, plant: Stage) -> None:
    """Colour is given by targets alone: the line has one for quality, none for availability."""
    page = desktop.open(plant, "#/")
    head = page.get_by_role("region", name="Line Bottling").locator("article").first
    expect(head.get_by_role("heading", name="Bottling")).to_be_visible()
    expect(head).to_contain_text("stands with the first of 1 machine, area hall-1")
    live = plant.ask("api/lines")["lines"][0]["live"]
    expect(head.get_by_role("img")).to_have_attribute("aria-label", re.compile("Production .*, Stop "))
    expect(head).to_contain_text(re.compile(rf"It stood for\s*Filler 1 .* \({live['lost_to']['filler-1']['count']}×\)"))
    quality = head.locator("dl > div", has=page.locator("dt", has_text="Quality")).locator(".value")
    expect(quality).to_have_class(re.compile("met"))
    expect(head.get_by_text("target 90.0 %")).to_be_visible()
    availability = head.locator("dl > div", has=page.locator("dt", has_text="Availability")).locator(".value")
    expect(availability).not_to_have_class(re.compile("met|missed"))


def test_the_report_of_a_day_and_of_the_day_before(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/report")
    shown(page)
    report = plant.ask("api/report")
    rows = page.get_by_role("row", name=re.compile("early|late|night"))
    expect(rows).to_have_count(len(report["machines"][0]["shifts"]) + len(report["lines"][0]["shifts"]))
    expect(page.get_by_role("rowheader").first).to_have_text(
        re.compile(r"Line Bottling\s*stands with the first of 1 machine")
    )
    expect(rows.filter(has_text="running").first).to_be_visible()
    assert not page.get_by_label("Day after").is_enabled()
    page.get_by_label("Day before").click()
    yesterday = (date.fromisoformat(report["today"]) - timedelta(days=1)).isoformat()
    expect(page.get_by_label("Day", exact=True)).to_have_value(yesterday)
    assert page.url.endswith(f"#/report?day={yesterday}")
    expect(rows.filter(has_text="running")).to_have_count(0)
    formulas = ("shopfloor-oee-2/minor stops: performance/line: first_down", "shopfloor-oee-2/minor stops: performance")
    expect(page.get_by_text(f"Formulas: {'; '.join(formulas)}.")).to_be_visible()
    page.emulate_media(media="print")
    for gone in (page.get_by_role("navigation"), page.get_by_role("button", name="Print")):
        expect(gone).to_be_hidden()
    picture(page, "report-printed")
    page.emulate_media(media="screen")
    page.get_by_label("Day", exact=True).fill("2001-01-01")
    expect(page.get_by_text("Nothing is known of this day").first).to_be_visible()


def test_all_of_the_report_fits_on_a_laptop(desktop: Watched, plant: Stage) -> None:
    """What nobody scrolls to is not read: the last columns are how long it runs and how long a repair takes."""
    page = desktop.open(plant, "#/report")
    page.set_viewport_size({"width": 1280, "height": 800})
    shown(page)
    picture(page, "report-laptop")
    assert page.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.scroll'))")


def test_the_report_can_be_downloaded(desktop: Watched, plant: Stage) -> None:
    page = desktop.open(plant, "#/report")
    shown(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    path = download.value.path()
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert "early" in [row["shift"] for row in rows]
    assert download.value.suggested_filename == f"shifts-{rows[0]['day']}.csv"


def test_a_plant_without_figures_says_how_to_get_them(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/report")
    expect(page.get_by_text("No figures are worked out here")).to_be_visible()
    expect(page.get_by_text("{name: oee, type: machine}").first).to_be_visible()
    assert violations(page) == []
