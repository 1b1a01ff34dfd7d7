"""Every aggregate equals a plain recomputation, wherever the samples lie and however they are stored."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.historian.base import AGGREGATES, Aggregate
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.samples import Batch, Quality, Sample, Value
from shopfloor.testing.clocks import SECOND, instant
from tests.historian.plain import bucket, near

BEGIN = instant("2026-03-02T08:00:00Z")
NOW = BEGIN + 86_400 * SECOND
MS = 10**6

FINITE: st.SearchStrategy[Value] = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
)
VALUES: st.SearchStrategy[Value] = st.one_of(FINITE, FINITE, st.sampled_from([None, "text", b"bytes", float("nan")]))
QUALITIES = st.sampled_from([192, 192, 192, 216, 64, 0, 24])
SAMPLES = st.lists(
    st.builds(
        lambda at, value, quality: Sample("m/x", BEGIN + at * 250 * MS, value, quality),
        st.integers(0, 80), VALUES, QUALITIES,
    ),
    max_size=40,
).map(lambda samples: sorted(samples, key=lambda s: s.time))  # fmt: skip


@pytest.fixture
async def historian(tmp_path: Path) -> AsyncIterator[DuckDbHistorian]:
    async with DuckDbHistorian(DuckDbConfig(path=tmp_path / "h.duckdb")) as store:
        yield store


def scale(samples: Sequence[Sample]) -> float:
    return max(
        (abs(float(s.value)) for s in samples if isinstance(s.value, int | float) and s.value == s.value), default=0
    )


@pytest.mark.parametrize("function", AGGREGATES)
@pytest.mark.parametrize("stored", ["hot", "segments", "both"])
async def test_equals_the_plain_recomputation(function: Aggregate, stored: str, tmp_path: Path) -> None:
    """Buckets cut by start and end, bad and mixed values, several samples at one instant."""
    number = 0
    async with DuckDbHistorian(DuckDbConfig(path=tmp_path / "h.duckdb")) as historian:

        @settings(max_examples=25 if stored == "hot" else 8)
        @given(SAMPLES, st.integers(0, 60), st.integers(1, 60), st.sampled_from([1, 3, 7]))
        async def same(samples: list[Sample], skip: int, length: int, seconds: int) -> None:
            nonlocal number
            number += 1
            tag = f"m/{number}"
            named = [Sample(tag, s.time, s.value, s.quality) for s in samples]
            half = len(named) // 2 if stored == "both" else len(named)
            await historian.write(2 * number, Batch.of("line", NOW, named[:half]))
            if stored != "hot":
                await historian.compact(NOW)
            await historian.write(2 * number + 1, Batch.of("line", NOW, named[half:]))
            start, end = BEGIN + skip * 333 * MS, BEGIN + (skip + length) * 333 * MS
            found = await historian.aggregate(tag, start, end, seconds * SECOND, function)
            midnight = instant("2026-03-02T00:00:00Z")
            first = midnight + (start - midnight) // (seconds * SECOND) * seconds * SECOND
            expected = [
                (begin, result)
                for begin in range(first, end, seconds * SECOND)
                if (result := bucket(function, named, begin,
                                     begin if function == "interpolated" else max(begin, start),
                                     min(begin + seconds * SECOND, end)))
            ]  # fmt: skip
            if not named:
                expected = []
            assert found.times.tolist() == [begin for begin, _ in expected]
            assert found.qualities.tolist() == [quality for _, (_, quality) in expected]
            for value, (_, (exact, _)) in zip(found.values, expected, strict=True):
                assert near(value, exact, scale(named)), (value, exact)

        await _run(same)


async def _run(test: object) -> None:
    """Run a Hypothesis test of coroutines inside the running loop: its examples go through a thread."""
    inner = test.hypothesis.inner_test  # type: ignore[attr-defined]
    assert iscoroutinefunction(inner)
    loop = asyncio.get_running_loop()

    def plainly(**arguments: object) -> None:
        asyncio.run_coroutine_threadsafe(inner(**arguments), loop).result(60)

    test.hypothesis.inner_test = plainly  # type: ignore[attr-defined]
    await asyncio.to_thread(test)  # type: ignore[arg-type]


async def test_of_samples_of_one_instant_the_last_that_came_is_in_force(historian: DuckDbHistorian) -> None:
    """Also when they came in one batch and the instant lies before the first bucket."""
    samples = [Sample("m/x", BEGIN, float(i), quality) for i, quality in enumerate([192] * 20 + [216])]
    await historian.write(1, Batch.of("s", NOW, samples))
    for compacted in (False, True):
        if compacted:
            await historian.compact(NOW)
        found = await historian.aggregate("m/x", BEGIN + SECOND, BEGIN + 2 * SECOND, SECOND, "twa")
        assert (list(found.values), found.qualities.tolist()) == ([20.0], [216])


async def test_extremes_of_wide_integers_are_exact(historian: DuckDbHistorian) -> None:
    """Neighbours above 2**53 differ, though as floats they would not."""
    values: list[Value] = [2**63 + 1, 2**63, 2**64 - 1, 2**64 - 2]
    await historian.write(1, Batch("s", NOW, ["m/x"] * 4, [BEGIN + i for i in range(4)], values))
    for function, expected in (("min", 2**63), ("max", 2**64 - 1), ("first", 2**63 + 1), ("last", 2**64 - 2)):
        found = await historian.aggregate("m/x", BEGIN, BEGIN + SECOND, SECOND, function)  # type: ignore[arg-type]
        assert list(found.values) == [expected]


async def test_averages_do_not_overflow_and_do_not_lose_digits(historian: DuckDbHistorian) -> None:
    huge = [1.7e308, 1.7e308, 1.6e308]
    small = [1e15 + 0.25, 1e15 + 0.5, 1e15 + 0.75]
    for i, values in enumerate((huge, small)):
        times = [BEGIN + i * 10 * SECOND + k * SECOND for k in range(3)]
        await historian.write(i, Batch("s", NOW, [f"m/{i}"] * 3, times, values))
    for function in ("avg", "twa"):
        found = [
            await historian.aggregate(
                f"m/{i}", BEGIN + i * 10 * SECOND, BEGIN + i * 10 * SECOND + 3 * SECOND, 10 * SECOND, function
            )
            for i in range(2)
        ]
        assert found[0].values[0] == pytest.approx(1.6666666666666667e308, rel=1e-14)
        assert found[1].values[0] == 1e15 + 0.5


async def test_infinities_stay_infinities(historian: DuckDbHistorian) -> None:
    await historian.write(1, Batch("s", NOW, ["m/x"] * 2, [BEGIN, BEGIN + 1], [float("inf"), 1.0]))
    for function in ("avg", "max", "twa"):
        assert list((await historian.aggregate("m/x", BEGIN, BEGIN + SECOND, SECOND, function)).values) == [
            float("inf")
        ]


async def test_a_value_holds_from_before_the_first_bucket(historian: DuckDbHistorian) -> None:
    """A set-point changed yesterday is today's time-weighted average; a bad sample ends what holds."""
    samples = [Sample("m/sp", BEGIN - 86_400 * SECOND, 7.0), Sample("m/sp", BEGIN + 15 * SECOND, 7.0, Quality.BAD)]
    await historian.write(1, Batch.of("s", NOW, samples))
    for compacted in (False, True):
        if compacted:
            await historian.compact(NOW)
        found = await historian.aggregate("m/sp", BEGIN, BEGIN + 30 * SECOND, 10 * SECOND, "twa")
        assert list(found.values) == [7.0, 7.0, None]
        assert found.qualities.tolist() == [192, 0, 0]


