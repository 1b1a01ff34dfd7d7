"""The SQLite file of the small historian: what is in it, how it is written, what becomes of a damaged one.

Constraints. Rows, new tag names and the journal position commit in one transaction, so a row is there if and only if
the position says so. Rows of a tag stand together in the order of their time, so a question reads what it needs and no
more. Neither NumPy nor Arrow is needed to write; ``sqlite_reading`` loads NumPy when the first question comes.

Tables. ``about`` (format, position, how many rows) · ``tag`` · ``sample``, whose columns are those of ``rows.Rows``: a
number is its 64 bits, text and bytes are ``data``; ``place`` is the sample's place in its journal entry.

Recovery. SQLite rolls back what was not committed. A file that it finds damaged is moved aside, never deleted, and a
new one is begun; the journal then offers all that it still holds.
"""

import fcntl
import os
import sqlite3
import struct
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Misconfigured, Rejected, Unavailable, Value

FORMAT: Final = 1
APPLICATION: Final = 0x53684648
"""``ShFH``: tells our files from others' (PRAGMA application_id)."""
SCHEMA: Final = """
CREATE TABLE about (format INTEGER NOT NULL, position INTEGER NOT NULL, rows INTEGER NOT NULL) STRICT;
INSERT INTO about VALUES (1, -1, 0);
CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE sample (tag INTEGER NOT NULL, time INTEGER NOT NULL, entry INTEGER NOT NULL, place INTEGER NOT NULL,
                     kind INTEGER NOT NULL, bits INTEGER NOT NULL, quality INTEGER NOT NULL, status INTEGER NOT NULL,
                     server INTEGER NOT NULL, data BLOB, PRIMARY KEY (tag, time, entry, place)) STRICT, WITHOUT ROWID;
PRAGMA application_id = 1399342664;
"""
"""FORMAT and APPLICATION in it are written out."""
COLUMNS: Final = "entry, time, kind, bits, quality, status, server, data"
BUSY: Final = 3.0
"""Seconds for which another program may hold the file."""
CACHE: Final = 1000
"""kB of pages that a connection keeps."""
GROUP: Final = 10_000
"""Rows that are dropped at once: what a write may have to wait for."""

_DAMAGE: Final = ("malformed", "not a database", "disk image", "no such table", "unsupported file")
"""Words of errors that are the file's own."""
_NONE, _BOOL, _INT, _UINT, _FLOAT, _TEXT, _BYTES = range(7)
"""As in ``rows.ValueKind``."""
_SIGNED_MAX: Final = 2**63 - 1
_FLOAT_BITS: Final = struct.Struct("<d")
_WORD_BITS: Final = struct.Struct("<q")

_log: Final = structlog.get_logger(__name__)

_Row = tuple[int, int, int, int, int, int, int, int, int, bytes | None]


