# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""asyncua's server in a thread with an event loop of its own.

A client that browses a folder of ten thousand tags, or subscribes to them, keeps asyncua busy for a second: in the
loop of the sources everything would wait for it.
"""

import asyncio
import errno
import math
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.common.connection import TransportLimits
from asyncua.server.server import Server
from cryptography.hazmat.primitives.serialization import Encoding

from shopfloor.protocols.opcua_security import Identity
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.sinks.opcua_sessions import Door, Sessions
from shopfloor.sinks.opcua_standard import give_way

_Result = TypeVar("_Result")

PORT: Final = 4840
_CHUNK: Final = 65_535
_LARGEST: Final = 16 * 2**20
"""Bytes of a request that are taken."""
_TURN: Final = 500
"""Nodes that are taken apart until others have their turn."""
_LEAVES_WITHIN: Final = 3.0
"""Seconds."""
_QUEUE: Final = 1000
"""Values of a monitored item that are kept from one publication to the next."""
_UNACKNOWLEDGED: Final = 100
"""Notifications of a subscription that are kept for Republish."""


class ServerThread:
    """A thread with an event loop; ``call`` runs a coroutine there."""

    def __init__(self, name: str) -> None:
        """Not started yet."""
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def start(self) -> None:
        """Return once its loop runs."""
        self._thread.start()
        await asyncio.wrap_future(self._ready)

    async def call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run it there; cancelling cancels it there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._ready.result()))

    async def stop(self) -> None:
        """End every task there, and the thread."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # its loop has ended by itself
                self._ready.result().call_soon_threadsafe(self._end.set)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._ready.set_result(asyncio.get_running_loop())
        await self._end.wait()
        # What was cancelled still closes what it has opened; cancelled once more, by the end of the loop, it could not.
        if leaving := [task for task in asyncio.all_tasks() if task.cancelling()]:
            await asyncio.wait(leaving, timeout=_LEAVES_WITHIN)


def place(endpoint: str) -> tuple[str, int]:
    """Host and port of an endpoint."""
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or PORT


def demand_free(endpoint: str) -> None:
    """Raise Unavailable when another program has the port, Misconfigured when it cannot be had here at all."""
    host, port = place(endpoint)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        raise not_to_be_had(endpoint, error) from error


def not_to_be_had(endpoint: str, error: OSError) -> Exception:
    """What the pipeline is to do when it cannot listen there."""
    host, port = place(endpoint)
    if error.errno == errno.EADDRINUSE:
        return Unavailable(f"the port {port} is taken by another program: end that, or give another one in `endpoint`")
    if isinstance(error, PermissionError):
        return Misconfigured(f"this user may not listen on port {port}; take one from 1024 on, OPC UA's own is {PORT}")
    return Misconfigured(
        f"this computer cannot listen on {host} ({error.strerror or error}); write one of its own addresses in "
        "`endpoint`, or 0.0.0.0 for all"
    )


async def listening(
    endpoint: str,
    door: Door,
    own: Identity,
    policies: Sequence[ua.SecurityPolicyType],
    namespaces: Sequence[str],
    sessions: int,
    populate: Callable[[Server, Sequence[int]], Coroutine[Any, Any, None]],
) -> Server:
    """A server that listens; ``populate`` gets it and the indices of the namespaces before any client comes.

    Raises Unavailable and Misconfigured as ``not_to_be_had`` says.
    """
    demand_free(endpoint)
    server = Server(iserver=Sessions(door))
    try:
        await _prepare(server, endpoint, own, policies, sessions)
        indices = [await server.register_namespace(uri) for uri in namespaces]
        await populate(server, indices)
        await server.start()
    except OSError as error:
        raise not_to_be_had(endpoint, error) from error
    return server


async def _prepare(
    server: Server, endpoint: str, own: Identity, policies: Sequence[ua.SecurityPolicyType], sessions: int
) -> None:
    server.name = "Shopfloor"
    server.manufacturer_name = "Shopfloor"
    server.product_uri = "urn:shopfloor"
    server.application_type = ua.ApplicationType.Server
    server.limits = TransportLimits(
        max_recv_buffer=_CHUNK,
        max_send_buffer=_CHUNK,
        max_chunk_count=math.ceil(_LARGEST / _CHUNK),
        max_message_size=_LARGEST,
    )
    inner = server.iserver
    inner.max_connections = sessions
    inner.max_monitored_item_queue_size = _QUEUE
    inner.max_unacked_messages_per_subscription = _UNACKNOWLEDGED
    await server.init()
    now = datetime.now(UTC)
    await server.set_build_info(server.product_uri, "Shopfloor", "Shopfloor", version("shopfloor"), "0", now)
    await server.set_application_uri(own.application_uri)
    await server.load_certificate(own.certificate.public_bytes(Encoding.DER), format="DER")
    inner.private_key = own.key  # asyncua would read it anew and check it again, which holds all threads
    server.set_endpoint(endpoint)
    server.set_security_policy(list(policies))
    tokens: list[type] = [ua.AnonymousIdentityToken] if door_of(server).anonymous else []
    if door_of(server).accounts:
        tokens.append(ua.UserNameIdentityToken)
    server.set_identity_tokens(tokens)


def door_of(server: Server) -> Door:
    """What decides about this server's clients."""
    inner = server.iserver
    if not isinstance(inner, Sessions):
        raise TypeError(f"{type(inner).__name__} is none of our servers")
    return inner.door


async def end(server: Server) -> None:
    """Close every connection and stop listening."""
    clock = server.iserver.time_task
    if clock is not None:  # asyncua would wait for its next second
        server.iserver.time_task = None
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)
    inner = server.iserver
    if isinstance(inner, Sessions):
        for session in inner.clients():  # one that waits for its client to come back would never be closed
            await session.close_session()
    await server.stop()


async def dismantle(server: Server) -> None:
    """Take the address space apart in pieces: as one heap it would keep Python's collector, and all threads, busy."""
    space = server.iserver.aspace
    for number, node_id in enumerate(list(space.keys())):
        node = space[node_id]
        node.attributes.clear()
        node.references.clear()
        del space[node_id]
        if not number % _TURN:
            await give_way()
