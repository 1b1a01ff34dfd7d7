"""The Sparkplug source against a real Mosquitto, with an edge node that knows nothing of the host's code."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import Message
from shopfloor.protocols.mqtt_session import Arrival, Subscription, open_session
from shopfloor.protocols.sparkplug.exchange import Arrival as Said, Moment, Step
from shopfloor.protocols.sparkplug.host import Host
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import encode
from shopfloor.samples import Batch, Command, Misconfigured, Quality, Sample, TagInfo, Unavailable, Value
from shopfloor.sinks.sparkplug import SparkplugConfig
from shopfloor.sources.sparkplug import SparkplugHostConfig, SparkplugSource
from shopfloor.testing.contracts import ProxiedRig, SourceContract, SourceRig, until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto, free_port
from tests.sources.sparkplug_edge import Edge


def config(port: int, **more: Any) -> SparkplugHostConfig:
    return SparkplugHostConfig.model_validate(
        {
            "name": "floor", "type": "sparkplug", "servers": f"mqtt://127.0.0.1:{port}", "host_id": "mes",
            "keep_alive": "20 s", "timeout": "30 s", "rebirth_spread": "0 s", **more,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("broker")) as started:
        yield started


class Rig(ProxiedRig):
    def __init__(self, edge: Edge, proxy: FaultProxy, seconds: str) -> None:
        self.edge = edge
        super().__init__(config(proxy.port, keep_alive=seconds, timeout=seconds).build(), proxy)

    async def change(self) -> None:
        await self.edge.set("PV", self.edge.values["PV"] + 1)

    def writable(self) -> tuple[str, Value]:
        return "g/e1/SP", 71.25

    async def held(self, tag: str) -> Value:
        value: Value = self.edge.values[tag.removeprefix("g/e1/")]
        return value


class TestContract(SourceContract):
    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:
        folder.mkdir(exist_ok=True)
        async with (
            Mosquitto(folder) as broker,
            FaultProxy("127.0.0.1", broker.port) as proxy,
            Edge.at(broker.port) as edge,
        ):
            yield Rig(edge, proxy, "4 s" if self.hasty else "30 s")


class Reader:
    """Takes batches as the pipeline does."""

    def __init__(self, source: SparkplugSource) -> None:
        self.source = source
        self.batches: list[Batch] = []
        self.ended: Exception | None = None

    @classmethod
    @asynccontextmanager
    async def of(cls, source: SparkplugSource) -> AsyncIterator["Reader"]:
        reader = cls(source)
        task = asyncio.create_task(reader._read())
        try:
            yield reader
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _read(self) -> None:
        try:
            async with aclosing(self.source.batches()) as batches:
                async for batch in batches:
                    self.batches.append(batch)
        except Unavailable as error:
            self.ended = error

    @property
    def samples(self) -> list[Sample]:
        return [sample for batch in self.batches for sample in batch]

    async def has(self, tag: str, value: Value) -> None:
        await until(
            lambda: any((s.tag, s.value) == (tag, value) for s in self.samples), f"{tag} is {str(value)[:50]!r}"
        )


@asynccontextmanager
async def state_watch(port: int) -> AsyncIterator[list[Arrival]]:
    """What is published on STATE topics."""
    connection = MqttConnection.model_validate({"servers": f"mqtt://127.0.0.1:{port}"})
    session = await open_session(connection, f"watch-{time.monotonic_ns()}")
    await session.subscribe([Subscription("spBv1.0/STATE/#")])
    found: list[Arrival] = []

    async def watch() -> None:
        async for packets in session.arrivals():
            session.acknowledge(packets)
            found.extend(packets)

    task = asyncio.create_task(watch())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await session.close()


@pytest.mark.sparkplug(
    "tck-id-intro-sparkplug-host-state", "tck-id-components-ph-state", "tck-id-host-topic-phid-birth-required",
    "tck-id-operational-behavior-host-application-connect-birth",
    "tck-id-operational-behavior-host-application-termination", "tck-id-message-flow-phid-sparkplug-state-publish",
    "tck-id-message-flow-phid-sparkplug-subscription", "tck-id-conformance-primary-host",
)  # fmt: skip
async def test_the_host_says_online_when_it_comes_and_offline_when_it_goes(tmp_path: Path) -> None:
    """Retained at the broker, so that who comes later knows."""
    async with Mosquitto(tmp_path) as broker, state_watch(broker.port) as heard:
        async with config(broker.port).build():
            await until(lambda: len(heard) == 1, "the STATE birth")
        await until(lambda: len(heard) == 2, "the STATE death")
        assert [one.topic for one in heard] == ["spBv1.0/STATE/mes"] * 2
        online, offline = (json.loads(one.payload) for one in heard)
        assert (online["online"], offline["online"]) == (True, False)
        assert online["timestamp"] <= offline["timestamp"]
        async with state_watch(broker.port) as later:
            await until(lambda: len(later) == 1, "the retained STATE")
            assert later[0].retained
            assert json.loads(later[0].payload) == offline


@pytest.mark.sparkplug(
    "tck-id-host-topic-phid-death-required", "tck-id-operational-behavior-host-application-connect-will",
    "tck-id-payloads-state-will-message", "tck-id-payloads-state-will-message-qos",
    "tck-id-payloads-state-will-message-retain",
)  # fmt: skip
async def test_the_broker_says_offline_when_the_host_vanishes(tmp_path: Path) -> None:
    """By the will, with exactly the timestamp of the birth."""
    async with (
        Mosquitto(tmp_path) as broker,
        FaultProxy("127.0.0.1", broker.port) as proxy,
        state_watch(broker.port) as heard,
        config(proxy.port).build(),
    ):
        await until(lambda: len(heard) == 1, "the STATE birth")
        proxy.reset()
        await until(lambda: len(heard) == 2, "the will")
        online, offline = (json.loads(one.payload) for one in heard)
        assert offline == {"online": False, "timestamp": online["timestamp"]}


@pytest.mark.sparkplug("tck-id-message-flow-hid-sparkplug-state-message-delivered")
async def test_a_late_will_on_the_own_state_is_contradicted(broker: Mosquitto) -> None:
    async with (
        Edge.at(broker.port) as edge,
        config(broker.port).build() as source,
        Reader.of(source),
        state_watch(broker.port) as heard,
    ):
        await until(lambda: len(heard) == 1, "the retained STATE birth")
        await edge.publish("spBv1.0/STATE/mes", b'{"online":false,"timestamp":1}')
        await until(lambda: len(heard) == 3, "the contradiction")
        assert heard[2].payload == heard[0].payload


async def test_births_data_and_devices_become_tags(broker: Mosquitto) -> None:
    async with Edge.at(broker.port) as edge, config(broker.port).build() as source, Reader.of(source) as reader:
        await reader.has("g/e1/cnc/Speed", -7)
        await edge.set("PV", 42.5)
        await reader.has("g/e1/PV", 42.5)
        await edge.say("DDATA", Metric(alias=3, type=DataType.INT32, value=-8), device="cnc")
        await reader.has("g/e1/cnc/Speed", -8)


async def test_a_host_that_comes_late_asks_the_node_once(broker: Mosquitto) -> None:
    """The node obeys another host's STATE, so it gives no birth by itself."""
    async with Edge.at(broker.port) as edge:
        await edge.birth()
        async with config(broker.port, role="passive").build() as passive, Reader.of(passive) as reader:
            await edge.set("PV", 1.0)
            await edge.birth()
            await reader.has("g/e1/PV", 1.0)
            assert edge.rebirths_asked == 0
        edge.births = 0
        async with config(broker.port).build() as source, Reader.of(source) as reader:
            await reader.has("g/e1/PV", 1.0)
            for number in range(20):
                await edge.say("NDATA", Metric(alias=99, type=DataType.DOUBLE, value=float(number)))
            await until(lambda: edge.rebirths_asked > 0, "the rebirth request")
            for number in range(20):
                await edge.say("NDATA", Metric(alias=99, type=DataType.DOUBLE, value=float(number)))
            await edge.set("PV", 77.0)
            await reader.has("g/e1/PV", 77.0)
            assert edge.rebirths_asked == 1


