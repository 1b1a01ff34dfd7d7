# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Reads a whole OPC UA PublishResponse or ReadResponse into columns, without an object for each changed value.

Data changes come as an array of (client handle, DataValue). Neighbours mostly have the same layout:
the same fields present and the same scalar type. Runs of such neighbours are unpacked by one
``struct.iter_unpack``; everything else (text, arrays, structures, missing fields) is read one by one,
with asyncua's decoder for what is rare. OPC 10000-6, 5.2 has the encodings.
"""

from collections.abc import Callable, Sequence
from functools import cache
from struct import (
    Struct,  # the module names it like a function
)
from typing import Any, Final, cast

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, variant_from_binary

from shopfloor.protocols.opcua_values import EPOCH, LAST, iso, json_ready, nanoseconds, plain, raw_structure, text_of
from shopfloor.samples import Value

Structures = Callable[[ua.NodeId, bytes], object]
"""Decodes the body of a structure by the node id of its encoding; raises KeyError when it is not known."""

_DATA_CHANGE: Final = ObjectIds.DataChangeNotification_Encoding_DefaultBinary
_STATUS_CHANGE: Final = ObjectIds.StatusChangeNotification_Encoding_DefaultBinary

_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_BEYOND: Final = 0x40
"""Bits of the mask from here on have no meaning."""
_STAMP_FIELDS: Final = ((_STATUS, "I"), (_SOURCE, "q"), (_SOURCE_PICO, "H"), (_SERVER, "q"), (_SERVER_PICO, "H"))
_ARRAY, _DIMENSIONS = 0x80, 0x40
_DATETIME, _STRING, _BYTESTRING, _EXTENSION = 13, 12, 15, 22
_SCALARS: Final = dict(zip(range(1, 12), "?bBhHiIqQfd", strict=True))
"""struct's letter for each fixed-size built-in type, Boolean to Double."""
_FIRST_RUN, _LONGEST_RUN, _SHORT_RUN = 16, 65_536, 4
_ALONE: Final = 64
"""Items that are read one by one after a short run."""

_U32: Final = Struct("<I")
_I32: Final = Struct("<i")
_I64: Final = Struct("<q")


class Malformed(Exception):
    """The other side's message cannot be read."""


class Changes:
    """Columns of changed values, all of one length."""

    __slots__ = ("handles", "server_times", "statuses", "times", "values")

    def __init__(self) -> None:
        self.handles: list[int] = []
        self.values: list[Value] = []
        self.statuses: list[int] = []
        self.times: list[int] = []
        """Source timestamps, ns UTC; 0 where there is none."""
        self.server_times: list[int] = []

    def __len__(self) -> int:
        return len(self.handles)

    def add(self, handle: int, value: Value, status: int, time: int, server_time: int) -> None:
        """One more value."""
        self.handles.append(handle)
        self.values.append(value)
        self.statuses.append(status)
        self.times.append(time)
        self.server_times.append(server_time)


class Publication:
    """One PublishResponse, or one notification message that was asked for again."""

    __slots__ = ("available", "changes", "more", "sequence", "status", "subscription", "undecoded")

    def __init__(self) -> None:
        self.subscription = 0
        self.available: Sequence[int] = ()
        """Sequence numbers that the server holds until they are acknowledged."""
        self.more = False
        """Whether the server has further notifications at hand."""
        self.sequence = 0
        """Of this message; of the next one when it is a keep-alive."""
        self.changes = Changes()
        self.status = 0
        """The subscription's new StatusCode when it changed, else 0."""
        self.undecoded = ""
        """Why a part of the message could not be read; "" when all of it was."""

    @property
    def keep_alive(self) -> bool:
        """Whether it carries nothing."""
        return not self.changes.handles and not self.status and not self.undecoded


