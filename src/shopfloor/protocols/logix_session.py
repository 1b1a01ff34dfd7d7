"""A connection to a Logix controller in a thread of its own: pycomm3 blocks, and its calls must not overlap.

pycomm3 decodes a value by the tag list that it uploaded, whatever the controller sends. So each read is followed by a
look at the attributes by which a controller shows that its program was changed (class 0xAC, 1756-PM020): only when they
are as they were at the upload do the values count. Tags are always asked for by name, not by the number that they have
in the tag list, which another program gives to another tag.
"""

import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast

import orjson
from pycomm3 import CommError, LogixDriver

from shopfloor.protocols.eip_session import FULL, Answer, EipSession
from shopfloor.protocols.logix_reasons import explained
from shopfloor.samples import Unavailable, Value

_log: Final = logging.getLogger(__name__)

_CHANGES: Final = 0xAC
_ATTRIBUTE_LIST: Final = 0x03
_SIGNATURE: Final = struct.pack("<6H", 5, 1, 2, 3, 4, 10)
"""How many attributes of the changes object are asked for, and which."""
_TOGETHER: Final = 500
"""Tags of one piece of work: about 17 requests, and the look at the program behind them."""
_TRIES: Final = 3
"""How often a read is begun anew because the program was changed meanwhile."""


class Controller(NamedTuple):
    """Which controller, and how it is reached."""

    host: str
    port: int
    path: str
    """The slot, or pycomm3's route behind the address."""
    timeout: float
    """Seconds for one answer."""


class Session(EipSession):
    """A controller's tags; ``async with`` connects and uploads the tag list."""

    def __init__(self, controller: Controller) -> None:
        """Opens nothing yet."""
        super().__init__(controller.host, controller.port, controller.timeout)
        self._path = controller.path
        self._signature: bytes | None = None
        self.uploads = 0
        """How often the tag list was uploaded."""

    async def read(self, names: Sequence[str]) -> list[Answer]:
        """What these tags hold, each by the program that is loaded. Raises Lost.

        A command that comes meanwhile waits for ``_TOGETHER`` of them, not for all.
        """
        found: list[Answer] = []
        for begin in range(0, len(names), _TOGETHER):
            found += await self.run(partial(self._read, names[begin : begin + _TOGETHER]))
        return found

    async def write(self, name: str, value: object, check: Callable[[], None]) -> str:
        """Write a value of the tag's own type; why the controller refused it, or "". Raises Lost.

        ``check`` is called right before and may raise.
        """

        def write() -> str:
            check()
            return explained(str(self._driver.write((name, value)).error or ""))

        return await self.run(write)

    async def tags(self) -> Mapping[str, Mapping[str, Any]]:
        """The tag list as pycomm3 gives it, uploaded anew."""

        def upload() -> Mapping[str, Mapping[str, Any]]:
            self._upload()
            return cast("Mapping[str, Mapping[str, Any]]", self._driver.tags)

        return await self.run(upload)

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

    def _doubt(self) -> str:
        return f", and is `path: {self._path}` right"

    def _refused(self, text: str) -> Unavailable:
        if "did not connect" in text or "forward_open" in text:
            return Unavailable(f"{self} gives no connection: there is no controller at `path: {self._path}`, or {FULL}")
        return Unavailable(
            f"{self} does not answer as a Logix controller; is `path: {self._path}` its slot? For SLC 500, MicroLogix "
            f"and PLC-5 write `type: slc` ({text})"
        )


def _plain(value: object) -> Value:
    """Arrays and structures become JSON text."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    return orjson.dumps(value, default=str).decode()
