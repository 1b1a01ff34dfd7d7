"""The Kafka source against a real broker: offsets, groups, gaps, poison, and a network that fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import NewPartitions
from msgspec.json import decode, encode
from pydantic import ValidationError
from structlog.testing import capture_logs

from shopfloor.plant.components import FromEnvironment
from shopfloor.plant.kafka import SchemaRegistry
from shopfloor.protocols.kafka import ClientThread
from shopfloor.samples import Batch, Misconfigured, Sample, Unavailable
from shopfloor.sources import kafka_schemas
from shopfloor.sources.kafka import Checkpoint, KafkaSource, KafkaSourceConfig
from shopfloor.sources.kafka_schemas import Schemas
from shopfloor.sources.mqtt_payload import Unreadable
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts import ProxiedRig, SourceContract, SourceRig, until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.kafka_broker import PASSWORD, Shared, create, delete, put

NOW = instant("2026-01-05T06:00:00Z")
JSON = {"payload": "json", "tag": "{key}", "values": [{"path": "value", "tag": "{key}"}], "time": "time"}


def config(server: str, topic: str, *, entry: Mapping[str, object] | None = None, **options: Any) -> KafkaSourceConfig:
    fields: dict[str, object] = {
        "name": "bus", "type": "kafka", "servers": server, "topics": [{"topic": topic, **(entry or {"tag": "{key}"})}],
    }  # fmt: skip
    return KafkaSourceConfig.model_validate({**fields, **options})


async def read(source: KafkaSource, number: int) -> list[Sample]:
    """This many samples, each batch acknowledged."""
    return [sample for batch in await batches(source, number) for sample in batch]


async def batches(source: KafkaSource, number: int) -> list[Batch]:
    found: list[Batch] = []
    acknowledged = 0
    async with asyncio.timeout(60), aclosing(source.batches()) as reading:
        async for batch in reading:
            if acknowledged >= number:
                break
            found.append(batch)
            acknowledged += len(batch)
            if acknowledged >= number:
                assert source._group is not None
                assert source._thread is not None
                source._offsets = {topic: dict(parts) for topic, parts in source._group.offsets.items()}
                source._ids = dict(source._group.ids)
                await source._thread.run(source._group.commit)
                break
    return found


def kept_by(source: KafkaSource) -> bytes:
    """What is durable of a source that is connected."""
    assert source._group is not None
    return source._checkpoint(source._group)


class KafkaSourceRig(ProxiedRig):
    """A counter in a topic, behind a proxy."""

    def __init__(self, source: KafkaSource, proxy: FaultProxy, kafka: Shared, topic: str) -> None:
        super().__init__(source, proxy)
        self.kafka = kafka
        self.topic = topic
        self.count = 0

    async def freeze(self) -> bool:
        assert isinstance(self.source, KafkaSource)
        assert self.source._group is not None
        self.source._group._seconds = 1.0  # to ask again, once the connection was silent for the whole `timeout`
        return await super().freeze()

    async def change(self) -> None:
        self.count += 1
        await asyncio.to_thread(put, self.kafka.server, self.topic, [("cell/count", str(self.count).encode())])


class TestKafka(SourceContract):
    redelivers = True

    @pytest.fixture(autouse=True)
    def _broker(self, kafka: Shared, kafka_slot: tuple[int, int], topic: str) -> None:
        self.kafka, self.slot, self.topic = kafka, kafka_slot, topic

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:
        del folder
        listener, via = self.slot
        async with FaultProxy("127.0.0.1", listener, via) as proxy:
            source = config(f"127.0.0.1:{via}", self.topic, timeout=(3 if self.hasty else 30) * 10**9).build()
            source.resume(encode(Checkpoint("contract", {})))  # else its first batch is only its name
            yield KafkaSourceRig(source, proxy, self.kafka, self.topic)


# ---- what records mean -----------------------------------------------------------------------------------


async def test_the_key_the_levels_of_the_topic_and_the_payload_make_tags(kafka: Shared, topic: str) -> None:
    """What dots separate in a topic's name, slashes do in a tag's."""
    sink_json = json.dumps({"value": 41.5, "time": "2026-01-05T06:00:00.123456789Z", "quality": 64})
    entry = JSON | {"quality": "quality"}
    put(kafka.server, topic, [("press-1/PV", sink_json.encode())])
    async with config(kafka.server, topic, entry=entry).build() as source:
        assert await read(source, 1) == [Sample("press-1/PV", NOW + 123_456_789, 41.5, 64)]
    entry = {"payload": "json", "tag": "{1}/{key}/{3}"}
    put(kafka.server, topic, [("{a}", b'{"x": {"y": 7}}')])
    async with config(kafka.server, topic, entry=entry).build() as source:
        found = await read(source, 2)
    assert [(s.tag, s.value) for s in found if "{a}" in s.tag] == [(f"open/{{a}}/{topic.split('.')[2]}/x/y", 7)]


async def test_a_value_without_a_time_has_the_record_s(kafka: Shared, topic: str) -> None:
    put(kafka.server, topic, [("a/x", b"1")], timestamp=NOW // 10**6 + 5)
    async with config(kafka.server, topic).build() as source:
        assert await read(source, 1) == [Sample("a/x", NOW + 5 * 10**6, 1)]


async def test_poison_is_counted_said_once_and_passed(kafka: Shared, topic: str) -> None:
    """A record that cannot be read turns its tag bad where that is known; those behind it come."""
    put(kafka.server, topic, [("a/x", b"\xff"), ("a/x", b"{"), ("a/x", None), ("a/x", b'{"value": 1}')], partition=0)
    put(kafka.server, topic, [("", b'{"value": 2}'), ("k" * 300, b'{"value": 3}')], partition=0)
    put(kafka.server, topic, [("b/x", b'{"value": 4}')], partition=0)
    with capture_logs() as logs:
        async with config(kafka.server, topic, entry=JSON).build() as source:
            found = await read(source, 4)
            assert source.unreadable == 4
    assert [(s.tag, s.value, s.quality) for s in found] == [
        ("a/x", None, 0), ("a/x", None, 0), ("a/x", 1, 192), ("b/x", 4, 192)
    ]  # fmt: skip
    said = [log["reason"] for log in logs if log["event"] == "a record cannot be read"]
    assert len(said) == 4
    assert any("no key" in reason for reason in said)


# ---- where it begins and goes on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "values"),
    [
        ("earliest", [0, 1, 2, 3]),
        ("latest", [3]),
        ("2026-01-05T06:00:01Z", [1, 2, 3]),
        ("2026-01-05T07:00:01+01:00", [1, 2, 3]),
    ],
)
async def test_the_start_counts_where_nobody_knows_the_partition(
    kafka: Shared, topic: str, start: str, values: list[int]
) -> None:
    for i in range(3):
        put(kafka.server, topic, [("a/x", b"%d" % i)], timestamp=NOW // 10**6 + i * 1000, partition=0)
    async with config(kafka.server, topic, start=start).build() as source, aclosing(source.batches()) as reading:
        found: list[Sample] = []
        async with asyncio.timeout(60):
            found += await anext(reading)  # its name
            if start != "earliest":
                pinned = await anext(reading)  # where it begins is durable before anything comes
                assert pinned.checkpoint is not None
                found += pinned
            put(kafka.server, topic, [("a/x", b"3")], timestamp=NOW // 10**6 + 3000, partition=0)
            while len(found) < len(values):
                found += await anext(reading)
    assert [sample.value for sample in found] == values


async def test_a_restart_goes_on_behind_what_is_durable_and_begins_new_partitions_at_their_beginning(
    kafka: Shared, topic: str
) -> None:
    """The journal's offset holds although the group has none of it; what came meanwhile is not passed over."""
    put(kafka.server, topic, [("a/x", b"0"), ("a/x", b"1")], partition=0)
    latest = config(kafka.server, topic, start="latest")
    async with latest.build() as source, aclosing(source.batches()) as reading, asyncio.timeout(60):
        await anext(reading)
        pinned = await anext(reading)
        put(kafka.server, topic, [("a/x", b"2"), ("a/x", b"3")], partition=0)
        taken = await anext(reading)
    assert pinned.checkpoint is not None
    assert [sample.value for sample in taken][:1] == [2]
    for done in kafka.admin.create_partitions([NewPartitions(topic, 3)]).values():
        done.result(30)
    put(kafka.server, topic, [("b/x", b"10")], partition=2)
    again = latest.build()
    again.resume(pinned.checkpoint)
    async with again:
        found = await read(again, 3)
    assert sorted(str(sample.value) for sample in found) == ["10", "2", "3"]


