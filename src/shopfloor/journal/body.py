"""How a batch lies in an entry of the journal: columns behind a checksum (docs/specs/journal.md)."""

import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Final, cast
from zlib import crc32

import msgspec

from shopfloor.samples import Batch, Value

_HEAD: Final = struct.Struct("<IBBHIIq")
"""CRC-32, version, kind of values, flags, samples, lost before, time of reception."""
_PLACE: Final = struct.Struct("<qqI")
"""Offset, source id, samples: covered by the checksum although they stand beside the body."""
_VERSION: Final = 1
_FLOATS, _INTS, _MIXED = range(3)
_ONE_TIME, _ONE_QUALITY, _STATUSES, _SERVER_TIMES = 1, 2, 4, 8

_pack_values = msgspec.msgpack.Encoder().encode
_unpack_values = msgspec.msgpack.Decoder(list).decode


class Damaged(ValueError):
    """An entry whose checksum does not hold."""


class Body:
    """An encoded batch and the checksum of its bytes, to be sealed with its place."""

    __slots__ = ("content", "inner")

    def __init__(self, content: bytearray) -> None:
        """``content`` with room for the checksum in front."""
        self.content = content
        self.inner = crc32(memoryview(content)[4:])

    def seal(self, offset: int, source_id: int) -> bytearray:
        """The bytes with the checksum that holds at this place alone; cheap, and may be called again."""
        samples: int = _HEAD.unpack_from(self.content)[4]
        struct.pack_into("<I", self.content, 0, crc32(_PLACE.pack(offset, source_id, samples), self.inner))
        return self.content


def encode(batch: Batch, tag_ids: "array[int]") -> Body:
    """The body of this batch.

    Raises ValueError for a value that no column can hold (an integer outside int64 and uint64).
    """
    flags = 0
    columns: list[bytes | memoryview] = [memoryview(tag_ids).cast("B")]
    if _uniform(batch.times):
        flags |= _ONE_TIME
    columns.append(_bytes(batch.times, short=bool(flags & _ONE_TIME)))
    if _uniform(batch.qualities):
        flags |= _ONE_QUALITY
    columns.append(_bytes(batch.qualities, short=bool(flags & _ONE_QUALITY)))
    if batch.statuses is not None:
        flags |= _STATUSES
        columns.append(_bytes(batch.statuses))
    if batch.server_times is not None:
        flags |= _SERVER_TIMES
        columns.append(_bytes(batch.server_times))
    kind, values = _encode_values(batch.values)
    columns.append(values)
    head = _HEAD.pack(0, _VERSION, kind, flags, len(batch), batch.lost_before, batch.received)
    return Body(bytearray().join((head, *columns)))


def decode(body: bytes, offset: int, source_id: int, source: str, name: Callable[[int], str]) -> Batch:
    """The batch that stands in this body; ``name`` gives the tag of an id.

    Raises Damaged when the checksum does not hold or an id has no name.
    """
    if len(body) < _HEAD.size:
        raise Damaged(f"entry {offset} is cut off")
    checksum, version, kind, flags, samples, lost_before, received = _HEAD.unpack_from(body)
    view = memoryview(body)
    if checksum != _checksum(view, offset, source_id, samples):
        raise Damaged(f"entry {offset} has a wrong checksum")
    if version != _VERSION:
        raise Damaged(f"entry {offset} has version {version}; this program reads version {_VERSION}")
    at = _HEAD.size

    def column(code: str, *, short: bool = False) -> "array[int]":
        nonlocal at
        taken: array[int] = array(code)
        end = at + taken.itemsize * (1 if short else samples)
        taken.frombytes(view[at:end])
        at = end
        return taken * samples if short else taken

    ids = column("I")
    times = column("q", short=bool(flags & _ONE_TIME))
    qualities = column("H", short=bool(flags & _ONE_QUALITY))
    statuses = column("I") if flags & _STATUSES else None
    server_times = column("q") if flags & _SERVER_TIMES else None
    values: Sequence[Value]
    if kind == _MIXED:
        values = _unpack_values(view[at:])
    else:
        floats: array[float] | array[int] = array("d") if kind == _FLOATS else array("q")
        floats.frombytes(view[at:])
        values = floats
    try:
        tags = list(map(name, ids))
    except LookupError as error:
        raise Damaged(f"entry {offset} names a tag that the dictionary has lost") from error
    return Batch(
        source,
        received,
        tags,
        times,
        values,
        qualities,
        statuses=statuses,
        server_times=server_times,
        lost_before=lost_before,
    )


def holds(body: bytes, offset: int, source_id: int) -> bool:
    """Whether the checksum of a body holds at this place."""
    if len(body) < _HEAD.size:
        return False
    checksum, _, _, _, samples, _, _ = _HEAD.unpack_from(body)
    return bool(checksum == _checksum(memoryview(body), offset, source_id, samples))


def _checksum(body: memoryview, offset: int, source_id: int, samples: int) -> int:
    return crc32(_PLACE.pack(offset, source_id, samples), crc32(body[4:]))


def _uniform(column: "array[int]") -> bool:
    """Whether all items of a column are equal: compared in C, against itself shifted by one."""
    size = len(column)
    return size > 1 and column[0] == column[-1] and column[1:] == column[:-1]


def _bytes(column: "array[int]", *, short: bool = False) -> bytes | memoryview:
    return column[:1].tobytes() if short else memoryview(column).cast("B")


def _encode_values(values: Sequence[Value]) -> tuple[int, bytes | memoryview]:
    if isinstance(values, array):
        column = cast("array[int] | array[float]", values)
        if column.typecode == "d":
            return _FLOATS, memoryview(column).cast("B")
        if column.typecode == "q":
            return _INTS, memoryview(column).cast("B")
        values = column.tolist()
    kinds = set(map(type, values))
    if kinds == {float}:
        return _FLOATS, memoryview(array("d", cast("Sequence[float]", values))).cast("B")
    if kinds == {int}:
        try:
            return _INTS, memoryview(array("q", cast("Sequence[int]", values))).cast("B")
        except OverflowError:
            pass  # some need uint64: MessagePack has it
    try:
        return _MIXED, _pack_values(values)
    except (OverflowError, UnicodeEncodeError, TypeError) as error:
        raise ValueError(f"a value cannot be stored: {error}") from error
