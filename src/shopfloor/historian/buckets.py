"""Where buckets begin, in the time zone of whoever asks."""

from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from shopfloor.historian.rows import Int64

SHORTEST: Final = 10**6
MOST: Final = 100_000
DAY: Final = 86_400 * 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY: Final = date(1969, 12, 29).toordinal()
"""Buckets of several days are counted from a Monday, so that those of seven are ISO weeks."""
_FIRST: Final = -9_200_000_000 * 10**9
_LAST: Final = 9_200_000_000 * 10**9
"""The years 1678 to 2261: what ns in 64 bits hold, less a margin for the bucket around."""


def edges(start: int, end: int, every: int, timezone: str) -> Int64:
    """The begin of each bucket that touches start <= t < end, and the end of the last one.

    Buckets of whole days begin at midnight of the time zone (a DST day has its true length), shorter
    ones at multiples of ``every`` from that midnight, where the last of a day may be cut short.
    Raises ValueError.
    """
    if every < SHORTEST:
        raise ValueError("the shortest bucket is 1 ms")
    if every >= DAY and every % DAY:
        raise ValueError("a bucket longer than a day must be a whole number of days")
    if start < _FIRST or end > _LAST:
        raise ValueError("the time lies outside the years 1678 to 2261")
    if (end - start) // every > MOST:
        raise ValueError(f"more than {MOST} buckets; ask for longer ones or a shorter time")
    zone = _zone(timezone)
    if start >= end:
        return np.zeros(0, np.int64)
    found = _days(start, end, every // DAY, zone) if every >= DAY else _within_days(start, end, every, zone)
    first = int(np.searchsorted(found, start, side="right")) - 1
    last = int(np.searchsorted(found, end, side="left"))
    result = found[first : last + 1]
    if len(result) - 1 > MOST:
        raise ValueError(f"more than {MOST} buckets; ask for longer ones or a shorter time")
    return result


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not an IANA time zone; write one like Europe/Berlin or UTC") from error


def _local_day(time: int, zone: ZoneInfo) -> int:
    """The ordinal of the local date at this time."""
    return (_EPOCH + timedelta(microseconds=time // 1000)).astimezone(zone).toordinal()


def midnight(day: int, zone: ZoneInfo) -> int:
    """The first instant of a local date (which is not always 00:00), ns UTC."""
    local = datetime.combine(date.fromordinal(day), datetime.min.time(), zone)
    since = local.astimezone(UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9


def _days(start: int, end: int, days: int, zone: ZoneInfo) -> Int64:
    first = _local_day(start, zone)
    first -= (first - _MONDAY) % days
    last = _local_day(end, zone) + days + 1
    # a date that a country skipped (Samoa, 30 December 2011) begins and ends at the same instant
    return np.unique(np.array([midnight(day, zone) for day in range(first, last + days, days)], np.int64))


def _within_days(start: int, end: int, every: int, zone: ZoneInfo) -> Int64:
    """Begins from the bucket around ``start`` to the first at or after ``end``."""
    parts: list[Int64] = []
    day = _local_day(start, zone) - 1
    last = _local_day(end, zone) + 1
    begin = midnight(day, zone)
    while day <= last:
        following = midnight(day + 1, zone)
        low = max(begin, begin + (start - begin) // every * every) if following > start else following
        high = min(following, end + every)
        if low < high:
            parts.append(np.arange(low, high, every, dtype=np.int64))
        day, begin = day + 1, following
    return np.concatenate([*parts, np.array([begin], np.int64)]) if parts[-1][-1] < end else np.concatenate(parts)
