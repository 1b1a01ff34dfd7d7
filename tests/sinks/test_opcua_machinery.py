"""Machines by OPC UA for Machinery (OPC 40001-1): what clients find, and that its names and numbers are official."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from asyncua import Client, ua

from shopfloor import plant as plants
from shopfloor.kpi.states import MODELS, State, resolve
from shopfloor.samples import Batch, Sample
from shopfloor.sinks.opcua import OpcUaSink
from shopfloor.sinks.opcua_machinery import DI, MACHINERY, SHOWN
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port, missing
from tests.sinks.opcua_client import PEER, NodeClient, code, connected, node_client
from tests.sinks.opcua_standard import standard_nodes

__all__ = ["standard_nodes"]  # a fixture

T0 = 1_767_592_800_000_000_000
CODES = ua.StatusCodes
PLANT = """
plant: {{site: bremen}}
machines:
  - id: press-1
    title: Presse 1
    line: stamping
    state: press-1/State
    nameplate: {{manufacturer: Muster AG, serial_number: "4711", model: P200, year_of_construction: 2019}}
  - {{id: cmm}}
sources:
  - name: plc
    type: opcua
    endpoint: opc.tcp://127.0.0.1:1
    tags: [{{tag: press-1/State, node: "ns=2;s=State"}}]
processors: [{{name: kpi, type: machine}}]
sinks:
  - name: scada
    type: opcua
    endpoint: opc.tcp://127.0.0.1:{port}
    anonymous: true
    security: {{policies: [None, Basic256Sha256]}}
    pki: pki
    memory: memory
"""


def placed(folder: Path, port: int) -> OpcUaSink:
    sink = plants.parse(PLANT.format(port=port), "plant.yaml", folder, {}).sinks[0].build()
    assert isinstance(sink, OpcUaSink)
    return sink


def live(state: str, after: int = 0) -> Batch:
    record = json.dumps({"machine": "press-1", "state": state, "oee": 0.5})
    return Batch.of("kpi", T0 + after, [Sample("press-1/kpi/live", T0 + after, record)])


class _Heard:
    """What a subscriber is told."""

    def __init__(self) -> None:
        self.texts: list[str | None] = []

    def datachange_notification(self, _node: object, value: ua.LocalizedText | None, _data: object) -> None:
        self.texts.append(None if value is None else value.Text)


async def _machine(client: Client, name: str) -> tuple[ua.NodeId, int, int, str]:
    """A machine's node below Machines, the indices of Machinery and DI, and the name of what holds its state."""
    machinery, di = [await client.get_namespace_index(uri) for uri in (MACHINERY, DI)]
    own = await client.get_namespace_index("urn:shopfloor:bremen:folders")
    machines = client.get_node(ua.NodeId(ua.Int32(1001), ua.Int16(machinery)))
    found = await machines.get_child(f"{own}:{name}")
    return found.nodeid, machinery, di, "MachineryBuildingBlocks"


async def test_a_client_finds_the_machines_and_reads_who_they_are(tmp_path: Path) -> None:
    """Below Objects/Machines, the same folder in which its tags are; what nobody knows is empty."""
    port = free_port()
    async with placed(tmp_path, port), connected(port) as client:
        node_id, machinery, di, blocks = await _machine(client, "press-1")
        at = client.get_node(node_id)
        assert [child.nodeid.Identifier for child in await at.get_variables()] == ["press-1/State"]
        identification = await at.get_child(f"{di}:Identification")
        assert (await at.get_child([f"{machinery}:{blocks}", f"{di}:Identification"])) == identification
        assert await identification.read_type_definition() == ua.NodeId(ua.Int32(1012), ua.Int16(machinery))
        said = {
            (name.NamespaceIndex, name.Name): await found.read_value()
            for found in await identification.get_properties()
            if (name := await found.read_browse_name())
        }
        assert said == {
            (di, "Manufacturer"): ua.LocalizedText("Muster AG"),
            (di, "Model"): ua.LocalizedText("P200"),
            (di, "ComponentName"): ua.LocalizedText("Presse 1"),
            (di, "SerialNumber"): "4711",
            (di, "ProductInstanceUri"): "",
            (di, "AssetId"): "press-1",
            (machinery, "Location"): "bremen/stamping",
            (machinery, "YearOfConstruction"): 2019,
        }
        other = client.get_node((await _machine(client, "cmm"))[0])
        told = [(await found.read_browse_name()).Name for found in await other.get_children()]
        assert told == ["Identification", "MachineryBuildingBlocks"]
        (only,) = await (await other.get_child(f"{machinery}:{blocks}")).get_children()
        assert (await only.read_browse_name()).Name == "Identification", "nothing tells of its state"


