"""The MQTT source against a real Mosquitto, with cut cables, restarts and bad payloads."""

import asyncio
import contextlib
import importlib
import json
import multiprocessing
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from time import time_ns

import pytest
from pydantic import ValidationError

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import Message
from shopfloor.protocols.mqtt_session import Session, Subscription, open_session
from shopfloor.samples import Batch, Command, Misconfigured, Quality, Sample, Unavailable, Value
from shopfloor.sources.mqtt import MqttSource, MqttSourceConfig
from shopfloor.testing.contracts import ProxiedRig, SourceContract, SourceRig, until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "10"))
END = 2**62


def config(port: int, **options: object) -> MqttSourceConfig:
    fields: dict[str, object] = {
        "name": "cells", "type": "mqtt", "servers": f"mqtt://127.0.0.1:{port}", "timeout": "30 s",
        "keep_alive": "30 s", "client_id": "source", "topics": [{"topic": "cell/#"}],
    }  # fmt: skip
    return MqttSourceConfig.model_validate({**fields, **options})


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Session]:
    """A second client of the same broker."""
    settings = MqttConnection.model_validate({"servers": f"mqtt://127.0.0.1:{port}"})
    session = await open_session(settings, f"peer-{os.urandom(4).hex()}")
    try:
        yield session
    finally:
        await session.close()


async def say(port: int, *said: tuple[str, bytes], retain: bool = False) -> None:
    async with peer(port) as session:
        assert not await session.publish([Message(topic.encode(), body, retain) for topic, body in said], 1)


async def read(source: MqttSource, number: int) -> list[Sample]:
    """This many samples, each batch acknowledged."""
    found: list[Sample] = []
    async with asyncio.timeout(60), aclosing(source.batches()) as batches:
        async for batch in batches:
            if len(found) >= number:
                break
            found += batch
            if len(found) >= number:
                # Resumed once more, so that the last batch is acknowledged, too.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await anext(batches)
                break
    return found


class MqttSourceRig(ProxiedRig):
    """A machine that publishes a counter and takes set-points, behind a proxy."""

    def __init__(self, source: MqttSource, proxy: FaultProxy, machine: Session) -> None:
        super().__init__(source, proxy)
        self.machine = machine
        self.count = 0
        self.set_point: Value = 1

    async def change(self) -> None:
        self.count += 1
        await self.machine.publish([Message(b"cell/count", str(self.count).encode(), retain=False)], 1)

    async def serve(self) -> None:
        """Take the set-point and show it."""
        async for arrivals in self.machine.arrivals():
            for arrival in arrivals:
                self.set_point = json.loads(arrival.payload)
                await self.machine.publish([Message(b"cell/sp", arrival.payload, retain=False)], 1)
            self.machine.acknowledge(arrivals)

    def writable(self) -> tuple[str, Value]:
        return "cell/sp", 42

    async def held(self, tag: str) -> Value:
        assert tag == "cell/sp"
        return self.set_point


class TestMqtt5(SourceContract):
    redelivers = True
    version = "5"

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:
        async with (
            Mosquitto(folder) as broker,
            FaultProxy("127.0.0.1", broker.port) as proxy,
            peer(broker.port) as machine,
        ):
            await machine.subscribe([Subscription("set/sp")])
            writes = [{"tag": "cell/sp", "topic": "set/sp", "read_back": "30 s"}]
            limits = {"timeout": "8 s", "keep_alive": "2 s"} if self.hasty else {}
            built = config(proxy.port, version=self.version, writes=writes, **limits).build()
            rig = MqttSourceRig(built, proxy, machine)
            serving = asyncio.create_task(rig.serve())
            try:
                yield rig
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


class TestMqtt311(TestMqtt5):
    version = "3.1.1"


# ---- the flow ---------------------------------------------------------------------------------------------


async def test_a_restart_misses_nothing_also_under_a_name_of_its_own(tmp_path: Path) -> None:
    """Without a `client_id` the name is made at the first start and becomes durable before it is subscribed."""
    async with Mosquitto(tmp_path) as broker:
        first = config(broker.port, client_id=None).build()
        async with first, aclosing(first.batches()) as batches:
            named = await anext(batches)
            assert named.checkpoint
            assert not len(named)
            going_on = asyncio.create_task(anext(batches))
            await until(lambda: first._subscribed, "it has subscribed")
            going_on.cancel()
            await asyncio.gather(going_on, return_exceptions=True)
        await say(broker.port, *((f"cell/{i % 3}", str(i).encode()) for i in range(50)))
        second = config(broker.port, client_id=None).build()
        second.resume(named.checkpoint)
        async with second:
            assert sorted(int(str(sample.value)) for sample in await read(second, 50)) == list(range(50))


