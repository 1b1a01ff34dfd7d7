"""Questions to SQL Server, on a connection that commits each statement: rows come as Arrow columns.

No question has a column without a limit: of those Microsoft's client takes each row value by value, holding Python's
lock while it waits for the next packet, so that a network that hangs would stop all of Shopfloor. Values that are
longer than a limited column are asked for afterwards, in pieces that are not.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shopfloor.historian.rows import Rows, ValueKind
from shopfloor.samples import Unavailable
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.asking import Found, Link, Values
from shopfloor.sinks.sql.tables import HISTORY, LATEST, TAG, Table
from shopfloor.sinks.sqlserver_link import Link as Driver, Size
from shopfloor.sinks.sqlserver_session import Address, Session, connect
from shopfloor.sinks.sqlserver_tables import is_babelfish

T = TypeVar("T")

_AT_ONCE: Final = 50_000
"""Rows in one batch of the client's."""
_INT: Final[Size] = (4, 10, 0)
_BIGINT: Final[Size] = (-5, 19, 0)
_MOMENT: Final[Size] = (93, 26, 6)
_TEXT: Final[Size] = (-9, 4_000, 0)
_INT_BITS: Final = 31

_BRIEF: Final = (
    "tag_id", "time", "nanos", "entry", "place", "quality", "double_value", "bigint_value", "numeric_value",
    "bool_value", "text_value", "bytes_value",
)  # fmt: skip
_WHOLE: Final = (*_BRIEF, "status", "server_time", "server_nanos")
_OCTETS: Final = 8000
"""The longest value of a column with a limit, in bytes; of text two for each unit of UTF-16."""
_OCTETS_THERE: Final = 4000
"""In Babelfish, which counts text in UTF-8: so many bytes are at most 4000 of nvarchar's characters."""
_TEXT_LIMITED: Final = "CASE WHEN DATALENGTH(text_value) > {} THEN N'' ELSE CAST(text_value AS nvarchar(4000)) END"
_BYTES_LIMITED: Final = "CASE WHEN DATALENGTH(bytes_value) > {} THEN 0x ELSE CAST(bytes_value AS varbinary(8000)) END"
_LONG: Final = "long_value"
"""The column with the length in bytes of a value that does not fit, else NULL."""
_LENGTH: Final = (
    "CASE WHEN DATALENGTH(text_value) > {0} THEN DATALENGTH(text_value) "
    f"WHEN DATALENGTH(bytes_value) > {{0}} THEN DATALENGTH(bytes_value) END AS {_LONG}"
)
_KEY: Final = ("tag_id", "time", "nanos", "entry", "place")
_PIECES: Final = 8
"""Of a long value in one answer, at most."""
_PIECE: Final = (
    f"CAST(SUBSTRING(COALESCE(CAST(text_value AS varbinary(max)), bytes_value), %s, {_OCTETS}) AS varbinary({_OCTETS}))"
)
_TRIES: Final = 10
"""How often is asked anew for a tag's latest value that was long, and another one before it could be read."""

_SIZE: Final = (
    "SELECT COALESCE(SUM(a.total_pages), 0) * 8192 FROM sys.partitions p JOIN sys.allocation_units a "
    "ON a.container_id = CASE WHEN a.type = 2 THEN p.partition_id ELSE p.hobt_id END "
    "WHERE p.object_id IN (OBJECT_ID(%s), OBJECT_ID(%s), OBJECT_ID(%s))"
)
_SIZE_THERE: Final = "SELECT " + " + ".join(["pg_total_relation_size(OBJECT_ID(%s))"] * 3)
"""Babelfish has no sys.allocation_units."""


