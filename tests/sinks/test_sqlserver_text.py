"""Every statement of the SQL Server sink is T-SQL for a parser of T-SQL, and what it sends is what it was given."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
import sqlglot
from hypothesis import given, settings, strategies as st
from sqlglot import exp

from shopfloor.samples import Batch, Misconfigured, Sample, Value
from shopfloor.sinks import sqlserver_json
from shopfloor.sinks.sql import ddl, rows
from shopfloor.sinks.sql.facts import moment
from shopfloor.sinks.sql.position import Position
from shopfloor.sinks.sql.tables import HISTORY, KPI_WINDOW, LOSS, AddColumn, AddIndex, AddTable, Column, Kind
from shopfloor.sinks.sqlserver_errors import Refused
from shopfloor.sinks.sqlserver_link import Link
from shopfloor.sinks.sqlserver_rows import Part, exact, fact_parts, parts
from shopfloor.sinks.sqlserver_tables import DIALECT, SCHEMA, VIEWS, prepare, temporary
from shopfloor.sinks.sqlserver_writing import Tables
from shopfloor.testing.contracts.values import same
from tests.sinks.older_tables import NEW_IN_2, first
from tests.sinks.sqlserver import NOW, micros, value_of
from tests.sinks.test_sql import IDS, entries

NAMES = ddl.Names(DIALECT, "shopfloor", "a_")


class Heard(Link):
    """A connection to nobody: remembers what it is asked, and every row is there that is looked for."""

    def __init__(self) -> None:
        super().__init__("", 1, "nobody")
        self.statements: list[str] = []

    def execute(self, statement: str) -> None:
        self.statements.append(statement)

    def change(self, statement: str, values: Any, sizes: Any = ()) -> int:
        self.statements.append(statement)
        assert len(values) == statement.count("?") <= 2_100
        assert not sizes or len(sizes) == len(values)
        return 1

    def rows(self, statement: str, values: Any = (), sizes: Any = ()) -> list[tuple[Any, ...]]:
        assert len(values) == statement.count("?")
        assert not sizes or len(sizes) == len(values)
        self.statements.append(statement)
        if "HAS_PERMS" in statement or "getapplock" in statement:
            return [(1,)]
        if "SELECT name, id" in statement:
            return [("a", 1), ("b", 2), ("m/kpi/hour", 3)]
        if "POWER" in statement:
            return [(e, 2.0**e) for e in range(-1022, 972)]
        if "sys.columns" in statement:
            return list(self.columns())
        return []

    def columns(self) -> Any:
        """What CREATE TABLE has said so far, as the catalogue has it."""
        return declared(self.statements)

    def commit(self) -> None:
        pass

    roll_back = commit


def declared(statements: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The columns that CREATE TABLE makes, as the catalogue has them."""
    for statement in statements:
        made = parse(statement) if statement.startswith("CREATE TABLE") else None
        for column in [] if made is None else made.find_all(exp.ColumnDef):
            kind, *numbers = re.findall(r"\w+", column.args["kind"].sql("tsql").lower())
            table = next(made.find_all(exp.Table)).name if made is not None else ""
            length = -1 if "max" in numbers else int(numbers[0]) * (2 if kind[0] == "n" else 1) if numbers else 0
            first, second = ([int(number) for number in numbers if number != "max"] + [0, 0])[:2]
            scale = first if kind == "datetime2" else second
            required = "NOT NULL" in column.sql("tsql")
            kind = {"integer": "int"}.get(kind, kind)
            yield table, column.name, kind, length, first, scale, required, "IDENTITY" in column.sql("tsql")


def parse(statement: str) -> exp.Expr:
    """The statement as the parser takes it; it must know all of it."""
    known = statement.replace("?", "@P").replace(
        "PRIMARY KEY NONCLUSTERED", "PRIMARY KEY"
    )  # which sqlglot does not know
    found = sqlglot.parse(known, read="tsql", error_level=sqlglot.ErrorLevel.RAISE)
    assert found
    for one in found:
        assert one is not None
        assert not isinstance(one, exp.Command) or statement.startswith(("DECLARE", "SET")), (
            f"not understood: {statement}"
        )
    first = found[0]
    assert first is not None
    return first


