"""Lengths at 20 °C: the physics by numbers worked by hand and by Monte Carlo, the pairing in time, bad input."""

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from shopfloor import plant
from shopfloor.processors.materials import MATERIALS, material
from shopfloor.processors.thermal import TICK, ThermalConfig, length_at_20, uncertainty
from shopfloor.samples import Batch, Quality, Sample, Value
from shopfloor.seams import Processor
from shopfloor.testing.contracts import EVERY_VALUE, ProcessorContract

ROOT = Path(__file__).parents[2]
S = 10**9
ALUMINIUM = 23.6e-6


def config(**fields: object) -> ThermalConfig:
    options: dict[str, object] = {
        "name": "at-20", "type": "thermal", "temperature": "t", "material": "aluminium 6061", "within": 5 * S,
        "lengths": [{"from": "l", "to": "l20"}],
    }  # fmt: skip
    return ThermalConfig.model_validate({**options, **fields})


def given_by(samples: Sequence[Sample], **fields: object) -> list[Sample]:
    return config(**fields).build().process(Batch.of("cmm", 1, samples))


def lengths(samples: Sequence[Sample], **fields: object) -> list[tuple[object, ...]]:
    return [(s.time, s.value, s.quality) for s in given_by(samples, **fields) if s.tag == "l20"]


class TestThermal(ProcessorContract):
    def build(self) -> Processor:
        return config(
            lengths=[
                {"from": "l", "to": "l20", "limits": [99, 101]},
                {"from": "l", "to": "brass", "material": "brass C36000", "ok": "b/ok", "uncertainty": "b/u",
                 "reason": "b/reason"},
                {"from": "w", "expansion": 1e-5},
            ],
            temperature_uncertainty=0.1, expansion_uncertainty=1e-6,
        ).build()  # fmt: skip

    def batches(self) -> Sequence[Batch]:
        values = list(EVERY_VALUE.values())
        found: list[Batch] = []
        for i in range(40):
            rows = [
                Sample("l", i * S, 100.0 + i / 1000),
                Sample("t", (i - i % 3) * S, 20.0 + i / 7, 0 if i % 11 == 5 else 192),
                Sample("w", (i - 2 * (i % 4)) * S, values[i % len(values)]),
                Sample("x", i * S, 5.0),
            ]
            if i % 5 == 0:
                rows.append(Sample("t", i * S + 7, values[i % len(values)]))
            found.append(Batch.of("cmm", i, rows))
            if i % 2:
                found.append(Batch.of("$clock", i, [Sample(TICK, i * S + 3, i * S + 3)]))
        return found


# ---- physics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "expansion", "temperature", "expected"),
    [
        (250.0, ALUMINIUM, 20.0, 250.0),
        (250.0236, ALUMINIUM, 24.0, 250.0),  # 250 mm · 23.6e-6 /K · 4 K = 23.6 µm
        (249.9764, ALUMINIUM, 16.0, 250.0),
        (1000.115, 11.5e-6, 30.0, 1000.0),  # a metre of gauge block steel, ten kelvins too warm: 115 µm
        (100.0, 0.0, 35.0, 100.0),
    ],
)
def test_the_formula_by_hand(length: float, expansion: float, temperature: float, expected: float) -> None:
    assert length_at_20(length, expansion, temperature) == pytest.approx(expected, rel=1e-12)


@given(
    st.floats(1, 1e4), st.floats(0, 250e-6), st.floats(-40, 100)
)  # a part that is warmed and measured has the length that it had
def test_expanding_and_compensating_are_inverse(length: float, expansion: float, temperature: float) -> None:
    expanded = length * (1 + expansion * (temperature - 20))
    assert length_at_20(expanded, expansion, temperature) == pytest.approx(length, rel=1e-12)


