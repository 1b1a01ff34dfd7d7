"""Questions to MySQL and MariaDB, on a connection that commits each statement."""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from shopfloor.historian.rows import Rows, ValueKind
from shopfloor.sinks.mysql_link import Link as Driver
from shopfloor.sinks.mysql_session import Address, Session, connect
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.asking import Found, Link, Values
from shopfloor.sinks.sql.tables import HISTORY, LATEST, TAG, Table

T = TypeVar("T")

_AT_ONCE: Final = 50_000
"""Rows that are held as Python's objects."""


def _nanoseconds(time: str, nanos: str) -> str:
    return f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {time}) * 1000 + {nanos}"


_KIND: Final = (
    # What has eight bytes beside another value is a double that DOUBLE does not have (mysql_rows).
    f"CASE WHEN double_value IS NOT NULL OR (text_value IS NOT NULL AND bytes_value IS NOT NULL) THEN "
    f"{ValueKind.FLOAT:d} WHEN bigint_value IS NOT NULL THEN {ValueKind.INT:d} WHEN bool_value IS NOT NULL THEN "
    f"{ValueKind.BOOL:d} WHEN text_value IS NOT NULL THEN {ValueKind.TEXT:d} WHEN numeric_value IS NOT NULL THEN "
    f"{ValueKind.UINT:d} WHEN bytes_value IS NOT NULL THEN {ValueKind.BYTES:d} ELSE {ValueKind.NONE:d} END"
)
_FIELDS: Final[dict[str, tuple[str, pa.DataType]]] = {
    "tag": ("tag_id", pa.int32()),
    "time": (_nanoseconds("time", "nanos"), pa.int64()),
    "entry": ("entry", pa.int64()),
    "place": ("place", pa.int32()),
    "quality": ("quality", pa.uint16()),
    "kind": (_KIND, pa.uint8()),
    "double": ("IFNULL(double_value, 0)", pa.float64()),
    "whole": ("COALESCE(bigint_value, bool_value, 0)", pa.int64()),
    "large": ("IFNULL(numeric_value, 0)", pa.uint64()),
}
"""What every row has: an expression, and what it becomes. As text they are shorter than 251 bytes."""
_MORE: Final[dict[str, tuple[str, pa.DataType]]] = {
    "status": ("IFNULL(status, 0)", pa.uint32()),
    "server": (f"IFNULL({_nanoseconds('server_time', 'server_nanos')}, 0)", pa.int64()),
}
_DATA: Final = "COALESCE(bytes_value, text_value)"
"""Eight bytes of a double stand first; text comes as UTF-8."""


class _Layout:
    """What is selected, and how its text is read."""

    def __init__(self, fields: dict[str, tuple[str, pa.DataType]]) -> None:
        listed = ", ".join(expression for expression, _ in fields.values())
        self.select = f"CONCAT_WS(',', {listed}), {_DATA}"
        self.reading = csv.ReadOptions(column_names=list(fields), use_threads=False)
        self.converting = csv.ConvertOptions(column_types={name: kind for name, (_, kind) in fields.items()})


_BRIEF: Final = _Layout(_FIELDS)
_WHOLE: Final = _Layout({**_FIELDS, **_MORE})


class MysqlLink(Link):
    """A connection to MySQL or MariaDB."""

    number = (
        "double_value IS NOT NULL OR bigint_value IS NOT NULL OR bool_value IS NOT NULL OR numeric_value IS NOT NULL "
        "OR (bytes_value IS NOT NULL AND text_value IN ('Infinity', '-Infinity'))"
    )

    def __init__(self, names: ddl.Names, driver: Driver) -> None:
        """``driver`` commits each statement."""
        super().__init__(names)
        self._driver = driver

    def ask(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT."""
        return self._driver.rows(statement, values)

    def change(self, statement: str, values: Values = ()) -> int:
        """Run a statement; returns how many rows it changed."""
        return self._driver.execute(statement, values)

    def samples(self, table: Table, condition: str, values: Values, *, whole: bool) -> Found:
        """Rows of HISTORY or LATEST."""
        layout = _WHOLE if whole else _BRIEF
        text = f"SELECT {layout.select} FROM {self.table(table)} WHERE {condition}"  # noqa: S608  # own text
        return Found.joined([_found(*some, layout) for some in self._driver.pairs(text, values, _AT_ONCE)])

    def size(self) -> int:
        """Bytes of the tables and their indices on disk, as the server estimates them."""
        names = [self.names.plain(table.name) for table in (HISTORY, LATEST, TAG)]
        ((size,),) = self.ask(
            "SELECT COALESCE(SUM(data_length + index_length), 0) FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_name IN (%s, %s, %s)",
            names,
        )
        return int(size)


def _found(lines: Sequence[bytes], data: Sequence[bytes | None], layout: _Layout) -> Found:
    """Rows as columns."""
    content: Any = pa.BufferReader(b"\n".join(lines))
    read = csv.read_csv(content, layout.reading, convert_options=layout.converting)
    columns: dict[str, NDArray[Any]] = {name: read.column(name).to_numpy() for name in read.column_names}
    kind, bits = columns["kind"], columns["double"].view(np.int64)
    bits = np.where(kind == ValueKind.FLOAT, bits, columns["whole"])
    bits = np.where(kind == ValueKind.UINT, columns["large"].view(np.int64), bits)
    kept: NDArray[np.object_] | None = None
    filled = np.array([item is not None for item in data], np.bool_)
    if filled.any():
        kept = np.empty(len(data), np.object_)
        kept[:] = data
        for i in np.flatnonzero(filled & (kind == ValueKind.FLOAT)).tolist():
            (bits[i],) = struct.unpack(">q", kept[i])
        kept[kind < ValueKind.TEXT] = None
    nothing = np.zeros(len(lines), np.int64)
    rows = Rows(
        columns["entry"], columns["time"], kind, bits, columns["quality"],
        columns.get("status", nothing).astype(np.uint32), columns.get("server", nothing), kept,
    )  # fmt: skip
    return Found(columns["tag"], columns["place"], rows)


class MysqlAsked:
    """One connection for questions."""

    def __init__(self, session: Session, names: ddl.Names) -> None:
        """Made by ``open``."""
        self._session = session
        self._link = MysqlLink(names, session.link)

    @classmethod
    async def open(cls, address: Address, names: ddl.Names) -> Self:
        """Connect. Raises Unavailable and Misconfigured in words."""
        session = await connect(address)
        try:
            await session.run(lambda: session.link.execute("SET SESSION autocommit = 1"))
        except BaseException:
            await session.close()
            raise
        return cls(session, names)

    async def run(self, work: Callable[[Link], T]) -> T:
        """What ``work`` gives, in the connection's thread. Raises Unavailable, Misconfigured, what ``work`` raises."""
        return await self._session.run(lambda: work(self._link))

    async def close(self) -> None:
        """Say goodbye if the server is there, and free everything."""
        await self._session.close()
