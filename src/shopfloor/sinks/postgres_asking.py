"""Questions to PostgreSQL: rows come by binary COPY and become columns at once, by NumPy.

A connection is used in a thread of its own, so that nothing of it runs in the event loop; when the server gives no sign
of life, or nobody wants the answer any more, the socket is shut down, which ends whatever waits on it.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray

from shopfloor.historian.rows import Rows, ValueKind
from shopfloor.samples import Unavailable
from shopfloor.sinks.postgres_errors import connecting, translated
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.asking import Found, Link, Values
from shopfloor.sinks.sql.tables import HISTORY, LATEST, TAG, Table

T = TypeVar("T")

_EPOCH: Final = 946_684_800 * 10**6
"""µs from 1970 to 2000."""
_HEAD: Final = 19
"""Bytes before the first row: the signature and two numbers."""
_END: Final = b"\xff\xff"
_CONNECTING: Final = 10
"""The most seconds for making a connection: whoever asks waits for it, and cannot break it off."""
_SETTINGS: Final = (
    ("TimeZone", "UTC"),
    ("jit", "off"),  # it takes longer than most of the questions
    ("client_connection_check_interval", "1000"),  # so that the server ends what nobody waits for any more
)

_KIND: Final = (
    f"CASE WHEN double_value IS NOT NULL THEN {ValueKind.FLOAT:d} WHEN bigint_value IS NOT NULL THEN "
    f"{ValueKind.INT:d} WHEN bool_value IS NOT NULL THEN {ValueKind.BOOL:d} WHEN text_value IS NOT NULL THEN "
    f"{ValueKind.TEXT:d} WHEN numeric_value IS NOT NULL THEN {ValueKind.UINT:d} WHEN bytes_value IS NOT NULL THEN "
    f"{ValueKind.BYTES:d} ELSE {ValueKind.NONE:d} END::int2"
)
_FIELDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("tag", "tag_id", ">i4"),
    ("time", "time", ">i8"),
    ("nanos", "nanos", ">i2"),
    ("entry", "entry", ">i8"),
    ("place", "place", ">i4"),
    ("quality", "quality", ">i4"),
    ("kind", _KIND, ">i2"),
    ("double", "coalesce(double_value, 0)", ">f8"),
    ("whole", "coalesce(bigint_value, bool_value::int, (numeric_value - 18446744073709551616)::int8, 0)", ">i8"),
)
"""Name, expression and type of what every row has."""
_MORE: Final[tuple[tuple[str, str, str], ...]] = (
    ("status", "coalesce(status, 0)", ">i8"),
    ("server", "coalesce(server_time, 'epoch'::timestamptz)", ">i8"),
    ("server_nanos", "coalesce(server_nanos, 0::int2)", ">i2"),
)
_DATA: Final = "coalesce(convert_to(text_value, 'UTF8'), bytes_value, ''::bytea)"
"""The last field, whose length differs."""


class _Layout:
    """How a row comes, without the bytes of its data."""

    def __init__(self, fields: tuple[tuple[str, str, str], ...]) -> None:
        self.select = ", ".join([expression for _, expression, _ in fields] + [_DATA])
        parts = [("fields", ">i2")]
        for name, _, kind in fields:
            parts += [(f"{name}_length", ">i4"), (name, kind)]
        self.type = np.dtype([*parts, ("length", ">i4")])


_BRIEF: Final = _Layout(_FIELDS)
_WHOLE: Final = _Layout(_FIELDS + _MORE)


class PostgresLink(Link):
    """A connection to PostgreSQL."""

    number = "double_value <> 'NaN' OR bigint_value IS NOT NULL OR bool_value IS NOT NULL OR numeric_value IS NOT NULL"

    def __init__(self, names: ddl.Names, connection: psycopg.Connection[Any]) -> None:
        """``connection`` commits each statement."""
        super().__init__(names)
        self._connection = connection
        self.heard = time.monotonic()
        """When the server answered last."""

    def ask(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT."""
        found = self._connection.execute(statement.encode(), values or None).fetchall()
        self.heard = time.monotonic()
        return found

    def change(self, statement: str, values: Values = ()) -> int:
        """Run a statement; returns how many rows it changed."""
        changed = self._connection.execute(statement.encode(), values or None).rowcount
        self.heard = time.monotonic()
        return changed

    def samples(self, table: Table, condition: str, values: Values, *, whole: bool) -> Found:
        """Rows of HISTORY or LATEST."""
        layout = _WHOLE if whole else _BRIEF
        text = f"COPY (SELECT {layout.select} FROM {self.table(table)} WHERE {condition}) TO STDOUT (FORMAT BINARY)"  # noqa: S608  # own text
        content = bytearray()
        with self._connection.cursor() as cursor, cursor.copy(text.encode(), values or None) as copy:
            for chunk in copy:
                content += chunk
                self.heard = time.monotonic()
        return _decoded(content, layout.type)

    def size(self) -> int:
        """Bytes of the tables and their indices on disk."""
        tables = [self.table(table) for table in (HISTORY, LATEST, TAG)]
        ((size,),) = self.ask("SELECT sum(pg_total_relation_size(t::regclass)) FROM unnest(%s::text[]) t", [tables])
        return int(size)


