"""The pages of the console in a real browser, against the real API over a plant that acts (stage.py)."""

import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.console.pages import PAGES, Stage, Watched, picture, row, settled, violations

# --- every page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_page_on_a_desktop_is_complete_and_accessible(desktop: Watched, stage: Stage, name: str) -> None:
    """Nothing fails, nothing is fetched from elsewhere, and axe finds no violation, in light and in dark."""
    page = desktop.open(stage, PAGES[name])
    settled(page)
    page.get_by_label("Filter tags").fill("line-3") if name == "tags" else None
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
        picture(page, f"{name}-{scheme}")
    assert desktop.complaints == []
    assert desktop.hosts == {f"127.0.0.1:{stage.port}"}


@pytest.mark.parametrize("name", PAGES)
def test_page_on_a_phone_fits_and_is_accessible(phone: Watched, stage: Stage, name: str) -> None:
    """Nothing is wider than the screen, the navigation is in reach, and axe finds no violation."""
    page = phone.open(stage, PAGES[name])
    settled(page)
    wide = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    expect(page.get_by_role("navigation")).to_be_in_viewport()
    assert violations(page) == []
    picture(page, f"{name}-phone")
    assert phone.complaints == []


# --- overview -----------------------------------------------------------------------------------------------------


def test_overview_says_how_the_plant_is_and_what_machines_do(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/")
    expect(page.get_by_text("All 4 components are running")).to_be_visible()
    press = page.locator("article", has_text="Press 1")
    expect(press).to_contain_text("not running")
    expect(press).to_contain_text(re.compile(r"PV\s*(3|4)\d\.\d{3}\s*bar"))
    oven = page.locator("article", has_text="Tempering oven")
    expect(oven).to_contain_text("Not live: sensor failure")
    page.get_by_role("link", name="Press 1").last.click()
    expect(page.locator("h1")).to_have_text("Press 1")


def test_trouble_is_said_in_plain_words_and_values_stop_looking_live(desktop: Watched, stage: Stage) -> None:
    """A paused source: first line for the shift lead, second for the engineer; its values are marked."""
    page = desktop.open(stage, "#/components")
    page.get_by_role("button", name="Pause plc").click()
    expect(page.get_by_role("dialog")).to_contain_text("No values come from it")
    page.get_by_role("button", name="Cancel").click()
    assert stage.ask("api/components")["components"][0]["state"] == "running"
    page.get_by_role("button", name="Pause plc").click()
    page.get_by_role("dialog").get_by_role("button", name="pause").click()
    expect(page.get_by_text("plc: pause done, now paused")).to_be_visible()
    try:
        page.get_by_role("link", name=re.compile("^Overview")).click()
        health = page.get_by_label("Health of the plant")
        expect(health).to_contain_text("plc is paused. It goes on when somebody resumes it")
        expect(health).to_contain_text("plc (source, opcua) paused")
        expect(page.locator("article", has_text="Press 1")).to_contain_text("Not live: source paused")
        expect(page.get_by_role("link", name=re.compile("Components.*1 to look at"))).to_be_visible()
        page.goto(stage.url + "#/tags")
        page.get_by_label("Filter tags").fill("press-1/PV")
        expect(row(page, "press-1/PV")).to_contain_text("source paused")
        expect(row(page, "press-1/PV")).to_have_class(re.compile("dull"))
        page.goto(stage.url + "#/machines/press-1")
        expect(page.locator('button[data-tag="press-1/Start"]')).to_contain_text("plc is not connected")
    finally:
        page.goto(stage.url + "#/components")
        page.get_by_role("button", name="Resume plc").click()
        page.get_by_role("dialog").get_by_role("button", name="resume").click()
        expect(page.get_by_role("button", name="Pause plc")).to_be_visible()
    assert "control" in [event for event, _, _ in stage.audit()]


# --- tags ---------------------------------------------------------------------------------------------------------


def test_only_the_rows_in_view_exist_and_all_can_be_reached(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/tags")
    table = page.get_by_role("table", name="Tags")
    expect(table).to_have_attribute("aria-rowcount", "1010")
    assert page.locator("[data-tag]").count() < 50
    table.evaluate("table => table.scrollTo(0, table.scrollHeight)")
    expect(row(page, "press-1/Stop")).to_be_visible()
    expect(row(page, "press-1/Stop")).to_have_attribute("aria-rowindex", "1010")
    assert page.locator("[data-tag]").count() < 50


def test_the_table_scrolls_by_keyboard(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/tags")
    table = page.get_by_role("table", name="Tags")
    expect(table).to_have_attribute("aria-rowcount", "1010")
    expect(page.locator("[data-tag]").first).to_be_visible()
    table.focus()
    page.keyboard.press("End")
    expect(row(page, "press-1/Stop")).to_be_visible()


def test_the_filter_finds_by_name_description_and_source(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/tags")
    field = page.get_by_label("Filter tags")
    for typed, tags in {"PRESSURE ram": ["press-1/PV"], "sensor-07 line-3": ["line-3/sensor-07"]}.items():
        field.fill(typed)
        expect(page.locator("[data-tag]")).to_have_count(len(tags))
        expect(row(page, tags[0])).to_be_visible()
    expect(page.get_by_text("1 of 1009 tags")).to_be_visible()
    field.fill("no such <b>tag</b>")
    expect(page.get_by_text("Nothing is found for “no such <b>tag</b>”")).to_be_visible()
    page.get_by_role("button", name="Show all tags").click()
    expect(page.get_by_text("1009 tags", exact=True)).to_be_visible()


def test_what_is_not_live_is_marked_with_its_reason(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/tags")
    page.get_by_label("Only what is not live").check()
    expect(page.locator("[data-tag]")).to_have_count(2)
    expect(row(page, "oven-2/Temperature")).to_contain_text("sensor failure")
    expect(row(page, "oven-2/Temperature")).to_contain_text("181.40")
    expect(row(page, "oven-2/Door")).to_contain_text("no value yet")
    page.get_by_label("Filter tags").fill("press-1")
    expect(page.get_by_text("Everything here is live")).to_be_visible()


def test_ages_go_on_counting_and_values_follow(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/tags")
    age = row(page, "line-0/sensor-00").locator(".age")
    before, value = age.inner_text(), row(page, "press-1/PV").locator(".value")
    expect(age).not_to_have_text(before)
    page.get_by_label("Filter tags").fill("press-1/PV")
    first = value.inner_text()
    expect(value).not_to_have_text(first)
    expect(row(page, "press-1/PV").locator(".age")).to_have_text(re.compile("^[01] s$"))


def test_a_tag_leads_to_its_trend(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/tags")
    page.get_by_label("Filter tags").fill("press-1/PV")
    row(page, "press-1/PV").get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("Trend")
    expect(page.get_by_role("rowheader")).to_have_text("press-1/PV")


# --- the stream ---------------------------------------------------------------------------------------------------


def test_a_lost_stream_greys_everything_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    """A server that hangs is noticed by its silence, one that dies at once; each return is noticed as well."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    watched = Watched(context)
    with Stage(tmp_path, 20) as stage:
        page = watched.open(stage, "#/tags")
        for break_it, mend_it in ((stage.pause, stage.resume), (stage.kill, stage.start)):
            expect(page.locator("[data-tag].dull")).to_have_count(2)
            break_it()
            banner = page.get_by_text("No live values. The connection to Shopfloor is lost")
            expect(banner).to_be_visible()
            expect(page.locator(".stream")).to_have_text("Not live")
            expect(page.locator("[data-tag]:not(.dull)")).to_have_count(0)
            expect(row(page, "line-0/sensor-00")).to_contain_text("stream lost")
            picture(page, f"lost-{break_it.__name__}")
            mend_it()
            expect(banner).to_have_count(0)
            expect(row(page, "line-0/sensor-00")).to_contain_text("good")
    context.close()


def test_many_pages_share_one_stream(browser: Browser, stage: Stage) -> None:
    """HTTP/1.1 gives a host six connections: without sharing the seventh page would show nothing."""
    context = browser.new_context()
    pages = [Watched(context).open(stage, "#/tags") for _ in range(8)]
    for page in pages:
        expect(page.get_by_text("1009 tags", exact=True)).to_be_visible()
    pages[0].close()
    pages[7].get_by_label("Filter tags").fill("press-1/PV")
    value = row(pages[7], "press-1/PV").locator(".value")
    before = value.inner_text()
    expect(value).not_to_have_text(before)
    context.close()


def test_a_browser_without_shared_workers_has_a_stream_of_its_own(browser: Browser, stage: Stage) -> None:
    context = browser.new_context()
    context.add_init_script("delete globalThis.SharedWorker")
    page = Watched(context).open(stage, "#/tags")
    expect(page.get_by_text("1009 tags", exact=True)).to_be_visible()
    context.close()


# --- components ---------------------------------------------------------------------------------------------------


def test_the_ledger_balances_and_says_why_some_were_not_delivered(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/components")
    expect(page.get_by_text("The ledger balances")).to_be_visible()
    expect(page.get_by_text(re.compile("3 samples from plc to mqtt rejected: text above 1 MB"))).to_be_visible()
    expect(page.get_by_text("plc reports that 3 values were lost on its side")).to_be_visible()
    expect(page.get_by_text("127.0.0.1:1883 refuses the connection")).to_be_visible()


def test_what_a_sink_refused_is_offered_again_or_thrown_away(desktop: Watched, phone: Watched, tmp_path: Path) -> None:
    with Stage(tmp_path, 1) as stage:
        page = desktop.open(stage, "#/components")
        expect(page.get_by_role("heading", name="Refused: 4 samples")).to_be_visible()
        expect(page.get_by_text("mqtt refused 3 samples from plc: text above 1 MB")).to_have_count(1)  # of two letters
        expect(page.locator("code", has_text="topic")).to_be_visible()
        assert violations(page) == []
        small = phone.open(stage, "#/components")
        for shown, name in ((page, "refused"), (small, "refused-phone")):
            shown.get_by_role("heading", name="Who did what").scroll_into_view_if_needed()
            picture(shown, name)
        assert violations(small) == []
        page.get_by_role("button", name="Offer all again").click()
        expect(page.get_by_text("3 letters offered again")).to_be_visible()
        expect(page.get_by_role("heading", name="Refused: 2 samples")).to_be_visible()  # one was refused once more
        page.get_by_role("button", name="Throw away: mqtt, text above 1 MB").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Throw away: mqtt, text above 1 MB").click()
        page.get_by_role("dialog").get_by_role("button", name="Throw away").click()
        expect(page.get_by_text("1 letter thrown away")).to_be_visible()
        expect(page.get_by_role("heading", name="Refused:")).to_have_count(0)
    assert desktop.complaints == []


# --- nothing there ------------------------------------------------------------------------------------------------


def test_an_empty_plant_says_what_to_do(desktop: Watched, empty: Stage) -> None:
    for address, texts in {
        "#/": ["Nothing is connected yet", "No machines yet"],
        "#/tags": ["No tags yet", "Connect an OPC UA server in the plant file"],
        "#/trend": ["Choose a tag"],
        "#/components": ["No components yet", "Nothing to account for yet", "No records yet"],
    }.items():
        page = desktop.open(empty, address)
        for text in texts:
            expect(page.get_by_text(text).first).to_be_visible()
        assert violations(page) == []
        picture(page, f"empty-{address.strip('#/') or 'overview'}")
    assert desktop.complaints == []
