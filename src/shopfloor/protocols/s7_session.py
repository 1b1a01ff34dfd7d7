"""One connection to an S7: jobs that overlap as far as the PLC allows, an answer for every item, errors explained.

python-snap7 builds and reads the services of S7. Its clients are not used: in 3.3 the asynchronous one reads several
variables one after the other, gives up all of them for a bad one, writes a bit by rewriting its byte, and says RUN
whatever the CPU does.
"""

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final, NamedTuple, Self, cast

from snap7.datatypes import S7Area, S7DataTypes, S7WordLen
from snap7.error import S7Error
from snap7.s7protocol import S7Protocol

from shopfloor.protocols.s7_address import Address, Area
from shopfloor.protocols.s7_grouping import Block
from shopfloor.samples import Unavailable

logging.getLogger("snap7").setLevel(logging.ERROR)  # it warns of answers that are dealt with here

PORT: Final = 102
PDU: Final = 960
"""Bytes asked for; each PLC answers with what it can (240 to 960)."""
JOBS: Final = 4
"""Requests under way at once that are asked for; each PLC answers with what it can."""
OK: Final = 0xFF
"""An item's return code when it was read or written."""

_COTP_CR, _COTP_CC, _COTP_DR, _COTP_DT = 0xE0, 0xD0, 0x80, 0xF0
_CALLING, _CALLED, _TPDU = 0xC1, 0xC2, 0xC0
_TPDU_1024: Final = 10
_READ, _WRITE, _SETUP = 0x04, 0x05, 0xF0
_JOB, _USERDATA = 1, 7
_IN_BYTES: Final = frozenset({0x03, 0x06, 0x07, 0x09})
"""Transport sizes whose length is not in bits."""
_UNREADABLE: Final = (S7Error, ValueError, LookupError, struct.error)
"""What python-snap7 raises for an error of the PLC, and for a telegram that is none."""
_SZL_STATE: Final = 0x0424
_DB_TYPE: Final = 0x41
_STOPPED: Final = (3, 4)
_RUNNING: Final = 8
_EPOCH_DATES: Final = slice(22, 34)
"""Of a block's description: when its code and its interface were changed."""


class Plc(NamedTuple):
    """Which PLC, and how it is reached."""

    host: str
    port: int
    local_tsap: int
    remote_tsap: int
    timeout: float
    """Seconds for an answer."""
    where: str
    """For messages: rack and slot, or the TSAP."""
    tells: bool = True
    """Whether it is asked for its state and its blocks; small ones may not even answer that."""


class Expired(Exception):
    """The command's time was over before it could be sent."""


class State(IntEnum):
    """What a CPU does."""

    STOP = 4
    RUN = 8


class Refused(Unavailable):
    """The PLC refuses the service itself, not an address."""


