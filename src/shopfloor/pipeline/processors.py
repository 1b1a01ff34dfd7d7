"""Runs a processor: its output, its state and its position become durable in one transaction."""

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar, Final, Literal

from shopfloor.journal import Entry, Journal, Reader, Tally
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.runner import Runner, was_another
from shopfloor.pipeline.selection import Selection
from shopfloor.plant import ProcessorConfig
from shopfloor.samples import Batch, Sample
from shopfloor.seams import Processor

STORE_EVERY: Final = 10.0
"""Seconds between stored states of a heavy processor: as much is folded again after a crash."""
STORE_SHARE: Final = 0.02
"""Of its time that it may take: a very large state is stored less often."""


class ProcessorRunner(Runner):
    """One processor of the plant file."""

    kind: ClassVar[Literal["processor"]] = "processor"

    def __init__(self, config: ProcessorConfig, journal: Journal, live: Live, clock: Callable[[], int]) -> None:
        """It reads the journal under its own name and writes its output under the same name."""
        super().__init__(config, clock)
        self._build = config.build
        self._selection = Selection(config.name, config.inputs())
        self._journal = journal
        self._live = live
        self._reader: Reader | None = None
        self._folded = 0
        """The last entry that is in the processor's state."""
        self._given = 0
        """The last entry whose output is in the journal."""
        self._tallies: list[Tally] = []
        """Of what was folded since the last stored state."""
        self._store_at = 0.0

    def lag(self) -> tuple[int, int]:
        """Entries that it has not folded yet."""
        return self._journal.lag(max(self._folded, self._reader.position)) if self._reader else (0, 0)

    def dropped(self) -> int:
        """Samples that the journal dropped before it took them, since the start."""
        return self._reader.dropped() if self._reader else 0

    async def work(self) -> None:
        """Take up the last state and fold everything behind it."""
        self._reader = reader = await self._journal.reader(self.name)
        reader.rewind()
        processor = self._build()
        if reader.state:
            try:
                processor.restore(reader.state)
            except (ValueError, KeyError, TypeError) as error:
                raise was_another(self.name, error) from error
        self._folded, self._tallies, self._store_at = reader.position, [], 0.0
        self._given = max(await self._output_until(), reader.position)
        self.running()
        while True:
            await self._fold(processor, reader, await self._read(processor, reader))

    async def _read(self, processor: Processor, reader: Reader) -> list[Entry]:
        """The next entries; when it is told to leave meanwhile, its state is stored on the way out."""
        try:
            return await reader.read()
        except asyncio.CancelledError:
            if self._folded > reader.position:
                reader.commit(self._folded, self._tallies, state=processor.snapshot())
            raise

    async def _output_until(self) -> int:
        """The last entry whose output is in the journal, where it was not stored together with the state."""
        checkpoint = await self._journal.checkpoint(self.name)
        return int.from_bytes(checkpoint) if checkpoint else 0

    async def _fold(self, processor: Processor, reader: Reader, entries: list[Entry]) -> None:
        results: list[Sample] = []
        for entry in entries:
            batch = self._selection.take(entry, self._tallies)
            if batch is None:
                continue
            found = processor.process(batch)
            if entry.offset > self._given:  # else a heavy one folds again what it had given before a restart
                results.extend(found)
            self._tallies.append(Tally(entry.offset, entry.source, "delivered", len(batch), entry.received))
            self.samples += len(batch)
        self._folded = entries[-1].offset
        output = Batch.of(self.name, self._clock(), results) if results else None
        await self._commit(processor, reader, output)
        self._given = max(self._given, self._folded)
        if output is not None:
            self._live.take(output)

    async def _commit(self, processor: Processor, reader: Reader, output: Batch | None) -> None:
        """Output, state and position in one transaction.

        The state of a heavy processor is stored now and then. In between the output says by its checkpoint how far
        it reaches, so that what is folded again after a restart gives nothing twice.
        """
        if not processor.heavy or time.monotonic() >= self._store_at:
            begun = time.monotonic()
            # In a thread, so that nobody has to wait for a large one; nothing is folded meanwhile.
            state = await asyncio.to_thread(processor.snapshot) if processor.heavy else processor.snapshot()
            tallies, self._tallies = self._tallies, []
            await reader.commit(self._folded, tallies, state=state, output=output)
            stored = time.monotonic()
            self._store_at = stored + max(STORE_EVERY, (stored - begun) / STORE_SHARE)
        elif output is not None:
            output.checkpoint = self._folded.to_bytes(8)
            await reader.commit(reader.position, output=output)
