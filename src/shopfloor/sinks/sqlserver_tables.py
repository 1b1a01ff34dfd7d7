"""Makes, migrates and examines the tables in SQL Server; one transaction, under a lock, all or nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.sinks.sql import ddl, upgrade
from shopfloor.sinks.sql.owner import mark, owner_of, settled
from shopfloor.sinks.sql.tables import (
    HISTORY,
    LONGEST_NAME,
    LONGEST_TAG,
    LONGEST_WORD,
    META,
    SCHEMA as COMMON,
    TAG as COMMON_TAG,
    WRITER,
    AddTable,
    Change,
    Column,
    Kind,
    Schema,
    Table,
)
from shopfloor.sinks.sql.views import VIEWS as COMMON_VIEWS, View
from shopfloor.sinks.sqlserver_link import Link

_EXACT: Final = "COLLATE Latin1_General_100_BIN2"
"""Text is compared by its characters; only blanks at its end SQL Server never counts (see ``DIGEST``)."""
_WIDE_TAG: Final = 2 * LONGEST_TAG
"""A character beyond the first 65,536 takes two places."""
_PLAIN: Final = {
    Kind.SERIAL: "int",
    Kind.INT16: "smallint",
    Kind.INT32: "int",
    Kind.INT64: "bigint",
    Kind.UINT64: "decimal(20,0)",
    Kind.DOUBLE: "float",
    Kind.BOOL: "bit",
    Kind.TIME: "datetime2(6)",
    Kind.DATE: "date",
    Kind.TAG: f"nvarchar({_WIDE_TAG})",
    Kind.NAME: f"nvarchar({LONGEST_NAME})",
    Kind.WORD: f"nvarchar({LONGEST_WORD})",
    Kind.TEXT: "nvarchar(max)",
    Kind.BYTES: "varbinary(max)",
    Kind.JSON: "nvarchar(max)",
}
DIALECT: Final = ddl.Dialect(
    types={
        **{kind: f"{name} {_EXACT}" if "char" in name else name for kind, name in _PLAIN.items()},
        Kind.SERIAL: "int IDENTITY",
    },
    accepted={**{kind: frozenset({name}) for kind, name in _PLAIN.items()},
              Kind.TIME: frozenset({"datetime2(6)", "datetime2(7)"})},
    quotes=("[", "]"),
    mark="?",
    now="SYSUTCDATETIME()",
    true="1",
    false="0",
    create_table="CREATE TABLE",
    create_index="CREATE INDEX",
    create_view="CREATE OR ALTER VIEW",
    # Of a clustered index a key has 900 bytes at most, of another one 1700: names are up to 510 bytes each.
    primary_key="PRIMARY KEY NONCLUSTERED",
)  # fmt: skip

DIGEST: Final = Column("digest", Kind.NAME)
"""SHA-256 of a tag's name in UTF-8, hexadecimal: names that differ in blanks at their end are different tags."""
TAG: Final = COMMON_TAG._replace(columns=[*COMMON_TAG.columns, DIGEST], unique=["digest"])
SCHEMA: Final = COMMON._replace(tables=[TAG if table.name == TAG.name else table for table in COMMON.tables])

VIEWS: Final = (
    *COMMON_VIEWS,
    View(
        "raw_event",
        "Every sample as one row with its value as text, in the order in which they came.",
        """
        SELECT h.entry, h.place, t.name AS tag, h.time, h.nanos, h.received, h.quality,
               CASE WHEN h.double_value IS NOT NULL AND h.bytes_value IS NULL THEN 'double'
                    WHEN h.bigint_value IS NOT NULL OR h.numeric_value IS NOT NULL THEN 'integer'
                    WHEN h.bool_value IS NOT NULL THEN 'boolean'
                    WHEN h.bytes_value IS NOT NULL AND h.double_value IS NULL AND h.text_value IS NULL THEN 'bytes'
                    WHEN h.bytes_value IS NOT NULL THEN 'double'
                    WHEN h.text_value IS NOT NULL THEN 'text'
                    ELSE 'null' END AS type,
               COALESCE(h.text_value, CONVERT(nvarchar(40), h.double_value, 3), CONVERT(nvarchar(40), h.bigint_value),
                        CONVERT(nvarchar(40), h.numeric_value),
                        CASE h.bool_value WHEN 1 THEN 'true' WHEN 0 THEN 'false' END,
                        CONVERT(nvarchar(max), h.bytes_value, 2)) AS value
        FROM {history} h JOIN {tag} t ON t.id = h.tag_id
        """,
    ),
    View(
        "metric_history",
        "The samples that are numbers (or true and false, as 1 and 0), by tag and time.",
        "SELECT tag, time, nanos, number AS value, quality FROM {sample} WHERE number IS NOT NULL",
    ),
    View(
        "production_cycle",
        "Each single cycle, where the machine has `cycles: each`; without those that were withdrawn.",
        """
        SELECT machine, starts, ends, kind, seconds, ideal_seconds, seconds - ideal_seconds AS lost_seconds, units,
               good, scrap, product, order_id
        FROM {cycle} WHERE withdrawn = {false}
        """,
    ),
    View(
        "quality_event",
        "Scrap by reason in each hour as it is known now, with its share of what was made.",
        """
        SELECT machine, level, starts, ends, production_day, shift_name, category, reason, units, share_of_units
        FROM {scrap} WHERE period = 'hour'
        """,
    ),
    View(
        "oee_rollup",
        "OEE and its factors for each hour, shift and day as they are known now.",
        """
        SELECT machine, level, period, starts, ends, production_day, shift_name, oee, availability, performance,
               quality, oee_low, oee_high, teep, good, scrap, good + scrap AS produced, planned_seconds,
               production_seconds, coverage, revision
        FROM {kpi_latest}
        """,
    ),
)
"""Those of all databases, and the third system's names for what it stored."""

RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
NEW: Final = "#shopfloor_new"
"""The temporary table in which the newest rows of a transaction wait to be compared with LATEST."""


def lock(link: Link, what: str, owner: str, seconds: float) -> bool:
    """Hold a lock of the server with this meaning for the ``Session`` or the ``Transaction``; whether it was got."""
    digest = sha256(what.encode()).hexdigest()[:40]  # a lock's name has 255 characters
    got = link.value(
        # locks are the database's own, except Babelfish's
        "DECLARE @got int, @what nvarchar(255) = CONCAT(N'shopfloor ', ?, N' ', DB_NAME()); "
        "EXEC @got = sp_getapplock @Resource = @what, @LockMode = 'Exclusive', @LockOwner = ?, @LockTimeout = ?; "
        "SELECT @got",
        (digest, owner, int(seconds * 1000)),
    )
    return got is not None and int(got) >= 0


def prepare(link: Link, names: ddl.Names, seconds: float, schema: Schema = SCHEMA) -> None:
    """Make what is missing, bring what is older up to date, examine what is there.

    Part of a transaction; whoever rolls it back has only tried. Raises Misconfigured when a table has another shape
    or is of a newer Shopfloor, Unavailable when somebody else is at it, and Refused (no rights, for one).
    """
    _alone(link, names, seconds)
    if link.value("SELECT 1 FROM sys.schemas WHERE name = ?", (names.schema,)) is None:
        link.execute(f"CREATE SCHEMA {DIALECT.quoted(names.schema)}")
    found = _columns(link, names)
    _rights(link, names, [table for table in schema.tables if names.plain(table.name) in found])
    version = _version(link, names, found)
    if version > schema.version:
        raise Misconfigured(
            f"the tables in {names.schema} are of a newer Shopfloor (version {version}, this one knows "
            f"{schema.version}); start that one, or write another `schema_name` or `prefix`"
        )
    made_anew = _migrate(link, names, schema, version, found)
    missing = [table for table in schema.tables if names.plain(table.name) not in found]
    for table in missing:
        _run(link, ddl.create(names, table))
    found = _columns(link, names)
    for table in schema.tables:
        _fits(names, table, found)
    if missing or version < schema.version:
        if made_anew:
            _views(link, names)
        _say_version(link, names, schema.version)


def _migrate(link: Link, names: ddl.Names, schema: Schema, version: int, found: upgrade.Columns) -> bool:
    """Bring older tables up to date; returns whether the views are to be made anew.

    They are not where this user may not and somebody else has done all of it. Raises Misconfigured when that is left.
    """
    changes = upgrade.left(names, schema, version, found)
    if 0 < version < schema.version and not _may_change(link, names, changes, found):
        if wanted := upgrade.statements(names, schema, version, found, VIEWS):
            owner = link.value(
                "SELECT QUOTENAME(USER_NAME(principal_id)) FROM sys.schemas WHERE name = ?", (names.schema,)
            )
            raise upgrade.older(version, schema, str(owner or "its owner"), wanted)
        return False
    for change in changes:
        _run(link, ddl.change(names, change))
    return True


def _may_change(link: Link, names: ddl.Names, changes: Sequence[Change], found: upgrade.Columns) -> bool:
    """Whether this user may ALTER what is to be changed or made anew; Babelfish, which cannot say it, is tried."""
    if is_babelfish(link):
        return True
    tables = [change.table for change in changes if not isinstance(change, AddTable)]
    there = dict.fromkeys([*tables, *(view.name for view in VIEWS if names.plain(view.name) in found)])
    asked = "SELECT HAS_PERMS_BY_NAME(?, 'OBJECT', 'ALTER')"
    return all(link.value(asked, (names.full(name),)) != 0 for name in there)


def claim(link: Link, names: ddl.Names, me: str, seconds: float, *, historian: bool) -> None:
    """Settle whose these tables are, which are there; part of a transaction. Raises Misconfigured, Unavailable."""
    _alone(link, names, seconds)
    owner, wanted = owner_of(link, names), me if historian else None
    writers = [name for (name,) in link.rows(f"SELECT name FROM {names.full(WRITER.name)}")]  # noqa: S608  # own text
    settled(owner, writers, me, "`schema_name` or `prefix`", historian=historian)
    if owner != wanted:
        mark(link, names, wanted)


