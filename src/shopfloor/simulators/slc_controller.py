# cm-ethernetip carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false, reportMissingTypeStubs=false
"""The data files of an SLC 500, MicroLogix or PLC-5 as EtherNet/IP clients see them by PCCC commands.

cm-ethernetip carries sessions and connections. What the processor answers is here, by Rockwell's publication
1770-6.5.16 "DF1 Protocol and Command Set"; it shares no code with the source `slc`, which is tested against it.
"""

import asyncio
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ethernetip.cip.cip_class import CipClass
from ethernetip.cip.dispatcher import CipDispatcher
from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.cip.service import CipServiceDefinition, CipServiceRequest, CipServiceResponse
from ethernetip.connections.connection_manager import ConnectionManagerObject
from ethernetip.device.identity_object import create_identity_class
from ethernetip.protocol.eip_adapter import EipAdapter

ELEMENT: Final = {"O": 2, "I": 2, "S": 2, "B": 2, "T": 6, "C": 6, "R": 6, "N": 2, "F": 4, "A": 2, "ST": 84, "L": 4}
"""Bytes of an element by the file's letter."""
CODES: Final = {
    0x82: "O", 0x83: "I", 0x84: "S", 0x85: "B", 0x86: "T", 0x87: "C", 0x88: "R", 0x89: "N", 0x8A: "F", 0x8B: "O",
    0x8C: "I", 0x8D: "ST", 0x8E: "A", 0x91: "L",
}  # fmt: skip
"""The types of files in commands of SLC 500 and MicroLogix; inputs and outputs have two."""

_COMMAND: Final = 0x0F
_MOST: Final = 236
_EXTENDED: Final = 0xF0
_ILLEGAL: Final = (0x10,)
_NO_FILE, _BEYOND, _DENIED, _UNKNOWN = ((_EXTENDED, code) for code in (0x06, 0x07, 0x0B, 0x0E))
_LONG: Final = 0xFF


