"""Commands of PCCC and their answers, by Rockwell's publication 1770-6.5.16 "DF1 Protocol and Command Set"."""

import struct
from typing import Final, NamedTuple

from shopfloor.protocols.pccc_address import AREAS, WORD, Address, Family

MOST: Final = 236
"""Bytes of data that every one of these processors puts into an answer, and takes in a command."""

COMMAND: Final = 0x0F
DIAGNOSE: Final = bytes([0x06, 0x03])
"""Command and function: who are you?"""
_EXTENDED: Final = 0xF0
_LONG: Final = 0xFF
"""Before a number that takes two bytes."""

# SLC 500 and MicroLogix: protected typed logical read, write, and write with a mask, with three address fields. The
# last stands in no publication; every driver writes bits by it.
SLC_READ, SLC_WRITE, SLC_MASKED = 0xA2, 0xAA, 0xAB
# PLC-5: word range read and write, read-modify-write.
PLC5_READ, PLC5_WRITE, PLC5_MODIFY = 0x01, 0x00, 0x26
_LEVELS: Final = {False: 0x06, True: 0x0E}
"""Which levels a logical binary address has: file and element; and word."""


class Refusal(NamedTuple):
    """Why a processor did not carry out a command."""

    status: int
    extended: int = 0

    @property
    def passing(self) -> bool:
        """Whether it is of this moment: busy, being loaded."""
        return self.status in _PASSING or (self.status == _EXTENDED and self.extended in _PASSING_EXTENDED)

    def __str__(self) -> str:
        """What it means and what to look at, with the codes for the manual."""
        if self.status == _EXTENDED:
            return f"{_EXTENSIONS.get(self.extended, 'refused')} (STS F0, EXT STS {self.extended:02X})"
        text = _STATUS.get(self.status & 0xF0) or "a station between here and the processor refuses it"
        return f"{text} (STS {self.status:02X})"


_STATUS: Final = {
    0x10: "there is no such file, it is of another type, or it ends before this address; compare with the data files "
    "in the programming software",
    0x20: "the processor has a fault and does not communicate; look at its lamps",
    0x30: "the processor behind this address is missing, or off",
    0x40: "a hardware fault in the processor",
    0x50: "no such address, or the memory is protected",
    0x60: "the protection of the processor does not allow it: key switch, password or protected file",
    0x70: "the processor is in PROGRAM mode",
    0x80: "the file for compatible communication is missing",
    0x90: "the processor is busy",
    0xA0: "the processor is busy",
    0xB0: "a program is being loaded into the processor",
    0xC0: "the processor is busy",
}
_PASSING: Final = frozenset({0x20, 0x30, 0x90, 0xA0, 0xB0, 0xC0})
_EXTENSIONS: Final = {
    0x01: "a field of the address has a value that is not allowed",
    0x02: "the address says too little",
    0x03: "the address says more than this processor knows",
    0x06: "there is no such file, or nothing usable at this address; compare with the data files in the programming "
    "software",
    0x07: "the file ends before this address",
    0x08: "something changed while it was read; it is tried again",
    0x09: "more than one answer holds",
    0x0A: "the file ends before the end of what is wanted",
    0x0B: "access is denied: the file is protected (constant or static), or the processor needs a password",
    0x0C: "the processor cannot do it now: another one loads or saves a program",
    0x0E: "this processor does not know the command; is `family` right?",
    0x10: "access is denied",
    0x11: "the file is of another type",
    0x12: "a value that is not allowed there",
    0x13: "what was there is deleted",
    0x17: "the file is of another type",
    0x1A: "the file is open: another programming device owns it",
    0x1B: "another programming device owns the program",
    0x1E: "this element of the data table is protected",
    0x1F: "a problem inside the processor, for the moment",
    0x23: "the processor behind this address did not answer in time",
}
_PASSING_EXTENDED: Final = frozenset({0x08, 0x0C, 0x1A, 0x1B, 0x1F, 0x23})


def read(at: Address, size: int, family: Family) -> bytes:
    """Function and data of a read of ``size`` bytes from the first word of this address on."""
    if family == "plc5":
        return struct.pack("<BHH", PLC5_READ, 0, size // WORD) + _levels(at) + bytes([size])
    return bytes([SLC_READ, size]) + _fields(at)


def write(at: Address, data: bytes, family: Family) -> bytes:
    """Function and data of a write of these bytes from the first word of this address on."""
    if family == "plc5":
        return struct.pack("<BHH", PLC5_WRITE, 0, len(data) // WORD) + _levels(at) + data
    return bytes([SLC_WRITE, len(data)]) + _fields(at) + data


def write_bit(at: Address, value: bool, family: Family) -> bytes:  # noqa: FBT001  # it is the value
    """Function and data of a write of one bit, which the processor does without touching its neighbours."""
    mask = 1 << at.bit
    if family == "plc5":
        keep = 0xFFFF if value else 0xFFFF ^ mask
        return bytes([PLC5_MODIFY]) + _levels(at) + struct.pack("<HH", keep, mask if value else 0)
    return bytes([SLC_MASKED, WORD]) + _fields(at) + struct.pack("<HH", mask, mask if value else 0)


def _fields(at: Address) -> bytes:
    """File, type, element and word."""
    return _short(at.file) + bytes([at.area.code]) + _short(at.element) + _short(at.word)


def _levels(at: Address) -> bytes:
    """A PLC-5's logical binary address."""
    structured = at.area in {AREAS["T"], AREAS["C"], AREAS["R"]} and at.word > 0
    rest = _short(at.word) if structured else b""
    return bytes([_LEVELS[structured]]) + _short(at.file) + _short(at.element) + rest


def _short(number: int) -> bytes:
    return bytes([number]) if number < _LONG else struct.pack("<BH", _LONG, number)


def answer(reply: bytes, transaction: int) -> bytes | Refusal | None:
    """The data of a reply behind the requester's id, or why there are none; None for a reply to something else."""
    head = 4
    if len(reply) < head:
        return None
    _, status, number = struct.unpack_from("<BBH", reply)
    if number != transaction:
        return None
    if status == _EXTENDED:
        return Refusal(status, reply[head] if len(reply) > head else 0)
    return Refusal(status) if status else reply[head:]
