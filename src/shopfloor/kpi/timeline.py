"""Timelines: what is known of a tag at each time, in the order of time however the samples came."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, islice
from math import isfinite
from operator import eq
from typing import Any, Final, NamedTuple

from shopfloor.kpi.account import Quantity
from shopfloor.kpi.column import BAD, MOST, Column, Known

NEVER: Final = 2**63 - 1
"""A time after all others."""


class Touched(NamedTuple):
    """What a new fact may change: time from ``start`` to ``end``, ns UTC."""

    start: int
    end: int


def same(one: Known, other: Known) -> bool:
    """Whether two values are the same thing: 1, 1.0 and true are not."""
    return one is other or (type(one) is type(other) and one == other)


def quantity_of(value: Known) -> Quantity | None:
    """A count; None for what cannot be one: text, NaN, a negative number."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float) and value >= 0 and isfinite(value):
        return value
    return None


class Timeline:
    """The samples of one tag by time; of several with one time the last that came counts.

    A machine that is asked once a second says for hours the same. So it is kept what changed: a *change* is a sample
    with another value than the one before it, a *repeat* any other. Which is which follows from the samples alone, in
    whatever order they came. Of repeats the time is kept, since a late sample in between holds until the next one.
    """

    __slots__ = ("_again", "_changes", "_changing", "_most", "_repeats", "_values", "first", "newest")

    def __init__(self, times: Iterable[int] = (), values: Iterable[Known] = (), most: int = MOST) -> None:
        """With these samples, in the order of time. ``most``: how many changes and repeats are kept unpacked."""
        self._changing, self._again = Column(most), Column(most)
        self._changes, self._values, self._repeats = self._changing.times, self._changing.values, self._again.times
        self._most = most
        self.first: int | None = None
        """The time of the first sample."""
        self.newest = -1
        """The time of the newest sample; -1 while there is none."""
        self.extend(list(times), list(values))

    def __len__(self) -> int:
        """How many samples."""
        return len(self._changing) + len(self._again)

    def _reach(self, time: int) -> None:
        self._changing.reach(time)
        self._again.reach(time)

    # --- taking samples in

    def append(self, time: int, value: Known) -> bool:
        """Take in a sample that is newer than all others; whether it repeats the value before it."""
        self.newest = time
        if self._values:
            last = self._values[-1]
            if last is value or (type(last) is type(value) and last == value):
                self._repeats.append(time)
                if len(self._repeats) >= self._most:
                    self._again.seal()
                return True
        else:
            self.first = time
        self._changes.append(time)
        self._values.append(value)
        if len(self._changes) >= self._most:
            self._changing.seal()
        return False

    def extend(self, times: Sequence[int], values: Sequence[Known]) -> bool:
        """``append`` of samples in the order of time; whether all of them are repeats."""
        if not times:
            return True
        kinds = set(map(type, values))
        if len(kinds) == 1 and self._values and type(self._values[-1]) in kinds:
            last = self._values[-1]
            if values.count(last) == len(values):
                self._repeats.extend(times)
                self.newest = times[-1]
                self._again.seal()
                return True
            if values[0] != last and not any(map(eq, values, values[1:])):
                self._changes.extend(times)
                self._values.extend(values)
                self.newest = times[-1]
                self._changing.seal()
                return False
        repeats = [self.append(time, value) for time, value in zip(times, values, strict=True)]
        return all(repeats)

    def put(self, time: int, value: Known) -> Touched | None:
        """Take a sample in; the time that it may change, None for nothing: it was known."""
        if time > self.newest:
            self.append(time, value)
            return Touched(time, NEVER)
        self._reach(time)
        self.first = time if self.first is None else min(self.first, time)
        changes, values, repeats = self._changes, self._values, self._repeats
        place = bisect_right(changes, time) - 1
        at = bisect_left(repeats, time)
        repeated = at < len(repeats) and repeats[at] == time
        changed = place >= 0 and changes[place] == time
        alike = place >= 0 and same(values[place], value)
        if alike and (repeated or changed):
            return None
        touched = Touched(time, self._following(place, at + repeated) + 1 if time < self.newest else NEVER)
        if alike:
            repeats.insert(at, time)
            return touched
        if repeated:
            del repeats[at]
        self._part(place, at, value)
        if not changed:
            changes.insert(place + 1, time)
            values.insert(place + 1, value)
        elif place > 0 and same(values[place - 1], value):
            del changes[place], values[place]
            repeats.insert(at, time)
        else:
            values[place] = value
        return touched

    def _following(self, place: int, at: int) -> int:
        """The time of the next sample: that of the next change, or of the repeat there."""
        change = self._changes[place + 1] if place + 1 < len(self._changes) else NEVER
        return min(change, self._repeats[at]) if at < len(self._repeats) else change

    def _part(self, place: int, at: int, value: Known) -> None:
        """``value`` comes behind a change and before the repeat ``at``: is the next sample still what it was?"""
        changes, values, repeats = self._changes, self._values, self._repeats
        change = changes[place + 1] if place + 1 < len(changes) else NEVER
        if at < len(repeats) and repeats[at] < change:
            changes.insert(place + 1, repeats[at])
            values.insert(place + 1, values[place])
            del repeats[at]
        elif change < NEVER and same(values[place + 1], value):
            del changes[place + 1], values[place + 1]
            repeats.insert(at, change)

    # --- looking

    def value_at(self, time: int) -> Known:
        """What held at ``time``; BAD when nothing was said yet."""
        self._changing.reach(time)
        place = bisect_right(self._changes, time) - 1
        return self._values[place] if place >= 0 else BAD

    def last(self, time: int) -> int:
        """When the last sample at or before ``time`` was; -1 when there is none."""
        if time >= self.newest:
            return self.newest
        if time < self._changing.floor or time < self._again.floor:
            self._reach(time)
        place = bisect_right(self._changes, time)
        at = bisect_right(self._repeats, time)
        change = self._changes[place - 1] if place else -1
        return max(change, self._repeats[at - 1]) if at else change

    def next(self, time: int) -> int:
        """When the first sample at or after ``time`` was; NEVER when there is none."""
        if time > self.newest:
            return NEVER
        self._reach(time)
        return self._following(bisect_left(self._changes, time) - 1, bisect_left(self._repeats, time))

    def next_said(self, time: int) -> int:
        """When the next sample after ``time`` comes that says anything; NEVER when there is none."""
        at = self.next(time + 1)
        for begin, _, value in self.spells(at) if at < NEVER else ():
            if value is not BAD and value is not None:
                return max(begin, at)
        return NEVER

    def next_count(self, time: int) -> int:
        """When the first sample at or after ``time`` comes that can be a count; NEVER when there is none."""
        at = self.next(time)
        for begin, _, value in self.spells(at) if at < NEVER else ():
            if quantity_of(value) is not None:
                return max(begin, at)
        return NEVER

    def between(self, start: int, end: int) -> Iterator[tuple[int, Known]]:
        """The samples from ``start`` on, before ``end``."""
        repeats = self.repeats(start, end)
        if not repeats:
            return zip(*self.changes(start, end), strict=True)
        told = ((time, self.value_at(time)) for time in repeats)
        return merge(zip(*self.changes(start, end), strict=True), told, key=lambda sample: sample[0])

    def repeats(self, start: int, end: int) -> Sequence[int]:
        """The times of the repeats from ``start`` on, before ``end``."""
        self._again.reach(start)
        return self._repeats[bisect_left(self._repeats, start) : bisect_left(self._repeats, end)]

    def changes(self, start: int, end: int) -> tuple[Sequence[int], Sequence[Known]]:
        """Times and values of the changes from ``start`` on, before ``end``."""
        self._changing.reach(start)
        first, last = bisect_left(self._changes, start), bisect_left(self._changes, end)
        return self._changes[first:last], self._values[first:last]

    def spells(self, start: int) -> Iterator[tuple[int, int, Known]]:
        """From when until when which value was the last that was said, from the one that holds at ``start`` on."""
        self._changing.reach(start)
        place = max(bisect_right(self._changes, start) - 1, 0)
        changes, values = self._changes[place:], self._values[place:]
        return zip(changes, chain(islice(changes, 1, None), (NEVER,)), values, strict=False)

    def back(self, time: int) -> Iterator[tuple[int, Known]]:
        """The changes before ``time``, the newest first."""
        while True:
            self._changing.reach(time)
            # By time, not by place: whoever looks on meanwhile may open what is packed.
            place, floor = bisect_left(self._changes, time) - 1, self._changing.floor
            if place >= 0 and self._changes[place] >= floor:
                time = self._changes[place]
                yield time, self._values[place]
            elif floor < 0:
                return
            else:
                self._changing.reach(floor - 1)

    # --- keeping

    def forget(self, before: int) -> None:
        """Drop samples before ``before``, all but the last of them: it says what holds from there on."""
        change, repeat = self._changing.trim(before), self._again.trim(before)
        if repeat >= 0:
            self._again.move_first(None)
        if change >= 0:
            self.first = max(change, repeat)
            self._changing.move_first(self.first)

    def dump(self) -> tuple[Any, ...]:
        """Everything, for ``load``."""
        return self.first, self.newest, self._changing.dump(), self._again.dump()

    @classmethod
    def load(cls, known: Sequence[Any]) -> "Timeline":
        """What ``dump`` gave; before, times and values of all samples were stored."""
        line = cls()
        if len(known) == 2:  # noqa: PLR2004  # of an older version
            line.extend(*known)
            return line
        line.first, line.newest, changing, again = known
        line._changing.load(changing)
        line._again.load(again)
        return line
