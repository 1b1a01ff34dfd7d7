# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Writes one value to an OPC UA node: in the node's own type, not after its expiry, and read back."""

import asyncio
import math
import struct
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from shopfloor.protocols.opcua_session import Session, name_of
from shopfloor.protocols.opcua_values import plain, ticks_of
from shopfloor.samples import Command, Outcome, Unavailable, Value

_CODES: Final = StatusCodes
_PATIENCE: Final = 1.0
"""Seconds that a controller has to take the value over into what it reads out."""
_AGAIN: Final = 0.02
_SHOWN: Final = 100

_ADVICE: Final[Mapping[int, str]] = {
    _CODES.BadNotWritable: "the tag cannot be written on the server; make it writable there, or write another tag",
    _CODES.BadUserAccessDenied: "the user that Shopfloor logs in with may not write this tag; give it the right on the "
    "server, or log in as another user",
    _CODES.BadTypeMismatch: "the server expects another type",
    _CODES.BadOutOfRange: "the server says that the value is out of its range",
    _CODES.BadNodeIdUnknown: "the server does not know the node any more; correct `node`",
    _CODES.BadNodeIdInvalid: "the server does not know the node; correct `node`",
    _CODES.BadWriteNotSupported: "the server cannot write this tag",
    _CODES.BadDeviceFailure: "the server cannot reach the device",
    _CODES.BadNoCommunication: "the server has no connection to the device",
    _CODES.BadNotConnected: "the server has no connection to the device",
    _CODES.BadOutOfService: "the tag is out of service",
    _CODES.BadSecurityModeInsufficient: "the server asks for a secure connection to write; set `security`",
    _CODES.BadServiceUnsupported: "the server does not offer writing",
}
_UNKNOWN: Final = frozenset({_CODES.BadTimeout, _CODES.BadUnexpectedError, _CODES.BadInternalError})
"""After these nobody knows whether the value arrived."""

_INTEGERS: Final[Mapping[ua.VariantType, tuple[int, int]]] = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}
_ABSTRACT: Final[Mapping[int, ua.VariantType]] = {
    ObjectIds.Number: ua.VariantType.Double,
    ObjectIds.Integer: ua.VariantType.Int64,
    ObjectIds.UInteger: ua.VariantType.UInt64,
    ObjectIds.Enumeration: ua.VariantType.Int32,
}


class Unfit(ValueError):
    """The value does not fit the node's type."""


@dataclass(frozen=True)
class NodeType:
    """The built-in type that a node's value has on the wire."""

    kind: ua.VariantType
    array: bool


