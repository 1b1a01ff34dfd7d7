"""Lines out of machines: against an independent recomputation, in any split, corrected as machines are."""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.kpi.account import OUTSIDE, Account, Loss, TimeClass
from shopfloor.kpi.calendar import Calendar, Planned, Window
from shopfloor.kpi.facts import BAD, Edit, pack, unpack
from shopfloor.kpi.line import Bottleneck, FirstDown, Line, Part, Sum
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import MINUTE, Spec
from shopfloor.kpi.windows import Result, Windows
from tests.kpi.reference import History, Told
from tests.kpi.test_machine import NOW, Planned as Instants, kinds, laid_out, losses, states, unique

NAMES = ("a", "b", "c")
STOPPED = (TimeClass.MINOR_STOP, TimeClass.UNPLANNED_STOP)
POLICIES = ("sum", "bottleneck", "first_down")

counted = st.lists(st.tuples(st.integers(0, NOW - 1), st.integers(0, 15), st.just(True)), max_size=10)
told = st.lists(st.tuples(st.integers(0, NOW - 1), states, st.booleans() | st.just(True)), max_size=12)
one_machine = st.tuples(told.map(unique), counted.map(unique), counted.map(unique), losses)  # type: ignore[arg-type]
three_machines = st.tuples(one_machine, one_machine, one_machine)
OneMachine = tuple[list[Told], list[Told], list[Told], list[int]]


def built(given_: tuple[OneMachine, ...], calendar: Calendar) -> list[Part]:
    """Three machines, each behind a PLC of its own, whose windows know nothing: all is evaluated."""
    parts: list[Part] = []
    for name, (said, good, scrap, lost) in zip(NAMES, given_, strict=True):
        roles: Any = {"state": f"{name}/state", "good": f"{name}/good", "scrap": f"{name}/scrap"}
        machine = Machine(Spec(name, roles, minor_stop_below=20, ideal_cycle=3))
        machine.facts.sources.update(dict.fromkeys(machine.spec.roles, name))
        for role, samples in (("state", said), ("good", good), ("scrap", scrap)):
            for time, value, fine in samples:
                machine.facts.take(role, time, value if fine else BAD, name)  # type: ignore[arg-type]
        for time in lost:
            machine.facts.lose(name, time)
        parts.append(Part(name, machine, Windows(machine, calendar, NOW)))
    return parts


def line_of(policy: str, parts: list[Part]) -> Line:
    if policy == "sum":
        return Sum(parts)
    return Bottleneck(parts, "c", "b") if policy == "bottleneck" else FirstDown(parts, "b", "a")


def window(line: Line, calendar: Instants, start: int, end: int, now: int = NOW) -> Account:
    account = Account()
    for stretch in calendar.stretches(start, end):
        account += line.evaluate(stretch, calendar, now)
    return account


@dataclass
class Plain:
    """What one machine did, instant by instant."""

    classes: list[TimeClass]
    stops: list[list[int]]
    """The instants of each whole stop, calendar or not."""
    good: int
    scrap: int
    outside: int
    units: list[tuple[int, int, bool]]
    """When, how many, and whether nobody knows the time that they took."""
    incidents: Counter[TimeClass]
    silent: list[int]
    """The instants at which nothing is known of the good units."""

    def uncounted(self, classes: list[TimeClass]) -> tuple[int, int]:
        """Production and minor stops, by the classes of the line, of which no counter is known."""
        found = Counter(classes[time] for time in self.silent)
        return found[TimeClass.PRODUCTION], found[TimeClass.MINOR_STOP]


