"""The Kafka sink against a real broker, through a network that fails."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message
from pydantic import ValidationError

from shopfloor import plant
from shopfloor.pipeline.probe import probe
from shopfloor.plant.components import FromEnvironment
from shopfloor.protocols.kafka import Heard
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable, Value
from shopfloor.sinks.kafka import KafkaSinkConfig
from shopfloor.sinks.kafka_producer import Record
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts import SinkContract, SinkRig, until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.kafka_broker import PASSWORD, Shared, create, delete, everything, headers, once

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789
SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 17, 18, 36
"""Requests, by their numbers in Kafka's protocol."""
SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def config(server: str, topic: str, **options: object) -> KafkaSinkConfig:
    return KafkaSinkConfig.model_validate(
        {"name": "bus", "type": "kafka", "servers": server, "topic": topic, "timeout": 10 * 10**9, **options}
    )


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


def said(message: Message) -> Any:
    return json.loads(message.value() or b"")


def sample(message: Message) -> Sample:
    one = said(message)
    value: Value = one["value"]
    if one.get("encoding") == "base64":
        value = base64.b64decode(one["value"])
    elif "special" in one:
        value = SPECIAL[one["special"]]
    seconds, _, fraction = one["time"].rstrip("Z").partition(".")
    return Sample(one["tag"], instant(f"{seconds}Z") + int(fraction), value, one["quality"])


class KafkaRig(SinkRig):
    def __init__(self, proxy: FaultProxy, kafka: Shared, topic: str) -> None:
        self.connected = config(
            f"127.0.0.1:{proxy.port}", topic, message_size=3_000_000, timeout=20 * 10**9, timestamp="sample"
        ).build()
        super().__init__(self.connected)
        self.proxy = proxy
        self.kafka = kafka
        self.topic = topic

    async def content(self) -> Sequence[Sample]:
        found = await asyncio.to_thread(everything, self.kafka.server, self.topic)
        return [sample(message) for message in once(found)]

    async def lose(self) -> None:
        self._waits(1.5)  # else the test waits long for what never answers
        self.proxy.reset()

    async def restore(self) -> None:
        self._waits(20)
        self.proxy.heal()

    async def freeze(self) -> bool:
        self._waits(1.5)
        self.proxy.black_hole()
        return True

    def _waits(self, seconds: float) -> None:
        self.connected._seconds = seconds
        if self.connected._delivery is not None:
            self.connected._delivery._seconds = seconds

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return batch(Sample("a/x", NOW, 1.0), Sample("a/y", NOW, "\ud800"), Sample("a/z\udfff", NOW, 2)), {1, 2}


class TestKafka(SinkContract):
    """Whoever reads knows by the headers what came again, so each counts once."""

    exactly_once = True

    @pytest.fixture(autouse=True)
    def _broker(self, kafka: Shared, kafka_slot: tuple[int, int], topic: str) -> None:
        self.kafka, self.slot, self.topic = kafka, kafka_slot, topic

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        del folder
        listener, via = self.slot
        async with FaultProxy("127.0.0.1", listener, via) as proxy:
            yield KafkaRig(proxy, self.kafka, self.topic)


# ---- what is written -------------------------------------------------------------------------------------


async def written(sink: KafkaSinkConfig, *samples: Sample, offset: int = 7) -> None:
    async with sink.build() as connected:
        await connected.write_many([(offset, batch(*samples))])


