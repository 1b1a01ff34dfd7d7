"""The MQTT sink against a real Mosquitto, watched by mosquitto_sub: an implementation that is not ours."""

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr, ValidationError

from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Batch, Misconfigured, Quality, Rejected, Sample, Unavailable, Value
from shopfloor.sinks.mqtt import MqttConfig
from shopfloor.sinks.readings import reading
from shopfloor.testing.certificates import Authority, Identity
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts import SinkContract, SinkRig, until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto, free_port
from tests.sinks.mosquitto_sub import Heard, MosquittoSub

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Listener(MosquittoSub):
    """What a subscriber gets, as samples."""

    def samples(self) -> list[Sample]:
        return [sample_of(heard.topic.removeprefix("shopfloor/"), heard.json()) for heard in self.heard]


def sample_of(tag: str, said: Mapping[str, Any]) -> Sample:
    """A subscriber's reading of the documented form."""
    value: Value = said["value"]
    if said.get("encoding") == "base64":
        assert isinstance(value, str)
        value = base64.b64decode(value)
    if "special" in said:
        assert value is None
        value = SPECIAL[said["special"]]
    seconds, _, digits = said["time"].removesuffix("Z").partition(".")
    return Sample(tag, instant(seconds + "Z") + int(digits.ljust(9, "0")), value, said["quality"])


def config(port: int, **options: object) -> MqttConfig:
    fields: dict[str, object] = {"servers": f"mqtt://127.0.0.1:{port}", "timeout": "8 s"}
    return MqttConfig.model_validate({"name": "broker", "type": "mqtt", **fields, **options})


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


class MqttRig(SinkRig):
    def __init__(self, proxy: FaultProxy, listener: Listener, version: str, timeout: str) -> None:
        super().__init__(config(proxy.port, version=version, timeout=timeout).build())
        self.proxy = proxy
        self.listener = listener

    async def content(self) -> Sequence[Sample]:
        return self.listener.samples()

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return batch(Sample("a/x", NOW, 1.0), Sample("a/y", NOW, "\ud800"), Sample("a/z\udfff", NOW, 2)), {1, 2}


class TestMqtt5(SinkContract):
    version = "5"

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        async with (
            Mosquitto(folder) as broker,
            Listener.at(broker.port) as listener,
            FaultProxy("127.0.0.1", broker.port) as proxy,
        ):
            yield MqttRig(proxy, listener, self.version, "3 s" if self.hasty else "30 s")


class TestMqtt311(TestMqtt5):
    version = "3.1.1"


# ---- what is said ---------------------------------------------------------------------------------------


async def test_a_sample_is_a_json_object_on_its_own_topic(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, Listener.at(broker.port) as listener:
        async with config(broker.port).build() as sink:
            await sink.write(1, batch(Sample("press-1/PV", NOW, 41.5), Sample("press-1/State", NOW, 6, 24, 0x80310000)))
        await until(lambda: len(listener.heard) == 2, "both messages arrived")
        assert listener.heard == [
            Heard("shopfloor/press-1/PV", False,
                  b'{"value":41.5,"time":"2026-01-05T06:00:00.123456789Z","quality":192,"good":true}'),
            Heard("shopfloor/press-1/State", False,
                  b'{"value":6,"time":"2026-01-05T06:00:00.123456789Z","quality":24,"good":false,"status":2150694912}'),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, {"value": None, "special": "NaN"}),
        (-math.inf, {"value": None, "special": "-Infinity"}),
        (b"\x00\xff", {"value": "AP8=", "encoding": "base64"}),
        (2**64 - 1, {"value": 18446744073709551615}),
        (None, {"value": None}),
        ("", {"value": ""}),
    ],
)
async def test_what_json_has_no_word_for_is_marked(value: Value, said: dict[str, object], tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, Listener.at(broker.port) as listener:
        async with config(broker.port).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, value)))
        await until(lambda: bool(listener.heard), "the message arrived")
        found = listener.heard[0].json()
        assert {key: found[key] for key in found.keys() & {"value", "special", "encoding"}} == said


