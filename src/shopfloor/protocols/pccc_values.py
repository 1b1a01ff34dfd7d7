"""Values of data files: the bytes of elements, and back."""

import struct
from collections.abc import Sequence
from typing import Final, cast

import orjson

from shopfloor.protocols.eip_session import Unfit
from shopfloor.protocols.pccc_address import WORD, Address, Family
from shopfloor.samples import Value

_LAYOUTS: Final = {"INT": "<h", "DINT": "<i", "REAL": "<f"}
# S:1 of SLC 500 and MicroLogix (1747-RM001, 1762-RM001): the mode, PROGRAM or suspended by the program, each by the key
# or remote; and whether an error halted it. S:1 of a PLC-5 (1785-6.5.14).
_MODE: Final = 0x1F
_NOT_RUNNING: Final = frozenset({1, 3, 17, 27})
_MAJOR_ERROR: Final = 1 << 13
_PLC5_RUN, _PLC5_PROGRAM = 1 << 1, 1 << 3
_TEXT: Final = 82
"""Characters of a string."""


def halted(status: int, family: Family) -> bool:
    """Whether the second word of the status file (S:1) says that the program does not run."""
    if family == "plc5":
        return bool(status & _PLC5_PROGRAM) and not status & _PLC5_RUN
    return status & _MODE in _NOT_RUNNING or bool(status & _MAJOR_ERROR)


def decode(data: bytes, at: Address, family: Family) -> Value:
    """The value in the bytes of the elements that the address touches; a range is JSON text. Raises ValueError."""
    if at.area.type == "ASCII":
        return _swapped(data).rstrip(b"\0").decode("latin-1")
    if not at.elements:
        return _one(data, at, family)
    return orjson.dumps(
        [_one(data[i : i + at.area.size], at, family) for i in range(0, len(data), at.area.size)]
    ).decode()


def _one(data: bytes, at: Address, family: Family) -> Value:
    kind = at.area.type
    if kind == "STRING":
        (length,) = struct.unpack_from("<H", data)
        if length > _TEXT:
            raise ValueError(f"{length} characters stand in a string that holds {_TEXT}")
        return _swapped(data[WORD:])[:length].decode("latin-1")
    if kind == "REAL" and family == "plc5":
        data = data[2:4] + data[0:2]  # the word with the sign comes first
    begin = 0 if at.in_slot else at.word * WORD
    value: int | float
    (value,) = struct.unpack_from(_LAYOUTS[kind], data, begin)
    return bool(int(value) >> at.bit & 1) if at.bit >= 0 else value


def encode(value: object, at: Address, family: Family) -> bytes:
    """The bytes to write; ``value`` is of the address's own type (``sources/logix_write``). Raises Unfit."""
    if at.area.type == "ASCII":
        room = WORD * max(1, at.elements)
        text = str(value).encode("latin-1")
        if len(text) > room:
            raise Unfit(f"there is room for {room} characters")
        return _swapped(text.ljust(room, b"\0"))
    if not at.elements:
        return _packed(value, at, family)
    if at.area.parts:
        raise Unfit("ranges of timers, counters and controls are only read; write them one by one")
    return b"".join(_packed(one, at, family) for one in cast("Sequence[object]", value))


def _packed(value: object, at: Address, family: Family) -> bytes:
    kind = at.area.type
    if kind == "STRING":
        text = str(value).encode("latin-1")
        return struct.pack("<H", len(text)) + _swapped(text.ljust(_TEXT, b"\0"))
    data = struct.pack(_LAYOUTS[kind], value)
    return data[2:4] + data[0:2] if kind == "REAL" and family == "plc5" else data


def _swapped(data: bytes) -> bytes:
    """Two characters of a word, the first in its high byte, in the order of reading; and back."""
    turned = bytearray(data)
    turned[0::2], turned[1::2] = data[1::2], data[0::2]
    return bytes(turned)
