"""Whether all databases at once slow the source: it is timed alone, and beside sinks that catch up a backlog.

A source gives a batch of ten samples each 10 ms, a sink in memory takes what is new. In turns nothing else happens;
all databases deliver a filled journal besides, again and again, by sinks in *another* process; or by sinks in the
same process, as `shopfloor run` has them. The servers are on the same machine, so the second tells what their share of
the processors and of the disk costs, and only what the third adds to it is ours. Timed is how long after its due time
a batch is durable and acknowledged (`source`), how long after its reception the live sink has it (`live`), and the
processor time that the event loop spends on others before something that is due has its turn (`work`): the last does
not depend on what else the machine does.
"""

import asyncio
import contextlib
import multiprocessing
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from pydantic import PrivateAttr

from shopfloor.bench import Result
from shopfloor.interpreter import prepared
from shopfloor.journal import SqliteJournal
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.presence import Presence
from shopfloor.pipeline.sinks import SinkRunner
from shopfloor.pipeline.sources import SourceRunner
from shopfloor.plant import SinkConfig, SourceConfig
from shopfloor.samples import Batch, TagInfo
from shopfloor.seams import Sink, Source
from shopfloor.sinks.files import FilesSinkConfig

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

EVERY: Final = 0.01
"""Seconds between two batches of the source."""
_BEAT: Final = 0.001
_EACH: Final = 10
_TAGS: Final = [f"press/{i}" for i in range(_EACH)]
_WITHIN: Final = 120.0
"""Seconds in which all databases have begun to deliver."""
_RUNS: Final = 30
"""How often a database delivers the backlog in a phase, at most."""
_RUNS_OF_FILES: Final = 400


Backlog = Callable[[], Iterable[Batch]]


class Catching(Protocol):
    """A database that catches up."""

    name: str

    def config(self, run: int) -> SinkConfig:
        """The sink of this run, under a name of its own."""
        ...


class Files:
    """Parquet files beside the databases."""

    name: str = "files"

    def __init__(self, folder: Path) -> None:
        """Each run has a folder of its own in this one."""
        self._folder = folder

    def config(self, run: int) -> SinkConfig:
        """The sink of this run."""
        return FilesSinkConfig.model_validate({"name": f"files-{run}", "folder": self._folder / f"files-{run}"})


class _Times:
    """What was timed in the phase that runs, in seconds."""

    def __init__(self) -> None:
        self.source = array("d")
        self.live = array("d")
        self.work = array("d")
        """Processor time that the event loop spent before it came to what was due, a millisecond after the last."""


class _Paced(Source):
    """Gives a batch at each beat, late ones at once."""

    def __init__(self, times: _Times) -> None:
        self._times = times

    async def batches(self) -> AsyncGenerator[Batch]:
        due = time.perf_counter()
        for number in count():
            due += EVERY
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            now = time.time_ns()
            yield Batch("?", now, _TAGS, [now] * _EACH, array("d", [float(number)] * _EACH))
            self._times.source.append(time.perf_counter() - due)


class _PacedConfig(SourceConfig):
    _times: _Times = PrivateAttr(default_factory=_Times)

    def timed(self, times: _Times) -> "_PacedConfig":
        self._times = times
        return self

    def build(self) -> Source:
        return _Paced(self._times)

    def declared(self) -> Sequence[TagInfo]:
        return [TagInfo(tag) for tag in _TAGS]


class _Watch(Sink):
    """Takes what is new at once."""

    def __init__(self, times: _Times) -> None:
        self._times = times

    async def write(self, offset: int, batch: Batch) -> None:
        del offset
        self._times.live.append((time.time_ns() - batch.received) / 1e9)


class _WatchConfig(SinkConfig):
    _times: _Times = PrivateAttr(default_factory=_Times)

    def timed(self, times: _Times) -> "_WatchConfig":
        self._times = times
        return self

    def build(self) -> Sink:
        return _Watch(self._times)


