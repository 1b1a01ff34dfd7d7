"""Makes, migrates and examines the tables in MySQL and MariaDB, whose DDL knows no transactions.

So each step may be done again, the version is written last, and a named lock lets one writer do it at a time.
"""

import hashlib
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pymysql

from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.sinks.mysql_errors import code_of
from shopfloor.sinks.mysql_link import Link
from shopfloor.sinks.sql import ddl, upgrade
from shopfloor.sinks.sql.owner import mark, owner_of, settled
from shopfloor.sinks.sql.tables import (
    LONGEST_NAME,
    LONGEST_TAG,
    LONGEST_WORD,
    META,
    SCHEMA,
    WRITER,
    Kind,
    Schema,
    Table,
)
from shopfloor.sinks.sql.views import VIEWS

_TYPES: Final = {
    Kind.SERIAL: "int",
    Kind.INT16: "smallint",
    Kind.INT32: "int",
    Kind.INT64: "bigint",
    Kind.UINT64: "bigint unsigned",
    Kind.DOUBLE: "double",
    Kind.BOOL: "tinyint",
    Kind.TIME: "datetime(6)",
    Kind.DATE: "date",
    Kind.TAG: f"varchar({LONGEST_TAG})",
    Kind.NAME: f"varchar({LONGEST_NAME})",
    Kind.WORD: f"varchar({LONGEST_WORD})",
    Kind.TEXT: "longtext",
    Kind.BYTES: "longblob",
    Kind.JSON: "longtext",
}
"""MySQL's own JSON would order the keys anew, so a record is text."""
ELSEWHERE: Final = " into "
"""In a writer's session, before the name of the plant's own table: its samples go there, and not into Shopfloor's."""
_DONE: Final = frozenset({1050, 1060, 1061})
"""A table, column or index is there: another run was interrupted behind that step."""
_RIGHTS: Final = (
    ("SELECT", "SELECT 1 FROM {missing}"),
    ("INSERT", "INSERT INTO {missing} VALUES (1)"),
    ("UPDATE", "UPDATE {missing} SET a = 1"),
    ("DELETE", "DELETE FROM {missing}"),
    ("CREATE", "CREATE TABLE {made} LIKE {missing}"),
    ("CREATE VIEW", "CREATE VIEW {made} AS SELECT 1 FROM {missing}"),
)
_WRITING: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""The rights that are needed when all tables are there as they are now."""
_CHANGING: Final = (
    ("ALTER", "ALTER TABLE {missing} ADD a int"),
    ("CREATE VIEW", "CREATE VIEW {made} AS SELECT 1 FROM {missing}"),
    ("DROP", "CREATE OR REPLACE VIEW {made} AS SELECT 1 FROM {missing}"),
)
"""Statements that cannot succeed, because there is no such table; before that is said the right is examined."""
_LACKS: Final = frozenset({1142, 1044, 1143, 1227, 1370})
_OLDEST: Final = {"MariaDB": (10, 3), "MySQL": (8, 0, 17)}


class Server(NamedTuple):
    """What the server is and allows."""

    maker: str
    """MySQL or MariaDB."""
    version: tuple[int, ...]
    loads: bool
    """Whether it takes LOAD DATA LOCAL."""
    packet: int
    """max_allowed_packet, bytes."""
    folds: bool = False
    """Whether names of tables that differ in case only are the same there (lower_case_table_names)."""

    def names(self, prefix: str) -> ddl.Names:
        """Where Shopfloor's tables are, as ``columns`` has them."""
        return ddl.Names(self.dialect, prefix=prefix.lower() if self.folds else prefix)

    @property
    def new_enough(self) -> bool:
        """Whether views and exact comparison of text are there."""
        return self.version >= _OLDEST[self.maker]

    def demand_new_enough(self) -> None:
        """Raise Misconfigured when it is not."""
        if not self.new_enough:
            oldest = ".".join(map(str, _OLDEST[self.maker]))
            raise Misconfigured(
                f"this is {self.maker} {'.'.join(map(str, self.version))}; Shopfloor's tables need {oldest} or newer. "
                "An older one takes samples into a table of yours: see `table`"
            )

    @property
    def dialect(self) -> ddl.Dialect:
        """How tables are made there; text is compared to the byte, trailing spaces too."""
        exact = "utf8mb4_nopad_bin" if self.maker == "MariaDB" else "utf8mb4_0900_bin"
        collation = exact if self.new_enough else "utf8mb4_bin"
        return ddl.Dialect(
            types={**_TYPES, Kind.SERIAL: "int AUTO_INCREMENT"},
            accepted={kind: frozenset({name}) for kind, name in _TYPES.items()},
            quotes=("`", "`"),
            now="UTC_TIMESTAMP(6)",
            table_suffix=f" ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE={collation}",
            # The right INDEX is not needed for what stands in CREATE TABLE, and replicas want a primary key.
            indexes_inside=True,
            row_id="row_id bigint unsigned NOT NULL AUTO_INCREMENT",
            create_index="CREATE INDEX",
        )


