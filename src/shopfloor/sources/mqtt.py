"""Messages of an MQTT broker as samples, acknowledged once they are durable; and values written to topics.

At QoS 1 a message is acknowledged (PUBACK) by the code behind the ``yield``, and the broker keeps the
session, so what came while Shopfloor was down, or was not durable when it was killed, comes again.
"""

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from time import time_ns
from types import TracebackType
from typing import Annotated, Final, Literal, NamedTuple, Self

import msgspec
import structlog
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import SourceConfig, Strict, TagName
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.protocols.mqtt import MOST_IN_FLIGHT, Message, packet_size
from shopfloor.protocols.mqtt_session import Arrival, Session, Subscription, open_session, probe_id
from shopfloor.protocols.mqtt_words import reason_text
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Command, Misconfigured, Outcome, Quality, Sample, TagInfo, Unavailable, Value
from shopfloor.seams import Source
from shopfloor.sources.mqtt_columns import UNUSUAL, Columns, ShortWay, short_way
from shopfloor.sources.mqtt_payload import FilterMeaning, Meaning, MqttTopic, Unreadable, converted

_SECOND: Final = DURATION_UNITS["s"]
_LONGEST_SESSION: Final = (2**32 - 2) * _SECOND
"""The protocol counts it in 32 bits of seconds, of which the last means for ever."""
_TOGETHER: Final = 1000
"""Messages of which a batch is made at most, so that others get their turn."""
_REMEMBERED: Final = 100_000
"""Topics whose meaning is remembered."""
_USUAL: Final = 1000
"""Characters of a topic that is worth remembering; MQTT allows 65,535."""
_COMPLAINTS: Final = 1000
"""Topics of which it is said that they cannot be read; garbage on ever new topics fills neither log nor memory."""

logger: Final = structlog.get_logger("shopfloor.sources.mqtt")


def _published_to(text: str) -> str:
    if any(character in text for character in "+#\0"):
        raise ValueError("a topic that is published to has no wildcards; take `+` and `#` out")
    return text


class MqttWrite(Strict):
    """A tag that can be written to, and how."""

    tag: TagName = Field(description="The tag.")
    topic: Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_published_to)] = Field(
        description="Where the value is published."
    )
    payload: Literal["plain", "json"] = Field(
        default="plain", description='`plain`: the value as text. `json`: `{"value": …}`.'
    )
    data_type: Literal["auto", "int", "float", "bool", "text"] = Field(
        default="auto", description="What the value must be; `auto` takes any but bytes."
    )
    qos: Literal[0, 1] = Field(default=1, description="1: the broker acknowledges that it has the value.")
    retain: bool = Field(default=False, description="Whether the broker keeps it for those who subscribe later.")
    read_back: Duration = Field(
        default=5 * _SECOND, ge=_SECOND // 10,
        description="How long it may take until the tag shows the value on one of the `topics`; after that it is "
        "not known whether the machine took it.",
    )  # fmt: skip


class MqttSourceConfig(MqttConnection, SourceConfig):
    """Subscribes to topics of an MQTT broker, 3.1.1 or 5, and makes samples of what is published there."""

    type: Literal["mqtt"] = "mqtt"
    topics: list[MqttTopic] = Field(
        min_length=1, description="What to subscribe to; the first entry that covers a topic says what it means."
    )
    session: Duration = Field(
        default=86_400 * _SECOND, le=_LONGEST_SESSION,
        description="How long the broker keeps messages for us while we are away; `0 s`: not at all.",
    )  # fmt: skip
    in_flight: int = Field(
        default=1000, ge=1, le=MOST_IN_FLIGHT,
        description="How many messages an MQTT 5 broker may send before one of them is acknowledged.",
    )  # fmt: skip
    retained: bool = Field(
        default=True,
        description="Whether to take what the broker had kept of a topic when it is subscribed to. "
        "Values without a time of their own are then uncertain: nobody knows how old they are.",
    )
    writes: list[MqttWrite] = Field(default=[], description="The tags that can be written to; all others cannot.")

    @model_validator(mode="after")
    def _each_once(self) -> "MqttSourceConfig":
        for what, names in (("topics", [t.topic for t in self.topics]), ("writes", [w.tag for w in self.writes])):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"`{what}` has {twice} twice; take one out")
        return self

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self)

    def declared(self) -> Sequence[TagInfo] | None:
        """The tags, where no topic has a wildcard and no payload names its values itself."""
        known: list[TagInfo] = []
        for topic in self.topics:
            tags = FilterMeaning(topic).of_filter()
            if tags is None:
                return None
            known += tags
        writable = {write.tag for write in self.writes}
        known = [msgspec.structs.replace(info, writable=info.tag in writable) for info in known]
        names = {info.tag for info in known}
        return known + [TagInfo(w.tag, w.topic, writable=True) for w in self.writes if w.tag not in names]

    def build(self) -> "MqttSource":
        """The source; opens nothing yet."""
        return MqttSource(self)

    def probe(self) -> "MqttSource":
        """A source that subscribes under a name of its own and leaves no session behind."""
        return MqttSource(self.model_copy(update={"client_id": probe_id(), "session": 0}))


