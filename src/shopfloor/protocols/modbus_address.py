"""Modbus: what is where (``40001``, ``holding 0``, ``40001.3``) and how registers become values.

A register is 16 bits; a value that needs more takes neighbours, in one of four orders of their bytes.
"""

import re
import struct
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from shopfloor.samples import Value

Kind = Literal["coil", "discrete", "input", "holding"]
"""The four address spaces of a device: bits and registers, each of which a master may write or only read."""

TypeName = Literal[
    "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "string"
]  # fmt: skip

Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]
"""How a device lays the bytes ABCD of a 32-bit value into two registers; of 64 bits likewise in four."""

WRITABLE: Final = frozenset({"coil", "holding"})
BITS: Final = frozenset({"coil", "discrete"})
_KINDS: Final[dict[str, Kind]] = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
_DIGITS: Final = {kind: digit for digit, kind in _KINDS.items()}
FORMATS: Final = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f",
    "float64": "d",
}  # fmt: skip
"""struct's character of each number."""
SPACE: Final = 65_536
"""Addresses that each kind has."""
_WIDTH: Final = 16
_BIT: Final = r"(?:\.(?P<low>\d{1,2})(?:-(?P<high>\d{1,2}))?)?"
_NUMBERED: Final = re.compile(rf"(?P<kind>[0134])(?P<number>\d{{4,5}}){_BIT}", re.ASCII)
_NAMED: Final = re.compile(
    rf"(?P<kind>coil|discrete|input|holding)[ :]\s*(?P<number>0[xX][0-9a-fA-F]{{1,4}}|\d{{1,5}}){_BIT}", re.ASCII
)
_BARE: Final = re.compile(r"[1-9]\d{0,3}")
_EXAMPLE: Final = 'write it like "40001" (holding register, counted from 1) or "holding 0" (the same, from 0)'


class Unfit(ValueError):
    """The value does not fit the type of the tag."""


class Place(NamedTuple):
    """Where a value begins."""

    kind: Kind
    start: int
    """From 0, as it travels."""
    bits: tuple[int, int] | None = None
    """The lowest and the highest bit in a register, 0 is the least significant; None: all of it."""

    def __str__(self) -> str:
        number = f"{_DIGITS[self.kind]}{self.start + 1:04}" if self.start < 9999 else None  # noqa: PLR2004
        bits = "" if self.bits is None else f" bit {self.bits[0]}" if self.bits[0] == self.bits[1] else ""
        bits = f" bits {self.bits[0]} to {self.bits[1]}" if self.bits is not None and not bits else bits
        return f"{self.kind} {self.start}{bits}" + (f" ({number})" if number else "")


def parse(text: str) -> Place:
    """``40001``, ``400001``, ``holding 0``, ``holding 0x1F``, a bit ``40001.3``, several ``40001.4-7``.

    Raises ValueError that shows how to write it.
    """
    numbered = _NUMBERED.fullmatch(text)
    found = numbered or _NAMED.fullmatch(text)
    if found is None:
        quotes = f'; a coil needs quotes, since YAML drops its zeros: "{text:0>5}"' if _BARE.fullmatch(text) else ""
        raise ValueError(f"{text!r} is no Modbus address; {_EXAMPLE}{quotes}")
    number = int(found["number"], 0 if found["number"][:2].lower() == "0x" else 10)
    kind = _KINDS[found["kind"]] if numbered else found["kind"]
    start = number - 1 if numbered else number
    if not 0 <= start < SPACE:
        counted = "from 1 to 65536" if numbered else "from 0 to 65535"
        raise ValueError(f"{text!r} is outside what Modbus can address ({counted} in each kind)")
    return Place(kind, start, _bits(text, kind, found))  # type: ignore[arg-type]  # the pattern names the four kinds


def _bits(text: str, kind: str, found: re.Match[str]) -> tuple[int, int] | None:
    if found["low"] is None:
        return None
    low = int(found["low"])
    high = low if found["high"] is None else int(found["high"])
    if kind in BITS:
        raise ValueError(f"{text!r}: a {kind} is one bit already; leave the part behind the dot out")
    if not low <= high < _WIDTH:
        raise ValueError(f"{text!r}: a register has the bits 0 (least significant) to 15, the lower one first")
    return low, high


