"""The trend page in a real browser."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.console.pages import Stage, Watched, until


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
    # By the keyboard: rows move when their figures come, and a press that a row moves away under is no click.
    page.get_by_role("link", name="Remove press-1/PV").press("Enter")
    expect(page.get_by_role("rowheader")).to_have_text("oven-2/Temperature")
    page.go_back()
    expect(page.get_by_role("rowheader")).to_have_count(2)


def test_dragging_looks_closer_and_the_way_back_is_one_click(desktop: Watched, stage: Stage) -> None:
    page = desktop.open(stage, "#/trend?tag=press-1/PV&range=5m")
    expect(page.get_by_role("table")).to_contain_text(re.compile(r"37\.0\d\d"))
    chart = page.locator(".u-over")
    chart.hover()  # waits until it is visible and rests: it is made anew when the page becomes as wide as it will be
    over = chart.bounding_box()
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


def test_while_the_past_cannot_be_had_live_values_go_on(desktop: Watched, stage: Stage) -> None:
    """And once it can, it is there without a hand's turn."""
    asked = "**/api/history?*"
    body = '{"title": "The past cannot be shown now", "detail": "the historian is away"}'
    desktop.page.route(
        asked, lambda route: route.fulfill(status=503, content_type="application/problem+json", body=body)
    )
    page = desktop.open(stage, "#/trend?tag=press-1/PV&range=5m")
    expect(page.get_by_text("The past cannot be shown now")).to_be_visible()
    row = page.get_by_role("table").get_by_role("row").nth(1)
    expect(row.get_by_role("cell").nth(1)).to_have_text(re.compile(r"\d"))
    expect(page.get_by_role("img")).to_have_attribute("aria-label", re.compile("press-1/PV between"))
    page.unroute(asked)
    expect(row).to_contain_text(re.compile(r"37\.0\d\d"))  # the lowest of the whole window
    expect(page.get_by_text("The past cannot be shown now")).to_have_count(0)
