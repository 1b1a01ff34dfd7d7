"""A historian for small machines: one SQLite file, next to no memory."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from shopfloor.historian.base import Historian
from shopfloor.plant import HistorianConfig


class SqliteConfig(HistorianConfig):
    """Keep history on this machine in one SQLite file: for a few hundred tags, in next to no memory."""

    type: Literal["sqlite"] = "sqlite"
    path: Path = Field(default=Path("data/history.sqlite"), description="Its file, relative to the plant file.")

    def build(self) -> Historian:
        """The historian itself; opens nothing yet."""
        from shopfloor.historian.sqlite_store import SqliteHistorian  # noqa: PLC0415  # only who runs it pays

        return SqliteHistorian(self.path, self.keep)
