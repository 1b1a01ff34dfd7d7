"""The hours of a site's clock, in every zone of the IANA's list."""

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import pytest
from hypothesis import given, strategies as st

from shopfloor.processors.edges_hours import Hour, Hours

H = 3600 * 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = sorted(available_timezones())


def at(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) * 1000


@pytest.mark.parametrize(
    ("zone", "time", "start", "end"),
    [
        ("UTC", "2026-01-01T10:20:00", "2026-01-01T10:00:00", "2026-01-01T11:00:00"),
        ("Asia/Kolkata", "2026-01-01T10:20:00", "2026-01-01T09:30:00", "2026-01-01T10:30:00"),
        ("Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T00:00:00", "2026-10-25T01:00:00"),  # 02:30, the first time
        ("Europe/Berlin", "2026-10-25T01:30:00", "2026-10-25T01:00:00", "2026-10-25T02:00:00"),  # 02:30, the second
        ("Europe/Berlin", "2026-03-29T01:00:00", "2026-03-29T01:00:00", "2026-03-29T02:00:00"),  # 02:00 is 03:00
        ("Australia/Lord_Howe", "2026-04-04T15:10:00", "2026-04-04T14:00:00", "2026-04-04T15:30:00"),  # 01:40 again
        ("Australia/Lord_Howe", "2026-10-03T15:40:00", "2026-10-03T15:30:00", "2026-10-03T16:00:00"),  # 02:40
    ],
)
def test_hours_by_hand(zone: str, time: str, start: str, end: str) -> None:
    assert Hours(zone).around(at(time)) == Hour(at(start), at(end))


@given(st.sampled_from(ZONES), st.integers(0, at("2037-01-01")))
def test_hours_of_all_zones_join_without_gap(zone: str, time: int) -> None:
    """Each instant lies in its hour, the hour before ends where it begins."""
    hours = Hours(zone)
    hour = hours.around(time)
    assert hour.start <= time < hour.end
    assert hour.end - hour.start <= 2 * H
    assert hours.around(hour.start) == hours.around(hour.end - 1) == hour
    assert hours.around(hour.start - 1).end == hour.start
    assert hours.around(hour.end).start == hour.end
    assert Hours(zone).around(hour.end - 1) == hour
