"""The Kafka sink and source with a real schema registry: Avro and Protobuf, read by Java's libraries, too."""

import asyncio
import base64
import io
import json
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

import fastavro
import pytest
from google.protobuf import descriptor_pb2
from pydantic import ValidationError
from structlog.testing import capture_logs

from shopfloor import plant
from shopfloor.pipeline.probe import probe
from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Misconfigured, Rejected, Sample, Unavailable
from shopfloor.sinks import kafka_schemas
from shopfloor.sinks.kafka import KafkaSinkConfig
from shopfloor.testing.certificates import Authority
from shopfloor.testing.contracts import SinkContract, SinkRig
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.kafka_broker import Shared, create, everything, headers, once, put
from tests.schema_registry import INCOMPATIBLE, Registry
from tests.sinks.scripted import Asked, Said, Scripted
from tests.sinks.test_kafka import NOW, KafkaRig, batch, config
from tests.sources.test_kafka import config as source_config, read

FORMATS: Final = ("avro", "protobuf")
DOCS: Final = Path(__file__).parents[2] / "docs" / "connectors" / "kafka-sink.md"
VALUES: Final = ["boolean", "integer", "unsigned", "value", "text", "binary"]
ENTRY: Final[dict[str, object]] = {
    "payload": "json", "tag": "{key}", "time": "time_ns", "time_format": "ns", "quality": "quality",
    "values": [{"path": path, "tag": "{key}"} for path in VALUES],
}  # fmt: skip
"""How docs/connectors/kafka-source.md says that what another Shopfloor wrote is read."""
JSON_SCHEMA: Final = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
SAMPLES: Final = [
    Sample("m/float", NOW, 41.5),
    Sample("m/text", NOW + 1, "Härte \N{GRINNING FACE}"),
    Sample("m/int", NOW + 2, -(2**63)),
    Sample("m/big", NOW + 3, 2**64 - 1),
    Sample("m/odd", NOW + 4, 2**53 + 1),
    Sample("m/nan", NOW + 5, float("nan")),
    Sample("m/inf", NOW + 6, float("-inf")),
    Sample("m/bool", NOW + 7, False),
    Sample("m/bytes", NOW + 8, b"\x00\xff\x80"),
    Sample("m/none", NOW + 9, None, 24, 0x80310000),
    Sample("m/early", -1, 0),
]


def registered(kafka: Shared, url: str, topic: str, form: str, **options: Any) -> Any:
    """A sink; ``registry`` are further options of its registry."""
    given = {"url": url, **options.pop("registry", {})}
    return KafkaSinkConfig.model_validate({
        "name": "bus", "type": "kafka", "servers": kafka.server, "topic": topic, "timeout": 10 * 10**9, "format": form,
        "schema_registry": given, **options,
    })  # fmt: skip


async def written(sink: Any, *samples: Sample, offset: int = 7) -> None:
    async with sink.build() as connected:
        await connected.write_many([(offset, batch(*samples))])


def values(kafka: Shared, topic: str) -> list[bytes]:
    """The records' values in the order of the journal."""
    found = sorted(everything(kafka.server, topic), key=lambda message: int(headers(message)["place"]))
    return [message.value() or b"" for message in found]


