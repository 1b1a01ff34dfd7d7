import pytest

from shopfloor.testing.clocks import SECOND, ManualClock, TickingClock, instant


def test_an_instant_is_exact_to_the_microsecond() -> None:
    assert instant("1970-01-01T00:00:01.000001Z") == SECOND + 1000
    assert instant("2026-03-29T03:00:00+02:00") == instant("2026-03-29T01:00:00Z")


@pytest.mark.parametrize("text", ["2026-03-29T03:00:00", "yesterday", ""])
def test_an_instant_without_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"offset|isoformat"):
        instant(text)


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock("2026-01-05T06:00:00Z")
    assert clock() == clock() == instant("2026-01-05T06:00:00Z")
    assert clock.advance(5 * SECOND) == clock() == instant("2026-01-05T06:00:05Z")
    with pytest.raises(ValueError, match="jump"):
        clock.advance(-1)
    assert clock.jump(-3600 * SECOND) == instant("2026-01-05T05:00:05Z")


def test_a_ticking_clock_never_gives_the_same_time_twice() -> None:
    clock = TickingClock(0, step=7)
    assert [clock() for _ in range(3)] == [7, 14, 21]
