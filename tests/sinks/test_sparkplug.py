"""The Sparkplug sink against a real Mosquitto, watched by mosquitto_sub and read by a host of the test's own."""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest
from pydantic import ValidationError

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline, runner
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import decode, encode
from shopfloor.protocols.sparkplug.rules import Message, Validator
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable, Value
from shopfloor.sinks.sparkplug import SparkplugConfig
from shopfloor.sources.sparkplug import SparkplugHostConfig
from shopfloor.testing.contracts import SinkContract, SinkRig, until
from shopfloor.testing.contracts.values import EVERY_VALUE, same_samples
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto, require_program
from tests.pipeline.hands import Bench
from tests.sinks.mosquitto_sub import Heard, MosquittoSub

MS = 10**6
ORDINARY = "spBv1.0/bremen/#"


def config(port: int, folder: Path, **options: object) -> SparkplugConfig:
    fields: dict[str, object] = {
        "servers": f"mqtt://127.0.0.1:{port}", "timeout": "30 s", "memory": folder / "memory",
        "group": "bremen", "node": "edge",
    }  # fmt: skip
    return SparkplugConfig.model_validate({"name": "scada", "type": "sparkplug", **fields, **options})


def now() -> int:
    return time.time_ns()


def live(tag: str, *values: Value) -> Batch:
    """Samples that were received just now."""
    at = now()
    return Batch.of("plc", at, [Sample(tag, at + i * MS, value) for i, value in enumerate(values)])


def rebirth_request() -> Payload:
    at = now() // MS
    wish = Metric(name="Node Control/Rebirth", timestamp=at, type=DataType.BOOLEAN, value=True)
    return Payload(timestamp=at, metrics=[wish])


class Host:
    """What a host takes out of the messages: aliases of births, then data."""

    def __init__(self, heard: Sequence[Heard]) -> None:
        self.kinds: list[str] = []
        self.births: list[Payload] = []
        self.deaths: list[object] = []
        self.samples: list[Sample] = []
        self.historical: list[bool] = []
        self._names: dict[int, tuple[str, DataType]] = {}
        self._seq: int | None = None
        for message in heard:
            _, _, kind, _, *device = message.topic.split("/")
            if kind in ("NCMD", "DCMD", "STATE"):
                continue
            assert not message.retained
            payload = decode(message.payload, {alias: kind for alias, (_, kind) in self._names.items()})
            assert not payload.faults
            self.kinds.append("/".join([kind, *device]))
            self._take(kind, device[0] if device else "", payload)

    def _take(self, kind: str, device: str, payload: Payload) -> None:
        if kind == "NDEATH":
            self.deaths.append(payload.metrics[0].value)
            return
        assert payload.seq == (0 if kind == "NBIRTH" else ((self._seq if self._seq is not None else -1) + 1) % 256)
        self._seq = payload.seq
        if kind in ("NBIRTH", "DBIRTH"):
            self.births.append(payload)
            for metric in payload.metrics:
                if metric.alias is not None and metric.type is not None:
                    self._names[metric.alias] = (f"{device}/{metric.name}" if device else str(metric.name), metric.type)
        elif kind in ("NDATA", "DDATA"):
            for metric in payload.metrics:
                self._sample(metric)

    def _sample(self, metric: Metric) -> None:
        assert metric.alias is not None
        assert metric.timestamp is not None
        said = {key: found.value for key, found in (metric.properties or {}).items()}
        rest, quality = said.get("Nanoseconds", 0), said.get("OPC Quality", said.get("Quality", 192))
        assert isinstance(rest, int)
        assert isinstance(quality, int)
        value = metric.value
        assert value is None or isinstance(value, bool | int | float | str | bytes)
        self.samples.append(Sample(self._names[metric.alias][0], metric.timestamp * MS + rest, value, quality))
        self.historical.append(metric.is_historical)

    @property
    def bd_seqs(self) -> list[object]:
        return [metric.value for birth in self.births for metric in birth.metrics if metric.name == "bdSeq"]


