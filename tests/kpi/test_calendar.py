"""Shifts and hours in real time: in every zone of the IANA's list, on every kind of day of a clock change."""

import os
import subprocess
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from itertools import islice, pairwise, takewhile
from pathlib import Path

import pytest

from shopfloor.kpi.calendar import Calendar, Cell, Planned, Rule, Stretch, calendar_of
from shopfloor.plant.shifts import CalendarException, OneShift, Shift

SECOND = 10**9
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
"""Everything happens on whole quarters of an hour: clocks of 2020 to 2030 change on no others."""


def rules_of(zone: str) -> bytes:
    """The file of a zone in the package."""
    return resources.files("tzdata.zoneinfo").joinpath(*zone.split("/")).read_bytes()


ZONES = sorted({rules_of(zone): zone for zone in sorted(zoneinfo.available_timezones())}.values())
"""All of them; of those that are only other names for the same rules one."""
THREE = (
    Planned("early", 6 * 60, 14 * 60, ((9 * 60, 9 * 60 + 15),)),
    Planned("late", 14 * 60, 22 * 60),
    Planned("night", 22 * 60, 30 * 60, ((24 * 60 + 30, 26 * 60 + 30),)),
)
"""A night shift with a break from 00:30 to 02:30, which most clock changes fall into."""
ODD = {
    "Australia/Lord_Howe": range(2020, 2031),
    "Africa/Casablanca": range(2020, 2031),
    "America/Nuuk": range(2020, 2031),
    "America/Havana": range(2020, 2027),
    "Atlantic/Azores": range(2020, 2027),
    "Asia/Beirut": range(2020, 2027),
    "Asia/Gaza": range(2020, 2031),
    "Antarctica/Troll": range(2020, 2031),
    "America/Asuncion": range(2020, 2026),
    "Pacific/Apia": range(2010, 2022),
    "Pacific/Chatham": range(2020, 2027),
    "Europe/Volgograd": range(2020, 2022),
}
"""Changes of half an hour, of two hours, at midnight, during Ramadan, to another side of the date line."""


def nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND


@cache
def changes(zone: str, year: int) -> tuple[datetime, ...]:
    """When the clock of a zone changes, found by looking at it every day, then every quarter of an hour."""
    rules = zoneinfo.ZoneInfo(zone)
    days = [datetime(year, 1, 1, tzinfo=UTC) + DAY * i for i in range(367)]
    found: list[datetime] = []
    for one, other in pairwise(days):
        if one.astimezone(rules).utcoffset() != other.astimezone(rules).utcoffset():
            offset = one.astimezone(rules).utcoffset()
            moments = (one + QUARTER * i for i in range(1, 97))
            found.append(next(m for m in moments if m.astimezone(rules).utcoffset() != offset))
    return tuple(found)


def days_of_change() -> Iterator[tuple[str, date]]:
    """Each zone with the days around each change of 2026, and some zones of more years."""
    for zone in ZONES:
        for year in sorted({2026, *ODD.get(zone, ())}):
            for moment in changes(zone, year):
                day = moment.astimezone(zoneinfo.ZoneInfo(zone)).date()
                yield from ((zone, day + DAY * i) for i in (-1, 0, 1))


@lru_cache(maxsize=16)
def walls(zone: str, day: date) -> tuple[tuple[int, datetime], ...]:
    """Every quarter of an hour from a day before to a day after a local day, with what the clock shows."""
    rules = zoneinfo.ZoneInfo(zone)
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - 2 * DAY
    moments = (begin + QUARTER * i for i in range(5 * 96))
    return tuple((nanoseconds(m), m.astimezone(rules).replace(tzinfo=None)) for m in moments)


def moment_of(zone: str, wall: datetime) -> int:
    """The first moment at which the clock shows ``wall``; of a time that it skips the moment of the jump."""
    return next(moment for moment, shown in walls(zone, wall.date()) if shown >= wall)


@cache
def calendars(zone: str) -> tuple[Calendar, Calendar]:
    return Calendar(zone), Calendar(zone, [THREE] * 7)


