"""Rows as PostgreSQL's binary COPY has them: whole columns at once, by NumPy, where all values have one width.

A row is its number of fields and, for each, a length (-1: NULL) and the value, all big-endian; times are microseconds
since 2000-01-01 UTC. (PostgreSQL's documentation, COPY, "Binary Format".)
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shopfloor.sinks.sql.rows import VALUE_COLUMNS, Block
from shopfloor.sinks.sql.tables import HISTORY

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER: Final = struct.pack(">h", -1)
CHUNK: Final = 10_000
"""Rows that are encoded at once: some milliseconds."""
_EPOCH: Final = 946_684_800 * 10**6
"""µs from 1970 to 2000."""
_NULL: Final = struct.pack(">i", -1)
_VALUES: Final = 6
"""How many columns for values there are."""
_FIXED: Final = {"double": ">f8", "bigint": ">i8", "bool": ">i1"}
_BASE: Final = 10_000
"""Of numeric's digits."""


def encoded(block: Block) -> Iterator[bytes]:
    """The rows of a block, some thousand at a time, without header and trailer."""
    for start in range(0, len(block), CHUNK):
        yield _chunk(block, slice(start, start + CHUNK))


def _chunk(block: Block, part: slice) -> bytes:
    statuses = _column(block.statuses, np.uint32, part)
    servers = _column(block.server_times, np.int64, part)
    if not statuses.any() and not servers.any():
        return _rows(block, part, None, with_status=False, with_server=False)
    pieces: list[bytes] = []
    # NULL has no width, so rows with and without a status, or a server time, are laid out differently
    for with_status in (False, True):
        for with_server in (False, True):
            chosen = np.flatnonzero(((statuses != 0) == with_status) & ((servers != 0) == with_server))
            if len(chosen):
                pieces.append(_rows(block, part, chosen, with_status=with_status, with_server=with_server))
    return b"".join(pieces)


def _rows(
    block: Block, part: slice, chosen: npt.NDArray[np.int64] | None, *, with_status: bool, with_server: bool
) -> bytes:
    """The rows at ``chosen`` in this part of the block, None: all of them; all with the same NULLs."""

    def column(values: Any, kind: Any) -> npt.NDArray[Any]:
        found = _column(values, kind, part)
        return found if chosen is None else found[chosen]

    times = column(block.times, np.int64)
    micros = times // 1000
    servers = column(block.server_times, np.int64)
    server_micros = servers // 1000
    fields: list[tuple[str, npt.NDArray[Any]] | None] = [
        (">i4", column(block.tags, np.int32)),
        (">i8", micros - _EPOCH),
        (">i2", times - micros * 1000),
        (">i8", column(block.received, np.int64) // 1000 - _EPOCH),
        (">i8", column(block.entries, np.int64)),
        (">i4", column(block.places, np.int32)),
        (">i4", column(block.qualities, np.uint16)),
        (">i8", column(block.statuses, np.uint32)) if with_status else None,
        (">i8", server_micros - _EPOCH) if with_server else None,
        (">i2", servers - server_micros * 1000) if with_server else None,
    ]
    at = VALUE_COLUMNS.get(block.kind, _VALUES)
    fields += [None] * at
    if (width := _FIXED.get(block.kind)) is not None:
        values = (
            column(block.values, np.dtype(width).newbyteorder("=")) if block.kind != "bool" else _bools(block, part)
        )
        fields.append((width, values if chosen is None or block.kind != "bool" else values[chosen]))
        fields += [None] * (_VALUES - at - 1)
        return _table(fields).tobytes()
    if block.kind == "none":
        return _table(fields).tobytes()
    rows = _table(fields)
    kept = block.values[part]
    if chosen is not None:
        kept = [kept[i] for i in chosen.tolist()]
    return _with_values(rows, list(map(_VARIABLE[block.kind], kept)), _NULL * (_VALUES - at - 1))


def _table(fields: list[tuple[str, npt.NDArray[Any]] | None]) -> npt.NDArray[Any]:
    """Rows whose fields have these types, or are NULL."""
    kinds: list[tuple[str, str]] = [("n", ">i2")]
    for i, field in enumerate(fields):
        kinds.append((f"l{i}", ">i4"))
        if field is not None:
            kinds.append((f"v{i}", field[0]))
    rows = np.empty(len(next(field[1] for field in fields if field is not None)), np.dtype(kinds))
    rows["n"] = len(HISTORY.columns)
    for i, field in enumerate(fields):
        rows[f"l{i}"] = -1 if field is None else np.dtype(field[0]).itemsize
        if field is not None:
            rows[f"v{i}"] = field[1]
    return rows


def _with_values(rows: npt.NDArray[Any], values: list[bytes], after: bytes) -> bytes:
    """Rows that are the same up to a value of any length, and NULLs behind it."""
    content, size = rows.tobytes(), rows.dtype.itemsize
    pieces: list[bytes] = []
    for i, value in enumerate(values):
        pieces += (content[i * size : (i + 1) * size], len(value).to_bytes(4, "big"), value, after)
    return b"".join(pieces)


def _column(values: Any, kind: Any, part: slice) -> npt.NDArray[Any]:
    return np.frombuffer(values, kind)[part]


def _bools(block: Block, part: slice) -> npt.NDArray[Any]:
    return np.array(block.values[part], np.int8)


def _numeric(value: int) -> bytes:
    """A whole number above 0 as numeric: digits to the base 10,000."""
    digits: list[int] = []
    while value:
        value, digit = divmod(value, _BASE)
        digits.insert(0, digit)
    return struct.pack(f">hHHH{len(digits)}H", len(digits), len(digits) - 1, 0, 0, *digits)


_VARIABLE: Final[Mapping[str, Callable[[Any], bytes]]] = {"numeric": _numeric, "text": str.encode, "bytes": bytes}
