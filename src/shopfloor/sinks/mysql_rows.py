"""Rows as LOAD DATA takes them: CSV, whole columns at once by Arrow; and as tuples for servers that forbid LOAD DATA.

MySQL's DOUBLE has neither NaN nor infinities nor the sign of -0.0. Such a value has its eight bytes (IEEE 754,
big-endian) in ``bytes_value``, beside 0 in ``double_value`` or its word in ``text_value``: no other value has two.
"""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from shopfloor.sinks.sql.facts import moment
from shopfloor.sinks.sql.rows import Block

FORMAT: Final = (
    "CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '' LINES TERMINATED BY '\\n'"
)
"""What ``Load.content`` is, in LOAD DATA's words."""
_WORDS: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}
_OPTIONAL: Final = ("status", "server_time", "server_nanos")
_HEX: Final = "bytes_value"


class Load(NamedTuple):
    """The content of one LOAD DATA."""

    columns: Sequence[str]
    """In the order of the content; the others are NULL."""
    content: memoryview
    rows: int

    @property
    def fields(self) -> str:
        """The list behind the format: columns and user variables, and what the variables become."""
        listed = ", ".join(f"@{name}" if name in _MADE else f"`{name}`" for name in self.columns)
        made = ", ".join(f"`{name}` = {_MADE[name]}" for name in self.columns if name in _MADE)
        return f"({listed}) SET {made}" if made else f"({listed})"


_MADE: Final = {_HEX: f"UNHEX(@{_HEX})", **{name: f"NULLIF(@{name}, '')" for name in _OPTIONAL}}
"""Columns that are not taken as they stand: bytes are hexadecimal digits, NULL is an empty field."""


def loads(block: Block) -> Iterator[Load]:
    """The rows of a block; those whose double is no number are a part of their own."""
    if block.kind != "double":
        yield _load(block)
        return
    values = np.asarray(block.values)
    finite = np.isfinite(values)
    below_zero = (values == 0) & np.signbit(values)
    if finite.all() and not below_zero.any():
        yield _load(block)
        return
    parts = ((finite & ~below_zero, _values), (below_zero, _below_zero), (~finite, _no_numbers))
    for chosen, columns in parts:
        if chosen.any():
            yield _load(block.select(np.flatnonzero(chosen).tolist()), columns)


def _load(block: Block, values: "Callable[[Block], dict[str, pa.Array[Any]]] | None" = None) -> Load:
    times = np.asarray(block.times)
    micros = times // 1000
    columns: dict[str, Any] = {
        "tag_id": np.asarray(block.tags),
        "time": micros.view("datetime64[us]"),
        "nanos": times - micros * 1000,
        "received": (np.asarray(block.received) // 1000).view("datetime64[us]"),
        "entry": np.asarray(block.entries),
        "place": np.asarray(block.places),
        "quality": np.asarray(block.qualities),
    }
    statuses, servers = np.asarray(block.statuses), np.asarray(block.server_times)
    if statuses.any():
        columns["status"] = pa.array(statuses, mask=statuses == 0)
    if servers.any():
        seen = servers // 1000
        columns["server_time"] = pa.array(seen.view("datetime64[us]"), mask=servers == 0)
        columns["server_nanos"] = pa.array(servers - seen * 1000, mask=servers == 0)
    columns |= (values or _values)(block)
    quoting: Literal["all_valid", "none"] = "all_valid" if "text_value" in columns else "none"
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.Table.from_pydict(columns), sink, csv.WriteOptions(include_header=False, quoting_style=quoting))
    return Load(list(columns), memoryview(sink.getvalue()), len(block))


def _values(block: Block) -> "dict[str, pa.Array[Any]]":
    match block.kind:
        case "double" | "bigint":
            return {f"{block.kind}_value": pa.array(_numbers(block))}
        case "numeric":
            return {"numeric_value": pa.array(block.values, pa.uint64())}
        case "bool":
            return {"bool_value": pa.array(np.array(block.values, np.int8))}
        case "text":
            return {"text_value": pa.array(block.values, pa.large_string())}
        case "bytes":
            return {_HEX: pa.array([value.hex() for value in block.values], pa.large_string())}
        case "none":
            return {}


def _numbers(block: Block) -> npt.NDArray[Any]:
    return np.asarray(block.values)


def _below_zero(block: Block) -> "dict[str, pa.Array[Any]]":
    return {"double_value": pa.array([0] * len(block)), _HEX: pa.array([packed(-0.0).hex()] * len(block))}


def _no_numbers(block: Block) -> "dict[str, pa.Array[Any]]":
    return {
        "text_value": pa.array([word(value) for value in block.values], pa.large_string()),
        _HEX: pa.array([packed(value).hex() for value in block.values], pa.large_string()),
    }


def word(value: float) -> str:
    """NaN, Infinity or -Infinity."""
    return _WORDS.get(value, "NaN")


def packed(value: float) -> bytes:
    """A double's eight bytes."""
    return struct.pack(">d", value)


def rows(block: Block) -> Iterator[tuple[Any, ...]]:
    """The rows in the order of ``HISTORY.columns``, with datetimes (UTC)."""
    for row in block.rows():
        tag, micros, nanos, received, entry, place, quality, status, seen, seen_nanos, *values = row
        double = values[0]
        if isinstance(double, float) and not math.isfinite(double):
            values = [None, None, None, None, word(double), packed(double)]
        elif double == 0 and math.copysign(1, double) < 0:
            values[-1] = packed(double)
        yield (
            tag, moment(micros * 1000), nanos, moment(received * 1000), entry, place, quality, status,
            None if seen is None else moment(seen * 1000), seen_nanos, *values,
        )  # fmt: skip