def _clients() -> set[str]:
    """The library's clients in this process, by the thread that each has."""
    found = set[str]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread, of whomever, that ended meanwhile
            if (task / "comm").read_text().strip() == "rdk:main":
                found.add(task.name)
    return found


async def test_a_client_that_reaches_nobody_has_ended_when_that_is_said() -> None:
    """Also while somebody keeps the error: it must not go on connecting beside the next one."""
    before = _clients()
    with pytest.raises(Unavailable) as away:
        async with config(f"127.0.0.1:{free_port()}", "x", timeout=10**9).build():
            pytest.fail("it was entered")
    assert away.value.__traceback__ is not None
    assert _clients() <= before


async def test_the_group_knows_what_is_durable(kafka: Shared, topic: str) -> None:
    """Who has the group but not the journal goes on there: another Shopfloor that takes the partition over."""
    shared = config(kafka.server, topic, group=f"open-{topic}")
    put(kafka.server, topic, [("a/x", b"0"), ("a/x", b"1")], partition=0)
    async with shared.build() as source:
        assert len(await read(source, 2)) == 2
    put(kafka.server, topic, [("a/x", b"2")], partition=0)
    async with shared.build() as source:
        assert [sample.value for sample in await read(source, 1)] == [2]


async def test_partitions_move_between_two_of_a_group_and_each_record_comes_once(kafka: Shared, topic: str) -> None:
    shared = config(kafka.server, topic, group=f"open-{topic}", timeout=5 * 10**9)
    found: dict[str, list[Sample]] = {"one": [], "two": []}

    async def reading(name: str) -> None:
        async with shared.build() as source, aclosing(source.batches()) as reading:
            async for batch in reading:
                found[name] += batch

    one = asyncio.create_task(reading("one"))
    two: asyncio.Task[None] | None = None
    try:
        await asyncio.to_thread(put, kafka.server, topic, [(f"a/{i}", b"1") for i in range(50)])
        await until(lambda: len(found["one"]) == 50, "the first has all", 60)
        two = asyncio.create_task(reading("two"))
        count = 50

        async def both() -> bool:
            nonlocal count
            await asyncio.to_thread(put, kafka.server, topic, [(f"a/{count + i}", b"2") for i in range(10)])
            count += 10
            return bool(found["two"])

        await until(both, "the second has some of what comes", 60)
        await until(lambda: sum(map(len, found.values())) >= count, "all is there", 60)
    finally:
        for task in filter(None, (one, two)):
            task.cancel()
        await asyncio.gather(*filter(None, (one, two)), return_exceptions=True)
    tags = [sample.tag for samples in found.values() for sample in samples]
    assert sorted(tags) == sorted(f"a/{i}" for i in range(count))


