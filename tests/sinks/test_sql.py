"""The ground of the SQL sinks, without a server: samples as rows, records as facts, tables as statements."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Rejected, Sample, column
from shopfloor.sinks.postgres_tables import DIALECT
from shopfloor.sinks.sql import ddl, rows
from shopfloor.sinks.sql.facts import Fact, facts
from shopfloor.sinks.sql.process import is_remnant, who
from shopfloor.sinks.sql.tables import HISTORY, SCHEMA, TABLES, Column, Kind, Table
from shopfloor.sinks.sql.views import VIEWS
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts.values import same

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789

values = st.one_of(
    st.booleans(), st.integers(INT_MIN, INT_MAX), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.none()
)
samples = st.builds(
    Sample,
    st.sampled_from(["a", "b", "c"]),
    st.integers(-(10**12), 10**12) | st.sampled_from([-(2**63), 2**63 - 1]),
    values,
    st.integers(0, 255),
    st.sampled_from([0, 0, 0x80310000]),
    st.sampled_from([0, 0, NOW]),
)
entries = st.lists(
    st.lists(samples, max_size=6)
    | st.lists(st.builds(Sample, st.just("a"), st.integers(0, 9), st.floats()), max_size=6),
    max_size=4,
).map(lambda found: [(offset, _batch(batch)) for offset, batch in enumerate(found, 7)])
IDS = {"a": 1, "b": 2, "c": 30}
NAMES = {number: name for name, number in IDS.items()}


def _batch(found: Sequence[Sample]) -> Batch:
    """With arrays of values where a source would have them."""
    batch = Batch.of("line", NOW, found)
    return Batch(
        "line", NOW, batch.tags, batch.times, column(list(batch.values)), batch.qualities,
        statuses=batch.statuses, server_times=batch.server_times,
    )  # fmt: skip


def sample_of(row: Sequence[Any]) -> tuple[int, int, Sample]:
    """A row as it is documented, as the sample that it was, with its entry and place."""
    found = dict(zip(HISTORY.names, row, strict=True))
    filled = [found[name] for name in HISTORY.names if name.endswith("_value") and found[name] is not None]
    assert len(filled) <= 1
    server = 0 if found["server_time"] is None else found["server_time"] * 1000 + found["server_nanos"]
    assert 0 <= found["nanos"] <= 999
    assert found["received"] == NOW // 1000
    sample = Sample(
        NAMES[found["tag_id"]], found["time"] * 1000 + found["nanos"], filled[0] if filled else None,
        found["quality"], found["status"] or 0, server,
    )  # fmt: skip
    return found["entry"], found["place"], sample


@given(entries)
def test_every_sample_is_one_row_and_nothing_is_rounded(found: list[tuple[int, Batch]]) -> None:
    """Whatever mixture of types a batch has, (entry, place) gives its order back."""
    stored = sorted((sample_of(row) for block in rows.blocks(found, IDS) for row in block.rows()), key=lambda r: r[:2])
    given_ = [(offset, place, sample) for offset, batch in found for place, sample in enumerate(batch)]
    assert [row[:2] for row in stored] == [row[:2] for row in given_]
    for (_, _, one), (_, _, other) in zip(stored, given_, strict=True):
        assert (one.tag, one.time, one.quality, one.status, one.server_time) == (
            other.tag, other.time, other.quality, other.status, other.server_time,
        )  # fmt: skip
        assert same(one.value, other.value)


@given(entries)
def test_a_value_stands_in_the_column_of_its_type(found: list[tuple[int, Batch]]) -> None:
    kinds = {float: "double", bool: "bool", str: "text", bytes: "bytes", type(None): "none"}
    for block in rows.blocks(found, IDS):
        for value in block.values:
            expected = ("numeric" if value > 2**63 - 1 else "bigint") if type(value) is int else kinds[type(value)]
            assert block.kind == expected


@given(entries)
def test_the_latest_of_a_tag_is_the_newest_by_its_own_time(found: list[tuple[int, Batch]]) -> None:
    """Of equal times the one that came last; in the order of the tags, so that two writers cannot block each other."""
    latest = [row for block in rows.latest(rows.blocks(found, IDS)) for row in map(sample_of, block.rows())]
    newest: dict[str, tuple[int, int, Sample]] = {}
    for offset, batch in found:
        for place, sample in enumerate(batch):
            if sample.tag not in newest or sample.time >= newest[sample.tag][2].time:
                newest[sample.tag] = (offset, place, sample)
    assert {row[2].tag: row[:2] for row in latest} == {tag: row[:2] for tag, row in newest.items()}
    assert len(latest) == len(newest)


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (Sample("a", NOW, "a\x00b"), "NUL"),
        (Sample("a", NOW, "\ud800"), "Unicode"),
        (Sample("a", NOW, 2**64), "64 bits"),
        (Sample("a", NOW, -(2**63) - 1), "64 bits"),
        (Sample("a", NOW, "ä" * 51), "longer"),
        (Sample("a", NOW, b"x" * 101), "longer"),
        (Sample("a" * 513, NOW, 1.0), "longer than 512"),
        (Sample("\udfff", NOW, 1.0), "Unicode"),
        (Sample("a\x00", NOW, 1.0), "NUL"),
    ],
)
def test_what_cannot_be_held_is_named_before_anything_is_sent(sample: Sample, why: str) -> None:
    good = Sample("a", NOW, "ä" * 50)
    with pytest.raises(Rejected, match=why) as rejected:
        rows.fit(Batch.of("line", NOW, [good, sample, good, sample]), nul=False, longest=100)
    assert rejected.value.indices == [1, 3]
    rows.fit(Batch.of("line", NOW, [good, Sample("b", NOW, "x\x00")]), nul=True, longest=100)


# ---- records of machines -----------------------------------------------------------------------------------


NOON = "2026-01-05T12:00:00Z"


def record(**more: object) -> str:
    return json.dumps({"end": "2026-01-05T08:00:00+01:00", "day": "2026-01-05", "shift": "early", **more})


def found(*said: tuple[str, str]) -> dict[str, list[Fact]]:
    batch = Batch.of("oee", NOW, [Sample(tag, NOW, text) for tag, text in said])
    by_table: dict[str, list[Fact]] = {}
    for fact in facts([(5, batch)]):
        by_table.setdefault(fact.table.name, []).append(fact)
    return by_table


def row(fact: Fact) -> dict[str, Any]:
    (only,) = fact.rows
    return dict(zip(fact.table.names, only, strict=True))


def test_a_window_is_a_row_with_its_times_in_utc() -> None:
    said = record(oee=0.5, seconds={"production": 3000.0}, good=7, revision=2, why="late samples from plc")
    window = row(found(("hall/press-1/kpi/hour", said))["kpi_window"][0])
    assert window["machine"] == "hall/press-1"
    assert (window["period"], window["revision"], window["entry"]) == ("hour", 2, 5)
    assert window["starts"] == datetime(2026, 1, 5, 6, 0, 0, 123_456, UTC)
    assert window["ends"] == datetime(2026, 1, 5, 7, 0, tzinfo=UTC)
    assert (window["oee"], window["production_seconds"], window["setup_seconds"]) == (0.5, 3000.0, None)
    assert (window["good"], window["scrap"], window["why"]) == (7, None, "late samples from plc")
    assert window["record"] == said


def test_scrap_and_stops_have_the_first_level_of_the_reason_as_category() -> None:
    said = record(scrap_by_reason={"QUALITY/scratch": 3, "": 1}, losses={"machine/oil": {"count": 2, "seconds": 60.5}})
    tables = found(("m/kpi/shift", said))
    assert [part[4:] for part in tables["kpi_scrap"][0].rows] == [("QUALITY/scratch", "QUALITY", 3), ("", "", 1)]
    assert [part[4:] for part in tables["kpi_loss"][0].rows] == [("machine/oil", "machine", 2, 60.5)]


@pytest.mark.parametrize("level", ["machine", "line", "area", "site"])
def test_a_window_says_of_what_level_it_is(level: str) -> None:
    """Else a sum over all rows would count the units of a line twice."""
    tables = found(("x/kpi/day", record(**{level: "x"})), ("x/kpi/live", record(**{level: "x", "start": NOON})))
    assert [row(tables[name][0])["level"] for name in ("kpi_window", "machine_now")] == [level, level]


def test_products_orders_and_cycles_of_a_window() -> None:
    said = record(
        products={"A": {"good": 3, "oee": 0.5, "seconds": {"production": 7.0}}, "": {"good": 1}},
        orders={"4711": {"good": 4}},
        cycles={"count": 4, "mean": 1.5, "loss": 0.5, "interrupted": 1, "histogram": [[1.0, 4]]},
    )
    tables = found(("m/kpi/hour", said))
    names = tables["kpi_share"][0].table.names
    shares = [dict(zip(names, one, strict=True)) for one in tables["kpi_share"][0].rows]
    assert [(s["kind"], s["name"], s["good"], s["oee"], s["production_seconds"]) for s in shares] == [
        ("product", "A", 3, 0.5, 7.0), ("product", "", 1, None, None), ("order", "4711", 4, None, None),
    ]  # fmt: skip
    cycles = row(tables["kpi_cycle_time"][0])
    assert (cycles["cycles"], cycles["mean"], cycles["lost"], cycles["interrupted"]) == (4, 1.5, 0.5, 1)


def test_an_order_and_a_cycle_are_rows_of_their_own() -> None:
    """A cycle's end to the nanosecond: two may end in one microsecond."""
    said = record(order="4711", product="A", planned_quantity=500, due=NOON)
    run = row(found(("m/kpi/order", said))["production_run"][0])
    assert (run["kind"], run["order_id"], run["product"], run["planned_quantity"]) == ("order", "4711", "A", 500)
    assert run["due"] == datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
    said = json.dumps({"end": NOON, "start": NOON, "class": "cycle", "seconds": 1.5, "units": 2})
    cycle = row(found(("m/kpi/cycle", said))["cycle"][0])
    assert (cycle["ends"], cycle["nanos"]) == (datetime(2026, 1, 5, 6, 0, 0, 123_456, UTC), 789)
    assert (cycle["kind"], cycle["seconds"], cycle["units"], cycle["withdrawn"]) == ("cycle", 1.5, 2, False)


