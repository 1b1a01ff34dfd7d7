"""Samples as JSON on MQTT topics: one topic a tag, or one message a machine with all that changed.

At QoS 1 "held" means that the broker acknowledged every message (PUBACK); what was under way when a
connection broke is sent again, so a subscriber gets everything at least once, each tag in order.
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import ByMessage, SinkConfig
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import (
    MOST_IN_FLIGHT,
    Message,
    Publisher,
    connect,
    packet_size,
)
from shopfloor.protocols.mqtt_session import Probe, open_session
from shopfloor.protocols.mqtt_words import reason_text, refusal_text
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable
from shopfloor.seams import Inbox, Sink
from shopfloor.sinks.mqtt_commands import CommandTopics, MqttCommands
from shopfloor.sinks.mqtt_topics import for_tag, topic_template
from shopfloor.sinks.readings import MachineMessage, Precision, reading
from shopfloor.turns import Pieces

_NOT_AUTHORIZED: Final = 0x87
_NEVER: Final = frozenset({0x90, 0x95, 0x99})
"""PUBACK codes that stay: topic name invalid, packet too large, payload format invalid."""


class MqttConfig(MqttConnection, SinkConfig):
    """Publishes samples as JSON to an MQTT broker, 3.1.1 or 5."""

    type: Literal["mqtt"] = "mqtt"
    layout: Literal["tag", "machine"] = Field(
        default="tag",
        description="`tag`: a message a sample. `machine`: a message with everything of a machine that changed.",
    )
    topic: Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(topic_template)] | None = (
        Field(
            default=None,
            description="Where to: `{tag}` is the tag, `{machine}` its first level. By default `shopfloor/{tag}`, "
            "with `layout: machine` it is `shopfloor/{machine}`.",
        )
    )
    qos: Literal[0, 1] = Field(
        default=1, description="1: the broker acknowledges every message. 0: a lost connection loses what was sent."
    )
    retain: bool = Field(
        default=True, description="Whether the broker keeps the newest message of each topic for later subscribers."
    )
    precision: Precision = Field(default="ns", description="How exactly times are written.")
    in_flight: int = Field(
        default=1000, ge=1, le=MOST_IN_FLIGHT,
        description="How many messages may be unacknowledged; a broker of MQTT 5 may allow fewer.",
    )  # fmt: skip
    commands: MqttCommands | None = Field(
        default=None, description="Whether subscribers may write tags by messages; by default they may not."
    )

    @model_validator(mode="after")
    def _topic_fits(self) -> "MqttConfig":
        if self.layout == "tag" and "{tag}" not in self.template:
            raise ValueError("`topic` needs {tag}, else all tags would share one topic")
        if self.layout == "machine" and ("{machine}" not in self.template or "{tag}" in self.template):
            raise ValueError("`topic` needs {machine}, and no {tag}, when `layout` is machine")
        if self.commands is not None and self.template in (self.commands.topic, self.commands.result):
            raise ValueError("`topic` and the topics of `commands` must differ")
        return self

    @property
    def template(self) -> str:
        """The topic template, written or by default."""
        return self.topic if self.topic is not None else f"shopfloor/{{{self.layout}}}"

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        return file_problems(self)

    def commanded(self) -> ByMessage | None:
        """How subscribers may write, where they may."""
        return self.commands

    def build(self) -> "MqttSink":
        """The sink; opens nothing yet."""
        return MqttSink(self)

    def probe(self) -> Probe:
        """Only the connection, under a name of its own: a second client of one identity would disturb the first."""
        return Probe(self)


class MqttSink(Sink):
    """Publishes batches; enter it to connect."""

    def __init__(self, config: MqttConfig) -> None:
        """Built by ``MqttConfig.build``."""
        self._config = config
        self._client_id = config.client_id or f"shopfloor-{config.name[:40]}-{secrets.token_hex(4)}"
        self._publisher: Publisher | None = None
        self._commands: CommandTopics | None = None
        self._commanding: asyncio.Task[None] | None = None
        self._newest: dict[bytes, int] = {}

    def commanded(self, inbox: Inbox) -> None:
        """Take commands on their topics."""
        if self._config.commands is not None:
            self._commands = CommandTopics(self._config.commands, inbox)

    async def __aenter__(self) -> Self:
        if self._commands is None:
            await self._connected(await connect(self._config, self._client_id))
            return self
        session = await open_session(self._config, self._client_id)
        await self._connected(session)
        try:
            await self._commands.subscribe(session)
        except BaseException:
            self._publisher = None
            await session.close()
            raise
        self._commanding = asyncio.create_task(self._commands.run(session), name=f"{self._config.name}: commands")
        return self

    async def _connected(self, publisher: Publisher) -> None:
        """Take the connection, or close it and raise Misconfigured when the broker lacks what is needed."""
        lacks = (
            "messages of QoS 1; set `qos: 0`" if publisher.maximum_qos < self._config.qos
            else "retained messages; set `retain: false`" if self._config.retain and not publisher.retains
            else None
        )  # fmt: skip
        if lacks is not None:
            await publisher.close()
            raise Misconfigured(f"the broker does not take {lacks}")
        self._publisher = publisher

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        publisher, self._publisher = self._publisher, None
        commanding, self._commanding = self._commanding, None
        if commanding is not None:
            commanding.cancel()
            await asyncio.wait({commanding})
        if publisher is not None:
            await publisher.close()

    async def lost(self) -> None:
        """Raise Unavailable when the connection to the broker is lost."""
        if self._publisher is None:
            raise Unavailable("not connected")
        gone = asyncio.ensure_future(self._publisher.gone())
        tasks = {gone} if self._commanding is None else {gone, self._commanding}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            gone.cancel()
        raise Unavailable("the connection is lost")

    async def write(self, offset: int, batch: Batch) -> None:
        """Publish every sample; see ``write_many``."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Publish every sample of these batches and, at QoS 1, wait until the broker has them.

        Raises Rejected for samples that cannot be written as JSON (nothing was published then) or whose
        message the broker refuses for good, Misconfigured when it does not authorize us, Unavailable
        when the connection is lost.
        """
        publisher = self._publisher
        if publisher is None:
            raise Unavailable("not connected")
        batch = entries[0][1] if len(entries) == 1 else None
        messages: list[Message] = []
        owners: list[Sequence[int]] = []
        pieces = Pieces()
        for _, one in entries:
            for owner, message in self._messages(one):
                messages.append(message)
                owners.append(owner)
            await pieces.worked(len(one))
        unfit = [i for i, message in enumerate(messages) if packet_size(message) > publisher.maximum_packet_size]
        if unfit:
            raise _rejected(f"more than the {publisher.maximum_packet_size} bytes of a message", unfit, owners, batch)
        refused = await publisher.publish(messages, self._config.qos, self._config.in_flight)
        for refusal in refused:
            if refusal.reason == _NOT_AUTHORIZED:
                topic = messages[refusal.position].topic.decode()
                raise Misconfigured(
                    f"the broker does not let us publish to {topic}: not authorized; "
                    "allow it in the broker's access list or use another `username`"
                )
        for_ever = [refusal for refusal in refused if refusal.reason in _NEVER]
        if for_ever:
            reason = f"the broker refuses it: {reason_text(for_ever[0].reason)}"
            raise _rejected(reason, [refusal.position for refusal in for_ever], owners, batch)
        if refused:
            raise Unavailable(f"the broker does not take messages now: {refusal_text(refused[0].reason)}")

    def _messages(self, batch: Batch) -> Iterable[tuple[Sequence[int], Message]]:
        """The messages of a batch with the indices of the samples in each. Raises Rejected, before any is sent."""
        unwritable: list[int] = []
        reason = ""
        written: list[tuple[int, Sample, bytes, bytes]] = []
        for index, sample in enumerate(batch):
            try:
                topic = self._topic(sample.tag)
                written.append((index, sample, topic, reading(sample, self._config.precision)))
            except (UnicodeEncodeError, OverflowError) as error:
                reason = reason or f"cannot be written as UTF-8 JSON: {error}"
                unwritable.append(index)
        if unwritable:
            raise Rejected(reason, unwritable)
        if self._config.layout == "machine":
            return self._by_machine(written)
        return [
            ((index,), Message(topic, payload, self._retained(topic, sample.time)))
            for index, sample, topic, payload in written
        ]

    def _by_machine(
        self, written: Iterable[tuple[int, Sample, bytes, bytes]]
    ) -> Iterable[tuple[Sequence[int], Message]]:
        """One message a topic, another one where a tag comes again or the message grows large."""
        done: list[tuple[bytes, MachineMessage]] = []
        open_: dict[bytes, MachineMessage] = {}
        for index, sample, topic, payload in written:
            message = open_.get(topic)
            if message is None or not message.takes(sample.tag, payload):
                message = open_[topic] = MachineMessage()
                done.append((topic, message))
            message.add(index, sample, payload)
        for topic, message in done:
            payload = message.payload(self._config.precision)
            yield message.indices, Message(topic, payload, self._retained(topic, message.newest))

    def _topic(self, tag: str) -> bytes:
        return for_tag(self._config.template, tag)

    def _retained(self, topic: bytes, time: int) -> bool:
        """Whether to retain: what is older than the newest known must not stand in its place."""
        if not self._config.retain or time < self._newest.get(topic, time):
            return False
        self._newest[topic] = time
        return True


def _rejected(reason: str, positions: Iterable[int], owners: Sequence[Sequence[int]], batch: Batch | None) -> Rejected:
    """The refusal of these messages; with several batches under way it names none, they are offered one by one."""
    return Rejected(
        reason, sorted(i for position in positions for i in owners[position]) if batch is not None else None
    )
