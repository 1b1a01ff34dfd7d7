"""Between a metric and a sample: quality, structures as JSON text, and values that suit a metric's type."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from shopfloor.protocols.sparkplug.model import DataSet, DataType, Metric, MetricValue, PropertySet, Template
from shopfloor.samples import Quality, Value

QUALITY: Final = "Quality"
"""The property that says a metric's quality (Sparkplug 3.0, 6.4.14)."""

_STALE: Final = 500
_QUALITY_BYTE: Final = 255
_WIDTHS: Final = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_UNSIGNED: Final = {DataType.UINT8: 8, DataType.UINT16: 16, DataType.UINT32: 32, DataType.UINT64: 64}
_TEXTS: Final = frozenset({DataType.STRING, DataType.TEXT, DataType.UUID})
_LARGEST_FLOAT: Final = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
_WORDS: Final = {"Uint": "UInt", "Uuid": "UUID"}

_encode: Final = msgspec.json.Encoder().encode


def type_name(kind: DataType | None) -> str:
    """A data type as the specification writes it: ``UInt32``, ``DateTimeArray``; empty when unknown."""
    if kind is None:
        return ""
    text = "".join(part.capitalize() for part in kind.name.split("_"))
    for written, right in _WORDS.items():
        text = text.replace(written, right)
    return text


def quality(properties: PropertySet | None) -> int:
    """The OPC quality that the properties say; good where they say nothing.

    Sparkplug knows 0 (bad), 192 (good) and 500 (stale: the last known value); other bytes are taken as
    OPC qualities, everything else is uncertain.
    """
    found = None if properties is None else properties.get(QUALITY)
    if found is None:
        return Quality.GOOD
    if not isinstance(found.value, int):
        return Quality.UNCERTAIN
    if found.value == _STALE:
        return Quality.LAST_KNOWN
    return found.value if 0 <= found.value <= _QUALITY_BYTE else Quality.UNCERTAIN


def reading(value: MetricValue) -> Value:
    """A metric's value as a sample carries it.

    DateTime stays milliseconds; arrays, data sets, templates and property sets become JSON text.
    """
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    return _encode(_plain(value)).decode()


def _plain(value: MetricValue) -> Any:
    """What JSON can write of it."""
    if isinstance(value, DataSet):
        rows = [[_plain(cell) for cell in row] for row in value.rows]
        return {"columns": list(value.columns), "types": [type_name(kind) for kind in value.types], "rows": rows}
    if isinstance(value, Template):
        return {
            "template": value.template_ref,
            "version": value.version,
            "parameters": {one.name: _plain(one.value) for one in value.parameters},
            "metrics": [_member(metric) for metric in value.metrics],
        }
    if isinstance(value, Mapping):
        return {key: _plain(one.value) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(one) for one in value]
    return value


def _member(metric: Metric) -> dict[str, Any]:
    return {"name": metric.name, "type": type_name(metric.type), "value": _plain(metric.value)}


def suited(value: Value, kind: DataType) -> MetricValue:
    """A command's value as a metric of this type takes it; raises ValueError that says what it takes."""
    if kind == DataType.BOOLEAN:
        if isinstance(value, bool):
            return value
    elif kind in _WIDTHS or kind in _UNSIGNED or kind == DataType.DATE_TIME:
        return _integer(value, kind)
    elif kind in (DataType.FLOAT, DataType.DOUBLE):
        return _float(value, kind)
    elif kind in _TEXTS:
        if isinstance(value, str):
            return value
    elif kind in (DataType.BYTES, DataType.FILE):
        if isinstance(value, bytes):
            return value
    else:
        raise ValueError(f"a metric of type {type_name(kind)} cannot be written")
    raise ValueError(f"the metric takes {type_name(kind)}, not {value!r}")


def _integer(value: Value, kind: DataType) -> int:
    signed = _WIDTHS.get(kind)
    low, high = (-(1 << (signed - 1)), (1 << (signed - 1)) - 1) if signed else (0, (1 << _UNSIGNED.get(kind, 64)) - 1)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"the metric takes {type_name(kind)}, a whole number from {low} to {high}, not {value!r}")
    return value


def _float(value: Value, kind: DataType) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"the metric takes {type_name(kind)}, a number, not {value!r}")  # noqa: TRY004  # one error
    number = float(value)
    if kind == DataType.DOUBLE or not math.isfinite(number):
        return number
    if abs(number) > _LARGEST_FLOAT:
        raise ValueError(f"{value!r} is beyond what a Float holds")
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return rounded
