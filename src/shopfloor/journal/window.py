"""What was just written, in the form in which it came, bounded in bytes. Used by the event loop only."""

from collections import deque
from typing import Final

from shopfloor.journal.base import Entry

WINDOW_BYTES: Final = 32 * 2**20
OBJECTS: Final = 750
"""Bytes that the objects of an entry take in memory beside its columns; measured 634 to 797 with one sample."""


class Window:
    """The newest entries, with consecutive offsets."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Entry, int]] = deque()
        self._size = 0

    def add(self, entry: Entry, size: int) -> None:
        """Take the entry after the newest one, ``size`` bytes in the file; after a leap of the offsets begin anew."""
        size += OBJECTS
        if self._entries and entry.offset != self._entries[-1][0].offset + 1:
            self._entries.clear()
            self._size = 0
        self._entries.append((entry, size))
        self._size += size
        while self._size > WINDOW_BYTES and len(self._entries) > 1:
            self._size -= self._entries.popleft()[1]

    def after(self, position: int, most_samples: int) -> list[Entry] | None:
        """The entries behind ``position``; None when the first of them is not here any more."""
        if not self._entries:
            return None
        index = position + 1 - self._entries[0][0].offset
        if index < 0:
            return None
        found: list[Entry] = []
        while index < len(self._entries) and most_samples > 0:
            entry = self._entries[index][0]
            found.append(entry)
            most_samples -= max(entry.samples, 1)
            index += 1
        return found

    def received_after(self, position: int) -> int:
        """Time of reception of the entry behind ``position``, or of the oldest one here; 0 when there is none."""
        if not self._entries:
            return 0
        index = max(position + 1 - self._entries[0][0].offset, 0)
        return self._entries[index][0].received if index < len(self._entries) else 0
