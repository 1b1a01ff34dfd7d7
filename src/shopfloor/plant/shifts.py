"""When a site works, as the plant file says it: the weekly pattern of shifts and its exceptions."""

import datetime as dt
from itertools import pairwise
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from shopfloor.plant.calendar import DAY_MINUTES, Span, parse_clock, parse_days
from shopfloor.plant.components import Form, Name, Strict

ClockTime = Annotated[str, Form(r"([01]\d|2[0-3]):[0-5]\d|24:00", "a time of day, `HH:MM` from 00:00 to 24:00")]
"""``HH:MM`` in the site's time zone; 24:00 is the end of the day."""


def _days(text: str) -> str:
    parse_days(text)
    return text


class OneShift(Strict):
    """A shift of a day; one that runs past midnight belongs to the day on which it begins."""

    name: Name = Field(description="What people call it; may stand several times for different days.")
    start: ClockTime = Field(alias="from", description="Begin, site time.")
    end: ClockTime = Field(alias="to", description="End, site time; earlier than `from` means the next day.")
    breaks: list[Annotated[str, Form(r"\d\d:\d\d-\d\d:\d\d", "a break, `09:00-09:15`")]] = Field(
        default=[], description="Scheduled breaks inside the shift, `09:00-09:15`."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start == "24:00" or parse_clock(self.start) == parse_clock(self.end):
            msg = "begins when it ends; a whole day is from 00:00 to 24:00"
            raise ValueError(msg)
        spans = sorted(self._break(text) for text in self.breaks)
        if any(a.end > b.start for a, b in pairwise(spans)):
            msg = "has breaks that overlap; make one of them"
            raise ValueError(msg)
        return self

    @property
    def day_span(self) -> Span:
        """From when to when it runs, in minutes from midnight of the day on which it begins."""
        return self._whole

    @property
    def day_breaks(self) -> list[Span]:
        """Its breaks likewise."""
        return [self._break(text) for text in self.breaks]

    @property
    def _whole(self) -> Span:
        start, end = parse_clock(self.start), parse_clock(self.end)
        return Span(start, end if end > start else end + DAY_MINUTES)

    def _break(self, text: str) -> Span:
        """Minutes from midnight of the day on which the shift begins. Raises ValueError outside the shift."""
        shift = self._whole
        start, end = (parse_clock(part) for part in text.split("-"))
        start += DAY_MINUTES if start < shift.start else 0
        end += DAY_MINUTES * ((start - end) // DAY_MINUTES + 1) if end <= start else 0
        if end > shift.end:
            msg = f"has a break {text} outside {self.start}-{self.end}; move it, or make the shift longer"
            raise ValueError(msg)
        return Span(start, end)


class Shift(OneShift):
    """One shift of the weekly pattern."""

    days: Annotated[str, AfterValidator(_days)] = Field(
        description="The days on which it begins: `mon-fri`, `sat,sun` or `mon`."
    )

    @property
    def weekdays(self) -> tuple[int, ...]:
        """The days on which it begins, 0 for Monday."""
        return parse_days(self.days)

    @property
    def spans(self) -> list[Span]:
        """When it runs in a week, breaks included."""
        return self._weekly([self._whole])

    @property
    def break_spans(self) -> list[Span]:
        """When its breaks are in a week."""
        return self._weekly([self._break(text) for text in self.breaks])

    def _weekly(self, spans: list[Span]) -> list[Span]:
        return [Span(day * DAY_MINUTES + a, day * DAY_MINUTES + b) for day in self.weekdays for a, b in spans]


class CalendarException(Strict):
    """Days on which something else holds than the weekly pattern: a holiday, a shutdown, an extra shift."""

    name: str = Field(description="What it is: `Christmas`, `extra shift`.")
    first: dt.date = Field(alias="from", description="The first day, `2026-12-24`.")
    until: dt.date | None = Field(default=None, alias="to", description="The last day; the first by default.")
    shifts: list[OneShift] = Field(default=[], description="The shifts of these days; none: closed.")

    @model_validator(mode="after")
    def _check(self) -> "CalendarException":
        if self.last < self.first:
            msg = "ends before it begins; exchange `from` and `to`"
            raise ValueError(msg)
        spans = sorted((*shift.day_span, shift.name) for shift in self.shifts)
        for (_, end, one), (start, _, other) in pairwise(spans):
            if end > start:
                msg = f"has the shifts {one!r} and {other!r} at the same time; change one"
                raise ValueError(msg)
        return self

    @property
    def last(self) -> dt.date:
        """The last day that it is about."""
        return self.until or self.first