def test_a_correction_without_scrap_takes_the_scrap_rows_away() -> None:
    """The same key without rows: the sink deletes by key, then inserts."""
    tables = found(("m/kpi/hour", record(scrap_by_reason={"a": 1})), ("m/kpi/hour", record()))
    assert [(len(fact.rows), fact.key[:2]) for fact in tables["kpi_scrap"]] == [(0, ("m", "hour"))]


def test_a_reason_of_any_length_and_with_nul_can_be_a_key() -> None:
    """Two that differ only far behind stay two; what is the same after NUL was replaced adds up."""
    long = "x" * 300
    said = record(scrap_by_reason={long + "1": 1, long + "2": 2, "a\x00": 3, "a\ufffd": 4})
    scrap = {part[4]: part[6] for part in found(("m/kpi/day", said))["kpi_scrap"][0].rows}
    assert sorted(scrap.values()) == [1, 2, 7]
    assert all(len(reason) <= 255 for reason in scrap)


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("m/kpi/hour", "{"),
        ("m/kpi/hour", '{"end": 3}'),
        ("m/kpi/hour", record(oee="much")),
        ("m/kpi/hour", record(revision=2**40)),
        ("m/kpi/hour/oee", record()),
        ("m/kpi/other", record()),
        ("m/kpi/hour", "42"),
        ("m/kpi/stop", '{"reasons": [{"reason": 3}]}'),
        ("m/kpi/live", "{}"),
    ],
)
def test_what_is_no_record_is_no_fact(tag: str, text: str) -> None:
    assert found((tag, text)) == {}


