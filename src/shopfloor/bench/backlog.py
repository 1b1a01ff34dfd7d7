"""A sink was away: how fast ten million waiting samples go out, and what live data notice of it.

The plant of ``bench sinks`` fills the journal while the sink is away. Then a source gives a batch of 100 samples each
10 ms, and a second sink, which only looks at the clock, gets them: first alone, then while the other one catches up.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

from pydantic import PrivateAttr

from shopfloor.bench import Result
from shopfloor.bench.historian import Plant
from shopfloor.bench.sinks_postgres import PostgresBench
from shopfloor.journal import SqliteJournal
from shopfloor.pipeline.sinks import SinkRunner
from shopfloor.plant import SinkConfig
from shopfloor.samples import Batch, Misconfigured
from shopfloor.seams import Sink
from shopfloor.sinks.files import FilesSinkConfig

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

WAITING: Final = 10_000_000
FAST: Final = 570
"""Tags with a value each second, as in ``bench sinks``."""
LIVE: Final = "live"
EVERY: Final = 0.01
"""Seconds between two live batches."""
BATCH: Final = 100
ALONE: Final = 5.0
"""Seconds of live data before the sink is back."""
UNDER_WAY: Final = 64
"""Batches that are filled in at once."""


class Watch(Sink):
    """Notes how old each live batch is when it arrives."""

    def __init__(self, ages: list[float]) -> None:
        """``ages`` gets milliseconds."""
        self._ages = ages

    async def write(self, offset: int, batch: Batch) -> None:  # noqa: ARG002  # the seam's
        """Look at the clock."""
        if batch.source == LIVE:
            self._ages.append((time.time_ns() - batch.received) / 1e6)


class WatchConfig(SinkConfig):
    """The watch as a sink."""

    type: Literal["watch"] = "watch"
    _ages: list[float] = PrivateAttr(default_factory=list[float])

    def build(self) -> Watch:
        """The watch."""
        return Watch(self._ages)

    def taken(self) -> Sequence[float]:
        """The ages since it was asked last, ms."""
        ages = list(self._ages)
        self._ages.clear()
        return ages


def run(*, thorough: bool = False) -> list[Result]:
    """Into Parquet files, about a minute; thorough also into PostgreSQL. Needs 2 GB in the temporary folder."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopfloor-bench-")))
        sinks: list[SinkConfig] = [
            FilesSinkConfig.model_validate({"name": "files", "folder": folder / "lake", "partition": "none"})
        ]
        if thorough:
            try:
                sinks.append(stack.enter_context(PostgresBench()).config(0).model_copy(update={"name": "postgres"}))
            except Misconfigured as error:
                print(f"postgres: not measured: {error}", file=sys.stderr)  # noqa: T201  # who waits should know
        results: list[Result] = []
        for config in sinks:
            with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
                results += runner.run(_measured(folder / f"{config.name}.db", config))
        return results


async def _measured(path: Path, config: SinkConfig) -> list[Result]:
    journal = await SqliteJournal.open(path)
    watch = WatchConfig(name="watch")
    back, watching = SinkRunner(config, journal, time.time_ns), SinkRunner(watch, journal, time.time_ns)
    try:
        await journal.reader(config.name)
        waiting = await _fill(journal)
        watching.start()
        await _delivered(watching, waiting)
        giving = asyncio.create_task(_give(journal))
        await asyncio.sleep(ALONE)
        alone = watch.taken()
        began = time.perf_counter()
        back.start()
        await _delivered(back, waiting)
        took = time.perf_counter() - began
        beside = watch.taken()
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)
    finally:
        await asyncio.gather(back.stop(60), watching.stop(60))
        await journal.close()
    return _results(config.name, waiting / took, alone, beside)


async def _fill(journal: SqliteJournal) -> int:
    """How many samples wait."""
    filled = 0
    under_way: list[asyncio.Future[int]] = []
    plant = Plant(FAST)
    while filled < WAITING:
        for batch in plant.batches(600):
            under_way.append(journal.append(batch))
            filled += len(batch)
            if len(under_way) == UNDER_WAY:
                await asyncio.gather(*under_way)
                under_way.clear()
    await asyncio.gather(*under_way)
    return filled


async def _delivered(runner: SinkRunner, samples: int) -> None:
    while runner.status().samples < samples:  # noqa: ASYNC110  # a number that another task moves
        await asyncio.sleep(0.01)


async def _give(journal: SqliteJournal) -> None:
    """Live data, until cancelled."""
    loop = asyncio.get_running_loop()
    began, number = loop.time(), 0
    tags = [f"press/{i}" for i in range(BATCH)]
    while True:
        now = time.time_ns()
        await journal.append(Batch(LIVE, now, tags, [now] * BATCH, [float(number)] * BATCH))
        number += 1
        await asyncio.sleep(max(0.0, began + number * EVERY - loop.time()))


def _results(name: str, rate: float, alone: Sequence[float], beside: Sequence[float]) -> list[Result]:
    found = [Result(f"{name}_flushed", round(rate), "samples/s")]
    for title, part in (("p50", 49), ("p99", 98)):
        before, during = (round(statistics.quantiles(ages, n=100)[part], 1) for ages in (alone, beside))
        ratio = round(during / before, 1)
        found.append(
            Result(f"{name}_live_{title}_ms", during, "ms", ratio, f"{before} ms without it", runs=len(beside))
        )
    found.append(Result(f"{name}_live_longest_ms", round(max(beside), 1), "ms", runs=len(beside)))
    return found
