# mypy: disable-error-code="arg-type"
# asyncua types its fields by its own int and str classes and takes Python's.
"""Publish responses, against asyncua's own encoder and decoder."""

import json
import math
import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import struct_to_binary
from asyncua.ua.uaerrors import UaStatusCodeError
from hypothesis import given, strategies as st

from shopfloor.protocols.opcua_publish import Malformed, Publication, read, read_message
from shopfloor.protocols.opcua_values import nanoseconds, plain

NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9 + 123456000

SCALARS: dict[ua.VariantType, st.SearchStrategy[Any]] = {
    ua.VariantType.Boolean: st.booleans(),
    ua.VariantType.SByte: st.integers(-128, 127),
    ua.VariantType.Byte: st.integers(0, 255),
    ua.VariantType.Int16: st.integers(-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: st.integers(0, 2**16 - 1),
    ua.VariantType.Int32: st.integers(-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: st.integers(0, 2**32 - 1),
    ua.VariantType.Int64: st.integers(-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: st.integers(0, 2**64 - 1),
    ua.VariantType.Float: st.floats(width=32),
    ua.VariantType.Double: st.floats(),
    ua.VariantType.String: st.none() | st.text(),
    ua.VariantType.ByteString: st.none() | st.binary(),
    ua.VariantType.Guid: st.uuids(),
}


@st.composite
def variants(draw: st.DrawFn) -> ua.Variant:
    kind = draw(st.sampled_from(list(SCALARS)))
    if draw(st.integers(0, 5)) == 0:
        return ua.Variant(draw(st.lists(SCALARS[kind], max_size=4)), kind, is_array=True)
    return ua.Variant(draw(SCALARS[kind]), kind)


@st.composite
def data_values(draw: st.DrawFn) -> ua.DataValue:
    value = draw(st.none() | variants())
    status = draw(st.none() | st.sampled_from([0, StatusCodes.BadNoCommunication, 0x00000480, 0x40000000]))
    moments = st.none() | st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001  # asyncua wants naive
    return ua.DataValue(
        value,
        StatusCode=None if status is None else ua.StatusCode(ua.UInt32(status)),
        SourceTimestamp=draw(moments),
        ServerTimestamp=draw(moments),
    )


def response(*items: tuple[int, ua.DataValue], **more: Any) -> ua.PublishResponse:
    answer: Any = ua.PublishResponse()
    answer.Parameters.SubscriptionId = 7
    answer.Parameters.AvailableSequenceNumbers = [3, 4]
    answer.Parameters.MoreNotifications = more.get("more", False)
    answer.Parameters.NotificationMessage.SequenceNumber = 4
    answer.Parameters.NotificationMessage.PublishTime = NOW
    notification: Any = ua.DataChangeNotification()
    notification.MonitoredItems = [ua.MonitoredItemNotification(handle, value) for handle, value in items]
    answer.Parameters.NotificationMessage.NotificationData = [notification] if items else []
    found: ua.PublishResponse = answer
    return found


def decoded(answer: object) -> Publication:
    return read(Buffer(struct_to_binary(answer)))


def one(value: ua.DataValue) -> tuple[Any, int, int, int]:
    changes = decoded(response((5, value))).changes
    assert changes.handles == [5]
    return changes.values[0], changes.statuses[0], changes.times[0], changes.server_times[0]


def same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and left == right


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), data_values()), max_size=40))
def test_reads_what_asyncua_writes(items: list[tuple[int, ua.DataValue]]) -> None:
    """Any mixture of types, statuses and missing fields comes out as it was put in, in its order."""
    found = decoded(response(*items))
    assert found.undecoded == ""
    changes = found.changes
    assert changes.handles == [handle for handle, _ in items]
    assert len(changes.values) == len(changes.statuses) == len(changes.times) == len(changes.server_times) == len(items)
    for (_, put), value, status, moment, server in zip(
        items, changes.values, changes.statuses, changes.times, changes.server_times, strict=True
    ):
        assert same(value, None if put.Value is None else plain(put.Value.Value))
        assert status == (0 if put.StatusCode is None else put.StatusCode.value)
        for stamp, got in ((put.SourceTimestamp, moment), (put.ServerTimestamp, server)):
            assert got == (0 if stamp is None else nanoseconds(ua.datetime_to_win_epoch(stamp)))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 80, 81, 1000])