async def test_what_retention_took_is_said_and_counted_as_lost(kafka: Shared, topic: str) -> None:
    shared = config(kafka.server, topic, group=f"open-{topic}")
    put(kafka.server, topic, [("a/x", b"0")], partition=0)
    async with shared.build() as source:
        await read(source, 1)
        kept = kept_by(source)
    put(kafka.server, topic, [("a/x", b"%d" % i) for i in range(1, 11)], partition=0)
    _cut(kafka, topic, 8)
    again = shared.build()
    again.resume(kept)
    with capture_logs() as logs:
        async with again:
            found = await batches(again, 3)
    assert sum(batch.lost_before for batch in found) == 7
    assert [sample.value for batch in found for sample in batch] == [8, 9, 10]
    (said,) = [log for log in logs if "retention had passed" in log["event"]]
    assert (said["records"], said["partition"]) == (7, 0)


def _cut(kafka: Shared, topic: str, before: int) -> None:
    """What retention does, at once."""
    from confluent_kafka import TopicPartition  # noqa: PLC0415  # of this function only

    for done in kafka.admin.delete_records([TopicPartition(topic, 0, before)]).values():
        done.result(30)


async def test_what_retention_takes_while_it_reads_is_said_too(kafka: Shared, topic: str) -> None:
    """The reader stands, as while the journal is full, and the topic does not wait."""
    put(kafka.server, topic, [("a/x", b"0")], partition=0)
    source = config(kafka.server, topic, group=f"open-{topic}").build()
    async with source, aclosing(source.batches()) as reading, asyncio.timeout(60):
        await anext(reading)
        group = source._group
        assert group is not None
        put(kafka.server, topic, [("a/x", b"%d" % i) for i in range(1, 11)], partition=0)
        _cut(kafka, topic, 8)
        assert source._thread is not None
        await source._thread.run(_rewound, source, topic)
        found = [batch async for batch in _until(reading, 3)]
    assert sum(batch.lost_before for batch in found) == 7
    assert [sample.value for batch in found for sample in batch] == [8, 9, 10]


def _rewound(source: KafkaSource, topic: str) -> None:
    """What was fetched ahead is forgotten, as if the broker had been slower."""
    from confluent_kafka import TopicPartition  # noqa: PLC0415  # of this function only

    group = source._group
    assert group is not None
    assert group._consumer is not None
    group._consumer.seek(TopicPartition(topic, 0, 1))


