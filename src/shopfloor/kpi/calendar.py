"""When a site works: the weekly pattern of shifts and its exceptions, laid out in real time.

Local times become instants by the IANA rules of the site's zone: a shift on a day of a clock change has its
true length, a time of day that does not exist is the moment of the change, one that exists twice is the
first of the two. A night shift belongs to the day on which it begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from shopfloor.plant.calendar import DAY_MINUTES
from shopfloor.plant.shifts import CalendarException, OneShift, Shift

SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)

Kind = Literal["shift", "break", "off"]
WindowKind = Literal["hour", "shift", "day"]


class Planned(NamedTuple):
    """A shift of one day: minutes from that day's local midnight, and its breaks likewise."""

    name: str
    start: int
    end: int
    breaks: tuple[tuple[int, int], ...] = ()


class Stretch(NamedTuple):
    """A piece of time that is planned in one way, ns UTC, half open."""

    start: int
    end: int
    kind: Kind
    shift: str
    """The shift's name; "" outside of shifts."""
    day: date
    """The production day: that on which the shift began; outside of shifts the local date."""


class Cell(NamedTuple):
    """A part of a stretch inside one local hour: what every window is made of."""

    start: int
    end: int
    kind: Kind
    shift: str
    day: date
    hour: tuple[int, int]
    """Begin and end of the hour."""

    @property
    def stretch(self) -> Stretch:
        """The cell as a stretch."""
        return Stretch(*self[:5])


class Window(NamedTuple):
    """Time that figures are given for, ns UTC, half open."""

    kind: WindowKind
    start: int
    end: int
    shift: str
    """The shift's name; "" for hours and days."""
    day: date
    """The production day; of an hour the local date."""


@dataclass(frozen=True)
class Rule:
    """What holds on some days instead of the weekly pattern."""

    first: date
    last: date
    shifts: tuple[Planned, ...]
    """Empty: closed."""


def planned(shift: OneShift) -> Planned:
    """A shift of the plant file."""
    breaks = tuple((span.start, span.end) for span in sorted(shift.day_breaks))
    return Planned(shift.name, shift.day_span.start, shift.day_span.end, breaks)


def calendar_of(zone: str, shifts: Sequence[Shift], exceptions: Sequence[CalendarException] = ()) -> "Calendar":
    """The plan that a plant file describes."""
    weekly: list[list[Planned]] = [[planned(s) for s in shifts if day in s.weekdays] for day in range(7)]
    rules = [Rule(e.first, e.last, tuple(planned(s) for s in e.shifts)) for e in exceptions]
    return Calendar(zone, weekly if shifts else (), rules)


