"""Every kind of value that travels, and comparing without losing a type."""

import math
from collections.abc import Sequence
from typing import Final

from shopfloor.samples import INT_MAX, INT_MIN, Sample, Value

EVERY_VALUE: Final[dict[str, Value]] = {
    "true": True,
    "false": False,
    "zero": 0,
    "int64 lowest": INT_MIN,
    "int64 highest": 2**63 - 1,
    "uint64 highest": INT_MAX,
    "beyond float": 2**53 + 1,
    "whole float": 3.0,
    "fraction": 0.1,
    "largest float": 1.7976931348623157e308,
    "smallest float": 5e-324,
    "negative zero": -0.0,
    "not a number": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "empty text": "",
    "text": 'Grüße, "世界" \\ \n\t\x00\x1f 🏭',
    "long text": "x" * 2**20,
    "number as text": "1.5",
    "no bytes": b"",
    "bytes": bytes(range(256)),
    "nothing": None,
}
"""A value of each kind and at each edge, by what it is."""


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same to the bit: 1, 1.0 and True differ, NaN equals NaN, 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()
    return one == other


def same_samples(ones: Sequence[Sample], others: Sequence[Sample]) -> bool:
    """Whether tags, times, values and qualities are the same, in this order."""
    return len(ones) == len(others) and all(
        (one.tag, one.time, one.quality) == (other.tag, other.time, other.quality) and same(one.value, other.value)
        for one, other in zip(ones, others, strict=True)
    )
