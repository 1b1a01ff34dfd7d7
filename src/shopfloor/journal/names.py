"""The dictionary of names: tags and sources as small integers, stored twice with a checksum each."""

import sqlite3
import threading
from array import array
from collections.abc import Sequence
from typing import Final
from zlib import crc32

MOST_NAMES: Final = 10_000_000
"""An id from here on is damage, not a tag."""

IDS: Final = "SELECT id FROM name WHERE name = ?1 UNION SELECT id FROM name_twin WHERE name = ?1"
"""The ids of a name, by either table."""
NAMES: Final = "SELECT name FROM name WHERE id = ?1 UNION SELECT name FROM name_twin WHERE id = ?1"
"""The name of an id, by either table."""


def name_checksum(number: int, name: str) -> int:
    """CRC-32 over id and name."""
    return crc32(name.encode(), number)


class Names:
    """Ids for names and back. An id that was given stays as long as the process, whatever becomes of a transaction.

    The writing thread adds, loads and stores; any thread may look up.
    """

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._names: list[str | None] = []
        self._new: list[str] = []
        self._under_way: list[str] = []
        self._adding = threading.Lock()
        self._last: dict[str, tuple[Sequence[str], array[int]]] = {}

    def load(self, db: sqlite3.Connection) -> None:
        """Read it, once. A row whose checksum does not hold counts as absent; its twin may be whole."""
        for table in ("name", "name_twin"):
            for number, name, checksum in db.execute(f"SELECT id, name, checksum FROM {table}"):  # noqa: S608  # two names
                whole = isinstance(name, str) and isinstance(number, int) and 0 <= number < MOST_NAMES
                if whole and checksum == name_checksum(number, name):
                    self._names.extend([None] * (number + 1 - len(self._names)))
                    self._names[number] = name
                    self._ids[name] = number

    def ids(self, source: str, tags: Sequence[str]) -> "array[int]":
        """The ids of these tags, new ones for new tags.

        Most sources send the same tags again and again: comparing with the last ones is ten times
        faster than looking each up. Raises UnicodeEncodeError for a name that is no text.
        """
        known = self._last.get(source)
        if known is not None and (known[0] is tags or known[0] == tags):
            return known[1]
        try:
            ids = array("I", map(self._ids.__getitem__, tags))
        except KeyError:
            ids = array("I", [self.id(tag) for tag in tags])
        self._last[source] = (tags[:], ids)
        return ids

    def id(self, name: str) -> int:
        """The id of a name, a new one for a new name."""
        number = self._ids.get(name)
        return self._add(name) if number is None else number

    def _add(self, name: str) -> int:
        name.encode()  # a lone surrogate would fail in SQLite for the whole transaction: fail here, alone
        with self._adding:
            number = self._ids.get(name)
            if number is None:
                number = len(self._names)
                self._names.append(name)
                self._new.append(name)
                self._ids[name] = number  # last: whoever finds it here finds all of it
            return number

    def store(self, db: sqlite3.Connection) -> None:
        """Write the new names, in the transaction that first uses them; ``stored`` or ``not_stored`` must follow."""
        if not self._new:
            return
        with self._adding:
            fresh, self._new = self._new, []
        self._under_way += fresh
        rows = [(self._ids[name], name, name_checksum(self._ids[name], name)) for name in fresh]
        db.executemany("INSERT OR REPLACE INTO name VALUES (?, ?, ?)", rows)
        db.executemany("INSERT OR REPLACE INTO name_twin VALUES (?, ?, ?)", rows)

    def stored(self) -> None:
        """The transaction is on disk."""
        self._under_way.clear()

    def not_stored(self) -> None:
        """The transaction came to nothing: the next one must write them."""
        with self._adding:
            self._new += self._under_way
        self._under_way.clear()

    def store_all_again(self) -> None:
        """The file was made anew: the next transaction must write every name."""
        with self._adding:
            self._new = list(self._ids)
        self._under_way.clear()

    def name(self, number: int) -> str:
        """The name of an id. Raises LookupError when the dictionary has lost it, TypeError for no id."""
        name = self._names[number] if number >= 0 else None
        if name is None:
            raise LookupError(number)
        return name

    def name_or(self, number: int, unknown: str) -> str:
        """The name of an id, or ``unknown``."""
        try:
            return self.name(number)
        except LookupError:
            return unknown
