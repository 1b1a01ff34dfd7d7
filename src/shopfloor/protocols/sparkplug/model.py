"""What a Sparkplug payload says, as values: metrics with their types, data sets, templates, properties.

Names are the specification's (Sparkplug 3.0, chapter 6). Times are milliseconds since 1970, UTC, as on the
wire; who takes samples out of them makes nanoseconds.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

import msgspec


class DataType(IntEnum):
    """Every data type of Sparkplug 3.0 with its index on the wire."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13
    TEXT = 14
    UUID = 15
    DATA_SET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATE_TIME_ARRAY = 34


class MetaData(msgspec.Struct, frozen=True, kw_only=True):
    """What a metric says of its own value."""

    is_multi_part: bool | None = None
    content_type: str | None = None
    size: int | None = None
    seq: int | None = None
    file_name: str | None = None
    file_type: str | None = None
    md5: str | None = None
    description: str | None = None


class DataSet(msgspec.Struct, frozen=True):
    """A table: names and types of columns, rows of values."""

    columns: Sequence[str]
    types: Sequence[DataType]
    rows: "Sequence[Sequence[MetricValue]]"


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a template."""

    name: str
    type: DataType
    value: "MetricValue"


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template definition (``is_definition``) or an instance of the definition named by ``template_ref``."""

    version: str | None = None
    metrics: "Sequence[Metric]" = ()
    parameters: Sequence[Parameter] = ()
    template_ref: str | None = None
    is_definition: bool = False


class Property(msgspec.Struct, frozen=True):
    """The value of one key of a property set; ``value`` None is null."""

    type: DataType
    value: "MetricValue"


PropertySet = Mapping[str, Property]

MetricValue = (
    bool | int | float | str | bytes | None | DataSet | Template | PropertySet | Sequence[PropertySet]
    | Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[str]
)  # fmt: skip
"""A value in Python's own type: DateTime is an int of ms, UUID a str, arrays are sequences."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. ``type`` is None where the message leaves it out (data messages by alias)."""

    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    type: DataType | None = None
    is_historical: bool = False
    is_transient: bool = False
    is_null: bool = False
    metadata: MetaData | None = None
    properties: PropertySet | None = None
    value: MetricValue = None


class Fault(msgspec.Struct, frozen=True):
    """A metric that could not be read; the others of its payload could."""

    index: int
    """Position in the payload."""
    name: str
    reason: str


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """A whole payload; ``faults`` are the metrics that could not be read."""

    timestamp: int | None = None
    metrics: Sequence[Metric] = ()
    seq: int | None = None
    uuid: str | None = None
    body: bytes | None = None
    faults: Sequence[Fault] = ()
