"""The pages of the console in a real browser, against the real API over a plant that acts (stage.py)."""

import json
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, expect, sync_playwright

from shopfloor.testing.programs import ServerProcess, free_port, missing, require_program

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
APP: Final = ROOT / "src" / "shopfloor" / "console" / "app"
AXE: Final = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
)  # fmt: skip
PATIENCE: Final = 15_000
"""ms that a page may take to show what it must."""
PAGES: Final = {
    "overview": "#/",
    "tags": "#/tags",
    "trend": "#/trend?tag=press-1/PV&tag=press-1/SP&range=5m",
    "buckets": "#/trend?tag=press-1/PV&tag=oven-2/Temperature&range=24h",
    "machine": "#/machines/press-1",
    "components": "#/components",
}


class Stage(ServerProcess):
    """The console of a plant that acts, in a process of its own."""

    def __init__(self, folder: Path, sensors: int) -> None:
        port = free_port()
        super().__init__([sys.executable, Path(__file__).with_name("stage.py"), str(port), folder, str(sensors)], port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def audit(self, after: int = 0) -> list[tuple[str, str, str]]:
        """Event, tag and detail of the records behind a number, oldest first."""
        records = self.ask("api/audit?limit=1000")["records"]
        return [(r["event"], r["tag"], r["detail"]) for r in reversed(records) if r["number"] > after]

    def last_record(self) -> int:
        records = self.ask("api/audit?limit=1")["records"]
        return int(records[0]["number"]) if records else 0


def until(question: Callable[[], T], seconds: float = 10) -> T:
    """Ask until the answer is true; the last answer when time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        expect.set_options(timeout=PATIENCE)
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    program = require_program("chromium", "apt-get install chromium")
    if not (APP / "index.html").is_file():
        missing("the web app is not built", "make web")
    browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage"), 1_000) as stage:
        yield stage


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The console of a plant file that declares nothing."""
    with Stage(tmp_path_factory.mktemp("empty"), -1) as stage:
        yield stage


class Watched:
    """A page and everything that went wrong on it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def open(self, stage: Stage, address: str) -> Page:
        self.page.goto(stage.url + address)
        expect(self.page.locator(".stream")).to_have_text("Live")
        return self.page


@pytest.fixture
def desktop(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    yield Watched(context)
    context.close()


@pytest.fixture
def phone(playwright: Playwright, browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(**playwright.devices["Pixel 7"])
    yield Watched(context)
    context.close()


def picture(page: Page, name: str) -> None:
    """Keeps what the page looks like where SHOPFLOOR_PICTURES names a folder, to be looked at."""
    if folder := os.environ.get("SHOPFLOOR_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def settled(page: Page) -> None:
    """Wait for what the pages show first."""
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_function("document.querySelectorAll('main .card, main table, main [role=table]').length > 0")


def violations(page: Page) -> list[str]:
    """What axe finds wrong: rule and place."""
    if not AXE.is_file():
        missing("axe-core is not installed", "npm ci in web/, as make web does")
    page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    return [f"{v['id']}: {node['target']} {node['failureSummary']}" for v in found for node in v["nodes"]]


def row(page: Page, tag: str) -> Locator:
    return page.locator(f'[role="row"][data-tag="{tag}"]')


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
    page.get_by_role("table", name="Tags").focus()
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


# --- trend --------------------------------------------------------------------------------------------------------


def test_trend_shows_the_past_and_goes_on_with_the_present(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/trend?tag=press-1/PV&tag=press-1/SP&range=5m")
    lines = page.get_by_role("table").get_by_role("row")
    # The wave runs between 37 and 43; the set-point has not changed for long and is held all the same.
    expect(lines.nth(1)).to_contain_text(re.compile(r"37\.0\d\d"))
    expect(lines.nth(1)).to_contain_text(re.compile(r"4(2\.9|3\.0)\d\d"))
    expect(lines.nth(1)).to_contain_text("of this window not good")
    expect(lines.nth(2)).to_contain_text("press-1/SP")
    expect(lines.nth(2).get_by_role("cell").nth(1)).to_have_text("40")
    now = lines.nth(1).get_by_role("cell").nth(0)
    before = now.inner_text()
    expect(now).not_to_have_text(before)
    expect(page.get_by_role("img")).to_have_attribute("aria-label", re.compile("The last 5 min: press-1/PV between 3"))


def drawn_share(page: Page, left: float, right: float) -> float:
    """Which share of the columns of the picture between two shares of its width has the first line's colour."""
    share: float = page.evaluate(
        """([left, right]) => {
            const canvas = document.querySelector('.chart canvas');
            const {width, height} = canvas;
            const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
            const plain = getComputedStyle(document.documentElement).getPropertyValue('--series-1').trim();
            const [r, g, b] = [1, 3, 5].map(i => parseInt(plain.slice(i, i + 2), 16));
            let drawn = 0, columns = 0;
            for (let x = Math.floor(left * width); x < right * width; x++, columns++) {
                for (let y = 0; y < height; y++) {
                    const i = 4 * (y * width + x);
                    const far = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b);
                    if (far < 30 && data[i + 3] > 200) {
                        drawn++;
                        break;
                    }
                }
            }
            return drawn / columns;
        }""",
        [left, right],
    )
    return share


def where(page: Page) -> Callable[[float], float]:
    """Turns seconds ago, in a window of five minutes, into a share of the picture's width."""
    width, left, right = page.evaluate(
        """() => {
            const box = document.querySelector('.u-over').getBoundingClientRect();
            const canvas = document.querySelector('.chart canvas').getBoundingClientRect();
            return [canvas.width, box.left - canvas.left, box.right - canvas.left];
        }"""
    )
    return lambda seconds_ago: float((right - (right - left) * seconds_ago / 300) / width)


def test_holes_and_bad_values_are_gaps_in_the_line(desktop: Watched, stage: Stage) -> None:
    """From 150 to 120 s ago nothing arrived, from 60 to 50 s ago values were bad; elsewhere there is a line."""
    page = desktop.open(stage, "#/trend?tag=press-1/PV&range=5m")
    expect(page.get_by_role("table")).to_contain_text("of this window not good")
    at = where(page)
    assert until(lambda: drawn_share(page, at(190), at(160)) > 0.95)
    assert drawn_share(page, at(146), at(126)) == 0
    assert drawn_share(page, at(112), at(66)) > 0.95
    assert drawn_share(page, at(58), at(53)) == 0


def test_a_value_that_did_not_change_is_drawn_but_not_while_its_source_was_away(desktop: Watched, stage: Stage) -> None:
    """From 220 to 200 s ago the PLC was away: nobody knows what the set-point was, although it is the same again."""
    page = desktop.open(stage, "#/trend?tag=press-1/SP&range=5m")
    expect(page.get_by_role("table")).to_contain_text("of this window not good")
    at = where(page)
    assert until(lambda: drawn_share(page, at(290), at(230)) > 0.95)
    assert drawn_share(page, at(216), at(206)) == 0
    assert drawn_share(page, at(190), at(10)) > 0.95


def test_every_range_can_be_chosen_and_shown(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/trend?tag=press-1/PV")
    for label in ("5 min", "15 min", "1 h", "6 h", "24 h", "7 d", "30 d", "90 d"):
        page.get_by_role("group", name="How far back").get_by_role("link", name=label, exact=True).click()
        expect(page.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile(f"The last {label}: press-1/PV between")
        )
    expect(page.get_by_text("average, lowest and highest of every 6 h")).to_be_visible()
    # The band of buckets reaches one bar further than the wave.
    expect(page.get_by_role("table")).to_contain_text("44.000")
    assert desktop.complaints == []


def test_tags_are_added_and_removed_and_unknown_ones_are_told(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/trend")
    expect(page.get_by_text("Choose a tag")).to_be_visible()
    field = page.get_by_label("Add a tag")
    for typed in ("press-1/PV", "Temperature"):
        field.fill(typed)
        page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("rowheader")).to_have_count(2)
    field.fill("nothing")
    page.keyboard.press("Enter")
    expect(page.get_by_text("There is no tag “nothing”")).to_be_visible()
    field.fill("sensor")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Many tags match: choose one")).to_be_visible()
    page.get_by_role("link", name="Remove press-1/PV").click()
    expect(page.get_by_role("rowheader")).to_have_text("oven-2/Temperature")
    page.go_back()
    expect(page.get_by_role("rowheader")).to_have_count(2)


def test_dragging_looks_closer_and_the_way_back_is_one_click(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/trend?tag=press-1/PV&range=5m")
    expect(page.get_by_role("table")).to_contain_text(re.compile(r"37\.0\d\d"))
    over = page.locator(".u-over").bounding_box()
    assert over is not None
    page.mouse.move(over["x"] + 200, over["y"] + 100)
    page.mouse.down()
    page.mouse.move(over["x"] + 500, over["y"] + 120, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile("from=\\d+&to=\\d+"))
    expect(page.get_by_role("table")).to_contain_text("press-1/PV")
    page.get_by_role("button", name="Earlier").click()
    page.get_by_role("link", name="Back to now").click()
    expect(page).not_to_have_url(re.compile("from="))


def test_an_address_that_leads_nowhere_is_told(desktop: Watched, stage: Stage) -> None:
    for address, text in {
        "#/nothing": "There is no such page",
        "#/machines/press-9": "There is no machine of this name",
        "#/machines/%3Cscript%3E": "There is no machine of this name",
        "#/trend?tag=no/such/tag": "no/such/tag: ",
        "#/trend?tag=press-1/PV&range=nonsense&from=x&to=-5": "press-1/PV",
    }.items():
        page = desktop.open(stage, address)
        expect(page.locator("main")).to_contain_text(text)


# --- the machine --------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(desktop: Watched, stage: Stage) -> Page:
    page = desktop.open(stage, "#/machines/press-1")
    expect(button(page, "Start")).to_contain_text("Press and hold")
    return page


def button(page: Page, name: str) -> Locator:
    return page.locator(f'button[data-tag="press-1/{name}"]')


def held(page: Page, name: str) -> None:
    expect(button(page, name)).to_contain_text("Held")
    expect(button(page, name)).to_have_attribute("aria-pressed", "true")


def released(page: Page, stage: Stage, name: str, after: int, reason: str) -> None:
    """The button is up, and the record has one press and one release with this reason."""
    expect(button(page, name)).to_contain_text("Press and hold")
    events = until(lambda: [each for each in stage.audit(after) if each[0] == "release"] and stage.audit(after))
    assert [event for event, _, _ in events].count("press") == 1
    releases = [detail for event, _, detail in events if event == "release"]
    assert len(releases) == 1
    assert reason in releases[0]


def test_start_and_stop_act_while_they_are_held(machine: Page, stage: Stage) -> None:
    """Held past the lease by renewals, released by letting go; the machine's state follows."""
    after = stage.last_record()
    button(machine, "Start").hover()
    machine.mouse.down()
    held(machine, "Start")
    picture(machine, "held")
    before = time.monotonic()
    until(lambda: time.monotonic() - before > 1.2)  # more than two leases
    held(machine, "Start")
    machine.mouse.up()
    released(machine, stage, "Start", after, "pointerup")
    expect(machine.get_by_text("Released", exact=True)).to_be_visible()
    expect(machine.locator("main")).to_contain_text("running")
    button(machine, "Stop").click()
    expect(machine.locator(".badge", has_text="not running")).to_be_visible()


END_OF_HOLDING: Final[dict[str, Callable[[Page], Any]]] = {
    "pointerleave": lambda page: page.mouse.move(5, 5),
    "blur": lambda page: page.evaluate("window.dispatchEvent(new Event('blur'))"),
    "hidden": lambda page: page.evaluate(
        """() => {
            Object.defineProperty(document, 'hidden', {value: true, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    ),
    "another key": lambda page: page.keyboard.press("Escape"),
    "pointercancel": lambda page: page.evaluate(
        "document.querySelector('[data-tag=\"press-1/Start\"]').dispatchEvent(new Event('pointercancel'))"
    ),
}


def test_a_press_is_released_once_by_whatever_ends_it(machine: Page, stage: Stage) -> None:
    for reason, end in END_OF_HOLDING.items():
        after = stage.last_record()
        button(machine, "Start").hover()
        machine.mouse.down()
        held(machine, "Start")
        end(machine)
        released(machine, stage, "Start", after, reason)
        machine.mouse.up()
        assert [event for event, _, _ in stage.audit(after)].count("release") == 1


def test_a_press_by_keyboard_lasts_until_the_key_is_up(machine: Page, stage: Stage) -> None:
    for key in ("Space", "Enter"):
        after = stage.last_record()
        button(machine, "Start").focus()
        for _ in range(4):  # the repetitions of a key that is held
            machine.keyboard.down(key)
        held(machine, "Start")
        machine.keyboard.up(key)
        released(machine, stage, "Start", after, "keyup")


def test_leaving_the_page_releases(machine: Page, stage: Stage) -> None:
    after = stage.last_record()
    button(machine, "Start").hover()
    machine.mouse.down()
    held(machine, "Start")
    machine.evaluate("location.hash = '#/tags'")
    expect(machine.locator("h1")).to_have_text("Tags")
    assert until(lambda: [event for event, _, _ in stage.audit(after)].count("release") == 1)
    machine.mouse.up()


def test_closing_the_browser_releases(browser: Browser, stage: Stage) -> None:
    after = stage.last_record()
    context = browser.new_context()
    page = Watched(context).open(stage, "#/machines/press-1")
    expect(button(page, "Start")).to_contain_text("Press and hold")
    button(page, "Start").hover()
    page.mouse.down()
    held(page, "Start")
    context.close()
    assert until(lambda: [event for event, _, _ in stage.audit(after)].count("release") == 1)


def test_a_page_that_hangs_loses_its_press(machine: Page, stage: Stage) -> None:
    """Renewals come from the page's main thread: while a script hangs there, the lease ends on the server."""
    after = stage.last_record()
    button(machine, "Start").hover()
    machine.mouse.down()
    held(machine, "Start")
    machine.evaluate("{ const end = performance.now() + 1500; while (performance.now() < end); }")
    released(machine, stage, "Start", after, "lease ended")
    expect(machine.get_by_text("Released: Shopfloor did not hear from this page in time")).to_be_visible()
    machine.mouse.up()


def test_a_server_that_dies_releases_on_the_page_and_presses_nothing_later(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context()
    with Stage(tmp_path, 0) as stage:
        page = Watched(context).open(stage, "#/machines/press-1")
        expect(button(page, "Start")).to_contain_text("Press and hold")
        button(page, "Start").hover()
        page.mouse.down()
        held(page, "Start")
        stage.kill()
        expect(button(page, "Start")).to_contain_text("No connection to Shopfloor")
        expect(page.get_by_text("Released: the connection was lost")).to_be_visible()
        stage.start()
        expect(button(page, "Start")).to_contain_text("Press and hold")
        assert [event for event, _, _ in stage.audit()].count("press") == 1
        page.mouse.up()
    context.close()


def test_a_finger_holds_and_slides_off(phone: Watched, stage: Stage) -> None:
    """Touch neither scrolls nor opens a menu; a finger that leaves the button lets go."""
    page = phone.open(stage, "#/machines/press-1")
    expect(button(page, "Start")).to_contain_text("Press and hold")
    assert button(page, "Start").evaluate("each => getComputedStyle(each).touchAction") == "none"
    after = stage.last_record()
    button(page, "Start").scroll_into_view_if_needed()
    box = button(page, "Start").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    held(page, "Start")
    touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y - 300}]})
    released(page, stage, "Start", after, "pointerleave")
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def write(page: Page, value: str) -> None:
    page.get_by_label("SP", exact=True).fill(value)
    page.get_by_role("button", name="Write").click()


def test_a_setpoint_is_written_and_read_back(machine: Page, stage: Stage) -> None:
    write(machine, "42,5")
    expect(machine.get_by_text("Written and read back 42.500 bar")).to_be_visible()
    expect(machine.get_by_text("now 42.500 bar")).to_be_visible()
    picture(machine, "written")
    assert ("done", "press-1/SP") in [(event, tag) for event, tag, _ in stage.audit()]


def test_a_setpoint_that_cannot_be_is_refused_before_it_is_sent(machine: Page, stage: Stage) -> None:
    after = stage.last_record()
    for value, text in {
        "": "Enter a number",
        "abc": "“abc” is not a number",
        "80.5": "Only 0 to 80 bar is accepted",
        "-1": "Only 0 to 80 bar is accepted",
    }.items():
        write(machine, value)
        expect(machine.get_by_text(text)).to_be_visible()
    assert stage.audit(after) == []


def test_why_a_setpoint_was_not_written_is_said(machine: Page) -> None:
    write(machine, "77")
    expect(machine.get_by_text("77 bar was not written")).to_be_visible()
    expect(machine.get_by_text("the PLC refuses this value")).to_be_visible()


def test_an_unknown_outcome_is_said_to_be_unknown(machine: Page) -> None:
    write(machine, "66")
    expect(machine.get_by_text("It is not known whether 66 bar was written")).to_be_visible()
    expect(machine.get_by_text("look at the machine")).to_be_visible()
    picture(machine, "unknown")


def test_the_page_says_what_it_is_not(machine: Page) -> None:
    expect(machine.get_by_text("This page is no safety function and no emergency stop")).to_be_visible()


def test_what_one_may_not_write_is_shown_but_closed(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/machines/oven-2")
    expect(page.get_by_text("Needs the role engineer")).to_be_visible()
    expect(page.get_by_role("button", name="Write on")).to_be_disabled()


# --- components ---------------------------------------------------------------------------------------------------


def test_the_ledger_balances_and_says_why_some_were_not_delivered(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/components")
    expect(page.get_by_text("The ledger balances")).to_be_visible()
    expect(page.get_by_text(re.compile("3 samples from plc to mqtt rejected: text above 1 MB"))).to_be_visible()
    expect(page.get_by_text("plc reports that 3 values were lost on its side")).to_be_visible()
    expect(page.get_by_text("127.0.0.1:1883 refuses the connection")).to_be_visible()


def test_the_record_is_shown_and_checked(machine: Page, stage: Stage) -> None:
    write(machine, "41")
    expect(machine.get_by_text("Written and read back 41 bar")).to_be_visible()
    machine.goto(stage.url + "#/components")
    expect(machine.get_by_label("Who did what")).to_contain_text("press-1/SP")
    machine.get_by_role("button", name="Check the records").click()
    expect(machine.get_by_text(re.compile(r"\d+ records checked: all are as they were written"))).to_be_visible()
    picture(machine, "record")


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