def plain(machine: OneMachine, planned: dict[int, str], now: int) -> Plain:
    said, good, scrap, lost = machine
    history, scraps = (History(said, counts, lost, kinds=planned) for counts in (good, scrap))
    classes = history.classes(now)
    stops: list[list[int]] = []
    raw = [history.raw(time, now) == "stop" for time in range(now)]
    for time in range(now):
        if raw[time] and time > 0 and raw[time - 1]:
            stops[-1].append(time)
        elif raw[time]:
            stops.append([time])
    inside = [sum(units for t, units, _ in one.made() if classes[t] not in OUTSIDE) for one in (history, scraps)]
    outside = sum(units for one in (history, scraps) for t, units, _ in one.made() if classes[t] in OUTSIDE)
    silent = [time for time in range(now) if not history.tells().knows(time)]
    made = [(t, count, missed or t in silent) for t, count, missed in (*history.made(), *scraps.made())]
    return Plain(classes, stops, inside[0], inside[1], outside, made, history.incidents(0, now, now), silent)


def performed(units: list[tuple[int, int, bool]], classes: list[TimeClass]) -> tuple[int, int]:
    """Ideal time of units, and those whose time nobody knows, by the classes of the line."""
    planned = [(t, count, missed) for t, count, missed in units if classes[t] not in OUTSIDE]
    doubted = [count for t, count, missed in planned if missed or classes[t] is TimeClass.UNKNOWN]
    return 3 * (sum(count for _, count, _ in planned) - sum(doubted)), sum(doubted)


def first_down(machines: list[Plain], now: int) -> tuple[list[TimeClass], Counter[str], Counter[str], Counter[Any]]:
    """Classes of each instant, instants lost to each machine, how often, and how many minor and longer stops."""
    order = (TimeClass.UNKNOWN, TimeClass.PLANNED_STOP, TimeClass.SETUP, TimeClass.PRODUCTION, TimeClass.BLOCKED)
    classes: list[TimeClass] = []
    lost: Counter[str] = Counter()
    often: Counter[str] = Counter()
    kinds_: Counter[Any] = Counter()
    owner: list[int | None] = []
    for time in range(now):
        here = [machine.classes[time] for machine in machines]
        standing = [i for i, kind in enumerate(here) if kind in STOPPED]
        owner.append(standing[0] if standing else None)
        if standing:
            classes.append(here[standing[0]])
            lost[NAMES[standing[0]]] += 1
        elif TimeClass.NOT_SCHEDULED in here:
            classes.append(TimeClass.NOT_SCHEDULED)
        else:
            classes.append(next(kind for kind in order if kind in here))
    for i, machine in enumerate(machines):
        for stop in machine.stops:
            felt = [time for time in stop if owner[time] == i]
            if felt:
                often[NAMES[i]] += 1
                kinds_[classes[felt[0]]] += 1
    return classes, lost, often, kinds_


@settings(max_examples=120, deadline=None)
@given(three_machines, kinds, st.integers(1, NOW))
def test_the_first_machine_down_by_an_independent_recomputation(
    given_: tuple[OneMachine, ...], planned: list[tuple[int, int, str]], now: int
) -> None:
    given_ = tuple(
        ([t for t in said if t[0] < now], [t for t in good if t[0] < now], [t for t in scrap if t[0] < now], lost)
        for said, good, scrap, lost in given_
    )
    calendar = Instants(laid_out(planned))
    account = window(line_of("first_down", built(given_, calendar)), calendar, 0, NOW, now)
    machines = [plain(machine, calendar.kinds, now) for machine in given_]
    classes, lost_to, often, incidents = first_down(machines, now)
    assert {k: v for k, v in account.times.items() if v} == dict(Counter(classes))
    assert account.lost_to == {name: Loss(often[name], lost_to[name]) for name in lost_to}
    assert (account.minor, account.incidents) == tuple(incidents[kind] for kind in STOPPED)
    assert sum(loss.time for loss in account.losses.values()) == sum(lost_to.values())
    assert (account.good, account.outside) == (machines[1].good, machines[1].outside)
    assert account.scrap == sum(machine.scrap for machine in machines)
    assert (account.ideal, account.beyond) == performed(machines[0].units, classes)
    assert (account.uncounted, account.uncounted_minor) == machines[0].uncounted(classes)