def test_long_runs_of_one_layout_keep_every_value(size: int) -> None:
    """The fast path's window grows; nothing is skipped or read twice at its borders."""
    items = [(i, ua.DataValue(ua.Variant(float(i), ua.VariantType.Double), SourceTimestamp=NOW)) for i in range(size)]
    items.insert(size // 2, (77, ua.DataValue(ua.Variant("text", ua.VariantType.String))))
    changes = decoded(response(*items)).changes
    assert changes.handles == [handle for handle, _ in items]
    assert [v for v in changes.values if v != "text"] == [float(i) for i in range(size)]


def test_header_fields_and_notifications() -> None:
    found = decoded(response((1, ua.DataValue(ua.Variant(1, ua.VariantType.Int32), SourceTimestamp=NOW)), more=True))
    assert (found.subscription, found.sequence, tuple(found.available), found.more) == (7, 4, (3, 4), True)
    assert found.changes.times == [NOW_NS]
    assert not found.keep_alive


def test_a_keep_alive_carries_nothing() -> None:
    assert decoded(response()).keep_alive


def test_a_status_change_is_told() -> None:
    answer: Any = response()
    change: Any = ua.StatusChangeNotification()
    change.Status = ua.StatusCode(ua.UInt32(StatusCodes.BadTimeout))
    answer.Parameters.NotificationMessage.NotificationData = [change]
    assert decoded(answer).status == StatusCodes.BadTimeout


def test_a_fault_is_raised() -> None:
    fault: Any = ua.ServiceFault()
    fault.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(StatusCodes.BadNoSubscription))
    with pytest.raises(UaStatusCodeError):
        decoded(fault)


def test_a_republished_message_is_read() -> None:
    answer: Any = ua.RepublishResponse()
    answer.NotificationMessage = response((9, ua.DataValue(ua.Variant(1.5)))).Parameters.NotificationMessage
    found = read_message(Buffer(struct_to_binary(answer)))
    assert (found.sequence, found.changes.handles, found.changes.values) == (4, [9], [1.5])


def test_cut_at_every_byte() -> None:
    """A message that ends too early is refused or said to be undecoded; it never gives values that were not sent."""
    items = [
        (1, ua.DataValue(ua.Variant(1.5, ua.VariantType.Double), SourceTimestamp=NOW)),
        (2, ua.DataValue(ua.Variant("text", ua.VariantType.String))),
        (3, ua.DataValue(ua.Variant([1, 2], ua.VariantType.Int32))),
    ]
    whole = struct_to_binary(response(*items))
    sent = [1.5, "text", "[1,2]"]
    for end in range(len(whole) - 8):  # the last 8 bytes are results and diagnostics, which are not read
        try:
            found = read(Buffer(whole[:end]))
        except Malformed:
            continue
        assert found.undecoded
        assert found.changes.values == sent[: len(found.changes.values)]


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    """Whatever the other side sends, only Malformed and its own faults come out."""
    with suppress(Malformed, UaStatusCodeError):
        read(Buffer(b"\x01\x00\x3d\x03" + noise))


@given(st.binary(max_size=200))
def test_noise_in_a_notification_is_told(noise: bytes) -> None:
    """A notification that cannot be read does not stop the connection: it is counted."""
    whole = bytearray(struct_to_binary(response((1, ua.DataValue(ua.Variant(1.5))))))
    start = whole.index(struct.pack("<H", ObjectIds.DataChangeNotification_Encoding_DefaultBinary) + b"\x01") + 3
    body = whole[:start] + struct.pack("<i", len(noise)) + noise + bytes(8)
    try:
        found = read(Buffer(bytes(body)))
    except Malformed:
        return
    assert len(found.changes.handles) == len(found.changes.values) == len(found.changes.times)


