"""A TCP proxy that breaks connections the way a factory network breaks them.

Put it between a connector and its server, and pull the cable::

    async with FaultProxy("127.0.0.1", broker.port) as proxy:
        ...                   # the connector connects to proxy.port
        proxy.black_hole()    # cable pulled: nothing arrives, nothing is closed
        proxy.heal()          # cable back: what was under way arrives, as TCP would resend it
        proxy.reset()         # server gone: every connection dies, new ones are refused
        proxy.lose_answers(b"COMMIT")  # what is asked for is done, and nobody hears of it
"""

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_CHUNK: Final = 64 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST instead of FIN."""


class FaultProxy:
    """Forwards TCP from a free loopback port to a server, until told to misbehave.

    The port is its own until it is left, also while connections are refused.
    """

    def __init__(self, target_host: str, target_port: int, port: int = 0) -> None:
        """``port``: the one to listen on, for servers that tell their clients where to connect; 0: any free one."""
        self.host = "127.0.0.1"
        self.port = port
        """The port to connect to, once entered."""
        self.accepted = 0
        """How many connections came in so far: tells whether a connector tried again."""
        self.lost = 0
        """How many answers were lost so far."""
        self._losing: bytes | None = None
        self._target = (target_host, target_port)
        self._delay = 0.0
        self._passing = asyncio.Event()
        self._passing.set()
        self._claim: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}

    async def __aenter__(self) -> Self:
        self._claim = _bound(self.host, self.port)
        self.port = self._claim.getsockname()[1]
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._refuse()
        tasks = [*self._links]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def black_hole(self) -> None:
        """Forward nothing and close nothing; new connections are accepted and hear nothing."""
        self._passing.clear()

    def reset(self) -> None:
        """Drop every connection with RST and refuse new ones."""
        self._refuse()
        self.drop()

    def drop(self) -> None:
        """Drop every connection with RST; new ones are welcome."""
        for task, link in self._links.items():
            link.reset = True
            task.cancel()

    def lose_answers(self, to: bytes) -> None:
        """Drop a connection with RST once the server answers a request that holds these bytes, instead of the answer.

        For protocols in which each request is answered before the next one comes.
        """
        self._losing = to

    def delay(self, seconds: float) -> None:
        """Let every byte take this much longer, in each direction; the throughput stays."""
        self._delay = seconds

    def heal(self) -> None:
        """Forward everything again, what a black hole held back first."""
        self._delay = 0.0
        self._losing = None
        self._passing.set()
        if self._listener is None:
            self._listen()

    def _listen(self) -> None:
        # A bound socket that does not listen refuses connections, so the claim
        # keeps the port while there is no listener beside it.
        self._listener = listening = _bound(self.host, self.port)
        listening.listen(128)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _refuse(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listening: socket.socket) -> None:
        # No task waits for it: one that is cancelled just then would lose the connection that it was given.
        with suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = listening.accept()
            self.accepted += 1
            link = _Link(client)
            task = asyncio.create_task(self._serve(link), name="fault-proxy-link")
            self._links[task] = link
            task.add_done_callback(self._ended)  # also of one that was dropped before its first step

    async def _serve(self, link: "_Link") -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._passing.wait()
            await link.connect(*self._target)
            for source, target in ((link.client, link.server), (link.server, link.client)):
                under_way: _UnderWay = asyncio.Queue(1024)
                tasks.append(asyncio.create_task(self._take(source, under_way)))
                tasks.append(asyncio.create_task(self._deliver(under_way, target, link)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            link.reset = any(task.exception() for task in done)
        except OSError:
            link.reset = True
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task).close()

    async def _take(self, source: socket.socket, under_way: "_UnderWay") -> None:
        loop = asyncio.get_running_loop()
        chunk: bytes | None = b"-"
        while chunk:
            try:
                chunk = await loop.sock_recv(source, _CHUNK)
            except ConnectionError:
                chunk = None
            await under_way.put((loop.time() + self._delay, chunk))

    async def _deliver(self, under_way: "_UnderWay", target: socket.socket, link: "_Link") -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await self._passing.wait()  # an end of the connection is not seen through a black hole either
            if chunk is None:
                raise ConnectionResetError
            if not chunk:
                target.shutdown(socket.SHUT_WR)
                return
            if target is link.server:
                link.asked = link.asked or (self._losing is not None and self._losing in chunk)
            elif link.asked:
                self.lost += 1
                raise ConnectionResetError
            await loop.sock_sendall(target, chunk)


_UnderWay = asyncio.Queue[tuple[float, bytes | None]]
"""When a chunk is due (loop time) and the chunk; b"" is the end, None a reset."""


class _Link:
    """A client's connection and the one that is opened to the server for it."""

    def __init__(self, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self.server = socket.socket()
        self.server.setblocking(False)
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reset = False
        self.asked = False
        """Whether the next answer is to be lost."""

    async def connect(self, host: str, port: int) -> None:
        await asyncio.get_running_loop().sock_connect(self.server, (host, port))

    def close(self) -> None:
        for end in (self.client, self.server):
            if self.reset:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.close()


def claimed() -> socket.socket:
    """What holds a free loopback port for a server that is started there, killed and started again; close it last.

    It is bound and never listens. Linux lets a server in beside it (SO_REUSEADDR, which servers set), and gives the
    port to nobody else meanwhile, not to an outgoing connection either.
    """
    claim = socket.socket()
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claim.bind(("127.0.0.1", 0))
    return claim


def _bound(host: str, port: int) -> socket.socket:
    claimed = socket.socket()
    claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    claimed.setblocking(False)
    claimed.bind((host, port))
    return claimed
