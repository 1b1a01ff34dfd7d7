"""Counting: what counters, pulses and events say, against a plain recomputation that goes through them one by one."""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.kpi.counting import Counting, increased, units
from shopfloor.kpi.facts import BAD, Known, Timeline
from shopfloor.kpi.timeline import quantity_of

Told = tuple[int, Known]

values: st.SearchStrategy[Known] = st.one_of(
    st.integers(0, 20),
    st.integers(0, 20).map(float),
    st.sampled_from([True, False, -1, -0.5, nan, inf, "", "7", None]),
    st.just(BAD),
)
counts = st.one_of(st.integers(0, 15), st.integers(0, 15), st.just(BAD), st.just(-1))
LENGTH = 200


def told_of(strategy: st.SearchStrategy[Known]) -> st.SearchStrategy[list[Told]]:
    """Samples of different times, in the order of time."""
    found = st.dictionaries(st.integers(0, LENGTH - 1), strategy, max_size=30)
    return found.map(lambda said: sorted(said.items(), key=lambda one: one[0]))


losses = st.lists(st.integers(0, LENGTH), max_size=3)


def number(value: Known) -> float | None:
    if value is BAD or value is None or isinstance(value, str | bytes):
        return None
    assert isinstance(value, bool | int | float)
    return float(value) if 0 <= value < inf else None


def plain(
    told: Sequence[Told], start: int, end: int, counting: Counting, modulus: int | None, lost: Sequence[int]
) -> list[tuple[int, float, bool]]:
    """Everything from the very first sample on, then what lies in the window."""
    found: list[tuple[int, float, bool]] = []
    last: float | None = None
    since = 0
    doubt = False
    for time, value in told:
        now = number(value)
        if now is None:
            doubt = True
            continue
        if counting == "event":
            missed = last is None or doubt or any(since < loss < time for loss in lost)
            found += [(time, now, missed)] if now else []
        elif last is not None:
            missed = doubt or any(since < loss < time for loss in lost)
            if counting == "pulse":
                found += [(time, 1, False)] if now and not last and not missed else []
            else:
                more = now - last
                if more < 0 and modulus and last < modulus and (more + modulus) * 2 < modulus:
                    more += modulus  # it went over its end
                elif more < 0:
                    more = now  # it was set back to 0
                found += [(time, more, missed)] if more else []
        last, since, doubt = now, time, False
    return [one for one in found if start <= one[0] < end]


def counted(
    told: Sequence[Told], start: int, end: int, counting: Counting, modulus: int | None, lost: Sequence[int]
) -> list[tuple[int, float, bool]]:
    line = Timeline([time for time, _ in told], [value for _, value in told])
    found = units(
        line, start, end, counting=counting, modulus=modulus, gap=lambda one, other: any(one < x < other for x in lost)
    )
    return [(unit.time, float(unit.quantity), unit.beyond) for unit in found]


kinds: st.SearchStrategy[Counting] = st.sampled_from(["counter", "pulse", "event"])
moduli = st.sampled_from([None, 8, 16, 21])


@settings(max_examples=500, deadline=None)
@given(told_of(values) | told_of(counts), st.integers(0, LENGTH), st.integers(0, LENGTH), kinds, moduli, losses)
def test_the_same_as_a_plain_recomputation(
    told: list[Told], start: int, end: int, counting: Counting, modulus: int | None, lost: list[int]
) -> None:
    assert counted(told, start, end, counting, modulus, lost) == plain(told, start, end, counting, modulus, lost)


@settings(max_examples=200, deadline=None)
@given(told_of(counts), st.lists(st.integers(0, LENGTH), max_size=6), kinds, moduli, losses)
def test_any_cut_into_windows_counts_each_unit_once(
    told: list[Told], cuts: list[int], counting: Counting, modulus: int | None, lost: list[int]
) -> None:
    marks = sorted({0, *cuts, LENGTH})
    joined = [one for start, end in pairwise(marks) for one in counted(told, start, end, counting, modulus, lost)]
    assert joined == counted(told, 0, LENGTH, counting, modulus, lost)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 7), max_size=60), st.sampled_from([16, 256, 65536]), st.integers(0, 65535))
def test_a_counter_that_rolls_over_loses_nothing(steps: list[int], modulus: int, begin: int) -> None:
    """As long as less than half a circle lies between two samples, the sum is what was made."""
    total = begin % modulus
    told: list[Told] = [(0, total)]
    for i, step in enumerate(steps, start=1):
        total += step
        told.append((i, total % modulus))
    assert sum(made for _, made, _ in counted(told, 0, LENGTH, "counter", modulus, ())) == sum(steps)


@pytest.mark.parametrize(
    ("last", "now", "modulus", "more"),
    [
        (5, 9, None, 4),
        (9, 9, None, 0),
        (9, 4, None, 4),  # set back to 0, then 4
        (65530, 4, 65536, 10),  # over its end
        (65530, 40000, 65536, 40000),  # more than half a circle: a reset
        (70000, 4, 65536, 4),  # a counter of 32 bits after all
        (4294967290, 4, 2**32, 10),
        (0, 0, 16, 0),
        (8, 0, 16, 0),  # just half a circle is a reset
        (9, 0, 16, 7),
        (1.5, 2.0, None, 0.5),
    ],
)
def test_counters_by_hand(last: float, now: float, modulus: int | None, more: float) -> None:
    assert increased(last, now, modulus) == more


def test_the_first_value_is_a_baseline_and_so_is_the_first_level() -> None:
    assert counted([(5, 1000), (6, 1001)], 0, 10, "counter", None, ()) == [(6, 1, False)]
    assert counted([(5, True), (6, False), (7, True)], 0, 10, "pulse", None, ()) == [(7, 1, False)]


def test_a_gap_makes_counters_doubtful_and_pulses_silent() -> None:
    """A counter knows what was made meanwhile, though not when; a pulse does not."""
    assert counted([(1, 5), (9, 8)], 0, 10, "counter", None, [4]) == [(9, 3, True)]
    assert counted([(1, False), (9, True)], 0, 10, "pulse", None, [4]) == []
    assert counted([(1, 5), (4, BAD), (9, 8)], 0, 10, "counter", None, ()) == [(9, 3, True)]


def test_of_the_first_event_behind_a_gap_nobody_knows_the_time_that_it_took() -> None:
    assert counted([(1, 5), (3, 5), (9, 5)], 0, 10, "event", None, [4]) == [(1, 5, True), (3, 5, False), (9, 5, True)]
    assert counted([(1, 5), (3, BAD), (9, 5)], 2, 10, "event", None, ()) == [(9, 5, True)]


@pytest.mark.parametrize("value", [-1, -0.1, nan, inf, -inf, "5", "", None, b"5"])
def test_what_can_be_no_count(value: Known) -> None:
    assert quantity_of(value) is None
