"""How many Sparkplug metrics become durable and reach the historian, how soon, and what a thousand nodes do at once.

Broker, Shopfloor (``observed``) and publisher (this process) are processes of their own on the same cores. Nothing is
thrown away to be fast: the publisher waits for the historian, so that nothing piles up, and every sample must arrive.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shopfloor.bench import Result, storm
from shopfloor.bench.observed import Detail, Observed, Order, Told, plain
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.broker import Broker
from shopfloor.protocols.mqtt import Message, Will
from shopfloor.protocols.mqtt_session import Session, Subscription, open_session
from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import encode

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

Kind = Literal["double", "mixed"]

NODES: Final = 10
DEVICES: Final = 10
METRICS: Final = 100
"""A message."""
STORM: Final = 1000
"""Nodes that come back at once."""
PACE: Final = 50_000
"""Metrics a second when latency is measured."""

_GROUP: Final = "load"
_WINDOW: Final = 400
"""Messages that may be on their way to the historian."""
_AT_ONCE: Final = 10
_WARM_UP: Final = 1.0
_PATIENCE: Final = 20.0
_MOST_LATE: Final = 0.05
"""Of the time that a run takes."""
_MS: Final = 10**6


class _Kind(NamedTuple):
    """A metric's type, its field on the wire, and its value in a turn."""

    type: DataType
    field: str
    value: Callable[[int], bool | int | float | str]


def _number(turn: int) -> float:
    return turn + 0.5


def _count(turn: int) -> int:
    return turn


def _state(turn: int) -> bool:
    return turn % 2 == 0


def _text(turn: int) -> str:
    return f"order {turn % 50}"


_DOUBLE: Final = _Kind(DataType.DOUBLE, "double_value", _number)
_MIXED: Final = (
    _DOUBLE,
    _Kind(DataType.INT32, "int_value", _count),
    _Kind(DataType.INT64, "long_value", _count),
    _Kind(DataType.BOOLEAN, "boolean_value", _state),
    _Kind(DataType.STRING, "string_value", _text),
)
_KINDS: Final[dict[Kind, Sequence[_Kind]]] = {
    "double": [_DOUBLE] * METRICS,
    "mixed": [_MIXED[number % len(_MIXED)] for number in range(METRICS)],
}


class Throughput(NamedTuple):
    """Of one run."""

    rate: float
    """Metrics a second that became durable in the historian."""
    per_cpu_second: float
    """Of the Shopfloor alone."""
    rss: float
    """MB."""


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Sustained metrics to durable, latency at a pace, and a storm of rebirths."""
    seconds, runs = (20.0, 5) if thorough else (2.0, 3)
    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
        doubles = [runner.run(_throughput("double", seconds)) for _ in range(runs)]
        mixed = [runner.run(_throughput("mixed", seconds)) for _ in range(runs)]
        paced = [runner.run(_latencies(seconds)) for _ in range(runs)]
        results = [
            _result("metrics", "1/s", [one.rate for one in doubles]),
            _result("metrics_per_cpu_second", "1/s", [one.per_cpu_second for one in doubles]),
            _result("metrics_mixed_types", "1/s", [one.rate for one in mixed]),
            _result("rss_mb", "MB", [one.rss for one in doubles]),
            *_percentiles("", [journal for journal, _ in paced]),
            *_percentiles("_historian", [historian for _, historian in paced]),
        ]
        results += runner.run(storm.nodes_return(STORM))
        if thorough:
            results += runner.run(storm.broker_returns(STORM))
            results += runner.run(storm.host_returns(STORM))
        return results


def _percentiles(suffix: str, runs: Sequence[NDArray[np.float64]]) -> Iterable[Result]:
    for percent in (50, 95, 99):
        yield _result(f"latency_p{percent}_ms{suffix}", "ms", [float(np.percentile(one, percent)) for one in runs])


def _result(name: str, unit: str, values: Sequence[float]) -> Result:
    found = [round(value, 2) for value in values]
    return Result(name, statistics.median(found), unit, min=min(found), max=max(found), runs=len(found))


# ---- one run ----------------------------------------------------------------------------------------------


class _Arrived:
    """What the Shopfloor told."""

    def __init__(self) -> None:
        self.rows = {"journal": 0, "historian": 0}
        self.commits: list[tuple[int, int]] = []
        """Of the historian: when, ns, and the rows that it has from then on."""
        self.latencies: dict[str, list[NDArray[np.float64]]] = {"journal": [], "historian": []}
        self.news = asyncio.Event()

    def hear(self, told: Told) -> None:
        self.rows[told.stage] += told.rows
        if told.stage == "historian":
            self.commits.append((told.at, self.rows["historian"]))
            self.news.set()
        if told.times:
            self.latencies[told.stage].append((told.at - np.frombuffer(told.times, np.int64)) / _MS)

    async def until(self, rows: int) -> None:
        """Wait for these rows. Raises RuntimeError when they do not come."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while min(self.rows.values()) < rows:
                    self.news.clear()
                    await asyncio.wait([asyncio.ensure_future(self.news.wait())], timeout=0.1)
        except TimeoutError:
            raise RuntimeError(f"of {rows:,} samples {self.rows} arrived: this must not be") from None