class Writer:
    """Executes commands on the nodes of one session."""

    def __init__(self, session: Session) -> None:
        """Reads nothing yet."""
        self._session = session
        self._types: dict[ua.NodeId, NodeType] = {}

    async def write(self, command: Command, node: ua.NodeId) -> Outcome:  # noqa: PLR0911  # one a way to fail
        """Write the command's value to the node and read it back; never twice."""
        try:
            kind = await self._type(node)
            value = convert(command.value, kind)
        except Unfit as error:
            return _not_done(command, str(error))
        except Unavailable as error:
            return _not_done(command, f"not written: {error}")
        except UaStatusCodeError as error:
            return _not_done(command, f"not written: {_why(int(error.code))}")
        request = ua.WriteRequest()
        variant = ua.Variant(value, kind.kind, is_array=kind.array)
        request.Parameters.NodesToWrite = [
            ua.WriteValue(NodeId=node, AttributeId=AttributeIds.Value, Value=ua.DataValue(variant))
        ]
        # Nothing is awaited between this check and the moment the request is handed to the socket.
        if time.time_ns() >= command.expires:
            return _not_done(command, "not written: the command expired before it could be sent")
        if not self._session.connected:
            return _not_done(command, "not written: the connection to the server is lost")
        try:
            (status,) = (await self._session.call(request, ua.WriteResponse)).Results
        except Unavailable as error:
            return _unknown(command, f"it is not known whether the value was written: {error}")
        except UaStatusCodeError as error:
            return self._refused(command, node, kind, int(error.code))
        if not status.is_good():
            return self._refused(command, node, kind, int(status.value))
        return await self._read_back(command, node, variant)

    def _refused(self, command: Command, node: ua.NodeId, kind: NodeType, status: int) -> Outcome:
        if status == _CODES.BadTypeMismatch:
            self._types.pop(node, None)  # the node's type has changed: read it again the next time
        if status in _UNKNOWN:
            return _unknown(command, f"it is not known whether the value was written ({name_of(status)})")
        sent = f"; {kind.kind.name} was sent, try again" if status == _CODES.BadTypeMismatch else ""
        return _not_done(command, f"not written: {_why(status)}{sent}")

    async def _type(self, node: ua.NodeId) -> NodeType:
        """The node's type, read once. Raises Unavailable, Unfit, UaStatusCodeError."""
        known = self._types.get(node)
        if known is not None:
            return known
        attributes = (AttributeIds.DataType, AttributeIds.ValueRank, AttributeIds.Value)
        declared, rank, current = await self._session.read([(node, a) for a in attributes])
        if declared.StatusCode is not None:
            declared.StatusCode.check()
        variant = current.Value
        if variant is not None and variant.VariantType != ua.VariantType.Null:
            kind = NodeType(variant.VariantType, array=bool(variant.is_array))
        else:
            ranks = None if rank.Value is None else rank.Value.Value
            array = isinstance(ranks, int) and ranks >= 0
            kind = NodeType(await self._built_in(None if declared.Value is None else declared.Value.Value), array=array)
        self._types[node] = kind
        return kind

    async def _built_in(self, data_type: object) -> ua.VariantType:
        """The built-in type behind a data type, by going up its supertypes."""
        for _ in range(20):
            if not isinstance(data_type, ua.NodeId):
                break
            number = data_type.Identifier if data_type.NamespaceIndex == 0 else None
            if isinstance(number, int):
                if 0 < number <= ua.VariantType.DiagnosticInfo.value and number != ObjectIds.BaseDataType:
                    return ua.VariantType(number)
                if number in _ABSTRACT:
                    return _ABSTRACT[number]
            data_type = await self._supertype(data_type)
        raise Unfit("not written: the server does not say which type the tag has")

    async def _supertype(self, data_type: ua.NodeId) -> ua.NodeId | None:
        request = ua.BrowseRequest()
        request.Parameters.NodesToBrowse = [
            ua.BrowseDescription(
                NodeId=data_type,
                BrowseDirection=ua.BrowseDirection.Inverse,
                ReferenceTypeId=ua.NodeId(ua.Int32(ObjectIds.HasSubtype)),
                IncludeSubtypes=True,
                NodeClassMask=ua.UInt32(ua.NodeClass.DataType),
                ResultMask=ua.UInt32(0),
            )
        ]
        (result,) = (await self._session.call(request, ua.BrowseResponse)).Results
        above = [r.NodeId for r in result.References or []]
        return ua.NodeId(above[0].Identifier, above[0].NamespaceIndex) if above else None

    async def _read_back(self, command: Command, node: ua.NodeId, written: ua.Variant) -> Outcome:
        """Read until the node holds what was written, for as long as a controller's cycle may take."""
        until = time.monotonic() + _PATIENCE
        wanted = plain(_comparable(written))
        while True:
            try:
                (found,) = await self._session.read([(node, AttributeIds.Value)])
            except (Unavailable, UaStatusCodeError) as error:
                return _unknown(command, f"the server took the value, but it could not be read back: {error}")
            status = 0 if found.StatusCode is None else int(found.StatusCode.value)
            reads = None if found.Value is None else plain(found.Value.Value)
            if not status >> 31 and _same(reads, wanted):
                return Outcome(command.id, done=True, detail="written and read back")
            if time.monotonic() >= until:
                seen = f"it reads {_shown(reads)}" if not status >> 31 else f"it reads {name_of(status)}"
                return _unknown(
                    command,
                    f"the server took {_shown(wanted)}, but {seen}: the controller may have changed or refused it; "
                    "look at the machine",
                )
            await asyncio.sleep(_AGAIN)


