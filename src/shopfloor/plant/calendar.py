"""The weekly pattern of shifts: days as people write them, and what overlaps."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES

_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00", re.ASCII)


class Span(NamedTuple):
    """Minutes from Monday 00:00, site time; half open; the end may lie in the next week."""

    start: int
    end: int


def parse_days(text: str) -> tuple[int, ...]:
    """``"mon-fri"``, ``"sat,sun"``, ``"fri-mon"`` as weekdays in order, 0 for Monday.

    Raises ValueError that names the days.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if first not in DAYS or (dash and last not in DAYS):
            msg = f"must be one or more of {', '.join(DAYS)}, like `mon-fri` or `sat,sun` (here: {text[:80]!r})"
            raise ValueError(msg)
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        days = {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
        if days & found:
            msg = f"names {', '.join(DAYS[day] for day in sorted(days & found))} twice; keep one"
            raise ValueError(msg)
        found |= days
    return tuple(sorted(found))


def parse_clock(text: str) -> int:
    """``"06:30"`` as minutes from midnight, ``"24:00"`` included. Raises ValueError."""
    if not _CLOCK.fullmatch(text):
        msg = f"must be a time of day, `HH:MM` from 00:00 to 24:00 (here: {text[:80]!r})"
        raise ValueError(msg)
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def format_clock(minutes: int) -> str:
    """Minutes from Monday 00:00 as ``"tue 06:30"``."""
    day, rest = divmod(minutes % WEEK_MINUTES, DAY_MINUTES)
    return f"{DAYS[day]} {rest // 60:02}:{rest % 60:02}"


def overlap(one: Sequence[Span], other: Sequence[Span]) -> Span | None:
    """The first stretch that both weekly patterns cover, or None."""
    for a in one:
        for b in other:
            for week in (-WEEK_MINUTES, 0, WEEK_MINUTES):
                start, end = max(a.start, b.start + week), min(a.end, b.end + week)
                if start < end:
                    return Span(start, end)
    return None