@pytest.mark.parametrize(("precision", "text"), [("ns", "123456789"), ("us", "123456"), ("ms", "123")])
async def test_times_are_as_exact_as_asked_for(precision: str, text: str, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, Listener.at(broker.port) as listener:
        async with config(broker.port, precision=precision).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1), Sample("b", -1, 1), Sample("c", 2**63 - 1, 1)))
        await until(lambda: len(listener.heard) == 3, "the messages arrived")
        assert [heard.json()["time"] for heard in listener.heard] == [
            f"2026-01-05T06:00:00.{text}Z",
            f"1969-12-31T23:59:59.{'9' * len(text)}Z",
            f"2262-04-11T23:47:16.{'854775807'[: len(text)]}Z",
        ]


async def test_a_tag_that_would_be_a_wildcard_is_escaped(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, Listener.at(broker.port) as listener:
        async with config(broker.port, topic="shopfloor/bremen/{machine}/t/{tag}").build() as sink:
            await sink.write(1, batch(Sample("oven#2/C+50%", NOW, 1), Sample("lonely", NOW, 2)))
        await until(lambda: len(listener.heard) == 2, "both messages arrived")
        assert [heard.topic for heard in listener.heard] == [
            "shopfloor/bremen/oven%232/t/oven%232/C%2B50%25",
            "shopfloor/bremen/lonely/t/lonely",
        ]


async def test_a_machine_is_one_message_with_all_that_changed_and_loses_no_repeated_value(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, Listener.at(broker.port) as listener:
        async with config(broker.port, layout="machine").build() as sink:
            samples = [
                Sample("press-1/PV", NOW, 1.0),
                Sample("oven/T", NOW, 200),
                Sample("press-1/SP", NOW - 5, 2.0),
                Sample("press-1/PV", NOW + 1000, 1.5),
            ]
            await sink.write(1, batch(*samples))
        await until(lambda: len(listener.heard) == 3, "three messages arrived")
        press, oven, again = listener.heard
        assert [heard.topic for heard in listener.heard] == ["shopfloor/press-1", "shopfloor/oven", "shopfloor/press-1"]
        assert press.json()["time"] == "2026-01-05T06:00:00.123456789Z"
        found = [sample_of(tag, said) for heard in (press, oven, again) for tag, said in heard.json()["tags"].items()]
        assert found == [samples[0], samples[2], samples[1], samples[3]]


async def test_a_machine_of_many_values_is_cut_into_messages_of_a_bearable_size(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, Listener.at(broker.port) as listener:
        async with config(broker.port, layout="machine").build() as sink:
            await sink.write(1, batch(*(Sample(f"press-1/{i}", NOW, "x" * 1000) for i in range(500))))
        await until(lambda: sum(len(heard.json()["tags"]) for heard in listener.heard) == 500, "all values arrived")
        assert max(len(heard.payload) for heard in listener.heard) < 200_000


async def test_the_newest_value_is_retained_and_a_late_one_does_not_replace_it(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        async with config(broker.port).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, "newest"), Sample("a", NOW - 10**9, "late")))
            await sink.write(2, batch(Sample("a", NOW - 1, "later")))
        async with Listener.at(broker.port) as listener:
            await until(lambda: bool(listener.heard), "the retained message arrived")
            assert [(heard.retained, heard.json()["value"]) for heard in listener.heard] == [(True, "newest")]


async def test_without_retain_nothing_is_kept(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        async with config(broker.port, retain=False).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1)))
        async with Listener.at(broker.port) as listener, config(broker.port, retain=False).build() as sink:
            await sink.write(2, batch(Sample("b", NOW, 2)))
            await until(lambda: bool(listener.heard), "the next message arrived")
            assert [heard.topic for heard in listener.heard] == ["shopfloor/b"]


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_many_messages_are_under_way_at_once_and_all_arrive_in_order(
    qos: int, version: str, tmp_path: Path
) -> None:
    """Over a line with 50 ms each way, ten thousand messages one by one would take a quarter of an hour."""
    async with (
        Mosquitto(tmp_path, options=["max_inflight_messages 500"]) as broker,
        Listener.at(broker.port) as listener,
        FaultProxy("127.0.0.1", broker.port) as proxy,
    ):
        proxy.delay(0.05)
        async with config(proxy.port, qos=qos, version=version, timeout="60 s").build() as sink:
            entries = [
                (offset, batch(*(Sample("a", NOW + offset * 1000 + i, i) for i in range(1000)))) for offset in range(10)
            ]
            await sink.write_many(entries)
            # Before it leaves: of QoS 0, nobody promises what is still under way when a connection ends.
            await until(lambda: len(listener.heard) == 10_000, "all messages arrived", 60)
        assert [s.time for s in listener.samples()] == [s.time for _, b in entries for s in b]


