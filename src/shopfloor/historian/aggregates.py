"""Sums rows up into buckets. Pure: arrays in, arrays out.

Only good values count (quality 192 and above). For avg, min, max, twa and interpolated they must be
numbers (bool counts as 0 and 1, NaN is none); first, last and count take values of any type.
"""

from array import array
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shopfloor.historian.base import Aggregate
from shopfloor.historian.rows import Int64, Rows, ValueKind, numbers
from shopfloor.samples import Quality, Value

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

EVERY_BUCKET: Final[frozenset[Aggregate]] = frozenset({"count", "twa", "interpolated"})
"""Functions that give a value for every bucket, also for those without samples."""


def good(rows: Rows) -> Mask:
    """Which rows have a good value."""
    mask: Mask = (rows.quality >= Quality.GOOD) & (rows.kind != ValueKind.NONE)
    return mask


def numeric(rows: Rows) -> Mask:
    """Which rows have a good value that is a number."""
    mask: Mask = good(rows) & (rows.kind < ValueKind.TEXT)
    floats = rows.kind == ValueKind.FLOAT
    if floats.any():
        mask &= ~(floats & np.isnan(rows.bits.view(np.float64)))
    return mask


def as_floats(rows: Rows) -> Floats:
    """Numeric rows as float64; other kinds as NaN."""
    present: list[int] = np.unique(rows.kind).tolist()
    if present == [ValueKind.FLOAT]:
        return rows.bits.view(np.float64)
    result = np.full(len(rows), np.nan)
    for kind in present:
        if ValueKind.NONE < kind < ValueKind.TEXT:
            mask = rows.kind == kind
            result[mask] = numbers(kind, rows.bits[mask])
    return result


class Around(NamedTuple):
    """Single rows outside the interval that a function stands on; none where there is none or it needs none."""

    before: Rows
    """The last row before the interval: what is in force at its begin."""
    held: Rows
    """The last good number before the interval."""
    after: Rows
    """The first good number after the interval."""


def summed_up(
    function: Aggregate, rows: Rows, edges: Int64, start: int, end: int, around: Around
) -> tuple[Int64, list[Value], "array[int]"]:
    """Begin, value and quality of each bucket that the function gives.

    ``edges`` are the buckets' begins and the end of the last; ``rows`` those with start <= time < end,
    in order.
    """
    inner = np.clip(edges, start, end)
    places = np.searchsorted(rows.time, inner)
    filled = np.diff(places) > 0
    quality = _qualities(rows, places, filled, around.before)
    values = _FUNCTIONS[function](rows, edges, inner, around)
    begins = edges[:-1]
    if function in EVERY_BUCKET:
        return begins, values, array("H", quality.tolist())
    chosen = np.flatnonzero(filled)
    return begins[chosen], [values[i] for i in chosen.tolist()], array("H", quality[chosen].tolist())


def _qualities(rows: Rows, places: Int64, filled: Mask, before: Rows) -> NDArray[np.uint16]:
    """The worst quality of each bucket; of an empty one the quality in force at its begin, bad when there is none."""
    initial = int(before.quality[-1]) if len(before) else int(Quality.BAD)
    standing = np.concatenate([np.array([initial], np.uint16), rows.quality])
    result = standing[places[:-1]]
    if len(rows):
        result[filled] = np.minimum.reduceat(rows.quality, places[:-1][filled])
    return result


def _bucketed(mask: Mask, rows: Rows, inner: Int64) -> tuple[Rows, Int64, Mask]:
    """The chosen rows, where each bucket begins in them, and which buckets have any."""
    chosen = rows if bool(mask.all()) else rows.take(mask)
    places = np.searchsorted(chosen.time, inner)
    return chosen, places, np.diff(places) > 0


def _spread(filled: Mask, values: Sequence[Value]) -> list[Value]:
    """Values of the filled buckets, None for the others."""
    if bool(filled.all()):
        return list(values)
    result: list[Value] = [None] * len(filled)
    for i, value in zip(np.flatnonzero(filled).tolist(), values, strict=True):
        result[i] = value
    return result


def _average(rows: Rows, edges: Int64, inner: Int64, _: Around) -> list[Value]:
    del edges
    chosen, places, filled = _bucketed(numeric(rows), rows, inner)
    if not filled.any():
        return [None] * len(filled)
    counts = np.diff(places)[filled]
    return _spread(filled, _means(as_floats(chosen), np.ones(len(chosen)), places[:-1][filled], counts).tolist())


