"""What windows can be made of: whatever says what a stretch of time counts as."""

from collections.abc import Iterator
from typing import Protocol

from shopfloor.kpi.account import Account
from shopfloor.kpi.calendar import Calendar, Stretch
from shopfloor.kpi.facts import Touched
from shopfloor.kpi.running import Stop

Stood = tuple[int, bool, tuple[tuple[int, str], ...]]
"""As what a stop counts: its beginning, whether it is a minor one, and from when on which reason counts."""


class Evaluated(Protocol):
    """What windows are made of: a machine, or a line of them."""

    @property
    def plan(self) -> object:
        """What the plant file says of it, as far as it matters to figures; its ``repr`` tells one from another."""
        ...

    def evaluate(self, stretch: Stretch, calendar: Calendar, now: int, /) -> Account:
        """Times and quantities of a stretch as far as ``now``."""
        ...

    def affected(self, touched: Touched, now: int, /) -> Touched:
        """The time whose evaluation a change may reach."""
        ...

    def stood(self, time: int, now: int, /) -> Stood | None:
        """As what the stop counts in which it stood right before ``time``; None when it did not stand."""
        ...

    def stops(self, start: int, end: int, now: int, /) -> Iterator[Stop]:
        """The stops that reach into a span of time, as wholes."""
        ...

    def minor(self, stop: Stop, now: int, /) -> bool:
        """Whether it is a minor one, as far as is known now."""
        ...

    def reasons(self, stop: Stop, now: int, /) -> Iterator[tuple[int, str]]:
        """From when on which reason of a stop counts; one at least."""
        ...

    def forget(self, before: int, now: int, /) -> None:
        """Drop what matters only to the time before."""
        ...

    def settled(self, time: int, /) -> int:
        """Until when, at most until ``time``, its account is settled: what goes on then changes nothing before it."""
        ...

    def goes_on(self, since: int, now: int, /) -> bool | None:
        """Whether it is clear at a glance that it ran from right before ``since`` until now; None: that it stood."""
        ...

    @property
    def edited(self) -> bool:
        """Whether people have said anything of its stops, or reasons count for them only so long."""
        ...
