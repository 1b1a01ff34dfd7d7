"""Which day the report shows by default."""

from datetime import date
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shopfloor.console import figures
from shopfloor.kpi.calendar import Calendar, Planned
from shopfloor.testing.clocks import instant

NIGHT = [[Planned("day", 6 * 60, 22 * 60), Planned("night", 22 * 60, 30 * 60)]] * 7


@pytest.mark.parametrize(
    ("shifts", "now", "day"),
    [
        (NIGHT, "2026-11-22T01:00:00Z", "2026-11-21"),  # 2:00 there, in the night shift of the day before
        (NIGHT, "2026-11-22T06:00:00Z", "2026-11-22"),
        ((), "2026-11-22T01:00:00Z", "2026-11-22"),
        (NIGHT[:5], "2026-11-21T23:30:00Z", "2026-11-22"),  # no shift: the local date
    ],
)
def test_at_night_it_is_the_day_on_which_the_shift_began(shifts: Any, now: str, day: str) -> None:
    """Else nothing would be known of the day, while the night shift runs."""
    weekly = [*shifts, *([()] * (7 - len(shifts)))] if shifts else ()
    state = SimpleNamespace(calendar=Calendar("Europe/Berlin", weekly), now=lambda: instant(now))
    assert figures._today(cast("Any", state)) == date.fromisoformat(day)