async def test_the_state_follows_the_processor_and_is_there_after_a_restart(tmp_path: Path) -> None:
    """Told when it changes, not with each figure; where nothing is known there is none."""
    port = free_port()
    async with placed(tmp_path, port) as sink, connected(port) as client:
        node_id, machinery, _, blocks = await _machine(client, "press-1")
        way = [f"{machinery}:{blocks}", f"{machinery}:MachineryItemState", "0:CurrentState"]
        current = await client.get_node(node_id).get_child(way)
        assert code(await current.read_data_value(raise_on_bad_status=False)) == CODES.BadWaitingForInitialData
        heard = _Heard()
        subscription = await client.create_subscription(10, heard)
        await subscription.subscribe_data_change(current, queuesize=100)
        for offset, state in enumerate(("running", "running", "down", "unknown", "setup"), 1):
            await sink.write(offset, live(state, offset * 10**9))
        await until(lambda: len(heard.texts) >= 5, "every change is told")
        assert heard.texts == [None, "Executing", "OutOfService", None, "NotExecuting"]
        await sink.write(6, live("unknown", 6 * 10**9))
        assert code(await current.read_data_value(raise_on_bad_status=False)) == CODES.BadNoCommunication
        await sink.write(7, live("planned", 7 * 10**9))
    async with placed(tmp_path, port), connected(port) as client:
        node_id, machinery, _, blocks = await _machine(client, "press-1")
        for model, name, state_number, number in (
            ("MachineryItemState", "NotExecuting", 5007, 2),
            ("MachineryOperationMode", "Maintenance", 5025, 1),
        ):
            way = [f"{machinery}:{blocks}", f"{machinery}:{model}", "0:CurrentState"]
            current = await client.get_node(node_id).get_child(way)
            assert await current.read_value() == ua.LocalizedText(name)
            assert await (await current.get_child("0:Id")).read_value() == ua.NodeId(
                ua.Int32(state_number), ua.Int16(machinery)
            )
            assert await (await current.get_child("0:Number")).read_value() == number


@pytest.mark.parametrize("state", [state for state in State if state is not State.UNKNOWN])
def test_what_is_shown_reads_back_as_the_same_state(state: State) -> None:
    """By our own source and Annex C; only that a machine is blocked has no word there."""
    item, mode = SHOWN[state]
    states = MODELS["machinery"].states
    assert resolve(item, mode, states, "machinery") is (State.IDLE if state is State.BLOCKED else state)


async def test_node_opcua_reads_the_state_of_a_machine(tmp_path: Path) -> None:
    """A client of another make, from Objects down."""
    port = free_port()
    async with node_client(tmp_path / "node") as peer, placed(tmp_path, port) as sink:
        await sink.write(1, live("down"))
        answer = await peer.ask("connect", endpoint=f"opc.tcp://127.0.0.1:{port}")
        machinery = answer["namespaces"].index(MACHINERY)

        machine = await _down(peer, "i=85", "Machines", "press-1")
        assert (await peer.ask("read", node=machine, attribute="DisplayName"))["value"]["text"] == "press-1"
        current = await _down(peer, machine, "MachineryBuildingBlocks", "MachineryItemState", "CurrentState")
        said = await peer.ask("read", node=current)
        assert (said["value"]["text"], said["type"], said["status"]) == ("OutOfService", "LocalizedText", "Good")
        told = await peer.ask("read", node=await _down(peer, current, "Id"))
        assert (told["value"], told["type"]) == (f"ns={machinery};i=5004", "NodeId")
        maker = await _down(peer, machine, "Identification", "Manufacturer")
        assert (await peer.ask("read", node=maker))["value"]["text"] == "Muster AG"
        await peer.ask("disconnect")


async def _down(peer: NodeClient, node: str, *names: str) -> str:
    for name in names:
        below = (await peer.ask("browse", node=node))["below"]
        node = next(str(found["id"]) for found in below if found["name"] == name)
    return node


async def test_names_and_numbers_are_the_official_ones(tmp_path: Path) -> None:
    """Every node of ours in the namespaces of Machinery and DI is in the nodeset that node-opcua brings along."""
    nodesets = PEER / "node_modules" / "node-opcua-nodesets" / "nodesets"
    if not nodesets.is_dir():
        missing("the nodesets of node-opcua are not installed", "make test, or `npm ci` in tests/peers/node-opcua")
    official = {
        uri: _names(nodesets / file)
        for uri, file in ((MACHINERY, "Opc.Ua.Machinery.NodeSet2.xml"), (DI, "Opc.Ua.Di.NodeSet2.xml"))
    }
    port = free_port()
    async with placed(tmp_path, port) as sink:
        assert sink._server is not None
        space = sink._server.iserver.aspace
        indices = {await sink._server.get_namespace_index(uri): uri for uri in official}
        ours = [node_id for node_id in space.keys() if node_id.NamespaceIndex in indices]  # noqa: SIM118  # no mapping
        assert len(ours) == 22
        for node_id in ours:
            node = space[node_id]
            name = node.attributes[ua.AttributeIds.BrowseName].value
            assert name is not None
            assert name.Value is not None
            held = node.attributes.get(ua.AttributeIds.Value)
            value = "" if held is None or held.value is None or held.value.Value is None else held.value.Value.Value
            told = (name.Value.Value.Name, str(value))
            assert told == official[indices[node_id.NamespaceIndex]][node_id.Identifier], node_id


def _names(file: Path) -> dict[int, tuple[str, str]]:
    """The browse names of a nodeset's own nodes, and values that are numbers, by the nodes' numbers."""
    found: dict[int, tuple[str, str]] = {}
    for element in ET.parse(file).getroot():
        node_id = element.get("NodeId", "")
        if node_id.startswith("ns=1;i="):
            value = element.findtext(".//{http://opcfoundation.org/UA/2008/02/Types.xsd}UInt32") or ""
            name = element.get("BrowseName", "").rpartition(":")[2]
            found[int(node_id.removeprefix("ns=1;i="))] = name, value
    return found
