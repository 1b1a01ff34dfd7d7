"""Where a SQL Server is, who asks, and which of its tables are Shopfloor's: what a sink and a historian there share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, StringConstraints, model_validator

from shopfloor.plant.components import ComponentConfig, Form, FromEnvironment, Secret
from shopfloor.plant.model import Plant
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.sinks.sql import ddl
from shopfloor.sinks.sqlserver_dsn import Dsn, connection_string, parsed
from shopfloor.sinks.sqlserver_session import Address
from shopfloor.sinks.sqlserver_tables import DIALECT

_SECOND: Final = DURATION_UNITS["s"]
_LONGEST_IDENTIFIER: Final = 100

Identifier: Final = Form(r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and `_`")


def _dsn(value: object) -> object:
    if isinstance(value, str):
        found = parsed(value)
        if found.password and not isinstance(value, FromEnvironment):
            raise ValueError("a password must not stand in the plant file; write `password: ${NAME}` and set NAME")
        return str(value)
    return value


class SqlServerDatabase(ComponentConfig):
    """A SQL Server, a schema of a database in it, and under which name the position is kept there."""

    dsn: Annotated[SecretStr, BeforeValidator(_dsn)] = Field(
        description="Where: `mssql://user@host:1433/database`, without `user@` by a Kerberos ticket, or all of it as "
        "`${VAR}`. Behind `?`: `instance=` (instead of a port), `encrypt=` (`yes`, `strict`, `no`), "
        "`host_in_certificate=`, `trust_server_certificate=yes` (not checked). Other computers are spoken to with TLS "
        "and a checked certificate."
    )
    password: Secret | None = Field(default=None, description="Password, as `${VAR}`.")
    server_certificate_file: Path | None = Field(
        default=None,
        description="File of the server's own certificate (PEM or DER), which then is the only one accepted (with "
        "`encrypt=strict`, so from SQL Server 2022 on); by default the authorities that this computer trusts.",
    )
    schema_name: Annotated[str, Identifier, StringConstraints(max_length=_LONGEST_IDENTIFIER)] = Field(
        default="shopfloor", description="The schema in which its tables are; it is made if need be."
    )
    prefix: Annotated[
        str, Form(r"([A-Za-z_][A-Za-z0-9_]*)?", "letters, digits and `_`"), StringConstraints(max_length=20)
    ] = Field(default="", description="What stands before the name of each table.")
    writer: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="Under which name its position is kept in the database, another one for each Shopfloor that writes "
        "there; by default the plant's site and its own name.",
    )
    timeout: Duration = Field(
        default=30 * _SECOND, ge=_SECOND,
        description="How long the database may give no sign of life (whole seconds); it waits half as long for a lock.",
    )  # fmt: skip
    keep_alive: Duration = Field(
        default=10 * _SECOND, ge=_SECOND // 10, description="How often a connection is tried while nothing is written."
    )

    _site: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _consistent(self) -> "SqlServerDatabase":
        where = self._where
        if self.password is not None and not where.user:
            raise ValueError("`password` needs a user in `dsn`; without one a Kerberos ticket is used")
        if self.server_certificate_file is not None and (where.encrypt not in ("", "strict") or where.trust):
            raise ValueError("`server_certificate_file` needs `encrypt=strict`; take the other option out of `dsn`")
        return self

    def place(self, plant: Plant) -> None:
        """Remember the site: two plants in one database must not share a position."""
        self._site = plant.plant.site

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate's file."""
        file = self.server_certificate_file
        if file is not None and not file.is_file():
            yield "server_certificate_file", f"there is no file {file}"

    @property
    def _where(self) -> Dsn:
        where = parsed(self.dsn.get_secret_value())
        pinned = self.server_certificate_file is not None and not where.encrypt
        return where._replace(encrypt="strict") if pinned else where

    @property
    def position(self) -> str:
        """The name under which the position is kept."""
        return self.writer or (f"{self._site}/{self.name}" if self._site else self.name)

    @property
    def names(self) -> ddl.Names:
        """Where the tables are."""
        return ddl.Names(DIALECT, self.schema_name, self.prefix)

    def address(self) -> Address:
        """What connecting needs."""
        where = self._where
        password = where.password if self.password is None else self.password.get_secret_value()
        pinned = "" if self.server_certificate_file is None else str(self.server_certificate_file)
        text = connection_string(where, password, pinned, self.keep_alive / 1e9)
        return Address(where.host, where.port, where.instance, text, self.timeout / 1e9)

    @property
    def tables(self) -> tuple[str, ...]:
        """Which tables of which database they are, as far as the plant file tells."""
        where = self._where
        return ("sqlserver", where.host, str(where.port), where.instance, where.database, self.schema_name, self.prefix)
