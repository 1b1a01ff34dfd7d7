"""Where a writer stands in the journal, kept in the database beside what it has written."""

from shopfloor.samples import Unavailable
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.link import Link
from shopfloor.sinks.sql.tables import WRITER


class Position:
    """How far this writer has come; ``name`` and ``session`` say who writes."""

    def __init__(self, names: ddl.Names, name: str, session: str) -> None:
        """``session`` differs for each connection: what an earlier one left under way cannot be committed any more."""
        table, mark, now = names.full(WRITER.name), names.dialect.mark, names.dialect.now
        self._name = name
        self._session = session
        self._taken = f"UPDATE {table} SET session = {mark} WHERE name = {mark}"  # noqa: S608  # own text, as below
        self._made = f"INSERT INTO {table} (name, position, session, written) VALUES ({mark}, -1, {mark}, {now})"  # noqa: S608
        self._read = f"SELECT position FROM {table} WHERE name = {mark}"  # noqa: S608
        self._moved = f"UPDATE {table} SET position = {mark}, written = {now} WHERE name = {mark} AND session = {mark}"  # noqa: S608
        self._holder = f"SELECT session FROM {table} WHERE name = {mark}"  # noqa: S608

    def take(self, link: Link) -> int:
        """Take the position over, and commit; returns it. Whoever does holds the writer's lock: there is no other."""
        if not link.change(self._taken, (self._session, self._name)):
            link.change(self._made, (self._name, self._session))
        position: int = link.value(self._read, (self._name,))
        link.commit()
        return position

    def move(self, link: Link, offset: int) -> None:
        """Part of a transaction. Raises Unavailable when somebody else has taken the position over."""
        if link.change(self._moved, (offset, self._name, self._session)) != 1:
            raise Unavailable("the position of this writer was changed by somebody else; it is read again")

    def holder(self, link: Link) -> str:
        """The session that had it last; empty: nobody."""
        session = link.value(self._holder, (self._name,))
        link.commit()
        return str(session or "")
