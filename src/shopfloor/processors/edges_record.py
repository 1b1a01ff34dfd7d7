"""What is known of a signal that is on or off, so that a sample that comes late still finds its place.

A signal's samples are kept in *windows*: neighbours in the order of their times, nothing missing in between. The last
window has the newest samples. When an older one leaves it, what is before is closed: what comes with such a time is
known already, or too late. Only where the signal was unknown for a while (bad quality, source lost) may a device have
stored what nobody heard: there a window of its own stays open.

Which edges there are follows from the windows alone, so the order of coming does not matter to what is in them.
"""

from bisect import bisect_right
from collections import Counter
from typing import Final

import msgspec

OFF: Final = 0
ON: Final = 1
UNKNOWN: Final = 2

KEPT: Final = 16
"""Samples in a window."""
OPEN: Final = 8
"""Windows, the newest among them."""


class Point(msgspec.Struct, array_like=True, frozen=True):
    """A sample: the signal's level at a time."""

    time: int
    level: int


class Rule(msgspec.Struct, frozen=True):
    """Which edges count."""

    rising: bool
    falling: bool
    debounce: int
    """ns for which the signal must have rested before."""

    def counts(self, level: int, since: int, point: Point) -> bool:
        """Whether a unit is done by the change to ``point`` of a signal that was at ``level`` since then."""
        rose = self.rising and level == OFF and point.level == ON
        fell = self.falling and level == ON and point.level == OFF
        return (rose or fell) and point.time - since >= self.debounce


class Window(msgspec.Struct, array_like=True):
    """Neighbouring samples in the order of their times; of the same time, in the order in which they came."""

    since: int
    """When the run of equal levels began to which the first sample belongs."""
    points: list[Point]

    def edges(self, rule: Rule) -> list[int]:
        """The times of the edges that count."""
        found: list[int] = []
        since, level = self.since, self.points[0].level
        for point in self.points:
            if point.level != level:
                if rule.counts(level, since, point):
                    found.append(point.time)
                since, level = point.time, point.level
        return found

    def rested(self) -> int:
        """When the run of equal levels began to which the last sample belongs."""
        level = self.points[-1].level
        for i in range(len(self.points) - 1, 0, -1):
            if self.points[i - 1].level != level:
                return self.points[i].time
        return self.since

    def drop(self) -> None:
        """Close what is before the second sample."""
        first = self.points.pop(0)
        if self.points[0].level != first.level:
            self.since = self.points[0].time


class Taken(msgspec.Struct, frozen=True):
    """What a sample changed: times of edges that are there now, and of those that are no more."""

    added: list[int]
    removed: list[int]


NOTHING: Final = Taken([], [])


class Record(msgspec.Struct, array_like=True):
    """The windows of one signal, in the order of their times."""

    windows: list[Window] = []
    broken: bool = False
    """Nobody listened since the newest sample: the next one is a baseline."""

    @property
    def newest(self) -> Point | None:
        """The newest sample."""
        return self.windows[-1].points[-1] if self.windows else None

    @property
    def known(self) -> bool:
        """Whether it is known that the signal is on or off now."""
        return self.newest is not None and self.newest.level != UNKNOWN and not self.broken

    def take(self, point: Point, rule: Rule) -> Taken | None:
        """Put a sample into its place; None when it comes too late to have one."""
        if not self.windows:
            self.windows.append(Window(point.time, [point]))
            return NOTHING
        live = self.windows[-1]
        if self.broken and point.time >= live.points[-1].time:
            self.broken = False
            live.points += [Point(point.time, UNKNOWN), point]
            self._trim(live)
            return NOTHING
        window = next((w for w in reversed(self.windows) if w.points[0].time <= point.time), None)
        if window is None or (window is not live and point.time > window.points[-1].time):
            return None
        return self._insert(window, point, rule)

    def _insert(self, window: Window, point: Point, rule: Rule) -> Taken:
        points = window.points
        place = bisect_right(points, point.time, key=lambda other: other.time)
        i = place
        while i and points[i - 1].time == point.time:
            if points[i - 1].level == point.level:
                return NOTHING  # the very same again
            i -= 1
        taken = NOTHING
        if place == len(points):
            if points[-1].level != point.level and rule.counts(points[-1].level, window.rested(), point):
                taken = Taken([point.time], [])
            points.append(point)
        else:
            before = Counter(window.edges(rule))
            points.insert(place, point)
            after = Counter(window.edges(rule))
            if before != after:
                taken = Taken(sorted((after - before).elements()), sorted((before - after).elements()))
        self._trim(window)
        return taken

    def _trim(self, window: Window) -> None:
        points = window.points
        while len(points) > KEPT:
            if (still := _still_unknown(points)) is not None:
                del points[still]
            elif window is self.windows[-1] and points[1].level == UNKNOWN != points[0].level:
                self._leave_open(window)
            else:
                window.drop()

    def _leave_open(self, live: Window) -> None:
        """What nobody heard may still come: from the sample before the unknown to the one after it."""
        after = next((i for i, point in enumerate(live.points) if i and point.level != UNKNOWN), len(live.points) - 1)
        self.windows.insert(-1, Window(live.since, live.points[: after + 1]))
        del live.points[:after]
        live.since = live.points[0].time
        del self.windows[:-OPEN]


def _still_unknown(points: list[Point]) -> int | None:
    """A sample in the middle of those that say that the signal is still unknown: it adds nothing."""
    for i in range(1, len(points) - 1):
        if points[i - 1].level == points[i].level == points[i + 1].level == UNKNOWN:
            return i
    return None