@pytest.mark.parametrize(
    ("temperature", "u_temperature", "u_expansion"),
    [
        (24.0, 0.05, 0.0),
        (24.0, 0.05, 1e-6),
        (20.0, 0.5, 1e-6),
        (20.0, 0.5, 3e-6),
        (-10.0, 0.2, 2e-6),
        (95.0, 1.0, 2e-6),
    ],
)
def test_the_uncertainty_is_that_of_a_monte_carlo(temperature: float, u_temperature: float, u_expansion: float) -> None:
    """A million draws (JCGM 101): their standard deviation is known to 0.07 %, five times that is allowed."""
    draws = 10**6
    dice = np.random.default_rng(1)
    temperatures = dice.normal(temperature, u_temperature, draws)
    expansions = dice.normal(ALUMINIUM, u_expansion, draws)
    spread = float(np.std(250 / (1 + expansions * (temperatures - 20))))
    worked = uncertainty(250, ALUMINIUM, temperature, u_temperature, u_expansion)
    assert worked == pytest.approx(spread, rel=5 / math.sqrt(2 * draws) + 1e-3)


@pytest.mark.parametrize(
    ("expansion", "off", "u_temperature", "u_expansion", "published"),
    [
        (11.5e-6, 0.0, 0.05 / 3**0.5, 0.0, 16.6),  # l·α·u(δθ), limits ±0.05 °C, rectangular
        (0.0, -0.1, 0.0, 1e-6 / 3**0.5, 2.9),  # l·θ·u(δα), limits ±1e-6 /K, rectangular
        (0.0, 0.0, math.hypot(0.2, 0.5 / 2**0.5), 1e-6 / 3**0.5, 11.7),  # H.1.7, the mixed term: l·u(δα)·u(θ)
    ],
)
def test_the_example_of_the_gum(
    expansion: float, off: float, u_temperature: float, u_expansion: float, published: float
) -> None:
    """JCGM 100:2008, H.1, a gauge block of 50 mm: the parts of the uncertainty in nm, as they are printed there."""
    assert uncertainty(50, expansion, 20 + off, u_temperature, u_expansion) * 1e6 == pytest.approx(published, abs=0.1)


# ---- materials ------------------------------------------------------------------------------------------------------


def test_materials_are_found_however_they_are_written() -> None:
    assert material("Aluminum 6061").expansion == ALUMINIUM
    assert material("Titanium TI 6AL 4V").expansion == 8.6e-6
    assert material("ZERODUR").expansion == 0


def test_the_page_has_every_material_with_its_coefficient_and_source() -> None:
    page = (ROOT / "docs" / "connectors" / "thermal.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|`]+) \| ([\d.]+) \| (\w[^|]*) \|$", page, re.MULTILINE)
    assert [(name, float(number)) for name, number, _ in rows] == [
        (m.name, round(m.expansion * 1e6, 6)) for m in MATERIALS
    ]
    assert all(source.split()[0] in m.source for (_, _, source), m in zip(rows, MATERIALS, strict=True))
    assert all(m.source in " ".join(page.split()) for m in MATERIALS)


# ---- which temperature ----------------------------------------------------------------------------------------------


def test_the_row_of_a_measuring_machine_in_either_order() -> None:
    for row in itertools.permutations([Sample("t", 5, 24.0), Sample("l", 5, 250.0236)]):
        assert lengths(row) == [(5, pytest.approx(250.0), 192)]


def test_the_nearest_in_time_is_taken_before_or_after() -> None:
    """Of 20 °C a second before, and 30 °C two seconds after: the first; the other way round: the second."""
    early = [Sample("t", 9 * S, 20.0), Sample("l", 10 * S, 100.0), Sample("t", 12 * S, 30.0)]
    assert lengths(early) == [(10 * S, 100.0, 192)]
    late = [Sample("t", 8 * S, 20.0), Sample("l", 10 * S, 100.0), Sample("t", 11 * S, 30.0)]
    assert lengths(late) == [(10 * S, pytest.approx(100 / (1 + 236e-6)), 192)]


def test_lengths_that_come_late_find_the_temperature_of_their_time() -> None:
    """A file of ten minutes comes when it is closed; the temperatures came as they were measured."""
    warmer = [Sample("t", i * S, 20.0 + i / 100) for i in range(600)]
    late = [Sample("l", i * S, 100.0) for i in range(0, 600, 50)]
    assert lengths(warmer + late) == [
        (i * S, pytest.approx(length_at_20(100, ALUMINIUM, 20 + i / 100)), 192) for i in range(0, 600, 50)
    ]


