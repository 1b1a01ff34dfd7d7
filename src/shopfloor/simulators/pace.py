"""The time of a simulation: the past in quick motion, and from the present on as it passes."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NoReturn

SCAN: Final = 0.1
"""Seconds from one scan of a simulated PLC to the next."""
_LOOK: Final = 0.1
"""Seconds after which it is looked at the clock again at the latest."""


class Pace:
    """Simulated time runs from ``begin`` at ``speed`` until it has caught up with the clock, then with it."""

    def __init__(self, begin: int, speed: float = 1.0, clock: Callable[[], int] = time.time_ns) -> None:
        """``begin`` is in ns UTC. Raises ValueError when it lies in the future or nothing would move."""
        self._clock = clock
        self._begin = begin
        self._speed = speed
        self._start = clock()
        if begin > self._start:
            raise ValueError("it cannot begin in the future")
        if not speed > 0:
            raise ValueError("the speed must be above 0")

    def now(self) -> int:
        """The simulated time, ns UTC; never later than the clock's."""
        now = self._clock()
        return min(now, self._begin + int((now - self._start) * self._speed))

    async def until(self, moment: int) -> None:
        """Wait until it is so late."""
        while (left := moment - self.now()) > 0:  # noqa: ASYNC110  # a clock tells nobody
            await asyncio.sleep(min(_LOOK, left / 1e9 / max(self._speed, 1.0)))


async def scans(scan: Callable[[float], object], every: float = SCAN) -> NoReturn:
    """Call ``scan`` with the seconds since the last time, as a PLC's cycle does, until cancelled."""
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        await asyncio.sleep(every)
        now = loop.time()
        scan(now - last)
        last = now