# ---- tables and views --------------------------------------------------------------------------------------


def test_names_fit_every_database_and_none_is_used_twice() -> None:
    """63 letters are PostgreSQL's limit, 64 MySQL's; with the longest prefix."""
    names = [table.name for table in TABLES] + [view.name for view in VIEWS]
    assert len(set(names)) == len(names)
    indexes = ["_".join([table.name, *columns]) for table in TABLES for columns in table.indexes]
    assert max(map(len, names + indexes)) <= 63 - 20
    for table in TABLES:
        assert set(table.key) | set(table.replaces) <= set(table.names)
        assert list(table.key[: len(table.replaces)]) == list(table.replaces)
    assert len(SCHEMA.changes) == SCHEMA.version - 1


def test_a_table_of_another_shape_is_told_column_by_column() -> None:
    table = Table("t", "", [Column("a", Kind.INT64), Column("b", Kind.TEXT, null=True), Column("c", Kind.TIME)])
    there = {
        "a": ddl.Found("integer", required=True),
        "b": ddl.Found("text", required=True),
        "mine": ddl.Found("text", required=True),
        "spare": ddl.Found("text", required=False),
    }
    assert ddl.differences(DIALECT, table, there) == [
        "its column a is integer instead of bigint",
        "its column b must allow NULL",
        "it has no column c",
        "its own column mine needs a value",
    ]


def test_identifiers_are_quoted() -> None:
    names = ddl.Names(DIALECT, 'a"b', "p_")
    assert names.full("history") == '"a""b"."p_history"'
    assert '"a""b"."p_history" h' in ddl.view(names, VIEWS[0])


def test_what_a_process_left_behind_is_told_from_what_one_at_work_holds() -> None:
    """Here only: what has the number of a process that is gone, but of another place, is somebody else's."""
    said = "from shopfloor.sinks.sql.process import who; print(who(60), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", said], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        holder = other.stdout.readline().decode().strip()
        assert f":{other.pid} " in holder
        assert not is_remnant(holder)
        other.kill()
        other.wait()
        assert is_remnant(holder)
    mine, (name, _, mark) = who(60), holder.rpartition(" ")
    assert is_remnant(mine)
    assert not is_remnant(f"{name} {'0' * 6}.{mark.partition('.')[2]}")
    assert not is_remnant(f"{mine.rpartition('.')[0]}.{'0' * 8}"), "another one's, by its token"
    assert not is_remnant("")
    assert not is_remnant(mine.partition(" ")[0]), "an older Shopfloor's, which says too little"
