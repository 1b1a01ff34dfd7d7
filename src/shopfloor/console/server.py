"""Runs the console inside the event loop that the pipeline runs in."""

import asyncio
import errno
import ipaddress
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from shopfloor.console.api import create_app
from shopfloor.console.view import Runtime
from shopfloor.samples import Misconfigured

CONNECTIONS: Final = 1_000
"""At most at once; further ones are answered with 503."""
SEND_BUFFER: Final = 256 * 1024
"""Bytes that the kernel keeps for one connection: what a slow viewer can lag behind unseen."""
UNACKNOWLEDGED: Final = 15_000
"""ms after which the kernel gives up a peer that takes no data: a black hole, a page that never reads."""
LARGEST_MESSAGE: Final = 16 * 1024
"""Bytes of a WebSocket message."""


class _Protocol(H11Protocol):
    """Hands every request the way to drop its connection without waiting for what was not read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}


class _Server(uvicorn.Server):
    """Leaves the signals alone and says when it is up."""

    def __init__(self, config: uvicorn.Config, ready: asyncio.Event) -> None:
        super().__init__(config)
        self._ready = ready

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # narrower than a generator
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()


async def serve(pipeline: Runtime, listen: str, ready: asyncio.Event | None = None) -> None:
    """Serve the console on ``host:port`` until cancelled, then end every connection and return.

    ``ready`` is set once it answers. Raises Misconfigured when it cannot listen there.
    """
    host, port = _address(listen)
    listening = _bound(host, port)
    configured = pipeline.plant.console
    app = create_app(pipeline, hosts=[host, *(configured.hosts if configured else ())])
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        ws_ping_interval=1,
        ws_ping_timeout=1,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        # Names of clients go into the audit record: only the connection itself is believed.
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config, ready or asyncio.Event())
    serving = asyncio.create_task(server.serve([listening]), name="console server")
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        app.state.stream.close()
        server.should_exit = True
        await serving
        raise
    finally:
        listening.close()


def url(listen: str) -> str:
    """The address to open in a browser on this machine; a wildcard listens on loopback too."""
    host, port = _address(listen)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        host = "[::1]" if address.version == 6 else "127.0.0.1"  # noqa: PLR2004  # IP's own numbers
    elif address.version == 6:  # noqa: PLR2004  # IP's own number
        host = f"[{host}]"
    return f"http://{host}:{port}"


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 2**16:
        raise Misconfigured(f"console.listen: {listen!r} is no address; write host:port, such as 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise Misconfigured(
            f"console.listen: {host!r} cannot be resolved ({error.strerror}); write an address of this computer"
        ) from error
    listening = socket.socket(family, kind, protocol)
    try:
        _configure(listening)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise Misconfigured(_cannot_listen(host, port, error)) from error
    return listening


def _configure(listening: socket.socket) -> None:
    """Options that accepted connections inherit."""
    options: list[tuple[Any, Any, int]] = [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER),
    ]
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED))
    for level, option, value in options:
        listening.setsockopt(level, option, value)
    listening.setblocking(False)


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    where = f"the console cannot listen on {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: another program does; stop it, or choose another port in console.listen (or --listen)"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{where}: this computer has no such address; choose one of its own in console.listen, or 0.0.0.0 for all"
        )
    if error.errno == errno.EACCES:
        return f"{where}: ports below 1024 need a privilege; choose a higher one in console.listen"
    return f"{where}: {error.strerror or error}; choose another address in console.listen"
