"""Samples in a table that the plant already has: a row a sample, or a row an instant with a column for each tag.

Its position lies in Shopfloor's own small table beside it and moves in the same transaction, so here, too, every sample
counts once. Everything here runs in the connection's thread and raises PyMySQL's errors.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple

from shopfloor.samples import Batch, Misconfigured, Quality, Rejected, Value
from shopfloor.sinks.mysql_link import Link, Row
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.facts import moment

TIME: Final = "{time}"
RECEIVED: Final = "{received}"
TAG: Final = "{tag}"
VALUE: Final = "{value}"
QUALITY: Final = "{quality}"
WORDS: Final = (TIME, RECEIVED, TAG, VALUE, QUALITY)
_MOMENTS: Final = frozenset({"datetime", "timestamp"})

Entries = Sequence[tuple[int, Batch]]


@dataclass(frozen=True)
class Mapped:
    """Which of the table's columns gets what."""

    table: str
    columns: Mapping[str, str]
    """A word of WORDS, or the name of a tag, by column."""

    @property
    def tags(self) -> list[str]:
        """The tags that have a column of their own; empty: each sample is a row."""
        return [what for what in self.columns.values() if what not in WORDS]

    def problem(self) -> str:
        """What is wrong with the mapping; empty: nothing."""
        said = list(self.columns.values())
        unknown = [what for what in said if what.startswith("{") and what not in WORDS]
        if unknown:
            return f"{unknown[0]} is none of {', '.join(WORDS)}"
        doubled = [what for what in said if said.count(what) > 1]
        if doubled:
            return f"{doubled[0]} has two columns"
        if TIME not in said:
            return f"a column must get {TIME}"
        if self.tags:
            mixed = [what for what in (VALUE, TAG, QUALITY) if what in said]
            return f"{mixed[0]} and columns for tags exclude each other" if mixed else ""
        return "" if VALUE in said else f"a column must get {VALUE}, or a tag each"


class _Known(NamedTuple):
    """The newest of a tag."""

    time: int
    value: Value


