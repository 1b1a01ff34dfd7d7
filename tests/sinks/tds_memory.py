"""A scripted server that keeps what a transaction of the SQL Server sink leaves behind: tags, samples, the position.

It takes the sink's own statements apart, no others. What is under way in a connection that ends is forgotten.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

from shopfloor.sinks import sqlserver_json
from shopfloor.sinks.sql.tables import Kind
from shopfloor.sinks.sqlserver_tables import DIALECT, SCHEMA
from tests.sinks.tds import Answer, Line, Rows, TdsServer
from tests.sinks.tds_types import Table, Value, parameters

_CATALOGUE: Final = (
    ("name", "nvarchar(128)"), ("column", "nvarchar(128)"), ("type", "nvarchar(128)"), ("max_length", "smallint"),
    ("precision", "int"), ("scale", "int"), ("required", "int"),
    ("generated", "int"),
)  # fmt: skip


class Stored(NamedTuple):
    """A sample, as far as it shows whether it is there once."""

    entry: int
    place: int
    number: int


class Held(NamedTuple):
    """What is durable, or would be."""

    position: int
    tags: dict[str, int]
    samples: list[Stored]

    def copy(self) -> "Held":
        """One that may be changed."""
        return Held(self.position, dict(self.tags), list(self.samples))


class _Gone:
    """Takes answers that never arrive."""

    async def give(self, content: bytes, kind: int = 0) -> None:
        """Nothing."""


class Memory(TdsServer):
    """Cuts the line once, where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Held(-1, {}, [])
        self.messages: list[str] = []
        """What was asked since the last one that was cut."""
        self.end = -1
        """How many messages there are before the one that is not answered, -1: all are."""
        self.late = False
        """Whether that one is carried out all the same."""
        self._under_way: Held | None = None

    async def _greet(self, line: Line, body: bytes) -> bool:
        self._under_way = None
        return await super()._greet(line, body)

    async def _transaction(self, line: Line, body: bytes) -> None:
        last = self._last()
        await super()._transaction(cast("Line", _Gone()) if last else line, body)
        self._said(self.heard[-1])
        if last:
            raise ConnectionResetError

    async def _answer(self, line: Line, kind: int, body: bytes) -> bool:
        last = self._last()
        stays = await super()._answer(cast("Line", _Gone()) if last else line, kind, body)
        self._said(self.heard[-1])
        return stays and not last

    def _last(self) -> bool:
        """Whether this is the one; raises ConnectionResetError when it is not even carried out."""
        last = len(self.messages) == self.end
        if last:
            self.end = -1
            if not self.late:
                self.messages.clear()
                raise ConnectionResetError
        return last

    def _said(self, what: str) -> None:
        self.messages.append(what)
        if what == "commit":
            self.held = self._under_way or self.held
        if what in ("commit", "roll back"):
            self._under_way = None

    def answer(self, statement: str, call: bytes) -> Answer | None:
        """By what is held."""
        seen = self._under_way or self.held
        if call and call[2:3] in (b"\x0a", b"\x0d"):
            self._changed(statement, list(parameters(call))[2 if call[2] == 0x0A else 3 :])
        if "SELECT name, id" in statement:
            return Table([("name", "nvarchar(max)"), ("id", "int")], list(seen.tags.items()))
        if "sys.columns" in statement:
            return Table(_CATALOGUE, list(_catalogue()))
        if "SELECT e, POWER" in statement:
            powers = sqlserver_json.EXPONENTS
            return Table([("e", "int"), ("power", "float")], [(e, 2.0**e) for e in powers])
        for words, found in (
            ("VERSION", ["Microsoft SQL Server"]), ("getapplock", [0]), ("sys.schemas", [1]), ("HAS_PERMS", [1]),
            ("N'version'", ["1"]), ("SELECT content", []), ("SELECT name FROM", []),
            ("SELECT position", [seen.position]),
        ):  # fmt: skip
            if words in statement:
                return Rows(cast("list[int | str | None]", found))
        return None

    def _changed(self, statement: str, values: list[Value]) -> None:
        self._under_way = mine = (self._under_way or self.held).copy()
        if "SET position" in statement:
            self._under_way = mine._replace(position=cast("int", values[0]))
        elif re.search(r"INSERT INTO \S*tag", statement):
            mine.tags.setdefault(str(values[0]), len(mine.tags) + 1)
        elif "OPENJSON" in statement and re.search(r"INSERT INTO \S*history", statement):
            mine.samples.extend(Stored(row[4], row[5], row[10]) for row in json.loads(str(values[0])))


def _catalogue() -> Iterator[tuple[Value, ...]]:
    """What sys.columns has of the sink's tables."""
    for table in SCHEMA.tables:
        for column in table.columns:
            kind, *numbers = re.findall(r"\w+", DIALECT.types[column.kind].partition(" ")[0])
            length = -1 if "max" in numbers else int(numbers[0]) * 2 if "char" in kind else 0
            precision, scale = ([int(number) for number in numbers if number != "max"] + [0, 0])[:2]
            yield (
                table.name, column.name, kind, length, precision, precision if kind == "datetime2" else scale,
                int(not column.null), int(column.kind is Kind.SERIAL),
            )  # fmt: skip
