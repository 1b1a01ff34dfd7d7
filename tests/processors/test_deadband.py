"""Deadband and swinging door: what is lost stays within what was allowed, by whatever cut into batches."""

import math
import random
import re
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from shopfloor import plant
from shopfloor.processors.deadband import TICK, DeadbandConfig
from shopfloor.samples import Batch, Quality, Sample, Value
from shopfloor.seams import Processor
from shopfloor.testing.contracts import EVERY_VALUE, ProcessorContract, same_samples

S = 10**9
LOST = "$source/plc/connected"


def config(*tags: dict[str, object]) -> DeadbandConfig:
    return DeadbandConfig.model_validate({"name": "thin", "type": "deadband", "tags": tags})


def thinned(samples: Sequence[Sample], **fields: object) -> list[Sample]:
    return config({"from": "a", "to": "b", **fields}).build().process(Batch.of("plc", 1, samples))


def passed(values: Sequence[Value], **fields: object) -> list[tuple[int, Value]]:
    """What passes of values that come a second apart, as (second, value)."""
    samples = [Sample("a", i * S, value) for i, value in enumerate(values)]
    return [(sample.time // S, sample.value) for sample in thinned(samples, **fields)]


class TestDeadband(ProcessorContract):
    def build(self) -> Processor:
        return config(
            {"from": "a", "deadband": 0.5, "heartbeat": 7 * S},
            {"from": "a", "to": "door", "deviation": "1 %", "span": [0, 100], "longest": 9 * S, "heartbeat": 20 * S},
            {"from": "b", "deviation": 0.25},
        ).build()

    def batches(self) -> Sequence[Batch]:
        dice = random.Random(1)
        values = list(EVERY_VALUE.values())
        found: list[Batch] = []
        for i in range(60):
            rows = [
                Sample("a", i * S + dice.choice((0, 0, 0, -2 * S)), round(math.sin(i / 9) * 5 + dice.random(), 3)),
                Sample("b", i * S, i / 3, 0 if i % 13 == 5 else 192),
                Sample("c", i * S, 1.0),
            ]
            if i % 7 == 0:
                rows.insert(1, Sample("b", i * S - 5, values[i % len(values)]))
                rows.insert(1, Sample("b", i * S - 4, values[i % len(values)]))
            found.append(Batch.of("plc", i, rows))
            if i % 3 == 0:
                found.append(Batch.of("$clock", i, [Sample(TICK, i * S, i * S)]))
            if i % 17 == 9:
                found.append(Batch.of("$source", i, [Sample(LOST, i * S, value) for value in (False, True)]))
        return found


# ---- what is lost ---------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-100, 100),
    st.floats(-100, 100, allow_nan=False),
    st.sampled_from([0.1, 0.2, 0.3, 1e300, -1e300, 2**63, -(2**63)]),
)
STEPS = st.integers(1, 10 * S)


@st.composite
def curves(draw: st.DrawFn) -> list[Sample]:
    """Good numbers in the order of their times, at uneven steps."""
    found: list[Sample] = []
    time = draw(st.integers(-(10**18), 10**18))
    for value in draw(st.lists(NUMBERS, min_size=2, max_size=60)):
        time += draw(STEPS)
        found.append(Sample("a", time, value))
    return found


def exact(value: Value) -> Fraction:
    assert isinstance(value, int | float)
    return Fraction(value)


@given(curves(), st.sampled_from([0, 0.01, 0.5, 3, 50]))
def test_a_line_through_what_passes_misses_no_value_by_more_than_the_deviation(
    samples: list[Sample], deviation: float
) -> None:
    """Up to the last that passed; by exact arithmetic, allowing for the rounding of floats alone."""
    found = thinned(samples, deviation=deviation)
    times = [sample.time for sample in found]
    for sample in samples:
        if sample.time > times[-1]:
            break
        after = bisect_right(times, sample.time)
        before = found[after - 1]
        line = exact(before.value)
        if before.time != sample.time:
            then = found[after]
            slope = (exact(then.value) - exact(before.value)) / (then.time - before.time)
            line += slope * (sample.time - before.time)
        largest = max(abs(exact(s.value)) for s in (sample, before)) + deviation
        assert abs(line - exact(sample.value)) <= Fraction(deviation) + largest * Fraction(1, 10**12)


@given(curves(), st.sampled_from([0, 0.01, 0.5, 3, 50]))
def test_the_value_that_passed_last_is_within_the_deadband(samples: list[Sample], deadband: float) -> None:
    found = thinned(samples, deadband=deadband)
    times = [sample.time for sample in found]
    for sample in samples:
        last = found[bisect_right(times, sample.time) - 1]
        assert abs(exact(last.value) - exact(sample.value)) <= Fraction(deadband) * (1 + Fraction(1, 10**12))


INPUTS = st.one_of(
    st.builds(
        Sample,
        st.just("a"),
        st.integers(0, 60).map(lambda second: second * S),
        st.one_of(NUMBERS, st.booleans(), st.none(), st.sampled_from(["on", math.nan, math.inf])),
        st.sampled_from([192, 192, 192, 216, 64, 0]),
    ),
    st.builds(lambda second: Sample(TICK, second * S, second * S), st.integers(0, 60)),
    st.sampled_from([Sample(LOST, 0, False), Sample(LOST, 0, True), Sample("$source/plc/complete", 0, True)]),
)
OPTIONS = st.sampled_from(
    [{"deadband": 0}, {"deadband": 5, "heartbeat": 9 * S}, {"deviation": 5}, {"deviation": 5, "longest": 9 * S}]
)


@given(st.lists(INPUTS, max_size=40), st.data(), OPTIONS)
def test_any_split_and_any_restart_give_the_same(
    samples: list[Sample], data: st.DataObject, options: dict[str, object]
) -> None:
    """At every cut drawn, a new processor takes up the snapshot of the one before."""
    expected = thinned(samples, **options)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(samples)))) | {0, len(samples)})
    found: list[Sample] = []
    state: bytes | None = None
    for begin, end in pairwise(cuts):
        processor = config({"from": "a", "to": "b", **options}).build()
        if state is not None:
            processor.restore(state)
        found += processor.process(Batch.of("plc", 1, samples[begin:end]))
        state = processor.snapshot()
    assert same_samples(found, expected)


