"""What the historian asks SQL Server is T-SQL, and what Microsoft's client makes of the answers is what was stored."""

import asyncio
import math
import re
import struct
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from shopfloor.historian.latest import samples
from shopfloor.historian.rows import Rows, ValueKind
from shopfloor.samples import Sample, Unavailable, Value
from shopfloor.sinks.sql import ddl, tables
from shopfloor.sinks.sql.asking import TagReader
from shopfloor.sinks.sql.tables import HISTORY, LATEST
from shopfloor.sinks.sqlserver_asking import SqlServerAsked, SqlServerLink
from shopfloor.sinks.sqlserver_tables import DIALECT
from shopfloor.testing.clocks import SECOND, instant
from shopfloor.testing.contracts.values import same_samples
from tests.sinks.tds import Answer, Rows as Names, Said, TdsServer
from tests.sinks.tds_types import Table, parameters
from tests.sinks.test_sqlserver_text import Heard, parse
from tests.sinks.test_sqlserver_trouble import config

NAMES = ddl.Names(DIALECT, "shopfloor", "a_")
BEGIN = instant("2026-01-05T06:00:00Z") + 123_456_000
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # datetime2 has no zone
VALUE_COLUMNS = {
    "double_value": "float", "bigint_value": "bigint", "numeric_value": "decimal(20,0)", "bool_value": "bit",
    "text_value": "nvarchar(4000)", "bytes_value": "varbinary(8000)",
}  # fmt: skip
COLUMNS = {
    "tag_id": "int", "time": "datetime2(6)", "nanos": "smallint", "entry": "bigint", "place": "int", "quality": "int",
    **VALUE_COLUMNS,
}  # fmt: skip
MORE = {"status": "bigint", "server_time": "datetime2(6)", "server_nanos": "smallint"}
LONG = {"long_value": "bigint"}
NAN = struct.unpack(">d", bytes.fromhex("7ff80000deadbeef"))[0]
STORED: Sequence[tuple[Value, dict[str, Any]]] = [
    (1.5, {"double_value": 1.5}),
    (-0.0, {"double_value": 0.0, "bytes_value": struct.pack(">d", -0.0)}),
    (5e-324, {"double_value": 0.0, "bytes_value": struct.pack(">d", 5e-324)}),
    (NAN, {"text_value": "NaN", "bytes_value": struct.pack(">d", NAN)}),
    (-math.inf, {"text_value": "-Infinity", "bytes_value": struct.pack(">d", -math.inf)}),
    (-(2**63), {"bigint_value": -(2**63)}),
    (2**64 - 1, {"numeric_value": 2**64 - 1}),
    (True, {"bool_value": True}),
    (False, {"bool_value": False}),
    ("prëss 🏭\x00", {"text_value": "prëss 🏭\x00"}),
    ("", {"text_value": ""}),
    (b"\x00\xff", {"bytes_value": b"\x00\xff"}),
    (b"", {"bytes_value": b""}),
    (None, {}),
]
"""Values, and in which columns the sink's page says that they are."""


class Asking(Heard):
    """A connection to nobody that gives no rows, and remembers what it is asked."""

    def batches(self, statement: str, values: Any, sizes: Any, most: int) -> Any:
        assert len(values) == len(sizes) == statement.count("?") <= 2_100
        del most
        self.statements.append(statement)
        return iter(())

    def rows(self, statement: str, values: Any = (), sizes: Any = ()) -> list[tuple[Any, ...]]:
        found = super().rows(statement, values, sizes)
        if "COUNT_BIG" in statement or "total_pages" in statement:
            return [(3,)]
        return [(datetime(2026, 1, 5),)] if "ORDER BY time" in statement else found  # noqa: DTZ001  # as above


