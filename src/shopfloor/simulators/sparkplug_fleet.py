"""Many Sparkplug edge nodes with devices that say something at every interval: a load for brokers and hosts.

Each node is an ``EdgeNode`` on a connection of its own: will, births, one sequence, aliases, NDEATH at the end,
rebirths when a host asks for them. Their rounds are spread evenly over the interval. A node that loses its
connection comes back by itself and is born again; rounds that it could not tell meanwhile are skipped and counted.
"""

import asyncio
import random
import time
from array import array
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgspec

from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import Message, Will
from shopfloor.protocols.mqtt_session import Session, Subscription, open_session
from shopfloor.protocols.sparkplug.edge import EdgeNode, Publication
from shopfloor.protocols.sparkplug.edge_memory import KnownDevice, KnownMetric, Memory
from shopfloor.protocols.sparkplug.model import DataType
from shopfloor.protocols.sparkplug.payload import Malformed, decode, encode
from shopfloor.samples import Batch, Unavailable, Value

_MS: Final = 10**6
_SECOND: Final = 10**9
_CONNECTING: Final = 50
"""Nodes that connect at the same time at the start; brokers have short queues for new connections."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
_FAREWELL: Final = 5.0
_LATE: Final = 2.0
"""Seconds after which a round is not told any more."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How many of what: every node has ``devices``, every device has ``metrics``."""

    group: str = "load"
    nodes: int = 1
    devices: int = 1
    metrics: int = 1

    @property
    def all_devices(self) -> int:
        """The devices of all nodes."""
        return self.nodes * self.devices

    @property
    def tags(self) -> int:
        """The metrics of all devices of all nodes."""
        return self.all_devices * self.metrics

    def tag_names(self) -> Iterator[str]:
        """``group/node/device/metric`` of all metrics, in the order of their numbers."""
        for node in range(self.nodes):
            for device in range(self.devices):
                for metric in range(self.metrics):
                    yield f"{self.group}/{node_name(node)}/{device_name(device)}/{metric_name(metric)}"


def node_name(number: int) -> str:
    """The id of a node, counted from 0."""
    return f"node-{number + 1:04}"


def device_name(number: int) -> str:
    """The id of a device in its node, counted from 0."""
    return f"device-{number + 1:03}"


def metric_name(number: int) -> str:
    """The name of a metric in its device, counted from 0: a count, a state, then measured values."""
    return ("Count", "Running")[number] if number < 2 else f"PV-{number + 1:03}"  # noqa: PLR2004  # the two


class Register(Protocol):
    """Who notes what the fleet says."""

    def said(self, device: int, turn: int, time: int, at: int) -> None:
        """All metrics of a device (counted over all nodes) go to the network at ``at``, ns, with this ``time``, ns."""

    def retold(self, device: int, turn: int) -> None:
        """A birth tells what the device said in this turn once more."""


