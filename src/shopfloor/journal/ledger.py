"""The sums of the loss ledger and the check that they balance (docs/specs/ledger.md)."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from shopfloor.journal.base import LedgerRow
from shopfloor.journal.blocks import Blocks
from shopfloor.journal.names import NAMES
from shopfloor.samples import Misconfigured

OUTCOMES = ("delivered", "filtered", "deduplicated", "rejected", "dropped", "waiting")


class Balance(msgspec.Struct, frozen=True):
    """One source → reader pair: what was owed to the reader and what became of it."""

    source: str
    reader: str
    owed: int
    """received − base"""
    outcomes: dict[str, int]

    @property
    def missing(self) -> int:
        """Samples that nothing accounts for: 0, or there is a bug."""
        return self.owed - sum(self.outcomes.values())


def sums(db: sqlite3.Connection, blocks: Blocks) -> list[LedgerRow]:
    """Every sum of the ledger, from one snapshot of the journal; ``blocks`` has what was read before."""
    rows: list[LedgerRow] = []
    sources = db.execute("SELECT name, received, lost FROM source ORDER BY name").fetchall()
    for source, received, lost in sources:
        rows.append(LedgerRow(source, "", "received", received))
        if lost:
            rows.append(LedgerRow(source, "", "lost before us", lost))
    bases = {(reader, source): n for reader, source, n in db.execute("SELECT reader, source, samples FROM base")}
    readers: list[tuple[str, int]] = db.execute("SELECT name, counted FROM reader ORDER BY name").fetchall()
    waiting = {position: _by_name(db, ids) for position, ids in blocks.behind(db, (at for _, at in readers)).items()}
    for reader, counted in readers:
        for source, _, _ in sources:
            rows.append(LedgerRow(source, reader, "base", bases.get((reader, source), 0)))
            rows.append(LedgerRow(source, reader, "waiting", waiting[counted][source]))
    tallies = "SELECT source, reader, outcome, samples, reason, first, last FROM tally ORDER BY reader, source, id"
    rows.extend(LedgerRow(*row) for row in db.execute(tallies))
    return rows


def _by_name(db: sqlite3.Connection, samples: Mapping[int, int]) -> Counter[str]:
    """The samples of each source; its id has its name in two tables, of which one may be damaged."""
    found = Counter[str]()
    for number, count in samples.items():
        for (name,) in db.execute(NAMES, (number,)):
            found[name] += count
    return found


def balances(rows: Iterable[LedgerRow]) -> list[Balance]:
    """The source → reader pairs of these sums."""
    received: dict[str, int] = {}
    pairs: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for row in rows:
        if row.outcome == "received":
            received[row.source] = row.samples
        elif row.reader:
            pair = pairs[row.source, row.reader]
            pair[row.outcome] = pair.get(row.outcome, 0) + row.samples
    return [
        Balance(
            source,
            reader,
            received.get(source, 0) - pair.get("base", 0),
            {outcome: pair[outcome] for outcome in OUTCOMES if pair.get(outcome)},
        )
        for (source, reader), pair in sorted(pairs.items())
    ]


def read_file(path: Path) -> list[LedgerRow]:
    """The sums of a journal file, also while a Shopfloor is writing it. Raises Misconfigured."""
    if not path.exists():
        raise Misconfigured(f"there is no journal {path} yet; start the plant first")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            connection.execute("BEGIN")
            return sums(connection, Blocks())
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Misconfigured(f"the journal {path} cannot be read: {error}") from error
