"""How the values of records are written: JSON, or Avro and Protobuf with their schema in a registry."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar, cast

from shopfloor.protocols.schema_registry import Registry, connect, meaning
from shopfloor.samples import Quality, Sample, Unavailable, Value
from shopfloor.sinks.kafka_schemas import AVRO_MACHINE, AVRO_SAMPLE, proto_class
from shopfloor.sinks.readings import MachineMessage, Precision, reading

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

Part = TypeVar("Part")
Subjects = Literal["topic", "record", "topic_record"]
_INT64: Final = 2**63
_BESIDE: Final = 64
"""Bytes of a sample in Avro or Protobuf beside its tag and value, at most."""


class Grows(Protocol[Part]):
    """What changed of a machine, while it grows: each tag at most once."""

    indices: list[int]
    readings: dict[str, Part]
    newest: int

    def takes(self, tag: str, payload: Part, /) -> bool:
        """Whether the sample of a tag can be put into it."""
        ...

    def add(self, index: int, sample: Sample, payload: Part, /) -> None:
        """Put a sample into it."""
        ...


class Form(ABC, Generic[Part]):
    """Makes the bytes of records out of samples."""

    def connect(self) -> None:
        """Look whether what it needs is there; in the client's thread. Raises Unavailable, Misconfigured."""

    def prepare(self, topics: Iterable[str]) -> None:
        """Make ready to write to these topics; in the client's thread. Raises Unavailable, Misconfigured."""
        del topics

    def lacks(self, topics: Iterable[str]) -> Sequence[str]:
        """Those of the topics that it must be made ready for."""
        del topics
        return ()

    def close(self) -> None:
        """Free what it holds."""

    @abstractmethod
    def part(self, sample: Sample) -> Part:
        """A sample on its way. Raises UnicodeEncodeError, OverflowError for one that cannot be written."""

    @abstractmethod
    def one(self, topic: str, part: Part) -> bytes:
        """The value of a record with one sample."""

    @abstractmethod
    def open(self, most: int) -> Grows[Part]:
        """What changed of a machine, nothing yet, up to so many bytes unless the first sample alone has more."""

    @abstractmethod
    def several(self, topic: str, grown: Any) -> bytes:
        """The value of a record with what changed of a machine."""


class JsonForm(Form[bytes]):
    """JSON, without a registry."""

    def __init__(self, precision: Precision, *, tag: bool) -> None:
        """``tag``: whether each sample names its tag."""
        self._precision: Precision = precision
        self._tag = tag

    def part(self, sample: Sample) -> bytes:
        """The sample's JSON."""
        return reading(sample, self._precision, tag=self._tag)

    def one(self, topic: str, part: bytes) -> bytes:
        """The same."""
        del topic
        return part

    def open(self, most: int) -> MachineMessage:
        """The JSON of a machine's message."""
        return MachineMessage(most)

    def several(self, topic: str, grown: MachineMessage) -> bytes:
        """The JSON."""
        del topic
        return grown.payload(self._precision)


class Fields(dict[str, Any]):
    """A sample as a record of Avro or Protobuf, by field; those that are null are not there."""

    size = 0


def fields(sample: Sample, *, unsigned: type[Decimal] | type[int]) -> Fields:
    """The fields of a sample. Raises UnicodeEncodeError."""
    value = sample.value
    found = Fields(
        tag=sample.tag, time=sample.time // 1000, time_ns=sample.time, quality=sample.quality,
        good=sample.quality >= Quality.GOOD, status=sample.status,
    )  # fmt: skip
    found |= _value(value, unsigned)
    text = len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 0
    found.size = _BESIDE + len(sample.tag.encode()) + text
    return found


def _value(value: Value, unsigned: type[Decimal] | type[int]) -> dict[str, Any]:
    """The fields that the value has; none for None."""
    if isinstance(value, bool):
        return {"value": float(value), "boolean": value}
    if isinstance(value, int):
        return {"value": float(value)} | ({"integer": value} if value < _INT64 else {"unsigned": unsigned(value)})
    if isinstance(value, float):
        return {"value": value}
    return {} if value is None else {"text" if isinstance(value, str) else "binary": value}


class Group:
    """What changed of a machine, while it grows."""

    def __init__(self, most: int) -> None:
        """Nothing yet; up to so many bytes, unless the first sample alone has more."""
        self._most = most
        self._size = 0
        self.indices: list[int] = []
        self.readings: dict[str, Fields] = {}
        self.newest = 0

    @property
    def machine(self) -> str:
        """Which machine: the first level of its tags."""
        return next(iter(self.readings)).partition("/")[0]

    def takes(self, tag: str, payload: Fields, /) -> bool:
        """Whether the sample of a tag can be put into it."""
        return tag not in self.readings and self._size + payload.size <= self._most

    def add(self, index: int, sample: Sample, payload: Fields, /) -> None:
        """Put a sample into it."""
        self.newest = max(self.newest, sample.time) if self.indices else sample.time
        self.indices.append(index)
        self.readings[sample.tag] = payload
        self._size += payload.size