class SparkplugRig(SinkRig):
    def __init__(self, proxy: FaultProxy, listener: MosquittoSub, folder: Path, timeout: str) -> None:
        super().__init__(config(proxy.port, folder, precision="ns", timeout=timeout).build())
        self.proxy = proxy
        self.listener = listener

    async def content(self) -> Sequence[Sample]:
        return Host(self.listener.heard).samples

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return Batch.of("plc", now(), [Sample("a/x", 1, 1), Sample("a/y", 1, "\ud800"), Sample("bdSeq", 1, 2)]), {1, 2}


class TestSparkplug(SinkContract):
    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        async with (
            Mosquitto(folder) as broker,
            MosquittoSub.at(broker.port, ORDINARY) as listener,
            FaultProxy("127.0.0.1", broker.port) as proxy,
        ):
            yield SparkplugRig(proxy, listener, folder, "4 s" if self.hasty else "30 s")


async def say(port: int, topic: str, payload: bytes, *options: str) -> None:
    """Publish as mosquitto_pub does: another implementation than ours."""
    program = require_program("mosquitto_pub", "apt-get install mosquitto-clients")
    where = ["-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic]
    child = await asyncio.create_subprocess_exec(program, *where, "-s", *options, stdin=asyncio.subprocess.PIPE)
    await child.communicate(payload)
    assert child.returncode == 0


async def state(port: int, online: bool, timestamp: int) -> None:  # noqa: FBT001  # reads as a sentence
    said = json.dumps({"online": online, "timestamp": timestamp}).encode()
    await say(port, "spBv1.0/STATE/scada", said, "-r")


async def kept_out(chosen: SparkplugConfig, why: str) -> None:
    """An edge node with little patience does not come in and says why; with so little, connecting may need a few."""

    async def said() -> bool:
        try:
            async with chosen.model_copy(update={"timeout": 10**9}).build():
                pytest.fail("it came in")
        except Unavailable as away:
            return why in str(away)

    await until(said, why)


# ---- life and death ----------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath",
    "tck-id-operational-behavior-edge-node-intentional-disconnect-packet",
    "tck-id-payloads-ndeath-will-message-publisher",
    "tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311",
    "tck-id-principles-birth-certificates-order",
)
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_node_is_born_first_and_says_its_death_when_it_stops(version: str, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as listener:
        async with config(broker.port, tmp_path, version=version).build() as sink:
            await sink.write(1, live("press/PV", 1.5))
        await until(lambda: "NDEATH" in Host(listener.heard).kinds, "the death arrived")
        host = Host(listener.heard)
        assert host.kinds[:4] == ["NBIRTH", "DBIRTH/press", "DDATA/press", "NDEATH"]
        assert (set(host.bd_seqs), set(host.deaths)) == ({0}, {0})


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-will-message",
    "tck-id-message-flow-edge-node-birth-publish-will-message-topic",
    "tck-id-message-flow-edge-node-birth-publish-will-message-payload",
    "tck-id-message-flow-edge-node-birth-publish-will-message-will-retained",
    "tck-id-payloads-ndeath-will-message", "tck-id-payloads-ndeath-will-message-retain", "tck-id-payloads-ndeath-bdseq",
)  # fmt: skip
async def test_the_broker_says_the_death_of_a_node_that_vanished_and_the_next_bdseq_is_one_more(tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path) as broker,
        MosquittoSub.at(broker.port, ORDINARY) as listener,
        FaultProxy("127.0.0.1", broker.port) as proxy,
    ):
        sink = config(proxy.port, tmp_path).build()
        async with sink:
            await sink.write(1, live("press/PV", 1.5))
            proxy.reset()
            await until(lambda: Host(listener.heard).deaths == [0], "the will was published")
        proxy.heal()
        async with sink:
            await until(lambda: len(Host(listener.heard).births) == 4, "node and device were born again")
        assert Host(listener.heard).bd_seqs == [0, 1]
        assert Host(listener.heard).births[-1].metrics[0].value == 1.5


