"""Many PLCs at once: what so many connections cost one Shopfloor, and whether every read is made in time.

The simulated PLCs are one process, Shopfloor with journal and historian another. Each PLC has 50 REALs, all of which
are others at each read, read once a second.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import psutil

from shopfloor.bench import Result
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.plant import JournalConfig, Plant, Site
from shopfloor.protocols.s7_address import Area
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.sources.s7 import S7Config
from shopfloor.testing.programs import free_port

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

TAGS: Final = 50
_SECONDS: Final = 60.0
_COUNTS: Final = (100,)
_THOROUGH: Final = (100, 250, 500)
_CONNECTED_WITHIN: Final = 120.0
_LOOKS_EVERY: Final = 0.05


class Figures(msgspec.Struct, frozen=True):
    """What the process with Shopfloor in it measured."""

    connected_after: float
    """Seconds from the start until every source was connected."""
    cpu: float
    """Seconds of processor time a second, of all threads."""
    rss: int
    """Bytes."""
    samples: float
    """Durable, a second."""
    overruns: int
    """Reads left out since the start, of all sources."""
    balanced: bool


class _Plc(S7Server):
    """Its DB1 holds other REALs each time it is read."""

    reads = 0

    def _span(self, size: int, count: int, db: int, area: int, address: int) -> tuple[int, bytearray, int]:
        code, data, begin = super()._span(size, count, db, area, address)
        self.reads += 1
        data[:] = np.full(TAGS, self.reads, dtype=">f4").tobytes()
        return code, data, begin


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """What each number of connections costs; raises RuntimeError when the ledger does not balance."""
    return [result for count in (_THOROUGH if thorough else _COUNTS) for result in _results(count)]


def _results(count: int) -> list[Result]:
    with _plcs(count) as ports:
        said = subprocess.run(  # noqa: S603  # own module
            [sys.executable, "-m", __name__, "shopfloor", str(_SECONDS)],
            input=msgspec.json.encode(ports), check=True, stdout=subprocess.PIPE, timeout=_SECONDS + 240,
        )  # fmt: skip
    found = msgspec.json.decode(said.stdout, type=Figures)
    if not found.balanced:
        raise RuntimeError("the ledger does not balance")
    return [
        Result(f"{count}_overruns", found.overruns, f"reads left out, of {count} a second"),
        Result(f"{count}_samples", round(found.samples), "1/s"),
        Result(f"{count}_cpu", round(100 * found.cpu, 1), "% of one core"),
        Result(f"{count}_rss_mb", round(found.rss / 1e6), "MB"),
        Result(f"{count}_connected_after", round(found.connected_after, 2), "s"),
    ]


@contextmanager
def _plcs(count: int) -> Generator[Sequence[int]]:
    """So many PLCs in a process; their ports."""
    process = subprocess.Popen(  # noqa: S603  # own module
        [sys.executable, "-m", __name__, "plcs", str(count)], stdout=subprocess.PIPE
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else b""
        yield msgspec.json.decode(line, type=list[int])
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _serve(count: int) -> None:
    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for _ in range(count):
            port = free_port()
            await stack.enter_async_context(_Plc(Memory({(Area.DB, 1): 4 * TAGS}), "127.0.0.1", port))
            ports.append(port)
        print(msgspec.json.encode(ports).decode(), flush=True)  # noqa: T201  # for who started it
        await asyncio.Event().wait()


async def _run(ports: Sequence[int], seconds: float) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        plant = Plant(
            plant=Site(site="bench", timezone="UTC"),
            sources=[_source(number, port) for number, port in enumerate(ports)],
            historian=DuckDbConfig(path=Path(folder) / "history.duckdb"),
            journal=JournalConfig(path=Path(folder) / "journal.db"),
            console=None,
        )
        async with Pipeline(plant) as pipeline:
            began = time.perf_counter()
            async with asyncio.timeout(_CONNECTED_WITHIN):
                # States change by themselves; looking again is simpler than an event.
                while any(one.state != "running" for one in pipeline.components()):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOKS_EVERY)
            connected = time.perf_counter() - began
            used, samples, begin = time.process_time(), await _received(pipeline), time.perf_counter()
            await asyncio.sleep(seconds)
            wall = time.perf_counter() - begin
            cpu = (time.process_time() - used) / wall
            rate = (await _received(pipeline) - samples) / wall
            told = [pipeline.live.get(f"$source/{source.name}/overruns") for source in plant.sources]
            overruns = sum(int(one.value or 0) for one in told if one is not None)
            rss = psutil.Process().memory_info().rss
            balanced = not any(pair.missing for pair in balances(await pipeline.ledger()))
    return Figures(connected, cpu, rss, rate, overruns, balanced)


def _source(number: int, port: int) -> S7Config:
    tags = [{"tag": f"plc-{number}/v{n}", "address": f"DB1,REAL{4 * n}"} for n in range(TAGS)]
    return S7Config.model_validate({
        "name": f"plc-{number}", "host": "127.0.0.1", "port": port, "rate": "1 s", "tags": tags
    })  # fmt: skip


async def _received(pipeline: Pipeline) -> int:
    return sum(r.samples for r in await pipeline.ledger() if r.outcome == "received" and r.source.startswith("plc-"))


def main() -> None:
    """The process of the PLCs, or that of Shopfloor, which gets the ports as JSON and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["plcs", "shopfloor"])
    parser.add_argument("number", type=float)
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
        if chosen.kind == "plcs":
            with suppress(KeyboardInterrupt):
                runner.run(_serve(int(chosen.number)))
            return
        ports = msgspec.json.decode(sys.stdin.buffer.read(), type=list[int])
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(_run(ports, chosen.number))))


if __name__ == "__main__":
    main()