async def test_a_dead_node_and_a_lost_server_make_their_tags_bad(tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path) as broker,
        FaultProxy("127.0.0.1", broker.port) as far,
        config(broker.port).build() as source,
        Reader.of(source) as reader,
    ):
        async with Edge.at(far.port):
            await reader.has("g/e1/PV", 0.5)
            far.reset()
            await reader.has("g/e1/PV", None)
        async with Edge.at(broker.port, bdseq=1):
            await until(lambda: reader.samples[-1].good, "the node is back")
            await asyncio.to_thread(broker.stop)
            await until(lambda: reader.ended is not None, "the loss of the server")
            assert {sample.quality for sample in reader.batches[-1]} == {8}


async def test_what_our_own_edge_node_says_arrives_as_it_was(broker: Mosquitto, tmp_path: Path) -> None:
    """Every kind of value that a sample has, its time to the millisecond, its quality; written back by a command."""
    values: list[Value] = [True, -7, 2**64 - 1, 0.1, "Größe", b"\x00\xff", None]
    now = time.time_ns() // 10**6 * 10**6
    sent = [Sample(f"cnc/m{i}", now, value, 192) for i, value in enumerate(values)]
    sink = SparkplugConfig.model_validate(
        {
            "name": "edge", "type": "sparkplug", "servers": f"mqtt://127.0.0.1:{broker.port}", "group": "own",
            "node": "n", "memory": tmp_path,
        }
    ).build()  # fmt: skip
    async with (
        config(broker.port, groups=["own"], tag="{device}/{metric}").build() as source,
        Reader.of(source) as reader,
        sink,
    ):
        await sink.write(1, Batch.of("plc", time.time_ns(), sent))
        await reader.has("cnc/m1", -7)
        later = [Sample(one.tag, now + 10**9, one.value, Quality.BAD) for one in sent]
        await sink.write(2, Batch.of("plc", time.time_ns(), later))
        await until(lambda: all(one in reader.samples for one in later), "what was sent arrived")
        assert all(one in reader.samples for one in sent)


