"""Reads one tag from everything that a snapshot holds: segments and the newest generations."""

from collections.abc import Callable, Iterator

import numpy as np

from shopfloor.historian.aggregates import Mask, numeric
from shopfloor.historian.asking import GOOD_NUMBER
from shopfloor.historian.chunk import Damaged
from shopfloor.historian.compaction import read_chunk
from shopfloor.historian.rows import Rows
from shopfloor.historian.segment import Piece, Segment
from shopfloor.historian.tables import Snapshot, Stored

Unreadable = Callable[[Stored, Exception], None]
"""Told of a segment that cannot be read at all."""


class Reader:
    """One tag in one snapshot."""

    def __init__(self, snapshot: Snapshot, tag: int, unreadable: Unreadable) -> None:
        self._snapshot = snapshot
        self._tag = tag
        self._unreadable = unreadable

    def rows(self, start: int, end: int, limit: int | None = None) -> Rows:
        """The rows with start <= time < end in order; with a limit at least that many of the first, if there are."""
        pieces = sorted(self._pieces(start, end), key=lambda item: item[1].first)
        parts: list[Rows] = []
        count = 0
        for i, (segment, piece) in enumerate(pieces):
            if limit is not None and count > limit:
                # rows of pieces that begin later cannot come among the first `limit`, those that overlap can
                joined = Rows.joined(parts).ordered()
                if int(np.searchsorted(joined.time, pieces[i][1].first)) > limit:
                    break
                parts = [joined]
            rows = read_chunk(segment, piece)
            if rows is not None:
                parts.append(rows.between(start, end))
                count += len(parts[-1])
        tail = "" if limit is None else f"ORDER BY time, entry, place LIMIT {limit + 1:d}"
        parts.append(self._snapshot.hot(self._tag, "time >= ? AND time < ?", [start, end], tail))
        return Rows.joined([part for part in parts if len(part)]).ordered()

    def count(self, start: int, end: int) -> int:
        """About how many rows segments hold for this time: what a query will decode."""
        return sum(piece.rows for _, piece in self._pieces(start, end))

    def before(self, time: int, *, only_numeric: bool) -> Rows:
        """The last row before ``time``, or the last with a good number; none when there is none."""
        best = self._snapshot.hot(
            self._tag,
            f"time < ?{GOOD_NUMBER if only_numeric else ''}",
            [time],
            "ORDER BY time DESC, entry DESC, place DESC LIMIT 1",
        )
        pieces = sorted(self._pieces(-(2**63), time), key=lambda item: -item[1].last)
        for segment, piece in pieces:
            if len(best) and int(best.time[0]) > piece.last:
                break
            found = self._chosen(segment, piece, -(2**63), time, only_numeric=only_numeric)
            if len(found):
                best = Rows.joined([best, found.take(slice(len(found) - 1, len(found)))]).ordered()
                best = best.take(slice(len(best) - 1, len(best)))
        return best

    def after(self, time: int) -> Rows:
        """The first row from ``time`` on that has a good number; none when there is none."""
        best = self._snapshot.hot(
            self._tag, f"time >= ?{GOOD_NUMBER}", [time], "ORDER BY time, entry DESC, place DESC LIMIT 1"
        )
        for segment, piece in sorted(self._pieces(time, 2**63 - 1), key=lambda item: item[1].first):
            if len(best) and int(best.time[0]) < piece.first:
                break
            found = self._chosen(segment, piece, time, 2**63 - 1, only_numeric=True)
            if len(found):
                first = found.take(found.time == found.time[0])
                if not len(best) or first.time[0] <= best.time[0]:
                    best = Rows.joined([best, first]).ordered()
                    best = best.take(best.time == best.time[0])
                    best = best.take(slice(len(best) - 1, len(best)))
        return best

    def _chosen(self, segment: Segment, piece: Piece, start: int, end: int, *, only_numeric: bool) -> Rows:
        rows = read_chunk(segment, piece)
        if rows is None:
            return Rows.empty()
        rows = rows.between(start, end)
        mask: Mask | None = numeric(rows) if only_numeric else None
        return rows if mask is None else rows.take(mask)

    def _pieces(self, start: int, end: int) -> Iterator[tuple[Segment, Piece]]:
        for line in self._snapshot.stored:
            if line.rows and line.first < end and line.last >= start:
                try:
                    found = list(line.segment.pieces(self._tag, start, end))
                except (Damaged, OSError) as error:
                    self._unreadable(line, error)
                    continue
                for piece in found:
                    yield line.segment, piece