async def test_a_killed_process_goes_on_with_the_next_bdseq_and_knows_its_metrics(tmp_path: Path) -> None:
    """What the file holds while a session runs is what a crash leaves: names and types, no values that may be old."""
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as listener:
        file = tmp_path / "memory" / "scada.msgpack"
        async with config(broker.port, tmp_path).build() as sink:
            await sink.write(1, live("press/PV", 1.5))
        async with config(broker.port, tmp_path).build() as sink:
            left = file.read_bytes()
        file.write_bytes(left)
        async with config(broker.port, tmp_path).build() as sink:
            await until(lambda: len(Host(listener.heard).births) == 6, "it was born a third time")
        assert Host(listener.heard).bd_seqs == [0, 1, 2]
        (metric,) = Host(listener.heard).births[-1].metrics
        assert (metric.name, metric.type, metric.is_null) == ("PV", DataType.DOUBLE, True)


# ---- MQTT --------------------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-topics-nbirth-mqtt", "tck-id-topics-ndata-mqtt", "tck-id-topics-dbirth-mqtt", "tck-id-topics-ddata-mqtt",
    "tck-id-topics-ddeath-mqtt", "tck-id-message-flow-edge-node-birth-publish-connect",
    "tck-id-message-flow-edge-node-birth-publish-will-message-qos",
    "tck-id-message-flow-edge-node-birth-publish-will-message-will-retained",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-qos",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-retained",
    "tck-id-message-flow-device-birth-publish-dbirth-qos",
    "tck-id-message-flow-device-birth-publish-dbirth-retained",
    "tck-id-payloads-nbirth-qos", "tck-id-payloads-nbirth-retain", "tck-id-payloads-dbirth-qos",
    "tck-id-payloads-dbirth-retain", "tck-id-payloads-ndata-qos", "tck-id-payloads-ndata-retain",
    "tck-id-payloads-ddata-qos", "tck-id-payloads-ddata-retain", "tck-id-payloads-ndeath-will-message-qos",
    "tck-id-payloads-ndeath-will-message-retain", "tck-id-message-flow-edge-node-ncmd-subscribe",
    "tck-id-principles-persistence-clean-session-311",
)  # fmt: skip
@pytest.mark.parametrize(("version", "number"), [("5", 5), ("3.1.1", 2)])
async def test_the_broker_sees_a_clean_session_a_will_and_only_data_of_qos_0(
    version: str, number: int, tmp_path: Path
) -> None:
    """Mosquitto's own log is the witness: p is its number of the version, c1 clean, q the QoS, r retained."""
    async with Mosquitto(tmp_path, options=["log_type all"]) as broker:
        async with config(broker.port, tmp_path, version=version, client_id="node").build() as sink:
            await sink.write(1, live("line", 1))
            gone = Batch.of("$source", now(), [Sample("$source/plc/connected", now(), False)])
            await sink.write(2, live("press/PV", 1.5))
            await sink.write(3, gone)
        await until(lambda: "Received DISCONNECT from node" in broker.log(), "the node disconnected")
        log = broker.log()
    said = re.findall(r"Received PUBLISH from node \(d0, q(\d), r(\d), m\d+, '(\S+)'", log)
    kinds = {topic.split("/")[2]: (qos, retained) for qos, retained, topic in said}
    assert f"as node (p{number}, c1," in log
    assert re.search(r"Will message specified \(\d+ bytes\) \(r0, q1\)\.\n\S+\s+spBv1.0/bremen/NDEATH/edge\n", log)
    assert "spBv1.0/bremen/NCMD/edge (QoS 1)" in log
    assert kinds == {
        "NBIRTH": ("0", "0"), "NDATA": ("0", "0"), "DBIRTH": ("0", "0"), "DDATA": ("0", "0"), "DDEATH": ("0", "0"),
        "NDEATH": ("1", "0"),
    }  # fmt: skip
    assert log.index("Sending CONNACK to node") < log.index("'spBv1.0/bremen/NBIRTH/edge'")
    assert log.index("Sending SUBACK to node") < log.index("'spBv1.0/bremen/NBIRTH/edge'")


