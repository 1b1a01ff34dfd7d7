# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The plant's machines as OPC UA for Machinery wants them (OPC 40001-1): found, identified, their state and mode.

The official names and numbers, but only the nodes that are needed: no transitions, no interfaces.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from asyncua import ua
from asyncua.server.address_space import AttributeValue, NodeData
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from shopfloor.kpi.states import State
from shopfloor.plant.machine import Machine
from shopfloor.protocols.opcua_values import ticks_at
from shopfloor.sinks.opcua_memory import Latest
from shopfloor.sinks.opcua_nodes import (
    constant,
    data_type,
    named,
    numeric,
    object_type,
    plain_object,
    qualified,
    text,
    variable,
)  # fmt: skip
from shopfloor.sinks.opcua_space import WAITING, Moment, Reading, Space

MACHINERY: Final = "http://opcfoundation.org/UA/Machinery/"
DI: Final = "http://opcfoundation.org/UA/DI/"
LIVE: Final = "/kpi/live"
"""Behind a machine's id: what the processor `machine` says of it now."""
_READ: Final = 1
_BAD: Final = 0x8000_0000

# Numbers of the official nodesets: of DI, then of Machinery.
_FUNCTIONAL_GROUP_TYPE: Final = 1005
_MACHINES: Final = 1001
_ITEM_IDENTIFICATION_TYPE: Final = 1004
_IDENTIFICATION_TYPE: Final = 1012


class _Model(msgspec.Struct, frozen=True):
    """A state machine's type: its number, and of each state its number, that of its StateNumber, and what that is."""

    name: str
    type_name: str
    number: int
    states: dict[str, tuple[int, int, int]]


_ITEM_STATE: Final = _Model(
    "MachineryItemState",
    "MachineryItemState_StateMachineType",
    1002,
    {
        "NotAvailable": (5005, 6039, 0),
        "OutOfService": (5004, 6038, 1),
        "NotExecuting": (5007, 6041, 2),
        "Executing": (5006, 6040, 3),
    },
)
_OPERATION_MODE: Final = _Model(
    "MachineryOperationMode",
    "MachineryOperationModeStateMachineType",
    1008,
    {
        "None": (5024, 6059, 0),
        "Maintenance": (5025, 6060, 1),
        "Setup": (5027, 6062, 2),
        "Processing": (5026, 6061, 3),
    },
)
SHOWN: Final = {
    State.RUNNING: ("Executing", "Processing"),
    State.IDLE: ("NotExecuting", "Processing"),
    State.BLOCKED: ("NotExecuting", "Processing"),
    State.SETUP: ("NotExecuting", "Setup"),
    State.PLANNED: ("NotExecuting", "Maintenance"),
    State.DOWN: ("OutOfService", "Processing"),
}
"""MachineryItemState and MachineryOperationMode of the states of the time model, by Annex C of OPC 40001-1. A machine
of which nothing is known has none."""


class _Live(msgspec.Struct):
    state: str = State.UNKNOWN.value


_read_live: Final = msgspec.json.Decoder(_Live).decode


class _Current:
    """The current state of one state machine, as clients see it."""

    def __init__(self, model: _Model, index: int) -> None:
        self.model = model
        self._index = index
        self.name, self.id, self.number = (AttributeValue(_reading(None, WAITING)) for _ in range(3))

    @property
    def values(self) -> Sequence[AttributeValue]:
        return self.name, self.id, self.number

    def show(self, state: str | None, row: Latest) -> None:
        """None: nothing is known."""
        status = StatusCodes.Good if state is not None else StatusCodes.BadNoCommunication
        number, _, place = self.model.states[state] if state is not None else (0, 0, 0)
        known = state is not None
        self.name.value = _reading(ua.LocalizedText(state) if known else None, status, row)
        self.id.value = _reading(numeric(number, self._index) if known else None, status, row)
        self.number.value = _reading(ua.UInt32(place) if known else None, status, row)


