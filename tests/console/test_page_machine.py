"""The machine page in a real browser: buttons that act while they are held, and set-points."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.console.pages import Stage, Watched, picture, until


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
    releases = until(lambda: ends(stage, after))
    assert len(releases) == 1
    assert [event for event, _, _ in stage.audit(after)].count("press") == 1
    assert reason in releases[0]


def ends(stage: Stage, after: int) -> list[str]:
    """Why presses ended behind a record's number."""
    return [detail for event, _, detail in stage.audit(after) if event == "release"]


def press_longer_than_a_lease(page: Page, stage: Stage, name: str) -> tuple[int, str, str | None]:
    """The number of the record before it, and what the button said and was while it was held."""
    after = stage.last_record()
    button(page, name).hover()
    page.mouse.down()
    until(lambda: "Held" in button(page, name).inner_text() or ends(stage, after))
    said, pressed = button(page, name).inner_text(), button(page, name).get_attribute("aria-pressed")
    picture(page, "held")
    until(lambda: ends(stage, after), 5)
    page.mouse.up()
    until(lambda: ends(stage, after))
    return after, said, pressed


def test_start_and_stop_act_while_they_are_held(machine: Page, stage: Stage) -> None:
    """Held past the lease by renewals, released by letting go; the machine's state follows."""
    for _ in range(5):  # where the whole machine hangs for seconds, the press ends, as it must: then once more
        after, said, pressed = press_longer_than_a_lease(machine, stage, "Start")
        expect(button(machine, "Start")).to_contain_text("Press and hold")
        if any("pointerup" in reason for reason in ends(stage, after)):
            break
    assert "Held" in said
    assert pressed == "true"
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
    machine.evaluate("{ const end = performance.now() + 6000; while (performance.now() < end); }")
    released(machine, stage, "Start", after, "lease ended")
    # A renewal that was on its way then is answered before the end of the press is told.
    told = re.compile("Released: (Shopfloor did not hear from this page in time|the press was over already)")
    expect(machine.get_by_text(told)).to_be_visible()
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
    button(page, "Start").tap(trial=True)  # touches nothing, but waits until it is in view and rests
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


def test_a_refusal_takes_the_place_of_the_success_before_it(machine: Page) -> None:
    write(machine, "41")
    expect(machine.get_by_text("Written and read back 41 bar")).to_be_visible()
    write(machine, "99")
    expect(machine.get_by_text("Only 0 to 80 bar is accepted")).to_be_visible()
    expect(machine.get_by_text("Written and read back 41 bar")).to_have_count(0)


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


def test_the_record_is_shown_and_checked(machine: Page, stage: Stage) -> None:
    write(machine, "41")
    expect(machine.get_by_text("Written and read back 41 bar")).to_be_visible()
    machine.goto(stage.url + "#/components")
    expect(machine.get_by_label("Who did what")).to_contain_text("press-1/SP")
    machine.get_by_role("button", name="Check the records").click()
    expect(machine.get_by_text(re.compile(r"\d+ records checked: all are as they were written"))).to_be_visible()
    picture(machine, "record")
