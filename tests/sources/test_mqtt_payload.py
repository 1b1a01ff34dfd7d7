"""What payloads mean, without a broker."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from shopfloor.samples import INT_MAX, INT_MIN, Quality, Value
from shopfloor.sources.mqtt_payload import (
    DataType,
    FilterMeaning,
    MqttTopic,
    Reading,
    TimeFormat,
    Unreadable,
    parse_time,
)
from shopfloor.testing.clocks import instant

SIX = instant("2026-01-05T06:00:00Z")


def meaning(topic: str = "a/b/c", **options: object) -> FilterMeaning:
    return FilterMeaning(MqttTopic.model_validate({"topic": topic, **options}))


def said(message: bytes, topic: str = "a/b/c", **options: object) -> dict[str, Any]:
    return {reading.tag: reading.value for reading in meaning("#", **options).readings(topic, message)}


@pytest.mark.parametrize(
    ("text", "data_type", "value"),
    [
        (b"41", "auto", 41),
        (b"-41.50", "auto", -41.5),
        (b"1e3", "auto", 1000.0),
        (b"0", "auto", 0),
        (b"true", "auto", True),
        (b"False", "auto", False),
        (b"00123", "auto", "00123"),
        (b"00.5", "auto", "00.5"),
        (b"123456789012345678901", "auto", "123456789012345678901"),
        (b"18446744073709551615", "auto", INT_MAX),
        (b"idle", "auto", "idle"),
        (b"nan", "auto", "nan"),
        (b"00123", "int", 123),
        (b"41", "float", 41.0),
        (b"00123", "text", "00123"),
        (b"", "text", ""),
        (b"on", "bool", True),
        (b"0", "bool", False),
        (b"\xff\x00", "bytes", b"\xff\x00"),
    ],
)
def test_a_plain_payload_is_the_value(text: bytes, data_type: DataType, value: Value) -> None:
    [reading] = meaning(data_type=data_type).readings("a/b/c", text)
    assert (reading.value, type(reading.value)) == (value, type(value))


def test_a_float_may_be_no_number() -> None:
    [reading] = meaning(data_type="float").readings("a/b/c", b"NaN")
    assert isinstance(reading.value, float)
    assert math.isnan(reading.value)


@pytest.mark.parametrize(
    ("payload", "options"),
    [
        (b"", {}),
        (b"\xff", {}),
        (b"18446744073709551616", {}),
        (b"x", {"data_type": "int"}),
        (b"1.5.2", {"data_type": "float"}),
        (b"maybe", {"data_type": "bool"}),
        (b"{", {"payload": "json"}),
        (b"{}", {"payload": "json"}),
        (b"[" * 100_000, {"payload": "json"}),
        (b'{"b":1}', {"payload": "json", "values": [{"path": "a"}]}),
        (b"41", {"payload": "telemetry"}),
        (b'{"PV":1}', {"payload": "telemetry"}),
        (b'{"machine":"","PV":1}', {"payload": "telemetry"}),
        (b'{"machine":"m","timestamp":1}', {"payload": "telemetry"}),
        (b"", {"payload": "csv"}),
        (b"a,b", {"payload": "csv"}),
        (b'"' + b"x" * 200_000, {"payload": "csv", "columns": ["a"]}),
        (b"1", {"tag": "{9}"}),
    ],
)
def test_what_cannot_be_read_says_so(payload: bytes, options: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        meaning("#", **options).readings("a/b/c", payload)


@pytest.mark.parametrize(
    ("template", "topic", "tag"),
    [
        ("{topic}", "a/b", "a/b"),
        ("{2}/{1}", "a/b", "b/a"),
        ("x/{2}", "a/b?", "x/b%3F"),
        ("{topic}", "$SYS/load", "%24SYS/load"),
        ("{topic}", "a/[1]*", "a/%5B1%5D%2A"),
        ("{topic}", " a", "%20a"),
    ],
)
def test_tags_come_from_topics(template: str, topic: str, tag: str) -> None:
    assert said(b"1", topic, tag=template) == {tag: 1}


@pytest.mark.parametrize(
    ("filter_", "covered", "others"),
    [
        ("a/+", ["a/b", "a/"], ["a", "a/b/c", "xa/b"]),
        ("a/#", ["a", "a/b", "a/b/c"], ["ab", "b/a"]),
        ("#", ["a", "/", "a/b"], ["$SYS/x"]),
        ("+/x", ["a/x", "/x"], ["$SYS/x", "a/b/x"]),
        ("$SYS/#", ["$SYS/x"], ["SYS/x"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_filters_cover_what_the_standard_says(filter_: str, covered: list[str], others: list[str]) -> None:
    one = meaning(filter_)
    assert [topic for topic in covered + others if one.covers(topic)] == covered


def test_json_gives_the_values_at_its_paths() -> None:
    values = [
        {"path": "d.pv", "tag": "{2}/PV", "data_type": "float"},
        {"path": "d.list.1"},
        {"path": "d.list"},
        {"path": "d.absent"},
        {"path": "d.nothing"},
        {"path": "d.word", "data_type": "int"},
    ]
    payload = (
        b'{"d":{"pv":41,"list":[1,{"x":2}],"nothing":null,"word":"w"},"t":"2026-01-05T07:00:00.123456789+01:00","q":64}'
    )
    found = meaning(payload="json", values=values, time="t", quality="q").readings("a/b/c", payload)
    time = SIX + 123_456_789
    assert found == [
        Reading("b/PV", time, 41.0, 64),
        Reading("a/b/c/d/list/1", time, '{"x":2}', 64),
        Reading("a/b/c/d/list", time, '[1,{"x":2}]', 64),
        Reading("a/b/c/d/nothing", time, None, Quality.BAD),
        Reading("a/b/c/d/word", time, None, Quality.BAD),
    ]


def test_json_without_paths_gives_every_value_a_tag() -> None:
    payload = b'{"a":1,"b":{"c":true,"d":[1]},"t":1767592800}'
    assert said(payload, payload="json", tag="m", time="t") == {"m/a": 1, "m/b/c": True, "m/b/d": "[1]"}
    assert said(b"18446744073709551615", payload="json", tag="m") == {"m": INT_MAX}


def test_telemetry_of_the_first_system_is_understood() -> None:
    one = b'{"machine":"press-1","CV":40,"PV":41.5,"timestamp":"2026-01-05T06:00:00Z"}'
    assert meaning(payload="telemetry").readings("t", one) == [
        Reading("press-1/CV", SIX, 40),
        Reading("press-1/PV", SIX, 41.5),
    ]
    assert len(meaning(payload="telemetry").readings("t", b"[" + one + b"," + one + b"]")) == 4


def test_csv_gives_a_value_for_each_column_and_a_broken_row_turns_them_bad() -> None:
    named = meaning(payload="csv", tag="s", time="t").readings("x", b"t,net,gross\n1767592800,1.5,ok\n")
    assert named == [Reading("s/net", SIX, 1.5), Reading("s/gross", SIX, "ok")]
    fixed = meaning(payload="csv", tag="s", columns=["net", "", "gross"], separator=";")
    assert fixed.readings("x", b"1;2;3\r\n4;5\r\n") == [
        Reading("s/net", None, 1),
        Reading("s/gross", None, 3),
        Reading("s/net", None, None, Quality.BAD),
        Reading("s/gross", None, None, Quality.BAD),
    ]


@pytest.mark.parametrize(
    ("text", "form", "time"),
    [
        (1_767_592_800, "auto", SIX),
        (1_767_592_800.25, "auto", SIX + 250_000_000),
        (1_767_592_800.123, "auto", SIX + 123_000_000),
        (1_767_592_800_123, "auto", SIX + 123_000_000),
        (1_767_592_800_123_456, "auto", SIX + 123_456_000),
        (SIX + 123_456_789, "auto", SIX + 123_456_789),
        ("1767592800", "auto", SIX),
        ("2026-01-05T06:00:00.123456789Z", "auto", SIX + 123_456_789),
        ("2026-01-05 06:00:00", "iso", SIX),
        ("20260105T060000Z", "iso", SIX),
        (-1, "ns", -1),
        (5, "ms", 5_000_000),
    ],
)
def test_times_are_read_to_the_nanosecond(text: object, form: TimeFormat, time: int) -> None:
    assert parse_time(text, form) == time


@pytest.mark.parametrize("text", ["yesterday", "", True, [], 1e300, 2**80, float("nan"), "0000-01-01", "9999-12-31"])
def test_a_time_that_cannot_be_read_leaves_the_value_uncertain(text: object) -> None:
    with pytest.raises(Unreadable):
        parse_time(text, "auto")
    if isinstance(text, str) and text:
        payload = msgspec.json.encode({"v": 1, "t": text})
        [reading] = meaning(payload="json", time="t").readings("a/b/c", payload)
        assert reading == Reading("a/b/c/v", None, 1, Quality.UNCERTAIN)


@given(
    st.binary()
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(repr).map(str.encode),
    st.sampled_from(["plain", "json", "telemetry", "csv"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_no_payload_and_no_topic_does_harm(payload: bytes, kind: str, topic: str) -> None:
    """Whatever comes, there are readings that a journal can hold, or a word why not."""
    try:
        found = meaning("#", payload=kind).readings(topic, payload)
    except Unreadable:
        return
    for tag, time, value, quality in found:
        assert 0 < len(tag) < 256
        assert tag[0] not in "$ "
        assert not set(tag) & set("*?[]")
        assert time is None or -(2**63) <= time < 2**63
        assert not isinstance(value, int) or INT_MIN <= value <= INT_MAX
        assert 0 <= quality < 256