def test_every_question_is_t_sql() -> None:
    """And none takes more parameters than SQL Server does."""
    driver = Asking()
    link = SqlServerLink(NAMES, driver)
    reader = TagReader(link, 7)
    link.newest()
    link.newest(list(range(2_500)))
    link.present()
    link.oldest()
    link.drop(7, BEGIN + 5, 100)
    for whole in (False, True):
        reader.rows(BEGIN, BEGIN + 999, whole=whole)
        reader.rows(BEGIN + 1, BEGIN + SECOND, 10, whole=whole)
    reader.before(BEGIN + 1, only_numeric=False)
    reader.before(BEGIN, only_numeric=True)
    reader.after(BEGIN)
    assert reader.count(0, BEGIN) == 3
    assert link.size() == 3
    assert len(driver.statements) > 15
    for statement in driver.statements:
        parse(statement)
        assert "LIMIT" not in statement
        assert re.search(r"(?<!AS )\[(text|bytes)_value\]", statement) is None, "a column without a limit"
        assert "%s" not in statement
        # OFFSET is a part of ORDER BY there
        assert ("OFFSET" in statement) <= ("ORDER BY" in statement)


def row(place: int, filled: dict[str, Any], *, whole: bool, long: int | None = None) -> list[Any]:
    first = {
        "tag_id": 3, "time": EPOCH + timedelta(microseconds=BEGIN // 1000), "nanos": place, "entry": 2**40,
        "place": place, "quality": 200, **dict.fromkeys(VALUE_COLUMNS), **filled,
    }  # fmt: skip
    said: dict[str, Any] = {"status": 2**31 + place if place else None, "server_time": None, "server_nanos": None}
    if place:
        said |= {"server_time": EPOCH + timedelta(microseconds=BEGIN // 1000 + 1), "server_nanos": 7}
    return [*first.values(), *(said.values() if whole else ()), long]


@pytest.fixture
async def server() -> AsyncIterator[TdsServer]:
    async with TdsServer() as server:
        server.rules.append(("@@VERSION", Names(["Microsoft SQL Server 2022"])))
        yield server


@pytest.fixture
async def asked(server: TdsServer) -> AsyncIterator[SqlServerAsked]:
    asked = await SqlServerAsked.open(config(server.port).address(), NAMES)
    yield asked
    await asked.close()


@pytest.mark.parametrize("whole", [False, True])
async def test_every_value_is_read_as_it_is_stored(server: TdsServer, asked: SqlServerAsked, *, whole: bool) -> None:
    """By Microsoft's client, from what a server sends for such rows; with status and server time where asked for."""
    columns = COLUMNS | (MORE if whole else {}) | LONG
    rows = [row(place, filled, whole=whole) for place, (_, filled) in enumerate(STORED)]
    server.rules.append(("FROM .shopfloor", Table(list(columns.items()), rows)))
    found = await asked.run(lambda link: link.samples(HISTORY, "tag_id = %s", [3], whole=whole))
    expected = [
        Sample("m/x", BEGIN + place, value, 200, *((2**31 + place, BEGIN + 1007) if whole and place else ()))
        for place, (value, _) in enumerate(STORED)
    ]
    assert same_samples(samples(["m/x"] * len(rows), found.rows), expected)
    assert (set(found.tags.tolist()), found.places.tolist()) == ({3}, list(range(len(rows))))
    assert set(found.rows.entry.tolist()) == {2**40}


async def test_many_rows_come_in_pieces(
    server: TdsServer, asked: SqlServerAsked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is missing where one begins, also when the last one is full."""
    monkeypatch.setattr("shopfloor.sinks.sqlserver_asking._AT_ONCE", 50)
    for count in (0, 49, 50, 51, 100):
        rows = [row(place, {"double_value": place / 3}, whole=False) for place in range(count)]
        server.rules[1:] = [("FROM .shopfloor", Table(list((COLUMNS | LONG).items()), rows))]
        found = await asked.run(lambda link: link.samples(HISTORY, "tag_id = %s", [3], whole=False))
        assert isinstance(found.rows, Rows)
        assert found.rows.bits.view(np.float64).tolist() == [place / 3 for place in range(count)]
        assert found.rows.kind.tolist() == [ValueKind.FLOAT] * count
        assert found.rows.data is None


class Pieces(TdsServer):
    """Has one row with a long value; so many times it is another one before that can be read."""

    def __init__(self, content: bytes, column: str, *, gone: int = 0) -> None:
        super().__init__()
        self.content, self.column, self.gone = content, column, gone

    def answer(self, statement: str, call: bytes) -> Answer | None:
        if "@@VERSION" in statement:
            return Names(["Microsoft SQL Server 2022"])
        if "SUBSTRING" not in statement:
            cut_off: dict[str, Any] = {"text_value": ""} if self.column == "text_value" else {"bytes_value": b""}
            rows = [row(0, cut_off, whole=False, long=len(self.content))]
            return Table(list((COLUMNS | LONG).items()), rows)
        self.gone -= 1
        firsts = [value for value in parameters(call) if isinstance(value, int)][: statement.count("SUBSTRING")]
        some = [self.content[first - 1 : first + 7999] for first in firsts]
        return Table([(f"c{i}", "varbinary(8000)") for i in range(len(some))], [] if self.gone >= 0 else [some])


async def asked_for(server: Pieces, table: tables.Table) -> list[Sample]:
    asked = await SqlServerAsked.open(config(server.port).address(), NAMES)
    try:
        found = await asked.run(lambda link: link.samples(table, "tag_id = %s", [3], whole=False))
    finally:
        await asked.close()
    return samples(["m/x"] * len(found.rows), found.rows)


@pytest.mark.parametrize("gone", [0, 2])
@pytest.mark.parametrize("value", ["prëss 🏭 " * 5_555 + "x", b"\x00\xff" * 50_001, "x" * 4001, b"x" * 8001])
async def test_a_long_value_is_read_in_pieces(value: str | bytes, gone: int) -> None:
    """The latest one also when it was another one meanwhile: then that tag is asked for once more."""
    content = value.encode("utf-16-le") if isinstance(value, str) else value
    async with Pieces(content, "text_value" if isinstance(value, str) else "bytes_value", gone=gone) as server:
        assert same_samples(await asked_for(server, LATEST), [Sample("m/x", BEGIN, value, 200)])
    pieces = [statement.count("SUBSTRING") for statement in server.heard]
    assert sum(pieces[2 * gone :]) >= -(-len(content) // 8000)
    assert max(pieces) <= 8


async def test_a_long_value_that_is_always_gone_is_no_endless_question() -> None:
    """The latest one is not there in words; of the history it was dropped, as it was too old."""
    async with Pieces(b"x" * 9000, "bytes_value", gone=1000) as server:
        with pytest.raises(Unavailable, match="change faster than they can be read"):
            await asked_for(server, LATEST)
        assert await asked_for(server, HISTORY) == []


async def test_an_answer_that_hangs_holds_nobody_else(server: TdsServer, asked: SqlServerAsked) -> None:
    """The server is in this process, so it could not go on if the client waited with Python's lock."""
    server.hangs = 0.2
    rows = [row(place, {"text_value": "x" * 90, "double_value": None}, whole=False) for place in range(100)]
    server.rules.append(("FROM .shopfloor", Table(list((COLUMNS | LONG).items()), rows)))
    found = await asked.run(lambda link: link.samples(HISTORY, "tag_id = %s", [3], whole=False))
    assert len(found.rows) == 100


async def test_a_question_that_is_refused_is_said_in_words(server: TdsServer, asked: SqlServerAsked) -> None:
    """Never chosen to give way is who writes: a question can be asked again."""
    assert "SET DEADLOCK_PRIORITY LOW" in server.heard
    server.rules.append(("FROM .shopfloor", Said(1205, "Transaction (Process ID 52) was deadlocked on", 13)))
    with pytest.raises(Unavailable, match="another transaction was in the way"):
        await asked.run(lambda link: link.newest())


async def test_leaving_does_not_wait_for_a_login_that_is_never_answered() -> None:
    """Neither who is connecting nor who waits for that."""
    async with TdsServer(first=False) as silent, asyncio.timeout(120):
        address = config(silent.port, timeout="300 s").address()
        opening = [asyncio.create_task(SqlServerAsked.open(address, NAMES)) for _ in range(3)]
        while "unanswered" not in silent.heard:
            await asyncio.sleep(0.01)
        for one in opening:
            one.cancel()
        done = await asyncio.gather(*opening, return_exceptions=True)
        assert [type(one) for one in done] == [asyncio.CancelledError] * 3
