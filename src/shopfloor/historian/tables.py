"""The tables of the historian's DuckDB file: what is in them, and how rows get in and out."""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self, cast

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import structlog

from shopfloor.historian.latest import Latest
from shopfloor.historian.rows import Int64, Rows
from shopfloor.historian.segment import Range, Segment
from shopfloor.samples import Batch

FORMAT: Final = 1
SCHEMA: Final = f"""
CREATE TABLE about (format INTEGER, position BIGINT);
INSERT INTO about VALUES ({FORMAT}, -1);
CREATE TABLE tag (id INTEGER, name VARCHAR);
CREATE TABLE generation (id BIGINT, after BIGINT);
CREATE TABLE segment (name VARCHAR, slot BIGINT, first BIGINT, last BIGINT, rows BIGINT, size BIGINT, ranges VARCHAR);
CREATE TABLE garbage (name VARCHAR);
CREATE TABLE latest (entry BIGINT, tag INTEGER, time BIGINT, kind UTINYINT, bits BIGINT, quality USMALLINT,
                     status UINTEGER, server BIGINT, data BLOB);
"""  # noqa: S608  # own text and a number
HOT: Final = "entry, tag, time, kind, bits, quality, status, server, data"
_log: Final = structlog.get_logger(__name__)
arrow_table: Final[Callable[[Mapping[str, object]], pa.Table]] = cast("Any", pa).table
"""Arrow's own types leave out that it takes NumPy arrays."""


class Stored(msgspec.Struct, frozen=True):
    """A line of the catalogue."""

    segment: Segment
    window: int | None
    first: int
    last: int
    rows: int
    size: int
    ranges: list[Range]


class Generation(msgspec.Struct, frozen=True):
    """A table of rows in arrival order; its journal entries come after ``after``."""

    id: int
    after: int


class Snapshot:
    """What the historian held at one moment; close it (``with``) to let go."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, generations: Sequence[Generation], stored: Sequence[Stored]
    ) -> None:
        self.stored = stored
        self._cursor = cursor
        self._generations = generations

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()

    def hot(self, tag: int, condition: str, arguments: Sequence[int], tail: str = "") -> Rows:
        """Rows of a tag that are in no segment yet; ``tail`` orders them (by ``place`` last) and limits them."""
        if not self._generations:
            return Rows.empty()
        tables = " UNION ALL ".join(
            f"SELECT {HOT}, rowid AS place FROM hot_{g.id} WHERE tag = {tag:d} AND {condition}"  # noqa: S608  # own text and integers
            for g in self._generations
        )
        table = fetched(self._cursor, f"{tables} {tail}", [*arguments] * len(self._generations))
        return rows_of(table)

    def hot_totals(self) -> tuple[int, int | None]:
        """Rows that are in no segment yet, and the oldest time among them."""
        lines = [
            self._cursor.execute(f"SELECT count(*), min(time) FROM hot_{g.id}").fetchall()[0]  # noqa: S608  # own text
            for g in self._generations
        ]
        times = [oldest for _, oldest in lines if oldest is not None]
        return sum(count for count, _ in lines), min(times, default=None)


def fetched(cursor: duckdb.DuckDBPyConnection, query: str, arguments: Sequence[object] = ()) -> pa.Table:
    """What a query gives, as one Arrow table."""
    table: pa.Table = cursor.sql(query, params=list(arguments)).to_arrow_table()
    return table


def rows_of(table: pa.Table) -> Rows:
    """An Arrow table of stored rows as columns."""

    def column(name: str, dtype: type[np.generic]) -> Any:
        return np.asarray(table.column(name).to_numpy()).astype(dtype, copy=False)

    data = table.column("data")
    held = None
    if data.null_count < len(data):
        held = np.empty(len(data), np.object_)
        held[:] = data.to_pylist()
    return Rows(
        entry=column("entry", np.int64),
        time=column("time", np.int64),
        kind=column("kind", np.uint8),
        bits=column("bits", np.int64),
        quality=column("quality", np.uint16),
        status=column("status", np.uint32),
        server=column("server", np.int64),
        data=held,
    )


def arrow(tags: Int64, rows: Rows) -> pa.Table:
    """Rows of these tags, for a table of stored rows."""
    size = len(rows)
    data = pa.nulls(size, pa.binary()) if rows.data is None else pa.array(rows.data.tolist(), pa.binary())
    return arrow_table(
        {
            "entry": rows.entry, "tag": tags.astype(np.int32), "time": rows.time, "kind": rows.kind, "bits": rows.bits,
            "quality": rows.quality, "status": rows.status, "server": rows.server, "data": data,
        }
    )  # fmt: skip


def tags_of(table: pa.Table) -> Int64:
    """The tag of each stored row."""
    return table.column("tag").to_numpy().astype(np.int64)


def entries_arrow(entries: Sequence[tuple[int, Batch]]) -> pa.Table:
    """Offset, reception and source of each journal entry, for the table of a generation's entries."""
    return arrow_table(
        {
            "offset": pa.array([offset for offset, _ in entries], pa.int64()),
            "received": pa.array([batch.received for _, batch in entries], pa.int64()),
            "source": pa.array([batch.source for _, batch in entries], pa.string()),
        }
    )


def insert_arrow(connection: duckdb.DuckDBPyConnection, table: str, content: pa.Table) -> None:
    """Insert all rows of an Arrow table."""
    connection.register("incoming", content)
    try:
        connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608  # own names
    finally:
        connection.unregister("incoming")


def insert_segment(connection: duckdb.DuckDBPyConnection, line: Stored) -> None:
    """Take a segment into the catalogue."""
    connection.execute(
        "INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?)",
        [line.segment.name, line.window, line.first, line.last, line.rows, line.size, json.dumps(line.ranges)],
    )


def drop(connection: duckdb.DuckDBPyConnection, generation: Generation) -> None:
    """Take the tables of a generation away."""
    connection.execute(f"DROP TABLE hot_{generation.id}")
    connection.execute(f"DROP TABLE entry_{generation.id}")
    connection.execute("DELETE FROM generation WHERE id = ?", [generation.id])


def read_latest(connection: duckdb.DuckDBPyConnection) -> Latest:
    """The newest row of each tag when the last generation was compacted."""
    latest = Latest()
    table = fetched(connection, f"SELECT {HOT} FROM latest")  # noqa: S608  # own text
    latest.take(tags_of(table), rows_of(table))
    return latest


def write_latest(connection: duckdb.DuckDBPyConnection, latest: Latest) -> None:
    """Note the newest row of each tag."""
    connection.execute("DELETE FROM latest")
    insert_arrow(connection, "latest", arrow(*latest.snapshot()))


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Generator[None]:
    """Everything in the block, or nothing of it."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        try:
            connection.rollback()
        except duckdb.Error as error:
            # the first error is what happened; this one only says that DuckDB had rolled back by itself
            _log.debug("rollback", error=str(error))
        raise


def names_by_id(tags: Mapping[str, int]) -> dict[int, str]:
    """Tag names by id."""
    return {number: name for name, number in list(tags.items())}
