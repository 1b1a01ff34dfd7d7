"""Instants and lengths of time as people write them in a query."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from shopfloor.plant import parse_duration

EARLIEST: Final = -(2**63)
LATEST: Final = 2**63 - 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS: Final = re.compile(r"-?[0-9]{1,19}")
_RELATIVE: Final = re.compile(r"([+-])\s*(\S.*)")
_FRACTION: Final = re.compile(r"(.*T.*?:\d\d)\.(\d+)(.*)", re.DOTALL)


def parse_instant(text: str, now: int, zone: ZoneInfo) -> int:
    """Ns UTC of ``now``, ``-1h``, an integer of ns, or ISO 8601 (in ``zone`` where it names none).

    Raises ValueError that names the forms.
    """
    word = text.strip()
    if word == "now":
        return now
    try:
        instant = _relative(word, now)
        if instant is None:
            instant = int(word) if _NANOSECONDS.fullmatch(word) else _iso(word, zone)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text[:80]!r} is no time; write 2026-11-21T06:00:00Z, nanoseconds since 1970, now, or -1h "
            "(a plus sign in an address is written %2B)"
        ) from error
    if not EARLIEST <= instant <= LATEST:
        raise ValueError(f"{text[:80]!r} is outside of the years 1678 to 2262")
    return instant


def parse_bucket(text: str) -> int:
    """Nanoseconds of ``1 min``, ``10s`` or an integer of ns. Raises ValueError."""
    word = text.strip()
    return int(word) if re.fullmatch(r"[0-9]{1,19}", word) else parse_duration(word)


def _relative(word: str, now: int) -> int | None:
    match = _RELATIVE.fullmatch(word)
    if match is None or _NANOSECONDS.fullmatch(word):
        return None
    length = parse_duration(match[2])
    return now - length if match[1] == "-" else now + length


def _iso(word: str, zone: ZoneInfo) -> int:
    # datetime holds microseconds; the digits behind them are added by hand.
    fraction = _FRACTION.fullmatch(word)
    digits = fraction[2] if fraction else ""
    if fraction:
        word = fraction[1] + fraction[3]
    when = datetime.fromisoformat(word)
    if when.tzinfo is None:
        when = when.replace(tzinfo=zone)
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000 + int(digits[:9].ljust(9, "0"))
