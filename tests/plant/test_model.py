"""What single sections mean: shifts in a week, patterns of tags, durations and sizes."""

import pytest
from hypothesis import given, strategies as st
from pydantic import TypeAdapter, ValidationError

from shopfloor.plant import (
    Duration,
    Plant,
    Shift,
    Size,
    TagName,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    passes,
)
from shopfloor.plant.calendar import DAYS, WEEK_MINUTES, Span, format_clock, overlap, parse_days

HOUR = 60
DAY = 24 * HOUR


def shift(days: str, begin: str, end: str, *breaks: str) -> Shift:
    return Shift.model_validate({"name": "a", "days": days, "from": begin, "to": end, "breaks": list(breaks)})


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon", (0,)),
        ("mon-fri", (0, 1, 2, 3, 4)),
        ("sat,sun", (5, 6)),
        ("sun, sat", (5, 6)),
        ("fri-mon", (0, 4, 5, 6)),
        ("mon-sun", tuple(range(7))),
        ("mon-wed,fri", (0, 1, 2, 4)),
        ("tue-tue", (1,)),
    ],
)
def test_days_are_ranges_and_lists_of_weekdays(text: str, days: tuple[int, ...]) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize(
    "text", ["", "-", "mon-", "-fri", "Mon", "monday", "mon fri", "mon;tue", "mon--fri", "mon,", "1"]
)
def test_other_days_are_refused_with_the_words_that_are_known(text: str) -> None:
    with pytest.raises(ValueError, match="mon, tue, wed, thu, fri, sat, sun"):
        parse_days(text)


@given(st.text())
def test_any_days_are_understood_or_refused(text: str) -> None:
    try:
        assert set(parse_days(text)) <= set(range(7))
    except ValueError:
        assert text not in DAYS


def test_a_shift_past_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    night = shift("sun", "22:00", "06:00", "23:50-00:10", "02:00-02:30")
    assert night.spans == [Span(6 * DAY + 22 * HOUR, 7 * DAY + 6 * HOUR)]
    assert night.break_spans == [
        Span(6 * DAY + 23 * HOUR + 50, 7 * DAY + 10),
        Span(7 * DAY + 2 * HOUR, 7 * DAY + 2 * HOUR + 30),
    ]


def test_a_whole_day_ends_at_24() -> None:
    assert shift("mon", "00:00", "24:00").spans == [Span(0, DAY)]
    assert shift("mon", "22:00", "00:00").spans == [Span(22 * HOUR, DAY)]


@pytest.mark.parametrize(
    "outside", ["05:00-05:30", "05:50-06:10", "13:50-14:10", "14:00-14:30", "09:00-09:00", "10:00-09:00", "06:00-14:01"]
)
def test_a_break_lies_inside_its_shift(outside: str) -> None:
    with pytest.raises(ValidationError, match=r"has a break .* outside 06:00-14:00"):
        shift("mon", "06:00", "14:00", outside)


def test_breaks_may_touch_but_not_overlap() -> None:
    shift("mon", "06:00", "14:00", "09:00-09:15", "09:15-09:30")
    with pytest.raises(ValidationError, match="breaks that overlap"):
        shift("mon", "06:00", "14:00", "09:00-09:16", "09:15-09:30")


def test_shifts_may_touch_but_not_overlap_even_round_the_end_of_the_week() -> None:
    monday, sunday = shift("mon", "06:00", "14:00"), shift("sun", "22:00", "06:00")
    assert overlap(monday.spans, sunday.spans) is None
    longer = shift("sun", "22:00", "06:01")
    both = overlap(monday.spans, longer.spans)
    assert both is not None
    assert format_clock(both.start) == "mon 06:00"
    assert format_clock(both.end) == "mon 06:01"


@given(st.lists(st.tuples(st.integers(0, WEEK_MINUTES - 1), st.integers(1, DAY)), min_size=2, max_size=2))
def test_overlap_is_what_counting_minutes_gives(begins_and_lengths: list[tuple[int, int]]) -> None:
    one, other = (Span(begin, begin + length) for begin, length in begins_and_lengths)
    minutes = [{minute % WEEK_MINUTES for minute in range(*span)} for span in (one, other)]
    assert (overlap([one], [other]) is not None) == bool(minutes[0] & minutes[1])


