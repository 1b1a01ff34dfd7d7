"""The journal on SQLite: one writing thread, group commit, a window of what was just written.

docs/specs/journal.md rules this file. Three threads touch it: the event loop (appends, reads from the
window, positions), the writer (the only one that writes rows) and one for everything slow (reading
behind the window, carrying the WAL over, sums for the ledger).
"""

import asyncio
import contextlib
import fcntl
import json
import os
import queue
import sqlite3
import threading
import time
from array import array
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import msgspec
import structlog

from shopfloor.journal import body
from shopfloor.journal.base import DeadLetter, Entry, JournalState, LedgerRow, Tally
from shopfloor.journal.ledger import sums
from shopfloor.journal.names import name_checksum
from shopfloor.journal.salvage import salvage
from shopfloor.samples import Batch, Misconfigured, Quality, Unavailable

WINDOW_BYTES: Final = 32 * 2**20
"""How much of what was just written stays in memory for readers at the head."""
GROUP_BYTES: Final = 8 * 2**20
"""The most that one transaction takes: a commit must not keep others waiting."""
WAL_BYTES: Final = 16 * 2**20
"""From this size on the WAL is carried over into the file."""
PAGE: Final = 4096
"""Bytes a page: batches are tens of kilobytes, small pages would make chains of them."""
TRIM_STEP: Final = 200
"""Entries deleted in one step; commits go between steps."""
INTERVAL: Final = 60 * 10**9
"""The same reason again within this time extends the interval in the ledger."""

_SCHEMA: Final = """
CREATE TABLE entry (offset INTEGER PRIMARY KEY, source INTEGER NOT NULL, received INTEGER NOT NULL,
                    samples INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX entry_size ON entry (source, offset, samples);
CREATE TABLE name (id INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE name_twin (id INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE reader (name TEXT PRIMARY KEY, position INTEGER NOT NULL, counted INTEGER NOT NULL, state BLOB NOT NULL);
CREATE TABLE base (reader TEXT NOT NULL, source TEXT NOT NULL, samples INTEGER NOT NULL, PRIMARY KEY (reader, source));
CREATE TABLE source (name TEXT PRIMARY KEY, checkpoint BLOB, received INTEGER NOT NULL, lost INTEGER NOT NULL);
CREATE TABLE tally (id INTEGER PRIMARY KEY, reader TEXT NOT NULL, source TEXT NOT NULL, outcome TEXT NOT NULL,
                    reason TEXT NOT NULL, samples INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE INDEX tally_reader ON tally (reader, source, outcome, reason);
CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, reader TEXT NOT NULL, offset INTEGER NOT NULL, time INTEGER NOT NULL,
                          reason TEXT NOT NULL, source INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE last (offset INTEGER NOT NULL);
INSERT INTO last VALUES (0);
PRAGMA user_version = 1;
"""

Result = TypeVar("Result")
logger: Final = structlog.get_logger("shopfloor.journal")


class _Work:
    """Something for the writer: the batch becomes an entry, then ``apply`` runs, all in one transaction."""

    __slots__ = ("apply", "batch", "done")

    def __init__(self, done: "asyncio.Future[Any]", batch: Batch | None, apply: Callable[[], Any] | None) -> None:
        self.done = done
        self.batch = batch
        self.apply = apply


class SqliteReader:
    """A named reader of a SqliteJournal; see ``journal.base.Reader``."""

    def __init__(self, journal: "SqliteJournal", name: str, position: int, state: bytes) -> None:
        """Made by ``SqliteJournal.reader``."""
        self.name = name
        self.position = position
        self.state = state
        self._journal = journal
        self._at = position

    async def read(self, most_samples: int = 100_000) -> list[Entry]:
        """The next entries behind the last ones that were given; waits until there is one."""
        while True:
            self._at, entries = await self._journal._after(self._at, most_samples)  # noqa: SLF001  # one unit
            if entries:
                return entries

    def rewind(self, position: int | None = None) -> None:
        """Read again from behind ``position``, by default the last commit."""
        self._at = self.position if position is None else position

    def commit(
        self,
        offset: int,
        tallies: Sequence[Tally] = (),
        *,
        state: bytes | None = None,
        output: Batch | None = None,
        dead: Sequence[tuple[int, str, Batch]] = (),
    ) -> Awaitable[None]:
        """One transaction for everything that is done up to ``offset``."""
        if state is not None:
            self.state = state
        self.position = max(self.position, offset)
        return self._journal._commit(self.name, offset, tallies, state, output, dead)  # noqa: SLF001  # one unit

    def lag(self) -> tuple[int, int]:
        """Entries not committed yet, and the time of reception of the oldest of them (0: not known)."""
        return self._journal._lag(self.position)  # noqa: SLF001  # one unit with its journal