class Fleet:
    """Edge nodes that are connected and born from entering to leaving; ``play`` lets them tell data."""

    def __init__(self, connection: MqttConnection, shape: Shape, interval: int, register: Register) -> None:
        """``interval`` is in ns."""
        self.shape = shape
        self.messages = 0
        """DDATA messages that were handed to the network."""
        self.skipped = 0
        """Rounds of a node that were not told, because it was not connected or its turn was long over."""
        self.lost = 0
        """Connections that broke."""
        self.trouble = ""
        """Why the last of them did."""
        self._interval = interval / _SECOND
        self._nodes = [_Node(self, connection, number, register) for number in range(shape.nodes)]
        self._tasks: list[asyncio.Task[None]] = []
        self._begin: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._turns = 0

    async def __aenter__(self) -> Self:
        """Connect every node and let it be born. Raises Unavailable, Misconfigured when one cannot."""
        gate = asyncio.Semaphore(_CONNECTING)

        async def begin(node: "_Node") -> None:
            async with gate:
                await node.connect()

        try:
            await _all(begin(node) for node in self._nodes)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self._tasks = [asyncio.create_task(node.live(), name=node.name) for node in self._nodes]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Every node says NDEATH and leaves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(node.leave() for node in self._nodes), return_exceptions=True)

    async def play(self, turns: int, stop: "asyncio.Future[None]") -> None:
        """Tell so many rounds, or until ``stop`` is done. Raises what a node failed of.

        It ends in time also when nodes are not connected then; what they did not tell they never will.
        """
        self._turns = turns
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self._begin.set_result(begin)
        told = asyncio.gather(*(node.told.wait() for node in self._nodes))
        waiting: set[asyncio.Future[Any]] = {told, stop, *self._tasks}
        length = turns * self._interval
        try:
            await asyncio.wait(waiting, timeout=length + _LATE, return_when=asyncio.FIRST_COMPLETED)
            if told.done():  # the last round takes an interval, too
                left = max(0.0, begin + length - loop.time())
                await asyncio.wait(waiting - {told}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._turns = 0
            told.cancel()
            with suppress(asyncio.CancelledError):
                await told
        for task in self._tasks:
            if task.done():
                task.result()

    def drop(self) -> None:
        """Break every connection at once, as a switch does that loses power; all come back at once."""
        for node in self._nodes:
            node.drop()

    @property
    def born(self) -> int:
        """Nodes that are connected and born now."""
        return sum(node.born for node in self._nodes)

    @property
    def rebirths(self) -> list[int]:
        """How many rebirths hosts asked of each node."""
        return [node.asked for node in self._nodes]

    @property
    def births(self) -> list[int]:
        """How many NBIRTHs each node published."""
        return [node.births for node in self._nodes]

    # ---- for the nodes ------------------------------------------------------------------------------

    async def turn(self, number: int, wanted: int) -> int:
        """Wait for a node's turn and return its number: ``wanted``, or a later one when that is long over.

        One that is a little late is told at once, so a stall of this computer costs no rounds.
        """
        begin = await asyncio.shield(self._begin) + number * self._interval / self.shape.nodes
        loop = asyncio.get_running_loop()
        behind = int((loop.time() - begin) / self._interval) - wanted
        if behind > 0 and behind * self._interval > _LATE:
            behind = min(behind, max(0, self._turns - wanted))
            self.skipped += behind
            wanted += behind
        if wanted < self._turns:
            await asyncio.sleep(max(0.0, begin + wanted * self._interval - loop.time()))
        return wanted

    @property
    def turns(self) -> int:
        """How many rounds there are."""
        return self._turns


class _Node:
    """One edge node over all its sessions."""

    def __init__(self, fleet: Fleet, connection: MqttConnection, number: int, register: Register) -> None:
        shape = fleet.shape
        self.name = node_name(number)
        self.told = asyncio.Event()
        self.born = False
        self.asked = 0
        self.births = 0
        self._fleet = fleet
        self._connection = connection
        self._number = number
        self._register = register
        self._first = number * shape.devices
        self._turn = 0
        self._last: int | None = None
        """The turn that was told last."""
        self._time = 0
        self._memory = Memory(devices=list(_devices(shape)), next_alias=shape.devices * shape.metrics + 1)
        self._tags = [f"{device.name}/{metric.name}" for device in self._memory.devices for metric in device.metrics]
        self._node: EdgeNode | None = None
        self._session: Session | None = None
        self._busy = asyncio.Lock()

    # ---- the connection -----------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect with the will, subscribe to commands, be born. Raises Unavailable, Misconfigured."""
        if self._node is not None:
            self._memory = self._node.memory()
        node = EdgeNode(self._fleet.shape.group, self.name, self._memory)
        will = node.connect(_now())
        self._memory = node.memory()
        # The identity is new each time: what a broker still has of a test before is not this one's.
        client_id = f"shopfloor-load-{self._number + 1}-{random.randbytes(4).hex()}"  # noqa: S311  # no secret
        session = await open_session(
            self._connection, client_id, will=Will(will.topic.encode(), encode(will.payload), 1)
        )
        try:
            await session.subscribe([Subscription(node.command_topic)])
            self._node, self._session = node, session
            async with self._busy:
                await self._bear()
        except BaseException:
            self._session = None
            await session.close()
            raise

    async def live(self) -> None:
        """Tell every round and answer hosts, and come back when the connection is lost; for ever."""
        pause = _FIRST_PAUSE
        while True:
            try:
                if self._session is None:
                    await self.connect()
                    pause = _FIRST_PAUSE
                await self._work()
            except Unavailable as error:
                if self._session is not None:
                    self._fleet.lost += 1
                    self._session.abort()
                    self._session = None
                else:
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._fleet.trouble = str(error)
                self.born = False

    def drop(self) -> None:
        """Break the connection."""
        if self._session is not None:
            self._session.abort()

    async def leave(self) -> None:
        """Say NDEATH and DISCONNECT where that is still possible."""
        node, session, self._session = self._node, self._session, None
        if node is None or session is None:
            return
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                topic, payload = node.death(_now())
                await session.publish([Message(topic.encode(), encode(payload), retain=False)], 1)
        await session.close()

    async def _work(self) -> None:
        """What is to be done on one connection; raises Unavailable when it is lost."""
        session = self._session
        if session is None:
            return
        await _all([self._listen(session), self._tell()])

    # ---- what it says -------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while (turn := await self._fleet.turn(self._number, self._turn)) < self._fleet.turns:
            self._turn = turn + 1  # whatever becomes of it: what was said once is not said again
            async with self._busy:
                await self._say(turn)
        self.told.set()

    async def _say(self, turn: int) -> None:
        """A message of each device, all metrics of this moment."""
        node, session = self._node, self._session
        if node is None or session is None or session.lost is not None:
            self._fleet.skipped += 1
            raise Unavailable("the connection was lost" if session is None else str(session.lost))
        self._time = moment = max(_now(), self._time + 1)
        size = len(self._tags)
        batch = Batch("fleet", moment * _MS, self._tags, array("q", [moment * _MS]) * size, self._values(turn))
        messages = [_message(publication) for publication in node.data([batch], moment)]
        at = time.time_ns()
        for device in range(self._fleet.shape.devices):
            self._register.said(self._first + device, turn, moment * _MS, at)
        self._fleet.messages += len(messages)
        await session.publish(messages, 0)
        node.confirm()
        self._last = turn

    def _values(self, turn: int) -> list[Value]:
        """Of all devices: how often it produced, whether it runs, what it measures."""
        shape = self._fleet.shape
        some: list[Value] = [turn, turn % 10 != 0, *(turn + number / 1000 for number in range(2, shape.metrics))]
        return some[: shape.metrics] * shape.devices

    async def _bear(self) -> None:
        """NBIRTH and all DBIRTHs; each metric tells once more what it said last."""
        node, session = self._node, self._session
        if node is None or session is None:
            return
        now = _now()
        births = [_message(publication) for publication in node.births(now)]
        self._time = max(self._time, now)  # a birth without values has a time, too, which is no sample's then
        if self._last is not None:
            for device in range(self._fleet.shape.devices):
                self._register.retold(self._first + device, self._last)
        await session.publish(births, 0)
        self.births += 1
        self.born = True

    # ---- what it hears ------------------------------------------------------------------------------

    async def _listen(self, session: Session) -> None:
        async for arrivals in session.arrivals():
            node = self._node
            for arrival in arrivals:
                with suppress(Malformed):
                    if node is not None:
                        node.command(decode(arrival.payload))
            session.acknowledge(arrivals)
            if node is not None and node.rebirth_due() is not None:
                self.asked += 1
                async with self._busy:  # no data between the request and the birth
                    await asyncio.sleep(max(0, (node.rebirth_due() or 0) - _now()) / 1000)
                    await self._bear()


def _devices(shape: Shape) -> Iterator[KnownDevice]:
    alias = 1
    for device in range(shape.devices):
        metrics: list[KnownMetric] = []
        for metric in range(shape.metrics):
            kind = (DataType.INT64, DataType.BOOLEAN)[metric] if metric < 2 else DataType.DOUBLE  # noqa: PLR2004
            metrics.append(KnownMetric(name=metric_name(metric), alias=alias, type=kind))
            alias += 1
        yield KnownDevice(name=device_name(device), metrics=metrics)


def _message(publication: Publication) -> Message:
    body = encode(publication.payload, datatypes=publication.is_birth)
    return Message(publication.topic.encode(), body, retain=False)


def _now() -> int:
    return time.time_ns() // _MS


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of these at the same time; the first error ends the others and is raised as it is."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