class _Plans:
    """The sinks of a phase, each database's one after the other, each delivering all."""

    def __init__(self, databases: Sequence[Catching], folder: Path, numbers: Iterator[int]) -> None:
        self.sinks = {one.name: [one.config(next(numbers)) for _ in range(_RUNS)] for one in databases}
        files = Files(folder)
        self.sinks[files.name] = [files.config(next(numbers)) for _ in range(_RUNS_OF_FILES)]


def together(databases: Sequence[Catching], backlog: Backlog, *, seconds: float, rounds: int) -> list[Result]:
    """The source alone, beside these databases fed elsewhere, and fed here, in turns of so many seconds.

    ``backlog`` gives what they deliver; it is called in the other process, too.
    """
    with tempfile.TemporaryDirectory(prefix="shopfloor-bench-") as folder, _loop() as runner:
        return runner.run(_turns(Path(folder), databases, backlog, seconds, rounds))


def _loop() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop)


async def _turns(
    folder: Path, databases: Sequence[Catching], backlog: Backlog, seconds: float, rounds: int
) -> list[Result]:
    numbers, delivered = count(1000), array("d")
    times: dict[str, list[_Times]] = {"alone": [], "beside_others": [], "beside_all": []}
    async with _filled(folder / "here.db", backlog) as (journal, size):
        with prepared():
            for _ in range(rounds):
                times["alone"].append(await _phase(journal, seconds))
                async with _elsewhere(folder, _Plans(databases, folder, numbers), backlog):
                    times["beside_others"].append(await _phase(journal, seconds))
                async with _catching_up(journal, _Plans(databases, folder, numbers), size) as samples:
                    before, began = samples(), time.perf_counter()
                    times["beside_all"].append(await _phase(journal, seconds))
                    delivered.append((samples() - before) / (time.perf_counter() - began))
    caught_up = Result("caught_up_meanwhile", round(float(np.median(delivered))), "samples/s", runs=rounds)
    return [*_figures(times, seconds), caught_up]


@contextlib.asynccontextmanager
async def _filled(path: Path, backlog: Backlog) -> AsyncGenerator[tuple[SqliteJournal, int]]:
    """A journal that keeps the backlog, and how many samples that is."""
    journal = await SqliteJournal.open(path)
    try:
        await journal.reader("keeps everything")
        size = 0
        for batch in backlog():
            await journal.append(batch)
            size += len(batch)
        yield journal, size
    finally:
        await journal.close()


@contextlib.asynccontextmanager
async def _elsewhere(folder: Path, plans: _Plans, backlog: Backlog) -> AsyncGenerator[None]:
    """The same sinks deliver the same backlog in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_other, args=(folder, plans, backlog, theirs), daemon=True)
    await asyncio.to_thread(process.start)
    theirs.close()
    try:
        said = await asyncio.to_thread(_heard, ours)
        if said != _READY:
            raise RuntimeError(f"the other process ended: {said}")
        yield
    finally:
        ours.close()
        await asyncio.to_thread(process.join)


_READY: Final = "ready"


def _heard(pipe: Connection) -> object:
    """What the other side says next; empty when it is gone."""
    try:
        return pipe.recv()
    except EOFError:
        return ""


def _other(folder: Path, plans: _Plans, backlog: Backlog, parent: Connection) -> None:
    async def work() -> None:
        async with _filled(folder / "there.db", backlog) as (journal, size), _catching_up(journal, plans, size):
            parent.send(_READY)
            await asyncio.to_thread(_heard, parent)

    with _loop() as runner:
        try:
            runner.run(work())
        except Exception as error:  # noqa: BLE001  # the parent raises it
            with contextlib.suppress(OSError):
                parent.send(str(error))


async def _phase(journal: SqliteJournal, seconds: float) -> _Times:
    """What a source and a live sink did in this time."""
    times = _Times()
    live, presence = Live(), Presence(journal, time.time_ns)

    async def nothing_to_recover() -> None:
        pass

    watching = SinkRunner(_WatchConfig(name="live", type="watch", tags=["press/*"]).timed(times), journal, time.time_ns)
    paced = _PacedConfig(name="paced", type="paced").timed(times)
    source = SourceRunner(paced, journal, presence, live, time.time_ns, nothing_to_recover)
    watching.start()
    beating = asyncio.create_task(_beat(times), name="beat")
    try:
        await _until(lambda: watching.status().state == "running" and not watching.lag()[0])
        times.live, times.work = array("d"), array("d")
        source.start()
        await asyncio.sleep(seconds)
        await source.stop(10)
    finally:
        beating.cancel()
        await watching.stop(10)
    return times


async def _beat(times: _Times) -> None:
    """Processor time, not the clock's: what others do on this machine is not in it."""
    while True:
        before = time.thread_time()
        await asyncio.sleep(_BEAT)
        times.work.append(time.thread_time() - before)