async def test_garbage_on_every_topic_costs_nothing_else(broker: Mosquitto) -> None:
    async with Edge.at(broker.port) as edge, config(broker.port).build() as source, Reader.of(source) as reader:
        await reader.has("g/e1/PV", 0.5)
        for topic in (
            "spBv1.0/g/NDATA/e1", "spBv1.0/g/DDATA/e1/cnc", "spBv1.0/g/NDEATH/e1", "spBv1.0/g/NBIRTH/other",
            "spBv1.0/g/WHAT/e1", "spBv1.0/g/NDATA/e1/x/y", "spBv1.0///", "spBv1.0/STATE/mes",
        ):  # fmt: skip
            for body in (b"", b"\xff" * 50, b"{}", b"\x08\x01\x12\xff"):
                await edge.publish(topic, body)
        await edge.say("NDEATH", Metric(name="bdSeq", type=DataType.INT64, value=9))
        await edge.birth()
        await edge.set("PV", 43.5)
        await reader.has("g/e1/PV", 43.5)


async def test_a_message_of_10_mb_is_taken(broker: Mosquitto) -> None:
    async with Edge.at(broker.port) as edge, config(broker.port).build() as source, Reader.of(source) as reader:
        await reader.has("g/e1/PV", 0.5)
        text = "x" * 10_000_000
        await edge.say("DBIRTH", Metric(name="Long", type=DataType.STRING, value=text), device="big")
        await reader.has("g/e1/big/Long", text)


