"""What the errors of SQL Server and of its client mean to the pipeline, and to the person who can mend it."""

import re
from typing import Final, NamedTuple

from shopfloor.samples import Misconfigured, Rejected, Unavailable


class Refused(Exception):
    """What the client said: the server's number (0: it has none, or the client kept it), kind and words."""

    def __init__(self, number: int, kind: str, said: str) -> None:
        """``kind`` is the client's own wording of the SQLSTATE."""
        super().__init__(said)
        self.number = number
        self.kind = kind
        self.said = said

    @property
    def lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return "Communication link" in self.kind or "Timeout" in self.kind or "TCP Provider" in self.said


class _Known(NamedTuple):
    numbers: tuple[int, ...]
    words: str
    """A pattern of the server's English words: of a statement without parameters the client keeps the number."""
    reaction: type[Exception]
    remedy: str


NOT_LOADED: Final = (
    "the client for SQL Server cannot be loaded; install what it needs (Debian: apt-get install libltdl7 "
    "libgssapi-krb5-2)"
)
_LOST: Final = "the connection to the database was lost"
_BUSY: Final = "another transaction was in the way; it is tried again"
_CHANGED: Final = "a table was changed meanwhile; all of them are examined again"
_AZURE: Final = "the service is busy or moves the database; it is tried again"
_RIGHTS: Final = "this user lacks rights; GRANT them, or write another user"
_READ_ONLY: Final = "the database is read-only (a replica?); name the primary in `dsn`, or wait until it is one"
_DOWN: Final = "the server is shut down, or somebody ended the connection"

_KNOWN: Final = (
    _Known((18456, 18452, 18470, 18486), r"Login failed for user", Misconfigured,
           "the server refuses user or password; put them right in `dsn` or `password`, or give the login CONNECT"),
    _Known((18487, 18488), r"password of the account (has expired|must be changed)", Misconfigured,
           "this login's password must be changed; ALTER LOGIN … WITH PASSWORD, and write the new one"),
    _Known((4060, 911), r"Cannot open database|[Dd]atabase ['\"].*['\"] does not exist", Misconfigured,
           "there is no such database, or this user may not use it; CREATE DATABASE and CREATE USER … FOR LOGIN there, "
           "or name another in `dsn`"),
    _Known((916,), r"is not able to access the database", Misconfigured,
           "this login has no user in the database; CREATE USER … FOR LOGIN there"),
    _Known((229, 230, 262, 297, 300, 2760, 15247, 1088), r"permission (was )?denied|not have permission",
           Misconfigured, _RIGHTS),
    _Known((2714,), r"already an object named", Misconfigured,
           "what this user may not see has the name of one of Shopfloor's tables; GRANT rights in the schema, "
           "or write another `schema_name` or `prefix`"),
    _Known((), r"Incorrect syntax near (the keyword )?'OR'", Misconfigured,
           "this server is too old; Shopfloor's views need SQL Server 2016 with SP1 or newer"),
    _Known((208,), r"Invalid object name", Unavailable,
           "a table is gone that was there; all of them are examined again"),
    _Known((207, 213, 515, 4104), r"Invalid column name|Cannot insert the value NULL into", Unavailable, _CHANGED),
    _Known((1205, 3960, 3961), r"was deadlocked|update conflict", Unavailable, _BUSY),
    _Known((1222,), r"Lock request time out", Unavailable, "somebody has locked rows or a table; it is tried again"),
    _Known((9002,), r"transaction log for database", Unavailable,
           "the transaction log is full; back it up or let it grow, the journal keeps what comes"),
    _Known((1101, 1105, 823, 824), r"Could not allocate (a new page|space)", Unavailable,
           "the disk or the files of the database are full; make room there, the journal keeps what comes"),
    _Known((701, 802, 8645), r"insufficient (system )?memory", Unavailable, "the database is out of memory"),
    _Known((3906, 978, 3908), r"database is read-only|is read-only|READ_ONLY", Unavailable, _READ_ONLY),
    _Known((976, 983, 942, 927, 922), r"is not accessible|because it is offline|is being recovered", Unavailable,
           "the database is not there now (recovering, offline, or a replica); it is tried again"),
    _Known((17809, 17189, 10928, 10929), r"maximum number of .*connections|too many", Unavailable,
           "the server has too many connections; raise `user connections`, or close others"),
    _Known((6005, 17142, 6106, 596), r"SHUTDOWN is in progress|is paused|in the kill state|was terminated",
           Unavailable, _DOWN),
    _Known((40197, 40501, 40613, 49918, 49919, 49920, 4221), r"is not currently available", Unavailable, _AZURE),
)  # fmt: skip
_ROW: Final = frozenset({
    220, 232, 241, 242, 245, 547, 2601, 2627, 2628, 3621, 8114, 8115, 8134, 8152, 8023, 9819, 3609, 1946, 511, 4819,
})  # fmt: skip
"""About a row: out of range, doubled key, a constraint, cut text, a trigger that rolls back."""
_RAISED: Final = 50_000
"""From here on numbers are those of triggers' own errors (RAISERROR, THROW)."""
_ROW_KINDS: Final = (
    "Integrity constraint violation", "String data", "Numeric value out of range", "Datetime field overflow",
    "Invalid character value",
)  # fmt: skip


