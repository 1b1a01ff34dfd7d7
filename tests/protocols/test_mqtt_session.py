"""The session against a real Mosquitto, a scripted broker and cut cables."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import Message, Will, encode_publish
from shopfloor.protocols.mqtt_session import Arrival, Session, Subscription, open_session
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.testing.certificates import Authority
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto, free_port

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


def settings(port: int, **options: object) -> MqttConnection:
    return MqttConnection.model_validate({"servers": f"mqtt://127.0.0.1:{port}", "timeout": "8 s", **options})


@asynccontextmanager
async def session(port: int, name: str = "test", version: str = "5", **options: Any) -> AsyncIterator[Session]:
    opened = await open_session(settings(port, version=version), name, **options)
    try:
        yield opened
    finally:
        await opened.close()


async def take(opened: Session, number: int) -> list[Arrival]:
    found: list[Arrival] = []
    async with asyncio.timeout(60), aclosing(opened.arrivals()) as arrivals:
        async for some in arrivals:
            found += some
            if len(found) >= number:
                break
    return found


async def say(port: int, *messages: Message) -> None:
    async with session(port, "speaker") as speaker:
        assert not await speaker.publish(messages, 1)


@VERSIONS
async def test_what_is_published_arrives_in_order_on_the_same_connection(version: str, tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, session(broker.port, version=version) as opened:
        await opened.subscribe([Subscription("a/+", 1), Subscription("b", 0)])
        said = [Message(b"a/x" if i % 2 else b"b", str(i).encode(), retain=False) for i in range(500)]
        publishing = asyncio.create_task(opened.publish(said, 1))
        found = await take(opened, 500)
        opened.acknowledge(found)
        assert not await publishing
        for topic in ("a/x", "b"):
            assert [int(one.payload) for one in found if one.topic == topic] == [
                i for i in range(500) if (topic == "a/x") == bool(i % 2)
            ]
        assert {bool(one.packet_id) for one in found if one.topic == "b"} == {False}


@VERSIONS
async def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(version: str, tmp_path: Path) -> None:
    kept: dict[str, Any] = {"clean_start": False, "session_expiry": 3600}
    async with Mosquitto(tmp_path) as broker:
        async with session(broker.port, version=version, **kept) as opened:
            assert not opened.session_present
            await opened.subscribe([Subscription("t")])
            await say(broker.port, *(Message(b"t", str(i).encode(), retain=False) for i in range(4)))
            found = await take(opened, 4)
            opened.acknowledge(found[:2])
        await say(broker.port, Message(b"t", b"while away", retain=False))
        async with session(broker.port, version=version, **kept) as opened:
            assert opened.session_present
            again = await take(opened, 3)
            assert [one.payload for one in again] == [b"2", b"3", b"while away"]
            assert [one.duplicate for one in again] == [True, True, False]


@VERSIONS
async def test_the_will_is_published_when_the_connection_breaks_and_when_asked_for(
    version: str, tmp_path: Path
) -> None:
    async with Mosquitto(tmp_path) as broker, session(broker.port, "watcher") as watcher:
        await watcher.subscribe([Subscription("will/#")])
        dying = await open_session(settings(broker.port, version=version), "a", will=Will(b"will/a", b"died"))
        dying.abort()
        async with session(broker.port, "b", version, will=Will(b"will/b", b"never")):
            pass
        leaving = await open_session(settings(broker.port, version=version), "c", will=Will(b"will/c", b"asked", 1))
        await leaving.close(with_will=True)
        assert {(one.topic, one.payload) for one in await take(watcher, 2)} == {
            ("will/a", b"died"),
            ("will/c", b"asked"),
        }


async def test_retained_messages_are_marked_and_can_be_left_out(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, session(broker.port) as opened:
        await say(broker.port, Message(b"a", b"old", retain=True), Message(b"b", b"old", retain=True))
        await opened.subscribe([Subscription("a"), Subscription("b", 1, "never")])
        assert [(one.topic, one.retained) for one in await take(opened, 1)] == [("a", True)]
        await opened.subscribe([Subscription("a", 1, "new")])
        await say(broker.port, Message(b"a", b"live", retain=True))
        assert [(one.payload, one.retained) for one in await take(opened, 1)] == [(b"live", False)]
        await opened.unsubscribe(["a", "b"])
        await say(broker.port, Message(b"a", b"unheard", retain=False))
        assert not opened.taken()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (b"\x87", "not authorized; allow it in the broker's access list or change the topic"),
        (b"\xa2", r"wildcards in subscriptions; name each topic, without `\+` and `#`"),
    ],
)
async def test_a_forbidden_subscription_names_the_topic_and_the_remedy(code: bytes, text: str) -> None:
    async with scripted(b"\x90\x04\x00\x01\x00" + code) as port, session(port) as opened:
        with pytest.raises(Misconfigured, match="subscribe to secret/#: .*" + text):
            await opened.subscribe([Subscription("secret/#")])


@pytest.mark.parametrize(("code", "text"), [(b"\x97", "quota exceeded"), (b"\x83", "implementation specific")])
async def test_a_subscription_that_is_refused_for_now_is_tried_again(code: bytes, text: str) -> None:
    async with scripted(b"\x90\x04\x00\x01\x00" + code) as port, session(port) as opened:
        with pytest.raises(Unavailable, match="subscribe to secret/#: .*" + text):
            await opened.subscribe([Subscription("secret/#")])


async def test_an_answer_to_fewer_subscriptions_than_were_asked_for_is_no_answer() -> None:
    async with scripted(b"\x90\x03\x00\x01\x00") as port, session(port) as opened:
        with pytest.raises(Unavailable, match=r"malformed answer .* set another `version`"):
            await opened.subscribe([Subscription("a")])


@asynccontextmanager
async def scripted(answer: bytes) -> AsyncIterator[int]:
    """A broker of MQTT 5 that takes everybody and answers SUBSCRIBE with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")
        while data := await reader.read(1000):
            if b"\x82" in data:
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "message",
    [
        b"\x30\x00",
        b"\x30\x03\x00\x05a",
        b"\x32\x05\x00\x01a\x00\x00",  # QoS 1 without an identifier
        b"\x34\x06\x00\x01a\x00\x01\x00",  # QoS 2 was not asked for
        b"\x30\x08\x00\x01a\xff\xff\xff\xff\xff",
        b"\x30\x04\x00\x01a\x09",  # properties longer than the packet
        b"\x32\x04\x00\x01a\x00",  # half an identifier
        b"\x30\x01\x00",  # half a length of the topic
        b"\x30\xff\xff\xff\xff\x01",  # a length of more than four bytes
    ],
)
async def test_a_malformed_message_ends_the_connection_with_a_word(message: bytes) -> None:
    async with scripted(b"\x90\x04\x00\x01\x00\x01" + message) as port, session(port) as opened:
        await opened.subscribe([Subscription("a")])
        with pytest.raises(Unavailable, match=r"malformed .*; see whether something other than a broker"):
            await take(opened, 1)


