"""The protobuf messages of Sparkplug B 3.0, described in Python and built when this module is imported.

``Payload`` is ``org.eclipse.tahu.protobuf.Payload`` with the field numbers of the specification (6.4.1); what
is serialised is exactly that. Reading uses the same numbers in a second shape: what nests (properties, data
sets and their rows, templates and their members) stays ``bytes`` until somebody asks for it. On the wire a
message and bytes are the same, so nothing is lost, and two things are gained: a damaged table or template costs
its own metric only, and a small message cannot unfold into millions of objects unasked.

Field numbers that are not listed, the extensions of others, are skipped by protobuf itself.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto

_TYPES: Final = {
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}

_SCALARS: Final = ("int_value uint32", "long_value uint64", "float_value float", "double_value double",
                   "boolean_value bool", "string_value string")  # fmt: skip

_Messages = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]

# A field is "name type", and "name type*" where it repeats; its number is its place, counted from 1.
# The fields from the second element on are the oneof "value".
_MESSAGES: Final[_Messages] = {
    "Payload": (("timestamp uint64", "metrics Payload.Metric*", "seq uint64", "uuid string", "body bytes"), ()),
    "Payload.Metric": (
        (
            "name string",
            "alias uint64",
            "timestamp uint64",
            "datatype uint32",
            "is_historical bool",
            "is_transient bool",
            "is_null bool",
            "metadata Payload.MetaData",
            "properties Payload.PropertySet",
        ),
        (*_SCALARS, "bytes_value bytes", "dataset_value Payload.DataSet", "template_value Payload.Template"),
    ),
    "Payload.MetaData": (
        (
            "is_multi_part bool",
            "content_type string",
            "size uint64",
            "seq uint64",
            "file_name string",
            "file_type string",
            "md5 string",
            "description string",
        ),
        (),
    ),
    "Payload.PropertySet": (("keys string*", "values Payload.PropertyValue*"), ()),
    "Payload.PropertySetList": (("propertyset Payload.PropertySet*",), ()),
    "Payload.PropertyValue": (
        ("type uint32", "is_null bool"),
        (*_SCALARS, "propertyset_value Payload.PropertySet", "propertysets_value Payload.PropertySetList"),
    ),
    "Payload.DataSet": (
        ("num_of_columns uint64", "columns string*", "types uint32*", "rows Payload.DataSet.Row*"),
        (),
    ),
    "Payload.DataSet.Row": (("elements Payload.DataSet.DataSetValue*",), ()),
    "Payload.DataSet.DataSetValue": ((), _SCALARS),
    "Payload.Template": (
        (
            "version string",
            "metrics Payload.Metric*",
            "parameters Payload.Template.Parameter*",
            "template_ref string",
            "is_definition bool",
        ),
        (),
    ),
    "Payload.Template.Parameter": (("name string", "type uint32"), _SCALARS),
}

_NESTED: Final = (
    "Payload.Metric.properties",
    "Payload.Metric.dataset_value",
    "Payload.Metric.template_value",
    "Payload.PropertyValue.propertyset_value",
    "Payload.PropertyValue.propertysets_value",
    "Payload.PropertySet.values",
    "Payload.PropertySetList.propertyset",
    "Payload.DataSet.rows",
    "Payload.DataSet.Row.elements",
    "Payload.Template.metrics",
    "Payload.Template.parameters",
)
"""The fields that stay bytes when reading."""

_COLUMNS: Final[_Messages] = {
    "Payload": (("timestamp uint64", "metrics Payload.Metric", "seq uint64"), ()),
    "Payload.Metric": (
        (
            "name string*",
            "alias uint64*",
            "timestamp uint64*",
            "datatype uint32*",
            "is_historical bool*",
            "is_transient bool*",
            "is_null bool*",
            "metadata bytes*",
            "properties bytes*",
            *(f"{scalar}*" for scalar in _SCALARS),
            "bytes_value bytes*",
            "dataset_value bytes*",
            "template_value bytes*",
        ),
        (),
    ),
}


def _build(package: str, messages: _Messages, opaque: tuple[str, ...] = ()) -> dict[str, Any]:
    """The classes of all messages by name; the fields in ``opaque`` (``Message.field``) are bytes."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    described: dict[str, Any] = {}
    for name, (plain, oneof) in messages.items():
        parent, _, short = name.rpartition(".")
        message = described[parent].nested_type.add() if parent else file.message_type.add()
        message.name = short
        described[name] = message
        if oneof:
            message.oneof_decl.add(name="value")
        for number, text in enumerate((*plain, *oneof), start=1):
            field_name, kind = text.split()
            field = message.field.add(name=field_name, number=number)
            field.label = _Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in _TYPES:
                field.type = _TYPES[kind]
            elif f"{name}.{field_name}" in opaque:
                field.type = _Field.TYPE_BYTES
            else:
                field.type = _Field.TYPE_MESSAGE
                field.type_name = f".{package}.{kind}"
            if number > len(plain):
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


# Classes made at run time have no static type.
_whole: Final = _build("org.eclipse.tahu.protobuf", _MESSAGES)
_lazy: Final = _build("shopfloor.sparkplug.reading", _MESSAGES, _NESTED)
_frame: Final = _build("shopfloor.sparkplug.framing", _MESSAGES, (*_NESTED, "Payload.metrics"))

Payload: Final[Any] = _whole["Payload"]
"""``org.eclipse.tahu.protobuf.Payload``: for writing."""

LazyPayload: Final[Any] = _lazy["Payload"]
LazyMetric: Final[Any] = _lazy["Payload.Metric"]
LazyPropertySet: Final[Any] = _lazy["Payload.PropertySet"]
LazyPropertySetList: Final[Any] = _lazy["Payload.PropertySetList"]
LazyPropertyValue: Final[Any] = _lazy["Payload.PropertyValue"]
LazyDataSet: Final[Any] = _lazy["Payload.DataSet"]
LazyRow: Final[Any] = _lazy["Payload.DataSet.Row"]
LazyDataSetValue: Final[Any] = _lazy["Payload.DataSet.DataSetValue"]
LazyTemplate: Final[Any] = _lazy["Payload.Template"]
LazyParameter: Final[Any] = _lazy["Payload.Template.Parameter"]

FramePayload: Final[Any] = _frame["Payload"]
"""A payload whose ``metrics`` are bytes: to count them, and to read the sound ones when one is damaged."""

_column: Final = _build("shopfloor.sparkplug.columns", _COLUMNS)

ColumnPayload: Final[Any] = _column["Payload"]
"""A payload whose metrics are one message of repeated fields: protobuf merges a singular field that comes
again, and repeated fields merge into columns. So one parse turns rows into columns."""
ColumnMetric: Final[Any] = _column["Payload.Metric"]
"""The same of metrics whose bytes are joined."""
