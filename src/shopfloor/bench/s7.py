"""How many values of an S7 become durable, beside python-snap7's own client that reads the same block.

The simulated PLC and the client are processes of their own; every value is another one at each read.
"""

import argparse
import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from snap7.client import Client
from snap7.util import get_real

from shopfloor.bench import Result
from shopfloor.journal import SqliteJournal
from shopfloor.protocols.s7_address import Area
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.sources.s7 import S7Config
from shopfloor.testing.programs import free_port

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Kind = Literal["durable", "values", "bytes"]

TAGS: Final = 1000
_WARM_UP: Final = 0.5
_CHANGE: Final = 0.001
"""Seconds from one change of all values to the next: shorter than a read of all takes."""


class Figures(msgspec.Struct, frozen=True):
    """What a client process measured, both a second."""

    values: float
    per_cpu_second: float


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Values a second to durable, beside the bare client, and what they cost."""
    seconds, runs = (5.0, 7) if thorough else (1.5, 5)
    found: dict[Kind, list[Figures]] = {"durable": [], "values": [], "bytes": []}
    for _ in range(runs):
        for kind, figures in found.items():
            figures.append(_measure(kind, seconds))
    wall = {kind: [f.values for f in figures] for kind, figures in found.items()}
    cpu = {kind: [f.per_cpu_second for f in figures] for kind, figures in found.items()}
    decoded = "python-snap7's client with its get_real, nothing stored"
    read = "python-snap7's client, bytes only"
    return [
        _result("values", wall["durable"], wall["values"], decoded),
        _result("values_beside_bytes", wall["durable"], wall["bytes"], read),
        _result("values_per_client_cpu_second", cpu["durable"], cpu["values"], decoded),
    ]


def _result(name: str, ours: Iterable[float], theirs: Iterable[float], beside: str) -> Result:
    mine, bare = [round(v) for v in ours], list(theirs)
    ratio = statistics.median(m / b for m, b in zip(mine, bare, strict=True))
    return Result(
        name, statistics.median(mine), "1/s", ratio=round(ratio, 2), ratio_to=beside,
        min=min(mine), max=max(mine), runs=len(mine),
    )  # fmt: skip


def _measure(kind: Kind, seconds: float) -> Figures:
    """One run of a server and a client process."""
    with _server() as port:
        command = [sys.executable, "-m", __name__, kind, str(port), str(seconds)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60 + 4 * seconds)  # noqa: S603  # own module
    return msgspec.json.decode(said.stdout, type=Figures)


@contextmanager
def _server() -> Generator[int]:
    process = subprocess.Popen(  # noqa: S603  # own module
        [sys.executable, "-m", __name__, "server", "0", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield int(process.stdout.readline() if process.stdout is not None else 0)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _serve() -> None:
    """A PLC with 1,000 REALs in DB1 that never stand still."""
    memory = Memory({(Area.DB, 1): 4 * TAGS})
    port = free_port()
    data = memory.area(Area.DB, 1)
    async with S7Server(memory, "127.0.0.1", port):
        print(port, flush=True)  # noqa: T201  # for who started it
        for n in itertools.count():
            if data is not None:
                data[:] = (np.arange(TAGS) + n % 10**6).astype(">f4").tobytes()
            await asyncio.sleep(_CHANGE)


class _Meter:
    """Counts from the end of the warm-up on."""

    def __init__(self, seconds: float) -> None:
        self._begin = time.perf_counter() + _WARM_UP
        self._end = self._begin + seconds
        self._values = 0
        self._began: tuple[float, float] | None = None

    def count(self, values: int) -> bool:
        """Whether to go on."""
        now = time.perf_counter()
        if self._began is None:
            if now >= self._begin:
                self._began = (now, time.process_time())
            return True
        self._values += values
        return now < self._end

    def figures(self) -> Figures:
        """What was counted."""
        began, cpu = self._began or (0.0, 0.0)
        return Figures(self._values / (time.perf_counter() - began), self._values / (time.process_time() - cpu))


async def _durable(port: int, seconds: float) -> Figures:
    """This product's source as fast as it goes, every batch in the journal before the next."""
    tags = [{"tag": f"bench/{n}", "address": f"DB1,REAL{4 * n}"} for n in range(TAGS)]
    config = S7Config.model_validate({"name": "bench", "host": "127.0.0.1", "port": port, "rate": "1 ms", "tags": tags})
    meter = _Meter(seconds)
    with tempfile.TemporaryDirectory() as folder:
        journal = await SqliteJournal.open(Path(folder) / "journal.db")
        try:
            async with config.build() as source, aclosing(source.batches()) as batches:
                async for batch in batches:
                    await journal.append(batch)
                    if not meter.count(len(batch)):
                        break
            return meter.figures()
        finally:
            await journal.close()


def _snap7(port: int, seconds: float, *, decoded: bool) -> Figures:
    """The library's own client reads the same block, and takes its values out of it where that is asked for."""
    meter = _Meter(seconds)
    client = Client()
    client.connect("127.0.0.1", 0, 1, port)
    values = TAGS
    while meter.count(values):
        data = client.db_read(1, 0, 4 * TAGS)
        values = len([get_real(data, at) for at in range(0, len(data), 4)]) if decoded else len(data) // 4
    figures = meter.figures()
    client.disconnect()
    return figures


def main() -> None:
    """A server process, or a client process that measures and prints figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["durable", "values", "bytes", "server"])
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args()
    if chosen.kind in {"values", "bytes"}:
        figures = _snap7(chosen.port, chosen.seconds, decoded=chosen.kind == "values")
    else:
        with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
            if chosen.kind == "server":
                with suppress(KeyboardInterrupt):
                    runner.run(_serve())
                return
            figures = runner.run(_durable(chosen.port, chosen.seconds))
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
