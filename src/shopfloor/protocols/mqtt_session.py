"""A connection to a broker that subscribes and publishes, and acknowledges only what it is told to.

``async for`` over ``arrivals`` gives what came with one read of the network, together; PUBACK is sent by
``acknowledge``, so what was not acknowledged comes again when the broker keeps the session.
"""

import asyncio
import secrets
import struct
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self

import msgspec
from gmqtt.mqtt.constants import MQTTCommands, MQTTv50

from shopfloor.protocols.mqtt import (
    REFUSED,
    Message,
    Opening,
    Publisher,
    Refusal,
    Settings,
    Will,
    connect_with,
    encode_length,
    variable_length,
)
from shopfloor.protocols.mqtt_words import forbidden, malformed
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.seams import Connection

WAITING_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of messages that may wait to be taken before nothing more is read from the network."""
_TOPICS: Final = 100_000
"""How many topics are remembered as text."""
_USUAL: Final = 1000
"""Bytes of a topic that is worth remembering; MQTT allows 65,535."""
_PUBACK: Final = 0x40020000
"""The whole packet as one number, to which the packet identifier is added."""
_LONGEST_LENGTH: Final = 4
"""Bytes of a variable byte integer."""
_WITHDRAW: Final = MQTTCommands.UNSUBSCRIBE | 0x02
_PASSES: Final = (0x83, 0x97)
"""Why MQTT 5 refuses a subscription for now: an error of the broker's own, a quota."""
_ASK: Final = MQTTCommands.SUBSCRIBE | 0x02


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A message that came."""

    topic: str
    payload: bytes
    retained: bool
    """It was published before we subscribed."""
    packet_id: int
    """0 at QoS 0; else to be acknowledged."""
    duplicate: bool
    """The broker says that it may have sent it before."""


class Subscription(NamedTuple):
    """A topic filter to subscribe to."""

    topic: str
    qos: Literal[0, 1] = 1
    retained: Literal["always", "new", "never"] = "always"
    """When the broker is to send retained messages: at each subscribing, only for a subscription that it did
    not have, or never. Only MQTT 5 can choose."""


async def open_session(
    settings: Settings,
    client_id: str,
    *,
    will: Will | None = None,
    clean_start: bool = True,
    session_expiry: int = 0,
    receive_maximum: int = 0,
    servers: Sequence[str] | None = None,
) -> "Session":
    """Connect to the first of the servers that takes us; ``servers`` replaces those of the settings.

    ``session_expiry`` is in seconds and means MQTT 5; with 3.1.1 the broker keeps a session for as long as it
    likes unless ``clean_start``. ``receive_maximum`` bounds what an MQTT 5 broker sends unacknowledged; 0: no
    bound. Raises Unavailable, Misconfigured as ``connect_with`` does.
    """
    opening = Opening(will, clean_start, session_expiry, receive_maximum)
    return await connect_with(Session, settings, client_id, opening, servers)


def probe_id() -> str:
    """A client id that no running client has: under a known one the broker would throw that one out."""
    return f"shopfloor-probe-{secrets.token_hex(8)}"


class Probe(Connection):
    """Connects to the first of the servers that takes us and leaves again; says nothing, leaves nothing there."""

    def __init__(self, settings: Settings) -> None:
        """Opens nothing yet."""
        self._settings = settings
        self._session: Session | None = None

    async def __aenter__(self) -> Self:
        """Raises Unavailable, Misconfigured."""
        self._session = await open_session(self._settings, probe_id())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class Session(Publisher):
    """One connection that subscribes and publishes, made by ``open_session``; close it with ``close``."""

    def __init__(self, version: int, keep_alive: int, patience: float) -> None:
        """``keep_alive`` and ``patience`` are in seconds."""
        super().__init__(version, keep_alive, patience)
        self._turn = asyncio.Lock()
        self._arrived: deque[tuple[list[Arrival], int]] = deque()
        """What came with each read, and its bytes."""
        self._waiting_bytes = 0
        self._held_back = False
        self._needed = 0
        """How many bytes the buffer must have before there can be a packet in it."""
        self._news = asyncio.Event()
        self._topics: dict[bytes, str] = {}

    # ---- for users ----------------------------------------------------------------------------------

    async def publish(
        self, messages: Sequence[Message], qos: Literal[0, 1], most_in_flight: int = 1000
    ) -> list[Refusal]:
        """Publish in order as ``Publisher`` does; who calls meanwhile waits for its turn."""
        async with self._turn:
            return await super().publish(messages, qos, most_in_flight)

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe to all of these.

        Raises Misconfigured when the broker refuses one (the access list, a filter that it does not
        support), Unavailable when it does so for a reason that passes, is lost, or does not answer.
        """
        answer = await self._ask(_ASK, [self._wish(one) for one in subscriptions])
        for subscription, code in zip(subscriptions, answer, strict=False):
            if code >= REFUSED:
                kind = Unavailable if code in _PASSES else Misconfigured
                raise kind(forbidden(subscription.topic, code))
        if len(answer) != len(subscriptions):
            raise Unavailable(malformed("answer to our subscriptions"))

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """Give up subscriptions; raises Unavailable when the connection is lost."""
        await self._ask(_WITHDRAW, [_text(topic) for topic in topics])

    async def arrivals(self) -> AsyncGenerator[list[Arrival]]:
        """What came, a list a read of the network, until the connection is lost: raises Unavailable then.

        What came before a loss is given first. One reader at a time.
        """
        while True:
            while not self._arrived:
                if self._lost is not None:
                    raise Unavailable(str(self._lost)) from self._lost
                self._news.clear()
                await self._news.wait()
            yield self.taken()

    def taken(self) -> list[Arrival]:
        """What came with the oldest read that was not taken yet; empty when there is none."""
        if not self._arrived:
            return []
        arrivals, size = self._arrived.popleft()
        self._waiting_bytes -= size
        if self._held_back and self._waiting_bytes <= WAITING_LIMIT // 2 and self._transport is not None:
            self._held_back = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return arrivals

    def acknowledge(self, arrivals: Iterable[Arrival]) -> None:
        """Send PUBACK for those of QoS 1, in their order; nothing happens when the connection is lost."""
        acknowledgements = [_PUBACK | one.packet_id for one in arrivals if one.packet_id]
        self._write(struct.pack(f"!{len(acknowledgements)}I", *acknowledgements))

    # ---- asyncio.Protocol ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take packets apart; messages that came together stay together."""
        if not self._greeted(data) or not (data := self._joined(data)):
            return
        arrivals: list[Arrival] = []
        introduced = self._accepted.done()
        at, end, size = 0, 0, len(data)
        while at + 1 < size:
            head, length, begin = data[at], data[at + 1], at + 2
            if length > 0x7F:  # noqa: PLR2004  # it goes on in the next byte
                if begin < size and data[begin] < 0x80:  # noqa: PLR2004  # and ends there, as it mostly does
                    length += (data[begin] << 7) - 0x80
                    begin += 1
                else:
                    begin, length = self._length(data, at + 1)
            end = begin + length
            if end > size:
                break
            if head & 0xF0 == 0x30 and introduced:  # noqa: PLR2004  # PUBLISH
                arrival = self._message(head, data, begin, end)
                if arrival is None:
                    self._lose(Unavailable(malformed("message")))
                    break
                arrivals.append(arrival)
            else:
                self._packet(head, data[begin:end])
                introduced = self._accepted.done()
            at = end
        self._buffer += data[at:]
        self._needed = end - at
        if arrivals:
            self._unanswered = False
            self._keep(arrivals, at)
        self._send_more()

    # ---- inside -------------------------------------------------------------------------------------

    def _lose(self, error: Exception) -> None:
        super()._lose(error)
        self._news.set()

    def abort(self) -> None:
        """Drop the connection at once."""
        super().abort()
        self._news.set()

    def _joined(self, data: bytes) -> bytes:
        """The data behind those that were left over; nothing while no packet can be in them."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return b""
            data = bytes(self._buffer)
            self._buffer.clear()
        return data

    def _length(self, data: bytes, at: int) -> tuple[int, int]:
        """Where the packet's body begins and how long it is; it ends behind the data while that is not known."""
        found = variable_length(data, at)
        if found is None and len(data) - at >= _LONGEST_LENGTH:
            self._lose(Unavailable(malformed("packet")))
        return found or (len(data), 1)

    def _keep(self, arrivals: list[Arrival], size: int) -> None:
        self._arrived.append((arrivals, size))
        self._waiting_bytes += size
        if self._waiting_bytes > WAITING_LIMIT and not self._held_back and self._transport is not None:
            self._held_back = True
            self._transport.pause_reading()
        self._news.set()

    def _tick(self) -> None:
        if self._held_back:
            self._unanswered = False  # the answer may be there; it is we who do not read
        super()._tick()

    def _message(self, head: int, data: bytes, begin: int, end: int) -> Arrival | None:
        """The message of the PUBLISH packet with this body (OASIS MQTT 5.0, 3.3); None for a malformed one or QoS 2."""
        qos = head & 0x06
        at = begin + 2
        if at > end or qos > 2:  # noqa: PLR2004  # QoS 1 is 0x02
            return None
        at += data[begin] << 8 | data[begin + 1]
        name = data[begin + 2 : at]
        packet_id = 0
        if qos:
            if at + 2 > end:
                return None
            packet_id = data[at] << 8 | data[at + 1]
            at += 2
        if self.proto_ver == MQTTv50:
            if at < end and not data[at]:
                at += 1  # no properties, as mostly
            else:
                said = variable_length(data, at)
                if said is None:
                    return None
                at = said[0] + said[1]
        if at > end or not name or (qos and not packet_id):
            return None
        return Arrival(
            self._topics.get(name) or self._topic(name), data[at:end], bool(head & 1), packet_id, bool(head & 8)
        )

    def _topic(self, name: bytes) -> str:
        topic = name.decode(errors="replace")
        if len(name) <= _USUAL:
            if len(self._topics) >= _TOPICS:
                self._topics.clear()
            self._topics[name] = topic
        return topic

    def _packet(self, head: int, body: bytes) -> None:
        if self._accepted.done() and head & 0xF0 in {MQTTCommands.SUBACK, MQTTCommands.UNSUBACK}:
            self._unanswered = False
            self._answered(body)
        else:
            super()._packet(head, body)

    def _answered(self, body: bytes) -> None:
        asked = self._asked.get(int.from_bytes(body[:2], "big"))
        if asked is None or asked.done():
            return
        begin = 2
        if self.proto_ver == MQTTv50:
            said = variable_length(body, begin)
            begin = len(body) if said is None else said[0] + said[1]
        asked.set_result(body[begin:])

    async def _ask(self, head: int, parts: Sequence[bytes]) -> bytes:
        """Say SUBSCRIBE or UNSUBSCRIBE; the reason codes that are answered."""
        if self._lost is not None:
            raise Unavailable(str(self._lost)) from self._lost
        packet_id = self._next_id()
        asked: asyncio.Future[bytes] = self._loop.create_future()
        self._asked[packet_id] = asked
        body = packet_id.to_bytes(2, "big") + (b"\x00" if self.proto_ver == MQTTv50 else b"") + b"".join(parts)
        try:
            self._write(bytes((head,)) + encode_length(len(body)) + body)
            async with asyncio.timeout(self._patience):
                return await asked
        except TimeoutError:
            raise Unavailable(
                f"the broker did not answer a subscription within {self._patience:g} s; its log may say why"
            ) from None
        finally:
            del self._asked[packet_id]

    def _wish(self, subscription: Subscription) -> bytes:
        options: int = subscription.qos
        if self.proto_ver == MQTTv50:
            options |= {"always": 0, "new": 1, "never": 2}[subscription.retained] << 4
        return _text(subscription.topic) + bytes((options,))


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data
