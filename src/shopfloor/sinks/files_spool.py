"""What the sink `files` holds and has not put into a file yet: one small SQLite database beside the files.

A batch is held once its transaction is on disk. Closing a file is: note which offsets it will have; write it; take
those offsets out and remember the last. Whatever is cut off in between is done again with the same offsets, so the
same file comes out of it.
"""

import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec

from shopfloor.samples import Batch, Value
from shopfloor.turns import giving_way

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entry (offset INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    held INTEGER NOT NULL,      -- the last offset that is in a file
    begun INTEGER,              -- when the oldest of what waits came, ns UTC
    size INTEGER NOT NULL,      -- bytes of what waits
    last INTEGER                -- where the file ends that is being written
);
INSERT OR IGNORE INTO state VALUES (1, 0, NULL, 0, NULL);
"""
_AT_ONCE: Final = 256
"""Entries that are read together."""


class _Body(msgspec.Struct, array_like=True):
    """A batch in the database."""

    source: str
    received: int
    tags: list[str]
    times: bytes
    kind: str
    """Of the array of values; empty where they are a list."""
    numbers: bytes
    values: list[Any]
    qualities: bytes
    statuses: bytes | None


class Waiting(NamedTuple):
    """What is not in a file yet."""

    begun: int | None
    """When the oldest of it came, ns UTC; None: nothing waits."""
    size: int
    """Bytes."""
    last: int | None
    """Where the file ends that was begun and not finished; None: there is no such."""


class Spool:
    """The database; every call blocks, and all come from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. Raises sqlite3.Error."""
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # Held by one process alone, which also lets the log be on a network share (it needs no shared memory).
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA auto_vacuum=FULL")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Give it free."""
        self._db.close()

    def held(self) -> int:
        """The last offset that is held, in a file or here."""
        query = "SELECT max(held, coalesce((SELECT max(offset) FROM entry), 0)) FROM state"
        found: int = self._db.execute(query).fetchone()[0]
        return found

    def raise_held(self, offset: int) -> None:
        """Remember that everything up to this offset is in files."""
        self._db.execute("UPDATE state SET held = max(held, ?)", (offset,))

    def put(self, entries: Sequence[tuple[int, Batch]], now: int) -> None:
        """Hold the batches in one transaction; offsets that are held already are left out. ``now``: ns UTC."""
        held = self.held()
        rows = [(offset, _encode(batch)) for offset, batch in giving_way(entries) if offset > held and len(batch)]
        if not rows:
            return
        with self._transaction():
            self._db.executemany("INSERT INTO entry VALUES (?, ?)", rows)
            size = sum(len(body) for _, body in rows)
            self._db.execute("UPDATE state SET begun = coalesce(begun, ?), size = size + ?", (now, size))

    def waiting(self) -> Waiting:
        """What is to be put into a file."""
        return Waiting(*self._db.execute("SELECT begun, size, last FROM state").fetchone())

    def begin(self) -> tuple[int, int] | None:
        """Note that all that waits is being put into a file; its first and last offset, None: nothing waits.

        What was begun before keeps its last offset.
        """
        with self._transaction():
            self._db.execute("UPDATE state SET last = coalesce(last, (SELECT max(offset) FROM entry))")
            first, last = self._db.execute(
                "SELECT min(offset), last FROM state LEFT JOIN entry ON offset <= last"
            ).fetchone()
        return None if first is None else (first, last)

    def batches(self, last: int) -> Iterator[tuple[int, Batch]]:
        """What waits up to an offset, in order."""
        offset = -1
        while rows := self._db.execute(
            "SELECT offset, body FROM entry WHERE offset > ? AND offset <= ? ORDER BY offset LIMIT ?",
            (offset, last, _AT_ONCE),
        ).fetchall():
            for offset, body in rows:  # the last one is where the next rows begin
                yield offset, _decode(body)

    def finish(self, last: int, now: int) -> None:
        """Forget what is in files now, up to ``last``."""
        with self._transaction():
            self._db.execute("DELETE FROM entry WHERE offset <= ?", (last,))
            self._db.execute(
                "UPDATE state SET held = max(held, ?), last = NULL, "
                "size = (SELECT coalesce(sum(length(body)), 0) FROM entry), "
                "begun = CASE WHEN EXISTS (SELECT 1 FROM entry) THEN ? END",
                (last, now),
            )
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)


class _Transaction:
    """BEGIN and COMMIT, or ROLLBACK after an error."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Body).decode


def _encode(batch: Batch) -> bytes:
    values = batch.values
    kind, numbers, listed = "", b"", cast("list[Any]", values)
    if isinstance(values, array):
        found = cast("array[int] | array[float]", values)
        kind, numbers, listed = found.typecode, found.tobytes(), []
    statuses = None if batch.statuses is None else batch.statuses.tobytes()
    return _pack(
        _Body(
            batch.source, batch.received, list(batch.tags), batch.times.tobytes(), kind, numbers, list(listed),
            batch.qualities.tobytes(), statuses,
        )
    )  # fmt: skip


def _decode(stored: bytes) -> Batch:
    body = _unpack(stored)
    values: Sequence[Value] = body.values
    if body.kind:
        values = array(body.kind, body.numbers)
    statuses = None if body.statuses is None else array("I", body.statuses)
    return Batch(
        body.source, body.received, body.tags, array("q", body.times), values, array("H", body.qualities),
        statuses=statuses,
    )  # fmt: skip