@pytest.mark.sparkplug("tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50")
async def test_a_clean_stop_of_mqtt_5_asks_the_broker_for_the_will_too(tmp_path: Path) -> None:
    """Reason code 0x04: so the death is heard even where the node's own did not get through."""
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as listener:
        async with config(broker.port, tmp_path, version="5").build():
            pass
        await until(lambda: Host(listener.heard).deaths == [0, 0], "the node's death and the broker's arrived")


def born_again(kinds: Sequence[str]) -> bool:
    """Whether a birth of all ends what was heard, behind those that each of the seven types cost."""
    return kinds[-3:] == ["NBIRTH", "DBIRTH/press", "DBIRTH/oven"] and kinds.count("DBIRTH/oven") > 7


@pytest.mark.sparkplug(
    "tck-id-topic-structure", "tck-id-topic-structure-namespace-a", "tck-id-payloads-timestamp-in-UTC",
    "tck-id-payloads-metric-timestamp-in-UTC", "tck-id-payloads-metric-datatype-not-req",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-payload",
    "tck-id-message-flow-device-birth-publish-dbirth-payload",
)  # fmt: skip
async def test_the_validator_finds_nothing_in_a_whole_life(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as listener:
        sink = config(broker.port, tmp_path, precision="ns").build()
        async with sink:
            old = now() - 60 * 10**9
            await sink.write(1, Batch.of("plc", old, [Sample("press/PV", old, 1.5), Sample("line", old, "night")]))
            for offset, value in enumerate((1, True, "text", b"bytes", 2.5, None, 2**64 - 1), 2):
                await sink.write(offset, live("oven/T", value, value))
            await say(broker.port, "spBv1.0/bremen/NCMD/edge", encode(rebirth_request(), datatypes=False))
            await until(lambda: born_again(Host(listener.heard).kinds), "it was born again")
        async with sink:
            await sink.write(9, live("press/PV", 3))
        await until(lambda: Host(listener.heard).deaths.count(1) == 2, "both lives ended")
    validator = Validator(complete=True)
    arrived = now() // MS
    found = [
        finding
        for heard in listener.heard
        for finding in validator.check(Message(heard.topic, heard.payload, None, heard.retained, arrived))
    ]
    assert found == []
    for heard in listener.heard:
        if "DATA/" in heard.topic:
            assert {metric.type for metric in decode(heard.payload).metrics} == {None}


# ---- rebirth -----------------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-ncmd-subscribe",
    "tck-id-operational-behavior-data-commands-rebirth-action-2",
    "tck-id-operational-behavior-data-commands-rebirth-action-3",
)
async def test_many_hosts_that_ask_for_a_rebirth_get_one_without_a_new_session(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as listener:
        async with config(broker.port, tmp_path).build() as sink:
            await sink.write(1, live("press/PV", 1.5))
            await asyncio.gather(
                *(say(broker.port, "spBv1.0/bremen/NCMD/edge", encode(rebirth_request())) for _ in range(5))
            )
            await until(lambda: len(Host(listener.heard).births) >= 4, "it was born again")
            await sink.write(2, live("press/PV", 2.5))
            await until(lambda: len(Host(listener.heard).samples) == 2, "data goes on")
            host = Host(listener.heard)
        assert host.kinds == ["NBIRTH", "DBIRTH/press", "DDATA/press", "NBIRTH", "DBIRTH/press", "DDATA/press"]
        assert host.bd_seqs == [0, 0]


@pytest.mark.parametrize("garbage", [b"\x00", b"\xff" * 50, os.urandom(1000), encode(Payload(timestamp=1))])
async def test_garbage_on_its_command_topic_does_no_harm(garbage: bytes, tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path) as broker,
        MosquittoSub.at(broker.port, ORDINARY) as listener,
        config(broker.port, tmp_path).build() as sink,
    ):
        await say(broker.port, "spBv1.0/bremen/NCMD/edge", garbage)
        await sink.write(1, live("press/PV", 1.5))
        await until(lambda: len(Host(listener.heard).samples) == 1, "data goes on")
        assert Host(listener.heard).kinds == ["NBIRTH", "DBIRTH/press", "DDATA/press"]