# ---- what others read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
async def test_java_reads_every_kind_of_value_as_it_was(
    kafka: Shared, registry: Registry, topic: str, form: str
) -> None:
    """By the schema in the registry and Java's own Avro and Protobuf: nothing of ours but the bytes."""
    await written(registered(kafka, registry.url, topic, form), *SAMPLES)
    assert registry.versions(f"{topic}-value") == [1]
    said = {one["tag"]: one for one in await asyncio.to_thread(registry.java, values(kafka, topic))}
    assert [int(said[sample.tag]["time_ns"]) for sample in SAMPLES] == [sample.time for sample in SAMPLES]
    assert float(said["m/float"]["value"]) == 41.5
    assert said["m/text"]["text"] == "Härte \N{GRINNING FACE}"
    assert (int(said["m/int"]["integer"]), float(said["m/int"]["value"])) == (-(2**63), -(2.0**63))
    assert int(said["m/odd"]["integer"]) == 2**53 + 1
    assert (said["m/nan"]["value"], said["m/inf"]["value"]) == ("NaN", "-Infinity")
    assert (said["m/bool"]["boolean"], float(said["m/bool"]["value"])) == (False, 0)
    assert not {name for name in VALUES if said["m/none"].get(name) is not None}
    assert (said["m/none"]["quality"], int(said["m/none"]["status"])) == (24, 0x80310000)
    if form == "avro":
        # Java shows bytes as text, a character each
        assert said["m/bytes"]["binary"] == "\x00\xff\x80"
        assert int.from_bytes(said["m/big"]["unsigned"].encode("latin-1"), signed=True) == 2**64 - 1
        assert said["m/float"]["time"] == NOW // 1000
    else:
        assert base64.b64decode(said["m/bytes"]["binary"]) == b"\x00\xff\x80"
        assert int(said["m/big"]["unsigned"]) == 2**64 - 1
        assert said["m/float"]["time"] == "2026-01-05T06:00:00.123456789Z"


@pytest.mark.parametrize("form", FORMATS)
async def test_java_reads_a_machine_s_record(kafka: Shared, registry: Registry, topic: str, form: str) -> None:
    sink = registered(kafka, registry.url, topic, form, layout="machine")
    await written(sink, Sample("a/x", NOW, 1), Sample("b/x", NOW, 2), Sample("a/y", NOW + 9, 3), Sample("a/x", NOW, 4))
    said = await asyncio.to_thread(registry.java, values(kafka, topic))
    found = [
        (one["machine"], {s["tag"]: int(s["integer"]) for s in one["samples"]}, int(one["time_ns"])) for one in said
    ]
    assert found == [("a", {"a/x": 1, "a/y": 3}, NOW + 9), ("b", {"b/x": 2}, NOW), ("a", {"a/x": 4}, NOW)]


# ---- what we read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
async def test_another_shopfloor_reads_the_same_samples(
    kafka: Shared, registry: Registry, topic: str, form: str
) -> None:
    await written(registered(kafka, registry.url, topic, form, key="tag"), *SAMPLES)
    source = source_config(kafka.server, topic, entry=ENTRY, schema_registry={"url": registry.url}).build()
    async with source:
        found = {sample.tag: sample for sample in await read(source, len(SAMPLES))}
    for sample in SAMPLES:
        same = found[sample.tag]
        assert (same.time, repr(same.value), type(same.value)) == (sample.time, repr(sample.value), type(sample.value))
        assert same.quality == (sample.quality if sample.value is not None else 0)
    assert source.unreadable == 1  # what has no value is said, as it is of JSON


def framed(number: int, payload: bytes, index: bytes = b"") -> bytes:
    return b"\0" + struct.pack(">I", number) + index + payload


def avro(schema: object, value: object) -> bytes:
    into = io.BytesIO()
    fastavro.schemaless_writer(into, fastavro.parse_schema(schema), value)  # type: ignore[arg-type]  # a schema
    return into.getvalue()


