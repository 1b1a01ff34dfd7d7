"""A Shopfloor in a process of its own that tells when each sample became durable, for load tests and benches.

``Observed`` starts it. It runs a real plant (Sparkplug source, journal, historian), whose source and historian say
what they made durable at the moment when they may; or only a passive source, which says what it received.
"""

import asyncio
import logging
import os
import sys
import time
from array import array
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
import psutil
import structlog
from pydantic import PrivateAttr, SecretStr

from shopfloor.historian.base import Historian
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.journal import balances, read_file
from shopfloor.pipeline import Pipeline
from shopfloor.plant import JournalConfig, Plant, Site
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.samples import Batch, Misconfigured, Unavailable
from shopfloor.sources.sparkplug import SparkplugHostConfig, SparkplugSource

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Stage = Literal["received", "journal", "historian"]
Detail = Literal["rows", "times", "tags"]

_READY_WITHIN: Final = 30.0
_ENDS_WITHIN: Final = 30.0
_LOOKS_EVERY: Final = 0.02
_AGAIN_AFTER: Final = 0.5


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is to do."""

    kind: Literal["plant", "passive"]
    """A whole plant, or a passive host that keeps nothing."""
    connection: dict[str, Any]
    """The fields of ``MqttConnection``; the password in clear, so it never stands on a command line."""
    group: str
    detail: Detail = "tags"
    """What is told of samples: how many, also their times, also their tags."""
    folder: str = ""
    """Where a plant keeps its files."""


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the process says."""

    stage: Stage | Literal["ready", "end", "failed"]
    at: int = 0
    """When, ns."""
    rows: int = 0
    new_tags: list[str] = []
    """Tags that were not told of before; they are numbered in this order, from 0."""
    tags: bytes = b""
    """The number of each sample's tag, uint32."""
    times: bytes = b""
    """int64, ns."""
    text: str = ""
    balanced: bool = True
    """At the end: whether the ledger balances."""


class Observed:
    """The process, from entering to leaving."""

    def __init__(self, order: Order, hear: Callable[[Told], None]) -> None:
        """``hear`` gets everything that it tells but readiness and end."""
        self.balanced = True
        """After leaving: whether the plant's ledger balances."""
        self.failure = ""
        """Why it ended before it was told to."""
        self.cpu_seconds = 0.0
        self.rss = 0
        """Bytes; both as of the last ``measure``."""
        self._order = order
        self._hear = hear
        self._child: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start it; returns once its source is connected. Raises Unavailable, Misconfigured."""
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, stdin=PIPE, stdout=PIPE,
            start_new_session=True,  # Ctrl-C is for us, who end it when the account is closed
        )  # fmt: skip
        if child.stdin is None:
            raise RuntimeError("the process has no standard input")
        child.stdin.write(msgspec.json.encode(self._order) + b"\n")
        self._reading = asyncio.create_task(self._read(child))
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._reading}, timeout=_READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        finally:
            ready.cancel()
        if not self._ready.is_set():
            await self.__aexit__(None, None, None)
            raise Unavailable(self.failure or f"it was not ready within {_READY_WITHIN:g} s")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Let it stop in order, so that all it received is delivered."""
        child, self._child = self._child, None
        if child is None:
            return
        if not self.running and not self.failure:
            self.failure = "its process ended by itself"
        if child.stdin is not None:
            child.stdin.close()
        try:
            async with asyncio.timeout(_ENDS_WITHIN):
                if self._reading is not None:
                    await asyncio.wait({self._reading})
                await child.wait()
            if self._reading is not None and kind is None:
                self._reading.result()
        except TimeoutError:
            self.failure = f"it did not stop within {_ENDS_WITHIN:g} s"
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
            if self._reading is not None:
                self._reading.cancel()

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._reading is not None and not self._reading.done()

    async def ended(self) -> None:
        """Wait until it is not."""
        if self._reading is not None:
            await asyncio.wait({self._reading})

    def measure(self) -> None:
        """Look at how much processor time and memory it has used."""
        if self._child is not None and self._child.returncode is None:
            with suppress(psutil.Error):
                process = psutil.Process(self._child.pid)
                used = process.cpu_times()
                self.cpu_seconds, self.rss = used.user + used.system, process.memory_info().rss

    async def _read(self, child: Process) -> None:
        stream = child.stdout
        decode = msgspec.msgpack.Decoder(Told).decode
        if stream is None:
            return
        try:
            while True:
                size = int.from_bytes(await stream.readexactly(4), "big")
                told = decode(await stream.readexactly(size))
                match told.stage:
                    case "ready":
                        self._ready.set()
                    case "end":
                        self.balanced = told.balanced
                    case "failed":
                        self.failure = told.text
                    case _:
                        self._hear(told)
        except asyncio.IncompleteReadError:
            pass  # it has ended
        except BaseException:
            child.kill()  # nobody would read what it says
            raise


