"""What a scanned source gives, read in the background, and a command to it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from shopfloor.samples import Command, Outcome, Quality, Sample, Value
from shopfloor.seams import Source
from shopfloor.sources.scanning import ScannedConfig
from shopfloor.testing.contracts import same, until


class Taken:
    """Reads in the background and remembers every sample but Shopfloor's own."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.samples: list[Sample] = []

    async def read(self) -> None:
        async with aclosing(self.source.batches()) as batches:
            async for batch in batches:
                self.samples += [sample for sample in batch if not sample.tag.startswith("$")]

    def last(self, tag: str) -> Sample | None:
        return next((sample for sample in reversed(self.samples) if sample.tag == tag), None)

    async def newest(self, tag: str, value: Value, quality: int = Quality.GOOD) -> None:
        def there() -> bool:
            found = self.last(tag)
            return found is not None and same(found.value, value) and found.quality == quality

        await until(there, f"{tag} is {value!r}")


@asynccontextmanager
async def taking(config: ScannedConfig) -> AsyncIterator[Taken]:
    async with config.build() as source:
        taken = Taken(source)
        reading = asyncio.create_task(taken.read())
        try:
            yield taken
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def write(source: Source, tag: str, value: Value, within: float = 60.0) -> Outcome:
    return await source.execute(Command("c", tag, value, "test", time.time_ns() + int(within * 1e9)))
