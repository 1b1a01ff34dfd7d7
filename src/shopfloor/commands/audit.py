"""The audit record: an append-only chain of what was commanded, by whom, and what became of it.

One SQLite file, every record on disk before ``append``'s future is done. Rules 21 to 26 of
docs/specs/commands.md; the hash of a record covers the one before, so nobody changes the past unseen.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar

import msgspec

from shopfloor.commands.exact import JsonValue, to_json
from shopfloor.plant import Plant
from shopfloor.samples import Misconfigured, Unavailable, Value

_P = ParamSpec("_P")
_T = TypeVar("_T")

Event = Literal["issued", "refused", "done", "failed", "unknown", "press", "release", "control"]
"""``failed``: certainly not written. ``control``: a component was paused, resumed or restarted."""

Kind = Literal["command", "press"]
"""What is under way: a command without an outcome, or a press whose release is owed."""

START: Final = bytes(32)
"""The hash before the first record."""
CUT: Final = 1_000
"""Characters of a text that a record holds at most."""
APPLICATION: Final = 0x53466175  # "SFau"
VERSION: Final = 1
BUSY: Final = 5.0
"""Seconds to wait for another process that is reading or writing the file."""

_SCHEMA: Final = f"""
CREATE TABLE audit (number INTEGER PRIMARY KEY, record TEXT NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE INDEX audit_id ON audit (json_extract(record, '$.id'));
CREATE TABLE pending (id TEXT PRIMARY KEY, kind TEXT NOT NULL, record TEXT NOT NULL) STRICT;
CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'records are only added'); END;
CREATE TRIGGER audit_undeleted BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'records are only added'); END;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""


class Entry(msgspec.Struct, frozen=True):
    """What is to be recorded; number, time and hash come with the record."""

    event: Event
    who: str
    role: str
    tag: str = ""
    value: Value = None
    id: str = ""
    detail: str = ""


class Record(msgspec.Struct, frozen=True):
    """One link of the chain."""

    number: int
    """1, 2, 3, …"""
    time: int
    """ns UTC."""
    event: Event
    who: str
    role: str
    tag: str
    value: JsonValue
    """As docs/api.md writes values; cut when it is long."""
    id: str
    detail: str
    hash: str = ""
    """SHA-256 over the previous hash and this record, in hexadecimal."""


class Pending(msgspec.Struct, frozen=True):
    """Something that was under way when it was recorded and is not over."""

    kind: Kind
    record: Record


class Verification(msgspec.Struct, frozen=True):
    """What a walk along the chain found."""

    records: int
    """How many fit, from the first on."""
    broken: int | None
    """The number of the first record that does not fit; None when all do."""
    detail: str
    head: str
    """The hash of the last record that fits, in hexadecimal; note it elsewhere to notice a cut-off end."""

    @property
    def intact(self) -> bool:
        """Whether every record is as it was written."""
        return self.broken is None


def audit_path(plant: Plant) -> Path:
    """Where this plant's audit record is: beside its journal."""
    return plant.journal.path.with_name("audit.db")