@pytest.mark.parametrize(
    ("tag", "pattern", "matches"),
    [
        ("press-1/PV", "press-1/PV", True),
        ("press-1/PV", "*", True),
        ("press-1/PV", "press-1/*", True),
        ("press-1/a/b", "press-1/*", True),
        ("press-1/kpi/oee", "*/kpi/*", True),
        ("press-1/PV", "press-?/PV", False),
        ("press-1/PV", "press-1/P", False),
        ("press-1/PV", "ress-1/PV", False),
        ("a.b", "a?b", False),
        ("axb", "a.b", False),
        ("a\nb", "a*b", True),
        ("$clock/tick", "*", False),
        ("$clock/tick", "*/tick", False),
        ("$clock/tick", "$clock/*", True),
        ("$clock/tick", "$*", True),
    ],
)
def test_a_star_matches_any_run_of_characters_but_not_shopfloors_own_tags(
    tag: str,
    pattern: str,
    matches: bool,  # noqa: FBT001  # a column of the table above
) -> None:
    assert passes(tag, [pattern]) is matches
    assert passes(tag, ["nothing", pattern]) is matches


@pytest.mark.parametrize("name", ["a", "press-1/PV", "Straße 7/Ölstand", "a b", "x" * 255, "a$b", "ns=2;s=a.b"])
def test_a_tags_name_may_hold_nearly_anything(name: str) -> None:
    assert TypeAdapter(TagName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", " a", "$a", "a*", "a?", "a[0]", "a\nb", "a\tb", "x" * 256, 5, None])
def test_a_tags_name_must_not_look_like_a_pattern(name: object) -> None:
    with pytest.raises(ValidationError, match="a tag's name"):
        TypeAdapter(TagName).validate_python(name)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1 ms", 10**6), ("1.2 s", 1_200_000_000), ("250ms", 250 * 10**6), (" 8 h ", 8 * 3600 * 10**9), ("0 s", 0),
     ("15 min", 900 * 10**9), ("15 m", 900 * 10**9), ("90 d", 90 * 86400 * 10**9), ("2 w", 14 * 86400 * 10**9),
     ("0.000000001 s", 1)],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 sec", "5 S", "-1 s", "1,5 s", "1 s 2", "1e3 s", "٣ s", 5, 5.0, None, True]
)
def test_a_duration_without_its_unit_is_refused_with_the_units(text: object) -> None:
    with pytest.raises(ValueError, match=r"one of ms, s, min, m, h, d, w; for example 1\.5 s"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("1 B", 1), ("20 GB", 20 * 10**9), ("4GiB", 4 * 2**30), ("1.5 kB", 1500)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "20", "20 gb", "20 G", "GB", "-1 GB", 20, None])
def test_a_size_without_its_unit_is_refused_with_the_units(text: object) -> None:
    with pytest.raises(ValueError, match="one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB; for example 20 GB"):
        parse_size(text)


@pytest.mark.parametrize(
    "text", ["0 B", "999 B", "1 kB", "1.5 kB", "20 GB", "5.5 TB", "512 MiB", "4 GiB", "536.9 MB", "1.0 MB"]
)
def test_a_size_is_shown_in_the_unit_that_makes_it_short(text: str) -> None:
    size = {"536.9 MB": 536_870_913, "1.0 MB": 1_000_001}.get(text) or parse_size(text)
    assert format_size(size) == text


@pytest.mark.parametrize("parse", [parse_duration, parse_size])
def test_more_than_64_bits_hold_is_refused(parse: type) -> None:
    unit = "w" if parse is parse_duration else "TB"
    with pytest.raises(ValueError, match="more than can be counted"):
        parse(f"999999999999 {unit}")


@given(st.integers(0, 2**40))
def test_a_duration_that_is_shown_can_be_written_so(milliseconds: int) -> None:
    nanoseconds = milliseconds * 10**6
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@given(st.integers(0, 2**40))
def test_a_size_that_is_shown_can_be_written_so_up_to_rounding(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= size / 20


def test_code_gives_numbers_a_plant_file_units() -> None:
    """In code a duration is nanoseconds and a size bytes; the number that stands in a file has no unit."""
    assert TypeAdapter(Duration).validate_python(5) == 5
    assert TypeAdapter(Size).validate_python(5) == 5
    with pytest.raises(ValidationError, match="needs a number and a unit"):
        TypeAdapter(Duration).validate_python(5, context={"written": True})


def test_a_plant_cannot_be_changed() -> None:
    plant = Plant.model_validate({"plant": {"site": "x"}})
    with pytest.raises(ValidationError, match="frozen"):
        plant.machines = []  # type: ignore[misc]  # that it is read-only is what this shows
