"""Samples and machines' figures in tables of PostgreSQL, each exactly once.

What ``write_many`` gets and the position in the journal are one transaction, so after a crash of either side the
pipeline goes on behind what the database holds. ``docs/connectors/postgres.md`` says what is in the tables.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from shopfloor.plant.components import Form, FromEnvironment, Secret, SinkConfig
from shopfloor.plant.model import Plant
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Rejected, Unavailable
from shopfloor.seams import Connection, Sink
from shopfloor.sinks import postgres_copy
from shopfloor.sinks.postgres_session import LOCAL, Session
from shopfloor.sinks.postgres_tables import DIALECT, NEW, key, prepare, temporary
from shopfloor.sinks.sql import ddl, rows
from shopfloor.sinks.sql.facts import Fact, facts
from shopfloor.sinks.sql.tables import HISTORY, LATEST, LONGEST_NAME, TAG, WRITER

_SECOND: Final = DURATION_UNITS["s"]
LONGEST: Final = 64 * 2**20
"""Bytes of one value."""
_LONGEST_IDENTIFIER: Final = 63
"""PostgreSQL cuts longer names."""

Identifier = Form(r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and `_`")


def _dsn(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        parts = conninfo_to_dict(text)
    except psycopg.ProgrammingError:  # its text quotes the DSN
        raise ValueError("is no address; write postgresql://user@host:5432/database") from None
    if not parts.get("dbname") and not parts.get("service"):
        raise ValueError("names no database; write postgresql://user@host:5432/database")
    if parts.get("password") and not isinstance(text, FromEnvironment):
        # The text of this error never shows the value, so it is not one that quotes its input.
        raise PydanticCustomError(
            "secret", "a password must not stand in the plant file; write `password: ${NAME}` and set NAME"
        )
    return str(text)


class PostgresConfig(SinkConfig):
    """Stores samples and machines' figures in tables of PostgreSQL, which it makes; each exactly once."""

    type: Literal["postgres"] = "postgres"
    dsn: Annotated[SecretStr, BeforeValidator(_dsn), WithJsonSchema({"type": "string"})] = Field(
        description="Where: `postgresql://user@host:5432/database`, all that libpq knows behind `?`; or all of it as "
        "`${VAR}`. `sslmode` is `verify-full` for other computers unless it says something else."
    )
    password: Secret | None = Field(default=None, description="Password, as `${VAR}`.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate; by default the system's own.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file of our certificate, for servers that ask for one."
    )
    key_file: Path | None = Field(
        default=None, description="PEM file of the key that belongs to it; only its owner may read it."
    )
    key_password: Secret | None = Field(default=None, description="Password of the key file, as `${VAR}`.")
    schema_name: Annotated[str, Identifier, StringConstraints(max_length=_LONGEST_IDENTIFIER)] = Field(
        default="shopfloor", description="The schema in which its tables are; it is made if need be."
    )
    prefix: Annotated[
        str, Form(r"([A-Za-z_][A-Za-z0-9_]*)?", "letters, digits and `_`"), StringConstraints(max_length=20)
    ] = Field(default="", description="What stands before the name of each table.")
    writer: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="Under which name its position is kept in the database, another one for each Shopfloor that writes "
        "there; by default the plant's site and the sink's name.",
    )
    timeout: Duration = Field(
        default=30 * _SECOND, ge=_SECOND // 10,
        description="How long the database may give no sign of life, and wait for a lock.",
    )  # fmt: skip
    keep_alive: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, description="How often a connection is tried while nothing is written."
    )

    _site: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _consistent(self) -> "PostgresConfig":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("`certificate_file` and `key_file` belong together; give both")
        if self.key_password is not None and self.key_file is None:
            raise ValueError("`key_password` needs `key_file`")
        return self

    def place(self, plant: Plant) -> None:
        """Remember the site: two plants in one database must not share a position."""
        self._site = plant.plant.site

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self)

    @property
    def position(self) -> str:
        """The name under which the position is kept."""
        return self.writer or (f"{self._site}/{self.name}" if self._site else self.name)

    def parameters(self) -> dict[str, Any]:
        """What libpq is told."""
        given = conninfo_to_dict(self.dsn.get_secret_value())
        host = str(given.get("host") or "")
        if "sslmode" not in given and not (host in LOCAL or host.startswith("/")):
            given["sslmode"] = "verify-full"
        if self.ca_file is not None:
            given["sslrootcert"] = str(self.ca_file)
        elif str(given.get("sslmode")) == "verify-full":
            given.setdefault("sslrootcert", "system")
        if self.certificate_file is not None:
            given |= {"sslcert": str(self.certificate_file), "sslkey": str(self.key_file)}
        if self.key_password is not None:
            given["sslpassword"] = self.key_password.get_secret_value()
        if self.password is not None:
            given["password"] = self.password.get_secret_value()
        milliseconds = self.timeout // 10**6
        return {
            "tcp_user_timeout": milliseconds,
            **given,
            "client_encoding": "utf8",
            "application_name": _application(self.position),
        }

    def build(self) -> "PostgresSink":
        """The sink; opens nothing yet."""
        return PostgresSink(self)

    def probe(self) -> Connection:
        """All but writing: tables that are missing are made in a transaction that is rolled back."""
        return PostgresProbe(self)


