"""The fault proxy breaks what it says it breaks, and heals it."""

import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from shopfloor.simulators.network import claimed
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port

SOON = 0.2
"""Seconds in which nothing arriving counts as silence; an answer over loopback takes a millisecond."""


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    async with echo() as port, FaultProxy("127.0.0.1", port) as proxy:
        yield proxy


async def test_forwards_both_ways_until_told_otherwise(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    payload = b"x" * 1_000_000
    writer.write(payload)
    assert await reader.readexactly(len(payload)) == payload
    assert (proxy.connections, proxy.accepted) == (1, 1)
    writer.write_eof()
    assert await reader.read() == b"", "an end on one side becomes an end on the other"
    writer.close()


async def test_black_hole_is_silent_and_loses_nothing_when_healed(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(b"before")
    await reader.readexactly(6)
    proxy.black_hole()
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), SOON)
    assert not reader.at_eof()
    late_reader, late_writer = await asyncio.open_connection(proxy.host, proxy.port)
    late_writer.write(b"late")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late_reader.read(1), SOON)
    proxy.heal()
    assert await asyncio.wait_for(reader.readexactly(6), 30) == b"during"
    assert await asyncio.wait_for(late_reader.readexactly(4), 30) == b"late"
    writer.close()
    late_writer.close()


async def test_reset_kills_connections_and_refuses_new_ones_until_healed(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(b"here")
    await reader.readexactly(4)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 30)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(proxy.host, proxy.port)
    proxy.heal()
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(b"back")
    assert await asyncio.wait_for(reader.readexactly(4), 30) == b"back"
    writer.close()


async def test_a_connection_is_dropped_at_whatever_moment_of_its_beginning(proxy: FaultProxy) -> None:
    """The other end learns of it also when nothing was forwarded yet."""
    for turns in range(6):
        accepted = proxy.accepted
        connecting = asyncio.create_task(asyncio.open_connection(proxy.host, proxy.port))
        while proxy.accepted == accepted:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        proxy.drop()
        with suppress(ConnectionError):
            reader, writer = await connecting
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(1), SOON * 10) == b""
            writer.close()


async def test_delay_holds_every_byte_back_in_both_directions_and_keeps_their_order(proxy: FaultProxy) -> None:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    proxy.delay(0.15)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for piece in (b"one ", b"two ", b"three"):
        writer.write(piece)
        await writer.drain()
    assert await reader.readexactly(13) == b"one two three"
    assert loop.time() - begin >= 0.3, "the delay is a promise of the proxy, not a measurement"
    writer.close()


async def test_a_server_that_is_away_looks_like_a_reset() -> None:
    async with FaultProxy("127.0.0.1", free_port()) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 30)
        writer.close()


async def test_leaving_closes_everything() -> None:
    async with echo() as port:
        before = asyncio.all_tasks()
        async with FaultProxy("127.0.0.1", port) as proxy:
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            writer.write(b"x")
            await reader.readexactly(1)
            proxy.black_hole()
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        assert not [task for task in asyncio.all_tasks() - before if task.get_name().startswith("fault-proxy")]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(proxy.host, proxy.port)


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_connection_that_comes_just_when_it_refuses_is_closed(proxy: FaultProxy, steps: int) -> None:
    """At whichever step of the event loop: none is accepted and then forgotten."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        with socket.create_connection((proxy.host, proxy.port), timeout=60) as client:
            for _ in range(steps):
                await asyncio.sleep(0)
            proxy.reset()
            for _ in range(3):
                await asyncio.sleep(0)
            gc.collect()
            with suppress(ConnectionResetError):
                assert await asyncio.to_thread(client.recv, 1) == b""
    assert not said


async def test_an_answer_that_is_lost_was_given(proxy: FaultProxy) -> None:
    """What is asked for is done; the connection breaks instead of the answer, until it is healed."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    proxy.lose_answers(b"COMMIT")
    writer.write(b"INSERT")
    assert await reader.readexactly(6) == b"INSERT"
    assert proxy.lost == 0
    writer.write(b"COMMIT;")
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert proxy.lost == 1
    proxy.heal()
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    writer.write(b"COMMIT;")
    assert await reader.readexactly(7) == b"COMMIT;"
    writer.close()


async def test_a_claimed_port_lets_a_server_in_again_and_nobody_else() -> None:
    """A server that was killed finds its port again, whatever others have been given meanwhile."""
    with claimed() as claim:
        host, port = claim.getsockname()
        for _ in range(2):
            server = await asyncio.start_server(lambda _, writer: writer.close(), host, port)
            reader, writer = await asyncio.open_connection(host, port)
            assert await reader.read() == b""
            writer.close()
            server.close()
            await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((host, port))
