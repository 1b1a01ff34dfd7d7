"""The long-term store in a PostgreSQL of the plant's: the tables of the sink ``postgres``, and questions to them."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import PrivateAttr

from shopfloor.plant.model import HistorianConfig, Plant
from shopfloor.seams import Connection
from shopfloor.sinks.postgres import PostgresProbe, PostgresSink
from shopfloor.sinks.postgres_asking import PostgresAsked
from shopfloor.sinks.postgres_database import PostgresDatabase
from shopfloor.sinks.sql.historian import TableHistorian
from shopfloor.sinks.sql.owner import same_tables


class PostgresHistorianConfig(HistorianConfig, PostgresDatabase):
    """Keep history in a PostgreSQL of the plant's, in the tables of the sink `postgres`."""

    type: Literal["postgres"] = "postgres"

    _plant: Plant | None = PrivateAttr(default=None)

    def place(self, plant: Plant) -> None:
        """Remember the site, for the position's name, and who else writes."""
        PostgresDatabase.place(self, plant)
        self._plant = plant

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files; a sink that writes into the same tables."""
        yield from PostgresDatabase.problems(self)
        yield from same_tables(self._plant, self.tables, "`schema_name` or `prefix`")

    def build(self) -> "PostgresHistorian":
        """The historian; opens nothing yet."""
        return PostgresHistorian(self)

    def probe(self) -> Connection:
        """All but writing: tables that are missing are made in a transaction that is rolled back."""
        return PostgresProbe(self, historian=True)


class PostgresHistorian(TableHistorian, PostgresSink):
    """Writes as the sink does, and can be asked."""

    historian = True

    def __init__(self, config: PostgresHistorianConfig) -> None:
        """Built by ``PostgresHistorianConfig.build``."""
        PostgresSink.__init__(self, config)
        self._keep = config.keep

    @property
    def keep(self) -> int:
        """How long rows are kept, ns."""
        return self._keep

    @property
    def ids(self) -> Mapping[str, int]:
        """The tags' ids."""
        return self._ids

    async def connected(self) -> PostgresAsked:
        """A connection for questions. Raises Unavailable, Misconfigured."""
        return await PostgresAsked.open(self._config.parameters(), self._names, self._config.timeout / 1e9)
