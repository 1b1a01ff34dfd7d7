"""How each Sparkplug data type travels: the field of the wire and the two ways between its raw value and Python's."""

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeGuard, cast
from uuid import UUID

import numpy as np

from shopfloor.protocols.sparkplug.limits import MOST_METRICS
from shopfloor.protocols.sparkplug.model import DataType, MetricValue


class Codec(NamedTuple):
    """How a type travels: the field of the oneof, and the two ways between its raw value and Python's."""

    field: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


def _integer(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no integer")  # noqa: TRY004  # one error for every value that does not fit
    if not low <= value <= high:
        raise ValueError(f"{value} is outside {low} … {high}")
    return value


def _signed(bits: int, field: str) -> Codec:
    """A signed integer that travels in an unsigned field of at least its width."""
    width = 32 if field == "int_value" else 64
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    own, wide = (1 << bits) - 1, (1 << width) - 1

    def read(raw: object) -> int:
        if type(raw) is int and 0 <= raw <= high:
            return raw
        value = _integer(raw, low, wide)
        if high < value <= own:
            return value - own - 1
        return _integer(value - wide - 1 if value > wide >> 1 else value, low, high)

    def write(value: object) -> int:
        return _integer(value, low, high) & wide

    return Codec(field, read, write)


def _unsigned(bits: int, field: str) -> Codec:
    def check(value: object) -> int:
        return _integer(value, 0, 2**bits - 1)

    return Codec(field, check, check)


def _number(value: object, code: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no number")  # noqa: TRY004  # see _integer
    try:
        struct.pack(code, value)
    except (OverflowError, struct.error) as error:
        raise ValueError(f"{value} is too large for its type") from error
    return float(value)


def _read_number(raw: object) -> float:
    if not isinstance(raw, float):
        raise ValueError(f"{raw!r} is no floating-point number")  # noqa: TRY004  # see _integer
    return raw


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is no boolean")  # noqa: TRY004  # see _integer
    return value


def string(value: object) -> str:
    """``value`` if it is text that UTF-8 can hold, else ValueError."""
    if not isinstance(value, str):
        # Protobuf gives a string that is no UTF-8 as bytes.
        raise ValueError(f"{value!r} is no UTF-8 text")  # noqa: TRY004  # see _integer
    value.encode()  # a lone surrogate has no UTF-8
    return value


def _uuid(value: object) -> str:
    text = string(value)
    try:
        UUID(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no UUID") from error
    return text


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"{value!r} is no bytes")  # noqa: TRY004  # see _integer
    return bytes(value)


def _array(code: str) -> Codec:
    """Numbers one after the other, little-endian; ``code`` is that of the struct module."""
    size = struct.calcsize(f"<{code}")
    name = "numbers" if code in "fd" else "integers"

    def read(raw: object) -> list[int] | list[float]:
        data = _bytes(raw)
        if len(data) % size:
            raise ValueError(f"{len(data)} bytes are no whole number of values of {size} bytes")
        return list(struct.unpack(f"<{len(data) // size}{code}", data))

    def write(value: object) -> bytes:
        items = sequence_of(value)
        if any(isinstance(item, bool) for item in items):
            raise ValueError(f"an array of {name} does not hold booleans")
        try:
            return struct.pack(f"<{len(items)}{code}", *items)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"not all are {name} of {size} bytes: {error}") from error

    return Codec("bytes_value", read, write)


def sequence_of(value: object) -> Sequence[Any]:
    """``value`` if it is a sequence and no text, else ValueError."""
    if not _is_sequence(value):
        raise ValueError(f"{value!r} is no sequence")
    return value


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _read_booleans(raw: object) -> list[bool]:
    data = _bytes(raw)
    if not data:
        return []
    if len(data) < _COUNT.size:
        raise ValueError("a boolean array starts with a count of 4 bytes")
    (count,) = _COUNT.unpack_from(data)
    if len(data) != _COUNT.size + (count + 7) // 8:
        raise ValueError(f"{count} booleans do not take {len(data) - _COUNT.size} bytes")
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=_COUNT.size), count=count)
    return cast("list[bool]", bits.astype(bool).tolist())