@settings(max_examples=100, deadline=None)
@given(three_machines, kinds)
def test_the_bottleneck_and_the_sum_by_an_independent_recomputation(
    given_: tuple[OneMachine, ...], planned: list[tuple[int, int, str]]
) -> None:
    calendar = Instants(laid_out(planned))
    machines = [plain(machine, calendar.kinds, NOW) for machine in given_]
    parts = built(given_, calendar)
    account = window(line_of("bottleneck", parts), calendar, 0, NOW)
    slowest, output = machines[1:]
    assert {k: v for k, v in account.times.items() if v} == dict(Counter(slowest.classes))
    assert (account.good, account.outside) == (output.good, output.outside)
    assert account.scrap == sum(machine.scrap for machine in machines)
    assert (account.ideal, account.beyond) == performed(slowest.units, slowest.classes)
    assert (account.uncounted, account.uncounted_minor) == slowest.uncounted(slowest.classes)
    assert (account.minor, account.incidents) == tuple(slowest.incidents[kind] for kind in STOPPED)

    account = window(line_of("sum", parts), calendar, 0, NOW)
    assert account.length == 3 * NOW
    assert {k: v for k, v in account.times.items() if v} == dict(
        Counter(kind for machine in machines for kind in machine.classes)
    )
    assert account.good == sum(machine.good for machine in machines)
    assert account.scrap == sum(machine.scrap for machine in machines)
    assert account.ideal == sum(performed(machine.units, machine.classes)[0] for machine in machines)
    assert account.uncounted == sum(machine.uncounted(machine.classes)[0] for machine in machines)
    for name, machine in zip(NAMES, machines, strict=True):
        stood = sum(kind in STOPPED for kind in machine.classes)
        count = sum(machine.incidents.values())
        assert account.lost_to.get(name, Loss()) == Loss(count, stood)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(three_machines, kinds, st.lists(st.integers(1, NOW - 1), max_size=8))
def test_any_split_of_windows_sums_to_the_whole(
    policy: str, given_: tuple[OneMachine, ...], planned: list[tuple[int, int, str]], cuts: list[int]
) -> None:
    calendar = Instants(laid_out(planned))
    parts = built(given_, calendar)
    for part in parts[:2]:
        part.unit.facts.edit(Edit(40, 90, f"{part.id}/tool"))  # type: ignore[attr-defined]
    line = line_of(policy, parts)
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(line, calendar, start, end)
    whole = window(line, calendar, 0, NOW)
    assert joined == whole
    assert whole.length == NOW * (3 if policy == "sum" else 1)


BEGIN = 1_767_571_200 * 10**9  # Monday 2026-01-05, 00:00 UTC
HOUR = 60 * MINUTE
SHIFTS = Calendar("Europe/Berlin", [(Planned("early", 360, 840, ((540, 555),)), Planned("late", 840, 1350))] * 7)
Fact = tuple[int, int, str, object, int]
"""Minute, machine, role, value, minutes of delay."""
facts = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 1_600),
            st.integers(0, 2),
            st.just("state"),
            st.sampled_from([6, 6, 4, 9, 5, 3]),
            st.integers(0, 900),
        ),
        st.tuples(
            st.integers(0, 1_600),
            st.integers(0, 2),
            st.sampled_from(["good", "scrap"]),
            st.integers(0, 50),
            st.integers(0, 900),
        ),
    ),
    max_size=30,
).map(lambda told: list({fact[:3]: fact for fact in told}.values()))