def test_the_clock_ends_the_waiting_also_when_the_times_are_of_last_year() -> None:
    """The time waited counts, not the time of day: so a backfill and a wrong clock wait alike."""
    now = 1000 * S
    rows = [Sample("t", 9 * S, 21.0), Sample("l", 11 * S, 100.0)]
    ticks = [Sample(TICK, now + i * S, now + i * S) for i in range(4)]
    assert lengths([*rows, *ticks[:2]]) == []
    assert lengths([*rows, *ticks[:3]]) == [(11 * S, pytest.approx(100 / (1 + ALUMINIUM)), 192)]


@pytest.mark.parametrize(
    ("temperature", "quality", "reason"),
    [
        ([], Quality.NOT_CONNECTED, "t gave nothing within 5 s"),
        ([Sample("t", 0, 20.0)], Quality.NOT_CONNECTED, "t gave nothing within 5 s"),
        ([Sample("t", 10 * S, 20.0, 24)], 24, "t was bad (quality 24)"),
        ([Sample("t", 10 * S, None, 8)], 8, "t gave no number"),
        ([Sample("t", 10 * S, "warm")], Quality.CONFIGURATION_ERROR, "t gave no number"),
        ([Sample("t", 10 * S, True)], Quality.CONFIGURATION_ERROR, "t gave no number"),
        ([Sample("t", 10 * S, math.nan)], Quality.SENSOR_FAILURE, "t gave nan"),
        ([Sample("t", 10 * S, 850.0)], Quality.SENSOR_FAILURE, "t gave 850 °C, which is not from -40 to 100 °C"),
    ],
)
def test_without_a_good_temperature_there_is_no_length_but_a_reason(
    temperature: list[Sample], quality: int, reason: str
) -> None:
    """Never guessed: 850 °C is what a broken Pt100 says, and the value of ten seconds ago is not that of now."""
    ticks = [Sample(TICK, (100 + i) * S, 0) for i in range(7)]
    found = given_by(
        [*temperature, Sample("l", 10 * S, 100.0), *ticks],
        lengths=[{"from": "l", "to": "l20", "limits": [99, 101]}],
        temperature_uncertainty=0.1,
    )
    assert found == [
        Sample("l20", 10 * S, None, quality),
        Sample("l/uncertainty", 10 * S, None, quality),
        Sample("l/ok", 10 * S, None, quality),
        Sample("l/reason", 10 * S, reason),
    ]


@pytest.mark.parametrize(
    ("value", "quality", "expected"), [("long", 192, 4), (None, 8, 8), (math.inf, 192, 16), (True, 192, 4), (5.0, 0, 0)]
)
def test_a_length_that_is_none_gives_none(value: Value, quality: int, expected: int) -> None:
    assert lengths([Sample("t", 1, 20.0), Sample("l", 1, value, quality)]) == [(1, None, expected)]


def test_uncertain_stays_uncertain() -> None:
    assert lengths([Sample("t", 1, 20.0, 64), Sample("l", 1, 5.0)]) == [(1, 5.0, 64)]
    assert lengths([Sample("t", 1, 20.0), Sample("l", 1, 5.0, 84)]) == [(1, 5.0, 84)]


