"""Samples as JSON, Avro or Protobuf to topics of Apache Kafka: a record a sample, or one with all of a machine.

A record counts as held once all in-sync replicas have it (an idempotent producer, ``acks=all``). What was under way
when the cluster went is written again, so a topic has each sample at least once, each tag in order; the headers
``writer``, ``entry`` and ``place`` are the same again, by which whoever reads counts it once.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from shopfloor.plant import Plant
from shopfloor.plant.components import SinkConfig, passes
from shopfloor.plant.kafka import KafkaConnection, KafkaTopicSettings, SchemaRegistry
from shopfloor.plant.units import SIZE_UNITS, Size
from shopfloor.protocols.kafka import (
    ABSENT,
    ClientThread,
    Heard,
    missing_topics,
    reach,
    refuse_missing,
    settings,
    wrong_settings,
)
from shopfloor.protocols.kafka_topics import Topics, Wanted
from shopfloor.protocols.tls import file_problems
from shopfloor.samples import Batch, Misconfigured, Rejected, Sample, Unavailable
from shopfloor.seams import Sink
from shopfloor.sinks.kafka_forms import AvroForm, Form, Grows, JsonForm, ProtobufForm, Subjects
from shopfloor.sinks.kafka_producer import Delivery, Record, close, size
from shopfloor.sinks.kafka_routes import KafkaRoute, Key, Routes, TopicTemplate, may_be_of
from shopfloor.sinks.offers import Offer, Offers
from shopfloor.sinks.readings import MESSAGE_SIZE, Precision
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.sinks.text import is_unicode
from shopfloor.turns import Pieces

if TYPE_CHECKING:
    from confluent_kafka import Producer

_MB: Final = SIZE_UNITS["MB"]
_MS: Final = 10**6
_BESIDE: Final = 900
"""Bytes of a record beside what changed: headers, key, the time."""
_LINGER: Final = 60_000
"""ms that a batch waits for more: until it is flushed; see Delivery."""
_LOOK_EVERY: Final = 1.0
"""Seconds between looking whether the connections still stand while nothing is written."""


class SinkRegistry(SchemaRegistry):
    """Where the schemas of Avro and Protobuf are: a registry with Confluent's REST interface."""

    auto_register: bool = Field(
        default=True,
        description="Whether our schema is put there where it is not yet; else somebody must have done that.",
    )
    subjects: Subjects = Field(
        default="topic",
        description="What the subjects are called: `topic` (`plant-value`), `record` (`shopfloor.Sample`) or "
        "`topic_record` (`plant-shopfloor.Sample`).",
    )


