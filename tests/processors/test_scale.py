import math
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from shopfloor.processors.scale import ScaleConfig
from shopfloor.samples import Batch, Quality, Sample, Value
from shopfloor.seams import Processor
from shopfloor.testing.contracts import EVERY_VALUE, ProcessorContract, same_samples

PSI = {"from": "press-1/PV", "to": "press-1/PV_psi", "factor": 14.5, "offset": 1, "unit": "psi"}
OVEN = {"from": "oven/raw", "to": "oven/T", "raw": [0, 27648], "scaled": [0, 400], "unit": "°C"}


def config(*tags: object) -> ScaleConfig:
    return ScaleConfig.model_validate({"name": "units", "type": "scale", "tags": tags or (PSI, OVEN)})


def scaled(*samples: Sample, tags: Sequence[object] = ()) -> list[Sample]:
    return config(*tags).build().process(Batch.of("press", 1, samples))


class TestScale(ProcessorContract):
    def build(self) -> Processor:
        return config().build()

    def batches(self) -> Sequence[Batch]:
        values = list(EVERY_VALUE.values())
        return [
            Batch.of(
                f"plc-{i % 2}",
                i,
                [
                    Sample(tag, i * 1000 + j * (-1) ** j, value, (i * 8) % 256)
                    for j, value in enumerate(values[i : i + 5])
                    for tag in ("press-1/PV", "oven/raw", "press-1/SP")
                ],
            )
            for i in range(12)
        ]


def test_factor_and_offset() -> None:
    assert scaled(Sample("press-1/PV", 5, 2)) == [Sample("press-1/PV_psi", 5, 30.0)]
    assert scaled(Sample("a", 5, 2), tags=[{"from": "a", "to": "b", "offset": -273.15}]) == [Sample("b", 5, -271.15)]
    assert scaled(Sample("a", 5, 2), tags=[{"from": "a", "to": "b", "factor": -0.5}]) == [Sample("b", 5, -1.0)]


@pytest.mark.parametrize(("raw", "expected"), [(0, 0.0), (27648, 400.0), (13824, 200.0)])
def test_ranges_meet_at_their_ends(raw: int, expected: float) -> None:
    assert scaled(Sample("oven/raw", 5, raw)) == [Sample("oven/T", 5, expected)]


def test_a_range_may_fall() -> None:
    tags = [{"from": "a", "to": "b", "raw": [20, 4], "scaled": [0, 100]}]
    assert scaled(Sample("a", 5, 4.0), Sample("a", 6, 20.0), tags=tags) == [Sample("b", 5, 100.0), Sample("b", 6, 0.0)]


@pytest.mark.parametrize(("raw", "expected"), [(-2764.8, -40.0), (30412.8, 440.0)])
def test_what_is_outside_the_raw_range_is_shown_and_uncertain(raw: float, expected: float) -> None:
    (sample,) = scaled(Sample("oven/raw", 5, raw))
    assert sample.value == pytest.approx(expected)
    assert sample.quality == Quality.ENGINEERING_UNITS_EXCEEDED
    assert scaled(Sample("oven/raw", 5, raw, Quality.BAD))[0].quality == Quality.BAD


@pytest.mark.parametrize(
    ("outside", "raw", "expected"),
    [
        ("clamp", 30000, (400.0, Quality.ENGINEERING_UNITS_EXCEEDED)),
        ("clamp", -1, (0.0, Quality.ENGINEERING_UNITS_EXCEEDED)),
        ("clamp", 27648, (400.0, Quality.GOOD)),
        ("bad", 30000, (None, Quality.SENSOR_FAILURE)),
        ("bad", -1, (None, Quality.SENSOR_FAILURE)),
        ("bad", 0, (0.0, Quality.GOOD)),
    ],
)
def test_what_is_outside_may_be_clamped_or_bad(outside: str, raw: int, expected: tuple[Value, int]) -> None:
    (sample,) = scaled(Sample("oven/raw", 5, raw), tags=[{**OVEN, "outside": outside}])
    assert (sample.value, sample.quality) == expected


def test_a_falling_range_is_clamped_at_its_own_ends() -> None:
    tags = [{"from": "a", "to": "b", "raw": [20, 4], "scaled": [0, 100], "outside": "clamp"}]
    assert [s.value for s in scaled(Sample("a", 5, 3.0), Sample("a", 6, 21.0), tags=tags)] == [100.0, 0.0]


@pytest.mark.parametrize("quality", [0, 24, 64, 84, 192, 216, 255])
def test_quality_and_time_are_carried_over(quality: int) -> None:
    assert scaled(Sample("press-1/PV", -7, 2.0, quality)) == [Sample("press-1/PV_psi", -7, 30.0, quality)]


@pytest.mark.parametrize(
    ("value", "quality"),
    [("12", 4), (b"1", 4), (True, 4), (None, 4), (math.nan, 16), (math.inf, 16), (-math.inf, 16), (1.7e308, 16)],
)
def test_what_is_no_number_gives_no_value_and_bad_quality(value: Value, quality: int) -> None:
    assert scaled(Sample("press-1/PV", 5, value)) == [Sample("press-1/PV_psi", 5, None, quality)]
    assert scaled(Sample("press-1/PV", 5, value, 24)) == [Sample("press-1/PV_psi", 5, None, 24)]


def test_one_tag_may_give_several_and_others_give_none() -> None:
    tags = [{"from": "a", "to": "b", "factor": 2}, {"from": "a", "to": "c", "factor": 3}]
    assert scaled(Sample("a", 1, 1), Sample("x", 1, 1), tags=tags) == [Sample("b", 1, 2.0), Sample("c", 1, 3.0)]
    assert config(*tags).inputs() == ["a"]
    assert [info.tag for info in config(*tags).outputs()] == ["b", "c"]
    assert config().outputs()[0].unit == "psi"


@given(st.lists(st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary(), st.none())))
def test_every_sample_gives_one_whatever_its_value(values: list[Value]) -> None:
    found = scaled(*(Sample("press-1/PV", i, value) for i, value in enumerate(values)))
    assert [sample.time for sample in found] == list(range(len(values)))
    assert all((sample.value is None) == (sample.quality < 64) for sample in found)
    assert same_samples(found, scaled(*(Sample("press-1/PV", i, value) for i, value in enumerate(values))))


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"to": "a"}, "the same tag"),
        ({"factor": None}, "says nothing"),
        ({"factor": 0}, "never change"),
        ({"factor": math.nan}, "finite number"),
        ({"raw": [0, 1]}, "belong together"),
        ({"raw": [0, 1], "scaled": [0, 1]}, "not both"),
        ({"factor": None, "raw": [1, 1], "scaled": [0, 1]}, "are the same"),
        ({"outside": "clamp"}, "give `raw` and `scaled`"),
        ({"factor": "two"}, "valid number"),
        ({"to": "b*"}, "must be a tag's name"),
        ({"gain": 2}, "Extra inputs"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(fields: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        config({"from": "a", "to": "b", "factor": 2, **fields})


def test_a_scale_without_tags_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        ScaleConfig.model_validate({"name": "units", "type": "scale", "tags": []})
