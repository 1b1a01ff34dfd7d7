"""The embedded historian as the pipeline and the console see it: asynchronous, nothing blocks the loop.

One thread writes, one compacts, two read. Writers and readers do not wait for each other: readers
work on a snapshot. ``docs/connectors/duckdb.md`` says what is promised and how it is laid out.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

import structlog

from shopfloor.historian import compaction
from shopfloor.historian.asking import aggregated, bounded, raw
from shopfloor.historian.base import AGGREGATES, Aggregate, Historian, Series, Size
from shopfloor.historian.buckets import edges
from shopfloor.historian.chunk import Damaged
from shopfloor.historian.database import GENERATION, WAITING, Database
from shopfloor.historian.query import Reader
from shopfloor.historian.rows import Int64, Rows
from shopfloor.historian.tables import Stored
from shopfloor.samples import Batch, Misconfigured, Sample, Unavailable

T = TypeVar("T")

STEP: Final = 20.0
"""Seconds of merging in one call of ``maintain``; what is unfinished goes on in the next."""
OLD: Final = 3600 * 10**9
"""A generation is closed when it is this old and has ``WORTHWHILE`` rows …"""
WORTHWHILE: Final = 100_000
VERY_OLD: Final = 24 * OLD
"""… or this old."""

_log: Final = structlog.get_logger(__name__)


class Settings(Protocol):
    """What it must be told; ``duck.DuckDbConfig`` tells it."""

    @property
    def path(self) -> Path:
        """The DuckDB file; the folder of segments is beside it."""
        ...

    @property
    def keep(self) -> int:
        """How long rows are kept, ns."""
        ...

    @property
    def keep_size(self) -> int | None:
        """The most bytes on disk; None: no limit."""
        ...

    @property
    def memory(self) -> int:
        """Bytes that DuckDB may use."""
        ...

    @property
    def threads(self) -> int:
        """How many threads DuckDB may use for a query."""
        ...


class DuckDbHistorian(Historian):
    """See the module. Every sample counts exactly once: the journal position commits with the rows."""

    def __init__(self, config: Settings, generation: int = GENERATION) -> None:
        """``generation`` is the rows after which compaction begins."""
        self._config = config
        self._database = Database(config.path, config.memory, config.threads, generation)
        self._window = compaction.window_length(config.keep)
        self._since = -(2**63)
        self._opened: int | None = None
        self._merging: Generator[None] | None = None
        self._stopping = threading.Event()
        self._compacting: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._unreadable: dict[str, tuple[Stored, Exception]] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._background: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._newest_known: asyncio.Future[None] | None = None
        self._maintaining = asyncio.Lock()

    # -- connection ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open. Raises Unavailable (disk full, in use elsewhere) and Misconfigured (not permitted)."""
        self._writer = ThreadPoolExecutor(1, "historian-write")
        self._background = ThreadPoolExecutor(1, "historian-compact")
        self._readers = ThreadPoolExecutor(2, "historian-read")
        self._stopping.clear()
        self._failure = None
        self._opened = None
        try:
            await self._on(self._writer, self._database.open)
        except BaseException:
            await self._shut()
            raise
        self._newest_known = asyncio.ensure_future(self._on(self._writer, self._load_latest))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Finish what is being written, give up what is being compacted, close."""
        await self._shut()

    async def _shut(self) -> None:
        self._stopping.set()
        pools = [pool for pool in (self._background, self._readers, self._writer) if pool is not None]
        self._background = self._readers = self._writer = None
        under_way = [task for task in (self._newest_known, self._compacting) if task is not None]
        self._newest_known = self._compacting = None
        loop = asyncio.get_running_loop()
        for pool in pools:
            await loop.run_in_executor(None, pool.shutdown)
        await asyncio.gather(*under_way, return_exceptions=True)
        merging, self._merging = self._merging, None
        if merging is not None:
            merging.close()  # removes its .part file
        await loop.run_in_executor(None, self._close)

    def _close(self) -> None:
        try:
            with self._database.guarded():
                self._database.close()
        except (Unavailable, Misconfigured) as error:
            # all that was acknowledged is committed; what is wrong is said again when it is opened
            _log.warning("Closing the historian's database failed", error=str(error))

    def _load_latest(self) -> None:
        with self._database.guarded():
            self._database.load_latest()

    async def _on(self, pool: ThreadPoolExecutor | None, work: Callable[[], T]) -> T:
        if pool is None:
            raise Unavailable("the historian is not open")
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    async def _ready(self) -> None:
        """Wait until the newest row of every tag is known, which is soon after opening."""
        if self._newest_known is None:
            raise Unavailable("the historian is not open")
        await asyncio.shield(self._newest_known)

    async def _query(self, work: Callable[[], T]) -> T:
        """Run a query on a thread of readers."""

        def run() -> T:
            with self._database.guarded():
                return work()

        return await self._on(self._readers, run)

    # -- writing ---------------------------------------------------------------------------------

    async def held(self) -> int:
        """The last journal offset whose samples are here; -1 when there is none: go on with the oldest there is."""
        return self._database.position

    async def write(self, offset: int, batch: Batch) -> None:
        """Take the batch in a transaction of its own."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Take the batches in transactions of up to 100,000 rows. Raises Rejected, Unavailable, Misconfigured."""
        await self._ready()
        self._raise_failure()
        if await self._on(self._writer, lambda: self._database.write(entries)):
            self._start_compacting()
        while self._database.closed_generations > WAITING:
            await asyncio.wait([self._start_compacting()])
            self._raise_failure()

    def _raise_failure(self) -> None:
        """Say what stopped compaction, so that the pipeline leaves and comes back."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._database.damaged:
            raise Unavailable(f"{self._config.path} is damaged; it will be moved aside and a new one started")

    def _start_compacting(self) -> asyncio.Future[None]:
        if self._compacting is None or self._compacting.done():
            self._compacting = asyncio.ensure_future(self._compact_closed())
        return self._compacting

    async def _compact_closed(self) -> None:
        try:
            await self._on(self._background, self._compact_all)
        except Unavailable as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001  # handed to the next write, which raises it
            self._failure = error

    def _compact_all(self) -> None:
        """Turn all closed generations into segments (background thread)."""
        with self._database.guarded():
            while self._database.closed() is not None and not self._stopping.is_set():
                compaction.driven(compaction.compact(self._database, self._window, self._since), self._proceed)

    def _proceed(self) -> bool:
        return not self._stopping.is_set()

    # -- upkeep ----------------------------------------------------------------------------------

    async def maintain(self, now: int) -> None:
        """Drop what is too old or too much, sort and compress what is complete. Raises Unavailable."""
        await self._ready()
        async with self._maintaining:
            self._since = now - self._config.keep
            if self._is_due(now):
                await self._on(self._writer, self._database.turn)
                self._opened = None
            await asyncio.wait([self._start_compacting()])
            self._raise_failure()
            await self._on(self._background, lambda: self._keep_up(now))

    async def compact(self, now: int) -> None:
        """Compress everything that is held, however little it is: for a bench, a test, a backup."""
        await self._ready()
        await self._on(self._writer, self._database.turn)
        await self.maintain(now)
        while self._merging is not None or self._due(now):
            await self.maintain(now)

    def _is_due(self, now: int) -> bool:
        """Whether the generation that is being written should be closed for its age."""
        rows = self._database.hot_rows
        if not rows:
            self._opened = None
            return False
        if self._opened is None or self._opened > now:
            self._opened = now
        age = now - self._opened
        return age >= VERY_OLD or (age >= OLD and rows >= WORTHWHILE)

    def _due(self, now: int) -> list[Stored]:
        return compaction.due(self._database.stored, self._window, now)

    def _keep_up(self, now: int) -> None:
        """Background thread."""
        with self._database.guarded():
            while self._unreadable:
                _, (line, error) = self._unreadable.popitem()
                if line in self._database.stored:
                    self._drop_merge()
                    self._database.quarantine(line, error)
            self._expire()
            self._database.shrink()
            deadline = time.monotonic() + STEP
            while self._merging is not None or self._due(now):
                if self._merging is None:
                    self._merging = compaction.merge(self._database, self._due(now), self._since)
                try:
                    finished = compaction.driven(self._merging, lambda: self._may_merge(deadline))
                except Damaged as error:
                    self._merging = None
                    self._find_unreadable(error)
                    return
                except BaseException:
                    self._merging = None
                    raise
                if not finished:
                    return
                self._merging = None

    def _may_merge(self, deadline: float) -> bool:
        """Whether a merge may go on: generations that wait for their compaction go first."""
        return self._proceed() and time.monotonic() < deadline and self._database.closed_generations <= 1

    def _expire(self) -> None:
        room = None
        if self._config.keep_size is not None:
            room = max(0, self._config.keep_size - self._database.file_size())
        gone = compaction.expired(self._database.stored, self._since, room)
        if gone:
            self._drop_merge()
            self._database.replace(gone, [])
            _log.info("The historian dropped its oldest rows", rows=sum(line.rows for line in gone))

    def _drop_merge(self) -> None:
        """Give up an unfinished merge: its inputs are about to change."""
        merging, self._merging = self._merging, None
        if merging is not None:
            merging.close()

    def _find_unreadable(self, error: Exception) -> None:
        """Note the segments that cannot be read; the next ``maintain`` moves them aside."""
        for line in self._database.stored:
            try:
                line.segment.tags()
                line.segment.names()
                line.segment.entries()
            except (Damaged, OSError) as reason:
                self._note_unreadable(line, reason)
        if not self._unreadable:
            raise error

    def _note_unreadable(self, line: Stored, error: Exception) -> None:
        self._unreadable[line.segment.name] = (line, error)

    # -- asking ----------------------------------------------------------------------------------

    async def latest(self, tags: Sequence[str] | None = None) -> list[Sample]:
        """The newest sample of each tag; a tag's newest outlives ``keep``, so that a silent tag stays known."""
        await self._ready()
        return await self._query(lambda: self._latest(tags))

    def _latest(self, tags: Sequence[str] | None) -> list[Sample]:
        known = self._database.tags
        chosen = sorted(known) if tags is None else [tag for tag in dict.fromkeys(tags) if tag in known]
        return self._database.latest.samples([(known[tag], tag) for tag in chosen])

    async def tags(self) -> list[str]:
        """Every tag that has a sample, sorted."""
        await self._ready()
        return [sample.tag for sample in await self._query(lambda: self._latest(None))]

    async def history(self, tag: str, start: int, end: int, limit: int = 100_000) -> Series:
        """The raw samples of a tag. Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("the limit is at least 1")
        return await self._query(lambda: self._history(tag, start, end, limit))

    def _history(self, tag: str, start: int, end: int, limit: int) -> Series:
        return raw(tag, self._read(tag, start, end, limit), limit)

    async def records(self, tag: str, start: int, end: int, limit: int = 100_000) -> list[tuple[int, Sample]]:
        """The raw samples with all that is stored of them, each with the offset of its journal entry."""
        return await self._query(lambda: self._records(tag, start, end, limit))

    def _records(self, tag: str, start: int, end: int, limit: int) -> list[tuple[int, Sample]]:
        rows = self._read(tag, start, end, limit).take(slice(0, limit))
        columns = (rows.time.tolist(), rows.values(), rows.quality.tolist(), rows.status.tolist(), rows.server.tolist())
        return [
            (offset, Sample(tag, *fields))
            for offset, *fields in zip(rows.entry.tolist(), *columns, strict=True)
        ]  # fmt: skip

    def _read(self, tag: str, start: int, end: int, limit: int) -> Rows:
        number = self._database.tags.get(tag)
        if number is None or start >= end:
            return Rows.empty()
        with self._database.snapshot() as snapshot:
            return Reader(snapshot, number, self._note_unreadable).rows(bounded(start), bounded(end), limit)

    async def aggregate(
        self, tag: str, start: int, end: int, every: int, function: Aggregate, timezone: str = "UTC"
    ) -> Series:
        """One value per bucket, labelled with the bucket's begin; a bucket cut by start or end counts what is inside.

        Raises ValueError.
        """
        if function not in AGGREGATES:
            raise ValueError(f"{function!r} is no aggregate; one of {', '.join(AGGREGATES)}")
        return await self._query(lambda: self._aggregate(tag, start, end, edges(start, end, every, timezone), function))

    def _aggregate(self, tag: str, start: int, end: int, borders: Int64, function: Aggregate) -> Series:
        number = self._database.tags.get(tag)
        if number is None:
            return aggregated(tag, None, (start, end), borders, function, Rows.empty)
        with self._database.snapshot() as snapshot:
            reader = Reader(snapshot, number, self._note_unreadable)
            newest = partial(self._database.latest.row, number)
            return aggregated(tag, reader, (start, end), borders, function, newest)

    async def size(self) -> Size:
        """Rows, bytes on disk and the oldest time."""
        return await self._query(self._size)

    def stored(self) -> tuple[Stored, ...]:
        """The compressed segments, for those who want to know what they cost."""
        return self._database.stored

    def _size(self) -> Size:
        with self._database.snapshot() as snapshot:
            rows, oldest = snapshot.hot_totals()
            stored = snapshot.stored
        times = [line.first for line in stored if line.rows] + ([] if oldest is None else [oldest])
        return Size(
            rows + sum(line.rows for line in stored),
            self._database.file_size() + sum(line.size for line in stored),
            min(times, default=None),
        )