def _not_done(command: Command, detail: str) -> Outcome:
    return Outcome(command.id, done=False, detail=detail)


def _unknown(command: Command, detail: str) -> Outcome:
    return Outcome(command.id, done=None, detail=detail)


def _why(status: int) -> str:
    return f"{_ADVICE.get(status & 0xFFFF0000, 'the server refuses it')} ({name_of(status)})"


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _comparable(variant: ua.Variant) -> object:
    """What a node of this type reads after the write: a Float has fewer digits than what was asked for."""
    if variant.VariantType == ua.VariantType.Float:
        return _rounded(variant.Value)
    return cast("object", variant.Value)


def _rounded(value: Any) -> object:
    if isinstance(value, list):
        return [_rounded(v) for v in cast("list[object]", value)]
    return struct.unpack("<f", struct.pack("<f", value))[0]


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


def convert(value: Value, kind: NodeType) -> object:
    """The value in the node's type; arrays come as JSON text. Raises Unfit with what would fit."""
    if value is None:
        raise Unfit("not written: a value is needed")
    if kind.array:
        return _array(value, kind)
    return _scalar(value, kind.kind)


def _array(value: Value, kind: NodeType) -> list[object]:
    if not isinstance(value, str):
        raise Unfit(f"not written: the tag is an array of {kind.kind.name}; give JSON text like [1, 2, 3]")
    try:
        items = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Unfit(f"not written: the tag is an array; {value[:50]!r} is not JSON: {error}") from error
    if not isinstance(items, list):
        raise Unfit("not written: the tag is an array; give JSON text like [1, 2, 3]")
    return [_scalar(cast("Value", item), kind.kind) for item in cast("list[object]", items)]


def _scalar(value: Value, kind: ua.VariantType) -> object:
    if kind in _INTEGERS:
        return _integer(value, kind)
    converter = _CONVERTERS.get(kind)
    if converter is None:
        raise Unfit(f"not written: values of type {kind.name} cannot be written")
    return converter(value)


def _integer(value: Value, kind: ua.VariantType) -> int:
    low, high = _INTEGERS[kind]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit(f"not written: the tag takes whole numbers ({kind.name}), not {_shown(value)}")
    if not low <= value <= high:
        raise Unfit(f"not written: {value} is beyond {kind.name}: {low} to {high}")
    return value


def _boolean(value: Value) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"not written: the tag takes true and false, not {_shown(value)}")
    return value


def _float(value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"not written: the tag takes numbers, not {_shown(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise Unfit(f"not written: {value} is too large") from error


def _float32(value: Value) -> float:
    number = _float(value)
    try:
        struct.pack("<f", number)
    except OverflowError as error:
        raise Unfit(f"not written: {number} is beyond a 32-bit float") from error
    return number


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise Unfit(f"not written: the tag takes text, not {_shown(value)}")
    return value


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise Unfit(f"not written: the tag takes bytes, not {_shown(value)}")
    return value


def _moment(value: Value) -> object:
    try:
        return ua.win_epoch_to_datetime(ticks_of(_text(value)))
    except (ValueError, OverflowError) as error:
        raise Unfit(f"not written: {_shown(value)} is no time like 2026-03-29T06:00:00Z") from error


def _guid(value: Value) -> uuid.UUID:
    try:
        return uuid.UUID(_text(value))
    except ValueError as error:
        raise Unfit(f"not written: {_shown(value)} is no GUID") from error


_CONVERTERS: Final[Mapping[ua.VariantType, Callable[[Value], object]]] = {
    ua.VariantType.Boolean: _boolean,
    ua.VariantType.Float: _float32,
    ua.VariantType.Double: _float,
    ua.VariantType.String: _text,
    ua.VariantType.LocalizedText: lambda value: ua.LocalizedText(_text(value)),
    ua.VariantType.ByteString: _bytes,
    ua.VariantType.DateTime: _moment,
    ua.VariantType.Guid: _guid,
}
