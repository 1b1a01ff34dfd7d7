"""``shopfloor load-test``: Sparkplug edge nodes that say something at every interval, and what became of all of it."""

import asyncio
import math
import re
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import click
import msgspec
import numpy as np

from shopfloor.bench.arrivals import MOST_SAMPLES, Account, Latency, Outcome
from shopfloor.bench.observed import Observed, Order, Stage, Told, plain
from shopfloor.plant import format_duration
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.broker import Broker
from shopfloor.running import until_stopped
from shopfloor.samples import Misconfigured
from shopfloor.simulators.sparkplug_fleet import Fleet, Shape

LEAST_INTERVAL: Final = 10**7
"""ns."""

_SECOND: Final = 10**9
_SPARE_FILES: Final = 100
_PROGRESS_EVERY: Final = 5.0
_PATIENCE: Final = 10.0
"""Seconds without any arrival after which the rest counts as lost."""
_UNKNOWN: Final = 2**32 - 1
_GROUP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")
"""What is the same in a topic and in a tag."""
_WHERE: Final[dict[Stage, str]] = {
    "historian": "publish → durable in the historian",
    "journal": "publish → durable in the journal",
    "received": "publish → received by a subscriber",
}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be played, and against whom."""

    shape: Shape
    interval: int
    """ns."""
    turns: int
    """How often each node says something."""
    server: MqttConnection | None
    """The user's broker; None: a broker and a Shopfloor of our own."""

    @property
    def samples(self) -> int:
        """All that is to be said."""
        return self.shape.tags * self.turns


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` prints."""

    nodes: int
    devices: int
    metrics: int
    interval_ms: float
    planned: int
    """Samples, as all counts of samples here."""
    sent: int
    arrived_once: int
    success_rate: float
    lost: int
    doubled: int
    out_of_order: int
    latency_ms: dict[Stage, Latency]
    """By where the samples arrived."""
    messages: int
    seconds: float
    messages_per_second: float
    metrics_per_second: float
    connections_lost: int
    rebirths_requested: int
    ledger_balances: bool | None
    """None: there is no ledger, the broker is the user's."""
    trouble: list[str]


def load(shape: Shape, interval: int, duration: int, server: MqttConnection | None) -> Load:
    """A load of ``duration``, both times in ns. Raises Misconfigured when it cannot be played."""
    if interval < LEAST_INTERVAL:
        raise Misconfigured("--interval must be 10ms or longer; for more messages take more --devices or --nodes")
    if duration < interval:
        raise Misconfigured("--for must be as long as --interval at least: every node says something once an interval")
    if not _GROUP.fullmatch(shape.group):
        raise Misconfigured(f"--group {shape.group!r}: take up to 64 letters, digits, spaces and the characters . _ -")
    found = Load(shape=shape, interval=interval, turns=duration // interval, server=server)
    if found.samples > MOST_SAMPLES:
        raise Misconfigured(
            f"{found.samples:,} samples are more than the {MOST_SAMPLES:,} that are kept account of; "
            "take a shorter --for, a longer --interval or fewer --metrics"
        )
    return found


async def run(wanted: Load, *, as_json: bool) -> int:
    """Play the load until its end or Ctrl-C, print what became of it; 0 when all arrived exactly once, else 1.

    Raises Unavailable when the broker cannot be reached, Misconfigured when it does not let us in.
    """
    _allow_files(wanted.shape.nodes + _SPARE_FILES)
    stopped = asyncio.ensure_future(until_stopped())
    try:
        test = _Test(wanted, quiet=as_json)
        report = await test.run(stopped)
    finally:
        stopped.cancel()
    click.echo(msgspec.json.encode(report).decode() if as_json else as_text(report))
    return 0 if report.sent and report.arrived_once == report.sent and not report.trouble else 1


class _Test:
    """One run."""

    def __init__(self, wanted: Load, *, quiet: bool) -> None:
        shape = wanted.shape
        self._wanted = wanted
        self._quiet = quiet
        self._stages: Sequence[Stage] = ("historian", "journal") if wanted.server is None else ("received",)
        self._accounts: dict[Stage, Account] = {
            one: Account(shape.all_devices, shape.metrics, wanted.turns) for one in self._stages
        }
        self._main = self._accounts[self._stages[0]]
        self._ours = {tag: number for number, tag in enumerate(shape.tag_names())}
        self._numbers: list[int] = []
        self._table = np.array([], np.uint32)
        self._seconds = 0.0

    async def run(self, stopped: "asyncio.Future[None]") -> Report:
        async with AsyncExitStack() as stack:
            connection = self._wanted.server
            if connection is None:
                broker = await stack.enter_async_context(Broker())
                connection = MqttConnection(servers=[broker.address])
                self._say(
                    f"A {broker.kind} and a Shopfloor of its own, in processes of their own; nothing else is touched."
                )
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="shopfloor-load-"))
            order = Order(
                kind="plant" if self._wanted.server is None else "passive",
                connection=plain(connection),
                group=self._wanted.shape.group,
                folder=folder,
            )
            observed = Observed(order, self._hear)
            fleet = Fleet(connection, self._wanted.shape, self._wanted.interval, self)
            async with observed, fleet:
                self._say(_welcome(self._wanted))
                async with self._progress():
                    await self._play(fleet, observed, stopped)
                    await self._drain(observed)
        return self._report(fleet, observed)

    async def _play(self, fleet: Fleet, observed: Observed, stopped: "asyncio.Future[None]") -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        stop: asyncio.Future[None] = loop.create_future()
        dead = asyncio.ensure_future(observed.ended())
        for reason in (stopped, dead):
            reason.add_done_callback(lambda _: None if stop.done() else stop.set_result(None))
        try:
            await fleet.play(self._wanted.turns, stop)
        finally:
            dead.cancel()
        self._seconds = loop.time() - began

    async def _drain(self, observed: Observed) -> None:
        """Wait for what is under way."""
        loop = asyncio.get_running_loop()
        since, before = loop.time(), -1
        while self._missing() and observed.running and loop.time() - since < _PATIENCE:
            if self._missing() != before:
                since, before = loop.time(), self._missing()
            await asyncio.sleep(0.02)

    def _missing(self) -> int:
        return sum(account.sent - account.arrived for account in self._accounts.values())

    # ---- what is said and what arrives -----------------------------------------------------------------

    def said(self, device: int, turn: int, time: int, at: int) -> None:
        """The fleet says something."""
        for account in self._accounts.values():
            account.said(device, turn, time, at)

    def retold(self, device: int, turn: int) -> None:
        """A birth says it once more."""
        for account in self._accounts.values():
            account.retold(device, turn)

    def _hear(self, told: Told) -> None:
        if told.stage not in self._accounts:
            return
        if told.new_tags:
            self._numbers += [self._ours.get(tag, _UNKNOWN) for tag in told.new_tags]
            self._table = np.array(self._numbers, np.uint32)
        tags = self._table[np.frombuffer(told.tags, np.uint32)]
        self._accounts[told.stage].arrive(tags, np.frombuffer(told.times, np.int64), told.at)

    # ---- for people --------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(text)

    @asynccontextmanager
    async def _progress(self) -> AsyncGenerator[None]:
        """A line every few seconds, in a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        task = asyncio.create_task(self._tell_progress())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell_progress(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(_PROGRESS_EVERY)
            latency = self._main.recent()
            late = "" if latency is None else f", p95 {latency.p95:,.1f} ms"
            account = self._main
            under_way = account.sent - account.arrived
            click.echo(
                f"{loop.time() - began:5.0f} s: {account.sent:,} samples sent, {account.arrived:,} arrived, "
                f"{under_way:,} under way{late}",
                err=True,
            )

    def _report(self, fleet: Fleet, observed: Observed) -> Report:
        shape, outcome = self._wanted.shape, self._main.outcome()
        latencies: dict[Stage, Latency] = {}
        for stage, account in self._accounts.items():
            if (latency := account.outcome().latency) is not None:
                latencies[stage] = latency
        seconds = max(outcome.seconds, self._seconds)
        arrived = outcome.sent - outcome.lost
        return Report(
            nodes=shape.nodes,
            devices=shape.devices,
            metrics=shape.metrics,
            interval_ms=self._wanted.interval / 1e6,
            planned=self._wanted.samples,
            sent=outcome.sent,
            arrived_once=outcome.arrived_once,
            success_rate=outcome.success,
            lost=outcome.lost,
            doubled=outcome.doubled,
            out_of_order=outcome.out_of_order,
            latency_ms=latencies,
            messages=fleet.messages,
            seconds=round(seconds, 3),
            messages_per_second=round(fleet.messages * arrived / max(outcome.sent, 1) / max(seconds, 1e-9), 1),
            metrics_per_second=round(arrived / max(seconds, 1e-9), 1),
            connections_lost=fleet.lost,
            rebirths_requested=sum(fleet.rebirths),
            ledger_balances=observed.balanced if self._wanted.server is None else None,
            trouble=list(_trouble(fleet, observed, outcome)),
        )


def _trouble(fleet: Fleet, observed: Observed, outcome: Outcome) -> Iterator[str]:
    """What spoils the test itself, not what the numbers say."""
    if not outcome.sent:
        yield "nothing was sent"
    if fleet.skipped:
        yield (
            f"{fleet.skipped:,} rounds of a node were skipped: it was not connected, or this computer is too slow for "
            "this load; a second computer can play it with --server"
        )
    if fleet.lost:
        yield f"{fleet.lost:,} connections were lost, the last because: {fleet.trouble}"
    if observed.failure:
        yield f"what counts the arrivals failed: {observed.failure}"
    if not observed.balanced:
        yield "the ledger of the Shopfloor under test does not balance; this is a bug, please report it"


def _allow_files(wanted: int) -> None:
    """Allow this process and those that it starts a connection for every node. Raises Misconfigured."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Misconfigured(
            f"every node needs a connection, and this user may open {hard:,} files; "
            f"take fewer --nodes, or allow more: ulimit -n {wanted}"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _welcome(wanted: Load) -> str:
    shape = wanted.shape
    rate = shape.all_devices * _SECOND / wanted.interval
    where = "" if wanted.server is None else f" at {wanted.server.servers[0]}"
    return (
        f"{shape.nodes:,} edge nodes{where} with {shape.devices:,} devices of {shape.metrics:,} metrics each, every "
        f"{format_duration(wanted.interval)}: {rate:,.0f} messages/s, {rate * shape.metrics:,.0f} metrics/s, "
        f"for {format_duration(wanted.interval * wanted.turns)}. Ctrl-C ends it."
    )


def as_text(report: Report) -> str:
    """The report for people."""
    sent, once = f"{report.sent:,}", f"{report.arrived_once:,}"
    rates = f"{report.messages_per_second:,.0f} messages/s, {report.metrics_per_second:,.0f} metrics/s"
    lines = [
        "",
        f"success rate  {_percent(report.success_rate)}: {once} of {sent} samples arrived exactly once",
        f"lost          {report.lost:,}",
        f"doubled       {report.doubled:,}",
        f"out of order  {report.out_of_order:,}",
        *(f"latency       {_latency(one)}   {_WHERE[stage]}" for stage, one in report.latency_ms.items()),
        f"throughput    {rates} over {report.seconds:,.1f} s",
        f"rebirths      {report.rebirths_requested:,} requested by hosts",
    ]
    if report.sent < report.planned:
        lines.append(f"not sent      {report.planned - report.sent:,} of {report.planned:,} planned samples")
    if report.ledger_balances:
        lines.append("ledger        balances")
    return "\n".join([*lines, *(f"! {text}" for text in report.trouble)])


def _percent(part: float) -> str:
    """Never more than it is: 100 % is all."""
    return "100 %" if part == 1 else f"{math.floor(part * 1e6) / 1e4:.4f} %"


def _latency(one: Latency) -> str:
    return f"p50 {one.p50:,.1f}   p95 {one.p95:,.1f}   p99 {one.p99:,.1f}   max {one.max:,.1f} ms"
