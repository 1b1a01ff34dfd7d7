"""The times of rows: formats, zones, and the hours in which clocks are put back or forward."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from shopfloor.samples import Quality
from shopfloor.sources.mqtt_payload import Unreadable, parse_time

UNITS: Final = ("s", "ms", "us", "ns")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION: Final = re.compile(r"(?<=:\d\d)[.,](\d+)")
_YEARS: Final = range(1971, 2200)
"""A clock that shows another one is wrong."""
_LEAST: Final = int(datetime(_YEARS.start, 1, 1, tzinfo=UTC).timestamp()) * 10**9
_MOST: Final = int(datetime(_YEARS.stop, 1, 1, tzinfo=UTC).timestamp()) * 10**9


class When(NamedTuple):
    """The time of a row."""

    time: int
    """ns UTC."""
    quality: int = Quality.GOOD
    """Uncertain where the local time alone does not tell the moment."""


def known_format(text: str) -> str:
    """The format as the plant file writes it; raises ValueError for one that is none."""
    if text in ("auto", "iso", *UNITS):
        return text
    if "%" not in text:
        raise ValueError("write `auto`, `iso`, `s`, `ms`, `us`, `ns`, or a pattern like `%d.%m.%Y %H:%M:%S`")
    try:
        datetime.strptime(_EPOCH.strftime(text), text)  # noqa: DTZ007  # the zone is not the point here
    except (ValueError, re.error) as error:
        raise ValueError(f"{text!r} is no pattern of a time ({error}); for example `%d.%m.%Y %H:%M:%S`") from error
    if not ("%y" in text.lower() or "%c" in text or "%x" in text or "%G" in text):
        raise ValueError(f"{text!r} has no year; name all columns of the time, `time: [Date, Time]`")
    return text


class Clock:
    """How a file tells time."""

    def __init__(self, time_format: str, zone: str) -> None:
        """Both are known to be valid."""
        self._format = time_format
        self._zone: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)

    def read(self, said: object, last: int | None = None) -> When:
        """The moment; raises Unreadable.

        A local time that comes twice (clocks go back) is the first of both, unless that were before ``last``, the
        time of the row before. One that never was (clocks go forward) is taken as that of a clock that nobody has put
        forward. Both are uncertain.
        """
        if isinstance(said, str):
            said = said.strip()
        if self._format in UNITS or (self._format == "auto" and not (isinstance(said, str) and _local(said))):
            return When(self._number(said))
        if not isinstance(said, str):
            raise self._unexpected(said)
        moment, rest = self._moment(said)
        if moment.tzinfo is not None:
            return When(_since(moment) + rest)
        return self._zoned(moment, rest, last)

    def _number(self, said: object) -> int:
        try:
            time = parse_time(said, self._format)  # type: ignore[arg-type]  # it is one of the units or auto
        except Unreadable:
            raise self._unexpected(said) from None
        if not _LEAST <= time < _MOST:
            raise self._unexpected(said)
        return time

    def _unexpected(self, said: object) -> Unreadable:
        expected = {"auto": "ISO 8601, 2026-01-31T12:00:00, or a number since 1970", "iso": "ISO 8601"}.get(
            self._format, f"{self._format} since 1970" if self._format in UNITS else self._format
        )
        return Unreadable(f"its time {str(said)[:60]!r} is not as expected ({expected}); set `time_format`")

    def _moment(self, said: str) -> tuple[datetime, int]:
        """The moment as it is written, and the nanoseconds that it does not hold."""
        try:
            if self._format not in ("auto", "iso"):
                return datetime.strptime(said, self._format), 0  # noqa: DTZ007  # its zone is added where it has none
            fraction = _FRACTION.search(said)
            if fraction is None:
                return datetime.fromisoformat(said), 0
            whole = datetime.fromisoformat(said[: fraction.start()] + said[fraction.end() :])
            return whole, int(fraction[1][:9].ljust(9, "0"))
        except ValueError:
            raise self._unexpected(said) from None

    def _zoned(self, moment: datetime, rest: int, last: int | None) -> When:
        before = moment.replace(tzinfo=self._zone, fold=0)
        after = moment.replace(tzinfo=self._zone, fold=1)
        time = _since(before) + rest
        shift = (before.utcoffset() or timedelta()) - (after.utcoffset() or timedelta())
        if not shift:
            return When(time)
        if shift > timedelta() and last is not None and time < last:
            time = _since(after) + rest
        return When(time, Quality.UNCERTAIN)


def _local(said: str) -> bool:
    """Whether it is a date rather than a number."""
    return ":" in said or said.count("-") > 1


def _since(moment: datetime) -> int:
    if moment.year not in _YEARS:
        raise Unreadable(f"its time is in the year {moment.year}; the clock that wrote it is wrong")
    passed = moment.astimezone(UTC) - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 10**9 + passed.microseconds * 1000
