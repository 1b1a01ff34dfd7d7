"""The journal on SQLite: what the event loop sees of it. docs/specs/journal.md rules this room.

Three threads: the event loop (appends, positions, the window of what was just written), the writer
(``writer.py``), and one aside for everything slow: reading behind the window, sums, carrying the WAL over.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
import structlog

from shopfloor.journal import body, dead as deads
from shopfloor.journal.base import DeadLetter, Entry, JournalState, LedgerRow, Tally, WhenFull
from shopfloor.journal.blocks import Blocks
from shopfloor.journal.file import PAGE, lock
from shopfloor.journal.ledger import sums
from shopfloor.journal.salvage import is_damage
from shopfloor.journal.window import Window
from shopfloor.journal.work import Fresh, Repair, Work
from shopfloor.journal.writer import Writer
from shopfloor.samples import Batch, Unavailable
from shopfloor.turns import give_way, hurry

logger: Final = structlog.get_logger("shopfloor.journal")

Result = TypeVar("Result")


class SqliteReader:
    """A named reader of a SqliteJournal; see ``journal.base.Reader``."""

    def __init__(self, journal: "SqliteJournal", name: str, position: int, state: bytes) -> None:
        """Made by ``SqliteJournal.reader``."""
        self.name = name
        self.position = position
        self.state = state
        self._journal = journal
        self._at = position
        self._last: Work | None = None
        self._under_way: set[asyncio.Future[None]] = set()

    async def read(self, most_samples: int = 100_000) -> list[Entry]:
        """The next entries behind the last ones that were given; waits until there is one."""
        while True:
            self._at, entries = await self._journal.after(self._at, most_samples)
            if entries:
                return entries

    def rewind(self, position: int | None = None) -> None:
        """Read again from behind ``position``, by default the last commit."""
        self._at = self.position if position is None else position
        self._last = None

    async def settle(self) -> None:
        """Wait until every commit under way is on disk or refused, also those that nobody waits for any more."""
        while self._under_way:
            await asyncio.wait(self._under_way)

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
        under_way, self._last = self._journal.commit(self.name, offset, tallies, state, output, dead, self._last)
        self._under_way.add(under_way)

        def committed(done: asyncio.Future[None]) -> None:
            self._under_way.discard(done)
            if not done.cancelled() and done.exception() is None:
                self.position = max(self.position, offset)
                self.state = self.state if state is None else state

        under_way.add_done_callback(committed)  # runs before whoever awaits it
        waiting = asyncio.shield(under_way)  # who stops waiting does not undo it
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need wait
        return waiting

    def lag(self) -> tuple[int, int]:
        """Entries not committed yet, and the time of reception of the oldest of them (0: not known)."""
        return self._journal.lag(self.position)

    def dropped(self) -> int:
        """Samples that it did not get, since the start, because they were dropped to make room."""
        return self._journal.dropped(self.name)


class SqliteJournal:
    """The journal in one SQLite file, or in memory for tests; ``await SqliteJournal.open(path)``."""

    def __init__(self, writer: Writer, path: Path | None) -> None:
        """Use ``open``."""
        self._writer = writer
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._window = Window()
        self._head = 0
        self._grown = asyncio.Event()
        self._readers: dict[str, SqliteReader] = {}
        self._damaged: set[int] = set()
        self._blocks = Blocks()
        self._summed_by: sqlite3.Connection | None = None
        self._deciding = asyncio.Lock()
        """Held by who decides about dead letters."""
        self._lock: int | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path | None,
        keep: int = 20 * 10**9,
        when_full: WhenFull = "refuse",
        clock: Callable[[], int] = time.time_ns,
        exact: Collection[str] = (),
    ) -> Self:
        """Open or create the journal; salvage it when the file is damaged.

        ``path`` None keeps it in memory. ``exact`` names processors, for ``thin``: what they give is never thinned,
        nor what they have not read yet. Raises Misconfigured when the file cannot be used at all:
        another process has it, no permission, a newer version wrote it.
        """

        def answer(works: Sequence[Work | Repair], results: list[Any], fresh: Fresh) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                journal._loop.call_soon_threadsafe(journal._committed, works, results, fresh)

        writer = Writer(path, keep, when_full, clock, answer, exact)
        journal = cls(writer, path)
        try:
            journal._lock = await asyncio.to_thread(lock, path) if path else None
            await asyncio.to_thread(writer.open)
        except BaseException:
            journal._unlock()
            writer.aside.shutdown(wait=False)
            raise
        journal._head = writer.head
        writer.start()
        return journal

    async def close(self) -> None:
        """Write what is waiting and close; idempotent."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._writer.close)
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def salvaged(self) -> str:
        """What was done when the file was damaged, else ""."""
        return self._writer.salvaged

    # ---- writing ------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """The highest offset that any entry has had, or was passed over."""
        return max(self._head, self._writer.next - 1)

    def append(self, batch: Batch, *, only_awaited: bool = False) -> "asyncio.Future[int]":
        """Make the batch durable; the result is its offset. See ``journal.base.Journal``."""
        done, work = self._submit(batch)
        work.only_awaited = only_awaited
        hurry(done)  # its source waits for it
        return done

    def _submit(
        self,
        batch: Batch | None = None,
        apply: Callable[[sqlite3.Connection], Any] | None = None,
        after: Work | None = None,
    ) -> "tuple[asyncio.Future[Any], Work]":
        if self._closed:
            raise Unavailable("the journal is closed")
        done: asyncio.Future[Any] = self._loop.create_future()
        work = Work(done, batch, apply, after)
        self._writer.submit(work)
        return done, work

    async def reader(self, name: str) -> SqliteReader:
        """The reader of this name, where its last commit left it; a new one starts at the oldest entry."""
        if name in self._readers:
            await self._readers[name].settle()
        if name not in self._readers:
            writer = self._writer
            done, _ = self._submit(apply=lambda db: writer.counts.register(db, name, writer.trimmed))
            position, state = await done
            self._readers.setdefault(name, SqliteReader(self, name, position, state))
        return self._readers[name]

    async def forget(self, name: str) -> bool:
        """Take a reader away for good; False when there was none."""
        self._readers.pop(name, None)
        done, _ = self._submit(apply=lambda db: self._writer.counts.forget(db, name))
        known: bool = await done
        return known

    def commit(  # the columns of a commit
        self,
        name: str,
        offset: int,
        tallies: Sequence[Tally],
        state: bytes | None,
        output: Batch | None,
        dead: Sequence[tuple[int, str, Batch]],
        after: Work | None,
    ) -> "tuple[asyncio.Future[None], Work]":
        """For ``SqliteReader``: one transaction for position, state, output, tallies and dead letters.

        When the reader's commit before it, ``after``, failed, it fails too: it would pass by what that one counts.
        """
        writer = self._writer

        def apply(db: sqlite3.Connection) -> None:
            writer.bury(db, name, dead)
            writer.counts.commit(db, name, offset, tallies, state)

        return self._submit(output, apply, after)

    def _committed(self, works: Sequence[Work | Repair], results: list[Any], fresh: Fresh) -> None:
        """In the event loop, after a transaction is on disk."""
        for entry, size in fresh:
            self._window.add(entry, size)
            self._head = entry.offset
        for work, result in zip(works, results, strict=True):
            if work.done is None or work.done.done():
                continue
            if isinstance(result, BaseException):
                work.done.set_exception(result)
            else:
                work.done.set_result(result)
        if fresh:
            self._grown.set()
            self._grown = asyncio.Event()

    # ---- reading ------------------------------------------------------------------------------------

    async def after(self, position: int, most_samples: int) -> tuple[int, list[Entry]]:
        """For ``SqliteReader``: entries behind ``position`` and where to go on; waits while there are none."""
        while position >= self._head:
            await self._grown.wait()
        head = self._head
        position = max(position, self._writer.dropped_to)  # also where memory has it still: the ledger says it is gone
        entries = self._window.after(position, most_samples)
        if entries is None:
            entries = await self._aside(lambda db: self._read_entries(db, position, most_samples))
        return (entries[-1].offset if entries else head), entries

    def lag(self, position: int) -> tuple[int, int]:
        """Entries behind ``position`` and the time of reception of the first (0: not known)."""
        entries = self._head - max(position, self._writer.trimmed)
        return (entries, self._window.received_after(position)) if entries > 0 else (0, 0)

    def dropped(self, name: str) -> int:
        """Samples that this reader did not get, since the start, because they were dropped to make room."""
        return self._writer.dropped_for[name]

    async def checkpoint(self, source: str) -> bytes | None:
        """The last durable checkpoint of a source, once what was handed in before is stored, or will never be."""
        with contextlib.suppress(Unavailable):
            await self._submit()[0]
        query = "SELECT checkpoint FROM source WHERE name = ?"
        row = await self._aside(lambda db: db.execute(query, (source,)).fetchone())
        found: bytes | None = row and row[0]
        return found

    async def newest(self) -> int | None:
        """When the newest entry was received that is known of, ns UTC."""
        kept = "SELECT received FROM entry ORDER BY offset DESC LIMIT 1"
        query = f"SELECT max(t) FROM (SELECT ({kept}) AS t UNION ALL SELECT max(last) FROM tally)"  # noqa: S608  # fixed
        row = await self._aside(lambda db: db.execute(query).fetchone())
        found: int | None = row[0]
        return found or None

    async def ledger(self) -> list[LedgerRow]:
        """Every sum of the ledger."""
        await self._gather()
        return await self._aside(lambda db: sums(db, self._blocks_of(db)))

    async def dead_letters(self, limit: int = 1000) -> list[DeadLetter]:
        """The newest refused samples, newest first; of each letter the first few."""
        found: list[DeadLetter] = []
        before: int | None = 2**63 - 1
        while before is not None and len(found) < limit:
            piece = partial(deads.letters, names=self._writer.names.name, limit=limit - len(found), before=before)
            more, before = await self._aside(piece)
            found += more
        return found

    async def retry(self, ids: Sequence[int]) -> list[int]:
        """Journal dead letters once more, each for its reader alone; the ids that there were."""
        async with self._deciding:  # who asks twice at once must not have it offered twice
            offered: list[int] = []
            for number in sorted(set(ids)):  # one at a time: all together may be more than fits into memory
                load = partial(deads.again, names=self._writer.names.name, number=number, now=self._writer.clock())
                batch = await self._aside(load)
                if batch is not None:
                    await self._submit(batch, partial(deads.drop, ids=(number,)))[0]
                    offered.append(number)
            return offered

    async def drop(self, ids: Sequence[int]) -> int:
        """Throw dead letters away; how many there were."""
        async with self._deciding:
            done, _ = self._submit(apply=lambda db: deads.drop(db, ids))
            dropped: int = await done
            return dropped

    async def state(self) -> JournalState:
        """How full it is."""
        await self._gather()
        return await self._aside(self._read_state)

    async def _gather(self) -> None:
        """Read for the sums what was not read yet; a long backlog in pieces, since others wait for the same thread."""
        while self._path is not None and not await self._aside(lambda db: self._blocks_of(db).gather(db)):
            pass

    def _blocks_of(self, db: sqlite3.Connection) -> Blocks:
        """What is known of the file of this connection: after a repair it is another one.

        In memory there is no snapshot: what is seen may be taken back, so nothing is kept.
        """
        if db is not self._summed_by or self._path is None:
            self._summed_by, self._blocks = db, Blocks()
        return self._blocks

    async def _aside(self, call: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a slow read beside the writer, in a snapshot of its own; repairs the file when it proves damaged."""
        if self._path is None:  # in memory there is one connection, and it is the writer's
            submitted, _ = self._submit(apply=call)
            result: Result = await submitted
            return result
        if self._closed:
            raise Unavailable("the journal is closed")
        generation = self._writer.generation
        try:
            return await self._loop.run_in_executor(self._writer.aside, self._in_snapshot, call)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise Unavailable(f"the journal {self._path} cannot be read: {error}") from error
        if self._closed:
            raise Unavailable("the journal is closed")
        done: asyncio.Future[None] = self._loop.create_future()
        self._writer.submit(Repair(done, generation))
        await done
        return await self._loop.run_in_executor(self._writer.aside, self._in_snapshot, call)

    def _in_snapshot(self, call: Callable[[sqlite3.Connection], Result]) -> Result:
        db = self._writer.slow
        db.execute("BEGIN")
        try:
            return call(db)
        finally:
            with contextlib.suppress(sqlite3.Error):  # the error of the call says more
                db.execute("COMMIT")

    def _read_entries(self, db: sqlite3.Connection, position: int, most_samples: int) -> list[Entry]:
        entries: list[Entry] = []
        query = "SELECT offset, source, received, samples, body FROM entry WHERE offset > ? ORDER BY offset"
        last = position
        with contextlib.closing(db.execute(query, (position,))) as cursor:  # an open one would hold the snapshot
            for row in cursor:
                give_way()  # decoding takes about as long as all else together
                entry = self._entry(db, *row)
                # Not `head`: an entry may be on disk a moment before the writer has said so.
                if not last < entry.offset < self._writer.next:
                    raise sqlite3.DatabaseError(f"malformed: entry {entry.offset} behind {last}")
                entries.append(entry)
                last = entry.offset
                most_samples -= max(entry.samples, 100)  # many small entries are work, too
                if most_samples <= 0:
                    break
        return entries

    def _entry(  # the columns of a row
        self, db: sqlite3.Connection, offset: int, source_id: int, received: int, samples: int, stored: bytes
    ) -> Entry:
        names = self._writer.names
        try:
            source = names.name(source_id)
            batch = body.decode(stored, offset, source_id, source, names.name)
        except (ValueError, TypeError, LookupError, msgspec.DecodeError) as error:
            return self._damaged_entry(db, offset, received, str(error))
        return Entry(offset, batch, source, samples, received)

    def _damaged_entry(self, db: sqlite3.Connection, offset: int, received: Any, detail: str) -> Entry:
        """What the index still says of an entry: whose it was and how many samples are lost with it.

        Raises DatabaseError when it says nothing: then more is damaged than this entry.
        """
        index = "entry INDEXED BY entry_size"
        query = f"SELECT source, samples FROM {index} WHERE source IN (SELECT id FROM name) AND offset = ?"  # noqa: S608  # fixed
        found = db.execute(query, (offset,)).fetchall()
        if len(found) != 1 or not isinstance(received, int):
            raise sqlite3.DatabaseError(f"malformed: {detail}")
        source, samples = self._writer.names.name_or(found[0][0], "?"), found[0][1]
        if offset not in self._damaged:
            self._damaged.add(offset)
            logger.warning("a journal entry is damaged", entry=offset, source=source, samples=samples, detail=detail)
        return Entry(offset, None, source, samples, received)

    def _read_state(self, db: sqlite3.Connection) -> JournalState:
        entries, samples = self._blocks_of(db).held(db)
        oldest = db.execute("SELECT received FROM entry ORDER BY offset LIMIT 1").fetchone()
        pages, free = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count"))
        return JournalState(
            entries=entries,
            samples=samples,
            size=(pages - free) * PAGE,
            keep=self._writer.room.limit,
            oldest=oldest and oldest[0],
            full=self._writer.full,
            damaged=len(self._damaged),
            thinned=self._writer.thinning.samples,
            dropped=self._writer.dropped,
            salvaged=self.salvaged,
        )
