"""Damaged and hostile payloads: no crash, no unbounded memory, nothing but a result or Malformed."""

import tracemalloc

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.model import (
    DataSet,
    DataType,
    MetaData,
    Metric,
    Parameter,
    Payload,
    Property,
    Template,
)
from shopfloor.protocols.sparkplug.payload import (
    LARGEST_PAYLOAD,
    LONGEST_REASON,
    MOST_METRICS,
    Malformed,
    decode,
    decode_columns,
    encode,
    typed,
)


def rich() -> bytes:
    """A payload in which everything that nests occurs."""
    properties = {
        "Quality": Property(DataType.INT32, 192),
        "set": Property(DataType.PROPERTY_SET, {"k": Property(DataType.STRING, "v")}),
        "sets": Property(DataType.PROPERTY_SET_LIST, [{"k": Property(DataType.DOUBLE, 1.0)}]),
    }
    table = DataSet(["a", "b"], [DataType.INT8, DataType.STRING], [[-1, "x"], [None, ""]])
    members = (
        Metric(name="x", type=DataType.INT16, value=-3),
        Metric(name="table", type=DataType.DATA_SET, value=table),
    )
    template = Template(template_ref="t", metrics=members, parameters=(Parameter("p", DataType.UINT64, 2**64 - 1),))
    return encode(
        Payload(
            timestamp=1,
            seq=2,
            uuid="u",
            metrics=(
                Metric(name="d", alias=1, timestamp=1, type=DataType.DOUBLE, value=1.5, properties=properties),
                Metric(name="t", type=DataType.TEMPLATE, value=template, metadata=MetaData(size=3)),
                Metric(name="s", type=DataType.STRING_ARRAY, value=["a", "b"]),
                Metric(name="b", type=DataType.BOOLEAN_ARRAY, value=[True] * 9),
                Metric(name="i", type=DataType.INT64_ARRAY, value=[-1, 1]),
            ),
        )
    )


RICH = rich()


def survives(data: bytes) -> Payload | None:
    """What is read of ``data``; both readers give a result or Malformed, for any types of a birth."""
    try:
        read = decode(data)
    except Malformed:
        with pytest.raises(Malformed):
            decode_columns(data)
        return None
    decode(data, {1: DataType.INT8, "d": DataType.TEMPLATE}, legacy_uint32_in_long=True)
    columns = decode_columns(data)
    if columns is not None:
        assert columns.values == [metric.value for metric in read.metrics]
        assert columns.types == [metric.type for metric in read.metrics]
    for metric in read.metrics:
        if isinstance(metric.value, bool | int | float | str | bytes):
            for data_type in DataType:
                try:
                    typed(metric.value, data_type)
                except ValueError:
                    continue
    return read


@given(st.binary(max_size=200))
def test_random_bytes_are_read_or_malformed(data: bytes) -> None:
    survives(data)


@given(st.binary(max_size=60))
def test_a_random_metric_costs_no_other(data: bytes) -> None:
    good = encode(Payload(metrics=(Metric(name="good", type=DataType.BOOLEAN, value=True),)))
    read = survives(good + b"\x12" + bytes((len(data),)) + data + good)
    assert read is not None
    assert len(read.metrics) + len(read.faults) == 3
    assert [metric.name for metric in (read.metrics[0], read.metrics[-1])] == ["good", "good"]


@given(st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_survived(changes: list[tuple[int, int]]) -> None:
    data = bytearray(RICH)
    for position, value in changes:
        data[position] = value
    survives(bytes(data))


@given(st.integers(0, len(RICH)), st.integers(0, len(RICH)), st.binary(max_size=8))
def test_cut_and_spliced_payloads_are_survived(start: int, end: int, between: bytes) -> None:
    survives(RICH[:start] + between + RICH[end:])


def test_every_truncation_is_survived() -> None:
    for size in range(len(RICH)):
        survives(RICH[:size])


# --- what is small on the wire and large in memory


def framed(number: int, body: bytes) -> bytes:
    """A length-delimited field of any size."""
    head = bytearray()
    for value in (number << 3 | 2, len(body)):
        rest = value
        while rest > 127:
            head.append(rest & 127 | 128)
            rest >>= 7
        head.append(rest)
    return bytes(head) + body


EMPTY = 3 * 2**20
"""Empty messages of two bytes each: more than are read."""

HOSTILE = {
    "cells": b"\x20\x10" + framed(17, framed(4, b"\x0a\x00" * EMPTY)),
    "rows": b"\x20\x10" + framed(17, b"\x22\x00" * EMPTY),
    "columns": b"\x20\x10" + framed(17, b"\x12\x00" * EMPTY),
    "types": b"\x20\x10" + framed(17, framed(3, b"\x01" * 2 * EMPTY)),
    "members": b"\x20\x13" + framed(18, b"\x12\x00" * EMPTY),
    "parameters": b"\x20\x13" + framed(18, b"\x1a\x00" * EMPTY),
    "keys": framed(9, b"\x0a\x00" * EMPTY),
    "properties": framed(9, b"\x12\x00" * EMPTY),
    "property sets": framed(9, framed(1, b"k") + framed(2, b"\x08\x15" + framed(10, b"\x0a\x00" * EMPTY))),
    "strings": b"\x20\x21" + framed(16, b"\x00" * 2 * EMPTY),
    "text": b"\x20\x0c" + framed(15, b"\xff" * 2 * EMPTY),
    "key": framed(9, framed(1, b"k" * EMPTY) + framed(2, b"\x08\x63")),
    "booleans": b"\x20\x20" + framed(16, b"\xff\xff\xff\xff" + b"\x00" * 2 * EMPTY),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_unfolds_in_one_metric_is_a_fault_and_costs_little(what: str) -> None:
    """What Python allocates stays below ten times the message."""
    data = framed(2, HOSTILE[what])
    tracemalloc.start()
    try:
        read = decode(data)
        assert decode_columns(data) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (fault,) = read.faults
    assert len(fault.reason) <= LONGEST_REASON
    assert peak < 10 * len(data)


def test_a_limit_holds_over_all_metrics_of_a_payload() -> None:
    half = b"\x20\x13" + framed(18, b"\x12\x00" * (MOST_METRICS * 6 // 10))
    frame = wire.FramePayload(metrics=[half, half, b"\x20\x0b\x70\x01"])
    read = decode(frame.SerializeToString())
    assert [fault.index for fault in read.faults] == [1]
    assert read.metrics[-1].value is True


def test_more_metrics_than_are_read_are_malformed() -> None:
    data = b"\x12\x00" * (MOST_METRICS + 1)
    for read in (decode, decode_columns):
        with pytest.raises(Malformed, match=r"metrics in a payload; at most"):
            read(data)


def test_a_payload_that_is_too_large_is_malformed() -> None:
    for read in (decode, decode_columns):
        with pytest.raises(Malformed, match=r"16777217 bytes; at most"):
            read(bytes(LARGEST_PAYLOAD + 1))


def test_a_birth_of_100000_metrics_and_10_megabytes_is_read() -> None:
    metrics = tuple(
        Metric(name=f"folder/{i:090}", alias=i, timestamp=i, type=DataType.INT32, value=-i) for i in range(100_000)
    )
    data = encode(Payload(timestamp=1, seq=0, metrics=metrics))
    assert len(data) > 10_000_000
    assert decode(data).metrics == metrics
    columns = decode_columns(data)
    assert columns is not None
    assert columns.values == [metric.value for metric in metrics]
