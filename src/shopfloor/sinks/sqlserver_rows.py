"""Rows as SQL Server's client takes them: for each kind of value the columns that have one, and how they are sent.

SQL Server's float has neither NaN nor infinities nor numbers below 2.23e-308, and nothing says that it keeps the sign
of -0.0. Such a value has its eight bytes (IEEE 754, big-endian) in ``bytes_value``, beside 0 in ``double_value`` or
its word in ``text_value``: no other value has two.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from shopfloor.sinks.mysql_rows import packed, word
from shopfloor.sinks.sql.facts import moment
from shopfloor.sinks.sql.rows import VALUE_COLUMNS, Block
from shopfloor.sinks.sql.tables import HISTORY, LONGEST_NAME, Kind, Table

# SQL types of ODBC, as the client names them
_BIGINT, _INT, _SMALLINT, _BIT, _DOUBLE, _DECIMAL = -5, 4, 5, -7, 8, 3
_TEXT, _LONG_TEXT, _BYTES, _LONG_BYTES, _MOMENT, _DATE = -9, -10, -3, -4, 93, 91

Size = tuple[int, int, int]
Row = tuple[Any, ...]

_SIZES: Final[dict[Kind, Size]] = {
    Kind.SERIAL: (_INT, 10, 0),
    Kind.INT16: (_SMALLINT, 5, 0),
    Kind.INT32: (_INT, 10, 0),
    Kind.INT64: (_BIGINT, 19, 0),
    Kind.UINT64: (_DECIMAL, 20, 0),
    Kind.DOUBLE: (_DOUBLE, 53, 0),
    Kind.BOOL: (_BIT, 1, 0),
    Kind.TIME: (_MOMENT, 26, 6),
    Kind.DATE: (_DATE, 10, 0),
}
_STEPS: Final = (64, 1000, 4000)
"""Rows go together with others whose longest value is no longer than this (UTF-16 units, bytes); what is longer than
all of these goes to the server by itself, in pieces."""
_PARAMETERS: Final = 2_048
"""In one statement; SQL Server takes 2,100."""


class Part(NamedTuple):
    """Rows for one statement; how many is a power of two, so that there are few statements to keep plans of."""

    columns: Sequence[str]
    """The others are NULL."""
    sizes: Sequence[Size]
    """Of a row."""
    rows: Sequence[Row]


def parts(block: Block) -> Iterator[Part]:
    """The rows of a block; those whose double SQL Server does not know are a part of their own."""
    plain: list[Row] = []
    odd: list[Row] = []
    at = VALUE_COLUMNS.get(block.kind)
    for tag, micros, nanos, received, entry, place, quality, status, seen, seen_nanos, *values in block.rows():
        row = (
            tag, moment(micros * 1000).replace(tzinfo=None), nanos, moment(received * 1000).replace(tzinfo=None), entry,
            place, quality, status, None if seen is None else moment(seen * 1000).replace(tzinfo=None), seen_nanos,
        )  # fmt: skip
        if block.kind == "double" and not _known(values[0]):
            beside = 0.0 if math.isfinite(values[0]) else None
            named = None if math.isfinite(values[0]) else word(values[0])
            odd.append((*row, beside, None, None, None, named, packed(values[0])))
        else:
            plain.append(row if at is None else (*row, values[at]))
    first = HISTORY.names[:10]
    yield from _sized(HISTORY, [*first, *([] if at is None else [HISTORY.names[10 + at]])], plain)
    yield from _sized(HISTORY, HISTORY.names, odd)


def fact_parts(table: Table, rows: Sequence[Row]) -> Iterator[Part]:
    """Rows of a table of facts."""
    named = [i for i, column in enumerate(table.columns) if column.kind is Kind.NAME]
    yield from _sized(table, table.names, [_stored(row, named) for row in rows])


def key(table: Table, values: Sequence[Any]) -> Row:
    """The values of ``table.replaces`` as they are stored."""
    return _stored(values, [i for i in range(len(values)) if table.columns[i].kind is Kind.NAME])


def exact(text: str) -> str:
    """A name as it is stored where it can be a key: at most LONGEST_NAME units of UTF-16, no blank at its end.

    SQL Server does not count blanks at the end when it compares; a no-break space stands for the last one.
    """
    if _units(text) > LONGEST_NAME:
        digest = sha256(text.encode()).hexdigest()[:16]
        text = text.encode("utf-16-le")[: 2 * (LONGEST_NAME - 17)].decode("utf-16-le", "ignore") + f"…{digest}"
    return text[:-1] + "\u00a0" if text.endswith(" ") else text


def _stored(row: Sequence[Any], named: Sequence[int]) -> Row:
    made: list[Any] = [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in row]
    for i in named:
        if made[i] is not None:
            made[i] = exact(made[i])
    return tuple(made)


def _known(value: float) -> bool:
    """Whether SQL Server's float has it."""
    if value == 0:
        return math.copysign(1, value) > 0
    return sys.float_info.min <= abs(value) <= sys.float_info.max


def _sized(table: Table, columns: Sequence[str], rows: Sequence[Row]) -> Iterator[Part]:
    """The rows in parts, none with values much longer than others."""
    kinds = {column.name: column.kind for column in table.columns}
    mine = [kinds[name] for name in columns]
    open_ = [i for i, kind in enumerate(mine) if kind not in _SIZES]
    by_step: dict[int, list[Row]] = {}
    for row in rows:
        longest = max((_length(row[i]) for i in open_), default=0)
        by_step.setdefault(next((step for step in _STEPS if longest <= step), 0), []).append(row)  # 0: in pieces
    for step, some in by_step.items():
        start = 0
        while start < len(some):
            count = 1 << (min(_PARAMETERS // len(columns), len(some) - start) if step else 1).bit_length() - 1
            chosen = some[start : start + count]
            yield Part(
                columns, [_SIZES.get(kind) or _open_size(kind, i, step, chosen) for i, kind in enumerate(mine)], chosen
            )
            start += count


def _open_size(kind: Kind, at: int, step: int, rows: Sequence[Row]) -> Size:
    """For text and bytes; longer than all steps: of a type without a limit, which the client sends in pieces."""
    if step:
        return _BYTES if kind is Kind.BYTES else _TEXT, step, 0
    longest = max(_STEPS[-1], *(_length(row[at]) for row in rows))
    return _LONG_BYTES if kind is Kind.BYTES else _LONG_TEXT, longest, 0


def _length(value: str | bytes | None) -> int:
    if value is None:
        return 0
    return len(value) if isinstance(value, bytes) else _units(value)


def _units(text: str) -> int:
    """Its length in UTF-16."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