async def test_what_is_durable_is_acknowledged_and_does_not_come_again(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        source = config(broker.port).build()
        async with source:
            await say(broker.port, ("cell/a", b"1"))
            assert [sample.value for sample in await read(source, 1)] == [1]
        await say(broker.port, ("cell/a", b"2"))
        async with source:
            assert [sample.value for sample in await read(source, 1)] == [2]


@pytest.mark.parametrize("qos", [0, 1])
async def test_that_nothing_is_missing_is_said_where_the_broker_kept_it(tmp_path: Path, qos: int) -> None:
    async with Mosquitto(tmp_path) as broker:
        source = config(broker.port, topics=[{"topic": "cell/#", "qos": qos}]).build()
        complete: list[bool] = []
        for value in (b"1", b"2"):
            async with source, aclosing(source.batches()) as batches:
                await say(broker.port, ("cell/a", value))
                batch = await anext(batches)
                complete.append(batch.complete)
                while not len(batch):
                    batch = await anext(batches)
                reading = asyncio.create_task(anext(batches))  # acknowledges
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        assert complete == [False, qos == 1]


async def test_a_restart_of_the_broker_is_unavailable_and_then_all_is_well(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    async with broker:
        source = config(broker.port).build()
        async with source, aclosing(source.batches()) as batches:
            reading = asyncio.create_task(anext(batches))
            await asyncio.to_thread(broker.stop)
            with pytest.raises(Unavailable):
                await reading
        with pytest.raises(Unavailable):
            await source.__aenter__()
        await asyncio.to_thread(broker.start)
        async with source:
            await say(broker.port, ("cell/a", b"1"))
            assert [sample.value for sample in await read(source, 1)] == [1]


async def test_retained_values_are_taken_once_and_are_uncertain(tmp_path: Path) -> None:
    """Nobody knows how old they are; one with a time of its own is as good as it says."""
    topics = [{"topic": "cell/#"}, {"topic": "dated", "payload": "json", "time": "t", "values": [{"path": "v"}]}]
    async with Mosquitto(tmp_path) as broker:
        await say(broker.port, ("cell/a", b"7"), ("dated", b'{"v":8,"t":1767592800000}'), retain=True)
        source = config(broker.port, topics=topics).build()
        async with source:
            found = {sample.tag: (sample.value, sample.quality) for sample in await read(source, 2)}
        assert found == {"cell/a": (7, Quality.LAST_USABLE), "dated/v": (8, Quality.GOOD)}
        async with source:
            await say(broker.port, ("cell/a", b"9"))
            assert [sample.value for sample in await read(source, 1)] == [9]


async def test_garbage_turns_the_tag_bad_and_never_stops_the_flow(tmp_path: Path) -> None:
    topics = [
        {"topic": "number/+", "data_type": "float"},
        {"topic": "open/+", "payload": "json"},
        {"topic": "rows", "payload": "csv", "columns": ["PV", "CV"]},
    ]
    chosen = random.Random(3)
    async with Mosquitto(tmp_path) as broker:
        source = config(broker.port, topics=topics).build()
        async with source:
            garbage = [chosen.randbytes(chosen.randrange(1, 200)) + b"\xff" for _ in range(100)]
            await say(broker.port, *((t, g) for g in garbage for t in ("number/a", "open/a", "rows")))
            await say(broker.port, ("open/deep", b"[" * 1_000_000), ("open/" + "x" * 300, b"1"), ("number/a", b"1.5"))
            found = await read(source, 301)
            assert {sample.tag for sample in found} == {"number/a", "rows/PV", "rows/CV"}
            assert found[-1].value == 1.5
            assert {(s.value, s.quality) for s in found[:-1]} == {(None, Quality.BAD)}
            assert source.unreadable == 302


async def test_a_message_of_10_mb_is_a_value_like_any_other(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        source = config(broker.port, topics=[{"topic": "cell/+", "data_type": "bytes"}]).build()
        async with source:
            await say(broker.port, ("cell/big", b"x" * 10_000_000), ("cell/small", b"y"))
            found = await read(source, 2)
            assert [(sample.tag, len(bytes(str(sample.value), "ascii")) > 10_000_000) for sample in found] == [
                ("cell/big", True),
                ("cell/small", False),
            ]


async def test_a_forbidden_topic_must_be_changed_by_a_person(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path, options=["max_qos 0"]) as broker:
        with pytest.raises(Misconfigured, match="qos: 0"):
            await config(broker.port).build().__aenter__()


# ---- commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "value", "published"),
    [
        ({}, 2.5, b"2.5"),
        ({}, "on", b"on"),
        ({"payload": "json"}, True, b'{"value":true}'),
        ({"data_type": "int"}, 3.0, b"3"),
    ],
)
async def test_a_write_that_nobody_confirms_is_unknown(
    write: dict[str, str], value: Value, published: bytes, tmp_path: Path
) -> None:
    """The broker has it, but the machine did not show it: a person resolves it."""
    async with Mosquitto(tmp_path) as broker, peer(broker.port) as machine:
        await machine.subscribe([Subscription("set")])
        writes = [{"tag": "cell/sp", "topic": "set", "read_back": "0.1 s", **write}]
        source = config(broker.port, writes=writes).build()
        async with source:
            outcome = await source.execute(Command("c", "cell/sp", value, "test", time_ns() + 10**10))
        assert outcome.done is None
        assert "did not show it" in outcome.detail
        async with aclosing(machine.arrivals()) as arrivals:
            assert [one.payload for one in await anext(arrivals)] == [published]


@pytest.mark.parametrize("value", [None, float("nan"), b"x", "no number", True, 2**70])
async def test_a_value_that_the_tag_cannot_have_is_not_published(value: Value, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        source = config(broker.port, writes=[{"tag": "sp", "topic": "set", "data_type": "int"}]).build()
        async with source:
            outcome = await source.execute(Command("c", "sp", value, "test", time_ns() + 10**10))
        assert outcome.done is False
        assert "cannot be written to sp" in outcome.detail


# ---- the plant file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"topics": []}, "at least 1"),
        ({"topics": [{"topic": "a/#/b"}]}, "no topic filter"),
        ({"topics": [{"topic": "a+"}]}, "no topic filter"),
        ({"topics": [{"topic": "a"}, {"topic": "a"}]}, "a twice"),
        ({"topics": [{"topic": "a/+", "tag": "{3}"}]}, "a level that a/\\+ does not have"),
        ({"topics": [{"topic": "a", "tag": "{nothing}"}]}, "can stand in braces"),
        ({"topics": [{"topic": "a", "tag": "{1"}]}, "a brace is missing"),
        ({"topics": [{"topic": "a", "tag": "x*"}]}, "none of"),
        ({"topics": [{"topic": "a", "tag": "{machine}"}]}, "needs `payload: telemetry`"),
        ({"topics": [{"topic": "a", "time": "t"}]}, "plain"),
        ({"topics": [{"topic": "a", "columns": ["b"]}]}, "belongs to `payload: csv`"),
        ({"writes": [{"tag": "a", "topic": "set/#"}]}, "no wildcards"),
        ({"server_sha256": "00" * 32}, "needs TLS"),
        ({"server_sha256": "zz"}, "64 hexadecimal digits"),
        ({"session": "-1 s"}, "session"),
    ],
)
def test_a_mistake_in_the_plant_file_says_what_to_do(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        config(1883, **options)


def test_tags_are_declared_where_the_plant_file_alone_tells_them() -> None:
    topics: list[object] = [
        {"topic": "a", "unit": "bar"},
        {"topic": "b", "payload": "json", "values": [{"path": "x.y", "unit": "mm"}]},
    ]
    writes = [{"tag": "a", "topic": "set/a"}, {"tag": "c", "topic": "set/c"}]
    known = config(1883, topics=topics, writes=writes).declared()
    assert known is not None
    assert [(t.tag, t.unit, t.writable) for t in known] == [
        ("a", "bar", True), ("b/x/y", "mm", False), ("c", "", True),
    ]  # fmt: skip
    assert config(1883, topics=[*topics, {"topic": "d/+"}]).declared() is None


# ---- kill -9 ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_kill_9_loses_nothing_that_the_broker_was_told_to_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again while messages come: in the end every one of them is in the historian."""
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("mqtt_victim")
    chosen = random.Random(11)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["mqtt_victim"])
    (tmp_path / "broker").mkdir()
    async with Mosquitto(tmp_path / "broker") as broker, peer(broker.port) as machine:
        async with Pipeline(victim.described(tmp_path, broker.port)) as pipeline:

            async def heard() -> bool:
                await machine.publish([Message(b"cell/hello", b"1", retain=False)], 1)
                return any(c.name == "cells" and c.samples for c in pipeline.components())

            await until(heard, "it has subscribed")
        said = 0

        async def talk() -> None:
            nonlocal said
            while True:
                some = range(said, said + 5)
                await machine.publish([Message(b"cell/count", str(i).encode(), retain=False) for i in some], 1)
                said += 5
                await asyncio.sleep(0.01)

        talking = asyncio.create_task(talk())
        try:
            for _ in range(KILLS):
                process = forks.Process(target=victim.live, args=(str(tmp_path), broker.port), daemon=True)
                await asyncio.to_thread(process.start)
                await asyncio.sleep(chosen.uniform(0.1, 1.0))
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)
                await asyncio.to_thread(process.join)
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
        async with Pipeline(victim.described(tmp_path, broker.port)) as pipeline:

            async def stored() -> set[object]:
                if pipeline.historian is None:
                    return set()
                series = await pipeline.historian.history("cell/count", 0, END, limit=10_000_000)
                return set(series.values)

            async def all_there() -> bool:
                return set(range(said)) <= await stored()

            await until(all_there, "every message is in the historian", 30)
            assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]


def test_batches_of_two_entries_keep_their_meaning() -> None:
    """The first entry that covers a topic says what it means."""
    source = config(1883, topics=[{"topic": "cell/+/raw", "data_type": "text"}, {"topic": "cell/#"}]).build()
    meant = [source._known_as(topic).meaning for topic in ("cell/1/raw", "cell/1/PV", "cell", "other", "$SYS/cell")]
    assert meant == [source._meanings[0], source._meanings[1], source._meanings[1], None, None]
    assert isinstance(source._batch([]), Batch)
