"""A press is a lease: at most one true, then at least one false, whatever happens in which order."""

import asyncio
import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from shopfloor.commands import Refused
from shopfloor.samples import Outcome, Unavailable
from tests.commands.shop import Shop

SECOND = 10**9
MS = 10**6
START = "press-1/Start"
STOP = "press-1/Stop"


async def press(shop: Shop, press_id: str = "p1", who: str = "ada", session: str = "", tag: str = START) -> Outcome:
    return await shop.commands.press(tag, press_id, issued_by=who, role="operator", session=session)


async def refused(shop: Shop, *args: str, **more: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await press(shop, *args, **more)
    return caught.value


def writes(shop: Shop, tag: str = START) -> list[object]:
    return [value for written, value in shop.machine.writes if written == tag]


async def test_a_press_writes_true_and_its_release_false(shop: Shop) -> None:
    outcome = await press(shop)
    assert outcome.done
    assert shop.commands.release("p1", "pointerup")
    release = asyncio.ensure_future(shop.commands.released("p1"))
    await shop.clock.advance(0)
    assert (await release).reason == "pointerup"
    assert (await release).outcome.done
    assert writes(shop) == [True, False]
    assert await shop.events() == [
        ("press", START, True),
        ("done", START, True),
        ("release", START, False),
        ("done", START, False),
    ]
    assert await shop.commands._audit.pending() == []


async def test_a_press_that_is_not_renewed_ends_by_itself(shop: Shop) -> None:
    await press(shop)
    await shop.clock.advance(499 * MS)
    assert writes(shop) == [True]
    await shop.clock.advance(MS)
    assert writes(shop) == [True, False]
    assert not shop.commands.renew("p1", 1)
    assert (await shop.commands.audit(2))[1].detail == "lease ended"


async def test_renewals_keep_it_and_a_delayed_one_does_not_lengthen_it(shop: Shop) -> None:
    await press(shop)
    for sequence in range(1, 11):
        await shop.clock.advance(400 * MS)
        assert shop.commands.renew("p1", sequence)
    assert writes(shop) == [True]
    await shop.clock.advance(400 * MS)
    for late in (3, 10, -1):
        assert shop.commands.renew("p1", late)
    await shop.clock.advance(100 * MS)
    assert writes(shop) == [True, False]


async def test_a_renewal_after_the_lease_ends_the_press_even_before_the_timer_saw_it(shop: Shop) -> None:
    await press(shop)
    shop.clock.mono += 600 * MS
    assert not shop.commands.renew("p1", 1)
    await shop.clock.advance(0)
    assert writes(shop) == [True, False]


async def test_a_second_release_changes_nothing(shop: Shop) -> None:
    await press(shop)
    assert shop.commands.release("p1", "pointerup")
    assert not shop.commands.release("p1", "blur")
    await shop.clock.advance(SECOND)
    assert not shop.commands.release("p1", "blur")
    assert not shop.commands.renew("p1", 1)
    assert writes(shop) == [True, False]


async def test_what_was_never_pressed_can_be_neither_renewed_nor_released(shop: Shop) -> None:
    assert not shop.commands.renew("nothing", 1)
    assert not shop.commands.release("nothing", "pointerup")
    with pytest.raises(KeyError):
        await shop.commands.released("nothing")


async def test_a_tap_that_is_over_before_it_was_carried_out_is_still_a_tap(shop: Shop) -> None:
    pressing = asyncio.ensure_future(press(shop))
    await asyncio.sleep(0)
    assert shop.commands.release("p1", "pointerup")
    await shop.clock.advance(0)
    assert (await pressing).done
    assert writes(shop) == [True, False]


async def test_a_connection_lost_before_it_was_carried_out_writes_no_true(shop: Shop) -> None:
    pressing = asyncio.ensure_future(press(shop))
    await asyncio.sleep(0)
    assert shop.commands.release("p1", "socket closed", by_person=False)
    await shop.clock.advance(0)
    assert (await pressing).done is False
    assert writes(shop) == [False]


async def test_a_true_older_than_its_lease_is_not_written_even_if_it_is_renewed(shop: Shop) -> None:
    pressing = asyncio.ensure_future(press(shop))
    await asyncio.sleep(0)
    shop.clock.mono += 400 * MS
    assert shop.commands.renew("p1", 1)
    shop.clock.mono += 200 * MS
    await shop.clock.advance(0)
    assert (await pressing).done is False
    assert True not in writes(shop)


async def test_false_waits_for_a_true_that_is_under_way_so_it_cannot_be_overtaken(shop: Shop) -> None:
    shop.machine.hangs.clear()
    pressing = asyncio.ensure_future(press(shop))
    await shop.clock.advance(100 * MS)
    shop.commands.release("p1", "pointerup")
    await shop.clock.advance(100 * MS)
    assert [c.value for c in shop.machine.commands] == [True]
    shop.machine.hangs.set()
    await shop.clock.advance(0)
    assert (await pressing).done
    assert writes(shop) == [True, False]


async def test_a_true_that_hangs_is_given_up_one_lease_after_the_press_ended(shop: Shop) -> None:
    shop.machine.hangs.clear()
    pressing = asyncio.ensure_future(press(shop))
    await shop.clock.advance(999 * MS)
    assert [c.value for c in shop.machine.commands] == [True]
    await shop.clock.advance(2 * MS)
    assert (await pressing).done is None
    shop.machine.hangs.set()
    await shop.clock.advance(10 * SECOND)
    assert writes(shop) == [False]


async def test_a_second_person_is_refused_and_told_who_holds_it(shop: Shop) -> None:
    await press(shop)
    refusal = await refused(shop, "p2", "bob")
    assert (refusal.reason, refusal.held_by) == ("held", "ada")
    assert "ada holds press-1/Start" in str(refusal)
    permission = shop.commands.permission(START)
    assert permission is not None
    assert permission.held_by == "ada"
    assert writes(shop) == [True]
    shop.commands.release("p1", "pointerup")
    await shop.clock.advance(0)
    assert (await press(shop, "p3", "bob")).done


async def test_the_same_person_in_another_window_is_refused_too(shop: Shop) -> None:
    await press(shop, session="window 1")
    assert (await refused(shop, "p2", "ada", session="window 2")).reason == "held"


async def test_a_new_press_from_the_same_window_supersedes_the_old_one(shop: Shop) -> None:
    await press(shop, "p1", session="w")
    second = asyncio.ensure_future(press(shop, "p2", session="w"))
    await shop.clock.advance(0)
    assert (await second).done
    assert writes(shop) == [True, False, True]
    assert not shop.commands.renew("p1", 9)
    assert shop.commands.renew("p2", 1)
    await shop.clock.advance(SECOND)
    assert writes(shop) == [True, False, True, False]


async def test_the_same_press_id_again_is_the_same_press(shop: Shop) -> None:
    both = [asyncio.ensure_future(press(shop)) for _ in range(2)]
    await shop.clock.advance(0)
    assert (await both[0]) == (await both[1])
    assert writes(shop) == [True]
    assert (await refused(shop, "p1", "bob")).reason == "conflict"
    await shop.clock.advance(SECOND)
    assert (await refused(shop, "p1")).reason == "conflict"
    assert writes(shop) == [True, False]


@pytest.mark.parametrize(
    ("tag", "press_id", "reason"),
    [("press-1/SP", "p", "not_momentary"), ("nowhere", "p", "not_allowed"), (START, "a b", "id")],
)
async def test_only_buttons_can_be_pressed(shop: Shop, tag: str, press_id: str, reason: str) -> None:
    assert (await refused(shop, press_id, tag=tag)).reason == reason
    assert [event for event, _, _ in await shop.events()] == ["refused"]


async def test_a_viewer_may_not_press(shop: Shop) -> None:
    with pytest.raises(Refused, match="takes the role operator; this is viewer"):
        await shop.commands.press(START, "p1", issued_by="eve", role="viewer")


async def test_a_release_is_repeated_until_the_machine_is_back(shop: Shop) -> None:
    await press(shop)
    shop.machine.connected = False
    shop.commands.release("p1", "pointerup")
    first = asyncio.ensure_future(shop.commands.released("p1"))
    await shop.clock.advance(20 * SECOND)
    assert (await first).outcome.done is False
    refusal = await refused(shop, "p2")
    assert refusal.reason == "held"
    assert "still being written" in str(refusal)
    shop.machine.connected = True
    await shop.clock.advance(2 * SECOND)
    assert writes(shop) == [True, False]
    assert [event for event, _, _ in await shop.events()][-3:] == ["failed", "refused", "done"]
    second = asyncio.ensure_future(press(shop, "p3"))
    await shop.clock.advance(0)
    assert (await second).done


async def test_a_source_that_connects_gets_its_owed_release_at_once(shop: Shop) -> None:
    await press(shop)
    shop.machine.connected = False
    shop.commands.release("p1", "pointerup")
    await shop.clock.advance(20 * SECOND)
    shop.machine.connected = True
    await shop.commands.recover()
    await shop.clock.advance(0)
    assert writes(shop) == [True, False]


async def test_after_a_true_that_was_certainly_not_written_one_false_is_tried_and_none_owed(shop: Shop) -> None:
    shop.machine.connected = False
    assert (await press(shop)).done is False
    await shop.clock.advance(SECOND)
    assert [c.value for c in shop.machine.commands] == [True, False]
    shop.machine.connected = True
    await shop.clock.advance(10 * SECOND)
    assert writes(shop) == []
    assert (await press(shop, "p2")).done


async def test_after_a_true_of_unknown_outcome_false_is_owed(shop: Shop) -> None:
    shop.machine.error = Unavailable("cable")
    assert (await press(shop)).done is None
    await shop.clock.advance(5 * SECOND)
    shop.machine.error = None
    await shop.clock.advance(5 * SECOND)
    assert writes(shop) == [False]


async def test_a_press_that_was_open_at_a_crash_is_released_at_the_next_start(shop: Shop) -> None:
    await press(shop)
    await shop.restart()
    await shop.clock.advance(0)
    assert writes(shop) == [True, False]
    events = await shop.commands.audit(10)
    assert [(r.event, r.detail) for r in events[:2]] == [("done", "read back False"), ("release", "restart")]
    await shop.restart()
    await shop.clock.advance(SECOND)
    assert writes(shop) == [True, False]


async def test_a_release_owed_at_a_crash_is_still_owed_at_the_next_start(shop: Shop) -> None:
    await press(shop)
    shop.machine.connected = False
    shop.commands.release("p1", "pointerup")
    await shop.clock.advance(5 * SECOND)
    await shop.restart()
    await shop.clock.advance(5 * SECOND)
    shop.machine.connected = True
    await shop.commands.recover()
    await shop.clock.advance(0)
    assert writes(shop) == [True, False]
    assert await shop.commands._audit.pending() == []


async def test_a_press_that_cannot_be_recorded_is_not_carried_out(shop: Shop) -> None:
    assert shop.commands._audit._db is not None
    shop.commands._audit._db.execute("PRAGMA query_only = 1")
    with pytest.raises(Unavailable):
        await press(shop)
    assert shop.machine.commands == []


async def test_a_release_does_not_wait_for_a_disk_that_fails(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    await press(shop)
    assert shop.commands._audit._db is not None
    shop.commands._audit._db.execute("PRAGMA query_only = 1")
    shop.commands.release("p1", "pointerup")
    await asyncio.wait_for(shop.commands.released("p1"), 30)
    await shop.clock.advance(0)
    assert writes(shop) == [True, False]
    assert "could not be recorded" in caplog.text


async def test_stopping_releases_every_button(shop: Shop) -> None:
    await press(shop)
    await press(shop, "p2", tag=STOP)
    stopping = asyncio.ensure_future(shop.commands.__aexit__())
    await asyncio.wait_for(stopping, 30)
    assert writes(shop) == [True, False]
    assert writes(shop, STOP) == [True, False]
    await shop.enter()
    assert await shop.commands._audit.pending() == []


async def test_stopping_does_not_wait_for_ever_and_the_next_start_goes_on(shop: Shop) -> None:
    await press(shop)
    shop.machine.hangs.clear()
    stopping = asyncio.ensure_future(shop.commands.__aexit__())
    await asyncio.sleep(0.01)
    await asyncio.wait({stopping}, timeout=0)
    while not stopping.done():
        shop.clock.mono += SECOND
        for _, _, woken in shop.clock._sleepers:
            woken.set()
        await asyncio.sleep(0.005)
    shop.machine.hangs.set()
    await shop.enter()
    await shop.clock.advance(0)
    assert writes(shop) == [True, False]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("press"), st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["ada", "bob"])),
        st.tuples(st.just("renew"), st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 5)),
        st.tuples(st.just("release"), st.sampled_from(["a", "b", "c", "d"]), st.booleans()),
        st.tuples(st.just("advance"), st.sampled_from([0, 1, 100, 499, 500, 501, 1100, 7000]), st.none()),
        st.tuples(
            st.sampled_from(["hang", "go on", "cut", "connect", "break", "mend", "crash", "recover"]),
            st.none(),
            st.none(),
        ),
        st.tuples(st.just("clock jumps"), st.integers(-10, 10), st.none()),
    ),
    max_size=14,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_whatever_happens_there_is_at_most_one_true_a_press_and_a_false_is_last(
    steps: list[tuple[str, object, object]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_play(Shop(Path(folder)), steps))


async def _play(shop: Shop, steps: list[tuple[str, object, object]]) -> None:
    await shop.enter()
    waiting: list[asyncio.Future[Outcome]] = []
    for kind, first, second in steps:
        await _step(shop, waiting, kind, first, second)
    await _step(shop, waiting, "go on", None, None)
    await _step(shop, waiting, "mend", None, None)
    await _step(shop, waiting, "connect", None, None)
    await shop.clock.advance(30 * SECOND)
    await asyncio.gather(*waiting, return_exceptions=True)
    ids = {command.id.partition("~")[0] for command in shop.machine.commands}
    for press_id in ids:
        values = [c.value for c in shop.machine.commands if c.id.partition("~")[0] == press_id]
        assert values.count(True) <= 1
        assert values[-1] is False
        assert True not in values[1:]
    written = writes(shop)
    assert not written or written[-1] is False
    assert not any(one is two is True for one, two in itertools.pairwise(written))
    assert await shop.commands._audit.pending() == []
    assert (await shop.commands.verify()).intact
    await shop.commands.__aexit__()


async def _step(shop: Shop, waiting: list[asyncio.Future[Outcome]], kind: str, first: object, second: object) -> None:  # noqa: C901  # a table of moves
    match kind:
        case "press":
            waiting.append(asyncio.ensure_future(press(shop, str(first), str(second))))
            await asyncio.sleep(0)
        case "renew":
            shop.commands.renew(str(first), int(str(second)))
        case "release":
            shop.commands.release(str(first), "let go", by_person=bool(second))
        case "advance":
            await shop.clock.advance(int(str(first)) * MS)
        case "clock jumps":
            shop.clock.utc += int(str(first)) * SECOND
        case "hang":
            shop.machine.hangs.clear()
        case "go on":
            shop.machine.hangs.set()
        case "cut" | "connect":
            shop.machine.connected = kind == "connect"
        case "break" | "mend":
            shop.machine.error = Unavailable("cable") if kind == "break" else None
        case "crash":
            await shop.restart()
        case _:
            await shop.commands.recover()
