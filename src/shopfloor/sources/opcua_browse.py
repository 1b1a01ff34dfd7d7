# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Walks an OPC UA server's address space in large steps: every variable with its type, unit and access."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from shopfloor.protocols.opcua_session import Session
from shopfloor.samples import TagInfo

_MASK: Final = ua.NodeClass.Object | ua.NodeClass.Variable
_PROPERTY: Final = ua.NodeId(ua.Int32(ObjectIds.HasProperty))
_SERVER: Final = ua.NodeId(ua.Int32(ObjectIds.Server))
_LONGEST: Final = 255
_ATTRIBUTES: Final = (
    AttributeIds.DataType,
    AttributeIds.ValueRank,
    AttributeIds.UserAccessLevel,
    AttributeIds.Description,
)
_WRITABLE: Final = 1 << ua.AccessLevel.CurrentWrite.value
_SCALAR: Final = -1


@dataclass(frozen=True)
class _Found:
    node: ua.NodeId
    tag: str
    variable: bool


async def browse(session: Session, start: ua.NodeId, wanted: Sequence[str] = ()) -> AsyncIterator[TagInfo]:
    """Every variable below ``start`` but the server's own, in the order of the tree's levels.

    ``wanted``: only tags that contain one of these texts, whatever their case. Tags are browse paths
    (``Channel1/Device1/PV``), made unique and free of characters that a tag may not have. Raises
    Unavailable, UaStatusCodeError.
    """
    seen = {start}
    names: set[str] = set()
    types: dict[ua.NodeId, str] = {}
    level = [_Found(start, "", variable=False)]
    while level:
        below: list[_Found] = []
        for step in range(0, len(level), session.limits.browse):
            parents = level[step : step + session.limits.browse]
            references = await _references(session, [parent.node for parent in parents])
            units: dict[str, ua.NodeId] = {}
            for parent, children in zip(parents, references, strict=True):
                below += _children(parent, children, seen, names, units)
            variables = [p for p in parents if p.variable and _matches(p.tag, wanted)]
            for info in await _described(session, variables, units, types):
                yield info
        level = below


