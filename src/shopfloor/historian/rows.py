"""Stored samples as NumPy columns: how a value of any type becomes 64 bits and comes back unchanged.

A value is a ``kind`` and either 64 ``bits`` (bool, int64, uint64, float) or ``data`` (text, bytes).
Floats travel as their IEEE bits, so NaN payloads and -0.0 survive; text travels as UTF-8 with
surrogates passed, so any ``str`` survives.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Rejected, Value

Int64 = NDArray[np.int64]
Objects = NDArray[np.object_]


class ValueKind(IntEnum):
    """How the 64 bits or the bytes of a value are to be read; the numbers are part of the file format."""

    NONE = 0
    BOOL = 1
    INT = 2
    UINT = 3
    FLOAT = 4
    TEXT = 5
    BYTES = 6


_SIGNED_MAX: Final = 2**63 - 1
_KINDS: Final[dict[type, int]] = {
    type(None): ValueKind.NONE,
    bool: ValueKind.BOOL,
    int: ValueKind.INT,
    float: ValueKind.FLOAT,
    str: ValueKind.TEXT,
    bytes: ValueKind.BYTES,
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples of one tag as columns of equal length."""

    entry: Int64
    """Journal offset of the batch that brought the row."""
    time: Int64
    """Source time, ns UTC."""
    kind: NDArray[np.uint8]
    bits: Int64
    quality: NDArray[np.uint16]
    status: NDArray[np.uint32]
    server: Int64
    """Server time, ns UTC, 0 where there is none."""
    data: Objects | None = None
    """Bytes of text and bytes values, None elsewhere; None altogether when no row has any."""

    def __len__(self) -> int:
        return len(self.time)

    @classmethod
    def empty(cls) -> Self:
        """No rows."""
        zero = np.zeros(0, np.int64)
        return cls(
            zero, zero, zero.astype(np.uint8), zero, zero.astype(np.uint16), zero.astype(np.uint32), zero
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """The parts one after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        columns: dict[str, NDArray[Any]] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS
        }
        data = None
        if any(part.data is not None for part in parts):
            data = np.concatenate(
                [np.full(len(part), None, np.object_) if part.data is None else part.data for part in parts]
            )
        return cls(**columns, data=data)

    def take(self, rows: NDArray[Any] | slice) -> "Rows":
        """The rows at these positions (indices, a mask or a slice)."""
        columns: dict[str, NDArray[Any]] = {name: getattr(self, name)[rows] for name in COLUMNS}
        return Rows(**columns, data=None if self.data is None else self.data[rows])

    def between(self, start: int, end: int) -> "Rows":
        """The rows with start <= time < end; the rows must be in time order."""
        low, high = np.searchsorted(self.time, np.array([start, end], np.int64))
        return self if low == 0 and high == len(self) else self.take(slice(int(low), int(high)))

    def ordered(self) -> "Rows":
        """The rows by time, those of one time in the order of their arrival; itself when they already are."""
        if (
            len(self) < 2  # noqa: PLR2004  # one row is in order
            or bool(
                np.all(
                    (self.time[1:] > self.time[:-1]) | ((self.time[1:] == self.time[:-1]) & (np.diff(self.entry) >= 0))
                )
            )
        ):
            return self
        return self.take(np.lexsort((self.entry, self.time)))

    def values(self) -> Sequence[Value]:
        """The values in their own types; an array 'd' when all are floats."""
        if not len(self):
            return []
        present = np.unique(self.kind)
        if len(present) == 1 and present[0] == ValueKind.FLOAT:
            result = array("d")
            result.frombytes(self.bits.tobytes())
            return result
        values = np.full(len(self), None, np.object_)
        for kind in present.tolist():
            mask = self.kind == kind
            values[mask] = self._of_kind(kind, mask)
        listed: list[Value] = values.tolist()
        return listed

    def _of_kind(self, kind: int, mask: NDArray[np.bool_]) -> NDArray[Any] | None:
        if kind == ValueKind.NONE:
            return None
        if kind == ValueKind.TEXT:
            decoded = [bytes(item).decode("utf-8", "surrogatepass") for item in _present(self.data, mask)]
            return _objects(decoded)
        if kind == ValueKind.BYTES:
            return _objects([bytes(item) for item in _present(self.data, mask)])
        return numbers(kind, self.bits[mask]).astype(np.object_)


COLUMNS: Final = tuple(field.name for field in fields(Rows) if field.name != "data")


def numbers(kind: int, bits: Int64) -> NDArray[Any]:
    """Bits of one numeric kind as an array of its own type (bool, int64, uint64 or float64)."""
    if kind == ValueKind.FLOAT:
        return bits.view(np.float64)
    if kind == ValueKind.UINT:
        return bits.view(np.uint64)
    return bits.astype(np.bool_) if kind == ValueKind.BOOL else bits


def _present(data: Objects | None, mask: NDArray[np.bool_]) -> list[bytes]:
    listed: list[bytes] = [] if data is None else data[mask].tolist()
    return listed


def _objects(items: Sequence[object]) -> Objects:
    result = np.empty(len(items), np.object_)
    result[:] = items
    return result


def encoded(values: Sequence[Value]) -> tuple[NDArray[np.uint8], Int64, Objects | None]:
    """Kind, bits and data of these values. Raises Rejected with the positions of values that no historian can hold."""
    if isinstance(values, array):
        bits: Int64 = np.frombuffer(cast("bytes", values), np.int64)
        alike = ValueKind.FLOAT if values.typecode == "d" else ValueKind.INT
        return np.full(len(bits), alike, np.uint8), bits, None
    try:
        kinds = np.fromiter(map(_KINDS.__getitem__, map(type, values)), np.uint8, len(values))
    except KeyError:
        values = _plain(values)
        kinds = np.fromiter(map(_KINDS.__getitem__, map(type, values)), np.uint8, len(values))
    present: list[int] = np.unique(kinds).tolist()
    if len(present) == 1 and present[0] in (ValueKind.FLOAT, ValueKind.BOOL):
        return kinds, _bits(values, present[0]), None
    bits = np.zeros(len(values), np.int64)
    data: Objects | None = None
    for kind in present:
        where = np.flatnonzero(kinds == kind)
        chosen = [values[i] for i in where.tolist()]
        if kind == ValueKind.INT:
            _integers(chosen, where, kinds, bits)
        elif kind in (ValueKind.FLOAT, ValueKind.BOOL):
            bits[where] = _bits(chosen, kind)
        elif kind in (ValueKind.TEXT, ValueKind.BYTES):
            data = np.full(len(values), None, np.object_) if data is None else data
            data[where] = _objects([item.encode("utf-8", "surrogatepass") if isinstance(item, str) else item
                                    for item in chosen])  # fmt: skip
    return kinds, bits, data


def _bits(values: Sequence[Any], kind: int) -> Int64:
    if kind == ValueKind.FLOAT:
        return np.array(values, np.float64).view(np.int64)
    return np.array(values, np.bool_).astype(np.int64)


def _integers(chosen: Sequence[Any], where: Int64, kinds: NDArray[np.uint8], bits: Int64) -> None:
    """Put integers in, those above int64 as uint64."""
    try:
        bits[where] = np.array(chosen, np.int64)
    except OverflowError:
        wide = [int(i) for i, value in zip(where, chosen, strict=True) if not INT_MIN <= value <= INT_MAX]
        if wide:
            raise Rejected("integers beyond 64 bits cannot be stored; send them as text", wide) from None
        bits[where] = np.array([value if value <= _SIGNED_MAX else value - 2**64 for value in chosen], np.int64)
        kinds[[int(i) for i, value in zip(where, chosen, strict=True) if value > _SIGNED_MAX]] = ValueKind.UINT


def _plain(values: Sequence[Value]) -> list[Value]:
    """Values of subclasses (an IntEnum, a str subclass) as the plain types. Raises Rejected for other types."""
    result: list[Value] = []
    strange: list[int] = []
    for i, value in enumerate(values):
        kind = next((k for k in (bool, int, float, str, bytes) if isinstance(value, k)), None)
        if value is not None and kind is None:
            strange.append(i)
        result.append(None if value is None or kind is None else kind(value))  # type: ignore[arg-type]  # it is of that kind
    if strange:
        name = type(values[strange[0]]).__name__
        raise Rejected(
            f"a value of type {name} cannot be stored; a source gives bool, int, float, str or bytes", strange
        )
    return result


def of_batch(offset: int, batch: Batch) -> Rows:
    """The rows of a batch, in its order. Raises Rejected."""
    size = len(batch)
    kind, bits, data = encoded(batch.values)
    return Rows(
        entry=np.full(size, offset, np.int64),
        time=np.frombuffer(batch.times, np.int64) if size else np.zeros(0, np.int64),
        kind=kind,
        bits=bits,
        quality=np.array(batch.qualities, np.uint16),
        status=np.zeros(size, np.uint32) if batch.statuses is None else np.array(batch.statuses, np.uint32),
        server=np.zeros(size, np.int64) if batch.server_times is None else np.array(batch.server_times, np.int64),
        data=data,
    )
