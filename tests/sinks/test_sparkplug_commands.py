"""What hosts command an edge node, through a real Mosquitto: into the command path, echoed only after a real write."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.commands import Audit, CommandInbox, Commands
from shopfloor.pipeline import Pipeline
from shopfloor.plant import Allow, Commands as CommandsConfig, parse
from shopfloor.protocols.mqtt import Message
from shopfloor.protocols.mqtt_session import Arrival, open_session
from shopfloor.protocols.sparkplug.model import DataSet, DataType, Metric, Payload
from shopfloor.protocols.sparkplug.payload import encode
from shopfloor.samples import Batch, Command, Outcome, Value
from shopfloor.simulators.press import PressServer
from shopfloor.simulators.press_line import Press
from shopfloor.sinks.sparkplug import SparkplugSink
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import Mosquitto, free_port
from tests.sinks.mosquitto_sub import MosquittoSub
from tests.sinks.test_sparkplug import MS, ORDINARY, Host, config, live, now

SECOND = 10**9
NODE = "spBv1.0/bremen/NCMD/edge"
PRESS = "spBv1.0/bremen/DCMD/edge/press-1"
ALLOW = [
    Allow(tag="press-1/SP", range=(0, 80)),
    Allow(tag="press-1/Mode"),
    Allow(tag="press-1/Start", momentary=True, lease=SECOND),
    Allow(tag="press-1/Stop", momentary=True, lease=60 * SECOND),
    Allow(tag="Line"),
]


class Line:
    """An edge node with a machine behind it, and a host that hears and commands."""

    def __init__(self, sink: SparkplugSink, broker: Mosquitto, heard: MosquittoSub) -> None:
        self.sink = sink
        self.broker = broker
        self.heard = heard
        self.writes: list[tuple[str, Value]] = []
        self.works: bool | None = True
        self.reads_back = True
        self.offset = 0

    async def execute(self, command: Command) -> Outcome:
        if self.works:
            self.writes.append((command.tag, command.value))
            if self.reads_back:
                await self.tell(live(command.tag, command.value))
        return Outcome(command.id, done=self.works, detail="as told")

    async def tell(self, batch: Batch) -> None:
        self.offset += 1
        await self.sink.write(self.offset, batch)

    async def command(self, topic: str, *metrics: Metric, sent: int | None = None, datatypes: bool = True) -> None:
        payload = Payload(timestamp=(now() if sent is None else sent) // MS, metrics=metrics)
        await publish(self.broker.port, topic, encode(payload, datatypes=datatypes))

    @property
    def host(self) -> Host:
        return Host(self.heard.heard)

    def values(self, tag: str) -> list[Value]:
        return [sample.value for sample in self.host.samples if sample.tag == tag]

    def alias(self, tag: str) -> int:
        device, _, name = tag.partition("/")
        for birth, kind in zip(self.host.births, [k for k in self.host.kinds if "BIRTH" in k], strict=True):
            for metric in birth.metrics:
                if metric.name == name and kind.endswith(device):
                    assert metric.alias is not None
                    return metric.alias
        raise AssertionError(tag)


async def publish(port: int, topic: str, payload: bytes) -> None:
    settings = config(port, Path())
    session = await open_session(settings, f"test-{time.monotonic_ns()}")
    await session.publish([Message(topic.encode(), payload, retain=False)], 1)
    await session.close()


def metric(name: str, value: Value, kind: DataType = DataType.DOUBLE) -> Metric:
    return Metric(name=name, timestamp=now() // MS, type=kind, value=value)


@asynccontextmanager
async def line(folder: Path, **options: object) -> AsyncIterator[Line]:
    with Mosquitto(folder) as broker:
        settings = config(broker.port, folder, **{"commands": {"who": "scada"}, **options})
        async with MosquittoSub.at(broker.port, ORDINARY) as heard:
            sink = settings.build()
            found = Line(sink, broker, heard)
            async with Commands(
                CommandsConfig(allow=ALLOW), Audit(folder / "a.db", time.time_ns), found.execute
            ) as path:
                allowed = settings.commanded()
                assert allowed is not None
                sink.commanded(CommandInbox(path, allowed, settings.name))
                async with sink:
                    for tag, value in (("press-1/SP", 20.0), ("press-1/Mode", 3), ("Line", "a")):
                        await found.tell(live(tag, value))
                    for tag in ("press-1/Start", "press-1/Stop", "press-1/PV"):
                        await found.tell(live(tag, False))  # a value
                    await until(lambda: len(found.host.samples) == 6, "the host knows every metric")
                    yield found


async def test_a_dcmd_is_written_and_comes_back_as_data(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        await at.command(PRESS, metric("SP", 42.5))
        await until(lambda: at.values("press-1/SP") == [20.0, 42.5], "the host sees what it set")
        assert at.writes == [("press-1/SP", 42.5)]
        await asyncio.sleep(1.3)  # longer than an echo would wait
        assert at.values("press-1/SP") == [20.0, 42.5], "the sample was its echo"


async def test_a_retained_command_is_not_carried_out_at_each_connection(tmp_path: Path) -> None:
    """Nobody knows how old it is. MQTT 5 is asked for none, with 3.1.1 it comes as this."""
    async with line(tmp_path) as at:
        kept = encode(Payload(timestamp=None, metrics=[metric("SP", 42.5)]), datatypes=True)
        assert at.sink._line is not None
        at.sink._take(*at.sink._line, [Arrival(PRESS, kept, retained=True, packet_id=0, duplicate=False)])
        await at.command(PRESS, metric("Mode", 5, DataType.INT64))
        await until(lambda: bool(at.writes), "the next one")
        assert at.writes == [("press-1/Mode", 5)]


async def test_by_alias_and_without_a_datatype(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        meant = Metric(alias=at.alias("press-1/Mode"), timestamp=now() // MS, type=DataType.INT64, value=-4)
        await at.command(PRESS, meant, datatypes=False)
        await until(lambda: at.values("press-1/Mode") == [3, -4], "the host sees what it set")
        assert at.writes == [("press-1/Mode", -4)]


async def test_an_ncmd_writes_a_metric_of_the_node(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        await at.command(NODE, metric("Line", "b", DataType.STRING))
        await until(lambda: at.values("Line") == ["a", "b"], "the host sees what it set")


async def test_several_metrics_of_one_command(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        await at.command(PRESS, metric("SP", 1.5), metric("Mode", 2, DataType.INT32))
        await until(lambda: len(at.writes) == 2, "both are written")
        assert sorted(at.writes) == [("press-1/Mode", 2), ("press-1/SP", 1.5)]


async def test_a_value_that_was_there_already_is_echoed_all_the_same(tmp_path: Path) -> None:
    """No sample comes then: the source reports changes only. The host still learns that its command was done."""
    async with line(tmp_path) as at:
        at.reads_back = False
        await at.command(PRESS, metric("SP", 20, DataType.INT32))
        await until(lambda: at.values("press-1/SP") == [20.0, 20.0], "the node says the value again")
        assert not at.host.historical[-1]
        assert at.writes == [("press-1/SP", 20)]


@pytest.mark.parametrize("became", ["failed", "unknown"])
async def test_what_was_not_written_is_not_echoed(became: str, tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        at.works = False if became == "failed" else None
        await at.command(PRESS, metric("SP", 42.5))
        await asyncio.sleep(1.5)
        assert at.values("press-1/SP") == [20.0]


REFUSED: Sequence[Metric] = [
    metric("SP", 81.0), metric("SP", "much", DataType.STRING), metric("PV", 1.0), metric("Nowhere", 1.0),
    Metric(alias=9999, type=DataType.DOUBLE, value=1.0),
    Metric(name="SP", type=DataType.DOUBLE, is_null=True),
    Metric(name="SP", type=DataType.DATA_SET, value=DataSet(["a"], [DataType.INT32], [[1]])),
    Metric(name="SP", type=DataType.INT32_ARRAY, value=[1, 2]),
]  # fmt: skip


async def test_what_may_not_be_is_refused_and_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        assert at.sink._commands is not None
        inbox = at.sink._commands._inbox
        assert isinstance(inbox, CommandInbox)
        await at.command(PRESS, *REFUSED)
        await publish(at.broker.port, PRESS, b"\xff garbage")
        await at.command(PRESS, metric("SP", 5.0), sent=now() - 3600 * SECOND)
        await at.command("spBv1.0/bremen/DCMD/edge/nobody", metric("SP", 5.0))
        await at.command(PRESS, metric("SP", 7.0))
        await until(lambda: at.writes == [("press-1/SP", 7.0)], "only the last is written")
        records = await inbox._commands.audit(100)
        assert len([r for r in records if r.event == "refused"]) == len(REFUSED) + 2
        assert {r.who for r in records} == {"scada"}


async def test_true_presses_and_false_lets_go(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        await at.command(PRESS, metric("Stop", True, DataType.BOOLEAN))
        await until(lambda: at.writes == [("press-1/Stop", True)], "it is pressed")
        await at.command(PRESS, metric("Stop", False, DataType.BOOLEAN))
        await until(lambda: at.writes == [("press-1/Stop", True), ("press-1/Stop", False)], "it is let go")
        await at.command(PRESS, metric("Start", True, DataType.BOOLEAN))
        await until(lambda: at.writes[2:] == [("press-1/Start", True), ("press-1/Start", False)], "its lease ends")


async def test_leaving_lets_go(tmp_path: Path) -> None:
    async with line(tmp_path) as at:
        await at.command(PRESS, metric("Stop", True, DataType.BOOLEAN))
        await until(lambda: at.writes == [("press-1/Stop", True)], "it is pressed")
        at.reads_back = False
        await at.sink.__aexit__(None, None, None)
        await until(lambda: at.writes == [("press-1/Stop", True), ("press-1/Stop", False)], "it is let go")


async def test_without_the_option_nothing_is_written(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        settings = config(broker.port, tmp_path)
        assert settings.commanded() is None
        async with MosquittoSub.at(broker.port, ORDINARY) as heard, settings.build() as sink:
            await sink.write(1, live("press-1/SP", 20.0))
            payload = Payload(timestamp=now() // MS, metrics=[metric("SP", 42.5)])
            await publish(broker.port, PRESS, encode(payload))
            await publish(broker.port, NODE, encode(payload))
            await sink.write(2, live("press-1/SP", 21.0))
            await until(lambda: len(Host(heard.heard).samples) == 2, "it goes on")


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
  - {{name: edge, type: sparkplug, group: bremen, node: edge, servers: "mqtt://127.0.0.1:{port}", commands: {{}},
     tags: ["press-1/*"], memory: memory}}
commands:
  allow:
    - {{tag: press-1/SP, range: [0, 80], expires: 60 s}}
    - {{tag: press-1/Start, momentary: true, lease: 2 s, expires: 60 s}}
console: null
"""