class KafkaSinkConfig(KafkaConnection, SinkConfig):
    """Writes samples to topics of Apache Kafka, as JSON, Avro or Protobuf; headers tell each record from all others."""

    type: Literal["kafka"] = "kafka"
    topic: TopicTemplate = Field(
        default="shopfloor",
        description="Where to: `{site}`, `{line}` and `{machine}` (the tag's first level) can stand in it. What a "
        "topic's name cannot have becomes `_`.",
    )
    routes: list[KafkaRoute] = Field(
        default=[], description="Tags that go to another topic; the first entry that fits decides."
    )
    layout: Literal["tag", "machine"] = Field(
        default="tag",
        description="`tag`: a record a sample. `machine`: a record with everything of a machine that changed.",
    )
    format: Literal["json", "avro", "protobuf"] = Field(
        default="json", description="How the records are written; `avro` and `protobuf` need `schema_registry`."
    )
    schema_registry: SinkRegistry | None = Field(
        default=None, description="Where the schemas of `avro` and `protobuf` are kept."
    )
    key: Key = Field(
        default="machine",
        description="The records' key: what has the same one stays in order, in one partition. `tag` only with "
        "`layout: tag`.",
    )
    timestamp: Literal["sent", "sample"] = Field(
        default="sent",
        description="The record's own time, by which the topic's retention goes: when it was sent, or that of the "
        "sample (of a machine's record the newest). By `sample` what comes late may be older than the retention, and "
        "the cluster deletes it at once.",
    )
    precision: Precision = Field(default="ns", description="How exactly times are written in the JSON.")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="lz4", description="How batches of records are compressed."
    )
    message_size: Size = Field(
        default=_MB, ge=2000, le=1000 * _MB,
        description="The largest record; what is larger becomes a dead letter. Not more than max.message.bytes of the "
        "topics.",
    )  # fmt: skip
    create: KafkaTopicSettings = Field(
        default=KafkaTopicSettings(), description="How `shopfloor kafka-topics` makes the topics."
    )
    create_topics: bool = Field(
        default=False,
        description="Whether the sink itself makes a topic that is missing, as `create` says, before it first writes "
        "to it: for machines that only messages name. Else it stops until somebody has made it.",
    )
    _plant: Plant | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _key_fits(self) -> "KafkaSinkConfig":
        if self.key == "tag" and self.layout == "machine":
            raise ValueError("`key: tag` needs `layout: tag`; a machine's record has many tags")
        if (self.format == "json") != (self.schema_registry is None):
            raise ValueError(
                "`schema_registry` is for `format: avro` and `format: protobuf`; take it out or choose one of these"
                if self.format == "json"
                else f"`format: {self.format}` needs `schema_registry: {{url: …}}`"
            )
        return self

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the certificate files."""
        yield from file_problems(self)
        if self.schema_registry is not None:
            yield from (("schema_registry", text) for _, text in file_problems(self.schema_registry))

    def place(self, plant: Plant) -> None:
        """The site, the lines, the machines."""
        self._plant = plant

    def known_topics(self, machines: Iterable[str] = ()) -> list[str]:
        """The topics that it will write to, as far as the plant file tells; ``machines`` names further ones."""
        plant = self._plant
        if plant is None:
            return self._routes().topics([], machines)
        given = [info.tag for source in plant.sources for info in source.declared() or ()]
        given += [info.tag for processor in plant.processors for info in processor.outputs()]
        named = [*(machine.id for machine in plant.machines), *machines]
        mine = [machine for machine in named if may_be_of(machine, self.tags)]
        return self._routes().topics([tag for tag in given if passes(tag, self.tags)], mine)

    def open_templates(self) -> list[str]:
        """The templates of topics of which only messages tell all machines: a source does not know its tags before."""
        told = self._plant is None or all(source.declared() is not None for source in self._plant.sources)
        return [] if told else self._routes().of_machines()

    def _routes(self) -> Routes:
        return Routes(self.routes, self.topic, self.key, TagFacts(self._plant))

    def _form(self) -> Form[Any]:
        registry, machine = self.schema_registry, self.layout == "machine"
        if registry is None:
            return JsonForm(self.precision, tag=not machine)
        form = AvroForm if self.format == "avro" else ProtobufForm
        return form(registry, subjects=registry.subjects, register=registry.auto_register, machine=machine)

    def build(self) -> "KafkaSink":
        """The sink; opens nothing yet."""
        return KafkaSink(self, self._routes(), self._form(), "" if self._plant is None else self._plant.plant.site)


class KafkaSink(Sink):
    """Writes records; enter it to connect."""

    def __init__(self, config: KafkaSinkConfig, routes: Routes, form: Form[Any], site: str) -> None:
        """Built by ``KafkaSinkConfig.build``."""
        self._config = config
        self._routes = routes
        self._form = form
        self._writer = f"{site}.{config.name}".encode()
        self._seconds = config.timeout / 1e9
        self._offers = Offers()
        self._there: set[str] = set()
        """Topics that it need not make any more."""
        self._thread: ClientThread | None = None
        self._producer: Producer | None = None
        self._delivery: Delivery | None = None
        self._heard = Heard()

    async def __aenter__(self) -> Self:
        """Ask for the topics. Raises Unavailable, and Misconfigured when they or the rights to them are missing."""
        self._thread = thread = ClientThread(self._config.name)
        self._heard = heard = Heard()
        self._there.clear()
        try:
            self._producer = producer = await thread.run(self._connect)
            self._delivery = Delivery(producer, heard, thread, self._seconds, self._config.message_size)
            await thread.run(self._look, thread)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        thread, self._thread = self._thread, None
        producer, self._producer, self._delivery = self._producer, None, None
        if thread is not None:
            await thread.end(partial(self._close, producer))

    async def lost(self) -> None:
        """Raise Unavailable when no broker can be reached any more."""
        while (thread := self._thread) is not None and (producer := self._producer) is not None:
            producer.poll(0)
            self._heard.check()
            if self._heard.down is not None:
                # Idle connections are closed also by a broker that is well, so ask; beside, since this may be cancelled
                # while the sink goes on.
                looking = asyncio.ensure_future(
                    thread.run(reach, producer, self._heard, thread, self._seconds, partial(producer.poll, 0))
                )
                looking.add_done_callback(lambda done: done.cancelled() or done.exception())
                await asyncio.shield(looking)
            await asyncio.sleep(_LOOK_EVERY)
        raise Unavailable("not connected")

    async def write(self, offset: int, batch: Batch) -> None:
        """Write the batch; see ``write_many``."""
        await self._deliver([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Write every sample of these batches and wait until all in-sync replicas have them.

        Raises Rejected for samples that cannot be written or that the cluster refuses for good (the others are held
        then, and not written again when they are offered without those), Misconfigured when a topic or the right to it
        is missing or the registry refuses our schema, Unavailable when the cluster confirms nothing or the registry
        is away.
        """
        if entries:
            self._offers.begin(entries[0][0])
        await self._deliver(entries)

    async def _deliver(self, entries: Sequence[tuple[int, Batch]]) -> None:
        if self._thread is None or self._delivery is None:
            raise Unavailable("not connected")
        topics = self._topics(entries)
        await self._make(topics)
        lacking = self._form.lacks(topics)
        if lacking:
            await self._thread.run(self._form.prepare, lacking)
        records: list[Record] = []
        owners: list[tuple[Offer, list[int]]] = []
        offers: list[Offer] = []
        pieces = Pieces()
        for offset, batch in entries:
            offer = self._offers.take(offset, batch)
            offers.append(offer)
            for places, record in self._records(offset, batch, offer):
                records.append(record)
                owners.append((offer, places))
            await pieces.worked(len(batch))
        if any(place in offer.refused for offer in offers for place in offer.places):
            self._refuse(offers)  # before anything is written
        if not records:
            return
        refused = await self._thread.run(self._delivery.deliver, records)
        for number, (offer, places) in enumerate(owners):
            if number in refused:
                offer.refused |= dict.fromkeys(places, refused[number])
            else:
                offer.held.update(places)
        if refused:
            self._refuse(offers)

    async def _make(self, topics: Iterable[str]) -> None:
        """Make those that are missing, where the plant file has us do so.

        Only before writing: a probe makes none. One that is deleted later is made after the next connection.
        """
        new = set(topics) - self._there if self._config.create_topics else set[str]()
        if new:
            wanted = [Wanted(topic, self._config.create) for topic in sorted(new)]
            found = await Topics(self._config).look(wanted, create=True)
            if failed := "; ".join(f"topic {one.topic}: {one.detail}" for one in found if one.result == "failed"):
                raise Misconfigured(failed)
            self._there |= new

    def _topics(self, entries: Sequence[tuple[int, Batch]]) -> set[str]:
        """The topics of these samples."""
        tags = set[str]().union(*(batch.tags for _, batch in entries))
        return {self._routes.of(tag).topic for tag in tags if is_unicode(tag)}

    def _refuse(self, offers: Sequence[Offer]) -> None:
        """Raise Rejected; of several entries without saying which, the pipeline offers them one by one."""
        if len(offers) > 1:
            raise Rejected("some samples are refused")
        offers[0].refuse()

    def _records(self, offset: int, batch: Batch, offer: Offer) -> Iterable[tuple[list[int], Record]]:
        """The records of what is neither held nor refused, each with the places of its samples in the entry."""
        config, form = self._config, self._form
        route = self._routes.of
        written: list[tuple[int, Sample, Any]] = []
        for place, sample in zip(offer.places, batch, strict=True):
            if place in offer.held or place in offer.refused:
                continue
            try:
                route(sample.tag)
                written.append((place, sample, form.part(sample)))
            except UnicodeEncodeError:
                offer.refused[place] = "the text is not Unicode, so it cannot be written as UTF-8"
            except OverflowError:
                offer.refused[place] = "the time cannot be written as ISO 8601"
        make = self._maker(offset)
        if config.layout == "machine":
            made = [(m.indices, make(m.indices[0], *self._of_machine(m))) for m in self._grown(written)]
        else:
            made = [
                ([place], make(place, one.tag, form.one(route(one.tag).topic, part), one.time))
                for place, one, part in written
            ]
        for places, record in made:
            if size(record) > config.message_size:
                offer.refused |= dict.fromkeys(places, f"more than the {config.message_size} bytes of `message_size`")
        return [one for one in made if one[0][0] not in offer.refused]

    def _grown(self, written: Iterable[tuple[int, Sample, Any]]) -> Iterable[Grows[Any]]:
        """One message a topic and machine, another one where a tag comes again or the message grows large."""
        done: list[Grows[Any]] = []
        open_: dict[tuple[str, bytes], Grows[Any]] = {}
        for place, sample, part in written:
            where = self._routes.of(sample.tag)
            message = open_.get(where)
            if message is None or not message.takes(sample.tag, part):
                message = open_[where] = self._form.open(min(MESSAGE_SIZE, self._config.message_size - _BESIDE))
                done.append(message)
            message.add(place, sample, part)
        return done

    def _of_machine(self, message: Grows[Any]) -> tuple[str, bytes, int]:
        tag = next(iter(message.readings))
        return tag, self._form.several(self._routes.of(tag).topic, message), message.newest

    def _maker(self, offset: int) -> Callable[[int, str, bytes, int], Record]:
        """Makes records of an entry: of the place in it, a tag, what is written, and the time."""
        writer, entry = ("writer", self._writer), ("entry", b"%d" % offset)
        route, by_sample = self._routes.of, self._config.timestamp == "sample"

        def make(place: int, tag: str, value: bytes, time: int) -> Record:
            topic, key = route(tag)
            headers = [writer, entry, ("place", b"%d" % place)]
            return Record(topic, key, value, headers, max(0, time // _MS) if by_sample else 0)

        return make

    # ---- in the client's thread ---------------------------------------------------------------------

    def _connect(self) -> "Producer":
        from confluent_kafka import KafkaException, Producer  # noqa: PLC0415  # loaded where it is needed

        config = self._config
        own = {
            "enable.idempotence": True,
            "acks": "all",
            "delivery.report.only.error": True,  # a call a record would cost as much as all the rest of writing it
            "message.timeout.ms": 0,  # how long is decided in Delivery: as long as anything is confirmed
            "topic.metadata.propagation.max.ms": max(1000, min(30_000, config.timeout // _MS // 3)),
            "message.max.bytes": config.message_size,
            "batch.size": config.message_size,
            "compression.type": config.compression,
            "partitioner": "murmur2_random",  # as Java's, so that others' topics are partitioned alike
            "linger.ms": _LINGER,
            "queue.buffering.max.kbytes": 65_536 + 4 * config.message_size // 1024,
        }
        try:
            return Producer(settings(config, self._heard) | own)
        except KafkaException as error:
            raise wrong_settings(error) from error

    def _look(self, thread: ClientThread) -> None:
        producer = self._producer
        if producer is None:
            raise Unavailable("not connected")
        metadata = reach(producer, self._heard, thread, self._seconds, lambda: producer.poll(0))
        names = self._config.known_topics()
        missing = missing_topics(producer, metadata, names, self._seconds)
        make = self._config.create_topics
        refuse_missing({name: why for name, why in missing.items() if not (make and why == ABSENT)})
        self._form.connect()
        self._form.prepare(self._form.lacks(names))

    def _close(self, producer: "Producer | None") -> None:
        self._form.close()
        if producer is not None:
            close(producer)()