def at(zone: str, day: date, hours: float) -> int:
    wall = datetime(day.year, day.month, day.day) + timedelta(hours=hours)  # noqa: DTZ001  # what a clock shows
    return moment_of(zone, wall)


def cells_of(calendar: Calendar, start: int, end: int) -> list[Cell]:
    return list(takewhile(lambda cell: cell.start < end, calendar.cells(start)))


def test_there_are_all_the_zones() -> None:
    """The tests below look at the rules of every zone, and many of them change their clock."""
    assert len(zoneinfo.available_timezones()) > 550
    assert len(ZONES) > 300
    assert sum(bool(changes(zone, 2026)) for zone in ZONES) > 60


def test_days_are_covered_without_gap_or_overlap_and_have_their_true_length() -> None:
    """Stretches, and cells, follow each other from midnight to midnight; the days follow each other, too."""
    for zone, day in days_of_change():
        midnight, following = at(zone, day, 0), at(zone, day, 24)
        for calendar in calendars(zone):
            assert calendar.instant(day, 0) == midnight, (zone, day)
            assert calendar.instant(day, 24 * 60) == calendar.instant(day + DAY, 0) == following, (zone, day)
            pieces = calendar.stretches(midnight, following)
            cells = cells_of(calendar, midnight, following)
            for parts in (pieces, [cell.stretch for cell in cells]) if following > midnight else ():
                assert (parts[0].start, parts[-1].end) == (midnight, following), (zone, day)
                assert all(one.end == other.start for one, other in pairwise(parts)), (zone, day)
                assert sum(part.end - part.start for part in parts) == following - midnight, (zone, day)


def test_hours_are_what_the_clock_shows() -> None:
    """An hour begins when the clock shows a full one, or has jumped over one."""
    for zone, day in days_of_change():
        midnight, following = at(zone, day, 0), at(zone, day, 24)
        expected = {midnight, following}
        for (_, before), (moment, shown) in pairwise(walls(zone, day)):
            if midnight < moment < following and (shown.minute == 0 or (shown > before and shown.hour != before.hour)):
                expected.add(moment)
        for calendar in calendars(zone):
            assert calendar.hours(day) == sorted(expected), (zone, day)


def test_shifts_have_their_true_length_and_belong_to_the_day_on_which_they_begin() -> None:
    for zone, day in days_of_change():
        _, calendar = calendars(zone)
        for shift in THREE:
            start, end = at(zone, day, shift.start / 60), at(zone, day, shift.end / 60)
            if start == end:
                continue  # of a day that is skipped
            pieces = [
                piece
                for piece in calendar.stretches(start, end)
                if piece.day == day and piece.shift == shift.name and piece.kind != "off"
            ]
            assert sum(piece.end - piece.start for piece in pieces) == end - start, (zone, day, shift.name)
            rest = sum(piece.end - piece.start for piece in pieces if piece.kind == "break")
            breaks = [(at(zone, day, a / 60), at(zone, day, b / 60)) for a, b in shift.breaks]
            assert rest == sum(b - a for a, b in breaks), (zone, day, shift.name)
            cell = next(calendar.cells(start))
            window = calendar.window("shift", cell)
            assert window[1:] == (start, end, shift.name, day), (zone, day, shift.name)


def test_production_days_follow_each_other() -> None:
    """With a night shift the production day is from early shift to early shift; no time is in two or in none."""
    for zone, day in days_of_change():
        _, calendar = calendars(zone)
        start = at(zone, day, 6)
        if start == at(zone, day + DAY, 6) or at(zone, day, 0) == at(zone, day, 24):
            continue
        window = calendar.window("day", next(calendar.cells(start)))
        end = window.end
        assert (window.start, window.day) == (start, day), (zone, day)
        following = calendar.window("day", next(calendar.cells(end)))
        assert following.start == end, (zone, day)


