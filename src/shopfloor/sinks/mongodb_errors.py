"""What the errors of MongoDB mean to the pipeline, and to the person who can mend it."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from shopfloor.samples import Misconfigured, Rejected, Unavailable

DUPLICATE: Final = 11000
_NOT_PRIMARY: Final = 10107
_FULL: Final = "the disk of the database is full; free room there, the journal keeps what comes"
_NO_PRIMARY: Final = "the server takes no writes now (a secondary, or a primary that steps down); it is tried again"
_NOT_FOUND: Final = (
    "no server that takes writes was found: {}; does it run, is the address in `dsn` right, and does a firewall let "
    "through?"
)
_STOPPING: Final = "the server is shut down"
_NO_RIGHTS: Final = (
    "this user may not write there; grant the role readWrite on the database (db.grantRolesToUser), or write another "
    "user into `dsn`"
)
_LOGIN: Final = (
    "the server refuses user or password; put them right in `dsn` (`authSource` is the database that knows the user, "
    "often admin) or `password`"
)
_CONCERN: Final = "not enough members of the replica set have confirmed; as long as they do not, it is tried again"
_PASSES: Final = "the server, or another one that it asks, cannot do it now; it is tried again"
_NO_CONCERN: Final = "the replica set cannot confirm what `w` of `dsn` asks for; write one that its members can meet"

_CODES: Final[Mapping[int, tuple[type[Exception], str]]] = {
    13: (Misconfigured, _NO_RIGHTS),
    31: (Misconfigured, _NO_RIGHTS),
    18: (Misconfigured, _LOGIN),
    334: (Misconfigured, "the server knows no such way to log in; correct `authMechanism` in `dsn`"),
    79: (Misconfigured, _NO_CONCERN),
    100: (Misconfigured, _NO_CONCERN),
    64: (Unavailable, _CONCERN),
    50: (Unavailable, "the server is too slow; it is tried again"),
    26: (Unavailable, "a collection is gone that was there; all of them are examined again"),
    91: (Unavailable, _STOPPING),
    11600: (Unavailable, _STOPPING),
    11602: (Unavailable, _NO_PRIMARY),
    189: (Unavailable, _NO_PRIMARY),
    10058: (Unavailable, _NO_PRIMARY),
    _NOT_PRIMARY: (Unavailable, _NO_PRIMARY),
    13435: (Unavailable, _NO_PRIMARY),
    13436: (Unavailable, _NO_PRIMARY),
    14031: (Unavailable, _FULL),
    39: (Unavailable, _FULL),
    24: (Unavailable, "somebody has locked what is to be written; it is tried again"),
    46: (Unavailable, "somebody has locked what is to be written; it is tried again"),
    112: (Unavailable, "another write was in the way; it is tried again"),
    11601: (Unavailable, "somebody ended the operation"),
    8: (Unavailable, "the server says that something failed"),
    1: (Unavailable, "the server says that something failed"),
    371: (Unavailable, "the administrator has blocked all writes; it is tried again"),
    215: (Unavailable, "the database is being dropped; it is tried again"),
    264: (Unavailable, "the server has no more files to open; it is tried again"),
}
"""By MongoDB's code."""
_PASSING: Final = frozenset({
    6, 7, 89, 133, 134, 202, 262, 317, 384, 402, 407, 9001,  # another server of theirs is away, or slow
    63, 149, 150, 194, 200, 249, 250, 272, 319, 338, 342, 343, 406, 13388,  # shards and chunks move
    90, 107, 117, 208, 216, 237, 239, 246, 261, 279, 281, 282, 290, 355, 358, 363, 365, 412, 433, 449,  # busy, ended
})  # fmt: skip
"""Codes that the server, or mongos for a shard of its, says of a state that passes: the next time it may be taken.

Among them are the driver's own for trying again. A code that is not known holds up nobody: it is that document's.
"""
_ATLAS: Final = 8000
"""What Atlas says of everything of its own; the text tells what."""
_ATLAS_SAYS: Final[Sequence[tuple[str, tuple[type[Exception], str]]]] = (
    ("quota", (Unavailable, _FULL)),
    ("auth failed", (Misconfigured, _LOGIN)),
    ("authentication failed", (Misconfigured, _LOGIN)),
    ("bad auth", (Misconfigured, _LOGIN)),
    ("not allowed", (Misconfigured, _NO_RIGHTS)),
    ("not authorized", (Misconfigured, _NO_RIGHTS)),
)
_TLS: Final = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted ({}); write the file of its authority into "
    "`ca_file`, and the name that stands in the certificate into `dsn`",
    "CERTIFICATE_UNKNOWN": "the server does not trust our certificate ({}); have it signed by an authority it knows",
    "UNKNOWN_CA": "the server does not trust our certificate ({}); have it signed by an authority it knows",
    "CERTIFICATE_REQUIRED": "the server wants a certificate of ours ({}); write it into `certificate_file`",
    "WRONG_VERSION_NUMBER": "the server does no TLS ({}); turn it on there, or write `?tls=false` behind `dsn`",
    "RECORD_LAYER_FAILURE": "the server does no TLS ({}); turn it on there, or write `?tls=false` behind `dsn`",
}
"""What OpenSSL says, and what to do."""


