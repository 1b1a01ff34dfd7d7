"""The OPC UA standard's own nodes, which a process of its own builds for the sink."""

import asyncio
import gc
import shutil
import sys
from asyncio.subprocess import PIPE

import psutil
import pytest
from asyncua.server.address_space import AddressSpace

from shopfloor.sinks import opcua_standard
from shopfloor.sinks.opcua_server import ServerThread
from shopfloor.sinks.opcua_standard import BUILDER
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import children
from tests.sinks.opcua_standard import standard


async def test_the_standards_nodes_are_those_that_asyncua_builds() -> None:
    """They come from a process of their own: every node, attribute and reference. It builds them twice: seconds."""
    space = AddressSpace()
    assert await opcua_standard.load(space)
    expected = await standard()
    assert set(space.keys()) == set(expected)
    for number, built in expected.items():
        taken = space[number]
        assert taken.references == built.references, number
        assert {k: v.value for k, v in taken.attributes.items()} == {k: v.value for k, v in built.attributes.items()}


@pytest.mark.parametrize("program", ["/nowhere/python", shutil.which("true")])
async def test_without_a_process_they_are_built_as_ever(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no program to start, or it ends at once."""
    monkeypatch.setattr(sys, "executable", program)
    space = AddressSpace()
    assert not await opcua_standard.load(space)
    assert not space.keys()


async def test_the_standards_nodes_are_whole_though_their_builder_is_stopped_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the midst of a write into a full pipe, and unbuffered, as images for containers like to set it."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    stopped = 0

    async def give_way() -> None:
        nonlocal stopped
        await asyncio.sleep(0)
        if stopped == 20:
            return
        stopped += 1
        ((builder, _),) = children(BUILDER)
        while builder.status() != psutil.STATUS_SLEEPING:  # little is read ahead: it waits for room in the pipe
            await asyncio.sleep(0.001)
        builder.suspend()
        while builder.status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.001)
        builder.resume()

    monkeypatch.setattr(opcua_standard, "give_way", give_way)
    space = AddressSpace()
    assert await opcua_standard.load(space)
    assert stopped == 20
    assert len(list(space.keys())) > 6000


async def test_of_a_builder_that_is_killed_in_the_midst_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else asyncua, which then builds all of them, would find a part there already."""

    async def give_way() -> None:
        for builder, _ in children(BUILDER):
            builder.kill()

    monkeypatch.setattr(opcua_standard, "give_way", give_way)
    space = AddressSpace()
    assert not await opcua_standard.load(space)
    assert not space.keys()


async def test_the_builder_of_the_standards_nodes_ends_with_who_asked() -> None:
    """Who is killed closes the pipe; a builder that went on would take a core for seconds, for nobody."""
    builder = await asyncio.create_subprocess_exec(sys.executable, "-m", BUILDER, stdin=PIPE, stdout=PIPE)
    assert builder.stdin is not None
    builder.stdin.close()
    built, _ = await builder.communicate()
    assert (builder.returncode, built) == (1, b"")


async def test_a_sink_that_is_stopped_while_it_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the process that builds the standard's nodes nor an open pipe, which would be heard of much later."""
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    thread, space = ServerThread("stopped"), AddressSpace()
    await thread.start()
    building = asyncio.create_task(thread.call(opcua_standard.load(space)))
    await until(lambda: bool(children(BUILDER)), "it builds", 120)
    building.cancel()
    await asyncio.gather(building, return_exceptions=True)
    await thread.stop()
    assert not children(BUILDER)
    gc.collect()
    assert not complaints