class Machinery:
    """Puts machines into the address space, and follows what is said of them."""

    def __init__(self, space: Space, indices: tuple[int, int, int]) -> None:
        """``indices`` of the namespaces Machinery, DI and of our folders."""
        self._space = space
        self._nodes = space.nodes
        self._machinery, self._di, self._own = indices
        self._types()
        self._machines = self._nodes.add(
            self._official(_MACHINES),
            qualified("Machines", self._machinery),
            self._nodes[numeric(ObjectIds.ObjectsFolder)],
            ObjectIds.FolderType,
            plain_object(),
        )

    def add(self, machine: Machine, place: str, *, judged: bool) -> None:
        """A machine; ``judged``: the processor `machine` says how it is."""
        folder = self._space.machine(machine.id)
        self._nodes.refer(self._machines, folder, ObjectIds.Organizes)
        identification = self._object(
            machine, "Identification", self._di, folder, self._official(_IDENTIFICATION_TYPE), ObjectIds.HasAddIn
        )
        self._identify(machine, place, identification)
        blocks = self._object(
            machine, "MachineryBuildingBlocks", self._machinery, folder, ObjectIds.FolderType, ObjectIds.HasComponent
        )
        self._nodes.refer(blocks, identification, ObjectIds.HasAddIn)
        if judged:
            self._follow(machine, [self._state(machine, model, blocks) for model in (_ITEM_STATE, _OPERATION_MODE)])

    def _follow(self, machine: Machine, currents: Sequence[_Current]) -> None:
        before: State | None = None

        def follow(row: Latest) -> Sequence[AttributeValue]:
            nonlocal before
            state = _state_of(row)
            if state is before:
                return ()
            before = state
            for current, shown in zip(currents, SHOWN.get(state, (None, None)), strict=True):
                current.show(shown, row)
            return [value for current in currents for value in current.values]

        self._space.followers[machine.id + LIVE] = follow

    # ---- nodes --------------------------------------------------------------------------------------

    def _official(self, number: int) -> ua.NodeId:
        return numeric(number, self._machinery)

    def _types(self) -> None:
        """The types that the machines' nodes have, below those of the standard."""
        nodes, subtype = self._nodes, ObjectIds.HasSubtype
        group = nodes.add(
            numeric(_FUNCTIONAL_GROUP_TYPE, self._di), qualified("FunctionalGroupType", self._di),
            nodes[numeric(ObjectIds.FolderType)], None, object_type(), subtype,
        )  # fmt: skip
        item = nodes.add(
            self._official(_ITEM_IDENTIFICATION_TYPE), qualified("MachineryItemIdentificationType", self._machinery),
            group, None, object_type(abstract=True), subtype,
        )  # fmt: skip
        nodes.add(
            self._official(_IDENTIFICATION_TYPE), qualified("MachineIdentificationType", self._machinery),
            item, None, object_type(), subtype,
        )  # fmt: skip
        for model in (_ITEM_STATE, _OPERATION_MODE):
            kind = nodes.add(
                self._official(model.number), qualified(model.type_name, self._machinery),
                nodes[numeric(ObjectIds.FiniteStateMachineType)], None, object_type(), subtype,
            )  # fmt: skip
            for name, (state, number, place) in model.states.items():
                node = nodes.add(
                    self._official(state), qualified(name, self._machinery),
                    kind, ObjectIds.StateType, plain_object(), ObjectIds.HasComponent,
                )  # fmt: skip
                value = constant(ua.UInt32(place), ua.VariantType.UInt32)
                self._property(node, self._official(number), qualified("StateNumber"), value, ObjectIds.UInt32)

    def _object(
        self, machine: Machine, name: str, index: int, parent: NodeData, kind: int | ua.NodeId, reference: int
    ) -> NodeData:
        node_id = named(f"machinery:{machine.id}:{name}", self._own)
        return self._nodes.add(node_id, qualified(name, index), parent, kind, plain_object(), reference)

    def _property(
        self, parent: NodeData, node_id: ua.NodeId, name: ua.QualifiedName, value: AttributeValue, kind: int
    ) -> None:
        attributes = {**variable(_READ), AttributeIds.Value: value, AttributeIds.DataType: data_type(kind)}
        self._nodes.add(node_id, name, parent, ObjectIds.PropertyType, attributes, ObjectIds.HasProperty)

    def _identify(self, machine: Machine, place: str, node: NodeData) -> None:
        """What the plant file knows; what is mandatory and unknown is empty (OPC 10000-100)."""
        plate = machine.nameplate
        texts = {"Manufacturer": plate.manufacturer, "Model": plate.model, "ComponentName": machine.title or machine.id}
        strings = {
            "SerialNumber": plate.serial_number,
            "ProductInstanceUri": plate.product_instance_uri,
            "ProductCode": plate.product_code,
            "DeviceClass": plate.device_class,
            "AssetId": plate.asset_id or machine.id,
        }
        mandatory = {"Manufacturer", "SerialNumber", "ProductInstanceUri"}
        for name, words in texts.items():
            if words or name in mandatory:
                self._fact(machine, node, name, self._di, text(words), ObjectIds.LocalizedText)
        for name, words in strings.items():
            if words or name in mandatory:
                self._fact(machine, node, name, self._di, constant(words, ua.VariantType.String), ObjectIds.String)
        located = constant(plate.location or place, ua.VariantType.String)
        self._fact(machine, node, "Location", self._machinery, located, ObjectIds.String)
        if plate.year_of_construction is not None:
            year = constant(ua.UInt16(plate.year_of_construction), ua.VariantType.UInt16)
            self._fact(machine, node, "YearOfConstruction", self._machinery, year, ObjectIds.UInt16)

    def _fact(  # what a property is
        self, machine: Machine, node: NodeData, name: str, index: int, value: AttributeValue, kind: int
    ) -> None:
        node_id = named(f"machinery:{machine.id}:Identification:{name}", self._own)
        self._property(node, node_id, qualified(name, index), value, kind)

    def _state(self, machine: Machine, model: _Model, blocks: NodeData) -> _Current:
        """A state machine of a machine."""
        current = _Current(model, self._machinery)
        node = self._object(
            machine, model.name, self._machinery, blocks, self._official(model.number), ObjectIds.HasAddIn
        )
        key = f"machinery:{machine.id}:{model.name}:CurrentState"
        shown = self._nodes.add(
            named(key, self._own),
            qualified("CurrentState"),
            node,
            ObjectIds.FiniteStateVariableType,
            {
                **variable(_READ),
                AttributeIds.Value: current.name,
                AttributeIds.DataType: data_type(ObjectIds.LocalizedText),
            },
        )
        self._property(shown, named(f"{key}:Id", self._own), qualified("Id"), current.id, ObjectIds.NodeId)
        self._property(shown, named(f"{key}:Number", self._own), qualified("Number"), current.number, ObjectIds.UInt32)
        return current


def _state_of(row: Latest) -> State:
    if row.status >= _BAD or not isinstance(row.value, str):
        return State.UNKNOWN
    try:
        return State(_read_live(row.value).state)
    except (msgspec.DecodeError, ValueError):
        return State.UNKNOWN


_KINDS: Final[Mapping[type, ua.VariantType]] = {
    ua.LocalizedText: ua.VariantType.LocalizedText,
    ua.UInt32: ua.VariantType.UInt32,
    ua.NodeId: ua.VariantType.NodeId,
}


def _reading(value: object, status: int, row: Latest | None = None) -> Reading:
    kind = ua.VariantType.Null if value is None else _KINDS[type(value)]
    return Reading(
        Value=ua.Variant(value, kind),
        StatusCode=ua.StatusCode(ua.UInt32(status)),
        SourceTimestamp=None if row is None else Moment(ticks_at(row.time)),  # type: ignore[arg-type]  # see there
        ServerTimestamp=None if row is None else Moment(ticks_at(row.received)),  # type: ignore[arg-type]
    )