@contextmanager
def meaning() -> Generator[None]:
    """Raises Unavailable, Misconfigured or Rejected in the place of what pymongo raises."""
    try:
        yield
    except (PyMongoError, BSONError) as error:
        raise meant(error) from error


def meant(error: Exception) -> Exception:
    """What an error of pymongo means; of several in one answer the one that holds all up."""
    said = _said(error)
    return next((make(error, said) for kind, make in _KINDS if isinstance(error, kind)), Unavailable(said))


def of_code(code: int | None, said: str) -> Exception:
    """What a code of the server means, outside of the writing of one document."""
    refuses = (Unavailable, "the database refuses")
    if code == _ATLAS:
        kind, text = next((means for words, means in _ATLAS_SAYS if words in said.lower()), refuses)
    elif code in _PASSING:
        kind, text = Unavailable, _PASSES
    else:
        kind, text = _CODES.get(code or 0, refuses)
    return kind(f"{text} ({said})")


def about_document(code: int) -> bool:
    """Whether a refusal in a bulk of writes is of that document, for good."""
    return code not in _CODES and code not in _PASSING and code != _ATLAS


def _of_bulk(details: Mapping[str, Any]) -> Exception:
    """What holds up all of a bulk of writes.

    A write concern that is not met is never a document's fault: the documents are there, but not confirmed.
    """
    errors = [
        *details.get("writeConcernErrors", []),
        *(one for one in details.get("writeErrors", []) if not about_document(one["code"])),
    ]
    known = [(one.get("code"), str(one.get("errmsg", ""))) for one in errors]
    return of_code(*known[0]) if known else Unavailable("the database refuses without a reason")


def _tls(said: str) -> Exception | None:
    return next((Misconfigured(text.format(said)) for word, text in _TLS.items() if word in said), None)


def _said(error: Exception) -> str:
    """Its text without what is only for pymongo's developers."""
    text = str(_details(error).get("errmsg", "")) or str(error)
    text = text.split(", Timeout:", maxsplit=1)[0].split(" (configured timeouts:", maxsplit=1)[0]
    return text.rstrip(".") or type(error).__name__


def _details(error: Exception) -> Mapping[str, Any]:
    """What the server answered, where it is an answer."""
    return cast("Mapping[str, Any]", getattr(error, "details", None) or {})


_KINDS: Final[Sequence[tuple[tuple[type[Exception], ...], Callable[[Exception, str], Exception]]]] = (
    ((BulkWriteError,), lambda error, _: _of_bulk(_details(error))),
    ((NotPrimaryError,), lambda error, said: of_code(_details(error).get("code", _NOT_PRIMARY), said)),
    ((OperationFailure,), lambda error, said: of_code(_details(error).get("code"), said)),
    ((ServerSelectionTimeoutError,), lambda _, said: _tls(said) or Unavailable(_NOT_FOUND.format(said))),
    ((NetworkTimeout,), lambda _, said: Unavailable(f"the server does not answer: {said}")),
    ((AutoReconnect,), lambda _, said: _tls(said) or Unavailable(f"the connection to the database was lost: {said}")),
    ((DocumentTooLarge, BSONError), lambda _, said: Rejected(said)),
    ((ConfigurationError,), lambda _, said: Misconfigured(f"{said}; correct `dsn`, or use MongoDB 4.4 or newer")),
)
"""pymongo's errors, those within others first."""
