"""How many values of a polled PLC become durable, beside a bare client that reads the same ones.

A protocol's bench gives three things: a PLC of 1,000 floats, a source for it, and the bare client. PLC and client are
processes of their own. The PLC's values change at each read: all of them, or every twentieth.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from shopfloor.bench import Result
from shopfloor.journal import SqliteJournal
from shopfloor.plant import SourceConfig

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Kind = Literal["durable", "values", "bytes"]

TAGS: Final = 1000
FEW: Final = 20
"""Where not all values change, every so many-th does."""
_WARM_UP: Final = 0.5


class Figures(msgspec.Struct, frozen=True):
    """What a client process measured, both a second."""

    values: float
    per_cpu_second: float


class Values:
    """What the PLC holds: big-endian floats, 4 bytes each, another value at each read."""

    def __init__(self, every: int) -> None:
        """``every``-th value changes."""
        self._numbers = np.zeros(TAGS, dtype=">f4")
        self._every = every
        self._reads = 0

    def change(self) -> bytes:
        """Their bytes, for the next read of all."""
        self._reads = self._reads % 10**6 + 1
        self._numbers[:: self._every] = self._reads + np.arange(0, TAGS, self._every)
        return self._numbers.tobytes()


class Meter:
    """Counts from the end of the warm-up on."""

    def __init__(self, seconds: float) -> None:
        """``seconds`` are measured."""
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


class Polled(msgspec.Struct, frozen=True):
    """One protocol's bench."""

    module: str
    """The one that calls ``main``."""
    serve: Callable[[Values], Coroutine[Any, Any, None]]
    """A PLC that listens on a port and changes its values at each read, for ever; ``ready`` tells the port."""
    config: Callable[[int], SourceConfig]
    """A source of all its values at this port, as fast as it goes."""
    client: Callable[[int, Meter, bool], None]
    """The bare client at this port reads until the meter has enough, decoded or bytes only."""
    decoded: str
    """What the bare client is, in words."""
    raw: str = ""
    """What it is without decoding; empty: not measured."""

    def run(self, *, thorough: bool) -> list[Result]:
        """Values read a second, the changed ones durable, beside the bare client, and what they cost."""
        seconds, runs = (5.0, 7) if thorough else (1.5, 5)
        found: list[Result] = []
        for every, suffix in ((1, ""), (FEW, "_few_change")):
            measured: dict[Kind, list[Figures]] = {"durable": [], "values": []}
            if self.raw and every == 1:
                measured["bytes"] = []
            for _ in range(runs):
                for kind, figures in measured.items():
                    figures.append(self._measure(kind, seconds, every))
            wall = {kind: [f.values for f in figures] for kind, figures in measured.items()}
            cpu = {kind: [f.per_cpu_second for f in figures] for kind, figures in measured.items()}
            found.append(_result(f"values{suffix}", wall["durable"], wall["values"], self.decoded))
            if "bytes" in wall:
                found.append(_result("values_beside_bytes", wall["durable"], wall["bytes"], self.raw))
            name = f"values_per_client_cpu_second{suffix}"
            found.append(_result(name, cpu["durable"], cpu["values"], self.decoded))
        return found

    def _measure(self, kind: Kind, seconds: float, every: int) -> Figures:
        """One run of a server and a client process."""
        with self._server(every) as port:
            command = [sys.executable, "-m", self.module, kind, str(port), str(every), str(seconds)]
            said = subprocess.run(  # noqa: S603  # own module
                command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60 + 4 * seconds
            )  # a source that reads as fast as it goes warns of overruns
        return msgspec.json.decode(said.stdout, type=Figures)

    @contextmanager
    def _server(self, every: int) -> Generator[int]:
        process = subprocess.Popen(  # noqa: S603  # own module
            [sys.executable, "-m", self.module, "server", "0", str(every), "0"], stdout=subprocess.PIPE, text=True
        )
        try:
            yield int(process.stdout.readline() if process.stdout is not None else 0)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    async def _durable(self, port: int, every: int, seconds: float) -> Figures:
        """This product's source as fast as it goes, every change in the journal."""
        meter = Meter(seconds)
        with tempfile.TemporaryDirectory() as folder:
            journal = await SqliteJournal.open(Path(folder) / "journal.db")
            try:
                async with self.config(port).build() as source, aclosing(source.batches()) as batches:
                    async for batch in batches:
                        await journal.append(batch)
                        changed = sum(not tag.startswith("$") for tag in batch.tags)
                        if not meter.count(changed * every):
                            break
                return meter.figures()
            finally:
                await journal.close()

    def main(self) -> None:
        """A server process, or a client process that measures and prints figures as JSON."""
        parser = argparse.ArgumentParser()
        parser.add_argument("kind", choices=["durable", "values", "bytes", "server"])
        parser.add_argument("port", type=int)
        parser.add_argument("every", type=int)
        parser.add_argument("seconds", type=float)
        chosen = parser.parse_args()
        if chosen.kind in {"values", "bytes"}:
            meter = Meter(chosen.seconds)
            self.client(chosen.port, meter, chosen.kind == "values")
            figures = meter.figures()
        else:
            with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
                if chosen.kind == "server":
                    with suppress(KeyboardInterrupt):
                        runner.run(self.serve(Values(chosen.every)))
                    return
                figures = runner.run(self._durable(chosen.port, chosen.every, chosen.seconds))
        sys.stdout.buffer.write(msgspec.json.encode(figures))


def ready(port: int) -> None:
    """To be called by a PLC that listens."""
    print(port, flush=True)  # noqa: T201  # for who started it


def _result(name: str, ours: Iterable[float], theirs: Iterable[float], beside: str) -> Result:
    mine, bare = [round(v) for v in ours], list(theirs)
    ratio = statistics.median(m / b for m, b in zip(mine, bare, strict=True))
    return Result(
        name, statistics.median(mine), "1/s", ratio=round(ratio, 2), ratio_to=beside,
        min=min(mine), max=max(mine), runs=len(mine),
    )  # fmt: skip