class _Stamps:
    """What follows the value of a DataValue with these fields present: its struct and the places of the fields."""

    __slots__ = ("_picoseconds", "_server", "_source", "_status", "letters", "struct")

    def __init__(self, mask: int, before: int = 0) -> None:
        """``before``: how many fields stand in front of these in the same struct."""
        letters = ""
        places: list[int] = []
        for field, letter in _STAMP_FIELDS:
            places.append(before + len(letters) if mask & field else -1)
            letters += letter if mask & field else ""
        self.letters = letters
        self.struct = Struct("<" + letters)
        self._status, self._source, self._picoseconds, self._server, _ = places

    def of(self, row: Sequence[Any]) -> tuple[int, int, int]:
        """Status, source time and server time of one item."""
        status = row[self._status] if self._status >= 0 else 0
        ticks = row[self._source] if self._source >= 0 else 0
        time = (ticks - EPOCH) * 100 if EPOCH < ticks < LAST else 0
        if time and self._picoseconds >= 0:
            time += row[self._picoseconds] // 100
        ticks = row[self._server] if self._server >= 0 else 0
        return status, time, (ticks - EPOCH) * 100 if EPOCH < ticks < LAST else 0

    def of_all(self, columns: Sequence[Sequence[Any]], changes: Changes) -> None:
        """The same for many items at once."""
        none = (0,) * len(columns[0])
        changes.statuses += columns[self._status] if self._status >= 0 else none
        if self._source < 0:
            changes.times += none
        elif self._picoseconds >= 0:
            changes.times += map(nanoseconds, columns[self._source], columns[self._picoseconds])
        else:
            changes.times += _times(columns[self._source])
        changes.server_times += _times(columns[self._server]) if self._server >= 0 else none


_stamps = cache(_Stamps)


class _Layout:
    """The fixed layout of a monitored item of one (fields present, scalar type)."""

    __slots__ = ("_stamps", "_struct", "size")

    def __init__(self, mask: int, letter: str) -> None:
        self._stamps = _Stamps(mask, before=4)
        self._struct = Struct("<IBB" + letter + self._stamps.letters)
        self.size = self._struct.size

    def unpack(self, data: memoryview, changes: Changes) -> None:
        """A run of neighbours."""
        columns = list(zip(*self._struct.iter_unpack(data), strict=True))
        changes.handles += columns[0]
        changes.values += columns[3]
        self._stamps.of_all(columns, changes)

    def unpack_one(self, data: bytes, at: int, changes: Changes) -> None:
        """One alone."""
        row = self._struct.unpack_from(data, at)
        changes.add(row[0], row[3], *self._stamps.of(row))


def _times(ticks: Sequence[int]) -> list[int]:
    if min(ticks) > EPOCH and max(ticks) < LAST:
        return [(t - EPOCH) * 100 for t in ticks]
    return [nanoseconds(t) for t in ticks]


@cache
def _layout(mask: int, kind: int) -> _Layout | None:
    """The layout of items with these two bytes; None when their size is not fixed. At most 65,536 of them."""
    letter = _SCALARS.get(kind)
    return _Layout(mask, letter) if letter is not None and mask & _VALUE and mask < _BEYOND else None


def read(body: Buffer, structures: Structures | None = None) -> Publication:
    """The PublishResponse in ``body``, which starts with the response's type.

    Raises UaStatusCodeError when its service result is bad, Malformed when it is no PublishResponse.
    """
    try:
        nodeid_from_binary(body)
        header = struct_from_binary(ua.ResponseHeader, body)
    except Exception as error:
        raise Malformed(f"a publish response cannot be read: {error}") from error
    header.ServiceResult.check()
    data = bytes(body.read(len(body)))
    found = Publication()
    try:
        (found.subscription, count) = _U32.unpack_from(data)[0], _I32.unpack_from(data, 4)[0]
        at = 8
        if count > 0:
            found.available = Struct(f"<{count}I").unpack_from(data, at)
            at += 4 * count
        found.more = data[at] != 0
        _message(data, at + 1, found, structures)
    except Exception as error:  # whatever a foreign encoding makes a decoder raise
        raise Malformed(f"a publish response cannot be read: {error}") from error
    return found


def read_message(body: Buffer, structures: Structures | None = None) -> Publication:
    """The NotificationMessage of the RepublishResponse in ``body``; raises as ``read`` does."""
    try:
        nodeid_from_binary(body)
        header = struct_from_binary(ua.ResponseHeader, body)
    except Exception as error:
        raise Malformed(f"a republish response cannot be read: {error}") from error
    header.ServiceResult.check()
    found = Publication()
    try:
        _message(bytes(body.read(len(body))), 0, found, structures)
    except Exception as error:
        raise Malformed(f"a republish response cannot be read: {error}") from error
    return found


