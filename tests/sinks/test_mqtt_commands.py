"""A phone that presses buttons and sets values by MQTT messages, through a real Mosquitto."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shopfloor.commands import Audit, CommandInbox, Commands
from shopfloor.pipeline import Pipeline
from shopfloor.plant import Allow, Commands as CommandsConfig, PlantError, parse
from shopfloor.samples import Command, Outcome, Value
from shopfloor.simulators.press import PressServer
from shopfloor.simulators.press_line import Press
from shopfloor.sinks.mqtt import MqttConfig
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto, free_port, require_program
from tests.sinks.mosquitto_sub import MosquittoSub

SECOND = 10**9
ALLOW = [
    Allow(tag="press-1/SP", range=(0, 80)),
    Allow(tag="press-1/Start", momentary=True, lease=SECOND),
    Allow(tag="press-1/Stop", momentary=True, lease=60 * SECOND),
    Allow(tag="press-1/Löffel #1"),
]


async def publish(port: int, topic: str, payload: str | bytes, *options: str) -> None:
    """As a phone does."""
    program = require_program("mosquitto_pub", "apt-get install mosquitto-clients")
    child = await asyncio.create_subprocess_exec(
        program,
        "-p",
        str(port),
        "-q",
        "1",
        "-t",
        topic,
        "-s" if payload else "-n",
        *options,
        stdin=asyncio.subprocess.PIPE,
    )
    await child.communicate(payload.encode() if isinstance(payload, str) else payload)
    assert child.returncode == 0


class Line:
    """A sink that takes commands, the machine behind it, and a phone that hears the answers."""

    def __init__(self, broker: Mosquitto, phone: MosquittoSub) -> None:
        self.broker = broker
        self.phone = phone
        self.writes: list[tuple[str, Value]] = []

    async def execute(self, command: Command) -> Outcome:
        self.writes.append((command.tag, command.value))
        return Outcome(command.id, done=True, detail="read back")

    async def say(self, tag: str, payload: object, *options: str) -> None:
        text = payload if isinstance(payload, str | bytes) else json.dumps(payload)
        await publish(self.broker.port, f"shopfloor/{tag}/set", text, *options)

    async def answer(self, number: int) -> dict[str, Any]:
        """The answer at this place, without its time."""
        await until(lambda: len(self.phone.heard) > number, "an answer")
        said = self.phone.heard[number].json()
        assert not self.phone.heard[number].retained
        assert said.pop("time").endswith("Z")
        return said


@asynccontextmanager
async def line(folder: Path, broker: Mosquitto, port: int = 0, **options: object) -> AsyncIterator[Line]:
    """``port`` of a proxy before the broker, where there is one."""
    config = MqttConfig.model_validate(
        {
            "name": "cloud",
            "type": "mqtt",
            "servers": f"mqtt://127.0.0.1:{port or broker.port}",
            "timeout": "8 s",
            "commands": {"who": "phone", **options},
        }
    )
    assert config.commands is not None
    async with MosquittoSub.at(broker.port, "shopfloor/+/+/result") as phone:
        found = Line(broker, phone)
        commands = Commands(CommandsConfig(allow=ALLOW), Audit(folder / "audit.db", time.time_ns), found.execute)
        async with commands:
            sink = config.build()
            sink.commanded(CommandInbox(commands, config.commands, config.name))
            async with sink:
                yield found


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


async def test_a_set_point_is_written_and_answered(broker: Mosquitto, tmp_path: Path) -> None:
    async with line(tmp_path, broker) as at:
        await at.say("press-1/SP", {"value": 42.5, "id": "a1"})
        said = {"id": "a1", "tag": "press-1/SP", "event": "set", "value": 42.5, "done": True}
        assert await at.answer(0) == {**said, "detail": "read back", "reason": ""}
        await at.say("press-1/SP", "17")
        assert (await at.answer(1))["value"] == 17
        assert at.phone.heard[1].topic == "shopfloor/press-1/SP/result"
        await at.say("press-1/Löffel %231", {"value": "soup"})
        assert (await at.answer(2))["tag"] == "press-1/Löffel #1"
        assert at.writes == [("press-1/SP", 42.5), ("press-1/SP", 17), ("press-1/Löffel #1", "soup")]


async def test_press_and_release(broker: Mosquitto, tmp_path: Path) -> None:
    async with line(tmp_path, broker) as at:
        await at.say("press-1/Stop", {"value": True})
        assert (await at.answer(0))["event"] == "press"
        await at.say("press-1/Stop", {"value": False})
        released = await at.answer(1)
        assert (released["event"], released["reason"], released["done"]) == ("release", "released", True)
        assert at.writes == [("press-1/Stop", True), ("press-1/Stop", False)]


async def test_a_press_that_nobody_ends_is_ended_by_its_lease(broker: Mosquitto, tmp_path: Path) -> None:
    async with line(tmp_path, broker) as at:
        await at.say("press-1/Start", {"value": True})
        assert (await at.answer(1))["reason"] == "lease ended"
        assert at.writes == [("press-1/Start", True), ("press-1/Start", False)]


@pytest.mark.parametrize("how", ["reset", "leave"])
async def test_a_lost_connection_lets_go(how: str, broker: Mosquitto, tmp_path: Path) -> None:
    """The lease would last a minute; it does not come to that."""
    async with FaultProxy("127.0.0.1", broker.port) as proxy:
        async with line(tmp_path, broker, proxy.port) as at:
            await at.say("press-1/Stop", {"value": True})
            await until(lambda: at.writes == [("press-1/Stop", True)], "it is pressed")
            if how == "reset":
                proxy.reset()
                await until(lambda: len(at.writes) > 1, "it is released")
        await until(lambda: at.writes == [("press-1/Stop", True), ("press-1/Stop", False)], "it is released")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("", "write"),
        ("on", "malformed"),
        ('{"wert": 1}', "wert"),
        ('{"value": [1]}', "value"),
        ('{"value": 1, "time": "2026-01-05T06:00:00"}', "time"),
        ('{"value": 1, "seq": -1}', "seq"),
        (b"\xff\xfe", "write"),
        ("7" * 70_000, "at most 65536"),
    ],
)
async def test_what_cannot_be_understood_is_answered(
    payload: str | bytes, why: str, broker: Mosquitto, tmp_path: Path
) -> None:
    async with line(tmp_path, broker) as at:
        await at.say("press-1/SP", payload)
        said = await at.answer(0)
        assert (said["event"], said["done"]) == ("refused", False)
        assert why in said["detail"]
        await at.say("press-1/SP", 1)
        assert (await at.answer(1))["done"] is True
        assert at.writes == [("press-1/SP", 1)]


async def test_a_retained_command_is_none(broker: Mosquitto, tmp_path: Path) -> None:
    """It would be carried out again at every connect. MQTT 5 does not even send it to us."""
    await publish(broker.port, "shopfloor/press-1/SP/set", "1", "-r")
    async with line(tmp_path, broker) as at:
        await at.say("press-1/SP", 2)
        assert (await at.answer(0))["value"] == 2
        assert at.writes == [("press-1/SP", 2)]


async def test_old_messages_are_refused(broker: Mosquitto, tmp_path: Path) -> None:
    async with line(tmp_path, broker, demand_time=True) as at:
        await at.say("press-1/SP", 1)
        assert "when it was sent" in (await at.answer(0))["detail"]
        await at.say("press-1/SP", {"value": 2, "time": "2026-01-05T06:00:00Z"})
        assert (await at.answer(1))["reason"] == "The message is not of now"
        await at.say("press-1/SP", {"value": 3, "time": time.time_ns() // 10**6})
        assert (await at.answer(2))["done"] is True
        assert at.writes == [("press-1/SP", 3)]


async def test_what_waited_at_the_broker_is_not_carried_out(broker: Mosquitto, tmp_path: Path) -> None:
    """The session is a clean one: a command that was published while Shopfloor was away is gone."""
    async with line(tmp_path, broker) as at:
        await at.say("press-1/SP", 1)
        await at.answer(0)
    await publish(broker.port, "shopfloor/press-1/SP/set", "2")
    async with line(tmp_path, broker) as at:
        await at.say("press-1/SP", 3)
        assert (await at.answer(0))["value"] == 3
        assert at.writes == [("press-1/SP", 3)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"commands": {"topic": "a/b"}}, "{tag}"),
        ({"commands": {"topic": "a/{tag}", "result": "a/{tag}"}}, "differ"),
        ({"commands": {"topic": "shopfloor/{tag}"}}, "differ"),
        ({"commands": {"topic": "a/+/{tag}"}}, "wildcards"),
        ({"commands": {"role": "boss"}}, "role"),
    ],
)
def test_topics_that_cannot_be_are_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        MqttConfig.model_validate({"name": "cloud", "type": "mqtt", "servers": "mqtt://localhost", **options})


PLANT = """
plant: {{site: test}}
sources:
  - name: press
    type: opcua
    endpoint: {endpoint}
    publishing: 50 ms
    tags:
      - {{tag: press-1/SP, node: "ns=2;s=Channel1.Device1.SP"}}
      - {{tag: press-1/Start, node: "ns=2;s=Channel1.Device1.Start"}}
      - {{tag: press-1/MotorStatus, node: "ns=2;s=Channel1.Device1.MotorStatus"}}
