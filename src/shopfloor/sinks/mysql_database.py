"""Where a MySQL or MariaDB is, who asks, and which of its tables are Shopfloor's: what a sink and a historian share."""

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, StringConstraints, model_validator

from shopfloor.plant.components import ComponentConfig, Form, FromEnvironment, Secret, check_identity
from shopfloor.plant.model import Plant
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.protocols.tls import file_problems, tls_context
from shopfloor.sinks.mysql_table import Mapped

_SECOND: Final = DURATION_UNITS["s"]
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_EXAMPLE: Final = "mysql://user@host:3306/database"
_MODES: Final = ("DISABLED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
_HIGHEST_PORT: Final = 65_535


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


class MysqlDatabase(ComponentConfig):
    """A MySQL or MariaDB server, a database in it, and under which name the position is kept there."""

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
        "there; by default the plant's site and its own name.",
    )
    timeout: Duration = Field(
        default=30 * _SECOND, ge=_SECOND // 10,
        description="How long the database may give no sign of life; it waits half as long for a lock.",
    )  # fmt: skip
    keep_alive: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, description="How often a connection is tried while nothing is written."
    )

    _site: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _consistent(self) -> "MysqlDatabase":
        check_identity(self.certificate_file, self.key_file, self.key_password)
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

    def address(self) -> "Address":
        """What connecting needs; reads the certificate files."""
        where = self._where
        password = where.password if self.password is None else self.password.get_secret_value()
        seconds, idle = self.timeout / 1e9, 3 * max(self.timeout, self.keep_alive) / 1e9
        return Address(where.host, where.port, where.user, password, where.database, seconds, idle, self.tls())

    @property
    def mapped(self) -> Mapped | None:
        """The plant's own table; None: Shopfloor's."""
        return None

    @property
    def tables(self) -> tuple[str, ...]:
        """Which tables of which database they are, as far as the plant file tells."""
        where = self._where
        return ("mysql", where.host, str(where.port), where.database, self.prefix)


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