# ---- doors: who is let in --------------------------------------------------------------------------------


async def test_user_name_and_password(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path, users={"edge": "right"}) as broker:
        password = FromEnvironment("right")
        async with config(broker.port, username="edge", password=password).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1)))
        for version in ("5", "3.1.1"):
            for wrong in ({"username": "edge", "password": FromEnvironment("wrong")}, {}):
                with pytest.raises(
                    Misconfigured, match=r"(not authorized|password is wrong); (give|correct) `username` and `password`"
                ):
                    await config(broker.port, version=version, **wrong).build().__aenter__()


async def test_tls_with_our_own_authority(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    async with Mosquitto(tmp_path, identity=authority.server()) as broker:
        tls = {"servers": f"mqtts://127.0.0.1:{broker.port}"}
        async with (
            config(broker.port, **tls, ca_file=authority.certificate).build() as sink,
            Listener.at(broker.port, "shopfloor/#", "--cafile", authority.certificate) as listener,
        ):
            await sink.write(1, batch(Sample("a", NOW, "secret")))
            await until(lambda: bool(listener.heard), "the message arrived")
        for ca_file in (stranger.certificate, None):
            with pytest.raises(Misconfigured, match=r"certificate is not accepted.*`ca_file`"):
                await config(broker.port, **tls, ca_file=ca_file).build().__aenter__()
        misnamed = config(broker.port, **tls, ca_file=authority.certificate, server_name="elsewhere.example")
        with pytest.raises(Misconfigured, match=r"(?i)mismatch.*; write in `servers` the name .* `server_name`"):
            await misnamed.build().__aenter__()
        with pytest.raises((Misconfigured, Unavailable), match="mqtts://"):
            await config(broker.port, servers=f"mqtt://127.0.0.1:{broker.port}").build().__aenter__()


async def test_the_name_in_the_certificate_may_differ_from_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with Mosquitto(tmp_path, identity=authority.issue("broker.plant.example")) as broker:
        named = config(
            broker.port,
            servers=f"mqtts://127.0.0.1:{broker.port}",
            ca_file=authority.certificate,
            server_name="broker.plant.example",
        )
        async with named.build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1)))


async def test_mutual_tls(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    async with Mosquitto(
        tmp_path, identity=authority.server(), client_authority=authority.certificate,
        options=["use_identity_as_username true"], access="user edge\ntopic write shopfloor/#\n",
    ) as broker:  # fmt: skip

        def as_client(identity: Identity | None) -> MqttConfig:
            files = {} if identity is None else {"certificate_file": identity.certificate, "key_file": identity.key}
            where = {"servers": f"mqtts://localhost:{broker.port}", "ca_file": authority.certificate}
            return config(broker.port, **where, **files)

        async with as_client(authority.client("edge")).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1)))
        for refused in (None, stranger.client("edge")):
            # Whether the broker's alert or its RST arrives first is chance; both must lead to the remedy.
            with pytest.raises((Misconfigured, Unavailable), match="certificate_file"):
                await as_client(refused).build().__aenter__()


