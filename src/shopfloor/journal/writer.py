"""The one thread that writes the journal: group commit, trimming, `keep`, repair.

Everything that waits goes into one transaction and one fsync. Between transactions it looks after the
file in small steps, so a commit never waits for housekeeping.
"""

import contextlib
import json
import queue
import sqlite3
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from shopfloor.journal import body, dead as deads
from shopfloor.journal.base import OVER_KEEP, THINNED, Entry, Tally, WhenFull
from shopfloor.journal.counts import Counts
from shopfloor.journal.file import FORMAT, SCHEMA, connect
from shopfloor.journal.names import Names
from shopfloor.journal.room import Room
from shopfloor.journal.salvage import finish, is_damage, is_outside, salvage
from shopfloor.journal.thinning import Thinning
from shopfloor.journal.work import Fresh, Repair, Work
from shopfloor.samples import Batch, Misconfigured, Quality, Unavailable

logger: Final = structlog.get_logger("shopfloor.journal")

GROUP_BYTES: Final = 8 * 2**20
"""The most that one transaction takes: a commit must not keep others waiting."""
WAL_BYTES: Final = 4 * 2**20
"""After so many bytes of samples the WAL is carried over into the file."""
WAL_MOST: Final = 24 * 2**20
"""The same for its file, whatever is in it: a commit of one sample takes several pages there."""
TRIM_STEP: Final = 200
"""Entries deleted in one step; commits go between steps."""
EXAMINED_BYTES: Final = 32 * 2**20
LOOK_SECONDS: Final = 1.0
ROWS: Final = 20
"""Entries in one INSERT: SQLite gives up and takes back Python's lock at each statement, which other threads hold."""
UNLIKELY_FORMAT: Final = 100
"""A file that claims a format from here on is damaged, not new."""
DROP_AGAIN: Final = 60.0
"""Seconds without a drop after which the next one is said again."""
DEAD_SHARE: Final = 20
"""Over `keep`, the oldest dead letters go until the rest is this part of it."""


