# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How many values a second reach a subscribed client through the OPC UA sink, beside asyncua's own server.

Each batch has a new value of every tag. It is appended to a real journal, with every commit on disk, and the sink is
run as the pipeline runs it; asyncua's server gets finished DataValues by its `write_attribute_value`, out of memory.
Both have a process of their own and so has the client (``opcua_subscriber``), the same one for both, which checks that
every value reaches it, once and in order: no more batches are under way than its queue holds, so that none is left out.
"""

import argparse
import asyncio
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from asyncua import ua
from asyncua.server.server import Server

from shopfloor.bench import Result
from shopfloor.bench.opcua_subscriber import WRAP, Kind as Client, Subscriber, tag
from shopfloor.interpreter import prepared
from shopfloor.journal import SqliteJournal
from shopfloor.pipeline.sinks import SinkRunner
from shopfloor.samples import Batch
from shopfloor.sinks.opcua import OpcUaSinkConfig
from shopfloor.testing.programs import free_port

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Kind = Literal["sink", "asyncua"]

WINDOW: Final = 20_000
"""Values that may be on their way to the client: of each of 100 tags, or more, fewer than its queue holds."""
_WARM_UP: Final = 1.0
_BEAT: Final = 0.001
_SIBLINGS: Final = 100
"""Nodes in a folder of asyncua's server, which looks through all of them for each new one."""


class Figures(msgspec.Struct, frozen=True):
    """What was measured in a server's process."""

    values: float
    """A second that reached the client."""
    per_cpu_second: float
    stretch_p99: float
    """ms for which the loop of the sources was kept from what was due; 0 for asyncua's server, which has one loop."""
    stretch_longest: float


def run(*, thorough: bool = False) -> list[Result]:
    """Values a second at 1,000 tags; thorough also with a client that needs less of the processor, and at 10,000."""
    if not thorough:
        return compared(1000, "asyncua", 3.0, 3)
    found = compared(1000, "asyncua", 10.0, 5)
    found += _named("_own_client", compared(1000, "shopfloor", 10.0, 5))
    return found + _named("_10000_tags", compared(10_000, "asyncua", 10.0, 3))


def _named(suffix: str, results: Iterable[Result]) -> list[Result]:
    return [msgspec.structs.replace(result, name=result.name + suffix) for result in results]


def compared(tags: int, client: Client, seconds: float, runs: int) -> list[Result]:
    """The sink beside asyncua's server, in turns. Raises RuntimeError when a value did not arrive."""
    both = [
        (_measured("sink", tags, client, seconds), _measured("asyncua", tags, client, seconds)) for _ in range(runs)
    ]
    ours = [one for one, _ in both]
    return [
        _beside("values", [(mine.values, bare.values) for mine, bare in both]),
        _beside("values_per_cpu_second", [(mine.per_cpu_second, bare.per_cpu_second) for mine, bare in both]),
        _result("stretch_p99_ms", "ms", [one.stretch_p99 for one in ours]),
        _result("stretch_longest_ms", "ms", [one.stretch_longest for one in ours]),
    ]


def _beside(name: str, both: Sequence[tuple[float, float]]) -> Result:
    ratio = round(statistics.median(mine / bare for mine, bare in both), 2)
    found = _result(name, "1/s", [mine for mine, _ in both])
    return msgspec.structs.replace(found, ratio=ratio, ratio_to="asyncua's server with finished DataValues")


def _result(name: str, unit: str, values: Iterable[float]) -> Result:
    found = [round(value, 2) for value in values]
    return Result(name, statistics.median(found), unit, min=min(found), max=max(found), runs=len(found))


def _measured(kind: Kind, tags: int, client: Client, seconds: float) -> Figures:
    """One run in a process of its own."""
    command = [sys.executable, "-m", __name__, kind, str(tags), client, str(seconds)]
    said = subprocess.run(command, stdout=subprocess.PIPE, timeout=240 + 4 * seconds, check=False)  # noqa: S603  # own module
    if said.returncode:
        raise RuntimeError(f"{kind} with {tags} tags was not measured; why stands above")
    return msgspec.json.decode(said.stdout, type=Figures)


# ---- the server's process -------------------------------------------------------------------------------------


Give = Callable[[int], Awaitable[object]]
"""Gives every tag the value of this round, modulo WRAP."""


