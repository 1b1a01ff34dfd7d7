"""The MQTT connection against a scripted broker: what real ones do only once in a while."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, strategies as st

from shopfloor.protocols.mqtt import (
    Message,
    Publisher,
    _properties,
    encode_length,
    encode_publish,
    find_frame,
    parse_address,
)
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable
from shopfloor.sinks.mqtt import MqttConfig
from shopfloor.testing.contracts import until

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_3 = b"\x20\x02\x00\x00"


class Scripted:
    """A broker that does what a test says; it keeps the identifiers of publications that it has not acknowledged."""

    def __init__(self, connack: bytes, answer: Callable[["Scripted", int], Awaitable[None]] | None = None) -> None:
        self.connack = connack
        self.answer = answer
        self.connects: list[bytes] = []
        self.published: list[int] = []
        self.waiting: list[int] = []
        self.most_waiting = 0
        self.pings = 0
        self.writer: asyncio.StreamWriter | None = None
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        buffer = bytearray()
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                buffer += data
                while (frame := find_frame(buffer, 0)) is not None:
                    kind, body = buffer[0] & 0xF0, bytes(buffer[frame[0] : frame[1]])
                    del buffer[: frame[1]]
                    await self.packet(kind, body)
        writer.close()

    async def packet(self, kind: int, body: bytes) -> None:
        if kind == 0x10:
            self.connects.append(body)
            await self.say(self.connack)
        elif kind == 0x30:
            at = 2 + int.from_bytes(body[:2], "big")
            identifier = int.from_bytes(body[at : at + 2], "big")
            self.published.append(identifier)
            self.waiting.append(identifier)
            self.most_waiting = max(self.most_waiting, len(self.waiting))
            if self.answer is not None:
                await self.answer(self, identifier)
        elif kind == 0xC0:
            self.pings += 1
            await self.say(b"\xd0\x00")

    async def say(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)
        await self.writer.drain()

    async def acknowledge(self, identifier: int, reason: int = 0) -> None:
        self.waiting.remove(identifier)
        await self.say(b"\x40\x03" + identifier.to_bytes(2, "big") + bytes((reason,)))


@asynccontextmanager
async def listening(broker: Scripted, patience: str = "30 s") -> AsyncIterator[MqttConfig]:
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield configured(port, timeout=patience)
        if broker.writer is not None:
            broker.writer.close()
        await asyncio.gather(*broker.tasks)


def configured(port: int, **options: object) -> MqttConfig:
    fields = {"name": "m", "type": "mqtt", "servers": f"mqtt://127.0.0.1:{port}", "timeout": "30 s"}
    return MqttConfig.model_validate({**fields, **options})


def batch(size: int) -> Batch:
    return Batch.of("line", 1, [Sample(f"tag/{i}", 1, i) for i in range(size)])


# ---- acknowledgements -----------------------------------------------------------------------------------


async def test_never_more_in_flight_than_the_broker_allows() -> None:
    async def slowly(broker: Scripted, _: int) -> None:
        if len(broker.waiting) == 5:
            for identifier in reversed(list(broker.waiting)):  # in any order
                await broker.acknowledge(identifier)

    broker = Scripted(b"\x20\x06\x00\x00\x03\x21\x00\x05", slowly)  # Receive Maximum 5
    async with listening(broker) as config, config.build() as sink:
        await sink.write(1, batch(100))
    assert len(broker.published) == 100
    assert broker.most_waiting == 5


async def test_a_write_is_not_held_before_the_last_acknowledgement() -> None:
    async def all_but_the_last(broker: Scripted, identifier: int) -> None:
        if len(broker.published) < 10:
            await broker.acknowledge(identifier)

    broker = Scripted(CONNACK_5, all_but_the_last)
    async with listening(broker) as config, config.build() as sink:
        writing = asyncio.create_task(sink.write(1, batch(10)))
        await until(lambda: broker.waiting == [10], "nine of ten are acknowledged")
        assert not writing.done()
        await broker.acknowledge(10)
        await asyncio.wait_for(writing, 30)


async def test_a_broker_that_stops_acknowledging_is_unavailable() -> None:
    async with listening(Scripted(CONNACK_5)) as config, config.build() as sink:
        assert sink._publisher is not None
        sink._publisher._patience = 0.2  # the limit of publishing only: connecting may take its time
        with pytest.raises(Unavailable, match=r"acknowledged nothing for 0\.2 s"):
            await sink.write(1, batch(10))
        with pytest.raises(Unavailable):
            await sink.write(1, batch(10))


@pytest.mark.parametrize(
    ("reason", "error", "text"),
    [
        (0x10, None, ""),  # nobody listens: that is no error
        (0x80, Unavailable, "unspecified"),
        (0x97, Unavailable, "quota"),
        (0x87, Misconfigured, "tag/1: not authorized"),
        (0x90, Rejected, "topic"),
        (0x95, Rejected, "large"),
        (0x99, Rejected, "format"),
    ],
)
async def test_each_refusal_asks_for_its_own_reaction(reason: int, error: type[Exception] | None, text: str) -> None:
    async def refuse_the_second(broker: Scripted, identifier: int) -> None:
        await broker.acknowledge(identifier, reason if identifier == 2 else 0)

    async with listening(Scripted(CONNACK_5, refuse_the_second)) as config, config.build() as sink:
        if error is None:
            await sink.write(1, batch(3))
            return
        with pytest.raises(error, match=text) as refused:
            await sink.write(1, batch(3))
        if isinstance(refused.value, Rejected):
            assert refused.value.indices == [1]


async def test_acknowledgements_of_what_was_never_sent_are_passed_over() -> None:
    async def confused(broker: Scripted, identifier: int) -> None:
        await broker.say(b"\x40\x02\xff\xff")
        await broker.acknowledge(identifier)

    async with listening(Scripted(CONNACK_5, confused)) as config, config.build() as sink:
        await sink.write(1, batch(3))


async def test_identifiers_are_reused_only_when_free() -> None:
    async def keep_the_first(broker: Scripted, identifier: int) -> None:
        if len(broker.published) > 1:
            await broker.acknowledge(identifier)
        if len(broker.published) == 70_000:
            await broker.acknowledge(1)

    broker = Scripted(CONNACK_5, keep_the_first)
    async with listening(broker) as config, config.build() as sink:
        await sink.write(1, batch(70_000))
    assert broker.published.count(1) == 1
    assert max(broker.published) == 65_535


# ---- connecting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connack", "error", "text"),
    [
        (b"\x20\x03\x00\x86\x00", Misconfigured, "user name or password is wrong; correct `username` and `password`"),
        (b"\x20\x03\x00\x87\x00", Misconfigured, "not authorized; give `username` and `password`, or .* access list"),
        (b"\x20\x03\x00\x85\x00", Misconfigured, "does not like the client_id; set another `client_id`"),
        (b"\x20\x03\x00\x8a\x00", Misconfigured, "banned; lift the ban"),
        (b"\x20\x03\x00\x8c\x00", Misconfigured, "authentication method; let the broker take user name and password"),
        (b"\x20\x03\x00\x88\x00", Unavailable, "not available; it is tried again; .* log"),
        (b"\x20\x03\x00\x89\x00", Unavailable, "busy; it is tried again"),
        (b"\x20\x03\x00\x9f\x00", Unavailable, "too many connections; raise this limit at the broker"),
        (b"\x20\x03\x00\x9d\x00", Unavailable, "moved; enter the address of the other one as `servers`"),
        (b"\x20\x03\x00\xf0\x00", Misconfigured, "0xf0; the broker's log says why"),
        (b"\x20\x02\x00\x04", Misconfigured, "user name or password is wrong; correct `username` and `password`"),
        (b"\x20\x02\x00\x05", Misconfigured, "not authorized; give `username`"),
        (b"\x20\x02\x00\x03", Unavailable, "not available; it is tried again"),
        (b"\x20\x00", Misconfigured, "malformed packet; set another `version`"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Unavailable, "not answer as an MQTT broker does .* address and port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unavailable, "not answer as an MQTT broker does .* address and port"),
        (b"\x15\x03\x01\x00\x02\x02\x46", Misconfigured, "wants TLS at this port; write the address as mqtts://"),
        (
            b"",
            Unavailable,
            r"no answer within 0\.5 s; see whether address and port are right, no firewall .* TLS there",
        ),
    ],
)
async def test_a_connection_that_is_refused_says_why(connack: bytes, error: type[Exception], text: str) -> None:
    async with listening(Scripted(connack), "30 s" if connack else "500 ms") as config:
        with pytest.raises(error, match=text):
            await config.build().__aenter__()


async def test_a_loss_that_nobody_waits_for_any_more_is_forgotten_quietly() -> None:
    """As when the broker closes at the moment at which connecting takes too long: asyncio would complain later."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    publisher = Publisher(5, 30, 30.0)
    publisher.connection_lost(None)
    assert isinstance(publisher.lost, Exception)
    del publisher
    gc.collect()
    assert complaints == []


