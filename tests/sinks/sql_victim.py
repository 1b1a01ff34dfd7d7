"""A plant in a process of its own, to be killed: numbers → journal → a database."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from shopfloor.pipeline import Pipeline
from shopfloor.plant import HistorianConfig, JournalConfig, Plant, SinkConfig, Site, SourceConfig
from shopfloor.samples import Batch, TagInfo
from shopfloor.seams import Source

NOW = 1_767_592_800_123_456_789
STEP = 200
"""Samples in a batch."""


class Numbers(Source):
    """Counts on from where the journal has it, as a whole number, its double and its text."""

    def __init__(self, pause: float) -> None:
        self.next = 0
        self.pause = pause

    def resume(self, checkpoint: bytes) -> None:
        self.next = int(checkpoint)

    async def batches(self) -> AsyncGenerator[Batch]:
        while True:
            numbers = range(self.next, self.next + STEP)
            self.next += STEP
            yield Batch(
                "numbers", NOW, [f"m/{i % 3}" for i in numbers], [NOW + i for i in numbers],
                [i if i % 3 == 0 else float(i) if i % 3 == 1 else str(i) for i in numbers],
                checkpoint=str(self.next).encode(),
            )  # fmt: skip
            await asyncio.sleep(self.pause)


class NumbersConfig(SourceConfig):
    type: str = "numbers"
    pause: float = 0.002

    def build(self) -> Numbers:
        return Numbers(self.pause)

    def declared(self) -> list[TagInfo]:
        return [TagInfo(f"m/{i}") for i in range(3)]


def plant(folder: Path, store: SinkConfig | HistorianConfig, *, counts: bool = True, pause: float = 0.002) -> Plant:
    """The victim's plant; ``counts``: whether numbers still come; ``pause``: seconds between their batches."""
    return Plant(
        plant=Site(site="test"),
        sources=[NumbersConfig(name="numbers", pause=pause)] if counts else [],
        sinks=[store] if isinstance(store, SinkConfig) else [],
        historian=store if isinstance(store, HistorianConfig) else None,
        journal=JournalConfig(path=folder / "journal.db"),
        console=None,
    )


def live(folder: str, store: SinkConfig | HistorianConfig, pause: float = 0.002) -> None:
    """Run until killed."""
    asyncio.run(_live(plant(Path(folder), store, pause=pause)))


async def _live(described: Plant) -> None:
    async with Pipeline(described):
        await asyncio.Event().wait()
