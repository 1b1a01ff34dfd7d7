# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Nodes of the OPC UA server, put into asyncua's address space by ourselves.

Its AddNodes service looks through all siblings for each new node. What is the same for many nodes (types, access,
references upwards) is one object for all of them.
"""

import logging
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final

from asyncua import ua
from asyncua.server.address_space import AddressSpace, AttributeValue, NodeData
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from shopfloor.sinks.opcua_standard import give_way

_log: Final = logging.getLogger("shopfloor.sinks.opcua")

_PIECE = 500
"""What is forgotten until others have their turn."""

Attributes = Mapping[AttributeIds, AttributeValue]


class Nodes:
    """Adds nodes to an address space."""

    def __init__(self, space: AddressSpace) -> None:
        """``space`` has the standard's nodes already."""
        self._space = space
        self._parents: dict[tuple[ua.NodeId, int], ua.ReferenceDescription] = {}
        self._types: dict[int | ua.NodeId, ua.ReferenceDescription] = {}

    def __getitem__(self, node_id: ua.NodeId) -> NodeData:
        return self._space[node_id]

    def get(self, node_id: ua.NodeId) -> NodeData | None:
        """None where there is no such node."""
        return self._space.get(node_id)

    def add(  # what a node is
        self,
        node_id: ua.NodeId,
        name: ua.QualifiedName,
        parent: NodeData,
        kind: int | ua.NodeId | None,
        attributes: Attributes,
        reference: int | None = None,
    ) -> NodeData:
        """A node below its parent; ``kind`` is its type definition, a type has none."""
        node = NodeData(node_id)
        title = text(name.Name)
        node.attributes = {
            AttributeIds.NodeId: constant(node_id, ua.VariantType.NodeId),
            AttributeIds.BrowseName: constant(name, ua.VariantType.QualifiedName),
            AttributeIds.DisplayName: title,
            AttributeIds.Description: title,
            **attributes,
        }
        if reference is None:
            is_object = said(node, AttributeIds.NodeClass) == ua.NodeClass.Object
            reference = ObjectIds.Organizes if is_object else ObjectIds.HasComponent
        if kind is not None:
            node.references.append(self._type(kind))
        self._space[node_id] = node
        self.refer(parent, node, reference)
        return node

    def refer(self, above: NodeData, below: NodeData, reference: int) -> None:
        """A reference from one to the other, and back."""
        down = described(below)
        down.ReferenceTypeId = numeric(reference)
        down.IsForward = True
        above.references.append(down)
        below.references.append(self._upwards(above, reference))

    async def clear(self) -> None:
        """Forget what is remembered, in pieces."""
        await forget(self._parents)

    def _upwards(self, parent: NodeData, reference: int) -> ua.ReferenceDescription:
        """The reference of a child to its parent: one object for all children of a parent."""
        key = (parent.nodeid, reference)
        known = self._parents.get(key)
        if known is None:
            known = self._parents[key] = described(parent)
            known.ReferenceTypeId = numeric(reference)
            known.IsForward = False
        return known

    def _type(self, kind: int | ua.NodeId) -> ua.ReferenceDescription:
        """The reference of a node to its type: one object for all of a type."""
        known = self._types.get(kind)
        if known is None:
            node_id = numeric(kind) if isinstance(kind, int) else kind
            known = self._types[kind] = described(self._space[node_id])
            known.ReferenceTypeId = numeric(ObjectIds.HasTypeDefinition)
            known.IsForward = True
        return known


def described(node: NodeData) -> ua.ReferenceDescription:
    """What a reference tells of the node that it leads to."""
    found = ua.ReferenceDescription()
    found.NodeId = node.nodeid
    found.NodeClass = said(node, AttributeIds.NodeClass)
    found.BrowseName = said(node, AttributeIds.BrowseName)
    found.DisplayName = said(node, AttributeIds.DisplayName)
    defined = numeric(ObjectIds.HasTypeDefinition)
    found.TypeDefinition = next(
        (r.NodeId for r in node.references if r.IsForward and r.ReferenceTypeId == defined), ua.NodeId()
    )
    return found