async def _until(reading: AsyncIterator[Batch], number: int) -> AsyncIterator[Batch]:
    count = 0
    async for batch in reading:
        yield batch
        count += len(batch)
        if count >= number:
            return


async def test_a_topic_that_is_made_anew_is_read_from_its_beginning(kafka: Shared, topic: str) -> None:
    shared = config(kafka.server, topic, group=f"open-{topic}")
    put(kafka.server, topic, [("a/x", b"0"), ("a/x", b"1")], partition=0)
    source = shared.build()
    async with source:
        await read(source, 2)
    delete(kafka.server, topic)
    with pytest.raises(Misconfigured, match=rf"topic {topic} is not there; `shopfloor kafka-topics PLANT`"):
        async with source:
            pytest.fail("it was entered")
    create(kafka.server, topic, retention_ms="-1")
    put(kafka.server, topic, [("a/x", b"2")], partition=0)
    with capture_logs() as logs:
        async with source:
            assert [sample.value for sample in await read(source, 1)] == [2]
    assert [log for log in logs if "made anew" in log["event"]]


@pytest.mark.parametrize(("known", "values"), [("the same", [3]), ("another", [0, 1, 2, 3]), ("none", [0, 1, 2, 3])])
async def test_a_topic_that_lost_its_end_goes_on_there_and_one_that_may_be_another_begins_anew(
    kafka: Shared, topic: str, known: str, values: list[int]
) -> None:
    """A broker that lost power has fewer records than were read of it; its topic is the same by its id."""
    put(kafka.server, topic, [("a/x", b"%d" % i) for i in range(3)], partition=0)
    (found,) = kafka.admin.describe_topics(TopicCollection([topic])).values()
    ids = {"the same": {topic: str(found.result(30).topic_id)}, "another": {topic: "x" * 22}}
    kept = {"id": "x", "offsets": {topic: {0: 5, 1: 0}}, "topics": ids.get(known)}
    source = config(kafka.server, topic, start="latest").build()
    source.resume(encode({name: value for name, value in kept.items() if value is not None}))
    with capture_logs() as logs:
        async with source, aclosing(source.batches()) as reading, asyncio.timeout(60):
            if known == "the same":
                assert len(await anext(reading)) == 0, "where it goes on is durable before anything comes"
            put(kafka.server, topic, [("a/x", b"3")], partition=0)
            taken: list[Sample] = []
            while len(taken) < len(values):
                taken += await anext(reading)
            kept_now = decode(kept_by(source), type=Checkpoint)
    assert [sample.value for sample in taken] == values
    assert kept_now.topics == ids["the same"]
    said = [log["event"] for log in logs if log["log_level"] == "warning"]
    assert len(said) == 1
    assert ("lost its end" in said[0]) == (known == "the same")


async def test_a_topic_that_is_made_anew_and_has_grown_is_read_from_its_beginning(kafka: Shared, topic: str) -> None:
    """It is another one by its id, however many records it has."""
    source = config(kafka.server, topic, start="latest").build()
    source.resume(encode(Checkpoint("x", {topic: {0: 1, 1: 0}}, {topic: "x" * 22})))
    put(kafka.server, topic, [("a/x", b"%d" % i) for i in range(3)], partition=0)
    async with source:
        assert [sample.value for sample in await read(source, 3)] == [0, 1, 2]


async def test_a_partition_that_cannot_be_read_is_said_once_and_so_is_that_it_goes_on(
    kafka: Shared, topic: str
) -> None:
    put(kafka.server, topic, [("a/x", b"1")], partition=0)
    async with config(kafka.server, topic).build() as source:
        group = source._group
        assert group is not None
        broken = _Broken(topic)
        with capture_logs() as logs:
            for _ in range(3):
                assert not group._fits(broken)  # type: ignore[arg-type]  # what the library gives cannot be made
            await read(source, 1)
    said = [(log["event"], log["topic"], log["partition"]) for log in logs]
    assert said == [
        ("reading fails; it is tried again", topic, 0), ("reading goes on", topic, 0),
    ]  # fmt: skip
    assert "Decompression" in logs[0]["reason"]


