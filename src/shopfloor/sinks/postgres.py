"""Samples and machines' figures in tables of PostgreSQL, each exactly once.

What ``write_many`` gets and the position in the journal are one transaction, so after a crash of either side the
pipeline goes on behind what the database holds. ``docs/connectors/postgres-sink.md`` says what is in the tables.
"""

import asyncio
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self

import psycopg

from shopfloor.plant.components import SinkConfig
from shopfloor.samples import Batch, Rejected, Unavailable
from shopfloor.seams import Connection, Sink
from shopfloor.sinks import postgres_copy
from shopfloor.sinks.postgres_database import PostgresDatabase
from shopfloor.sinks.postgres_session import Session
from shopfloor.sinks.postgres_tables import DIALECT, NEW, claim, key, prepare, temporary
from shopfloor.sinks.sql import ddl, rows
from shopfloor.sinks.sql.facts import Fact, facts
from shopfloor.sinks.sql.process import is_remnant
from shopfloor.sinks.sql.tables import HISTORY, LATEST, LONGEST_NAME, TAG, WRITER
from shopfloor.turns import Pieces, turn

LONGEST: Final = 64 * 2**20
"""Bytes of one value."""
_SHORTEST_IDLE: Final = 10_000
"""ms that nothing may come before the server ends a session."""
_PIECE: Final = 5000
"""Samples that are examined, or made columns, in a turn: a millisecond or two."""


class PostgresConfig(PostgresDatabase, SinkConfig):
    """Stores samples and machines' figures in tables of PostgreSQL, which it makes; each exactly once."""

    type: Literal["postgres"] = "postgres"

    def build(self) -> "PostgresSink":
        """The sink; opens nothing yet."""
        return PostgresSink(self)

    def probe(self) -> Connection:
        """All but writing: tables that are missing are made in a transaction that is rolled back."""
        return PostgresProbe(self)


class PostgresProbe(Connection):
    """Connects and examines, and leaves nothing behind."""

    def __init__(self, config: PostgresDatabase, *, historian: bool = False) -> None:
        """Built by ``PostgresConfig.probe``, or a historian's."""
        self._config = config
        self._historian = historian

    async def __aenter__(self) -> Self:
        session = await _connected(self._config)
        try:
            await session.run(self._tried)
        finally:
            await session.close()
        return self

    async def _tried(self, connection: psycopg.AsyncConnection[Any]) -> None:
        config = self._config
        names = ddl.Names(DIALECT, config.schema_name, config.prefix)
        async with connection.transaction(force_rollback=True):
            await prepare(connection, names)
            await claim(connection, names, config.position[:LONGEST_NAME], historian=self._historian)
            await temporary(connection, names)


async def _connected(config: PostgresDatabase) -> Session:
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
        # and so must the writer's lock, which a session holds (from PostgreSQL 14 on); one that lives asks often enough
        idle = max(_SHORTEST_IDLE, 3 * max(config.timeout, config.keep_alive) // 10**6)
        await connection.execute(
            "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = 'idle_session_timeout'", [str(idle)]
        )
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

    historian: ClassVar[bool] = False
    """Whether the tables are to be its own: nobody else's samples among them."""

    def __init__(self, config: PostgresDatabase) -> None:
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
        me = config.position[:LONGEST_NAME]
        await self._alone(connection)
        self._token = secrets.token_hex(8)
        async with connection.transaction():
            await prepare(connection, names)
            await claim(connection, names, me, historian=self.historian)
            found = await connection.execute(
                f"INSERT INTO {names.full(WRITER.name)} AS w (name, position, session, written) "  # noqa: S608  # own text
                "VALUES (%s, -1, %s, now()) ON CONFLICT (name) DO UPDATE SET session = excluded.session "
                "RETURNING w.position".encode(),
                [me, self._token],
            )
            row = await found.fetchone()
        await temporary(connection, names)
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
            if not is_remnant(application):
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
        pieces = Pieces(_PIECE)
        for _, batch in fresh:
            rows.fit(batch, nul=False, longest=LONGEST)
            await pieces.worked(len(batch))
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
        found: list[rows.Block] = []
        pieces = Pieces(_PIECE)
        for entry in entries:
            await pieces.worked(len(entry[1]))
            found = rows.blocks([entry], self._ids, found)
        async with connection.transaction(force_rollback=only_try):
            await self._copy(connection, session, self._names.full(HISTORY.name), found)
            await turn()
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
                    await turn()  # a chunk takes some milliseconds
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