class _Stage(NamedTuple):
    """All that is on the stage of a run."""

    observed: Observed
    arrived: _Arrived
    lines: "Sequence[_Line]"


@asynccontextmanager
async def _stage(kind: Kind, detail: Detail) -> AsyncGenerator[_Stage]:
    """A broker, a Shopfloor, and edge nodes whose births arrived."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Broker(kind="mosquitto"))
        connection = MqttConnection(servers=[broker.address])
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="shopfloor-bench-"))
        order = Order(kind="plant", connection=plain(connection), group=_GROUP, detail=detail, folder=folder)
        arrived = _Arrived()
        observed = await stack.enter_async_context(Observed(order, arrived.hear))
        lines = [_Line(number, kind) for number in range(NODES)]
        for line in lines:
            await stack.enter_async_context(line.at(connection))
        await arrived.until(NODES * DEVICES * METRICS)
        yield _Stage(observed, arrived, lines)
        if any(line.asked for line in lines):
            raise RuntimeError("a rebirth was requested: this must not be")


async def _throughput(kind: Kind, seconds: float) -> Throughput:
    """As fast as the historian takes it."""
    async with _stage(kind, "rows") as (observed, arrived, lines):
        born = sent = arrived.rows["historian"]
        begin = time.time_ns() + int(_WARM_UP * 1e9)
        end = begin + int(seconds * 1e9)
        used = 0.0
        turn = 0
        while (now := time.time_ns()) < end:
            if not used and now >= begin:
                observed.measure()
                used = observed.cpu_seconds
            if sent - arrived.rows["historian"] > _WINDOW * METRICS:
                arrived.news.clear()
                await arrived.news.wait()
                continue
            await lines[turn % NODES].say([(turn // NODES + device) % DEVICES for device in range(_AT_ONCE)])
            sent += _AT_ONCE * METRICS
            turn += 1
        observed.measure()
        used = observed.cpu_seconds - used
        await arrived.until(sent)
        if arrived.rows["historian"] != sent:
            raise RuntimeError(f"{arrived.rows['historian'] - born:,} of {sent - born:,} samples: this must not be")
    commits = [one for one in arrived.commits if begin <= one[0] <= end]
    (first, before), (last, after) = commits[0], commits[-1]
    rate = (after - before) / (last - first) * 1e9
    return Throughput(rate, (after - before) / used, observed.rss / 2**20)


async def _latencies(seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At a pace: ms from publishing each sample to its commit, in the journal and in the historian.

    A sample's time is in whole ms, rounded down: so they are up to 1 ms too long, never too short.
    """
    async with _stage("double", "times") as (_, arrived, lines):
        born = arrived.rows["historian"]
        messages = int((_WARM_UP + seconds) * PACE / METRICS)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(messages):
            due = begin + number * METRICS / PACE
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await lines[number % NODES].say([number // NODES % DEVICES])
        late = loop.time() - begin - messages * METRICS / PACE
        if late > _MOST_LATE * seconds:
            raise RuntimeError(f"the publisher was {late:.1f} s late: the pace was not kept")
        rows = born + messages * METRICS
        await arrived.until(rows)
        told = {stage: np.concatenate(found)[:rows] for stage, found in arrived.latencies.items()}
    journal, historian = (told[stage][born + int(_WARM_UP * PACE) :] for stage in ("journal", "historian"))
    return journal, historian


# ---- an edge node that costs little -------------------------------------------------------------------------


class _Line:
    """One edge node whose messages are made once and change only in time, value and sequence."""

    def __init__(self, number: int, kind: Kind) -> None:
        self.asked = 0
        self._node = f"node-{number}"
        self._types = _KINDS[kind]
        self._seq = 0
        self._turn = 0
        self._session: Session | None = None
        self._messages = [self._message(device) for device in range(DEVICES)]

    @asynccontextmanager
    async def at(self, connection: MqttConnection) -> AsyncGenerator[None]:
        """Connected and born."""
        now = time.time_ns() // _MS
        bdseq = Metric(name="bdSeq", timestamp=now, type=DataType.INT64, value=0)
        will = encode(Payload(timestamp=now, metrics=[bdseq]))
        session = self._session = await open_session(
            connection, f"bench-{self._node}", will=Will(self._topic("NDEATH"), will, 1)
        )
        listening = asyncio.create_task(self._listen(session))
        try:
            await session.subscribe([Subscription(self._topic("NCMD").decode())])
            rebirth = Metric(name="Node Control/Rebirth", timestamp=now, type=DataType.BOOLEAN, value=False)
            births = [self._birth("NBIRTH", None, [bdseq, rebirth], now)]
            births += [
                self._birth("DBIRTH", device, list(self._metrics(device, now)), now) for device in range(DEVICES)
            ]
            await session.publish(births, 0)
            yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await session.publish([Message(self._topic("NDEATH"), will, retain=False)], 1)
            await session.close()

    async def say(self, devices: Sequence[int]) -> None:
        """A message of each of these devices."""
        now = time.time_ns() // _MS
        said: list[Message] = []
        for device in devices:
            payload = self._messages[device]
            payload.timestamp = now
            payload.seq = self._next_seq()
            self._turn += 1
            for metric, (_, field, value) in zip(payload.metrics, self._types, strict=True):
                metric.timestamp = now
                setattr(metric, field, value(self._turn))
            said.append(Message(self._topic("DDATA", device), payload.SerializeToString(), retain=False))
        if self._session is not None:
            await self._session.publish(said, 0)

    def _topic(self, verb: str, device: int | None = None) -> bytes:
        return f"spBv1.0/{_GROUP}/{verb}/{self._node}{'' if device is None else f'/device-{device}'}".encode()

    def _next_seq(self) -> int:
        seq = self._seq
        self._seq = (seq + 1) % 256
        return seq

    def _birth(self, verb: str, device: int | None, metrics: Sequence[Metric], now: int) -> Message:
        payload = Payload(timestamp=now, metrics=metrics, seq=self._next_seq())
        return Message(self._topic(verb, device), encode(payload), retain=False)

    def _metrics(self, device: int, now: int) -> Iterable[Metric]:
        for number, (kind, _, value) in enumerate(self._types):
            alias = device * METRICS + number + 1
            yield Metric(name=f"metric-{number}", alias=alias, timestamp=now, type=kind, value=value(0))

    def _message(self, device: int) -> Any:
        message = wire.Payload()
        for number in range(METRICS):
            message.metrics.add().alias = device * METRICS + number + 1
        return message

    async def _listen(self, session: Session) -> None:
        async for arrivals in session.arrivals():
            self.asked += len(arrivals)
            session.acknowledge(arrivals)
