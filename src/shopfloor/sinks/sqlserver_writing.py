"""What a transaction of the SQL Server sink holds: samples, the newest of each tag, machines' figures, the position.

Everything here runs in the connection's thread (``sqlserver_session``) and raises ``Refused``.

``cursor.bulkcopy`` of the client opens a connection of its own, so its rows cannot be part of this transaction. Arrays
of parameters are no statement: what is behind a row that ends the transaction is carried out outside of it. So numbers
go as one JSON text (``sqlserver_json``), all else as parameters of an INSERT of many rows: each is whole or nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from shopfloor.samples import Batch, Rejected
from shopfloor.sinks import sqlserver_json
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.culprits import culprits
from shopfloor.sinks.sql.facts import Fact, facts
from shopfloor.sinks.sql.position import Position
from shopfloor.sinks.sql.rows import Block, blocks, fit, latest, tags_of
from shopfloor.sinks.sql.tables import HISTORY, LATEST
from shopfloor.sinks.sqlserver_errors import Refused, about_a_row, meaning
from shopfloor.sinks.sqlserver_link import Link, Row
from shopfloor.sinks.sqlserver_rows import Part, fact_parts, key, parts
from shopfloor.sinks.sqlserver_tables import NEW, TAG

LONGEST: Final = 64 * 2**20
"""Bytes of one value."""
_AT_ONCE: Final = 100
"""Names or keys in one statement."""

Entries = Sequence[tuple[int, Batch]]


class Tables:
    """Writes into Shopfloor's tables."""

    def __init__(self, link: Link, names: ddl.Names, *, nul: bool) -> None:
        """``names``: where they are; ``nul``: whether the server's text may have the character NUL."""
        self._nul = nul
        self._json = False
        self._link = link
        self._names = names
        self._ids: dict[str, int] = {}

    @property
    def ids(self) -> Mapping[str, int]:
        """The tags that are known, with their ids."""
        return self._ids

    def begin(self) -> None:
        """Learn the tags that are there, and what the server can."""
        self._json = sqlserver_json.works(self._link)
        self._ids = {}
        self._learn(self._link.rows(f"SELECT name, id FROM {self._names.full(TAG.name)}"))  # noqa: S608  # own text
        self._link.commit()

    def write(self, position: Position, entries: Entries) -> None:
        """Hold these entries, in one transaction. Raises Rejected for samples that are refused, with their places."""
        for _, batch in entries:
            fit(batch, nul=self._nul, longest=LONGEST)
        self._know(entries)
        if not self._quickly(entries):
            self._surely(entries)
        position.move(self._link, entries[-1][0])
        self._link.commit()

    def _quickly(self, entries: Entries) -> bool:
        """Part of a transaction; False: it is over, and the server said of no row why."""
        if not self._json:
            return False
        try:
            self._put(entries, bulk=True)
        except Refused as error:
            if error.lost:
                raise
            self._link.roll_back()
            return False
        return True

    def _surely(self, entries: Entries) -> None:
        """Part of a transaction, by statements of which the client tells the errors' numbers."""
        try:
            self._put(entries)
        except Refused as error:
            if not about_a_row(error):
                raise
            self._link.roll_back()
            if len(entries) > 1:  # the pipeline offers them again one by one
                raise meaning(error) from error
            raise self._culprits(*entries[0], error) from error

    def _put(self, entries: Entries, *, bulk: bool = False) -> None:
        """Part of a transaction: the samples of these entries, and what is made of them."""
        found = blocks(entries, self._ids)
        self._insert_samples(self._names.full(HISTORY.name), found, bulk=bulk)
        if found:
            self._put_latest(latest(found), bulk=bulk)
        self._put_facts(facts(entries))

    def _insert_samples(self, table: str, found: Sequence[Block], *, bulk: bool) -> None:
        for block in found:
            if not (bulk and sqlserver_json.takes(block)):
                self._insert(table, parts(block))
                continue
            statement = sqlserver_json.statement(self._names, table, block)
            for text in sqlserver_json.texts(block):
                self._link.change(statement, (text,), [sqlserver_json.size(text)])

    def _put_latest(self, found: Sequence[Block], *, bulk: bool) -> None:
        """By way of a temporary table: one statement compares them all."""
        link, table = self._link, self._names.full(LATEST.name)
        columns = self._names.columns(LATEST)
        quoted = self._names.dialect.quoted
        newer = ", ".join(f"{quoted(name)} = n.{quoted(name)}" for name in LATEST.names[1:])
        link.execute(f"TRUNCATE TABLE {NEW}")
        self._insert_samples(NEW, found, bulk=bulk)
        link.execute(
            f"UPDATE l SET {newer} FROM {table} l JOIN {NEW} n ON n.tag_id = l.tag_id "  # noqa: S608  # own text
            "WHERE n.time > l.time OR (n.time = l.time AND n.nanos >= l.nanos)"
        )
        link.execute(
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {NEW} n "  # noqa: S608  # own text
            f"WHERE NOT EXISTS (SELECT 1 FROM {table} l WITH (UPDLOCK, HOLDLOCK) WHERE l.tag_id = n.tag_id)"
        )

    def _know(self, entries: Entries) -> None:
        """Have an id for each tag; a transaction of its own."""
        unknown = sorted(tags_of(entries) - self._ids.keys())  # so two writers wait for each other in one direction
        if not unknown:
            return
        table = self._names.full(TAG.name)
        digests = {sha256(name.encode()).hexdigest(): name for name in unknown}
        for digest, name in digests.items():
            self._link.change(
                f"INSERT INTO {table} (name, digest) SELECT v.name, v.digest FROM "  # noqa: S608  # own text
                "(SELECT CAST(? AS nvarchar(1024)) AS name, CAST(? AS nvarchar(255)) AS digest) v "
                f"WHERE NOT EXISTS (SELECT 1 FROM {table} t WITH (UPDLOCK, HOLDLOCK) WHERE t.digest = v.digest)",
                (name, digest),
                [(-9, 1024, 0), (-9, 255, 0)],
            )
        for some in _portions(list(digests), _AT_ONCE):
            found = f"SELECT name, id FROM {table} WHERE digest IN ({_places(some)})"  # noqa: S608  # own text
            self._learn(self._link.rows(found, some))
        self._link.commit()

    def _learn(self, rows: Iterable[Row]) -> None:
        for name, number in rows:
            self._ids[name] = number

    def _insert(self, table: str, found: Iterable[Part]) -> None:
        quoted = self._names.dialect.quoted
        for part in found:
            columns, row = ", ".join(map(quoted, part.columns)), f"({_places(part.columns)})"
            text = f"INSERT INTO {table} ({columns}) VALUES {', '.join([row] * len(part.rows))}"  # noqa: S608  # own text
            values = [value for row in part.rows for value in row]
            self._link.change(text, values, [*part.sizes] * len(part.rows))

    def _put_facts(self, found: Sequence[Fact]) -> None:
        quoted = self._names.dialect.quoted
        for name in dict.fromkeys(fact.table.name for fact in found):
            mine = [fact for fact in found if fact.table.name == name]
            table, full = mine[0].table, self._names.full(name)
            same = " AND ".join(f"{quoted(column)} = ?" for column in table.replaces)
            for some in _portions(mine, _AT_ONCE):
                self._link.change(
                    f"DELETE FROM {full} WHERE {' OR '.join([f'({same})'] * len(some))}",  # noqa: S608  # own text
                    [value for fact in some for value in key(table, fact.key)],
                )
            self._insert(full, fact_parts(table, [row for fact in mine for row in fact.rows]))

    def _culprits(self, offset: int, batch: Batch, error: Refused) -> Rejected:
        """Which samples of a batch the server refuses; what it takes is rolled back."""

        def refusal(places: Sequence[int]) -> str | None:
            try:
                self._put([(offset, batch.select(places))])
            except Refused as again:
                if not about_a_row(again):
                    raise
                return str(meaning(again))
            finally:
                self._link.roll_back()
            return None

        return culprits(refusal, len(batch), str(meaning(error)))


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _portions(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
