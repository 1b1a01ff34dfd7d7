"""How much the journal's file holds, without reading all of it each time: sums over blocks of offsets, kept.

A block between that of the first entry and that of the last cannot change: entries come behind the last one and go
from the first one on, and one that is thinned keeps its number of samples. So each such block is read once, and what
is summed up is still what lies in the file. Of the two blocks at the ends nothing is kept.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

SIZE: Final = 2**14
"""Offsets of a block: about 3 ms of reading."""
AT_ONCE: Final = 16
"""Blocks that ``gather`` reads: others wait for the same thread."""


class Held(NamedTuple):
    """What some entries hold."""

    entries: int
    samples: int


Sums = Mapping[int, Held]
"""By the id of a source."""


class Blocks:
    """The sums of one file, by one connection. Each call runs inside one transaction of it."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._kept: dict[int, Sums] = {}

    def gather(self, db: sqlite3.Connection) -> bool:
        """Read some of the blocks that are not kept yet; whether all of them are now."""
        first, last = _ends(db)
        self._kept = {block: sums for block, sums in self._kept.items() if first < block < last}
        sources, block, read = _sources(db), first + 1, 0
        while block < last:
            if block not in self._kept:
                if read == AT_ONCE:
                    return False
                query = "SELECT min(offset) FROM entry WHERE offset >= ?"
                block = db.execute(query, (block * SIZE,)).fetchone()[0] // SIZE  # offsets may have leapt
                if block < last and block not in self._kept:
                    self._kept[block] = _summed(db, sources, block * SIZE, (block + 1) * SIZE)
                    read += 1
            block += 1
        return True

    def held(self, db: sqlite3.Connection) -> Held:
        """What all entries hold."""
        found = [held for _, sums in self._all(db, _sources(db)) for held in sums.values()]
        return Held(sum(held.entries for held in found), sum(held.samples for held in found))

    def behind(self, db: sqlite3.Connection, positions: Iterable[int]) -> dict[int, Counter[int]]:
        """Samples behind each of these offsets, by the id of their source."""
        sources = _sources(db)
        blocks = self._all(db, sources)
        found: dict[int, Counter[int]] = {}
        total = Counter[int]()
        for position in sorted(set(positions), reverse=True):
            while blocks and blocks[-1][0] * SIZE > position:
                _add(total, blocks.pop()[1])
            found[position] = total.copy()
            if blocks and blocks[-1][0] == position // SIZE:
                _add(found[position], _summed(db, sources, position + 1, (position // SIZE + 1) * SIZE))
        return found

    def _all(self, db: sqlite3.Connection, sources: Sequence[int]) -> list[tuple[int, Sums]]:
        """Every block in order, those at the ends too."""
        while not self.gather(db):
            pass
        ends = {block: _summed(db, sources, block * SIZE, (block + 1) * SIZE) for block in {*_ends(db)}}
        return sorted((self._kept | ends).items(), key=lambda found: found[0])


def _ends(db: sqlite3.Connection) -> tuple[int, int]:
    """The blocks of the first and of the last entry; both are 0 where there is none."""
    # Each by itself: both in one SELECT, and SQLite reads all.
    first, last = db.execute("SELECT (SELECT min(offset) FROM entry), (SELECT max(offset) FROM entry)").fetchone()
    return (first or 0) // SIZE, (last or 0) // SIZE


def _sources(db: sqlite3.Connection) -> Sequence[int]:
    """The ids of all sources that have entries: a leap each through the index."""
    found: list[int] = []
    query = "SELECT min(source) FROM entry WHERE source > ?"
    source = db.execute("SELECT min(source) FROM entry").fetchone()[0]
    while source is not None:
        found.append(source)
        source = db.execute(query, (source,)).fetchone()[0]
    return found


def _summed(db: sqlite3.Connection, sources: Sequence[int], begin: int, end: int) -> Sums:
    """The entries from ``begin`` on and before ``end``."""
    entries = "entry INDEXED BY entry_size WHERE source = ? AND offset >= ? AND offset < ?"
    query = f"SELECT count(*), sum(samples) FROM {entries}"  # noqa: S608  # fixed
    found = ((source, db.execute(query, (source, begin, end)).fetchone()) for source in sources)
    return {source: Held(*row) for source, row in found if row[0]}


def _add(total: Counter[int], sums: Sums) -> None:
    for source, held in sums.items():
        total[source] += held.samples
