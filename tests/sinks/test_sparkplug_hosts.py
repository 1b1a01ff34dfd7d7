"""Our edge node with hosts of other makes, whose code shares nothing with ours, at a real Mosquitto.

Tahu's is a whole host application; the others read, command and say STATE with what their libraries have.
"""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from shopfloor.commands import Audit, CommandInbox, Commands
from shopfloor.plant import Allow, Commands as CommandsConfig
from shopfloor.samples import Batch, Command, Outcome, Quality, Sample, Unavailable, Value
from shopfloor.sinks.sparkplug import SparkplugSink
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto
from tests.sinks.test_sparkplug import MS, config, kept_out, live, now
from tests.sources.sparkplug_peers import HostPeer, metric

WITHIN: Final = 60.0
NODE: Final = "bremen/edge"
PRESS: Final = "bremen/edge/press"


class Hearing:
    """What a host gives out."""

    def __init__(self, peer: HostPeer) -> None:
        self.peer = peer
        self.heard: list[dict[str, Any]] = []

    async def has(self, what: str, met: Callable[[], bool]) -> None:
        """Wait until what the host heard so far is so."""
        deadline = time.monotonic() + WITHIN
        while not met():
            assert time.monotonic() < deadline, f"not heard: {what}; but {self.heard[-20:]}"
            await asyncio.sleep(0.02)
            self.heard += await self.peer.heard(len(self.heard))

    def events(self) -> list[tuple[str, str]]:
        """Births and deaths, and whose."""
        return [(one["event"], one["where"]) for one in self.heard if "name" not in one]

    async def event(self, event: str, where: str, count: int = 1) -> None:
        """Wait for a birth or a death."""
        await self.has(f"{event} of {where}", lambda: self.events().count((event, where)) >= count)

    def said(self, event: str, where: str = PRESS) -> list[dict[str, Any]]:
        """The metrics that came with ``born``, ``data`` or ``stale``."""
        return [one for one in self.heard if one["event"] == event and one["where"] == where and one.get("name")]

    async def born(self, *values: object) -> None:
        """Wait until births told just these values, in this order: a host tells the birth itself before its metrics."""
        await self.has(f"born with {values}", lambda: [one["value"] for one in self.said("born")] == [*values])

    async def value(self, name: str, value: object) -> dict[str, Any]:
        """The first data of a metric with this value."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.said("data") if (one["name"], one["value"]) == (name, value)]

        await self.has(f"{name} is {value}", lambda: bool(found()))
        return found()[0]


@asynccontextmanager
async def host(folder: Path, make: str = "tahu") -> AsyncIterator[tuple[Mosquitto, Hearing]]:
    """A broker with the host ``scada`` at it."""
    async with Mosquitto(folder) as broker, HostPeer(make, broker.port) as peer:
        yield broker, Hearing(peer)


async def keep_writing(sink: SparkplugSink) -> None:
    """Until it raises."""
    async with asyncio.timeout(WITHIN):
        for offset in range(1000, 10**6):
            await sink.write(offset, live("press/PV", offset))
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("make", ["tahu", "pysparkplug", "sparkplug-client"])
async def test_births_data_history_and_deaths_are_what_a_host_sees(make: str, tmp_path: Path) -> None:
    """Every kind of value, by alias; a device that goes and comes; the end. One cannot read without datatypes."""
    legacy = {"datatypes_in_data": make == "sparkplug-client"}
    values: dict[str, tuple[Value, object]] = {
        "b": (True, True), "i": (-(2**63), -(2**63)), "u": (2**64 - 1, 2**64 - 1), "x": (0.1, 0.1),
        "s": ("Größe\x00", "Größe\x00"), "y": (b"\x00\xff", base64.b64encode(b"\x00\xff").decode()),
    }  # fmt: skip
    async with host(tmp_path, make) as (broker, hearing):
        async with config(broker.port, tmp_path, primary_host="scada", legacy=legacy).build() as sink:
            at = now() // MS * MS
            await sink.write(1, Batch.of("plc", at, [Sample(f"press/{n}", at, v) for n, (v, _) in values.items()]))
            for name, (_, read) in values.items():
                said = await hearing.value(name, read)
                assert (said["timestamp"], said["historical"]) == (at // MS, False)
            assert {one["name"] for one in hearing.said("born")} == set(values)
            old = at - 60 * 10**9
            await sink.write(2, Batch.of("plc", old, [Sample("press/x", old, 7.5)]))
            assert (await hearing.value("x", 7.5))["historical"]
            bad = Sample("press/x", at + MS, 8.5, Quality.UNCERTAIN)
            await sink.write(3, Batch.of("plc", now(), [bad]))
            said = await hearing.value("x", 8.5)
            assert make == "pysparkplug" or said["properties"]["Quality"] == 500  # it reads no properties
            for offset, there, event in ((4, False, "DDEATH"), (5, True, "DBIRTH")):
                await sink.write(offset, Batch.of("$source", now(), [Sample("$source/plc/connected", now(), there)]))
                await hearing.event(event, PRESS)
        await hearing.event("NDEATH", NODE)
        if make == "tahu":  # the others keep no state; it tells a death first, then what of it is stale
            await hearing.has("all stale", lambda: {one["name"] for one in hearing.said("stale")} == set(values))
        # The others hear the death twice: our own, and the will that MQTT 5 sends after it.
        assert hearing.events()[:5] == [
            ("NBIRTH", NODE), ("DBIRTH", PRESS), ("DDEATH", PRESS), ("DBIRTH", PRESS), ("NDEATH", NODE),
        ]  # fmt: skip


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-commands-rebirth-action-2",
    "tck-id-operational-behavior-data-commands-rebirth-action-3",
)
async def test_a_rebirth_that_tahus_host_asks_for_is_given(tmp_path: Path) -> None:
    """By itself when it comes late, and when its user asks; it leaves the datatype out. Nothing else is obeyed."""
    async with (
        Mosquitto(tmp_path) as broker,
        config(broker.port, tmp_path).build() as sink,
    ):
        await sink.write(1, live("press/PV", 1.5))
        async with HostPeer("tahu", broker.port) as peer:
            hearing = Hearing(peer)
            async with asyncio.timeout(2 * WITHIN):  # Tahu hopes for 5 s that the birth is only late
                for offset in range(2, 10**6):
                    await sink.write(offset, live("press/PV", 2.5))
                    hearing.heard += await peer.heard(len(hearing.heard))
                    if hearing.events():
                        break
                    await asyncio.sleep(0.05)
            await hearing.event("DBIRTH", PRESS)
            await hearing.born(2.5)
            await sink.write(10**6, live("press/PV", 3.5))
            await hearing.value("PV", 3.5)
            await peer.ask(topic="spBv1.0/bremen/DCMD/edge/press", metrics=[metric("PV", "Double", 99.5)])
            rebirth = metric("Node Control/Rebirth", "Boolean", True)
            await peer.ask(topic="spBv1.0/bremen/NCMD/edge", metrics=[rebirth])
            await hearing.event("DBIRTH", PRESS, 2)
            await hearing.born(2.5, 3.5)
            assert len({one["value"] for one in hearing.said("born", NODE) if one["name"] == "bdSeq"}) == 1
            assert hearing.events() == [("NBIRTH", NODE), ("DBIRTH", PRESS)] * 2


async def test_a_node_that_vanishes_is_stale_at_tahus_host_until_it_is_back(tmp_path: Path) -> None:
    async with host(tmp_path) as (broker, hearing), FaultProxy("127.0.0.1", broker.port) as proxy:
        sink = config(proxy.port, tmp_path, primary_host="scada").build()
        async with sink:
            await sink.write(1, live("press/PV", 1.5))
            await hearing.value("PV", 1.5)
            proxy.reset()
            await hearing.event("NDEATH", NODE)
            await hearing.has("PV is stale", lambda: [one["name"] for one in hearing.said("stale")] == ["PV"])
        proxy.heal()
        async with sink:
            await sink.write(2, live("press/PV", 2.5))
            await hearing.value("PV", 2.5)
        await hearing.event("NDEATH", NODE, 2)
        assert [one["value"] for one in hearing.said("born", NODE) if one["name"] == "bdSeq"] == [0, 1]


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-phid-wait-online",
    "tck-id-message-flow-edge-node-birth-publish-phid-offline",
    "tck-id-operational-behavior-edge-node-termination-host-offline",
)
async def test_nothing_is_published_while_tahus_host_is_offline(tmp_path: Path) -> None:
    """Its STATE is that of Sparkplug 3.0. What was not taken is taken after its return."""
    async with host(tmp_path) as (broker, hearing):
        chosen = config(broker.port, tmp_path, primary_host="scada")
        sink = chosen.build()
        async with sink:
            await sink.write(1, live("press/PV", 1.5))
            await hearing.value("PV", 1.5)
            await hearing.peer.ask(online=False)
            await hearing.event("NDEATH", NODE)
            held = live("press/PV", 2.5)
            with pytest.raises(Unavailable, match="scada went offline"):
                await sink.write(2, held)
        await kept_out(chosen, "scada is not online")
        await hearing.peer.ask(online=True)
        async with sink:
            await sink.write(2, held)
            assert (await hearing.value("PV", 2.5))["historical"]
            hearing.peer.kill()
            with pytest.raises(Unavailable, match="scada went offline"):
                await keep_writing(sink)


@pytest.mark.sparkplug("tck-id-message-flow-device-dcmd-subscribe")
@pytest.mark.parametrize("make", ["tahu", "pysparkplug", "sparkplug-client"])
async def test_what_a_host_commands_is_written_and_comes_back(make: str, tmp_path: Path) -> None:
    """To a device and to the node, with a datatype and without, UInt32 in long_value; the rest stays as it is."""
    writes: list[tuple[str, Value]] = []
    legacy = {"datatypes_in_data": make == "sparkplug-client"}
    async with host(tmp_path, make) as (broker, hearing):
        settings = config(broker.port, tmp_path, primary_host="scada", commands={}, legacy=legacy)
        sink = settings.build()

        async def execute(command: Command) -> Outcome:
            writes.append((command.tag, command.value))
            await sink.write(10 + len(writes), live(command.tag, command.value))
            return Outcome(command.id, done=True, detail="")

        may = CommandsConfig(allow=[Allow(tag="press/SP", range=(0, 80)), Allow(tag="press/Count"), Allow(tag="line")])
        async with Commands(may, Audit(tmp_path / "audit.db", time.time_ns), execute) as path:
            allowed = settings.commanded()
            assert allowed is not None
            sink.commanded(CommandInbox(path, allowed, settings.name))
            async with sink:
                await sink.write(1, live("press/SP", 1.5))
                await sink.write(2, live("press/Count", 1))
                await sink.write(3, live("line", "day"))
                await hearing.event("NBIRTH", NODE, 2)
                for value in (81.0, 42.5):
                    set_point = metric("SP", "Double", value)
                    await hearing.peer.ask(topic="spBv1.0/bremen/DCMD/edge/press", metrics=[set_point])
                # One writes UInt32 where a UInt32 belongs, which no Int64 can be read from without a datatype.
                count = metric("Count", "Int64" if make == "pysparkplug" else "UInt32", 2**32 - 1)
                await hearing.peer.ask(topic="spBv1.0/bremen/DCMD/edge/press", metrics=[count])
                shift = metric("line", "String", "Nacht")
                await hearing.peer.ask(topic="spBv1.0/bremen/NCMD/edge", metrics=[shift])
                await hearing.value("SP", 42.5)
                await hearing.value("Count", 2**32 - 1)
                await hearing.has("the shift", lambda: any(d["value"] == "Nacht" for d in hearing.said("data", NODE)))
    assert sorted(writes) == [("line", "Nacht"), ("press/Count", 2**32 - 1), ("press/SP", 42.5)]


@pytest.mark.parametrize("make", ["pysparkplug", "sparkplug-client"])
async def test_a_rebirth_that_other_makes_ask_for_is_given(make: str, tmp_path: Path) -> None:
    """One leaves the datatype of its command out, the other does not."""
    async with (
        host(tmp_path, make) as (broker, hearing),
        config(broker.port, tmp_path, primary_host="scada").build() as sink,
    ):
        await sink.write(1, live("press/PV", 1.5))
        await hearing.event("DBIRTH", PRESS)
        rebirth = metric("Node Control/Rebirth", "Boolean", True)
        await hearing.peer.ask(topic="spBv1.0/bremen/NCMD/edge", metrics=[rebirth])
        await hearing.event("DBIRTH", PRESS, 2)
        await hearing.peer.ask(online=False)
        await hearing.event("NDEATH", NODE)


async def test_sparkplug_client_reads_no_value_without_a_datatype(tmp_path: Path) -> None:
    """So the option ``datatypes_in_data`` is there."""
    async with (
        host(tmp_path, "sparkplug-client") as (broker, hearing),
        config(broker.port, tmp_path, primary_host="scada").build() as sink,
    ):
        await sink.write(1, live("press/PV", 1.5))
        assert (await hearing.value("PV", None))["name"] == "PV"
