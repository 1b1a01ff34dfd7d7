"""How large the journal may become: ``keep``, or less where its disk has no more room.

A disk that the journal filled to its last byte would refuse the commits of readers, too, which make room: so what
``when_full`` declares begins while there is some left.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

import structlog

from shopfloor.journal.file import sizes
from shopfloor.journal.salvage import is_damage

logger: Final = structlog.get_logger("shopfloor.journal")

RESERVE: Final = 64 * 2**20
"""Bytes of the disk that the journal leaves: for its WAL, for readers' commits. Of a small disk a quarter."""
SPARE: Final = 256 * 2**20
"""Free space that is kept for reuse. More than this, with hardly anything else in the file, goes back to the disk at
once: copying the rest is quick then, and keeping the file ready for it page by page would cost every commit 10 µs."""
COPIED: Final = 64 * 2**20
"""Bytes in use at most when free space is given back: they are copied in memory, and no commit is durable meanwhile."""
REST: Final = 6 * 3600.0
"""Seconds until it is tried again where it failed."""


class Room:
    """What is used and what may be. Used by the writing thread only, but for ``limit``."""

    def __init__(self, path: Path | None, keep: int) -> None:
        """``path`` None: in memory, where ``keep`` alone counts."""
        self._path = path
        self._keep = keep
        self.limit = keep
        """Bytes, as last seen."""
        self.reserve = RESERVE
        """Bytes of the disk that are left."""
        self._rest_until = 0.0

    def look(self, db: sqlite3.Connection) -> int:
        """Bytes in use, and ``limit`` anew. Raises DatabaseError when the file cannot be right."""
        used, free = sizes(db)
        if self._path is None:
            return used
        size = self._path.stat().st_size
        if used > self._keep and used > 2 * size + RESERVE:
            raise sqlite3.DatabaseError("malformed: the file claims more pages than it has")
        disk = self._disk(used + free - size)
        # What others fill up is not made good by dropping the little that a small journal has.
        self.limit = min(self._keep, max(used + free + disk - self.reserve, self.reserve))
        return used

    def give_back(self, db: sqlite3.Connection) -> bool:
        """After an outage, give the free space back to the disk; whether that was done, once the WAL is carried over.

        Nothing may depend on it: where it fails, that is said, and it rests for hours. Raises DatabaseError for damage.
        """
        used, free = sizes(db)
        if self._path is None or free <= SPARE or used > min(free // 8, COPIED) or time.monotonic() < self._rest_until:
            return False
        if self._disk(used + free - self._path.stat().st_size) <= 2 * used + self.reserve:
            return False
        try:
            # Else the copy goes to SQLite's folder for temporary files, on a disk that nobody looks at.
            db.execute("PRAGMA temp_store=MEMORY")
            db.execute("VACUUM")
        except (sqlite3.Error, MemoryError) as error:
            if is_damage(error):
                raise
            self._rest_until = time.monotonic() + REST
            logger.warning(
                "the journal's free space could not be given back to the disk: it is kept for reuse, and tried again in"
                " some hours; it takes some 200 MB of memory and of that disk",
                free=free,
                error=str(error),
            )
            return False
        return True

    @property
    def short(self) -> bool:
        """Whether it is the disk that limits it."""
        return self.limit < self._keep

    def _disk(self, growth: int) -> int:
        """Bytes that the disk has left once the WAL is in the file, which grows by so many."""
        if self._path is None:
            return self._keep
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:  # nobody knows: then `keep` alone counts
            return self._keep + self.reserve
        self.reserve = min(RESERVE, disk.f_blocks * disk.f_frsize // 4)
        return max(0, disk.f_bavail * disk.f_frsize - max(0, growth))
