"""Fewer samples of the oldest measurements: what ``when_full: thin`` does before anything is dropped.

Of measurements (floats) alone: of each tag the first and the last sample of a stretch stay, and of every four between
them the smallest and the largest. So what remains has the same range and the same ends, in about half the space. A
stretch ends where the quality changes. What is counted, switched or said (integers, truth values, texts, bytes) stays.

It goes from the oldest entry to the newest, then begins again, so that no part of an outage is told much worse than
another. An entry keeps in its row how many samples it once had: who reads it knows how many are gone.

What a reader may have been given without having said that it is done stays whole: keys that a sink makes of the place
in an entry must name the same sample when it is sent again.
"""

import math
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from shopfloor.journal import body
from shopfloor.journal.base import AT_ONCE, READS_UNDER_WAY
from shopfloor.journal.counts import ReaderRow
from shopfloor.journal.file import sizes
from shopfloor.journal.names import Names
from shopfloor.samples import Batch

GROUP: Final = 4
"""Measurements of which two stay, at most."""
MOST: Final = 10_000
"""Samples that one step looks at, for some 40 ms: commits go between steps."""
FEWEST: Final = 2_500
"""Fewer are not worth a step: ends of stretches stay, and most would be that."""
WORTH: Final = 10
"""A round must free one part in so many, else the next one waits until all that it saw has gone."""
SMALL: Final = 50
"""Entries with fewer samples stay whole: more samples would go than pages, of which the file consists."""
GLANCED: Final = 50_000
"""Entries that one step passes at most, whatever is in them."""
JUDGED: Final = 2**20
"""Bytes of entries that became smaller: where they did not free their part in pages, this is the end of the round."""


class Row(NamedTuple):
    """An entry that may become smaller."""

    offset: int
    source_id: int
    samples: int
    """That it once had."""
    batch: Batch
    size: int
    """Bytes."""


class Thinned(NamedTuple):
    """What one step took out."""

    samples: dict[str, int]
    """By source."""
    first: int
    last: int
    """Times of reception of the oldest and the newest entry that it looked at, ns UTC."""
    written: int
    """Bytes."""