sinks:
  - {{name: cloud, type: mqtt, servers: "mqtt://127.0.0.1:{port}", commands: {{}}}}
commands: {allow}
console: null
"""
ALLOWED = """
  allow:
    - {tag: press-1/SP, range: [0, 80], expires: 60 s}
    - {tag: press-1/Start, momentary: true, lease: 60 s, expires: 60 s}
"""


async def test_from_the_phone_into_the_plc_and_back(broker: Mosquitto, tmp_path: Path) -> None:
    """The whole way: the phone sees the values, sets one, and starts the motor."""
    server = PressServer(f"opc.tcp://127.0.0.1:{free_port()}", Press())
    async with server, MosquittoSub.at(broker.port) as phone:
        working = asyncio.create_task(server.run())
        plant = parse(PLANT.format(endpoint=server.endpoint, port=broker.port, allow=ALLOWED), "plant.yaml", tmp_path)

        def newest(topic: str) -> object:
            return next((h.json()["value"] for h in reversed(phone.heard) if h.topic == f"shopfloor/{topic}"), None)

        async with Pipeline(plant):
            await until(lambda: newest("press-1/MotorStatus") is False, "the phone sees the motor stand")
            await publish(broker.port, "shopfloor/press-1/SP/set", '{"value": 37.5}')
            await until(lambda: newest("press-1/SP") == 37.5, "the phone sees its set-point come back")
            await publish(broker.port, "shopfloor/press-1/Start/set", '{"value": true}')
            await until(lambda: newest("press-1/MotorStatus") is True, "the phone sees the motor run")
            await publish(broker.port, "shopfloor/press-1/Start/set", '{"value": false}')
            await until(lambda: newest("press-1/Start") is False, "the phone sees the button let go")
            results = [h.json() for h in phone.heard if h.topic.endswith("/result")]
            assert [(r["event"], r["done"]) for r in results][:2] == [("set", True), ("press", True)]
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def test_commands_without_anything_to_write_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(PlantError, match=r"commands\.allow"):
        parse(PLANT.format(endpoint="opc.tcp://localhost", port=1883, allow="{}"), "plant.yaml", tmp_path)
