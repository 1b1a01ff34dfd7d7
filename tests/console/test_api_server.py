"""The server inside the pipeline's event loop: starts, stops, and says what to do where it cannot."""

import asyncio
import json
import signal
import socket
from contextlib import suppress

import httpx
import pytest
from websockets.asyncio.client import connect

from shopfloor.console import serve, url
from shopfloor.console.server import _address
from shopfloor.samples import Misconfigured, Sample
from shopfloor.testing.programs import free_port
from tests.console.fakes import T0, FakeRuntime


async def started(runtime: FakeRuntime, listen: str) -> asyncio.Task[None]:
    ready = asyncio.Event()
    serving = asyncio.create_task(serve(runtime, listen, ready))
    async with asyncio.timeout(60):
        await ready.wait()
    return serving


async def test_it_stops_with_open_streams_and_pressed_buttons_and_frees_the_port(runtime: FakeRuntime) -> None:
    listen = f"127.0.0.1:{free_port()}"
    for _ in range(2):
        runtime.writes.clear()
        serving = await started(runtime, listen)
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("GET", f"http://{listen}/api/live") as stream,
            connect(f"ws://{listen}/api/hold") as hold,
        ):
            await hold.send(json.dumps({"type": "press", "press": f"p{id(serving)}", "tag": "press-1/Start"}))
            await hold.recv()
            serving.cancel()
            async with asyncio.timeout(60):
                with suppress(asyncio.CancelledError):
                    await serving
            async with asyncio.timeout(30):
                with suppress(httpx.RemoteProtocolError):
                    await stream.aread()
        async with asyncio.timeout(30):
            while len(runtime.writes) < 2:  # the fake machine has no event
                await asyncio.sleep(0.005)
        assert [value for _, value in runtime.writes] == [True, False]


async def test_it_stops_soon_though_a_viewer_reads_nothing(
    runtime: FakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    serving = await started(runtime, f"127.0.0.1:{port}")
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", port))
        stuck.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for i in range(30):
            runtime.give(*[Sample(f"wide/{n}", T0 + i, "x" * 900) for n in range(500)])
            await asyncio.sleep(0.05)  # the stream's pace, until the kernel takes no more
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
    assert "Cancel" not in caplog.text
    assert "Exception" not in caplog.text


async def test_it_leaves_the_signals_alone(runtime: FakeRuntime) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    serving = await started(runtime, f"127.0.0.1:{free_port()}")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


def test_an_ipv6_address_is_read_without_its_brackets() -> None:
    """A machine without IPv6 cannot listen on it, so only the reading of the address is tested."""
    assert _address("[::1]:8080") == ("::1", 8080)


async def test_a_port_in_use_says_what_to_do(runtime: FakeRuntime) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Misconfigured, match=r"another program does; stop it, or choose another port"):
            await serve(runtime, f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("203.0.113.7:8080", "no such address"),
        ("nowhere.invalid:8080", "cannot be resolved"),
        ("127.0.0.1:99999", "is no address"),
        ("127.0.0.1", "is no address"),
        (":8080", "is no address"),
    ],
)
async def test_an_address_that_cannot_be_used_says_why(runtime: FakeRuntime, listen: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        await serve(runtime, listen)


@pytest.mark.parametrize(
    ("listen", "opened"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:8080", "http://[::1]:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("plant.example:8080", "http://plant.example:8080"),
    ],
)
def test_the_address_to_open(listen: str, opened: str) -> None:
    assert url(listen) == opened


async def test_garbage_on_the_port_does_no_harm(address: str) -> None:
    host, _, port = address.partition(":")
    for garbage in (
        b"\x16\x03\x01" + bytes(200),
        b"GET / HTTP/9.9\r\n\r\n",
        b"A" * 200_000,
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ):
        _, writer = await asyncio.open_connection(host, int(port))
        with suppress(ConnectionError):
            writer.write(garbage)
            await writer.drain()
        writer.close()
    async with httpx.AsyncClient(timeout=30) as client:
        assert (await client.get(f"http://{address}/health")).status_code == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "99999999999999999999999"])
async def test_a_false_content_length_is_refused(address: str, length: str) -> None:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /api/commands HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n".encode())
    async with asyncio.timeout(30):
        status = (await reader.readline()).split()[1]
    writer.close()
    assert status in {b"400", b"413"}


async def test_the_plant_file_names_further_hosts(runtime: FakeRuntime) -> None:
    console = runtime.plant.console
    assert console is not None
    runtime.plant = runtime.plant.model_copy(
        update={"console": console.model_copy(update={"hosts": ["plant.example.com"]})}
    )
    listen = f"127.0.0.1:{free_port()}"
    serving = await started(runtime, listen)
    async with httpx.AsyncClient(timeout=30) as client:
        for host, status in (("plant.example.com", 200), ("PLANT.example.com:443", 200), ("other.example.com", 421)):
            answer = await client.get(f"http://{listen}/health", headers={"Host": host})
            assert answer.status_code == status
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving
