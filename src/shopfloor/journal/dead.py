"""Dead letters: samples that a reader refused, kept until a person has them offered again or throws them away."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from shopfloor.journal import body
from shopfloor.journal.base import LONGEST, SHOWN, DeadLetter
from shopfloor.samples import Batch, Sample
from shopfloor.turns import give_way

RETRIED: Final = "$retry/"
"""Before the name of a reader and of a source: the source of an entry that this reader alone gets."""

PIECE: Final = 2**22
"""Bytes of letters that are read at once: others wait for the same thread."""
_ROW: Final = "SELECT id, reader, offset, time, reason, source, body FROM dead_letter"

Names = Callable[[int], str]


def addressed(source: str) -> tuple[str, str] | None:
    """Reader and true source of an entry that is offered again; None for all other entries."""
    if not source.startswith(RETRIED):
        return None
    reader, _, origin = source.removeprefix(RETRIED).partition("/")
    return reader, origin


def letters(db: sqlite3.Connection, names: Names, limit: int, before: int) -> tuple[list[DeadLetter], int | None]:
    """The newest ones with an id below ``before``, newest first, as far as one piece goes, and before which to go on.

    One is decoded at a time: all together may have more samples than fit into memory. None: there are no more.
    """
    query = f"{_ROW} WHERE id < ? ORDER BY id DESC LIMIT ?"
    found: list[DeadLetter] = []
    size = 0
    with contextlib.closing(db.execute(query, (before, limit))) as rows:
        for row in rows:
            give_way()
            for (number, reader, offset, at, reason), batch in _decoded([row], names):
                first = [_cut(sample) for sample in islice(batch, SHOWN)]
                found.append(DeadLetter(number, reader, offset, at, reason, len(batch), first, batch.source))
            size += len(row[-1])
            if size >= PIECE:
                return found, row[0]
    return found, None


def again(db: sqlite3.Connection, names: Names, number: int, now: int) -> Batch | None:
    """A letter as the entry that offers it again, received ``now``; None: it is gone, or its reader does not read."""
    query = f"{_ROW} WHERE id = ? AND reader IN (SELECT name FROM reader)"  # noqa: S608  # fixed
    for row, batch in _decoded(db.execute(query, (number,)).fetchall(), names):
        # Received now: the newest entry tells when Shopfloor was at work last.
        batch.source, batch.received, batch.lost_before = f"{RETRIED}{row[1]}/{batch.source}", now, 0
        return batch
    return None


def drop(db: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete them; how many there were."""
    return sum(db.execute("DELETE FROM dead_letter WHERE id = ?", (number,)).rowcount for number in set(ids))


def shorten(db: sqlite3.Connection, share: int) -> int:
    """Take the oldest out until the others have at most ``share`` bytes; how many went."""
    if db.execute("SELECT coalesce(sum(length(body)), 0) FROM dead_letter").fetchone()[0] <= share:
        return 0
    sizes = "SELECT id, sum(length(body)) OVER (ORDER BY id DESC) AS size FROM dead_letter"
    gone = f"DELETE FROM dead_letter WHERE id IN (SELECT id FROM ({sizes}) WHERE size > ?)"  # noqa: S608  # fixed
    return db.execute(gone, (share,)).rowcount


def _cut(sample: Sample) -> Sample:
    value = sample.value
    if isinstance(value, str | bytes) and len(value) > LONGEST:
        value = f"{value[:LONGEST]}…" if isinstance(value, str) else value[:LONGEST]
        return msgspec.structs.replace(sample, value=value)
    return sample


def _decoded(rows: Iterable[Any], names: Names) -> Iterator[tuple[tuple[int, str, int, int, str], Batch]]:
    """Each row with its batch; a damaged one is left out."""
    for number, reader, offset, at, reason, source_id, stored in rows:
        with contextlib.suppress(body.Damaged, LookupError):
            yield (number, reader, offset, at, reason), body.decode(stored, offset, source_id, names(source_id), names)