@given(st.lists(INPUTS, max_size=40), OPTIONS)
def test_what_passes_is_as_it_came_and_each_change_of_quality_is_among_it(
    samples: list[Sample], options: dict[str, object]
) -> None:
    found = {(s.time, repr(s.value), s.quality) for s in thinned(samples, **options)}
    came = [s for s in samples if s.tag == "a"]
    assert found <= {(s.time, repr(s.value), s.quality) for s in came}
    newest: Sample | None = None
    for sample in came:
        if newest is not None and sample.time < newest.time:
            assert (sample.time, repr(sample.value), sample.quality) in found, "late, and did not pass"
            continue
        if newest is None or sample.quality != newest.quality:
            assert (sample.time, repr(sample.value), sample.quality) in found
        newest = sample


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_the_last_value_before_a_change_passes_too() -> None:
    """So that a line drawn through is flat until the step."""
    assert passed([1, 1, 1, 1, 5, 5, 5], deadband=0.5) == [(0, 1), (3, 1), (4, 5)]
    assert passed([1, 1, 1, 1, 5, 5, 5], deviation=0.5) == [(0, 1), (3, 1), (4, 5)]


def test_a_deadband_is_exceeded_not_reached() -> None:
    """As OPC UA has it (Part 4, DataChangeFilter): a change is reported when it is more than the deadband."""
    assert passed([0, 0.5, -0.5, 0.5, 0.75], deadband=0.5) == [(0, 0), (3, 0.5), (4, 0.75)]


def test_per_cent_are_of_the_span() -> None:
    assert passed([10, 11.9, 12.1], deadband="1 %", span=[-100, 100]) == [(0, 10), (1, 11.9), (2, 12.1)]
    assert passed([10, 11.9, 12.0], deadband="1 %", span=[-100, 100]) == [(0, 10)]


def test_a_straight_line_is_its_first_value_until_it_bends() -> None:
    ramp: list[Value] = [i / 10 for i in range(1000)]
    assert passed([*ramp, 0.0], deviation=0.01) == [(0, 0.0), (999, 99.9)]
    assert passed([*ramp, 0.0, 0.0, 50.0], deviation=0.01)[-2:] == [(1000, 0.0), (1001, 0.0)]


def test_it_is_worth_it() -> None:
    """An oven's swing of 20 K in two hours with noise of 0.05 K, a value a second, two tenths of a kelvin allowed."""
    dice = random.Random(7)
    oven: list[Value] = [200 + 10 * math.sin(i / 7200 * 2 * math.pi) + dice.gauss(0, 0.05) for i in range(7200)]
    assert len(passed(oven, deviation=0.2)) < 7200 / 50


