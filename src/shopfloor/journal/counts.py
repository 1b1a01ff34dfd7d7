"""Where every reader stands and what became of every sample at it. Used by the writing thread only."""

import sqlite3
from collections.abc import Iterable
from typing import Final

from shopfloor.journal.base import Tally

INTERVAL: Final = 60 * 10**9
"""ns: the same reason again within this time extends the interval in the ledger."""


class Counts:
    """Positions and tallies of all readers, in memory and in the journal's file.

    ``positions`` is what a reader has committed, ``counted`` up to where its tallies reach: the
    same, but for a reader that is being replayed. All calls run inside the writer's transaction.
    """

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self._tallies: dict[tuple[str, str, str, str], tuple[int, int]] = {}

    def load(self, db: sqlite3.Connection) -> None:
        """Read them anew."""
        rows = db.execute("SELECT name, position, counted FROM reader").fetchall()
        self.positions = {name: position for name, position, _ in rows}
        self.counted = {name: counted for name, _, counted in rows}
        self._tallies = {
            (reader, source, outcome, reason): (number, last)
            for number, reader, source, outcome, reason, last in db.execute(
                "SELECT id, reader, source, outcome, reason, last FROM tally ORDER BY id"
            )
        }

    def register(self, db: sqlite3.Connection, name: str, start: int) -> tuple[int, bytes]:
        """Position and state of a reader; a new one stands at ``start`` and is owed what is behind it."""
        row = db.execute("SELECT position, state FROM reader WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return row[0], row[1]
        self.forget(db, name)
        db.execute("INSERT INTO reader VALUES (?, ?, ?, x'')", (name, start, start))
        db.execute(
            "INSERT INTO base SELECT ?1, s.name, s.received - coalesce((SELECT sum(e.samples) FROM entry e JOIN name n"
            " ON n.id = e.source WHERE n.name = s.name AND e.offset > ?2), 0) FROM source s",
            (name, start),
        )
        self.positions[name] = self.counted[name] = start
        return start, b""

    def forget(self, db: sqlite3.Connection, name: str) -> bool:
        """Take a reader out with all its sums; False when there was none."""
        db.execute("DELETE FROM base WHERE reader = ?", (name,))
        db.execute("DELETE FROM tally WHERE reader = ?", (name,))
        self._tallies = {key: row for key, row in self._tallies.items() if key[0] != name}
        self.positions.pop(name, None)
        self.counted.pop(name, None)
        return db.execute("DELETE FROM reader WHERE name = ?", (name,)).rowcount > 0

    def commit(
        self, db: sqlite3.Connection, name: str, offset: int, tallies: Iterable[Tally], state: bytes | None
    ) -> None:
        """Move a reader to ``offset``; tallies of entries that were counted before count nothing."""
        counted = self.counted.get(name, 0)
        self._count(db, name, [tally for tally in tallies if tally.offset > counted])
        self.counted[name] = max(counted, offset)
        self.positions[name] = max(self.positions.get(name, 0), offset)
        db.execute(
            "UPDATE reader SET position = ?, counted = ?, state = coalesce(?, state) WHERE name = ?",
            (self.positions[name], self.counted[name], state, name),
        )

    def _count(self, db: sqlite3.Connection, reader: str, tallies: Iterable[Tally]) -> None:
        added: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        for tally in tallies:
            key = (tally.source, tally.outcome, tally.reason)
            samples, first, last = added.get(key, (0, tally.received, tally.received))
            added[key] = (samples + tally.samples, min(first, tally.received), max(last, tally.received))
        for (source, outcome, reason), (samples, first, last) in added.items():
            row, until = self._tallies.get((reader, source, outcome, reason), (None, 0))
            if row is None or (outcome not in ("delivered", "filtered") and first > until + INTERVAL):
                query = "INSERT INTO tally VALUES (NULL, ?, ?, ?, ?, 0, ?, ?)"
                row = db.execute(query, (reader, source, outcome, reason, first, last)).lastrowid or 0
            db.execute(
                "UPDATE tally SET samples = samples + ?, first = min(first, ?), last = max(last, ?) WHERE id = ?",
                (samples, first, last, row),
            )
            self._tallies[reader, source, outcome, reason] = (row, max(until, last))