class _Broken:
    """What stands in a record's place when the library cannot read it."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._BAD_COMPRESSION, "Decompression (codec 0x4) of message at 7 failed")


async def test_a_broker_that_goes_while_it_is_asked_where_to_go_on_is_away(kafka: Shared, topic: str) -> None:
    async with config(kafka.server, topic).build() as source:
        group = source._group
        assert group is not None
        assert group._consumer is not None
        group._mine = {(topic, 99)}
        group._early = [_Gone(topic)]  # type: ignore[list-item]  # as above
        group._subscribed, group._look_at = True, float("inf")
        with pytest.raises((Unavailable, Misconfigured)):
            group.take(ClientThread("test"))


class _Gone(_Broken):
    """What the library says of an offset that is not there."""

    def partition(self) -> int:
        return 99

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._AUTO_OFFSET_RESET)


async def test_a_pattern_reads_topics_that_are_made_later(kafka: Shared, topic: str) -> None:
    create(kafka.server, f"{topic}.a", retention_ms="-1")
    put(kafka.server, f"{topic}.a", [("k", b"1")])
    pattern = config(kafka.server, f"{topic}.*", entry={"tag": "{4}/{key}"}, group=f"open-{topic}", start="latest")
    source = pattern.build()
    async with source, aclosing(source.batches()) as reading, asyncio.timeout(60):
        await anext(reading)
        kept = kept_by(source)
    create(kafka.server, f"{topic}.b", retention_ms="-1")
    put(kafka.server, f"{topic}.b", [("k", b"2")])
    again = pattern.build()
    again.resume(kept)
    async with again:
        assert [(s.tag, s.value) for s in await read(again, 1)] == [("b/k", 2)]


# ---- who may, what cannot be ---------------------------------------------------------------------------


async def test_a_user_reads_where_it_may(kafka: Shared, topic: str) -> None:
    options: dict[str, Any] = {
        "username": "limited", "password": FromEnvironment(PASSWORD), "mechanism": "PLAIN", "tls": True,
        "ca_file": kafka.authority,
    }  # fmt: skip
    put(kafka.server, topic, [("a/x", b"1")])
    async with config(kafka.tls, topic, group=f"open-{topic}", **options).build() as source:
        assert len(await read(source, 1)) == 1
    create(kafka.server, f"closed.{topic}")
    with pytest.raises(Misconfigured, match=r"is not allowed to us; allow it in the cluster's access"):
        async with config(kafka.tls, f"closed.{topic}", group=f"open-{topic}", **options).build():
            pytest.fail("it was entered")
    async with config(kafka.tls, topic, group=f"closed-{topic}", **options).build() as source:
        with pytest.raises(Misconfigured, match="group"):
            await read(source, 1)


def test_garbage_that_names_ever_new_schemas_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asked for once, as long as it is remembered; what a known one reads is never forgotten for it."""
    asked: list[bytes] = []

    def answer(_: Schemas, payload: bytes) -> object:
        asked.append(payload)
        return "nobody knows it" if payload[1] else bytes.hex

    monkeypatch.setattr(kafka_schemas, "_MOST_UNKNOWN", 10)
    monkeypatch.setattr(Schemas, "_reader", answer)
    schemas = Schemas(SchemaRegistry(url="http://h"))
    known, *garbage = [b"\0" + bytes([i]) + b"garbage" for i in range(100)]
    for payload in (known, *garbage, garbage[-1]):
        schemas.fetch(schemas.lacks([payload]))
    assert asked == [known, *garbage]
    assert len(schemas._unknown) == 10
    assert schemas.read(known) == known.hex()
    for payload, reason in ((garbage[-1], "nobody knows it"), (garbage[0], "does not have its schema")):
        with pytest.raises(Unreadable, match=reason):
            schemas.read(payload)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"start": "yesterday"}, "none of earliest, latest, or a time"),
        ({"topics": [{"topic": "a"}, {"topic": "a"}]}, "twice"),
        ({"topics": [{"topic": "a b"}]}, "letters, digits"),
        ({"topics": [{"topic": "a.b", "tag": "{3}"}]}, "names a level"),
        ({"topics": [{"topic": "a.*", "create": {}}]}, "cannot be made"),
        ({"topics": [{"topic": "a", "tag": "{machine}"}]}, "needs `payload: telemetry`"),
    ],
)
def test_a_plant_file_that_cannot_be_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        config("h:9092", "a", **wrong)


def test_tags_are_known_where_the_plant_file_alone_tells_them() -> None:
    def tags(entry: dict[str, object], topic: str = "a.b") -> Sequence[str] | None:
        found = config("h", topic, entry=entry).declared()
        return None if found is None else [info.tag for info in found]

    assert tags({"payload": "plain"}) == ["a/b"]
    assert tags({"payload": "json", "values": [{"path": "x.y"}]}) == ["a/b/x/y"]
    assert tags({"tag": "{key}"}) is None
    assert tags({"payload": "json"}) is None
    assert tags({"payload": "plain"}, "a.*") is None
