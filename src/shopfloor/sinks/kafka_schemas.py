"""The schemas of what the Kafka sink writes in Avro and Protobuf: the columns of the files sink, narrow and flat.

Nothing in them that Spark, Flink or ksqlDB cannot read. They may grow by fields that can be left out, never otherwise:
what was written with an older one is in topics for years.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from google.protobuf.message import Message

NAMESPACE: Final = "shopfloor"
SAMPLE: Final = "Sample"
MACHINE: Final = "MachineSamples"

_TIMES: Final[list[dict[str, Any]]] = [
    {
        "name": "time",
        "type": {"type": "long", "logicalType": "timestamp-micros"},
        "doc": "When the value was true at its source, UTC; cut off to microseconds",
    },
    {"name": "time_ns", "type": "long", "doc": "The same exactly: nanoseconds since 1970, UTC"},
]


def _nullable(name: str, kind: object, doc: str) -> dict[str, Any]:
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}


AVRO_SAMPLE: Final[dict[str, Any]] = {
    "type": "record",
    "name": SAMPLE,
    "namespace": NAMESPACE,
    "doc": "One value of one tag at one instant; all of the values are null where it has none",
    "fields": [
        {"name": "tag", "type": "string"},
        *_TIMES,
        {"name": "quality", "type": "int", "doc": "OPC quality, a byte"},
        {"name": "good", "type": "boolean", "doc": "Whether the quality is good: 192 and above"},
        {
            "name": "status",
            "type": "long",
            "default": 0,
            "doc": "The protocol's own status code; 0 where there is none",
        },
        _nullable("value", "double", "Floats; integers as far as a double holds them, true as 1 and false as 0"),
        _nullable("integer", "long", "Integers up to 2^63-1, exactly"),
        _nullable(
            "unsigned",
            {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
            "Integers above 2^63-1, exactly",
        ),
        _nullable("boolean", "boolean", "true and false"),
        _nullable("text", "string", "Text"),
        _nullable("binary", "bytes", "Bytes"),
    ],
}
AVRO_MACHINE: Final[dict[str, Any]] = {
    "type": "record",
    "name": MACHINE,
    "namespace": NAMESPACE,
    "doc": "What changed of a machine, each tag at most once; its time is the newest of them",
    "fields": [
        {"name": "machine", "type": "string"},
        *_TIMES,
        {"name": "samples", "type": {"type": "array", "items": AVRO_SAMPLE}},
    ],
}

PROTO: Final = """\
syntax = "proto3";
package shopfloor;

import "google/protobuf/timestamp.proto";

message Sample {
  string tag = 1;
  google.protobuf.Timestamp time = 2;
  int64 time_ns = 3;
  uint32 quality = 4;
  bool good = 5;
  uint32 status = 6;
  optional double value = 7;
  optional int64 integer = 8;
  optional uint64 unsigned = 9;
  optional bool boolean = 10;
  optional string text = 11;
  optional bytes binary = 12;
}
"""
PROTO_MACHINE: Final = """
message MachineSamples {
  string machine = 1;
  google.protobuf.Timestamp time = 2;
  int64 time_ns = 3;
  repeated Sample samples = 4;
}
"""
"""Behind ``PROTO``, for records with everything of a machine."""


@cache
def proto_class(*, machine: bool) -> "type[Message]":
    """The class of the records' message, of a file that has what ``PROTO`` says, and with ``machine`` the other too."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2  # noqa: PLC0415

    name = MACHINE if machine else SAMPLE
    file = descriptor_pb2.FileDescriptorProto(
        name=f"shopfloor/{name}.proto", package=NAMESPACE, syntax="proto3", dependency=[timestamp_pb2.DESCRIPTOR.name]
    )
    for text in [PROTO_MACHINE, PROTO] if machine else [PROTO]:  # the record's own first: that is what readers expect
        _add_message(file.message_type.add(), text)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{NAMESPACE}.{name}"))


def _add_message(message: Any, text: str) -> None:
    """The message of a text as above: one, a line each field."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field  # noqa: PLC0415  # of this function

    lines = text[text.index("message") :].splitlines()
    message.name = lines[0].split()[1]
    for line in lines[1 : lines.index("}")]:
        *label, kind, name, _, number = line.strip(" ;").split()
        field = message.field.add(name=name, number=int(number), json_name=name)
        field.label = Field.LABEL_REPEATED if "repeated" in label else Field.LABEL_OPTIONAL
        if kind[0].isupper() or "." in kind:
            field.type = Field.TYPE_MESSAGE
            field.type_name = f".{kind}" if "." in kind else f".{NAMESPACE}.{kind}"
        else:
            field.type = Field.Type.Value(f"TYPE_{kind.upper()}")
        if "optional" in label:  # proto3 says so by a oneof of its own
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{name}")