async def test_a_day_of_daylight_saving_has_its_own_length(historian: DuckDbHistorian) -> None:
    """Days begin at local midnight: 23 hours on 29 March, 25 on 25 October in Berlin."""
    hour = 3600 * SECOND
    for offset, (day, hours) in enumerate((("2026-03-29T00:00:00+01:00", 23), ("2026-10-25T00:00:00+02:00", 25))):
        tag, midnight = f"m/{offset}", instant(day)
        times = [midnight + i * hour for i in range(-24, 48)]
        await historian.write(offset, Batch("s", NOW, [tag] * len(times), times, [float(i) for i in range(len(times))]))
        found = await historian.aggregate(tag, midnight, midnight + hours * hour, 24 * hour, "count", "Europe/Berlin")
        assert (found.times.tolist(), list(found.values)) == ([midnight], [hours])
        found = await historian.aggregate(
            tag, midnight, midnight + (hours + 24) * hour, 4 * hour, "count", "Europe/Berlin"
        )
        begins = [midnight + i * 4 * hour for i in range(-(-hours // 4))]
        begins += [midnight + (hours + i * 4) * hour for i in range(6)]
        assert found.times.tolist() == begins
        assert list(found.values)[: len(begins) - 6] == [4] * (hours // 4) + [hours % 4]


async def test_a_very_long_series_is_summed_up_in_parts(
    historian: DuckDbHistorian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by the rows held at once; the result does not show where the parts met."""
    times = [BEGIN + i * 100 * MS for i in range(5000)]
    await historian.write(1, Batch("s", NOW, ["m/x"] * 5000, times, [float(i % 17) for i in range(5000)]))
    await historian.compact(NOW)
    for function in AGGREGATES:
        whole = await historian.aggregate("m/x", BEGIN, BEGIN + 500 * SECOND, 3 * SECOND, function)
        with monkeypatch.context() as patch:
            patch.setattr("shopfloor.historian.asking.HELD_ROWS", 700)
            parts = await historian.aggregate("m/x", BEGIN, BEGIN + 500 * SECOND, 3 * SECOND, function)
        assert (parts.times, list(parts.values), parts.qualities) == (whole.times, list(whole.values), whole.qualities)


@pytest.mark.parametrize(
    ("every", "end", "zone", "words"),
    [
        (10**6 - 1, 10, "UTC", "1 ms"),
        (SECOND, 10, "Mars/Olympus", "time zone"),
        (SECOND, 10, "../etc/passwd", "time zone"),
        (SECOND, 10, "", "time zone"),
        (10**6, 1000, "UTC", "100000 buckets"),
        (90_000 * SECOND, 10, "UTC", "whole number of days"),
        (SECOND, 10**11, "UTC", "years"),
        (0, 10, "UTC", "1 ms"),
    ],
)
async def test_a_question_that_makes_no_sense_is_told_so(
    historian: DuckDbHistorian, every: int, end: int, zone: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        await historian.aggregate("m/x", BEGIN, BEGIN + end * SECOND, every, "avg", zone)


async def test_an_unknown_aggregate_and_a_limit_of_nothing_are_told_so(historian: DuckDbHistorian) -> None:
    with pytest.raises(ValueError, match="one of avg"):
        await historian.aggregate("m/x", 0, 1, SECOND, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        await historian.history("m/x", 0, 1, limit=0)


async def test_an_unknown_tag_and_an_empty_interval_give_nothing(historian: DuckDbHistorian) -> None:
    await historian.write(1, Batch("s", NOW, ["m/x"], [BEGIN], [1.0]))
    assert not (await historian.history("m/none", 0, NOW)).times
    assert not (await historian.history("m/x", NOW, BEGIN)).times
    assert not (await historian.aggregate("m/none", BEGIN, NOW, 60 * SECOND, "count")).times
    assert not (await historian.aggregate("m/x", NOW, BEGIN, 60 * SECOND, "count")).times
