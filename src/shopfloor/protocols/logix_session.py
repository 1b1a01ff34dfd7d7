"""A connection to a Logix controller in a thread of its own: pycomm3 blocks, and its calls must not overlap.

pycomm3 decodes a value by the tag list that it uploaded, whatever the controller sends. So each read is followed by a
look at the attributes by which a controller shows that its program was changed (class 0xAC, 1756-PM020): only when they
are as they were at the upload do the values count. Tags are always asked for by name, not by the number that they have
in the tag list, which another program gives to another tag.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar, cast

import orjson
from pycomm3 import CommError, LogixDriver, PycommError

from shopfloor.protocols.logix_reasons import explained
from shopfloor.samples import Unavailable, Value

_T = TypeVar("_T")
_log: Final = logging.getLogger(__name__)

_HEADER: Final = 24
_CHANGES: Final = 0xAC
_ATTRIBUTE_LIST: Final = 0x03
_SIGNATURE: Final = struct.pack("<6H", 5, 1, 2, 3, 4, 10)
"""How many attributes of the changes object are asked for, and which."""
_TRIES: Final = 3
"""How often a read is begun anew because the program was changed meanwhile."""


class Answer(NamedTuple):
    """What the controller said about one tag."""

    value: Value
    error: str = ""
    type: str = ""
    """As Logix names it: ``DINT``, ``REAL[3]``, ``STRING``, or a structure's name."""


class Lost(Unavailable):
    """The connection ended while a request was under way."""


class _Wire:
    """pycomm3's socket, with the reason of a failure, and one that notices when the other side hangs up."""

    def __init__(self, timeout: float) -> None:
        self.sock: socket.socket | None = None
        self._timeout = timeout

    def connect(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), self._timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: bytes, timeout: float = 0) -> int:
        del timeout
        self._connected().sendall(message)
        return len(message)

    def receive(self, timeout: float = 0) -> bytes:
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

    def abort(self) -> None:
        """Wake up the thread that waits for an answer."""
        if self.sock is not None:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is gone already

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()


class Session:
    """A controller's tags. Call ``open`` first; every method but ``abort`` waits for the ones before it."""

    def __init__(self, host: str, port: int, path: str, timeout: float) -> None:
        """``path``: the slot, or pycomm3's route behind the address. ``timeout``: seconds for one answer."""
        self._host, self._port, self._path, self._timeout = host, port, path, timeout
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"logix-{host}")
        self._wire = _Wire(timeout)
        self._driver: Any = None
        self._signature: bytes | None = None
        self.uploads = 0
        """How often the tag list was uploaded."""

    async def open(self) -> None:
        """Connect and upload the tag list. Raises Unavailable that says what to look at."""
        await self._run(self._open)

    async def read(self, names: Sequence[str]) -> list[Answer]:
        """What these tags hold, all by the same program. Raises Lost."""
        return await self._run(lambda: self._read(names))

    async def write(self, name: str, value: object, check: Callable[[], None]) -> str:
        """Write a value of the tag's own type; why the controller refused it, or "". Raises Lost.

        ``check`` is called right before and may raise.
        """

        def write() -> str:
            check()
            return explained(str(self._driver.write((name, value)).error or ""))

        return await self._run(write)

    async def tags(self) -> Mapping[str, Mapping[str, Any]]:
        """The tag list as pycomm3 gives it, uploaded anew."""

        def upload() -> Mapping[str, Mapping[str, Any]]:
            self._upload()
            return cast("Mapping[str, Mapping[str, Any]]", self._driver.tags)

        return await self._run(upload)

    async def close(self) -> None:
        """Say goodbye where the connection is there, and free everything."""
        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, self._close))
        finally:
            self._executor.shutdown(wait=False)

    def abort(self) -> None:
        """Break the connection: what is under way ends with Lost."""
        self._wire.abort()

    async def _run(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except asyncio.CancelledError:
            self.abort()  # the thread must not wait on
            raise
        except (OSError, PycommError, struct.error) as error:
            raise self._explained(error) from error

    def _open(self) -> None:
        self._driver = driver = cast("Any", LogixDriver(f"{self._host}:{self._port}/{self._path}"))
        driver._sock = self._wire  # noqa: SLF001  # pycomm3 offers no other way
        driver.open()
        self._signature = self._seen()
        self._by_name()

    def _by_name(self) -> None:
        self.uploads += 1
        self._driver._cfg["use_instance_ids"] = False  # noqa: SLF001  # likewise

    def _upload(self) -> None:
        self._signature = self._seen()
        self._driver.get_tag_list(program="*")
        self._by_name()

    def _seen(self) -> bytes | None:
        """What the controller shows of its program's version; None where it has no such object."""
        answer = self._driver.generic_message(
            service=_ATTRIBUTE_LIST, class_code=_CHANGES, instance=1, request_data=_SIGNATURE, connected=True
        )
        return answer.value if answer.error is None else None

    def _read(self, names: Sequence[str]) -> list[Answer]:
        for _ in range(_TRIES):
            found = self._driver.read(*names)
            rows = found if len(names) > 1 else [found]
            answers = [Answer(_plain(row.value), explained(str(row.error or "")), str(row.type or "")) for row in rows]
            if self._seen() == self._signature:
                return answers
            _log.info("%s: its program was changed; the tag list is uploaded anew", self)
            self._upload()
        raise CommError("the program was changed again and again while it was read")

    def _close(self) -> None:
        if self._driver is not None:
            try:
                self._driver.close()
            except (OSError, PycommError, struct.error):
                self._wire.close()
        self._wire.close()

    def _explained(self, error: Exception) -> Unavailable:
        """The error with what to look at."""
        chain = list(_causes(error))
        root = chain[-1]
        text = " ".join(str(one) for one in chain)
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
            return Lost(f"{self} closed the connection: {root}")
        if "did not connect" in text or "forward_open" in text:
            return Unavailable(
                f"{self} gives no connection: all of them are in use (close another client), or there is no controller "
                f"at `path: {self._path}`"
            )
        return Unavailable(f"{self} does not answer as a Logix controller; is `path: {self._path}` its slot? ({text})")

    def _unanswered(self) -> str:
        look = "; is the address right, the controller on, a firewall between?"
        if self._wire.sock is not None:
            look = f", although the connection is there: is it a controller, and is `path: {self._path}` right?"
        return f"no answer from {self} within {self._timeout:g} s{look}"

    def __str__(self) -> str:
        return f"{self._host}:{self._port}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _plain(value: object) -> Value:
    """Arrays and structures become JSON text."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    return orjson.dumps(value, default=str).decode()
