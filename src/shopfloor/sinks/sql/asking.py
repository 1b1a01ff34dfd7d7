"""What a historian asks of the tables, in SQL that every database understands; one connection, one thread.

A ``Link`` is a database's own part: how a statement is run, and how many rows come quickly. The order of rows is made
here, of time, journal entry and place, so the database sorts nothing; aggregates are worked out of the rows by
``historian.asking``, the same for every store.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shopfloor.historian.rows import Rows
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.facts import moment
from shopfloor.sinks.sql.tables import HISTORY, LATEST, TAG, Table

SURE: Final = 3600 * 10**9
"""A time so short that its rows need not be counted: 4 million in an hour would be more than one a millisecond."""

Values = Sequence[object]


class Found(NamedTuple):
    """Rows of any tags, in no order; columns of equal length."""

    tags: NDArray[np.int32]
    places: NDArray[np.int32]
    """Of the sample in its journal entry."""
    rows: Rows

    @classmethod
    def joined(cls, parts: "Sequence[Found]") -> "Found":
        """The parts one after the other."""
        if len(parts) == 1:
            return parts[0]
        nothing = np.zeros(0, np.int32)
        return cls(
            np.concatenate([part.tags for part in parts] or [nothing]),
            np.concatenate([part.places for part in parts] or [nothing]),
            Rows.joined([part.rows for part in parts]),
        )

    def without(self, places: Sequence[int]) -> "Found":
        """The others."""
        kept = np.delete(np.arange(len(self.tags)), places)
        return Found(self.tags[kept], self.places[kept], self.rows.take(kept))

    def ordered(self) -> "Found":
        """By time; those of one time in the order in which they came."""
        rows, places = self.rows, self.places
        later, same = np.diff(rows.time), np.diff(rows.entry)
        if bool(np.all((later > 0) | ((later == 0) & ((same > 0) | ((same == 0) & (np.diff(places) > 0)))))):
            return self
        order = np.lexsort((places, rows.entry, rows.time))
        return Found(self.tags[order], places[order], rows.take(order))


class Link(ABC):
    """A connection that is asked; statements have ``%s`` for each value, which is a number, a text or a datetime (UTC).

    All of it blocks, and raises the driver's errors.
    """

    number: str
    """SQL: the value is a number, and not NaN."""
    counting: str = "count(*)"
    """SQL: how many rows there are, however many."""

    def __init__(self, names: ddl.Names) -> None:
        """``names``: where the tables are."""
        self.names = names

    @abstractmethod
    def ask(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT."""

    @abstractmethod
    def change(self, statement: str, values: Values = ()) -> int:
        """Run a statement in a transaction of its own; returns how many rows it changed."""

    @abstractmethod
    def samples(self, table: Table, condition: str, values: Values, *, whole: bool) -> Found:
        """Rows of HISTORY or LATEST; the condition may end with ORDER BY and ``some``.

        ``whole``: with status and server time, which are 0 otherwise.
        """

    @abstractmethod
    def size(self) -> int:
        """Bytes of the tables and their indices on disk."""

    def some(self, count: int, skip: int = 0) -> str:
        """What stands behind ORDER BY to get some rows only."""
        return f"LIMIT {count:d}" + (f" OFFSET {skip:d}" if skip else "")

    # -- what is made of it ----------------------------------------------------------------------

    def table(self, table: Table) -> str:
        """A table as statements name it."""
        return self.names.full(table.name)

    def newest(self, tags: Sequence[int] | None = None) -> Found:
        """The newest row of each of these tags that has one, by default of all."""
        if tags is None:
            return self.samples(LATEST, "tag_id > %s", [0], whole=True)
        return Found.joined([self._newest(tags[i : i + 1000]) for i in range(0, len(tags), 1000)])

    def present(self) -> list[int]:
        """The tags that have a sample."""
        return [tag for (tag,) in self.ask(f"SELECT tag_id FROM {self.table(LATEST)}")]  # noqa: S608  # own text

    def _newest(self, tags: Sequence[int]) -> Found:
        return self.samples(LATEST, f"tag_id IN ({', '.join(['%s'] * len(tags))})", list(tags), whole=True)

    def first(self, tag: int, condition: str, values: Values, order: str, skip: int = 0) -> datetime | None:
        """The time, to the microsecond, of the first row of a tag in this order, behind ``skip`` others."""
        found = self.ask(
            f"SELECT time FROM {self.table(HISTORY)} WHERE tag_id = %s AND {condition} ORDER BY time {order} "  # noqa: S608  # own text
            f"{self.some(1, skip)}",
            [tag, *values],
        )
        return found[0][0] if found else None

    def oldest(self) -> list[tuple[int, datetime]]:
        """The time, to the microsecond, of the oldest row of each tag that has any."""
        found = self.ask(
            f"SELECT t.id, (SELECT h.time FROM {self.table(HISTORY)} h WHERE h.tag_id = t.id ORDER BY h.time "  # noqa: S608  # own text
            f"{self.some(1)}) FROM {self.table(TAG)} t"
        )
        return [(tag, time) for tag, time in found if time is not None]

    def drop(self, tag: int, since: int, most: int) -> int:
        """Drop about ``most`` of a tag's oldest rows before ``since``; returns how many went."""
        before, values = earlier(since)
        border = self.first(tag, before, values, "ASC", most - 1)
        if border is not None:
            before, values = f"{before} AND time <= %s", [*values, border]
        return self.change(f"DELETE FROM {self.table(HISTORY)} WHERE tag_id = %s AND {before}", [tag, *values])  # noqa: S608  # own text