class Session:
    """A connection to one PLC; ``async with`` connects. Every method raises Unavailable when it is lost."""

    def __init__(self, plc: Plc) -> None:
        """Opens nothing yet."""
        self._plc = plc
        self._services = S7Protocol()
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._jobs = asyncio.Semaphore(1)
        self._sequence = 0
        self._lost: Unavailable | None = None
        self.pdu = 240
        """Bytes of a telegram that the PLC agreed to."""
        self.jobs = 1
        """Requests under way at once that the PLC agreed to."""

    async def __aenter__(self) -> Self:
        """Connect. Raises Unavailable, saying which step failed and what to change."""
        reader = await self._tcp()
        try:
            await self._choose(reader)
            self._listening = asyncio.create_task(self._listen(reader), name="s7-listen")
            await self._setup()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with suppress(OSError, TimeoutError):  # it may be gone already, or hear nothing any more
                await asyncio.wait_for(writer.wait_closed(), 1.0)
            writer.transport.abort()

    @property
    def connected(self) -> bool:
        """Whether the connection is there, as far as is known."""
        return self._writer is not None and self._lost is None

    # --- connecting
    async def _tcp(self) -> asyncio.StreamReader:
        plc = self._plc
        try:
            async with asyncio.timeout(plc.timeout):
                reader, self._writer = await asyncio.open_connection(plc.host, plc.port)
        except TimeoutError as error:
            raise Unavailable(
                f"{plc.host} does not answer on port {plc.port} within {plc.timeout:g} s: check the address and the "
                f"cable, and that no firewall keeps port {plc.port} closed"
            ) from error
        except socket.gaierror as error:
            raise Unavailable(f"the name {plc.host!r} is not known here ({error.strerror}); check `host`") from error
        except (ConnectionRefusedError, ConnectionResetError) as error:
            raise Unavailable(
                f"{plc.host} refuses connections on port {plc.port}: check that it is the PLC's address and `port` "
                f"(S7 has {PORT}); a LOGO! accepts them only once an S7 connection is set up in it"
            ) from error
        except OSError as error:
            why_not = os.strerror(error.errno) if error.errno else str(error)
            raise Unavailable(f"{plc.host} cannot be reached: {why_not}; check the network") from error
        self._writer.transport.set_write_buffer_limits(high=1 << 20)
        return reader

    async def _choose(self, reader: asyncio.StreamReader) -> None:
        """Choose the CPU. Raises Unavailable."""
        plc = self._plc
        refused = (
            f"the PLC refuses the connection to {plc.where}: check `model`, `rack` and `slot` (S7-300: rack 0 slot 2, "
            "S7-1200/1500: slot 1 or 0, S7-400: as in the hardware configuration), or for LOGO! the TSAPs; or it has "
            "no connection left: close others (HMI, engineering tools), or raise the number for PUT/GET in its settings"
        )
        try:
            async with asyncio.timeout(plc.timeout):
                await self._iso(reader)
        except TimeoutError as error:
            raise Unavailable(
                f"{plc.host}:{plc.port} accepts the connection and then says nothing: a firewall that inspects it, or "
                "no S7 at this address; check `host` and `port`"
            ) from error
        except (OSError, EOFError) as error:
            raise Unavailable(refused) from error
        except _Malformed as error:
            raise Unavailable(refused if error.disconnect else f"{plc.host}:{plc.port} {error}") from error

    async def _iso(self, reader: asyncio.StreamReader) -> None:
        """The connection of ISO on TCP (RFC 1006), by which the CPU is chosen."""
        plc = self._plc
        parameters = b"".join((
            struct.pack(">BBH", _CALLING, 2, plc.local_tsap),
            struct.pack(">BBH", _CALLED, 2, plc.remote_tsap),
            struct.pack(">BBB", _TPDU, 1, _TPDU_1024),
        ))  # fmt: skip
        self._send_cotp(struct.pack(">BBHHB", 6 + len(parameters), _COTP_CR, 0, 1, 0) + parameters)
        answer = await _frame(reader)
        if answer[1] == _COTP_DR:
            raise _Malformed("disconnects", disconnect=True)
        if answer[1] != _COTP_CC:
            raise _Malformed("answers, but speaks no S7 (ISO on TCP); check `host` and `port`")

    async def _setup(self) -> None:
        """Agree on the length of telegrams and on how many requests may be under way."""
        pdu = self._services.build_setup_communication_request(JOBS, JOBS, PDU)
        found = cast("dict[str, Any]", self._parsed(await self.request(pdu))["parameters"] or {})
        if found.get("function_code") != _SETUP:
            raise Unavailable(f"{self._plc.host} answers the setup of S7 with something else; is it an S7?")
        self.pdu = max(128, min(PDU, cast("int", found["pdu_length"])))
        self.jobs = max(1, min(JOBS, cast("int", found["max_amq_caller"])))
        for _ in range(self.jobs - 1):
            self._jobs.release()

    # --- services
    async def read(self, blocks: Sequence[Block]) -> list[bytes | int]:
        """For each block its bytes, or the return code by which the PLC refuses it. All must fit into one PDU.

        Raises Refused when the PLC lets nobody read.
        """
        specs = b"".join(map(_spec, blocks))
        pdu = struct.pack(">BBHHHHBB", 0x32, _JOB, 0, 0, 2 + len(specs), 0, _READ, len(blocks)) + specs
        answer = await self.request(pdu)
        self._check(answer, _READ, len(blocks))
        return _items(answer, blocks)

    async def write(self, address: Address, offset: int, data: bytes, expires: int) -> int:
        """Write bytes at ``offset`` behind the address, or its one bit; the return code, OK when they were written.

        ``expires`` (ns UTC) is looked at when the telegram is handed to the network. Raises Expired, Refused.
        """
        start = (address.start + offset) * 8 + address.bit if address.is_bit else address.start + offset
        length = S7WordLen.BIT if address.is_bit else S7WordLen.BYTE
        pdu = self._services.build_write_request(cast("S7Area", address.area), address.db, start, length, data)
        answer = await self.request(pdu, expires)
        self._check(answer, _WRITE, 1)
        return answer[14] if len(answer) > 14 else _HARDWARE  # noqa: PLR2004  # the item's code, behind the function

    async def state(self) -> State | None:
        """RUN or STOP; None where the PLC does not say (LOGO!, protected CPUs)."""
        data = await self._userdata(self._services.build_read_szl_request(_SZL_STATE, 0))
        if len(data) < 12:  # noqa: PLR2004  # id, index, length and number of records, and the first one's state
            return None
        return {_RUNNING: State.RUN, **dict.fromkeys(_STOPPED, State.STOP)}.get(data[11])

    async def stamp(self, db: int) -> bytes | None:
        """What changes when a data block is loaded: dates, length, checksum; None where the PLC does not say."""
        data = await self._userdata(self._services.build_get_block_info_request(_DB_TYPE, db))
        if len(data) < 70:  # noqa: PLR2004  # the description has 78 bytes, the checksum ends here
            return None
        return data[_EPOCH_DATES] + data[40:42] + data[68:70]

    async def _userdata(self, pdu: bytes) -> bytes:
        """What a service beside reading and writing gives; empty where the PLC refuses it."""
        if not self._plc.tells:
            return b""
        try:
            response = self._services.parse_response(await self.request(pdu))
        except _UNREADABLE:
            return b""
        data = cast("dict[str, Any]", response.get("data") or {})
        return bytes(data.get("data", b""))

    def _parsed(self, answer: bytes) -> dict[str, Any]:
        try:
            return self._services.parse_response(answer)
        except _UNREADABLE as error:
            raise Refused(f"{self._plc.host} refuses: {error}") from error

    def _check(self, answer: bytes, function: int, count: int) -> None:
        """Raise Refused for an error of the whole telegram, Unavailable for an answer to something else."""
        error = answer[10] << 8 | answer[11] if len(answer) > 11 else 0  # noqa: PLR2004  # an answer's header
        if error:
            raise Refused(_refusal(error))
        if len(answer) < 14 or (answer[12], answer[13]) != (function, count):  # noqa: PLR2004  # header and function
            raise self._lose(f"{self._plc.host} answers with a telegram that does not fit the request")

    # --- telegrams
    async def request(self, pdu: bytes, expires: int | None = None) -> bytes:
        """The answer to a request. Raises Unavailable; Expired when ``expires`` (ns UTC) is over before it is sent."""
        await self._jobs.acquire()  # given back when the answer comes, so that never more are under way than agreed
        if self._lost is not None or self._writer is None:
            self._jobs.release()
            raise self._lost or Unavailable("not connected")
        if expires is not None and time.time_ns() >= expires:
            self._jobs.release()
            raise Expired
        self._sequence = self._sequence % 0xFFFF + 1
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[self._sequence] = answered
        self._send_cotp(b"\x02\xf0\x80" + pdu[:4] + self._sequence.to_bytes(2, "big") + pdu[6:])
        try:
            async with asyncio.timeout(self._plc.timeout):
                return await answered
        except TimeoutError as error:
            raise self._lose(
                f"{self._plc.host} has not answered for {self._plc.timeout:g} s: the PLC or the way to it is gone"
            ) from error

    def _send_cotp(self, cotp: bytes) -> None:
        if self._writer is not None:
            self._writer.write(struct.pack(">BBH", 3, 0, 4 + len(cotp)) + cotp)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Give each answer to who waits for it, until the connection ends."""
        try:
            while True:
                telegram = await _telegram(reader)
                answered = self._waiting.pop(int.from_bytes(telegram[4:6], "big"), None)
                if answered is None:
                    continue
                self._jobs.release()
                if not answered.done():
                    answered.set_result(telegram)
        except (OSError, EOFError):
            self._lose(f"{self._plc.host} has closed the connection")
        except _Malformed as error:
            self._lose(f"{self._plc.host} {error}")

    def _lose(self, why: str) -> Unavailable:
        """Nothing more can be asked; everybody who waits hears why."""
        self._lost = self._lost or Unavailable(why)
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            self._jobs.release()
            if not answered.done():
                answered.set_exception(Unavailable(str(self._lost)))
        return Unavailable(str(self._lost))


class _Malformed(Exception):
    """What came is not what the protocol allows."""

    def __init__(self, text: str, *, disconnect: bool = False) -> None:
        super().__init__(text)
        self.disconnect = disconnect


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One TPKT's COTP telegram."""
    version, _, length = struct.unpack(">BBH", await reader.readexactly(4))
    if version != 3 or length < 7:  # noqa: PLR2004  # RFC 1006
        raise _Malformed("answers, but speaks no S7 (ISO on TCP); check `host` and `port`")
    return await reader.readexactly(length - 4)


