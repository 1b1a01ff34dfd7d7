"""Rows as one JSON text, which SQL Server takes apart by itself: many rows by one short statement.

How a server reads a decimal number as float is written nowhere to the last bit. So a double travels as two whole
numbers, m · 2^e, which float holds exactly; that the server's powers of two are exact is tried once a connection.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.rows import Block
from shopfloor.sinks.sqlserver_errors import Refused
from shopfloor.sinks.sqlserver_link import Link, Size

_AT_ONCE: Final = 4_000
"""Rows in one text."""
_LONGEST: Final = 4_000
"""Characters of a text that goes this way; also what a parameter's type with a limit may have."""
_DIGITS: Final = 53
EXPONENTS: Final = range(-1022, 1024 - _DIGITS + 1)
"""Of m · 2^e with m of 53 bits."""
SMALLEST: Final = 2.0**-970
"""Below it a double would need a smaller power of two than float has."""
_FIRST: Final = (
    ("tag_id", "int"), ("time", "datetime2(6)"), ("nanos", "smallint"), ("received", "datetime2(6)"),
    ("entry", "bigint"), ("place", "int"), ("quality", "int"), ("status", "bigint"), ("server_time", "datetime2(6)"),
    ("server_nanos", "smallint"),
)  # fmt: skip
_KINDS: Final = {
    "double": ("m bigint", "e int"), "bigint": ("m bigint",), "bool": ("m bit",),
    "text": ("m nvarchar(max)",), "none": (),
}  # fmt: skip
_DOUBLE: Final = "CAST(m AS float) * POWER(CAST(2 AS float), e)"
_ESCAPED: Final = re.compile(r'[\x00-\x1f"\\]')
"""Characters that JSON writes otherwise, which not every server takes back: Babelfish keeps the backslashes."""


def takes(block: Block) -> bool:
    """Whether these rows can go as JSON: numbers of a size that is exact, and plain text."""
    if block.kind == "text":
        return all(len(value) <= _LONGEST and not _ESCAPED.search(value) for value in block.values)
    if block.kind != "double":
        return block.kind in _KINDS
    values = np.abs(np.asarray(block.values))
    zeros = (values == 0) & ~np.signbit(np.asarray(block.values))
    return bool(np.all(zeros | (np.isfinite(values) & (values >= SMALLEST))))


def statement(names: ddl.Names, table: str, block: Block) -> str:
    """The INSERT for rows of this kind; its parameter is the text."""
    quoted = names.dialect.quoted
    value = [] if block.kind == "none" else [f"{block.kind}_value"]
    columns = ", ".join(map(quoted, [*(name for name, _ in _FIRST), *value]))
    chosen = [*(quoted(name) for name, _ in _FIRST), *([_DOUBLE if block.kind == "double" else "m"] if value else [])]
    declared = [*(f"{quoted(name)} {kind}" for name, kind in _FIRST), *_KINDS[block.kind]]
    within = ", ".join(f"{column} '$[{i}]'" for i, column in enumerate(declared))
    return f"INSERT INTO {table} ({columns}) SELECT {', '.join(chosen)} FROM OPENJSON(?) WITH ({within})"  # noqa: S608  # own text


def texts(block: Block) -> Iterator[str]:
    """The rows as JSON, an array each."""
    columns = _columns(block)
    for start in range(0, len(block), _AT_ONCE):
        rows = zip(*(column[start : start + _AT_ONCE] for column in columns), strict=True)
        yield json.dumps(list(rows), separators=(",", ":"), ensure_ascii=False)


def _columns(block: Block) -> list[list[Any]]:
    times, servers = np.asarray(block.times), np.asarray(block.server_times)
    statuses = np.asarray(block.statuses)
    found = [
        np.asarray(block.tags).tolist(),
        _moments(times),
        (times % 1000).tolist(),
        _moments(np.asarray(block.received)),
        np.asarray(block.entries).tolist(),
        np.asarray(block.places).tolist(),
        np.asarray(block.qualities).tolist(),
        [value or None for value in statuses.tolist()],
        [said if time else None for said, time in zip(_moments(servers), servers.tolist(), strict=True)],
        [nanos if time else None for nanos, time in zip((servers % 1000).tolist(), servers.tolist(), strict=True)],
    ]
    match block.kind:
        case "double":
            fractions, exponents = np.frexp(np.asarray(block.values))
            found += [np.ldexp(fractions, _DIGITS).astype(np.int64).tolist(), (exponents - _DIGITS).tolist()]
        case "bool":
            found.append([int(value) for value in block.values])
        case "bigint" | "text":
            found.append(list(block.values))
        case _:
            pass
    return found


def _moments(times: Any) -> list[str]:
    """Times in ns UTC as ISO 8601, cut to the microsecond."""
    said: list[str] = (times // 1000).view("datetime64[us]").astype(str).tolist()
    return said


def works(link: Link) -> bool:
    """Whether this server takes JSON apart, and its powers of two are exact."""
    text = json.dumps([[e] for e in EXPONENTS])
    try:
        found = link.rows("SELECT e, POWER(CAST(2 AS float), e) FROM OPENJSON(?) WITH (e int '$[0]')", (text,))
    except Refused as error:
        if error.lost:
            raise
        found = []  # a database of a compatibility level below 130 has no OPENJSON
    link.roll_back()
    return dict(found) == {e: math.ldexp(1.0, e) for e in EXPONENTS}


def size(text: str) -> Size:
    """How the text is sent: as a type without a limit."""
    return -10, max(_LONGEST + 1, 2 * len(text)), 0
