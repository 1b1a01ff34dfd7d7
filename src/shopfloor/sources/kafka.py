"""Records of Apache Kafka's topics as samples; the offsets are kept with the samples, in one transaction.

So each record becomes samples exactly once, also over a crash. The group's offsets are committed behind the ``yield``,
once the samples are durable: others of the group, and Kafka's own tools, see how far it is.
"""

import secrets
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import msgspec
import structlog
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import SourceConfig, tag_pattern
from shopfloor.plant.kafka import KafkaConnection, SchemaRegistry
from shopfloor.protocols.kafka import ClientThread
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Quality, Sample, TagInfo, Unavailable
from shopfloor.seams import Source
from shopfloor.sources.kafka_group import Group, Offsets, Reading
from shopfloor.sources.kafka_payload import KafkaTopic, Known, Meanings
from shopfloor.sources.kafka_schemas import Schemas
from shopfloor.sources.mqtt_columns import UNUSUAL, Columns
from shopfloor.sources.mqtt_payload import Unreadable

if TYPE_CHECKING:
    from confluent_kafka import Message

_MS: Final = 10**6
_LATEST: Final = 2**63 // _MS
"""ms of a time that ns in 64 bits can hold."""
_COMPLAINTS: Final = 1000
"""Kinds of what cannot be read that are said; garbage of ever new kinds fills neither log nor memory."""

logger: Final = structlog.get_logger("shopfloor.sources.kafka")


def _start(text: str) -> str:
    if text in ("earliest", "latest"):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of earliest, latest, or a time, 2026-11-20T06:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _as_text(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


class KafkaSourceConfig(KafkaConnection, SourceConfig):
    """Reads topics of Apache Kafka and makes samples of their records, each exactly once."""

    type: Literal["kafka"] = "kafka"
    topics: list[KafkaTopic] = Field(
        min_length=1, description="What to read; the first entry that covers a topic says what its records mean."
    )
    group: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")] | None = Field(
        default=None,
        description="The consumer group: several Shopfloors with the same one share the partitions. Without it this "
        "one reads all, and shows its offsets under a name that is made at the first start and kept in the journal.",
    )
    start: Annotated[str, AfterValidator(_start), BeforeValidator(_as_text)] = Field(
        default="earliest",
        description="Where to begin in a partition that neither the journal nor the group knows: `earliest`, `latest`, "
        "or a time, `2026-11-20T06:00:00Z` (UTC where it names no zone).",
    )

    schema_registry: SchemaRegistry | None = Field(
        default=None,
        description="Where the schemas of Avro, Protobuf and JSON Schema are: then records of topics with `payload: "
        "json` or `telemetry` that begin with a schema's id are read by it.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> "KafkaSourceConfig":
        names = [topic.topic for topic in self.topics]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"`topics` has {twice} twice; take one out")
        return self

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        yield from file_problems(self)
        if self.schema_registry is not None:
            yield from (("schema_registry", text) for _, text in file_problems(self.schema_registry))

    def declared(self) -> Sequence[TagInfo] | None:
        """The tags, where no topic has a ``*`` and no record names its values itself."""
        known: list[TagInfo] = []
        for topic in self.topics:
            tags = topic.declared()
            if tags is None:
                return None
            known += tags
        return known

    def known_topics(self) -> list[str]:
        """The topics that it names one by one."""
        return [topic.topic for topic in self.topics if topic.exact]

    def build(self) -> "KafkaSource":
        """The source; opens nothing yet."""
        return KafkaSource(self)

    def probe(self) -> "KafkaSource":
        """Asks for the topics; it joins no group, so it disturbs nobody."""
        return KafkaSource(self)


class Checkpoint(msgspec.Struct):
    """What is kept with the samples."""

    id: str
    """Under which name the cluster knows this source, over restarts."""
    offsets: Offsets
    """The next offset to read, by topic and partition."""
    topics: dict[str, str] = {}
    """The cluster's ids of these topics; those of before this was kept have none."""


