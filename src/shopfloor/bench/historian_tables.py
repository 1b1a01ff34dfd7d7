"""How fast a historian in a database of the plant's is, beside the embedded one with the same rows in the same run.

A day of the plant of the bench `historian`: the embedded historian and the database take each group of rows in turn,
and then the same questions in turn. The servers sync their disks, as those of a plant do.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from shopfloor.bench import Result
from shopfloor.bench.historian import BEGIN, DAY, SECOND, Plant
from shopfloor.bench.sinks_mysql import MysqlBench
from shopfloor.bench.sinks_postgres import PostgresBench
from shopfloor.historian.base import Historian
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.plant import HistorianConfig
from shopfloor.samples import Batch

GROUP: Final = 100_000
"""Rows that the pipeline gives at once."""
ASKED: Final = 15
_DROPPED: Final = 12
"""The oldest of so many parts of the time goes in the end: two hours of a day."""


class Server(Protocol):
    """A database for the time of a bench."""

    name: str

    def historian(self, keep: int) -> HistorianConfig:
        """A historian there, in tables of its own."""
        ...

    def settle(self) -> None:
        """What the server does by itself sooner or later, now: statistics of its tables."""
        ...


TYPES: Final[dict[str, Callable[[], AbstractContextManager[Server]]]] = {"mysql": MysqlBench, "postgres": PostgresBench}
"""By the historian's type; each is entered to start its server. Raises Misconfigured when that is not installed."""


def run(kind: str, *, thorough: bool = False) -> list[Result]:
    """Ingest, bytes a row, questions and dropping; 4 million rows, thorough 10 million. Raises Misconfigured."""
    with TYPES[kind]() as server:
        return measured(server, Plant(100 if thorough else 30), DAY)


def measured(server: Server, plant: Plant, seconds: int) -> list[Result]:
    """The figures with what the plant gives in this many seconds. Raises RuntimeError when a row is missing."""
    with tempfile.TemporaryDirectory(prefix="shopfloor-bench-") as folder:
        return asyncio.run(_measured(server, Path(folder), plant, seconds))


async def _measured(server: Server, folder: Path, plant: Plant, seconds: int) -> list[Result]:
    span = seconds * SECOND
    beside = DuckDbHistorian(DuckDbConfig(path=folder / "history.duckdb"))
    asked = server.historian(span - span // _DROPPED).build()
    if not isinstance(asked, Historian):
        raise TypeError(f"{type(asked).__name__} is no Historian")
    async with beside, asked:
        found = [await _ingest(server.name, asked, beside, plant.batches(seconds))]
        await beside.compact(BEGIN + span + 2 * DAY * SECOND)
        await asyncio.to_thread(server.settle)
        ours, theirs = await asked.size(), await beside.size()
        if ours.rows != theirs.rows:
            raise RuntimeError(f"{server.name}: {ours.rows} rows instead of {theirs.rows}")
        found.append(_beside(server.name, "bytes_per_row", "B", [ours.size / ours.rows], [theirs.size / theirs.rows]))
        found += await _questions(server.name, asked, beside, plant, BEGIN + span)
        took = await _timed(asked.maintain(BEGIN + span)) / 1000
        gone = ours.rows - (await asked.size()).rows
        found.append(Result(f"{server.name}_dropped", round(gone / took), f"rows/s, {gone:,} of {ours.rows:,}"))
    return found


async def _ingest(name: str, asked: Historian, beside: Historian, batches: Iterator[Batch]) -> Result:
    """Rows a second, held; both take each group in turn."""
    ours: list[float] = []
    theirs: list[float] = []
    group: list[tuple[int, Batch]] = []
    rows = 0
    for offset, batch in enumerate(batches, 1):
        group.append((offset, batch))
        rows += len(batch)
        if rows >= GROUP:
            for historian, rates in ((asked, ours), (beside, theirs)):
                rates.append(rows * 1000 / await _timed(historian.write_many(group)))
            group, rows = [], 0
    for historian in (asked, beside):
        await historian.write_many(group)
    return _beside(name, "ingest", "rows/s", ours, theirs)


async def _questions(name: str, asked: Historian, beside: Historian, plant: Plant, end: int) -> list[Result]:
    def hour(historian: Historian, tag: str) -> Awaitable[object]:
        return historian.history(tag, end - 3600 * SECOND, end)

    def day(historian: Historian, tag: str) -> Awaitable[object]:
        return historian.aggregate(tag, BEGIN, end, 60 * SECOND, "avg")

    def latest(historian: Historian, tag: str) -> Awaitable[object]:
        del tag
        return historian.latest()

    found: list[Result] = []
    for title, question in (("hour", hour), ("day_by_minute", day), ("latest", latest)):
        ours: list[float] = []
        theirs: list[float] = []
        for i in range(ASKED):
            tag = plant.names[i * 7 % plant.fast]
            for historian, times in ((asked, ours), (beside, theirs)):
                times.append(await _timed(question(historian, tag)))
        found.append(_beside(name, f"{title}_p50_ms", "ms", ours, theirs))
    return found


async def _timed(work: Awaitable[object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1000


def _beside(name: str, title: str, unit: str, ours: Sequence[float], theirs: Sequence[float]) -> Result:
    median, other = statistics.median(ours), statistics.median(theirs)
    return Result(
        f"{name}_{title}", median, unit, round(median / other, 2), f"duckdb ({other:,.3g} {unit})",
        min(ours), max(ours), len(ours),
    )  # fmt: skip
