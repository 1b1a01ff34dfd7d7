"""The OPC UA source against asyncua's server: what node-opcua's does not do, and what the demo runs on."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import Server, ua
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field

from shopfloor.samples import Command, Quality, Unavailable
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sources.test_opcua import PATIENCE, Taken, configured, taking


class Plc:
    """A server in this process with one Double PV, and whatever a test adds."""

    def __init__(self) -> None:
        self.server = Server()
        self.port = free_port()
        self.namespace = 0

    @property
    def endpoint(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def begin(self) -> None:
        await self.server.init()
        self.server.set_endpoint(self.endpoint)
        self.namespace = await self.server.register_namespace("urn:shopfloor:peer")
        self.pv = await self.add("PV", 0.0)

    async def add(self, name: str, value: Any, kind: ua.VariantType | None = None) -> Any:
        node = await self.server.nodes.objects.add_variable(ua.NodeId(name, self.namespace), name, value, kind)  # type: ignore[arg-type]  # asyncua's str
        await node.set_writable()
        return node


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Plc]:
    made = Plc()
    await made.begin()
    async with made.server:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def plc(started: Plc) -> Plc:
    await started.pv.write_value(0.0)
    return started


@asynccontextmanager
async def reading(taken: Taken) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(taken.read())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_structures_of_the_server_are_decoded(plc: Plc, tmp_path: Path) -> None:
    """By the definitions that the server gives, nested, with arrays and optional fields; from the first value on."""
    server, space = plc.server, plc.namespace
    wear = new_struct_field("Wear", ua.VariantType.Double, array=True)
    inner, _ = await new_struct(server, space, "Tool", [new_struct_field("Id", ua.VariantType.Int32), wear])
    await new_struct(
        server,
        space,
        "Job",
        [
            new_struct_field("Name", ua.VariantType.String),
            new_struct_field("Tool", inner),
            new_struct_field("Left", ua.VariantType.UInt16, optional=True),
        ],
    )
    await new_enum(server, space, "State", ["stopped", "running"])
    await server.load_data_type_definitions()
    types: Any = ua
    job = types.Job()
    job.Name, job.Tool = "A-4711", types.Tool(Id=3, Wear=[0.5, 1.0])
    node = await plc.add("Job", job)
    await plc.add("Tools", [types.Tool(Id=1, Wear=[]), types.Tool(Id=2, Wear=[9.0])])
    await plc.add("State", types.State.running)
    for mode in ("subscribe", "poll"):
        job.Left = None
        await node.write_value(job)
        config = configured(plc.endpoint, tmp_path, "Job", "Tools", "State", mode=mode, poll="20 ms")
        async with taking(config) as taken:
            await taken.until(lambda t=taken: {s.tag for s in t.samples} == {"Job", "Tools", "State"}, "all three")  # type: ignore[misc]  # a default binds it
            assert json.loads(str(taken.values("Job")[0])) == {"Name": "A-4711", "Tool": {"Id": 3, "Wear": [0.5, 1.0]}}
            assert json.loads(str(taken.values("Tools")[0])) == [{"Id": 1, "Wear": []}, {"Id": 2, "Wear": [9.0]}]
            assert taken.values("State") == [1]
            job.Left = 7
            await node.write_value(job)
            await taken.until(lambda t=taken: len(t.of("Job")) == 2, "a change")  # type: ignore[misc]  # likewise
            assert json.loads(str(taken.values("Job")[1]))["Left"] == 7


@pytest.mark.filterwarnings("ignore:coroutine 'MonitoredItemService.datachange_callback'")  # asyncua forgets to await
async def test_a_node_that_vanishes_without_a_word(plc: Plc, tmp_path: Path) -> None:
    """This server does not tell its subscribers: the source finds out, and finds it again."""
    node = await plc.add("Fleeting", 1.5)
    async with taking(configured(plc.endpoint, tmp_path, "PV", "Fleeting")) as taken:
        await taken.newest("Fleeting", 1.5)
        await plc.server.delete_nodes([node])
        await taken.until(lambda: taken.of("Fleeting")[-1].quality == Quality.CONFIGURATION_ERROR, "the tag is bad")
        await plc.pv.write_value(7.0)
        await taken.newest("PV", 7.0)
        await plc.add("Fleeting", 12, ua.VariantType.Int16)
        await taken.newest("Fleeting", 12)


async def test_a_session_is_taken_up_again(plc: Plc, tmp_path: Path) -> None:
    """This server cannot transfer subscriptions, but it keeps sessions: nothing is lost by a broken connection."""
    async with FaultProxy("127.0.0.1", plc.port) as proxy:
        source = configured(f"opc.tcp://127.0.0.1:{proxy.port}", tmp_path, "PV", queue=1000).build()
        taken = Taken(source)
        written = 0
        for _ in range(4):
            taken.error = None
            async with source, reading(taken) as task:
                await taken.newest("PV", float(written))
                for _ in range(20):
                    written += 1
                    await plc.pv.write_value(float(written))
                await taken.newest("PV", float(written))
                proxy.drop()
                with pytest.raises(Unavailable):
                    await asyncio.wait_for(task, PATIENCE)
            for _ in range(20):
                written += 1
                await plc.pv.write_value(float(written))
        taken.error = None
        async with source, reading(taken):
            await taken.newest("PV", float(written))
    assert set(taken.values("PV")) >= {float(n) for n in range(1, written + 1)}


async def test_a_cable_that_is_pulled_and_put_back(plc: Plc, tmp_path: Path) -> None:
    """While nothing arrives and nothing closes the server queues; afterwards everything is there."""
    async with FaultProxy("127.0.0.1", plc.port) as proxy:
        source = configured(
            f"opc.tcp://127.0.0.1:{proxy.port}", tmp_path, "PV", queue=1000, timeout="6 s", publishing="50 ms"
        ).build()
        taken = Taken(source)
        async with source, reading(taken) as task:
            await taken.newest("PV", 0.0)
            proxy.black_hole()
            for number in range(1, 50):
                await plc.pv.write_value(float(number))
            with pytest.raises(Unavailable):
                await asyncio.wait_for(task, PATIENCE)
        proxy.drop()
        proxy.heal()
        taken.error = None
        async with source, reading(taken):
            await taken.newest("PV", 49.0)
    assert set(taken.values("PV")) >= {float(number) for number in range(50)}


async def test_a_restart_of_shopfloor_begins_anew_where_nothing_can_be_transferred(plc: Plc, tmp_path: Path) -> None:
    """This server claims to have transferred the subscription and breaks the connection then: it is not asked."""
    config = configured(plc.endpoint, tmp_path, "PV")
    async with taking(config) as taken:
        await taken.newest("PV", 0.0)
        checkpoint = taken.batches[-1].checkpoint
    assert checkpoint is not None
    async with config.build() as source:
        source.resume(checkpoint)
        again = Taken(source)
        async with reading(again):
            await plc.pv.write_value(5.0)
            await again.newest("PV", 5.0)


async def test_a_value_that_the_controller_changes_back_is_unknown(plc: Plc, tmp_path: Path) -> None:
    """The server takes the value, the tag reads another: a person has to look."""

    async def undo() -> None:
        while True:
            await plc.pv.write_value(0.0)
            await asyncio.sleep(0)

    async with configured(plc.endpoint, tmp_path, "PV").build() as source:
        undoing = asyncio.create_task(undo())
        outcome = await source.execute(Command("c", "PV", 3.5, "test", time.time_ns() + 10**10))
        undoing.cancel()
    assert outcome.done is None
    assert "it reads 0.0" in outcome.detail
