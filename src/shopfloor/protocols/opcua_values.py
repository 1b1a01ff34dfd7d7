# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""OPC UA values, times and status codes as the values, times and qualities that travel through Shopfloor."""

import base64
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, cast

import orjson
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes

from shopfloor.samples import INT_MAX, INT_MIN, Quality, Value

EPOCH: Final = 116_444_736_000_000_000
"""1970-01-01 in the unit of an OPC UA DateTime: 100 ns since 1601-01-01."""
LAST: Final = EPOCH + (2**63 - 1) // 100
"""The first OPC UA DateTime that int64 nanoseconds cannot hold."""
_YEAR_1601: Final = datetime(1601, 1, 1, tzinfo=UTC)
_YEAR_9999: Final = int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _YEAR_1601).total_seconds()) * 10**7

_INFO_MASK, _INFO_DATA_VALUE = 0x0C00, 0x0400
OVERFLOW: Final = _INFO_DATA_VALUE | 0x80
"""Info type DataValue with the overflow bit: the server's queue was full and dropped values (OPC 10000-4, 7.39)."""

_CODES: Final = StatusCodes
_QUALITIES: Final[Mapping[int, Quality]] = {
    # OPC 10000-8, A.4.3.3
    _CODES.GoodLocalOverride: Quality.LOCAL_OVERRIDE,
    _CODES.UncertainSubNormal: Quality.SUB_NORMAL,
    _CODES.UncertainSensorNotAccurate: Quality.SENSOR_NOT_ACCURATE,
    _CODES.UncertainEngineeringUnitsExceeded: Quality.ENGINEERING_UNITS_EXCEEDED,
    _CODES.UncertainLastUsableValue: Quality.LAST_USABLE,
    _CODES.BadConfigurationError: Quality.CONFIGURATION_ERROR,
    _CODES.BadNotConnected: Quality.NOT_CONNECTED,
    _CODES.BadNoCommunication: Quality.COMMUNICATION_FAILURE,
    _CODES.BadOutOfService: Quality.OUT_OF_SERVICE,
    _CODES.BadDeviceFailure: Quality.DEVICE_FAILURE,
    _CODES.BadSensorFailure: Quality.SENSOR_FAILURE,
    _CODES.BadWaitingForInitialData: Quality.WAITING_FOR_INITIAL_DATA,
    # 6.3.2 of the same part: what the fieldbuses call "last known"
    _CODES.UncertainNoCommunicationLastUsableValue: Quality.LAST_USABLE,
    # codes of Part 4 that say "the tag is written down wrongly" rather than "the process is bad"
    _CODES.BadNodeIdUnknown: Quality.CONFIGURATION_ERROR,
    _CODES.BadNodeIdInvalid: Quality.CONFIGURATION_ERROR,
    _CODES.BadAttributeIdInvalid: Quality.CONFIGURATION_ERROR,
    _CODES.BadNotReadable: Quality.CONFIGURATION_ERROR,
    _CODES.BadUserAccessDenied: Quality.CONFIGURATION_ERROR,
}
_SEVERITIES: Final = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD)
_STATUSES: Final[Mapping[int, int]] = {
    **{quality: code for code, quality in reversed(list(_QUALITIES.items()))},  # of several codes the first
    # "communications have failed, but a last known value is available" (OPC Data Access 3.0, 6.8)
    Quality.LAST_KNOWN: _CODES.BadNoCommunication,
}
_LIMITS: Final = 3


def quality(status: int) -> int:
    """The OPC quality of a StatusCode: severity and subcode by OPC 10000-8 A.4.3.3, limit bits passed on."""
    if not status:
        return Quality.GOOD
    known = _QUALITIES.get(status & 0xFFFF0000)
    limits = (status >> 8) & 3 if status & _INFO_MASK == _INFO_DATA_VALUE else 0
    return (_SEVERITIES[status >> 30] if known is None else known) | limits


def status_of(quality: int) -> int:
    """The StatusCode of an OPC quality; one whose subcode has none there keeps its severity and limit bits."""
    limits = quality & _LIMITS
    code = _STATUSES.get(quality & ~_LIMITS)
    if code is None:
        code = 0 if quality >= Quality.GOOD else _CODES.Uncertain if quality >= Quality.UNCERTAIN else _CODES.Bad
    return code | (_INFO_DATA_VALUE | limits << 8 if limits else 0)


