"""S7's data types: what their bytes in a PLC's memory stand for, and which bytes a value becomes."""

import calendar
import json
import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple, cast

from shopfloor.samples import Value

_TEXT_MAX: Final = 254
"""Characters of a STRING or WSTRING that is declared without a length."""
_SHOWN: Final = 60
_EPOCH: Final = date(1990, 1, 1)
_DT_CENTURY: Final = 90
"""DATE_AND_TIME has two digits of the year: 90 to 99 are 1990 to 1999, 0 to 89 are 2000 to 2089."""
_DATE_AND_TIME_YEARS: Final = range(1990, 2090)
_DTL_YEARS: Final = range(1970, 2555)
_S5_BASES: Final = (10, 100, 1000, 10_000)
"""ms of a unit of S5TIME, by its two bits of time base."""
_DIGIT: Final = 9
_BCD_MAX: Final = 999


class Unfit(ValueError):
    """A value that a data type cannot hold, or bytes that are no value of it; the text says why."""


class Kind(NamedTuple):
    """A data type of S7. ``size`` is bytes; text has its own, see ``sized``."""

    name: str
    size: int
    decode: Callable[[bytes], Value]
    encode: Callable[[Value], bytes]
    """Raises Unfit."""
    format: str = ""
    """struct's character of a number, else empty: only those can be arrays."""
    whole: bool = False
    """Whether it holds whole numbers only, so that a scaled value is rounded."""


def sized(name: str, length: int | None) -> Kind:
    """The data type of this name (in capitals); ``length`` is of text, in characters. Raises Unfit."""
    kind = KINDS.get(_SHORT.get(name, name))
    if kind is not None:
        if length is not None:
            raise Unfit(f"{name} has no length; a length is for STRING and WSTRING")
        return kind
    if name in _TEXTS:
        return _TEXTS[name](_TEXT_MAX if length is None else length)
    raise Unfit(f"{name!r} is no data type of S7; it may be {', '.join([*KINDS, 'STRING', 'WSTRING'])}")


def array_of(kind: Kind, count: int) -> Kind:
    """An array of numbers, as JSON text. Raises Unfit for what is none."""
    if not kind.format:
        raise Unfit(f"arrays are of numbers, not of {kind.name}; list the elements one by one")
    packed = struct.Struct(f">{count}{kind.format}")

    def decode(data: bytes) -> Value:
        return json.dumps([None if isinstance(v, float) and not math.isfinite(v) else v for v in packed.unpack(data)])

    def encode(value: Value) -> bytes:
        try:
            items = json.loads(value) if isinstance(value, str) else None
        except ValueError:
            items = None
        if not isinstance(items, list) or len(cast("list[Value]", items)) != count:
            raise Unfit(f"the tag is an array; give JSON text of {count} numbers like [1, 2, 3], not {shown(value)}")
        return b"".join(kind.encode(item) for item in cast("list[Value]", items))

    return Kind(f"{kind.name}[{count}]", kind.size * count, decode, encode)


def shown(value: Value) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _number(name: str, form: str) -> Kind:
    packed = struct.Struct(f">{form}")
    whole = form not in "fd"
    bits = packed.size * 8
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if form.islower() else (0, 2**bits - 1)

    def decode(data: bytes) -> Value:
        return cast("Value", packed.unpack(data)[0])

    def encode_whole(value: Value) -> bytes:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Unfit(f"the tag takes whole numbers ({name}), not {shown(value)}")
        if not low <= value <= high:
            raise Unfit(f"{shown(value)} is beyond {name}: {low} to {high}")
        return packed.pack(value)

    def encode_float(value: Value) -> bytes:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit(f"the tag takes numbers ({name}), not {shown(value)}")
        try:
            return packed.pack(value)
        except (OverflowError, struct.error) as error:
            raise Unfit(f"{shown(value)} is beyond {name}") from error

    return Kind(name, packed.size, decode, encode_whole if whole else encode_float, form, whole)


def _bool(data: bytes) -> Value:
    return bool(data[0])


def _bool_bytes(value: Value) -> bytes:
    if not isinstance(value, bool):
        raise Unfit(f"the tag takes true and false, not {shown(value)}")
    return bytes([value])


def _text_of(value: Value, what: str) -> str:
    if not isinstance(value, str):
        raise Unfit(f"the tag takes {what}, not {shown(value)}")
    return value


