"""What the errors of MySQL and MariaDB mean to the pipeline, and to the person who can mend it."""

import ssl
from typing import Final

import pymysql

from shopfloor.samples import Misconfigured, Rejected, Unavailable

_CHANGED: Final = "a table was changed meanwhile; all of them are examined again"
_LOST: Final = "the connection to the database was lost"
_NOT_LET_IN: Final = (
    "the server does not let this user in from here; GRANT it the database for this computer, or write another user"
)
_LOGIN: Final = (
    "the server refuses user or password; put them right in `dsn` or `password` "
    "(to a user who needs TLS it says the same: give `ca_file`)"
)
_ROW: Final = frozenset({
    1048, 1062, 1138, 1169, 1216, 1264, 1265, 1292, 1364, 1366, 1367, 1369, 1406, 1411, 1441, 1452, 1526, 1644, 1690,
    1748, 3140, 3141, 3819, 4025, 4078,
})  # fmt: skip
"""About a row: NULL where none may be, a doubled key, out of range, too long, wrong text, a constraint, a trigger."""

_CODES: Final[dict[int, tuple[type[Exception], str]]] = {
    1040: (Unavailable, "the server has too many connections; raise max_connections, or close others"),
    1203: (Unavailable, "this user has too many connections; raise max_user_connections, or close others"),
    1226: (Unavailable, "this user is at a limit of its account; ALTER USER … WITH …, or wait"),
    1041: (Unavailable, "the database is out of memory"),
    1037: (Unavailable, "the database is out of memory"),
    1021: (Unavailable, "the disk of the database is full; free room there, the journal keeps what comes"),
    1114: (Unavailable, "the table is full, or its disk; make room there, the journal keeps what comes"),
    1053: (Unavailable, "the server is shut down"),
    1927: (Unavailable, "somebody ended the connection"),
    1317: (Unavailable, "somebody ended the statement"),
    1094: (Unavailable, _LOST),
    1152: (Unavailable, _LOST),
    1158: (Unavailable, _LOST),
    1159: (Unavailable, _LOST),
    1160: (Unavailable, _LOST),
    1161: (Unavailable, _LOST),
    2006: (Unavailable, _LOST),
    2013: (Unavailable, _LOST),
    2014: (Unavailable, _LOST),
    2055: (Unavailable, _LOST),
    4031: (Unavailable, "the server ended the connection because nothing came for long"),
    1205: (Unavailable, "another transaction has locked rows or a table; it is tried again. SHOW PROCESSLIST says who"),
    1213: (Unavailable, "another transaction was in the way; it is tried again"),
    1020: (Unavailable, "another transaction was in the way; it is tried again"),
    1290: (Unavailable, "the server is read-only (a replica?); name the primary in `dsn`, or wait until it is one"),
    1836: (Unavailable, "the server is read-only (a replica?); name the primary in `dsn`, or wait until it is one"),
    1792: (Unavailable, "the server is read-only (a replica?); name the primary in `dsn`, or wait until it is one"),
    1146: (Unavailable, "a table is gone that was there; all of them are examined again"),
    1054: (Unavailable, _CHANGED),
    1136: (Unavailable, _CHANGED),
    1412: (Unavailable, _CHANGED),
    1045: (Misconfigured, _LOGIN),
    1698: (Misconfigured, _LOGIN),
    1251: (Misconfigured, "the server knows this user's password in an outdated form; ALTER USER … IDENTIFIED BY"),
    1862: (Misconfigured, "this user's password has expired; ALTER USER … IDENTIFIED BY, and write the new one"),
    1820: (Misconfigured, "this user's password has expired; ALTER USER … IDENTIFIED BY, and write the new one"),
    3118: (Misconfigured, "this user's account is locked; ALTER USER … ACCOUNT UNLOCK"),
    4151: (Misconfigured, "this user's account is locked; ALTER USER … ACCOUNT UNLOCK"),
    1130: (Misconfigured, _NOT_LET_IN),
    1129: (Unavailable, "the server has blocked this computer after failed connections; FLUSH HOSTS there"),
    1044: (Misconfigured, "this user has no rights in the database; GRANT them, or name another database in `dsn`"),
    1049: (Misconfigured, "there is no such database; create it (CREATE DATABASE …), or name another in `dsn`"),
    1142: (Misconfigured, "this user lacks rights; GRANT them, or write another user"),
    1143: (Misconfigured, "this user lacks rights; GRANT them, or write another user"),
    1227: (Misconfigured, "this user lacks rights; GRANT them, or write another user"),
    1370: (Misconfigured, "this user lacks rights; GRANT them, or write another user"),
    1347: (Misconfigured, "a view has the name of one of Shopfloor's tables; rename it, or write another `prefix`"),
    1153: (Misconfigured, "a packet is larger than the server takes; raise max_allowed_packet there (16 MB is usual)"),
    3159: (Misconfigured, "the server takes connections with TLS only; write `tls: true`"),
    1274: (Misconfigured, "the server takes connections with TLS only; write `tls: true`"),
    2061: (Misconfigured, "the server wants another way to log in than this user's password; ALTER USER there"),
    2059: (Misconfigured, "the server wants another way to log in than this user's password; ALTER USER there"),
    2026: (Misconfigured, "the server does no TLS; turn it on there, or write `tls: false`"),
}  # fmt: skip
_TLS_WORDS: Final = ("SSL", "TLS")


def meaning(error: pymysql.MySQLError) -> Exception:
    """What the pipeline is to do about an error. Rejected names no places: who wrote finds them."""
    code, said = code_of(error), said_by(error)
    if code in (2003, 2006, 2013) and any(word in said for word in _TLS_WORDS):
        return Unavailable(f"{_LOST}: {said}")
    if code in _CODES:
        kind, text = _CODES[code]
        return kind(f"{text} ({code}: {said})")
    if code in _ROW:
        return Rejected(f"the database refuses it: {said} ({code})")
    if isinstance(error, pymysql.OperationalError | pymysql.InterfaceError | pymysql.InternalError) or not code:
        return Unavailable(f"the database cannot do it now: {code}: {said}")
    bug: Exception = error
    return bug


def about_a_row(error: pymysql.MySQLError) -> bool:
    """Whether another row might be taken."""
    return code_of(error) in _ROW


def code_of(error: BaseException) -> int:
    """The server's or the driver's number; 0: it has none."""
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def said_by(error: BaseException) -> str:
    """The error's own words, on one line."""
    said = error.args[1] if len(error.args) > 1 else " ".join(map(str, error.args)) or type(error).__name__
    return " ".join(str(said).split())


def tls_trouble(error: ssl.SSLError) -> Exception:
    """Why TLS does not come about, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = (
            "write the host in `dsn` as the certificate has it"
            if "mismatch" in error.verify_message or "not match" in error.verify_message
            else "renew it at the server, and see whether the clock here is right"
            if "expired" in error.verify_message or "not yet valid" in error.verify_message
            else "give the authority that signed it in `ca_file`"
        )
        return Misconfigured(f"the server's certificate is not accepted: {error.verify_message}; {remedy}")
    if "ALERT" in str(error).upper():
        return Misconfigured(
            f"the server refuses our certificate or TLS version ({error}); give `certificate_file` and `key_file`"
        )
    return Unavailable(f"TLS with the server does not come about: {error}")
