"""The plant, running: every component as its own task round the journal, stopped in order."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from shopfloor.commands import Audit, CommandInbox, Commands, audit_path
from shopfloor.historian.base import Historian
from shopfloor.journal import DeadLetter, JournalState, LedgerRow, SqliteJournal
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.presence import Presence
from shopfloor.pipeline.processors import ProcessorRunner
from shopfloor.pipeline.runner import Runner
from shopfloor.pipeline.sinks import HistorianRunner, SinkRunner
from shopfloor.pipeline.sources import SourceRunner
from shopfloor.pipeline.status import ComponentStatus
from shopfloor.plant import Plant, SinkConfig
from shopfloor.samples import Batch, Command, Outcome, Unavailable
from shopfloor.seams import Inbox

logger: Final = structlog.get_logger("shopfloor.pipeline")

EDIT_SECONDS: Final = 5.0
"""How long a person waits for a journal that is full."""
STOP_SECONDS: Final = 5.0
"""For each component, once it was told to stop."""
APART: Final = 0.01
"""Seconds between two sources' first connections: hundreds at once would be a storm for the network and for the PLCs
behind one gateway, and all would be read at the same moment of every second."""
DRAIN_SECONDS: Final = 3.0
"""For sinks to take what sources gave last; the rest waits in the journal for the next start."""


class Pipeline:
    """A plant file at work. Enter it to start everything, leave it to stop in order.

    Entering raises Misconfigured when the journal or the audit record cannot be used: without them
    nothing may run. Everything else that is wrong stops only the component that it concerns.
    """

    def __init__(self, plant: Plant, clock: Callable[[], int] = time.time_ns) -> None:
        """Nothing is opened yet. ``clock`` gives ns UTC."""
        self.plant = plant
        self.live = Live()
        self.started = clock()
        self._clock = clock
        self._sources: list[SourceRunner] = []
        self._processors: list[ProcessorRunner] = []
        self._sinks: list[SinkRunner] = []
        self._historian: HistorianRunner | None = None
        self._source_of: dict[str, SourceRunner] = {}
        self._ticking: asyncio.Task[None] | None = None
        self.commands = Commands(plant.commands, Audit(audit_path(plant), clock), self._execute, current=self.live.get)

    async def __aenter__(self) -> Self:
        """Open the journal and start every component."""
        plant, clock = self.plant, self._clock
        self._journal = journal = await SqliteJournal.open(
            plant.journal.path,
            plant.journal.keep,
            plant.journal.when_full,
            clock,
            exact=[processor.name for processor in plant.processors],
        )
        try:
            await self.commands.__aenter__()
        except BaseException:
            await journal.close()
            raise
        try:
            await self._start(journal)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _start(self, journal: SqliteJournal) -> None:
        plant, clock, recover = self.plant, self._clock, self.commands.recover
        presence = Presence(journal, clock)
        self._sources = [SourceRunner(c, journal, presence, self.live, clock, recover) for c in plant.sources]
        self._processors = [ProcessorRunner(c, journal, self.live, clock) for c in plant.processors]
        self._sinks = [SinkRunner(c, journal, clock, self._inbox(c)) for c in plant.sinks]
        if plant.historian is not None:
            self._historian = HistorianRunner(plant.historian, journal, clock)
        for config, source in zip(plant.sources, self._sources, strict=True):
            for info in config.declared() or ():
                self._source_of[info.tag] = source
        # Every reader must be known before the first sample, else trimming could pass it by.
        for reading in (*self._readers(), *self._processors):
            await journal.reader(reading.name)
        with contextlib.suppress(Unavailable):  # a disk that refuses is said by the components
            await presence.recover()
        for runner in (*self._readers(), *self._processors):
            runner.start()
        for number, source in enumerate(self._sources):
            source.start(number * APART)
        if plant.processors:
            self._ticking = asyncio.create_task(self._tick(), name="clock tick")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Release what is pressed, stop sources, let sinks take the rest, stop them, close the journal."""
        await self.commands.__aexit__(kind, error, trace)
        if self._ticking is not None:
            self._ticking.cancel()
        hung = await self._stop(self._sources)
        await self._drain()
        hung += await self._stop([*self._processors, *self._readers()])
        for name in hung:
            logger.error(f"{name} did not stop within {STOP_SECONDS:.0f} s and is left behind", component=name)
        await self._journal.close()

    async def _stop(self, runners: Sequence[Runner]) -> list[str]:
        stopped = await asyncio.gather(*(runner.stop(STOP_SECONDS) for runner in runners))
        return [runner.name for runner, done in zip(runners, stopped, strict=True) if not done]

    async def _drain(self) -> None:
        """Wait until every running reader has caught up, at most DRAIN_SECONDS."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                readers = (*self._processors, *self._readers())
                # Lag is a difference of two numbers that several tasks move: looking again is simpler than an event.
                while any(r.status().state == "running" and r.lag()[0] for r in readers):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    def _readers(self) -> list[SinkRunner]:
        return [*self._sinks, *([self._historian] if self._historian else [])]

    def _runners(self) -> list[Runner]:
        return [*self._readers(), *self._processors, *self._sources]

    async def _tick(self) -> None:
        """Journal the time once a second: the only clock that processors see (docs/specs/time.md)."""
        while True:
            now = self._clock()
            try:
                await self._journal.append(Batch("$clock", now, ("$clock/tick",), (now,), (now,)))
            except Unavailable:
                pass  # the components say so
            except Exception:
                logger.exception("the clock could not be journalled; it will be tried again")
            await asyncio.sleep(1 - self._clock() / 1e9 % 1)

    def _inbox(self, config: SinkConfig) -> Inbox | None:
        """Where this sink's messages go that ask for a value to be written."""
        allowed = config.commanded()
        return None if allowed is None else CommandInbox(self.commands, allowed, config.name)

    async def _execute(self, command: Command) -> Outcome:
        """Give a command to the source that has its tag."""
        # What only the other side declares (topics, Sparkplug's births) is known by what it has given.
        runner = self._source_of.get(command.tag) or next((s for s in self._sources if s.gives(command.tag)), None)
        if runner is None:
            return Outcome(command.id, done=False, detail=f"no source gives the tag {command.tag}")
        return await runner.execute(command)

    # ---- what the console and the CLI ask -----------------------------------------------------------

    @property
    def historian(self) -> Historian | None:
        """The long-term store while it is connected."""
        return self._historian.store if self._historian else None

    def components(self) -> list[ComponentStatus]:
        """Every component as it stands: sources, processors, sinks, the historian."""
        return [runner.status() for runner in (*self._sources, *self._processors, *self._readers())]

    async def ledger(self) -> list[LedgerRow]:
        """Every sum of the loss ledger."""
        return await self._journal.ledger()

    async def dead_letters(self, limit: int = 1000) -> list[DeadLetter]:
        """The newest samples that a sink refused."""
        return await self._journal.dead_letters(limit)

    async def retry_dead_letters(self, ids: Sequence[int]) -> list[int]:
        """Offer refused samples once more to the sink that refused them; the ids that there were."""
        return await self._journal.retry(ids)

    async def drop_dead_letters(self, ids: Sequence[int]) -> int:
        """Throw refused samples away; how many letters there were."""
        return await self._journal.drop(ids)

    async def journal_state(self) -> JournalState:
        """How full the journal is."""
        return await self._journal.state()

    async def edit_stops(self, machine: str, edit: str) -> int:
        """Journal what a person says of a machine's stops (docs/connectors/machine.md); raises Unavailable.

        Its time, ns UTC, names it among all that is said of the machine.
        """
        now = self._clock()
        try:
            async with asyncio.timeout(EDIT_SECONDS):
                said = Batch("$edit", now, (f"$edit/{machine}",), (now,), (edit,))
                await self._journal.append(said, only_awaited=True)
        except TimeoutError as error:
            raise Unavailable("the journal is full; it takes nothing until its readers have caught up") from error
        return now

    async def restart(self, name: str) -> None:
        """Restart a component now; KeyError when there is none of this name."""
        await self._named(name).restart()

    async def pause(self, name: str) -> None:
        """Stop a component until ``resume``; its journal entries wait. KeyError when there is none of this name."""
        await self._named(name).pause()

    async def resume(self, name: str) -> None:
        """Go on after ``pause``; KeyError when there is none of this name."""
        await self._named(name).resume()

    def _named(self, name: str) -> Runner:
        for runner in self._runners():
            if runner.name == name:
                return runner
        raise KeyError(name)
