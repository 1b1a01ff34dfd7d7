"""What PostgreSQL's errors mean to the pipeline, and to the person who can mend it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import psycopg

from shopfloor.samples import Misconfigured, Rejected, Unavailable

_REFUSED: Final = ("22", "23", "P0", "54")
"""Classes of SQLSTATE that are about a row: data exception, constraint, raised by a trigger, a limit of the program."""

_STATES: Final[dict[str, tuple[type[Exception], str]]] = {
    "28000": (Misconfigured, "the server does not let this user in; allow it in pg_hba.conf, or write another user"),
    "28P01": (Misconfigured, "the server refuses user or password; put them right in `dsn` or `password`"),
    "3D000": (Misconfigured, "there is no such database; create it (CREATE DATABASE …), or name another in `dsn`"),
    "42501": (Misconfigured, "this user lacks rights; GRANT them, or write another user"),
    "42P01": (Unavailable, "a table is gone that was there; all of them are examined again"),
    "42703": (Unavailable, "a table was changed meanwhile; all of them are examined again"),
    "42804": (Unavailable, "a table was changed meanwhile; all of them are examined again"),
    "22P03": (Unavailable, "a table was changed meanwhile; all of them are examined again"),
    "23502": (Unavailable, "a table was changed meanwhile; all of them are examined again"),
    "22P04": (Unavailable, "a table was changed meanwhile; all of them are examined again"),
    "3F000": (Unavailable, "the schema is gone that was there; it is examined again"),
    "25006": (Unavailable, "the server is read-only (a standby?); name the primary in `dsn`, or wait until it is one"),
    "53100": (Unavailable, "the disk of the database is full; free room there, the journal keeps what comes"),
    "53200": (Unavailable, "the database is out of memory"),
    "53300": (Unavailable, "the server has too many connections; raise max_connections, or close others"),
    "55P03": (Unavailable, "somebody has locked a table; it is tried again"),
    "40001": (Unavailable, "another transaction was in the way; it is tried again"),
    "40P01": (Unavailable, "another transaction was in the way; it is tried again"),
    "57P01": (Unavailable, "the server is shut down, or somebody ended the connection"),
    "57P02": (Unavailable, "the server crashed and starts anew"),
    "57P03": (Unavailable, "the server is starting up or shutting down"),
}
_CONNECTING: Final[tuple[tuple[str, type[Exception], str], ...]] = (
    ("no password supplied", Misconfigured, "the server wants a password; write `password: ${NAME}`"),
    ("authentication failed", *_STATES["28P01"]),
    ("pg_hba.conf", *_STATES["28000"]),
    ("is not permitted to log in", *_STATES["28000"]),
    ("starting up", *_STATES["57P03"]),
    ("shutting down", *_STATES["57P03"]),
    ("recovery mode", *_STATES["57P03"]),
    ("not yet accepting", *_STATES["57P03"]),
    ("too many", *_STATES["53300"]),
    ("remaining connection slots", *_STATES["53300"]),
    ('database "', *_STATES["3D000"]),
    ('role "', Misconfigured, "there is no such user; create it (CREATE ROLE … LOGIN), or name another in `dsn`"),
    ("does not support SSL", Misconfigured,
     "the server does no TLS; turn it on there, or say so in `dsn`: ?sslmode=disable"),
    ("certificate verify failed", Misconfigured,
     "the server's certificate is not trusted; give the authority that signed it in `ca_file`"),
    ("root certificate file", Misconfigured, "the file of `ca_file` cannot be used"),
    ("server certificate for", Misconfigured,
     "the server's certificate is for another name; write the host in `dsn` as the certificate has it"),
    ("certificate", Misconfigured, "the certificates do not fit; see `ca_file`, `certificate_file`, `key_file`"),
    ("invalid response to SSL negotiation", Misconfigured,
     "what answers there is no PostgreSQL; write its port into `dsn`"),
    ("private key", Misconfigured, "the key does not fit; see `certificate_file` and `key_file`"),
)  # fmt: skip
"""What connecting says has no SQLSTATE: words of it. A server that speaks another language is told as being away."""
_NEWS: Final = "FATAL:"
"""Before what the server itself said about a connection that it does not take."""


@contextmanager
def translated() -> Generator[None]:
    """Errors of the driver as the three that the pipeline knows; what is a bug stays one."""
    try:
        yield
    except psycopg.Error as error:
        raise meaning(error) from error


def meaning(error: psycopg.Error) -> Exception:
    """What the pipeline is to do about an error. Rejected names no places: who wrote finds them."""
    said = _said(error)
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return Unavailable(f"the connection to the database was lost: {said}")
        return error
    if state in _STATES:
        kind, text = _STATES[state]
        return kind(f"{text} ({said})")
    if state[:2] in _REFUSED:
        return Rejected(f"the database refuses it: {said}")
    if state[:2] in ("08", "53", "57", "58", "40", "XX", "55"):
        return Unavailable(f"the database cannot do it now: {said}")
    return error


def connecting(error: psycopg.Error, where: str) -> Exception:
    """What the pipeline is to do about a connection that could not be made; ``where`` is the server's address."""
    said = _said(error)
    for words, kind, text in _CONNECTING:
        if words in said:
            return kind(f"{where}: {text} ({said})")
    return Unavailable(f"{where} cannot be reached: {said}")


def _said(error: psycopg.Error) -> str:
    """The error's own words, on one line."""
    primary = error.diag.message_primary
    if primary:
        detail = error.diag.message_detail or ""
        return " ".join(f"{primary} {detail}".split())
    text = " ".join(str(error).split()).replace(" Is the server running", "; is the server running")
    return text.rpartition(_NEWS)[2].strip() if _NEWS in text else text.rpartition("failed: ")[2]
