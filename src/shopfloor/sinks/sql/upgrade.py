"""What tables of an older version lack, and what to say to a user who may not change them."""

from collections.abc import Mapping, Sequence

from shopfloor.samples import Misconfigured
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.tables import AddColumn, AddIndex, AddTable, Change, Schema
from shopfloor.sinks.sql.views import View

Columns = Mapping[str, Mapping[str, ddl.Found]]
"""The columns of the tables and views that are there."""


def left(names: ddl.Names, schema: Schema, version: int, found: Columns) -> list[Change]:
    """The changes since ``version`` (0: there are no tables of ours) that are still to be made.

    None for a table that is not there, which is then made as it is now, and none for a column that is: the plant may
    have one of that name, which is examined afterwards as all of them are.
    """
    since = schema.changes[version - 1 :] if version else ()
    return [change for step in since for change in step if _open(names, change, found)]


def _open(names: ddl.Names, change: Change, found: Columns) -> bool:
    match change:
        case AddTable():
            return False
        case AddColumn(table, column):
            there = found.get(names.plain(table))
            return there is not None and column.name not in there
        case AddIndex(table, _):
            return names.plain(table) in found


def after(names: ddl.Names, schema: Schema, version: int, found: Columns) -> Columns:
    """The columns as they will be when all is changed, so that what is there can be examined before."""
    changed = {table: dict(columns) for table, columns in found.items()}
    for change in left(names, schema, version, found):
        if isinstance(change, AddColumn):
            kind = next(iter(names.dialect.accepted[change.column.kind]))
            changed[names.plain(change.table)][change.column.name] = ddl.Found(kind, required=False)
    return changed


def statements(names: ddl.Names, schema: Schema, version: int, found: Columns, views: Sequence[View]) -> list[str]:
    """What somebody has to run so that tables and views are those of this version; none: they are.

    Of an index nobody knows whether it is there, so an index alone is not asked for.
    """
    changes = left(names, schema, version, found)
    columns = {table.name: table.names for table in schema.tables}
    stale = [view for view in views if _stale(names, view, columns, found)]
    if not stale and all(isinstance(change, AddIndex) for change in changes):
        return []
    made = [statement for change in changes for statement in ddl.change(names, change)]
    return [" ".join(text.split()) for text in (*made, *(ddl.view(names, view) for view in stale))]


def _stale(names: ddl.Names, view: View, columns: Mapping[str, Sequence[str]], found: Columns) -> bool:
    there = found.get(names.plain(view.name))
    return there is None or not set(columns.get(view.whole, ())) <= there.keys()


def older(version: int, schema: Schema, owner: str, wanted: Sequence[str]) -> Misconfigured:
    """These tables are too old, and this user may not change them; ``owner`` may, and ``wanted`` are statements."""
    return Misconfigured(
        f"these tables are of version {version}, older than this Shopfloor's {schema.version}, and this user may not "
        f"change them; start it once as {owner}, or have that user run: {'; '.join(wanted)}"
    )