def server_of(link: Link) -> Server:
    """Ask the server what it is."""
    (version, loads, packet, folds), *_ = link.rows(
        "SELECT VERSION(), @@GLOBAL.local_infile, @@max_allowed_packet, @@lower_case_table_names"
    )
    maker = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    # a MariaDB behind the "5.5.5-" that it says to old clients
    numbers = re.search(r"\d+(?:\.\d+)+", version.removeprefix("5.5.5-"))
    found = tuple(map(int, numbers[0].split("."))) if numbers else (0,)
    return Server(maker, found, bool(int(loads)), int(packet), bool(int(folds)))


@contextmanager
def alone(link: Link, what: str, seconds: float) -> Generator[bool]:
    """Hold a lock of the server with this meaning, which goes with the connection; whether it could be had."""
    got = link.value("SELECT GET_LOCK(%s, %s)", (lock_name(what), seconds)) == 1
    try:
        yield got
    finally:
        if got and link.open:
            link.rows("SELECT RELEASE_LOCK(%s)", (lock_name(what),))


def lock_name(what: str) -> str:
    """A name that the server takes, at most 64 characters."""
    return f"shopfloor:{hashlib.sha256(what.encode()).hexdigest()[:40]}"


def prepare(link: Link, names: ddl.Names, server: Server, seconds: float, schema: Schema = SCHEMA) -> None:
    """Make what is missing, bring what is older up to date, examine what is there.

    Raises Misconfigured when a table has another shape or is of a newer Shopfloor, Unavailable when somebody else is
    at it, and the driver's errors (no rights, for one).
    """
    server.demand_new_enough()
    if examined(link, names, schema):
        return
    with making(link, names, seconds):
        _make(link, names, schema)
    if not examined(link, names, schema):
        raise Unavailable("tables were taken away while they were made; it is tried again")


@contextmanager
def making(link: Link, names: ddl.Names, seconds: float) -> Generator[None]:
    """Be the only one who makes these tables or settles whose they are. Raises Unavailable when somebody else is."""
    with alone(link, f"{link.database}.{names.prefix} tables", seconds) as got:
        if not got:
            raise Unavailable("another Shopfloor makes the tables at this moment; it is tried again")
        yield


def owned(link: Link, names: ddl.Names, me: str, *, historian: bool) -> str | None:
    """The historian whose tables these are, None: there is none. Raises Misconfigured when ``me`` may not write."""
    owner, writers = None, []
    there = columns(link)
    if names.plain(META.name) in there:
        owner = owner_of(link, names)
    if names.plain(WRITER.name) in there:
        found = link.rows(f"SELECT name, session FROM {names.full(WRITER.name)}")  # noqa: S608  # own text
        writers = [name for name, session in found if ELSEWHERE not in session]
    settled(owner, writers, me, "`prefix`, or another database", historian=historian)
    return owner


def claim(link: Link, names: ddl.Names, me: str, *, historian: bool) -> None:
    """Settle whose these tables are, which are there. Raises Misconfigured."""
    wanted = me if historian else None
    if owned(link, names, me, historian=historian) != wanted:
        mark(link, names, wanted)
        link.commit()


def prepare_position(link: Link, names: ddl.Names) -> None:
    """Make or examine the one table that a sink into the plant's own table needs."""
    found = columns(link)
    fits(names, WRITER, found)
    if names.plain(WRITER.name) not in found:
        _run(link, ddl.create(names, WRITER))


def may_write(link: Link, names: ddl.Names, table: str, columns: Sequence[str]) -> None:
    """Raise the driver's error when the user may not put rows into a table of the plant's or keep the position.

    Nothing is changed: the statements concern no row.
    """
    listed = ", ".join(map(names.dialect.quoted, columns))
    full, position = names.dialect.quoted(table), names.full(WRITER.name)
    link.execute(f"INSERT INTO {full} ({listed}) SELECT {listed} FROM {full} WHERE FALSE")  # noqa: S608  # quoted
    if link.rows("SHOW TABLES LIKE %s", (names.plain(WRITER.name).replace("_", "\\_"),)):
        link.execute(f"INSERT INTO {position} SELECT * FROM {position} WHERE FALSE")  # noqa: S608  # own text
        link.execute(f"UPDATE {position} SET position = position WHERE FALSE")  # noqa: S608  # own text
    else:
        may(link, names, ("CREATE",))
    link.roll_back()


def examined(link: Link, names: ddl.Names, schema: Schema = SCHEMA) -> bool:
    """Whether all tables and views of this version are there; raises Misconfigured when one has another shape."""
    found = columns(link)
    known = version(link, names, found, schema)
    for table in schema.tables:
        fits(names, table, upgrade.after(names, schema, known, found))
    if known < schema.version:
        return False
    wanted = [*(table.name for table in schema.tables), *(view.name for view in VIEWS)]
    return all(names.plain(name) in found for name in wanted)