class _NotWritten(Exception):
    """Nothing was published; the text says why."""


class _Known(NamedTuple):
    """What is known of a topic that came."""

    meaning: Meaning | None
    """None: no entry of `topics` covers it."""
    short_way: ShortWay | None
    tags: Sequence[str]
    """For the short way."""


class MqttSource(Source):
    """Subscribes; enter it to connect."""

    def __init__(self, config: MqttSourceConfig) -> None:
        """Built by ``MqttSourceConfig.build``."""
        self._config = config
        self._meanings = [FilterMeaning(topic) for topic in config.topics]
        self._short_ways = [short_way(topic) for topic in config.topics]
        self._writes = {write.tag: write for write in config.writes}
        self._client_id = config.client_id or f"shopfloor-{config.name[:40]}-{secrets.token_hex(8)}"
        self._durable_name = config.client_id is not None
        self._session: Session | None = None
        self._kept = False
        """Whether the broker should have a session of ours."""
        self._subscribed = False
        self._known: dict[str, _Known] = {}
        self._complained: set[str] = set()
        self._turn = asyncio.Lock()
        self._awaited: dict[str, list[tuple[Value, asyncio.Future[None]]]] = {}
        self.unreadable = 0
        """How many messages could not be read, whole or in part."""

    def resume(self, checkpoint: bytes) -> None:
        """Take up the name under which the broker knows us, where the plant file gives none."""
        if self._config.client_id is None:
            self._client_id = checkpoint.decode()
            self._durable_name = True
            self._kept = self._config.session >= _SECOND

    async def __aenter__(self) -> Self:
        keep = self._config.session // _SECOND
        self._session = await open_session(
            self._config,
            self._client_id,
            clean_start=not keep,
            session_expiry=keep,
            receive_maximum=self._config.in_flight,
        )
        self._subscribed = False
        if self._kept and not self._session.session_present:
            logger.warning(
                "the broker has forgotten the session, what came while we were away is lost; "
                "let it keep sessions for longer, also over its own restart",
                component=self._config.name,
            )
        try:
            if self._durable_name:
                await self._subscribe(self._session)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._leave()

    async def batches(self) -> AsyncGenerator[Batch]:
        """What was published, in the order of its coming; see the module."""
        session = self._session
        if session is None:
            raise Unavailable("not connected")
        if not self._subscribed:
            # The name is durable before anything waits under it, else a restart could not find that again.
            yield Batch(self._config.name, time_ns(), [], [], [], checkpoint=self._client_id.encode())
            self._durable_name = True
            await self._subscribe(session)
        elif session.session_present and all(topic.qos for topic in self._config.topics):
            yield Batch(self._config.name, time_ns(), [], [], [], complete=True)  # the broker has kept everything
        async with aclosing(session.arrivals()) as reads:
            async for arrivals in reads:
                while len(arrivals) < _TOGETHER and (more := session.taken()):
                    arrivals += more  # noqa: PLW2901  # it is ours
                batch = self._batch(arrivals)
                if len(batch):
                    yield batch
                session.acknowledge(arrivals)

    async def execute(self, command: Command) -> Outcome:
        """Publish the value to the tag's topic; done once the tag shows it on a topic that is subscribed to."""
        try:
            detail = await self._carry_out(command)
        except _NotWritten as reason:
            return Outcome(command.id, done=False, detail=str(reason))
        except Unavailable as error:
            return Outcome(command.id, done=None, detail=str(error))
        return Outcome(command.id, done=True, detail=detail)

    # ---- inside -------------------------------------------------------------------------------------

    async def _carry_out(self, command: Command) -> str:
        """Raises _NotWritten when the value was not published, Unavailable when it is not known what it did."""
        write = self._writes.get(command.tag)
        if write is None:
            raise _NotWritten(f"{command.tag} is not among the `writes` of {self._config.name}")
        payload = _payload(write, command.value)
        waiting = (command.value, asyncio.get_running_loop().create_future())
        self._awaited.setdefault(command.tag, []).append(waiting)
        seconds = write.read_back / _SECOND
        try:
            async with self._turn:
                await self._publish(command, write, payload)
            async with asyncio.timeout(seconds):
                await waiting[1]
        except TimeoutError:
            raise Unavailable(f"published, but {command.tag} did not show it within {seconds:g} s") from None
        finally:
            self._forget(command.tag, waiting)
        return f"published to {write.topic} and read back"

    async def _publish(self, command: Command, write: MqttWrite, payload: bytes) -> None:
        session = self._session
        if session is None or session.lost is not None:
            raise _NotWritten("the broker is not connected: nothing was written")
        left = command.expires - time_ns()
        if left <= 0:
            raise _NotWritten("it expired before it could be written")
        # The broker must not deliver it late either, as far as it can count: whole seconds.
        message = Message(write.topic.encode(), payload, write.retain, 0 if write.retain else -(-left // _SECOND))
        if packet_size(message) > session.maximum_packet_size:
            raise _NotWritten(f"the broker takes {session.maximum_packet_size} bytes at most")
        refused = await session.publish([message], write.qos)
        if refused:
            raise _NotWritten(f"the broker refuses it: {reason_text(refused[0].reason)}")

    async def _subscribe(self, session: Session) -> None:
        if session.maximum_qos < max(topic.qos for topic in self._config.topics):
            raise Misconfigured("the broker does not take subscriptions of QoS 1; set `qos: 0`")
        # With a kept session only a new subscription brings the retained messages again.
        retained: Literal["new", "never"] = "new" if self._config.retained else "never"
        await session.subscribe([Subscription(one.topic, one.qos, retained) for one in self._config.topics])
        self._subscribed = True
        self._kept = self._config.session >= _SECOND

    async def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _batch(self, arrivals: Sequence[Arrival]) -> Batch:
        columns = Columns(time_ns())
        known = self._known
        for arrival in arrivals:
            topic = known.get(arrival.topic) or self._known_as(arrival.topic)
            if topic.short_way is not None and not arrival.retained:
                try:
                    topic.short_way(arrival.payload, topic.tags, columns)
                except UNUSUAL:
                    columns.forget()
                else:
                    continue
            for sample in self._samples(arrival, topic.meaning, columns.received):
                columns.add(sample)
        batch = columns.batch(self._config.name)
        if self._awaited:
            self._show(batch)
        return batch

    def _samples(self, arrival: Arrival, meaning: Meaning | None, received: int) -> list[Sample]:
        """What a message says; the long way."""
        if arrival.retained and not self._config.retained:
            return []  # MQTT 3.1.1 sends them unasked
        if meaning is None:
            self._complain(arrival.topic, "no entry of `topics` covers it; a subscription of an older plant file?")
            return []
        try:
            readings = meaning.readings(arrival.topic, arrival.payload)
        except Unreadable as error:
            self._complain(arrival.topic, str(error))
            return [Sample(tag, received, None, Quality.BAD) for tag in _tags(meaning, arrival.topic)]
        if None in [reading.value for reading in readings]:
            self._complain(arrival.topic, "a value is null or not what it must be")
        most = Quality.LAST_USABLE if arrival.retained else None
        return [
            Sample(tag, time, value, quality)
            if time is not None
            else Sample(tag, received, value, quality if most is None else min(quality, most))
            for tag, time, value, quality in readings
        ]

    def _known_as(self, topic: str) -> _Known:
        """What a topic means, worked out when it first comes."""
        place = next((i for i, one in enumerate(self._meanings) if one.covers(topic)), None)
        known = _Known(None, None, ())
        if place is not None:
            tags = _tags(self._meanings[place], topic)
            known = _Known(self._meanings[place], self._short_ways[place] if tags else None, tags)
        if len(topic) <= _USUAL:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[topic] = known
        return known

    def _complain(self, topic: str, reason: str) -> None:
        """Count it, and say it once for each topic."""
        self.unreadable += 1
        if topic not in self._complained and len(self._complained) < _COMPLAINTS:
            self._complained.add(topic)
            logger.warning("a message cannot be read", component=self._config.name, topic=topic, reason=reason)

    def _show(self, samples: Iterable[Sample]) -> None:
        """Tell those who wait for a tag to show a value."""
        for sample in samples:
            for value, shown in self._awaited.get(sample.tag, ()):
                if not shown.done() and sample.good and sample.value == value:
                    shown.set_result(None)

    def _forget(self, tag: str, waiting: tuple[Value, "asyncio.Future[None]"]) -> None:
        left = [one for one in self._awaited.get(tag, ()) if one is not waiting]
        if left:
            self._awaited[tag] = left
        else:
            self._awaited.pop(tag, None)


def _tags(meaning: Meaning, topic: str) -> Sequence[str]:
    try:
        return meaning.tags(topic)
    except Unreadable:
        return ()


def _payload(write: MqttWrite, value: Value) -> bytes:
    """The value as it is published; raises _NotWritten for one that the tag cannot have."""
    if value is None or isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        raise _NotWritten(f"{value!r} cannot be written to {write.tag}; give a number, true, false or text")
    try:
        typed = converted(value, write.data_type)
        if write.payload == "json":
            return msgspec.json.encode({"value": typed})
        return typed.encode() if isinstance(typed, str) else msgspec.json.encode(typed)
    except (Unreadable, UnicodeEncodeError) as error:
        raise _NotWritten(f"{value!r} cannot be written to {write.tag}: {error}") from error
