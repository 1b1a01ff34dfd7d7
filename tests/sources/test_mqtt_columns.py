"""The short way gives what the long way gives, or nothing."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.samples import Quality, Sample
from shopfloor.sources.mqtt_columns import UNUSUAL, Columns, short_way
from shopfloor.sources.mqtt_payload import DataType, Meaning, MqttTopic, Unreadable

RECEIVED = 1_767_592_800_000_000_000
TOPIC = "cell/1"
TYPES: tuple[DataType, ...] = ("auto", "int", "float", "bool", "text")
MOMENTS = ("auto", "iso", "s", "ms", "us", "ns")
TEXTS = (
    "",
    "true",
    "on",
    "0",
    "7",
    "-4.5",
    "1e9",
    "NaN",
    "2026-01-05T06:00:00.123456789+01:00",
    "x",
    "ü",
    "1767592800",
)

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(TEXTS)
    | st.sampled_from((2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 192, 255, 256, 1_767_592_800_000, 10**11 - 1))
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abct0q"), inner), max_leaves=6
)
objects = st.dictionaries(st.sampled_from(("a", "b", "c", "t", "q")), values)
paths = st.sampled_from(("a", "b", "a.b", "a.0", "b.0.c"))
entries = st.builds(
    lambda found, types, time, time_format, quality: MqttTopic.model_validate(
        {
            "topic": "cell/+",
            "payload": "json",
            "values": [{"path": path, "data_type": kind} for path, kind in zip(found, types, strict=False)],
            "time": time,
            "time_format": time_format,
            "quality": quality,
        }
    ),
    st.lists(paths, min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from(TYPES), min_size=3, max_size=3),
    st.sampled_from((None, "t", "a.t")),
    st.sampled_from(MOMENTS),
    st.sampled_from((None, "q", "c.q")),
)


def long(entry: MqttTopic, payload: bytes) -> list[Sample] | None:
    try:
        readings = Meaning(entry).readings(TOPIC, payload)
    except Unreadable:
        return None
    return [Sample(tag, RECEIVED if time is None else time, value, quality) for tag, time, value, quality in readings]


def short(entry: MqttTopic, payload: bytes, before: Sample) -> list[Sample] | None:
    """What the short way adds behind what is there already; None when it declines, and that leaves no trace."""
    way = short_way(entry)
    assert way is not None
    columns = Columns(RECEIVED)
    columns.add(before)
    try:
        way(payload, Meaning(entry).tags(TOPIC), columns)
    except UNUSUAL:
        columns.forget()
        assert same(list(columns.batch("line")), [before])
        return None
    first, *added = columns.batch("line")
    assert first == before
    return added


def same(found: list[Sample] | None, wanted: list[Sample] | None) -> bool:
    """Equal to the type: 1, 1.0 and true are three things."""
    return _rows(found) == _rows(wanted)


def _rows(samples: list[Sample] | None) -> list[tuple[object, ...]] | None:
    return None if samples is None else [(one.tag, one.time, repr(one.value), int(one.quality)) for one in samples]


BEFORE = Sample("before", 1, 2.5, Quality.UNCERTAIN)


@settings(max_examples=600, deadline=None)
@given(entry=entries, said=objects | values)
def test_json_by_the_short_way_is_as_by_the_long_way(entry: MqttTopic, said: object) -> None:
    payload = json.dumps(said).encode()
    found = short(entry, payload, BEFORE)
    assert found is None or same(found, long(entry, payload))


@settings(max_examples=400, deadline=None)
@given(
    payload=st.sampled_from(TEXTS).map(str.encode) | scalars.map(lambda one: str(one).encode()) | st.binary(max_size=6),
    data_type=st.sampled_from((*TYPES, "bytes")),
)
def test_plain_by_the_short_way_is_as_by_the_long_way(payload: bytes, data_type: str) -> None:
    entry = MqttTopic.model_validate({"topic": "cell/+", "data_type": data_type})
    assert same(short(entry, payload, BEFORE), long(entry, payload))


@pytest.mark.parametrize(
    "said",
    [
        {"a": 41.5},
        {"a": 41, "t": 1_767_592_800_123},
        {"a": "on", "t": "2026-01-05T06:00:00.5Z", "q": 64},
        {"a": True, "b": {"c": -1}, "t": 1_767_592_800.25},
        {"b": {"c": 2**64 - 1}, "t": None},
    ],
)
def test_what_is_usual_takes_the_short_way(said: dict[str, Any]) -> None:
    options: dict[str, Any] = {"time": "t"} if "t" in said else {}
    options |= {"quality": "q"} if "q" in said else {}
    entry = MqttTopic.model_validate(
        {"topic": "cell/+", "payload": "json", "values": [{"path": "a"}, {"path": "b.c"}], **options}
    )
    found = short(entry, json.dumps(said).encode(), BEFORE)
    assert found
    assert same(found, long(entry, json.dumps(said).encode()))


@pytest.mark.parametrize("payload", ["csv", "telemetry"])
def test_what_names_its_values_itself_has_no_short_way(payload: str) -> None:
    assert short_way(MqttTopic.model_validate({"topic": "cell/+", "payload": payload})) is None
    assert short_way(MqttTopic.model_validate({"topic": "cell/+", "payload": "json"})) is None
