"""A connection by EtherNet/IP in a thread of its own: pycomm3 blocks, and its calls must not overlap."""

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Self, TypeVar

from pycomm3 import CommError, PycommError

from shopfloor.samples import Unavailable, Value

_T = TypeVar("_T")

_HEADER: Final = 24
_GOODBYE: Final = 1.0
"""Seconds that a controller has to answer a goodbye."""


FULL: Final = (
    "most likely all its connections are in use: close another client (programming software, HMI, gateway), or let all "
    "sources here have the same `host`, `port` and `timeout`, then they share one"
)
"""What a controller that lets nobody in may want."""


class Answer(NamedTuple):
    """What the controller said about one tag."""

    value: Value
    error: str = ""
    type: str = ""
    """As the controller's maker names it: ``DINT``, ``REAL[3]``, ``STRING``, or a structure's name."""


class Lost(Unavailable):
    """The connection ended while a request was under way."""


class Unfit(ValueError):
    """A value does not fit what it shall be written to; the text says what would."""


class Wire:
    """pycomm3's socket, with the reason of a failure, and one that notices when the other side hangs up."""

    def __init__(self, timeout: float) -> None:
        """``timeout``: seconds for one answer."""
        self.sock: socket.socket | None = None
        self.timeout = timeout

    def connect(self, host: str, port: int) -> None:
        """Called by pycomm3."""
        self.sock = socket.create_connection((host, port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: bytes, timeout: float = 0) -> int:
        """Called by pycomm3."""
        del timeout
        self._connected().sendall(message)
        return len(message)

    def receive(self, timeout: float = 0) -> bytes:
        """Called by pycomm3: one whole message."""
        del timeout
        head = self._exactly(_HEADER)
        (size,) = struct.unpack_from("<H", head, 2)
        return head + self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connected().recv(size - len(data))
            if not part:
                raise CommError("the controller closed the connection")
            data += part
        return data

    def _connected(self) -> socket.socket:
        if self.sock is None:
            raise CommError("not connected")
        return self.sock

    def hurry(self) -> None:
        """Wait no longer than a goodbye deserves."""
        if self.sock is not None:
            self.sock.settimeout(min(self.timeout, _GOODBYE))

    def abort(self) -> None:
        """Wake up the thread that waits for an answer."""
        if self.sock is not None:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is gone already

    def close(self) -> None:
        """Called by pycomm3 and by us; twice is once."""
        if self.sock is not None:
            self.sock.close()


class EipSession(ABC):
    """One connection to one controller; ``async with`` connects. Its work is done one after the other.

    An error ends the connection for everybody who shares it: who waited for an answer that never came must not get it
    in place of the next one.
    """

    def __init__(self, host: str, port: int, timeout: float) -> None:
        """``timeout``: seconds for one answer."""
        self._host, self._port, self._timeout = host, port, timeout
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"eip-{host}")
        self._wire = Wire(timeout)
        self._driver: Any = None
        self._under_way: set[Future[Any]] = set()
        self._opened = self._broken = False

    @property
    def connected(self) -> bool:
        """False once it is lost."""
        return not self._broken

    async def __aenter__(self) -> Self:
        """Connect. Raises Unavailable that says what to look at."""
        try:
            await self.run(self._open)
            self._opened = True
        except BaseException:
            self._wire.abort()
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Say goodbye where the connection is there and nobody waits for an answer, and free everything."""
        if self._under_way:
            self._wire.abort()
        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, self._close))
        finally:
            self._executor.shutdown(wait=False)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Do this in the connection's thread, after what is under way. Raises Unavailable, Lost when it was connected.

        Who is cancelled does not wait: work that has begun goes on, for the answers must stay in order, other work does
        not begin.
        """
        job = self._executor.submit(work)
        self._under_way.add(job)
        job.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.wrap_future(job)
        except (OSError, PycommError, struct.error) as error:
            self._broken = True
            self._wire.abort()
            raise self._explained(error) from error

    @abstractmethod
    def _open(self) -> None:
        """Make ``_driver`` and connect; in the connection's thread."""

    @abstractmethod
    def _refused(self, text: str) -> Unavailable:
        """What an error of pycomm3's that is none of the network's says about the controller."""

    def _close(self) -> None:
        if self._driver is not None:
            self._wire.hurry()
            try:
                self._driver.close()
            except (OSError, PycommError, struct.error):
                self._wire.close()
        self._wire.close()

    def _explained(self, error: Exception) -> Unavailable:
        """The error with what to look at."""
        chain = list(_causes(error))
        root = chain[-1]
        if isinstance(root, ConnectionRefusedError):
            return Unavailable(
                f"{self} refuses the connection; check `host` and `port` (44818 is usual): it must be the controller "
                "or the EtherNet/IP module of its rack"
            )
        if isinstance(root, socket.gaierror):
            return Unavailable(f"the name {self._host!r} is not known; correct `host`")
        if isinstance(root, TimeoutError):
            return Lost(self._unanswered())
        if isinstance(root, OSError | CommError):
            hint = "" if self._opened else f"; if it does so again and again, {FULL}"
            return Lost(f"{self} closed the connection: {root}{hint}")
        return self._refused(" ".join(str(one) for one in chain))

    def _unanswered(self) -> str:
        look = "; is the address right, the controller on, a firewall between?"
        if self._wire.sock is not None:
            look = f", although the connection is there: is it a controller{self._doubt()}?"
        return f"no answer from {self} within {self._timeout:g} s{look}"

    def _doubt(self) -> str:
        """What else of the configuration may be wrong when a connection is there and nobody answers."""
        return ""

    def __str__(self) -> str:
        return f"{self._host}:{self._port}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
