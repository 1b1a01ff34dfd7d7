"""The address of a database of SQL Server, and what its client is told of it."""

import math
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

EXAMPLE: Final = "mssql://user@host:1433/database"
_PORT: Final = 1433
_HIGHEST_PORT: Final = 65_535
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_ENCRYPT: Final = {"yes": "yes", "no": "no", "strict": "strict"}
_SWITCH: Final = ("yes", "no")


class Dsn(NamedTuple):
    """What a DSN says."""

    host: str
    port: int
    """0: the instance's name stands for it."""
    instance: str
    user: str
    """Empty: whoever the Kerberos ticket of this process says."""
    password: str
    database: str
    encrypt: str
    """yes, no, strict; empty: it says nothing."""
    trust: bool
    """Whether any certificate will do."""
    name: str
    """The host's name in the certificate, where it is another one."""

    @property
    def encryption(self) -> str:
        """How TLS is used: as it says, else for every other computer."""
        return self.encrypt or ("no" if self.host in _LOCAL and not self.name and not self.trust else "yes")


def parsed(text: str) -> Dsn:
    """Raises ValueError, whose text never shows the DSN."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"is no address; write {EXAMPLE}") from None
    if parts.scheme not in ("mssql", "sqlserver") or not parts.hostname:
        raise ValueError(f"is no address; write {EXAMPLE}")
    if port is not None and not 0 < port <= _HIGHEST_PORT:
        raise ValueError(f"is no address; write {EXAMPLE}")
    database = unquote(parts.path.strip("/"))
    if not database or "/" in database:
        raise ValueError(f"names no database; write {EXAMPLE}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    instance = options.pop("instance", "")
    if instance and port is not None:
        raise ValueError("has a port and an instance; the port is enough")
    encrypt = options.pop("encrypt", "").lower()
    if encrypt and encrypt not in _ENCRYPT:
        raise ValueError(f"has an unknown encrypt; it is one of {', '.join(_ENCRYPT)}")
    trust = options.pop("trust_server_certificate", "no").lower()
    if trust not in _SWITCH:
        raise ValueError("has an unknown trust_server_certificate; it is yes or no")
    name = options.pop("host_in_certificate", "")
    if options:
        raise ValueError(
            f"has the option {min(options)!r}; it knows `encrypt`, `host_in_certificate`, `instance` and "
            "`trust_server_certificate`"
        )
    return Dsn(
        parts.hostname, 0 if instance else port or _PORT, instance, unquote(parts.username or ""),
        unquote(parts.password or ""), database, encrypt, trust == "yes", name,
    )  # fmt: skip


def connection_string(where: Dsn, password: str, pinned: str, keep_alive: float) -> str:
    """What the client is told; ``pinned`` is the file of the server's own certificate, empty: none.

    ``keep_alive`` in seconds.
    """
    server = f"tcp:{where.host}," + str(where.port) if where.port else f"tcp:{where.host}\\{where.instance}"
    said = {
        "Server": server,
        "Database": where.database,
        **({"UID": where.user, "PWD": password} if where.user else {"Trusted_Connection": "yes"}),
        "Encrypt": where.encryption,
        # a connection that the client mends by itself has lost our lock, which nothing would tell
        "ConnectRetryCount": "0",
        "KeepAlive": str(max(1, math.ceil(keep_alive))),
    }
    if where.trust:
        said["TrustServerCertificate"] = "yes"
    if where.name:
        said["HostnameInCertificate"] = where.name
    if pinned:
        said["ServerCertificate"] = pinned
    return ";".join(f"{key}={_braced(value)}" for key, value in said.items())


def _braced(value: str) -> str:
    """A value in which anything may stand."""
    return value if value.isalnum() else "{" + value.replace("}", "}}") + "}"
