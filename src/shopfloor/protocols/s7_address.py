"""Addresses of S7 as engineers write them: ``DB1,REAL4``, ``DB1.DBX0.3``, ``M10.3``, ``IW64``, ``T5``."""

import re
from enum import IntEnum
from typing import Final, NamedTuple

from shopfloor.protocols.s7_values import Kind, Unfit, array_of, sized


class Area(IntEnum):
    """An area of a PLC's memory, by its number in the protocol."""

    PERIPHERY = 0x80
    """Inputs and outputs past the process image: PIW, PQW."""
    INPUTS = 0x81
    OUTPUTS = 0x82
    MARKERS = 0x83
    DB = 0x84
    COUNTERS = 0x1C
    TIMERS = 0x1D


class Address(NamedTuple):
    """Where a value lies, and what it is."""

    area: Area
    db: int
    """The data block's number; 0 in the other areas."""
    start: int
    """The first byte; of timers and counters their number."""
    bit: int
    """0 to 7 of a BOOL, else 0."""
    kind: Kind

    @property
    def size(self) -> int:
        """Bytes."""
        return self.kind.size

    @property
    def is_bit(self) -> bool:
        """Whether it is one bit of its byte."""
        return self.kind.name == "BOOL"


EXAMPLES: Final = "DB1,REAL4, DB1.DBX0.3, DB1,STRING10.20, M10.3, IW64, QB2, T5 or C3"

_PLAIN: Final = re.compile(
    r"(?:DB(?P<db>\d+)[.,]|(?P<area>PI|PE|PQ|PA|I|E|Q|A|M|V)[.,]?)"
    r"(?P<type>S5TIME|[A-Z_]*)(?P<start>\d+)(?:\.(?P<part>\d+))?(?:\[(?P<count>\d+)\])?"
)
_NUMBERED: Final = re.compile(r"(?P<area>[TCZ])(?P<start>\d+)")
_TYPE: Final = re.compile(r"(?P<name>[A-Z0-9_]+?)(?:\[(?P<length>\d+)\])?")
_AREAS: Final = {
    "PI": Area.PERIPHERY, "PE": Area.PERIPHERY, "PQ": Area.PERIPHERY, "PA": Area.PERIPHERY,
    "I": Area.INPUTS, "E": Area.INPUTS, "Q": Area.OUTPUTS, "A": Area.OUTPUTS, "M": Area.MARKERS, "V": Area.DB,
}  # fmt: skip
_ABSOLUTE: Final = {"DBX": "X", "DBB": "B", "DBW": "W", "DBD": "D"}
_WIDTHS: Final = {"W": 2, "D": 4}
_BITS: Final = 8
_NUMBER_MAX: Final = 65535
_START_MAX: Final = 2**21 - 1
"""The protocol has 24 bits for the address of a bit."""


def parse(text: str, of_type: str | None = None) -> Address:
    """The address that a plant file writes so; ``of_type`` is what lies there where the address does not say it.

    Raises Unfit with an example.
    """
    plain = "".join(text.split()).upper().removeprefix("%")  # as TIA Portal shows absolute addresses
    numbered = _NUMBERED.fullmatch(plain)
    if numbered:
        return _numbered(numbered, text, of_type)
    found = _PLAIN.fullmatch(plain)
    if found is None:
        raise Unfit(f"{text!r} is no S7 address; write it like {EXAMPLES}")
    db = 1 if found["area"] == "V" else int(found["db"] or 0)  # V memory of LOGO! and S7-200 is data block 1
    area = Area.DB if found["db"] is not None else _AREAS[found["area"]]
    start = int(found["start"])
    if (area is Area.DB and not 1 <= db <= _NUMBER_MAX) or start > _START_MAX:
        raise Unfit(f"{text!r}: data blocks have the numbers 1 to {_NUMBER_MAX}, bytes 0 to {_START_MAX}")
    letter = _ABSOLUTE.get(found["type"], found["type"]) if found["db"] else found["type"]
    letter = letter or ("X" if found["part"] else "")
    if not letter:
        raise Unfit(f"{text!r} does not say what lies there; write it like {EXAMPLES}")
    part = None if found["part"] is None else int(found["part"])
    kind, bit = _kind(text, letter, part, of_type)
    if found["count"] is not None:
        kind = array_of(kind, _count(text, int(found["count"])))
    return Address(area, db, start, bit, kind)


def _numbered(found: re.Match[str], text: str, of_type: str | None) -> Address:
    if of_type is not None:
        raise Unfit(f"{text!r} is a timer or counter and needs no `type`")
    start = int(found["start"])
    if start > _NUMBER_MAX:
        raise Unfit(f"{text!r}: timers and counters have the numbers 0 to {_NUMBER_MAX}")
    timer = found["area"] == "T"
    return Address(Area.TIMERS if timer else Area.COUNTERS, 0, start, 0, sized("S5TIME" if timer else "COUNTER", None))


def _kind(text: str, letter: str, part: int | None, of_type: str | None) -> tuple[Kind, int]:
    """The data type, and the bit of a BOOL."""
    if letter in {"X", "BOOL"}:
        if part is None or part >= _BITS:
            raise Unfit(f"{text!r} needs its bit, 0 to 7, after a point; write it like DB1,X0.3 or M10.3")
        if of_type is not None and of_type.upper() not in {"X", "BOOL"}:
            raise Unfit(f"{text!r} is a bit, so its `type` can only be BOOL")
        return sized("BOOL", None), part
    if of_type is None:
        return sized(letter, part), 0
    asked = _TYPE.fullmatch("".join(of_type.split()).upper())
    if asked is None or part is not None:
        raise Unfit(f"{text!r} with `type: {of_type}`; write it like DB1.DBD4 with `type: REAL`, or DB1,REAL4 alone")
    kind = sized(asked["name"], None if asked["length"] is None else int(asked["length"]))
    if kind.name == "BOOL":
        raise Unfit(f"{text!r} names no bit; write it like DB1,X0.3 or M10.3")
    if letter not in {"B", "W", "D"}:
        raise Unfit(f"{text!r} says its type already; leave `type` out")
    width = _WIDTHS.get(letter, kind.size)
    if kind.size != width:
        raise Unfit(
            f"{text!r} is {width} bytes, {kind.name} has {kind.size}; write the address by bytes, like DB1.DBB4"
        )
    return kind, 0


def _count(text: str, count: int) -> int:
    if not 1 <= count <= _NUMBER_MAX:
        raise Unfit(f"{text!r}: an array has 1 to {_NUMBER_MAX} elements")
    return count