# ---- the primary host --------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-message-flow-edge-node-birth-publish-phid-wait",
    "tck-id-message-flow-edge-node-birth-publish-phid-offline",
    "tck-id-operational-behavior-edge-node-termination-host-offline",
)
async def test_what_happens_while_the_primary_host_is_away_is_told_in_order_as_history_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as listener:
        chosen = config(broker.port, tmp_path, primary_host="scada")
        sink = chosen.build()
        await kept_out(chosen, "primary host scada is not online")
        assert listener.heard == []
        await state(broker.port, True, 100)
        async with sink:
            await sink.write(1, live("a/x", 1))
            await state(broker.port, False, 99)
            await sink.write(2, live("a/x", 2))
            await state(broker.port, False, 101)
            await until(lambda: "NDEATH" in Host(listener.heard).kinds, "the node left with the host")
            waiting = live("a/x", 3, 4, 5)
            with pytest.raises(Unavailable, match="primary host scada went offline"):
                await sink.write(3, waiting)
        asked = asyncio.create_task(sink.__aenter__())
        await state(broker.port, True, 102)
        await asked
        try:
            await sink.write(3, waiting)
            await sink.write(4, live("a/x", 6))
            await until(lambda: len(Host(listener.heard).samples) == 6, "everything arrived")
            host = Host(listener.heard)
        finally:
            await sink.__aexit__(None, None, None)
        assert [sample.value for sample in host.samples] == [1, 2, 3, 4, 5, 6]
        assert [s.time // MS for s in host.samples[2:5]] == [time // MS for time in waiting.times]
        assert host.historical == [False, False, True, True, True, False]
        after = host.kinds[len(host.kinds) - 1 - host.kinds[::-1].index("NDEATH") + 1 :]
        assert after == ["NBIRTH", "DBIRTH/a", "DDATA/a", "NBIRTH", "DBIRTH/a", "DDATA/a"]


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-offline-reconnect",
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-state-subs",
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-single-server",
    "tck-id-operational-behavior-primary-application-state-with-multiple-servers-walk",
    "tck-id-operational-behavior-edge-node-birth-sequence-wait",
)
async def test_of_several_servers_the_one_with_the_primary_host_is_taken(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with (
        Mosquitto(folders[0]) as one,
        Mosquitto(folders[1]) as two,
        MosquittoSub.at(one.port, ORDINARY) as at_one,
        MosquittoSub.at(two.port, ORDINARY) as at_two,
    ):
        servers = [f"mqtt://127.0.0.1:{broker.port}" for broker in (one, two)]
        await state(one.port, False, 1)
        await state(two.port, True, 1)
        sink = config(0, tmp_path, servers=servers, primary_host="scada").build()
        async with sink:
            await sink.write(1, live("a/x", 1))
            await until(lambda: len(Host(at_two.heard).samples) == 1, "it went to the second server")
            assert at_one.heard == []
            await state(one.port, True, 2)
            await state(two.port, False, 2)
            with pytest.raises(Unavailable, match="primary host scada went offline"):
                await asyncio.wait_for(sink.lost(), 60)
            await until(lambda: "NDEATH" in Host(at_two.heard).kinds, "it left the second server")
            with pytest.raises(Unavailable):
                await sink.write(2, live("a/x", 2))
        async with sink:
            await sink.write(2, live("a/x", 2))
            await until(lambda: len(Host(at_one.heard).samples) == 1, "it went to the first server")
        assert len(Host(at_two.heard).samples) == 1


@asynccontextmanager
async def our_host(port: int, samples: list[Sample]) -> AsyncIterator[None]:
    """Shopfloor's own host application; what it gives is added to ``samples``."""
    fields = {"name": "host", "servers": f"mqtt://127.0.0.1:{port}", "host_id": "scada", "tag": "{device}/{metric}"}
    async with SparkplugHostConfig.model_validate(fields).build() as source:

        async def read() -> None:
            async with aclosing(source.batches()) as batches:
                async for found in batches:
                    samples.extend(found)

        reading = asyncio.create_task(read())
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


async def test_shopfloors_own_host_gets_every_value_also_those_of_its_absence(tmp_path: Path) -> None:
    """Two plants over one broker: the second holds what the first one held, with its type, time and quality."""
    got: list[Sample] = []
    at = now()
    kinds = [kind for kind in EVERY_VALUE if kind != "long text"]
    offered = [Sample(f"m{i % 3}/{kind}", at, EVERY_VALUE[kind], 192) for i, kind in enumerate(kinds)]
    offered += [Sample("line", at, 7, quality) for quality in (0, 192)]
    away = [Sample("m0/count", at + i * MS, i) for i in range(100)]

    def held(samples: Sequence[Sample]) -> bool:
        return all(any(same_samples([Sample(s.tag, s.time // MS * MS, s.value, s.quality)], [g]) for g in got)
                   for s in samples)  # fmt: skip

    async with Mosquitto(tmp_path) as broker:
        chosen = config(broker.port, tmp_path, primary_host="scada")
        sink = chosen.build()
        async with our_host(broker.port, got), sink:
            await sink.write(1, Batch.of("plc", now(), offered))
            await until(lambda: held(offered), "the host has everything")
        await kept_out(chosen, "primary host scada is not online")
        got.clear()
        async with our_host(broker.port, got), sink:
            await sink.write(2, Batch.of("plc", at, away))
            await until(lambda: held(away), "the host has what happened in its absence")
            counted = [s.value for s in got if s.tag == "m0/count" and s.value is not None]
            assert counted[:100] == list(range(100))


async def test_history_that_nothing_follows_ends_with_births_that_tell_the_newest_values(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as listener:
        async with config(broker.port, tmp_path).build() as sink:
            old = now() - 3600 * 10**9
            await sink.write(1, Batch.of("plc", old, [Sample("a/x", old + i * MS, i) for i in range(10)]))
            await until(lambda: Host(listener.heard).kinds[-2:] == ["NBIRTH", "DBIRTH/a"], "it was born again")
            host = Host(listener.heard)
        assert host.historical == [True] * 10
        assert [birth.metrics[0].value for birth in host.births if len(birth.metrics) == 1] == [None, 9]


async def test_in_a_whole_plant_a_broken_line_loses_nothing_and_a_device_follows_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Journal, pipeline and sink together: what is not confirmed waits; the ledger balances."""
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.5)
    bench = Bench(tmp_path)
    async with (
        Mosquitto(tmp_path) as broker,
        MosquittoSub.at(broker.port, ORDINARY) as listener,
        FaultProxy("127.0.0.1", broker.port) as proxy,
        bench.running(sinks=[config(proxy.port, tmp_path)]) as pipeline,
    ):

        def heard(*values: int) -> bool:
            return set(values) <= {sample.value for sample in Host(listener.heard).samples}

        bench.machine.give(*range(20))
        await until(lambda: heard(*range(20)), "the first values")
        for begin in (20, 40):
            proxy.reset()
            bench.machine.give(*range(begin, begin + 20))
            await until(lambda: broken(pipeline), "the loss was noticed")
            proxy.heal()
            await until(lambda: heard(*range(begin + 20)), "all values after the return")  # noqa: B023  # awaited here
        await until(lambda: Host(listener.heard).kinds[-1] == "DBIRTH/press-1", "history was closed by births")
        bench.machine.away = Unavailable("the cable is out")
        bench.machine.queue.put_nowait(bench.machine.away)
        await until(lambda: Host(listener.heard).kinds[-1] == "DDEATH/press-1", "the device died with its source")
        bench.machine.away = None
        await until(lambda: Host(listener.heard).kinds[-1] == "DBIRTH/press-1", "the device was born with its source")
        assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
        values = [sample.value for sample in Host(listener.heard).samples]
        assert sorted(set(values), key=values.index) == list(range(60)), "in order, whatever came twice"


def broken(pipeline: Pipeline) -> bool:
    return next(c.state for c in pipeline.components() if c.kind == "sink") != "running"


# ---- bad input ---------------------------------------------------------------------------------------


@pytest.mark.sparkplug(
    "tck-id-topic-structure-namespace-valid-group-id", "tck-id-topic-structure-namespace-valid-edge-node-id",
    "tck-id-intro-group-id-chars", "tck-id-intro-edge-node-id-chars",
)  # fmt: skip
@pytest.mark.parametrize("field", ["group", "node", "primary_host"])
@pytest.mark.parametrize("text", ["", "a/b", "a+b", "#"])
def test_ids_with_reserved_characters_are_refused(field: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot be an id of Sparkplug"):
        config(1883, tmp_path, **{field: text})


async def test_a_damaged_memory_is_said_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "memory" / "scada.msgpack"
    file.parent.mkdir()
    for damage in (b"", b"\x81\xa6bd_seq\xa1x", os.urandom(100)):
        file.write_bytes(damage)
        with pytest.raises(Misconfigured, match="move it away"):
            await config(1, tmp_path).build().__aenter__()


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file where the folder should be")
    with pytest.raises(Misconfigured, match="memory"):
        await config(1, tmp_path).build().__aenter__()


async def test_a_birth_of_very_many_metrics_is_one_message(tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path) as broker,
        MosquittoSub.at(broker.port, ORDINARY) as listener,
        config(broker.port, tmp_path, timeout="20 s").build() as sink,
    ):
        await sink.write(1, Batch.of("plc", now(), [Sample(f"a/{i}", now(), float(i)) for i in range(10_000)]))
        await until(lambda: len(Host(listener.heard).samples) == 10_000, "every value arrived", 20)
        assert [len(birth.metrics) for birth in Host(listener.heard).births] == [2, 10_000]


async def test_a_birth_larger_than_the_broker_takes_is_said_with_what_to_do(tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path, options=["max_packet_size 20000"]) as broker,
        config(broker.port, tmp_path).build() as sink,
    ):
        with pytest.raises(Misconfigured, match="allow larger ones there, or send fewer"):
            await sink.write(1, Batch.of("plc", now(), [Sample(f"a/{i}", now(), i) for i in range(2000)]))


async def test_a_value_larger_than_the_broker_takes_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path, options=["max_packet_size 20000"]) as broker,
        MosquittoSub.at(broker.port, ORDINARY) as listener,
        config(broker.port, tmp_path).build() as sink,
    ):
        at = now()
        batch = Batch.of("plc", at, [Sample("a/x", at, "x" * 19_000), Sample("a/x", at, "y")])
        with pytest.raises(Rejected, match="larger than") as refused:
            await sink.write(1, batch)
        assert refused.value.indices == [0]
        await sink.write(1, Batch.of("plc", at, [Sample("a/y", at + i, i) for i in range(2000)]))
        await until(lambda: len(Host(listener.heard).samples) == 2000, "many small ones in several messages arrived")