def test_tables_views_and_migrations_are_t_sql() -> None:
    link = Heard()
    prepare(link, NAMES, 1)
    temporary(link, NAMES)
    for statement in link.statements:
        parse(statement)
    made = [statement for statement in link.statements if statement.startswith("CREATE TABLE")]
    assert len(made) == len(SCHEMA.tables)
    assert sum(statement.startswith("CREATE OR ALTER VIEW [shopfloor].[a_") for statement in link.statements) == len(
        VIEWS
    )
    column = Column("area", Kind.NAME, null=True)
    for change in (AddTable(LOSS), AddColumn("tag", column), AddIndex("tag", ["area"])):
        for statement in ddl.change(NAMES, change):
            parse(statement)


class Older(Heard):
    """A database with the tables of version 1 and their views; ``rights`` says whether the user may ALTER them."""

    def __init__(self, *, rights: bool) -> None:
        super().__init__()
        self.rights, self.before = rights, 0
        self.old: list[tuple[Any, ...]] = []
        prepare(self, NAMES, 1, first(SCHEMA))
        self.old, self.before = list(declared(self.statements)), len(self.statements)

    @property
    def new(self) -> list[str]:
        """What was asked for since, but for questions."""
        return [text for text in self.statements[self.before :] if not text.startswith(("SELECT", "DECLARE"))]

    def rows(self, statement: str, values: Any = (), sizes: Any = ()) -> list[tuple[Any, ...]]:
        if "N'version'" in statement or "SELECT 1 FROM sys.schemas" in statement:
            return [("1",)]
        if "'ALTER'" in statement:
            assert "[" in values[0]
            return [(int(self.rights),)]
        if "USER_NAME" in statement:
            return [("[plant]",)]
        return super().rows(statement, values, sizes)

    def columns(self) -> Any:
        """With what ALTER TABLE added; the view of all columns has those of the table when it was made last."""
        window, *others = "a_kpi_window", *(NAMES.plain(view.name) for view in VIEWS if not view.whole)
        there = [*self.old, *declared(self.statements[self.before :])]
        names, shown = [row[1] for row in there if row[0] == window], list[str]()
        for statement in self.statements:
            if added := re.match(r"ALTER TABLE \[shopfloor\]\.\[a_kpi_window\] ADD \[(\w+)\] float NULL", statement):
                names.append(added[1])
                there.append((window, added[1], "float", 0, 0, 0, 0, 0))
            elif statement.startswith("CREATE OR ALTER VIEW [shopfloor].[a_kpi_latest]"):
                shown = names.copy()
        yield from there
        views = [*(("a_kpi_latest", name) for name in shown), *((name, "machine") for name in others)]
        yield from ((view, name, "int", 0, 0, 0, 0, 0) for view, name in views)


def test_older_tables_are_changed_and_their_views_made_anew() -> None:
    link = Older(rights=True)
    prepare(link, NAMES, 1)
    for statement in link.new:
        parse(statement)
    changed = [statement for statement in link.new if statement.startswith("ALTER TABLE")]
    assert [name for name in NEW_IN_2 for statement in changed if f"ADD [{name}]" in statement] == list(NEW_IN_2)
    assert len(changed) == len(NEW_IN_2)
    assert sum(statement.startswith("CREATE OR ALTER VIEW") for statement in link.new) == len(VIEWS)


def test_a_user_who_may_not_change_tables_is_told_who_may_and_what_to_run() -> None:
    """When just that was run, the user goes on and writes the version, which is all that is left."""
    link = Older(rights=False)
    with pytest.raises(Misconfigured, match=r"version 1, older than.*2.*start it once as \[plant\], or") as said:
        prepare(link, NAMES, 1)
    assert not link.new
    statements = str(said.value).partition("user run: ")[2].split("; ")
    assert len(statements) == len(NEW_IN_2) + 1
    for statement in statements:
        parse(statement)
    link.statements += statements
    link.before = len(link.statements)
    prepare(link, NAMES, 1)
    assert [statement.split()[0] for statement in link.new] == ["UPDATE"]


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (("float", 0, 0, 0, 0, 0), None),
        (("nvarchar", 20, 0, 0, 0, 0), r"state_coverage is nvarchar\(10\) instead of float"),
        (("float", 0, 0, 0, 0, 1), "state_coverage is a generated one, which takes no values"),
    ],
)
def test_a_column_of_the_plants_that_has_a_new_ones_name(column: tuple[Any, ...], why: str | None) -> None:
    link = Older(rights=True)
    link.old.append(("a_kpi_window", "state_coverage", *column))
    if why is None:
        prepare(link, NAMES, 1)
    else:
        with pytest.raises(Misconfigured, match=why):
            prepare(link, NAMES, 1)
    added = [statement for statement in link.new if statement.startswith("ALTER TABLE")]
    assert [NEW_IN_2[0] in statement for statement in added] == [True]


