"""Where buckets begin, against the rules of the zones spelt out by hand and searched by Hypothesis."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from shopfloor.historian.buckets import DAY, edges, midnight
from shopfloor.testing.clocks import SECOND, instant

ZONES = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana",
         "Pacific/Apia", "Asia/Tehran"]  # fmt: skip
TIMES = st.integers(instant("1990-01-01T00:00:00Z"), instant("2060-01-01T00:00:00Z"))


def local(time: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time // 1000)).astimezone(ZoneInfo(zone))


@given(TIMES, st.integers(1, 40 * DAY), st.integers(10**6, 2 * DAY), st.sampled_from(ZONES))
def test_buckets_cover_the_time_without_gap_and_begin_where_they_should(
    start: int, length: int, every: int, zone: str
) -> None:
    every = min(every, DAY)
    every = max(every, length // 50_000)
    every = min(every, DAY)
    found = edges(start, start + length, every, zone).tolist()
    assert found[0] <= start < found[1]
    assert found[-2] < start + length <= found[-1]
    for begin, end in pairwise(found):
        assert 0 < end - begin <= (26 * 3600 * SECOND if every == DAY else every)
    for begin in found[:50]:
        day = local(begin, zone).toordinal()
        assert (begin - midnight(day, ZoneInfo(zone))) % every == 0
        assert local(begin - 1000, zone).toordinal() < day or begin > midnight(day, ZoneInfo(zone))


def test_where_midnight_does_not_exist_the_day_begins_with_its_first_instant() -> None:
    """In Sao Paulo the clock jumped from 0:00 to 1:00 on 4 November 2018."""
    start = instant("2018-11-04T03:00:00Z")
    assert edges(start, start + 1, DAY, "America/Sao_Paulo").tolist() == [start, instant("2018-11-05T02:00:00Z")]


def test_where_midnight_comes_twice_the_day_begins_with_the_first() -> None:
    """In Havana the clock goes back from 1:00 to 0:00."""
    start = instant("2025-11-02T04:00:00Z")
    assert edges(start, start + 1, DAY, "America/Havana").tolist() == [start, instant("2025-11-03T05:00:00Z")]


def test_a_day_that_a_country_skipped_is_no_bucket() -> None:
    """Samoa had no 30 December 2011."""
    found = edges(instant("2011-12-29T12:00:00Z"), instant("2011-12-31T12:00:00Z"), DAY, "Pacific/Apia")
    assert len(set(found.tolist())) == len(found)
    assert found.tolist() == sorted(found.tolist())


def test_weeks_begin_on_monday() -> None:
    found = edges(instant("2026-03-04T12:00:00Z"), instant("2026-03-20T00:00:00Z"), 7 * DAY, "UTC")
    assert found.tolist() == [instant(f"2026-03-{day:02}T00:00:00Z") for day in (2, 9, 16, 23)]


@pytest.mark.parametrize("count", [100_000, 100_001])
def test_at_most_100_000_buckets(count: int) -> None:
    start = instant("2026-03-04T00:00:00Z")
    if count > 100_000:
        with pytest.raises(ValueError, match="100000"):
            edges(start, start + count * 10**6, 10**6, "UTC")
    else:
        assert len(edges(start, start + count * 10**6, 10**6, "UTC")) == count + 1
