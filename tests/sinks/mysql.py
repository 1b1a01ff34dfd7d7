"""What the tests of the MySQL sink share: a database for each test, and what is in it."""

import struct
from collections.abc import Sequence
from itertools import count
from typing import Any

import pymysql

from shopfloor.samples import Sample, Value
from shopfloor.sinks.mysql import MysqlConfig
from shopfloor.testing.clocks import instant

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789
NUMBERS = count()

CONTENT = """
    SELECT t.name, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', h.time) * 1000 + h.nanos,
           h.double_value, h.bigint_value, h.numeric_value, h.bool_value, h.text_value, h.bytes_value,
           h.quality, COALESCE(h.status, 0),
           COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', h.server_time) * 1000 + h.server_nanos, 0)
    FROM shopfloor_history h JOIN shopfloor_tag t ON t.id = h.tag_id ORDER BY h.entry, h.place
"""
"""All samples, worked out by the server's own arithmetic."""


class Client:
    """A connection of the test's own into a new database, as root."""

    def __init__(self, port: int, user: str = "root") -> None:
        self.port = port
        self.user = user
        self.database = f"plant_{next(NUMBERS)}"
        self.ask(f"CREATE DATABASE {self.database}", database=None)

    def ask(self, statement: str, *values: object, database: str | None = "") -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        link = pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", autocommit=True, charset="utf8mb4",
            database=self.database if database == "" else database,
        )  # fmt: skip
        with link, link.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def config(self, port: int | None = None, **options: object) -> MysqlConfig:
        """A sink into the database, by another port where a proxy stands between."""
        fields: dict[str, object] = {
            "name": "archive", "type": "mysql", "timeout": "30 s", "keep_alive": "0.2 s",
            "dsn": f"mysql://{self.user}@127.0.0.1:{self.port if port is None else port}/{self.database}",
        }  # fmt: skip
        return MysqlConfig.model_validate(fields | options)

    def samples(self) -> Sequence[Sample]:
        """Everything in the history, in the order in which it came."""
        if not self.ask("SHOW TABLES LIKE 'shopfloor_history'"):
            return []
        return [
            Sample(tag, time, value_of(*values), quality, status, server)
            for tag, time, *values, quality, status, server in self.ask(CONTENT)
        ]


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
    filled: list[Value] = [value for value in (double, bigint, numeric, text, content) if value is not None]
    assert len(filled) <= 1, f"more than one column has a value: {filled}"
    return filled[0] if filled else None
