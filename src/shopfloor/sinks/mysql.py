"""Samples and machines' figures in tables of MySQL or MariaDB, each exactly once.

What ``write_many`` gets and the position in the journal are one transaction, so after a crash of either side the
pipeline goes on behind what the database holds. ``docs/connectors/mysql.md`` says what is in the tables.
"""

import asyncio
import os
import secrets
import socket
import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import psutil
from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, StringConstraints, model_validator

from shopfloor.plant.components import Form, FromEnvironment, Secret, SinkConfig
from shopfloor.plant.model import Plant
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.protocols.tls import file_problems, tls_context
from shopfloor.samples import Batch, Unavailable
from shopfloor.seams import Connection, Sink
from shopfloor.sinks.mysql_link import Link
from shopfloor.sinks.mysql_session import Session, connect
from shopfloor.sinks.mysql_table import Mapped, OwnTable
from shopfloor.sinks.mysql_tables import (
    examined,
    lock_name,
    may,
    may_write,
    prepare,
    prepare_position,
    server_of,
)
from shopfloor.sinks.mysql_writing import Position, Tables, Target, write
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sql.tables import LONGEST_NAME

_SECOND: Final = DURATION_UNITS["s"]
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_EXAMPLE: Final = "mysql://user@host:3306/database"
_MODES: Final = ("DISABLED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
_HIGHEST_PORT: Final = 65_535


Identifier: Final = Form(r"[A-Za-z_][A-Za-z0-9_$]*", "letters, digits, `_` and `$`")


class _Dsn(NamedTuple):
    """What a DSN says."""

    host: str
    port: int
    user: str
    password: str
    database: str
    mode: str
    """One of _MODES, empty: it says nothing."""


def _parsed(text: str) -> _Dsn:
    """Raises ValueError, whose text never shows the DSN."""
    try:
        parts = urlsplit(text)
        port = parts.port or 3306
    except ValueError:
        raise ValueError(f"is no address; write {_EXAMPLE}") from None
    if parts.scheme not in ("mysql", "mariadb") or not parts.hostname or not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"is no address; write {_EXAMPLE}")
    database = unquote(parts.path.strip("/"))
    if not database or "/" in database:
        raise ValueError(f"names no database; write {_EXAMPLE}")
    if not parts.username:
        raise ValueError(f"names no user; write {_EXAMPLE}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    mode = options.pop("ssl-mode", "").upper()
    if options:
        raise ValueError(f"has the option {min(options)!r}; it knows `ssl-mode` only")
    if mode and mode not in _MODES:
        raise ValueError(f"has an unknown ssl-mode; it is one of {', '.join(_MODES)}")
    return _Dsn(parts.hostname, port, unquote(parts.username), unquote(parts.password or ""), database, mode)


def _dsn(value: object) -> object:
    if isinstance(value, str):
        found = _parsed(value)
        if found.password and not isinstance(value, FromEnvironment):
            raise ValueError("a password must not stand in the plant file; write `password: ${NAME}` and set NAME")
        return str(value)
    return value


class MysqlConfig(SinkConfig):
    """Stores samples and machines' figures in tables of MySQL or MariaDB, which it makes; each exactly once."""

    type: Literal["mysql"] = "mysql"
    dsn: Annotated[SecretStr, BeforeValidator(_dsn)] = Field(
        description="Where: `mysql://user@host:3306/database`, or all of it as `${VAR}`. Other computers are spoken to "
        "with TLS and a checked certificate, unless `?ssl-mode=` behind it says `DISABLED`, `REQUIRED` (not checked) "
        "or `VERIFY_CA` (the host's name is not checked)."
    )
    password: Secret | None = Field(default=None, description="Password, as `${VAR}`.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the server's certificate; by default the system's own.",
    )
    certificate_file: Path | None = Field(
        default=None, description="PEM file of our certificate with its chain, for servers that ask for one."
    )
    key_file: Path | None = Field(default=None, description="PEM file of the key that belongs to our certificate.")
    key_password: Secret | None = Field(default=None, description="Password of the key file, as `${VAR}`.")
    prefix: Annotated[
        str, Form(r"([A-Za-z_][A-Za-z0-9_]*)?", "letters, digits and `_`"), StringConstraints(max_length=20)
    ] = Field(default="shopfloor_", description="What stands before the name of each table.")
    writer: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="Under which name its position is kept in the database, another one for each Shopfloor that writes "
        "there; by default the plant's site and the sink's name.",
    )
    table: Annotated[str, Identifier, StringConstraints(max_length=64)] | None = Field(
        default=None,
        description="A table of the plant's own instead of Shopfloor's: samples go there, as `columns` says.",
    )
    columns: dict[Annotated[str, Identifier, StringConstraints(max_length=64)], str] = Field(
        default_factory=dict,
        description="What each column of `table` gets: `{time}`, `{received}`, `{tag}`, `{value}`, `{quality}` for a "
        "row a sample; or `{time}` and the names of tags for a row an instant.",
    )
    timeout: Duration = Field(
        default=30 * _SECOND, ge=_SECOND // 10,
        description="How long the database may give no sign of life; it waits half as long for a lock.",
    )  # fmt: skip
    keep_alive: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, description="How often a connection is tried while nothing is written."
    )

    _site: str = PrivateAttr(default="")

    @model_validator(mode="before")
    @classmethod
    def _only_mapped(cls, fields: Any) -> Any:
        """Tags that no column gets are not wanted, unless `tags` says otherwise."""
        if not isinstance(fields, dict):
            return fields
        given = cast("dict[str, object]", fields)
        columns = given.get("columns")
        if "tags" in given or not isinstance(columns, dict):
            return given
        said = cast("dict[object, object]", columns)
        tags = Mapped("", {str(name): str(what) for name, what in said.items()}).tags
        return {**given, "tags": tags} if tags else given

    @model_validator(mode="after")
    def _consistent(self) -> "MysqlConfig":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("`certificate_file` and `key_file` belong together; give both")
        if self.key_password is not None and self.key_file is None:
            raise ValueError("`key_password` needs `key_file`")
        if (self.table is None) == bool(self.columns):
            raise ValueError("`table` and `columns` belong together; give both")
        if self.table is not None and (problem := Mapped(self.table, self.columns).problem()):
            raise ValueError(f"`columns`: {problem}")
        files = [name for name in ("ca_file", "certificate_file") if getattr(self, name) is not None]
        if files and self._where.mode == "DISABLED":
            raise ValueError(f"`{files[0]}` needs TLS; take `ssl-mode=DISABLED` out of `dsn`")
        return self

    def place(self, plant: Plant) -> None:
        """Remember the site: two plants in one database must not share a position."""
        self._site = plant.plant.site

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self)

    @property
    def _where(self) -> _Dsn:
        return _parsed(self.dsn.get_secret_value())

    @property
    def position(self) -> str:
        """The name under which the position is kept."""
        return self.writer or (f"{self._site}/{self.name}" if self._site else self.name)

    @property
    def mode(self) -> str:
        """How TLS is used: written in ``dsn``, else checked in full for other computers and where files are given."""
        where = self._where
        near = where.host in _LOCAL and self.ca_file is None and self.certificate_file is None
        return where.mode or ("DISABLED" if near else "VERIFY_IDENTITY")

    def tls(self) -> ssl.SSLContext | None:
        """The TLS settings, None: without. Reads the files; raises Misconfigured for those that cannot be used."""
        if self.mode == "DISABLED":
            return None
        context = tls_context(self)
        context.check_hostname = self.mode == "VERIFY_IDENTITY"
        if self.mode == "REQUIRED":
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def mapped(self) -> Mapped | None:
        """The plant's own table; None: Shopfloor's."""
        return None if self.table is None else Mapped(self.table, self.columns)

    def address(self) -> "Address":
        """What connecting needs; reads the certificate files."""
        where = self._where
        password = where.password if self.password is None else self.password.get_secret_value()
        seconds, idle = self.timeout / 1e9, 3 * max(self.timeout, self.keep_alive) / 1e9
        return Address(where.host, where.port, where.user, password, where.database, seconds, idle, self.tls())

    def build(self) -> "MysqlSink":
        """The sink; opens nothing yet."""
        return MysqlSink(self)

    def probe(self) -> Connection:
        """All but writing: what is there is examined, and whether the rights for the rest are there."""
        return MysqlProbe(self)