class Thinning:
    """Where it stands. Used by the writing thread only."""

    def __init__(self, names: Names, exact: Collection[str]) -> None:
        """``exact`` names processors: what they gave stays whole."""
        self.samples = 0
        """Taken out since the start."""
        self.exact = exact
        self._names = names
        self._at = 0
        self._seen = self._freed = 0
        """Bytes: what was looked at in this round, and what its pages became fewer by."""
        self._changed = self._changed_freed = 0
        """The same of entries that became smaller, since it was last judged."""
        self._round = 0
        """Up to where the round will have seen everything."""
        self._rests = False
        """Whether it waits until that has gone."""
        self._given: dict[str, tuple[int, int]] = {}
        """By reader: its position when it was last asked for, and the last entry that it may have been given."""

    def step(self, db: sqlite3.Connection, trimmed: int, newest: int, readers: Collection[ReaderRow]) -> Thinned | None:
        """Thin the next entries behind ``trimmed``, up to ``newest``, in a transaction of the caller's.

        None: there is nothing left that would be worth it.
        """
        if self._rests and trimmed < self._round:
            return None
        self._rests = False
        limit = min((row.counted for row in readers if row.name in self.exact), default=newest)
        whole = [(row.position, self._may_have(db, row)) for row in readers]
        rows, at = self._next(db, max(self._at, trimmed), limit, whole)
        if at is None and self._again(trimmed, limit):
            rows, at = self._next(db, trimmed, limit, whole)
        if at is None:
            return None
        self._at = at
        if not rows:
            return Thinned({}, 0, 0, 0)
        before = sizes(db)[0]
        gone: dict[str, int] = defaultdict(int)
        smaller: list[tuple[int, int, int, int, bytearray]] = []
        for row, indices in zip(rows, staying([row.batch for row in rows]), strict=True):
            batch = row.batch
            if len(indices) < len(batch):
                gone[batch.source] += len(batch) - len(indices)
                small = batch.select(indices)
                encoded = body.encode(small, self._names.ids(batch.source, small.tags))
                sealed = encoded.seal(row.offset, row.source_id)
                smaller.append((row.offset, row.source_id, batch.received, row.samples, sealed))
                self._changed += row.size
            self._seen += row.size
        # Not UPDATE: SQLite leaves a row that became smaller where it is, and its page half empty.
        db.executemany("DELETE FROM entry WHERE offset = ?", [row[:1] for row in smaller])
        db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", smaller)
        self._judge(before - sizes(db)[0], newest)
        self.samples += sum(gone.values())
        written = sum(len(row[-1]) for row in smaller)
        return Thinned(dict(gone), rows[0].batch.received, rows[-1].batch.received, written)

    def _judge(self, freed: int, newest: int) -> None:
        """Count what a step freed; where samples go for nothing, end at once: then the oldest go."""
        self._freed += freed
        self._changed_freed += freed
        if self._changed >= JUDGED:
            self._rests = self._changed_freed * WORTH < self._changed
            self._round = newest if self._rests else self._round
            self._changed = self._changed_freed = 0

    def _again(self, trimmed: int, limit: int) -> bool:
        """Whether to begin a new round."""
        worth = 0 < self._seen <= self._freed * WORTH or trimmed >= self._round
        if worth:
            self._seen = self._freed = self._changed = self._changed_freed = 0
            self._round = limit
        return worth

    def _may_have(self, db: sqlite3.Connection, reader: ReaderRow) -> int:
        """The last entry that a reader may have been given: so many whole reads behind its position."""
        position, last = self._given.get(reader.name, (-1, -1))
        if position == reader.position:
            return last
        last, reads, left = reader.position, READS_UNDER_WAY, AT_ONCE
        query = "SELECT offset, samples FROM entry WHERE offset > ? ORDER BY offset"
        with closing(db.execute(query, (reader.position,))) as cursor:
            for last, samples in cursor:
                left -= max(samples, 1)
                if left <= 0:
                    reads, left = reads - 1, AT_ONCE
                    if not reads:
                        self._given[reader.name] = reader.position, last
                        break
        return last

    def _next(
        self, db: sqlite3.Connection, at: int, limit: int, whole: Collection[tuple[int, int]]
    ) -> tuple[Sequence[Row], int | None]:
        """Entries with samples that may go, as far as one step reaches, and where to go on behind them.

        No entries when there are too few; None when these are the last ones: more will come.
        """
        first = db.execute("SELECT min(offset) FROM entry WHERE offset > ? AND offset <= ?", (at, limit)).fetchone()[0]
        until = min((first or limit) + GLANCED, limit)
        found: list[Row] = []
        samples = 0
        query = "SELECT offset, source, samples, body FROM entry WHERE offset > ? AND offset <= ? AND samples >= ?"
        with closing(db.execute(f"{query} ORDER BY offset", (at, until, SMALL))) as cursor:
            for offset, source_id, count, stored in cursor:
                source = self._names.name_or(source_id, "?")
                if source.startswith("$") or source in self.exact:
                    continue
                if any(position < offset <= last for position, last in whole):
                    continue
                try:
                    batch = body.decode(stored, offset, source_id, source, self._names.name)
                except ValueError:
                    continue  # whoever reads it will say so
                if len(batch) < SMALL:
                    continue
                found.append(Row(offset, source_id, count, batch, len(stored)))
                samples += len(batch)
                if samples >= MOST:
                    return found, offset
        if samples >= FEWEST:
            return found, until
        return [], until if until < limit else None


def staying(batches: Sequence[Batch]) -> Sequence[Sequence[int]]:
    """The indices of the samples of each batch that stay when these follow one another."""
    gone: list[set[int]] = [set() for _ in batches]
    stretches: dict[str, tuple[tuple[int, int], list[tuple[float, int, int]]]] = {}
    for number, batch in enumerate(batches):
        statuses = batch.statuses or (0,) * len(batch)
        columns = zip(batch.tags, batch.values, batch.qualities, statuses, strict=True)
        for index, (tag, value, quality, status) in enumerate(columns):
            kind = quality, status
            known = stretches.get(tag)
            measured = type(value) is float and math.isfinite(value)
            if known is not None and (not measured or known[0] != kind):
                _thin(stretches.pop(tag)[1], gone)
                known = None
            if measured and isinstance(value, float):
                if known is None:
                    known = stretches[tag] = kind, []
                known[1].append((value, number, index))
    for _, stretch in stretches.values():
        _thin(stretch, gone)
    return [
        [index for index in range(len(batch)) if index not in out] if out else range(len(batch))
        for batch, out in zip(batches, gone, strict=True)
    ]


def _thin(stretch: Sequence[tuple[float, int, int]], gone: Sequence[set[int]]) -> None:
    for group in _groups(stretch):
        extremes = (min(group), max(group, key=_value))
        for one in group:
            if one not in extremes:
                gone[one[1]].add(one[2])


def _groups(stretch: Sequence[tuple[float, int, int]]) -> Iterator[Sequence[tuple[float, int, int]]]:
    """The measurements between the ends of a stretch, some at a time."""
    inner = stretch[1:-1]
    return (inner[at : at + GROUP] for at in range(0, len(inner), GROUP))


def _value(one: tuple[float, int, int]) -> float:
    return one[0]
