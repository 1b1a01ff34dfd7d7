"""Durations and sizes as a plant file writes them: a number and a unit, ``1.2 s`` or ``20 GB``."""

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

DURATION_UNITS: Final = {
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
    "w": 7 * 86400 * 10**9,
}
SIZE_UNITS: Final = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
    "TiB": 2**40,
}  # fmt: skip
_DECIMAL: Final = ("TB", "GB", "MB", "kB")
_SHOWN: Final = (*_DECIMAL, "TiB", "GiB", "MiB", "KiB")
_QUANTITY: Final = re.compile(r"\s*(\d{1,18}(?:\.\d{1,12})?)\s*([A-Za-z]+)\s*", re.ASCII)
_MOST: Final = 2**63 - 1
"""The largest duration and size: what 64 bits hold, 292 years in nanoseconds."""

DURATION_FORMAT: Final = "shopfloor-duration"
SIZE_FORMAT: Final = "shopfloor-size"
"""The JSON Schema's `format` of both, by which the documentation knows them."""

WRITTEN: Final = "written"
"""The validation context's key that says: this stands in a plant file, so a bare number is refused."""


def _quantity(text: object, units: dict[str, int], example: str) -> int:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        msg = f"needs a number and a unit, one of {', '.join(units)}; for example {example}"
        raise ValueError(msg)
    quantity = int(Decimal(match[1]) * units[match[2]])
    if quantity > _MOST:
        msg = f"is more than can be counted; write a smaller number, for example {example}"
        raise ValueError(msg)
    return quantity


def _in_code(value: object, info: ValidationInfo) -> bool:
    """Whether this is a plain number that code gives, not one that stands in a plant file."""
    context: object = info.context
    written = isinstance(context, dict) and WRITTEN in context
    return isinstance(value, int) and not isinstance(value, bool) and not written


def _duration(value: object, info: ValidationInfo) -> object:
    return value if _in_code(value, info) else parse_duration(value)


def _size(value: object, info: ValidationInfo) -> object:
    return value if _in_code(value, info) else parse_size(value)


def parse_duration(text: object) -> int:
    """``"1.2 s"`` as nanoseconds; raises ValueError that names the units."""
    return _quantity(text, DURATION_UNITS, "1.5 s")


def parse_size(text: object) -> int:
    """``"20 GB"`` as bytes; raises ValueError that names the units."""
    return _quantity(text, SIZE_UNITS, "20 GB")


def format_duration(nanoseconds: int) -> str:
    """Nanoseconds in the largest unit that divides them: 90 d, 1200 ms."""
    for unit in ("d", "h", "min", "s", "ms"):
        if nanoseconds % DURATION_UNITS[unit] == 0:
            return f"{nanoseconds // DURATION_UNITS[unit]} {unit}"
    return f"{nanoseconds / 10**6} ms"


def format_size(size: int) -> str:
    """Bytes in the largest unit in which they are short and exact, else in a decimal unit, rounded."""
    fitting = [(size / SIZE_UNITS[unit], unit) for unit in _SHOWN if size >= SIZE_UNITS[unit]]
    for number, unit in fitting:
        if number == round(number, 1 if unit in _DECIMAL else 0):
            return f"{number:.1f}".removesuffix(".0") + f" {unit}"
    for number, unit in fitting:
        if unit in _DECIMAL:
            return f"{number:.1f} {unit}"
    return f"{size} B"


Duration = Annotated[
    int,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema(
        {"type": "string", "format": DURATION_FORMAT, "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|min|m|h|d|w)\s*$"}
    ),
]
"""Nanoseconds; a plant file writes them with a unit, code as an integer."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema({"type": "string", "format": SIZE_FORMAT, "pattern": r"^\s*\d+(\.\d+)?\s*([kMGT]?B|[KMGT]iB)\s*$"}),
]
"""Bytes; a plant file writes them with a unit, code as an integer."""
