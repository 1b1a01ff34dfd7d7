"""When many edge nodes reconnect at once: how often each is asked for a rebirth, how long the view is wrong.

Each node has one device and tells it at every interval. The view is right again when the newest sample of every tag in
the historian is one that its node said after it came back.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import numpy as np

from shopfloor.bench import Result
from shopfloor.bench.observed import Observed, Order, Told, plain
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.broker import Broker
from shopfloor.simulators.sparkplug_fleet import Fleet, Shape

METRICS: Final = 10
INTERVAL: Final = 2 * 10**9

_MS: Final = 10**6
_RIGHT_WITHIN: Final = 180.0
_FOR_EVER: Final = 10**6
"""Rounds."""
_LOOKS_EVERY: Final = 0.05


async def nodes_return(nodes: int) -> list[Result]:
    """The connections of all nodes break at once and they come back, while the host is there."""
    async with _stage(nodes) as stage:
        return await _after("rebirth_storm", stage, stage.drop)


async def broker_returns(nodes: int) -> list[Result]:
    """The broker is restarted: nodes and host come back at the same time, births may pass before the host is there."""
    async with _stage(nodes) as stage:
        return await _after("broker_restart", stage, stage.broker.restart)


async def host_returns(nodes: int) -> list[Result]:
    """The host is restarted and knows none of the nodes, which say on what they say: each must be asked, once."""
    async with _stage(nodes) as stage:
        return await _after("host_restart", stage, stage.host.restart)


class _View:
    """The newest sample of each tag in the historian, as the Shopfloor told it."""

    def __init__(self, shape: Shape) -> None:
        self._ours = {tag: number for number, tag in enumerate(shape.tag_names())}
        self._numbers: list[int] = []
        self._newest = np.zeros(shape.tags, np.int64)

    def forget_numbers(self) -> None:
        """Another process tells from now on."""
        self._numbers = []

    def hear(self, told: Told) -> None:
        self._numbers += [self._ours[tag] for tag in told.new_tags]
        if told.stage != "historian":
            return
        tags = np.array(self._numbers, np.int64)[np.frombuffer(told.tags, np.uint32)]
        np.maximum.at(self._newest, tags, np.frombuffer(told.times, np.int64))

    def wrong(self, since: int) -> int:
        """Tags whose newest sample was not said by their node after ``since``, ns.

        What a host finds stale has a time of its own, which is no whole ms.
        """
        return int(np.count_nonzero((self._newest <= since) | (self._newest % _MS != 0)))


class _Silent:
    """The fleet's account, which nobody needs here."""

    def said(self, device: int, turn: int, time: int, at: int) -> None:
        """Nothing."""

    def retold(self, device: int, turn: int) -> None:
        """Nothing."""


class _Restartable:
    """A broker that comes back at the same port."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self.broker = Broker(kind="mosquitto")

    async def start(self) -> None:
        await self._stack.enter_async_context(self.broker)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        self.broker = Broker(self.broker.port, kind="mosquitto")
        await self.start()


class _Host:
    """A Shopfloor that comes back with what it kept."""

    def __init__(self, order: Order, view: _View) -> None:
        self._order = order
        self._view = view
        self._observed = Observed(order, view.hear)

    async def start(self) -> None:
        await self._observed.__aenter__()

    async def stop(self) -> None:
        await self._observed.__aexit__(None, None, None)

    async def restart(self) -> None:
        await self.stop()
        self._view.forget_numbers()
        self._observed = Observed(self._order, self._view.hear)
        await self.start()


class _Stage(NamedTuple):
    broker: _Restartable
    host: _Host
    fleet: Fleet
    view: _View

    async def drop(self) -> None:
        self.fleet.drop()


@asynccontextmanager
async def _stage(nodes: int) -> AsyncGenerator[_Stage]:
    """A broker, a Shopfloor, and nodes that tell data; its view is right."""
    shape = Shape(nodes=nodes, metrics=METRICS)
    async with AsyncExitStack() as stack:
        broker = _Restartable()
        await broker.start()
        stack.push_async_callback(broker.stop)
        connection = MqttConnection(servers=[broker.broker.address])
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="shopfloor-bench-"))
        view = _View(shape)
        order = Order(kind="plant", connection=plain(connection), group=shape.group, folder=folder)
        host = _Host(order, view)
        await host.start()
        stack.push_async_callback(host.stop)
        fleet = await stack.enter_async_context(Fleet(connection, shape, INTERVAL, _Silent()))
        began = time.time_ns()
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        playing = asyncio.create_task(fleet.play(_FOR_EVER, stop))
        try:
            await _right(view, began)
            yield _Stage(broker, host, fleet, view)
        finally:
            stop.set_result(None)
            await playing


async def _right(view: _View, since: int) -> float:
    """Wait until the view is right and say how long that took, s. Raises RuntimeError when it takes too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _RIGHT_WITHIN
    while wrong := view.wrong(since):
        if loop.time() > end:
            raise RuntimeError(f"{wrong:,} tags are still wrong after {_RIGHT_WITHIN:g} s: this must not be")
        await asyncio.sleep(_LOOKS_EVERY)
    return (time.time_ns() - since) / 10**9


async def _after(name: str, stage: _Stage, strike: Callable[[], Awaitable[None]]) -> list[Result]:
    """Strike, and say how it went, counted from when all that was away is there again."""
    before, births = stage.fleet.rebirths, stage.fleet.births
    await strike()
    since = time.time_ns()
    seconds = await _right(stage.view, since)
    await asyncio.sleep(2 * INTERVAL / 10**9)
    if stage.view.wrong(since):
        raise RuntimeError("the view was right and became wrong again: this must not be")
    asked = [now - then for now, then in zip(stage.fleet.rebirths, before, strict=True)]
    born = [now - then for now, then in zip(stage.fleet.births, births, strict=True)]
    return [
        Result(name, round(seconds, 2), f"s until {len(asked):,} nodes are right"),
        Result(f"{name}_requests", sum(asked), "rebirths requested"),
        Result(f"{name}_requests_most", max(asked), "of one node"),
        Result(f"{name}_births_most", max(born), "of one node"),
    ]