def read_values(body: Buffer, structures: Structures | None = None) -> Changes:
    """The ReadResponse in ``body``, whose values get their places as handles; raises as ``read`` does."""
    try:
        nodeid_from_binary(body)
        header = struct_from_binary(ua.ResponseHeader, body)
    except Exception as error:
        raise Malformed(f"a read response cannot be read: {error}") from error
    header.ServiceResult.check()
    data = bytes(body.read(len(body)))
    found = Changes()
    try:
        at = 4
        for place in range(_I32.unpack_from(data)[0]):
            at = _data_value(data, at, place, found, structures)
    except Exception as error:
        raise Malformed(f"a read response cannot be read: {error}") from error
    return found


def _message(data: bytes, at: int, found: Publication, structures: Structures | None) -> None:
    """A NotificationMessage: sequence number, publish time, notifications."""
    found.sequence = _U32.unpack_from(data, at)[0]
    (count,) = _I32.unpack_from(data, at + 12)
    at += 16
    for _ in range(max(count, 0)):
        kind, start, at = _extension(data, at)
        body = memoryview(data)[start:at]
        if kind.NamespaceIndex or kind.Identifier not in (_DATA_CHANGE, _STATUS_CHANGE):
            continue  # events: none are subscribed to
        if kind.Identifier == _STATUS_CHANGE:
            found.status = _U32.unpack_from(body)[0] or StatusCodes.Bad
            continue
        try:
            _data_changes(bytes(body), found.changes, structures)
        except Exception as error:  # noqa: BLE001  # whatever a foreign encoding makes a decoder raise
            found.undecoded = f"{type(error).__name__}: {error}"


def _extension(data: bytes, at: int) -> tuple[ua.NodeId, int, int]:
    """The type of the extension object at ``at``, and where its body starts and ends."""
    buffer = Buffer(data, at)
    kind = nodeid_from_binary(buffer)
    at = buffer.cur_pos
    if data[at] == 0:
        return kind, at + 1, at + 1
    start = at + 5
    end = start + max(_I32.unpack_from(data, at + 1)[0], 0)
    if end > len(data):
        raise IndexError("an extension object is longer than its message")
    return kind, start, end


def _data_changes(data: bytes, changes: Changes, structures: Structures | None) -> None:
    """The monitored items of a DataChangeNotification's body."""
    left = max(_I32.unpack_from(data)[0], 0)
    view = memoryview(data)
    at, run, alone = 4, _FIRST_RUN, 0
    while left:
        layout = _layout(data[at + 4], data[at + 5])
        if layout is None or alone:
            if layout is None:
                at = _item(data, at, changes, structures)
            else:
                layout.unpack_one(data, at, changes)
                at += layout.size
                alone -= 1
            left -= 1
            continue
        size = layout.size
        window = min(run, left)
        end = at + window * size
        like = min(_alike(data[at + 4 : end : size]), _alike(data[at + 5 : end : size]))
        if at + like * size > len(data):
            raise IndexError("a data change notification ends too early")
        layout.unpack(view[at : at + like * size], changes)
        at += like * size
        left -= like
        run = min(run * 4, _LONGEST_RUN) if like == window else _FIRST_RUN
        # Where neighbours differ, looking for runs costs more than it brings.
        alone = _ALONE if like < _SHORT_RUN else 0


def _alike(column: bytes) -> int:
    """How many bytes at the beginning equal the first."""
    return len(column) - len(column.lstrip(column[:1]))


def _item(data: bytes, at: int, changes: Changes, structures: Structures | None) -> int:
    """Reads the one item at ``at`` and returns where it ends."""
    return _data_value(data, at + 4, _U32.unpack_from(data, at)[0], changes, structures)


