"""Where a PostgreSQL is, who asks, and which of its tables are Shopfloor's: what a sink and a historian there share."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

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

from shopfloor.plant.components import ComponentConfig, Form, FromEnvironment, Secret, check_identity
from shopfloor.plant.model import Plant
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.protocols.tls import file_problems
from shopfloor.sinks.postgres_session import LOCAL
from shopfloor.sinks.sql.process import who

_SECOND: Final = DURATION_UNITS["s"]
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


class PostgresDatabase(ComponentConfig):
    """A PostgreSQL server, a schema in it, and under which name the position is kept there."""

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
        "there; by default the plant's site and its own name.",
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
    def _consistent(self) -> "PostgresDatabase":
        check_identity(self.certificate_file, self.key_file, self.key_password)
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

    @property
    def tables(self) -> tuple[str, ...]:
        """Which tables of which database they are, as far as the plant file tells."""
        given = conninfo_to_dict(self.dsn.get_secret_value())
        where = tuple(str(given.get(key) or usual) for key, usual in (("host", ""), ("port", 5432), ("dbname", "")))
        return ("postgres", *where, str(given.get("service") or ""), self.schema_name, self.prefix)


def _application(writer: str) -> str:
    """How the server's administrator sees who is connected; tells one process from another.

    The server keeps 63 bytes of it, and whoever meets it there needs the end.
    """
    return f"shopfloor {writer.encode('ascii', 'replace').decode()[:14]} {who(14)}"
