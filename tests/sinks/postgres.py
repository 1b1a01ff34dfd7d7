"""What the tests of the PostgreSQL sink share: a server for all of them, a schema for each, and what is in it."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg

from shopfloor.samples import Sample, Value
from shopfloor.sinks.postgres import PostgresConfig
from shopfloor.testing.clocks import instant

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789

CONTENT = """
    SELECT t.name, (extract(epoch FROM date_trunc('second', h.time))::numeric * 1000000
                    + (extract(microseconds FROM h.time)::bigint % 1000000)) * 1000 + h.nanos,
           h.double_value, h.bigint_value, h.numeric_value, h.bool_value, h.text_value, h.bytes_value, h.quality,
           coalesce(h.status, 0),
           coalesce((extract(epoch FROM date_trunc('second', h.server_time))::numeric * 1000000
                     + (extract(microseconds FROM h.server_time)::bigint % 1000000)) * 1000 + h.server_nanos, 0)
    FROM {schema}.history h JOIN {schema}.tag t ON t.id = h.tag_id ORDER BY h.entry, h.place
"""
"""All samples, worked out by the server's own arithmetic."""


def config(port: int, schema: str = "shopfloor", **options: object) -> PostgresConfig:
    fields: dict[str, object] = {
        "name": "archive", "type": "postgres", "dsn": f"postgresql://postgres@127.0.0.1:{port}/postgres",
        "schema_name": schema, "timeout": "30 s", "keep_alive": "0.2 s",
    }  # fmt: skip
    return PostgresConfig.model_validate(fields | options)


class Client:
    """A connection of the test's own, by another code path than the sink's."""

    def __init__(self, port: int, schema: str, **options: object) -> None:
        self._where: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "postgres", "dbname": "postgres"}
        self._where |= options
        self.schema = schema

    async def ask(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; ``{schema}`` is the test's."""
        connection = await psycopg.AsyncConnection.connect(**self._where, autocommit=True)
        async with connection:
            cursor = await connection.execute(statement.replace("{schema}", self.schema).encode(), parameters or None)
            return await cursor.fetchall() if cursor.description else []

    async def hold(self, statement: str, held: asyncio.Event, release: asyncio.Event, name: str = "test") -> None:
        """Do something in a transaction that ends with ``release``; ``held`` tells that it was done."""
        connection = await psycopg.AsyncConnection.connect(**self._where, application_name=name)
        async with connection:
            await connection.execute(statement.replace("{schema}", self.schema).encode())
            held.set()
            await release.wait()

    async def samples(self) -> Sequence[Sample]:
        """Everything in the history, in the order in which it came."""
        if not await self.ask("SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'history'", self.schema):
            return []
        return [
            Sample(tag, int(time), _value(values), quality, status, int(server))
            for tag, time, *values, quality, status, server in await self.ask(CONTENT)
        ]


def _value(columns: Sequence[Any]) -> Value:
    filled = [value for value in columns if value is not None]
    assert len(filled) <= 1, f"more than one column has a value: {columns}"
    value: Value = int(filled[0]) if filled and isinstance(filled[0], Decimal) else filled[0] if filled else None
    return value
