"""Windows: closed once, corrected by what comes late; at the end the same as if everything had come in time."""

from datetime import date
from typing import Any

from hypothesis import given, settings, strategies as st

from shopfloor.kpi.account import Account, TimeClass
from shopfloor.kpi.calendar import Calendar, Planned, Rule, Window
from shopfloor.kpi.facts import Edit, Facts, Role, Touched
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import MINUTE, Spec
from shopfloor.kpi.windows import Result, StopResult, Windows

BEGIN = 1_767_571_200 * 10**9  # Monday 2026-01-05, 00:00 UTC
HOUR = 60 * MINUTE
END = BEGIN + 40 * HOUR
EARLY = Planned("early", 6 * 60, 14 * 60, ((9 * 60, 9 * 60 + 15),))
LATE = Planned("late", 14 * 60, 22 * 60 + 30)
NIGHT = Planned("night", 22 * 60 + 30, 30 * 60)
CALENDAR = Calendar(
    "Europe/Berlin", [(EARLY, LATE, NIGHT)] * 5 + [()] * 2, [Rule(date(2026, 1, 6), date(2026, 1, 6), (EARLY,))]
)

Fact = tuple[int, Role, object, int]
"""Minute, role, value, minutes of delay."""

facts = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 40 * 60 - 1), st.just("state"), st.sampled_from([6, 6, 4, 9, 3, 17]), st.integers(0, 900)
        ),
        st.tuples(st.integers(0, 40 * 60 - 1), st.just("good"), st.integers(0, 50), st.integers(0, 900)),
        st.tuples(st.integers(0, 40 * 60 - 1), st.just("fault"), st.sampled_from([0, 7, 7, 8]), st.integers(0, 900)),
    ),
    max_size=40,
)


SPEC = Spec(
    "m",
    {"state": "m/state", "good": "m/good", "fault": "m/fault"},
    ideal_cycle=MINUTE,
    reasons={"7": "organisation/pallet"},
    longest={"organisation/pallet": 90 * MINUTE},
)


def run(told: list[Fact], *, late: bool, every: int = 20) -> tuple[dict[Window, Result], dict[int, StopResult]]:
    """The last that was said of each window and of each stop."""
    machine = Machine(SPEC)
    windows = Windows(machine, CALENDAR, 100 * HOUR)
    waiting = sorted(told, key=lambda fact: (fact[0] + (fact[3] if late else 0), fact[0], fact[1]))
    last: dict[Window, Result] = {}
    stops: dict[int, StopResult] = {}
    for minute in range(0, 60 * 60, every):
        now = BEGIN + minute * MINUTE
        while waiting and waiting[0][0] + (waiting[0][3] if late else 0) <= minute:
            at, role, value, _ = waiting.pop(0)
            time = BEGIN + at * MINUTE
            windows.touch(machine.facts.take(role, time, value, "plc"), "late from plc", now)  # type: ignore[arg-type]
        for result in windows.tick(now):
            before = last.get(result.window)
            assert result.revision == (0 if before is None else before.revision + 1)
            assert result.was == (None if before is None else before.account)
            assert bool(result.why) == (before is not None)
            last[result.window] = result
        for stop in windows.stops(now):
            assert stop != stops.get(stop.start), "nothing is said twice"
            if stop.withdrawn:
                del stops[stop.start]
            else:
                stops[stop.start] = stop
        found = windows.live(now)
        if found is not None:
            window, account = found
            assert account.length == now - window.start
    return last, stops


def unique(told: list[Any]) -> list[Fact]:
    return list({(minute, role): (minute, role, value, delay) for minute, role, value, delay in told}.values())


@settings(max_examples=60, deadline=None)
@given(facts.map(unique))
def test_late_data_repairs_every_window(told: list[Fact]) -> None:
    """What is said last is what would have been said at once if everything had come in time."""
    (in_time, stops), (late, late_stops) = run(told, late=False), run(told, late=True)
    assert late_stops == stops
    for window, result in late.items():
        if window in in_time:
            assert result.account == in_time[window].account, window
    assert set(late) == set(in_time)


@settings(max_examples=30, deadline=None)
@given(facts.map(unique).filter(bool))
def test_windows_sum_and_are_whole(told: list[Fact]) -> None:
    """Every window is as long as the calendar says; the hours of a day sum to it, and so do its shifts and the rest."""
    results, _ = run(told, late=True)
    for window, result in results.items():
        if window.kind != "shift":
            assert result.account.length == window.end - window.start
    for day in (result for window, result in results.items() if window.kind == "day"):
        shifts = Account()
        for window, result in results.items():
            if window.kind == "shift" and window.day == day.window.day:
                shifts += result.account
        assert shifts.times[TimeClass.PRODUCTION] == day.account.times[TimeClass.PRODUCTION]
        assert shifts.good == day.account.good
        assert day.account.length - shifts.length == day.account.times[TimeClass.NOT_SCHEDULED]


