"""How many units there were in each hour of the site's clock, told when the hour is over and again when it changes."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from shopfloor.kpi.calendar import Calendar

MOST: Final = 7 * 24
"""Hours without a sample that are told one by one when the next comes; of a longer pause, the last ones."""
_HOUR: Final = 3600 * 10**9


class Hour(NamedTuple):
    """One hour, ns UTC: start <= t < end."""

    start: int
    end: int


class Hours:
    """The hours of one time zone, the same ones as those of the KPIs; the last one asked for is remembered."""

    def __init__(self, timezone: str) -> None:
        """``timezone`` is a name of the IANA's list."""
        self._calendar = Calendar(timezone)
        self._marks = lru_cache(maxsize=16)(self._calendar.hours)
        self._last = Hour(0, 0)

    def around(self, time: int) -> Hour:
        """The hour of the local clock around an instant, ns UTC."""
        if not self._last.start <= time < self._last.end:
            marks = self._marks(self._calendar.local(time))
            place = bisect_right(marks, time)
            self._last = Hour(marks[place - 1], marks[place])
        return self._last


class Told(msgspec.Struct, frozen=True):
    """An hour's record."""

    end: int
    """ns UTC."""
    units: int
    sure: bool
    """False: the signal was not known all the time."""


class _Units(msgspec.Struct, array_like=True):
    end: int
    units: int = 0
    sure: bool = True


class Production(msgspec.Struct, array_like=True):
    """The hours of one signal that are not over, or may still change."""

    hours: dict[int, _Units] = {}
    """By their start, ns UTC; one that is not here had no unit, and nothing uncertain."""
    following: int = 0
    """The start of the first hour that was not told yet."""
    ends: int = 0
    """Its end, as far as it was asked for."""
    changed: list[int] = []
    """Hours that were told and are another now."""
    doubted: list[int] = []
    """Hours that became uncertain since the newest sample came."""

    def begin(self, time: int, clock: Hours) -> None:
        """The first sample: what was before is not known."""
        hour = clock.around(time)
        self.following = hour.start
        if time > hour.start:
            self.doubt(time, clock)

    def count(self, time: int, units: int, clock: Hours) -> None:
        """Units more, or fewer, at this time."""
        self._of(clock.around(time)).units += units
        self._note(clock.around(time).start)

    def doubt(self, time: int, clock: Hours) -> None:
        """The signal was not known for some of the hour around this time."""
        hour = self._of(clock.around(time))
        if hour.sure:
            hour.sure = False
            self.doubted.append(clock.around(time).start)
            self._note(clock.around(time).start)

    def trust(self) -> None:
        """Nothing is missing since the newest sample."""
        for start in self.doubted:
            if start in self.hours:
                self.hours[start].sure = True
                self._note(start)
        self.settle()

    def settle(self) -> None:
        """A sample came: what is uncertain before it stays so."""
        self.doubted = []

    def until(self, now: int, clock: Hours, *, known: bool) -> Iterator[Told]:
        """Tell each hour that is over now and was not told; ``known``: whether the signal has been since the last."""
        if now - self.following > MOST * _HOUR:
            resumed = clock.around(now - MOST * _HOUR).start
            for start in sorted(start for start in self.hours if self.following <= start < resumed):
                yield self._told(clock.around(start))
            self.following = resumed
        if now < self.ends:
            return
        while (hour := clock.around(self.following)).end <= now:
            if not known:
                self.doubt(hour.start, clock)
            self.following = hour.end
            yield self._told(hour)
        self.ends = hour.end

    def corrections(self, clock: Hours, besides: int | None = None) -> Iterator[Told]:
        """Tell again what changed, but for the hour around the time ``besides``, in which more may follow at once."""
        if not self.changed:
            return
        spared = None if besides is None else clock.around(besides).start
        for start in [start for start in self.changed if start != spared]:
            self.changed.remove(start)
            yield self._told(clock.around(start))

    def forget(self, windows: Iterable[tuple[int, int]]) -> None:
        """Keep only hours that can still change: not told, changed, or touched by one of the windows (first, last)."""
        kept = list(windows)
        self.hours = {
            start: hour
            for start, hour in self.hours.items()
            if start >= self.following
            or start in self.changed
            or any(first < hour.end and last >= start for first, last in kept)
        }

    def _of(self, hour: Hour) -> _Units:
        return self.hours.setdefault(hour.start, _Units(hour.end))

    def _note(self, start: int) -> None:
        if start < self.following and start not in self.changed:
            self.changed.append(start)

    def _told(self, hour: Hour) -> Told:
        found = self.hours.get(hour.start, _Units(hour.end))
        return Told(hour.end, found.units, found.sure)
