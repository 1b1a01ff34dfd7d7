"""Runs a processor: its output, its state and its position become durable in one transaction."""

from collections.abc import Callable
from typing import ClassVar, Literal

from shopfloor.journal import Entry, Journal, Reader, Tally
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.runner import Runner
from shopfloor.pipeline.selection import Selection
from shopfloor.plant import ProcessorConfig
from shopfloor.samples import Batch, Sample
from shopfloor.seams import Processor


class ProcessorRunner(Runner):
    """One processor of the plant file."""

    kind: ClassVar[Literal["processor"]] = "processor"

    def __init__(self, config: ProcessorConfig, journal: Journal, live: Live, clock: Callable[[], int]) -> None:
        """It reads the journal under its own name and writes its output under the same name."""
        super().__init__(config, clock)
        self._build = config.build
        self._selection = Selection(config.inputs())
        self._journal = journal
        self._live = live
        self._reader: Reader | None = None

    def lag(self) -> tuple[int, int]:
        """Entries that it has not committed yet."""
        return self._reader.lag() if self._reader else (0, 0)

    async def work(self) -> None:
        """Take up the last state and fold everything behind it."""
        self._reader = reader = await self._journal.reader(self.name)
        reader.rewind()
        processor = self._build()
        if reader.state:
            processor.restore(reader.state)
        self.running()
        while True:
            await self._fold(processor, reader, await reader.read())

    async def _fold(self, processor: Processor, reader: Reader, entries: list[Entry]) -> None:
        tallies: list[Tally] = []
        results: list[Sample] = []
        for entry in entries:
            batch = self._selection.take(entry, tallies)
            if batch is not None:
                results.extend(processor.process(batch))
                tallies.append(Tally(entry.offset, entry.source, "delivered", len(batch), entry.received))
                self.samples += len(batch)
        output = Batch.of(self.name, self._clock(), results) if results else None
        await reader.commit(entries[-1].offset, tallies, state=processor.snapshot(), output=output)
        if output is not None:
            self._live.take(output)
