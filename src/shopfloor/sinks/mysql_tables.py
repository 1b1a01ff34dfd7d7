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
from shopfloor.sinks.sql import ddl
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
            table_suffix=f" ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE={collation}",
            # The right INDEX is not needed for what stands in CREATE TABLE, and replicas want a primary key.
            indexes_inside=True,
            row_id="row_id bigint unsigned NOT NULL AUTO_INCREMENT",
            create_index="CREATE INDEX",
        )


def server_of(link: Link) -> Server:
    """Ask the server what it is."""
    (version, loads, packet), *_ = link.rows("SELECT VERSION(), @@GLOBAL.local_infile, @@max_allowed_packet")
    maker = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    # a MariaDB behind the "5.5.5-" that it says to old clients
    numbers = re.search(r"\d+(?:\.\d+)+", version.removeprefix("5.5.5-"))
    found = tuple(map(int, numbers[0].split("."))) if numbers else (0,)
    return Server(maker, found, bool(int(loads)), int(packet))


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
    with alone(link, f"{link.database}.{names.prefix} tables", seconds) as got:
        if not got:
            raise Unavailable("another Shopfloor makes the tables at this moment; it is tried again")
        _make(link, names, schema)
    if not examined(link, names, schema):
        raise Unavailable("tables were taken away while they were made; it is tried again")


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
    if version(link, names, found, schema) < schema.version:
        return False
    for table in schema.tables:
        fits(names, table, found)
    wanted = [*(table.name for table in schema.tables), *(view.name for view in VIEWS)]
    return all(names.plain(name) in found for name in wanted)


def may(link: Link, names: ddl.Names, rights: Sequence[str] = ()) -> None:
    """Raise Misconfigured with the GRANT that is missing, without changing anything."""
    missing, made = (names.full(f"no_such_{what}") for what in ("table", "view"))
    wanted = [(right, statement) for right, statement in _RIGHTS if right in (rights or dict(_RIGHTS))]
    lacking: list[str] = []
    for right, statement in wanted:
        try:
            link.execute(statement.format(missing=missing, made=made))
        except pymysql.MySQLError as error:
            if code_of(error) in _LACKS:
                lacking.append(right)
    if lacking:
        raise Misconfigured(
            f"this user lacks rights: GRANT {', '.join(right for right, _ in wanted)} ON `{link.database}`.* TO it "
            f"(it may not {', '.join(lacking)})"
        )


def columns(link: Link) -> dict[str, dict[str, ddl.Found]]:
    """Every column of the tables and views in the database that this user may see."""
    found: dict[str, dict[str, ddl.Found]] = {}
    for table, column, kind, required in link.rows(
        "SELECT table_name, column_name, column_type, is_nullable = 'NO' AND column_default IS NULL AND extra = '' "
        "FROM information_schema.columns WHERE table_schema = DATABASE()"
    ):
        found.setdefault(table, {})[column] = ddl.Found(_plain_type(kind), bool(required))
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
    known = version(link, names, columns(link), schema)
    for step in range(known, schema.version) if known else ():
        for change in schema.changes[step - 1]:
            _run(link, ddl.change(names, change))
    for table in schema.tables:
        _run(link, ddl.create(names, table))
    found = columns(link)
    for table in schema.tables:
        fits(names, table, found)
    _run(link, (ddl.view(names, view) for view in VIEWS))
    link.execute(
        f"INSERT INTO {names.full(META.name)} (item, content) VALUES ('version', %s) "  # noqa: S608  # own text
        "ON DUPLICATE KEY UPDATE content = %s",
        (str(schema.version), str(schema.version)),
    )
    link.commit()


def _run(link: Link, statements: Iterable[str]) -> None:
    for statement in statements:
        try:
            link.execute(statement)
        except pymysql.MySQLError as error:
            if code_of(error) not in _DONE:
                raise