def _string(length: int) -> Kind:
    if not 1 <= length <= _TEXT_MAX:
        raise Unfit(f"a STRING has 1 to {_TEXT_MAX} characters, not {length}")

    def decode(data: bytes) -> Value:
        if data[1] > length:
            raise Unfit(f"{data[1]} characters stand in a STRING of {length}: it was never set, or begins elsewhere")
        return data[2 : 2 + data[1]].decode("latin-1")

    def encode(value: Value) -> bytes:
        try:
            text = _text_of(value, "text").encode("latin-1")
        except UnicodeEncodeError as error:
            raise Unfit(
                f"{shown(value)} has characters that a STRING cannot hold (Latin-1 only); use WSTRING"
            ) from error
        if len(text) > length:
            raise Unfit(f"{len(text)} characters do not fit into a STRING of {length}")
        return bytes([length, len(text)]) + text

    return Kind("STRING", 2 + length, decode, encode)


def _wstring(length: int) -> Kind:
    if not 1 <= length <= 2**14 - 2:
        raise Unfit(f"a WSTRING has 1 to {2**14 - 2} characters, not {length}")

    def decode(data: bytes) -> Value:
        now = int.from_bytes(data[2:4], "big")
        if now > length:
            raise Unfit(f"{now} characters stand in a WSTRING of {length}: it was never set, or begins elsewhere")
        try:
            return data[4 : 4 + 2 * now].decode("utf-16-be")
        except UnicodeDecodeError as error:
            raise Unfit("the WSTRING holds half a character") from error

    def encode(value: Value) -> bytes:
        try:
            text = _text_of(value, "text").encode("utf-16-be")
        except UnicodeEncodeError as error:
            raise Unfit(f"{shown(value)} is no Unicode text") from error
        if len(text) > 2 * length:
            raise Unfit(f"{len(text) // 2} characters do not fit into a WSTRING of {length}")
        return struct.pack(">HH", length, len(text) // 2) + text

    return Kind("WSTRING", 4 + 2 * length, decode, encode)


def _char(data: bytes) -> Value:
    return data.decode("latin-1")


def _char_bytes(value: Value) -> bytes:
    text = _text_of(value, "one character")
    if len(text) != 1 or ord(text) > 255:  # noqa: PLR2004  # a byte
        raise Unfit(f"the tag takes one character of Latin-1, not {shown(value)}")
    return text.encode("latin-1")


def _bcd(byte: int) -> int:
    tens, ones = byte >> 4, byte & 15
    if tens > _DIGIT or ones > _DIGIT:
        raise Unfit(f"the byte {byte:#04x} is no BCD number: the address does not hold this type")
    return tens * 10 + ones


def _to_bcd(number: int) -> int:
    return number // 10 << 4 | number % 10


def _moment(year: int, rest: tuple[int, int, int, int, int], nanoseconds: int) -> str:
    try:
        moment = datetime(year, *rest, tzinfo=UTC)
    except ValueError as error:
        raise Unfit(f"no date and time stands there: {error}") from error
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}".rstrip("0").rstrip(".")


def _parsed(value: Value, years: range) -> tuple[datetime, int]:
    """A moment and its nanoseconds within the second, of text like 2026-11-21T06:00:00.5."""
    text = _text_of(value, "a date and time like 2026-11-21T06:00:00")
    whole, _, fraction = text.partition(".")
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
        nanoseconds = int(f"{fraction:0<9}"[:9]) if fraction.isdecimal() or not fraction else -1
    except ValueError as error:
        raise Unfit(f"{shown(value)} is no date and time like 2026-11-21T06:00:00") from error
    if nanoseconds < 0 or moment.year not in years:
        raise Unfit(f"{shown(value)} is no date and time from {years.start} to {years.stop - 1} in the PLC's own time")
    return moment, nanoseconds


def _date_and_time(data: bytes) -> Value:
    year, *rest = (_bcd(byte) for byte in data[:6])
    ms = _bcd(data[6]) * 10 + (data[7] >> 4)
    month, day, hour, minute, second = rest
    return _moment((1900 if year >= _DT_CENTURY else 2000) + year, (month, day, hour, minute, second), ms * 10**6)


