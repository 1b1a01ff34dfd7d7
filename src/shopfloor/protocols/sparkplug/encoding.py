"""The values of ``model`` to the bytes of a Sparkplug payload; ``payload`` says what is written and how."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.codecs import BASIC, FLAT, LEGACY, Codec, sequence_of, string
from shopfloor.protocols.sparkplug.limits import deeper
from shopfloor.protocols.sparkplug.model import (
    DataSet,
    DataType,
    MetaData,
    Metric,
    Payload,
    Property,
    PropertySet,
    Template,
)


def encode(payload: Payload, *, datatypes: bool = True, legacy_uint32_in_long: bool = False) -> bytes:
    """The bytes of a payload.

    Every metric with a value needs its ``type``; ``datatypes`` False leaves the types of the payload's own metrics
    off the wire, as data and command messages should. ``legacy_uint32_in_long`` writes UInt32 into ``long_value``.
    A value None without ``is_null`` writes no value. Raises ValueError that names the metric and what is wrong.
    """
    message = wire.Payload()
    _set(message, payload, ("timestamp", "seq", "uuid", "body"))
    writer = _Writer(legacy_uint32_in_long)
    for metric in payload.metrics:
        writer.metric(message.metrics.add(), metric, 0)
    if not datatypes:
        for written in message.metrics:
            written.ClearField("datatype")
    return cast("bytes", message.SerializeToString())


def _set(message: Any, source: object, fields: Sequence[str]) -> None:
    """Set the fields of which ``source`` says something."""
    for field in fields:
        value = getattr(source, field)
        if value is not None:
            try:
                setattr(message, field, value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{field}: {value!r} does not fit: {error}") from error


class _Writer:
    """Writes what nests."""

    def __init__(self, legacy: bool) -> None:  # noqa: FBT001  # private
        self._codecs = FLAT | LEGACY if legacy else FLAT

    def metric(self, message: Any, metric: Metric, depth: int) -> None:
        try:
            _set(message, metric, ("name", "alias", "timestamp"))
            if metric.type is not None:
                message.datatype = int(metric.type)
            for flag in ("is_historical", "is_transient", "is_null"):
                if getattr(metric, flag):
                    setattr(message, flag, True)
            if metric.metadata is not None:
                message.metadata.SetInParent()
                _set(message.metadata, metric.metadata, MetaData.__struct_fields__)
            if metric.properties is not None:
                message.properties.SetInParent()
                self._properties(message.properties, metric.properties, depth)
            if metric.value is not None:
                self._metric_value(message, metric, depth)
        except ValueError as error:
            raise ValueError(f"metric {metric.name or metric.alias!r}: {error}") from error

    def _metric_value(self, message: Any, metric: Metric, depth: int) -> None:
        value = metric.value
        if metric.is_null:
            raise ValueError("is_null and a value at once")
        if metric.type is DataType.DATA_SET and isinstance(value, DataSet):
            self._data_set(message.dataset_value, value)
        elif metric.type is DataType.TEMPLATE and isinstance(value, Template):
            self._template(message.template_value, value, deeper(depth))
        else:
            self._flat(message, metric.type, value, FLAT)

    def _flat(self, message: Any, data_type: DataType | None, value: object, allowed: Mapping[DataType, Codec]) -> None:
        """A value that does not nest, of one of the ``allowed`` types."""
        if data_type is None:
            raise ValueError(f"{value!r} needs its data type")
        if data_type not in allowed:
            raise ValueError(f"{type(value).__name__} is no value for {data_type.name} here")
        codec = self._codecs[data_type]
        try:
            setattr(message, codec.field, codec.write(value))
        except ValueError as error:
            raise ValueError(f"{data_type.name}: {error}") from error

    def _properties(self, message: Any, properties: PropertySet, depth: int) -> None:
        for key, item in properties.items():
            message.keys.append(string(key))
            try:
                self._property(message.values.add(), item, depth)
            except ValueError as error:
                raise ValueError(f"property {key!r}: {error}") from error

    def _property(self, message: Any, item: Property, depth: int) -> None:
        message.type = int(item.type)
        if item.value is None:
            message.is_null = True
        elif item.type is DataType.PROPERTY_SET and isinstance(item.value, Mapping):
            message.propertyset_value.SetInParent()
            self._properties(message.propertyset_value, item.value, deeper(depth))
        elif item.type is DataType.PROPERTY_SET_LIST:
            below = deeper(depth)
            message.propertysets_value.SetInParent()
            for properties in cast("Sequence[PropertySet]", sequence_of(item.value)):
                self._properties(message.propertysets_value.propertyset.add(), properties, below)
        else:
            self._flat(message, item.type, item.value, BASIC)

    def _data_set(self, message: Any, table: DataSet) -> None:
        if len(table.columns) != len(table.types):
            raise ValueError(f"a data set of {len(table.columns)} columns and {len(table.types)} types")
        message.num_of_columns = len(table.columns)
        message.columns.extend(string(column) for column in table.columns)
        message.types.extend(int(data_type) for data_type in table.types)
        for number, row in enumerate(table.rows, start=1):
            if len(row) != len(table.types):
                raise ValueError(f"row {number} has {len(row)} cells in a data set of {len(table.types)} columns")
            elements = message.rows.add().elements
            for data_type, value in zip(table.types, row, strict=True):
                cell = elements.add()
                if value is not None:
                    self._flat(cell, data_type, value, BASIC)

    def _template(self, message: Any, template: Template, depth: int) -> None:
        if template.is_definition and template.template_ref is not None:
            raise ValueError("a template definition has no template_ref")
        if not template.is_definition and template.template_ref is None:
            raise ValueError("a template instance needs the template_ref of its definition")
        message.is_definition = template.is_definition
        _set(message, template, ("version", "template_ref"))
        for member in template.metrics:
            self.metric(message.metrics.add(), member, depth)
        for parameter in template.parameters:
            written = message.parameters.add()
            written.name = string(parameter.name)
            written.type = int(parameter.type)
            if parameter.value is not None:
                self._flat(written, parameter.type, parameter.value, BASIC)