def _alone(link: Link, names: ddl.Names, seconds: float) -> None:
    """Be the only one, as long as the transaction lasts, who makes these tables or settles whose they are."""
    if not lock(link, f"tables {names.schema}.{names.prefix}", "Transaction", seconds):
        raise Unavailable("another Shopfloor makes or changes the tables; it is tried again")


def temporary(link: Link, names: ddl.Names) -> None:
    """Make NEW, which goes with the connection."""
    link.execute(f"SELECT TOP 0 {names.columns(HISTORY)} INTO {NEW} FROM {names.full(HISTORY.name)}")  # noqa: S608  # own text


def is_babelfish(link: Link) -> bool:
    """Whether it is PostgreSQL that speaks as SQL Server."""
    return "Babelfish" in str(link.value("SELECT @@VERSION"))


def _views(link: Link, names: ddl.Names) -> None:
    """Make the views, or make them anew; who may read one still may."""
    if is_babelfish(link):  # it knows no CREATE OR ALTER VIEW before version 5
        names = replace(names, dialect=replace(names.dialect, create_view="CREATE VIEW"))
        _run(link, (f"DROP VIEW IF EXISTS {names.full(view.name)}" for view in reversed(VIEWS)))
    _run(link, (ddl.view(names, view) for view in VIEWS))


def _columns(link: Link, names: ddl.Names) -> upgrade.Columns:
    """Every column of the tables and views in the schema that this user may see."""
    found: dict[str, dict[str, ddl.Found]] = {}
    for table, column, kind, length, precision, scale, required, generated in link.rows(
        "SELECT o.name, c.name, CAST(TYPE_NAME(c.system_type_id) AS nvarchar(128)), c.max_length, c.precision, "
        "c.scale, "
        "CASE WHEN c.is_nullable = 0 AND c.default_object_id = 0 AND c.is_identity = 0 AND c.is_computed = 0 "
        "THEN 1 ELSE 0 END, "
        "CASE WHEN c.is_computed = 1 OR c.is_identity = 1 THEN 1 ELSE 0 END "
        "FROM sys.columns c JOIN sys.objects o ON o.object_id = c.object_id "
        "JOIN sys.schemas s ON s.schema_id = o.schema_id WHERE s.name = ? AND o.type IN ('U', 'V')",
        (names.schema,),
    ):
        declared = _declared(kind, length, precision, scale)
        found.setdefault(table, {})[column] = ddl.Found(declared, bool(required), bool(generated))
    return found


def _declared(kind: str, length: int, precision: int, scale: int) -> str:
    """A type as it is written in CREATE TABLE; ``length`` in bytes, -1: without a limit."""
    match kind:
        case "nvarchar" | "nchar":
            return f"{kind}({'max' if length < 0 else length // 2})"
        case "varchar" | "char" | "varbinary" | "binary":
            return f"{kind}({'max' if length < 0 else length})"
        case "decimal" | "numeric":
            return f"decimal({precision},{scale})"
        case "datetime2" | "time" | "datetimeoffset":
            return f"{kind}({scale})"
        case _:
            return kind


def _rights(link: Link, names: ddl.Names, tables: Iterable[Table]) -> None:
    for table in tables:
        for right in RIGHTS:
            if link.value("SELECT HAS_PERMS_BY_NAME(?, 'OBJECT', ?)", (names.full(table.name), right)) == 0:
                raise Misconfigured(
                    f"this user may not {right} in {names.full(table.name)}; GRANT {', '.join(RIGHTS)} ON "
                    f"SCHEMA::{names.schema} TO it"
                )


def _version(link: Link, names: ddl.Names, found: upgrade.Columns) -> int:
    """The version of the tables; 0: there are none of ours."""
    if names.plain(META.name) not in found:
        return 0
    _fits(names, META, found)
    said: Any = link.value(f"SELECT content FROM {names.full(META.name)} WHERE item = N'version'")  # noqa: S608  # own text
    return int(said or 0)


def _say_version(link: Link, names: ddl.Names, version: int) -> None:
    table = names.full(META.name)
    if not link.change(f"UPDATE {table} SET content = ? WHERE item = N'version'", (str(version),)):  # noqa: S608  # own text
        link.change(f"INSERT INTO {table} (item, content) VALUES (N'version', ?)", (str(version),))  # noqa: S608  # own text


def _fits(names: ddl.Names, table: Table, found: upgrade.Columns) -> None:
    wrong = ddl.differences(DIALECT, table, found[names.plain(table.name)])
    if wrong:
        raise Misconfigured(
            f"the table {names.full(table.name)} is there with another shape: {'; '.join(wrong[:3])}; rename it, or "
            "write another `schema_name` or `prefix`"
        )


def _run(link: Link, statements: Iterable[str]) -> None:
    for statement in statements:
        link.execute(statement)
