"""A historian in a database of the plant's own: a sink, whose tables can be asked.

Rows, figures and position are written by the sink of that database; what is here asks the tables, on connections of its
own, and drops what is too old. A database adds ``connected``, which gives it a ``Link``.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Final, Self, TypeVar

import numpy as np
import structlog

from shopfloor.historian.asking import aggregated, bounded, raw
from shopfloor.historian.base import AGGREGATES, Aggregate, Historian, Series, Size
from shopfloor.historian.buckets import edges
from shopfloor.historian.latest import samples
from shopfloor.historian.rows import Rows
from shopfloor.samples import Sample, Unavailable
from shopfloor.sinks.sql.asking import Link, TagReader, nanoseconds
from shopfloor.sinks.sql.questions import Asked, Questions
from shopfloor.sinks.sql.tables import HISTORY

T = TypeVar("T")

ASKED_AT_ONCE: Final = 3
"""Connections for questions."""
STEP: Final = 20.0
"""Seconds of dropping in one call of ``maintain``; the rest goes with the next."""

_log: Final = structlog.get_logger(__name__)


class TableHistorian(Historian):
    """What a historian adds to a sink: stands before the sink among the bases."""

    group: ClassVar[int] = 10_000
    """Rows that are dropped in one transaction: some milliseconds for which their locks are held."""
    _questions: Questions | None = None
    _care: Questions | None = None

    @property
    @abstractmethod
    def keep(self) -> int:
        """How long rows are kept, ns."""

    @property
    @abstractmethod
    def ids(self) -> Mapping[str, int]:
        """The tags' ids; this historian alone gives any."""

    @abstractmethod
    async def connected(self) -> Asked:
        """A connection for questions. Raises Unavailable, Misconfigured."""

    async def __aenter__(self) -> Self:
        """Enter the sink. Raises Unavailable, Misconfigured."""
        await super().__aenter__()
        self._questions, self._care = Questions(self.connected, ASKED_AT_ONCE), Questions(self.connected, 1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the connections for questions, and leave the sink."""
        opened, self._questions, self._care = (self._questions, self._care), None, None
        try:
            for questions in opened:
                if questions is not None:
                    await questions.close()
        finally:
            await super().__aexit__(kind, error, trace)

    async def _ask(self, work: Callable[[Link], T]) -> T:
        if self._questions is None:
            raise Unavailable("the historian is not connected")
        return await self._questions.ask(work)

    # -- upkeep ----------------------------------------------------------------------------------

    async def maintain(self, now: int) -> None:
        """Drop what is too old, in small steps between which writing goes on. Raises Unavailable."""
        since, loop = now - self.keep, asyncio.get_running_loop()
        deadline = loop.time() + STEP
        gone = 0
        for tag, oldest in await self._caring(Link.oldest):
            if nanoseconds(oldest) >= since:
                continue
            while True:
                dropped = await self._caring(lambda link, tag=tag: link.drop(tag, since, self.group))  # type: ignore[misc]  # a default binds the loop's variable
                gone += dropped
                if dropped < self.group or loop.time() > deadline:
                    break
            if loop.time() > deadline:
                break
        if gone:
            _log.info("The historian dropped its oldest rows", rows=gone)

    async def _caring(self, work: Callable[[Link], T]) -> T:
        if self._care is None:
            raise Unavailable("the historian is not connected")
        return await self._care.ask(work)

    # -- asking ----------------------------------------------------------------------------------

    async def latest(self, tags: Sequence[str] | None = None) -> list[Sample]:
        """The newest sample of each tag; a tag's newest outlives ``keep``, so that a silent tag stays known."""
        known = self.ids
        chosen = list(known) if tags is None else [tag for tag in dict.fromkeys(tags) if tag in known]
        names = {known[tag]: tag for tag in chosen}

        def work(link: Link) -> dict[str, Sample]:
            found = link.newest(None if tags is None else list(names))
            named = [names.get(tag) for tag in found.tags.tolist()]
            of_these = [i for i, name in enumerate(named) if name is not None]
            rows = found.rows if len(of_these) == len(named) else found.rows.take(np.array(of_these, np.int64))
            return {sample.tag: sample for sample in samples([name for name in named if name is not None], rows)}

        newest = await self._ask(work)
        return [newest[tag] for tag in (sorted(newest) if tags is None else chosen) if tag in newest]

    async def tags(self) -> list[str]:
        """Every tag that has a sample, sorted."""
        present = set(await self._ask(Link.present))
        return sorted(tag for tag, number in self.ids.items() if number in present)

    async def history(self, tag: str, start: int, end: int, limit: int = 100_000) -> Series:
        """The raw samples of a tag. Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("the limit is at least 1")
        return await self._ask(lambda link: raw(tag, self._rows(link, tag, start, end, limit), limit))

    async def records(self, tag: str, start: int, end: int, limit: int = 100_000) -> list[tuple[int, Sample]]:
        """The raw samples with all that is stored of them, each with the offset of its journal entry."""

        def work(link: Link) -> list[tuple[int, Sample]]:
            rows = self._rows(link, tag, start, end, limit, whole=True).take(slice(0, limit))
            return list(zip(rows.entry.tolist(), samples([tag] * len(rows), rows), strict=True))

        return await self._ask(work)

    def _rows(self, link: Link, tag: str, start: int, end: int, limit: int, *, whole: bool = False) -> Rows:
        number = self.ids.get(tag)
        if number is None or start >= end:
            return Rows.empty()
        return TagReader(link, number).rows(bounded(start), bounded(end), limit, whole=whole)

    async def aggregate(
        self, tag: str, start: int, end: int, every: int, function: Aggregate, timezone: str = "UTC"
    ) -> Series:
        """One value per bucket, labelled with the bucket's begin; a bucket cut by start or end counts what is inside.

        Raises ValueError.
        """
        if function not in AGGREGATES:
            raise ValueError(f"{function!r} is no aggregate; one of {', '.join(AGGREGATES)}")
        number = self.ids.get(tag)
        borders = await asyncio.to_thread(edges, start, end, every, timezone)

        def work(link: Link) -> Series:
            reader = None if number is None else TagReader(link, number)
            newest = Rows.empty if reader is None else reader.newest
            return aggregated(tag, reader, (start, end), borders, function, newest)

        return await self._ask(work)

    async def size(self) -> Size:
        """Rows, bytes on disk and the oldest time, to the microsecond. Counts the rows: slow where there are many."""

        def work(link: Link) -> Size:
            ((rows,),) = link.ask(f"SELECT {link.counting} FROM {link.table(HISTORY)}")  # noqa: S608  # own text
            times = [nanoseconds(time) for _, time in link.oldest()]
            return Size(int(rows), link.size(), min(times, default=None))

        return await self._ask(work)