class SqliteJournal:
    """The journal in one SQLite file, or in memory for tests; ``await SqliteJournal.open(path)``."""

    def __init__(self, path: Path | None, keep: int, when_full: Literal["refuse", "oldest"], clock: Callable[[], int]):
        """Use ``open``."""
        self._path = path
        self._keep = keep
        self._when_full = when_full
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._aside = ThreadPoolExecutor(1, "journal-read")
        self._window: deque[tuple[Entry, int]] = deque()
        self._window_bytes = 0
        self._head = 0
        self._grown = asyncio.Event()
        self._readers: dict[str, SqliteReader] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._write_forever, name="journal-write", daemon=True)
        self.salvaged = ""
        self._damaged: set[int] = set()
        # The writer's own, touched by no other thread:
        self._names: dict[str, int] = {}
        self._new_names: list[str] = []
        self._name_of: list[str | None] = []
        self._last_tags: dict[str, tuple[Sequence[str], array[int]]] = {}
        self._next = 1
        self._counted: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        self._tallies: dict[tuple[str, str, str, str], tuple[int, int]] = {}
        self._parked: deque[_Work] = deque()
        self._full = False
        self._trimmed = 0
        self._next_look = 0.0
        self._wal_written = 0
        self._carrying: Future[sqlite3.Cursor] | None = None

    @classmethod
    async def open(
        cls,
        path: Path | None,
        keep: int = 20 * 10**9,
        when_full: Literal["refuse", "oldest"] = "refuse",
        clock: Callable[[], int] = time.time_ns,
    ) -> Self:
        """Open or create the journal; salvage it when the file is damaged.

        ``path`` None keeps it in memory. Raises Misconfigured when the file cannot be used at all:
        another process has it, no permission, a newer version wrote it.
        """
        journal = cls(path, keep, when_full, clock)
        try:
            await asyncio.to_thread(journal._open)
        except BaseException:
            journal._aside.shutdown(wait=False)
            raise
        journal._thread.start()
        return journal

    # ---- opening ------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._lock_file = _lock(self._path) if self._path else None
        try:
            self._open_file()
        except sqlite3.DatabaseError as error:
            if self._path is None or isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise Misconfigured(f"the journal {self._path} cannot be opened: {error}") from error
            self.salvaged = salvage(self._path, _SCHEMA, self._connect, self._clock())
            self._open_file()

    def _connect(self, path: Path | None) -> sqlite3.Connection:
        connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=10)
        for pragma in (
            f"page_size={PAGE}",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=OFF",
            "wal_autocheckpoint=0",
            "cache_size=-16000",
            f"journal_size_limit={4 * WAL_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    def _open_file(self) -> None:
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write = self._connect(self._path)
        try:
            version = self._write.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._write.executescript(f"BEGIN;{_SCHEMA}UPDATE last SET offset = {self._clock() // 1000};COMMIT;")
            elif version != 1:
                raise Misconfigured(
                    f"the journal {self._path} was written by a newer Shopfloor (format {version}); use that version"
                )
            self._load()
        except BaseException:
            self._write.close()
            raise
        self._slow = self._connect(self._path) if self._path else self._write

    def _load(self) -> None:
        """The dictionary, the readers and the next offset. A row with a wrong checksum counts as absent."""
        self._names.clear()
        self._name_of.clear()
        self._last_tags.clear()
        for table in ("name", "name_twin"):
            for number, name, checksum in self._write.execute(f"SELECT id, name, checksum FROM {table}"):  # noqa: S608
                if isinstance(name, str) and checksum == name_checksum(number, name):
                    self._name_of.extend([None] * (number + 1 - len(self._name_of)))
                    self._name_of[number] = name
                    self._names[name] = number
        newest = self._write.execute("SELECT max(offset) FROM entry").fetchone()[0] or 0
        remembered = self._write.execute("SELECT max(offset) FROM last").fetchone()[0] or 0
        rows = self._write.execute("SELECT name, position, counted FROM reader").fetchall()
        self._positions = {name: position for name, position, _ in rows}
        self._counted = {name: counted for name, _, counted in rows}
        self._next = 1 + max([newest, remembered, *self._positions.values()])
        oldest = self._write.execute("SELECT min(offset) FROM entry").fetchone()[0]
        self._trimmed = (oldest or self._next) - 1
        self._head = self._next - 1
        self._tallies = {
            (reader, source, outcome, reason): (number, last)
            for number, reader, source, outcome, reason, last in self._write.execute(
                "SELECT id, reader, source, outcome, reason, last FROM tally ORDER BY id"
            )
        }

    # ---- the event loop's side ----------------------------------------------------------------------

    async def append(self, batch: Batch) -> int:
        """Make the batch durable and return its offset; see ``journal.base.Journal``."""
        offset: int = await self._submit(batch, None)
        return offset

    def _submit(self, batch: Batch | None, apply: Callable[[], Any] | None) -> "asyncio.Future[Any]":
        if self._closed:
            raise Unavailable("the journal is closed")
        done: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Work(done, batch, apply))
        return done

    async def reader(self, name: str) -> SqliteReader:
        """The reader of this name; a new one starts at the oldest entry."""
        if name not in self._readers:
            position, state = await self._submit(None, lambda: self._register(name))
            self._readers[name] = SqliteReader(self, name, position, state)
        return self._readers[name]

    async def forget(self, name: str) -> bool:
        """Take a reader away for good; False when there was none."""
        self._readers.pop(name, None)
        known: bool = await self._submit(None, lambda: self._forget(name))
        return known

    async def checkpoint(self, source: str) -> bytes | None:
        """The last durable checkpoint of a source."""
        query = "SELECT checkpoint FROM source WHERE name = ?"
        row = await self._aside_call(lambda db: db.execute(query, (source,)).fetchone())
        found: bytes | None = row and row[0]
        return found

    async def ledger(self) -> list[LedgerRow]:
        """Every sum of the ledger."""
        return await self._aside_call(sums)

    async def dead_letters(self, limit: int = 1000) -> list[DeadLetter]:
        """The newest refused samples, newest first."""
        return await self._aside_call(lambda db: self._read_dead_letters(db, limit))

    async def state(self) -> JournalState:
        """How full it is."""
        return await self._aside_call(self._read_state)

    async def close(self) -> None:
        """Write what is waiting and close; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._aside.shutdown()
        await asyncio.to_thread(self._close_file)

    def _commit(
        self,
        name: str,
        offset: int,
        tallies: Sequence[Tally],
        state: bytes | None,
        output: Batch | None,
        dead: Sequence[tuple[int, str, Batch]],
    ) -> Awaitable[None]:
        return self._submit(output, lambda: self._apply_commit(name, offset, tallies, state, dead))

    def _lag(self, position: int) -> tuple[int, int]:
        entries = self._head - max(position, self._trimmed)
        if entries <= 0:
            return 0, 0
        first = self._window[0][0].offset if self._window else self._head + 1
        if position + 1 < first:
            return entries, self._window[0][0].received if self._window else 0
        return entries, self._window[position + 1 - first][0].received

    async def _after(self, position: int, most_samples: int) -> tuple[int, list[Entry]]:
        """Entries behind ``position`` and where to go on; waits while there are none."""
        while position >= self._head:
            await self._grown.wait()
        window, head = self._window, self._head
        if not window or position + 1 < window[0][0].offset:
            entries = await self._aside_call(lambda db: self._read_entries(db, position, most_samples))
            return (entries[-1].offset if entries else head), entries
        entries = []
        for index in range(position + 1 - window[0][0].offset, len(window)):
            entry = window[index][0]
            entries.append(entry)
            most_samples -= entry.samples
            if most_samples <= 0:
                break
        return entries[-1].offset, entries

    async def _aside_call(self, call: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a slow read beside the writer, in a transaction of its own."""
        if self._path is None:  # in memory there is one connection, and it is the writer's
            result: Result = await self._submit(None, lambda: call(self._write))
            return result
        return await self._loop.run_in_executor(self._aside, self._in_snapshot, call)

    def _in_snapshot(self, call: Callable[[sqlite3.Connection], Result]) -> Result:
        self._slow.execute("BEGIN")
        try:
            return call(self._slow)
        finally:
            self._slow.execute("COMMIT")

    def _committed(self, works: list[_Work], results: list[Any], fresh: list[tuple[Entry, int]]) -> None:
        """In the event loop, after a transaction is on disk."""
        for entry, size in fresh:
            self._window.append((entry, size))
            self._window_bytes += size
            self._head = entry.offset
        while self._window_bytes > WINDOW_BYTES and len(self._window) > 1:
            self._window_bytes -= self._window.popleft()[1]
        for work, result in zip(works, results, strict=True):
            if work.done.cancelled():
                continue
            if isinstance(result, BaseException):
                work.done.set_exception(result)
            else:
                work.done.set_result(result)
        if fresh:
            self._grown.set()
            self._grown = asyncio.Event()

    # ---- the writer's side --------------------------------------------------------------------------

    def _write_forever(self) -> None:
        stopping = False
        while not stopping:
            works, stopping = self._take()
            self._write_group(works)
            try:
                self._look_after(idle=not works)
            except sqlite3.Error as error:
                # Housekeeping can wait: what matters, appends and commits, reports its own errors.
                logger.warning("journal housekeeping failed", error=str(error))
        for work in self._parked:
            self._answer([work], [Unavailable("the journal was closed while it was full")], [])

    def _take(self) -> tuple[list[_Work], bool]:
        """What is waiting, up to GROUP_BYTES, and whether to stop; waits a while at most, for housekeeping."""
        works: list[_Work] = []
        if self._parked and not self._full:
            works.extend(self._parked)
            self._parked.clear()
        size = 0
        try:
            while size < GROUP_BYTES:
                work = self._queue.get(timeout=0 if works else 0.005 if self._trimmable() > 0 else 0.5)
                if work is None:
                    return works, True
                if self._full and work.batch is not None and work.apply is None:
                    self._parked.append(work)
                    continue
                works.append(work)
                size += 24 * len(work.batch) if work.batch is not None else 0
        except queue.Empty:
            pass
        return works, False

    def _write_group(self, works: list[_Work]) -> None:
        ready: list[_Work] = []
        bodies: list[bytearray | None] = []
        for work in works:
            try:
                bodies.append(
                    None
                    if work.batch is None
                    else body.encode(work.batch, self._ids(work.batch.source, work.batch.tags))
                )
                ready.append(work)
            except (ValueError, TypeError) as error:
                self._answer([work], [ValueError(str(error))], [])
        if not ready:
            return
        try:
            results, fresh = self._transact(ready, bodies)
        except Exception as error:  # noqa: BLE001  # whatever it is: who waits must hear it, and the writer must live
            with contextlib.suppress(sqlite3.Error):
                self._write.execute("ROLLBACK")
            with contextlib.suppress(sqlite3.Error):
                self._load()
            self._new_names.clear()
            refused = (
                Unavailable(f"the journal {self._path} cannot be written: {error}")
                if isinstance(error, sqlite3.Error)
                else error
            )
            self._answer(ready, [refused] * len(ready), [])
        else:
            self._answer(ready, results, fresh)

    def _answer(self, works: list[_Work], results: list[Any], fresh: list[tuple[Entry, int]]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._committed, works, results, fresh)

    def _ids(self, source: str, tags: Sequence[str]) -> "array[int]":
        """The ids of these tags. Most sources send the same tags again: comparing is ten times faster than looking up."""
        known = self._last_tags.get(source)
        if known is not None and known[0] == tags:
            return known[1]
        try:
            ids = array("I", map(self._names.__getitem__, tags))
        except KeyError:
            ids = array("I", [self._id(tag) for tag in tags])
        self._last_tags[source] = (tags[:], ids)
        return ids

    def _id(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            number = len(self._name_of)
            name.encode()  # a lone surrogate would fail in SQLite, for the whole group: fail here, alone
            self._names[name] = number
            self._name_of.append(name)
            self._new_names.append(name)
        return number

    def _transact(
        self, works: list[_Work], bodies: list[bytearray | None]
    ) -> tuple[list[Any], list[tuple[Entry, int]]]:
        db = self._write
        db.execute("BEGIN IMMEDIATE")
        results: list[Any] = []
        rows: list[tuple[int, int, int, int, bytearray]] = []
        fresh: list[tuple[Entry, int]] = []
        sources: dict[str, tuple[bytes | None, int, int]] = {}
        for work, encoded in zip(works, bodies, strict=True):
            batch = work.batch
            results.append(None)
            if batch is None or encoded is None:
                continue
            offset, source_id, samples = self._next, self._id(batch.source), len(batch)
            self._next += 1
            body.seal(encoded, offset, source_id)
            rows.append((offset, source_id, batch.received, samples, encoded))
            fresh.append((Entry(offset, batch, batch.source, samples, batch.received), len(encoded)))
            checkpoint, received, lost = sources.get(batch.source, (None, 0, 0))
            sources[batch.source] = (batch.checkpoint or checkpoint, received + samples, lost + batch.lost_before)
            self._wal_written += len(encoded)
            results[-1] = offset
        db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", rows)
        self._store_names()
        db.executemany(
            "INSERT INTO source VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO UPDATE SET"
            " checkpoint = coalesce(?2, checkpoint), received = received + ?3, lost = lost + ?4",
            [(name, *sums_) for name, sums_ in sources.items()],
        )
        for index, work in enumerate(works):
            if work.apply is not None:
                result = work.apply()
                results[index] = result if work.batch is None else results[index]
        db.execute("COMMIT")
        return results, fresh

    def _store_names(self) -> None:
        rows = [(self._names[name], name, name_checksum(self._names[name], name)) for name in self._new_names]
        if rows:
            self._write.executemany("INSERT INTO name VALUES (?, ?, ?)", rows)
            self._write.executemany("INSERT INTO name_twin VALUES (?, ?, ?)", rows)
            self._new_names.clear()

    def _register(self, name: str) -> tuple[int, bytes]:
        row = self._write.execute("SELECT position, state FROM reader WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return row[0], row[1]
        self._forget(name)
        position = self._trimmed
        self._write.execute("INSERT INTO reader VALUES (?, ?, ?, x'')", (name, position, position))
        self._write.execute(
            "INSERT INTO base SELECT ?1, s.name, s.received - coalesce((SELECT sum(e.samples) FROM entry e JOIN name n"
            " ON n.id = e.source WHERE n.name = s.name AND e.offset > ?2), 0) FROM source s",
            (name, position),
        )
        self._positions[name] = self._counted[name] = position
        return position, b""

    def _forget(self, name: str) -> bool:
        for table in ("base", "tally"):
            self._write.execute(f"DELETE FROM {table} WHERE reader = ?", (name,))  # noqa: S608  # two fixed names
        self._tallies = {key: row for key, row in self._tallies.items() if key[0] != name}
        self._positions.pop(name, None)
        self._counted.pop(name, None)
        return self._write.execute("DELETE FROM reader WHERE name = ?", (name,)).rowcount > 0

    def _apply_commit(
        self,
        name: str,
        offset: int,
        tallies: Iterable[Tally],
        state: bytes | None,
        dead: Sequence[tuple[int, str, Batch]],
    ) -> None:
        counted = self._counted.get(name, 0)
        for refused_at, reason, refused in dead:
            if refused_at > counted:
                source_id = self._id(refused.source)
                encoded = body.encode(refused, self._ids(refused.source, refused.tags))
                body.seal(encoded, refused_at, source_id)
                self._store_names()
                self._write.execute(
                    "INSERT INTO dead_letter (reader, offset, time, reason, source, body) VALUES (?, ?, ?, ?, ?, ?)",
                    (name, refused_at, self._clock(), reason, source_id, encoded),
                )
        self._count(name, [tally for tally in tallies if tally.offset > counted])
        self._counted[name] = max(counted, offset)
        self._positions[name] = max(self._positions.get(name, 0), offset)
        self._write.execute(
            "UPDATE reader SET position = ?, counted = ?, state = coalesce(?, state) WHERE name = ?",
            (self._positions[name], self._counted[name], state, name),
        )

    def _count(self, reader: str, tallies: Iterable[Tally]) -> None:
        added: dict[tuple[str, str, str], tuple[int, int, int]] = {}
        for tally in tallies:
            key = (tally.source, tally.outcome, tally.reason)
            samples, first, last = added.get(key, (0, tally.received, tally.received))
            added[key] = (samples + tally.samples, min(first, tally.received), max(last, tally.received))
        for (source, outcome, reason), (samples, first, last) in added.items():
            row, until = self._tallies.get((reader, source, outcome, reason), (None, 0))
            if row is None or (outcome not in ("delivered", "filtered") and first > until + INTERVAL):
                row = self._write.execute(
                    "INSERT INTO tally (reader, source, outcome, reason, samples, first, last)"
                    " VALUES (?, ?, ?, ?, 0, ?, ?)",
                    (reader, source, outcome, reason, first, last),
                ).lastrowid
                until = last
            self._write.execute(
                "UPDATE tally SET samples = samples + ?, first = min(first, ?), last = max(last, ?) WHERE id = ?",
                (samples, first, last, row),
            )
            self._tallies[reader, source, outcome, reason] = (row or 0, max(until, last))

    # ---- housekeeping, in the writer ----------------------------------------------------------------

    def _trimmable(self) -> int:
        """How many offsets every reader is through with."""
        return min(self._positions.values(), default=self._trimmed) - self._trimmed

    def _look_after(self, *, idle: bool) -> None:
        due = self._trimmable()
        if due >= TRIM_STEP or (idle and due > 0):
            self._trim(self._trimmed + due)
        if self._path is not None and self._wal_written > WAL_BYTES:
            self._carry_over()
        if time.monotonic() >= self._next_look or self._full:
            self._next_look = time.monotonic() + 1
            self._enforce_keep()

    def _trim(self, offset: int) -> None:
        """Delete up to ``offset``, at most TRIM_STEP entries of it."""
        query = "SELECT offset FROM entry WHERE offset <= ? ORDER BY offset LIMIT 1 OFFSET ?"
        step = self._write.execute(query, (offset, TRIM_STEP - 1)).fetchone()
        self._delete_to(step[0] if step else offset)

    def _delete_to(self, offset: int) -> None:
        db = self._write
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM entry WHERE offset <= ?", (offset,))
        db.execute("UPDATE last SET offset = ?", (self._next - 1,))
        db.execute("COMMIT")
        self._trimmed = offset

    def _carry_over(self) -> None:
        """Copy the WAL into the file: the bulk beside the writer, the rest (which restarts the WAL) in it."""
        if self._carrying is None:
            self._carrying = self._aside.submit(self._slow.execute, "PRAGMA wal_checkpoint(PASSIVE)")
        elif self._carrying.done():
            self._carrying = None
            busy = self._write.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]
            self._wal_written = WAL_BYTES // 2 if busy else 0

    def _used(self) -> int:
        pages, free = (self._write.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count"))
        if free > 2000 and free > pages // 2 and not self._full:  # after an outage: give the space back, in steps
            self._write.execute("PRAGMA incremental_vacuum(200)").fetchall()
        return int((pages - free) * PAGE)

    def _enforce_keep(self) -> None:
        used = self._used()
        if used <= self._keep:
            if self._full and used <= self._keep - min(self._keep // 20, 64 * 2**20):
                self._full = False
            return
        if self._when_full == "oldest" or not self._positions:
            self._drop_oldest(used - self._keep + self._keep // 20)
        else:
            self._full = True

    def _drop_oldest(self, size: int) -> None:
        """Drop the oldest entries until ``size`` bytes are free, say so in the ledger and in a gap marker."""
        db = self._write
        db.execute("BEGIN IMMEDIATE")
        until, freed = self._trimmed, 0
        dropped: dict[str, list[Tally]] = defaultdict(list)
        oldest = db.execute(
            "SELECT offset, source, received, samples, length(body) FROM entry ORDER BY offset LIMIT ?",
            (TRIM_STEP * 5,),
        ).fetchall()
        for offset, source_id, received, samples, length in oldest:
            if freed >= size:
                break
            until, freed = offset, freed + length
            source = self._name_of[source_id] if source_id < len(self._name_of) else None
            for reader, counted in self._counted.items():
                if offset > counted:
                    dropped[reader].append(
                        Tally(offset, source or "?", "dropped", samples, received, "the journal was over `keep`")
                    )
        for reader, tallies in dropped.items():
            self._apply_commit(reader, until, tallies, None, ())
        db.execute("DELETE FROM entry WHERE offset <= ?", (until,))
        db.execute("UPDATE last SET offset = ?", (self._next - 1,))
        db.execute("COMMIT")
        self._trimmed = until
        if dropped:
            lost = {reader: sum(t.samples for t in tallies) for reader, tallies in dropped.items()}
            first = min(t.received for tallies in dropped.values() for t in tallies)
            last = max(t.received for tallies in dropped.values() for t in tallies)
            self._mark_gap(lost, first, last)

    def _mark_gap(self, lost: dict[str, int], first: int, last: int) -> None:
        now = self._clock()
        text = json.dumps({"from": first, "to": last, "dropped": lost, "reason": "the journal was over `keep`"})
        marker = Batch("$journal", now, ["$journal/gap"], [now], [text], [Quality.UNCERTAIN])
        done: asyncio.Future[Any] = self._loop.create_future()
        self._write_group([_Work(done, marker, None)])

    # ---- reading beside the writer ------------------------------------------------------------------

    def _read_entries(self, db: sqlite3.Connection, position: int, most_samples: int) -> list[Entry]:
        entries: list[Entry] = []
        query = "SELECT offset, source, received, samples, body FROM entry WHERE offset > ? ORDER BY offset"
        with contextlib.closing(db.execute(query, (position,))) as cursor:  # an open one would hold the snapshot
            for offset, source_id, received, samples, stored in cursor:
                entries.append(self._entry(offset, source_id, received, samples, stored))
                most_samples -= max(samples, 100)
                if most_samples <= 0:
                    break
        return entries

    def _entry(self, offset: int, source_id: int, received: int, samples: int, stored: bytes) -> Entry:
        source = self._name(source_id, "?")
        try:
            batch = body.decode(stored, offset, source_id, source, self._known_name)
        except (ValueError, TypeError, msgspec.DecodeError) as error:
            if offset not in self._damaged:
                self._damaged.add(offset)
                logger.error(
                    "a journal entry is damaged", entry=offset, source=source, samples=samples, detail=str(error)
                )
            return Entry(offset, None, source, samples, received)
        return Entry(offset, batch, source, samples, received)

    def _known_name(self, number: int) -> str:
        name = self._name_of[number]
        if name is None:
            raise LookupError(number)
        return name

    def _name(self, number: int, unknown: str) -> str:
        return (self._name_of[number] if number < len(self._name_of) else None) or unknown

    def _read_dead_letters(self, db: sqlite3.Connection, limit: int) -> list[DeadLetter]:
        query = "SELECT id, reader, offset, time, reason, source, body FROM dead_letter ORDER BY id DESC LIMIT ?"
        letters: list[DeadLetter] = []
        for number, reader, offset, at, reason, source_id, stored in db.execute(query, (limit,)):
            with contextlib.suppress(body.Damaged):
                batch = body.decode(stored, offset, source_id, self._name(source_id, "?"), self._known_name)
                letters.append(DeadLetter(number, reader, offset, at, reason, list(batch)))
        return letters

    def _read_state(self, db: sqlite3.Connection) -> JournalState:
        entries, samples = db.execute("SELECT count(*), coalesce(sum(samples), 0) FROM entry").fetchone()
        oldest = db.execute("SELECT received FROM entry ORDER BY offset LIMIT 1").fetchone()
        pages, free = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count"))
        return JournalState(
            entries, samples, (pages - free) * PAGE, self._keep, oldest and oldest[0], self._full, len(self._damaged),
            self.salvaged,
        )  # fmt: skip

    def _close_file(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for connection in {self._write, self._slow}:
            connection.close()
        if self._lock_file is not None:
            os.close(self._lock_file)


def _lock(path: Path) -> int:
    """Hold the file ``PATH.lock`` for this process; raises Misconfigured when another one does."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(f"the journal {path} cannot be created: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise Misconfigured(
            f"the journal {path} is in use by another Shopfloor; stop it, or give this plant a journal of its own"
        ) from error
    return handle
