"""Commands by MQTT: a topic for each tag that may be written, and one for what became of it.

A phone publishes ``{"value": true}`` to press a button and ``{"value": false}`` to let go, or a number to set
it. The session with the broker is a clean one and retained messages are refused, so nothing waits at the broker
until it is old; a message is acknowledged before it is carried out, so none is carried out twice.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import ByMessage
from shopfloor.protocols.mqtt import Message
from shopfloor.protocols.mqtt_session import Arrival, Session, Subscription
from shopfloor.samples import Answer, Request, Unavailable
from shopfloor.seams import Inbox
from shopfloor.sinks.mqtt_topics import for_tag, topic_template

LONGEST: Final = 64 * 1024
"""Bytes of a message."""
_HEAD: Final = 32
"""More bytes than a PUBLISH has beside its topic and its payload."""
_WAITING: Final = 1000
"""Answers that may wait for the broker; beyond, the oldest is dropped, and the audit record still has it."""
_SHOWN: Final = 200
"""Characters of what was wrong."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_log = logging.getLogger(__name__)


def _one_tag(text: str) -> str:
    topic_template(text)
    if "{tag}" not in text or "{machine}" in text:
        raise ValueError("it needs {tag}, and no {machine}: each tag has a topic of its own")
    return text


_Template = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_one_tag)]


class MqttCommands(ByMessage):
    """Lets subscribers write: who may publish to these topics is the broker's to decide (its access list)."""

    topic: _Template = Field(
        default="shopfloor/{tag}/set",
        description="Where a tag's commands are published; only tags in `commands.allow` have one.",
    )
    result: _Template = Field(
        default="shopfloor/{tag}/result", description="Where is published what became of each, not retained."
    )
    demand_time: bool = Field(
        default=False,
        description="Whether a message must say its own `time`: then one that was delayed on its way is never late.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> "MqttCommands":
        if self.topic == self.result:
            raise ValueError("`topic` and `result` must differ, else each answer would be a command")
        return self


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What is published to a command's topic; a bare JSON value stands for the first of these."""

    value: bool | int | float | str | None
    id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    time: Annotated[datetime, msgspec.Meta(tz=True)] | int | None = None
    """ISO 8601 with zone, or ms since 1970 UTC."""


_decode: Final = msgspec.json.Decoder(_Wish | bool | int | float | str).decode
_encode: Final = msgspec.json.Encoder().encode


class CommandTopics:
    """The command topics of one connection: ``run`` it beside what the connection does otherwise."""

    def __init__(self, config: MqttCommands, inbox: Inbox) -> None:
        """Subscribes to nothing yet."""
        self._config = config
        self._inbox = inbox
        self._tags: Mapping[str, str] = {for_tag(config.topic, tag).decode(): tag for tag in inbox.tags}
        self._answers: asyncio.Queue[Answer] = asyncio.Queue(_WAITING)

    async def subscribe(self, session: Session) -> None:
        """Raises Misconfigured when the broker does not let us, Unavailable when the connection is lost."""
        wanted = [Subscription(topic, retained="never") for topic in self._tags]
        if wanted:
            await session.subscribe(wanted)

    async def run(self, session: Session) -> None:
        """Take commands and publish answers until the connection is lost; then every button is let go."""
        telling = asyncio.create_task(self._tell(session), name="mqtt: results of commands")
        try:
            async for arrivals in session.arrivals():
                session.acknowledge(arrivals)
                self._take(arrivals)
        except Unavailable:
            return  # the sink finds that out as well
        finally:
            self._inbox.lost()
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    def _take(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            tag = self._tags.get(arrival.topic)
            if tag is None:
                continue
            request = Request(tag, None)
            try:
                request = _request(tag, arrival, demand_time=self._config.demand_time)
            except ValueError as error:
                title = "The message cannot be understood"
                self._inbox.refuse(request, title, str(error)[:_SHOWN], self._answer)
            else:
                self._inbox.put(request, self._answer)

    def _answer(self, answer: Answer) -> None:
        if self._answers.full():
            lost = self._answers.get_nowait()
            _log.warning("an answer is not published, too many wait for the broker: %s %s", lost.tag, lost.id)
        self._answers.put_nowait(answer)

    async def _tell(self, session: Session) -> None:
        while True:
            answer = await self._answers.get()
            told = msgspec.structs.asdict(answer)
            del told["refusal"]  # its words are in `reason` and `detail`
            told["time"] = datetime.now(UTC)
            topic = for_tag(self._config.result, answer.tag)
            payload = _encode(told)
            if len(topic) + len(payload) + _HEAD > session.maximum_packet_size:
                payload = _encode({**told, "value": None})  # the sender knows it
            refused = await session.publish([Message(topic, payload, retain=False)], 1 if session.maximum_qos else 0)
            if refused:
                _log.warning("the broker does not take answers on %s; allow it in its access list", topic.decode())


def _request(tag: str, arrival: Arrival, *, demand_time: bool) -> Request:
    """The request in a message; raises ValueError that says what is wrong with it."""
    if arrival.retained:
        raise ValueError("it is a retained message, and nobody knows how old it is; publish commands without `retain`")
    if len(arrival.payload) > LONGEST:
        raise ValueError(f"it has {len(arrival.payload)} bytes; a command has at most {LONGEST}")
    try:
        wish = _decode(arrival.payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{error}; write {{"value": 42.5}}') from error
    if not isinstance(wish, _Wish):
        wish = _Wish(wish)
    if wish.time is None:
        if demand_time:
            raise ValueError('it does not say when it was sent; add "time", ISO 8601 with zone or ms since 1970')
        return Request(tag, wish.value, wish.id, sequence=wish.seq)
    sent = wish.time * 10**6 if isinstance(wish.time, int) else (wish.time - _EPOCH) // _MICROSECOND * 1000
    return Request(tag, wish.value, wish.id, sent, wish.seq)
