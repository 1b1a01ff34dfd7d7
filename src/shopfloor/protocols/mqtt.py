"""MQTT: what the settings of every MQTT connector mean, and a connection that publishes fast and says what arrived.

Connecting uses gmqtt's packets. Publishing does not go through gmqtt's client: that one reconnects by
itself, keeps what was not acknowledged in a queue of its own, ignores the reason codes of PUBACK and
puts no bound on what waits to be sent, while here the journal is the queue and the pipeline comes back.
"""

import asyncio
import hashlib
import ssl
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple, NoReturn, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from gmqtt.mqtt import package, property as properties, utils
from gmqtt.mqtt.constants import MQTTCommands, MQTTv50, MQTTv311
from pydantic import SecretStr

from shopfloor.protocols.mqtt_words import (
    TLS_ALERT,
    closed_unanswered,
    malformed,
    no_broker,
    refusal_text,
    silent,
    tls_refusal,
    unacknowledged,
    unreachable,
    untrusted,
)
from shopfloor.protocols.tls import TlsFiles, tls_context
from shopfloor.samples import Misconfigured, Unavailable

# gmqtt has no types; what comes from it gets one where it enters.
_packets: Final[Any] = package
_known_properties: Final[Any] = properties
_integers: Final[Any] = utils

LARGEST_PACKET: Final = 268_435_455
"""Bytes: what MQTT's length field can say."""
MOST_IN_FLIGHT: Final = 65_535
"""Packet identifiers are 16 bit."""
REFUSED: Final = 0x80
"""Reason codes from here on say that a packet was not accepted."""

_SECOND: Final = 10**9
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_WRITE_SIZE: Final = 64 * 1024
_WITH_WILL: Final = 0x04
"""DISCONNECT's reason code: disconnect with will message."""
_WRONG_VERSION: Final = (0x01, 0x84)
_NOT_NOW: Final = (0x03, 0x80, 0x83, 0x88, 0x89, 0x97, 0x9C, 0x9D, 0x9F)
"""CONNACK codes that may go away by themselves: server unavailable, busy, quota, moved, rate."""


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """``mqtt://host:1883`` or, for TLS, ``mqtts://host:8883``; raises Misconfigured for anything else."""
    try:
        parts = urlsplit(text)
        return Address(parts.hostname or "", parts.port or _PORTS[parts.scheme], parts.scheme == "mqtts")
    except (ValueError, KeyError) as error:
        raise Misconfigured(
            f"{text!r} is no address of a broker; write mqtt://host:1883 or mqtts://host:8883"
        ) from error


class Settings(TlsFiles, Protocol):
    """How to reach a broker; ``plant.mqtt.MqttConnection`` is the form in a plant file. Durations are in ns."""

    @property
    def servers(self) -> Sequence[str]: ...  # noqa: D102  # the model's fields document each
    @property
    def version(self) -> Literal["auto", "5", "3.1.1"]: ...  # noqa: D102
    @property
    def username(self) -> str | None: ...  # noqa: D102
    @property
    def password(self) -> SecretStr | None: ...  # noqa: D102
    @property
    def server_name(self) -> str | None: ...  # noqa: D102
    @property
    def server_sha256(self) -> str | None: ...  # noqa: D102
    @property
    def keep_alive(self) -> int: ...  # noqa: D102
    @property
    def timeout(self) -> int: ...  # noqa: D102


class Message(NamedTuple):
    """Something to publish."""

    topic: bytes
    payload: bytes
    retain: bool
    expiry: int = 0
    """After this many seconds a broker of MQTT 5 delivers it no more; 0: it never expires."""


class Will(NamedTuple):
    """What the broker publishes for us when the connection breaks."""

    topic: bytes
    payload: bytes
    qos: Literal[0, 1] = 1
    retain: bool = False
    properties: Mapping[str, int] = {}
    """As gmqtt names them; only MQTT 5 has any."""


class Opening(NamedTuple):
    """What CONNECT says besides who we are."""

    will: Will | None = None
    clean_start: bool = True
    """Whether the broker forgets what it kept for this client."""
    session_expiry: int = 0
    """Seconds for which an MQTT 5 broker keeps the session after the connection has gone."""
    receive_maximum: int = 0
    """How many unacknowledged messages an MQTT 5 broker may send us; 0: as many as it likes."""