async def test_others_records_are_mapped_as_json_is(kafka: Shared, registry: Registry, topic: str) -> None:
    """Avro with logical types and a schema that it refers to, Protobuf with inner messages, JSON Schema, and JSON."""
    place = {"type": "record", "name": "Place", "namespace": "lab", "fields": [{"name": "row", "type": "int"}]}
    registry.put(f"{topic}.place", json.dumps(place))
    lab: dict[str, object] = {
        "type": "record", "name": "Result", "namespace": "lab",
        "fields": [
            {"name": "measured", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "place", "type": "lab.Place"},
            {"name": "diameter", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3}},
        ],
    }  # fmt: skip
    refers = [{"name": "lab.Place", "subject": f"{topic}.place", "version": 1}]
    number = registry.put(f"{topic}-value", json.dumps(lab), references=refers)
    inline = {**lab, "fields": [lab["fields"][0], {"name": "place", "type": place}, lab["fields"][2]]}  # type: ignore[index]
    value = {"measured": NOW // 10**6, "place": {"row": 3}, "diameter": Decimal("1.125")}
    file = descriptor_pb2.FileDescriptorProto(name="lab.proto", package="lab", syntax="proto3")
    outer = file.message_type.add(name="Unused")
    outer = file.message_type.add(name="Result")
    outer.field.add(name="place", number=1, type=11, label=1, type_name=".lab.Result.Place")
    outer.field.add(name="rows", number=2, type=5, label=3)
    outer.nested_type.add(name="Place").field.add(name="row", number=1, type=17, label=1)
    proto = registry.put(f"{topic}.proto", base64.b64encode(file.SerializeToString()).decode(), "PROTOBUF")
    schema = registry.put(f"{topic}.json", json.dumps(JSON_SCHEMA), "JSON")
    put(kafka.server, topic, [
        ("avro", framed(number, avro(inline, value))),
        ("proto", framed(proto, b"\x0a\x02\x08\x05\x12\x02\x07\x08", b"\x02\x02")),
        ("schema", framed(schema, b'{"place": {"row": 9}}')),
        ("json", b'{"place": {"row": 11}}'),
    ], partition=0)  # fmt: skip
    entry = {
        "payload": "json", "time": "measured",
        "values": [{"path": p, "tag": f"{{key}}/{p}"} for p in ("place.row", "diameter", "rows.1")],
    }  # fmt: skip
    source = source_config(kafka.server, topic, entry=entry, schema_registry={"url": registry.url}).build()
    async with source:
        found = await read(source, 6)
    assert [(sample.tag, sample.value) for sample in found] == [
        ("avro/place.row", 3), ("avro/diameter", 1.125), ("proto/place.row", -3), ("proto/rows.1", 8),
        ("schema/place.row", 9), ("json/place.row", 11),
    ]  # fmt: skip
    assert found[0].time == NOW // 10**6 * 10**6


async def test_poison_with_a_schema_is_counted_said_once_and_passed(
    kafka: Shared, registry: Registry, topic: str
) -> None:
    """Bytes that are not what the schema says, an id that nobody registered, a record that is cut off."""
    number = registry.put(f"{topic}-value", json.dumps(kafka_schemas.AVRO_SAMPLE))
    good = avro(
        kafka_schemas.AVRO_SAMPLE,
        {"tag": "a/x", "time": NOW // 1000, "time_ns": NOW, "quality": 192, "good": True, "integer": 5},
    )
    bad = [framed(number, b"\x80"), framed(999_999, good), framed(999_999, good), b"\0\0", framed(number, good[:9])]
    put(kafka.server, topic, [("a/x", one) for one in [*bad, framed(number, good)]], partition=0)
    source = source_config(kafka.server, topic, entry=ENTRY, schema_registry={"url": registry.url}).build()
    with capture_logs() as logs:
        async with source:
            found = await read(source, 6)
    assert [(sample.value, sample.good) for sample in found] == [(None, False)] * 5 + [(5, True)]
    assert source.unreadable == 5
    reasons = [log["reason"] for log in logs if log["event"] == "a record cannot be read"]
    assert len([reason for reason in reasons if "does not have its schema 999999" in reason]) == 1
    assert [reason for reason in reasons if "not what its schema says" in reason]


async def test_a_schema_that_the_registry_has_as_text_only_is_said(
    kafka: Shared, registry: Registry, topic: str
) -> None:
    """Apicurio does not know ``format=serialized``; Confluent's does."""
    number = registry.put(f"{topic}-value", 'syntax = "proto3"; message Y { int32 q = 1; }', "PROTOBUF")
    put(kafka.server, topic, [("a/x", framed(number, b"\x08\x05", b"\0"))])
    source = source_config(kafka.server, topic, entry=ENTRY, schema_registry={"url": registry.url}).build()
    with capture_logs() as logs:
        async with source:
            await read(source, 1)
    assert [log for log in logs if "as text only" in log.get("reason", "")]


# ---- the contract, through a network that fails ------------------------------------------------------------


class RegisteredRig(KafkaRig):
    """What comes again is told by the headers, as of JSON; the content is what Java reads."""

    def __init__(self, proxy: FaultProxy, kafka: Shared, topic: str, registry: Registry) -> None:
        super().__init__(proxy, kafka, topic)
        self.connected = registered(
            kafka, registry.url, topic, "avro", servers=f"127.0.0.1:{proxy.port}", message_size=3_000_000,
            timeout=20 * 10**9, timestamp="sample",
        ).build()  # fmt: skip
        self.sink = self.connected
        self.registry = registry

    async def content(self) -> Sequence[Sample]:
        found = await asyncio.to_thread(everything, self.kafka.server, self.topic)
        schema = fastavro.parse_schema(kafka_schemas.AVRO_SAMPLE)
        records: list[Any] = [
            fastavro.schemaless_reader(io.BytesIO((one.value() or b"")[5:]), schema, None) for one in once(found)
        ]
        return [
            Sample(
                one["tag"],
                one["time_ns"],
                next((_of(one[n]) for n in VALUES if one[n] is not None), None),
                one["quality"],
            )
            for one in records
        ]


def _of(value: Any) -> Any:
    return int(value) if type(value).__name__ == "Decimal" else value


class TestAvro(SinkContract):
    exactly_once = True

    @pytest.fixture(autouse=True)
    def _broker(self, kafka: Shared, kafka_slot: tuple[int, int], topic: str, registry: Registry) -> None:
        self.kafka, self.slot, self.topic, self.registry = kafka, kafka_slot, topic, registry

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        del folder
        listener, via = self.slot
        async with FaultProxy("127.0.0.1", listener, via) as proxy:
            yield RegisteredRig(proxy, self.kafka, self.topic, self.registry)


# ---- what the registry says --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
async def test_text_that_is_not_unicode_and_records_too_large_are_refused(
    kafka: Shared, registry: Registry, topic: str, form: str
) -> None:
    samples = (Sample("a/x", NOW, "\ud800"), Sample("a/y", NOW, 1), Sample("a/z", NOW, b"z" * 9000))
    async with registered(kafka, registry.url, topic, form, message_size=4000).build() as connected:
        with pytest.raises(Rejected, match="not Unicode"):
            await connected.write(7, batch(*samples))
        with pytest.raises(Rejected, match="message_size"):
            await connected.write(7, batch(*samples[1:]))
        await connected.write(7, batch(samples[1]))
    assert len(everything(kafka.server, topic)) == 1


async def test_a_subject_with_an_incompatible_schema_is_said_before_anything_is_written(
    kafka: Shared, registry: Registry, topic: str
) -> None:
    registry.put(f"{topic}-value", json.dumps(INCOMPATIBLE))
    registry.compatibility(f"{topic}-value", "FULL")
    with pytest.raises(Misconfigured, match=rf"schema of subject {topic}-value, .* not compatible.*choose another"):
        async with registered(kafka, registry.url, topic, "avro").build():
            pytest.fail("it was entered")


async def test_without_auto_register_the_schema_must_be_there(kafka: Shared, registry: Registry, topic: str) -> None:
    """Registered by hand out of the documentation, it is found."""
    given: dict[str, Any] = {"registry": {"auto_register": False, "subjects": "topic_record"}}
    subject = f"{topic}-shopfloor.Sample"
    with pytest.raises(Misconfigured, match=rf"does not have our schema of subject {subject}.*auto_register"):
        async with registered(kafka, registry.url, topic, "avro", **given).build():
            pytest.fail("it was entered")
    registry.put(subject, DOCS.read_text().partition("```json\n{\n")[2].partition("```")[0].join(("{\n", "")))
    await written(registered(kafka, registry.url, topic, "avro", **given), Sample("a/x", NOW, 1))
    assert registry.versions(subject) == [1]
    assert len(everything(kafka.server, topic)) == 1


async def test_a_topic_that_comes_later_is_registered_when_it_comes(
    kafka: Shared, registry: Registry, topic: str
) -> None:
    """And the registry being away then is waited for."""
    async with FaultProxy("127.0.0.1", registry.port, free_port()) as proxy:
        url = f"http://127.0.0.1:{proxy.port}{registry.path}"
        create(kafka.server, f"{topic}.m1")
        sink = registered(kafka, url, f"{topic}.{{machine}}", "protobuf", registry={"timeout": 60 * 10**9})
        async with sink.build() as connected:
            proxy.reset()
            with pytest.raises(Unavailable, match="schema registry"):
                await connected.write(1, batch(Sample("m1/x", NOW, 1)))
            proxy.heal()
            await connected.write(1, batch(Sample("m1/x", NOW, 1)))
        assert registry.versions(f"{topic}.m1-value") == [1]
        assert len(everything(kafka.server, f"{topic}.m1")) == 1


async def test_a_registry_that_is_away_is_waited_for_by_the_source(
    kafka: Shared, registry: Registry, topic: str
) -> None:
    """Its records stay unread until the schema can be asked for; none is taken for poison."""
    await written(registered(kafka, registry.url, topic, "avro", key="tag"), Sample("a/x", NOW, 1))
    async with FaultProxy("127.0.0.1", registry.port, free_port()) as proxy:
        url = f"http://127.0.0.1:{proxy.port}{registry.path}"
        source = source_config(
            kafka.server, topic, entry=ENTRY, schema_registry={"url": url, "timeout": 60 * 10**9}
        ).build()
        async with source:
            proxy.reset()
            with pytest.raises(Unavailable, match="schema registry"):
                await read(source, 1)
        proxy.heal()
        async with source:
            assert [sample.value for sample in await read(source, 1)] == [1]
        assert source.unreadable == 0


ANSWERS: Final[list[tuple[Said, type[Exception], str]]] = [
    (Said(401, b'{"error_code": 401, "message": "who?"}'), Misconfigured, "does not let us in: who.*`token`"),
    (Said(403, b'{"error_code": 403, "message": "no"}'), Misconfigured, "does not let us in"),
    (Said(503, b"busy"), Unavailable, "does not answer now"),
    (Said(429, b'{"message": "slowly"}'), Unavailable, "slowly"),
    (Said(404, b"<html>nothing here</html>"), Misconfigured, "is no schema registry.*correct `url`"),
    (Said(200, b"<html>welcome</html>"), Misconfigured, "is no schema registry"),
    (Said(200, b'{"hello": 1}'), Misconfigured, "is no schema registry"),
]


@pytest.mark.parametrize(("answer", "kind", "sentence"), ANSWERS)
async def test_a_registry_that_refuses_says_what_to_change(
    kafka: Shared, topic: str, answer: Said, kind: type[Exception], sentence: str
) -> None:
    async with Scripted(lambda _asked: answer) as server:
        with pytest.raises(kind, match=sentence):
            async with registered(kafka, server.url, topic, "avro").build():
                pytest.fail("it was entered")


async def test_users_and_tokens_are_shown_by_tls_with_the_authority_that_is_named(
    kafka: Shared, topic: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    identity = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    asked: list[Asked] = []

    def script(one: Asked) -> Said:
        asked.append(one)
        return Said(200, b'["AVRO"]' if one.method == "GET" else b'{"id": 1}')

    async with Scripted(script, context) as server:
        for given in ({"username": "me", "password": FromEnvironment("pw")}, {"token": FromEnvironment("t0ken")}):
            options: dict[str, Any] = {"registry": {"ca_file": authority.certificate, **given}}
            await written(registered(kafka, server.url, topic, "avro", **options), Sample("a/x", NOW, 1))
        with pytest.raises(Misconfigured, match="ca_file"):
            async with registered(kafka, server.url, topic, "avro").build():
                pytest.fail("it was entered")
    shown = {one.headers.get("authorization") for one in asked}
    assert shown == {"Basic " + base64.b64encode(b"me:pw").decode(), "Bearer t0ken"}


async def test_a_probe_says_what_is_wrong_with_the_registry(kafka: Shared, registry: Registry, topic: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    text = f"""
        plant: {{site: bremen}}
        sources:
          - name: in
            type: kafka
            servers: "{kafka.server}"
            topics: [{{topic: {topic}, payload: json}}]
            schema_registry: {{url: "{nobody}"}}
        sinks:
          - {{name: out, type: kafka, servers: "{kafka.server}", topic: {topic}, format: avro,
             schema_registry: {{url: "{nobody}"}}}}
          - {{name: fine, type: kafka, servers: "{kafka.server}", topic: {topic}, format: protobuf,
             schema_registry: {{url: "{registry.url}"}}}}
    """
    probed = {one.name: one async for one in probe(plant.parse(text, "plant.yaml", Path()))}
    assert {name: one.result for name, one in probed.items()} == {"in": "away", "out": "away", "fine": "ok"}
    assert "schema registry" in probed["out"].detail
    assert "refused" in probed["in"].detail


# ---- the plant file, and the schemas ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"format": "avro"}, "needs `schema_registry"),
        ({"schema_registry": {"url": "http://h:8081"}}, "is for `format: avro`"),
        ({"format": "avro", "schema_registry": {"url": "h:8081"}}, "no address of a server"),
        ({"format": "avro", "schema_registry": {"url": "http://me:pw@h"}}, "do not belong into the address"),
        ({"format": "avro", "schema_registry": {"url": "http://h", "username": "me"}}, "belong together"),
        ({"format": "avro", "schema_registry": {"url": "http://h", "ca_file": "x.pem"}}, "needs TLS"),
    ],
)
def test_a_plant_file_that_cannot_be_is_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        config("h:9092", "x", **wrong)


FIRST: Final[dict[Literal["avro", "protobuf"], str]] = {
    "avro": (
        "tag string, time long, time_ns long, quality int, good boolean, status long?, value double?, integer long?, "
        "unsigned bytes?, boolean boolean?, text string?, binary bytes?"
    ),
    "protobuf": (
        "1 tag 9, 2 time 11, 3 time_ns 3, 4 quality 13, 5 good 8, 6 status 13, 7 value 1?, 8 integer 3?, "
        "9 unsigned 4?, 10 boolean 8?, 11 text 9?, 12 binary 12?"
    ),
}
"""What was written first. It lies in topics for years, so this never changes."""


def test_the_schemas_grow_by_fields_that_can_be_left_out_only() -> None:
    fields = kafka_schemas.AVRO_SAMPLE["fields"]
    said = [f"{one['name']} {_kind(one['type'])}{'?' if 'default' in one else ''}" for one in fields]
    first = FIRST["avro"].split(", ")
    assert said[: len(first)] == first
    assert all(one.endswith("?") for one in said[len(first) :])
    message: Any = kafka_schemas.proto_class(machine=False)
    found = [
        f"{field.number} {field.name} {field.type}{'?' if field.has_presence and field.message_type is None else ''}"
        for field in message.DESCRIPTOR.fields
    ]
    assert found[: len(FIRST["protobuf"].split(", "))] == FIRST["protobuf"].split(", ")
    assert all(one.endswith("?") for one in found[len(FIRST["protobuf"].split(", ")) :])


def _kind(kind: Any) -> str:
    kind = kind[1] if isinstance(kind, list) else kind
    return str(kind["type"] if isinstance(kind, dict) else kind)


def test_the_documentation_shows_the_schemas() -> None:
    text = DOCS.read_text()
    shown = text.partition("```json\n{\n")[2].partition("```")[0]
    assert json.loads("{" + shown) == kafka_schemas.AVRO_SAMPLE
    assert kafka_schemas.PROTO + kafka_schemas.PROTO_MACHINE in text
