"""What Shopfloor's own edge node and host say to a broker, packet by packet, judged by the validator."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from shopfloor.protocols.mqtt import find_frame, variable_length
from shopfloor.protocols.sparkplug.edge import EdgeNode
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import decode, encode
from shopfloor.protocols.sparkplug.rules import Message, Validator
from shopfloor.samples import Batch, Sample, Value
from shopfloor.sinks.sparkplug import SparkplugConfig
from shopfloor.sources.sparkplug import SparkplugHostConfig
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import Mosquitto

MQTT_5 = 5
REBIRTH = encode(Payload(metrics=[Metric(name="Node Control/Rebirth", type=DataType.BOOLEAN, value=True)]))


class Will(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connect(NamedTuple):
    version: int
    clean: bool
    expiry: int
    """Seconds that the broker keeps the session; 3.1.1 has no such thing."""
    will: Will | None


class Subscribe(NamedTuple):
    topics: dict[str, int]
    """With the QoS that is wished."""


class Disconnect(NamedTuple):
    reason: int


Packet = Connect | Subscribe | Disconnect | Message


class Reader:
    """Reads the fields of one packet."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self) -> bytes:
        return self.take(self.number(2))

    def properties(self) -> bytes:
        found = variable_length(self._data, self._at)
        assert found is not None
        self._at, size = found
        return self.take(size)

    def rest(self) -> bytes:
        return self._data[self._at :]


class Line:
    """What one client says to the broker, on all its connections, while it passes through."""

    def __init__(self, broker: int) -> None:
        self.packets: list[Packet] = []
        self.port = 0
        self._broker = broker
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def publications(self) -> list[Message]:
        return [packet for packet in self.packets if isinstance(packet, Message)]

    def verbs(self) -> list[str]:
        return [message.topic.split("/")[2] for message in self.publications]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._broker)
        back = asyncio.create_task(_pass_on(upstream, writer))
        self._tasks.add(back)
        buffer = bytearray()
        version = 0
        while data := await reader.read(65536):
            buffer += data
            while (frame := find_frame(buffer, 0)) is not None:
                head, body = buffer[0], bytes(buffer[frame[0] : frame[1]])
                del buffer[: frame[1]]
                version = body[6] if head == 0x10 else version
                packet = _packet(head, body, version)
                if packet is not None:
                    self.packets.append(packet)
            downstream.write(data)
            await downstream.drain()
        downstream.close()
        await back


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


