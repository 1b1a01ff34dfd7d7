"""What of a read's columns is worth a sample."""

import math
from array import array
from collections.abc import Sequence

from hypothesis import given, strategies as st

from shopfloor.samples import Batch, Quality, Sample, Value
from shopfloor.sources.changes import Changes, Column, Reading, changed, grouped

SECOND = 10**9


def changes(tags: int = 3, heartbeat: int | None = None, **deadbands: float) -> Changes:
    return Changes(
        "plc",
        [f"t{n}" for n in range(tags)],
        deadbands={int(name[1:]): deadband for name, deadband in deadbands.items()},
        scales={2: lambda value: value if value is None else float(value) / 10},
        heartbeat=heartbeat,
    )


def told(batch: Batch) -> dict[str, Value]:
    return dict(zip(batch.tags, batch.values, strict=True))


def test_all_at_first_then_what_differs_in_the_units_of_the_plant() -> None:
    seen = changes()
    first = [Column((0, 2), [1, 20]), Column((1,), ["x"])]
    assert told(seen.of(first, (), 1)) == {"t0": 1, "t2": 2.0, "t1": "x"}
    second = [Column((0, 2), [1, 21]), Column((1,), ["x"])]
    batch = seen.of(second, first, 2)
    assert list(batch) == [Sample("t2", 2, 2.1)]
    assert isinstance(batch.values, array)


def test_the_very_same_column_is_not_even_looked_at() -> None:
    """A reader gives it when no byte has changed; so what it holds must not matter."""
    seen = changes()
    values: list[Value] = [1, 2, 30]
    column = Column((0, 1, 2), values)
    seen.of([column], (), 1)
    values[0] = 5
    assert not len(seen.of([column], [column], 2))
    assert told(seen.of([Column((0, 1, 2), values)], [column], 3)) == {"t0": 5}


def test_a_column_of_an_earlier_plan_is_looked_at_again() -> None:
    """Only the read right before counts: in between the tags may have been read otherwise."""
    seen = changes(2)
    old = Column((0, 1), [1, 1])
    seen.of([old], (), 1)
    other = [Column((0,), [1]), Column((1,), [7])]
    seen.of(other, [old], 2)
    assert told(seen.of([old], other, 3)) == {"t1": 1}


def test_a_bad_column_says_so_once_and_the_return_once() -> None:
    seen = changes(2)
    good = [Column((0, 1), [1, 1])]
    bad = [Column((0,), [1]), Column((1,), [None], Quality.CONFIGURATION_ERROR, 5)]
    seen.of(good, (), 1)
    assert list(seen.of(bad, good, 2)) == [Sample("t1", 2, None, Quality.CONFIGURATION_ERROR, 5)]
    assert not len(seen.of([*bad], (), 3))
    assert list(seen.of(good, bad, 4)) == [Sample("t1", 4, 1)]


def test_quality_alone_is_a_change() -> None:
    seen = changes(1)
    good, stopped = [Column((0,), [1])], [Column((0,), [1], Quality.LAST_USABLE)]
    seen.of(good, (), 1)
    assert list(seen.of(stopped, good, 2)) == [Sample("t0", 2, 1, Quality.LAST_USABLE)]
    assert list(seen.of(good, stopped, 3)) == [Sample("t0", 3, 1)]


def test_a_heartbeat_repeats_what_stands_still_and_only_that() -> None:
    seen = changes(2, heartbeat=60 * SECOND)
    column = Column((0, 1), [1, 1])
    seen.of([column], (), 0)
    moved = Column((0, 1), [1, 2])
    assert told(seen.of([moved], [column], 59 * SECOND)) == {"t1": 2}
    assert told(seen.of([moved], [moved], 60 * SECOND)) == {"t0": 1}
    assert not len(seen.of([moved], [moved], 61 * SECOND))
    assert told(seen.of([moved], [moved], 119 * SECOND)) == {"t1": 2}


def test_a_deadband_is_in_engineering_units() -> None:
    seen = changes(3, t2=1.0)
    before: list[Column] = []
    said: list[Value] = []
    for raw in (100, 105, 110, 111, 115, 90):
        columns = [Column((2,), [raw])]
        said += seen.of(columns, before, 1).values
        before = columns
    assert said == [10.0, 11.1, 9.0]


VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf]),
    st.sampled_from(["", "1"]),
)  # fmt: skip
READING = st.builds(Reading, VALUE, st.sampled_from([int(Quality.GOOD), int(Quality.BAD)]), st.sampled_from([0, 5]))


@given(st.lists(st.lists(READING, min_size=3, max_size=3), max_size=8), st.sampled_from([{}, {"t0": 1.0}]))
def test_columns_say_what_reading_by_reading_would(reads: list[list[Reading]], deadbands: dict[str, float]) -> None:
    """The rule is ``changed``, and a change of quality or status; columns are only a faster way."""
    seen = Changes("plc", ["t0", "t1", "t2"], deadbands={0: 1.0} if deadbands else {}, scales={}, heartbeat=None)
    last: dict[int, Reading] = {}
    before: Sequence[Column] = ()
    for readings in reads:
        expected: dict[str, Reading] = {}
        for place, reading in enumerate(readings):
            known = last.get(place)
            deadband = deadbands.get(f"t{place}")
            if known is None or known[1:] != reading[1:] or changed(known.value, reading.value, deadband):
                expected[f"t{place}"] = last[place] = reading
        columns = grouped(range(3), readings)
        batch = seen.of(columns, before, 1)
        before = columns
        found = {s.tag: Reading(s.value, s.quality, s.status) for s in batch}
        assert repr(sorted(found.items())) == repr(sorted(expected.items()))  # NaN is unlike itself
