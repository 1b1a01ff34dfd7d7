"""Takes every row whose checksum holds out of a damaged journal file into a new one.

SQLite refuses a file as soon as a page that it needs is damaged, although most rows are whole. So this
module reads the pages itself (https://sqlite.org/fileformat2.html): it overlays the committed frames of
the WAL (`pages.py`), walks all leaf pages of tables, follows overflow chains, and recognises a row by its shape and
its checksum. Nothing is deleted: the damaged file is kept beside the new one.
"""

import contextlib
import os
import sqlite3
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shopfloor.journal import body
from shopfloor.journal.base import Tally
from shopfloor.journal.counts import BaseRow, Counts, ReaderRow, SourceRow, TallyRow, row_checksum, write_row
from shopfloor.journal.file import PAGE, SCHEMA, connect
from shopfloor.journal.names import name_checksum
from shopfloor.journal.pages import Pages
from shopfloor.samples import Misconfigured

# ruff: noqa: PLR2004  # the numbers of SQLite's file format are explained by it, a name for each would not
_LEAF: Final = 0x0D
_MOST_COLUMNS: Final = 16
_MOST_BYTES: Final = 1_000_000_000
"""Of a row, as SQLite has it."""
_LEAP: Final = 1_000_000
_REASON: Final = "the journal file was damaged: nothing tells what became of them"

Column = int | float | str | bytes | None
Row = tuple[int, list[Column]]


def is_damage(error: BaseException) -> bool:
    """Whether an error says that the file itself is damaged, not that it is locked, full or out of reach.

    A closed connection is what a repair that failed leaves behind.

    Where damage reaches the schema, SQLite quotes it in its message, and Python cannot decode that.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    return isinstance(error, sqlite3.DatabaseError) and any(
        word in str(error)
        for word in (
            "malformed",
            "not a database",
            "disk image",
            "no such table",
            "unsupported file",
            "closed database",
        )
    )


def is_outside(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> bool:
    """Whether opening failed for a reason that is not in the file: rights, space, another process."""
    text = str(error)
    if "readonly" in text:
        return not os.access(path, os.W_OK)
    return any(word in text for word in ("locked", "unable to open", "disk I/O", "is full", "out of memory"))


def salvage(path: Path, now: int) -> str:
    """Replace the damaged journal at ``path`` by one with all that can be read; return what was done, in words."""
    if finish(path):
        return "the journal file was damaged: a salvage that had been cut off was finished"
    fresh = _fresh(path)
    for leftover in _files(fresh):
        leftover.unlink(missing_ok=True)
    try:
        with contextlib.closing(connect(fresh)) as db, Pages(path) as pages:
            entries, lost = _carry_over(pages, db, now)
    except MemoryError as error:
        raise Misconfigured(
            f"the journal {path} is damaged, and there is too little memory to salvage it: free some, or start once"
            " on a machine with more; nothing was changed"
        ) from error
    kept = _set_aside(path, now)
    fresh.rename(path)
    return (
        f"the journal file was damaged: {entries} entries were carried over, {lost} samples not yet delivered are lost;"
        f" the damaged file is kept as {kept.name}"
    )


def finish(path: Path) -> bool:
    """Put the new file in its place where a salvage was cut off after the damaged one was set aside."""
    if path.exists() or not _fresh(path).exists():
        return False
    _set_aside(path, time.time_ns())  # a WAL of the damaged file would spoil the new one
    _fresh(path).rename(path)
    return True


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvage")


def _set_aside(path: Path, now: int) -> Path:
    stamp = datetime.fromtimestamp(now / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    for old, new in zip(_files(path), _files(kept), strict=True):
        if old.exists():
            old.rename(new)
    return kept


def _carry_over(pages: Pages, db: sqlite3.Connection, now: int) -> tuple[int, int]:
    """Fill the new journal; how many entries it has and the most samples that a reader lost."""
    db.executescript(f"BEGIN;{SCHEMA}COMMIT;")
    db.execute("BEGIN")
    entries = 0
    for rowid, row in rows(pages):
        entries += _keep(db, rowid, row)
    # Offsets of entries at the end that are lost for good must not be used again: sinks remember them.
    # They began at the time, so the time is beyond all of them even when nothing could be read.
    newest = "max(offset, coalesce((SELECT max(offset) FROM entry), 0))"
    db.execute(f"UPDATE last SET offset = max(?, ? + {newest})", (now // 1000, _LEAP))  # noqa: S608  # fixed
    lost = _settle(db)
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return entries, lost


def _files(path: Path) -> tuple[Path, ...]:
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def rows(pages: Pages) -> Iterator[Row]:
    """Every row that stands whole in some leaf page of a table, as (rowid, columns)."""
    for number in pages:
        page = pages[number]
        head = 100 if number == 1 else 0
        if len(page) < head + 8 or page[head] != _LEAF:
            continue
        cells = int.from_bytes(page[head + 3 : head + 5], "big")
        for index in range(min(cells, len(page) // 4)):
            at = int.from_bytes(page[head + 8 + 2 * index : head + 10 + 2 * index], "big")
            try:
                yield _row(page, at, pages)
            except (IndexError, ValueError, struct.error):
                continue  # this cell is damaged; its neighbours may be whole


def _row(page: bytes, at: int, pages: Pages) -> Row:
    size, at = _varint(page, at)
    rowid, at = _varint(page, at)
    payload = _payload(page, at, size, pages)
    head_size, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < head_size and len(kinds) < _MOST_COLUMNS:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    columns: list[Column] = []
    at = head_size
    for kind in kinds:
        column, at = _column(payload, at, kind)
        columns.append(column)
    return rowid - 2**64 if rowid >= 2**63 else rowid, columns


def _payload(page: bytes, at: int, size: int, pages: Pages) -> bytes:
    """The bytes of a cell, its overflow chain included; the file format's own formula says what is local."""
    usable = PAGE
    most = usable - 35
    if size > _MOST_BYTES:
        raise ValueError("longer than any row")
    if size <= most:
        return _exactly(page, at, size)
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    local = local if local <= most else least
    parts = [_exactly(page, at, local)]
    following = int.from_bytes(_exactly(page, at + local, 4), "big")
    missing, seen = size - local, set[int]()
    while missing > 0:
        if following not in pages or following in seen:
            raise ValueError("a broken chain")
        seen.add(following)
        part = pages[following]
        following = int.from_bytes(_exactly(part, 0, 4), "big")
        parts.append(_exactly(part, 4, min(missing, usable - 4)))
        missing -= len(parts[-1])
    return b"".join(parts)