@contextlib.asynccontextmanager
async def _catching_up(journal: SqliteJournal, plans: _Plans, size: int) -> AsyncGenerator[Callable[[], int]]:
    """All of them deliver the journal from its begin, again and again; yields how much they have delivered."""
    running: dict[str, SinkRunner] = {}
    done = 0

    async def deliver(name: str, sinks: Sequence[SinkConfig]) -> None:
        nonlocal done
        for config in sinks:
            runner = running[name] = SinkRunner(config, journal, time.time_ns)
            runner.start()
            try:
                await _until(lambda runner=runner: runner.status().samples >= size, for_ever=True)  # type: ignore[misc]
            finally:
                await runner.stop(10)
            done += runner.status().samples
            del running[name]
        raise RuntimeError(f"{name} has delivered the backlog {len(sinks)} times before the time was over")

    tasks = [asyncio.create_task(deliver(name, sinks), name=name) for name, sinks in plans.sinks.items()]
    try:
        for name in plans.sinks:
            await _until(lambda name=name: _delivers(running.get(name)))  # type: ignore[misc]
        yield lambda: done + sum(runner.status().samples for runner in running.values())
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [result for result in results if isinstance(result, Exception)]
    if wrong:
        raise wrong[0]


def _delivers(runner: SinkRunner | None) -> bool:
    if runner is None:
        return False
    status = runner.status()
    if status.last_error:
        raise RuntimeError(f"{runner.name}: {status.last_error}")
    return status.state == "running"


async def _until(condition: Callable[[], bool], *, for_ever: bool = False) -> None:
    async with asyncio.timeout(None if for_ever else _WITHIN):
        while not condition():  # noqa: ASYNC110  # states change by themselves
            await asyncio.sleep(0.005)


def _figures(times: Mapping[str, Sequence[_Times]], seconds: float) -> Iterator[Result]:
    """Each phase's figures, in relation to the phase before it."""
    for what in ("source", "live", "work"):
        values = {
            phase: np.concatenate([np.asarray(getattr(one, what)) for one in turn]) for phase, turn in times.items()
        }
        if what == "source":
            rates = {phase: round(len(found) * _EACH / seconds / len(times[phase])) for phase, found in values.items()}
            yield from _related("source", "", rates, "samples/s", len(times["alone"]))
        for name, share in (("_p50", 50), ("_p99", 99), ("_max", 100)):
            delays = {phase: round(float(np.percentile(found, share)) * 1000, 2) for phase, found in values.items()}
            yield from _related(what, name, delays, "ms", len(times["alone"]))


def _related(what: str, figure: str, values: Mapping[str, float], unit: str, runs: int) -> Iterator[Result]:
    before = ""
    for phase, value in values.items():
        name = f"{what}_{phase}{figure}"
        ratio: float | None = round(value / values[before], 2) if before and values[before] else None
        yield Result(name, value, unit, ratio, f"{what}_{before}{figure}" if before else None, runs=runs)
        before = phase