def may_make(link: Link, names: ddl.Names, schema: Schema = SCHEMA) -> None:
    """Raise Misconfigured when this user may not do what is to be done here before it can write; changes nothing."""
    found = columns(link)
    known = version(link, names, found, schema)
    ready = examined(link, names, schema)
    if 0 < known < schema.version and _lacking(link, names, _CHANGING):
        _demand(names, schema, known, found)
        ready = all(names.plain(table.name) in found for table in schema.tables)
    may(link, names, _WRITING if ready else ())


def _demand(names: ddl.Names, schema: Schema, known: int, found: upgrade.Columns) -> None:
    """Raise Misconfigured with what somebody else is to do, unless it is done."""
    if wanted := upgrade.statements(names, schema, known, found, VIEWS):
        raise upgrade.older(known, schema, "a user who may ALTER, CREATE VIEW and DROP there", wanted)


def may(link: Link, names: ddl.Names, rights: Sequence[str] = ()) -> None:
    """Raise Misconfigured with the GRANT that is missing, without changing anything."""
    wanted = [(right, statement) for right, statement in _RIGHTS if right in (rights or dict(_RIGHTS))]
    if lacking := _lacking(link, names, wanted):
        raise Misconfigured(
            f"this user lacks rights: GRANT {', '.join(right for right, _ in wanted)} ON `{link.database}`.* TO it "
            f"(it may not {', '.join(lacking)})"
        )


def _lacking(link: Link, names: ddl.Names, wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Which of these rights the user does not have in the database, by statements that cannot succeed."""
    missing, made = (names.full(f"no_such_{what}") for what in ("table", "view"))
    lacking: list[str] = []
    for right, statement in wanted:
        try:
            link.execute(statement.format(missing=missing, made=made))
        except pymysql.MySQLError as error:
            if code_of(error) in _LACKS:
                lacking.append(right)
    return lacking


def columns(link: Link) -> dict[str, dict[str, ddl.Found]]:
    """Every column of the tables and views in the database that this user may see."""
    found: dict[str, dict[str, ddl.Found]] = {}
    for table, column, kind, required, generated in link.rows(
        "SELECT IF(@@lower_case_table_names = 0, table_name, LOWER(table_name)), column_name, column_type, "
        "is_nullable = 'NO' AND column_default IS NULL AND extra = '', COALESCE(generation_expression, '') <> '' "
        "FROM information_schema.columns WHERE table_schema = DATABASE()"
    ):
        # case never tells names of columns apart
        found.setdefault(table, {})[column.lower()] = ddl.Found(_plain_type(kind), bool(required), bool(generated))
    return found


def _plain_type(kind: str) -> str:
    """A type without the width that whole numbers are shown with, which MariaDB still says."""
    return re.sub(r"^((?:tiny|small|medium|big)?int)\(\d+\)", r"\1", kind.lower())


def version(link: Link, names: ddl.Names, found: Mapping[str, Any], schema: Schema = SCHEMA) -> int:
    """The version of the tables, 0: there are none of ours. Raises Misconfigured when a newer Shopfloor made them."""
    if names.plain(META.name) not in found:
        return 0
    fits(names, META, found)
    said = link.value(f"SELECT content FROM {names.full(META.name)} WHERE item = 'version'")  # noqa: S608  # own text
    known = int(said or 0)
    if known > schema.version:
        raise Misconfigured(
            f"the tables are of a newer Shopfloor (version {known}, this one knows {schema.version}); start that one, "
            "or write another `prefix`"
        )
    return known


def fits(names: ddl.Names, table: Table, found: Mapping[str, Mapping[str, ddl.Found]]) -> None:
    """Raise Misconfigured when the table is there with another shape."""
    has = found.get(names.plain(table.name))
    wrong = ddl.differences(names.dialect, table, has) if has is not None else []
    if wrong:
        raise Misconfigured(
            f"the table {names.full(table.name)} is there with another shape: {'; '.join(wrong[:3])}; rename it, or "
            "write another `prefix`"
        )


def _make(link: Link, names: ddl.Names, schema: Schema) -> None:
    found = columns(link)
    known = version(link, names, found, schema)
    try:
        _change(link, names, schema, known, found)
    except pymysql.MySQLError as error:
        if code_of(error) not in _LACKS or not 0 < known < schema.version:
            raise
        _demand(names, schema, known, columns(link))
    link.execute(
        f"INSERT INTO {names.full(META.name)} (item, content) VALUES ('version', %s) "  # noqa: S608  # own text
        "ON DUPLICATE KEY UPDATE content = %s",
        (str(schema.version), str(schema.version)),
    )
    link.commit()


def _change(link: Link, names: ddl.Names, schema: Schema, known: int, found: upgrade.Columns) -> None:
    for change in upgrade.left(names, schema, known, found):
        _run(link, ddl.change(names, change))
    for table in schema.tables:
        if names.plain(table.name) not in found:
            _run(link, ddl.create(names, table))
    found = columns(link)
    for table in schema.tables:
        fits(names, table, found)
    _run(link, (ddl.view(names, view) for view in VIEWS))


def _run(link: Link, statements: Iterable[str]) -> None:
    for statement in statements:
        try:
            link.execute(statement)
        except pymysql.MySQLError as error:
            if code_of(error) not in _DONE:
                raise
