"""What rows mean: numbers, times in zones, tags; and what a wrong plant file is told."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies
from pydantic import ValidationError

from shopfloor.samples import Quality, Value
from shopfloor.sources.files import FilesConfig
from shopfloor.sources.files_text import BadFile, examine
from shopfloor.sources.files_time import Clock
from shopfloor.sources.mqtt_payload import Unreadable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 3600 * 10**9


def config(**options: object) -> FilesConfig:
    fields: dict[str, object] = {"name": "cmm", "type": "files", "folder": "inbox"}
    return FilesConfig.model_validate({**fields, **options})


def ns(text: str) -> int:
    passed = datetime.fromisoformat(text) - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 10**9 + passed.microseconds * 1000


@pytest.mark.parametrize(
    ("time_format", "said", "wanted"),
    [
        ("auto", "2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00+00:00"),
        ("auto", "2026-01-31 12:00:00,25", "2026-01-31T11:00:00.25+00:00"),
        ("auto", "2026-01-31", "2026-01-30T23:00:00+00:00"),
        ("auto", 1769857200, "2026-01-31T11:00:00+00:00"),
        ("auto", "1769857200000", "2026-01-31T11:00:00+00:00"),
        ("ms", "1769857200000", "2026-01-31T11:00:00+00:00"),
        ("s", 1769857200.5, "2026-01-31T11:00:00.5+00:00"),
        ("iso", "20260131T120000Z", "2026-01-31T12:00:00+00:00"),
        ("%d.%m.%y %H:%M", "31.07.26 12:00", "2026-07-31T10:00:00+00:00"),
        ("%d.%m.%Y %H:%M:%S %z", "31.07.2026 12:00:00 +0000", "2026-07-31T12:00:00+00:00"),
    ],
)
def test_times_are_read_in_their_format_and_zone(time_format: str, said: object, wanted: str) -> None:
    when = Clock(time_format, "Europe/Berlin").read(said)
    assert (when.time, when.quality) == (ns(wanted), Quality.GOOD)


def test_a_time_is_exact_to_the_nanosecond() -> None:
    assert Clock("auto", "UTC").read("2026-01-31T12:00:00.123456789Z").time % 10**9 == 123_456_789


@pytest.mark.parametrize(
    ("time_format", "said"),
    [("auto", "noon"), ("auto", "12:00"), ("iso", 5), ("s", "x"), ("ms", "5"), ("%d.%m.%Y", "2026-01-31"),
     ("auto", "9999-01-01T00:00:00"), ("auto", "0001-01-01T00:00:00"), ("s", 1e300), ("auto", True)],
)  # fmt: skip
def test_what_is_no_time_is_said(time_format: str, said: object) -> None:
    with pytest.raises(Unreadable, match="its time"):
        Clock(time_format, "Europe/Berlin").read(said)


def test_rows_run_through_the_night_in_which_clocks_go_back() -> None:
    """02:00 to 03:00 comes twice: rows in the order of their writing never jump back, and are uncertain there."""
    zone = ZoneInfo("Europe/Berlin")
    clock = Clock("iso", "Europe/Berlin")
    moments = [datetime(2026, 10, 24, 23, 0, tzinfo=UTC) + timedelta(minutes=10 * i) for i in range(24)]
    last = None
    for moment in moments:
        when = clock.read(moment.astimezone(zone).replace(tzinfo=None).isoformat(), last)
        last = when.time
        assert when.time == ns(moment.isoformat())
        assert (when.quality == Quality.UNCERTAIN) == (moment.hour in (0, 1) and moment.day == 25)


def test_a_time_that_never_was_is_of_a_clock_that_nobody_put_forward() -> None:
    when = Clock("iso", "Europe/Berlin").read("2026-03-29T02:30:00")
    assert (when.time, when.quality) == (ns("2026-03-29T01:30:00+00:00"), Quality.UNCERTAIN)


@given(strategies.datetimes(datetime(1972, 1, 1), datetime(2199, 1, 1), timezones=strategies.just(UTC)))  # noqa: DTZ001
def test_every_moment_comes_back_but_in_the_hour_that_comes_twice(moment: datetime) -> None:
    local = moment.astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=None)
    when = Clock("auto", "Europe/Berlin").read(local.isoformat())
    assert when.time == ns(moment.isoformat()) or (
        when.quality == Quality.UNCERTAIN and when.time == ns(moment.isoformat()) - HOUR
    )


@pytest.mark.parametrize(
    ("decimal", "data_type", "text", "value"),
    [
        (".", "auto", "1.5", 1.5), (".", "auto", "7", 7), (".", "auto", " true ", True), (".", "auto", "007", "007"),
        (".", "auto", "OK", "OK"), (".", "auto", "31.01.2026", "31.01.2026"), (",", "auto", "1,5", 1.5),
        (",", "float", "-,5e3", -500.0), (",", "auto", "7", 7), (".", "text", "1,5", "1,5"),
        (".", "float", "nan", None),
        (".", "bool", "on", True), (".", "int", "18446744073709551615", 2**64 - 1), (".", "auto", "", None),
    ],
)  # fmt: skip
def test_cells_become_values(decimal: str, data_type: str, text: str, value: Value) -> None:
    meaning = config(decimal=decimal, tag="{column}", columns=[{"column": "x", "data_type": data_type}]).meaning()
    (found,) = meaning.readings({"x": text}, "f").values or [None]
    if text == "nan":
        assert isinstance(found, float)
        assert found != found  # noqa: PLR0124  # NaN differs from itself
    else:
        assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("decimal", "data_type", "text", "reason"),
    [
        (".", "auto", "1,5", 'set `decimal: ","`'), (",", "auto", "1.5", r'set `decimal: "\."`'),
        (".", "auto", "1,234.5", "thousands"), (",", "auto", "1.234,5", "thousands"), (".", "float", "x", "no float"),
        (".", "int", "1.5", "no int"), (".", "bool", "2", "no bool"),
        (".", "int", "18446744073709551616", "beyond 64 bits"),
    ],
)  # fmt: skip
def test_cells_that_would_be_misread_are_refused(decimal: str, data_type: str, text: str, reason: str) -> None:
    meaning = config(decimal=decimal, columns=[{"column": "x", "data_type": data_type}]).meaning()
    with pytest.raises(Unreadable, match=reason):
        meaning.readings({"x": text}, "f")


def test_tags_are_made_of_columns_of_the_file_and_of_what_the_row_says() -> None:
    meaning = config(tag="{machine no}/{part}/{column}", time="t", time_format="s").meaning()
    assert meaning.needed == {"machine no", "part", "t"}
    found = meaning.readings({"t": "1e9", "machine no": 7, "part": "A", "x": "1", "": "left out", "y": "2"}, "file")
    assert (found.tags, found.values) == (["7/A/x", "7/A/y"], [1, 2])
    with pytest.raises(Unreadable, match="has nothing in 'part'"):
        meaning.readings({"t": "1e9", "machine no": 7, "part": " ", "x": "1"}, "file")
    with pytest.raises(Unreadable, match="its tag would be"):
        meaning.readings({"t": "1e9", "machine no": "*", "part": "p", "x": "1"}, "file")
    with pytest.raises(Unreadable, match="has no time"):
        meaning.readings({"machine no": 7, "part": "p", "x": "1"}, "file")


def test_a_long_table_with_one_value_a_row_is_a_template_too() -> None:
    meaning = config(tag="{part}/{feature}", columns=[{"column": "actual"}]).meaning()
    found = meaning.readings({"part": "P1", "feature": "bore", "nominal": "8", "actual": "8.01"}, "file")
    assert (found.tags, found.values) == (["P1/bore"], [8.01])


def test_tags_are_declared_where_the_plant_file_alone_tells_them() -> None:
    columns = [{"column": "x", "unit": "mm"}, {"column": "y", "tag": "cmm/y"}]
    known = config(tag="cmm/{column}", columns=columns).declared()
    assert known is not None
    assert [(t.tag, t.unit) for t in known] == [("cmm/x", "mm"), ("cmm/y", "")]
    assert config(tag="{file}/{column}", columns=columns).declared() is None
    assert config(tag="cmm/{column}").declared() is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tag": "{column"}, "a brace is missing"), ({"tag": "{}"}, "nothing in the braces"),
        ({"tag": "a*"}, "none of"),
        ({"time_format": "noon"}, "a pattern like"), ({"time_format": "%H:%M"}, "has no year"),
        ({"time_format": "%Q %Y"}, "no pattern of a time"), ({"timezone": "Bremen"}, "Europe/Berlin"),
        ({"delimiter": ";;"}, "one character"), ({"encoding": "klingon"}, "no known encoding"),
        ({"encoding": "utf-32"}, "cannot be read"), ({"encoding": "utf-16"}, "utf-16-le"),
        ({"format": "jsonl", "header": ["a"]}, "belongs to `format: csv`"), ({"files": "a/b"}, "without a folder"),
        ({"columns": [{"column": "x"}, {"column": "x"}]}, "x twice"), ({"header": ["a", "a"]}, "a twice"),
        ({"header": ["a"], "time": "t"}, "no 't'"), ({"done_folder": "../x"}, "inside `folder`"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_plant_file_says_what_to_do(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(**options)


def examined(path: Path, content: bytes, **options: object) -> tuple[str, tuple[str, ...], int]:
    path.write_bytes(content)
    fields: dict[str, object] = {
        "table": True, "encoding": "auto", "delimiter": "auto", "header": (), "skip": 0, "needed": (),
    }  # fmt: skip
    layout = examine(path, **{**fields, **options})  # type: ignore[arg-type]  # they have the right types
    return layout.delimiter, layout.names, layout.line


@pytest.mark.parametrize(
    ("content", "options", "wanted"),
    [
        (b"a;b, c;d\n", {}, (";", ("a", "b, c", "d"), 1)),
        (b"a, x;b, y\n", {"needed": ("b, y",)}, (";", ("a, x", "b, y"), 1)),
        (b"a\tb\n", {}, ("\t", ("a", "b"), 1)),
        (b'"a|b",c\n', {}, (",", ("a|b", "c"), 1)),
        (b"one\n", {}, (";", ("one",), 1)),
        (b"Report 7\n\nx,y\n", {"skip": 2}, (",", ("x", "y"), 3)),
        (b"1,2,3\n", {"header": ("a", "", "c")}, (",", ("a", "", "c"), 0)),
        (b'"two\nlines",b\n', {}, (",", ("two\nlines", "b"), 2)),
    ],
)
def test_the_beginning_of_a_file_tells_the_rest(
    content: bytes, options: dict[str, object], wanted: tuple[str, tuple[str, ...], int], tmp_path: Path
) -> None:
    assert examined(tmp_path / "a", content, **options) == wanted


@pytest.mark.parametrize("content", [b"", b"\n", b'"open\n'])
def test_a_file_without_a_header_is_said(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"no first row|is empty|blank line"):
        examined(tmp_path / "a", content, needed=("time",))
