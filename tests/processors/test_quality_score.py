"""The quality score: bands with soft edges by hand, units and windows against a plain integral, what is not known."""

import math
import random
import re
import statistics
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from shopfloor import plant
from shopfloor.processors.quality_score import TICK, QualityScoreConfig, Signal, score
from shopfloor.samples import Batch, Quality, Sample, Value
from shopfloor.seams import Processor
from shopfloor.simulators.fleet import fleet, quality_score
from shopfloor.testing.contracts import EVERY_VALUE, ProcessorContract, same_samples

ROOT = Path(__file__).parents[2]
S = 10**9
MINUTE = 60 * S
BEGIN = 1_767_258_000 * S
LOST = "$source/plc/connected"
HEAT = {"tag": "t", "band": [180, 220], "soft": 20, "weight": 3}
SPEED = {"tag": "v", "band": [0.9, 1.1], "soft": 0.2, "weight": 1}


def config(**fields: object) -> QualityScoreConfig:
    return QualityScoreConfig.model_validate(
        {"name": "q", "type": "quality_score", "scores": [{"to": "q", "signals": [HEAT, SPEED], **fields}]}
    )


def scored(samples: Sequence[Sample], **fields: object) -> list[Sample]:
    return config(**fields).build().process(Batch.of("plc", 1, samples))


def told(samples: Sequence[Sample], tag: str, **fields: object) -> list[tuple[object, ...]]:
    """What a tag gives, as (seconds since the beginning, value, quality)."""
    return [((s.time - BEGIN) / S, s.value, s.quality) for s in scored(samples, **fields) if s.tag == tag]


def at(second: float, tag: str, value: Value, quality: int = 192) -> Sample:
    return Sample(tag, BEGIN + round(second * S), value, quality)


class TestQualityScore(ProcessorContract):
    def build(self) -> Processor:
        return QualityScoreConfig.model_validate(
            {
                "name": "q", "type": "quality_score",
                "scores": [
                    {"to": "q", "signals": [HEAT, SPEED], "unit": "n", "every": MINUTE},
                    {"to": "p", "signals": [SPEED], "unit": "n", "mean": "samples"},
                ],
            }
        ).build()  # fmt: skip

    def batches(self) -> Sequence[Batch]:
        dice = random.Random(3)
        values = list(EVERY_VALUE.values())
        found: list[Batch] = []
        for i in range(120):
            late = dice.choice((0, 0, 0, -30))
            rows = [
                at(i * 7 + late, "t", dice.uniform(150, 250), dice.choice((192, 192, 192, 64, 0))),
                at(i * 7 + late, "v", dice.uniform(0.7, 1.3)),
                at(i * 7, "x", 1.0),
            ]
            if i % 4 == 0:
                rows.insert(dice.randrange(3), at(i * 7, "n", i // 4))
            if i % 9 == 0:
                rows.append(at(i * 7 + 1, dice.choice("tvn"), values[i % len(values)]))
            found.append(Batch.of("plc", i, rows))
            if i % 3 == 0:
                found.append(Batch.of("$clock", i, [at(i * 7 + 5, TICK, 0)]))
            if i % 29 == 9:
                found.append(Batch.of("$source", i, [Sample(LOST, 0, value) for value in (False, True)]))
        return found


# ---- bands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "outside"),
    [(180, 0), (200, 0), (220, 0), (230, 0.5), (240, 1), (500, 1), (170, 0.5), (175, 0.25), (160, 1), (-1e300, 1)],
)
def test_a_band_with_soft_edges(value: float, outside: float) -> None:
    assert Signal.model_validate(HEAT).outside(value) == outside


def test_a_band_may_have_one_end() -> None:
    assert Signal(tag="t", band=(None, 5), soft=1).outside(-100) == 0
    assert Signal(tag="t", band=(5, None), soft=2).outside(4) == 0.5


@pytest.mark.parametrize(
    ("heat", "speed", "expected"), [(200, 1.0, 100), (230, 1.0, 62.5), (200, 1.2, 87.5), (230, 1.2, 50), (300, 2.0, 0)]
)
def test_weights_by_hand(heat: float, speed: float, expected: float) -> None:
    """Heat counts three quarters, speed one."""
    assert told([at(0, "t", heat), at(1, "v", speed)], "q")[-1] == (1, pytest.approx(expected), 192)


@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.floats(0, 1)), min_size=1))
def test_a_score_lies_between_0_and_100_and_between_its_parts(parts: list[tuple[float, float]]) -> None:
    found = score(parts)
    assert found is not None
    singles = [100 * (1 - outside) for _, outside in parts]
    assert 0 <= found <= 100
    assert min(singles) - 1e-9 <= found <= max(singles) + 1e-9