def test_no_line_is_longer_than_the_longest() -> None:
    assert passed([0] * 25, deviation=1, longest=10 * S) == [(0, 0), (10, 0), (20, 0)]
    gap = [Sample("a", 0, 0.0), Sample("a", 100 * S, 0.0), Sample("a", 101 * S, 0.0)]
    assert [s.time // S for s in thinned(gap, deviation=1, longest=10 * S)] == [0, 100]


@pytest.mark.parametrize("kind", ["deadband", "deviation"])
def test_the_heartbeat_lets_the_newest_pass(kind: str) -> None:
    assert passed([3] * 25, **{kind: 1}, heartbeat=10 * S) == [(0, 3), (10, 3), (20, 3)]


@pytest.mark.parametrize("begin", [0, 10**18])
def test_the_heartbeat_is_also_the_clocks_when_nothing_comes(begin: int) -> None:
    """A source that tells changes only fell silent: its newest value passes; whatever time its own clock has."""
    rows = [Sample("a", 5 * S, 1.0), Sample("a", 6 * S, 1.2)]
    ticks = [Sample(TICK, begin + i * S, 0) for i in range(30)]
    found = thinned([*rows, *ticks], deadband=1, heartbeat=10 * S)
    assert [(s.time // S, s.value) for s in found] == [(5, 1.0), (6, 1.2)]
    assert len(thinned([*rows, *ticks[:10]], deadband=1, heartbeat=10 * S)) == 1


def test_text_and_truth_values_pass_when_they_change() -> None:
    assert passed(["idle", "idle", "run", "run"], deadband=5) == [(0, "idle"), (1, "idle"), (2, "run")]
    assert passed([True, True, 1, 1.0, None], deviation=5) == [(0, True), (1, True), (2, 1), (3, 1.0), (4, None)]
    assert [v for _, v in passed([math.nan, math.nan, 1.0], deadband=5)] == [
        pytest.approx(math.nan, nan_ok=True)
    ] * 2 + [1.0]


def test_no_line_over_what_nobody_saw() -> None:
    """A source that was lost: the newest before passes, and the first after it."""
    rows = [Sample("a", i * S, 1.0) for i in range(3)]
    rows += [Sample(LOST, 0, False), Sample("$source/other/connected", 0, True), Sample(LOST, 0, True)]
    rows += [Sample("a", i * S, 1.0) for i in range(10, 13)]
    assert [s.time // S for s in thinned(rows, deviation=1)] == [0, 2, 10]
    assert [s.time // S for s in thinned([*rows[:3], rows[4], *rows[6:]], deviation=1)] == [0]
    kept = [*rows[:6], Sample("$source/plc/complete", 0, True), *rows[6:]]
    assert [s.time // S for s in thinned(kept, deviation=1)] == [0, 2], "the other side had kept everything"


def test_late_samples_pass_and_the_same_again_does_not() -> None:
    rows = [Sample("a", t * S, 1.0) for t in (5, 7, 6, 7, 8)]
    assert [s.time // S for s in thinned(rows, deadband=1)] == [5, 6]
    step = [Sample("a", 5 * S, value) for value in (1.0, 9.0)]
    assert thinned(step, deadband=20) == [Sample("b", 5 * S, 1.0), Sample("b", 5 * S, 9.0)]


def test_the_outputs_have_names_by_the_template() -> None:
    described = config({"from": "press-1/PV", "deadband": 1, "unit": "bar"}, {"from": "x", "to": "y", "deviation": 1})
    assert [(info.tag, info.unit) for info in described.outputs()] == [("press-1/PV/compressed", "bar"), ("y", "")]
    assert described.inputs() == ["press-1/PV", "x", TICK, "$source/*/connected", "$source/*/complete"]


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({}, "give `deadband` or, for a swinging door, `deviation`"),
        ({"deadband": 1, "deviation": 1}, "one of them"),
        ({"deadband": -1}, "not negative"),
        ({"deadband": "much"}, "`0.5` in the tag's unit, or `1 %` of `span`"),
        ({"deadband": True}, "needs a number"),
        ({"deadband": "1 %"}, "what 1 % is of is not said; give `span: [lowest, highest]`"),
        ({"deviation": "101 %", "span": [0, 1]}, "at most 100 %"),
        ({"deadband": 1, "span": [5, 5]}, "is not below its highest"),
        ({"deadband": 1, "longest": S}, "for a deadband give `heartbeat`"),
        ({"deviation": 1, "longest": 0}, "greater than 0"),
        ({"deviation": 1, "to": "{name}"}, "{name} means nothing here"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(fields: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(advice)):
        config({"from": "a", **fields})


def test_check_says_it_with_the_line(tmp_path: Path) -> None:
    text = """
plant: {site: bremen}
sources:
  - {name: plc, type: opcua, endpoint: "opc.tcp://127.0.0.1:4840", tags: [{tag: press-1/PV, node: "ns=2;s=PV"}]}
processors:
  - name: thin
    type: deadband
    tags:
      - {from: press-1/VP, deadband: 0.5}
"""
    with pytest.raises(plant.PlantError) as refused:
        plant.parse(text, "plant.yaml", tmp_path, {})
    expected = "plant.yaml:6: processors[0]: no source gives the tag 'press-1/VP'; did you mean 'press-1/PV'?"
    assert expected in str(refused.value)


def test_a_bad_sample_passes_and_ends_the_line() -> None:
    rows = [Sample("a", i * S, 1.0 * i, Quality.GOOD if i != 3 else Quality.BAD) for i in range(6)]
    assert [(s.time // S, s.quality) for s in thinned(rows, deviation=1)] == [(0, 192), (2, 192), (3, 0), (4, 192)]