def _packet(head: int, body: bytes, version: int) -> Packet | None:
    read = Reader(body)
    match head & 0xF0:
        case 0x10:
            return _connect(read)
        case 0x30:
            qos = head >> 1 & 3
            topic = read.block().decode()
            read.take(2 if qos else 0)
            if version == MQTT_5:
                read.properties()
            return Message(topic, read.rest(), qos, bool(head & 1), time.time_ns() // 10**6)
        case 0x80:
            read.take(2)
            if version == MQTT_5:
                read.properties()
            topics: dict[str, int] = {}
            while read.rest():
                topic = read.block().decode()
                topics[topic] = read.number(1) & 3
            return Subscribe(topics)
        case 0xE0:
            return Disconnect(body[0] if body else 0)
        case _:
            return None


def _connect(read: Reader) -> Connect:
    assert read.block() == b"MQTT"
    version, flags = read.number(1), read.number(1)
    read.take(2)
    expiry = _expiry(Reader(read.properties())) if version == MQTT_5 else 0
    read.block()
    will = None
    if flags & 0x04:
        if version == MQTT_5:
            read.properties()
        will = Will(read.block().decode(), read.block(), flags >> 3 & 3, bool(flags & 0x20))
    return Connect(version, bool(flags & 0x02), expiry, will)


def _expiry(properties: Reader) -> int:
    """The session expiry interval of CONNECT's properties; of others only the receive maximum is known here."""
    found = 0
    while properties.rest():
        match properties.number(1):
            case 0x11:
                found = properties.number(4)
            case 0x21:
                properties.take(2)
            case other:
                pytest.fail(f"CONNECT has property {other:#x}; tell this test how long it is")
    return found


@asynccontextmanager
async def line_to(broker: Mosquitto) -> AsyncIterator[Line]:
    line = Line(broker.port)
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()


def edge(line: Line, folder: Path, **options: object) -> SparkplugConfig:
    fields: dict[str, object] = {
        "name": "scada", "type": "sparkplug", "servers": f"mqtt://127.0.0.1:{line.port}", "timeout": "8 s",
        "memory": folder / "memory", "group": "Bremen", "node": "Line1",
    }  # fmt: skip
    return SparkplugConfig.model_validate({**fields, **options})


def live(tag: str, *values: Value) -> Batch:
    at = time.time_ns()
    return Batch.of("plc", at, [Sample(tag, at + place * 10**6, value) for place, value in enumerate(values)])


def judged(messages: Sequence[Message], *, advice: bool = True) -> list[str]:
    """What these messages break, being all that there are."""
    validator = Validator(complete=True)
    found = [(one.topic, each) for one in messages for each in validator.check(one)]
    return [f"{topic}: {each.text}" for topic, each in found if advice or not each.advice]


async def ask_for_rebirth(broker: Mosquitto) -> None:
    """As another host would, at QoS 0."""
    _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    topic = b"spBv1.0/Bremen/NCMD/Line1"
    said = len(topic).to_bytes(2, "big") + topic + REBIRTH
    writer.write(b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03ask" + bytes((0x30, len(said))) + said)
    await writer.drain()
    writer.write(b"\xe0\x00")
    await writer.drain()
    writer.close()


async def a_day_of_a_node(broker: Mosquitto, line: Line, folder: Path, **options: object) -> None:
    """Births, data of node and device, a device that goes and comes, a rebirth, a clean end, a second session."""
    async with edge(line, folder, **options).build() as sink:
        await sink.write(1, live("press/PV", 1.5, 2.5))
        await sink.write(2, live("Order", "A-1", "A-2"))
        await sink.write(3, live("$source/plc/connected", True))
        await sink.write(4, live("$source/plc/connected", False))
        await until(lambda: "DDEATH" in line.verbs(), "the device died")
        await sink.write(5, live("$source/plc/connected", True))
        await sink.write(6, live("press/PV", 3.5))
        await ask_for_rebirth(broker)
        await until(lambda: line.verbs().count("NBIRTH") > 1 and line.verbs()[-1] == "DBIRTH", "it was reborn")
        await sink.write(7, live("press/PV", 4.5))
    async with edge(line, folder, **options).build() as sink:
        await sink.write(8, live("press/PV", 5.5))


@pytest.mark.sparkplug(
    "tck-id-topics-nbirth-mqtt", "tck-id-topics-ndata-mqtt", "tck-id-topics-dbirth-mqtt", "tck-id-topics-ddata-mqtt",
    "tck-id-topics-ddeath-mqtt", "tck-id-message-flow-edge-node-birth-publish-nbirth-payload",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-qos",
    "tck-id-message-flow-edge-node-birth-publish-nbirth-retained",
    "tck-id-message-flow-device-birth-publish-dbirth-payload", "tck-id-message-flow-device-birth-publish-dbirth-qos",
    "tck-id-message-flow-device-birth-publish-dbirth-retained", "tck-id-payloads-nbirth-qos",
    "tck-id-payloads-nbirth-retain", "tck-id-payloads-dbirth-qos", "tck-id-payloads-dbirth-retain",
    "tck-id-payloads-ndata-qos", "tck-id-payloads-ndata-retain", "tck-id-payloads-ddata-qos",
    "tck-id-payloads-ddata-retain", "tck-id-payloads-timestamp-in-UTC", "tck-id-payloads-metric-timestamp-in-UTC",
    "tck-id-payloads-metric-datatype-not-req",
)  # fmt: skip
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_the_validator_finds_nothing_in_what_our_edge_node_publishes(version: str, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, line_to(broker) as line:
        await a_day_of_a_node(broker, line, tmp_path, version=version)
        assert {"NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH"} <= set(line.verbs())
        assert judged(line.publications) == []


@pytest.mark.sparkplug(
    "tck-id-principles-persistence-clean-session-311", "tck-id-principles-persistence-clean-session-50",
    "tck-id-message-flow-edge-node-birth-publish-connect",
    "tck-id-message-flow-edge-node-birth-publish-will-message-qos", "tck-id-payloads-ndeath-will-message-qos",
    "tck-id-message-flow-edge-node-birth-publish-will-message-will-retained",
    "tck-id-payloads-nbirth-bdseq-repeat",
)  # fmt: skip
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_our_edge_node_connects_without_a_past_and_with_its_death_as_will(version: str, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, line_to(broker) as line:
        await a_day_of_a_node(broker, line, tmp_path, version=version)
        connects = [packet for packet in line.packets if isinstance(packet, Connect)]
        assert [(one.clean, one.expiry) for one in connects] == [(True, 0)] * 2
        assert isinstance(line.packets[0], Connect)
        births = [decode(one.payload) for one in line.publications if "/NBIRTH/" in one.topic]
        for number, connect in enumerate(connects):
            assert connect.will is not None
            assert connect.will[0::2] == ("spBv1.0/Bremen/NDEATH/Line1", 1)
            assert connect.will.retain is False
            (bd_seq,) = decode(connect.will.payload).metrics
            assert (bd_seq.name, bd_seq.type, bd_seq.value) == ("bdSeq", DataType.INT64, number)
        said = [metric.value for birth in births for metric in birth.metrics if metric.name == "bdSeq"]
        assert sorted(set(map(str, said))) == ["0", "1"]
        assert said[-1] == 1


@pytest.mark.sparkplug(
    "tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50",
    "tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt311",
)
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_clean_end_leaves_the_death_behind_as_the_version_wants_it(version: str, tmp_path: Path) -> None:
    """MQTT 5: DISCONNECT with the will. 3.1.1: NDEATH is published before DISCONNECT, which would drop the will."""
    async with Mosquitto(tmp_path) as broker, line_to(broker) as line:
        async with edge(line, tmp_path, version=version).build() as sink:
            await sink.write(1, live("press/PV", 1.5))
        await until(lambda: isinstance(line.packets[-1], Disconnect), "it said DISCONNECT")
        assert line.packets[-1] == Disconnect(0x04 if version == "5" else 0)
        assert version == "5" or line.verbs()[-1] == "NDEATH"


@pytest.mark.sparkplug("tck-id-operational-behavior-data-commands-rebirth-action-1")
async def test_who_asks_for_a_rebirth_gets_no_data_before_the_births(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written while the rebirth is due waits for it."""
    heard = asyncio.Event()
    plain = EdgeNode.command

    def command(node: EdgeNode, payload: Payload) -> None:
        plain(node, payload)
        heard.set()

    monkeypatch.setattr(EdgeNode, "command", command)
    async with Mosquitto(tmp_path) as broker, line_to(broker) as line:
        async with edge(line, tmp_path).build() as sink:
            await sink.write(1, live("press/PV", 1.5))
            await ask_for_rebirth(broker)
            await asyncio.wait_for(heard.wait(), 30)
            await sink.write(2, live("press/PV", 2.5))
        born = ["NBIRTH", "DBIRTH", "DDATA"]
        assert line.verbs()[:6] == born * 2


def host(line: Line, **options: object) -> SparkplugHostConfig:
    fields: dict[str, object] = {
        "name": "floor", "type": "sparkplug", "servers": f"mqtt://127.0.0.1:{line.port}", "host_id": "mes",
        "timeout": "8 s", "rebirth_spread": "0 s",
    }  # fmt: skip
    return SparkplugHostConfig.model_validate({**fields, **options})


@pytest.mark.sparkplug(
    "tck-id-message-flow-phid-sparkplug-clean-session-311", "tck-id-message-flow-phid-sparkplug-clean-session-50",
    "tck-id-host-topic-phid-birth-message", "tck-id-host-topic-phid-birth-sub-required",
    "tck-id-message-flow-phid-sparkplug-subscription", "tck-id-payloads-state-subscribe",
    "tck-id-payloads-state-birth", "tck-id-message-flow-phid-sparkplug-state-publish-payload",
    "tck-id-operational-behavior-host-application-connect-will-qos",
    "tck-id-operational-behavior-host-application-connect-will-retained",
)  # fmt: skip
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_our_host_connects_subscribes_says_online_and_then_all_else(version: str, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, line_to(broker) as line:
        async with host(line, version=version).build():
            await until(lambda: len(line.publications) > 0, "the STATE birth")
        await until(lambda: isinstance(line.packets[-1], Disconnect), "it said DISCONNECT")
        connect, *others = line.packets
        assert isinstance(connect, Connect)
        assert (connect.clean, connect.expiry) == (True, 0)
        assert connect.will is not None
        assert connect.will[0::2] == ("spBv1.0/STATE/mes", 1)
        assert connect.will.retain
        first = others.index(line.publications[0])
        topics = {topic for one in others[:first] if isinstance(one, Subscribe) for topic in one.topics}
        assert "spBv1.0/STATE/mes" in topics
        assert any(topic.startswith("spBv1.0/+") for topic in topics)
        birth, death = line.publications
        assert json.loads(birth.payload) == json.loads(connect.will.payload) | {"online": True}
        assert (birth.topic, birth.qos, birth.retain) == ("spBv1.0/STATE/mes", 1, True)
        assert judged([birth, death, birth._replace(payload=connect.will.payload)]) == []


@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-birth-sequence-wait",
    "tck-id-message-flow-edge-node-birth-publish-phid-wait",
    "tck-id-topics-ncmd-mqtt", "tck-id-topics-ncmd-timestamp", "tck-id-payloads-ncmd-seq",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-value",
)  # fmt: skip
async def test_our_edge_node_and_our_host_together_break_nothing(tmp_path: Path) -> None:
    """The node waits for the host; a second host comes later, asks for the births that it missed and gets them."""
    async with Mosquitto(tmp_path) as broker, line_to(broker) as line:
        async with (
            host(line).build(),
            edge(line, tmp_path, primary_host="mes").build() as sink,
            host(line, name="second", host_id="archive").build() as late,
        ):
            births = line.verbs().count("NBIRTH")
            await sink.write(1, live("press/PV", 1.5))
            async with aclosing(late.batches()) as batches:
                reading = asyncio.ensure_future(anext(batches))
                await until(lambda: line.verbs().count("NBIRTH") > births, "the late host got its births")
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
        assert json.loads(line.publications[0].payload)["online"] is True
        assert line.verbs().index("NBIRTH") > 0
        assert "NCMD" in line.verbs()
        assert judged(line.publications, advice=False) == []  # the request repeats its datatype