# ---- live -----------------------------------------------------------------------------------------------------------


def test_the_live_score_is_told_when_it_changes() -> None:
    rows = [at(0, "t", 200), at(1, "v", 1.0), at(2, "t", 205), at(3, "t", 240), at(4, "v", 1.05)]
    assert told(rows, "q") == [(0, 100, 64), (1, 100, 192), (3, 25, 192)]


@pytest.mark.parametrize(("value", "quality"), [(None, 192), ("hot", 192), (True, 192), (math.nan, 192), (230.0, 0)])
def test_a_signal_that_is_not_known_leaves_the_score_to_the_others(value: Value, quality: int) -> None:
    rows = [at(0, "t", 240), at(0, "v", 1.0), at(5, "t", value, quality), at(6, "v", None)]
    assert told(rows, "q")[-2:] == [(5, 100, 64), (6, None, Quality.WAITING_FOR_INITIAL_DATA)]


def test_a_signal_of_a_lost_source_is_not_known() -> None:
    rows = [at(0, "t", 240), at(0, "v", 1.0)]
    assert told([*rows, Sample(LOST, 0, False)], "q")[-1] == (0, None, Quality.WAITING_FOR_INITIAL_DATA)
    assert told([*rows, Sample("$source/other/connected", 0, False)], "q")[-1] == (0, 25, 192)
    back = [Sample(LOST, 0, False), Sample(LOST, 0, True), Sample("$source/plc/complete", 0, True)]
    assert told([*rows, *back], "q")[-1] == (0, 25, 192), "what did not change is not said again"
    assert told([*rows, *back[:2], at(1, "t", 240)], "q")[-1] == (1, 0, 64)


def test_the_simulated_fleets_own_score_by_the_plant_file_of_the_page() -> None:
    """A day of a machine: by its sensors' values as its formula has it; so off its own by their noise alone."""
    page = (ROOT / "docs" / "connectors" / "quality_score.md").read_text("utf-8")
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "machine-01" in block)
    sources = "sources: [{name: fleet, type: mqtt, servers: mqtt://127.0.0.1, topics: [{topic: 'fleet/+/+'}]}]"
    described = plant.parse(f"plant: {{site: fleet}}\n{sources}\n{text}", "page.yaml", ROOT, {})
    processor = described.processors[0].build()
    differences: list[float] = []
    for event in islice(fleet(1, 1, BEGIN, 5.0), 20_000):
        if event.kind != "telemetry" or event.said["state"] != "running":
            continue
        heat, speed, own = (event.said[name] for name in ("temperature", "speed", "quality_score"))
        rows = [Sample(f"machine-01/{name}", event.time, event.said[name]) for name in ("temperature", "speed")]
        found = [s.value for s in processor.process(Batch.of("fleet", 1, rows)) if s.tag == "machine-01/conditions"]
        if found and abs(heat - 60) < 37 and abs(speed - 1) < 0.29:
            assert found[-1] == pytest.approx(quality_score(heat, speed), abs=1e-5)
            assert isinstance(found[-1], float)
            differences.append(found[-1] - own)
    assert len(differences) > 5000
    assert math.sqrt(statistics.fmean(d * d for d in differences)) < math.hypot(1.5 * 0.2, 200 * 0.005)


# ---- units and windows ----------------------------------------------------------------------------------------------


