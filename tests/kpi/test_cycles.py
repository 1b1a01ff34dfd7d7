"""Single cycles: against a plain recomputation, in any order, in any split, corrected by what comes late."""

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.kpi.account import Account, TimeClass
from shopfloor.kpi.facts import BAD, pack, unpack
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.singles import Single, Singles
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.spread import CycleTimes, class_of, width
from shopfloor.kpi.windows import Windows
from tests.kpi.reference import History, Told
from tests.kpi.test_machine import NOW, Planned, kinds, laid_out, losses, told_counts, told_states, unique, window

told_signal = st.lists(st.tuples(st.integers(0, NOW - 1), st.booleans(), st.booleans() | st.just(True)), max_size=40)
ROLES = {"state": "m/state", "good": "m/good"}


def spec(roles: dict[str, str], **given: object) -> Spec:
    return Spec("m", roles, minor_stop_below=20, ideal_cycle=5, **({"cycles": "each"} | given))  # type: ignore[arg-type]


def fed(spec: Spec, told: dict[str, Sequence[Told]], lost: Sequence[int] = ()) -> Machine:
    machine = Machine(spec)
    machine.facts.sources.update(dict.fromkeys(spec.roles, "plc"))
    for role, samples in told.items():
        for time, value, good in samples:
            machine.facts.take(role, time, value if good else BAD, "plc")  # type: ignore[arg-type]
    for time in lost:
        machine.facts.lose("plc", time)
    return machine


def plainly(history: History, ends: list[tuple[int, int, bool]]) -> list[tuple[int, int, str]]:
    """From each end to the next: a cycle where every instant is production."""
    classes = history.classes(NOW)
    found: list[tuple[int, int, str]] = []
    for (start, _, _), (end, quantity, doubt) in pairwise(ends):
        ran = all(classes[time] is TimeClass.PRODUCTION for time in range(start, end))
        kind = "several" if quantity != 1 else "cycle" if ran and not doubt else "interrupted"
        found.append((start, end, kind))
    return found


@settings(max_examples=300, deadline=None)
@given(told_states, told_counts, losses, kinds, st.lists(st.integers(1, NOW - 1), max_size=6))
def test_cycles_of_units_are_those_of_a_plain_recomputation_however_windows_are_cut(
    said: list[Told], counted: list[Told], lost: list[int], planned: list[tuple[int, int, str]], cuts: list[int]
) -> None:
    said, counted = unique(said), unique(counted)
    history = History(said, counted, lost, kinds=laid_out(planned))
    machine = fed(spec(ROLES), {"state": said, "good": counted}, lost)
    calendar = Planned(history.kinds)
    expected = plainly(history, history.made())
    timed = [(cycle.start, cycle.end, cycle.kind) for cycle in machine.timed(0, NOW, calendar, NOW)]
    assert timed == expected
    sums = CycleTimes()
    for start, end, kind in expected:
        if kind == "cycle":
            sums.took(end - start, 5)
    sums.interrupted = sum(kind == "interrupted" for _, _, kind in expected)
    sums.several = sum(
        quantity
        for (_, quantity, _), (_, _, kind) in zip(history.made()[1:], expected, strict=True)
        if kind == "several"
    )
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(machine, calendar, start, end)
    assert joined == window(machine, calendar, 0, NOW)
    assert (joined.cycles or CycleTimes()) == sums
    assert sums.loss - sums.gain == sums.time - 5 * sums.count


@settings(max_examples=200, deadline=None)
@given(told_states, told_signal, losses, st.tuples(st.lists(st.integers(1, NOW - 1), max_size=6), st.booleans()))
def test_cycles_of_a_signal(
    said: list[Told],
    levels: list[Told],
    lost: list[int],
    asked: tuple[list[int], bool],
) -> None:
    cuts, falls = asked
    said, levels = unique(said), unique(levels)
    machine = fed(spec({**ROLES, "cycle": "m/cycle"}, cycle_falls=falls), {"state": said, "cycle": levels}, lost)
    history = History(said, [], lost)
    # An end is an edge that somebody saw; between two of them a bad or a missed sample leaves a doubt.
    ends: list[tuple[int, int, bool]] = []
    doubt = False
    for (before, one, one_good), (time, other, other_good) in pairwise(levels):
        gap = not (one_good and other_good) or any(before < loss < time for loss in lost)
        doubt = doubt or gap
        if not gap and (bool(one), bool(other)) == (falls, not falls):
            ends.append((time, 1, doubt))
            doubt = False
    expected = plainly(history, ends)
    calendar = Planned({})
    assert [(c.start, c.end, c.kind) for c in machine.timed(0, NOW, calendar, NOW)] == expected
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(machine, calendar, start, end)
    assert joined == window(machine, calendar, 0, NOW)


def test_the_length_that_the_plc_says_counts() -> None:
    """8 s that ended at 20, said as 8000 ms; 0 is none; 6 s that would have begun before the one before had ended."""
    told: list[Told] = [(20, 8, True), (22, 0, True), (30, -3, True), (40, 6, True), (45, 6, True), (60, 20, True)]
    states: list[Told] = [(0, 6, True), (50, 9, True), (55, 6, True)]
    roles = {"state": "m/state", "cycle_time": "m/took"}
    machine = fed(spec(roles, cycle_unit=1), {"state": states, "cycle_time": told})
    found = [(c.start, c.end, c.length, c.kind) for c in machine.timed(0, NOW, Planned({}), NOW)]
    assert found == [
        (12, 20, 8, "cycle"), (34, 40, 6, "cycle"), (39, 45, 6, "cycle"), (40, 60, 20, "interrupted"),
    ]  # fmt: skip


