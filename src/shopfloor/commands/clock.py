"""The clock that commands go by; tests pass one that stands still until they move it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two times that must not be mixed: UTC for records and expiry, monotonic for leases."""

    def now(self) -> int:
        """UTC in ns since 1970."""
        ...

    def monotonic(self) -> int:
        """Nanoseconds since some fixed moment; never jumps."""
        ...

    async def sleep(self, duration: int) -> None:
        """Return when ``duration`` ns have passed on the monotonic clock."""
        ...


class SystemClock:
    """The computer's clocks."""

    def now(self) -> int:
        """UTC in ns since 1970."""
        return time.time_ns()

    def monotonic(self) -> int:
        """Nanoseconds on the monotonic clock."""
        return time.monotonic_ns()

    async def sleep(self, duration: int) -> None:
        """Sleep ``duration`` ns."""
        await asyncio.sleep(max(duration, 0) / 10**9)
