"""Records in Confluent's wire format: what they say, by the schemas that a registry has of them.

A record begins with a zero and the schema's id. Its schema is asked for once, in the client's thread; reading by it is
pure. What comes of it is what JSON would give: objects, lists and values, but with bytes, NaN and all of 64 bits.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from shopfloor.protocols.schema_registry import MAGIC, PREFIX, Registry, connect, meaning
from shopfloor.samples import Unavailable
from shopfloor.sources.mqtt_payload import Unreadable

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
    from google.protobuf.descriptor_pool import DescriptorPool

Reader = Callable[[bytes], object]
_NOT_FOUND: Final = 404
_MOST_UNKNOWN: Final = 10_000
"""Ids without a schema that are remembered: garbage that begins with a zero has ever new ones."""
_KNOWN: Final = ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")
"""Google's files that others import."""
_STAMP: Final = "google.protobuf.Timestamp"
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)


class Schemas:
    """The schemas that records name, as far as they came."""

    def __init__(self, registry: Registry) -> None:
        """Opens nothing yet."""
        self._registry = registry
        self._client: SchemaRegistryClient | None = None
        self._readers: dict[bytes, Reader] = {}
        """By what a record begins with: what reads it."""
        self._unknown: dict[bytes, str] = {}
        """By what a record begins with: why nothing can read it."""

    def connect(self) -> None:
        """Ask whether the registry is there; in the client's thread. Raises Unavailable, Misconfigured."""
        self.close()
        self._client = connect(self._registry)

    def close(self) -> None:
        """Leave the registry."""
        client, self._client = self._client, None
        self._readers, self._unknown = {}, {}  # what was not there may be when it comes back
        if client is not None:
            client.close()

    @staticmethod
    def covers(payload: bytes) -> bool:
        """Whether the record is one that names a schema; JSON never begins so."""
        return payload.startswith(MAGIC) and len(payload) >= PREFIX

    def lacks(self, payloads: Iterable[bytes]) -> list[bytes]:
        """One record of each schema that was not asked for yet."""
        found = {payload[:PREFIX]: payload for payload in payloads if self.covers(payload)}
        return [
            payload for prefix, payload in found.items() if prefix not in self._readers and prefix not in self._unknown
        ]

    def fetch(self, payloads: Iterable[bytes]) -> None:
        """Ask for the schemas of these records; in the client's thread. Raises Unavailable, Misconfigured."""
        for payload in payloads:
            prefix, reader = payload[:PREFIX], self._reader(payload)
            if not isinstance(reader, str):
                self._readers[prefix] = reader
                continue
            self._unknown[prefix] = reader
            if len(self._unknown) > _MOST_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]

    def read(self, payload: bytes) -> object:
        """What a record says; its schema must have been asked for. Raises Unreadable."""
        prefix = payload[:PREFIX]
        reader = self._readers.get(prefix)
        if reader is None:  # also the reason of one of the oldest may be forgotten since it was asked for
            raise Unreadable(self._unknown.get(prefix, "the registry does not have its schema"))
        try:
            return _plain(reader(payload))
        except RecursionError as error:
            raise Unreadable("it is nested too deeply") from error
        except Exception as error:  # the readers' own, of many kinds
            raise Unreadable(f"it is not what its schema says: {str(error) or type(error).__name__}") from error

    # ---- in the client's thread ---------------------------------------------------------------------

    def _reader(self, payload: bytes) -> Reader | str:
        from confluent_kafka.schema_registry import SchemaRegistryError  # noqa: PLC0415  # loaded where it is needed

        number = int.from_bytes(payload[1:PREFIX])
        if self._client is None:
            raise Unavailable("not connected")
        try:
            return self._of(self._client, number, payload)
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return f"the registry does not have its schema {number}: {error.error_message}"
            raise meaning(error, self._registry) from error
        except Exception as error:
            wrong = meaning(error, self._registry)
            if wrong is not error:
                raise wrong from error
            return f"its schema {number} cannot be used: {str(error) or type(error).__name__}"

    def _of(self, client: "SchemaRegistryClient", number: int, payload: bytes) -> Reader | str:
        schema = client.get_schema(number)
        kind = schema.schema_type or "AVRO"
        if kind == "AVRO":
            return _avro(client, payload)
        if kind == "PROTOBUF":
            if _descriptor(schema.schema_str) is None:
                client.clear_caches()  # type: ignore[no-untyped-call]  # it keeps the text, whatever is asked for
                schema = client.get_schema(number, fmt="serialized")
            return _protobuf(client, schema) or (
                f"the registry gives its Protobuf schema {number} as text only: it does not know format=serialized"
            )
        if kind == "JSON":
            return _json
        return f"its schema {number} is of a kind that is not known here: {kind}"