def _write_booleans(value: object) -> bytes:
    items = [_boolean(item) for item in sequence_of(value)]
    return _COUNT.pack(len(items)) + np.packbits(np.array(items, bool)).tobytes()


def _read_strings(raw: object) -> list[str]:
    data = _bytes(raw)
    if not data:
        return []
    if data[-1]:
        raise ValueError("the last string of a string array does not end with NUL")
    if data.count(0) > MOST_METRICS:
        raise ValueError(f"more than {MOST_METRICS} strings")
    return [item.decode() for item in data[:-1].split(b"\0")]


def _write_strings(value: object) -> bytes:
    items = [string(item) for item in sequence_of(value)]
    if any("\0" in item for item in items):
        raise ValueError("a string of a string array cannot hold NUL")
    return b"".join(item.encode() + b"\0" for item in items)


_COUNT: Final = struct.Struct("<I")
_TEXT: Final = Codec("string_value", string, string)
_BYTES: Final = Codec("bytes_value", _bytes, _bytes)

BASIC: Final = {
    DataType.INT8: _signed(8, "int_value"),
    DataType.INT16: _signed(16, "int_value"),
    DataType.INT32: _signed(32, "int_value"),
    DataType.INT64: _signed(64, "long_value"),
    DataType.UINT8: _unsigned(8, "int_value"),
    DataType.UINT16: _unsigned(16, "int_value"),
    DataType.UINT32: _unsigned(32, "int_value"),
    DataType.UINT64: _unsigned(64, "long_value"),
    DataType.FLOAT: Codec("float_value", _read_number, partial(_number, code="<f")),
    DataType.DOUBLE: Codec("double_value", _read_number, partial(_number, code="<d")),
    DataType.BOOLEAN: Codec("boolean_value", _boolean, _boolean),
    DataType.STRING: _TEXT,
    DataType.DATE_TIME: _unsigned(64, "long_value"),
    DataType.TEXT: _TEXT,
}
"""The types of a metric, a property, a parameter and a cell of a table."""

FLAT: Final = BASIC | {
    DataType.UUID: Codec("string_value", string, _uuid),
    DataType.BYTES: _BYTES,
    DataType.FILE: _BYTES,
    DataType.INT8_ARRAY: _array("b"),
    DataType.INT16_ARRAY: _array("h"),
    DataType.INT32_ARRAY: _array("i"),
    DataType.INT64_ARRAY: _array("q"),
    DataType.UINT8_ARRAY: _array("B"),
    DataType.UINT16_ARRAY: _array("H"),
    DataType.UINT32_ARRAY: _array("I"),
    DataType.UINT64_ARRAY: _array("Q"),
    DataType.FLOAT_ARRAY: _array("f"),
    DataType.DOUBLE_ARRAY: _array("d"),
    DataType.BOOLEAN_ARRAY: Codec("bytes_value", _read_booleans, _write_booleans),
    DataType.STRING_ARRAY: Codec("bytes_value", _read_strings, _write_strings),
    DataType.DATE_TIME_ARRAY: _array("Q"),
}
"""The types of a metric that do not nest."""

LEGACY: Final = {DataType.UINT32: _unsigned(32, "long_value")}
NESTING: Final = {
    DataType.DATA_SET: "dataset_value",
    DataType.TEMPLATE: "template_value",
    DataType.PROPERTY_SET: "propertyset_value",
    DataType.PROPERTY_SET_LIST: "propertysets_value",
}


def typed(value: MetricValue, data_type: DataType) -> MetricValue:
    """A value that was read without its type, made exact by the type of the birth; raises ValueError."""
    if value is None or data_type in (DataType.UNKNOWN, *NESTING):
        return value
    return cast("MetricValue", FLAT[data_type].read(value))


def data_type_of(index: int) -> DataType:
    """The data type with this number; raises ValueError for one that Sparkplug 3.0 does not know."""
    data_type = _DATA_TYPES.get(index)
    if data_type is None:
        raise ValueError(f"data type {index} is not one of Sparkplug 3.0")
    return data_type


_DATA_TYPES: Final = {int(data_type): data_type for data_type in DataType}  # ten times as fast as DataType(index)