async def test_a_server_without_tls_is_told_apart(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        with pytest.raises((Misconfigured, Unavailable), match=r"no TLS at this port .*write the address as mqtt://"):
            await config(broker.port, servers=f"mqtts://127.0.0.1:{broker.port}").build().__aenter__()


async def test_a_forbidden_topic_needs_a_person(tmp_path: Path) -> None:
    """MQTT 5 tells; nothing is thrown away, the sink stops until somebody corrects the access list."""
    async with (
        Mosquitto(tmp_path, access="topic write shopfloor/allowed\n") as broker,
        config(broker.port, version="5").build() as sink,
    ):
        await sink.write(1, batch(Sample("allowed", NOW, 1)))
        with pytest.raises(Misconfigured, match="shopfloor/forbidden: not authorized"):
            await sink.write(2, batch(Sample("allowed", NOW, 1), Sample("forbidden", NOW, 1)))


async def test_a_message_larger_than_the_broker_takes_is_rejected_and_not_sent(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path, options=["max_packet_size 20000"]) as broker, Listener.at(broker.port) as listener:
        async with config(broker.port, version="5").build() as sink:
            with pytest.raises(Rejected) as refused:
                await sink.write(1, batch(Sample("a", NOW, "short"), Sample("b", NOW, "x" * 30_000)))
            assert refused.value.indices == [1]
            await sink.write(1, batch(Sample("a", NOW, "short")))
        await until(lambda: bool(listener.heard), "the short one arrived")
        assert [heard.topic for heard in listener.heard] == ["shopfloor/a"]


async def test_what_several_batches_reject_is_named_one_by_one(tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path, options=["max_packet_size 20000"]) as broker,
        config(broker.port, version="5").build() as sink,
    ):
        entries = [(1, batch(Sample("a", NOW, 1))), (2, batch(Sample("b", NOW, "x" * 30_000)))]
        with pytest.raises(Rejected) as refused:
            await sink.write_many(entries)
        assert refused.value.indices is None


# ---- several servers, restarts -------------------------------------------------------------------------