class File:
    """The file, with a connection that writes and one that reads. One thread for each."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened yet."""
        self.path = path
        self.tags: dict[str, int] = {}
        self.position = -1
        self.damaged = False
        """Set when SQLite found the file damaged; the next ``open`` moves it aside."""
        self._lock: int | None = None
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None

    # -- opening and closing ---------------------------------------------------------------------

    def open(self) -> None:
        """Open or create. Raises Unavailable, Misconfigured."""
        with self.guarded(opening=True):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            if self.damaged:
                self._set_aside("its content is damaged")
            try:
                self._start()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._disconnect()
                self._set_aside(str(error))
                self._start()

    def _start(self) -> None:
        writing = self._writing = _connected(self.path)
        if not writing.execute("SELECT 1 FROM sqlite_schema").fetchone():
            writing.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        ((application,),) = writing.execute("PRAGMA application_id").fetchall()
        if application != APPLICATION:
            raise Misconfigured(f"{self.path} is a SQLite database of something else: set another `path`")
        ((version, self.position),) = writing.execute("SELECT format, position FROM about").fetchall()
        if version > FORMAT:
            raise Misconfigured(
                f"{self.path} was written by a newer Shopfloor (format {version}); start that, or set another `path`"
            )
        self.tags = {name: number for number, name in writing.execute("SELECT id, name FROM tag")}
        self._reading = _connected(self.path)

    def _set_aside(self, reason: str) -> None:
        """Move the file and its log out of the way, and say where to."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        moved: list[str] = []
        for suffix in ("", "-wal", "-shm"):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                target = self.path.with_name(f"{self.path.name}.damaged-{stamp}{suffix}")
                file.replace(target)
                moved.append(str(target))
        self.damaged = False
        _log.error(
            "The historian's database was damaged and has been moved aside; a new one starts, and the journal gives "
            "again what it still holds. Nothing needs to be done; keep the moved file if you want it examined.",
            reason=reason,
            moved=moved,
        )

    def close(self) -> None:
        """Close the file."""
        self._disconnect()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _disconnect(self) -> None:
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        for connection in (reading, writing):
            if connection is not None:
                connection.close()

    @contextmanager
    def guarded(self, *, opening: bool = False) -> Generator[None]:
        """Errors of SQLite and the file system as what the pipeline can act on; damage is noted."""
        try:
            yield
        except BaseException as error:
            if opening:
                self.close()
            if isinstance(error, sqlite3.Error | OSError | MemoryError):
                self.damaged = self.damaged or _is_damage(error)
                raise _meaning(self.path, error) from error
            raise

    # -- writing ---------------------------------------------------------------------------------

    def write(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Take the batches that are not here yet, in one transaction. Raises Rejected, sqlite3.Error."""
        if self._writing is None:
            raise Unavailable("the historian is not open")
        fresh = [(offset, batch) for offset, batch in entries if offset > self.position]
        if not fresh:
            return
        known = dict(self.tags)
        rows = [row for offset, batch in fresh for row in _rows(offset, batch, known)]
        new = [(number, name) for name, number in known.items() if name not in self.tags]
        with _transaction(self._writing) as connection:
            connection.executemany("INSERT INTO tag VALUES (?, ?)", new)
            connection.executemany("INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            connection.execute("UPDATE about SET position = ?, rows = rows + ?", [fresh[-1][0], len(rows)])
        self.tags, self.position = known, fresh[-1][0]

    def drop(self, since: int, group: int = GROUP) -> int:
        """Drop rows before ``since``, but not the newest of a tag; how many, at most about ``group``."""
        if self._writing is None:
            raise Unavailable("the historian is not open")
        gone = 0
        for number in list(self.tags.values()):
            with _transaction(self._writing) as connection:
                dropped = connection.execute(
                    "DELETE FROM sample WHERE (tag, time, entry, place) IN (SELECT tag, time, entry, place FROM sample "
                    "WHERE tag = ?1 AND time < ?2 AND time < (SELECT max(time) FROM sample WHERE tag = ?1) LIMIT ?3)",
                    [number, since, group - gone],
                ).rowcount
                if dropped:
                    connection.execute("UPDATE about SET rows = rows - ?", [dropped])
            gone += dropped
            if gone >= group:
                break
        return gone

    # -- reading ---------------------------------------------------------------------------------

    def ask(self, query: str, arguments: Sequence[int] = ()) -> list[tuple[Any, ...]]:
        """What the reading connection finds; the columns are the query's."""
        if self._reading is None:
            raise Unavailable("the historian is not open")
        return self._reading.execute(query, arguments).fetchall()

    def size(self) -> int:
        """Bytes of the file and its log."""
        files = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"cache_size=-{CACHE}"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _locked(path: Path) -> int:
    """Hold ``PATH.lock`` for this process. Raises Unavailable when another one does."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Unavailable(f"{path} is open in another process; stop that one (a second Shopfloor?)") from error
    return handle


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    """Everything in the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_damage(error: BaseException) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and any(words in str(error) for words in _DAMAGE)


def _meaning(path: Path, error: Exception) -> Exception:
    said = str(error)
    low = said.lower()
    if "disk is full" in low or "no space" in low or "quota" in low:
        return Unavailable(f"no room on the disk of {path}: free some, or lower `keep` of the historian")
    if "locked" in low:
        return Unavailable(f"{path} is held by another program; let that one end: {said}")
    if isinstance(error, PermissionError) or "readonly" in low or "unable to open" in low:
        return Misconfigured(
            f"{path} may not be written by this user: give it the folder (chown), or set another `path`: {said}"
        )
    if isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError):
        return Misconfigured(f"the historian's `path` must name a file in a folder: {said}")
    return Unavailable(f"the historian's database {path} fails: {said}")


def _rows(offset: int, batch: Batch, tags: dict[str, int]) -> Iterator[_Row]:
    """The rows of a batch; new tags get their numbers. Raises Rejected with what cannot be stored."""
    strange: list[int] = []
    for place, sample in enumerate(batch):
        stored = _stored(sample.value)
        if stored is None:
            strange.append(place)
            continue
        kind, bits, data = stored
        number = tags.setdefault(sample.tag, len(tags) + 1)
        yield number, sample.time, offset, place, kind, bits, sample.quality, sample.status, sample.server_time, data
    if strange:
        raise Rejected(
            "values that are not bool, text, bytes, float or an integer of 64 bits cannot be stored", strange
        )


def _stored(value: Value) -> tuple[int, int, bytes | None] | None:
    """Kind, bits and data of a value; None for one that cannot be stored."""
    found: tuple[int, int, bytes | None] | None
    match value:
        case None:
            found = _NONE, 0, None
        case bool():
            found = _BOOL, int(value), None
        case int():
            found = _integer(value)
        case float():
            found = _FLOAT, int(_WORD_BITS.unpack(_FLOAT_BITS.pack(value))[0]), None
        case str():
            found = _TEXT, 0, value.encode("utf-8", "surrogatepass")
        case bytes():
            found = _BYTES, 0, bytes(value)
        case _:  # a source of somebody else's may give anything
            found = None
    return found


def _integer(value: int) -> tuple[int, int, bytes | None] | None:
    if not INT_MIN <= value <= INT_MAX:
        return None
    return (_INT, int(value), None) if value <= _SIGNED_MAX else (_UINT, value - 2**64, None)
