"""Runs a sink: offers it what it wants, counts what became of every sample, moves its position."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final, Literal

import structlog

from shopfloor.historian.base import Historian
from shopfloor.journal import Entry, Journal, Reader, Tally
from shopfloor.pipeline.runner import Runner
from shopfloor.pipeline.selection import Selection
from shopfloor.plant import HistorianConfig, SinkConfig
from shopfloor.samples import Batch, Rejected, Unavailable
from shopfloor.seams import Inbox, Sink

logger: Final = structlog.get_logger("shopfloor.pipeline")

KEPT: Final = ("*", "$source/*", "$edit/*")
"""What a historian keeps: every tag, when each source was connected, and what people said of stops."""
COMMITS_UNDER_WAY: Final = 4
"""Commits of a position that may be on their way to the disk while the sink goes on."""
MAINTAIN_EVERY: Final = 60.0
MOST_REFUSALS: Final = 100
"""Kinds of refusals that are said, each once after a connection; the ledger and the dead letters have all."""


class SinkRunner(Runner):
    """One sink of the plant file."""

    kind: ClassVar[Literal["sink", "historian"]] = "sink"

    def __init__(
        self,
        config: SinkConfig | HistorianConfig,
        journal: Journal,
        clock: Callable[[], int],
        inbox: Inbox | None = None,
    ) -> None:
        """It reads the journal under its own name; ``inbox`` takes what who gets the samples asks to write."""
        super().__init__(config, clock)
        self._inbox = inbox
        self._build: Callable[[], Sink] = config.build
        self._selection = Selection(config.name, config.tags if isinstance(config, SinkConfig) else KEPT)
        self._journal = journal
        self._reader: Reader | None = None
        self._commits: deque[Awaitable[None]] = deque()
        self._refusals: set[str] = set()
        self._again_until = 0
        """What is offered up to here to a sink with a position of its own was confirmed once: a replay."""

    def lag(self) -> tuple[int, int]:
        """Entries that it has not committed yet."""
        return self._reader.lag() if self._reader else (0, 0)

    async def work(self) -> None:
        """Connect, agree on the position with the sink's own, deliver for ever."""
        self._commits.clear()
        self._refusals.clear()
        self._reader = await self._journal.reader(self.name)
        sink = self._build()
        if self._inbox is not None:
            sink.commanded(self._inbox)
        try:
            async with sink:
                held = await self._agree(sink, self._reader)
                self.running()
                try:
                    await self._deliver_all(sink, self._reader, held)
                finally:
                    with contextlib.suppress(Unavailable):
                        await self._settle(0)
        finally:
            if self._inbox is not None:
                self._inbox.lost()

    async def _agree(self, sink: Sink, reader: Reader) -> int:
        """Where the sink stands; the journal is read again from there when the sink is behind it."""
        held = await sink.held()
        if held is None:
            reader.rewind()
            return 0
        self._again_until = reader.position
        reader.rewind(min(held, reader.position))
        return held

    async def _deliver_all(self, sink: Sink, reader: Reader, held: int) -> None:
        losing = asyncio.create_task(sink.lost(), name=f"{self.name}: connection")
        try:
            while True:
                entries = await self._next(reader, losing)
                await self._deliver(sink, reader, entries, held)
        finally:
            losing.cancel()
            await asyncio.gather(losing, return_exceptions=True)

    async def _next(self, reader: Reader, losing: asyncio.Task[None]) -> list[Entry]:
        """What is to be delivered next.

        Raises Unavailable when meanwhile the connection is lost, or the journal refuses a commit: else, where nothing
        comes any more, nobody would hear of it, and the position would stay behind.
        """
        reading = asyncio.create_task(reader.read(), name=f"{self.name}: reading")
        try:
            # The last commit fails when one before it does.
            commit = {asyncio.ensure_future(self._commits[-1])} if self._commits else set[asyncio.Future[None]]()
            await asyncio.wait({reading, losing, *commit}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done() and not losing.done():
                await self._settle(0)
                await asyncio.wait({reading, losing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        if not reading.cancelled():
            return reading.result()  # if the connection is lost as well, the write will say so
        losing.result()
        raise Unavailable("the connection was lost")

    async def _deliver(self, sink: Sink, reader: Reader, entries: Sequence[Entry], held: int) -> None:
        tallies: list[Tally] = []
        offers: list[tuple[int, Batch]] = []
        for entry in entries:
            batch = self._selection.take(entry, tallies)
            if batch is not None:
                tallies.append(Tally(entry.offset, entry.source, "delivered", len(batch), entry.received))
                if entry.offset > held:
                    offers.append((entry.offset, batch))
        if offers and offers[0][0] <= self._again_until:
            self._say_again(offers[0][0])
        dead: list[tuple[int, str, Batch]] = []
        if offers:
            try:
                await sink.write_many(offers)
            except Rejected:
                dead = await self._deliver_one_by_one(sink, offers, tallies)
        self.samples += sum(tally.samples for tally in tallies if tally.outcome == "delivered")
        await self._settle(COMMITS_UNDER_WAY)
        self._commits.append(reader.commit(entries[-1].offset, tallies, dead=dead))

    def _say_again(self, offset: int) -> None:
        logger.warning(
            f"{self.name} holds less than it once confirmed; the journal delivers again what it still has",
            component=self.name,
            delivered_from=offset,
            confirmed=self._again_until,
        )
        self._again_until = 0

    async def _settle(self, most: int) -> None:
        """Wait until at most ``most`` commits are under way; raises Unavailable when the journal refused one."""
        while len(self._commits) > most:
            await self._commits.popleft()

    async def _deliver_one_by_one(
        self, sink: Sink, offers: Sequence[tuple[int, Batch]], tallies: list[Tally]
    ) -> list[tuple[int, str, Batch]]:
        """Offer each batch alone, without the samples that the sink names; those become dead letters."""
        dead: list[tuple[int, str, Batch]] = []
        for offset, offered in offers:
            batch = offered
            while len(batch):
                try:
                    await sink.write(offset, batch)
                    break
                except Rejected as rejected:
                    batch = self._refuse(offset, batch, rejected, tallies, dead)
        return dead

    def _refuse(
        self, offset: int, batch: Batch, rejected: Rejected, tallies: list[Tally], dead: list[tuple[int, str, Batch]]
    ) -> Batch:
        """Tally and keep what was refused; returns the rest of the batch."""
        refused = set(range(len(batch)) if not rejected.indices else rejected.indices)
        if not refused <= set(range(len(batch))):
            raise IndexError(f"it refuses samples at an index outside of the batch: {sorted(refused)}")
        if rejected.reason not in self._refusals and len(self._refusals) < MOST_REFUSALS:
            self._refusals.add(rejected.reason)
            logger.warning(
                f"{self.name} refuses samples; they are kept as dead letters",
                component=self.name,
                samples=len(refused),
                reason=rejected.reason,
            )
        dead.append((offset, rejected.reason, batch.select(sorted(refused))))
        at = next(i for i, t in enumerate(tallies) if t.offset == offset and t.outcome == "delivered")
        was = tallies[at]
        tallies[at] = Tally(offset, was.source, "delivered", was.samples - len(refused), was.received)
        tallies.append(Tally(offset, was.source, "rejected", len(refused), was.received, rejected.reason))
        return batch.select([i for i in range(len(batch)) if i not in refused])


class HistorianRunner(SinkRunner):
    """The historian: a sink that gets everything, is looked after, and can be asked."""

    kind: ClassVar[Literal["historian"]] = "historian"

    def __init__(self, config: HistorianConfig, journal: Journal, clock: Callable[[], int]) -> None:
        """It reads the journal under the name of its configuration: ``historian`` by default."""
        super().__init__(config, journal, clock)
        self.store: Historian | None = None

    async def _deliver_all(self, sink: Sink, reader: Reader, held: int) -> None:
        if not isinstance(sink, Historian):
            raise TypeError(f"{type(sink).__name__} is no Historian")
        self.store = sink
        caring = asyncio.create_task(self._maintain(sink), name="historian: maintenance")
        try:
            await super()._deliver_all(sink, reader, held)
        finally:
            self.store = None
            caring.cancel()
            await asyncio.wait({caring})

    async def _maintain(self, store: Historian) -> None:
        while True:
            await asyncio.sleep(MAINTAIN_EVERY)
            try:
                await store.maintain(self._clock())
            except Exception:
                logger.exception("looking after the historian failed; it will be tried again", component=self.name)