class KafkaSource(Source):
    """Reads; enter it to connect."""

    def __init__(self, config: KafkaSourceConfig) -> None:
        """Built by ``KafkaSourceConfig.build``."""
        self._config = config
        self._meanings = [(topic, Meanings(topic)) for topic in config.topics]
        self._by_topic: dict[str, Meanings] = {}
        self._id = secrets.token_hex(8)
        self._durable_id = False
        self._offsets: Offsets = {}
        """Durable: the next offset to read."""
        self._ids: dict[str, str] = {}
        """Durable: the ids of these topics."""
        self._schemas = None if config.schema_registry is None else Schemas(config.schema_registry)
        self._thread: ClientThread | None = None
        self._group: Group | None = None
        self._was_there = False
        self._complained: set[tuple[str, str]] = set()
        self.unreadable = 0
        """How many records could not be read, whole or in part."""

    def resume(self, checkpoint: bytes) -> None:
        """Go on behind what is durable."""
        kept = msgspec.json.decode(checkpoint, type=Checkpoint)
        self._id, self._offsets, self._ids, self._durable_id = kept.id, kept.offsets, kept.topics, True

    async def __aenter__(self) -> Self:
        """Ask for the topics. Raises Unavailable, and Misconfigured when they or the rights to them are missing."""
        self._thread = thread = ClientThread(self._config.name)
        config = self._config
        alone = config.group is None
        group_id = f"shopfloor-{config.name}-{self._id}" if config.group is None else config.group
        reading = Reading(config.name, group_id, alone, [topic.topic for topic in config.topics], config.start)
        self._group = group = Group(config, reading, self._offsets, self._ids)
        try:
            await thread.run(group.connect, thread)
            if self._schemas is not None:
                await thread.run(self._schemas.connect)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        thread, self._thread = self._thread, None
        group, self._group = self._group, None
        if thread is not None:
            await thread.end(partial(self._close, group))

    def _close(self, group: Group | None) -> None:
        """In the client's thread."""
        if self._schemas is not None:
            self._schemas.close()
        if group is not None:
            group.close()

    async def batches(self) -> AsyncGenerator[Batch]:
        """What the records say, in the order of each partition; see the module."""
        thread, group = self._thread, self._group
        if thread is None or group is None:
            raise Unavailable("not connected")
        if not self._durable_id and self._config.group is None:
            # The group's name is durable before it has an offset, else a restart could not find that again.
            yield Batch(self._config.name, time_ns(), [], [], [], checkpoint=self._checkpoint(group))
            self._durable_id = True
        back, self._was_there = self._was_there, True
        while True:
            taken = await thread.run(group.take, thread)
            if not (taken.messages or taken.assigned):
                continue
            if self._schemas is not None:
                lacking = self._schemas.lacks(self._named(taken.messages))
                if lacking:
                    await thread.run(self._schemas.fetch, lacking)
            batch = self._batch(taken.messages)
            batch.checkpoint = self._checkpoint(group)
            batch.lost_before = taken.lost
            batch.complete = taken.assigned and back and not (taken.lost or taken.begun)
            pinned = taken.shrunk or (taken.begun and self._config.start != "earliest")
            if taken.messages or taken.lost or batch.complete or pinned:
                yield batch
                self._offsets = {topic: dict(parts) for topic, parts in group.offsets.items()}
                self._ids = dict(group.ids)
            await thread.run(group.commit)

    # ---- inside -------------------------------------------------------------------------------------

    def _checkpoint(self, group: Group) -> bytes:
        return msgspec.json.encode(Checkpoint(self._id, group.offsets, group.ids))

    def _batch(self, messages: "Sequence[Message]") -> Batch:
        columns = Columns(time_ns())
        received = columns.received
        for message in messages:
            payload = message.value()
            if payload is None:
                continue  # it says that what has its key is deleted
            kind, stamp = message.timestamp()
            columns.received = stamp * _MS if kind and 0 < stamp < _LATEST else received
            topic, key = str(message.topic()), message.key()
            try:
                known = self._known_as(topic, _octets(key))
                if known.short_way is not None and not self._has_schema(known, _octets(payload) or b""):
                    known.short_way(_octets(payload) or b"", known.tags, columns)
                    continue
            except UNUSUAL:
                columns.forget()
            for sample in self._samples(topic, _octets(key), _octets(payload) or b"", columns.received):
                columns.add(sample)
        columns.received = received
        return columns.batch(self._config.name)

    def _samples(self, topic: str, key: bytes | None, payload: bytes, time: int) -> list[Sample]:
        """What a record says; the long way. ``time`` is the record's own."""
        try:
            known = self._known_as(topic, key)
        except Unreadable as error:
            self._complain(topic, str(error))
            return []
        try:
            if self._schemas is not None and self._has_schema(known, payload):
                readings = known.meaning.of_record(known.levels, self._schemas.read(payload))
            else:
                readings = known.meaning.readings(known.levels, payload)
        except Unreadable as error:
            self._complain(topic, str(error))
            return [Sample(tag, time, None, Quality.BAD) for tag in dict.fromkeys(known.tags)]
        if None in [reading.value for reading in readings]:
            self._complain(topic, "a value is null or not what it must be")
        return [Sample(tag, time if own is None else own, value, quality) for tag, own, value, quality in readings]

    def _named(self, messages: "Sequence[Message]") -> Iterator[bytes]:
        """What of the records is to be read by a schema."""
        for message in messages:
            payload = _octets(message.value()) or b""
            with suppress(Unreadable):
                if self._has_schema(self._known_as(str(message.topic()), _octets(message.key())), payload):
                    yield payload

    def _has_schema(self, known: Known, payload: bytes) -> bool:
        """Whether it is to be read by the schema that it names."""
        return (
            self._schemas is not None
            and known.meaning.config.payload in ("json", "telemetry")
            and self._schemas.covers(payload)
        )

    def _known_as(self, topic: str, key: bytes | None) -> Known:
        """What a record means; raises Unreadable when no entry of ``topics`` has it, or its key does not fit."""
        meanings = self._by_topic.get(topic)
        if meanings is None:
            meanings = next(
                (found for entry, found in self._meanings if tag_pattern(entry.topic).fullmatch(topic)), None
            )
            if meanings is None:
                raise Unreadable("no entry of `topics` covers it")
            self._by_topic[topic] = meanings
        return meanings.of(topic, key)

    def _complain(self, topic: str, reason: str) -> None:
        """Count it, and say it once for each topic and reason."""
        self.unreadable += 1
        if (topic, reason) not in self._complained and len(self._complained) < _COMPLAINTS:
            self._complained.add((topic, reason))
            logger.warning("a record cannot be read", component=self._config.name, topic=topic, reason=reason)


def _octets(said: str | bytes | None) -> bytes | None:
    return said.encode() if isinstance(said, str) else said