def run(policy: str, said: list[Fact], *, late: bool, restart: int = -1) -> tuple[dict[Window, Result], Line]:
    """What was said last of each window of the line; it may be stored and taken up again in between."""

    def anew() -> tuple[list[Part], Line, Windows]:
        roles = ("state", "good", "scrap")
        parts: list[Part] = []
        for name in NAMES:
            machine = Machine(Spec(name, {role: f"{name}/{role}" for role in roles}, ideal_cycle=MINUTE))  # type: ignore[misc]
            parts.append(Part(name, machine, Windows(machine, SHIFTS, 100 * HOUR)))
        line = line_of(policy, parts)
        return parts, line, Windows(line, SHIFTS, 100 * HOUR)

    parts, line, windows = anew()
    waiting = sorted(said, key=lambda fact: (fact[0] + (fact[4] if late else 0), fact[:3]))
    last: dict[Window, Result] = {}
    for minute in range(0, 45 * 60, 20):
        now = BEGIN + minute * MINUTE
        while waiting and waiting[0][0] + (waiting[0][4] if late else 0) <= minute:
            at, place, role, value, _ = waiting.pop(0)
            touched = parts[place].unit.facts.take(role, BEGIN + at * MINUTE, value, "plc")  # type: ignore[attr-defined]
            parts[place].windows.touch(touched, f"late of {NAMES[place]}", now)
        for part in parts:
            part.windows.tick(now)
            part.windows.live(now)
        windows.follow([part.windows for part in parts], now)
        for result in windows.tick(now):
            before = last.get(result.window)
            assert result.revision == (0 if before is None else before.revision + 1)
            assert result.was == (None if before is None else before.account)
            last[result.window] = result
        found = windows.live(now)
        if found is not None:
            assert found[1] == _anew(line, found[0], now)
            assert found[1].length == (now - found[0].start) * (3 if policy == "sum" else 1)
        for each in (*(part.windows for part in parts), windows):
            each.forget(now)
        if minute == restart:
            old, kept = parts, windows
            parts, line, windows = anew()
            _taken_up(old, parts)
            windows.load(_stored(kept))
    return last, line


def _taken_up(old: list[Part], parts: list[Part]) -> None:
    for part, was in zip(parts, old, strict=True):
        part.unit.facts.load(was.unit.facts.dump())  # type: ignore[attr-defined]
        part.windows.load(_stored(was.windows))


def _anew(line: Line, window_: Window, now: int) -> Account:
    """A window's account worked out at once."""
    account = Account()
    for stretch in SHIFTS.stretches(window_.start, min(window_.end, now)):
        if window_.kind != "shift" or stretch.shift == window_.shift:
            account += line.evaluate(stretch, SHIFTS, now)
    return account


def _stored(windows: Windows) -> Any:
    return unpack(pack(windows.dump()))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None)
@given(facts, st.integers(0, 120))
def test_late_data_repairs_every_window_of_a_line(policy: str, said: list[Fact], restart: int) -> None:
    """What is said last is what all samples at once would have given, whenever they came, restarted or not."""
    late, line = run(policy, said, late=True, restart=20 * restart)
    in_time, _ = run(policy, said, late=False)
    assert {window: result.account for window, result in late.items() if window in in_time} == {
        window: result.account for window, result in in_time.items()
    }
    for window_, result in late.items():
        assert result.account == _anew(line, window_, BEGIN + 45 * HOUR)


def test_a_late_sample_moves_where_a_stop_counted_first() -> None:
    """Machine c stands 10:10-13:00 behind a (10:00-10:50) and b (10:40-12:30): felt at 12:30. Then a had run."""

    def fact(clock: str, machine: str, state: int, delay: int = 0) -> Fact:
        hours, minutes = clock.split(":")
        return (int(hours) - 1) * 60 + int(minutes), NAMES.index(machine), "state", state, delay  # site time is UTC+1

    said = [
        *(fact("08:00", name, 6) for name in NAMES),
        fact("10:00", "a", 9), fact("10:50", "a", 6), fact("10:40", "b", 9), fact("12:30", "b", 6),
        fact("10:10", "c", 9), fact("13:00", "c", 6),
        fact("10:20", "a", 6, 600), fact("10:30", "a", 9, 600),
    ]  # fmt: skip
    last, _ = run("first_down", said, late=True)
    stood = {
        result.window.start: result.account.lost_to["c"].count
        for result in last.values()
        if result.window.kind == "hour" and "c" in result.account.lost_to
    }
    hours = [(start - BEGIN) // HOUR + 1 for start in sorted(stood)]
    assert dict(zip(hours, (stood[start] for start in sorted(stood)), strict=True)) == {10: 1, 12: 0}
