"""What the OPC UA server shows, on disk: the latest of each tag and how far the journal was read, in one transaction.

A crash of the process loses nothing of it. After a power cut it may be a few seconds behind the journal's position:
then the journal gives again what came since.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from shopfloor.samples import Misconfigured, Unavailable, Value

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS latest (
    tag TEXT PRIMARY KEY, source TEXT NOT NULL, time INTEGER NOT NULL, value BLOB NOT NULL,
    status INTEGER NOT NULL, received INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), offset INTEGER NOT NULL);
"""
_BUSY: Final = 2.0
"""Seconds to wait for another program that reads the file."""
_TRY_AGAIN: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_encode: Final = msgspec.msgpack.encode
_decode: Final = msgspec.msgpack.Decoder().decode


class Latest(msgspec.Struct, frozen=True, gc=False):
    """The latest of a tag; not for Python's collector, which would look at each of 100,000 while all threads wait."""

    tag: str
    source: str
    time: int
    """ns UTC"""
    value: Value
    status: int
    """OPC UA StatusCode"""
    received: int
    """ns UTC"""


class Memory:
    """The file; used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open it, make it where there is none; one that is damaged is moved away, which ``moved`` tells.

        Raises Unavailable when it is busy or the disk is full, Misconfigured when it cannot be had at all.
        """
        self.path = path
        self.moved: Path | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_folder(path.parent, error.strerror or str(error)) from error
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGED:
                raise self._trouble(error) from error
            self.moved = path.with_suffix(".damaged")
            path.replace(self.moved)
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # safe against a crash of the process; see above for the power
            db.executescript(_SCHEMA)
            db.execute("SELECT count(*) FROM latest").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close it."""
        with suppress(sqlite3.Error):
            self._db.close()

    def offset(self) -> int:
        """The journal's offset up to which it holds everything; 0 at first. Raises Unavailable."""
        try:
            row = self._db.execute("SELECT offset FROM position").fetchone()
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error
        return row[0] if row else 0

    def all(self) -> Iterator[Latest]:
        """The latest of every tag. Raises Unavailable."""
        try:
            for tag, source, time, value, status, received in self._db.execute("SELECT * FROM latest"):
                yield Latest(tag, source, time, _decode(value), status, received)
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            raise self._trouble(error) from error

    def store(self, rows: Iterable[Latest], offset: int) -> None:
        """Replace the latest of these tags and move the position. Raises Unavailable; nothing is stored then."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO latest VALUES (?, ?, ?, ?, ?, ?)",
                ((r.tag, r.source, r.time, _encode(r.value), r.status, r.received) for r in rows),
            )
            self._db.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (offset,))
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._trouble(error) from error

    def forget(self, tags: Iterable[str]) -> None:
        """Take tags out that the plant has no more. Raises Unavailable."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM latest WHERE tag = ?", ((tag,) for tag in tags))
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> Exception:
        """What the pipeline is to do about it."""
        if isinstance(error, sqlite3.DatabaseError) and _code(error) in _TRY_AGAIN:
            return Unavailable(f"the latest values cannot be kept in {self.path}: {error}")
        if isinstance(error, sqlite3.DatabaseError) and _code(error) not in _DAMAGED:
            return _no_folder(self.path, str(error))
        return Unavailable(f"{self.path} is damaged ({error}); it is moved away when it is opened again")


def _code(error: sqlite3.DatabaseError) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _no_folder(path: Path, why: str) -> Misconfigured:
    return Misconfigured(f"{path} cannot be written ({why}); give a folder with room and rights as `memory`")