ROLES: list[dict[Role, str]] = [{"state": "m/state", "good": "m/good"}, {"good": "m/good"}]
moments = st.integers(0, 2 * 3600)
often = st.lists(
    st.one_of(
        st.tuples(
            moments, st.just("state"), st.sampled_from([6, 6, 6, 4, 9, 3, 99]), st.just(0) | st.integers(0, 3600)
        ),
        st.tuples(moments, st.just("good"), st.integers(0, 9), st.just(0) | st.integers(0, 3600)),
        st.tuples(moments, st.just("lost"), st.just(0), st.integers(0, 100)),
        st.tuples(moments, st.just("kept"), st.integers(0, 900), st.integers(0, 1000)),
        st.tuples(moments, st.just("said"), st.integers(-900, 900), st.integers(0, 1000)),
    ),
    max_size=40,
)


def tell(facts: Facts, what: Any, time: int, value: int) -> Touched | None:
    if what == "lost":
        return facts.lose("plc", time)
    if what == "kept":
        return facts.cover("plc", time, time + value * 10**9)
    if what == "said":
        other = time + value * 10**9
        return facts.edit(Edit(min(time, other), max(time, other), "x"))
    return facts.take(what, time, value, "plc") if what in facts.lines else None


@settings(max_examples=20, deadline=None)
@given(often, st.sampled_from([None, 200 * 10**9]), st.sampled_from(ROLES), st.sampled_from([7, 31, 200]))
def test_the_running_cell_is_what_one_would_find_who_looks_for_the_first_time(
    told: list[tuple[int, str, int, int]], stale: int | None, roles: dict[Role, str], every: int
) -> None:
    """Live figures go on from what was settled; late samples, losses and reasons take back what they touch."""
    machine = Machine(Spec("m", roles, ideal_cycle=MINUTE, stale=stale, minor_stop_below=3 * MINUTE))
    facts, windows = machine.facts, Windows(machine, CALENDAR, 100 * HOUR)
    for at in range(0, 2 * 3600, 40):
        told = [*told, (at, "good", at // 40, 0)]
    waiting = sorted(told, key=lambda fact: (fact[0] + fact[3], fact))
    for second in range(0, 2 * 3600, every):
        now = BEGIN + 5 * HOUR + second * 10**9
        while waiting and waiting[0][0] + waiting[0][3] < second:
            at, what, value, _ = waiting.pop(0)
            windows.touch(tell(facts, what, BEGIN + 5 * HOUR + at * 10**9, value), what, now)
        windows.tick(now)
        found = windows.live(now)
        if found is None or second % 5:
            continue
        fresh = Machine(machine.spec)
        fresh.facts.load(facts.dump())
        whole = Account()
        for stretch in CALENDAR.stretches(found[0].start, now):
            if stretch.shift == found[0].shift:
                whole += fresh.evaluate(stretch, CALENDAR, now)
        assert found[1] == whole


def test_a_stop_that_outgrows_a_minor_one_after_its_hour_was_closed() -> None:
    """Down at 09:58, closed at 10:00 as a minor stop of two minutes, at 10:03 it is none any more."""
    told: list[Fact] = [(6 * 60, "state", 6, 0), (8 * 60 + 58, "state", 9, 0), (9 * 60 + 30, "state", 6, 0)]
    machine = Machine(Spec("m", {"state": "m/state"}))
    windows = Windows(machine, CALENDAR, 100 * HOUR)
    said: list[Result] = []
    for minute in range(6 * 60, 12 * 60):
        now = BEGIN + minute * MINUTE
        for at, role, value, _ in told:
            if at == minute:
                windows.touch(machine.facts.take(role, now, value, "plc"), "x", now)  # type: ignore[arg-type]
        said += windows.tick(now)
    nine = [result for result in said if result.window.kind == "hour" and result.window.end == BEGIN + 9 * HOUR]
    assert [result.account.times[TimeClass.MINOR_STOP] // MINUTE for result in nine] == [2, 0]
    assert [result.account.times[TimeClass.UNPLANNED_STOP] // MINUTE for result in nine] == [0, 2]
    assert nine[1].why == "a stop became longer than a minor one"
    assert [result.account.incidents for result in nine] == [0, 1]


def test_what_comes_too_late_is_counted() -> None:
    machine = Machine(Spec("m", {"state": "m/state"}))
    windows = Windows(machine, CALENDAR, 10 * HOUR)
    now = BEGIN + 30 * HOUR
    windows.touch(machine.facts.take("state", now, 6, "plc"), "x", now)
    windows.touch(machine.facts.take("state", BEGIN + HOUR, 9, "plc"), "x", now)
    assert windows.too_late == 1
