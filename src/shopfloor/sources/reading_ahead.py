"""What was read and is not durable yet: reads go on meanwhile, and what they give becomes durable together."""

import asyncio
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from shopfloor.samples import Batch, Value

MOST: Final = 100_000
"""Samples that may wait; then reads wait, too."""
LONGEST: Final = 10.0
"""Seconds that they may wait: what is not durable is gone when the process is."""


class ReadAhead:
    """Between the scan groups of a source, which put, and its generator, which takes."""

    def __init__(self) -> None:
        """Empty."""
        self._waiting: list[Batch] = []
        self._samples = 0
        self._since = 0.0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, batch: Batch) -> None:
        """Add what a read gave; waits while there is too much already, or for too long."""
        await self._room.wait()
        now = asyncio.get_running_loop().time()
        self._since = self._since if self._waiting else now
        self._waiting.append(batch)
        self._samples += len(batch)
        if self._samples >= MOST or now - self._since >= LONGEST:
            self._room.clear()
        self._something.set()

    def wake(self) -> None:
        """Have ``take`` return, also with nothing."""
        self._something.set()

    async def take(self) -> Batch | None:
        """All that waits as one batch, as soon as there is something; None after ``wake``."""
        await self._something.wait()
        self._something.clear()
        batches, self._waiting, self._samples = self._waiting, [], 0
        self._room.set()
        return joined(batches) if batches else None


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch of the samples of several of one source, in their order, received with the last."""
    last = batches[-1]
    if len(batches) == 1:
        return last
    times, qualities = array("q"), array("H")
    for batch in batches:
        times.extend(batch.times)
        qualities.extend(batch.qualities)
    statuses = None
    if any(batch.statuses is not None for batch in batches):
        statuses = array("I", chain.from_iterable((0,) * len(b) if b.statuses is None else b.statuses for b in batches))
    tags = list(chain.from_iterable(batch.tags for batch in batches))
    return Batch(last.source, last.received, tags, times, _values(batches), qualities, statuses=statuses)


def _values(batches: Sequence[Batch]) -> Sequence[Value]:
    """In an array where all are in arrays of the same kind."""
    columns: list[Any] = [batch.values for batch in batches]
    kinds: set[str] = {getattr(values, "typecode", "") for values in columns}
    kind = kinds.pop()
    if kinds or not kind:
        return list(chain.from_iterable(columns))
    return array(kind, b"".join(columns))
