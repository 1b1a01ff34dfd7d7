"""Statements made of the tables and views by a dialect, and in which way a table that is there differs.

Everything that goes into a statement here is written in this package or is a name of the plant file that the config
checked; it is quoted all the same. Values never are part of a statement: they are parameters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shopfloor.sinks.sql.tables import AddColumn, AddIndex, AddTable, Change, Column, Kind, Table
from shopfloor.sinks.sql.views import View


@dataclass(frozen=True)
class Dialect:
    """How one make of database writes it."""

    types: Mapping[Kind, str]
    """How a column of this kind is declared, without NULL or NOT NULL."""
    accepted: Mapping[Kind, frozenset[str]]
    """How information_schema.columns may name the type of such a column, in lower case."""
    quotes: tuple[str, str] = ('"', '"')
    mark: str = "%s"
    """What stands for a value that goes beside the statement."""
    now: str = "CURRENT_TIMESTAMP"
    """The time in UTC, to the microsecond."""
    true: str = "TRUE"
    false: str = "FALSE"
    table_suffix: str = ""
    """What stands behind the closing parenthesis of CREATE TABLE."""
    create_table: str = "CREATE TABLE IF NOT EXISTS"
    create_index: str = "CREATE INDEX IF NOT EXISTS"
    create_view: str = "CREATE OR REPLACE VIEW"
    indexes_inside: bool = False
    """Whether CREATE TABLE has the indexes, too."""
    primary_key: str = "PRIMARY KEY"
    row_id: str = ""
    """A column that becomes the primary key of a table that has none, declared in full, its name first."""

    def quoted(self, name: str) -> str:
        """An identifier."""
        begin, end = self.quotes
        return f"{begin}{name.replace(end, end * 2)}{end}"


@dataclass(frozen=True)
class Names:
    """Where the tables are: in which schema (or database), with which prefix."""

    dialect: Dialect
    schema: str = ""
    """Empty: whatever the connection has."""
    prefix: str = ""

    def plain(self, name: str) -> str:
        """A table's name in the catalogue."""
        return f"{self.prefix}{name}"

    def full(self, name: str) -> str:
        """A table as statements name it."""
        quoted = self.dialect.quoted(self.plain(name))
        return f"{self.dialect.quoted(self.schema)}.{quoted}" if self.schema else quoted

    def columns(self, table: Table) -> str:
        """Its columns, for INSERT and COPY."""
        return ", ".join(map(self.dialect.quoted, table.names))


def create(names: Names, table: Table) -> Iterator[str]:
    """The statements that make a table where it is not there."""
    dialect = names.dialect
    lines = [_declared(dialect, column) for column in table.columns]
    if table.key:
        lines.append(f"{dialect.primary_key} ({_listed(dialect, table.key)})")
    elif dialect.row_id:
        lines += [dialect.row_id, f"PRIMARY KEY ({dialect.row_id.partition(' ')[0]})"]
    if table.unique:
        lines.append(f"UNIQUE ({_listed(dialect, table.unique)})")
    if dialect.indexes_inside:
        lines += [
            f"INDEX {_index(names, table.name, columns)} ({_listed(dialect, columns)})" for columns in table.indexes
        ]
    body = ",\n    ".join(lines)
    yield f"{dialect.create_table} {names.full(table.name)} (\n    {body}\n){dialect.table_suffix}"
    for columns in () if dialect.indexes_inside else table.indexes:
        yield index(names, table.name, columns)


def index(names: Names, table: str, columns: Sequence[str]) -> str:
    """The statement that makes an index where it is not there."""
    on = f"{names.full(table)} ({_listed(names.dialect, columns)})"
    return f"{names.dialect.create_index} {_index(names, table, columns)} ON {on}"


def _index(names: Names, table: str, columns: Sequence[str]) -> str:
    return names.dialect.quoted(names.plain("_".join([table, *columns])))


def change(names: Names, one: Change) -> Iterator[str]:
    """The statements of a migration's step."""
    match one:
        case AddTable(table):
            yield from create(names, table)
        case AddColumn(table, column):
            yield f"ALTER TABLE {names.full(table)} ADD {_declared(names.dialect, column)}"
        case AddIndex(table, columns):
            yield index(names, table, columns)


def view(names: Names, one: View) -> str:
    """The statement that makes a view, or makes it anew."""
    words = _Words(names)
    return f"{names.dialect.create_view} {names.full(one.name)} AS {one.select.format_map(words).strip()}"


class _Words(dict[str, str]):
    """What stands in the braces of a view's text."""

    def __init__(self, names: Names) -> None:
        super().__init__(true=names.dialect.true, false=names.dialect.false)
        self._names = names

    def __missing__(self, name: str) -> str:
        return self._names.full(name)


class Found(NamedTuple):
    """A column that is there, as information_schema.columns has it."""

    type: str
    required: bool
    """Whether it is NOT NULL and has no default."""
    generated: bool = False
    """Whether the database alone gives its values."""


def differences(dialect: Dialect, table: Table, found: Mapping[str, Found]) -> list[str]:
    """What is wrong with a table that is there, in words; ``found`` has its columns by name.

    Columns of its own are welcome as long as they may be left out.
    """
    wrong: list[str] = []
    for column in table.columns:
        has = found.get(column.name)
        if has is None:
            wrong.append(f"it has no column {column.name}")
        elif has.type.lower() not in dialect.accepted[column.kind]:
            wrong.append(f"its column {column.name} is {has.type} instead of {dialect.types[column.kind]}")
        elif has.required and column.null:
            wrong.append(f"its column {column.name} must allow NULL")
        elif has.generated and column.kind is not Kind.SERIAL:
            wrong.append(f"its column {column.name} is a generated one, which takes no values")
    names = set(table.names)
    wrong += [
        f"its own column {name} needs a value" for name, has in found.items() if has.required and name not in names
    ]
    return wrong


def _declared(dialect: Dialect, column: Column) -> str:
    null = "NULL" if column.null else "NOT NULL"
    return f"{dialect.quoted(column.name)} {dialect.types[column.kind]} {null}"


def _listed(dialect: Dialect, names: Sequence[str]) -> str:
    return ", ".join(map(dialect.quoted, names))
