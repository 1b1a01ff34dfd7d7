"""The fleet of edge nodes keeps to the specification, also when hosts ask for rebirths and connections break."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.listening import Heard, Listener
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import Message as Publication
from shopfloor.protocols.mqtt_session import Session, Subscription, open_session
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import encode
from shopfloor.protocols.sparkplug.rules import Message
from shopfloor.samples import Unavailable
from shopfloor.simulators import sparkplug_fleet
from shopfloor.simulators.sparkplug_fleet import Fleet, Shape
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import Mosquitto, free_port

SHAPE = Shape(nodes=3, devices=2, metrics=4)
INTERVAL = 50 * 10**6


class Notes:
    """What a fleet said."""

    def __init__(self) -> None:
        self.turns: dict[int, list[int]] = {}
        self.retold_turns: list[tuple[int, int]] = []

    def said(self, device: int, turn: int, time: int, at: int) -> None:  # noqa: ARG002
        self.turns.setdefault(device, []).append(turn)

    def retold(self, device: int, turn: int) -> None:
        self.retold_turns.append((device, turn))


class Ear:
    """A passive subscriber that checks every message against the specification."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.heard: list[Heard] = []

    async def listen(self) -> None:
        listener = Listener()
        async for arrivals in self.session.arrivals():
            for one in arrivals:
                qos = 1 if one.packet_id else 0
                self.heard.append(listener.hear(Message(one.topic, one.payload, qos, None, time.time_ns() // 10**6)))
            self.session.acknowledge(arrivals)

    def of(self, verb: str, node: str = "node-0001") -> list[Heard]:
        return [one for one in self.heard if one.topic and (one.topic.type, one.topic.node) == (verb, node)]

    def findings(self) -> list[str]:
        return [finding.text for one in self.heard for finding in one.findings if not finding.advice]

    async def ask_for_rebirth(self, node: str) -> None:
        rebirth = Metric(name="Node Control/Rebirth", type=DataType.BOOLEAN, value=True)
        now = time.time_ns() // 10**6
        body = encode(Payload(timestamp=now, metrics=[rebirth]))
        await self.session.publish([Publication(f"spBv1.0/load/NCMD/{node}".encode(), body, retain=False)], 0)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[MqttConnection]:
    async with Mosquitto(tmp_path) as broker:
        yield MqttConnection(servers=[f"mqtt://127.0.0.1:{broker.port}"])


@asynccontextmanager
async def listening(connection: MqttConnection) -> AsyncIterator[Ear]:
    session = await open_session(connection, "ear")
    await session.subscribe([Subscription("spBv1.0/#")])
    ear = Ear(session)
    task = asyncio.create_task(ear.listen())
    try:
        yield ear
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await session.close()


def never() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


@pytest.mark.sparkplug(
    "tck-id-topics-nbirth-seq-num",
    "tck-id-payloads-ndata-seq-inc",
    "tck-id-topics-ndeath-payload",
)
async def test_nodes_are_born_say_every_round_and_die_as_the_specification_wants(
    connection: MqttConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparkplug_fleet, "_LATE", 100.0)  # a machine that hangs for longer leaves no round out here
    notes = Notes()
    async with listening(connection) as ear:
        async with Fleet(connection, SHAPE, INTERVAL, notes) as fleet:
            assert fleet.born == 3
            await fleet.play(4, never())
        await until(lambda: all(ear.of("NDEATH", f"node-000{i}") for i in (1, 2, 3)), "every node says NDEATH")
    assert notes.turns == {device: [0, 1, 2, 3] for device in range(6)}
    assert fleet.messages == 24
    assert (fleet.skipped, fleet.lost) == (0, 0)
    assert not ear.findings()
    for node in ("node-0001", "node-0002", "node-0003"):
        assert [len(ear.of(verb, node)) for verb in ("NBIRTH", "DBIRTH", "DDATA", "NDEATH")] == [1, 2, 8, 1]
    values = [one.value for one in (ear.of("DDATA")[-1].payload or Payload()).metrics]
    assert values == [3, True, 3.002, 3.003]


@pytest.mark.sparkplug("tck-id-operational-behavior-data-commands-rebirth-action-2")
async def test_a_node_answers_a_rebirth_request_with_all_births(connection: MqttConnection) -> None:
    notes = Notes()
    async with listening(connection) as ear, Fleet(connection, SHAPE, INTERVAL, notes) as fleet:
        stop = never()
        playing = asyncio.create_task(fleet.play(10_000, stop))
        await until(lambda: len(ear.of("DDATA")) > 4, "the node says something")
        await ear.ask_for_rebirth("node-0001")
        await until(lambda: len(ear.of("DBIRTH")) == 4 and fleet.births == [2, 1, 1], "it is born again")
        before = len(ear.of("DDATA"))
        await until(lambda: len(ear.of("DDATA")) > before, "it goes on")
        stop.set_result(None)
        await playing
    assert fleet.rebirths == [1, 0, 0]
    assert [device for device, _ in notes.retold_turns] == [0, 1]
    assert not ear.findings()


async def test_nodes_whose_connections_break_come_back_with_the_next_bdseq(connection: MqttConnection) -> None:
    notes = Notes()
    async with listening(connection) as ear, Fleet(connection, SHAPE, INTERVAL, notes) as fleet:
        stop = never()
        playing = asyncio.create_task(fleet.play(10_000, stop))
        await until(lambda: len(ear.of("DDATA", "node-0003")) > 2, "the nodes say something")
        fleet.drop()
        await until(lambda: fleet.births == [2, 2, 2] and fleet.born == 3, "all are born again")
        before = len(ear.of("DDATA"))
        await until(lambda: len(ear.of("DDATA")) > before, "they go on")
        stop.set_result(None)
        await playing
    assert fleet.lost == 3
    for turns in notes.turns.values():
        assert turns == sorted(set(turns)), "a round that was told is not told again"
    births = [one.payload for one in ear.of("NBIRTH")]
    assert [[m.value for m in one.metrics if m.name == "bdSeq"] for one in births if one] == [[0], [1]]
    assert not [text for text in ear.findings() if "seq" in text]


async def test_a_broker_that_is_not_there_is_said() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await Fleet(MqttConnection(servers=[f"mqtt://127.0.0.1:{free_port()}"]), SHAPE, INTERVAL, Notes()).__aenter__()
