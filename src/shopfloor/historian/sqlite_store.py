"""The small historian as the pipeline and the console see it: asynchronous, nothing blocks the loop.

One thread writes, one reads; neither waits for the other. NumPy is loaded when the first question comes.
``docs/connectors/sqlite.md`` says what is promised.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import structlog

from shopfloor.historian.base import AGGREGATES, Aggregate, Historian, Series, Size
from shopfloor.historian.sqlite_file import GROUP, File
from shopfloor.samples import Batch, Misconfigured, Sample, Unavailable

if TYPE_CHECKING:
    from shopfloor.historian.rows import Rows
    from shopfloor.historian.sqlite_reading import TagReader

T = TypeVar("T")

STEP: Final = 100
"""Groups of rows that one call of ``maintain`` drops at most; the rest goes with the next."""

_log: Final = structlog.get_logger(__name__)


class SqliteHistorian(Historian):
    """See the module. Every sample counts exactly once: the journal position commits with the rows."""

    def __init__(self, path: Path, keep: int) -> None:
        """``keep`` is how long rows are kept, ns."""
        self._file = File(path)
        self._keep = keep
        self._writer: ThreadPoolExecutor | None = None
        self._reader: ThreadPoolExecutor | None = None

    async def __aenter__(self) -> Self:
        """Open. Raises Unavailable (disk full, in use elsewhere) and Misconfigured (not permitted)."""
        self._writer = ThreadPoolExecutor(1, "historian-write")
        self._reader = ThreadPoolExecutor(1, "historian-read")
        try:
            await self._on(self._writer, self._file.open)
        except BaseException:
            await self._shut()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Finish what is being written, close."""
        await self._shut()

    async def _shut(self) -> None:
        pools = [pool for pool in (self._reader, self._writer) if pool is not None]
        self._reader = self._writer = None
        loop = asyncio.get_running_loop()
        for pool in pools:
            await loop.run_in_executor(None, pool.shutdown)
        await loop.run_in_executor(None, self._close)

    def _close(self) -> None:
        try:
            with self._file.guarded():
                self._file.close()
        except (Unavailable, Misconfigured) as error:
            # all that was acknowledged is committed; what is wrong is said again when it is opened
            _log.warning("Closing the historian's database failed", error=str(error))

    async def _on(self, pool: ThreadPoolExecutor | None, work: Callable[[], T]) -> T:
        if pool is None:
            raise Unavailable("the historian is not open")

        def guarded() -> T:
            with self._file.guarded():
                return work()

        return await asyncio.get_running_loop().run_in_executor(pool, guarded)

    # -- writing ---------------------------------------------------------------------------------

    async def held(self) -> int:
        """The last journal offset whose samples are here; -1 when there is none."""
        return self._file.position

    async def write(self, offset: int, batch: Batch) -> None:
        """Take the batch in a transaction of its own."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Take the batches in one transaction. Raises Rejected, Unavailable, Misconfigured."""
        if self._file.damaged:
            raise Unavailable(f"{self._file.path} is damaged; it will be moved aside and a new one started")
        await self._on(self._writer, lambda: self._file.write(entries))

    async def maintain(self, now: int) -> None:
        """Drop what is too old, in small steps between which writing goes on. Raises Unavailable."""
        gone = 0
        for _ in range(STEP):
            dropped = await self._on(self._writer, lambda: self._file.drop(now - self._keep))
            gone += dropped
            if dropped < GROUP:
                break
        if gone:
            _log.info("The historian dropped its oldest rows", rows=gone)

    # -- asking ----------------------------------------------------------------------------------

    async def latest(self, tags: Sequence[str] | None = None) -> list[Sample]:
        """The newest sample of each tag; a tag's newest outlives ``keep``, so that a silent tag stays known."""
        return await self._on(self._reader, lambda: self._latest(tags))

    def _latest(self, tags: Sequence[str] | None) -> list[Sample]:
        known = self._file.tags
        chosen = sorted(known) if tags is None else [tag for tag in dict.fromkeys(tags) if tag in known]
        return [sample for tag in chosen for sample in self._samples(tag, self._of(tag).newest())]

    def _of(self, tag: str) -> "TagReader":
        """What a tag, which is known, has."""
        from shopfloor.historian.sqlite_reading import TagReader  # noqa: PLC0415  # NumPy: 15 MB that writing saves

        return TagReader(self._file, self._file.tags[tag])

    async def tags(self) -> list[str]:
        """Every tag that has a sample, sorted."""
        return sorted(self._file.tags)

    async def history(self, tag: str, start: int, end: int, limit: int = 100_000) -> Series:
        """The raw samples of a tag. Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("the limit is at least 1")
        return await self._on(self._reader, lambda: self._history(tag, start, end, limit))

    def _history(self, tag: str, start: int, end: int, limit: int) -> Series:
        from shopfloor.historian.asking import bounded, raw  # noqa: PLC0415  # see _of
        from shopfloor.historian.rows import Rows  # noqa: PLC0415

        known = tag in self._file.tags and start < end
        rows = self._of(tag).rows(bounded(start), bounded(end), limit) if known else Rows.empty()
        return raw(tag, rows, limit)

    async def aggregate(
        self, tag: str, start: int, end: int, every: int, function: Aggregate, timezone: str = "UTC"
    ) -> Series:
        """One value per bucket, labelled with the bucket's begin; a bucket cut by start or end counts what is inside.

        Raises ValueError.
        """
        if function not in AGGREGATES:
            raise ValueError(f"{function!r} is no aggregate; one of {', '.join(AGGREGATES)}")

        def work() -> Series:
            from shopfloor.historian.asking import aggregated  # noqa: PLC0415  # see _of
            from shopfloor.historian.buckets import edges  # noqa: PLC0415
            from shopfloor.historian.rows import Rows  # noqa: PLC0415

            reader = self._of(tag) if tag in self._file.tags else None
            borders = edges(start, end, every, timezone)
            return aggregated(tag, reader, (start, end), borders, function, Rows.empty)

        return await self._on(self._reader, work)

    async def records(self, tag: str, start: int, end: int, limit: int = 100_000) -> list[tuple[int, Sample]]:
        """The raw samples with all that is stored of them, each with the offset of its journal entry."""

        def work() -> list[tuple[int, Sample]]:
            if tag not in self._file.tags:
                return []
            rows = self._of(tag).rows(start, end, limit).take(slice(0, limit))
            return list(zip(rows.entry.tolist(), self._samples(tag, rows), strict=True))

        return await self._on(self._reader, work)

    def _samples(self, tag: str, rows: "Rows") -> list[Sample]:
        from shopfloor.historian.latest import samples  # noqa: PLC0415  # see _of

        return samples([tag] * len(rows), rows)

    async def size(self) -> Size:
        """Rows, bytes on disk and the oldest time."""

        def work() -> Size:
            ((rows,),) = self._file.ask("SELECT rows FROM about")
            oldest = [
                self._file.ask("SELECT min(time) FROM sample WHERE tag = ?", [n]) for n in self._file.tags.values()
            ]
            times = [time for ((time,),) in oldest if time is not None]
            return Size(rows, self._file.size(), min(times, default=None))

        return await self._on(self._reader, work)