async def test_from_a_host_into_the_plc_and_back(tmp_path: Path) -> None:
    """The whole way: DCMD, OPC UA write, the PLC's own value back as DDATA."""
    server = PressServer(f"opc.tcp://127.0.0.1:{free_port()}", Press())
    with Mosquitto(tmp_path) as broker:
        async with server, MosquittoSub.at(broker.port, ORDINARY) as heard:
            working = asyncio.create_task(server.run())
            text = PLANT.format(endpoint=server.endpoint, port=broker.port)

            def newest(tag: str) -> Value:
                return next((s.value for s in reversed(Host(heard.heard).samples) if s.tag == tag), None)

            async def command(name: str, value: Value, kind: DataType) -> None:
                payload = Payload(timestamp=now() // MS, metrics=[metric(name, value, kind)])
                await publish(broker.port, PRESS, encode(payload))

            async with Pipeline(parse(text, "plant.yaml", tmp_path)):
                await until(lambda: newest("press-1/MotorStatus") is False, "the host sees the motor stand")
                await command("SP", 37.5, DataType.DOUBLE)
                await until(lambda: newest("press-1/SP") == 37.5, "the host sees its set-point come back")
                await command("Start", True, DataType.BOOLEAN)
                await until(lambda: newest("press-1/MotorStatus") is True, "the host sees the motor run")
                await until(lambda: newest("press-1/Start") is False, "the button is let go by itself")
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


HOST = """
plant: {{site: office}}
sources:
  - {{name: floor, type: sparkplug, host_id: mes, servers: "mqtt://127.0.0.1:{port}"}}
commands:
  allow:
    - {{tag: bremen/edge/press-1/SP, range: [0, 80], expires: 60 s}}
console: null
"""


def _newest(pipeline: Pipeline, tag: str) -> Value:
    sample = pipeline.live.get(tag)
    return None if sample is None else sample.value


async def test_from_one_shopfloor_through_another_into_the_plc(tmp_path: Path) -> None:
    """A host's command path reaches the PLC of an edge node, and its outcome says so, also when nothing changes."""
    server = PressServer(f"opc.tcp://127.0.0.1:{free_port()}", Press())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with Mosquitto(tmp_path) as broker:
        async with server:
            working = asyncio.create_task(server.run())
            # It waits for this host, else its births could come before the host listens, and nothing after them.
            text = PLANT.replace("node: edge,", "node: edge, primary_host: mes,")
            edge = parse(text.format(endpoint=server.endpoint, port=broker.port), "a.yaml", tmp_path / "a")
            office = parse(HOST.format(port=broker.port), "b.yaml", tmp_path / "b")
            async with Pipeline(edge), Pipeline(office) as pipeline:
                tag = "bremen/edge/press-1/SP"
                await until(lambda: pipeline.live.get(tag) is not None, "the host knows the set-point")
                for value in (33.5, 33.5):
                    outcome = await pipeline.commands.send(tag, value, issued_by="planner", role="operator")
                    assert outcome.done, outcome
                    await until(lambda v=value: _newest(pipeline, tag) == v, "it is durable")  # type: ignore[misc]
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