class Layout(NamedTuple):
    """How a value lies in its registers or its bit."""

    type: TypeName
    order: Order = "ABCD"
    length: int = 0
    """Bytes of a string."""
    bits: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """How many registers (of a coil or discrete input: bits) it takes."""
        if self.type == "string":
            return (self.length + 1) // 2
        return 1 if self.type == "bool" or self.bits else struct.calcsize(FORMATS[self.type]) // 2

    @property
    def mask(self) -> int:
        """Which bits of its one register are its own."""
        if self.bits is None:
            return 0xFFFF
        low, high = self.bits
        return ((1 << (high - low + 1)) - 1) << low

    def decode(self, words: Sequence[int]) -> Value:
        """The value in these registers."""
        if self.bits is not None:
            field = (words[0] & self.mask) >> self.bits[0]
            return bool(field) if self.type == "bool" else field
        if self.type == "bool":
            return bool(words[0])
        if self.type == "string":
            return _text(self._packed(words)[: self.length])
        (value,) = struct.unpack(f">{FORMATS[self.type]}", self._packed(words))
        return value  # type: ignore[no-any-return]  # struct gives int or float by the format

    def encode(self, value: Value) -> list[int]:
        """The registers of a value; of bits, their register with all other bits 0. Raises Unfit."""
        if self.type == "bool":
            if not isinstance(value, bool):
                raise Unfit(f"the tag takes true and false, not {value!r:.100}")
            return [self.mask if value else 0] if self.bits else [int(value)]
        if self.type == "string":
            return self._unpacked(self._filled(value))
        if self.bits is not None:
            return [_whole(value, self.type, 0, self.mask >> self.bits[0]) << self.bits[0]]
        return self._unpacked(_packed_number(value, self.type))

    def _filled(self, value: Value) -> bytes:
        if not isinstance(value, str):
            raise Unfit(f"the tag takes text, not {value!r:.100}")
        raw = value.encode()
        if len(raw) > self.length or "\0" in value:
            raise Unfit(f"the tag takes text of at most {self.length} bytes without NUL, not {len(raw)} bytes")
        return raw.ljust(self.size * 2, b"\0")

    def _packed(self, words: Sequence[int]) -> bytes:
        if self.type != "string" and self.order in {"CDAB", "DCBA"}:
            words = words[::-1]
        return struct.pack(f"{self._end}{len(words)}H", *words)

    def _unpacked(self, raw: bytes) -> list[int]:
        words = list(struct.unpack(f"{self._end}{len(raw) // 2}H", raw))
        return words[::-1] if self.type != "string" and self.order in {"CDAB", "DCBA"} else words

    @property
    def _end(self) -> str:
        return "<" if self.order in {"BADC", "DCBA"} else ">"


def _text(raw: bytes) -> str:
    """Up to the first NUL, without the blanks behind; what is no UTF-8 is taken for Latin-1."""
    raw = raw.partition(b"\0")[0].rstrip(b" ")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _packed_number(value: Value, kind: str) -> bytes:
    code = FORMATS[kind]
    if code in "fd":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit(f"the tag takes numbers, not {value!r:.100}")
        try:
            return struct.pack(f">{code}", value)
        except OverflowError as error:
            raise Unfit(f"{value!r:.100} is beyond {kind}") from error
    size = struct.calcsize(code) * 8
    low, high = (0, 2**size - 1) if kind.startswith("u") else (-(2 ** (size - 1)), 2 ** (size - 1) - 1)
    return struct.pack(f">{code}", _whole(value, kind, low, high))


def _whole(value: Value, kind: str, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit(f"the tag takes whole numbers ({kind}), not {value!r:.100}")
    if not low <= value <= high:
        raise Unfit(f"{value} is beyond what the tag can hold: {low} to {high}")
    return value