def _exactly(data: bytes, at: int, size: int) -> bytes:
    part = data[at : at + size]
    if len(part) != size:
        raise ValueError("cut off")
    return part


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def _column(data: bytes, at: int, kind: int) -> tuple[Column, int]:
    sizes = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
    if kind >= 12:
        size = (kind - 12) // 2
        part = _exactly(data, at, size)
        return (part.decode() if kind % 2 else part), at + size
    size = sizes[kind]
    part = _exactly(data, at, size)
    if kind == 0:
        return None, at
    if kind == 7:
        return float(struct.unpack(">d", part)[0]), at + size
    if kind in (8, 9):
        return kind - 8, at
    return int.from_bytes(part, "big", signed=True), at + size


def _keep(db: sqlite3.Connection, rowid: int, row: list[Column]) -> bool:
    """Store a row that is recognised by its shape; True for an entry. Later copies of a row win."""
    match row:
        case [None, int(source), int(received), int(samples), bytes(stored)] if body.holds(stored, rowid, source):
            db.execute(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", (rowid, source, received, samples, stored)
            )
            return True
        case [None, str(name), int(checksum)] if checksum == name_checksum(rowid, name):
            for table in ("name", "name_twin"):
                db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", (rowid, name, checksum))  # noqa: S608
        case [None, str(), int(), int(), bytes(), int(checksum)] if checksum == row_checksum(rowid, *row[1:-1]):
            write_row(db, ReaderRow(rowid, *row[1:-1]))  # type: ignore[arg-type]  # the pattern says so
        case [None, str(), bytes() | None, int(), int(), int(checksum)] if checksum == row_checksum(rowid, *row[1:-1]):
            write_row(db, SourceRow(rowid, *row[1:-1]))  # type: ignore[arg-type]  # the pattern says so
        case [None, str(), str(), int(), int(checksum)] if checksum == row_checksum(rowid, *row[1:-1]):
            write_row(db, BaseRow(rowid, *row[1:-1]))  # type: ignore[arg-type]  # the pattern says so
        case [None, str(), str(), str(), str(), int(), int(), int(), int(checksum)] if checksum == row_checksum(
            rowid, *row[1:-1]
        ):
            write_row(db, TallyRow(rowid, *row[1:-1]))  # type: ignore[arg-type]  # the pattern says so
        case [None, str(reader), int(offset), int(at), str(reason), int(source), bytes(stored)] if body.holds(
            stored, offset, source
        ):
            db.execute(
                "INSERT OR REPLACE INTO dead_letter VALUES (?, ?, ?, ?, ?, ?, ?)",
                (rowid, reader, offset, at, reason, source, stored),
            )
        case [int(offset)] if 0 <= offset < 2**62:
            db.execute("UPDATE last SET offset = max(offset, ?)", (offset,))
        case _:
            pass  # not a row of ours, or a damaged one
    return False


def _settle(db: sqlite3.Connection) -> int:
    """Count what could not be carried over as dropped, reader by reader; returns the most that a reader lost.

    The sources' counters say how much there was, the readers' tallies and the entries what is left of
    it. A source whose own row is lost had at least what its readers account for.
    """
    counts = Counts()
    counts.load(db)
    accounted = _accounted(db)
    for (_, source), samples in accounted.items():
        known = counts.sources.get(source)
        missing = samples - (known.received if known else 0)
        if missing > 0:
            counts.receive(db, source, None, missing, 0)
    worst: dict[str, int] = {}
    for reader, row in counts.readers.items():
        for source, received in [(s.name, s.received) for s in counts.sources.values()]:
            missing = received - accounted.get((reader, source), 0)
            if missing > 0:
                tally = Tally(row.counted + 1, source, "dropped", missing, 0, _REASON)
                counts.commit(db, reader, row.position, [tally], None)
                worst[reader] = worst.get(reader, 0) + missing
    return max(worst.values(), default=0)


def _accounted(db: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """Base, tallies and waiting samples of every reader and source."""
    found: dict[tuple[str, str], int] = {}
    queries = (
        "SELECT reader, source, samples FROM base",
        "SELECT reader, source, sum(samples) FROM tally GROUP BY reader, source",
        (
            "SELECT r.name, n.name, sum(e.samples) FROM reader r JOIN entry e ON e.offset > r.counted"
            " JOIN name n ON n.id = e.source GROUP BY r.name, n.name"
        ),
    )
    for query in queries:
        for reader, source, samples in db.execute(query):
            found[reader, source] = found.get((reader, source), 0) + samples
    return found