def _decoded(content: bytearray, layout: "np.dtype[Any]") -> Found:
    """What binary COPY gave: a header, rows, an end."""
    width = layout.itemsize
    count, rest = divmod(len(content) - _HEAD - len(_END), width)
    data: NDArray[np.object_] | None = None
    table = np.frombuffer(content, layout, max(0, count), _HEAD) if not rest else None
    # Empty texts have no bytes and are data all the same.
    if table is None or bool((table["length"] != 0).any() or (table["kind"] >= ValueKind.TEXT).any()):
        table, data = _with_data(bytes(content), layout)
    kind = table["kind"].astype(np.uint8)
    bits = np.where(kind == ValueKind.FLOAT, table["double"].astype(np.float64).view(np.int64), table["whole"])
    nothing = np.zeros(len(table), np.int64)
    more = layout.names is not None and "server" in layout.names
    server = (table["server"] + _EPOCH) * 1000 + table["server_nanos"] if more else nothing
    rows = Rows(
        entry=table["entry"].astype(np.int64),
        time=(table["time"].astype(np.int64) + _EPOCH) * 1000 + table["nanos"],
        kind=kind,
        bits=bits.astype(np.int64),
        quality=table["quality"].astype(np.uint16),
        status=(table["status"] if more else nothing).astype(np.uint32),
        server=server.astype(np.int64),
        data=data,
    )
    return Found(table["tag"].astype(np.int32), table["place"].astype(np.int32), rows)


def _with_data(content: bytes, layout: "np.dtype[Any]") -> tuple[NDArray[Any], NDArray[np.object_]]:
    """Rows with data behind them, row by row."""
    width, at = layout.itemsize, _HEAD
    heads: list[bytes] = []
    data: list[bytes] = []
    end = len(content) - len(_END)
    while at < end:
        heads.append(content[at : at + width])
        length = int.from_bytes(heads[-1][-4:], "big")
        data.append(content[at + width : at + width + length])
        at += width + length
    table = np.frombuffer(b"".join(heads), layout)
    kept = np.empty(len(data), np.object_)
    kept[:] = data
    kept[(table["kind"] != ValueKind.TEXT) & (table["kind"] != ValueKind.BYTES)] = None
    return table, kept


class PostgresAsked:
    """One connection for questions."""

    def __init__(self, names: ddl.Names, patience: float) -> None:
        """Made by ``open``; ``patience``: seconds for which the server may give no sign of life."""
        self._names = names
        self._patience = patience
        self._threads = ThreadPoolExecutor(1, "postgres-read")
        self._link: PostgresLink | None = None
        self._connection: psycopg.Connection[Any] | None = None
        self._lever: socket.socket | None = None

    @classmethod
    async def open(cls, parameters: Mapping[str, Any], names: ddl.Names, patience: float) -> Self:
        """Connect. Raises Unavailable and Misconfigured in words."""
        asked = cls(names, patience)
        try:
            await asked._in_thread(lambda: asked._connect(parameters))
        except BaseException:
            await asked.close()
            raise
        return asked

    def _connect(self, parameters: Mapping[str, Any]) -> None:
        where = f"PostgreSQL at {parameters.get('host') or 'the local socket'}:{parameters.get('port') or 5432}"
        try:
            self._connection = connection = psycopg.Connection.connect(
                **parameters, connect_timeout=max(2, min(_CONNECTING, round(self._patience))), autocommit=True
            )
        except psycopg.Error as error:
            raise connecting(error, where) from error
        self._lever = socket.socket(fileno=os.dup(connection.fileno()))
        with translated():
            for name, value in _SETTINGS:
                connection.execute("SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s", [value, name])
        self._link = PostgresLink(self._names, connection)

    async def run(self, work: Callable[[Link], T]) -> T:
        """What ``work`` gives, in the connection's thread. Raises Unavailable, Misconfigured, what ``work`` raises."""
        link = self._link
        if link is None:
            raise Unavailable("the connection to the database was lost")

        def worked() -> T:
            with translated():
                return work(link)

        link.heard = time.monotonic()
        return await self._in_thread(worked)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            while not running.done():
                left = self._left()
                if left <= 0:
                    self._break()
                    await asyncio.wait({running})
                    if running.exception() is None:
                        break  # it answered in the last moment
                    raise Unavailable(f"the database has not answered a question for {self._patience:g} s")
                await asyncio.wait({running}, timeout=left)
        except asyncio.CancelledError:
            self._break()
            await asyncio.wait({running})
            running.exception()  # seen; the cancellation is what the caller hears of
            raise
        return running.result()

    def _left(self) -> float:
        """Seconds until the server has given no sign of life for too long; connecting has a limit of its own."""
        return self._patience if self._link is None else self._link.heard + self._patience - time.monotonic()

    def _break(self) -> None:
        if self._lever is not None:
            try:
                self._lever.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the other side was faster

    async def close(self) -> None:
        """Say goodbye if the server is there, and free everything."""
        connection, self._connection, self._link = self._connection, None, None
        lever, self._lever = self._lever, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, connection.close)
        if lever is not None:
            lever.close()
        self._threads.shutdown(wait=False)
