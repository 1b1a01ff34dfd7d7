"""The tables of the SQL sinks as earlier versions of Shopfloor made them."""

from shopfloor.sinks.sql.tables import KPI_WINDOW, Schema

NEW_IN_2 = ("uncounted_seconds", "state_coverage")


def first(schema: Schema) -> Schema:
    """Version 1, as a database's own part has it."""
    kept = [column for column in KPI_WINDOW.columns if column.name not in NEW_IN_2]
    older = KPI_WINDOW._replace(columns=kept)
    return Schema(1, [older if table.name == older.name else table for table in schema.tables], ())
