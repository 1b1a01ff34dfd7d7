"""Shifts of single days that run into those of the next day."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from shopfloor.plant.calendar import DAY_MINUTES
from shopfloor.plant.model import Plant
from shopfloor.plant.reader import Place, Reader
from shopfloor.plant.shifts import OneShift

_DAY = timedelta(days=1)


class _Laid(NamedTuple):
    """What holds on one day."""

    exception: int
    """Its place in `exceptions`; -1: the weekly pattern."""
    shifts: Sequence[tuple[Place, OneShift]]


def check_exceptions(reader: Reader, plant: Plant) -> None:
    """Complain about nights that last into the next day's first shift, where an exception is one of the two."""
    said: set[tuple[Place, Place]] = set()
    for day in _changes(plant):
        one, next_one = _laid(plant, day), _laid(plant, day + _DAY)
        if one.exception == next_one.exception == -1:
            continue  # of the weekly pattern `crosscheck` sees to itself
        for (place, shift), (other_place, other) in _both(one, next_one):
            if shift.day_span.end - DAY_MINUTES <= other.day_span.start or (place, other_place) in said:
                continue
            said.add((place, other_place))
            text = (
                f"the shift {shift.name!r} of {day} runs until {shift.end} of {day + _DAY}, when {other.name!r} has "
                f"begun at {other.start} already"
            )
            # Said at the exception; where both are, at the one that runs too long.
            if one.exception >= 0:
                reader.complain(place, f"{text} (line {reader.line(other_place)}); change one")
            else:
                reader.complain(other_place, f"{text} (line {reader.line(place)}); change one")


def _both(one: _Laid, other: _Laid) -> Iterator[tuple[tuple[Place, OneShift], tuple[Place, OneShift]]]:
    return ((first, second) for first in one.shifts for second in other.shifts)


def _changes(plant: Plant) -> list[date]:
    """The days at which what holds may change: between them each day is like the one before."""
    found: set[date] = set()
    for exception in plant.exceptions:
        for day in (exception.first, exception.last):
            for distance in (-2, -1, 0, 1):
                try:
                    shifted = day + distance * _DAY
                    _ = shifted + _DAY
                except OverflowError:  # the years 1 and 9999
                    continue
                found.add(shifted)
    return sorted(found)


def _laid(plant: Plant, day: date) -> _Laid:
    for i, exception in reversed(list(enumerate(plant.exceptions))):
        if exception.first <= day <= exception.last:
            places: list[tuple[Place, OneShift]] = [
                (("exceptions", i, "shifts", j), shift) for j, shift in enumerate(exception.shifts)
            ]
            return _Laid(i, places)
    weekly: list[tuple[Place, OneShift]] = [
        (("shifts", i), shift) for i, shift in enumerate(plant.shifts) if day.weekday() in shift.weekdays
    ]
    return _Laid(-1, weekly)