def _date_and_time_bytes(value: Value) -> bytes:
    moment, nanoseconds = _parsed(value, _DATE_AND_TIME_YEARS)
    ms = nanoseconds // 10**6
    digits = (moment.year % 100, moment.month, moment.day, moment.hour, moment.minute, moment.second, ms // 10)
    weekday = calendar.weekday(moment.year, moment.month, moment.day)
    return bytes([*map(_to_bcd, digits), ms % 10 << 4 | (weekday + 1) % 7 + 1])  # Sunday is 1


def _dtl(data: bytes) -> Value:
    year, month, day, _, hour, minute, second, nanoseconds = struct.unpack(">H6BI", data)
    if nanoseconds >= 10**9:
        raise Unfit("no date and time stands there: more than a second of nanoseconds")
    return _moment(year, (month, day, hour, minute, second), nanoseconds)


def _dtl_bytes(value: Value) -> bytes:
    moment, nanoseconds = _parsed(value, _DTL_YEARS)
    weekday = (calendar.weekday(moment.year, moment.month, moment.day) + 1) % 7 + 1
    clock = (moment.hour, moment.minute, moment.second)
    return struct.pack(">H6BI", moment.year, moment.month, moment.day, weekday, *clock, nanoseconds)


def _date(data: bytes) -> Value:
    return (_EPOCH + timedelta(days=int.from_bytes(data, "big"))).isoformat()


def _date_bytes(value: Value) -> bytes:
    try:
        days = (date.fromisoformat(_text_of(value, "a date like 2026-11-21")) - _EPOCH).days
        return struct.pack(">H", days)
    except (ValueError, struct.error) as error:
        raise Unfit(f"{shown(value)} is no date like 2026-11-21 from 1990 to 2169") from error


def _s5time(data: bytes) -> Value:
    return (_bcd(data[1]) + 100 * (data[0] & 15)) * _S5_BASES[data[0] >> 4 & 3]


def _s5time_bytes(value: Value) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _BCD_MAX * _S5_BASES[-1]:
        raise Unfit(f"the tag takes milliseconds from 0 to {_BCD_MAX * _S5_BASES[-1]} (S5TIME), not {shown(value)}")
    base = next(n for n, unit in enumerate(_S5_BASES) if value <= _BCD_MAX * unit)
    units = int(value // _S5_BASES[base])
    if units * _S5_BASES[base] != value:
        raise Unfit(f"S5TIME can hold {units * _S5_BASES[base]} ms, not {shown(value)} ms")
    return bytes([base << 4 | units // 100, _to_bcd(units % 100)])


def _counter(data: bytes) -> Value:
    return _bcd(data[1]) + 100 * (data[0] & 15)


def _counter_bytes(value: Value) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _BCD_MAX:
        raise Unfit(f"a counter takes whole numbers from 0 to {_BCD_MAX}, not {shown(value)}")
    return bytes([value // 100, _to_bcd(value % 100)])


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("BOOL", 1, _bool, _bool_bytes),
        *(_number(name, form) for name, form in (
            ("BYTE", "B"), ("WORD", "H"), ("DWORD", "I"), ("LWORD", "Q"), ("USINT", "B"), ("UINT", "H"),
            ("UDINT", "I"), ("ULINT", "Q"), ("SINT", "b"), ("INT", "h"), ("DINT", "i"), ("LINT", "q"),
            ("REAL", "f"), ("LREAL", "d"), ("TIME", "i"), ("TIME_OF_DAY", "I"), ("LTIME", "q"),
        )),
        Kind("CHAR", 1, _char, _char_bytes),
        Kind("DATE_AND_TIME", 8, _date_and_time, _date_and_time_bytes),
        Kind("DTL", 12, _dtl, _dtl_bytes),
        Kind("DATE", 2, _date, _date_bytes),
        Kind("S5TIME", 2, _s5time, _s5time_bytes, whole=True),
        Kind("COUNTER", 2, _counter, _counter_bytes, whole=True),
    )
}  # fmt: skip
"""Every data type of a fixed size by name."""

_SHORT: Final[Mapping[str, str]] = {
    "X": "BOOL", "B": "BYTE", "C": "CHAR", "W": "WORD", "D": "DWORD", "I": "INT", "DI": "DINT", "R": "REAL",
    "LR": "LREAL", "DT": "DATE_AND_TIME", "TOD": "TIME_OF_DAY", "TIMER": "S5TIME",
}  # fmt: skip
_TEXTS: Final[Mapping[str, Callable[[int], Kind]]] = {
    "STRING": _string, "S": _string, "WSTRING": _wstring, "WS": _wstring,
}  # fmt: skip