@VERSIONS
@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 130, 1000, 100_000])
async def test_however_the_network_cuts_the_packets_the_messages_are_the_same(version: str, at_once: int) -> None:
    """Bodies below and above 128 and 16,384 bytes, whose lengths take one, two and three bytes."""
    number = {"5": 5, "3.1.1": 4}[version]
    said = [
        Message(b"a/%d" % i, b"x" * size, retain=bool(i % 2))
        for i, size in enumerate([0, 1, 100, 116, 117, 118, 119, 120, 121, 122, 130, 3000, 16_370, 16_380, 20_000, 5])
    ]
    stream = b"".join(
        b"".join(encode_publish(message, i % 2, i % 2 and i, number)) + b"\xd0\x00" for i, message in enumerate(said)
    )
    opened = Session(number, 0, 1)
    opened.data_received(b"\x20\x03\x00\x00\x00" if version == "5" else b"\x20\x02\x00\x00")
    for begin in range(0, len(stream), at_once):
        opened.data_received(stream[begin : begin + at_once])
    found: list[Arrival] = []
    while taken := opened.taken():
        found += taken
    assert opened.lost is None
    assert [(one.topic.encode(), one.payload, one.retained) for one in found] == [one[:3] for one in said]
    assert [one.packet_id for one in found] == [i % 2 and i for i in range(len(said))]