class Refusal(NamedTuple):
    """A message that the broker did not accept (only MQTT 5 says so)."""

    position: int
    """In the messages that were given."""
    reason: int


async def connect(settings: Settings, client_id: str) -> "Publisher":
    """A connection for publishing; see ``connect_with``."""
    return await connect_with(Publisher, settings, client_id)


async def connect_with(
    kind: "type[Connected]",
    settings: Settings,
    client_id: str,
    opening: Opening = Opening(),  # noqa: B008  # it never changes
    servers: Sequence[str] | None = None,
) -> "Connected":
    """A connection of this kind to the first of the servers that takes us.

    ``servers`` are tried instead of all those of the settings. Raises Unavailable when none can be reached
    now, Misconfigured when every one of them needs a person to act (address, certificate, password).
    """
    away: list[str] = []
    wrong: list[str] = []
    context = (
        await asyncio.to_thread(tls_context, settings) if any(parse_address(s).tls for s in settings.servers) else None
    )
    for text in settings.servers if servers is None else servers:
        address = parse_address(text)
        try:
            return await _connect_to(kind, address, settings, _Greeting(client_id, opening, context))
        except Unavailable as error:
            away.append(f"{address}: {error}")
        except Misconfigured as error:
            wrong.append(f"{address}: {error}")
    if away:
        raise Unavailable("; ".join(away + wrong))
    raise Misconfigured("; ".join(wrong))


class _Greeting(NamedTuple):
    """What is said to every server alike."""

    client_id: str
    opening: Opening
    tls: ssl.SSLContext | None


async def _connect_to(
    kind: "type[Connected]", address: Address, settings: Settings, greeting: _Greeting
) -> "Connected":
    versions = {"5": (MQTTv50,), "3.1.1": (MQTTv311,), "auto": (MQTTv50, MQTTv311)}[settings.version]
    refused: Exception | None = None
    for version in versions:
        try:
            return await _connect_as(kind, version, address, settings, greeting)
        except (_VersionRefused, _NoAnswer) as error:
            refused = error
    if isinstance(refused, _VersionRefused):
        raise Misconfigured(str(refused)) from refused
    # Brokers that stop, and proxies without a broker behind them, do the same: so it is retried.
    raise Unavailable(f"{refused}; {closed_unanswered(tls=address.tls)}") from refused


class _VersionRefused(Exception):
    """The broker does not speak the version."""


class _NoAnswer(Exception):
    """The broker closed the connection instead of answering, as some do with a version that they do not know."""