def meaning(error: Refused) -> Exception:
    """What the pipeline is to do about an error. Rejected names no places: who wrote finds them."""
    number, said = error.number, error.said
    for known in _KNOWN:
        if number in known.numbers or (not number and re.search(known.words, said)):
            return known.reaction(f"{known.remedy} ({_named(number)}{said})")
    if about_a_row(error):
        return Rejected(f"the database refuses it: {said}")
    if "Timeout" in error.kind:
        return Unavailable(f"the database gives no answer in time ({said})")
    if "Communication link" in error.kind or "TCP Provider" in said or "Connection is busy" in said:
        return Unavailable(f"{_LOST} ({said})")
    return Unavailable(f"the database cannot do it now: {_named(number)}{said}")


def connecting(error: Refused, where: str) -> Exception:
    """What the pipeline is to do about a connection that could not be made; ``where`` is the server's address."""
    said = error.said
    lower = said.lower()
    if "load the driver" in lower:
        return Misconfigured(f"{NOT_LOADED} ({said})")
    if "certificate" in lower or "ssl" in lower or "encryption" in lower:
        remedy = (
            "write the host in `dsn` as the certificate has it (or `host_in_certificate=` behind it)"
            if "hostname mismatch" in lower or "subject name" in lower or "host name" in lower
            else "renew it at the server, and see whether the clock here is right"
            if "expired" in lower or "not yet valid" in lower
            else "turn TLS on there, or say `?encrypt=no`"
            if "not support" in lower
            else "have this computer trust the authority that signed it (Debian: update-ca-certificates), or name the "
            "certificate itself in `server_certificate_file`"
        )
        return Misconfigured(f"{where}: the server's certificate is not accepted; {remedy} ({said})")
    if "kerberos" in lower or "gss" in lower or "sspi" in lower:
        return Misconfigured(
            f"{where}: the Kerberos login does not come about; get a ticket with kinit for the account that Shopfloor "
            f"runs under, or write a user ({said})"
        )
    for known in _KNOWN:
        if re.search(known.words, said):
            return known.reaction(f"{where}: {known.remedy} ({said})")
    remedy = "cannot be reached"
    if "instance" in lower:
        remedy = (
            "no instance of this name answers; does SQL Server Browser run there, and is UDP port 1434 open? Or write "
            "the port instead"
        )
    elif "timeout" in lower:
        remedy = "does not answer in time; is a firewall between, is it SQL Server?"
    return Unavailable(f"{where}: {remedy} ({said})")


def about_a_row(error: Refused) -> bool:
    """Whether another row might be taken."""
    return error.number in _ROW or error.number >= _RAISED or (not error.number and error.kind.startswith(_ROW_KINDS))


def _named(number: int) -> str:
    return f"{number}: " if number else ""