class OwnTable:
    """Writes into the plant's own table."""

    def __init__(self, link: Link, names: ddl.Names, mapped: Mapped) -> None:
        """``names`` without prefix: the table's name is the plant's."""
        self._link = link
        self._mapped = mapped
        self._table = names.full(mapped.table)
        self._columns = ", ".join(map(names.dialect.quoted, mapped.columns))
        self._quoted = names.dialect.quoted
        self._known: dict[str, _Known] = {}
        self._after: dict[str, _Known] = {}

    def examine(self) -> None:
        """Raise Misconfigured when the table is not there, has other columns, or knows no transactions."""
        engine = self._link.value(
            "SELECT engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
            (self._mapped.table,),
        )
        if engine is None:
            raise Misconfigured(f"there is no table {self._table} that this user may see; create it, or GRANT SELECT")
        if engine.lower() != "innodb":
            raise Misconfigured(
                f"the table {self._table} is kept by {engine}, which knows no transactions; "
                f"ALTER TABLE {self._table} ENGINE=InnoDB"
            )
        found = {
            name.lower(): (kind, needed)
            for name, kind, needed in self._link.rows(
                "SELECT column_name, data_type, is_nullable = 'NO' AND column_default IS NULL AND extra = '' "
                "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s",
                (self._mapped.table,),
            )
        }
        self._link.commit()
        wrong = [f"it has no column {name}" for name in self._mapped.columns if name.lower() not in found]
        wrong += [
            f"its column {name} is {found[name.lower()][0]}, but {what} needs DATETIME(6) or TIMESTAMP(6)"
            for name, what in self._mapped.columns.items()
            if what in (TIME, RECEIVED) and name.lower() in found and found[name.lower()][0] not in _MOMENTS
        ]
        mapped = {name.lower() for name in self._mapped.columns}
        wrong += [
            f"its column {name} needs a value: name it in `columns`, or give it a default"
            for name, (_, needed) in found.items()
            if needed and name not in mapped
        ]
        if wrong:
            raise Misconfigured(f"the table {self._table} does not fit `columns`: {'; '.join(wrong[:3])}")

    def begin(self) -> None:
        """Examine the table, and learn what its newest row has: where tags share a row, others' values go on."""
        self.examine()
        if not self._mapped.tags:
            return
        at = next(name for name, what in self._mapped.columns.items() if what == TIME)
        column = self._quoted(at)
        newest = self._link.rows(
            f"SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {column}), {self._columns} FROM {self._table} "  # noqa: S608  # names of the plant file, quoted
            f"ORDER BY {column} DESC LIMIT 1"
        )
        self._link.commit()
        self._known = {}
        for micros, *values in newest:
            if micros is not None:
                self._known = {
                    what: _Known(micros * 1000, value)
                    for what, value in zip(self._mapped.columns.values(), values, strict=True)
                    if what not in WORDS
                }

    def check(self, batch: Batch) -> None:
        """Raise Rejected for samples that no table of MySQL can hold."""
        wrong: dict[int, str] = {}
        for i, value in enumerate(batch.values):
            if isinstance(value, float) and not math.isfinite(value):
                wrong[i] = f"MySQL has no {value}"
            elif isinstance(value, str):
                try:
                    value.encode()
                except UnicodeEncodeError:
                    wrong[i] = "the text is not valid Unicode"
        if wrong:
            raise Rejected("; ".join(sorted(set(wrong.values()))), sorted(wrong))

    def know(self, entries: Entries) -> None:
        """Nothing: tags have no ids here."""

    def put(self, entries: Entries, *, bulk: bool) -> None:  # noqa: ARG002  # rules of others' tables want the strict way
        """Part of a transaction: the rows of these entries."""
        rows = self._instants(entries) if self._mapped.tags else self._samples(entries)
        places = ", ".join(["%s"] * len(self._mapped.columns))
        self._link.execute_many(f"INSERT INTO {self._table} ({self._columns}) VALUES ({places})", rows)  # noqa: S608  # quoted

    def kept(self) -> None:
        """What was put is committed."""
        self._known.update(self._after)
        self._after = {}

    def _samples(self, entries: Entries) -> Iterator[Row]:
        """A row a sample; without a column for the quality a bad value is NULL."""
        said = list(self._mapped.columns.values())
        blank = QUALITY not in said
        for _, batch in entries:
            received = moment(batch.received)
            for sample in batch:
                what: dict[str, Any] = {
                    TIME: moment(sample.time),
                    RECEIVED: received,
                    TAG: sample.tag,
                    VALUE: None if blank and sample.quality < Quality.UNCERTAIN else sample.value,
                    QUALITY: sample.quality,
                }
                yield tuple(what[word] for word in said)

    def _instants(self, entries: Entries) -> Iterator[Row]:
        """A row an instant: tags that have no sample then have their last value before, as far as it is known."""
        said = list(self._mapped.columns.values())
        mine = set(self._mapped.tags)
        self._after = dict(self._known)
        known = self._after
        for _, batch in entries:
            received = moment(batch.received)
            samples = sorted((sample for sample in batch if sample.tag in mine), key=lambda sample: sample.time)
            for time, group in groupby(samples, key=lambda sample: sample.time):
                now: dict[str, Any] = {TIME: moment(time), RECEIVED: received}
                for sample in group:
                    now[sample.tag] = None if sample.quality < Quality.UNCERTAIN else sample.value
                    if sample.tag not in known or known[sample.tag].time <= time:
                        known[sample.tag] = _Known(time, now[sample.tag])
                yield tuple(now[what] if what in now else _before(known.get(what), time) for what in said)


def _before(known: _Known | None, time: int) -> Value:
    """What a tag had at this time; None where only later values are known: they say nothing of it."""
    return None if known is None or known.time > time else known.value