class Writer:
    """Owns the file. ``open``, ``start`` and ``close`` are called from outside, ``submit`` from the event loop."""

    def __init__(
        self,
        path: Path | None,
        keep: int,
        when_full: WhenFull,
        clock: Callable[[], int],
        answer: Callable[["Sequence[Work | Repair]", list[Any], Fresh], None],
        exact: Collection[str] = (),
    ) -> None:
        """``answer`` is called in the writer's thread after each transaction."""
        self.names = Names()
        self.thinning = Thinning(self.names, exact)
        self.counts = Counts()
        self.aside = ThreadPoolExecutor(1, "journal-read")
        self.head = 0
        self.trimmed = 0
        self.dropped_to = 0
        """Up to where entries were dropped before every reader had them (``oldest``); the ledger counts them so."""
        self.full = False
        self._no_room = False
        """Whether the disk was full when it was last written to; what the WAL takes is given back then."""
        self.salvaged = ""
        self.generation = 0
        self._path = path
        self.room = Room(path, keep)
        self._when_full = when_full
        self.clock = clock
        self._answer = answer
        self._queue: queue.SimpleQueue[Work | Repair | None] = queue.SimpleQueue()
        self._parked: deque[Work] = deque()
        self.next = 1
        self._next_look = 0.0
        self._rest_until = 0.0
        self._stumbled = self._stale = False
        """Housekeeping failed; what is held in memory is not what is on disk, and must be read before it is used."""
        self._said_at = {"gap": -DROP_AGAIN, "thinned": -DROP_AGAIN}
        self.dropped = 0
        """Samples that the slowest reader lost so, since the start."""
        self.dropped_for: Counter[str] = Counter()
        """The same for each reader."""
        self._wal_written = self._since_look = 0
        """Bytes of samples."""
        self._wal_most = WAL_MOST
        self._thread = threading.Thread(target=self._run, name="journal-write", daemon=True)

    # ---- opening and closing ------------------------------------------------------------------------

    def open(self) -> None:
        """Open or create the file, salvage it when it is damaged. Raises Misconfigured."""
        try:
            if self._path is not None:
                finish(self._path)
            self._connect()
            self.names.load(self.db)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # Any byte of the file may be wrong, so any error may follow, but for those that speak of the outside.
            if self._path is None or is_outside(error, self._path):
                raise Misconfigured(f"the journal {self._path} cannot be opened: {error}") from error
            self._salvage(self._path)
            self.names.load(self.db)

    def _connect(self) -> None:
        self.db = connect(self._path)
        try:
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                # Offsets begin at the time: a sink that remembers one is not fooled by a new journal.
                begin = f"UPDATE last SET offset = {self.clock() // 1000};"  # noqa: S608  # a number
                self.db.executescript(f"BEGIN;{SCHEMA}{begin}COMMIT;")
            else:
                self._demand_format(version)
            self._examine()
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("UPDATE last SET offset = offset")  # a file that cannot be written must say so now
            self.db.execute("ROLLBACK")
            self._load()
        except BaseException:
            self.db.close()
            raise
        self.slow = connect(self._path) if self._path else self.db

    def _demand_format(self, version: int) -> None:
        if FORMAT < version < UNLIKELY_FORMAT:
            raise Misconfigured(f"the journal {self._path} has format {version}; use the Shopfloor that wrote it")
        if version != FORMAT:
            raise sqlite3.DatabaseError(f"the file says that it has format {version}")

    def _examine(self) -> None:
        """Let SQLite check a small file whole; a large one is checked where it is read, to open at once."""
        if self._path is not None and self._path.stat().st_size <= EXAMINED_BYTES:
            found = self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(f"malformed: {found}")

    def _load(self) -> None:
        self.counts.load(self.db)
        # Each by itself: both in one SELECT, and SQLite reads the index of all entries.
        query = "SELECT (SELECT min(offset) FROM entry), (SELECT max(offset) FROM entry)"
        oldest, newest = self.db.execute(query).fetchone()
        remembered = self.db.execute("SELECT max(offset) FROM last").fetchone()[0] or 0
        self.head = max([newest or 0, remembered, *(row.position for row in self.counts.readers.values())])
        self.next = self.head + 1
        self.trimmed = (oldest or self.next) - 1
        self._stale = False

    def _salvage(self, path: Path) -> None:
        self.salvaged = salvage(path, self.clock())
        logger.error(self.salvaged)
        self._connect()
        self.generation += 1

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is waiting, close the file. Blocks; call it in a thread."""
        self._queue.put(None)
        self._thread.join()
        self.aside.shutdown()
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint("TRUNCATE")
        self._disconnect()

    def _disconnect(self) -> None:
        self.db.close()
        self.slow.close()

    def submit(self, work: Work | Repair) -> None:
        """Hand something in; ``answer`` tells when it is on disk."""
        self._queue.put(work)

    def _repair(self, path: Path) -> None:
        """Salvage the running file."""
        self.aside.submit(self.slow.close).result()
        self.db.close()
        self._salvage(path)
        self.names.store_all_again()

    def _try_repair(self, path: Path) -> Unavailable | None:
        """Repair, or say why it failed: then the connections stay closed, and whoever meets that tries again."""
        try:
            self._repair(path)
        except (sqlite3.Error, UnicodeDecodeError, OSError, Misconfigured) as error:
            return Unavailable(f"the journal {path} is damaged and cannot be salvaged: {error}")
        return None

    def _grant(self, wish: Repair) -> None:
        """Repair unless that was done since the damage was met."""
        due = self._path is not None and wish.generation == self.generation
        self._answer([wish], [self._try_repair(self._path) if due and self._path else None], [])

    # ---- transactions -------------------------------------------------------------------------------

    def _run(self) -> None:
        stopping = False
        while not stopping:
            works, stopping = self._take()
            self._write(works)
            if time.monotonic() < self._rest_until:
                continue
            try:
                self._look_after(idle=not works)
                self._stumbled = False
            except Exception as error:  # noqa: BLE001  # the writer must live: all others wait for it
                self._stumble(error)
        refused = Unavailable("the journal was closed while it was full")
        self._answer(list(self._parked), [refused] * len(self._parked), [])

    def _stumble(self, error: Exception) -> None:
        """Housekeeping failed. It can wait: what matters, appends and commits, reports its own errors."""
        self._rest_until = time.monotonic() + LOOK_SECONDS
        self._undo()
        self._no_room = self._no_room or _is_full(error)
        if self._path is not None and is_damage(error):
            failure = self._try_repair(self._path)
            if failure is None:
                self.full = False
                return
            error = failure
        if not self._stumbled:
            self._stumbled = True
            logger.warning("journal housekeeping failed; it will be tried again", error=str(error))

    def _undo(self) -> None:
        """Take back an unfinished transaction, in the file and in what is held of it in memory."""
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("ROLLBACK")
        self.names.not_stored()
        self._stale = True
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
            self._load()

    def _take(self) -> tuple[list[Work], bool]:
        """What is waiting, up to GROUP_BYTES, and whether to stop; waits a while at most, for housekeeping."""
        works: list[Work] = []
        if self._parked and not self.full:
            works.extend(self._parked)
            self._parked.clear()
        size = 0
        try:
            while size < GROUP_BYTES:
                hurry = (self._trimmable() > 0 or not self._next_look) and not self._stumbled
                work = self._queue.get(timeout=0 if works else 0.005 if hurry else 0.5)
                if work is None:
                    return works, True
                if isinstance(work, Repair):
                    self._grant(work)
                    continue
                if self.full and work.batch is not None and work.apply is None:
                    self._parked.append(work)
                    continue
                works.append(work)
                size += 24 * len(work.batch) if work.batch is not None else 0
        except queue.Empty:
            pass
        return works, False

    def _encode(self, works: list[Work]) -> list[Work]:
        """Encode what is to be written; a batch that cannot be stored is answered alone.

        In this thread: measured, doing it in the event loop meanwhile is slower, the two wait for Python's lock.
        """
        ready: list[Work] = []
        for work in works:
            if work.withdrawn:
                continue
            if work.after is not None and work.after.failed:
                self._refuse([work], Unavailable("the commit before this one failed"))
                continue
            try:
                if work.batch is not None:
                    work.body = body.encode(work.batch, self.names.ids(work.batch.source, work.batch.tags))
                ready.append(work)
            except Exception as error:  # noqa: BLE001  # a connector's bug may give anything
                self._refuse([work], ValueError(str(error)))
        return ready

    def _refuse(self, works: list[Work], error: Exception) -> None:
        for work in works:
            work.failed, work.after = True, None
        self._answer(works, [error] * len(works), [])

    def _write(self, works: list[Work], *, again: bool = True) -> None:
        works = self._encode(works)
        if not works:
            return
        try:
            results, fresh = self._transact(works)
        except Exception as error:  # noqa: BLE001  # whatever it is: who waits must hear it, and the writer must live
            self._undo()
            self._not_written(works, error, again=again)
        else:
            self._written(works, results, fresh)

    def _written(self, works: list[Work], results: list[Any], fresh: Fresh) -> None:
        self.names.stored()
        if fresh:
            self.head = fresh[-1][0].offset
        for work in works:
            work.after = None
        self._answer(works, results, fresh)

    def _not_written(self, works: list[Work], error: Exception, *, again: bool) -> None:
        if not isinstance(error, sqlite3.Error | UnicodeDecodeError):
            if len(works) == 1:
                self._refuse(works, error)
            else:  # one of them is at fault, not the file: the others must not suffer
                for work in works:
                    self._write([work])
            return
        self._no_room = self._no_room or _is_full(error)
        refused = Unavailable(f"the journal {self._path} cannot be written: {error}")
        if again and is_damage(error) and self._path is not None:
            failure = self._try_repair(self._path)
            if failure is None:
                self._write(works, again=False)
                return
            refused = failure
        self._refuse(works, refused)

    def _transact(self, works: list[Work]) -> tuple[list[Any], Fresh]:
        if self._stale:
            self._load()
        self.db.execute("BEGIN IMMEDIATE")
        put = self._put(works)
        self.db.execute("COMMIT")
        return put

    def _put(self, works: list[Work]) -> tuple[list[Any], Fresh]:
        """Part of a transaction."""
        db = self.db
        results: list[Any] = []
        rows: list[tuple[int, int, int, int, bytearray]] = []
        fresh: Fresh = []
        sources: dict[str, tuple[bytes | None, int, int]] = {}
        for work in works:
            batch = work.batch
            results.append(None)
            if batch is None or work.body is None:
                continue
            offset, source_id, samples = self.next, self.names.id(batch.source), len(batch)
            self.next += 1
            rows.append((offset, source_id, batch.received, samples, work.body.seal(offset, source_id)))
            fresh.append((Entry(offset, batch, batch.source, samples, batch.received), len(work.body.content)))
            checkpoint, received, lost = sources.get(batch.source, (None, 0, 0))
            sources[batch.source] = (batch.checkpoint or checkpoint, received + samples, lost + batch.lost_before)
            self._wal_written += len(work.body.content)
            self._since_look += len(work.body.content)
            results[-1] = offset
        for start in range(0, len(rows), ROWS):
            _insert(db, rows[start : start + ROWS])
        self.names.store(db)
        for name, (checkpoint, received, lost) in sources.items():
            self.counts.receive(db, name, checkpoint, received, lost)
        for index, work in enumerate(works):
            if work.apply is not None:
                result = work.apply(db)
                results[index] = result if work.batch is None else results[index]
        return results, fresh

    def bury(self, db: sqlite3.Connection, reader: str, dead: Sequence[tuple[int, str, Batch]]) -> None:
        """Keep what a reader refused; what was counted before is there already."""
        for offset, reason, refused in dead:
            if offset <= self.counts.counted(reader):
                continue
            source_id = self.names.id(refused.source)
            encoded = body.encode(refused, self.names.ids(refused.source, refused.tags))
            self.names.store(db)
            query = "INSERT INTO dead_letter VALUES (NULL, ?, ?, ?, ?, ?, ?)"
            db.execute(query, (reader, offset, self.clock(), reason, source_id, encoded.seal(offset, source_id)))

    # ---- housekeeping -------------------------------------------------------------------------------

    def _trimmable(self) -> int:
        """How far every reader is ahead of the oldest entry."""
        return self.counts.slowest(self.trimmed) - self.trimmed

    def _look_after(self, *, idle: bool) -> None:
        if self._stale:
            self._load()
        if self._no_room and self._path is not None:
            self._checkpoint("TRUNCATE")  # before all else that writes: that would need more of it
            self._no_room, self._wal_written = False, 0
        due = self._trimmable()
        if due >= TRIM_STEP or (idle and due > 0):
            self._trim(self.trimmed + due)
        if self._path is not None:
            self._carry_over(self._path)
        # Within a second a disk may be filled up.
        if self.full or self._since_look > self.room.reserve // 4 or time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            self._since_look = 0
            self._enforce_keep()

    def _trim(self, offset: int) -> None:
        """Delete up to ``offset``, at most TRIM_STEP entries of it."""
        query = "SELECT offset FROM entry WHERE offset <= ? ORDER BY offset LIMIT 1 OFFSET ?"
        step = self.db.execute(query, (offset, TRIM_STEP - 1)).fetchone()
        self.db.execute("BEGIN IMMEDIATE")
        self._delete_to(step[0] if step else offset)
        self.db.execute("COMMIT")

    def _delete_to(self, offset: int) -> None:
        self.db.execute("DELETE FROM entry WHERE offset <= ?", (offset,))
        self.db.execute("UPDATE last SET offset = ?", (self.next - 1,))
        self.trimmed = offset

    def _carry_over(self, path: Path) -> None:
        """Copy the WAL into the file and begin it anew, when it has become large.

        Here, in the writer, and often: measured, a second thread that copies meanwhile gains nothing, since
        both wait for the same disk, and a small WAL is rewritten in place instead of growing.
        """
        size = _size(path.with_name(f"{path.name}-wal"))
        if size <= WAL_MOST:
            self._wal_most = WAL_MOST
        if self._wal_written <= WAL_BYTES and size <= self._wal_most:
            return
        in_the_way = self._checkpoint("RESTART")
        # Tried again a while later; its file becomes smaller with the first commit that begins it anew.
        self._wal_written = WAL_BYTES // 2 if in_the_way else 0
        self._wal_most = max(WAL_MOST, size + in_the_way * WAL_MOST // 8)

    def _checkpoint(self, kind: str) -> bool:
        """Whether somebody who reads the file was in the way; waits for him a moment only, commits are waiting."""
        self.db.execute("PRAGMA busy_timeout=50")
        try:
            return bool(self.db.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()[0])
        finally:
            self.db.execute("PRAGMA busy_timeout=10000")

    def _enforce_keep(self) -> None:
        used, limit = self.room.look(self.db), self.room.limit
        if used <= limit:
            if used <= limit - min(limit // 20, 64 * 2**20):
                self.full = False
            if self.room.give_back(self.db):
                self._wal_written = 2 * WAL_BYTES  # the file becomes smaller when the WAL is carried over
        elif due := self._trimmable():
            self._trim(self.trimmed + due)  # before anything is lost: what everybody has had makes room
            self._next_look = 0.0
        elif letters := deads.shorten(self.db, limit // DEAD_SHARE):
            logger.warning("the journal is over `keep`: the oldest dead letters are gone", dead_letters=letters)
            self._next_look = 0.0
        elif self._when_full == "thin" and self._thin():
            self._next_look = 0.0  # a step at a time, until there is room
        elif self._when_full != "refuse" or not self.counts.readers:
            self._drop_oldest(used - limit + limit // 20)
        elif not self.full:
            self.full = True
            what = "the journal's disk has no more room" if self.room.short else "the journal is full"
            logger.warning(f"{what}: sources are held back until readers catch up", limit=limit)

    def _thin(self) -> bool:
        """Take measurements out of old entries, a step; False when nothing is left that would be worth it."""
        self.db.execute("BEGIN IMMEDIATE")
        thinned = self.thinning.step(self.db, self.trimmed, self.next - 1, self.counts.readers.values())
        if thinned is None or not thinned.samples:
            self.db.execute("COMMIT")
        else:
            self._commit_marked("thinned", thinned.first, thinned.last, thinned.samples, THINNED)
        if thinned is None:
            return False
        self._wal_written += thinned.written
        return True

    def _drop_oldest(self, size: int) -> None:
        """Drop the oldest entries until ``size`` bytes are free, say so in the ledger and in a gap marker."""
        query = "SELECT offset, source, received, samples, length(body) FROM entry ORDER BY offset LIMIT 1000"
        dropped: dict[str, list[Tally]] = defaultdict(list)
        until, freed = self.trimmed, 0
        for offset, source_id, received, samples, length in self.db.execute(query).fetchall():
            if freed >= size:
                break
            until, freed = offset, freed + length
            source = self.names.name_or(source_id, "?")
            for reader in self.counts.readers:
                if offset > self.counts.counted(reader):
                    dropped[reader].append(Tally(offset, source, "dropped", samples, received, OVER_KEEP))
        self.db.execute("BEGIN IMMEDIATE")
        for reader, tallies in dropped.items():
            self.counts.commit(self.db, reader, until, tallies, None)
        self._delete_to(until)
        if dropped:
            times = [tally.received for tallies in dropped.values() for tally in tallies]
            lost = {reader: sum(tally.samples for tally in tallies) for reader, tallies in dropped.items()}
            self._commit_marked("gap", min(times), max(times), lost, OVER_KEEP)
            self.dropped_to = until
            self.dropped += max(lost.values())
            self.dropped_for.update(lost)
        else:
            self.db.execute("COMMIT")
        if 0 < freed < size:
            self._next_look = 0.0  # small entries: go on at once

    def _commit_marked(
        self, what: Literal["gap", "thinned"], first: int, last: int, lost: dict[str, int], reason: str
    ) -> None:
        """Commit together with an entry that says what the history lacks: dropped for readers, thinned of sources."""
        words = "dropped" if what == "gap" else what
        text = json.dumps({"from": first, "to": last, words: lost, "reason": reason})
        now = self.clock()
        marker = Batch("$journal", now, (f"$journal/{what}",), (now,), (text,), (Quality.UNCERTAIN,))
        works = self._encode([Work(None, marker)])
        results, fresh = self._put(works)
        self.db.execute("COMMIT")
        self._written(works, results, fresh)
        if time.monotonic() - self._said_at[what] >= DROP_AGAIN:
            done = "drops its oldest entries" if what == "gap" else "keeps fewer of its oldest measurements"
            logger.warning(f"the journal {done}; the ledger counts them", reason=reason)
        self._said_at[what] = time.monotonic()


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _is_full(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _insert(db: sqlite3.Connection, rows: Sequence[tuple[int, int, int, int, bytearray]]) -> None:
    marks = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
    db.execute(f"INSERT INTO entry VALUES {marks}", [column for row in rows for column in row])  # noqa: S608  # marks only
