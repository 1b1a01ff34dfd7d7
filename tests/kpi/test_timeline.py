"""Timelines: kept as changes and repeats, they say what a plain list of all samples would say, however these came."""

from collections.abc import Iterator
from itertools import accumulate, cycle

import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.kpi import column
from shopfloor.kpi.column import BAD, Known
from shopfloor.kpi.facts import pack, unpack
from shopfloor.kpi.timeline import NEVER, Timeline, Touched, same

LAST = 40
values: st.SearchStrategy[Known] = st.sampled_from([1, 1, 1, 2, 1.0, True, "1", None, BAD])
told = st.lists(st.tuples(st.integers(0, LAST), values), max_size=40)
Told = list[tuple[int, Known]]


def plain(samples: Told) -> Told:
    """Of several samples with one time the last one, in the order of time."""
    return sorted(dict(samples).items(), key=lambda sample: sample[0])


def alike(one: Told, other: Told) -> bool:
    return [t for t, _ in one] == [t for t, _ in other] and all(
        same(a, b) for (_, a), (_, b) in zip(one, other, strict=True)
    )


def held(samples: Told, time: int) -> Known:
    return next((value for at, value in reversed(samples) if at <= time), BAD)


def check(line: Timeline, samples: Told) -> None:
    assert len(line) == len(samples)
    assert alike(list(line.between(0, NEVER)), samples)
    assert line.first == (samples[0][0] if samples else None)
    assert line.newest == (samples[-1][0] if samples else -1)
    for time in range(-1, LAST + 2):
        assert same(line.value_at(time), held(samples, time))
        assert line.last(time) == max((at for at, _ in samples if at <= time), default=-1)
        assert line.next(time) == min((at for at, _ in samples if at >= time), default=NEVER)
    changes = [
        s for before, s in zip([None, *samples], samples, strict=False) if not before or not same(before[1], s[1])
    ]
    assert alike(list(zip(*line.changes(0, NEVER), strict=True)), changes)
    assert alike([(begin, value) for begin, _, value in line.spells(-1)], changes)
    assert alike(list(line.back(NEVER))[::-1], changes)


@pytest.fixture(autouse=True, scope="module")
def soon() -> Iterator[None]:
    """What was opened is packed again at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(column, "REST", 2)
        yield


open_ones = st.sampled_from([2, 3, 7, column.MOST])


@settings(max_examples=300, deadline=None)
@given(told, open_ones)
def test_what_a_plain_list_would_say(samples: Told, most: int) -> None:
    """After each sample; and what it touched is where something else is said now, with the sample behind it."""
    line = Timeline(most=most)
    for place, (time, value) in enumerate(samples):
        before, after = plain(samples[:place]), plain(samples[: place + 1])
        touched = line.put(time, value)
        following = next((at for at, _ in before if at > time), None)
        known = dict(before)
        if time in known and same(known[time], value):
            assert touched is None
        else:
            assert touched == Touched(time, NEVER if following is None else following + 1)
        check(line, after)


@settings(max_examples=200, deadline=None)
@given(told, st.lists(st.integers(1, 8), max_size=12), open_ones)
def test_columns_say_what_single_samples_say(samples: Told, sizes: list[int], most: int) -> None:
    samples = plain(samples)
    line = Timeline(most=most)
    place = 0
    for size in [*sizes, len(samples)]:
        part = samples[place : place + size]
        place += size
        before = held(samples, part[0][0] - 1) if part and part[0][0] > samples[0][0] else object()
        repeats = line.extend([time for time, _ in part], [value for _, value in part])
        assert repeats == all(same(value, before) for _, value in part)  # type: ignore[arg-type]
    check(line, samples)


@settings(max_examples=200, deadline=None)
@given(told, st.integers(-1, LAST + 1), told, open_ones)
def test_what_is_forgotten_and_what_is_stored(samples: Told, before: int, later: Told, most: int) -> None:
    """All but the last sample before is dropped; what was stored goes on as if nothing had been."""
    line = Timeline(most=most)
    for time, value in samples:
        line.put(time, value)
    line.forget(before)
    left = plain(samples)
    kept = [(at, value) for at, value in left if at > before]
    kept = [*[one for one in left if one[0] <= before][-1:], *kept]
    line = Timeline.load(unpack(pack(line.dump())))
    if later:
        check(line, kept)
    for time, value in later:
        line.put(time, value)
    check(line, plain([*kept, *later]))


def test_a_state_of_an_older_version_is_taken_up() -> None:
    """Up to 2026-11 all times and values were stored."""
    line = Timeline.load(unpack(pack(([3, 5, 9], [1, 1, BAD]))))
    check(line, [(3, 1), (5, 1), (9, BAD)])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 2**40) | st.just(10**9), min_size=1, max_size=60),
    st.lists(st.integers(-(2**63), 2**64 - 1) | st.integers(0, 9) | st.floats() | st.none(), min_size=1, max_size=60),
)
def test_what_is_packed_comes_back(steps: list[int], said: list[Known]) -> None:
    """Times to the nanosecond, values with their type: whole numbers of any size, fractions, NaN, nothing."""
    times = list(accumulate(steps))
    found = column.Column(most=4)
    for time, value in zip(times, cycle(said)):
        found.times.append(time)
        found.values.append(value)
        found.seal()
    found.reach(0)
    assert found.times.tolist() == times
    assert list(map(repr, found.values)) == [repr(value) for value, _ in zip(cycle(said), times)]