def test_an_older_table_that_is_gone_is_made_as_it_is_now() -> None:
    link = Older(rights=True)
    link.old = [row for row in link.old if row[0] != "a_kpi_window"]
    prepare(link, NAMES, 1)
    assert not [statement for statement in link.new if statement.startswith("ALTER TABLE")]
    (made,) = [statement for statement in link.new if statement.startswith("CREATE TABLE")]
    assert all(name in made for name in NEW_IN_2)


def test_a_view_names_tables_and_views_that_are_there_before_it() -> None:
    there = {NAMES.plain(table.name) for table in SCHEMA.tables}
    for view in VIEWS:
        found = parse(ddl.view(NAMES, view))
        asked = {table.name for table in found.expression.find_all(exp.Table)}
        assert asked <= there, view.name
        there.add(NAMES.plain(view.name))


def test_what_a_transaction_sends_is_t_sql_and_the_position_is_its_last() -> None:
    link = Heard()
    tables = Tables(link, NAMES, nul=True)
    tables.begin()
    said = '{"end": "2026-01-05T07:00:00Z", "day": "2026-01-05", "scrap_by_reason": {"a/b": 3}, "scrap": 3, "good": 7}'
    position = Position(NAMES, "archive", "token")
    position.take(link)
    tables.write(
        position,
        [(1, Batch.of("x", NOW, [Sample("a", NOW, 1.0), Sample("b", NOW, "two"), Sample("m/kpi/hour", NOW, said)]))],
    )
    for statement in link.statements:
        parse(statement)
    order = [re.sub(r"\W+", " ", statement).split()[:3] for statement in link.statements]
    assert order[-1] == ["UPDATE", "shopfloor", "a_writer"]
    assert {" ".join(words) for words in order} >= {
        "INSERT INTO shopfloor", "TRUNCATE TABLE shopfloor_new", "DELETE FROM shopfloor", "UPDATE l SET",
    }  # fmt: skip


def stored(part: Part) -> list[dict[str, Any]]:
    """Rows with every column."""
    return [dict.fromkeys(HISTORY.names) | dict(zip(part.columns, row, strict=True)) for row in part.rows]


@settings(max_examples=60)
@given(entries)
def test_every_sample_is_one_row_and_nothing_is_rounded(found: list[tuple[int, Batch]]) -> None:
    """Also what SQL Server's float does not have; and no such value is sent as a float."""
    made = [row for block in rows.blocks(found, IDS) for part in parts(block) for row in stored(part)]
    by_place = {(row["entry"], row["place"]): row for row in made}
    assert len(by_place) == len(made) == sum(len(batch) for _, batch in found)
    for offset, batch in found:
        for place, sample in enumerate(batch):
            row = by_place[offset, place]
            assert micros(row["time"]) * 1000 + row["nanos"] == sample.time
            assert (row["quality"], row["status"] or 0) == (sample.quality, sample.status)
            double = row["double_value"]
            assert double is None or (math.isfinite(double) and (double == 0 or abs(double) >= 2.2250738585072014e-308))
            assert same(value_of(*(row[name] for name in HISTORY.names[10:])), sample.value)


