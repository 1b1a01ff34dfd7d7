"""Samples and machines' figures in tables of Microsoft SQL Server, each exactly once.

What ``write_many`` gets and the position in the journal are one transaction, so after a crash of either side the
pipeline goes on behind what the database holds. ``docs/connectors/sqlserver-sink.md`` says what is in the tables.
"""

import secrets
from typing import ClassVar, Literal, Self

from shopfloor.plant.components import SinkConfig
from shopfloor.samples import Unavailable
from shopfloor.seams import Connection
from shopfloor.sinks.sql.position import Position
from shopfloor.sinks.sql.process import who
from shopfloor.sinks.sql.session_sink import Entries, SessionSink
from shopfloor.sinks.sqlserver_database import SqlServerDatabase
from shopfloor.sinks.sqlserver_link import Link
from shopfloor.sinks.sqlserver_rows import exact
from shopfloor.sinks.sqlserver_session import Session, connect
from shopfloor.sinks.sqlserver_tables import claim, is_babelfish, lock, prepare, temporary
from shopfloor.sinks.sqlserver_writing import Tables


class SqlServerConfig(SqlServerDatabase, SinkConfig):
    """Stores samples and machines' figures in tables of Microsoft SQL Server, which it makes; each exactly once."""

    type: Literal["sqlserver"] = "sqlserver"

    def build(self) -> "SqlServerSink":
        """The sink; opens nothing yet."""
        return SqlServerSink(self)

    def probe(self) -> Connection:
        """All but writing: tables that are missing are made in a transaction that is rolled back."""
        return SqlServerProbe(self)


class SqlServerProbe(Connection):
    """Connects and examines, and leaves nothing behind."""

    def __init__(self, config: SqlServerDatabase, *, historian: bool = False) -> None:
        """Built by ``SqlServerConfig.probe``, or a historian's."""
        self._config = config
        self._historian = historian

    async def __aenter__(self) -> Self:
        """Examine; raises Unavailable or Misconfigured, and leaves at once."""
        session = await connect(self._config.address())
        try:
            await session.run(lambda: self._tried(session.link))
        finally:
            await session.close()
        return self

    def _tried(self, link: Link) -> None:
        names, seconds = self._config.names, self._config.timeout / 2e9
        prepare(link, names, seconds)
        claim(link, names, exact(self._config.position), seconds, historian=self._historian)
        temporary(link, names)
        link.roll_back()


class SqlServerSink(SessionSink[Session]):
    """Writes batches; enter it to connect."""

    historian: ClassVar[bool] = False
    """Whether the tables are to be its own: nobody else's samples among them."""

    def __init__(self, config: SqlServerDatabase) -> None:
        """Built by ``SqlServerConfig.build``."""
        super().__init__(config.keep_alive / 1e9)
        self._config = config

    async def _connect(self) -> Session:
        return await connect(self._config.address())

    def _begin(self, session: Session) -> int:
        link, names, config = session.link, self._config.names, self._config
        me, seconds = exact(config.position), config.timeout / 2e9
        prepare(link, names, seconds)
        link.commit()
        temporary(link, names)
        link.commit()
        self._position = Position(names, me, f"{secrets.token_hex(8)} {who(60)}")
        self._alone(link)
        claim(link, names, me, seconds, historian=self.historian)
        held = self._position.take(link)
        self._tables = Tables(link, names, nul=not is_babelfish(link))  # which would cut the text there
        self._tables.begin()
        return held

    def _put(self, session: Session, entries: Entries) -> None:
        del session  # the tables have its link
        self._tables.write(self._position, entries)

    def _alone(self, link: Link) -> None:
        """Nobody else may move this position: hold a lock as long as the connection is there."""
        config = self._config
        if lock(link, f"{config.schema_name}.{config.prefix} {config.position}", "Session", config.timeout / 4e9):
            link.commit()
            return
        holder = self._position.holder(link).partition(" ")[2]
        raise Unavailable(
            f"another Shopfloor ({holder}) writes there under the name {config.position!r}; stop it, or give one of "
            "them another `writer`"
        )
