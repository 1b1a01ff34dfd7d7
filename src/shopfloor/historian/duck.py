"""The embedded historian: no server, no administration; a DuckDB file and compressed segments beside it."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator

from shopfloor.historian.base import Historian
from shopfloor.plant import HistorianConfig, Size, format_duration, format_size

LEAST_KEEP: Final = 3600 * 10**9
"""ns; rows go in windows of an hour at least."""
LEAST_SIZE: Final = 500 * 10**6
"""Bytes; below it the newest rows, which are not compressed yet, would not fit."""
LEAST_MEMORY: Final = 128 * 2**20


class DuckDbConfig(HistorianConfig):
    """Keep history on this machine, in a DuckDB file and compressed segments beside it."""

    type: Literal["duckdb"] = "duckdb"
    path: Path = Field(
        default=Path("data/history.duckdb"),
        description="Its file, relative to the plant file; the folder `<path>.segments` beside it belongs to it.",
    )
    keep_size: Size | None = Field(
        default=None,
        description="The most that it may hold on disk, e.g. `300 GB` (at least `500 MB`); the oldest goes first.",
    )
    memory: Size = Field(default=512 * 2**20, description="The most memory that DuckDB may use, at least `128 MiB`.")
    threads: int = Field(default=2, ge=1, le=64, description="How many threads DuckDB may use for one query.")

    @field_validator("keep")
    @classmethod
    def _long_enough(cls, keep: int) -> int:
        if keep < LEAST_KEEP:
            raise ValueError(f"{format_duration(keep)} is too short; the least is {format_duration(LEAST_KEEP)}")
        return keep

    @field_validator("keep_size")
    @classmethod
    def _large_enough(cls, size: int | None) -> int | None:
        if size is not None and size < LEAST_SIZE:
            raise ValueError(f"{format_size(size)} is too little; the least is {format_size(LEAST_SIZE)}")
        return size

    @field_validator("memory")
    @classmethod
    def _memory_enough(cls, memory: int) -> int:
        if memory < LEAST_MEMORY:
            raise ValueError(f"{format_size(memory)} is too little; the least is {LEAST_MEMORY // 2**20} MiB")
        return memory

    def build(self) -> Historian:
        """The historian itself; opens nothing yet."""
        # DuckDB, Arrow and pcodec take 0.3 s to import: only who runs it pays, not `shopfloor --help`
        from shopfloor.historian.embedded import DuckDbHistorian  # noqa: PLC0415

        return DuckDbHistorian(self)
