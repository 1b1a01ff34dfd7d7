"""What the tests of the SQL Server sink share: a server that the environment names, a database for each test."""

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Sample, Value
from shopfloor.sinks.sqlserver import SqlServerConfig
from shopfloor.sinks.sqlserver_errors import Refused
from shopfloor.sinks.sqlserver_link import Link
from shopfloor.testing.clocks import instant

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789
SERVER = "SHOPFLOOR_TEST_SQLSERVER"
NUMBERS = count()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)

CONTENT = """
    SELECT t.name, h.time, h.nanos, h.double_value, h.bigint_value, h.numeric_value, h.bool_value, h.text_value,
           h.bytes_value, h.quality, h.status, h.server_time, h.server_nanos
    FROM shopfloor.history h JOIN shopfloor.tag t ON t.id = h.tag_id ORDER BY h.entry, h.place
"""


def server() -> str:
    """The DSN of the server to test with, of a user who may create databases; the test is skipped where none is named.

    Also under CI: no such server can be installed by `make test`.
    """
    named = os.environ.get(SERVER, "")
    if not named:
        pytest.skip(
            f"needs a SQL Server, which cannot be installed here; name one: {SERVER}=mssql://sa:…@host:1433/master"
        )
    return named


def micros(moment: datetime | None) -> int:
    """A datetime2 as µs since 1970; 0: NULL."""
    if moment is None:
        return 0
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds


class Client:
    """A connection of the test's own into a new database."""

    def __init__(self, dsn: str) -> None:
        self.where = urlsplit(dsn)
        self.host, self.port = self.where.hostname or "", self.where.port or 1433
        self.database = f"plant_{os.getpid()}_{next(NUMBERS)}"
        self.ask(f"CREATE DATABASE {self.database}", database="master")
        ((version,),) = self.ask("SELECT @@VERSION", database="master")
        self.babelfish = "Babelfish" in version

    def drop(self) -> None:
        """Leave nothing behind."""
        self.ask(f"DROP DATABASE {self.database}", database="master")

    def link(self, database: str = "") -> Link:
        """A connection that commits each statement."""
        password = unquote(self.where.password or "").replace("}", "}}")
        text = (
            f"Server=tcp:{self.host},{self.port};Database={database or self.database};UID={self.where.username};"
            f"PWD={{{password}}};Encrypt=no;TrustServerCertificate=yes"
        )
        link = Link(text, 300, "test", self.port)  # who counts a soak waits for all of it
        link.log_in()
        link.autocommit()
        return link

    def ask(self, statement: str, *values: object, database: str = "") -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        link = self.link(database)
        try:
            if statement.lstrip().startswith("SELECT"):
                return link.rows(statement, values)
            link.change(statement, values) if values else link.execute(statement)
        finally:
            link.close()
        return []

    def config(self, port: int | None = None, **options: object) -> SqlServerConfig:
        """A sink into the database, by another port where a proxy stands between."""
        fields: dict[str, object] = {
            "name": "archive", "type": "sqlserver", "timeout": "15 s", "keep_alive": "0.2 s", "dsn": self.dsn(port),
        }  # fmt: skip
        return SqlServerConfig.model_validate(fields | options)

    def dsn(self, port: int | None = None, database: str = "") -> FromEnvironment:
        """Where the database is, for whoever goes by another port of this computer where a proxy stands between."""
        user, password = self.where.username, self.where.password or ""
        at = f"{self.host}:{self.port}" if port in (None, self.port) else f"127.0.0.1:{port}"
        return FromEnvironment(f"mssql://{user}:{password}@{at}/{database or self.database}?encrypt=no")

    def position(self) -> int:
        """How far somebody has come; -1 while the server or the table is not there."""
        with suppress(Refused):
            return int(self.ask("SELECT COALESCE(MAX(position), -1) FROM shopfloor.writer")[0][0])
        return -1

    def samples(self) -> Sequence[Sample]:
        """Everything in the history, in the order in which it came."""
        if self.ask("SELECT OBJECT_ID('shopfloor.history')") == [(None,)]:
            return []
        return [
            Sample(
                tag, micros(time) * 1000 + nanos, value_of(*values), quality, status or 0,
                micros(seen) * 1000 + (seen_nanos or 0),
            )
            for tag, time, nanos, *values, quality, status, seen, seen_nanos in self.ask(CONTENT)
        ]  # fmt: skip


def value_of(
    double: float | None, bigint: int | None, numeric: int | None, boolean: int | None, text: str | None,
    content: bytes | None,
) -> Value:  # fmt: skip
    """The value of a row by the documented rule."""
    if content is not None and (double is not None or text is not None):
        exact: float = struct.unpack(">d", content)[0]
        return exact
    if boolean is not None:
        return bool(boolean)
    if numeric is not None:
        return int(numeric)
    filled: list[Value] = [value for value in (double, bigint, text, content) if value is not None]
    assert len(filled) <= 1, f"more than one column has a value: {filled}"
    return filled[0] if filled else None
