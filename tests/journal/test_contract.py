"""The SQLite journal keeps what every journal promises, on disk and in memory."""

from pathlib import Path
from typing import Literal

from shopfloor.journal import SqliteJournal
from shopfloor.testing.contracts import JournalContract


class TestOnDisk(JournalContract):
    async def open(
        self, folder: Path, *, keep: int = 10**9, when_full: Literal["refuse", "oldest"] = "refuse"
    ) -> SqliteJournal:
        return await SqliteJournal.open(folder / "journal.db", keep, when_full)


class TestInMemory(JournalContract):
    durable = False

    async def open(
        self, folder: Path, *, keep: int = 10**9, when_full: Literal["refuse", "oldest"] = "refuse"
    ) -> SqliteJournal:
        del folder
        return await SqliteJournal.open(None, keep, when_full)
