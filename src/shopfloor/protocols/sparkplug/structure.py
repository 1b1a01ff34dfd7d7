"""What is wrong with one metric as it stands on the wire, without knowing its node: types, tables, templates.

It reads the protobuf messages themselves, because a value that was made of them no longer says what was left out.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from shopfloor.protocols.sparkplug.assertions import ADVICE, RULES
from shopfloor.protocols.sparkplug.model import DataType

_BASIC: Final = range(DataType.INT8, DataType.TEXT + 1)
_KNOWN: Final = range(DataType.INT8, DataType.DATE_TIME_ARRAY + 1)
_OF_PROPERTIES: Final = frozenset({*_BASIC, DataType.PROPERTY_SET, DataType.PROPERTY_SET_LIST})
_QUALITIES: Final = (0, 192, 500)
_DEEPEST: Final = 32
_DETAILS: Final = 3
"""How many places a finding names; a birth may have a hundred thousand."""
_FIELDS: Final[Mapping[int, str]] = {
    **dict.fromkeys(range(DataType.INT8, DataType.INT32 + 1), "int_value"),
    **dict.fromkeys(range(DataType.UINT8, DataType.UINT32 + 1), "int_value"),
    **dict.fromkeys((DataType.INT64, DataType.UINT64, DataType.DATE_TIME), "long_value"),
    DataType.FLOAT: "float_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    **dict.fromkeys((DataType.STRING, DataType.TEXT, DataType.UUID), "string_value"),
    DataType.DATA_SET: "dataset_value",
    DataType.TEMPLATE: "template_value",
    **dict.fromkeys((DataType.BYTES, DataType.FILE), "bytes_value"),
    **dict.fromkeys(range(DataType.INT8_ARRAY, DataType.DATE_TIME_ARRAY + 1), "bytes_value"),
}
"""Where the value of a type stands."""


class Finding(msgspec.Struct, frozen=True):
    """What a message breaks."""

    rule: str
    """A key of ``assertions.RULES``."""
    text: str
    """What is wrong and what should be there, for the person who has to mend it."""

    @property
    def assertions(self) -> tuple[str, ...]:
        """The identifiers of the specification; empty where its text has none."""
        return RULES[self.rule]

    @property
    def advice(self) -> bool:
        """Whether the specification only recommends it."""
        return self.rule in ADVICE


class Report:
    """Gathers what is wrong with one message; the same fault of many metrics is one finding."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, rule: str, text: str) -> None:
        """Note a breach of ``rule``, a key of ``assertions.RULES``."""
        self._counts[rule] += 1
        if self._counts[rule] <= _DETAILS:
            self._texts[rule].append(text)

    def findings(self) -> list[Finding]:
        """One finding per rule, in the order of their first breach."""
        return [Finding(rule, "; ".join((*texts, *self._rest(rule)))) for rule, texts in self._texts.items()]

    def _rest(self, rule: str) -> Iterator[str]:
        if self._counts[rule] > _DETAILS:
            yield f"and {self._counts[rule] - _DETAILS} more"


def fits(metric: Any, datatype: int) -> bool:
    """Whether a metric's value stands where values of the type do. No value fits every type."""
    field: str | None = metric.WhichOneof("value")
    return field is None or _FIELDS.get(datatype) == field


def check_metric(metric: Any, verb: str, name: str, report: Report) -> None:
    """Look at a metric of a message of type ``verb`` (``NBIRTH`` …); ``name`` is how the report calls it."""
    if metric.HasField("datatype"):
        _check_type(metric, name, report)
    if metric.HasField("properties"):
        _check_properties(metric.properties, verb, name, report, 0)
    _check_value(metric, verb, name, report, 0)


def _check_type(metric: Any, name: str, report: Report) -> None:
    if metric.datatype not in _KNOWN:
        report.add("datatype", f"{name}: {metric.datatype} is no data type; they are 1 to 34")
    elif not fits(metric, metric.datatype):
        report.add(
            "value of another type",
            f"{name}: a value of type {DataType(metric.datatype).name} belongs into {_FIELDS[metric.datatype]}, "
            f"this one is in {metric.WhichOneof('value')}",
        )


def _check_value(metric: Any, verb: str, name: str, report: Report, depth: int) -> None:
    match metric.WhichOneof("value"):
        case "dataset_value":
            _check_data_set(metric.dataset_value, name, report)
        case "template_value" if depth < _DEEPEST:
            _check_template(metric.template_value, verb, name, report, depth)
        case _:
            pass


# ---- properties ---------------------------------------------------------------------------------------


