# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The address space of the OPC UA server: a folder a line, a machine and each level of a tag, and a variable a tag.

Names with which clients store what they need never change: the node id of a tag is its name in the plant's namespace.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import ClassVar, Final

import msgspec
from asyncua import ua
from asyncua.server.address_space import AddressSpace, AttributeValue, NodeData
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from shopfloor.protocols.opcua_values import ticks_at
from shopfloor.samples import TagInfo, Value
from shopfloor.sinks.opcua_memory import Latest
from shopfloor.sinks.opcua_nodes import (
    Nodes,
    data_type,
    forget,
    named,
    numeric,
    plain_object,
    qualified,
    tell,
    text,
    variable,
)  # fmt: skip
from shopfloor.sinks.opcua_standard import give_way
from shopfloor.sinks.opcua_units import engineering_units
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.turns import turn

LOST: Final[int] = StatusCodes.UncertainNoCommunicationLastUsableValue
"""Of what was good or uncertain when its source was lost."""
WAITING: Final[int] = StatusCodes.BadWaitingForInitialData
STRUCTURE_CHANGED: Final = 0x8000
"""The bit of a StatusCode that says: read the type anew (OPC 10000-4, 7.39)."""
_BAD: Final = 0x8000_0000
_INT64_MAX: Final = 2**63 - 1
_TURN: Final = 500
"""Samples that are applied until others have their turn."""
_READ, _READ_WRITE = 1, 3
_SOURCE, _CONNECTED = "$source/", "/connected"


class Moment(msgspec.Struct, frozen=True, gc=False):
    """An OPC UA DateTime to 100 ns; Python's datetime, of which asyncua makes its own, knows microseconds only.

    It answers what asyncua asks of a datetime when it encodes one.
    """

    ticks: int
    """100 ns since 1601."""
    tzinfo: ClassVar = UTC

    def __le__(self, _epoch: object) -> bool:
        return self.ticks <= 0

    def __ge__(self, _last: object) -> bool:
        return False  # int64 nanoseconds end in 2262, before any DateTime does

    def __sub__(self, _epoch: object) -> "Moment":
        return self

    def __floordiv__(self, _microsecond: object) -> "Moment":
        return self

    def __rmul__(self, _ten: object) -> int:
        return self.ticks


class Reading(ua.DataValue):
    """A DataValue that nobody changes, so that a copy for a subscriber is the same object."""

    __slots__ = ()

    def __deepcopy__(self, _memo: object) -> "Reading":
        return self


class Shown:
    """A tag as clients see it."""

    __slots__ = ("kind", "latest", "lost", "node", "value")

    def __init__(self, node: NodeData, value: AttributeValue) -> None:
        self.node = node
        self.value = value
        """Where asyncua finds the value, and the subscribers to it."""
        self.latest: Latest | None = None
        self.lost = False
        self.kind: int = ObjectIds.BaseDataType
        """The node's DataType."""