# ---- the process ------------------------------------------------------------------------------------------


class _Pipe(asyncio.BaseProtocol):
    def __init__(self, closed: "asyncio.Future[None]") -> None:
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        if not self._closed.done():
            self._closed.set_result(None)


class _Voice:
    """Tells the parent; never waits for it, because what is measured must not."""

    def __init__(self, detail: Detail) -> None:
        self._detail = detail
        self._numbers: dict[str, int] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._pipe: asyncio.WriteTransport | None = None
        self._said: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Take standard output for it; whatever else is printed goes to standard error."""
        told = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        loop = asyncio.get_running_loop()
        self._said = said = loop.create_future()
        self._pipe, _ = await loop.connect_write_pipe(lambda: _Pipe(said), told)

    async def close(self) -> None:
        """Wait until the parent has read everything."""
        if self._pipe is not None and self._said is not None:
            self._pipe.close()
            await self._said

    def say(self, told: Told) -> None:
        body = self._encode(told)
        if self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(len(body).to_bytes(4, "big") + body)

    def samples(self, stage: Stage, batches: Sequence[Batch]) -> None:
        """These became durable, or were received, now."""
        at = time.time_ns()
        if self._detail == "rows":
            self.say(Told(stage=stage, at=at, rows=sum(map(len, batches))))
            return
        new: list[str] = []
        tags = array("I")
        if self._detail == "tags":
            for batch in batches:
                tags.extend(map(self._number, batch.tags, (new,) * len(batch)))
        times = b"".join(batch.times.tobytes() for batch in batches)
        self.say(Told(stage=stage, at=at, rows=len(times) // 8, new_tags=new, tags=tags.tobytes(), times=times))

    def _number(self, tag: str, new: list[str]) -> int:
        number = self._numbers.get(tag)
        if number is None:
            number = self._numbers[tag] = len(self._numbers)
            new.append(tag)
        return number


class _WatchedSource(SparkplugSource):
    """Says what it yielded once the journal has it."""

    def __init__(self, config: SparkplugHostConfig, voice: _Voice) -> None:
        super().__init__(config)
        self._voice = voice

    async def batches(self) -> AsyncGenerator[Batch]:
        async with aclosing(super().batches()) as batches:
            async for batch in batches:
                yield batch
                self._voice.samples("journal", [batch])


class _WatchedSourceConfig(SparkplugHostConfig):
    _voice: _Voice = PrivateAttr()

    def tell_to(self, voice: _Voice) -> None:
        self._voice = voice

    def build(self) -> SparkplugSource:
        return _WatchedSource(self, self._voice)


class _WatchedHistorian(DuckDbHistorian):
    """Says what it was given once it is committed."""

    def __init__(self, config: DuckDbConfig, voice: _Voice) -> None:
        super().__init__(config)
        self._voice = voice

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        await super().write_many(entries)
        self._voice.samples("historian", [batch for _, batch in entries if not batch.source.startswith("$")])


class _WatchedHistorianConfig(DuckDbConfig):
    _voice: _Voice = PrivateAttr()

    def tell_to(self, voice: _Voice) -> None:
        self._voice = voice

    def build(self) -> Historian:
        return _WatchedHistorian(self, self._voice)


async def _work(order: Order, voice: _Voice, ended: "asyncio.Future[bytes]") -> None:
    if order.kind == "passive":
        await _listen(order, voice, ended)
    else:
        await _run(order, voice, ended)


async def _listen(order: Order, voice: _Voice, ended: "asyncio.Future[bytes]") -> None:
    """A passive host: what it received, until standard input ends."""
    config = SparkplugHostConfig.model_validate({**_connection(order), "role": "passive"})

    async def receive(source: SparkplugSource) -> None:
        async with aclosing(source.batches()) as batches:
            async for batch in batches:
                voice.samples("received", [batch])

    source = config.build()
    connected = False
    while not ended.done():
        try:
            async with source:
                connected = True
                voice.say(Told(stage="ready"))
                receiving = asyncio.create_task(receive(source))
                waiting: set[asyncio.Future[Any]] = {receiving, ended}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                receiving.cancel()
                with suppress(asyncio.CancelledError):
                    await receiving
        except Unavailable:
            if not connected:
                raise
            await asyncio.wait({ended}, timeout=_AGAIN_AFTER)


async def _run(order: Order, voice: _Voice, ended: "asyncio.Future[bytes]") -> None:
    """A whole plant, until standard input ends."""
    folder = Path(order.folder)
    source = _WatchedSourceConfig.model_validate(_connection(order))
    historian = _WatchedHistorianConfig(path=folder / "history.duckdb")
    source.tell_to(voice)
    historian.tell_to(voice)
    plant = Plant(
        plant=Site(site="load", timezone="UTC"),
        sources=[source],
        historian=historian,
        journal=JournalConfig(path=folder / "journal.db"),
        console=None,
    )
    async with Pipeline(plant) as pipeline:
        # States change by themselves; looking again is simpler than an event.
        while not ended.done() and any(one.state != "running" for one in pipeline.components()):
            wrong = [one.last_error for one in pipeline.components() if one.state == "misconfigured"]
            if wrong:
                raise Misconfigured("; ".join(wrong))
            await asyncio.sleep(_LOOKS_EVERY)
        voice.say(Told(stage="ready"))
        await asyncio.wait({ended})
    rows = await asyncio.to_thread(read_file, plant.journal.path)
    voice.say(Told(stage="end", balanced=not any(pair.missing for pair in balances(rows))))


async def _main() -> None:
    loop = asyncio.get_running_loop()
    order = msgspec.json.decode(await asyncio.to_thread(sys.stdin.buffer.readline), type=Order)
    voice = _Voice(order.detail)
    await voice.open()
    ended: asyncio.Future[bytes] = loop.create_future()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def wait_for_end() -> None:
        ended.set_result(await reader.read())

    waiting = asyncio.create_task(wait_for_end())
    try:
        await _work(order, voice, ended)
    except (Unavailable, Misconfigured) as error:
        voice.say(Told(stage="failed", text=str(error)))
    finally:
        waiting.cancel()
    await voice.close()


def _connection(order: Order) -> dict[str, Any]:
    secret: dict[str, Any] = {
        key: SecretStr(order.connection[key]) for key in ("password", "key_password") if key in order.connection
    }
    return {**order.connection, **secret, "name": "load", "host_id": "shopfloor-load", "groups": [order.group]}


def plain(connection: MqttConnection) -> dict[str, Any]:
    """The fields of a connection as ``Order`` has them."""
    given = connection.model_dump(exclude_unset=True)
    found = {key: value.get_secret_value() if isinstance(value, SecretStr) else value for key, value in given.items()}
    return {key: str(value) if isinstance(value, Path) else value for key, value in found.items()}


def main() -> None:
    """The process: what it is to do stands on the first line of standard input; the end of that ends it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
        runner.run(_main())


if __name__ == "__main__":
    main()
