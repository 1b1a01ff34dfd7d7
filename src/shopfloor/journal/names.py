"""The dictionary of names: tags and sources as small integers, stored twice with a checksum each."""

import sqlite3
from array import array
from collections.abc import Sequence
from typing import Final
from zlib import crc32

MOST_NAMES: Final = 10_000_000
"""An id from here on is damage, not a tag."""


def name_checksum(number: int, name: str) -> int:
    """CRC-32 over id and name."""
    return crc32(name.encode(), number)


class Names:
    """Ids for names and back. The writing thread adds, every thread looks up."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._names: list[str | None] = []
        self._new: list[str] = []
        self._last: dict[str, tuple[Sequence[str], array[int]]] = {}

    def load(self, db: sqlite3.Connection) -> None:
        """Read it anew. A row whose checksum does not hold counts as absent; its twin may be whole."""
        self._ids.clear()
        self._names.clear()
        self._new.clear()
        self._last.clear()
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
        if known is not None and known[0] == tags:
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
        if number is None:
            name.encode()  # a lone surrogate would fail in SQLite for the whole transaction: fail here, alone
            number = len(self._names)
            self._ids[name] = number
            self._names.append(name)
            self._new.append(name)
        return number

    def store(self, db: sqlite3.Connection) -> None:
        """Write the new names, in the transaction that first uses them."""
        if self._new:
            rows = [(self._ids[name], name, name_checksum(self._ids[name], name)) for name in self._new]
            db.executemany("INSERT INTO name VALUES (?, ?, ?)", rows)
            db.executemany("INSERT INTO name_twin VALUES (?, ?, ?)", rows)
            self._new.clear()

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