def _application(writer: str) -> str:
    """How the server's administrator sees who is connected; tells one process from another."""
    return f"shopfloor {writer[:24]} {socket.gethostname()[:20]}:{os.getpid()}"


class PostgresProbe(Connection):
    """Connects and examines, and leaves nothing behind."""

    def __init__(self, config: PostgresConfig) -> None:
        """Built by ``PostgresConfig.probe``."""
        self._config = config

    async def __aenter__(self) -> Self:
        config = self._config
        session = await _connected(config)
        try:
            await session.run(lambda connection: _tried(connection, config))
        finally:
            await session.close()
        return self


async def _tried(connection: psycopg.AsyncConnection[Any], config: PostgresConfig) -> None:
    names = ddl.Names(DIALECT, config.schema_name, config.prefix)
    async with connection.transaction(force_rollback=True):
        await prepare(connection, names)
        await temporary(connection, names)


async def _connected(config: PostgresConfig) -> Session:
    """A session with all settings made. Raises Unavailable, Misconfigured."""
    session = await Session.open(config.parameters(), patience=config.timeout / 1e9)
    milliseconds = config.timeout // 10**6

    async def settle(connection: psycopg.AsyncConnection[Any]) -> None:
        for setting, value in (
            ("TimeZone", "UTC"),
            ("lock_timeout", str(milliseconds * 4 // 5)),  # so that the server says it before our patience ends
            # of a connection that died on the way the server learns nothing: what it held must become free
            ("idle_in_transaction_session_timeout", str(2 * milliseconds)),
        ):
            await connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
        found = await connection.execute("SELECT current_setting('synchronous_commit')")
        row = await found.fetchone()
        if row is not None and row[0] == "off":  # what write has returned for must be on the server's disk
            await connection.execute("SELECT set_config('synchronous_commit', 'local', false)")
        found = await connection.execute("SELECT current_setting('transaction_read_only'), pg_is_in_recovery()")
        row = await found.fetchone()
        if row is not None and (row[0] == "on" or row[1]):
            raise Unavailable(
                "the server is read-only (a standby?); name the primary in `dsn`, or wait until it is one"
            )

    try:
        await session.run(settle)
    except BaseException:
        await session.close()
        raise
    return session


class PostgresSink(Sink):
    """Writes batches; enter it to connect."""

    def __init__(self, config: PostgresConfig) -> None:
        """Built by ``PostgresConfig.build``."""
        self._config = config
        self._names = ddl.Names(DIALECT, config.schema_name, config.prefix)
        self._session: Session | None = None
        self._token = ""
        self._position = -1
        self._ids: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        """Connect, make or examine the tables, take over the position. Raises Unavailable, Misconfigured."""
        self._session = session = await _connected(self._config)
        try:
            await session.run(self._begin)
        except BaseException:
            self._session = None
            await session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _begin(self, connection: psycopg.AsyncConnection[Any]) -> None:
        names, config = self._names, self._config
        await self._alone(connection)
        async with connection.transaction():
            await prepare(connection, names)
        await temporary(connection, names)
        self._token = secrets.token_hex(8)
        found = await connection.execute(
            f"INSERT INTO {names.full(WRITER.name)} AS w (name, position, session, written) "  # noqa: S608  # own text
            "VALUES (%s, -1, %s, now()) ON CONFLICT (name) DO UPDATE SET session = excluded.session "
            "RETURNING w.position".encode(),
            [config.position[:LONGEST_NAME], self._token],
        )
        row = await found.fetchone()
        self._position = -1 if row is None else row[0]
        self._ids = {}
        known = await connection.execute(f"SELECT name, id FROM {names.full(TAG.name)}".encode())  # noqa: S608  # own text
        self._ids.update(await known.fetchall())

    async def _alone(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Nobody else may move this position: hold a lock as long as the connection is there.

        A connection of this computer whose process is gone, or is this one, is a remnant; it is ended.
        """
        number = key(self._config.schema_name, self._config.prefix, self._config.position)
        for _ in range(2):
            row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", [number])).fetchone()
            if row is not None and row[0]:
                return
            found = await connection.execute(
                "SELECT l.pid, a.application_name, host(a.client_addr) FROM pg_locks l JOIN pg_stat_activity a "
                "USING (pid) WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND "
                "((l.classid::bigint << 32) | l.objid::bigint) = %s",
                [number],
            )
            holder = await found.fetchone()
            if holder is None:
                continue
            pid, application, address = holder
            if not _remnant(application):
                raise Unavailable(
                    f"another Shopfloor ({application}, from {address or 'the same computer'}) writes there under the "
                    f"name {self._config.position!r}; stop it, or give one of them another `writer`"
                )
            await connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            await connection.execute("SELECT pg_advisory_lock(%s)", [number])
            return
        raise Unavailable("the lock of this writer changes hands; it is tried again")

    async def held(self) -> int:
        """The last journal offset whose samples are in the database; -1 when there is none."""
        return self._position

    async def lost(self) -> None:
        """Raise Unavailable when the connection is lost: it is tried whenever nothing was written for a while."""
        pause = self._config.keep_alive / 1e9
        while True:
            session = self._connected()
            await asyncio.sleep(max(0.01, pause - session.idle))
            if session.idle >= pause:
                await session.run(lambda connection: connection.execute("SELECT 1"))

    def _connected(self) -> Session:
        if self._session is None:
            raise Unavailable("not connected")
        return self._session

    async def write(self, offset: int, batch: Batch) -> None:
        """Take the batch in a transaction of its own."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Take the batches in one transaction. Raises Rejected, Unavailable, Misconfigured."""
        session = self._connected()
        fresh = [entry for entry in entries if entry[0] > self._position]
        if not fresh:
            return
        for _, batch in fresh:
            rows.fit(batch, nul=False, longest=LONGEST)
        try:
            await session.run(lambda connection: self._store(connection, session, fresh))
        except Rejected as refused:
            if len(fresh) > 1:  # the pipeline offers them again one by one
                raise
            raise await self._culprits(session, *fresh[0], refused) from refused
        self._position = fresh[-1][0]

    async def _store(
        self,
        connection: psycopg.AsyncConnection[Any],
        session: Session,
        entries: Sequence[tuple[int, Batch]],
        *,
        only_try: bool = False,
    ) -> None:
        await self._know(connection, rows.tags_of(entries) - self._ids.keys())
        found = rows.blocks(entries, self._ids)
        async with connection.transaction(force_rollback=only_try):
            await self._copy(connection, session, self._names.full(HISTORY.name), found)
            await self._copy(connection, session, NEW, rows.latest(found))
            await self._latest(connection)
            session.alive()
            await self._facts(connection, facts(entries))
            session.alive()
            await self._move(connection, entries[-1][0])

    async def _know(self, connection: psycopg.AsyncConnection[Any], tags: set[str]) -> None:
        """Have an id for each of these tags."""
        if not tags:
            return
        table = self._names.full(TAG.name)
        wanted = sorted(tags)  # so two writers wait for each other in one direction only
        await connection.execute(
            f"INSERT INTO {table} (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING".encode(),
            [wanted],
        )
        found = await connection.execute(
            f"SELECT name, id FROM {table} WHERE name = ANY(%s)".encode(),  # noqa: S608  # own text
            [wanted],
        )
        self._ids.update(await found.fetchall())

    async def _copy(
        self, connection: psycopg.AsyncConnection[Any], session: Session, table: str, found: Sequence[rows.Block]
    ) -> None:
        if not found:
            return
        text = f"COPY {table} ({self._names.columns(HISTORY)}) FROM STDIN (FORMAT BINARY)"
        async with connection.cursor() as cursor, cursor.copy(text.encode()) as copy:
            await copy.write(postgres_copy.HEADER)
            for block in found:
                for chunk in postgres_copy.encoded(block):
                    await copy.write(chunk)
                    session.alive()
                    await asyncio.sleep(0)  # a chunk takes some milliseconds; others' turn between them
            await copy.write(postgres_copy.TRAILER)

    async def _latest(self, connection: psycopg.AsyncConnection[Any]) -> None:
        columns = self._names.columns(HISTORY)
        newer = ", ".join(f"{name} = excluded.{name}" for name in LATEST.names[1:])
        await connection.execute(
            f"INSERT INTO {self._names.full(LATEST.name)} AS l ({columns}) SELECT {columns} FROM {NEW} "  # noqa: S608  # own text
            f"ORDER BY tag_id ON CONFLICT (tag_id) DO UPDATE SET {newer} "
            "WHERE (excluded.time, excluded.nanos) >= (l.time, l.nanos)".encode()
        )

    async def _facts(self, connection: psycopg.AsyncConnection[Any], found: Sequence[Fact]) -> None:
        async with connection.cursor() as cursor:
            for table in dict.fromkeys(fact.table.name for fact in found):
                mine = [fact for fact in found if fact.table.name == table]
                shape, full = mine[0].table, self._names.full(table)
                same = " AND ".join(f"{name} = %s" for name in shape.replaces)
                await cursor.executemany(f"DELETE FROM {full} WHERE {same}".encode(), [fact.key for fact in mine])  # noqa: S608  # own text
                places = ", ".join(["%s"] * len(shape.columns))
                text = f"INSERT INTO {full} ({self._names.columns(shape)}) VALUES ({places})"  # noqa: S608  # own text
                if made := [row for fact in mine for row in fact.rows]:
                    await cursor.executemany(text.encode(), made)

    async def _move(self, connection: psycopg.AsyncConnection[Any], offset: int) -> None:
        moved = await connection.execute(
            f"UPDATE {self._names.full(WRITER.name)} SET position = %s, written = now() "  # noqa: S608  # own text
            "WHERE name = %s AND session = %s".encode(),
            [offset, self._config.position[:LONGEST_NAME], self._token],
        )
        if moved.rowcount != 1:
            raise Unavailable("the position of this writer was changed by somebody else; it is read again")

    async def _culprits(self, session: Session, offset: int, batch: Batch, refused: Rejected) -> Rejected:
        """Which samples of a batch the database refuses: tried in halves, in transactions that are rolled back."""
        found: list[int] = []
        reasons: dict[str, None] = {refused.reason: None}

        async def refusal(places: Sequence[int]) -> Rejected | None:
            part = [(offset, batch.select(places))]
            try:
                await session.run(lambda connection: self._store(connection, session, part, only_try=True))
            except Rejected as again:
                return again
            return None

        waiting: list[tuple[Sequence[int], Rejected]] = [(range(len(batch)), refused)]
        while waiting:
            places, why = waiting.pop()
            if len(places) == 1:
                found.append(places[0])
                reasons.setdefault(why.reason)
                continue
            middle = len(places) // 2
            halves = [(half, await refusal(half)) for half in (places[:middle], places[middle:])]
            bad = [(half, again) for half, again in halves if again is not None]
            # each half alone is taken, both together are not: the later one has to go
            waiting += bad or [([place], why) for place in places[middle:]]
        return Rejected("; ".join(list(reasons)[:3]), sorted(found))


def _remnant(application: str) -> bool:
    """Whether a connection of this name was made on this computer by a process that is gone, or by this one."""
    before, _, number = application.rpartition(":")
    if not before.endswith(f" {socket.gethostname()[:20]}") or not number.isdigit():
        return False
    return int(number) == os.getpid() or not psutil.pid_exists(int(number))
