"""Edges: what counts and what does not, late samples, the hours' records, against a plain recount."""

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from shopfloor import plant
from shopfloor.pipeline import Pipeline
from shopfloor.processors.edges import TICK, EdgesConfig
from shopfloor.processors.edges_record import KEPT
from shopfloor.samples import Batch, Quality, Sample, Value
from shopfloor.seams import Processor
from shopfloor.testing.contracts import EVERY_VALUE, ProcessorContract, same_samples, until

S = 10**9
H = 3600 * S
LOST = "$source/plc/connected"
COMPLETE = "$source/plc/complete"
BEGIN = 1_767_258_000 * S
"""2026-01-01T09:00:00Z"""


def config(*tags: dict[str, object], **fields: object) -> EdgesConfig:
    return EdgesConfig.model_validate({"name": "units", "type": "edges", "tags": tags, **fields})


def counted(samples: Sequence[Sample], **fields: object) -> list[Sample]:
    described = config({"from": "a", "to": "units", "hourly": "hourly", **fields}, timezone="UTC")
    return described.build().process(Batch.of("plc", 1, samples))


def counts(values: Sequence[Value], **fields: object) -> list[tuple[int, Value]]:
    """The counts of values that come a second apart, as (second, count)."""
    samples = [Sample("a", BEGIN + i * S, value) for i, value in enumerate(values)]
    return [((s.time - BEGIN) // S, s.value) for s in counted(samples, **fields) if s.tag == "units"]


def hourly(samples: Sequence[Sample], **fields: object) -> list[tuple[int, Value, int]]:
    """The records, as (hour's end since 09:00, units, quality)."""
    return [((s.time - BEGIN) // H, s.value, s.quality) for s in counted(samples, **fields) if s.tag == "hourly"]


def pulses(begin: int, number: int, every: int = 60 * S) -> list[Sample]:
    """Off at first, then so many pulses of half the time."""
    found = [Sample("a", begin, False)]
    for i in range(number):
        found += [Sample("a", begin + i * every + every // 2, True), Sample("a", begin + (i + 1) * every, False)]
    return found


class TestEdges(ProcessorContract):
    def build(self) -> Processor:
        return config(
            {"from": "a", "hourly": "{tag}/hourly", "debounce": S},
            {"from": "a", "to": "falls", "edge": "falling"},
            {"from": "b", "above": 3.0, "below": 2.0, "hourly": "{tag}/hourly"},
            timezone="Asia/Kolkata",
        ).build()

    def batches(self) -> Sequence[Batch]:
        dice = random.Random(2)
        values = list(EVERY_VALUE.values())
        found: list[Batch] = []
        for i in range(150):
            time = BEGIN + i * 97 * S
            rows = [
                Sample(
                    "a",
                    time - dice.choice((0, 0, 0, 100 * S, 5000 * S)),
                    dice.random() < 0.5,
                    dice.choice((192, 192, 0)),
                ),
                Sample("b", time, dice.choice((1.0, 2.5, 4.0))),
                Sample("c", time, 1.0),
            ]
            if i % 7 == 0:
                rows.append(Sample("b", time + 1, values[i % len(values)]))
            found.append(Batch.of("plc", i, rows))
            if i % 5 == 0:
                found.append(Batch.of("$clock", i, [Sample(TICK, time + 40 * S, 0)]))
            if i % 31 == 9:
                found.append(Batch.of("$source", i, [Sample(LOST, time, value) for value in (False, True)]))
        return found


# ---- what counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "edge", "expected"),
    [
        ([False, True, False, True], "rising", [(0, 0), (1, 1), (3, 2)]),
        ([True, False, True, False], "rising", [(0, 0), (2, 1)]),
        ([True, False, True, False], "falling", [(0, 0), (1, 1), (3, 2)]),
        ([True, False, True, False], "both", [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ([0, 1, 1, 0, 5, -1, 0.0, 0.5], "rising", [(0, 0), (1, 1), (4, 2), (7, 3)]),
        ([True, True, True], "rising", [(0, 0)]),
    ],
)
def test_edges_by_hand(values: list[Value], edge: str, expected: list[tuple[int, int]]) -> None:
    """The first sample is a baseline: 0, whatever the signal is."""
    assert counts(values, edge=edge) == expected


@pytest.mark.parametrize("bad", [None, "on", b"\x01", math.nan, math.inf])
def test_after_what_says_nothing_comes_a_baseline(bad: Value) -> None:
    """Off, bad, on: nobody knows how often it was on."""
    assert counts([False, bad, True, False, True]) == [(0, 0), (1, 0), (2, 0), (4, 1)]


def test_after_bad_quality_comes_a_baseline_and_the_count_says_so() -> None:
    rows = [Sample("a", BEGIN, False), Sample("a", BEGIN + S, True, Quality.BAD), Sample("a", BEGIN + 2 * S, True)]
    assert counted(rows) == [
        Sample("units", BEGIN, 0),
        Sample("units", BEGIN + S, 0, Quality.LAST_USABLE),
        Sample("units", BEGIN + 2 * S, 0),
    ]


def test_after_a_loss_of_the_source_comes_a_baseline_for_its_tags() -> None:
    rows = [Sample("a", BEGIN, False), Sample(LOST, BEGIN, True), Sample("a", BEGIN + S, True)]
    assert [s.value for s in counted(rows)] == [0, 0]
    rows[1] = Sample("$source/other/connected", BEGIN, True)
    assert [s.value for s in counted(rows)] == [0, 1]


def test_a_source_that_had_kept_everything_misses_no_edge_and_leaves_no_doubt() -> None:
    """A subscription that is gone on with: the hours told meanwhile are told again, right and certain."""
    rows = pulses(BEGIN, 150)
    away = [Sample(LOST, 0, False), *(Sample(TICK, BEGIN + i * 600 * S, 0) for i in range(4, 13))]
    back = [Sample(LOST, 0, True), Sample(COMPLETE, 0, True)]
    found = counted([*rows[:50], *away, *back, *rows[50:]])
    assert [s.value for s in found if s.tag == "units"][-1] == 150
    records = [((s.time - BEGIN) // H, s.value, s.quality) for s in found if s.tag == "hourly"]
    assert records[0] == (1, 25, 64)
    assert {end: rest for end, *rest in records} == {1: [60, 192], 2: [60, 192]}
    doubtful = hourly([*rows[:50], *away, back[0], *rows[50:]])
    assert {end: quality for end, _, quality in doubtful} == {1: 64, 2: 192}


def test_a_server_that_repeats_its_last_value_after_a_reconnect_gives_the_baseline() -> None:
    """OPC UA gives a new subscription the value with the time at which it changed: the one that was there before."""
    off = Sample("a", BEGIN, False)
    rows = [off, Sample(LOST, BEGIN, False), Sample(LOST, BEGIN, True), off, Sample("a", BEGIN + S, True)]
    assert [s.value for s in counted(rows)][-1] == 1


def test_the_same_sample_again_counts_once() -> None:
    rows = [Sample("a", BEGIN + i * S, value) for i, value in enumerate([False, True, False, True])]
    assert [s.value for s in counted([*rows, *rows, *rows[2:]])] == [0, 1, 2]


def test_a_contact_may_bounce() -> None:
    """10 ms of it when it closes and when it opens; the debounce time is 50 ms."""
    times = [0, 1000, 1002, 1005, 1010, 1500, 1503, 1507, 2500, 2501, 2502]
    rows = [Sample("a", BEGIN + time * 10**6, i % 2 == 1) for i, time in enumerate(times)]
    assert [s.value for s in counted(rows, debounce=50 * 10**6)][-1] == 2
    assert [s.value for s in counted(rows)][-1] == 5


def test_a_motors_current_counts_with_hysteresis() -> None:
    current: list[Value] = [0.2, 3.1, 2.5, 2.9, 3.2, 1.9, 2.5, 3.1]
    assert counts(current, above=3.0, below=2.0)[-1] == (7, 2)
    assert counts(current, above=3.0)[-1] == (7, 3)


# ---- late samples ---------------------------------------------------------------------------------------------------

LEVELS = st.sampled_from([False, True, False, True, None])


def recount(samples: Sequence[Sample], debounce: int) -> list[int]:
    """The times of the rising edges, of the whole series in the order of its times."""
    found: list[int] = []
    since, level = samples[0].time, samples[0].value
    for sample in samples[1:]:
        if sample.value is not level:
            if (level, sample.value) == (False, True) and sample.time - since >= debounce:
                found.append(sample.time)
            since, level = sample.time, sample.value
    return found


@given(
    st.lists(st.tuples(st.integers(1, 2 * H), LEVELS), min_size=1, max_size=KEPT - 1),
    st.randoms(use_true_random=False),
    st.sampled_from([0, 600 * S]),
)
def test_any_order_of_coming_gives_the_same_count_and_the_same_hours(
    steps: list[tuple[int, bool | None]], chance: random.Random, debounce: int
) -> None:
    """Also with unknown between; the first sample comes first, no more than are kept. An hour's last record holds."""
    time = BEGIN
    samples = [Sample("a", time, False)]
    for step, level in steps:
        time += step
        samples.append(Sample("a", time, level))
    rest = samples[1:]
    chance.shuffle(rest)
    end = Sample(TICK, time, 0), Sample(TICK, time + 2 * H, 0)
    found = counted([samples[0], *rest, *end], debounce=debounce)
    edges = recount(samples, debounce)
    assert [s.value for s in found if s.tag == "units"][-1] == len(edges)
    last = {s.time: s.value for s in found if s.tag == "hourly"}
    assert {end: units for end, units in last.items() if units} == Counter(edge // H * H + H for edge in edges)
    assert set(last) >= set(range(BEGIN + H, time // H * H + H + 1, H))


@given(st.data(), st.integers(0, 200))
def test_in_order_a_long_series_counts_as_a_plain_recount_does(data: st.DataObject, number: int) -> None:
    levels = data.draw(st.lists(LEVELS, min_size=number, max_size=number))
    samples = [Sample("a", BEGIN + i * 77 * S, level) for i, level in enumerate([False, *levels])]
    found = [s.value for s in counted(samples) if s.tag == "units"]
    assert found[-1] == len(recount(samples, 0))
    assert all(isinstance(a, int) and isinstance(b, int) and a <= b for a, b in pairwise(found))


def test_what_a_device_stored_while_nobody_listened_is_counted_afterwards() -> None:
    """An hour's outage of a line with a unit a minute: after the flush, each hour is what it would have been without.

    The live samples go on meanwhile, far more than are kept; the flush has hundreds. One edge may be missing where the
    stored samples meet the first live one, since that one is a baseline.
    """
    whole = pulses(BEGIN, 400)
    lost = [s for s in whole if BEGIN + 61 * 60 * S < s.time < BEGIN + 190 * 60 * S]
    before = [s for s in whole if s.time <= BEGIN + 61 * 60 * S]
    after = [s for s in whole if s.time >= BEGIN + 190 * 60 * S]
    gap = [Sample(LOST, 0, False), Sample(LOST, 0, True)]
    found = counted([*before, *gap, *after[:200], *lost, *after[200:]])
    reference = {s.time: s.value for s in counted(whole) if s.tag == "hourly"}
    repaired = {s.time: s.value for s in found if s.tag == "hourly"}
    assert set(repaired) == set(reference)
    assert {end for end in reference if repaired[end] != reference[end]} <= {BEGIN + 4 * H}
    units = [s.value for s in found if s.tag == "units"][-1]
    assert isinstance(units, int)
    assert 399 <= units <= 400
    untouched = {(s.time, s.value) for s in counted([*before, *gap, *after]) if s.tag == "hourly"}
    assert (BEGIN + 3 * H, 0) in untouched  # without the flush nothing was known of that hour


def test_what_is_too_late_changes_nothing() -> None:
    rows = pulses(BEGIN, 300)
    late = [Sample("a", BEGIN + 5 * S, True), Sample("a", BEGIN - H, True), Sample("a", BEGIN + 6 * S, False)]
    assert counted([*rows, *late]) == counted(rows)


# ---- hours ----------------------------------------------------------------------------------------------------------


def test_an_hour_is_told_when_the_next_begins() -> None:
    """The first one is uncertain when the first sample came after its beginning."""
    assert hourly(pulses(BEGIN, 150)) == [(1, 60, 192), (2, 60, 192)]
    assert hourly(pulses(BEGIN + 30 * 60 * S, 100)) == [(1, 30, 64), (2, 60, 192)]


def test_the_clock_tells_an_hour_in_which_nothing_came() -> None:
    """Also when the source's own clock is hours behind: its hours go on as ours do."""
    rows = pulses(BEGIN, 5)
    ticks = [Sample(TICK, BEGIN + 5 * H + i * 600 * S, 0) for i in range(20)]
    assert hourly([*rows, *ticks]) == [(1, 5, 192), (2, 0, 192), (3, 0, 192)]


def test_an_hour_in_which_the_signal_was_not_known_is_uncertain() -> None:
    rows = [*pulses(BEGIN, 5), Sample(LOST, 0, False)]
    ticks = [Sample(TICK, BEGIN + (i + 1) * 600 * S, 0) for i in range(20)]
    back = [Sample(LOST, 0, True), *pulses(BEGIN + 3 * H + 600 * S, 120)]
    assert hourly([*rows, *ticks, *back]) == [(1, 5, 64), (2, 0, 64), (3, 0, 64), (4, 50, 64), (5, 60, 192)]
    bad = [*pulses(BEGIN, 5), Sample("a", BEGIN + 600 * S, None), *pulses(BEGIN + 700 * S, 120)]
    assert hourly(bad)[:2] == [(1, 53, 64), (2, 60, 192)]


def test_a_late_sample_gives_the_hour_again() -> None:
    """Two samples of 9:59 come at 10:01: the record of that hour is given again when the next tells that it may be."""
    rows = pulses(BEGIN, 1)
    late = [Sample("a", BEGIN + H - 60 * S, True), Sample("a", BEGIN + H - 50 * S, False)]
    after = [Sample("a", BEGIN + H + 60 * S, False), *late, Sample("a", BEGIN + H + 61 * S, False)]
    assert hourly([*rows, *after]) == [(1, 1, 192), (1, 2, 192)]


def test_a_pause_of_years_is_told_for_the_last_week() -> None:
    found = hourly([*pulses(BEGIN, 3), Sample("a", BEGIN + 20_000 * H, False)])
    assert found[0] == (1, 3, 192)
    assert 167 <= len(found) - 1 <= 169
    assert found[-1] == (20_000, 0, 192)


def test_hours_are_those_of_the_site() -> None:
    """In India they begin at half past of UTC; one that the plant file does not name is the site's."""
    text = """
plant: {site: pune, timezone: Asia/Kolkata}
sources:
  - {name: plc, type: opcua, endpoint: "opc.tcp://127.0.0.1:4840", tags: [{tag: a, node: "ns=2;s=A"}]}
processors:
  - {name: units, type: edges, tags: [{from: a, hourly: "{tag}/hourly"}]}
  - {name: utc, type: edges, timezone: UTC, tags: [{from: a, to: b, hourly: "{tag}/utc"}]}
"""
    described = plant.parse(text, "plant.yaml", Path(), {})
    ends = [
        s.time
        for processor in described.processors
        for s in processor.build().process(Batch.of("plc", 1, pulses(BEGIN, 100)))
        if s.tag in ("a/hourly", "a/utc")
    ]
    assert ends == [BEGIN + H // 2, BEGIN + 3 * H // 2, BEGIN + H]


async def test_counts_and_hours_go_on_over_a_restart(tmp_path: Path) -> None:
    """Files of a recorder through source, journal, processor, historian; the process ends in the middle of an hour."""
    text = """
plant: {site: workshop}
sources:
  - {name: plc, type: files, folder: in, tag: "{column}", time: time, poll: 20 ms, settle: 0 s,
     columns: [{column: a, data_type: bool}]}
processors:
  - {name: units, type: edges, tags: [{from: a, hourly: "{tag}/hourly"}]}
historian: {type: duckdb}
console: null
"""
    described = plant.parse(text, "plant.yaml", tmp_path, {})
    (tmp_path / "in").mkdir()
    rows = pulses(BEGIN, 150)
    for part in (rows[:100], rows[100:]):
        lines = [f"{_iso(s.time)},{str(s.value).lower()}" for s in part]
        hidden = tmp_path / "in" / f".{part[0].time}.csv"
        hidden.write_text("\n".join(["time,a", *lines, ""]))
        hidden.rename(hidden.with_name(hidden.name[1:]))
        async with Pipeline(described) as pipeline:

            async def read(tag: str, pipeline: Pipeline = pipeline) -> list[tuple[Any, ...]]:
                if pipeline.historian is None:
                    return []
                series = await pipeline.historian.history(tag, 0, 2**62)
                return list(zip(series.times, series.values, strict=True))

            async def done(last: int = part[-1].time, number: int = len(part)) -> bool:
                found = await read("a")
                return bool(found) and found[-1][0] == last and len(found) >= number and bool(await read("a/units"))

            await until(done, "all rows are in the historian", 30)
    async with Pipeline(described) as pipeline:

        async def told() -> bool:
            return len(await read("a/hourly", pipeline)) >= 2

        await until(told, "two hours are told", 30)
        units, records = await read("a/units", pipeline), await read("a/hourly", pipeline)
    # A restart is a reconnect, so what it interrupts is uncertain; the signal fell meanwhile, so no edge is missing.
    assert max(value for _, value in units) == 150
    assert dict(records)[BEGIN + H] == 60
    assert dict(records)[BEGIN + 2 * H] == 60


def _iso(time: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time // 1000)).isoformat()


@given(st.data())
def test_any_restart_gives_the_same(data: st.DataObject) -> None:
    samples = data.draw(
        st.lists(
            st.one_of(
                st.builds(Sample, st.just("a"), st.integers(0, 40).map(lambda i: BEGIN + i * 1000 * S), LEVELS),
                st.builds(lambda i: Sample(TICK, BEGIN + i * 1000 * S, 0), st.integers(0, 40)),
                st.sampled_from([Sample(LOST, 0, True), Sample(COMPLETE, 0, True)]),
            ),
            max_size=60,
        )
    )
    expected = counted(samples)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(samples)))) | {0, len(samples)})
    found: list[Sample] = []
    state: bytes | None = None
    for begin, end in pairwise(cuts):
        processor = config({"from": "a", "to": "units", "hourly": "hourly"}, timezone="UTC").build()
        if state is not None:
            processor.restore(state)
        found += processor.process(Batch.of("plc", 1, samples[begin:end]))
        state = processor.snapshot()
    assert same_samples(found, expected)


def test_the_state_stays_small() -> None:
    """It is written with every commit: a day of pulses with an outage every hour."""
    processor = config({"from": "a", "hourly": "{tag}/hourly"}).build()
    for hour in range(24):
        processor.process(Batch.of("plc", 1, pulses(BEGIN + hour * H, 300, 10 * S)))
        processor.process(Batch.of("$source", 1, [Sample(LOST, 0, True)]))
    assert len(processor.snapshot()) < 2000


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"edge": "up"}, "'rising', 'falling' or 'both'"),
        ({"below": 1}, "`below` belongs to `above`"),
        ({"above": 1, "below": 2}, "`below`, 2, is greater than `above`, 1; swap them"),
        ({"debounce": -1}, "greater than or equal to 0"),
        ({"to": "a"}, "give it one of its own"),
        ({"to": "b", "hourly": "b"}, "two different tags"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(fields: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(advice)):
        config({"from": "a", **fields})


def test_a_wrong_time_zone_is_said() -> None:
    with pytest.raises(ValidationError, match="IANA"):
        config({"from": "a"}, timezone="Europe/Bremen")