@asynccontextmanager
async def _sink(port: int, tags: int) -> AsyncGenerator[Give]:
    """A journal and the sink that reads it; every tag has a value."""
    names = [tag(number) for number in range(tags)]
    with tempfile.TemporaryDirectory(prefix="shopfloor-bench-") as folder:
        config = OpcUaSinkConfig.model_validate({
            "name": "bench",
            "endpoint": f"opc.tcp://127.0.0.1:{port}",
            "anonymous": True,
            "security": {"policies": ["None"]},
            "pki": Path(folder) / "pki",
            "memory": Path(folder) / "memory",
        })  # fmt: skip
        journal = await SqliteJournal.open(Path(folder) / "journal.db")
        await journal.reader("bench")

        def give(number: int) -> Awaitable[int]:
            now = time.time_ns()
            return journal.append(Batch("plc", now, names, [now] * tags, array("d", [float(number % WRAP)] * tags)))

        runner = SinkRunner(config, journal, time.time_ns)
        runner.start()
        try:
            await give(0)
            while (status := runner.status()).samples < tags:
                if status.last_error:
                    raise RuntimeError(status.last_error)
                await asyncio.sleep(0.01)
            with prepared():
                yield give
        finally:
            await runner.stop(10)
            await journal.close()


@asynccontextmanager
async def _asyncua(port: int, tags: int) -> AsyncGenerator[Give]:
    """Asyncua's server as it is; the values of all rounds are made before."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:shopfloor:plant")
    nodes = [ua.NodeId(ua.String(tag(number)), ua.Int16(index)) for number in range(tags)]
    for first in range(0, tags, _SIBLINGS):
        folder = await server.nodes.objects.add_folder(index, f"bench-{first}")
        for node in nodes[first : first + _SIBLINGS]:
            await folder.add_variable(node, str(node.Identifier), 0.0)
    stamp: Any = datetime.now(UTC).replace(tzinfo=None)
    rounds = [
        ua.DataValue(ua.Variant(float(number), ua.VariantType.Double), SourceTimestamp=stamp, ServerTimestamp=stamp)
        for number in range(WRAP)
    ]

    async def give(number: int) -> None:
        value = rounds[number % WRAP]
        for node in nodes:
            await server.write_attribute_value(node, value)
        await asyncio.sleep(0)  # else it would never come to its clients

    async with server:
        with prepared():
            yield give


_KINDS: Final = {"sink": _sink, "asyncua": _asyncua}


class _Beat:
    """For how long the loop was kept from what was due: never more than the processor time of all threads meanwhile.

    So what others on this machine take is not in it.
    """

    def __init__(self) -> None:
        self.stretches = array("d")
        """Seconds."""

    async def go(self) -> None:
        """Until cancelled."""
        while True:
            due, before = time.perf_counter() + _BEAT, time.process_time()
            await asyncio.sleep(_BEAT)
            self.stretches.append(max(0.0, min(time.perf_counter() - due, time.process_time() - before)))


async def _measure(kind: Kind, tags: int, client: Client, seconds: float) -> Figures:
    port = free_port()
    async with _KINDS[kind](port, tags) as give, Subscriber(port, tags, client) as subscriber:
        given = 0
        beat = _Beat()
        beating = asyncio.create_task(beat.go(), name="beat")

        async def give_for(seconds: float) -> tuple[int, float, float]:
            """How much was given until it had all reached the client; the time by the clock, and the processor's."""
            nonlocal given
            before, began, used = given, time.perf_counter(), time.process_time()
            while time.perf_counter() - began < seconds:
                await subscriber.until((given + 1) * tags - WINDOW)
                given += 1
                await give(given)
            await subscriber.until(given * tags)
            return (given - before) * tags, time.perf_counter() - began, time.process_time() - used

        try:
            await give_for(min(_WARM_UP, seconds))
            beat.stretches = array("d")
            values, took, used = await give_for(seconds)
        finally:
            beating.cancel()
    stretches = [1000 * one for one in beat.stretches] if kind == "sink" else [0.0, 0.0]
    p99 = statistics.quantiles(stretches, n=100, method="inclusive")[98]
    return Figures(values / took, values / used, p99, max(stretches))


def main() -> None:
    """A server's process: measures and prints figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(_KINDS))
    parser.add_argument("tags", type=int)
    parser.add_argument("client", choices=["asyncua", "shopfloor"])
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args()
    logging.getLogger("asyncua").setLevel(logging.ERROR)  # that asyncua's server is without security is meant so
    factory = uvloop.new_event_loop if chosen.kind == "sink" and sys.platform != "win32" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        figures = runner.run(_measure(chosen.kind, chosen.tags, chosen.client, chosen.seconds))
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main()
