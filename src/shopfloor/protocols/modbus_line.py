"""A Modbus connection: one request at a time, shared by all sources of one address, opened anew when it is needed.

Devices and gateways have few connections to give (often one to eight), so sources of the same address share one.
Whatever ends between a request and its answer ends the connection as well: no late answer is ever taken for another's.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, cast
from weakref import WeakKeyDictionary

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException
from pymodbus.pdu import ModbusPDU

from shopfloor.protocols.modbus_address import BITS, Kind
from shopfloor.samples import Unavailable

Framing = Literal["tcp", "rtu-over-tcp"]
Address = tuple[str, int, Framing]
"""Host, port, framing."""

_FRAMERS: Final = {"tcp": FramerType.SOCKET, "rtu-over-tcp": FramerType.RTU}
_NEVER: Final = 10**6
"""Seconds: pymodbus's own patience, beyond ours."""

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
DEVICE_FAILURE: Final = 4
ACKNOWLEDGED: Final = 5
BUSY: Final = 6
NO_PATH: Final = 10
NO_ANSWER: Final = 11
_MEANINGS: Final = {
    ILLEGAL_FUNCTION: "the device does not know this function; is the kind of the address right?",
    ILLEGAL_ADDRESS: "the device has nothing at this address; correct `address`, or `type` if it is too long",
    ILLEGAL_VALUE: "the device does not accept this value or length; correct `type`, or lower `registers`",
    DEVICE_FAILURE: "the device failed; look at it, and whether `device` is right",
    ACKNOWLEDGED: "the device takes its time",
    BUSY: "the device is busy; read it less often",
    NO_PATH: "the gateway has no way to this device; correct `device`",
    NO_ANSWER: "the gateway hears nothing from this device; correct `device`, or look at the device and its cable",
}


class Refused(Exception):
    """The device answered with an exception code."""

    def __init__(self, code: int) -> None:
        """``code`` as the protocol numbers it."""
        super().__init__(f"{_MEANINGS.get(code, 'the device refuses it')} (Modbus exception {code})")
        self.code = code


class Silent(Exception):
    """The request went out and no answer came in time."""


class Lost(Unavailable):
    """The connection ended between the request and its answer."""


Send = Callable[[AsyncModbusTcpClient], Awaitable[ModbusPDU]]


class Line:
    """One connection; have it by ``shared``."""

    def __init__(self, address: Address) -> None:
        """Connects when it is first needed."""
        self._address = address
        self._lock = asyncio.Lock()
        self._client: AsyncModbusTcpClient | None = None

    async def connect(self, timeout: float) -> None:  # noqa: ASYNC109  # the protocol's own, part of the message
        """Connect if it is not. Raises Unavailable that says what to look at."""
        async with self._lock:
            await self._connected(timeout)

    async def read(self, kind: Kind, device: int, start: int, count: int, timeout: float) -> Sequence[int]:  # noqa: ASYNC109
        """``count`` registers or bits from ``start`` (from 0). Raises Refused, Silent, Unavailable."""

        async def send(client: AsyncModbusTcpClient) -> ModbusPDU:
            match kind:
                case "coil":
                    return await client.read_coils(start, count=count, device_id=device)
                case "discrete":
                    return await client.read_discrete_inputs(start, count=count, device_id=device)
                case "input":
                    return await client.read_input_registers(start, count=count, device_id=device)
                case "holding":
                    return await client.read_holding_registers(start, count=count, device_id=device)

        answer = await self.request(send, timeout)
        found: Sequence[int] = answer.bits if kind in BITS else answer.registers
        if len(found) < count:
            self._drop()
            raise Lost(f"{self} answered {len(found)} of {count} values: it does not keep to the protocol")
        return found[:count]

    async def request(self, send: Send, timeout: float, check: Callable[[], None] | None = None) -> ModbusPDU:  # noqa: ASYNC109
        """Send one request, never again, and give its answer; ``check`` may raise right before it goes out.

        Raises Refused, Silent, Lost, and Unavailable when nothing was sent.
        """
        async with self._lock:
            client = await self._connected(timeout)
            if check is not None:
                check()
            try:
                async with asyncio.timeout(timeout):
                    answer = await send(client)
            except TimeoutError:
                self._drop()
                raise Silent(f"no answer from {self} within {timeout:g} s") from None
            except ConnectionException as error:
                self._drop()
                raise Lost(
                    f"{self} closed the connection instead of answering; many devices have few connections to give: "
                    "close one that is not needed; or it speaks no Modbus, check `host` and `port`"
                ) from error
            except ModbusException as error:
                self._drop()
                raise Lost(f"{self} answers something that is no Modbus ({error}); is `framing` right?") from error
            except BaseException:
                self._drop()
                raise
        if answer.isError():
            raise Refused(answer.exception_code)
        return answer

    async def close(self) -> None:
        """Disconnect."""
        async with self._lock:
            self._drop()

    async def _connected(self, timeout: float) -> AsyncModbusTcpClient:  # noqa: ASYNC109
        if self._client is not None and self._client.connected:
            return self._client
        self._drop()
        host, port, framing = self._address
        client = AsyncModbusTcpClient(
            host, port=port, framer=_FRAMERS[framing], timeout=_NEVER, retries=0, reconnect_delay=0,
            trace_connect=lambda up: None if up else _lost(client),
        )  # fmt: skip
        try:
            async with asyncio.timeout(timeout):
                await client.ctx.call_create()  # its connect() would keep the reason of a failure to itself
        except TimeoutError:
            client.close()
            raise Unavailable(
                f"no answer from {self} within {timeout:g} s; is the address right, the device on, a firewall between?"
            ) from None
        except OSError as error:
            client.close()
            raise Unavailable(self._why(error)) from error
        except BaseException:
            client.close()
            raise
        self._client = client
        return client

    def _why(self, error: OSError) -> str:
        if isinstance(error, ConnectionRefusedError):
            return (
                f"{self} refuses the connection; check the port (502 is usual) and that Modbus TCP is switched on, or "
                "close another connection to it: many devices have few to give"
            )
        if isinstance(error, socket.gaierror):
            return f"the name {self._address[0]!r} is not known; correct `host`"
        return f"{self} cannot be reached: {error.strerror or error}"

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __str__(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"


def _lost(client: AsyncModbusTcpClient) -> None:
    """Wake up who waits for an answer: pymodbus would let it wait to the end of its patience."""
    waiting = cast("asyncio.Future[ModbusPDU]", client.ctx.response_future)  # pyright: ignore[reportUnknownMemberType]
    if not waiting.done():
        waiting.set_exception(ConnectionException("the connection ended"))
        waiting.exception()  # nobody may be waiting: that is no reason for a complaint


_lines: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Address, tuple[Line, int]]]] = WeakKeyDictionary()
"""The connections of an event loop, with how many use each."""


@asynccontextmanager
async def shared(address: Address) -> AsyncGenerator[Line]:
    """The connection to this address, one for all who ask; the last one to leave closes it."""
    lines = _lines.setdefault(asyncio.get_running_loop(), {})
    line, users = lines.get(address, (Line(address), 0))
    lines[address] = (line, users + 1)
    try:
        yield line
    finally:
        line, users = lines[address]
        if users > 1:
            lines[address] = (line, users - 1)
        else:
            del lines[address]
            await line.close()
