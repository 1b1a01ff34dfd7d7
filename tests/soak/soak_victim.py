"""The plant in a process of its own, to be killed, and its clock."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uvloop

from shopfloor import plant
from shopfloor.pipeline import Pipeline


@dataclass(frozen=True)
class Clock:
    """The plant's time, the same in every life; it goes faster than ours, so that hours and days close meanwhile."""

    begin: int
    """What it is at ``real``, ns UTC."""
    real: int
    speed: int

    def __call__(self) -> int:
        """Now, ns UTC."""
        return self.begin + (time.time_ns() - self.real) * self.speed


class Halting:
    """A clock that can be stopped: then nothing that goes by time comes any more."""

    def __init__(self, clock: Clock) -> None:
        """It goes with ``clock``."""
        self._clock = clock
        self._at: int | None = None

    def __call__(self) -> int:
        """Now, ns UTC."""
        return self._clock() if self._at is None else self._at

    def halt(self) -> None:
        """For ever, at the next whole second: who waits for one waits as long as ever."""
        self._at = (self() // 10**9 + 1) * 10**9


def live(text: str, folder: str, secrets: Mapping[str, str], *clock: int) -> None:
    """Run the plant of this text until killed."""
    uvloop.run(_live(text, Path(folder), secrets, Clock(*clock)))


async def _live(text: str, folder: Path, secrets: Mapping[str, str], clock: Clock) -> None:
    async with Pipeline(plant.parse(text, "soak.yaml", folder, secrets), clock):
        await asyncio.Event().wait()