def test_a_units_score_is_the_mean_over_its_time() -> None:
    """Ten seconds at 220 °C, 30 s at 230 °C: a quarter good, the rest at half of heat's three quarters."""
    rows = [at(0, "t", 220), at(0, "v", 1.0), at(0, "n", 7), at(10, "t", 230), at(40, "n", 8), at(50, "n", 8)]
    expected = 100 * (1 - 0.75 * 0.5 * 30 / 40)
    assert told(rows, "q/unit", unit="n") == [(40, pytest.approx(expected), 192)]


def test_a_button_ends_a_unit_when_it_becomes_true() -> None:
    rows = [at(0, "t", 200), at(0, "v", 1), *(at(i, "n", i % 2 == 0) for i in range(5))]
    assert [second for second, *_ in told(rows, "q/unit", unit="n")] == [2, 4]


def test_values_that_come_with_each_part_belong_to_it_in_either_order() -> None:
    """A measuring machine's row: part, heat, speed, all of one time; the columns may stand in any order."""
    parts = [(200, 1.0), (240, 1.0), (200, 1.3), (230, 1.0)]
    for order in ("ntv", "tvn", "tnv"):
        rows: list[Sample] = []
        for i, (heat, speed) in enumerate(parts):
            row: dict[str, Value] = {"n": f"{i:05}", "t": heat, "v": speed}
            rows += [at(60 * i, tag, row[tag]) for tag in order]
        found = told([*rows, *(at(300 + i, TICK, 0) for i in range(4))], "q/unit", unit="n", mean="samples")
        assert found == [(60, 25, 192), (120, 75, 192), (180, 62.5, 192)]


def test_a_part_without_one_of_its_values_is_uncertain_and_without_any_has_no_score() -> None:
    rows = [at(0, "n", 0), at(1, "t", 200), at(1, "n", 1), at(2, "n", 2), at(3, "v", 1.0)]
    assert told(rows, "q/unit", unit="n", mean="samples") == [
        (1, 100, 64), (2, None, Quality.WAITING_FOR_INITIAL_DATA)
    ]  # fmt: skip


def test_after_bad_quality_of_the_trigger_comes_a_baseline() -> None:
    rows = [at(0, "t", 200), at(0, "v", 1), at(1, "n", 1), at(2, "n", 5, 0), at(3, "n", 7), at(4, "n", 8)]
    assert [second for second, *_ in told(rows, "q/unit", unit="n")] == [4]
    away = [at(0, "v", 1), at(1, "n", 1), Sample(LOST, 0, False), at(3, "n", 7), at(4, "n", 8)]
    assert [second for second, *_ in told(away, "q/unit", unit="n")] == [4]
    away.insert(3, Sample("$source/plc/complete", 0, True))
    assert [second for second, *_ in told(away, "q/unit", unit="n")] == [3, 4]


def test_windows_are_told_by_samples_and_by_the_clock() -> None:
    """The first one is not whole, so it is uncertain; ticks go on where samples stop."""
    rows = [at(30, "t", 200), at(30, "v", 1.0), at(90, "t", 240)]
    ticks = [at(90 + 10 * i, TICK, 0) for i in range(10)]
    assert told([*rows, *ticks], "q/window", every=MINUTE) == [
        (60, 100, 64), (120, pytest.approx(62.5), 192), (180, pytest.approx(25), 192)
    ]  # fmt: skip


def test_a_unit_and_a_window_with_an_uncertain_value_are_uncertain() -> None:
    rows = [at(0, "t", 200), at(0, "v", 1.0), at(0, "n", 0), at(10, "t", 205, 84), at(20, "t", 200), at(30, "n", 1)]
    rows += [at(40, "n", 2), at(60, "n", 3)]
    assert told(rows, "q/unit", unit="n") == [(30, 100, 64), (40, 100, 192), (60, 100, 192)]
    assert told(rows, "q/window", unit="n", every=MINUTE) == [(60, 100, 64)]


CURVE = st.lists(st.tuples(st.integers(1, 50), st.integers(150, 250)), min_size=1, max_size=30)