@pytest.mark.parametrize(
    ("zone", "day", "early", "night", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 28), 8, 7, 24),  # the night in which the clock goes on
        ("Europe/Berlin", date(2026, 3, 29), 8, 8, 23),
        ("Europe/Berlin", date(2026, 10, 24), 8, 9, 24),
        ("Europe/Berlin", date(2026, 10, 25), 8, 8, 25),
        ("Australia/Lord_Howe", date(2026, 4, 4), 8, 8.5, 24),  # half an hour back
        ("Australia/Lord_Howe", date(2026, 4, 5), 8, 8, 24.5),
        ("Antarctica/Troll", date(2026, 3, 28), 8, 6, 24),  # two hours
        ("Pacific/Apia", date(2011, 12, 29), 8, 2, 24),  # at whose end Samoa crossed the date line
        ("Pacific/Apia", date(2011, 12, 31), 8, 8, 24),
        ("Asia/Tokyo", date(2026, 3, 29), 8, 8, 24),
    ],
)
def test_by_hand(zone: str, day: date, early: float, night: float, hours: float) -> None:
    """Lengths in hours that anybody can look up."""
    _, calendar = calendars(zone)
    assert calendar.instant(day, 14 * 60) - calendar.instant(day, 6 * 60) == early * HOUR
    assert calendar.instant(day, 30 * 60) - calendar.instant(day, 22 * 60) == night * HOUR
    assert calendar.instant(day, 24 * 60) - calendar.instant(day, 0) == hours * HOUR


def test_samoa_has_no_30th_of_december_2011() -> None:
    calendar = calendars("Pacific/Apia")[1]
    gone = date(2011, 12, 30)
    assert calendar.instant(gone, 0) == calendar.instant(gone, 24 * 60)
    start, end = calendar.instant(date(2011, 12, 29), 0), calendar.instant(date(2012, 1, 1), 0)
    assert end - start == 48 * HOUR
    assert sum(piece.end - piece.start for piece in calendar.stretches(start, end)) == 48 * HOUR
    hours = {cell.hour for cell in cells_of(calendar, start, end)}
    assert len(hours) == 48