class Audit:
    """The audit record of a running plant. Enter it to open the file, leave it to close it.

    All work on the file is done in order by one thread, so a call costs the event loop nothing.
    """

    def __init__(self, path: Path, now: Callable[[], int]) -> None:
        """``now`` gives ns UTC. Nothing is opened yet."""
        self.path = path
        self._now = now
        self._writer: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open or create the file. Raises Misconfigured when it cannot be used."""
        self._writer = ThreadPoolExecutor(1, "audit")
        try:
            self._db = await self._in_order(_open, self.path)
        except BaseException:
            self._writer.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._db is not None and self._writer is not None:
            await self._in_order(self._db.close)
            self._writer.shutdown(wait=False)
        self._db = self._writer = None

    def append(self, entry: Entry, *, closes: bool = False) -> asyncio.Future[Record]:
        """Record an entry; ``closes`` takes its id from what is pending, in the same transaction.

        The order of the calls is the order of the records. Await the result to know that it is on
        disk; it raises Unavailable when the disk refuses.
        """
        return self._in_order(self._append, entry, closes)

    def begin(self, entry: Entry, kind: Kind) -> asyncio.Future[tuple[Record | None, list[Record]]]:
        """Record the begin of something, unless its id was begun before.

        Gives the new record and no others, or None and the earlier records of that id, oldest first.
        """
        return self._in_order(self._begin, entry, kind)

    def pending(self) -> asyncio.Future[list[Pending]]:
        """What was begun and is not over, oldest first."""
        return self._in_order(self._pending)

    def records(self, limit: int = 100, before: int | None = None) -> asyncio.Future[list[Record]]:
        """The newest records first; those with a number below ``before`` where it is given."""
        return self._in_order(self._records, limit, before)

    def verify(self) -> asyncio.Future[Verification]:
        """Walk along the chain, see ``verify``; new records wait meanwhile for none of it."""
        return asyncio.get_running_loop().run_in_executor(None, verify, self.path)

    def _in_order(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        if self._writer is None:
            closed: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
            closed.set_exception(Unavailable("the audit record is closed"))
            return closed
        return asyncio.get_running_loop().run_in_executor(self._writer, lambda: work(*args, **kwargs))

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        if self._db is None:
            raise Unavailable("the audit record is closed")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise Unavailable(
                f"the audit record {self.path} cannot be written ({error}); free disk space or mend the disk"
            ) from error

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        if self._db is None:
            raise Unavailable("the audit record is closed")
        try:
            yield self._db
        except sqlite3.Error as error:
            raise Unavailable(f"the audit record {self.path} cannot be read ({error}); mend the disk") from error

    def _append(self, entry: Entry, closes: bool) -> Record:  # noqa: FBT001  # called through append() by keyword
        with self._transaction() as db:
            record = _link(db, entry, self._now())
            if closes:
                db.execute("DELETE FROM pending WHERE id = ?", (entry.id,))
        return record

    def _begin(self, entry: Entry, kind: Kind) -> tuple[Record | None, list[Record]]:
        with self._transaction() as db:
            rows = db.execute(
                "SELECT record, hash FROM audit WHERE json_extract(record, '$.id') = ? ORDER BY number", (entry.id,)
            ).fetchall()
            earlier = [record for record in map(_record, rows) if record.event != "refused"]
            if earlier:
                return None, earlier
            record = _link(db, entry, self._now())
            db.execute("INSERT INTO pending VALUES (?, ?, ?)", (entry.id, kind, _canonical(record)))
        return record, []

    def _pending(self) -> list[Pending]:
        with self._reading() as db:
            rows = db.execute("SELECT kind, record FROM pending ORDER BY rowid").fetchall()
        return [Pending(kind, msgspec.json.decode(text, type=Record)) for kind, text in rows]

    def _records(self, limit: int, before: int | None) -> list[Record]:
        with self._reading() as db:
            rows = db.execute(
                "SELECT record, hash FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?",
                (2**63 - 1 if before is None else before, limit),
            ).fetchall()
        return [_record(row) for row in rows]


def verify(path: Path) -> Verification:
    """Walk along the chain of an audit file, also while a plant is writing to it.

    Says the first record that is not as it was written. Raises Misconfigured when there is no such
    file or it is none of Shopfloor's.
    """
    if not path.is_file():
        raise Misconfigured(f"there is no audit record {path}; it is beside the journal of a plant that has run")
    count, head = 0, START
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY)) as db:
            _recognise(db, path)
            for number, text, stored in db.execute("SELECT number, record, hash FROM audit ORDER BY number"):
                wrong = _misfit(count + 1, head, number, text, stored)
                if wrong:
                    return Verification(count, count + 1, wrong, head.hex())
                count, head = number, stored
    except sqlite3.DatabaseError as error:
        return Verification(count, count + 1, f"the file is damaged there: {error}", head.hex())
    return Verification(count, None, "", head.hex())


def _misfit(expected: int, head: bytes, number: int, text: object, stored: object) -> str:
    """What is wrong with a row that should be record ``expected`` behind ``head``; "" when it fits."""
    if not (isinstance(text, str) and isinstance(stored, bytes)):
        return "it is of another kind than Shopfloor writes"
    if number != expected:
        return f"record {expected} is missing; the next one there is {number}"
    if hashlib.sha256(head + text.encode("utf-8", "surrogatepass")).digest() != stored:
        return "it or its hash was changed after it was written"
    try:
        inside: Any = json.loads(text)["number"]
    except (ValueError, TypeError, KeyError):
        inside = None
    return "" if inside == expected else "it carries another number inside"


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    except (sqlite3.Error, OSError) as error:
        raise Misconfigured(f"the audit record {path} cannot be opened ({error}); make its folder writable") from error
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        if empty:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        _recognise(db, path)
        # A torn file must be seen now, not at the first press of a button.
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        db.close()
        problem = str(error)
    except Misconfigured:
        db.close()
        raise
    if problem != "ok":
        db.close()
        raise Misconfigured(
            f"the audit record {path} is damaged ({problem}); move the file away to keep it as evidence, "
            "then start again: a new one begins"
        )
    return db


def _recognise(db: sqlite3.Connection, path: Path) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION:
        raise Misconfigured(
            f"{path} is not an audit record of Shopfloor; move it away or choose another journal folder"
        )
    if version != VERSION:
        raise Misconfigured(f"{path} was written by another version (form {version}, here {VERSION}); use that version")


def _link(db: sqlite3.Connection, entry: Entry, now: int) -> Record:
    """Write the next record inside the caller's transaction."""
    last: tuple[int, bytes] = db.execute("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetchone() or (
        0,
        START,
    )
    record = Record(
        last[0] + 1, now, entry.event, _cut(entry.who), entry.role, _cut(entry.tag), recorded(entry.value),
        _cut(entry.id), _cut(entry.detail),
    )  # fmt: skip
    text = _canonical(record)
    digest = hashlib.sha256(last[1] + text.encode()).digest()
    db.execute("INSERT INTO audit VALUES (?, ?, ?)", (record.number, text, digest))
    return msgspec.structs.replace(record, hash=digest.hex())


def _canonical(record: Record) -> str:
    fields = msgspec.structs.asdict(record)
    del fields["hash"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _record(row: Sequence[Any]) -> Record:
    return msgspec.structs.replace(msgspec.json.decode(row[0], type=Record), hash=row[1].hex())


def recorded(value: Value) -> JsonValue:
    """The form in which a record holds the value: cut where it is long, and then with the SHA-256 of all of it."""
    shown = to_json(value, CUT)
    if isinstance(shown, dict) and "length" in shown:
        whole = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        shown["sha256"] = hashlib.sha256(whole).hexdigest()
    return shown


def _cut(text: str) -> str:
    """Text of at most CUT characters, without what JSON cannot carry."""
    short = text if len(text) <= CUT else f"{text[: CUT - 1]}…"
    return short.encode("utf-8", "replace").decode()