async def test_the_next_server_takes_over(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, Listener.at(broker.port) as listener:
        servers = [f"mqtt://127.0.0.1:{free_port()}", f"mqtt://127.0.0.1:{broker.port}"]
        async with config(broker.port, servers=servers).build() as sink:
            await sink.write(1, batch(Sample("a", NOW, 1)))
        await until(lambda: bool(listener.heard), "the message arrived")


async def test_when_no_server_answers_all_are_named() -> None:
    ports = [free_port(), free_port()]
    with pytest.raises(Unavailable) as away:
        await config(0, servers=[f"mqtt://127.0.0.1:{port}" for port in ports]).build().__aenter__()
    assert all(str(port) in str(away.value) for port in ports)
    assert "see whether the broker runs and listens at this port" in str(away.value)


async def test_a_name_that_nobody_knows_says_so() -> None:
    with pytest.raises(Unavailable, match=r"name broker\.invalid cannot be resolved .*; correct it in `servers`"):
        await config(0, servers="mqtt://broker.invalid").build().__aenter__()


async def test_a_broker_restart_loses_nothing(tmp_path: Path) -> None:
    """What the broker acknowledged was held by it; what it did not is written again."""
    async with Mosquitto(tmp_path, options=["persistence true", f"persistence_location {tmp_path}/"]) as broker:
        sink = config(broker.port).build()
        async with sink:
            await sink.write(1, batch(Sample("a", NOW, "before")))
            await asyncio.to_thread(broker.stop)
            with pytest.raises(Unavailable):
                await sink.write(2, batch(Sample("b", NOW, "after")))
        await asyncio.to_thread(broker.start)
        async with Listener.at(broker.port) as listener:
            async with sink:
                await sink.write(2, batch(Sample("b", NOW, "after")))
            await until(lambda: len(listener.heard) == 2, "the retained and the new message arrived")
            assert [heard.json()["value"] for heard in listener.heard] == ["before", "after"]


async def test_a_broker_that_freezes_is_noticed_without_writing(tmp_path: Path) -> None:
    """The keep-alive finds out, so the next write does not wait for its timeout."""
    async with Mosquitto(tmp_path) as broker, config(broker.port, keep_alive="1 s", timeout="200 s").build() as sink:
        broker.pause()
        try:
            with pytest.raises(Unavailable, match=r"does not answer|closed|lost"):
                await asyncio.wait_for(sink.write(1, batch(Sample("a", NOW, 1))), 60)
        finally:
            broker.resume()


async def test_writing_while_not_connected_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await config(1).build().write(1, batch(Sample("a", NOW, 1)))


# ---- the plant file's door --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"servers": "127.0.0.1:1883"}, "write mqtt://host:1883"),
        ({"servers": "http://broker"}, "write mqtt://host:1883"),
        ({"servers": "mqtt://broker:99999"}, "write mqtt://host:1883"),
        ({"servers": "mqtt://broker/path"}, "write mqtt://host:1883"),
        ({"servers": "mqtt://edge:pw@broker"}, "use `username` and `password`"),
        ({"servers": []}, "at least 1"),
        ({"topic": "plant/#"}, "take `\\+` and `#` out"),
        ({"topic": "plant/+/{tag}"}, "take `\\+` and `#` out"),
        ({"topic": "plant/values"}, "needs {tag}"),
        ({"topic": "plant/{site}/{tag}"}, "only {tag} and {machine}"),
        ({"topic": "plant/{tag!r}"}, "only {tag} and {machine}"),
        ({"topic": "plant/{tag.__class__}"}, "only {tag} and {machine}"),
        ({"topic": "plant/{"}, "only {tag} and {machine}"),
        ({"topic": "$SYS/{tag}"}, "belong to the broker"),
        ({"layout": "machine", "topic": "plant/{tag}"}, "needs {machine}"),
        ({"qos": 2}, "0 or 1"),
        ({"in_flight": 0}, "greater than or equal to 1"),
        ({"in_flight": 70000}, "less than or equal to 65535"),
        ({"version": "4"}, "'auto', '5' or '3.1.1'"),
        ({"timeout": "10"}, "number and a unit"),
        ({"keep_alive": "20 h"}, "less than or equal to"),
        ({"password": "open"}, "must not stand in the plant file"),
        ({"password": FromEnvironment("x")}, "`password` needs `username`"),
        ({"ca_file": "ca.pem"}, "mqtts://"),
        ({"servers": "mqtts://broker", "certificate_file": "own.pem"}, "belong together"),
        ({"servers": "mqtts://broker", "key_password": FromEnvironment("x")}, "needs `key_file`"),
        ({"client_id": "with space"}, "should match pattern"),
        ({"broker": "x"}, "Extra inputs"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(fields: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        config(1883, **fields)


def test_five_may_be_written_as_a_number() -> None:
    assert config(1883, version=5).version == "5"


def test_files_that_are_missing_or_wrong_are_found_before_anything_starts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    edge, other = authority.client("edge"), authority.client("other")
    prose = tmp_path / "prose.pem"
    prose.write_text("no certificate")

    def problems(**files: Path | SecretStr) -> list[tuple[str, str]]:
        return list(config(1, servers="mqtts://broker", **files).problems())

    assert problems() == []
    assert problems(ca_file=authority.certificate, certificate_file=edge.certificate, key_file=edge.key) == []
    ((field, text),) = problems(ca_file=tmp_path / "missing.pem")
    assert field == "ca_file"
    assert "missing.pem" in text
    ((field, text),) = problems(ca_file=prose)
    assert (field, "prose.pem" in text) == ("ca_file", True)
    ((field, text),) = problems(certificate_file=edge.certificate, key_file=other.key)
    assert (field, "no pair" in text) == ("certificate_file", True)
    ((field, text),) = problems(certificate_file=prose, key_file=edge.key)
    assert field == "certificate_file"


def test_a_password_is_never_shown() -> None:
    assert "hush" not in repr(config(1, username="edge", password=FromEnvironment("hush")))


def test_quality_is_said_twice_so_that_dashboards_need_no_bit_rules() -> None:
    """``good`` is true from 192 on and nowhere else."""
    for quality, good in ((0, False), (64, False), (191, False), (Quality.GOOD, True), (255, True)):
        assert msgspec.json.decode(reading(Sample("a", NOW, 1, quality), "ns"))["good"] is good