def test_a_mould_of_four_makes_four_units_a_cycle() -> None:
    counted: list[Told] = [(0, 0, True), (10, 4, True), (20, 8, True), (30, 10, True), (41, 14, True)]
    machine = fed(spec(ROLES, units_per_cycle=4), {"state": [(0, 6, True)], "good": counted})
    account = window(machine, Planned({}), 0, NOW)
    assert account.cycles is not None
    times = account.cycles
    assert (times.count, times.time, times.several, times.interrupted) == (2, 21, 2, 0)
    assert (times.loss, times.gain) == (0, 19)  # ideal: 4 units of 5


whatever = st.one_of(
    st.tuples(st.just("state"), st.integers(0, NOW - 1), st.sampled_from([6, 6, 9, 4]), st.booleans() | st.just(True)),
    st.tuples(st.just("good"), st.integers(0, NOW - 1), st.integers(0, 12), st.booleans() | st.just(True)),
    st.tuples(st.just("cycle"), st.integers(0, NOW - 1), st.booleans(), st.booleans() | st.just(True)),
    st.tuples(st.just("cycle_time"), st.integers(0, NOW - 1), st.integers(0, 30), st.booleans() | st.just(True)),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(whatever, max_size=40), losses, whatever, st.sampled_from(["good", "cycle", "cycle_time"]),
    st.sampled_from(["counter", "pulse", "event"]), st.booleans(),
)  # fmt: skip
def test_what_a_late_sample_changes_of_cycles_is_announced(
    told: list[tuple[str, int, object, bool]], lost: list[int], late: tuple[str, int, object, bool], by: str,
    counting: str, stated: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    """Whoever looks again only at the span that the machine names as affected has every cycle right."""
    roles = {"good": "m/good", by: f"m/{by}"} | ({"state": "m/state"} if stated else {})
    told = [one for one in told if one[0] in roles]
    if late[0] not in roles:
        return
    machine = fed(spec(roles, counting=counting, cycle_unit=1), {}, [])
    for role, time, value, good in told:
        machine.facts.take(role, time, value if good else BAD, "plc")  # type: ignore[arg-type]
    for time in lost:
        machine.facts.lose("plc", time)
    calendar = Planned({})
    before = list(machine.timed(0, NOW, calendar, NOW))
    role, time, value, good = late
    touched = machine.facts.take(role, time, value if good else BAD, "plc")  # type: ignore[arg-type]
    after = list(machine.timed(0, NOW, calendar, NOW))
    if touched is None:
        assert after == before
        return
    start, end = machine.affected(touched, NOW)
    assert [c for c in before if not start <= c.end < end] == [c for c in after if not start <= c.end < end]


class Plant:
    """A machine whose single cycles are given, tick by tick; what is left of all that was said."""

    def __init__(self) -> None:
        self.kept: dict[int, Single] = {}
        self.start()

    def start(self) -> None:
        """Nothing is known."""
        self.machine = Machine(spec(ROLES))
        self.machine.facts.sources.update({"state": "plc", "good": "plc"})
        calendar = Planned({})
        self.windows = Windows(self.machine, calendar, 10**6)
        self.singles = Singles(self.machine, self.windows, calendar)

    def tell(self, told: Sequence[tuple[str, int, object, bool]], now: int) -> None:
        """Facts come, and then a tick."""
        for role, time, value, good in told:
            touched = self.machine.facts.take(role, time, value if good else BAD, "plc")  # type: ignore[arg-type]
            self.windows.touch(touched, "late", now)
            if touched is not None:
                self.singles.touch(touched)
        self.windows.tick(now)
        for at, single in self.singles.tick(now):
            if single is None:
                del self.kept[at]
            else:
                self.kept[at] = single

    def crash(self) -> None:
        """Everything is stored and read again."""
        stored = unpack(pack([self.machine.facts.dump(), self.windows.dump(), self.singles.dump()]))
        self.start()
        self.machine.facts.load(stored[0])
        self.windows.load(stored[1])
        self.singles.load(stored[2])


@settings(max_examples=150, deadline=None)
@given(st.lists(whatever, max_size=40), st.randoms(use_true_random=False), st.integers(1, 8))
def test_single_cycles_given_late_are_in_the_end_those_of_who_had_everything_in_time(
    told: list[tuple[str, int, object, bool]], chance: object, ticks: int
) -> None:
    """Given, given anew, withdrawn: what is left is what there was; and a crash in between changes nothing."""
    told = list({(role, time): (role, time, value, good) for role, time, value, good in told}.values())
    told = [one for one in told if one[0] in ROLES]
    in_time, late = Plant(), Plant()
    in_time.tell(sorted(told, key=lambda one: one[1]), NOW)
    chance.shuffle(told)  # type: ignore[attr-defined]
    for tick in range(ticks):
        late.tell(told[tick::ticks], NOW * (tick + 1) // ticks)
        late.crash()
    assert late.kept == in_time.kept


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=60))
def test_the_histogram_is_as_exact_as_it_says(lengths: list[int]) -> None:
    times = CycleTimes()
    for length in lengths:
        times.took(length, None)
        assert class_of(length) <= length < class_of(length) + width(class_of(length))
        assert width(class_of(length)) * 32 <= max(length, 32)
    exact = sorted(lengths)[(len(lengths) + 1) // 2 - 1]
    median = times.quantile(0.5)
    assert median is not None
    assert abs(median - exact) <= width(class_of(exact))
    record = times.record()
    assert sum(count for _, count in record["histogram"]) == record["count"] == len(lengths)
    assert record["mean"] == pytest.approx(sum(lengths) / len(lengths) / 1e9)
    assert json.dumps(record)
