"""Runs a sink: offers it what it wants, counts what became of every sample, moves its position."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Final, Literal

import structlog

from shopfloor.historian.base import Historian
from shopfloor.journal import Entry, Journal, Reader, Tally
from shopfloor.journal.base import AT_ONCE, READS_UNDER_WAY
from shopfloor.pipeline.reasons import kind_of
from shopfloor.pipeline.runner import Runner, was_another
from shopfloor.pipeline.selection import Selection
from shopfloor.plant import HistorianConfig, SinkConfig
from shopfloor.samples import Batch, Rejected, Unavailable
from shopfloor.seams import Inbox, Sink
from shopfloor.turns import turn

logger: Final = structlog.get_logger("shopfloor.pipeline")

KEPT: Final = ("*", "$source/*", "$edit/*", "$journal/*")
"""What a historian keeps: every tag, when each source was connected, what people said of stops, and what the journal
had to drop or to thin."""
COMMITS_UNDER_WAY: Final = READS_UNDER_WAY - 2
"""Commits of a position that may be on their way to the disk while the sink goes on: before it waits for one, one more
is under way, and a read that was delivered in part."""
_MUCH: Final = 1000
"""Samples from which on it is a backlog, which waits for its turn."""
MAINTAIN_EVERY: Final = 60.0
_NOT_MAINTAINED: Final = "looking after the historian failed; it will be tried again"
MOST_REFUSALS: Final = 100
"""Kinds of refusals that are said, each once after a connection; the ledger and the dead letters have all."""


class SinkRunner(Runner):
    """One sink of the plant file."""

    kind: ClassVar[Literal["sink", "historian"]] = "sink"
    at_once: ClassVar[int] = AT_ONCE
    """Samples that are read, and offered, at once: what a sink does with them all must not take long."""

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
        self._shift = 0
        """What the sink's offsets are above the journal's."""
        self._waited = self._waited_to = 0
        """Entries that waited for it when it was connected after a loss, while it has not shown that it is of use, and
        where they end."""

    def lag(self) -> tuple[int, int]:
        """Entries that it has not committed yet."""
        return self._reader.lag() if self._reader else (0, 0)

    def dropped(self) -> int:
        """Samples that the journal dropped before it took them, since the start."""
        return self._reader.dropped() if self._reader else 0

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
                self._connected(self._reader)
                try:
                    await self._deliver_all(sink, self._reader, held)
                finally:
                    with contextlib.suppress(Unavailable):
                        await self._settle(0)
        finally:
            if self._inbox is not None:
                self._inbox.lost()

    def _connected(self, reader: Reader) -> None:
        """It runs now; after a loss only once it has taken something, or nothing waits for it.

        A connection that works says nothing of the writing: it would be away and back at each attempt.
        """
        self._waited = reader.lag()[0] if self.lost else 0
        self._waited_to = self._journal.head
        if not self._waited:
            self.running()

    async def _agree(self, sink: Sink, reader: Reader) -> int:
        """Where the sink stands, in the journal's offsets; it is read again from there when the sink is behind it."""
        held = await sink.held()
        if held is None:
            reader.rewind()
            return 0
        self._shift = await self._shifted(reader, held)
        held -= self._shift
        self._again_until = reader.position
        reader.rewind(min(held, reader.position))
        return held

    async def _shifted(self, reader: Reader, held: int) -> int:
        """What is to be added to the journal's offsets for this sink, which is kept as the reader's state.

        A sink that holds more than the journal has ever had got it of another journal: one that was younger by a clock
        that is behind now, or this one before it came back from a backup. It would take all that is below for known.
        """
        try:
            known, head = int(reader.state or b"0"), self._journal.head
        except ValueError as error:
            raise was_another(self.name, error) from error
        shift = known
        if held - known > head:
            # Of a journal that it has met, it holds what waits; of one that is new to it, nothing.
            shift = held - (head if reader.state else reader.position)
            what = "what is new" if reader.state else "all of it"
            logger.warning(
                f"{self.name} holds more than this journal has ever had; {what} is delivered behind that",
                component=self.name,
                held=held,
                newest=head,
            )
        if shift != known or not reader.state:
            await reader.commit(reader.position, state=str(shift).encode())
        return shift

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
        reading = asyncio.create_task(reader.read(self.at_once), name=f"{self.name}: reading")
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
        if sum(entry.samples for entry in entries) > _MUCH:
            await turn()
        for entry in entries:
            batch = self._selection.take(entry, tallies)
            if batch is not None:
                tallies.append(Tally(entry.offset, entry.source, "delivered", len(batch), entry.received))
                if entry.offset > held:
                    offers.append((entry.offset, batch))
        dead: list[tuple[int, str, Batch]] = []
        if offers:
            try:
                await sink.write_many([(offset + self._shift, batch) for offset, batch in offers])
            except Rejected:
                dead = await self._deliver_one_by_one(sink, offers, tallies)
        if offers and offers[0][0] <= self._again_until:
            self._say_again(tallies, held)
        self.samples += sum(tally.samples for tally in tallies if tally.outcome == "delivered")
        await self._settle(COMMITS_UNDER_WAY)
        self._commits.append(reader.commit(entries[-1].offset, tallies, dead=dead))
        if self._waited and (offers or entries[-1].offset >= self._waited_to):
            await self._settle(0)
            self.running(self._waited)
            self._waited = 0

    def _say_again(self, tallies: Sequence[Tally], held: int) -> None:
        """Say that it has taken what it confirmed before. What it refused once more it never had: nothing is amiss."""
        taken = (t.offset for t in tallies if t.outcome == "delivered" and t.samples and held < t.offset)
        offset = next(taken, self._again_until + 1)
        if offset > self._again_until:
            return
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
                    await sink.write(offset + self._shift, batch)
                    break
                except Rejected as rejected:
                    batch = self._refuse(offset, batch, rejected, tallies, dead)
        return dead

    def _refuse(
        self, offset: int, batch: Batch, rejected: Rejected, tallies: list[Tally], dead: list[tuple[int, str, Batch]]
    ) -> Batch:
        """Tally and keep what was refused; returns the rest of the batch."""
        reasons = rejected.why(len(batch))
        refused = {i for indices in reasons.values() for i in indices}
        if not refused <= set(range(len(batch))):
            raise IndexError(f"it refuses samples at an index outside of the batch: {sorted(refused)}")
        at = next(i for i, t in enumerate(tallies) if t.offset == offset and t.outcome == "delivered")
        was = tallies[at]
        tallies[at] = Tally(offset, was.source, "delivered", was.samples - len(refused), was.received)
        kinds: dict[str, int] = {}
        for reason, indices in reasons.items():
            kind = kind_of(reason)
            kinds[kind] = kinds.get(kind, 0) + len(indices)
            dead.append((offset, reason, batch.select(indices)))
            if kind not in self._refusals and len(self._refusals) < MOST_REFUSALS:
                self._refusals.add(kind)
                logger.warning(
                    f"{self.name} refuses samples; they are kept as dead letters",
                    component=self.name,
                    samples=len(indices),
                    reason=reason,
                )
        for kind, samples in kinds.items():
            tallies.append(Tally(offset, was.source, "rejected", samples, was.received, kind))
        return batch.select([i for i in range(len(batch)) if i not in refused])


class HistorianRunner(SinkRunner):
    """The historian: a sink that gets everything, is looked after, and can be asked."""

    kind: ClassVar[Literal["historian"]] = "historian"
    at_once: ClassVar[int] = 100_000

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
        said = False
        while True:
            await asyncio.sleep(MAINTAIN_EVERY)
            try:
                await store.maintain(self._clock())
                said = False
            except Unavailable as error:
                if not said:
                    logger.warning(_NOT_MAINTAINED, component=self.name, error=str(error))
                said = True
            except Exception:
                logger.exception(_NOT_MAINTAINED, component=self.name)