async def _telegram(reader: asyncio.StreamReader) -> bytes:
    """One telegram of S7, of as many fragments as it has."""
    telegram = b""
    while True:
        cotp = await _frame(reader)
        if cotp[1] == _COTP_DR:
            raise EOFError
        if cotp[1] != _COTP_DT or cotp[0] != 2:  # noqa: PLR2004  # a data telegram's header
            raise _Malformed("sends a telegram that is none of S7")
        telegram += cotp[3:]
        if cotp[2] & 0x80:
            break
    if len(telegram) < 10 or telegram[0] != 0x32:  # noqa: PLR2004  # the header of S7
        raise _Malformed("sends a telegram that is none of S7")
    return telegram


_WORD_LENGTHS: Final = {Area.TIMERS: S7WordLen.TIMER, Area.COUNTERS: S7WordLen.COUNTER}


def _spec(block: Block) -> bytes:
    length = _WORD_LENGTHS.get(block.area, S7WordLen.BYTE)
    return S7DataTypes.encode_address(cast("S7Area", block.area), block.db, block.start, length, block.elements)


def _items(answer: bytes, blocks: Sequence[Block]) -> list[bytes | int]:
    """A read's answer, item by item; one that is shorter than asked for counts as out of range."""
    found: list[bytes | int] = []
    at = 12 + int.from_bytes(answer[6:8], "big")
    for block in blocks:
        if at + 4 > len(answer):
            found.append(_OUT_OF_RANGE)
            continue
        code, size, length = struct.unpack_from(">BBH", answer, at)
        at += 4
        if code != OK:
            found.append(code or _HARDWARE)
            at += length if size in _IN_BYTES else length // 8  # none, by rights
            continue
        octets = length if size in _IN_BYTES else (length + 7) // 8
        data = answer[at : at + octets]
        found.append(data if len(data) == block.length else _OUT_OF_RANGE)
        at += octets + octets % 2
    return found


