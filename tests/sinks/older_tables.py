"""The tables of the SQL sinks as earlier versions of Shopfloor made them."""

from shopfloor.plant import SinkConfig
from shopfloor.samples import Batch, Sample
from shopfloor.sinks.sql.tables import KPI_WINDOW, Schema
from shopfloor.testing.clocks import instant

NEW_IN_2 = ("uncounted_seconds", "state_coverage")
CLOSED = '{"end": "2026-01-05T07:00:00Z", "day": "2026-01-05", "good": 7, "scrap": 3, "state_coverage": 0.5}'
NOW = instant("2026-01-05T06:00:00Z")


def first(schema: Schema) -> Schema:
    """Version 1, as a database's own part has it."""
    kept = [column for column in KPI_WINDOW.columns if column.name not in NEW_IN_2]
    older = KPI_WINDOW._replace(columns=kept)
    return Schema(1, [older if table.name == older.name else table for table in schema.tables], ())


def batch(offset: int) -> Batch:
    """A window that was closed, as newer versions write it."""
    return Batch.of("press", NOW, [Sample("m/kpi/hour", NOW + offset * 10**9, CLOSED)])


async def entered(config: SinkConfig) -> None:
    """Start as a plant does."""
    async with config.build():
        pass


async def probed(config: SinkConfig) -> None:
    """Look as ``probe`` does."""
    async with config.probe():
        pass
