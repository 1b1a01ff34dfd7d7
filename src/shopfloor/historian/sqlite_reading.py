"""Reads one tag from the small historian's file, as the columns that questions are worked out on."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shopfloor.historian.asking import GOOD_NUMBER
from shopfloor.historian.rows import Rows
from shopfloor.historian.sqlite_file import COLUMNS, File

_LAST = "ORDER BY time DESC, entry DESC, place DESC LIMIT 1"


class TagReader:
    """One tag; what is written meanwhile may be seen or not."""

    def __init__(self, file: File, tag: int) -> None:
        """``tag`` is its number."""
        self._file = file
        self._tag = tag

    def rows(self, start: int, end: int, limit: int | None = None) -> Rows:
        """The rows with start <= time < end in order; with a limit one more than that, if there are."""
        tail = "ORDER BY time, entry, place" + ("" if limit is None else f" LIMIT {limit + 1:d}")
        return self._found("time >= ? AND time < ?", [start, end], tail)

    def count(self, start: int, end: int) -> int:
        """How many rows lie in this time."""
        query = "SELECT count(*) FROM sample WHERE tag = ? AND time >= ? AND time < ?"
        ((count,),) = self._file.ask(query, [self._tag, start, end])
        return int(count)

    def before(self, time: int, *, only_numeric: bool) -> Rows:
        """The last row before ``time``, or the last with a good number; none when there is none."""
        return self._found(f"time < ?{GOOD_NUMBER if only_numeric else ''}", [time], _LAST)

    def after(self, time: int) -> Rows:
        """The first row from ``time`` on that has a good number; of one time the last. None when there is none."""
        return self._found(f"time >= ?{GOOD_NUMBER}", [time], "ORDER BY time, entry DESC, place DESC LIMIT 1")

    def newest(self) -> Rows:
        """The newest row; none when there is none."""
        return self._found("1", [], _LAST)

    def _found(self, condition: str, arguments: Sequence[int], tail: str) -> Rows:
        query = f"SELECT {COLUMNS} FROM sample WHERE tag = ? AND {condition} {tail}"  # noqa: S608  # own text
        found = self._file.ask(query, [self._tag, *arguments])
        if not found:
            return Rows.empty()
        *numbers, data = zip(*found, strict=True)
        entry, time, kind, bits, quality, status, server = (np.array(column, np.int64) for column in numbers)
        return Rows(
            entry, time, kind.astype(np.uint8), bits, quality.astype(np.uint16), status.astype(np.uint32), server,
            None if all(item is None for item in data) else _objects(data),
        )  # fmt: skip


def _objects(items: Sequence[Any]) -> Any:
    result = np.empty(len(items), np.object_)
    result[:] = items
    return result