def overflowed(status: int) -> bool:
    """Whether the server says that values before this one were lost."""
    return status & OVERFLOW == OVERFLOW


def nanoseconds(ticks: int, picoseconds: int = 0) -> int:
    """An OPC UA DateTime (100 ns since 1601) as ns since 1970; 0 when it is none or beyond int64.

    ``picoseconds`` is the picoseconds field as it is encoded, in units of 10 ps.
    """
    return (ticks - EPOCH) * 100 + picoseconds // 100 if EPOCH < ticks < LAST else 0


def ticks_at(time: int) -> int:
    """Ns since 1970 as an OPC UA DateTime; what is below 100 ns is cut off."""
    return EPOCH + time // 100


def iso(ticks: int) -> str:
    """An OPC UA DateTime as ISO 8601 text with its full 100 ns; the ends of its range stay recognisable."""
    if ticks <= 0:
        return "0001-01-01T00:00:00Z"
    if ticks >= _YEAR_9999:
        return "9999-12-31T23:59:59Z"
    seconds, rest = divmod(ticks, 10**7)
    text = (_YEAR_1601 + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:07d}Z" if rest else f"{text}Z"


def ticks_of(text: str) -> int:
    """ISO 8601 text as an OPC UA DateTime; text without an offset is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _YEAR_1601
    return (since.days * 86400 + since.seconds) * 10**7 + since.microseconds * 10


def text_of(raw: bytes) -> str:
    """UTF-8 text; bytes that are none become U+FFFD, so that everything downstream can store it."""
    return raw.decode("utf-8", "replace")


def _clean(text: str) -> str:
    """Text from asyncua's decoder, which lets bytes that are not UTF-8 through as lone surrogates."""
    return text if text.isascii() else text_of(text.encode("utf-8", "surrogateescape"))


def plain(value: object) -> Value:
    """A decoded OPC UA value as a Value: scalars as they are, arrays and structures as JSON text."""
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):  # IntEnum included
        return int(value) if INT_MIN <= value <= INT_MAX else str(int(value))
    converted = json_ready(value)
    if converted is None or isinstance(converted, str | bool | int | float):
        return converted
    return orjson.dumps(converted, option=orjson.OPT_NON_STR_KEYS).decode()


_TEXTS: Final[Mapping[type, Callable[[Any], object]]] = {
    uuid.UUID: str,
    datetime: lambda moment: iso(ua.datetime_to_win_epoch(moment)),
    ua.LocalizedText: lambda text: None if text.Text is None else _clean(text.Text),
    ua.QualifiedName: lambda name: _clean(name.to_string()),
    ua.NodeId: lambda node: _clean(node.to_string()),
    ua.ExpandedNodeId: lambda node: _clean(node.to_string()),
    ua.StatusCode: lambda status: status.value,
    ua.XmlElement: lambda element: None if element.Value is None else _clean(str(element.Value)),
    ua.ExtensionObject: lambda unknown: raw_structure(unknown.TypeId, unknown.Body),
    ua.Variant: lambda inner: json_ready(inner.Value),
}


def raw_structure(type_id: ua.NodeId, body: bytes | None) -> object:
    """A structure whose type is not known here: its encoding's node id and its bytes, so nothing is lost."""
    if body is None and not type_id.Identifier:
        return None
    return {"type": type_id.to_string(), "body": None if body is None else base64.b64encode(body).decode()}


_EXACT: Final = frozenset({bool, int, float})


def _numeric(values: Sequence[object]) -> bool:
    """Whether JSON has words for all of them as they are."""
    kinds = set(map(type, values))
    return kinds <= _EXACT and (float not in kinds or all(map(math.isfinite, cast("Sequence[float]", values))))


def json_ready(value: object) -> object:  # noqa: C901, PLR0911  # a table of types
    """What of JSON stands for a decoded value: NaN and infinities as words, bytes as base64."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return (
            value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        )
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        if _numeric(cast("list[object]", value)):
            return cast("list[object]", value)
        return [json_ready(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in cast("dict[object, object]", value).items()}
    if (known := _TEXTS.get(type(value))) is not None:
        return known(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_ready(getattr(value, field.name)) for field in fields(value)}
    return str(value)