async def test_a_record_says_the_sample_its_key_its_time_and_where_it_stood_in_the_journal(
    kafka: Shared, topic: str
) -> None:
    text = """
        plant: {site: bremen}
        sources: []
        sinks: [{name: bus, type: kafka, servers: "%s", topic: %s, timestamp: sample}]
    """
    sink = plant.parse(text % (kafka.server, topic), "plant.yaml", Path()).sinks[0]
    assert isinstance(sink, KafkaSinkConfig)
    await written(sink, Sample("press-1/PV", NOW, 41.5), Sample("press-1/State", NOW + 5, None, 24, 0x80310000))
    first, second = everything(kafka.server, topic)
    assert said(first) == {
        "value": 41.5, "time": "2026-01-05T06:00:00.123456789Z", "quality": 192, "good": True, "tag": "press-1/PV"
    }  # fmt: skip
    assert said(second) == {
        "value": None, "time": "2026-01-05T06:00:00.123456794Z", "quality": 24, "good": False, "status": 0x80310000,
        "tag": "press-1/State",
    }  # fmt: skip
    assert (first.key(), first.timestamp()[1]) == (b"press-1", NOW // 10**6)
    assert headers(first) == {"writer": "bremen.bus", "entry": "7", "place": "0"}
    assert headers(second) == {"writer": "bremen.bus", "entry": "7", "place": "1"}


async def test_a_machine_s_record_has_what_changed_each_tag_once(kafka: Shared, topic: str) -> None:
    await written(
        config(kafka.server, topic, layout="machine", precision="ms"),
        *(Sample("a/x", NOW, 1), Sample("b/x", NOW, 2), Sample("a/y", NOW, 3), Sample("a/x", NOW + 10**7, 4)),
    )
    found = {headers(message)["place"]: message for message in everything(kafka.server, topic)}
    assert {place: {tag: one["value"] for tag, one in said(m)["tags"].items()} for place, m in found.items()} == {
        "0": {"a/x": 1, "a/y": 3}, "1": {"b/x": 2}, "3": {"a/x": 4},
    }  # fmt: skip
    assert [found[place].key() for place in ("0", "1", "3")] == [b"a", b"b", b"a"]
    assert said(found["3"])["time"] == "2026-01-05T06:00:00.133Z"


async def test_routes_send_tags_to_topics_of_their_own(kafka: Shared, topic: str) -> None:
    create(kafka.server, f"{topic}.states", f"{topic}.m_1")
    sink = config(
        kafka.server, f"{topic}.{{machine}}", key="tag", routes=[{"tags": ["*/State"], "topic": f"{topic}.states"}]
    )
    await written(sink, Sample("m 1/PV", NOW, 1.5), Sample("m 1/State", NOW, 2))
    assert [m.key() for m in everything(kafka.server, f"{topic}.m_1")] == [b"m 1/PV"]
    assert [m.key() for m in everything(kafka.server, f"{topic}.states")] == [b"m 1/State"]


async def test_what_has_no_time_that_kafka_knows_gets_that_of_writing(kafka: Shared, topic: str) -> None:
    """Kafka has no times before 1970; the JSON has the sample's own."""
    await written(config(kafka.server, topic, timestamp="sample"), Sample("a/x", -5, 1))
    (message,) = everything(kafka.server, topic)
    assert message.timestamp()[1] > NOW // 10**6
    assert said(message)["time"].startswith("1969-12-31")


# ---- what is refused -------------------------------------------------------------------------------------


async def test_a_record_that_is_too_large_is_refused_and_the_others_are_held(kafka: Shared, topic: str) -> None:
    """By what the plant file says before anything is written; else by what the topic says, alone."""
    create(kafka.server, f"{topic}.small", partitions=1, max_message_bytes="5000")
    samples = (Sample("a/x", NOW, "x" * 20_000), Sample("a/y", NOW, 1), Sample("a/z", NOW, "z" * 3000))
    for limit in (4000, 1_000_000):
        sink = config(kafka.server, f"{topic}.small", compression="none", message_size=limit)
        before = len(everything(kafka.server, f"{topic}.small"))
        async with sink.build() as connected:
            with pytest.raises(Rejected) as refused:
                await connected.write(7, batch(*samples))
            assert refused.value.indices == [0]
            assert "message" in refused.value.reason
            await connected.write(7, batch(*samples[1:]))
        found = everything(kafka.server, f"{topic}.small")[before:]
        assert sorted(said(message)["tag"] for message in found) == ["a/y", "a/z"]


async def test_a_time_that_the_topic_does_not_take_is_a_dead_letter(kafka: Shared, topic: str) -> None:
    create(kafka.server, f"{topic}.strict", message_timestamp_before_max_ms="100000")
    async with config(kafka.server, f"{topic}.strict", timestamp="sample").build() as connected:
        with pytest.raises(Rejected, match="timestamp: sent"):
            await connected.write(1, batch(Sample("a/x", NOW, 1)))
    await written(config(kafka.server, f"{topic}.strict"), Sample("a/x", NOW, 1))
    assert len(everything(kafka.server, f"{topic}.strict")) == 1


@pytest.mark.parametrize("bad", [{1}, {0, 3}, set(range(30))])
async def test_what_was_in_a_batch_with_a_time_that_is_refused_is_written_in_order(
    kafka: Shared, topic: str, bad: set[int]
) -> None:
    """The broker refuses the whole batch, and of several causes the client library does not say what they are.

    What is behind that batch waits until its records are written.
    """
    samples = [Sample("a/x", NOW + (10**18 if i in bad else i * 10**6), i) for i in range(30)]
    async with config(kafka.server, topic, timestamp="sample", message_size=2000).build() as connected:
        with pytest.raises(Rejected, match="timestamp: sent") as refused:
            await connected.write(1, batch(*samples))
        assert set(refused.value.indices or ()) == bad
        good = [sample for i, sample in enumerate(samples) if i not in bad]
        await connected.write(1, batch(*good))
    assert [said(message)["value"] for message in everything(kafka.server, topic)] == [s.value for s in good]


async def test_a_machine_that_is_called_as_no_topic_can_be_has_one(kafka: Shared, topic: str) -> None:
    sink = config("h", "{machine}")
    topics = {sink._routes().of(tag).topic for tag in ("./x", "../x", "./y", ".a/x")}
    assert topics == {"_", "__", ".a"}
    async with config(kafka.server, topic).build() as connected:
        assert connected._delivery is not None
        record = Record(".", b"", b"", [], 0)  # whatever else the cluster does not take is a dead letter
        assert connected._delivery.deliver([record]) == {0: "the cluster does not take the topic's name"}


async def test_a_topic_that_is_not_there_is_said_before_anything_is_written(kafka: Shared, topic: str) -> None:
    """And not made by asking for it, although the broker would do that, as Kafka does by default."""
    with pytest.raises(
        Misconfigured, match=rf"topic {topic}.none is not there; `shopfloor kafka-topics PLANT` creates"
    ):
        async with config(kafka.server, f"{topic}.none").build():
            pytest.fail("it was entered")
    assert f"{topic}.none" not in kafka.admin.list_topics(timeout=30).topics


async def test_a_topic_of_a_machine_that_is_not_there_stops_the_sink_with_a_sentence(kafka: Shared, topic: str) -> None:
    """Its samples wait in the journal until a person has made the topic, instead of becoming dead letters."""
    async with config(kafka.server, f"{topic}.{{machine}}").build() as connected:
        with pytest.raises(Misconfigured, match=rf"topic {topic}.m9 is not there.*--machine NAME.*create_topics"):
            await connected.write(1, batch(Sample("m9/x", NOW, 1)))
    assert f"{topic}.m9" not in kafka.admin.list_topics(timeout=30).topics


async def test_the_sink_makes_topics_itself_where_it_is_told_to(kafka: Shared, topic: str) -> None:
    """As `create` says, before the first record; one that was deleted is made again by the next connection."""
    sink = config(kafka.server, f"{topic}.{{machine}}", create_topics=True, create={"partitions": 3, "compact": True})
    await written(sink, Sample("m1/x", NOW, 1), Sample("m2/x", NOW, 2))
    await written(sink, Sample("m1/x", NOW + 1, 3), offset=8)
    assert [said(message)["value"] for message in everything(kafka.server, f"{topic}.m1")] == [1, 3]
    assert [said(message)["value"] for message in everything(kafka.server, f"{topic}.m2")] == [2]
    assert len(kafka.admin.list_topics(timeout=30).topics[f"{topic}.m2"].partitions) == 3
    delete(kafka.server, f"{topic}.m2")
    await written(sink, Sample("m2/x", NOW + 1, 4), offset=9)
    assert [said(message)["value"] for message in everything(kafka.server, f"{topic}.m2")] == [4]


async def test_who_may_not_make_the_topic_reads_what_to_change(kafka: Shared, topic: str) -> None:
    options = USER | {"tls": True, "ca_file": kafka.authority, "create_topics": True}
    async with config(kafka.tls, f"closed.{topic}.{{machine}}", **options).build() as connected:
        with pytest.raises(Misconfigured, match=rf"topic closed.{topic}.m9: we may not create topics; allow it"):
            await connected.write(1, batch(Sample("m9/x", NOW, 1)))


async def test_a_topic_that_is_deleted_is_said_and_made_again_gets_the_rest(kafka: Shared, topic: str) -> None:
    async with config(kafka.server, topic, timeout=30 * 10**9).build() as connected:
        await connected.write(1, batch(Sample("a/x", NOW, 1)))
        assert connected._delivery is not None
        connected._seconds = connected._delivery._seconds = 4  # from now on only
        delete(kafka.server, topic)
        with pytest.raises((Misconfigured, Unavailable)):
            await connected.write(2, batch(Sample("a/x", NOW + 1, 2)))
    with pytest.raises(Misconfigured, match="is not there"):
        async with config(kafka.server, topic).build():
            pytest.fail("it was entered")
    create(kafka.server, topic)
    await written(config(kafka.server, topic), Sample("a/x", NOW + 1, 2), offset=2)
    assert [said(message)["value"] for message in everything(kafka.server, topic)] == [2]


# ---- who may ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def closing_broker(at: int) -> AsyncIterator[int]:
    """A broker of which no more is there than it says before this request, which it answers by going; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError), closing(writer):
            while True:
                request = await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
                key, version, number = struct.unpack(">hhi", request[:8])
                if key == at:
                    return
                if key == SASL_HANDSHAKE:
                    body = struct.pack(">hih", 0, 1, 5) + b"PLAIN"
                else:
                    known = ((SASL_HANDSHAKE, 0, 1), (API_VERSIONS, 0, 3), (SASL_AUTHENTICATE, 0, 1))
                    compact = version > 2  # since then its lists are otherwise, and it has tags
                    count = bytes([len(known) + 1]) if compact else struct.pack(">i", len(known))
                    entries = b"".join(struct.pack(">hhh", *one) + b"\0" * compact for one in known)
                    body = struct.pack(">h", 0) + count + entries + bytes(4) + b"\0" * compact
                answer = struct.pack(">i", number) + body
                writer.write(struct.pack(">i", len(answer)) + answer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


USER = {"username": "limited", "password": FromEnvironment(PASSWORD), "mechanism": "PLAIN"}


async def test_a_user_writes_by_tls_where_it_may(kafka: Shared, topic: str) -> None:
    options = USER | {"tls": True, "ca_file": kafka.authority}
    await written(config(kafka.tls, topic, **options), Sample("a/x", NOW, 1))
    assert len(everything(kafka.server, topic)) == 1
    create(kafka.server, f"closed.{topic}")
    with pytest.raises(Misconfigured, match=rf"closed.{topic} is not allowed to us; allow it in the cluster's access"):
        async with config(kafka.tls, f"closed.{topic}", **options).build():
            pytest.fail("it was entered")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"username": "limited", "password": FromEnvironment("wrong"), "mechanism": "PLAIN"}, "correct `username`"),
        ({"username": "limited", "password": FromEnvironment(PASSWORD)}, "`mechanism`"),
    ],
)
async def test_who_is_not_let_in_reads_what_to_change(
    kafka: Shared, topic: str, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(Misconfigured, match=sentence) as refused:
        async with config(kafka.sasl, topic, **options).build():
            pytest.fail("it was entered")
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize("at", [SASL_HANDSHAKE, SASL_AUTHENTICATE])
async def test_a_broker_that_goes_while_it_asks_for_the_user_is_away(at: int) -> None:
    """Nobody needs to act, as somebody must when it refuses the user."""
    async with closing_broker(at) as port:
        user = {"username": "edge", "password": FromEnvironment("x"), "mechanism": "PLAIN", "timeout": 10**9}
        with pytest.raises(Unavailable):
            async with config(f"127.0.0.1:{port}", "x", **user).build():
                pytest.fail("it was entered")


@pytest.mark.parametrize(
    ("code", "text", "person"),
    [
        (KafkaError._AUTHENTICATION, "SASL PLAIN mechanism handshake failed: Local: Timed out: broker's …", False),
        (KafkaError._SSL, "SSL handshake failed: SSL transport error: Success", False),
        (KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed", True),
        (KafkaError._AUTHENTICATION, "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism", True),
        (KafkaError._SSL, "SSL handshake failed: error:0A000086:… certificate verify failed", True),
    ],
)
def test_a_connection_that_ends_while_it_is_made_needs_no_person(code: int, text: str, person: bool) -> None:  # noqa: FBT001  # as the table says
    heard = Heard()
    heard.error(KafkaError(code, text))
    heard.error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert (heard.wrong is not None) == person
    assert heard.down == ("1/1 brokers are down" if person else text)


async def test_a_certificate_of_an_unknown_authority_is_refused(kafka: Shared, topic: str) -> None:
    options = USER | {"tls": True}
    with pytest.raises(Misconfigured, match="ca_file"):
        async with config(kafka.tls, topic, **options).build():
            pytest.fail("it was entered")


async def test_nobody_there_is_unavailable_with_the_reason() -> None:
    with pytest.raises(Unavailable, match="refused"):
        async with config(f"127.0.0.1:{free_port()}", "x").build():
            pytest.fail("it was entered")


async def test_a_slow_network_loses_nothing(kafka: Shared, kafka_slot: tuple[int, int], topic: str) -> None:
    """As long as something is confirmed, a write goes on for as long as it takes."""
    listener, via = kafka_slot
    async with (
        FaultProxy("127.0.0.1", listener, via) as proxy,
        config(f"127.0.0.1:{via}", topic, message_size=4000, compression="none").build() as connected,
    ):
        proxy.delay(0.1)
        await connected.write(1, batch(*(Sample("a/x", NOW + i, "x" * 2000) for i in range(20))))
    assert len(everything(kafka.server, topic)) == 20


async def test_a_loss_while_writing_is_bridged_when_the_cluster_is_back_in_time(
    kafka: Shared, kafka_slot: tuple[int, int], topic: str
) -> None:
    """The idempotent producer writes what was under way again, and the broker counts it once."""
    listener, via = kafka_slot
    async with (
        FaultProxy("127.0.0.1", listener, via) as proxy,
        config(f"127.0.0.1:{via}", topic, timeout=60 * 10**9).build() as connected,
    ):
        await connected.write(1, batch(Sample("a/x", NOW, 0)))
        proxy.reset()
        writing = asyncio.create_task(connected.write(2, batch(*(Sample("a/x", NOW + i, i) for i in range(1, 500)))))
        await until(lambda: connected._heard.down is not None or writing.done(), "the loss was heard")
        proxy.heal()
        await writing
    assert [said(message)["value"] for message in everything(kafka.server, topic)] == list(range(500))


# ---- the plant file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"servers": "kafka://h:9092"}, "write host:9092"),
        ({"servers": "h:99999"}, "write host:9092"),
        ({"topic": "a b"}, "letters, digits"),
        ({"topic": "a.{tag}"}, "only {site}, {line} and {machine}"),
        ({"topic": "a.{machine"}, "only {site}, {line} and {machine}"),
        ({"layout": "machine", "key": "tag"}, "needs `layout: tag`"),
        ({"ca_file": "x.pem"}, "needs `tls: true`"),
        ({"username": "me"}, "belong together"),
        ({"create": {"compact": True, "config": {"cleanup.policy": "delete"}}}, "both say cleanup.policy"),
    ],
)
def test_a_plant_file_that_cannot_be_is_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        config("h:9092", **({"topic": "x"} | wrong))  # type: ignore[arg-type]  # what is wrong may be the topic


def test_the_topics_are_known_from_the_plant_file() -> None:
    text = """
        plant: {site: bremen}
        machines: [{id: press-1, line: stamping}, {id: lathe}]
        sources:
          - {name: plc, type: modbus, host: 127.0.0.1, tags: [{tag: oven/PV, address: "30001"}]}
        sinks:
          - name: bus
            type: kafka
            servers: kafka
            topic: "{site}.{machine}"
            tags: ["press-*", "oven/*"]
            routes: [{tags: ["*/State"], topic: "states.{line}"}, {tags: ["oven/*"], topic: ovens}]
    """
    sink = plant.parse(text, "plant.yaml", Path()).sinks[0]
    assert isinstance(sink, KafkaSinkConfig)
    assert sink.servers == ["kafka:9092"]
    assert sink.known_topics() == ["bremen.press-1", "ovens", "states.stamping"]


async def test_a_probe_says_which_topics_are_missing_and_writes_nothing(kafka: Shared, topic: str) -> None:
    """Of sinks and of sources, without joining a group."""
    text = f"""
        plant: {{site: bremen}}
        sources:
          - {{name: in, type: kafka, servers: "{kafka.server}", topics: [{{topic: {topic}}}, {{topic: {topic}.none}}]}}
          - {{name: well, type: kafka, servers: "{kafka.server}", topics: [{{topic: {topic}, tag: well}}]}}
        sinks:
          - {{name: out, type: kafka, servers: "{kafka.server}", topic: {topic}.gone}}
          - {{name: fine, type: kafka, servers: "{kafka.server}", topic: {topic}}}
          - {{name: makes, type: kafka, servers: "{kafka.server}", topic: {topic}.later, create_topics: true}}
    """
    probed = {one.name: one async for one in probe(plant.parse(text, "plant.yaml", Path()))}
    assert {name: one.result for name, one in probed.items()} == {
        "in": "misconfigured", "well": "ok", "out": "misconfigured", "fine": "ok", "makes": "ok",
    }  # fmt: skip
    assert f"topic {topic}.none is not there; `shopfloor kafka-topics PLANT` creates" in probed["in"].detail
    assert f"topic {topic}.gone is not there" in probed["out"].detail
    assert f"{topic}.later" not in kafka.admin.list_topics(timeout=30).topics
    assert not everything(kafka.server, topic)
