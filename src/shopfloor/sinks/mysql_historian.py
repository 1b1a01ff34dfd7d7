"""The long-term store in a MySQL or MariaDB of the plant's: the tables of the sink ``mysql``, and questions to them."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import PrivateAttr

from shopfloor.plant.model import HistorianConfig, Plant
from shopfloor.samples import Unavailable
from shopfloor.seams import Connection
from shopfloor.sinks.mysql import MysqlProbe, MysqlSink
from shopfloor.sinks.mysql_asking import MysqlAsked
from shopfloor.sinks.mysql_database import MysqlDatabase
from shopfloor.sinks.mysql_writing import Tables
from shopfloor.sinks.sql.historian import TableHistorian
from shopfloor.sinks.sql.owner import same_tables


class MysqlHistorianConfig(HistorianConfig, MysqlDatabase):
    """Keep history in a MySQL or MariaDB of the plant's, in the tables of the sink `mysql`."""

    type: Literal["mysql"] = "mysql"

    _plant: Plant | None = PrivateAttr(default=None)

    def place(self, plant: Plant) -> None:
        """Remember the site, for the position's name, and who else writes."""
        MysqlDatabase.place(self, plant)
        self._plant = plant

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files; a sink that writes into the same tables."""
        yield from MysqlDatabase.problems(self)
        yield from same_tables(self._plant, self.tables, "`prefix`, or another database")

    def build(self) -> "MysqlHistorian":
        """The historian; opens nothing yet."""
        return MysqlHistorian(self)

    def probe(self) -> Connection:
        """All but writing: what is there is examined, and whether the rights for the rest are there."""
        return MysqlProbe(self, historian=True)


class MysqlHistorian(TableHistorian, MysqlSink):
    """Writes as the sink does, and can be asked."""

    historian = True

    def __init__(self, config: MysqlHistorianConfig) -> None:
        """Built by ``MysqlHistorianConfig.build``."""
        MysqlSink.__init__(self, config)
        self._keep = config.keep

    @property
    def keep(self) -> int:
        """How long rows are kept, ns."""
        return self._keep

    @property
    def ids(self) -> Mapping[str, int]:
        """The tags' ids."""
        return self._tables.ids

    async def connected(self) -> MysqlAsked:
        """A connection for questions. Raises Unavailable, Misconfigured."""
        return await MysqlAsked.open(self._config.address(), self._tables.names)

    @property
    def _tables(self) -> Tables:
        if self._session is None or not isinstance(self._target, Tables):
            raise Unavailable("not connected")
        return self._target