def said(node: NodeData, attribute: AttributeIds) -> Any:
    """The value of an attribute; None when there is none."""
    content = node.attributes[attribute].value
    return None if content is None or content.Value is None else content.Value.Value


async def tell(value: AttributeValue) -> None:
    """Tell the subscribers what the value is now; one that cannot be told, whatever it wished for, stops no other."""
    if value.datachange_callbacks:
        for handle, callback in tuple(value.datachange_callbacks.items()):
            try:
                await callback(handle, value.value)
            except Exception:  # noqa: BLE001  # whatever a client's wish leads asyncua to
                _log.debug("a subscriber could not be told", exc_info=True)


async def forget(kept: dict[Any, Any]) -> None:
    """Empty it in pieces: freed as one it would hold all threads."""
    while kept:
        for _ in range(min(_PIECE, len(kept))):
            kept.popitem()
        await give_way()


@cache
def numeric(number: int, index: int = 0) -> ua.NodeId:
    """A numeric node id."""
    return ua.NodeId(ua.Int32(number), ua.Int16(index))


def named(identifier: str, index: int) -> ua.NodeId:
    """A node id with a text."""
    return ua.NodeId(ua.String(identifier), ua.Int16(index))


def qualified(name: str, index: int = 0) -> ua.QualifiedName:
    """A browse name."""
    return ua.QualifiedName(name, ua.UInt16(index))


@lru_cache(4096)
def text(words: str) -> AttributeValue:
    """A LocalizedText."""
    return constant(ua.LocalizedText(words), ua.VariantType.LocalizedText)


def constant(value: object, kind: ua.VariantType) -> AttributeValue:
    """A value without times."""
    return AttributeValue(ua.DataValue(ua.Variant(value, kind)))


@cache
def data_type(number: int) -> AttributeValue:
    """The DataType of a variable."""
    return constant(numeric(number), ua.VariantType.NodeId)


@cache
def variable(access: int) -> Attributes:
    """What all variables of this access level have in common."""
    return {
        AttributeIds.NodeClass: constant(ua.NodeClass.Variable, ua.VariantType.Int32),
        AttributeIds.ValueRank: constant(ua.ValueRank.Scalar, ua.VariantType.Int32),
        AttributeIds.AccessLevel: constant(access, ua.VariantType.Byte),
        AttributeIds.UserAccessLevel: constant(access, ua.VariantType.Byte),
        AttributeIds.MinimumSamplingInterval: constant(0.0, ua.VariantType.Double),
        AttributeIds.Historizing: constant(False, ua.VariantType.Boolean),  # the attribute's value
        AttributeIds.WriteMask: constant(0, ua.VariantType.UInt32),
        AttributeIds.UserWriteMask: constant(0, ua.VariantType.UInt32),
    }


@cache
def plain_object() -> Attributes:
    """What all objects have in common."""
    return {
        AttributeIds.NodeClass: constant(ua.NodeClass.Object, ua.VariantType.Int32),
        AttributeIds.EventNotifier: constant(0, ua.VariantType.Byte),
        AttributeIds.WriteMask: constant(0, ua.VariantType.UInt32),
        AttributeIds.UserWriteMask: constant(0, ua.VariantType.UInt32),
    }


def object_type(*, abstract: bool = False) -> Attributes:
    """What all types of objects have in common."""
    return {
        AttributeIds.NodeClass: constant(ua.NodeClass.ObjectType, ua.VariantType.Int32),
        AttributeIds.IsAbstract: constant(abstract, ua.VariantType.Boolean),
        AttributeIds.WriteMask: constant(0, ua.VariantType.UInt32),
        AttributeIds.UserWriteMask: constant(0, ua.VariantType.UInt32),
    }
