"""How fast sinks deliver a filled journal, beside their server's own bulk path with the same rows in the same run.

A plant of 1,000 tags (the historian's bench has the same): eight in ten analogue, the others counters and switches. The
sink is run as the pipeline runs it: it reads the journal, stores, moves its positions. The bulk path gets the finished
rows out of memory, in the same order and the same transactions, and a table of the same columns and index. Both take
turns.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final, Protocol

import structlog

from shopfloor.bench import Result
from shopfloor.bench.historian import Plant
from shopfloor.bench.sinks_influxdb import InfluxDbBench
from shopfloor.bench.sinks_kafka import KafkaBench
from shopfloor.bench.sinks_mongodb import MongoDbBench
from shopfloor.bench.sinks_mysql import MysqlBench
from shopfloor.bench.sinks_postgres import PostgresBench
from shopfloor.bench.sinks_together import together
from shopfloor.journal import SqliteJournal
from shopfloor.pipeline.sinks import SinkRunner
from shopfloor.plant import SinkConfig
from shopfloor.samples import Batch, Misconfigured

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

logger: Final = structlog.get_logger("shopfloor.bench")

FAST: Final = 570
"""Tags with a value each second."""
GROUP: Final = SinkRunner.at_once
"""Samples that the journal gives at once: a transaction of the sink's."""


class Destination(Protocol):
    """A server for the time of a bench; each run has tables of its own."""

    name: str
    bulk: str
    """What its own bulk path is called."""
    share: float
    """Of the rows that the fastest gets: a slow one needs no longer for less."""

    def config(self, run: int) -> SinkConfig:
        """The sink of this run, under a name of its own."""
        ...

    def prepare(self, run: int, groups: Sequence[Sequence[Batch]]) -> None:
        """Make the table and the rows for the bulk path."""
        ...

    def load(self) -> None:
        """Put these rows into the table by the bulk path, a group a transaction."""
        ...

    def counted(self, run: int) -> tuple[int, int]:
        """How many rows the sink's table and the bulk path's have."""
        ...


DESTINATIONS: Final[Sequence[type[AbstractContextManager[Destination]]]] = (
    PostgresBench,
    MysqlBench,
    InfluxDbBench,
    MongoDbBench,
)
"""Each is entered to start its server. Raises Misconfigured when that is not installed."""
ABSENT: Final = "sqlserver is not measured: no server of it is free to be installed for a bench"


def run(*, thorough: bool = False) -> list[Result]:
    """Rows a second of each sink, then the source beside all of them; some minutes, thorough a quarter of an hour."""
    seconds, rounds = (1760, 7) if thorough else (440, 5)
    found: list[Result] = []
    lacking: list[str] = [ABSENT]
    with ExitStack() as servers:
        running: list[Destination] = []
        for destination in DESTINATIONS:
            try:
                server = servers.enter_context(destination())
            except Misconfigured as error:
                lacking.append(str(error))
                continue
            found += measured(server, round(seconds * server.share / 10) * 10, rounds)
            running.append(server)
        try:
            with KafkaBench() as server:  # no database: it is not among those that catch up together
                found += measured(server, round(seconds * server.share / 10) * 10, rounds)
        except Misconfigured as error:
            lacking.append(str(error))
        if not found:
            raise Misconfigured("; ".join(lacking))
        for reason in lacking:
            logger.warning(reason)
        return found + together(running, partial(plant, seconds), seconds=30 if thorough else 10, rounds=3)


def plant(seconds: int) -> Iterator[Batch]:
    """What the plant gives in this many seconds."""
    return Plant(FAST).batches(seconds)


def measured(server: Destination, seconds: int, rounds: int, *, fast: int = FAST) -> list[Result]:
    """How fast it takes what the plant gives in this many seconds. Raises RuntimeError when a row is missing.

    ``fast``: how many of its tags have a value each second.
    """
    batches = list(Plant(fast).batches(seconds))
    sizes = [0]
    for batch in batches:
        sizes.append(sizes[-1] + len(batch))
    groups = [
        [batch for _, batch in group]
        for _, group in groupby(zip(sizes, batches, strict=False), key=lambda sized: sized[0] // GROUP)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="shopfloor-bench-") as folder,
        asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner,
    ):
        journal = runner.run(_filled(Path(folder), batches))
        ours: list[float] = []
        theirs: list[float] = []
        processor: list[float] = []
        try:
            for number in range(rounds):
                before = time.process_time()
                ours.append(runner.run(_delivered(journal, server.config(number), sizes[-1])))
                processor.append(time.process_time() - before)
                server.prepare(number, groups)
                began = time.perf_counter()
                server.load()
                theirs.append(time.perf_counter() - began)
                if server.counted(number) != (sizes[-1], sizes[-1]):
                    raise RuntimeError(f"{server.name}: {server.counted(number)} rows instead of {sizes[-1]}")
        finally:
            runner.run(journal.close())
    rates, efforts = ([round(sizes[-1] / took) for took in times] for times in (ours, processor))
    ratio = round(statistics.median(bulk / took for took, bulk in zip(ours, theirs, strict=True)), 2)
    median, effort = statistics.median(rates), statistics.median(efforts)
    return [
        Result(server.name, median, "rows/s", ratio, server.bulk, min(rates), max(rates), rounds),
        Result(f"{server.name}_per_cpu_second", effort, "rows/s", min=min(efforts), max=max(efforts), runs=rounds),
    ]


async def _filled(folder: Path, batches: Sequence[Batch]) -> SqliteJournal:
    journal = await SqliteJournal.open(folder / "journal.db")
    await journal.reader("keeps everything")
    for batch in batches:
        await journal.append(batch)
    return journal


async def _delivered(journal: SqliteJournal, config: SinkConfig, samples: int) -> float:
    """Seconds until a new sink has delivered everything, connecting and making its tables included."""
    runner = SinkRunner(config, journal, time.time_ns)
    began = time.perf_counter()
    runner.start()
    try:
        while (status := runner.status()).samples < samples:
            if status.last_error:
                raise RuntimeError(status.last_error)
            await asyncio.sleep(0.002)
        return time.perf_counter() - began
    finally:
        await runner.stop(10)
