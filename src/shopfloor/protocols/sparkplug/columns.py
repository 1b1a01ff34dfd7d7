"""Payloads of plain scalar metrics as columns: the usual data message, many times as fast as metric by metric."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError

from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.codecs import BASIC, FLAT
from shopfloor.protocols.sparkplug.decoding import Types, frame_of, given
from shopfloor.protocols.sparkplug.model import DataType


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """A payload of plain scalar metrics as columns; all have one length, but see ``names`` and ``aliases``."""

    timestamp: int | None
    seq: int | None
    names: list[str]
    """Empty where the message has no names."""
    aliases: list[int]
    """Empty where the message has no aliases."""
    timestamps: list[int]
    """ms; the payload's where the metrics have none."""
    types: list[DataType]
    values: list[bool | int | float | str]
    historical: list[bool]


def decode_columns(data: bytes, types: Types | None = None) -> Columns | None:
    """A payload whose metrics are all plain scalars, as columns; None where one is not, then ``decode`` reads it.

    Plain: a type of int, float, boolean or text that is given or in ``types``, a timestamp, a value, no null, not
    transient, neither properties nor metadata. ``types`` as in ``decode``. Raises Malformed like ``decode``.

    A field that one metric has twice while another lacks it is not noticed; nobody's protobuf writes that.
    """
    frame = frame_of(data)
    try:
        columns = wire.ColumnPayload.FromString(data).metrics
        return _columns(frame, columns, types or {})
    except (DecodeError, ValueError):
        return None  # decode() tells which metric it is


def _columns(frame: Any, columns: Any, types: Types) -> Columns | None:
    size = len(frame.metrics)
    if columns.properties or columns.metadata or any(columns.is_null) or any(columns.is_transient):
        return None
    names, aliases = list(columns.name), list(columns.alias)
    timestamps = list(columns.timestamp) or list(repeat(frame.timestamp, size))
    historical = list(columns.is_historical) or list(repeat(False, size))
    kinds = _column_types(names, aliases, columns.datatype, types)
    values = _column_values(frame.metrics, columns, kinds)
    if values is None or len(kinds) != size or len(timestamps) != size or len(historical) != size:
        return None
    if bytes in map(type, names) or bytes in map(type, columns.string_value):
        return None  # no UTF-8
    if {len(names), len(aliases)} - {0, size} or not (columns.timestamp or frame.HasField("timestamp")):
        return None
    return Columns(
        timestamp=given(frame, "timestamp"),
        seq=given(frame, "seq"),
        names=names,
        aliases=aliases,
        timestamps=timestamps,
        types=kinds,
        values=values,
        historical=historical,
    )


_PLAIN: Final = BASIC | {DataType.UUID: FLAT[DataType.UUID]}
_PLAIN_TYPES: Final = {int(data_type): data_type for data_type in _PLAIN}
_SMALL: Final = {
    DataType.INT8: 2**7 - 1,
    DataType.INT16: 2**15 - 1,
    DataType.INT32: 2**31 - 1,
    DataType.INT64: 2**63 - 1,
    DataType.UINT8: 2**8 - 1,
    DataType.UINT16: 2**16 - 1,
}
"""Up to here a value on the wire is what it is in Python; those of the types that are not here always are."""
_SIGNED: Final = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)


def _column_types(names: list[str], aliases: list[int], given: Sequence[int], types: Types) -> list[DataType]:
    """The type of each metric; fewer than there are metrics where one is not plain or not known."""
    if given:
        return [_PLAIN_TYPES[index] for index in given if index in _PLAIN_TYPES]
    keys: Sequence[int | str] = aliases or names
    return [data_type for data_type in map(types.get, keys) if data_type is not None and data_type in _PLAIN]


def _column_values(frames: Sequence[bytes], columns: Any, types: list[DataType]) -> list[Any] | None:
    """The value of each metric; None where one has none or has it in another field than its type says."""
    # As many values as metrics: then a type that has its own has them all.
    size = sum(len(getattr(columns, field)) for field in _SCALAR_FIELDS)
    if not len(types) == len(frames) == size:
        return None
    distinct = set(types)
    if len(distinct) == 1:
        return _column(columns, types[0], size)
    # The columns of several types do not say which metric has which value; those of one type do.
    groups: dict[DataType, list[bytes]] = {data_type: [] for data_type in distinct}
    for data_type, metric in zip(types, frames, strict=True):
        groups[data_type].append(metric)
    feeds: dict[DataType, Iterator[Any]] = {}
    for data_type, members in groups.items():
        values = _column(wire.ColumnMetric.FromString(b"".join(members)), data_type, len(members))
        if values is None:
            return None
        feeds[data_type] = iter(values)
    return list(map(next, map(feeds.__getitem__, types)))


def _column(columns: Any, data_type: DataType, size: int) -> list[Any] | None:
    """The values of ``size`` metrics of one type; None where not all have one, in the field of the type."""
    codec = _PLAIN[data_type]
    values = list(getattr(columns, codec.field))
    if len(values) != size:
        return None
    high = _SMALL.get(data_type)
    if high is None or max(values) <= high:
        return values
    if data_type in _SIGNED:
        whole = 2**64 if data_type is DataType.INT64 else 2**32
        values = [value if value <= high else value - whole for value in values]
        if min(values) >= -high - 1:
            return values
        values = list(getattr(columns, codec.field))  # some are in their own width
    return list(map(codec.read, values))


_SCALAR_FIELDS: Final = ("int_value", "long_value", "float_value", "double_value", "boolean_value", "string_value")
