"""How many OPC UA value changes become durable, at what cost, and how soon.

The server (``opcua_server``) and the client are processes of their own, so that CPU time and memory
are the client's alone: connection, decoding, batches, and the real journal with every commit on disk.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import psutil
from asyncua.client.client import Client

from shopfloor.bench import Result
from shopfloor.journal import SqliteJournal
from shopfloor.sources.opcua import OpcUaConfig, OpcUaTag

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Kind = Literal["durable", "asyncua"]

PACE: Final = 0.05
"""Seconds between messages of 1,000 values when latency is measured: 20,000 changes a second."""
_MESSAGE: Final = 1000
_WARM_UP: Final = 0.5


class Figures(msgspec.Struct, frozen=True):
    """What a client process measured."""

    changes: float
    """A second."""
    per_cpu_second: float
    latencies: tuple[float, float]
    """p50 and p99 from the source's time to durable, ms."""
    rss: float
    """Resident memory, MB."""


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Sustained changes to durable at 1,000 and 10,000 tags, beside asyncua's own client, and latency."""
    seconds, runs = (5.0, 7) if thorough else (1.0, 5)
    results: list[Result] = []
    for tags in (1000, 10_000):
        ours: list[Figures] = []
        theirs: list[Figures] = []
        for _ in range(runs if tags == _MESSAGE else 3):
            ours.append(_measure("durable", tags, 0.0, seconds))
            if tags == _MESSAGE:
                theirs.append(_measure("asyncua", tags, 0.0, seconds))
        paced = [_measure("durable", tags, PACE, 2 * seconds) for _ in range(3)]
        results += _results("" if tags == _MESSAGE else f"_{tags}_tags", ours, theirs, paced)
    return results


def _results(
    suffix: str, ours: Sequence[Figures], theirs: Sequence[Figures], paced: Sequence[Figures]
) -> Iterator[Result]:
    yield _result(f"changes{suffix}", "1/s", (f.changes for f in ours))
    mine, bare = ([f.per_cpu_second for f in some] for some in (ours, theirs))
    cost = _result(f"changes_per_client_cpu_second{suffix}", "1/s", mine)
    if bare:
        ratio = statistics.median(m / b for m, b in zip(mine, bare, strict=True))
        cost = msgspec.structs.replace(cost, ratio=round(ratio, 2), ratio_to="asyncua's own client, nothing stored")
    yield cost
    yield _result(f"latency_p50_ms{suffix}", "ms", (f.latencies[0] for f in paced))
    yield _result(f"latency_p99_ms{suffix}", "ms", (f.latencies[1] for f in paced))
    yield _result(f"rss_mb{suffix}", "MB", (f.rss for f in ours))


def _result(name: str, unit: str, values: Iterable[float]) -> Result:
    found = [round(v, 2) for v in values]
    return Result(name, statistics.median(found), unit, min=min(found), max=max(found), runs=len(found))


def _measure(kind: Kind, tags: int, every: float, seconds: float) -> Figures:
    """One run of a server and a client process."""
    with _server(tags, every) as port:
        command = [sys.executable, "-m", __name__, kind, str(port), str(tags), str(seconds)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60 + 4 * seconds)  # noqa: S603  # own module
    return msgspec.json.decode(said.stdout, type=Figures)


@contextmanager
def _server(tags: int, every: float) -> Generator[int]:
    # At a pace the message brings every tag's change at once, as a server does at its publishing interval.
    command = [sys.executable, "-m", "shopfloor.bench.opcua_server", "--tags", str(tags), "--every", str(every)]
    process = subprocess.Popen([*command, "--values", str(_MESSAGE)], stdout=subprocess.PIPE, text=True)  # noqa: S603  # own module
    try:
        yield int(process.stdout.readline() if process.stdout is not None else 0)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class _Meter:
    """Counts from the end of the warm-up on."""

    def __init__(self, seconds: float) -> None:
        self._begin = time.perf_counter() + _WARM_UP
        self._end = self._begin + seconds
        self._changes = 0
        self._began: tuple[float, float] | None = None
        self._latencies: list[float] = []

    def count(self, changes: int, times: Sequence[int] = ()) -> bool:
        """Whether to go on."""
        now = time.perf_counter()
        if self._began is None:
            if now >= self._begin:
                self._began = (now, time.process_time())
            return True
        self._changes += changes
        if times:
            self._latencies.append((time.time_ns() - times[0]) / 10**6)
        return now < self._end

    def figures(self) -> Figures:
        """What was counted."""
        began, cpu = self._began or (0.0, 0.0)
        wall, used = time.perf_counter() - began, time.process_time() - cpu
        percentiles = (
            statistics.quantiles(self._latencies, n=100, method="inclusive") if len(self._latencies) > 1 else [0.0] * 99
        )
        rss = psutil.Process().memory_info().rss / 2**20
        return Figures(self._changes / wall, self._changes / used, (percentiles[49], percentiles[98]), rss)


async def _durable(port: int, tags: int, seconds: float) -> Figures:
    """This product's source, every batch in the journal before the next."""
    config = OpcUaConfig(
        name="bench",
        endpoint=f"opc.tcp://127.0.0.1:{port}",
        tags=[OpcUaTag(tag=f"bench/{i}", node=f"ns=2;s=Bench.{i}") for i in range(tags)],
    )
    meter = _Meter(seconds)
    with tempfile.TemporaryDirectory() as folder:
        journal = await SqliteJournal.open(Path(folder) / "journal.db")
        try:
            async with config.build() as source, aclosing(source.batches()) as batches:
                async for batch in batches:
                    await journal.append(batch)
                    if not meter.count(len(batch), batch.times):
                        break
            return meter.figures()
        finally:
            await journal.close()


async def _asyncua(port: int, tags: int, seconds: float) -> Figures:
    """The client of asyncua with its callback for each change, which does nothing."""
    meter = _Meter(seconds)
    done = asyncio.Event()

    class Handler:
        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:  # noqa: ARG002  # asyncua's signature
            if not meter.count(1):
                done.set()

    client = Client(f"opc.tcp://127.0.0.1:{port}", watchdog_intervall=60)
    async with client:
        subscription = await client.create_subscription(100, cast("Any", Handler()))
        await subscription.subscribe_data_change([client.get_node(f"ns=2;s=Bench.{i}") for i in range(tags)])
        await done.wait()
        return meter.figures()


def main() -> None:
    """A client process: measures and prints figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["durable", "asyncua"])
    parser.add_argument("port", type=int)
    parser.add_argument("tags", type=int)
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args()
    client = _durable if chosen.kind == "durable" else _asyncua
    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
        figures = runner.run(client(chosen.port, chosen.tags, chosen.seconds))
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