def _matches(tag: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(text.casefold() in tag.casefold() for text in wanted)


def _children(
    parent: _Found,
    references: Iterable[ua.ReferenceDescription],
    seen: set[ua.NodeId],
    names: set[str],
    units: dict[str, ua.NodeId],
) -> list[_Found]:
    found: list[_Found] = []
    for reference in references:
        node = _local(reference.NodeId)
        if node is None or node in seen or node == _SERVER:
            continue
        name = reference.BrowseName.Name or node.to_string()
        if reference.ReferenceTypeId == _PROPERTY:
            # Properties describe their variable; those of objects are rarely process values.
            if name == "EngineeringUnits" and reference.BrowseName.NamespaceIndex == 0:
                units[parent.tag] = node
            continue
        seen.add(node)
        tag = _unique(_tag(parent.tag, name), names)
        found.append(_Found(node, tag, reference.NodeClass == ua.NodeClass.Variable))
    return found


def _local(node: ua.NodeId) -> ua.NodeId | None:
    """The node id without what an expanded one adds; None for a node of another server."""
    if isinstance(node, ua.ExpandedNodeId) and (node.ServerIndex or node.NamespaceUri):
        return None
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _tag(parent: str, name: str) -> str:
    """A tag name of the browse path, with ``_`` for what tags may not contain."""
    clean = "".join("_" if c in "*?[]" or c < " " else c for c in name).strip() or "_"
    path = f"{parent}/{clean}" if parent else clean
    path = "_" + path[1:] if path[0] == "$" else path
    return path if len(path) <= _LONGEST else path[-_LONGEST:].lstrip("/ $") or "_"


def _unique(tag: str, names: set[str]) -> str:
    """The tag, with a number where another node has the same browse path."""
    candidate, number = tag, 2
    while candidate in names:
        candidate = f"{tag[: _LONGEST - 8]}~{number}"
        number += 1
    names.add(candidate)
    return candidate


async def _references(session: Session, nodes: Sequence[ua.NodeId]) -> list[list[ua.ReferenceDescription]]:
    """Every forward hierarchical reference of each node to an object or variable."""
    request = ua.BrowseRequest()
    request.Parameters.NodesToBrowse = [
        ua.BrowseDescription(
            NodeId=node,
            BrowseDirection=ua.BrowseDirection.Forward,
            ReferenceTypeId=ua.NodeId(ua.Int32(ObjectIds.HierarchicalReferences)),
            IncludeSubtypes=True,
            NodeClassMask=ua.UInt32(_MASK),
            ResultMask=ua.UInt32(
                ua.BrowseResultMask.ReferenceTypeId | ua.BrowseResultMask.NodeClass | ua.BrowseResultMask.BrowseName
            ),
        )
        for node in nodes
    ]
    results = (await session.call(request, ua.BrowseResponse)).Results
    found = [list(result.References or []) for result in results]
    open_points = [(i, result.ContinuationPoint) for i, result in enumerate(results) if result.ContinuationPoint]
    # A server that has no continuation point left for a node says so for that node alone: ask it again, alone.
    starved = [i for i, r in enumerate(results) if r.StatusCode.value == StatusCodes.BadNoContinuationPoints]
    while open_points:
        following = ua.BrowseNextRequest()
        following.Parameters.ContinuationPoints = [point for _, point in open_points]
        answers = (await session.call(following, ua.BrowseNextResponse)).Results
        for (i, _), answer in zip(open_points, answers, strict=True):
            found[i] += answer.References or []
        open_points = [
            (i, a.ContinuationPoint) for (i, _), a in zip(open_points, answers, strict=True) if a.ContinuationPoint
        ]
    if len(nodes) > 1:
        for i in starved:
            (found[i],) = await _references(session, [nodes[i]])
    return found


async def _described(
    session: Session, variables: Sequence[_Found], units: dict[str, ua.NodeId], types: dict[ua.NodeId, str]
) -> list[TagInfo]:
    if not variables:
        return []
    attributes = await session.read([(v.node, a) for v in variables for a in _ATTRIBUTES])
    with_unit = [v.tag for v in variables if v.tag in units]
    information = await session.read([(units[tag], AttributeIds.Value) for tag in with_unit])
    unit_of = {tag: _unit(value) for tag, value in zip(with_unit, information, strict=True)}
    rows = [attributes[i : i + len(_ATTRIBUTES)] for i in range(0, len(attributes), len(_ATTRIBUTES))]
    await _name_types(session, [_value(row[0]) for row in rows], types)
    return [
        TagInfo(
            variable.tag,
            variable.node.to_string(),
            data_type=_type(_value(data_type), _value(rank), types),
            unit=unit_of.get(variable.tag, ""),
            description=_text(_value(description)),
            writable=bool(access & _WRITABLE) if isinstance(access := _value(level), int) else None,
        )
        for variable, (data_type, rank, level, description) in zip(variables, rows, strict=True)
    ]


def _value(found: ua.DataValue) -> object:
    return None if found.Value is None else cast("object", found.Value.Value)


def _text(value: object) -> str:
    return (value.Text or "") if isinstance(value, ua.LocalizedText) else ""


def _unit(found: ua.DataValue) -> str:
    value = _value(found)
    return _text(value.DisplayName) if isinstance(value, ua.EUInformation) else ""


def _type(data_type: object, rank: object, types: dict[ua.NodeId, str]) -> str:
    name = types.get(data_type, "") if isinstance(data_type, ua.NodeId) else ""
    return f"{name}[]" if isinstance(rank, int) and rank > _SCALAR else name


async def _name_types(session: Session, data_types: Iterable[object], types: dict[ua.NodeId, str]) -> None:
    """Learn the browse names of data types that are new."""
    new = [t for t in {d for d in data_types if isinstance(d, ua.NodeId)} if t not in types]
    if not new:
        return
    for node, found in zip(new, await session.read([(t, AttributeIds.BrowseName) for t in new]), strict=True):
        name = _value(found)
        types[node] = (name.Name or "") if isinstance(name, ua.QualifiedName) else ""