class Address(NamedTuple):
    """Where the server is and who asks."""

    host: str
    port: int
    user: str
    secret: str
    database: str
    seconds: float
    idle: float
    tls_context: ssl.SSLContext | None


class MysqlProbe(Connection):
    """Connects and examines, and changes nothing."""

    def __init__(self, config: MysqlConfig) -> None:
        """Built by ``MysqlConfig.probe``."""
        self._config = config

    async def __aenter__(self) -> Self:
        """Examine; raises Unavailable or Misconfigured, and leaves at once."""
        session = await connect(self._config.address())
        try:
            await session.run(lambda: self._examine(session.link))
        finally:
            await session.close()
        return self

    def _examine(self, link: Link) -> None:
        server = server_of(link)
        names = ddl.Names(server.dialect, prefix=self._config.prefix)
        mapped = self._config.mapped
        if mapped is not None:
            OwnTable(link, ddl.Names(server.dialect), mapped).examine()
            may_write(link, names, mapped.table, list(mapped.columns))
            return
        server.demand_new_enough()
        examined(link, names)
        may(link, names)


class MysqlSink(Sink):
    """Writes batches; enter it to connect."""

    def __init__(self, config: MysqlConfig) -> None:
        """Built by ``MysqlConfig.build``."""
        self._config = config
        self._session: Session | None = None
        self._held = -1
        self._last = 0.0
        """When the server answered last, by the loop's clock."""

    async def __aenter__(self) -> Self:
        """Connect, make or examine the tables, take over the position. Raises Unavailable, Misconfigured."""
        session = await connect(self._config.address())
        try:
            self._target, self._position, self._held = await session.run(lambda: self._begin(session))
        except BaseException:
            await session.close()
            raise
        self._session = session
        self._heard()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _begin(self, session: Session) -> tuple[Target, Position, int]:
        link, config = session.link, self._config
        server = server_of(link)
        names = ddl.Names(server.dialect, prefix=config.prefix)
        if config.mapped is None:
            prepare(link, names, server, config.timeout / 2e9)
        else:
            prepare_position(link, names)
        position = Position(names, config.position[:LONGEST_NAME], f"{secrets.token_hex(8)} {_who()}")
        self._alone(link, position)
        target: Target = (
            Tables(link, names, loads=server.loads, packet=server.packet)
            if config.mapped is None
            else OwnTable(link, ddl.Names(server.dialect), config.mapped)
        )
        target.begin()
        return target, position, position.take(link)

    def _alone(self, link: Link, position: Position) -> None:
        """Nobody else may move this position: hold a lock as long as the connection is there.

        A connection of this computer whose process is gone, or is this one, is a remnant; it is ended.
        """
        lock = lock_name(f"{link.database}.{self._config.prefix} {self._config.position}")
        if link.value("SELECT GET_LOCK(%s, 0)", (lock,)) == 1:
            return
        holder = position.holder(link).partition(" ")[2]
        number = link.value("SELECT IS_USED_LOCK(%s)", (lock,))
        if number is not None and _remnant(holder):
            link.execute("KILL %s", (number,))
        if link.value("SELECT GET_LOCK(%s, %s)", (lock, self._config.timeout / 4e9)) == 1:
            return
        raise Unavailable(
            f"another Shopfloor ({holder}) writes there under the name {self._config.position!r}; stop it, or give one "
            "of them another `writer`"
        )

    async def held(self) -> int:
        """The last journal offset whose samples are in the database; -1 when there is none."""
        return self._held

    async def lost(self) -> None:
        """Raise Unavailable when the connection is lost: it is tried whenever nothing was written for a while."""
        loop = asyncio.get_running_loop()
        while True:
            session = self._connected()
            await asyncio.sleep(max(0.01, self._last + self._config.keep_alive / 1e9 - loop.time()))
            if loop.time() - self._last >= self._config.keep_alive / 1e9:
                await session.ping()
                self._heard()

    async def write(self, offset: int, batch: Batch) -> None:
        """Take the batch in a transaction of its own."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Take the batches in one transaction. Raises Rejected, Unavailable, Misconfigured."""
        session = self._connected()
        fresh = [entry for entry in entries if entry[0] > self._held]
        if not fresh:
            return
        await session.run(lambda: write(session.link, self._target, self._position, fresh))
        self._held = fresh[-1][0]
        self._heard()

    def _heard(self) -> None:
        self._last = asyncio.get_running_loop().time()

    def _connected(self) -> Session:
        if self._session is None:
            raise Unavailable("not connected")
        return self._session


def _who() -> str:
    return f"{socket.gethostname()[:60]}:{os.getpid()}"


def _remnant(holder: str) -> bool:
    """Whether a connection was made on this computer by a process that is gone, or by this one."""
    host, _, number = holder.rpartition(":")
    if host != socket.gethostname()[:60] or not number.isdigit():
        return False
    return int(number) == os.getpid() or not psutil.pid_exists(int(number))