class Registered(Form[Fields]):
    """Records whose schema is in a registry, in Confluent's wire format: by Confluent's own serializers."""

    unsigned: type[Decimal] | type[int]
    name: str
    """Of the record, in full."""

    def __init__(self, registry: Registry, *, subjects: Subjects, register: bool, machine: bool) -> None:
        """``register``: whether schemas that are not there are put there; ``machine``: a record has many samples."""
        self._registry = registry
        self._subjects: Subjects = subjects
        self._register = register
        self._machine = machine
        self._client: SchemaRegistryClient | None = None
        self._ready: dict[str, Callable[[Any], bytes]] = {}
        """For each topic the serializer that knows its schema's id."""

    def connect(self) -> None:
        """Ask whether the registry is there."""
        self.close()
        self._client = connect(self._registry)

    def close(self) -> None:
        """Leave the registry."""
        self._ready = {}
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def lacks(self, topics: Iterable[str]) -> Sequence[str]:
        """Those whose schema was not asked for yet."""
        return [topic for topic in topics if topic not in self._ready]

    def prepare(self, topics: Iterable[str]) -> None:
        """Put the schema of each topic into the registry, or ask for it there."""
        from confluent_kafka import schema_registry  # noqa: PLC0415  # loaded where it is needed
        from confluent_kafka.serialization import MessageField, SerializationContext  # noqa: PLC0415  # as above

        strategy = getattr(schema_registry, f"{self._subjects}_subject_name_strategy")
        settings = {
            "auto.register.schemas": self._register,
            "normalize.schemas": not self._register,  # what others put there may have other spaces
            "subject.name.strategy": strategy,
        }
        for topic in topics:
            context = SerializationContext(topic, MessageField.VALUE)
            write = partial(self._serializer(settings), ctx=context)
            try:
                write(self._example())
            except Exception as error:
                raise meaning(error, self._registry, strategy(context, self.name)) from error
            self._ready[topic] = write

    def part(self, sample: Sample) -> Fields:
        """The sample by fields."""
        return fields(sample, unsigned=self.unsigned)

    def open(self, most: int) -> Group:
        """A group of samples."""
        return Group(most)

    def one(self, topic: str, part: Fields) -> bytes:
        """The sample's record."""
        return self._ready[topic](self._sample(part))

    def several(self, topic: str, grown: Group) -> bytes:
        """The machine's record."""
        return self._ready[topic](self._machines(grown))

    def _example(self) -> Any:
        """A record by which the serializer gets to know its schema."""
        sample = Sample("machine/tag", 0, None)
        if not self._machine:
            return self._sample(self.part(sample))
        group = Group(_BESIDE)
        group.add(0, sample, self.part(sample))
        return self._machines(group)

    @abstractmethod
    def _serializer(self, settings: dict[str, Any]) -> Callable[..., bytes]:
        """The library's serializer of these settings."""

    @abstractmethod
    def _sample(self, part: Fields) -> Any:
        """What the serializer takes for a sample."""

    @abstractmethod
    def _machines(self, grown: Group) -> Any:
        """What the serializer takes for a machine."""


class AvroForm(Registered):
    """Avro."""

    unsigned = Decimal

    def __init__(self, registry: Registry, *, subjects: Subjects, register: bool, machine: bool) -> None:
        """See ``Registered``."""
        super().__init__(registry, subjects=subjects, register=register, machine=machine)
        self._schema = AVRO_MACHINE if machine else AVRO_SAMPLE
        self.name = f"{self._schema['namespace']}.{self._schema['name']}"

    def _serializer(self, settings: dict[str, Any]) -> Callable[..., bytes]:
        from confluent_kafka.schema_registry import avro  # noqa: PLC0415  # loaded where it is needed

        made: Any = avro.AvroSerializer  # its types hide what it takes
        return cast("Callable[..., bytes]", made(_open(self._client), json.dumps(self._schema), conf=settings))

    def _sample(self, part: Fields) -> Fields:
        return part

    def _machines(self, grown: Group) -> dict[str, Any]:
        return {
            "machine": grown.machine, "time": grown.newest // 1000, "time_ns": grown.newest,
            "samples": list(grown.readings.values()),
        }  # fmt: skip


class ProtobufForm(Registered):
    """Protobuf."""

    unsigned = int

    def __init__(self, registry: Registry, *, subjects: Subjects, register: bool, machine: bool) -> None:
        """See ``Registered``."""
        super().__init__(registry, subjects=subjects, register=register, machine=machine)
        self._message: Any = proto_class(machine=machine)
        self.name = self._message.DESCRIPTOR.full_name

    def _serializer(self, settings: dict[str, Any]) -> Callable[..., bytes]:
        from confluent_kafka.schema_registry import protobuf  # noqa: PLC0415  # as above

        made: Any = protobuf.ProtobufSerializer
        return cast("Callable[..., bytes]", made(self._message, _open(self._client), settings))

    def _sample(self, part: Fields) -> Any:
        return self._message(**_stamped(part))

    def _machines(self, grown: Group) -> Any:
        return self._message(
            machine=grown.machine, time=_timestamp(grown.newest), time_ns=grown.newest,
            samples=[_stamped(part) for part in grown.readings.values()],
        )  # fmt: skip


def _stamped(part: Fields) -> dict[str, Any]:
    return part | {"time": _timestamp(part["time_ns"])}


def _timestamp(time: int) -> dict[str, int]:
    """The fields of google.protobuf.Timestamp."""
    seconds, nanos = divmod(time, 10**9)
    return {"seconds": seconds, "nanos": nanos}


def _open(client: "SchemaRegistryClient | None") -> "SchemaRegistryClient":
    if client is None:
        raise Unavailable("not connected")
    return client
