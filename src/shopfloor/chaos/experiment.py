"""Break, wait, mend, and count: each fault on the same running stage, the machine measuring all the time."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import msgspec

from shopfloor.chaos.faults import Fault
from shopfloor.chaos.stage import Stage
from shopfloor.samples import Unavailable

_LOOK_EVERY: Final = 0.1
_SETTLE: Final = 1.0
"""Seconds of quiet before and after each fault."""
_PATIENCE: Final = 60.0
"""Seconds that all may take to arrive after the fault is mended; what has not come by then counts as lost."""


class Finding(msgspec.Struct, frozen=True):
    """What became of the samples that were measured during a fault, and a moment before and after it."""

    name: str
    title: str
    seconds: float
    """How long the fault lasted."""
    measured: int
    """Samples, as all counts here."""
    held: int
    lost: int
    doubled: int
    """Counted more than once by the MES."""
    again: int
    """Requests that came again under a key that the MES knew, and were counted once."""
    depth: int
    """The most that waited: journal entries for the MES, and files that Shopfloor could not take."""
    recovery: float
    """Seconds from mending until nothing waited any more."""

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing doubled."""
        return not self.lost and not self.doubled


async def experiments(
    faults: Sequence[Fault], folder: Path, seconds: float, rate: float, said: Callable[[str], None]
) -> AsyncGenerator[Finding]:
    """Each fault in turn; ``said`` gets what is to be seen meanwhile. Raises Unavailable when nothing starts."""
    async with Stage(folder, rate) as stage:
        await _arrived(stage, 0)
        for fault in faults:
            yield await _experiment(stage, fault, seconds, said)


async def _experiment(stage: Stage, fault: Fault, seconds: float, said: Callable[[str], None]) -> Finding:
    said(f"{fault.title} …")
    first, before = len(stage.measured), await stage.came_again()
    await asyncio.sleep(_SETTLE)
    begun = time.monotonic()
    await fault.begin(stage)
    depth = await _watch(stage, begun + seconds, said)
    lasted = time.monotonic() - begun
    mended = time.monotonic()
    await fault.end(stage)
    depth = max(depth, await _drained(stage, mended + _PATIENCE, said))
    recovery = time.monotonic() - mended
    await asyncio.sleep(_SETTLE)
    lost, doubled, measured = await _arrived(stage, first)
    again = await stage.came_again()  # counts anew when the MES was started again
    return Finding(
        name=fault.name,
        title=fault.title,
        seconds=round(lasted, 1),
        measured=measured,
        held=measured - lost,
        lost=lost,
        doubled=doubled,
        again=again - before if again >= before else again,
        depth=depth,
        recovery=round(recovery, 1),
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


async def _drained(stage: Stage, deadline: float, said: Callable[[str], None]) -> int:
    """Wait until what had piled up is gone; a file or an entry or two are always under way."""
    most = 0
    while time.monotonic() < deadline:
        entries = await stage.waiting()
        waiting = (entries or 0) + await stage.unread()
        most = max(most, waiting)
        if entries is not None and waiting <= stage.under_way:
            break
        await asyncio.sleep(_LOOK_EVERY)
    said(f"  waited at most: {most:,}")
    return most


async def _arrived(stage: Stage, first: int) -> tuple[int, int, int]:
    """How many samples are lost, doubled and measured of the parts from number ``first`` on, after a last wait."""
    last = len(stage.measured) + 1
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(httpx.HTTPError):
            taken = await stage.taken()
            expected = list(stage.expected(first, last))
            lost = sum(not taken[sample] for sample in expected)
            if (not lost and len(stage.measured) >= last) or time.monotonic() > deadline:
                return lost, sum(taken[sample] > 1 for sample in expected), len(expected)
        if time.monotonic() > deadline:
            raise Unavailable("the simulated MES does not answer any more, so nothing can be counted")
        await asyncio.sleep(_LOOK_EVERY)
