"""An S7 as its network sees it: memory that clients read and write, a CPU in RUN or STOP, connections that run out.

python-snap7's own server is not used: in 3.3 it writes a whole byte where a client writes a bit, takes every rack and
slot, and has no CPU state.
"""

import asyncio
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from shopfloor.protocols.s7_address import Address, Area
from shopfloor.protocols.s7_session import OK, State
from shopfloor.protocols.s7_values import Kind
from shopfloor.samples import Misconfigured, Value

_PDU: Final = 480
_SLOTS: Final = (0, 1)
_CR, _CC, _DR, _DT = 0xE0, 0xD0, 0x80, 0xF0
_CALLED: Final = 0xC2
_READ, _WRITE, _SETUP = 0x04, 0x05, 0xF0
_BIT, _BITS, _OCTETS = 0x01, 0x04, 0x09
_ONE_BIT: Final = 0x03
_WIDTHS: Final[Mapping[int, int]] = {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 4, 0x1C: 2, 0x1D: 2}
"""Bytes of an element by its transport size."""
_NUMBERED: Final = (0x1C, 0x1D)
_OUT_OF_RANGE, _NO_TYPE, _MISSING, _FORBIDDEN = 0x05, 0x06, 0x0A, 0x03
_NOT_IMPLEMENTED: Final = 0x8104
_SZL, _BLOCKS = 4, 3
_LONGEST: Final = 2048
Key = tuple[int, int]
"""An area and the number of its data block, else 0."""


class Memory:
    """What a PLC remembers; shared by its program and its clients."""

    def __init__(self, sizes: Mapping[tuple[Area, int], int]) -> None:
        """``sizes`` are bytes by area and data block, 0 in the other areas."""
        self._areas = {(int(area), db): bytearray(size) for (area, db), size in sizes.items()}
        self._loads: dict[int, int] = dict.fromkeys((db for area, db in self._areas if area == Area.DB), 1)

    def load(self, db: int, size: int) -> None:
        """Load a data block of this size anew, as an engineer does; 0 deletes it."""
        if size:
            self._areas[Area.DB, db] = bytearray(size)
        else:
            self._areas.pop((Area.DB, db), None)
        self._loads[db] = self._loads.get(db, 0) + 1

    def area(self, area: int, db: int) -> bytearray | None:
        """The bytes of an area; the periphery is the inputs'. None where there is none."""
        return self._areas.get((Area.INPUTS if area == Area.PERIPHERY else area, db if area == Area.DB else 0))

    def put(self, address: Address, value: Value) -> None:
        """What the program writes. Raises KeyError where nothing is, Unfit."""
        data = self._at(address)
        if address.is_bit:
            mask = 1 << address.bit
            data[address.start] = data[address.start] | mask if value else data[address.start] & ~mask
            return
        start = address.start * (2 if address.area in _NUMBERED else 1)
        encoded = address.kind.encode(value)
        data[start : start + len(encoded)] = encoded

    def get(self, address: Address) -> Value:
        """What the program reads. Raises KeyError where nothing is, Unfit."""
        data = self._at(address)
        if address.is_bit:
            return bool(data[address.start] >> address.bit & 1)
        kind: Kind = address.kind
        start = address.start * (2 if address.area in _NUMBERED else 1)
        return kind.decode(bytes(data[start : start + kind.size]))

    def _at(self, address: Address) -> bytearray:
        data = self.area(address.area, address.db)
        if data is None:
            raise KeyError(address)
        return data

    def blocks(self) -> Iterable[int]:
        """The numbers of the data blocks."""
        return sorted(db for area, db in self._areas if area == Area.DB)

    def loads(self, db: int) -> int:
        """How often the block was loaded."""
        return self._loads.get(db, 0)


