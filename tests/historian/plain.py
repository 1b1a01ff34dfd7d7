"""Aggregates worked out sample by sample with fractions: slow, simple, and independent of the product."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from shopfloor.historian.base import Aggregate
from shopfloor.samples import Sample, Value


def is_number(sample: Sample) -> bool:
    return (
        sample.quality >= 192
        and isinstance(sample.value, bool | int | float)
        and not (isinstance(sample.value, float) and math.isnan(sample.value))
    )


def in_force(samples: Sequence[Sample], time: int) -> Sample | None:
    return next((s for s in reversed(samples) if s.time <= time), None)


def bucket(
    function: Aggregate, samples: Sequence[Sample], begin: int, low: int, high: int
) -> tuple[Value | Fraction, int] | None:
    """Value and quality of the bucket that begins at ``begin``, seen through low <= t < high; None: no such bucket."""
    inside = [s for s in samples if low <= s.time < high]
    good = [s.value for s in inside if s.quality >= 192 and s.value is not None]
    numbers = [Fraction(s.value) for s in inside if is_number(s)]  # type: ignore[arg-type]
    before = [s for s in samples if s.time < low]
    first = inside[0] if inside and inside[0].time == low else None
    standing = in_force(samples, low) if first else (before[-1] if before else None)
    quality = min(s.quality for s in inside) if inside else (standing.quality if standing else 0)
    if function not in ("count", "twa", "interpolated") and not inside:
        return None
    value: Value | Fraction = None
    if function == "count":
        value = len(good)
    elif function == "twa":
        value = time_weighted(samples, inside, low, high)
    elif function == "interpolated":
        value = line(samples, begin)
    elif function in ("first", "last"):
        value = good[0 if function == "first" else -1] if good else None
    elif numbers:
        value = {"avg": sum(numbers) / len(numbers), "min": min(numbers), "max": max(numbers)}[function]
    return value, quality


def time_weighted(samples: Sequence[Sample], inside: Sequence[Sample], low: int, high: int) -> Fraction | None:
    points = sorted({low, high, *(s.time for s in inside)})
    area, weight = Fraction(0), 0
    for a, b in pairwise(points):
        sample = in_force(samples, a)
        if sample is not None and is_number(sample):
            area += Fraction(sample.value) * (b - a)  # type: ignore[arg-type]
            weight += b - a
    return area / weight if weight else None


def line(samples: Sequence[Sample], time: int) -> Fraction | None:
    good = {s.time: Fraction(s.value) for s in samples if is_number(s)}  # type: ignore[arg-type]
    left = max((t for t in good if t <= time), default=None)
    right = min((t for t in good if t > time), default=None)
    if left is None:
        return None
    if left == time:
        return good[left]
    if right is None:
        return None
    return good[left] + (good[right] - good[left]) * Fraction(time - left, right - left)


def near(found: Value, exact: Value | Fraction, scale: float) -> bool:
    """Whether a float is the exact figure to about the last digits of the largest value around."""
    if exact is None or found is None:
        return found is exact
    if isinstance(exact, Fraction):
        assert isinstance(found, bool | int | float)
        return abs(Fraction(found) - exact) <= Fraction(max(scale, 1e-300)) * Fraction(1, 10**14)
    both_nan = isinstance(found, float) and isinstance(exact, float) and math.isnan(found) and math.isnan(exact)
    return type(found) is type(exact) and (found == exact or both_nan)
