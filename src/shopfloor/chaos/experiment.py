"""Break, wait, mend, and count: each fault on the same running stage, the machine measuring all the time."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from shopfloor.chaos.databases import Database, Sample
from shopfloor.chaos.faults import Fault
from shopfloor.chaos.stage import Stage
from shopfloor.samples import Unavailable

_LOOK_EVERY: Final = 0.1
_SETTLE: Final = 1.0
"""Seconds of quiet before and after each fault."""
_PATIENCE: Final = 60.0
"""Seconds in which something more must arrive after the fault is mended; what does not come then counts as lost.
Those that are well get as long while the others are not."""


class Count(msgspec.Struct, frozen=True):
    """What one destination made of the samples that were measured during a fault. All counts are samples."""

    destination: str
    title: str
    held: int
    lost: int
    doubled: int
    """Counted more than once."""


class Finding(msgspec.Struct, frozen=True):
    """What became of the samples that were measured during a fault, and a moment before and after it."""

    name: str
    title: str
    seconds: float
    """How long the fault lasted."""
    measured: int
    """Samples; each has to be in every destination."""
    lost: int
    doubled: int
    """Of all destinations together."""
    counts: Sequence[Count]
    """One for each destination."""
    again: int
    """Requests that came again under a key that the MES knew, and were counted once."""
    depth: int
    """The most that waited: journal entries for the slowest destination, and files that Shopfloor could not take."""
    beside: float | None
    """Seconds until the destinations that were well had all that was measured until then, the fault going on; None:
    none was well."""
    delayed: int
    """Samples that these had not when nothing more had come to them for a minute."""
    recovery: float
    """Seconds from mending until nothing waited any more."""
    recovered: bool
    """Whether that came to be; else more came in than went out for the last minute of ``recovery``."""
    seen: Sequence[str]
    """In the middle of what the fault came, where that was made sure; else empty."""

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing doubled, nothing delayed that had no reason to be."""
        return not (self.lost or self.doubled or self.delayed)


async def experiments(
    faults: Sequence[Fault],
    folder: Path,
    seconds: float,
    rate: float,
    said: Callable[[str], None],
    kinds: Sequence[type[Database]] = (),
) -> AsyncGenerator[Finding]:
    """Each fault in turn, with these databases beside the MES; ``said`` gets what is to be seen meanwhile.

    Raises Unavailable when something does not start, or does not come back.
    """
    async with Stage(folder, rate, kinds) as stage:
        await _arrived(stage, 0)
        for fault in faults:
            yield await _experiment(stage, fault, seconds, said)


async def _experiment(stage: Stage, fault: Fault, seconds: float, said: Callable[[str], None]) -> Finding:
    said(f"{fault.name}: {fault.title} …")
    first, before = len(stage.measured), await stage.came_again()
    await asyncio.sleep(_SETTLE)
    begun = time.monotonic()
    seen = await fault.begin(stage) or ()
    for words in seen:
        said(f"  {words}")
    depth = await _watch(stage, time.monotonic() + seconds, said)
    beside, delayed = await _beside(stage, fault, first)
    mended = time.monotonic()
    await fault.end(stage)
    most, recovered = await _drained(stage, said)
    recovery = time.monotonic() - mended
    await asyncio.sleep(_SETTLE)
    counts, measured = await _arrived(stage, first)
    again = await stage.came_again()  # counts anew when the MES was started again
    return Finding(
        name=fault.name,
        title=fault.title,
        seconds=round(mended - begun, 1),
        measured=measured,
        lost=sum(count.lost for count in counts),
        doubled=sum(count.doubled for count in counts),
        counts=counts,
        again=again - before if again >= before else again,
        depth=max(depth, most),
        beside=beside,
        delayed=delayed,
        recovery=round(recovery, 1),
        recovered=recovered,
        seen=seen,
    )


async def _watch(stage: Stage, until: float, said: Callable[[str], None]) -> int:
    """How much waited at most."""
    most, told = 0, time.monotonic()
    while time.monotonic() < until:
        waiting = await _waiting(stage)
        most = max(most, waiting)
        if time.monotonic() - told > 1:
            told = time.monotonic()
            said(f"  waiting: {waiting:,}")
        await asyncio.sleep(_LOOK_EVERY)
    return most


async def _waiting(stage: Stage) -> int:
    return (await stage.waiting() or 0) + await stage.unread()


async def _beside(stage: Stage, fault: Fault, first: int) -> tuple[float | None, int]:
    """How long it takes, with the fault still there, until the destinations that are well have all that was measured.

    Seconds, None where there is no such destination; and how many samples they have not in the end.
    """
    well = [name for name in stage.titles if name not in fault.hits]
    if not well:
        return None, 0
    begun, expected = time.monotonic(), list(stage.expected(first, len(stage.measured)))
    least, deadline = len(well) * len(expected), begun + _PATIENCE
    while True:
        lacking = least
        with suppress(Unavailable):
            lacking = sum(count.lost for count in await _counts(stage, well, expected, first))
        if not lacking or time.monotonic() > deadline:
            return round(time.monotonic() - begun, 1), lacking
        if lacking < least:
            least, deadline = lacking, time.monotonic() + _PATIENCE
        await asyncio.sleep(_LOOK_EVERY)


async def _drained(stage: Stage, said: Callable[[str], None]) -> tuple[int, bool]:
    """Wait until what had piled up is gone; a file or an entry or two are always under way.

    How much waited at most, and whether it is gone; not so when it has not become less for a while.
    """
    most, least, deadline, gone = 0, None, time.monotonic() + _PATIENCE, False
    while not gone and time.monotonic() < deadline:
        entries = await stage.waiting()
        waiting = (entries or 0) + await stage.unread()
        most = max(most, waiting)
        gone = entries is not None and waiting <= stage.under_way
        if entries is not None and (least is None or waiting < least):
            least, deadline = waiting, time.monotonic() + _PATIENCE
        await asyncio.sleep(_LOOK_EVERY)
    said(f"  waited at most: {most:,}")
    return most, gone


async def _arrived(stage: Stage, first: int) -> tuple[Sequence[Count], int]:
    """What each destination has of the parts from number ``first`` on, after a last wait, and how many samples that is.

    Raises Unavailable when one of them does not answer any more, so that nothing can be counted.
    """
    last = len(stage.measured) + 1
    deadline, least = time.monotonic() + _PATIENCE, None
    while True:
        late, whole = time.monotonic() > deadline, len(stage.measured) >= last
        expected = list(stage.expected(first, last))
        try:
            counts = await _counts(stage, list(stage.titles), expected, first)
        except Unavailable:
            if late:
                raise
        else:
            lost = sum(count.lost for count in counts)
            if late or (whole and not lost):
                return counts, len(expected)
            if least is None or lost < least:
                least, deadline = lost, time.monotonic() + _PATIENCE
        await asyncio.sleep(_LOOK_EVERY)


async def _counts(stage: Stage, destinations: Sequence[str], expected: Sequence[Sample], first: int) -> Sequence[Count]:
    """Of these samples, which are of parts from number ``first`` on. Raises Unavailable."""
    found: list[Count] = []
    for name in destinations:
        held = await stage.held(name, first)
        lost = sum(not held[sample] for sample in expected)
        doubled = sum(held[sample] > 1 for sample in expected)
        found.append(Count(name, stage.titles[name], len(expected) - lost, lost, doubled))
    return found
