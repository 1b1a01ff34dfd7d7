"""The long-term store in a SQL Server of the plant's: the tables of the sink ``sqlserver``, and questions to them."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import PrivateAttr

from shopfloor.plant.model import HistorianConfig, Plant
from shopfloor.samples import Unavailable
from shopfloor.seams import Connection
from shopfloor.sinks.sql.historian import TableHistorian
from shopfloor.sinks.sql.owner import same_tables
from shopfloor.sinks.sqlserver import SqlServerProbe, SqlServerSink
from shopfloor.sinks.sqlserver_asking import SqlServerAsked
from shopfloor.sinks.sqlserver_database import SqlServerDatabase


class SqlServerHistorianConfig(HistorianConfig, SqlServerDatabase):
    """Keep history in a Microsoft SQL Server of the plant's, in the tables of the sink `sqlserver`."""

    type: Literal["sqlserver"] = "sqlserver"

    _plant: Plant | None = PrivateAttr(default=None)

    def place(self, plant: Plant) -> None:
        """Remember the site, for the position's name, and who else writes."""
        SqlServerDatabase.place(self, plant)
        self._plant = plant

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate's file; a sink that writes into the same tables."""
        yield from SqlServerDatabase.problems(self)
        yield from same_tables(self._plant, self.tables, "`schema_name` or `prefix`")

    def build(self) -> "SqlServerHistorian":
        """The historian; opens nothing yet."""
        return SqlServerHistorian(self)

    def probe(self) -> Connection:
        """All but writing: tables that are missing are made in a transaction that is rolled back."""
        return SqlServerProbe(self, historian=True)


class SqlServerHistorian(TableHistorian, SqlServerSink):
    """Writes as the sink does, and can be asked."""

    historian = True
    # From 5,000 locks of a statement on, the whole table is locked; a row is one, its place in the index another.
    group = 2_000

    def __init__(self, config: SqlServerHistorianConfig) -> None:
        """Built by ``SqlServerHistorianConfig.build``."""
        SqlServerSink.__init__(self, config)
        self._keep = config.keep

    @property
    def keep(self) -> int:
        """How long rows are kept, ns."""
        return self._keep

    @property
    def ids(self) -> Mapping[str, int]:
        """The tags' ids."""
        if self._session is None:
            raise Unavailable("not connected")
        return self._tables.ids

    async def connected(self) -> SqlServerAsked:
        """A connection for questions. Raises Unavailable, Misconfigured."""
        return await SqlServerAsked.open(self._config.address(), self._config.names)
