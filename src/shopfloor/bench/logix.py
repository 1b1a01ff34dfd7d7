# cm-ethernetip and pycomm3 carry no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
"""How many values of a Logix controller become durable, beside pycomm3's own driver that reads the same tags.

The simulated controller and the client are processes of their own; every value is another one at each read.
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
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.protocol.eip_adapter import EipAdapter
from pycomm3 import LogixDriver

from shopfloor.bench import Result
from shopfloor.journal import SqliteJournal
from shopfloor.simulators.logix_controller import Controller, Program
from shopfloor.sources.logix import LogixConfig
from shopfloor.testing.programs import free_port

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Kind = Literal["durable", "tags", "durable-array", "array"]

TAGS: Final = 1000
_WARM_UP: Final = 0.5
_CHANGE: Final = 0.005
"""Seconds from one change of all values to the next: shorter than a read of all takes."""
_ARRAY: Final = f"Values{{{TAGS}}}"


class Figures(msgspec.Struct, frozen=True):
    """What a client process measured, both a second."""

    values: float
    per_cpu_second: float


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Values a second to durable, beside the bare driver, and what they cost."""
    seconds, runs = (6.0, 7) if thorough else (1.5, 3)
    found: dict[Kind, list[Figures]] = {"durable": [], "tags": [], "durable-array": [], "array": []}
    for _ in range(runs):
        for kind, figures in found.items():
            figures.append(_measure(kind, seconds))
    wall = {kind: [f.values for f in figures] for kind, figures in found.items()}
    cpu = {kind: [f.per_cpu_second for f in figures] for kind, figures in found.items()}
    bare = "pycomm3's driver reading the same, nothing stored"
    return [
        _result("values", wall["durable"], wall["tags"], bare),
        _result("values_per_client_cpu_second", cpu["durable"], cpu["tags"], bare),
        _result("array_elements", wall["durable-array"], wall["array"], bare),
        _result("array_elements_per_client_cpu_second", cpu["durable-array"], cpu["array"], bare),
    ]


def _result(name: str, ours: Iterable[float], theirs: Iterable[float], beside: str) -> Result:
    mine, bare = [round(v) for v in ours], list(theirs)
    ratio = statistics.median(m / b for m, b in zip(mine, bare, strict=True))
    return Result(
        name, statistics.median(mine), "1/s", ratio=round(ratio, 2), ratio_to=beside,
        min=min(mine), max=max(mine), runs=len(mine),
    )  # fmt: skip


def _measure(kind: Kind, seconds: float) -> Figures:
    """One run of a controller and a client process."""
    with _controller() as port:
        command = [sys.executable, "-m", __name__, kind, str(port), str(seconds)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60 + 4 * seconds)  # noqa: S603  # own module
    return msgspec.json.decode(said.stdout, type=Figures)


@contextmanager
def _controller() -> Generator[int]:
    process = subprocess.Popen(  # noqa: S603  # own module
        [sys.executable, "-m", __name__, "controller", "0", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield int(process.stdout.readline() if process.stdout is not None else 0)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def _serve() -> None:
    """A controller with 1,000 REALs, each a tag and all in an array, that never stand still."""
    program = Program()
    for n in range(TAGS):
        program.add(f"Value{n}", "REAL")
    program.add("Values", "REAL", TAGS)
    identity = IdentityInfo(
        product_code=55, device_type=14, major_revision=32, minor_revision=11, product_name="1756-L83E/B"
    )
    adapter: Any = EipAdapter(Controller(identity, program), identity)
    port = free_port()
    await adapter.listen("127.0.0.1", port)
    print(port, flush=True)  # noqa: T201  # for who started it
    tags = [program.tags[f"value{n}"].data for n in range(TAGS)]
    for round_ in itertools.count():
        data = (np.arange(TAGS) + round_ % 10**6).astype("<f4").tobytes()
        program.tags["values"].data[:] = data
        for n, tag in enumerate(tags):
            tag[:] = data[4 * n : 4 * n + 4]
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


async def _durable(port: int, seconds: float, addresses: list[str]) -> Figures:
    """This product's source as fast as it goes, every batch in the journal before the next."""
    tags = [{"tag": f"bench/{n}", "address": address} for n, address in enumerate(addresses)]
    config = LogixConfig.model_validate(
        {"name": "bench", "host": "127.0.0.1", "port": port, "rate": "1 ms", "tags": tags}
    )
    meter = _Meter(seconds)
    each = TAGS // len(addresses)
    with tempfile.TemporaryDirectory() as folder:
        journal = await SqliteJournal.open(Path(folder) / "journal.db")
        try:
            async with config.build() as source, aclosing(source.batches()) as batches:
                async for batch in batches:
                    await journal.append(batch)
                    if not meter.count(each * sum(1 for tag in batch.tags if not tag.startswith("$"))):
                        break
            return meter.figures()
        finally:
            await journal.close()


def _bare(port: int, seconds: float, addresses: list[str]) -> Figures:
    """The library's own driver reads the same."""
    meter = _Meter(seconds)
    driver = cast("Any", LogixDriver(f"127.0.0.1:{port}/0"))
    driver.open()
    # Asked for by name, as the source does: by number in the tag list it would be faster, and wrong after a download.
    driver._cfg["use_instance_ids"] = False  # noqa: SLF001  # pycomm3 offers no other way
    values = TAGS
    while meter.count(values):
        found = driver.read(*addresses)
        values = len(found) if len(addresses) > 1 else len(found.value)
    figures = meter.figures()
    driver.close()
    return figures


def main() -> None:
    """A controller process, or a client process that measures and prints figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["durable", "tags", "durable-array", "array", "controller"])
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args()
    addresses = [_ARRAY] if chosen.kind.endswith("array") else [f"Value{n}" for n in range(TAGS)]
    if chosen.kind in {"tags", "array"}:
        figures = _bare(chosen.port, chosen.seconds, addresses)
    else:
        with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
            if chosen.kind == "controller":
                with suppress(KeyboardInterrupt):
                    runner.run(_serve())
                return
            figures = runner.run(_durable(chosen.port, chosen.seconds, addresses))
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
