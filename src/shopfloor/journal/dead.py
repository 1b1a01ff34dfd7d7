"""Dead letters: samples that a reader refused, kept until a person has them offered again or throws them away."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from shopfloor.journal import body
from shopfloor.journal.base import DeadLetter
from shopfloor.samples import Batch

RETRIED: Final = "$retry/"
"""Before the name of a reader and of a source: the source of an entry that this reader alone gets."""

Names = Callable[[int], str]


class Again(NamedTuple):
    """A dead letter as the entry that offers it again."""

    letter: int
    reader: str
    batch: Batch


def addressed(source: str) -> tuple[str, str] | None:
    """Reader and true source of an entry that is offered again; None for all other entries."""
    if not source.startswith(RETRIED):
        return None
    reader, _, origin = source.removeprefix(RETRIED).partition("/")
    return reader, origin


def letters(db: sqlite3.Connection, names: Names, limit: int) -> list[DeadLetter]:
    """The newest, newest first."""
    query = "SELECT id, reader, offset, time, reason, source, body FROM dead_letter ORDER BY id DESC LIMIT ?"
    return [
        DeadLetter(row[0], row[1], row[2], row[3], row[4], list(batch), batch.source)
        for row, batch in _decoded(db.execute(query, (limit,)), names)
    ]


def again(db: sqlite3.Connection, names: Names, ids: Sequence[int], now: int) -> list[Again]:
    """These letters, oldest first, as far as they are there and their readers still read; received ``now``."""
    query = (
        "SELECT id, reader, offset, time, reason, source, body FROM dead_letter "
        "WHERE id = ? AND reader IN (SELECT name FROM reader)"
    )
    found: list[Again] = []
    for number in sorted(set(ids)):
        for row, batch in _decoded(db.execute(query, (number,)), names):
            # Received now: the newest entry tells when Shopfloor was at work last.
            batch.source, batch.received, batch.lost_before = f"{RETRIED}{row[1]}/{batch.source}", now, 0
            found.append(Again(number, row[1], batch))
    return found


def drop(db: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete them; how many there were."""
    return sum(db.execute("DELETE FROM dead_letter WHERE id = ?", (number,)).rowcount for number in set(ids))


def _decoded(rows: sqlite3.Cursor, names: Names) -> Iterator[tuple[tuple[int, str, int, int, str], Batch]]:
    """Each row with its batch; a damaged one is left out."""
    for number, reader, offset, at, reason, source_id, stored in rows:
        with contextlib.suppress(body.Damaged, LookupError):
            yield (number, reader, offset, at, reason), body.decode(stored, offset, source_id, names(source_id), names)