class TestValues:
    def test_nan_and_infinities(self) -> None:
        assert math.isnan(one(ua.DataValue(ua.Variant(math.nan)))[0])
        assert one(ua.DataValue(ua.Variant(-math.inf)))[0] == -math.inf

    def test_nan_in_an_array_is_a_word(self) -> None:
        value = one(ua.DataValue(ua.Variant([math.nan, math.inf, 1.0], ua.VariantType.Double)))[0]
        assert json.loads(value) == ["NaN", "Infinity", 1.0]

    def test_uint64_is_exact(self) -> None:
        assert one(ua.DataValue(ua.Variant(2**64 - 1, ua.VariantType.UInt64)))[0] == 2**64 - 1

    def test_a_time_keeps_100_ns(self) -> None:
        whole = bytearray(struct_to_binary(response((5, ua.DataValue(ua.Variant(NOW, ua.VariantType.DateTime))))))
        at = whole.rindex(struct.pack("<q", ua.datetime_to_win_epoch(NOW)))
        whole[at : at + 8] = struct.pack("<q", ua.datetime_to_win_epoch(NOW) + 7)
        assert read(Buffer(bytes(whole))).changes.values == ["2026-03-29T01:30:00.1234567Z"]

    def test_text_of_a_megabyte(self) -> None:
        assert one(ua.DataValue(ua.Variant("ä" * 500_000)))[0] == "ä" * 500_000

    def test_text_that_is_not_utf8_is_marked(self) -> None:
        """Nothing downstream may meet text that it cannot store."""
        value = one(ua.DataValue(ua.Variant("a\udcff", ua.VariantType.String)))[0]
        assert value == "a�"
        array = one(ua.DataValue(ua.Variant(["a\udcff"], ua.VariantType.String)))[0]
        assert json.loads(array) == ["a�"]

    def test_a_matrix_is_nested(self) -> None:
        variant = ua.Variant([[1, 2], [3, 4]], ua.VariantType.Int32)
        assert json.loads(one(ua.DataValue(variant))[0]) == [[1, 2], [3, 4]]

    def test_a_structure_of_the_standard_is_json(self) -> None:
        value = one(ua.DataValue(ua.Variant(ua.Range(1.0, 5.5), ua.VariantType.ExtensionObject)))[0]
        assert json.loads(value) == {"Low": 1.0, "High": 5.5}

    def test_an_unknown_structure_keeps_its_bytes(self) -> None:
        unknown = ua.ExtensionObject(TypeId=ua.NodeId(99, 3), Body=b"\x01\x02")
        value = one(ua.DataValue(ua.Variant(unknown, ua.VariantType.ExtensionObject)))[0]
        assert json.loads(value) == {"type": "ns=3;i=99", "body": "AQI="}

    def test_an_array_of_structures(self) -> None:
        variant = ua.Variant([ua.Range(0.0, 1.0), ua.Range(2.0, 3.0)], ua.VariantType.ExtensionObject)
        assert json.loads(one(ua.DataValue(variant))[0])[1] == {"Low": 2.0, "High": 3.0}

    def test_words_of_opc_ua(self) -> None:
        assert one(ua.DataValue(ua.Variant(ua.LocalizedText("läuft", "de"))))[0] == "läuft"
        assert one(ua.DataValue(ua.Variant(ua.QualifiedName("PV", 2))))[0] == "2:PV"
        assert one(ua.DataValue(ua.Variant(ua.NodeId("PV", 2))))[0] == "ns=2;s=PV"

    def test_no_value_is_none(self) -> None:
        assert one(ua.DataValue(StatusCode=ua.StatusCode(ua.UInt32(StatusCodes.BadNoCommunication)))) == (
            None, StatusCodes.BadNoCommunication, 0, 0,
        )  # fmt: skip
