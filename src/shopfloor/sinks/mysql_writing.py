"""What a transaction of the MySQL sink holds: samples, the newest of each tag, machines' figures, the position.

Everything here runs in the connection's thread (``mysql_session``) and raises PyMySQL's errors.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import pymysql

from shopfloor.samples import Batch, Rejected
from shopfloor.sinks import mysql_rows
from shopfloor.sinks.mysql_errors import about_a_row, code_of, said_by
from shopfloor.sinks.mysql_link import Link, Row
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.culprits import culprits
from shopfloor.sinks.sql.facts import Fact, facts
from shopfloor.sinks.sql.position import Position
from shopfloor.sinks.sql.rows import Block, blocks, fit, latest, tags_of
from shopfloor.sinks.sql.tables import HISTORY, LATEST, TAG
from shopfloor.turns import give_way, giving_way

_AT_ONCE: Final = 100
"""Names or keys in one statement."""
_RESERVE: Final = 64 * 1024
"""Bytes of a packet for all but the value itself."""

Entries = Sequence[tuple[int, Batch]]


class Tables:
    """Writes into Shopfloor's own tables."""

    def __init__(self, link: Link, names: ddl.Names, *, loads: bool, packet: int) -> None:
        """``loads``: whether the server takes LOAD DATA LOCAL; ``packet``: its max_allowed_packet, bytes."""
        self._link = link
        self.names = self._names = names
        self._loads = loads
        # written as text a byte takes two, as a hexadecimal number or with a backslash
        self.longest = max(1024, (packet - _RESERVE) // 2)
        link.largest = min(link.largest, max(1024, packet // 2))
        self._ids: dict[str, int] = {}

    @property
    def ids(self) -> Mapping[str, int]:
        """The tags that are known, with their ids."""
        return self._ids

    def begin(self) -> None:
        """Learn the tags that are there."""
        self._ids = {}
        self._learn(self._link.rows(f"SELECT name, id FROM {self._names.full(TAG.name)}"))  # noqa: S608  # own text
        self._link.commit()

    def check(self, batch: Batch) -> None:
        """Raise Rejected for samples that cannot be held."""
        fit(batch, nul=True, longest=self.longest)

    def put(self, entries: Entries, *, bulk: bool) -> None:
        """Part of a transaction: the samples of these entries, and what is made of them.

        ``bulk`` False: by statements that name the row which the server refuses.
        """
        found = blocks(giving_way(entries), self._ids)
        for block in giving_way(found):
            if bulk and self._loads:
                self._load(block)
            else:
                self._insert(self._names.full(HISTORY.name), mysql_rows.rows(block))
        for block in giving_way(latest(found)):
            self._insert(self._names.full(LATEST.name), mysql_rows.rows(block), _newer(LATEST.names[1:]))
        self._put_facts(facts(entries))

    def know(self, entries: Entries) -> None:
        """Have an id for each tag; a transaction of its own."""
        unknown = sorted(tags_of(entries) - self._ids.keys())  # so two writers wait for each other in one direction
        if not unknown:
            return
        table = self._names.full(TAG.name)
        for some in _portions(unknown, _AT_ONCE):
            self._link.execute_many(
                f"INSERT INTO {table} (name) VALUES (%s) ON DUPLICATE KEY UPDATE name = name",  # noqa: S608  # own text
                [(name,) for name in some],
            )
            found = f"SELECT name, id FROM {table} WHERE name IN ({_places(some)})"  # noqa: S608  # own text
            self._learn(self._link.rows(found, some))
        self._link.commit()

    def _learn(self, rows: Iterable[Row]) -> None:
        for name, number in rows:
            self._ids[name] = number

    def kept(self) -> None:
        """Nothing: what is stored is not needed here any more."""

    def _load(self, block: Block) -> None:
        for part in mysql_rows.loads(block):
            # The name is no file's: it is never looked at (mysql_session).
            rows, warnings = self._link.load(
                f"LOAD DATA LOCAL INFILE 'shopfloor' INTO TABLE {self._names.full(HISTORY.name)} "
                f"{mysql_rows.FORMAT} {part.fields}",
                part.content,
            )
            if rows != part.rows or warnings:
                raise Doubtful(f"{rows} of {part.rows} rows, {warnings} warnings")

    def _insert(self, table: str, rows: Iterable[Row], suffix: str = "") -> None:
        text = f"INSERT INTO {table} ({self._names.columns(HISTORY)}) VALUES ({_places(HISTORY.columns)}){suffix}"  # noqa: S608  # own text
        self._link.execute_many(text, rows)

    def _put_facts(self, found: Sequence[Fact]) -> None:
        for name in dict.fromkeys(fact.table.name for fact in found):
            mine = [fact for fact in found if fact.table.name == name]
            table, full = mine[0].table, self._names.full(name)
            same = " AND ".join(f"{self._names.dialect.quoted(column)} = %s" for column in table.replaces)
            for some in _portions(mine, _AT_ONCE):
                self._link.execute(
                    f"DELETE FROM {full} WHERE {' OR '.join([f'({same})'] * len(some))}",  # noqa: S608  # own text
                    [value for fact in some for value in fact.key],
                )
            columns, places = self._names.columns(table), _places(table.columns)
            self._link.execute_many(
                f"INSERT INTO {full} ({columns}) VALUES ({places})",  # noqa: S608  # own text
                [row for fact in mine for row in fact.rows],
            )


class Doubtful(Exception):
    """LOAD DATA LOCAL took something else than it was given, which it says by warnings only."""


class Target(Protocol):
    """Where samples go."""

    def begin(self) -> None:
        """Learn what is there."""
        ...

    def check(self, batch: Batch) -> None:
        """Raise Rejected for samples that cannot be held."""
        ...

    def know(self, entries: Entries) -> None:
        """Prepare for these entries, in a transaction of its own."""
        ...

    def put(self, entries: Entries, *, bulk: bool) -> None:
        """Part of a transaction: store them. ``bulk`` False: so that the server refuses what does not fit."""
        ...

    def kept(self) -> None:
        """The transaction is committed."""
        ...


def write(link: Link, target: Target, position: Position, entries: Entries) -> None:
    """Hold these entries, in one transaction. Raises Rejected for samples that are refused, with their places."""
    for _, batch in entries:
        give_way()
        target.check(batch)
    target.know(entries)
    try:
        _store(link, target, position, entries, bulk=True)
    except Doubtful:
        link.roll_back()
    else:
        return
    try:
        _store(link, target, position, entries, bulk=False)
    except pymysql.MySQLError as error:
        if not about_a_row(error):
            raise
        link.roll_back()
        if len(entries) > 1:  # the pipeline offers them again one by one
            raise Rejected(_refusal(error)) from error
        offset, batch = entries[0]
        raise culprits(
            lambda places: _tried(link, target, [(offset, batch.select(places))]), len(batch), _refusal(error)
        ) from error


def _store(link: Link, target: Target, position: Position, entries: Entries, *, bulk: bool) -> None:
    try:
        target.put(entries, bulk=bulk)
    except pymysql.MySQLError as error:
        if bulk and about_a_row(error):
            raise Doubtful(str(error)) from error
        raise
    position.move(link, entries[-1][0])
    link.commit()
    target.kept()


def _tried(link: Link, target: Target, entries: Entries) -> str | None:
    """Why the server refuses these; what it takes is rolled back."""
    try:
        target.put(entries, bulk=False)
    except pymysql.MySQLError as error:
        if not about_a_row(error):
            raise
        return _refusal(error)
    finally:
        if link.open:
            link.roll_back()
    return None


def _refusal(error: pymysql.MySQLError) -> str:
    return f"the database refuses it: {said_by(error)} ({code_of(error)})"


def _newer(columns: Sequence[str]) -> str:
    """The end of an INSERT that replaces a row by a newer one.

    MySQL assigns from left to right and sees what it has assigned, so the times by which it compares come last.
    """
    newer = "VALUES(`time`) > `time` OR (VALUES(`time`) = `time` AND VALUES(`nanos`) >= `nanos`)"
    ordered = [name for name in columns if name not in ("time", "nanos")] + ["nanos", "time"]
    assigned = ", ".join(f"`{name}` = IF({newer}, VALUES(`{name}`), `{name}`)" for name in ordered)
    return f" ON DUPLICATE KEY UPDATE {assigned}"


def _places(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))


def _portions(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