async def _connect_as(
    kind: "type[Connected]", version: int, address: Address, settings: Settings, greeting: _Greeting
) -> "Connected":
    loop = asyncio.get_running_loop()
    seconds = settings.timeout / _SECOND
    publisher: Connected | None = None
    try:
        async with asyncio.timeout(seconds):
            transport, publisher = await loop.create_connection(
                partial(kind, version, settings.keep_alive // _SECOND, seconds),
                address.host,
                address.port,
                ssl=greeting.tls if address.tls else None,
                server_hostname=(settings.server_name or address.host) if address.tls else None,
            )
            if address.tls and settings.server_sha256 is not None:
                _check_pin(transport.get_extra_info("ssl_object"), settings.server_sha256)
            await publisher.introduce(greeting.client_id, settings, greeting.opening)
    except BaseException as error:
        if publisher is not None:
            publisher.abort()
        if isinstance(error, TimeoutError):
            raise Unavailable(silent(seconds)) from error
        if isinstance(error, ssl.SSLCertVerificationError):
            raise Misconfigured(untrusted(error)) from error
        if isinstance(error, ssl.SSLError):
            raise Misconfigured(tls_refusal(error)) from error
        if isinstance(error, OSError):
            raise Unavailable(unreachable(address.host, error, tls=address.tls)) from error
        raise
    return publisher


def _check_pin(tls: ssl.SSLObject, wanted: str) -> None:
    """Raise Misconfigured for a server with another certificate; nothing has been said to it yet."""
    found = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
    if found != wanted.replace(":", "").lower():
        raise Misconfigured(
            f"the broker's certificate is not the one of `server_sha256` but {found}; "
            "find out whether it was renewed before you enter that"
        )


class Publisher(asyncio.Protocol):
    """One connection to a broker, made by ``connect``; close it with ``close``."""

    proto_name = b"MQTT"

    def __init__(self, version: int, keep_alive: int, patience: float) -> None:
        """``keep_alive`` and ``patience`` are in seconds."""
        self.proto_ver = version
        self.receive_maximum = MOST_IN_FLIGHT
        """How many QoS 1 messages the broker takes before it must have acknowledged one."""
        self.maximum_packet_size = LARGEST_PACKET
        self.maximum_qos = 2
        self.retains = True
        self.session_present = False
        """Whether the broker still had the session of this client."""
        self._keep_alive = keep_alive
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._lost: Exception | None = None
        self._flight: _Flight | None = None
        self._paused = False
        self._progress = self._loop.time()
        self._ping: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When to look for a sign of life, by the loop's clock."""
        self._unanswered = False
        self._last_id = 0
        self._asked: dict[int, asyncio.Future[bytes]] = {}

    # ---- for users ----------------------------------------------------------------------------------

    @property
    def lost(self) -> Exception | None:
        """Why the connection is gone; None while it is there."""
        return self._lost

    async def gone(self) -> NoReturn:
        """Wait until the connection is gone and raise why: Unavailable."""
        await asyncio.wait({self._closed})
        raise Unavailable(str(self._lost)) from self._lost

    async def introduce(self, client_id: str, settings: Settings, opening: Opening) -> None:
        """Say CONNECT and wait for CONNACK. Raises Unavailable, Misconfigured; used by ``connect``."""
        password = None if settings.password is None else settings.password.get_secret_value().encode()
        username = None if settings.username is None else settings.username.encode()
        packet: bytearray = _packets.LoginPackageFactor.build_package(
            client_id.encode(), username, password, clean_session=opening.clean_start, keepalive=self._keep_alive,
            protocol=self, will_message=opening.will,
            **({"session_expiry_interval": opening.session_expiry} if opening.session_expiry else {}),
            **({"receive_maximum": opening.receive_maximum} if opening.receive_maximum else {}),
        )  # fmt: skip
        self._write(bytes(packet))
        await self._accepted
        self._tick()

    async def publish(self, messages: Sequence[Message], qos: Literal[0, 1], most_in_flight: int) -> list[Refusal]:
        """Publish in order, many at a time; at QoS 1 return once the broker has acknowledged them all.

        At QoS 0 returning means only that they were handed to the network. One call at a time. Raises
        Unavailable when the connection is lost or the broker acknowledges nothing within the timeout.
        """
        if self._lost is not None:
            raise Unavailable(str(self._lost)) from self._lost
        if self._flight is not None:
            raise RuntimeError("one publish at a time: the connection has one window")
        window = min(most_in_flight, self.receive_maximum)
        self._flight = flight = _Flight(messages, qos, window, self._loop.create_future())
        self._progress = self._loop.time()
        try:
            self._send_more()
            while not flight.done.done():
                left = self._progress + self._patience - self._loop.time()
                if left <= 0:
                    self._lose(Unavailable(unacknowledged(self._patience)))
                    break
                await asyncio.wait({flight.done}, timeout=left)
            flight.done.result()
        except BaseException:
            # What was under way may still arrive; this connection no longer knows what it means.
            self.abort()
            raise
        finally:
            self._flight = None
        return flight.refused

    async def close(self, *, with_will: bool = False) -> None:
        """Say DISCONNECT and close; never raises because the broker is gone.

        ``with_will``: the broker is to publish the will all the same (MQTT 5 says so, with 3.1.1 no
        DISCONNECT is said).
        """
        if self._transport is None:
            return
        if self._lost is None:
            if self.proto_ver == MQTTv50 or not with_will:
                farewell: bytes = _packets.DisconnectPacket.build_package(self, _WITH_WILL if with_will else 0)
                self._write(farewell)
            self._transport.close()
            await asyncio.wait({self._closed}, timeout=min(1.0, self._patience))
        self.abort()
        await asyncio.wait({self._closed}, timeout=1.0)

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._ping is not None:
            self._ping.cancel()
        if self._lost is None:
            self._lost = Unavailable("the connection was closed")
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio.Protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The network is there; MQTT follows."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without inheriting from it

    def data_received(self, data: bytes) -> None:
        """Take packets apart."""
        if not self._greeted(data):
            return
        self._buffer += data
        at = 0
        while (frame := find_frame(self._buffer, at)) is not None:
            begin, end = frame
            self._packet(self._buffer[at], bytes(self._buffer[begin:end]))
            at = end
        del self._buffer[:at]
        self._send_more()  # once for all acknowledgements that came together

    def pause_writing(self) -> None:
        """The network is slower than we are."""
        self._paused = True

    def resume_writing(self) -> None:
        """The network took what waited."""
        self._paused = False
        self._progress = self._loop.time()
        self._send_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """The network is gone."""
        if isinstance(exc, ssl.SSLError) and not self._accepted.done():
            self._lose(Misconfigured(tls_refusal(exc)))
        elif not self._accepted.done():
            self._lose(_NoAnswer("the broker closed the connection without an answer"))
        else:
            self._lose(Unavailable(f"the connection was lost: {exc}" if exc else "the broker closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)

    # ---- inside -------------------------------------------------------------------------------------

    def _lose(self, error: Exception) -> None:
        if self._lost is None:
            self._lost = error
        waiting: list[asyncio.Future[Any]] = [self._accepted, *self._asked.values()]
        if self._flight is not None:
            waiting.append(self._flight.done)
        for future in waiting:
            if not future.done():
                future.set_exception(self._lost)
                future.exception()  # whoever waits hears it; nobody may: a timeout, a pin that is another one
        self.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _packet(self, head: int, body: bytes) -> None:
        self._unanswered = False
        kind = head & 0xF0
        if not self._accepted.done() and kind != MQTTCommands.CONNACK:
            kind = -1
        match kind:
            case MQTTCommands.PUBACK:
                self._acknowledged(int.from_bytes(body[:2], "big"), body[2] if len(body) > 2 else 0)  # noqa: PLR2004
            case MQTTCommands.CONNACK:
                self._connack(body)
            case MQTTCommands.DISCONNECT:
                self._lose(Unavailable(f"the broker closed the connection: {refusal_text(body[0] if body else 0)}"))
            case MQTTCommands.PINGRESP:
                pass
            case _:
                self._unexpected(head)

    def _greeted(self, data: bytes) -> bool:
        """Whether a broker answers: what begins with anything but CONNACK is something else."""
        if self._accepted.done() or self._buffer or data[0] & 0xF0 == MQTTCommands.CONNACK:
            return True
        kind = Misconfigured if data[0] == TLS_ALERT else Unavailable
        self._lose(kind(no_broker(data[0])))
        return False

    def _unexpected(self, head: int) -> None:
        self._lose(Unavailable(malformed(f"packet (0x{head:02x} makes no sense here)")))

    def _connack(self, body: bytes) -> None:
        if self._accepted.done():
            return
        code = body[1] if len(body) > 1 else 0x81
        if code in _WRONG_VERSION:
            self._lose(_VersionRefused(f"the broker refuses the connection: {refusal_text(code)}"))
        elif code:
            kind = Unavailable if code in _NOT_NOW else Misconfigured
            self._lose(kind(f"the broker refuses the connection: {refusal_text(code)}"))
        else:
            if self.proto_ver == MQTTv50:
                self._limits(_properties(body[2:]))
            self.session_present = bool(body[0] & 1)
            self._accepted.set_result(None)

    def _limits(self, said: dict[str, Any]) -> None:
        self.receive_maximum = said.get("receive_maximum", self.receive_maximum)
        self.maximum_packet_size = min(said.get("maximum_packet_size", LARGEST_PACKET), LARGEST_PACKET)
        self.maximum_qos = said.get("max_qos", self.maximum_qos)
        self.retains = bool(said.get("retain_available", 1))
        self._keep_alive = said.get("server_keep_alive", self._keep_alive)

    def _acknowledged(self, packet_id: int, reason: int) -> None:
        flight = self._flight
        index = flight.waiting.pop(packet_id, None) if flight is not None else None
        if flight is None or index is None:
            return
        self._progress = self._loop.time()
        if reason >= REFUSED:
            flight.refused.append(Refusal(index, reason))

    def _send_more(self) -> None:
        flight = self._flight
        if flight is None or flight.done.done() or self._lost is not None:
            return
        while not self._paused and flight.next < len(flight.messages):
            chunk: list[bytes] = []
            size = 0
            while size < _WRITE_SIZE and flight.next < len(flight.messages) and len(flight.waiting) < flight.window:
                packet_id = self._next_id() if flight.qos else 0
                parts = encode_publish(flight.messages[flight.next], flight.qos, packet_id, self.proto_ver)
                if flight.qos:
                    flight.waiting[packet_id] = flight.next
                flight.next += 1
                chunk += parts
                size += sum(map(len, parts))
            if not chunk:
                return
            self._write(b"".join(chunk))
        if flight.next == len(flight.messages) and not flight.waiting and not self._paused:
            flight.done.set_result(None)

    def _next_id(self) -> int:
        waiting = {} if self._flight is None else self._flight.waiting
        while True:
            self._last_id = self._last_id % MOST_IN_FLIGHT + 1
            if self._last_id not in waiting and self._last_id not in self._asked:
                return self._last_id

    def _tick(self) -> None:
        """Ask for a sign of life; none since the last time we asked means that the connection is gone.

        Unless we come to it late: then it was we who hung, and the answer may be there and wait to be read.
        """
        now = self._loop.time()
        if self._unanswered and now - self._due < self._keep_alive / 4:
            self._lose(Unavailable("the broker does not answer"))
            return
        if self._keep_alive:
            self._unanswered = True
            self._write(struct.pack("!BB", MQTTCommands.PINGREQ, 0))
            self._due = now + self._keep_alive / 2
            self._ping = self._loop.call_at(self._due, self._tick)


class _Flight:
    """Messages on their way."""

    __slots__ = ("done", "messages", "next", "qos", "refused", "waiting", "window")

    def __init__(self, messages: Sequence[Message], qos: int, window: int, done: "asyncio.Future[None]") -> None:
        self.messages = messages
        self.qos = qos
        self.window = window
        self.done = done
        self.next = 0
        self.waiting: dict[int, int] = {}
        self.refused: list[Refusal] = []


Connected = TypeVar("Connected", bound=Publisher)
"""A kind of connection."""


def encode_publish(message: Message, qos: int, packet_id: int, version: int) -> tuple[bytes, ...]:
    """The parts of a PUBLISH packet (OASIS MQTT 5.0, 3.3), to be joined."""
    topic = message.topic
    head = len(topic).to_bytes(2, "big") + topic
    if qos:
        head += packet_id.to_bytes(2, "big")
    if version == MQTTv50:
        head += b"\x05\x02" + message.expiry.to_bytes(4, "big") if message.expiry else b"\x00"  # else no properties
    return (
        bytes((MQTTCommands.PUBLISH | qos << 1 | message.retain,))
        + encode_length(len(head) + len(message.payload))
        + head,
        message.payload,
    )


def packet_size(message: Message) -> int:
    """At most this many bytes as a PUBLISH packet."""
    return len(message.topic) + len(message.payload) + 15


def encode_length(number: int) -> bytes:
    """A variable byte integer."""
    if number < 0x80:  # noqa: PLR2004  # seven bits a byte
        return bytes((number,))
    return bytes((number & 0x7F | 0x80,)) + encode_length(number >> 7)


def find_frame(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Begin and end of the body of the packet that starts at ``at``; None while it is not all there."""
    size = shift = 0
    place = at + 1
    while place < len(data):
        size |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:  # noqa: PLR2004  # the last byte of the length
            end = place + 1 + size
            return (place + 1, end) if end <= len(data) else None
        shift += 7
        place += 1
    return None


def variable_length(data: bytes, at: int) -> tuple[int, int] | None:
    """Where what the variable byte integer at ``at`` counts begins, and its length; None when it is malformed."""
    size = 0
    for place in range(at, min(at + 4, len(data))):
        size |= (data[place] & 0x7F) << 7 * (place - at)
        if data[place] < 0x80:  # noqa: PLR2004  # the last byte
            return place + 1, size
    return None


def _properties(data: bytes) -> dict[str, Any]:
    """The properties of an MQTT 5 packet; what is malformed ends the list."""
    found: dict[str, Any] = {}
    try:
        length, rest = _integers.unpack_variable_byte_integer(data)
        rest = rest[:length]
        while rest:
            value, rest = _known_properties.Property.factory(id_=rest[0]).loads(rest[1:])
            found.update(value)
    except (AttributeError, IndexError, ValueError, struct.error):
        pass
    return found