class Calendar:
    """The plan of a site. Pure: the same question always gets the same answer."""

    def __init__(self, zone: str, weekly: Sequence[Sequence[Planned]] = (), rules: Sequence[Rule] = ()) -> None:
        """``weekly``: the shifts of Monday to Sunday; none at all means that every instant is planned."""
        self.zone = ZoneInfo(zone)
        self._weekly = [tuple(day) for day in weekly] or [()] * 7
        self._rules = tuple(rules)
        self.assumed = not any(self._weekly) and not any(rule.shifts for rule in rules)
        """Whether there is no calendar, so that 24 hours a day are assumed."""
        self.plan = (zone, self._weekly, self._rules)
        """What it was made of."""
        self._day = lru_cache(maxsize=64)(self._laid_out)
        self._cells = lru_cache(maxsize=64)(self._cut)
        self._window = lru_cache(maxsize=256)(self._whole)

    def local(self, moment: int) -> date:
        """The local date of an instant."""
        return (_EPOCH + timedelta(microseconds=moment // 1000)).astimezone(self.zone).date()

    def instant(self, day: date, minutes: int) -> int:
        """Ns UTC of a time of day, in minutes from the local midnight of ``day``; may be of the next day."""
        day += _DAY * (minutes // DAY_MINUTES)
        wall = datetime.combine(day, time(*divmod(minutes % DAY_MINUTES, 60)))
        moment = wall.replace(tzinfo=self.zone).astimezone(UTC)
        if moment.astimezone(self.zone).replace(tzinfo=None) != wall:
            moment = self._change(wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC), moment)
        return _nanoseconds(moment)

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The first second with the offset of ``after``; the clock changes once in between."""
        offset = after.astimezone(self.zone).utcoffset()
        while after - before > timedelta(seconds=1):
            middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
            if middle.astimezone(self.zone).utcoffset() == offset:
                after = middle
            else:
                before = middle
        return after

    def hours(self, day: date) -> list[int]:
        """Where the local hours of a day begin, and where the last one ends; 23 or 25 on the day of a clock change."""
        found = {self.instant(day, 0), self.instant(day, DAY_MINUTES)}
        for hour in range(24):
            found.add(self.instant(day, 60 * hour))
            # Of an hour that comes twice the second one, midnight's too (Azores, Havana).
            wall = datetime(day.year, day.month, day.day, hour, tzinfo=self.zone, fold=1).astimezone(UTC)
            if wall.astimezone(self.zone).hour == hour:  # else the hour does not exist
                found.add(_nanoseconds(wall))
        return sorted(t for t in found if self.instant(day, 0) <= t <= self.instant(day, DAY_MINUTES))

    def stretches(self, start: int, end: int) -> list[Stretch]:
        """How the time from ``start`` to ``end`` is planned: pieces in order that leave nothing out."""
        found: list[Stretch] = []
        day = self.local(start)
        while self.instant(day, 0) < end:
            found += (
                piece._replace(start=max(piece.start, start), end=min(piece.end, end))
                for piece in self._day(day)
                if piece.end > start and piece.start < end
            )
            day += _DAY
        return found

    def cells(self, start: int) -> Iterator["Cell"]:
        """The stretches cut at every local hour, endless, from the one in which ``start`` lies."""
        day = self.local(start)
        while True:
            yield from (cell for cell in self._cells(day) if cell.end > start)
            day += _DAY

    def window(self, kind: WindowKind, cell: "Cell") -> "Window":
        """The hour, the shift or the production day to which a cell belongs, from its beginning to its end."""
        if kind == "hour":
            return Window("hour", *cell.hour, "", self.local(cell.hour[0]))
        return self._window(kind, cell.day, cell.shift if kind == "shift" else None)

    def _whole(self, kind: WindowKind, day: date, shift: str | None) -> "Window":
        parts = [
            piece
            for date_ in (day - _DAY, day, day + _DAY)
            for piece in self._day(date_)
            if piece.day == day and shift in (None, piece.shift)
        ]
        return Window(kind, parts[0].start, parts[-1].end, shift or "", day)

    def _cut(self, day: date) -> list["Cell"]:
        marks = self.hours(day)
        return [
            Cell(max(piece.start, start), min(piece.end, end), piece.kind, piece.shift, piece.day, (start, end))
            for start, end in pairwise(marks)
            for piece in self._day(day)
            if piece.start < end and piece.end > start
        ]

    def _planned(self, day: date) -> tuple[Planned, ...]:
        for rule in reversed(self._rules):
            if rule.first <= day <= rule.last:
                return rule.shifts
        return self._weekly[day.weekday()]

    def _laid_out(self, day: date) -> list[Stretch]:
        """The pieces of one local day, from midnight to midnight."""
        midnight, end = self.instant(day, 0), self.instant(day, DAY_MINUTES)
        if self.assumed:
            return [Stretch(midnight, end, "shift", "", day)]
        pieces: list[Stretch] = []
        for begun in (day - _DAY, day):
            for shift in self._planned(begun):
                marks = [shift.start, *(mark for pair in shift.breaks for mark in pair), shift.end]
                for i, (a, b) in enumerate(pairwise(self.instant(begun, mark) for mark in marks)):
                    pieces.append(Stretch(a, b, "break" if i % 2 else "shift", shift.name, begun))
        found: list[Stretch] = []
        at = midnight
        for piece in sorted(pieces):
            first, last = max(piece.start, at), min(piece.end, end)
            if first >= last:
                continue  # of the other day, or of no length on the day of a clock change
            if first > at:
                found.append(Stretch(at, first, "off", "", day))
            found.append(piece._replace(start=first, end=last))
            at = last
        if at < end:
            found.append(Stretch(at, end, "off", "", day))
        return found


def _nanoseconds(moment: datetime) -> int:
    span = moment - _EPOCH
    return (span.days * 86400 + span.seconds) * SECOND + span.microseconds * 1000