@given(
    st.lists(st.floats(), min_size=1)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
    | st.lists(st.text(max_size=9), min_size=1)
)
def test_values_as_json_are_the_same_to_the_bit(values: Sequence[Value]) -> None:
    """By what the statement says: m times a power of two, each of which a float holds exactly."""
    batch = Batch.of("x", NOW, [Sample("a", NOW - i * 10**9, value, 192, i, i) for i, value in enumerate(values)])
    for block in rows.blocks([(7, batch)], IDS):
        if not sqlserver_json.takes(block):
            assert any(odd(value) for value in values)
            continue
        text = sqlserver_json.statement(NAMES, "t", block)
        parse(text)
        found = [row for part in sqlserver_json.texts(block) for row in json.loads(part)]
        assert len(found) == len(values)
        assert all(text.count("'$[") == len(row) for row in found)
        for i, (row, value) in enumerate(zip(found, values, strict=True)):
            time = micros(datetime.fromisoformat(row[1])) * 1000 + row[2]
            seen = 0 if row[8] is None else micros(datetime.fromisoformat(row[8])) * 1000 + row[9]
            assert (row[0], time, row[4:8], seen) == (1, NOW - i * 10**9, [7, i, 192, i or None], i)
            if isinstance(value, float):
                m, e = row[10:]
                assert abs(m) <= 2**53
                assert -1022 <= e <= 971
                assert same(float(m) * 2.0**e, value)
            else:
                assert row[10:] == [value]


def odd(value: Value) -> bool:
    """Whether it goes as a parameter."""
    if isinstance(value, str):
        return any(character < " " or character in '"\\' for character in value)
    return isinstance(value, float) and (not math.isfinite(value) or abs(value) < sqlserver_json.SMALLEST)


def test_a_server_without_json_or_with_other_powers_of_two_gets_parameters() -> None:
    class Older(Heard):
        def rows(self, statement: str, values: Any = (), sizes: Any = ()) -> list[tuple[Any, ...]]:
            if "OPENJSON" in statement:
                raise Refused(208, "", "Invalid object name 'OPENJSON'.")
            return super().rows(statement, values, sizes)

    class Inexact(Heard):
        def rows(self, statement: str, values: Any = (), sizes: Any = ()) -> list[tuple[Any, ...]]:
            found = super().rows(statement, values, sizes)
            return [*found[:-1], (971, 1e292)] if "POWER" in statement else found

    assert sqlserver_json.works(Heard())
    for link in (Older(), Inexact()):
        tables = Tables(link, NAMES, nul=True)
        tables.begin()
        tables.write(Position(NAMES, "archive", "token"), [(1, Batch.of("x", NOW, [Sample("a", NOW, 1.0)]))])
        assert not [
            statement for statement in link.statements if statement.startswith("INSERT") and "JSON" in statement
        ]


def test_long_values_do_not_take_room_for_short_ones() -> None:
    """Rows of one statement take the room of the longest: those of like length go together, the longest in pieces."""
    values = ["x" * 10, "y" * 3_000, "z" * 5_000, "🏭" * 2_500, "w"]
    batch = Batch.of("x", NOW, [Sample("a", NOW, value) for value in values])
    (block,) = rows.blocks([(1, batch)], IDS)
    found = [(part.sizes[-1][1], len(part.rows)) for part in parts(block)]
    assert found == [(64, 2), (4_000, 1), (5_000, 1), (5_000, 1)]


def test_statements_have_few_shapes() -> None:
    """Rows go by powers of two, so the server keeps few plans; no statement has too many parameters."""
    batch = Batch.of("x", NOW, [Sample("a", NOW + i, float(i)) for i in range(1_000)])
    (block,) = rows.blocks([(1, batch)], IDS)
    assert [len(part.rows) for part in parts(block)] == [128] * 7 + [64, 32, 8]


@pytest.mark.parametrize(
    ("name", "kept"), [("press", "press"), ("press ", "press\u00a0"), ("a" * 255, "a" * 255), ("", "")]
)
def test_a_name_is_a_key_that_sql_server_tells_from_others(name: str, kept: str) -> None:
    assert exact(name) == kept


def test_a_longer_name_is_cut_and_told_from_others_by_a_hash() -> None:
    one, other = exact("🏭" * 250 + "1"), exact("🏭" * 250 + "2")
    assert one != other
    assert all(len(name.encode("utf-16-le")) <= 2 * 255 for name in (one, other))


def test_times_of_facts_go_without_a_zone() -> None:
    """The client would send one with a zone as a type of its own."""
    row = tuple(moment_of(column.kind) for column in KPI_WINDOW.columns)
    (part,) = fact_parts(KPI_WINDOW, [row])
    assert all(getattr(value, "tzinfo", None) is None for value in part.rows[0])


def moment_of(kind: Kind) -> object:
    return moment(NOW) if kind is Kind.TIME else None
