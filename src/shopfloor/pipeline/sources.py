"""Runs a source: what it yields becomes durable, then visible, and only then is the generator resumed."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import ClassVar, Final, Literal

import structlog

from shopfloor.journal import Journal
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.presence import Presence
from shopfloor.pipeline.runner import Runner
from shopfloor.plant import SourceConfig
from shopfloor.samples import Batch, Command, Outcome, Quality, Sample, Unavailable
from shopfloor.seams import Source

logger: Final = structlog.get_logger("shopfloor.pipeline")


class SourceRunner(Runner):
    """One source of the plant file."""

    kind: ClassVar[Literal["source"]] = "source"

    def __init__(
        self,
        config: SourceConfig,
        journal: Journal,
        presence: Presence,
        live: Live,
        clock: Callable[[], int],
        connected: Callable[[], Awaitable[None]],
    ) -> None:
        """``connected`` is awaited beside the work each time the source has connected."""
        super().__init__(config, clock)
        self._build = config.build
        self._journal = journal
        self._presence = presence
        self._live = live
        self._connected = connected
        self._source: Source | None = None
        self._unstorable: set[str] = set()
        self._tags: set[str] = set()
        self._kept: Source | None = None

    async def work(self) -> None:
        """Connect, go on behind the last durable checkpoint, make every batch durable."""
        source = self._kept or self._build()
        self._kept = None
        checkpoint = await self._journal.checkpoint(self.name)
        if checkpoint is not None:
            source.resume(checkpoint)
        try:
            await self._read(source)
        except Unavailable:
            self._kept = source  # it may still have a session there to come back to
            raise

    async def _read(self, source: Source) -> None:
        async with source:
            self._source = source
            try:
                await self._connected()  # a button must come up also while the journal is full
                await self._presence.note(self.name, connected=True)
                self.running()  # not before: a disk that refuses is no return
                self._live.regain(self._tags)
                async with aclosing(source.batches()) as batches:
                    async for batch in batches:
                        await self._take(batch)
            finally:
                self._source = None
                self._live.lose(self._tags)
                await self._presence.lost(self.name)

    async def _take(self, batch: Batch) -> None:
        if batch.complete:
            await self._presence.complete(self.name)
        if not len(batch) and batch.checkpoint is None and not batch.lost_before:
            return
        batch.source = self.name
        again = batch.checkpoint is not None  # then it comes again when we stop before it is stored
        try:
            await self._journal.append(batch, only_awaited=again)
        except ValueError as error:
            batch = self._storable(batch, str(error))
            await self._journal.append(batch, only_awaited=again)
        self._live.take(batch)
        self._tags.update(batch.tags)
        self.samples += len(batch)

    def _storable(self, batch: Batch, error: str) -> Batch:
        """The batch with every value that no column can hold replaced by a bad sample: refused visibly, tag by tag."""
        samples: list[Sample] = []
        for sample in batch:
            if _fits(sample):
                samples.append(sample)
                continue
            if sample.tag not in self._unstorable:
                self._unstorable.add(sample.tag)
                logger.warning(
                    "a value cannot be stored, the tag turns bad", component=self.name, tag=sample.tag, error=error
                )
            samples.append(Sample(sample.tag, sample.time, None, Quality.CONFIGURATION_ERROR, sample.status))
        storable = Batch.of(batch.source, batch.received, samples, checkpoint=batch.checkpoint)
        storable.lost_before = batch.lost_before
        return storable

    def gives(self, tag: str) -> bool:
        """Whether it has given a sample of this tag since the start."""
        return tag in self._tags

    async def execute(self, command: Command) -> Outcome:
        """Hand a command to the source if it is connected."""
        if self._source is None:
            return Outcome(command.id, done=False, detail=f"{self.name} is not connected: nothing was written")
        return await self._source.execute(command)


def _fits(sample: Sample) -> bool:
    value = sample.value
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, str):
        return _encodes(value)
    return value is None or type(value) in (float, bytes)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