class Space:
    """The nodes of a plant; lives in the server's thread."""

    def __init__(
        self,
        nodes: AddressSpace,
        indices: tuple[int, int],
        facts: TagFacts,
        writable: Iterable[str] = (),
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """``indices`` are those of the namespaces of tags and of folders; ``ranges`` the EURange of tags."""
        self.nodes = Nodes(nodes)
        self._index, self._folder_index = indices
        self._facts = facts
        self._writable = frozenset(writable)
        self._ranges = ranges or {}
        self._folders: dict[str, NodeData] = {}
        self._of_source: dict[str, set[str]] = {}
        self._away: set[str] = set()
        self._infos: dict[str, TagInfo] = {}
        self.tags: dict[str, Shown] = {}
        self.followers: dict[str, Callable[[Latest], Sequence[AttributeValue]]] = {}
        """Who changes further nodes with a tag; gives those that changed."""

    def __len__(self) -> int:
        return len(self.tags)

    def tag_of(self, node: ua.NodeId) -> str | None:
        """The tag that a node shows; None for every other node."""
        if node.NamespaceIndex == self._index and isinstance(node.Identifier, str) and node.Identifier in self.tags:
            return str(node.Identifier)
        return None

    def writable(self, tag: str) -> bool:
        """Whether the command path knows the tag."""
        return tag in self._writable

    def kind(self, tag: str) -> int:
        """The number of the node's DataType."""
        return self.tags[tag].kind

    # ---- values -------------------------------------------------------------------------------------

    async def declare(self, infos: Sequence[TagInfo]) -> None:
        """Show what the plant file lists, before anything is known of it."""
        for number, info in enumerate(infos):
            self._infos[info.tag] = info
            if info.tag not in self.tags:
                self._add(info.tag)
            if not number % _TURN:
                await give_way()

    async def restore(self, rows: Iterable[Latest]) -> None:
        """Show what was shown before a restart; nobody has subscribed yet."""
        for number, row in enumerate(rows):
            if source_of(row.tag) is None:
                self._put(row)
                self._follow(row)
            elif row.value is False:
                self._away.add(source_of(row.tag) or "")
            if not number % _TURN:
                await give_way()
        for source in tuple(self._away):
            await self._presence(source, connected=False)

    async def apply(self, rows: Sequence[Latest]) -> None:
        """Show these, each in its turn, and tell the subscribers of every one."""
        for number, row in enumerate(rows):
            source = source_of(row.tag)
            if source is None:
                await tell(self._put(row).value)
                for changed in self._follow(row):
                    await tell(changed)
            else:
                await self._presence(source, connected=bool(row.value))
            if number % _TURN == _TURN - 1:
                await turn()

    def _follow(self, row: Latest) -> Sequence[AttributeValue]:
        follower = self.followers.get(row.tag)
        return () if follower is None else follower(row)

    def _put(self, row: Latest) -> Shown:
        shown = self.tags.get(row.tag)
        if shown is None:
            shown = self._add(row.tag)
        if shown.latest is None or shown.latest.source != row.source:
            if shown.latest is not None:
                self._of_source[shown.latest.source].discard(row.tag)
            self._of_source.setdefault(row.source, set()).add(row.tag)
        shown.latest = row
        shown.lost = False
        status = row.status
        if row.value is not None and status < _BAD:
            before = shown.kind
            kind = _wider(before, row.value)
            if kind != before:
                shown.kind = kind
                shown.node.attributes[AttributeIds.DataType] = data_type(
                    ObjectIds.BaseDataType if kind == _ANY else kind
                )
                status |= STRUCTURE_CHANGED if before != ObjectIds.BaseDataType else 0
        shown.value.value = _reading(row, status)
        return shown

    async def _presence(self, source: str, *, connected: bool) -> None:
        """The source is lost: what it gave is only the last that was usable; or it is back."""
        (self._away.discard if connected else self._away.add)(source)
        for number, tag in enumerate(tuple(self._of_source.get(source, ()))):
            shown = self.tags[tag]
            row = shown.latest
            if row is None or shown.lost != connected or row.status >= _BAD:
                continue
            shown.lost = not connected
            shown.value.value = _reading(row, row.status if connected else LOST)
            await tell(shown.value)
            if number % _TURN == _TURN - 1:
                await turn()

    async def clear(self) -> None:
        """Forget every tag, in pieces."""
        await forget(self.tags)
        await self.nodes.clear()

    # ---- nodes --------------------------------------------------------------------------------------

    def _add(self, tag: str) -> Shown:
        info = self._infos.get(tag)
        unit = self._facts.units.get(tag, "")
        bounds = self._ranges.get(tag)
        kind = ObjectIds.BaseDataVariableType
        if unit:
            kind = ObjectIds.AnalogItemType if bounds else ObjectIds.AnalogUnitType
        node_id = named(tag, self._index)
        levels = tag.split("/")
        name = qualified(levels[-1], self._index)
        value = AttributeValue(_waiting())
        node = self.nodes.add(
            node_id,
            name,
            self._folder_of(tag, levels),
            kind,
            {
                **variable(_READ_WRITE if tag in self._writable else _READ),
                AttributeIds.Value: value,
                AttributeIds.DataType: data_type(ObjectIds.BaseDataType),
            },
        )
        if info is not None and info.description:
            node.attributes[AttributeIds.Description] = text(info.description)
        if unit:
            self._property(node, tag, "EngineeringUnits", engineering_units(unit), ObjectIds.EUInformation)
            if bounds:
                self._property(node, tag, "EURange", ua.Range(*bounds), ObjectIds.Range)
        shown = self.tags[tag] = Shown(node, value)
        return shown

    def _property(self, parent: NodeData, tag: str, name: str, value: object, kind: int) -> None:
        content = ua.DataValue(ua.Variant(value, ua.VariantType.ExtensionObject))
        self.nodes.add(
            named(f"{name}:{tag}", self._folder_index),
            qualified(name),
            parent,
            ObjectIds.PropertyType,
            {**variable(_READ), AttributeIds.Value: AttributeValue(content), AttributeIds.DataType: data_type(kind)},
            ObjectIds.HasProperty,
        )

    def machine(self, name: str) -> NodeData:
        """The folder of a machine, made where it has no tags."""
        return self._folder_of(f"{name}/", (name, ""))

    def _folder_of(self, tag: str, levels: Sequence[str]) -> NodeData:
        """The folder that a tag stands in, made with all above it: site, line, machine, levels of the tag."""
        above = "/".join(levels[:-1])
        known = self._folders.get(above)
        if known is None:
            known = self._folders[above] = self._new_folder(tag, above, levels)
        return known

    def _new_folder(self, tag: str, above: str, levels: Sequence[str]) -> NodeData:
        if not above:
            return self._named_folder("site", self._facts.site or "Plant", self.nodes[numeric(ObjectIds.ObjectsFolder)])
        if len(levels) > 2:  # noqa: PLR2004  # a machine, something of it, and the tag's own name
            parent = self._folder_of(tag, levels[:-1])
        else:
            line = self._facts.where(tag).line
            parent = self._folder_of("", ("",))
            parent = self._named_folder(f"line:{line}", line, parent) if line else parent
        return self._named_folder(f"path:{above}", levels[-2], parent)

    def _named_folder(self, key: str, name: str, parent: NodeData) -> NodeData:
        node_id = named(key, self._folder_index)
        known = self.nodes.get(node_id)
        if known is not None:
            return known
        title = qualified(name, self._folder_index)
        return self.nodes.add(node_id, title, parent, ObjectIds.FolderType, plain_object())


def source_of(tag: str) -> str | None:
    """The source that ``$source/NAME/connected`` speaks of; None for every other tag."""
    if tag.startswith(_SOURCE) and tag.endswith(_CONNECTED):
        return tag[len(_SOURCE) : -len(_CONNECTED)]
    return None


def _reading(row: Latest, status: int) -> Reading:
    value = None if status >= _BAD else row.value  # OPC 10000-4, 7.11: with a bad status the value is null
    return Reading(
        Value=ua.Variant(value, variant_type(value)),
        StatusCode=_status(status),
        # No picoseconds: asyncua 2.1 writes that field where the standard has another one.
        SourceTimestamp=Moment(ticks_at(row.time)),  # type: ignore[arg-type]  # see there
        ServerTimestamp=Moment(ticks_at(row.received)),  # type: ignore[arg-type]
    )


def _waiting() -> Reading:
    return Reading(Value=_NULL, StatusCode=_status(WAITING))


def variant_type(value: Value) -> ua.VariantType:
    """The built-in type that a value has on the wire."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ua.VariantType.Int64 if value <= _INT64_MAX else ua.VariantType.UInt64
    return _TYPES[type(value)]


_TYPES: Final[Mapping[type, ua.VariantType]] = {
    bool: ua.VariantType.Boolean,
    float: ua.VariantType.Double,
    str: ua.VariantType.String,
    bytes: ua.VariantType.ByteString,
    type(None): ua.VariantType.Null,
}
_NULL: Final = ua.Variant(None, ua.VariantType.Null)
_INTEGERS: Final = frozenset({ObjectIds.Int64, ObjectIds.UInt64, ObjectIds.Integer})
_NUMBERS: Final = _INTEGERS | {ObjectIds.Double, ObjectIds.Number}
_ANY: Final = -1
"""A tag that has had values of several kinds: its DataType is BaseDataType for good."""


def _wider(known: int, value: Value) -> int:
    """The DataType of a node that had values of the known one and now has this."""
    kind = variant_type(value).value
    if known in (kind, _ANY):
        return known
    if known == ObjectIds.BaseDataType:
        return kind
    if {known, kind} <= _INTEGERS:
        return ObjectIds.Integer
    return ObjectIds.Number if {known, kind} <= _NUMBERS else _ANY


@lru_cache(4096)
def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))
