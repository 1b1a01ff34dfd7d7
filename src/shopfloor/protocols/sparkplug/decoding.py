"""Bytes of a Sparkplug payload to the values of ``model``; ``payload`` says what is read and how."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from google.protobuf.message import DecodeError

from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.codecs import BASIC, FLAT, LEGACY, NESTING, data_type_of, string
from shopfloor.protocols.sparkplug.limits import LARGEST_PAYLOAD, LONGEST_REASON, MOST_METRICS, Malformed, deeper
from shopfloor.protocols.sparkplug.model import (
    DataSet,
    DataType,
    Fault,
    MetaData,
    Metric,
    MetricValue,
    Parameter,
    Payload,
    Property,
    PropertySet,
    Template,
)

Types = Mapping[int | str, DataType]
"""The types that a birth declared, by alias and by name."""


def decode(data: bytes, types: Types | None = None, *, legacy_uint32_in_long: bool = False) -> Payload:
    """What a payload says.

    ``types`` gives the data types of metrics whose message leaves them out, by alias, else by name.
    ``legacy_uint32_in_long`` also reads UInt32 from ``long_value``, where older versions put it. Metrics that
    cannot be read are in ``faults``; raises Malformed where nothing can be.
    """
    head, metrics = _parse(data)
    reader = _Reader(types or {}, legacy_uint32_in_long)
    found: list[Metric] = []
    faults: list[Fault] = []
    for index, message in enumerate(metrics):
        try:
            found.append(reader.metric(_message(wire.LazyMetric, message)))
        except ValueError as error:
            faults.append(Fault(index, _label(message), str(error)[:LONGEST_REASON]))
    return Payload(
        timestamp=given(head, "timestamp"),
        metrics=tuple(found),
        seq=given(head, "seq"),
        uuid=given(head, "uuid"),
        body=given(head, "body"),
        faults=tuple(faults),
    )


def _parse(data: bytes) -> tuple[Any, Iterator[Any]]:
    """The payload's message and its metrics: messages, or bytes where one is damaged."""
    frame = frame_of(data)
    try:
        lazy = wire.LazyPayload.FromString(data)
    except DecodeError:
        return frame, iter(frame.metrics)
    return frame, iter(lazy.metrics)


def frame_of(data: bytes) -> Any:
    """The payload's own fields with its metrics as bytes; raises Malformed."""
    if len(data) > LARGEST_PAYLOAD:
        raise Malformed(f"a payload of {len(data)} bytes; at most {LARGEST_PAYLOAD} are read")
    try:
        frame = wire.FramePayload.FromString(data)
    except DecodeError as error:
        raise Malformed(f"{len(data)} bytes that are no Sparkplug payload") from error
    try:
        _given_text(frame, "uuid")
    except ValueError as error:
        raise Malformed(f"a payload whose {error}") from error
    if len(frame.metrics) > MOST_METRICS:
        raise Malformed(f"{len(frame.metrics)} metrics in a payload; at most {MOST_METRICS} are read")
    return frame


def _message(kind: Any, source: Any) -> Any:
    """The message in ``source``, which is it or its bytes; raises ValueError."""
    if not isinstance(source, bytes):
        return source
    try:
        return kind.FromString(source)
    except DecodeError as error:
        raise ValueError(f"{kind.DESCRIPTOR.name} is damaged") from error


def _label(source: Any) -> str:
    """The name by which a fault calls a metric: its own, else its alias, else nothing."""
    try:
        message = _message(wire.LazyMetric, source)
        name = _given_text(message, "name")
    except ValueError:
        return ""
    return name or (f"alias {message.alias}" if message.HasField("alias") else "")


def given(message: Any, field: str) -> Any:
    """The value of a field, None where the message does not say it."""
    value = getattr(message, field)
    return value if value or message.HasField(field) else None


def _given_text(message: Any, field: str) -> str | None:
    text = given(message, field)
    try:
        return None if text is None else string(text)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