async def test_an_unanswered_subscription_is_unavailable() -> None:
    async with scripted(b"") as port:
        opened = await open_session(settings(port), "test")
        opened._patience = 0.2  # for the subscription alone: connecting may take its time
        with pytest.raises(Unavailable, match=r"did not answer a subscription within 0\.2 s; its log"):
            await opened.subscribe([Subscription("a")])
        await opened.close()


async def test_a_topic_that_is_not_utf8_is_survived() -> None:
    async with (
        scripted(b"\x90\x04\x00\x01\x00\x01" + b"\x30\x06\x00\x02\xff\xfe\x00x") as port,
        session(port) as opened,
    ):
        await opened.subscribe([Subscription("#")])
        assert [one.payload for one in await take(opened, 1)] == [b"x"]


async def test_a_message_of_10_mb_arrives_whole_and_a_flood_is_held_back(tmp_path: Path) -> None:
    """Above the limit nothing more is read, the connection stays, and everything arrives in the end."""
    async with Mosquitto(tmp_path) as broker, session(broker.port) as opened:
        await opened.subscribe([Subscription("big")])
        body = bytes(10_000_000)
        await say(broker.port, *(Message(b"big", bytes((i,)) + body, retain=False) for i in range(4)))
        await until(lambda: opened._held_back, "the flood is held back")
        found = await take(opened, 4)
        assert [one.payload[0] for one in found] == [0, 1, 2, 3]
        assert {len(one.payload) for one in found} == {10_000_001}


async def test_a_cut_cable_is_noticed_and_what_came_before_is_given_first(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, FaultProxy("127.0.0.1", broker.port) as proxy:
        opened = await open_session(settings(proxy.port, keep_alive="4 s"), "test")
        await opened.subscribe([Subscription("a")])
        await say(broker.port, Message(b"a", b"before", retain=False))
        await until(lambda: bool(opened._arrived), "the message arrived")
        proxy.black_hole()
        await until(lambda: opened.lost is not None, "the loss was noticed")
        assert [one.payload for one in await take(opened, 1)] == [b"before"]
        with pytest.raises(Unavailable, match="does not answer"):
            await take(opened, 1)
        with pytest.raises(Unavailable):
            await opened.subscribe([Subscription("b")])
        await opened.close()


async def test_only_the_pinned_certificate_is_spoken_to(tmp_path: Path) -> None:
    """Another certificate of the same authority is refused before the password is said."""
    authority = Authority(tmp_path)
    identity = authority.issue("127.0.0.1")
    pem = Path(identity.certificate).read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    async with Mosquitto(tmp_path, identity=identity) as broker:
        tls = {"servers": f"mqtts://127.0.0.1:{broker.port}", "ca_file": authority.certificate}
        opened = await open_session(settings(broker.port, **tls, server_sha256=pin.upper()), "test")
        await opened.close()
        with pytest.raises(Misconfigured, match=rf"server_sha256.*{pin}"):
            await open_session(settings(broker.port, **tls, server_sha256="00" * 32), "test")


async def test_the_servers_are_tried_in_order_or_one_is_chosen(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker:
        nobody, there = f"mqtt://127.0.0.1:{free_port()}", f"mqtt://127.0.0.1:{broker.port}"
        walked = settings(0, servers=[nobody, there])
        await (await open_session(walked, "test")).close()
        with pytest.raises(Unavailable, match=nobody):
            await open_session(walked, "test", servers=[nobody])


async def test_a_message_that_expired_is_not_delivered_later(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"clean_start": False, "session_expiry": 3600}
    async with Mosquitto(tmp_path) as broker:
        async with session(broker.port, **kept) as opened:
            await opened.subscribe([Subscription("t")])
        await say(broker.port, Message(b"t", b"late", retain=False, expiry=1), Message(b"t", b"lasting", retain=False))
        await asyncio.sleep(2.1)  # the broker's clock is what is tested
        async with session(broker.port, **kept) as opened:
            assert [one.payload for one in await take(opened, 1)] == [b"lasting"]