@given(CURVE)
def test_units_and_windows_are_the_integral(steps: list[tuple[int, int]]) -> None:
    """Against a plain sum over seconds."""
    rows, second, course = [at(0, "t", 200), at(0, "v", 1.0), at(0, "n", 0)], 0, {0: 200}
    for step, heat in steps:
        second += step
        rows.append(at(second, "t", heat))
        course[second] = heat
    end = second + 7
    rows.append(at(end, "n", 1))
    seconds = [course[max(begin for begin in course if begin <= i)] for i in range(end)]
    lost = [0.75 * min(1.0, max(0, 180 - heat, heat - 220) / 20) for heat in seconds]
    assert told(rows, "q/unit", unit="n") == [(end, pytest.approx(100 * (1 - sum(lost) / end), abs=1e-9), 192)]
    for i, (when, value, *_) in enumerate(told(rows, "q/window", unit="n", every=MINUTE)):
        assert when == 60 * (i + 1)
        assert value == pytest.approx(100 * (1 - sum(lost[60 * i : 60 * i + 60]) / 60), abs=1e-9)


HEATS = st.one_of(st.integers(100, 300), st.none())
INPUTS = st.one_of(
    st.builds(at, st.integers(0, 300), st.just("t"), HEATS, st.sampled_from([192, 64, 0])),
    st.builds(at, st.integers(0, 300), st.just("v"), st.floats(0, 2)),
    st.builds(at, st.integers(0, 300), st.just("n"), st.integers(0, 3)),
    st.builds(at, st.integers(0, 300), st.just(TICK), st.just(0)),
    st.sampled_from([Sample(LOST, 0, True), Sample("$source/plc/complete", 0, True)]),
)  # fmt: skip


@given(st.lists(INPUTS, max_size=40), st.data(), st.sampled_from(["time", "samples"]))
def test_any_split_and_any_restart_give_the_same(samples: list[Sample], data: st.DataObject, mean: str) -> None:
    fields = {"unit": "n", "every": MINUTE, "mean": mean}
    expected = scored(samples, **fields)
    assert all(
        s.value is None or -1e-9 <= s.value <= 100 + 1e-9 for s in expected if not isinstance(s.value, str | bytes)
    )
    cuts = sorted(data.draw(st.sets(st.integers(0, len(samples)))) | {0, len(samples)})
    found: list[Sample] = []
    state: bytes | None = None
    for begin, end in pairwise(cuts):
        processor = config(**fields).build()
        if state is not None:
            processor.restore(state)
        found += processor.process(Batch.of("plc", 1, samples[begin:end]))
        state = processor.snapshot()
    assert same_samples(found, expected)


def test_a_pause_of_a_year_is_told_for_the_last_thousand_windows() -> None:
    rows = [at(0, "t", 200), at(0, "v", 1.0), at(365 * 86400, "t", 200)]
    found = told(rows, "q/window", every=MINUTE)
    assert 1000 <= len(found) <= 1002
    assert found[-1][0] == 365 * 86400


def test_the_outputs_say_what_they_are() -> None:
    described = config(unit="n", every=MINUTE)
    assert [info.tag for info in described.outputs()] == ["q", "q/unit", "q/window"]
    assert described.inputs() == ["t", "v", "n", TICK, "$source/*/connected", "$source/*/complete"]


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"signals": [{**HEAT, "band": [220, 180]}]}, "the lowest value of `band`, 220, is not below the highest, 180"),
        ({"signals": [{**HEAT, "band": [180, 180]}]}, "is not below"),
        ({"signals": [{**HEAT, "band": [None, None]}]}, "neither a lowest nor a highest"),
        ({"signals": [{**HEAT, "soft": 0}]}, "greater than 0"),
        ({"signals": [{**HEAT, "weight": 0}]}, "greater than 0"),
        ({"signals": [HEAT, HEAT]}, "'t' stands in `signals` twice"),
        ({"signals": []}, "at least 1"),
        ({"to": "t"}, "is read and given"),
        ({"mean": "samples"}, "say by `unit` when one is done"),
        ({"every": S // 2}, "greater than or equal to 1000000000"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(fields: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(advice)):
        config(**fields)
