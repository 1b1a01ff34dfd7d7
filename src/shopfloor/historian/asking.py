"""Questions to a historian, worked out on the rows of one tag, wherever these are stored."""

from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, Protocol

import numpy as np

from shopfloor.historian.aggregates import Around, summed_up
from shopfloor.historian.base import Aggregate, Series
from shopfloor.historian.rows import Int64, Rows
from shopfloor.samples import Value

HELD_ROWS: Final = 4_000_000
"""Rows that one aggregate query holds in memory at once (about 150 MB)."""
GOOD_NUMBER: Final = (
    " AND quality >= 192 AND kind BETWEEN 1 AND 4"
    " AND (kind <> 4 OR (bits & 9223372036854775807) <= 9218868437227405312)"
)
"""SQL for a good number: not NaN, whose bits without the sign are above those of infinity."""


class Reader(Protocol):
    """One tag in one state of the store."""

    def rows(self, start: int, end: int, limit: int | None = None) -> Rows:
        """The rows with start <= time < end in order; with a limit at least that many of the first, if there are."""
        ...

    def count(self, start: int, end: int) -> int:
        """About how many rows a query of this time will hold in memory."""
        ...

    def before(self, time: int, *, only_numeric: bool) -> Rows:
        """The last row before ``time``, or the last with a good number; none when there is none."""
        ...

    def after(self, time: int) -> Rows:
        """The first row from ``time`` on that has a good number; none when there is none."""
        ...


def raw(tag: str, rows: Rows, limit: int) -> Series:
    """Rows as a series of at most ``limit`` samples."""
    kept = rows.take(slice(0, limit))
    return Series(tag, _longs(kept.time), kept.values(), array("H", kept.quality.tolist()), len(rows) > limit)


def aggregated(
    tag: str,
    reader: Reader | None,
    span: tuple[int, int],
    borders: Int64,
    function: Aggregate,
    newest: Callable[[], Rows],
) -> Series:
    """One value a bucket of ``borders``, seen through the span; without a reader there is no such tag.

    ``newest`` gives the tag's newest row, which may be older than all that is kept.
    """  # fmt: skip
    start, end = span
    times, values, qualities = array("q"), list[Value](), array("H")
    if reader is None or len(borders) < 2:  # noqa: PLR2004  # a bucket has two borders
        return Series(tag, times, values, qualities)
    if function == "interpolated":
        start = int(borders[0])
    for some in _runs(borders, reader.count(int(borders[0]), int(borders[-1]))):
        low, high = max(start, int(some[0])), min(end, int(some[-1]))
        around = _around(reader, (low, high), function, newest)
        found = summed_up(function, reader.rows(low, high), some, low, high, around)
        times.extend(found[0].tolist())
        values += found[1]
        qualities.extend(found[2])
    return Series(tag, times, values, qualities)


def bounded(time: int) -> int:
    """A time that fits 64 bits."""
    return min(max(time, -(2**63)), 2**63 - 1)


def _around(reader: Reader, span: tuple[int, int], function: Aggregate, newest: Callable[[], Rows]) -> Around:
    """What stands around an interval, as far as the function looks at it."""
    none = Rows.empty()
    if function not in ("count", "twa", "interpolated"):
        return Around(none, none, none)
    low, high = span
    before = reader.before(low, only_numeric=False)
    if not len(before):
        last = newest()
        before = last if len(last) and int(last.time[0]) < low else none
    if function != "interpolated":
        return Around(before, none, none)
    return Around(before, reader.before(low, only_numeric=True), reader.after(high))


def _longs(numbers: Int64) -> "array[int]":
    result = array("q")
    result.frombytes(np.ascontiguousarray(numbers).tobytes())
    return result


def _runs(borders: Int64, rows: int) -> Iterator[Int64]:
    """The buckets in runs that each need a bounded number of rows; runs share the border between them."""
    parts = max(1, -(-rows // HELD_ROWS))
    cuts = np.unique(np.linspace(0, len(borders) - 1, min(parts, len(borders) - 1) + 1).astype(np.int64)).tolist()
    for low, high in pairwise(cuts):
        yield borders[low : high + 1]