async def test_an_old_broker_is_spoken_to_in_its_own_version() -> None:
    class Old(Scripted):
        async def packet(self, kind: int, body: bytes) -> None:
            self.connack = b"\x20\x02\x00\x01" if kind == 0x10 and body[6] == 5 else CONNACK_3
            await super().packet(kind, body)

    broker = Old(b"", lambda broker, identifier: broker.acknowledge(identifier))
    async with listening(broker) as config:
        async with config.build() as sink:
            await sink.write(1, batch(3))
        assert [body[6] for body in broker.connects] == [5, 4]
        only_five = config.model_copy(update={"version": "5"})
        with pytest.raises(Misconfigured, match="`version`"):
            await only_five.build().__aenter__()


async def test_a_connection_that_closes_without_a_word_is_tried_again_later() -> None:
    """A broker that stops and a proxy without a broker do so: no person is needed."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unavailable, match=r"without an answer; it may want TLS .* its log says why"):
            await configured(server.sockets[0].getsockname()[1]).build().__aenter__()


@pytest.mark.parametrize(
    ("properties", "text"), [(b"\x24\x00", "`qos: 0`"), (b"\x25\x00", "`retain: false`")]
)  # fmt: skip
async def test_what_the_broker_cannot_do_is_said_when_connecting(properties: bytes, text: str) -> None:
    async with listening(Scripted(b"\x20\x05\x00\x00\x02" + properties)) as config:
        with pytest.raises(Misconfigured, match=text):
            await config.build().__aenter__()


async def test_what_we_say_about_ourselves_is_what_was_configured() -> None:
    broker = Scripted(CONNACK_5)
    async with listening(broker) as config, config.model_copy(update={"client_id": "line-7"}).build():
        pass
    async with listening(broker) as config, config.build():
        pass
    named, made = broker.connects
    assert named == b"\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x06line-7"
    assert b"shopfloor-m-" in made


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"\xe0\x02\x8e\x00", "another client connected with the same client_id; give each"),
        (b"\xe0\x02\x8b\x00", "shutting down; it is tried again"),
        (b"\xe0\x00", "reason code 0x00; the broker's log"),
        (b"\x00\x00", r"malformed packet \(0x00.*; see whether .* set another `version`"),
        (b"\x62\x02\x00\x01", r"malformed packet \(0x62"),
    ],
)
async def test_a_broker_that_ends_the_connection_says_why(said: bytes, text: str) -> None:
    broker = Scripted(CONNACK_5)
    async with listening(broker) as config, config.build() as sink:
        writing = asyncio.create_task(sink.write(1, batch(1)))
        await until(lambda: bool(broker.waiting), "the message arrived")
        await broker.say(said)
        with pytest.raises(Unavailable, match=text):
            await writing


async def test_packets_may_arrive_in_any_pieces() -> None:
    async def crumbs(broker: Scripted, identifier: int) -> None:
        broker.waiting.remove(identifier)
        for byte in b"\x40\x02" + identifier.to_bytes(2, "big"):
            await broker.say(bytes((byte,)))
            await asyncio.sleep(0)

    async with listening(Scripted(CONNACK_5, crumbs)) as config, config.build() as sink:
        await sink.write(1, batch(20))


async def test_the_broker_sets_the_keep_alive() -> None:
    broker = Scripted(b"\x20\x06\x00\x00\x03\x13\x00\x01")  # Server Keep Alive 1 s
    async with listening(broker) as config, config.build():
        await until(lambda: broker.pings > 2, "pings come each half second")


async def test_who_hung_itself_does_not_say_that_the_broker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is on its way, or waits to be read, when the process comes to itself: it is asked for once more."""
    plain, hung = Publisher._tick, list[bool]()

    def tick(publisher: Publisher) -> None:
        plain(publisher)
        if not hung:
            hung.append(True)
            time.sleep(1.0)  # longer than the half second after which it looks for the answer

    monkeypatch.setattr(Publisher, "_tick", tick)
    broker = Scripted(b"\x20\x06\x00\x00\x03\x13\x00\x01")  # Server Keep Alive 1 s
    async with listening(broker) as config, config.build() as sink:
        await until(lambda: broker.pings > 2, "it is asked again")
        assert sink._publisher is not None
        assert sink._publisher.lost is None