_HARDWARE, _FORBIDDEN, _OUT_OF_RANGE, _MISSING = 0x01, 0x03, 0x05, 0x0A


def why(code: int, address: Address) -> str:
    """What a return code says of an address, and what to do."""
    in_db = address.area is Area.DB
    place = f"DB{address.db}" if in_db else f"area of {address.area.name.lower()}"
    unit = "number" if address.area in _WORD_LENGTHS else "bytes"
    span = f"{address.start}" if unit == "number" else f"{address.start} to {address.start + address.size - 1}"
    optimised = "; or the block is optimised: take 'Optimized block access' off in its properties, and load it" * in_db
    reasons: dict[int, Callable[[], str]] = {
        _HARDWARE: lambda: f"the PLC reports a fault of the hardware behind {place} {unit} {span}: look at the module",
        _FORBIDDEN: lambda: f"the PLC forbids access to {place}: check its protection level and the block's protection",
        _OUT_OF_RANGE: lambda: f"the PLC's {place} has no {unit} {span}: correct the address{optimised}",
        0x06: lambda: f"the PLC does not read {address.kind.name} there: correct the address or its type",
        0x07: lambda: f"the PLC says that the type {address.kind.name} does not fit: correct the address or its type",
        _MISSING: lambda: f"the PLC has no {place}: correct the address, or load the block{optimised}",
    }
    said = reasons.get(code)
    return f"{said()} (S7 {code:#04x})" if said else f"the PLC refuses the address (S7 {code:#04x})"


def _refusal(error: int) -> str:
    """What an error of a whole telegram means, and what to do."""
    if error in _NOT_PERMITTED:
        return (
            "the PLC permits no access from outside: in its properties, Protection & Security, permit 'PUT/GET "
            f"communication from remote partner' and full access, and load it (S7 {error:#06x})"
        )
    if error in _OUT:
        return f"the PLC says that an address is out of range (S7 {error:#06x}): correct it"
    return f"the PLC refuses the request (S7 {error:#06x})"


_NOT_PERMITTED: Final = frozenset({0x8104, 0x8702, 0x8703, 0xD241, 0xD602, 0xD604})
_OUT: Final = frozenset({0x8500, 0x8701})