class TagReader:
    """One tag, as ``historian.asking`` wants it; what is written meanwhile may be seen or not."""

    def __init__(self, link: Link, tag: int) -> None:
        """``tag`` is its id."""
        self._link = link
        self._tag = tag

    def rows(self, start: int, end: int, limit: int | None = None, *, whole: bool = False) -> Rows:
        """The rows with start <= time < end in order; with a limit at least that many of the first, if there are."""
        (after, from_), (before, to) = later(start), earlier(end)
        condition, values = f"{after} AND {before}", [*from_, *to]
        if limit is None:
            return self._found(condition, values, whole=whole)
        found = self._found(f"{condition} ORDER BY time {self._link.some(limit + 1)}", values, whole=whole)
        if len(found) <= limit:
            return found
        # The last microsecond may have been cut anywhere: its rows are not in the order of their nanoseconds.
        last = int(found.time[-1]) // 1000 * 1000
        rest = self._found(f"{condition} AND time = %s", [*values, moment(last)], whole=whole)
        return Rows.joined([found.take(found.time < last), rest])

    def count(self, start: int, end: int) -> int:
        """How many rows lie in this time; 0 for a short one."""
        if end - start <= SURE:
            return 0
        ((count,),) = self._link.ask(
            f"SELECT {self._link.counting} FROM {self._link.table(HISTORY)} "  # noqa: S608  # own text
            "WHERE tag_id = %s AND time >= %s AND time < %s",
            [self._tag, moment(start), moment(end)],
        )
        return int(count)

    def before(self, time: int, *, only_numeric: bool) -> Rows:
        """The last row before ``time``, or the last with a good number; none when there is none."""
        condition, values = earlier(time)
        found = self._nearest(condition, values, "DESC", only_numeric=only_numeric)
        return found.take(slice(max(0, len(found) - 1), None))

    def after(self, time: int) -> Rows:
        """The first row from ``time`` on that has a good number; of one time the last. None when there is none."""
        condition, values = later(time)
        found = self._nearest(condition, values, "ASC", only_numeric=True)
        first = found.take(found.time == found.time[0]) if len(found) else found
        return first.take(slice(max(0, len(first) - 1), None))

    def newest(self) -> Rows:
        """The newest row, which may be older than all that is kept; none when there is none."""
        return self._link.newest([self._tag]).rows

    def _nearest(self, condition: str, values: Values, order: str, *, only_numeric: bool) -> Rows:
        """The rows of the first microsecond in this order that has any."""
        if only_numeric:
            condition = f"{condition} AND quality >= 192 AND ({self._link.number})"
        time = self._link.first(self._tag, condition, values, order)
        if time is None:
            return Rows.empty()
        return self._found(f"{condition} AND time = %s", [*values, time], whole=False)

    def _found(self, condition: str, values: Values, *, whole: bool) -> Rows:
        found = self._link.samples(HISTORY, f"tag_id = %s AND {condition}", [self._tag, *values], whole=whole)
        return found.ordered().rows


def later(time: int) -> tuple[str, list[object]]:
    """SQL for: at this time (ns) or later."""
    micros, nanos = moment(time), time % 1000
    return ("time >= %s AND (time > %s OR nanos >= %s)", [micros, micros, nanos]) if nanos else ("time >= %s", [micros])


def earlier(time: int) -> tuple[str, list[object]]:
    """SQL for: before this time (ns)."""
    micros, nanos = moment(time), time % 1000
    return ("time <= %s AND (time < %s OR nanos < %s)", [micros, micros, nanos]) if nanos else ("time < %s", [micros])


def nanoseconds(time: datetime) -> int:
    """Ns UTC of a time of the database, which is UTC."""
    since = time.replace(tzinfo=None) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # databases without time zones give times without
