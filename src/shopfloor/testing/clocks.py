"""Clocks that a test moves by hand, and instants written the way people write them."""

from datetime import UTC, datetime, timedelta
from typing import Final

SECOND: Final = 10**9
"""Nanoseconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def instant(text: str) -> int:
    """``2026-03-29T01:30:00+01:00`` as ns UTC, to the microsecond. Raises ValueError without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset; write Z or +01:00 behind it")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


class ManualClock:
    """A clock that stands still until the test moves it; call it for ns UTC.

    It fits wherever the product takes a ``Callable[[], int]`` as its clock, monotonic ones included.
    """

    def __init__(self, now: int | str = "2026-01-05T06:00:00Z") -> None:
        """Start at ``now``: ns UTC, or an instant as text (by default a Monday, six o'clock)."""
        self.now = instant(now) if isinstance(now, str) else now

    def __call__(self) -> int:
        """The time, ns."""
        return self.now

    def advance(self, nanoseconds: int) -> int:
        """Let time pass and return the new time. Raises ValueError for a step back: that is ``jump``."""
        if nanoseconds < 0:
            raise ValueError("time does not pass backwards; use jump() to test a clock that was set back")
        self.now += nanoseconds
        return self.now

    def jump(self, nanoseconds: int) -> int:
        """Set the clock forward or back as an administrator or NTP would, and return the new time."""
        self.now += nanoseconds
        return self.now


class TickingClock(ManualClock):
    """A manual clock that moves on by ``step`` ns at every call: no two readings are the same."""

    def __init__(self, now: int | str = "2026-01-05T06:00:00Z", step: int = 10**6) -> None:
        """``step`` is in ns, 1 ms by default."""
        super().__init__(now)
        self.step = step

    def __call__(self) -> int:
        """The time, ns, one step after the last one."""
        self.now += self.step
        return self.now
