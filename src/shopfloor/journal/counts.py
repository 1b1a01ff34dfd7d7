"""What came from every source, where every reader stands, and what became of every sample at it.

Used by the writing thread only. The rows are held in memory and written whole, each with a checksum and
found by its number alone: a damaged page can cost rows, it cannot make a sum silently wrong.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final
from zlib import crc32

import msgspec

from shopfloor.journal.base import Tally
from shopfloor.journal.names import IDS

INTERVAL: Final = 60 * 10**9
"""ns: the same reason again within this time extends the interval in the ledger."""

REASONS: Final = 100
"""Of an outcome at a reader. Reasons may be words of other programs, which may never say the same twice."""
OTHER: Final = "other reasons"
"""What is beyond that."""
INTERVALS: Final = 1000
"""Rows of an outcome at a reader from which on an interval is extended instead of another one begun."""


def row_checksum(*columns: object) -> int:
    """CRC-32 over the columns of a row."""
    return crc32(repr(columns).encode("utf-8", "surrogatepass"))


class SourceRow(msgspec.Struct, array_like=True):
    """A source: the columns of its row."""

    number: int
    name: str
    checkpoint: bytes | None = None
    received: int = 0
    lost: int = 0


class ReaderRow(msgspec.Struct, array_like=True):
    """A reader: the columns of its row.

    ``position`` is what it has committed, ``counted`` up to where its tallies reach.
    """

    number: int
    name: str
    position: int
    counted: int
    state: bytes = b""


class BaseRow(msgspec.Struct, array_like=True):
    """What had been received of a source before a reader was there."""

    number: int
    reader: str
    source: str
    samples: int


class TallyRow(msgspec.Struct, array_like=True):
    """What became of samples of a source at a reader."""

    number: int
    reader: str
    source: str
    outcome: str
    reason: str
    samples: int
    first: int
    last: int


Row = SourceRow | ReaderRow | BaseRow | TallyRow
TABLES: Final[dict[type[Row], str]] = {
    SourceRow: "source", ReaderRow: "reader", BaseRow: "base", TallyRow: "tally",
}  # fmt: skip


def write_row(db: sqlite3.Connection, row: Row) -> None:
    """Insert or replace a row with its checksum."""
    columns = msgspec.structs.astuple(row)
    marks = ", ".join("?" * (len(columns) + 1))
    query = f"INSERT OR REPLACE INTO {TABLES[type(row)]} VALUES ({marks})"  # noqa: S608  # our own table names
    db.execute(query, (*columns, row_checksum(*columns)))


class Counts:
    """Sources, readers and tallies, in memory and in the journal's file. All calls run inside a transaction."""

    def __init__(self) -> None:
        self.sources: dict[str, SourceRow] = {}
        self.readers: dict[str, ReaderRow] = {}
        self._bases: dict[tuple[str, str], BaseRow] = {}
        self._tallies: dict[tuple[str, str, str, str], TallyRow] = {}
        """The newest interval of each."""
        self._reasons: dict[tuple[str, str], set[str]] = defaultdict(set)
        """By reader and outcome."""
        self._intervals: Counter[tuple[str, str]] = Counter()
        """By reader and outcome."""
        self._last_number = 0

    def load(self, db: sqlite3.Connection) -> None:
        """Read them anew. Raises DatabaseError when a checksum does not hold."""
        rows = {kind: self._rows(db, kind) for kind in TABLES}
        self.sources = {row.name: row for row in rows[SourceRow] if isinstance(row, SourceRow)}
        self.readers = {row.name: row for row in rows[ReaderRow] if isinstance(row, ReaderRow)}
        self._bases = {(row.reader, row.source): row for row in rows[BaseRow] if isinstance(row, BaseRow)}
        tallies = [row for row in rows[TallyRow] if isinstance(row, TallyRow)]
        self._tallies = {(row.reader, row.source, row.outcome, row.reason): row for row in tallies}
        self._intervals = Counter((row.reader, row.outcome) for row in tallies)
        self._reasons = defaultdict(set)
        for row in tallies:
            self._reasons[row.reader, row.outcome].add(row.reason)
        self._last_number = max((row.number for found in rows.values() for row in found), default=0)

    @staticmethod
    def _rows(db: sqlite3.Connection, kind: type[Row]) -> list[Row]:
        found: list[Row] = []
        for *columns, checksum in db.execute(f"SELECT * FROM {TABLES[kind]} ORDER BY 1"):  # noqa: S608  # our own names
            if checksum != row_checksum(*columns):
                raise sqlite3.DatabaseError(f"malformed: a row of {TABLES[kind]} has a wrong checksum")
            found.append(kind(*columns))
        return found

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def receive(self, db: sqlite3.Connection, name: str, checkpoint: bytes | None, received: int, lost: int) -> None:
        """Add what came from a source; a checkpoint of None leaves the last one."""
        row = self.sources.get(name)
        if row is None:
            row = self.sources[name] = SourceRow(self._number(), name)
        row.received += received
        row.lost += lost
        row.checkpoint = row.checkpoint if checkpoint is None else checkpoint
        write_row(db, row)

    def register(self, db: sqlite3.Connection, name: str, start: int) -> tuple[int, bytes]:
        """Position and state of a reader; a new one stands at ``start`` and is owed what is behind it."""
        known = self.readers.get(name)
        if known is not None:
            return known.position, known.state
        self.forget(db, name)
        self.readers[name] = ReaderRow(self._number(), name, start, start)
        write_row(db, self.readers[name])
        query = f"SELECT coalesce(sum(samples), 0) FROM entry WHERE source IN ({IDS}) AND offset > ?2"  # noqa: S608
        for source in self.sources.values():
            waiting = db.execute(query, (source.name, start)).fetchone()[0]
            base = BaseRow(self._number(), name, source.name, source.received - waiting)
            self._bases[name, source.name] = base
            write_row(db, base)
        return start, b""

    def forget(self, db: sqlite3.Connection, name: str) -> bool:
        """Take a reader out with all its sums; False when there was none."""
        gone: list[Row] = [row for row in self._bases.values() if row.reader == name]
        known = self.readers.pop(name, None)
        for row in (*gone, *([known] if known else [])):
            db.execute(f"DELETE FROM {TABLES[type(row)]} WHERE id = ?", (row.number,))  # noqa: S608  # our own names
        db.execute("DELETE FROM tally WHERE reader = ?", (name,))  # earlier intervals, too: they are not in memory
        self._reasons = defaultdict(set, {key: found for key, found in self._reasons.items() if key[0] != name})
        self._intervals = Counter({key: count for key, count in self._intervals.items() if key[0] != name})
        self._bases = {key: row for key, row in self._bases.items() if row.reader != name}
        self._tallies = {key: row for key, row in self._tallies.items() if row.reader != name}
        return known is not None

    def commit(
        self, db: sqlite3.Connection, name: str, offset: int, tallies: Iterable[Tally], state: bytes | None
    ) -> None:
        """Move a reader to ``offset``; tallies of entries that were counted before count nothing."""
        row = self.readers.get(name)
        if row is None:  # forgotten while it was at work
            return
        self._count(db, name, [tally for tally in tallies if tally.offset > row.counted])
        if state is None and offset <= min(row.counted, row.position):
            return  # only output: a state may be large, and need not be written again
        row.counted = max(row.counted, offset)
        row.position = max(row.position, offset)
        row.state = row.state if state is None else state
        write_row(db, row)

    def counted(self, reader: str) -> int:
        """Up to where the tallies of a reader reach."""
        row = self.readers.get(reader)
        return row.counted if row else 0

    def slowest(self, otherwise: int) -> int:
        """The position that every reader has committed."""
        return min((row.position for row in self.readers.values()), default=otherwise)

    def _count(self, db: sqlite3.Connection, reader: str, tallies: Iterable[Tally]) -> None:
        touched: dict[int, TallyRow] = {}
        for tally in tallies:
            row = self._interval(reader, tally)
            row.samples += tally.samples
            row.first = min(row.first, tally.received)
            row.last = max(row.last, tally.received)
            touched[row.number] = row
        for row in touched.values():
            write_row(db, row)

    def _interval(self, reader: str, tally: Tally) -> TallyRow:
        """The row that a tally is added to; both reasons and intervals come to an end, the sums stay exact."""
        outcome, reasons = (reader, tally.outcome), self._reasons[reader, tally.outcome]
        reason = tally.reason if tally.reason in reasons or len(reasons) < REASONS else OTHER
        key = (reader, tally.source, tally.outcome, reason)
        row = self._tallies.get(key)
        more = tally.outcome not in ("delivered", "filtered") and self._intervals[outcome] < INTERVALS
        if row is None or (more and tally.received > row.last + INTERVAL):
            row = self._tallies[key] = TallyRow(self._number(), *key, 0, tally.received, tally.received)
            self._intervals[outcome] += 1
            reasons.add(reason)
        return row