# ---- packets -------------------------------------------------------------------------------------------


@given(st.integers(0, 268_435_455))
def test_lengths_are_read_as_they_are_written(length: int) -> None:
    head = bytearray(b"\x30" + encode_length(length))
    assert len(head) <= 5
    assert find_frame(head, 0) == (None if length else (2, 2))
    if length < 1000:
        assert find_frame(head + b"x" * length + b"more", 0) == (len(head), len(head) + length)
        assert find_frame(head + b"x" * (length - 1), 0) is None or length == 0


@given(st.binary(max_size=60))
def test_no_properties_hurt(data: bytes) -> None:
    assert isinstance(_properties(data), dict)


def test_publications_are_as_the_standard_writes_them() -> None:
    message = Message(b"a/b", b"hi", retain=True)
    assert b"".join(encode_publish(message, 1, 10, 5)) == b"\x33\x0a\x00\x03a/b\x00\x0a\x00hi"
    assert b"".join(encode_publish(message, 0, 0, 4)) == b"\x31\x07\x00\x03a/bhi"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtt://broker", "mqtt://broker:1883"),
        ("mqtts://broker/", "mqtts://broker:8883"),
        ("mqtt://[::1]:1999", "mqtt://[::1]:1999"),
    ],
)
def test_addresses_have_their_usual_ports(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize("text", ["", "broker:1883", "tcp://broker", "mqtt://broker:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="mqtt://host:1883"):
        parse_address(text)
