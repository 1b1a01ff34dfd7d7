# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""An OPC UA client that subscribes to all tags, and says how many values it was told.

``python -m shopfloor.bench.opcua_subscriber PORT TAGS CLIENT`` says a line ``ready`` once it has the first value of
each tag, then now and then the number of values that came since. A tag's values count up and begin anew at ``WRAP``:
one that is missing, doubled or out of order ends it with what it found. ``Subscriber`` starts it.
"""

import argparse
import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

from asyncua.client.client import Client

from shopfloor.sources.opcua import OpcUaConfig, OpcUaTag

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Kind = Literal["asyncua", "shopfloor"]

WRAP: Final = 64
"""A tag's value after the last one is the first again."""
_EVERY: Final = 0.005
"""Seconds after which it says at most how many came."""
_INTERVAL: Final = 10
"""ms between two publications."""
_READY: Final = "ready"
_WITHIN: Final = 120.0


def tag(number: int) -> str:
    """The name of a tag, which is its node id in namespace 2."""
    return f"bench/{number}"


class Subscriber:
    """The client's process, from entering to leaving."""

    def __init__(self, port: int, tags: int, kind: Kind) -> None:
        """Of a server that listens on this port of this machine."""
        self.received = 0
        """Values that it was told since it was ready."""
        self._arguments = [str(port), str(tags), kind]
        self._news = asyncio.Event()
        self._child: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Returns once it has the first value of each tag. Raises RuntimeError, TimeoutError."""
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, *self._arguments, stdout=PIPE
        )
        try:
            async with asyncio.timeout(_WITHIN):
                first = await self._line(child)
        except BaseException:
            await self._end(child)
            raise
        if first != _READY:
            await self._end(child)
            raise RuntimeError("the client did not get the first values")
        self._reading = asyncio.create_task(self._read(child), name="client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._child is not None:
            await self._end(self._child)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def until(self, received: int) -> None:
        """Wait until it has so many. Raises RuntimeError when one of them went wrong, TimeoutError."""
        async with asyncio.timeout(_WITHIN):
            while self.received < received:
                if self._reading is not None and self._reading.done():
                    self._reading.result()
                self._news.clear()
                await self._news.wait()

    async def _read(self, child: Process) -> None:
        try:
            while (line := await self._line(child)).isdecimal():
                self.received = int(line)
                self._news.set()
            raise RuntimeError(f"of the values after {self.received:,}: {line or 'the client ended'}")
        finally:
            self._news.set()

    async def _line(self, child: Process) -> str:
        return (await child.stdout.readline()).decode().strip() if child.stdout is not None else ""

    async def _end(self, child: Process) -> None:
        if child.returncode is None:
            child.kill()
        await child.wait()


# ---- the process ------------------------------------------------------------------------------------------


class _Count:
    """Counts, and compares each value with the one before it."""

    def __init__(self, tags: int) -> None:
        self._last: dict[str, float] = {}
        self._tags = tags
        self._received = 0
        self._due = 0.0

    def take(self, tags: Sequence[str], values: Sequence[float]) -> None:
        """What came, in order."""
        last = self._last
        if len(last) < self._tags:
            last.update(zip(tags, values, strict=True))
            if len(last) == self._tags:
                say(_READY)
            return
        for name, value in zip(tags, values, strict=True):
            if value != (last[name] + 1) % WRAP:
                say(f"{name} was {last[name]} and then {value}")
                sys.exit(1)
            last[name] = value
        self._received += len(tags)

    def tell(self) -> None:
        """How many there were; not more often than it is worth."""
        now = time.monotonic()
        if now >= self._due and self._received:
            self._due = now + _EVERY
            say(str(self._received))


def say(line: str) -> None:
    """To the parent."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _telling(count: _Count) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        count.tell()


async def _asyncua(port: int, tags: int, count: _Count) -> None:
    """The client of asyncua."""

    class Handler:
        def datachange_notification(self, node: Any, value: Any, data: Any) -> None:  # noqa: ARG002  # asyncua's signature
            count.take((node.nodeid.Identifier,), (value,))

    async with Client(f"opc.tcp://127.0.0.1:{port}", timeout=60, watchdog_intervall=60) as client:
        subscription = await client.create_subscription(_INTERVAL, cast("Any", Handler()), queue_maxsize=0)
        nodes = [client.get_node(f"ns=2;s={tag(number)}") for number in range(tags)]
        await subscription.subscribe_data_change(nodes, queuesize=0)
        await _telling(count)


async def _shopfloor(port: int, tags: int, count: _Count) -> None:
    """The client of this product's source, which needs a small part of asyncua's time."""
    config = OpcUaConfig(
        name="bench",
        endpoint=f"opc.tcp://127.0.0.1:{port}",
        publishing=_INTERVAL * 10**6,
        queue=1000,
        tags=[OpcUaTag(tag=tag(number), node=f"ns=2;s={tag(number)}") for number in range(tags)],
    )
    telling = asyncio.create_task(_telling(count))
    async with config.build() as source, aclosing(source.batches()) as batches:
        async for batch in batches:
            count.take(batch.tags, cast("Sequence[float]", batch.values))
    await telling


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("tags", type=int)
    parser.add_argument("client", choices=["asyncua", "shopfloor"])
    chosen = parser.parse_args()
    client = _asyncua if chosen.client == "asyncua" else _shopfloor
    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
        runner.run(client(chosen.port, chosen.tags, _Count(chosen.tags)))


if __name__ == "__main__":
    main()