class S7Server:
    """Serves a memory on a TCP port; ``async with`` listens."""

    def __init__(self, memory: Memory, host: str, port: int, *, connections: int = 32) -> None:
        """Further clients than ``connections`` are refused."""
        self.memory = memory
        self.state = State.RUN
        self.permitted = True
        """Whether PUT/GET is permitted: whether anybody may read and write."""
        self._host, self._port = host, port
        self._connections = connections
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        """Listen. Raises Misconfigured when the port cannot be had."""
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port)
        except OSError as error:
            low = "; ports below 1024 need root, take --port 1102" if isinstance(error, PermissionError) else ""
            raise Misconfigured(
                f"{self._host}:{self._port} cannot be had: {error.strerror}; choose another with --host and --port{low}"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Stop listening and disconnect everybody."""
        if self._server is not None:
            self._server.close()
        for writer in self._clients.values():
            writer.transport.abort()  # its task ends by that; a cancelled one would be reported by asyncio
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio calls it in one
        self._clients[task] = writer
        try:
            with suppress(OSError, EOFError, _Broken):
                await self._serve(reader, writer)
        finally:
            del self._clients[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _cotp(reader)
        called = _parameters(request).get(_CALLED, b"\0\0")
        if request[1] != _CR or (called[-1] >> 5, called[-1] & 31) not in {(0, slot) for slot in _SLOTS}:
            _send(writer, struct.pack(">BBHHB", 6, _DR, int.from_bytes(request[4:6], "big"), 0, 2))
            await writer.drain()
            return
        if len(self._clients) > self._connections:
            return
        confirmed = struct.pack(">BBHHB", 5 + len(request) - 6, _CC, int.from_bytes(request[4:6], "big"), 1, 0)
        _send(writer, confirmed + request[7:])
        pdu = _PDU
        while True:
            telegram = (await _cotp(reader))[3:]
            answer, pdu = self._answer(telegram, pdu)
            _send(writer, b"\x02\xf0\x80" + answer)
            await writer.drain()

    def _answer(self, telegram: bytes, pdu: int) -> tuple[bytes, int]:
        """The answer to a telegram, and the length of telegrams from now on."""
        if len(telegram) < 12 or telegram[0] != 0x32:  # noqa: PLR2004  # header of a request and its function
            raise _Broken
        sequence, length = telegram[4:6], int.from_bytes(telegram[6:8], "big")
        parameters, data = telegram[10 : 10 + length], telegram[10 + length :]
        if telegram[1] == 7:  # noqa: PLR2004  # user data: the services beside reading and writing
            return self._userdata(sequence, parameters, data), pdu
        function = parameters[0]
        if function == _SETUP:
            callers, callees, asked = struct.unpack(">HHH", parameters[2:8])
            pdu = max(240, min(asked, _PDU))
            said = struct.pack(">BBHHH", _SETUP, 0, max(1, min(callers, 8)), max(1, min(callees, 8)), pdu)
            return _ack(sequence, said), pdu
        if function not in {_READ, _WRITE} or not self.permitted:
            return _ack(sequence, b"", error=_NOT_IMPLEMENTED), pdu
        body = self._read(parameters) if function == _READ else self._write(parameters, data)
        answer = _ack(sequence, parameters[:2], body)
        return (answer, pdu) if len(answer) <= pdu else (_ack(sequence, b"", error=0x8500), pdu)

    def _read(self, parameters: bytes) -> bytes:
        items: list[bytes] = []
        for size, count, db, area, address in _specs(parameters):
            code, found, begin = self._span(size, count, db, area, address)
            if code != OK:
                items.append(struct.pack(">BBH", code, 0, 0))
                continue
            if size == _BIT:
                items.append(struct.pack(">BBHB", OK, _ONE_BIT, 1, found[begin] >> address % 8 & 1))
            else:
                data = bytes(found[begin : begin + count * _WIDTHS[size]])
                octets = size in _NUMBERED
                items.append(
                    struct.pack(">BBH", OK, _OCTETS if octets else _BITS, len(data) * (1 if octets else 8)) + data
                )
        return b"".join(item + b"\0" * (len(item) % 2) for item in items[:-1]) + items[-1]

    def _write(self, parameters: bytes, data: bytes) -> bytes:
        codes = bytearray()
        at = 0
        for size, count, db, area, address in _specs(parameters):
            _, kind, length = struct.unpack_from(">BBH", data, at)
            octets = length if kind in {_ONE_BIT, 6, 7, _OCTETS} else (length + 7) // 8
            given = data[at + 4 : at + 4 + octets]
            at += 4 + octets + octets % 2
            code, found, begin = self._span(size, count, db, area, address)
            if code == OK and len(given) != count * _WIDTHS[size]:
                code = 0x07
            if code == OK and size == _BIT:
                mask = 1 << address % 8
                found[begin] = found[begin] | mask if given[0] & 1 else found[begin] & ~mask
            elif code == OK:
                found[begin : begin + len(given)] = given
            codes.append(code)
        return bytes(codes)

    def _span(self, size: int, count: int, db: int, area: int, address: int) -> tuple[int, bytearray, int]:
        """The return code for these elements, the memory that they are in, and where they begin."""
        found = self.memory.area(area, db)
        if found is None:
            return _MISSING, bytearray(), 0
        if size not in _WIDTHS or (size == _BIT and count != 1):
            return _NO_TYPE, found, 0
        begin = address * 2 if area in _NUMBERED else address // 8
        inside = count > 0 and begin + count * _WIDTHS[size] <= len(found)
        return OK if inside else _OUT_OF_RANGE, found, begin

    def _userdata(self, sequence: bytes, parameters: bytes, data: bytes) -> bytes:
        """System state, the list of data blocks, and what is known of one."""
        group, service = parameters[5] & 15, parameters[6]
        found: bytes | None = None
        if (group, service) == (_SZL, 1) and len(data) >= 8:  # noqa: PLR2004  # head, id and index
            found = self._system(int.from_bytes(data[4:6], "big"))
        elif (group, service) == (_BLOCKS, 2) and data[4:6] == b"0A":
            found = b"".join(struct.pack(">HBB", db, 0x22, 5) for db in self.memory.blocks()) or None
        elif (group, service) == (_BLOCKS, 3) and data[4:6] == b"0A" and data[6:11].isdigit():
            found = self._block(int(data[6:11]))
        code = OK if found is not None else _MISSING
        error = 0 if found is not None else 0xD401 if group == _SZL else 0xD209
        said = bytes([0, 1, 0x12, 8, 0x12, 0x80 | group, service, 1, 0, 0]) + struct.pack(">H", error)
        body = struct.pack(">BBH", code, _OCTETS if found else 0, len(found or b"")) + (found or b"")
        return struct.pack(">BBH2sHH", 0x32, 7, 0, sequence, len(said), len(body)) + said + body

    def _system(self, number: int) -> bytes | None:
        if number != 0x0424:  # noqa: PLR2004  # the only list that it has: the CPU's state
            return None
        record = bytes([0x51, 0x44, 0xFF, self.state]).ljust(20, b"\0")
        return struct.pack(">HHHH", number, 0, len(record), 1) + record

    def _block(self, db: int) -> bytes | None:
        data = self.memory.area(Area.DB, db)
        if data is None:
            return None
        found = bytearray(78)
        found[1], found[9], found[10] = 0x4A, 1, 5
        struct.pack_into(">HI", found, 12, db, len(data) + 92)
        struct.pack_into(">I", found, 22, self.memory.loads(db))  # when it was changed: ms of its day
        struct.pack_into(">H", found, 40, len(data))
        found[42:66] = b"SIMULATEPRESS   " + b"\0" * 8
        found[66] = 1
        return bytes(found)


class _Broken(Exception):
    """The client sends something that is no S7."""


async def _cotp(reader: asyncio.StreamReader) -> bytes:
    version, _, length = struct.unpack(">BBH", await reader.readexactly(4))
    if version != 3 or not 7 <= length <= _LONGEST:  # noqa: PLR2004  # RFC 1006
        raise _Broken
    cotp = await reader.readexactly(length - 4)
    if cotp[1] == _DR:
        raise EOFError
    if cotp[1] not in {_CR, _DT}:
        raise _Broken
    return cotp


def _parameters(request: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 7
    while at + 2 <= len(request):
        found[request[at]] = request[at + 2 : at + 2 + request[at + 1]]
        at += 2 + request[at + 1]
    return found


def _specs(parameters: bytes) -> Iterable[tuple[int, int, int, int, int]]:
    """Of each item: transport size, count, data block, area, address (of bits, or the number)."""
    for n in range(parameters[1]):
        spec = parameters[2 + 12 * n : 14 + 12 * n]
        if len(spec) < 12:  # noqa: PLR2004  # S7-Any
            raise _Broken
        size, count, db, area = struct.unpack(">BHHB", spec[3:9])
        yield size, count, db, area, int.from_bytes(spec[9:12], "big")


def _ack(sequence: bytes, parameters: bytes, data: bytes = b"", error: int = 0) -> bytes:
    head = struct.pack(">BBH2sHHH", 0x32, 3 if not error else 2, 0, sequence, len(parameters), len(data), error)
    return head + parameters + data


def _send(writer: asyncio.StreamWriter, cotp: bytes) -> None:
    writer.write(struct.pack(">BBH", 3, 0, 4 + len(cotp)) + cotp)