def _data_value(data: bytes, at: int, handle: int, changes: Changes, structures: Structures | None) -> int:
    """Reads the DataValue at ``at`` and returns where it ends."""
    mask = data[at]
    at += 1
    value: Value = None
    refused = False
    if mask & _VALUE:
        value, refused, at = _variant(data, at, structures)
    stamps = _stamps(mask & (_BEYOND - 1))
    status, time, server_time = stamps.of(stamps.struct.unpack_from(data, at))
    changes.add(handle, value, StatusCodes.BadDecodingError if refused else status, time, server_time)
    return at + stamps.struct.size


def _variant(data: bytes, at: int, structures: Structures | None) -> tuple[Value, bool, int]:  # noqa: PLR0911  # one a kind
    """The Variant at ``at``: its value, whether it cannot be represented, and where it ends."""
    kind = data[at]
    if kind in (_STRING, _BYTESTRING):
        (length,) = _I32.unpack_from(data, at + 1)
        start = at + 5
        if length < 0:
            return None, False, start
        raw = data[start : start + length]
        return (text_of(raw) if kind == _STRING else raw), False, start + length
    if kind == _DATETIME:
        return iso(_I64.unpack_from(data, at + 1)[0]), False, at + 9
    letter = _SCALARS.get(kind & ~_ARRAY)
    if letter is not None:
        return _numbers(data, at + 1, letter, array=bool(kind & _ARRAY))
    if kind & 0x3F == _EXTENSION:
        return _structures(data, at, structures)
    buffer = Buffer(data, at)
    variant = variant_from_binary(buffer)
    try:
        value = plain(_inner(variant, structures))
    except Exception:  # noqa: BLE001  # a value of one tag must not stop the others
        return None, True, buffer.cur_pos
    return value, False, buffer.cur_pos


def _numbers(data: bytes, at: int, letter: str, *, array: bool) -> tuple[Value, bool, int]:
    """A number, or an array of them as JSON text."""
    if not array:
        found = Struct("<" + letter)
        return found.unpack_from(data, at)[0], False, at + found.size
    (count,) = _I32.unpack_from(data, at)
    many = Struct(f"<{max(count, 0)}{letter}")
    return plain(None if count < 0 else many.unpack_from(data, at + 4)), False, at + 4 + many.size


def _inner(variant: ua.Variant, structures: Structures | None) -> object:
    """The value of a variant, with structures in an array of variants decoded too."""
    value: Any = variant.Value
    if structures is not None and isinstance(value, list):
        return [_known(v, structures) for v in cast("list[object]", value)]
    return value


def _known(value: object, structures: Structures) -> object:
    inner = value.Value if isinstance(value, ua.Variant) else value
    if isinstance(inner, ua.ExtensionObject) and inner.Body is not None:
        return structure(inner.TypeId, inner.Body, structures)
    return value


def _structures(data: bytes, at: int, structures: Structures | None) -> tuple[Value, bool, int]:
    """One structure or an array of them, as JSON text."""
    encoding = data[at]
    at += 1
    count = 1
    if encoding & _ARRAY:
        (count,) = _I32.unpack_from(data, at)
        at += 4
    found: list[object] = []
    for _ in range(max(count, 0)):
        kind, start, at = _extension(data, at)
        found.append(structure(kind, data[start:at] if at > start else None, structures))
    if encoding & _DIMENSIONS:
        (dimensions,) = _I32.unpack_from(data, at)
        at += 4 + 4 * max(dimensions, 0)
    return plain(found if encoding & _ARRAY else found[0]), False, at


def structure(kind: ua.NodeId, body: bytes | None, structures: Structures | None) -> object:
    """A structure as it goes into JSON: decoded when its type is known, else its type and its bytes."""
    if body is None:
        return raw_structure(kind, None)
    if structures is not None:
        try:
            return json_ready(structures(kind, body))
        except KeyError:
            pass
        except Exception:  # noqa: BLE001  # a definition that does not fit the bytes: keep the bytes
            return raw_structure(kind, body)
    if kind.NamespaceIndex == 0 and kind in ua.extension_objects_by_typeid:
        try:
            return json_ready(struct_from_binary(ua.extension_objects_by_typeid[kind], Buffer(body)))
        except Exception:  # noqa: BLE001  # likewise
            return raw_structure(kind, body)
    return raw_structure(kind, body)
