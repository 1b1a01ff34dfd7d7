"""Durations and sizes as a plant file writes them: a number and a unit, ``1.2 s`` or ``20 GB``."""

import re
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

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
_QUANTITY: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def _quantity(text: object, units: dict[str, int], example: str) -> int:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        msg = f"{text!r} needs a number and a unit, one of {', '.join(units)}; for example {example!r}"
        raise ValueError(msg)
    return int(Decimal(match[1]) * units[match[2]])


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
    """Bytes in the largest decimal unit that divides them, else in one with a decimal."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size >= SIZE_UNITS[unit]:
            number = size / SIZE_UNITS[unit]
            return f"{number:.0f} {unit}" if number == int(number) else f"{number:.1f} {unit}"
    return f"{size} B"


Duration = Annotated[
    int,
    BeforeValidator(lambda v: v if isinstance(v, int) and not isinstance(v, bool) and v > 10**5 else parse_duration(v)),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|min|m|h|d|w)$", "examples": ["1.5 s", "90 d"]}),
]
"""Nanoseconds, written with a unit. Integers above 100,000 pass: defaults in code are nanoseconds."""

Size = Annotated[
    int,
    BeforeValidator(lambda v: v if isinstance(v, int) and not isinstance(v, bool) and v > 10**5 else parse_size(v)),
    PlainSerializer(format_size, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kMGT]?B|[KMGT]iB)$", "examples": ["20 GB"]}),
]
"""Bytes, written with a unit. Integers above 100,000 pass: defaults in code are bytes."""