def test_reasons_are_said_when_they_change() -> None:
    rows = [
        row
        for i, temperature in enumerate([20.0, 20.0, 850.0, 850.0, 20.0])
        for row in (Sample("t", i * S, temperature), Sample("l", i * S, 1.0))
    ]
    reasons = [(s.time // S, bool(s.value)) for s in given_by(rows) if s.tag == "l/reason"]
    assert reasons == [(0, False), (2, True), (4, False)]


# ---- judged at 20 °C ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "temperature", "ok"),
    [
        (250.0336, 24.0, True),  # 10 µm too long at 20 °C; as measured it is far outside ±15 µm
        (250.0100, 24.0, True),  # as measured inside, at 20 °C 13.6 µm too short: still inside
        (250.0050, 24.0, False),  # as measured inside, at 20 °C 18.6 µm too short
        (250.0150, 20.0, True),
        (250.0151, 20.0, False),
    ],
)
def test_the_tolerance_holds_at_20_degrees(measured: float, temperature: float, ok: bool) -> None:  # noqa: FBT001  # expected
    found = given_by(
        [Sample("t", 1, temperature), Sample("l", 1, measured)],
        lengths=[{"from": "l", "to": "l20", "limits": [249.985, 250.015]}],
    )
    assert [s.value for s in found if s.tag == "l/ok"] == [ok]


def test_the_outputs_say_what_they_are() -> None:
    described = config(
        temperature_uncertainty=0.05, lengths=[{"from": "cmm/length", "unit": "mm", "limits": [1, 2]}]
    ).outputs()
    assert [(info.tag, info.data_type, info.unit) for info in described] == [
        ("cmm/length/compensated", "float", "mm"), ("cmm/length/uncertainty", "float", "mm"),
        ("cmm/length/ok", "bool", ""), ("cmm/length/reason", "text", ""),
    ]  # fmt: skip
    assert [info.tag for info in config().outputs()] == ["l20", "l/reason"]
    assert config().inputs() == ["t", "l", TICK]


def test_a_state_of_an_older_plant_file_lets_go_what_is_no_longer_there() -> None:
    before = config(lengths=[{"from": "l"}, {"from": "gone"}]).build()
    assert before.process(Batch.of("cmm", 1, [Sample("gone", 5, 1.0), Sample("l", 5, 1.0)])) == []
    after = config().build()
    after.restore(before.snapshot())
    assert {s.tag for s in after.process(Batch.of("cmm", 2, [Sample("t", 5, 20.0)]))} == {"l20", "l/reason"}


def test_what_waits_and_what_is_remembered_is_bounded() -> None:
    """A sensor that does not come back, a length a millisecond: the oldest go on without a temperature."""
    processor = config(within=3600 * S).build()
    found = processor.process(Batch.of("cmm", 1, [Sample("l", i, 1.0) for i in range(1500)]))
    assert [s.time for s in found if s.tag == "l20"] == list(range(500))
    processor.process(Batch.of("cmm", 1, [Sample("t", 10**6 + i, 20.0) for i in range(10_000)]))
    assert len(processor.snapshot()) < 150_000


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"material": "Aluminium 6016"}, "did you mean 'aluminium 6061'"),
        ({"material": "cheese"}, "give `expansion`, in 1/K, or one of: aluminium 1100"),
        ({"material": None}, "what 'l' is made of is not said; give `material` or `expansion`"),
        ({"expansion": 1e-6}, "`material` or `expansion`, not both"),
        ({"material": None, "expansion": 23.6}, "write 23.6e-6 if you mean"),
        ({"temperature": "l"}, "is the temperature"),
        ({"plausible": [50, 0]}, "is not below its highest"),
        ({"temperature_uncertainty": -1}, "greater than or equal to 0"),
        ({"lengths": []}, "at least 1"),
        ({"lengths": [{"from": "l", "limits": [5, 5]}]}, "the least of `limits`, 5, is not below the greatest"),
        ({"lengths": [{"from": "l", "to": "l"}]}, "give it one of its own"),
        ({"lengths": [{"from": "l", "to": "{tga}/x"}]}, "{tga} means nothing here"),
        ({"lengths": [{"from": "l", "to": "{tag}/ok"}]}, "four different tags"),
        ({"lengths": [{"from": "l" * 250}]}, "more than 255 characters"),
        ({"lengths": [{"from": "l", "material": "Invar", "expansion": 1e-6}]}, "not both"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(fields: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(advice)):
        config(**fields)


def test_check_names_the_line_of_an_unknown_material(tmp_path: Path) -> None:
    text = """
plant: {site: workshop}
sources:
  - name: cmm
    type: files
    folder: here
    tag: "{machine}/{column}"
    columns: [{column: length}]
processors:
  - name: at-20
    type: thermal
    temperature: cmm-1/temperature
    material: aluminum 6016
    lengths: [{from: cmm-1/length, limits: [2, 1]}]
"""
    with pytest.raises(plant.PlantError) as refused:
        plant.parse(text, "plant.yaml", tmp_path, {})
    said = str(refused.value)
    assert "plant.yaml:13: processors[0].material: there is no material 'aluminum 6016'" in said
    assert "plant.yaml:14: processors[0].lengths[0]: the least of `limits`" in said