def _json(payload: bytes) -> object:
    return msgspec.json.decode(payload[PREFIX:])


def _avro(client: "SchemaRegistryClient", payload: bytes) -> Reader:
    from confluent_kafka.schema_registry import SchemaRegistryError, avro  # noqa: PLC0415  # loaded where it is needed

    made: Any = avro.AvroDeserializer  # its types hide what it takes
    read = cast("Reader", made(client))
    try:
        read(payload)  # so it asks now for what the schema refers to
    except (SchemaRegistryError, OSError):
        raise
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            raise
    return read  # a broken record is said where it is read


def _protobuf(client: "SchemaRegistryClient", schema: "Schema") -> Reader | None:
    """What reads records of a file of messages; None when the registry gives it as text."""
    from confluent_kafka import schema_registry  # noqa: PLC0415  # loaded where it is needed
    from confluent_kafka.schema_registry.serde import SchemaId  # noqa: PLC0415  # as above
    from google.protobuf import descriptor_pool, message_factory  # noqa: PLC0415  # as above

    library: Any = schema_registry  # without types here
    file = _descriptor(schema.schema_str)
    if file is None:
        return None
    pool = descriptor_pool.DescriptorPool()
    _add_references(client, schema, pool)
    file.name = file.name or "record.proto"
    _add_known(file, pool)
    pool.Add(file)
    messages = pool.FindFileByName(file.name)
    top = [messages.message_types_by_name[one.name] for one in file.message_type]

    def read(payload: bytes) -> object:
        found = SchemaId("PROTOBUF")
        rest = library.prefix_schema_id_deserializer(payload, None, found)
        first, *inner = found.message_indexes or [0]
        descriptor = top[first]
        for index in inner:
            descriptor = descriptor.nested_types[index]
        message = message_factory.GetMessageClass(descriptor)()
        message.ParseFromString(rest.read())
        return _of_message(message)

    return read


def _descriptor(text: str | None) -> Any:
    """The file that the text is in base64; None when it is none."""
    from google.protobuf import descriptor_pb2  # noqa: PLC0415  # loaded where it is needed
    from google.protobuf.message import DecodeError  # noqa: PLC0415  # as above

    try:
        return descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode((text or "").encode(), validate=True))
    except (DecodeError, binascii.Error):
        return None


def _add_references(client: "SchemaRegistryClient", schema: "Schema", pool: "DescriptorPool") -> None:
    """The files that it refers to, from the registry."""
    for reference in schema.references or ():
        there = client.get_version(str(reference.subject), int(reference.version or 0), fmt="serialized").schema
        _add_references(client, there, pool)
        file = _descriptor(there.schema_str)
        if file is None:
            raise ValueError(f"the registry gives {reference.name} as text only")
        file.name = str(reference.name)
        if not _has(pool, file.name):
            _add_known(file, pool)
            pool.Add(file)


def _add_known(file: Any, pool: "DescriptorPool") -> None:
    """The files of Google's that it imports: a registry does not keep them."""
    from google.protobuf import descriptor_pool  # noqa: PLC0415  # loaded where it is needed

    for name in _KNOWN:
        import_module(f"google.protobuf.{name}_pb2")  # the pool knows it then
    for name in file.dependency:
        if _has(pool, name):
            continue
        known = descriptor_pool.Default().FindFileByName(name)  # raises KeyError, which names it
        copied: Any = type(file)()
        known.CopyToProto(copied)
        _add_known(copied, pool)
        pool.Add(copied)


def _has(pool: "DescriptorPool", name: str) -> bool:
    try:
        pool.FindFileByName(name)
    except KeyError:
        return False
    return True


# ---- values ----------------------------------------------------------------------------------------------


def _of_message(message: Any) -> object:
    """A message by the names of its fields; those that can be left out, and are, are null."""
    kind = message.DESCRIPTOR.full_name
    if kind == _STAMP:
        return _iso(message.seconds, message.nanos)
    if kind in _WRAPPERS:
        return message.value
    return {
        field.name: None if field.has_presence and not message.HasField(field.name)
        else _of_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
    }  # fmt: skip


def _iso(seconds: int, nanos: int) -> str:
    """A moment to the nanosecond. Raises OverflowError for one that is none: before the year 1, behind 9999."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09}Z"


def _of_field(field: Any, value: Any) -> object:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        inner = entry.fields_by_name["value"]
        return {str(key): _of_single(inner, value[key]) for key in value}
    if field.is_repeated:
        return [_of_single(field, one) for one in value]
    return _of_single(field, value)


def _of_single(field: Any, value: Any) -> object:
    if field.message_type is not None:
        return _of_message(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value


def _plain(value: object) -> object:
    """Values as JSON has them, where a schema knows more kinds: times as text, decimals as numbers."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("Sequence[object]", value)]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str | bytes) else str(value)