class SqlServerLink(Link):
    """A connection to SQL Server."""

    # A NaN has its word, too, but not that of a number.
    number = (
        "double_value IS NOT NULL OR bigint_value IS NOT NULL OR bool_value IS NOT NULL OR numeric_value IS NOT NULL "
        "OR (bytes_value IS NOT NULL AND text_value IN (N'Infinity', N'-Infinity'))"
    )
    counting = "COUNT_BIG(*)"

    def __init__(self, names: ddl.Names, driver: Driver) -> None:
        """``driver`` commits each statement."""
        super().__init__(names)
        self._driver = driver

    def ask(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT."""
        made = [_sent(value) for value in values]
        return self._driver.rows(_marked(statement), made, [_size(value) for value in made])

    def change(self, statement: str, values: Values = ()) -> int:
        """Run a statement; returns how many rows it changed."""
        made = [_sent(value) for value in values]
        return self._driver.change(_marked(statement), made, [_size(value) for value in made])

    def samples(self, table: Table, condition: str, values: Values, *, whole: bool) -> Found:
        """Rows of HISTORY or LATEST.

        Raises Unavailable when the latest value of a tag is always a long one, and always another before it is read.
        """
        return self._samples(table, condition, values, whole=whole, tries=_TRIES)

    def _samples(self, table: Table, condition: str, values: Values, *, whole: bool, tries: int) -> Found:
        listed = ", ".join(map(self._listed, _WHOLE if whole else _BRIEF))
        length = _LENGTH.format(self._octets)
        text = f"SELECT {listed}, {length} FROM {self.table(table)} WHERE {condition}"  # noqa: S608  # own text
        parts, long, count = list[Found](), list[_Long](), 0
        for batch in self._batches(text, values, _AT_ONCE):
            parts.append(_found(batch))
            long += _long(batch, count)
            count += batch.num_rows
        found = Found.joined(parts)
        gone = [one for one in long if not self._lengthened(table, found.rows, one)]
        if not gone:
            return found
        kept = found.without([one.at for one in gone])
        if table is HISTORY:  # they are older than `keep`
            return kept
        if not tries:
            raise Unavailable("long values change faster than they can be read")
        anew = [self._samples(table, "tag_id = %s", one.key[:1], whole=whole, tries=tries - 1) for one in gone]
        return Found.joined([kept, *anew])

    def _batches(self, text: str, values: Values, most: int) -> Iterator[Any]:
        made = [_sent(value) for value in values]
        return self._driver.batches(_marked(text), made, [_size(value) for value in made], most)

    def _listed(self, column: str) -> str:
        name = self.names.dialect.quoted(column)
        if column == "text_value":
            return f"{_TEXT_LIMITED.format(self._octets)} AS {name}"
        return f"{_BYTES_LIMITED.format(self._octets)} AS {name}" if column == "bytes_value" else name

    @cached_property
    def _there(self) -> bool:
        return is_babelfish(self._driver)

    @property
    def _octets(self) -> int:
        return _OCTETS_THERE if self._there else _OCTETS

    def _lengthened(self, table: Table, rows: Rows, one: "_Long") -> bool:
        """Put a long value where it belongs; False: its row is not there any more."""
        content = self._text_at_once(table, one) if one.is_text and self._there else self._pieces(table, one)
        if content is None or rows.data is None:
            return False
        rows.data[one.at] = content.decode("utf-16-le", "replace").encode() if one.is_text else bytes(content)
        return True

    def _pieces(self, table: Table, one: "_Long") -> bytearray | None:
        """A long value, of text in UTF-16; None: its row is not there any more."""
        content = bytearray()
        while len(content) < one.length:
            first = len(content) + 1
            firsts = range(first, min(one.length + 1, first + _PIECES * _OCTETS), _OCTETS)
            text = self._row(table, ", ".join(f"{_PIECE} AS piece_{number}" for number in range(len(firsts))))
            # As a batch of one row: for a list of rows the client would make room for a thousand of that size.
            pieces = [
                column[0].as_py() or b""
                for batch in self._batches(text, [*firsts, *one.key], 1)
                if batch.num_rows
                for column in batch.columns
            ]
            if not any(pieces):
                return None
            for piece in pieces:
                content += piece
        return content

    def _text_at_once(self, table: Table, one: "_Long") -> bytes | None:
        """The same from Babelfish, which makes bytes of a text by a code page."""
        lines = self.ask(self._row(table, "text_value"), one.key)
        return str(lines[0][0]).encode("utf-16-le") if lines else None

    def _row(self, table: Table, listed: str) -> str:
        key = " AND ".join(f"{self.names.dialect.quoted(column)} = %s" for column in _KEY)
        return f"SELECT {listed} FROM {self.table(table)} WHERE {key}"  # noqa: S608  # own text

    def some(self, count: int, skip: int = 0) -> str:
        """What stands behind ORDER BY to get some rows only."""
        return f"OFFSET {skip:d} ROWS FETCH NEXT {count:d} ROWS ONLY"

    def size(self) -> int:
        """Bytes of the tables and their indices on disk."""
        tables = [self.table(table) for table in (HISTORY, LATEST, TAG)]
        ((size,),) = self.ask(_SIZE_THERE if self._there else _SIZE, tables)
        return int(size)


class _Long(NamedTuple):
    """A value that does not fit into a column with a limit."""

    at: int
    """Its row's place in what was found."""
    key: Sequence[object]
    """Of its row, as ``_KEY`` says."""
    length: int
    """In bytes."""
    is_text: bool


def _long(batch: Any, before: int) -> Iterator[_Long]:
    """Those that do not fit; so many rows come before."""
    lengths = batch.column(_LONG)
    for i in np.flatnonzero(_there(lengths)).tolist():
        key = [batch.column(name)[i].as_py() for name in _KEY]
        yield _Long(before + i, key, lengths[i].as_py(), batch.column("text_value")[i].is_valid)


def _found(batch: Any) -> Found:
    """Rows as columns."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    there = {name: _there(columns[name]) for name in _BRIEF if name.endswith("_value")}
    kind = np.full(batch.num_rows, ValueKind.NONE, np.uint8)
    bits = np.zeros(batch.num_rows, np.int64)
    for value, name, as_type in (
        (ValueKind.UINT, "numeric_value", pa.uint64()), (ValueKind.BOOL, "bool_value", pa.int8()),
        (ValueKind.INT, "bigint_value", pa.int64()), (ValueKind.FLOAT, "double_value", pa.float64()),
    ):  # fmt: skip
        mine = there[name]
        kind[mine] = value
        filled = _filled(columns[name], as_type)[mine]
        bits[mine] = filled if value is ValueKind.BOOL else filled.view(np.int64)
    kind[there["text_value"]] = ValueKind.TEXT
    # What has eight bytes beside another value is a double that float does not have (sqlserver_rows).
    odd = there["bytes_value"] & (there["text_value"] | there["double_value"])
    kind[there["bytes_value"]] = ValueKind.BYTES
    kind[odd] = ValueKind.FLOAT
    content = columns["bytes_value"]
    bits[odd] = [struct.unpack(">q", content[i].as_py())[0] for i in np.flatnonzero(odd).tolist()]
    nothing = np.zeros(batch.num_rows, np.int64)
    whole = "server_time" in columns
    rows = Rows(
        entry=_filled(columns["entry"], pa.int64()),
        time=_nanoseconds(columns["time"], columns["nanos"]),
        kind=kind,
        bits=bits,
        quality=_filled(columns["quality"], pa.uint16()),
        status=_filled(columns["status"], pa.uint32()) if whole else nothing.astype(np.uint32),
        server=_nanoseconds(columns["server_time"], columns["server_nanos"]) if whole else nothing,
        data=_data(kind, columns["text_value"], content),
    )
    return Found(_filled(columns["tag_id"], pa.int32()), _filled(columns["place"], pa.int32()), rows)


def _there(column: Any) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return there


def _filled(column: Any, kind: pa.DataType) -> NDArray[Any]:
    """Its values as this type, 0 for NULL."""
    filled: NDArray[Any] = column.cast(kind).fill_null(0).to_numpy(zero_copy_only=False)
    return filled


def _nanoseconds(times: Any, nanos: Any) -> NDArray[np.int64]:
    """Ns UTC of a datetime2 and what lies below its microsecond; 0 for NULL."""
    ns: NDArray[np.int64] = _filled(times.cast(pa.timestamp("us")), pa.int64()) * 1000 + _filled(nanos, pa.int64())
    return ns


def _data(kind: NDArray[np.uint8], text: Any, content: Any) -> NDArray[np.object_] | None:
    """The bytes of texts and bytes, None for other kinds; None altogether when there are none."""
    if not bool((kind >= ValueKind.TEXT).any()):
        return None
    kept = np.full(len(kind), None, np.object_)
    for i in np.flatnonzero(kind == ValueKind.TEXT).tolist():
        kept[i] = text[i].as_py().encode()
    for i in np.flatnonzero(kind == ValueKind.BYTES).tolist():
        kept[i] = content[i].as_py()
    return kept


def _marked(statement: str) -> str:
    return statement.replace("%s", "?")


def _sent(value: object) -> object:
    """A time goes without its zone, which would make it another type."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _size(value: object) -> Size:
    if isinstance(value, datetime):
        return _MOMENT
    if isinstance(value, int):
        return _INT if value.bit_length() <= _INT_BITS else _BIGINT
    return _TEXT


class SqlServerAsked:
    """One connection for questions."""

    def __init__(self, session: Session, names: ddl.Names) -> None:
        """Made by ``open``."""
        self._session = session
        self._link = SqlServerLink(names, session.link)

    @classmethod
    async def open(cls, address: Address, names: ddl.Names) -> Self:
        """Connect. Raises Unavailable and Misconfigured in words."""
        session = await connect(address)
        try:
            await session.run(lambda: _settle(session.link))
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


def _settle(link: Driver) -> None:
    link.execute("SET DEADLOCK_PRIORITY LOW")  # a question can be asked again
    link.commit()
    link.autocommit()