def _means(values: Floats, weights: Floats, starts: Int64, counts: Int64) -> Floats:
    """The weighted mean of each run of values, to the last digits.

    A second pass over the differences from the first mean takes away what the first sum rounded off.
    Runs that overflow a float64 on the way are worked out in fractions.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduceat(weights, starts)
        first = np.add.reduceat(weights * values, starts) / total
        rest = np.add.reduceat(weights * (values - np.repeat(first, counts)), starts) / total
        result = np.where(np.isfinite(rest), first + rest, first)
    for i in np.flatnonzero(~np.isfinite(result)).tolist():
        run = slice(int(starts[i]), int(starts[i] + counts[i]))
        if bool(np.isfinite(values[run]).all()):
            pairs = zip(map(Fraction, values[run].tolist()), map(Fraction, weights[run].tolist()), strict=True)
            products = [(value * weight, weight) for value, weight in pairs]
            result[i] = float(sum(p for p, _ in products) / sum(w for _, w in products))
    return result


def _extreme(rows: Rows, inner: Int64, function: np.ufunc) -> list[Value]:
    """Exact for every type: integers above 2**53 are compared as integers."""
    chosen, places, filled = _bucketed(numeric(rows), rows, inner)
    if not filled.any():
        return [None] * len(filled)
    kinds: list[int] = np.unique(chosen.kind).tolist()
    values: NDArray[Any] = (
        numbers(kinds[0], chosen.bits) if len(kinds) == 1 else np.array(chosen.values(), np.object_)
    )  # fmt: skip
    return _spread(filled, function.reduceat(values, places[:-1][filled]).tolist())


def _minimum(rows: Rows, edges: Int64, inner: Int64, _: Around) -> list[Value]:
    del edges
    return _extreme(rows, inner, np.minimum)


def _maximum(rows: Rows, edges: Int64, inner: Int64, _: Around) -> list[Value]:
    del edges
    return _extreme(rows, inner, np.maximum)


def _first(rows: Rows, edges: Int64, inner: Int64, _: Around) -> list[Value]:
    del edges
    chosen, places, filled = _bucketed(good(rows), rows, inner)
    return _spread(filled, chosen.take(places[:-1][filled]).values())


def _last(rows: Rows, edges: Int64, inner: Int64, _: Around) -> list[Value]:
    del edges
    chosen, places, filled = _bucketed(good(rows), rows, inner)
    return _spread(filled, chosen.take(places[1:][filled] - 1).values())


def _count(rows: Rows, edges: Int64, inner: Int64, _: Around) -> list[Value]:
    del edges
    places = _bucketed(good(rows), rows, inner)[1]
    counts: list[Value] = np.diff(places).tolist()
    return counts


def _time_weighted(rows: Rows, edges: Int64, inner: Int64, around: Around) -> list[Value]:
    """Each value holds until the next; while the one in force is not a good number, the time does not count."""
    del edges
    standing = Rows.joined([around.before, rows])
    points = np.unique(np.concatenate([inner, rows.time]))
    begins = points[:-1]
    force = np.searchsorted(standing.time, begins, side="right") - 1
    valid = numeric(standing)
    counted = force >= 0
    counted[counted] = valid[force[counted]]
    begins, force = begins[counted], force[counted]
    weights = np.diff(points)[counted].astype(np.float64)
    places = np.searchsorted(begins, inner)
    filled = np.diff(places) > 0
    if not filled.any():
        return [None] * len(filled)
    return _spread(
        filled, _means(as_floats(standing)[force], weights, places[:-1][filled], np.diff(places)[filled]).tolist()
    )


def _interpolated(rows: Rows, edges: Int64, inner: Int64, around: Around) -> list[Value]:
    """On the straight line between the good numbers around a bucket's begin; none without one on both sides."""
    del inner
    chosen = Rows.joined([around.held, rows.take(numeric(rows)), around.after])
    points = edges[:-1]
    last_of_time = np.append(np.diff(chosen.time) > 0, np.ones(min(len(chosen), 1), np.bool_))
    chosen = chosen.take(last_of_time)
    right = np.searchsorted(chosen.time, points, side="right")
    left = right - 1
    result: list[Value] = [None] * len(points)
    values = as_floats(chosen)
    exact = (
        (left >= 0) & (chosen.time[np.maximum(left, 0)] == points) if len(chosen) else np.zeros(len(points), np.bool_)
    )
    for i in np.flatnonzero(exact).tolist():
        result[i] = float(values[left[i]])
    between = np.flatnonzero(~exact & (left >= 0) & (right < len(chosen)))
    if len(between):
        low, high = left[between], right[between]
        share = (points[between] - chosen.time[low]) / (chosen.time[high] - chosen.time[low]).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            found = values[low] * (1.0 - share) + values[high] * share
        for i, value in zip(between.tolist(), found.tolist(), strict=True):
            result[i] = None if np.isnan(value) else value
    return result


_FUNCTIONS: Final[dict[Aggregate, Callable[[Rows, Int64, Int64, Around], list[Value]]]] = {
    "avg": _average,
    "min": _minimum,
    "max": _maximum,
    "first": _first,
    "last": _last,
    "count": _count,
    "twa": _time_weighted,
    "interpolated": _interpolated,
}