def _check_properties(found: Any, verb: str, name: str, report: Report, depth: int) -> None:
    keys: Sequence[str] = found.keys
    if len(keys) != len(found.values):
        report.add(
            "property set sizes", f"{name}: {len(keys)} keys and {len(found.values)} values; each key has one value"
        )
    for key, value in zip(keys, found.values, strict=False):
        _check_property(value, verb, f"{name}, property {key}", report, depth)
        if key == "Quality" and depth == 0:
            _check_quality(value, name, report)


def _check_property(value: Any, verb: str, where: str, report: Report, depth: int) -> None:
    if not value.HasField("type"):
        if verb.endswith("BIRTH"):
            report.add("property type missing", f"{where} has no type; in births it needs one")
    elif value.type not in _OF_PROPERTIES:
        report.add("property type", f"{where}: {value.type} is no type of a property; they are 1 to 14, 20 and 21")
    if depth >= _DEEPEST:
        return
    match value.WhichOneof("value"):
        case "propertyset_value":
            _check_properties(value.propertyset_value, verb, where, report, depth + 1)
        case "propertysets_value":
            for inner in value.propertysets_value.propertyset:
                _check_properties(inner, verb, where, report, depth + 1)
        case _:
            pass


def _check_quality(value: Any, name: str, report: Report) -> None:
    if value.HasField("type") and value.type != DataType.INT32:
        report.add("quality type", f"{name}: Quality has type {value.type}; it is always 3, Int32")
    if value.WhichOneof("value") != "int_value" or value.int_value not in _QUALITIES:
        report.add("quality value", f"{name}: Quality is an int_value of 0 (bad), 192 (good) or 500 (stale)")


# ---- data sets ----------------------------------------------------------------------------------------


def _check_data_set(table: Any, name: str, report: Report) -> None:
    columns, types = len(table.columns), len(table.types)
    if not table.HasField("num_of_columns") or table.num_of_columns != columns:
        report.add(
            "dataset column count", f"{name}: num_of_columns is {table.num_of_columns}, there are {columns} columns"
        )
    if columns and not types:
        report.add("dataset types missing", f"{name}: the data set says no types")
    elif columns != types:
        report.add("dataset types count", f"{name}: {columns} columns and {types} types; each column has one type")
    for datatype in table.types:
        if datatype not in _BASIC:
            report.add("dataset type", f"{name}: {datatype} is no type of a column; they are 1 to 14")
    for number, row in enumerate(table.rows):
        if len(row.elements) != columns:
            report.add("dataset row", f"{name}: row {number} has {len(row.elements)} cells for {columns} columns")
        # A cell's oneof knows only scalars; anything else was skipped by protobuf and leaves bytes behind.
        if any(cell.WhichOneof("value") is None and _unread(cell) for cell in row.elements):
            report.add("dataset cell", f"{name}: row {number} has a cell that is no number, text or boolean")


# ---- templates ----------------------------------------------------------------------------------------


def _check_template(template: Any, verb: str, name: str, report: Report, depth: int) -> None:
    if not template.HasField("is_definition"):
        report.add("is_definition missing", f"{name}: the template does not say is_definition")
    if template.is_definition:
        if verb != "NBIRTH":
            report.add("definition outside NBIRTH", f"{name}: a template is defined in {verb}; only NBIRTH may")
        if template.HasField("template_ref"):
            report.add("definition with ref", f"{name}: the definition refers to {template.template_ref!r}")
    elif not template.HasField("template_ref") or not template.template_ref:
        report.add("instance without ref", f"{name}: the instance does not name its definition in template_ref")
    for parameter in template.parameters:
        _check_parameter(parameter, verb, name, report)
    for member in template.metrics:
        inner = f"{name}/{member.name}"
        if member.HasField("datatype"):
            _check_type(member, inner, report)
        _check_value(member, verb, inner, report, depth + 1)


def _check_parameter(parameter: Any, verb: str, name: str, report: Report) -> None:
    where = f"{name}, parameter {parameter.name or '?'}"
    if not parameter.name:
        report.add("parameter name", f"{name}: a parameter has no name")
    if not parameter.HasField("type"):
        if verb == "NBIRTH":
            report.add("parameter type missing", f"{where} has no type")
    elif parameter.type not in _BASIC:
        report.add("parameter type", f"{where}: {parameter.type} is no type of a parameter; they are 1 to 14")
    if parameter.WhichOneof("value") is None and _unread(parameter):
        report.add("parameter value", f"{where} has a value that is no number, text or boolean")


def _unread(message: Any) -> bool:
    """Whether the message carries fields that its description does not know."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return bool(message.ByteSize() > known.ByteSize())