class _Reader:
    """Reads what nests; ``budget`` bounds the objects that one payload may become."""

    def __init__(self, types: Types, legacy: bool) -> None:  # noqa: FBT001  # private
        self._types = types
        self._legacy = legacy
        self._budget = MOST_METRICS

    def _spend(self, items: Any, what: str) -> Any:
        """``items``, counted against what one payload may hold."""
        self._budget -= len(items)
        if self._budget < 0:
            raise ValueError(f"more than {MOST_METRICS} {what}")
        return items

    def metric(self, message: Any) -> Metric:
        """A metric of the payload itself."""
        return self._metric(message, self._types, 0)

    def _metric(self, message: Any, types: Types, depth: int) -> Metric:
        name = _given_text(message, "name")
        alias = given(message, "alias")
        index = given(message, "datatype")
        if index is not None:
            data_type: DataType | None = data_type_of(index)
        else:
            data_type = types.get(alias) if alias is not None else None
            if data_type is None and name is not None:
                data_type = types.get(name)
        is_null = message.is_null
        return Metric(
            name=name,
            alias=alias,
            timestamp=given(message, "timestamp"),
            type=data_type,
            is_historical=message.is_historical,
            is_transient=message.is_transient,
            is_null=is_null,
            metadata=_metadata(message.metadata) if message.HasField("metadata") else None,
            properties=self._properties(message.properties, depth) if message.HasField("properties") else None,
            value=None if is_null else self._value(message, data_type, depth),
        )

    def _value(self, message: Any, data_type: DataType | None, depth: int) -> MetricValue:
        """The value of a metric, property, parameter or cell; None where it has none."""
        field = message.WhichOneof("value")
        if field is None:
            return None
        raw = getattr(message, field)
        if data_type is None or data_type is DataType.UNKNOWN:
            if field in NESTING.values():
                return self._nested(field, raw, depth)
            return string(raw) if field == "string_value" else cast("MetricValue", raw)
        expected = NESTING.get(data_type)
        if expected is not None:
            _expect(field, expected, data_type)
            return self._nested(field, raw, depth)
        codec = FLAT[data_type]
        if field != codec.field and self._legacy and data_type in LEGACY:
            codec = LEGACY[data_type]
        _expect(field, codec.field, data_type)
        return cast("MetricValue", codec.read(raw))

    def _nested(self, field: str, raw: bytes, depth: int) -> MetricValue:
        below = deeper(depth)
        match field:
            case "dataset_value":
                return self._data_set(_message(wire.LazyDataSet, raw))
            case "template_value":
                return self._template(_message(wire.LazyTemplate, raw), below)
            case "propertyset_value":
                return self._properties(raw, below)
            case _:
                sets = self._spend(_message(wire.LazyPropertySetList, raw).propertyset, "property sets")
                return [self._properties(item, below) for item in sets]

    def _properties(self, raw: bytes, depth: int) -> PropertySet:
        message = _message(wire.LazyPropertySet, raw)
        keys, values = message.keys, self._spend(message.values, "properties")
        if len(keys) != len(values):
            raise ValueError(f"a property set of {len(keys)} keys and {len(values)} values")
        return {string(key): self._property(key, value, depth) for key, value in zip(keys, values, strict=True)}

    def _property(self, key: str, raw: bytes, depth: int) -> Property:
        message = _message(wire.LazyPropertyValue, raw)
        try:
            data_type = data_type_of(message.type)
            return Property(data_type, None if message.is_null else self._value(message, data_type, depth))
        except ValueError as error:
            raise ValueError(f"property {key!r}: {error}") from error

    def _data_set(self, message: Any) -> DataSet:
        columns = [string(column) for column in self._spend(message.columns, "columns")]
        types = [data_type_of(index) for index in self._spend(message.types, "types")]
        if len(columns) != len(types):
            raise ValueError(f"a data set of {len(columns)} columns and {len(types)} types")
        if message.HasField("num_of_columns") and message.num_of_columns != len(columns):
            raise ValueError(f"a data set of {len(columns)} columns that says it has {message.num_of_columns}")
        for column, data_type in zip(columns, types, strict=True):
            if data_type not in BASIC:
                raise ValueError(f"column {column!r} has type {data_type.name}, which is no basic type")
        rows = self._spend(message.rows, "rows")
        return DataSet(columns, types, [self._row(types, row) for row in rows])

    def _row(self, types: Sequence[DataType], raw: bytes) -> list[MetricValue]:
        elements = self._spend(_message(wire.LazyRow, raw).elements, "cells")
        if len(elements) != len(types):
            raise ValueError(f"a row of {len(elements)} cells in a data set of {len(types)} columns")
        return [
            self._value(_message(wire.LazyDataSetValue, element), data_type, 0)
            for element, data_type in zip(elements, types, strict=True)
        ]

    def _template(self, message: Any, depth: int) -> Template:
        return Template(
            version=_given_text(message, "version"),
            metrics=tuple(self._member(raw, depth) for raw in self._spend(message.metrics, "members")),
            parameters=tuple(self._parameter(raw) for raw in self._spend(message.parameters, "parameters")),
            template_ref=_given_text(message, "template_ref"),
            is_definition=message.is_definition,
        )

    def _member(self, raw: bytes, depth: int) -> Metric:
        try:
            # A member's name is one within its template; the types of the birth say nothing of it.
            return self._metric(_message(wire.LazyMetric, raw), {}, depth)
        except ValueError as error:
            raise ValueError(f"member {_label(raw)!r}: {error}") from error

    def _parameter(self, raw: bytes) -> Parameter:
        message = _message(wire.LazyParameter, raw)
        data_type = data_type_of(message.type)
        if data_type not in BASIC and data_type is not DataType.UNKNOWN:
            raise ValueError(f"parameter {message.name!r} has type {data_type.name}, which is no basic type")
        return Parameter(string(message.name), data_type, self._value(message, data_type, 0))


def _metadata(message: Any) -> MetaData:
    return MetaData(
        is_multi_part=given(message, "is_multi_part"),
        content_type=_given_text(message, "content_type"),
        size=given(message, "size"),
        seq=given(message, "seq"),
        file_name=_given_text(message, "file_name"),
        file_type=_given_text(message, "file_type"),
        md5=_given_text(message, "md5"),
        description=_given_text(message, "description"),
    )


def _expect(field: str, expected: str, data_type: DataType) -> None:
    if field != expected:
        hint = " (legacy_uint32_in_long reads it)" if data_type in LEGACY and field == "long_value" else ""
        raise ValueError(f"{data_type.name} in {field}; it belongs in {expected}{hint}")
