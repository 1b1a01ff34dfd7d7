"""Times, and values with them, in order: what is old is packed, since late data seldom touches it."""

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, islice
from math import gcd
from operator import sub
from typing import Any, Final, NamedTuple, cast

import msgspec

from shopfloor.samples import Value

MOST: Final = 4096
"""Entries that are kept open: the older half of more is packed. A machine that is asked once a second has as many in
a bit more than an hour, and settles the running one each minute."""
REST: Final = 600 * 1_000_000_000
"""After something old was looked at nothing is packed for as long as this, ns: more of it is likely to come."""
_BAD_EXTENSION: Final = 1
_FASTEST: Final = 1
_FAR: Final = 2**63
"""From here on a step from one number to another has more than 64 bits."""


class Bad:
    """Stands for a value of bad quality: something was said, but nothing is known."""

    def __repr__(self) -> str:
        return "BAD"


BAD: Final = Bad()
Known = Value | Bad


def _extension(value: object) -> msgspec.msgpack.Ext:
    if value is BAD:
        return msgspec.msgpack.Ext(_BAD_EXTENSION, b"")
    raise NotImplementedError(type(value))


def pack(value: object) -> bytes:
    """Facts and what is made of them, as bytes."""
    return msgspec.msgpack.encode(value, enc_hook=_extension)


def unpack(data: bytes) -> Any:
    """What ``pack`` made bytes of."""
    return msgspec.msgpack.decode(data, ext_hook=lambda _code, _data: BAD)


class Packed(NamedTuple):
    """Entries from ``start`` on, before the start of the next of these."""

    start: int
    before: tuple[int, Known] | None
    """The last entry before ``start``."""
    size: int
    times: bytes
    values: bytes


class Column:
    """Entries in order of time. Whoever looks at ``times`` and ``values`` calls ``reach`` first.

    They begin with the last entry before ``floor``, where there is one, and hold all from there on. The lists stay the
    same objects.
    """

    __slots__ = ("_carried", "_most", "_packed", "_rest", "floor", "times", "values")

    def __init__(self, most: int = MOST) -> None:
        """Empty."""
        self.times = array("q")
        self.values: list[Known] = []
        """As long as ``times``, or empty where only times are kept."""
        self.floor = -1
        """Every entry from here on is open."""
        self._packed: list[Packed] = []
        self._carried = 0
        self._most = most
        self._rest = -1

    def __len__(self) -> int:
        """How many entries."""
        first = bool(self._packed) and self._packed[0].before is not None
        return len(self.times) - self._carried + sum(packed.size for packed in self._packed) + first

    def reach(self, time: int) -> None:
        """Open what is packed from ``time`` on."""
        while time < self.floor:
            self._open()

    def _open(self) -> None:
        packed = self._packed.pop()
        times, values = _times(packed), _values(packed)
        if packed.before is not None:
            times.insert(0, packed.before[0])
            values.insert(0, packed.before[1])
        self.times[: self._carried] = times
        if self.values:
            self.values[: self._carried] = values
        self.floor = packed.start if self._packed else -1
        self._carried = int(bool(self._packed) and packed.before is not None)
        self._rest = self.times[-1] + REST

    def seal(self) -> None:
        """Pack the older half of what is open, if that is much."""
        if len(self.times) < self._most or self.times[-1] < self._rest:
            return
        cut, first = len(self.times) // 2, self._carried
        times, values = self.times[first:cut], self.values[first:cut]
        before = (self.times[0], self.values[0] if self.values else None) if first else None
        self._packed.append(Packed(self.floor, before, len(times), *_packed(times, values)))
        self.floor, self._carried = self.times[cut], 1
        del self.times[: cut - 1], self.values[: cut - 1]

    # --- forgetting

    def trim(self, before: int) -> int:
        """Drop what is older than the last entry at or before ``before``; its time, -1 when there is none."""
        if not self._packed or self.floor <= before:
            self._packed.clear()
            self.floor, self._carried = -1, 0
            place = bisect_right(self.times, before) - 1
            if place < 0:
                return -1
            del self.times[:place], self.values[:place]
            return self.times[0]
        while len(self._packed) > 1 and self._packed[1].start <= before:
            del self._packed[0]
        oldest = self._packed[0]
        times, values = _times(oldest), _values(oldest)
        place = bisect_right(times, before)
        if place:
            last = times[place - 1], values[place - 1] if values else None
            oldest = Packed(oldest.start, last, len(times) - place, *_packed(times[place:], values[place:]))
            self._packed[0] = oldest
        return -1 if oldest.before is None or oldest.before[0] > before else oldest.before[0]

    def move_first(self, time: int | None) -> None:
        """Give the first entry another time, or drop it; it was given by ``trim``."""
        if self._packed:
            oldest = self._packed[0]
            first = oldest.before
            self._packed[0] = oldest._replace(before=None if first is None or time is None else (time, first[1]))
        elif time is None:
            del self.times[:1], self.values[:1]
        else:
            self.times[0] = time

    # --- keeping

    def dump(self) -> tuple[Any, ...]:
        """Everything, for ``load``."""
        return self._packed, self.floor, self._carried, self.times.tobytes(), _numbers(self.values) or self.values

    def load(self, known: Sequence[Any]) -> None:
        """What ``dump`` gave."""
        packed, self.floor, self._carried, times, values = known
        self._packed = [
            Packed(start, None if before is None else (before[0], before[1]), *rest) for start, before, *rest in packed
        ]
        self.times[:] = array("q", times)
        self.values[:] = array("q", values).tolist() if isinstance(values, bytes) else values


def _numbers(values: list[Known]) -> bytes:
    """Whole numbers as bytes; nothing for others."""
    if values and set(map(type, values)) == {int}:
        with suppress(OverflowError):
            return array("q", cast("list[int]", values)).tobytes()
    return b""


def _packed(times: "array[int]", values: list[Known]) -> tuple[bytes, bytes]:
    numbers = _numbers(values)
    if numbers and max(cast("list[int]", values)) - min(cast("list[int]", values)) >= _FAR:
        numbers = b""
    told = b"n" + _steps(array("q", numbers)) if numbers else b"v" + zlib.compress(pack(values), _FASTEST)
    return _steps(times), told


def _times(packed: Packed) -> "array[int]":
    return _unstepped(packed.times)


def _values(packed: Packed) -> list[Known]:
    if packed.values[:1] == b"n":
        return cast("list[Known]", _unstepped(packed.values[1:]).tolist())
    return cast("list[Known]", unpack(zlib.decompress(packed.values[1:])))


def _steps(numbers: "array[int]") -> bytes:
    """From one to the next: equal steps, and such that are nearly equal, take next to no space."""
    steps = numbers[:1] + array("q", map(sub, islice(numbers, 1, None), numbers))
    unit = min(gcd(*steps), _FAR - 1)  # many clocks tell no less than a millisecond
    data = (steps if unit in (0, 1, _FAR - 1) else array("q", [step // unit for step in steps])).tobytes()
    return array("q", (unit,)).tobytes() + zlib.compress(b"".join(data[place::8] for place in range(8)), _FASTEST)


def _unstepped(data: bytes) -> "array[int]":
    unit = array("q", data[:8])[0]
    parts = zlib.decompress(data[8:])
    size = len(parts) // 8
    steps = bytearray(len(parts))
    for place in range(8):
        steps[place::8] = parts[place * size : (place + 1) * size]
    numbers = array("q", bytes(steps))
    return array("q", accumulate(numbers if unit in (0, 1, _FAR - 1) else [step * unit for step in numbers]))