def test_a_time_that_does_not_exist_is_the_moment_of_the_change_and_of_two_the_first_counts() -> None:
    calendar = Calendar("Europe/Berlin")
    changed = nanoseconds(datetime(2026, 3, 29, 1, tzinfo=UTC))
    for minutes in (2 * 60, 2 * 60 + 30, 3 * 60):
        assert calendar.instant(date(2026, 3, 29), minutes) == changed
    assert calendar.instant(date(2026, 3, 29), 3 * 60 + 1) == changed + MINUTE
    twice = nanoseconds(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    assert calendar.instant(date(2026, 10, 25), 2 * 60 + 30) == twice
    assert calendar.instant(date(2026, 10, 25), 3 * 60) == twice + HOUR + HOUR // 2


def shift(name: str, start: str, end: str, *breaks: str, days: str | None = None) -> dict[str, object]:
    found: dict[str, object] = {"name": name, "from": start, "to": end, "breaks": list(breaks)}
    return found | ({"days": days} if days else {})


def plan(*exceptions: dict[str, object]) -> Calendar:
    weekly = [
        shift("early", "06:00", "14:00", "09:00-09:15", days="mon-fri"),
        shift("night", "22:00", "06:00", "02:00-02:30", days="sun-thu"),
    ]
    return calendar_of(
        "Europe/Berlin",
        [Shift.model_validate(one) for one in weekly],
        [CalendarException.model_validate(one) for one in exceptions],
    )


def told(calendar: Calendar, day: date, days: int = 1) -> list[str]:
    """The stretches of some days as a person would write them down."""
    zone = calendar.zone

    def clock(moment: int) -> str:
        return f"{datetime.fromtimestamp(moment // SECOND, zone):%H:%M}"

    def line(piece: Stretch) -> str:
        name = f" {piece.shift} of {piece.day:%a}" if piece.shift else ""
        return f"{clock(piece.start)}-{clock(piece.end)} {piece.kind}{name}"

    return [
        line(p) for p in calendar.stretches(calendar.instant(day, 0), calendar.instant(day + DAY * (days - 1), 1440))
    ]


def test_a_plain_day() -> None:
    assert told(plan(), date(2026, 1, 7)) == [
        "00:00-02:00 shift night of Tue",
        "02:00-02:30 break night of Tue",
        "02:30-06:00 shift night of Tue",
        "06:00-09:00 shift early of Wed",
        "09:00-09:15 break early of Wed",
        "09:15-14:00 shift early of Wed",
        "14:00-22:00 off",
        "22:00-00:00 shift night of Wed",
    ]


def test_a_holiday_has_no_shift_of_its_own_but_the_night_before_ends_as_it_began() -> None:
    calendar = plan({"name": "Epiphany", "from": date(2026, 1, 6)})
    assert told(calendar, date(2026, 1, 6)) == [
        "00:00-02:00 shift night of Mon",
        "02:00-02:30 break night of Mon",
        "02:30-06:00 shift night of Mon",
        "06:00-00:00 off",
    ]
    assert told(calendar, date(2026, 1, 7))[0] == "00:00-06:00 off"


def test_an_exception_with_other_shifts_and_the_last_that_fits_counts() -> None:
    calendar = plan(
        {"name": "Works holiday", "from": date(2026, 1, 5), "to": date(2026, 1, 9)},
        {"name": "Extra shift", "from": date(2026, 1, 8), "shifts": [shift("extra", "20:00", "02:00")]},
    )
    assert told(calendar, date(2026, 1, 8), 2) == [
        "00:00-20:00 off",
        "20:00-00:00 shift extra of Thu",
        "00:00-02:00 shift extra of Thu",
        "02:00-00:00 off",
    ]


def test_an_extra_shift_that_begins_before_the_night_shift_ends_begins_when_it_has_ended() -> None:
    """No instant is in two shifts."""
    calendar = plan({"name": "Early bird", "from": date(2026, 1, 7), "shifts": [shift("extra", "05:00", "08:00")]})
    assert told(calendar, date(2026, 1, 7)) == [
        "00:00-02:00 shift night of Tue",
        "02:00-02:30 break night of Tue",
        "02:30-06:00 shift night of Tue",
        "06:00-08:00 shift extra of Wed",
        "08:00-00:00 off",
    ]


def test_without_shifts_every_instant_is_planned_and_that_is_said() -> None:
    calendar = calendar_of("Europe/Berlin", [])
    assert calendar.assumed
    assert told(calendar, date(2026, 3, 29)) == ["00:00-00:00 shift"]
    closed = Calendar(
        "Europe/Berlin", [(Planned("early", 360, 840),)] * 7, [Rule(date(2026, 1, 1), date(2026, 1, 2), ())]
    )
    assert not closed.assumed
    assert told(closed, date(2026, 1, 1)) == ["00:00-00:00 off"]


def test_cells_go_on_for_ever() -> None:
    calendar = plan()
    start = calendar.instant(date(2026, 10, 24), 0)
    cells = list(islice(calendar.cells(start), 5000))
    assert all(one.end == other.start for one, other in pairwise(cells))
    assert all(cell.hour[0] <= cell.start < cell.end <= cell.hour[1] for cell in cells)


def test_rules_of_zones_come_from_the_package_not_from_the_computer(tmp_path: Path) -> None:
    """A computer whose own list says that Berlin is in Honolulu changes no shift."""
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes(rules_of("Pacific/Honolulu"))
    code = (
        "import zoneinfo, datetime\n"
        "hour = lambda: datetime.datetime.fromtimestamp(0, zoneinfo.ZoneInfo('Europe/Berlin')).hour\n"
        "before = hour()\nimport shopfloor\nprint(before, hour())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONTZPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == ["14", "1"]


def test_adjacent_shifts_tile() -> None:
    shifts = [
        Shift.model_validate(shift(name, start, end, days="mon-sun"))
        for name, start, end in (("a", "05:45", "13:45"), ("b", "13:45", "21:45"), ("c", "21:45", "05:45"))
    ]
    calendar = calendar_of("America/Havana", shifts)
    for month in (3, 11):
        start, end = calendar.instant(date(2026, month, 1), 0), calendar.instant(date(2026, month, 30), 0)
        pieces = calendar.stretches(start, end)
        assert all(piece.kind == "shift" for piece in pieces)
        assert all(one.end == other.start for one, other in pairwise(pieces))


def test_one_shift_stays_a_value() -> None:
    assert OneShift.model_validate(shift("n", "22:00", "06:00")).day_span == (22 * 60, 30 * 60)
