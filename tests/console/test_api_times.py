"""Times as people write them in a query, to the nanosecond."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from shopfloor.console.times import EARLIEST, LATEST, parse_bucket, parse_instant

BERLIN = ZoneInfo("Europe/Berlin")
NOW = 1_763_683_200_000_000_000
SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("now", NOW),
        (" now ", NOW),
        ("-1h", NOW - 3600 * SECOND),
        ("- 1 h", NOW - 3600 * SECOND),
        ("-90d", NOW - 90 * 86400 * SECOND),
        ("+1.5s", NOW + 1_500_000_000),
        ("0", 0),
        ("-1", -1),
        (str(LATEST), LATEST),
        (str(EARLIEST), EARLIEST),
        ("2025-11-21T00:00:00Z", NOW),
        ("2025-11-21T01:00:00", NOW),
        ("2025-11-21T01:00", NOW),
        ("2025-11-21", NOW - 3600 * SECOND),
        ("2025-11-21T00:00:00.000Z", NOW),
        ("2025-11-21T00:00:00.123456789Z", NOW + 123_456_789),
        ("2025-11-21T05:30:00.5+05:30", NOW + SECOND // 2),
        ("2025-07-21T02:00:00", 1_753_056_000 * SECOND),
    ],
)
def test_an_instant(text: str, instant: int) -> None:
    assert parse_instant(text, NOW, BERLIN) == instant


@pytest.mark.parametrize(
    "text",
    ["", " ", "tomorrow", "-", "-h", "1h", "2025-13-01", "2025-11-21T25:00", "2025-11-21T00:00:00 01:00",
     "99999999999999999999", "1677-01-01", "2263-01-01", "-9999999d", "\x00", "٣", "1e9", "0x10"],
)  # fmt: skip
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time; write 2026|outside of the years"):
        parse_instant(text, NOW, BERLIN)


@given(st.text(max_size=40))
def test_any_text_is_an_instant_within_bounds_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert EARLIEST <= parse_instant(text, NOW, BERLIN) <= LATEST


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), st.integers(0, 999))  # noqa: DTZ001  # made aware below
def test_what_is_written_as_iso_8601_comes_back_exactly(moment: datetime, nanoseconds: int) -> None:
    aware = moment.replace(tzinfo=UTC)
    text = f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{moment.microsecond:06}{nanoseconds:03}Z"
    whole = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_instant(text, NOW, BERLIN) == whole * 1_000 + nanoseconds


@pytest.mark.parametrize(
    ("text", "length"), [("1 min", 60 * SECOND), ("10s", 10 * SECOND), ("500ms", SECOND // 2), ("7", 7)]
)
def test_the_length_of_a_bucket(text: str, length: int) -> None:
    assert parse_bucket(text) == length


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1.5", "1 parsec"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(ValueError, match="unit"):
        parse_bucket(text)