async def test_a_birth_of_100_000_metrics_is_worked_on_beside_the_event_loop(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a second of computing, in which all others go on; smaller messages stay where they are."""
    elsewhere: list[tuple[int, bool]] = []
    plain = Host.received

    def received(host: Host, server: str, arrival: Said, now: Moment) -> Step:
        away = threading.current_thread() is not threading.main_thread()
        elsewhere.append((len(arrival.payload.metrics), away))
        return plain(host, server, arrival, now)

    monkeypatch.setattr(Host, "received", received)
    at = time.time_ns() // 10**6
    metrics = [Metric(name=f"S{i}", timestamp=at, type=DataType.INT32, value=i) for i in range(100_000)]
    birth = Payload(timestamp=at, seq=0, metrics=[Metric(name="bdSeq", type=DataType.INT64, value=0), *metrics])
    small = Payload(timestamp=at, seq=1, metrics=[Metric(name="S7", timestamp=at + 1, is_historical=True, value=-7,
                                                         type=DataType.INT32)])  # fmt: skip
    async with config(broker.port).build() as source, Reader.of(source) as reader:
        node = await open_session(config(broker.port), "node")
        for topic, payload in ((b"spBv1.0/g/NBIRTH/big", birth), (b"spBv1.0/g/NDATA/big", small)):
            await node.publish([Message(topic, encode(payload), retain=False)], 1)
        await node.close()
        await until(lambda: len(reader.samples) == 100_001, "every metric", 90)
        assert [sample.value for sample in reader.samples] == [*range(100_000), -7]
    assert elsewhere == [(100_001, True), (1, False)]


async def test_a_retained_message_of_a_node_is_not_taken(broker: Mosquitto) -> None:
    """It may be years old; what is published while the host listens counts."""
    async with Edge.at(broker.port) as edge:
        old = Metric(name="Old", type=DataType.INT32, value=1)
        await edge.say("NBIRTH", old, Metric(name="bdSeq", type=DataType.INT64, value=0), retain=True)
        async with config(broker.port).build() as source, Reader.of(source) as reader:
            await reader.has("g/e1/PV", 0.5)
            assert not [sample for sample in reader.samples if sample.tag == "g/e1/Old"]
        await edge.publish("spBv1.0/g/NBIRTH/e1", b"", retain=True)


async def test_a_command_that_the_node_does_not_confirm_is_unknown(broker: Mosquitto) -> None:
    async with (
        Edge.at(broker.port) as edge,
        config(broker.port, confirmation="300 ms").build() as source,
        Reader.of(source) as reader,
    ):
        await reader.has("g/e1/PV", 0.5)
        edge.obeys = False
        outcome = await source.execute(Command("c", "g/e1/SP", 5.0, "test", time.time_ns() + 10**10))
        assert outcome.done is None
        assert "did not publish" in outcome.detail


async def test_browse_lists_all_metrics_of_all_nodes(broker: Mosquitto) -> None:
    async with Edge.at(broker.port), config(broker.port, discovery="500 ms").build() as source:
        found: dict[str, TagInfo] = {}

        async def whole() -> bool:  # a busy node may be born later than it is looked for
            found.update({info.tag: info async for info in source.browse()})
            return len(found) >= 3

        await until(whole, "all of its metrics")
        assert sorted(found) == ["g/e1/PV", "g/e1/SP", "g/e1/cnc/Speed"]
        assert found["g/e1/cnc/Speed"].data_type == "Int32"


async def test_a_broker_that_forbids_state_is_told_with_the_way_out(tmp_path: Path) -> None:
    access = "topic read spBv1.0/#\ntopic write spBv1.0/+/NCMD/+\n"
    async with Mosquitto(tmp_path, access=access) as broker:
        with pytest.raises(Misconfigured, match="role: passive"):
            async with config(broker.port).build():
                pass
        async with config(broker.port, role="passive").build():
            pass


async def test_servers_are_tried_in_order(broker: Mosquitto) -> None:
    dead = f"mqtt://127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match="cannot be reached"):
        async with config(0, servers=[dead]).build():
            pass
    async with (
        config(0, servers=[dead, f"mqtt://127.0.0.1:{broker.port}"]).build() as source,
        Edge.at(broker.port),
        Reader.of(source) as reader,
    ):
        await reader.has("g/e1/PV", 0.5)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"host_id": "a/b"}, "reserve"),
        ({"host_id": ""}, "empty"),
        ({"groups": ["ok", "a+b"]}, "reserve"),
        ({"tag": "{metric}"}, "needs {device}"),
        ({"tag": "{group}/{device}-{metric}"}, "levels of their own"),
        ({"tag": "{plant}/{device}/{metric}"}, "can stand in braces"),
        ({"tag": "{device}/{metric"}, "can stand in braces"),
        ({"rebirth_rate": 0}, "greater than or equal to 1"),
        ({"role": "boss"}, "'primary' or 'passive'"),
    ],
)
def test_wrong_settings_are_refused_with_a_reason(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        config(1883, **wrong)