class DataFile:
    """One data file with its memory; of inputs and outputs, a slot's words are ``words`` apart."""

    def __init__(self, letter: str, elements: int, *, words: int = 1, writable: bool = True) -> None:
        """``words``: of inputs and outputs, the words of each slot."""
        self.letter, self.elements, self.words, self.writable = letter, elements, words, writable
        self.data = bytearray(ELEMENT[letter] * elements * words)

    def at(self, element: int, word: int) -> int:
        """The byte where this word is; -1: nowhere."""
        if element >= self.elements or word >= (self.words if self.letter in "IO" else ELEMENT[self.letter] // 2):
            return -1
        return element * ELEMENT[self.letter] * self.words + word * 2


class _Refused(Exception):
    def __init__(self, status: tuple[int, ...]) -> None:
        super().__init__(status)
        self.status = status


class _Fields:
    """Takes a command apart from the front."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def byte(self) -> int:
        found, self.rest = self.rest[0], self.rest[1:]
        return found

    def word(self) -> int:
        (found,) = struct.unpack_from("<H", self.rest)
        self.rest = self.rest[2:]
        return int(found)

    def number(self) -> int:
        """One byte, or FF and two."""
        found = self.byte()
        return self.word() if found == _LONG else found


class _Place(NamedTuple):
    number: int
    file: DataFile
    begin: int


class Processor(CipDispatcher):  # type: ignore[misc]  # the library carries no types
    """Answers PCCC commands about its data files."""

    def __init__(self, catalogue: str, files: Mapping[int, DataFile], *, plc5: bool = False) -> None:
        """``catalogue`` is its catalogue number, ``1747-L552``; ``files`` are the data files by number."""
        super().__init__()
        self.catalogue = catalogue
        self.files = dict(files)
        self.plc5 = plc5
        self.commands: list[int] = []
        """The functions that clients called, one after the other."""
        self.written: Callable[[int], None] | None = None
        """Is told the number of each file that a client wrote."""
        self.refuse: tuple[int, ...] = ()
        """A status with which everything is refused; for tests."""
        self.identity = IdentityInfo(device_type=14, product_code=90, major_revision=2, minor_revision=11,
                                     product_name=catalogue)  # fmt: skip
        connections = ConnectionManagerObject()
        connections.dispatch_request = self.dispatch
        self.register_class(connections.cip_class)
        self.register_class(create_identity_class(self.identity))
        pccc = CipClass(0x67, "PCCC", revision=1)
        pccc.create_instance(1)
        pccc.add_instance_service(CipServiceDefinition(0x4B, "Execute_PCCC", self._execute))
        self.register_class(pccc)

    def _execute(self, _instance: Any, request: CipServiceRequest) -> CipServiceResponse:
        requester = request.data[: request.data[0]]
        command, _, transaction, function = struct.unpack_from("<BBHB", request.data, len(requester))
        fields = _Fields(request.data[len(requester) + 5 :])
        self.commands.append(function)
        status: tuple[int, ...] = (0,)
        data = b""
        try:
            data = self._answer(command, function, fields)
        except _Refused as error:
            status = error.status
        except (IndexError, ValueError, struct.error):  # a command that ends too soon
            status = _ILLEGAL
        head = struct.pack("<BBH", command | 0x40, status[0], transaction)
        return CipServiceResponse.success(request.service_code, requester + head + bytes(status[1:]) + data)

    def _answer(self, command: int, function: int, fields: _Fields) -> bytes:
        if self.refuse:
            raise _Refused(self.refuse)
        if (command, function) == (0x06, 0x03):
            return self._status()
        known = {0x01: self._read_range, 0x00: self._write_range, 0x26: self._modify} if self.plc5 else {
            0xA2: self._read, 0xAA: self._write, 0xAB: self._write_masked
        }  # fmt: skip
        if command != _COMMAND or function not in known:
            raise _Refused(_UNKNOWN if self.plc5 else _ILLEGAL)
        return known[function](fields)

    def _status(self) -> bytes:
        """Diagnostic status: five bytes, the catalogue number, and more that nobody asks for."""
        return bytes([0x00, 0xEE, 0x34, 0x60, 0x20]) + f"{self.catalogue:11.11}".encode() + bytes(8)

    # SLC 500 and MicroLogix: protected typed logical commands.
    def _place(self, fields: _Fields, size: int) -> _Place:
        number, code, element, word = fields.number(), fields.byte(), fields.number(), fields.number()
        file = self.files.get(number)
        if file is None or CODES.get(code) != file.letter or size > _MOST:
            raise _Refused(_ILLEGAL)
        begin = file.at(element, word)
        if begin < 0 or begin + size > len(file.data):
            raise _Refused(_ILLEGAL)
        return _Place(number, file, begin)

    def _read(self, fields: _Fields) -> bytes:
        size = fields.byte()
        place = self._place(fields, size)
        return bytes(place.file.data[place.begin : place.begin + size])

    def _write(self, fields: _Fields) -> bytes:
        size = fields.byte()
        place = self._place(fields, size)
        return self._put(place, fields.rest[:size])

    def _write_masked(self, fields: _Fields) -> bytes:
        """One mask of two bytes for every word."""
        size = fields.byte()
        place = self._place(fields, size)
        mask = fields.word()
        data = b"".join(
            struct.pack("<H", (old & ~mask) | (new & mask))
            for (old,), (new,) in zip(
                struct.iter_unpack("<H", place.file.data[place.begin : place.begin + size]),
                struct.iter_unpack("<H", fields.rest[:size]), strict=True,
            )
        )  # fmt: skip
        return self._put(place, data)

    # PLC-5: word range and read-modify-write, by logical binary addresses.
    def _level(self, fields: _Fields, size: int) -> _Place:
        levels = fields.byte()
        if levels not in {0x06, 0x0E}:
            raise _Refused((_EXTENDED, 0x02))
        number, element = fields.number(), fields.number()
        word = fields.number() if levels & 0x08 else 0
        file = self.files.get(number)
        if file is None:
            raise _Refused(_NO_FILE)
        begin = file.at(element, word)
        if begin < 0 or begin + size > len(file.data):
            raise _Refused(_BEYOND)
        return _Place(number, file, begin)

    def _read_range(self, fields: _Fields) -> bytes:
        fields.word()  # the offset in a transfer of several packets
        total = fields.word() * 2
        place = self._level(fields, total)
        size = fields.byte()
        if size > min(total, _MOST):
            raise _Refused(_ILLEGAL)
        return bytes(place.file.data[place.begin : place.begin + size])

    def _write_range(self, fields: _Fields) -> bytes:
        fields.word()
        total = fields.word() * 2
        return self._put(self._level(fields, total), fields.rest[:total])

    def _modify(self, fields: _Fields) -> bytes:
        """Any number of words, each with what to keep and what to set."""
        while fields.rest:
            place = self._level(fields, 2)
            keep, put = fields.word(), fields.word()
            (old,) = struct.unpack_from("<H", place.file.data, place.begin)
            self._put(place, struct.pack("<H", old & keep | put))
        return b""

    def _put(self, place: _Place, data: bytes) -> bytes:
        if not place.file.writable:
            raise _Refused(_DENIED)
        place.file.data[place.begin : place.begin + len(data)] = data
        if self.written is not None:
            self.written(place.number)
        return b""

    # What the machine behind it puts and takes.
    def word(self, number: int, element: int, word: int = 0) -> int:
        """A word of a file."""
        file = self.files[number]
        (found,) = struct.unpack_from("<h", file.data, file.at(element, word))
        return int(found)

    def put_word(self, number: int, element: int, value: int, word: int = 0) -> None:
        """Set a word of a file; what does not fit rolls over."""
        file = self.files[number]
        struct.pack_into("<H", file.data, file.at(element, word), value & 0xFFFF)

    def put_bit(self, number: int, element: int, bit: int, *, value: bool) -> None:
        """Set a bit in the first word of an element."""
        old = self.word(number, element)
        self.put_word(number, element, old | 1 << bit if value else old & ~(1 << bit))

    def real(self, number: int, element: int) -> float:
        """A number of an F file."""
        (found,) = struct.unpack("<f", self._turned(bytes(self.files[number].data[element * 4 : element * 4 + 4])))
        return float(found)

    def put_real(self, number: int, element: int, value: float) -> None:
        """Set a number of an F file."""
        self.files[number].data[element * 4 : element * 4 + 4] = self._turned(struct.pack("<f", value))

    def _turned(self, real: bytes) -> bytes:
        """A PLC-5 has the word with the sign first."""
        return real[2:] + real[:2] if self.plc5 else real

    def put_long(self, number: int, element: int, value: int) -> None:
        """Set a number of an L file; it rolls over."""
        struct.pack_into("<I", self.files[number].data, element * 4, value & 0xFFFFFFFF)

    def put_text(self, number: int, element: int, text: str) -> None:
        """Set a text of an ST file, at most 82 ASCII characters: two in a word, the first in its high byte."""
        raw = text.encode("ascii").ljust(82, b"\0")
        words = struct.unpack(">41H", raw)
        struct.pack_into("<H41H", self.files[number].data, element * 84, len(text), *words)

    def text(self, number: int, element: int) -> str:
        """A text of an ST file."""
        length, *words = struct.unpack_from("<H41H", self.files[number].data, element * 84)
        return struct.pack(">41H", *words)[:length].decode("ascii")


class Port(EipAdapter):  # type: ignore[misc]  # the library carries no types
    """The processor's Ethernet port, with as many connections as it has."""

    def __init__(self, processor: Processor, connections: int = 32) -> None:
        """``connections``: how many clients it takes; further ones are hung up on."""
        super().__init__(processor, processor.identity)
        self.most = connections
        self._clients: set[asyncio.StreamWriter] = set()

    async def _handle_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= self.most:
            writer.close()
            return
        self._clients.add(writer)
        try:
            await super()._handle_client(reader, writer)
        finally:
            self._clients.discard(writer)

    async def close(self) -> None:
        """Hang up on everybody and listen no more."""
        for writer in list(self._clients):
            writer.close()
        await super().close()
