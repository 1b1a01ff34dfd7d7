"""The newest sample of every tag, in memory: what the console shows and `tap` prints."""

import asyncio
from collections.abc import Iterable

import msgspec

from shopfloor.samples import Batch, Quality, Sample


class Live:
    """The newest sample of each tag by its own time, with a revision that grows with every batch.

    One writer (the pipeline) and any number of viewers in the same event loop.
    """

    def __init__(self) -> None:
        self._latest: dict[str, tuple[int, Sample]] = {}
        self._lost: dict[str, Sample] = {}
        self.revision = 0
        self._changed = asyncio.Event()

    def take(self, batch: Batch) -> None:
        """Note what became durable. Late samples (older than what is known) change nothing."""
        self.revision += 1
        revision, latest = self.revision, self._latest
        for sample in batch:
            known = latest.get(sample.tag)
            if known is None or known[1].time <= sample.time:
                latest[sample.tag] = (revision, sample)
        self._wake()

    def lose(self, tags: Iterable[str]) -> None:
        """Their source is away: what is shown is the last known value, and says so by its quality."""
        self.revision += 1
        for tag in tags:
            known = self._latest.get(tag)
            if known is not None and tag not in self._lost:
                self._lost[tag] = known[1]
                stale = msgspec.structs.replace(known[1], quality=min(known[1].quality, Quality.LAST_KNOWN))
                self._latest[tag] = (self.revision, stale)
        self._wake()

    def regain(self, tags: Iterable[str]) -> None:
        """Their source is back: what has not changed meanwhile is as good as it was."""
        self.revision += 1
        for tag in tags:
            before = self._lost.pop(tag, None)
            known = self._latest.get(tag)
            if before is not None and known is not None and known[1].time == before.time:
                self._latest[tag] = (self.revision, before)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until something is newer than now."""
        await self._changed.wait()

    def __len__(self) -> int:
        return len(self._latest)

    def get(self, tag: str) -> Sample | None:
        """The newest sample of this tag."""
        known = self._latest.get(tag)
        return None if known is None else known[1]

    def samples(self, since: int = 0) -> Iterable[Sample]:
        """The newest sample of each tag that changed after revision ``since``; of every tag by default."""
        return (sample for revision, sample in self._latest.values() if revision > since)
