"""PostgreSQL for ``shopfloor bench sinks``: the sink beside psycopg's binary COPY."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from pydantic import SecretStr

from shopfloor.plant import HistorianConfig, SinkConfig
from shopfloor.samples import Batch, Misconfigured
from shopfloor.sinks.postgres import PostgresConfig
from shopfloor.sinks.postgres_historian import PostgresHistorianConfig
from shopfloor.sinks.postgres_tables import DIALECT
from shopfloor.sinks.sql import ddl, rows
from shopfloor.sinks.sql.tables import HISTORY, Kind
from shopfloor.testing.programs import Postgres

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES: Final = [i for i, column in enumerate(HISTORY.columns) if column.kind is Kind.TIME]
_TYPES: Final = [DIALECT.types[column.kind].partition("(")[0] for column in HISTORY.columns]


class PostgresBench:
    """A server that syncs its disk, as one in a plant does."""

    name: str = "postgres"
    bulk: str = "psycopg binary COPY"
    share: float = 1.0

    def __init__(self) -> None:
        """Nothing is started yet. Raises Misconfigured when PostgreSQL is not installed."""
        if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
            raise Misconfigured(f"PostgreSQL is not installed; install it with: {Postgres.HOW_TO_INSTALL}")
        self._server = Postgres(options=["fsync=on", "full_page_writes=on", "max_wal_size=4GB"])
        self._table = ""
        self._groups: list[list[tuple[Any, ...]]] = []
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Self:
        self._server.start()
        self._connection = psycopg.connect(
            host="127.0.0.1", port=self._server.port, user="postgres", dbname="postgres", autocommit=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._connection is not None:
            self._connection.close()
        self._server.__exit__(kind, error, trace)

    def config(self, run: int) -> SinkConfig:
        """A sink with a schema of its own."""
        return PostgresConfig.model_validate(
            {
                "name": f"bench-{run}",
                "dsn": f"postgresql://postgres@127.0.0.1:{self._server.port}/postgres",
                "schema_name": f"sink_{run}",
            }
        )

    def historian(self, keep: int) -> HistorianConfig:
        """A historian with a schema of its own."""
        dsn = SecretStr(f"postgresql://postgres@127.0.0.1:{self._server.port}/postgres")
        return PostgresHistorianConfig(dsn=dsn, schema_name="historian", keep=keep)

    def settle(self) -> None:
        """Take the statistics of the historian's table, as autovacuum does by itself."""
        self._execute("VACUUM ANALYZE historian.history")

    def prepare(self, run: int, groups: Sequence[Sequence[Batch]]) -> None:
        """Make the same table in another schema, and finished rows."""
        names = ddl.Names(DIALECT, f"bulk_{run}")
        self._table = names.full(HISTORY.name)
        self._execute(f"CREATE SCHEMA {DIALECT.quoted(names.schema)}")
        for statement in ddl.create(names, HISTORY):
            self._execute(statement)
        if not self._groups:
            tags = sorted({tag for group in groups for batch in group for tag in batch.tags})
            ids = {tag: number for number, tag in enumerate(tags, 1)}
            self._groups = [_rows(group, ids) for group in groups]

    def load(self) -> None:
        """By ``write_row`` with types set, as psycopg's documentation has it for speed."""
        connection = self._open()
        for group in self._groups:
            with (
                connection.transaction(),
                connection.cursor() as cursor,
                cursor.copy(f"COPY {self._table} FROM STDIN (FORMAT BINARY)".encode()) as copy,
            ):
                copy.set_types(_TYPES)
                for row in group:
                    copy.write_row(row)

    def counted(self, run: int) -> tuple[int, int]:
        """How many rows each table has."""
        return self._count(f"sink_{run}.history"), self._count(f"bulk_{run}.history")

    def _count(self, table: str) -> int:
        row = self._execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  # own text
        return 0 if row is None else row[0]

    def _execute(self, statement: str) -> psycopg.Cursor[Any]:
        return self._open().execute(statement.encode())

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            raise RuntimeError("it is not entered")
        return self._connection


def _rows(group: Sequence[Batch], ids: dict[str, int]) -> list[tuple[Any, ...]]:
    """The rows of a transaction as psycopg wants them."""
    found: list[tuple[Any, ...]] = []
    for block in rows.blocks(enumerate(group, 1), ids):
        for row in block.rows():
            made = list(row)
            for i in _TIMES:
                made[i] = None if made[i] is None else _EPOCH + timedelta(microseconds=made[i])
            found.append(tuple(made))
    return found
