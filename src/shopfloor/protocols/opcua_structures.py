# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Decodes the structures that a server defines itself, by asking the server for their definitions.

asyncua can load them too, but into one registry of the whole process, where the types of two servers
with the same node ids would mix. Here each session has its own. A structure whose definition is not
known yet is passed on as its type and bytes and remembered in ``wanted``; ``learn`` asks for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import unpack_uatype
from asyncua.ua.uaerrors import UaStatusCodeError

from shopfloor.protocols.opcua_session import Session

_DEEPEST: Final = 20
_BUILT_IN: Final = 25
_BASE: Final = 24
_ENUMERATION: Final = ObjectIds.Enumeration
_PLAIN, _OPTIONAL, _UNION = 0, 1, 2

_Read = Callable[[Buffer], object]


class _Unknown(Exception):
    """The server does not say enough of a type."""


@dataclass
class _Field:
    name: str
    read: _Read
    rank: int
    optional: bool


@dataclass
class _Structure:
    kind: int
    fields: list[_Field]

    def __call__(self, data: Buffer) -> dict[str, object]:
        if self.kind == _UNION:
            switch = _uint32(data)
            if not switch:
                return {}
            chosen = self.fields[switch - 1]
            return {chosen.name: _value(chosen, data)}
        mask = _uint32(data) if self.kind == _OPTIONAL else 0
        found: dict[str, object] = {}
        bit = 0
        for field in self.fields:
            if field.optional and self.kind == _OPTIONAL:
                present = mask >> bit & 1
                bit += 1
                if not present:
                    continue
            found[field.name] = _value(field, data)
        return found


def _uint32(data: Buffer) -> int:
    return int.from_bytes(data.read(4), "little")


def _int32(data: Buffer) -> int:
    return int.from_bytes(data.read(4), "little", signed=True)


def _value(field: _Field, data: Buffer) -> object:
    if field.rank < 0:
        return field.read(data)
    if field.rank > 1:
        dimensions = [_int32(data) for _ in range(max(_int32(data), 0))]
        return _shaped([field.read(data) for _ in range(_counted(math.prod(dimensions), data))], dimensions)
    return [field.read(data) for _ in range(_counted(_int32(data), data))]


def _counted(count: int, data: Buffer) -> int:
    if count > len(data):  # every element has at least one byte: a count beyond that is not meant so
        raise ValueError("an array is longer than its structure")
    return max(count, 0)


def _shaped(flat: list[object], dimensions: list[int]) -> list[object]:
    for size in reversed(dimensions[1:]):
        flat = [flat[i : i + size] for i in range(0, len(flat), max(size, 1))]
    return flat


class StructureTypes:
    """The structures of one server, known so far."""

    def __init__(self, session: Session) -> None:
        """Knows none yet."""
        self._session = session
        self._known: dict[ua.NodeId, _Read | None] = {}
        self._readers: dict[ua.NodeId, _Read] = {}
        self.wanted: set[ua.NodeId] = set()
        """Encodings that were met and are not known."""

    def __call__(self, encoding: ua.NodeId, body: bytes) -> object:
        """The structure in ``body``; raises KeyError when its type is not known, ValueError when it does not fit."""
        if encoding.NamespaceIndex == 0 and encoding in ua.extension_objects_by_typeid:
            raise KeyError(encoding)  # a type of the standard
        if encoding not in self._known:
            self.wanted.add(encoding)
            raise KeyError(encoding)
        read = self._known[encoding]
        if read is None:
            raise KeyError(encoding)
        data = Buffer(body)
        found = read(data)
        if len(data):
            raise ValueError("a structure is longer than its definition")
        return found

    async def learn(self) -> None:
        """Ask the server for the definitions of what is wanted. Raises Unavailable."""
        while self.wanted:
            encoding = self.wanted.pop()
            self._known[encoding] = None
            try:
                self._known[encoding] = await self._reader(await self._related(encoding, ObjectIds.HasEncoding), 0)
            except (UaStatusCodeError, _Unknown):
                continue  # it stays as type and bytes

    async def _related(self, node: ua.NodeId, reference: int) -> ua.NodeId:
        """The one node that refers to ``node``: the data type of an encoding, the supertype of a type."""
        request = ua.BrowseRequest()
        request.Parameters.NodesToBrowse = [
            ua.BrowseDescription(
                NodeId=node,
                BrowseDirection=ua.BrowseDirection.Inverse,
                ReferenceTypeId=ua.NodeId(ua.Int32(reference)),
                IncludeSubtypes=True,
                NodeClassMask=ua.UInt32(ua.NodeClass.DataType),
                ResultMask=ua.UInt32(0),
            )
        ]
        (result,) = (await self._session.call(request, ua.BrowseResponse)).Results
        if not result.References:
            raise _Unknown
        found = result.References[0].NodeId
        return ua.NodeId(found.Identifier, found.NamespaceIndex, found.NodeIdType)

    async def _reader(self, data_type: ua.NodeId, depth: int) -> _Read:
        """What reads a value of this type; raises _Unknown."""
        if depth > _DEEPEST:
            raise _Unknown
        number = data_type.Identifier if data_type.NamespaceIndex == 0 else None
        if isinstance(number, int):
            if 0 < number <= _BUILT_IN:
                # BaseDataType as a field's type means a Variant
                kind = ua.VariantType.Variant if number == _BASE else ua.VariantType(number)
                return lambda data: cast("object", unpack_uatype(kind, data))
            if number == _ENUMERATION:
                return _int32
        known = self._readers.get(data_type)
        if known is not None:
            return known
        (found,) = await self._session.read([(data_type, AttributeIds.DataTypeDefinition)])
        definition: Any = None if found.Value is None else found.Value.Value
        if isinstance(definition, ua.EnumDefinition):
            return await self._reader_of_enumeration(data_type, depth)
        if not isinstance(definition, ua.StructureDefinition):
            return await self._reader(await self._related(data_type, ObjectIds.HasSubtype), depth + 1)
        kind_of = int(definition.StructureType)
        if kind_of not in (_PLAIN, _OPTIONAL, _UNION):
            raise _Unknown
        read = self._readers[data_type] = _Structure(kind_of, [])
        for field in definition.Fields or []:
            reader = await self._reader(ua.NodeId(field.DataType.Identifier, field.DataType.NamespaceIndex), depth + 1)
            read.fields.append(_Field(field.Name, reader, int(field.ValueRank), bool(field.IsOptional)))
        return read

    async def _reader_of_enumeration(self, data_type: ua.NodeId, depth: int) -> _Read:
        """An enumeration is an Int32; an option set is the unsigned integer that it is derived from."""
        return await self._reader(await self._related(data_type, ObjectIds.HasSubtype), depth + 1)
