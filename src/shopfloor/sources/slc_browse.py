"""Finds the data files of an SLC 500 or MicroLogix by trying to read them: their directory is in no publication.

Only reads are sent, one element each. A processor that answers for a file of one type when another one is asked for
would list every file many times over; whether it does is tried first, with the status file, which is always there.
"""

from collections.abc import AsyncIterator
from typing import Final

from shopfloor.protocols.pccc_address import AREAS, Address, Area, Family
from shopfloor.protocols.pccc_commands import Refusal
from shopfloor.protocols.pccc_grouping import Block
from shopfloor.protocols.pccc_session import Session
from shopfloor.samples import Misconfigured, TagInfo

_FILES: Final = 256
_FIRST: Final = 3
"""Files below are outputs, inputs and the status."""
_ELEMENTS: Final = 1000
"""More than any of these files has."""
_SLOTS: Final = 31
_WORDS: Final = 32
_USUAL: Final = ("N", "B", "F", "T", "C", "R", "ST", "L", "A")


async def browse(session: Session, family: Family) -> AsyncIterator[TagInfo]:
    """Every file as ranges, in the order of their numbers. Raises Misconfigured, Unavailable."""
    if family == "plc5":
        raise Misconfigured(
            "a PLC-5 does not say of which type a file is; take the addresses from the programming software"
        )
    if await _there(session, _first(AREAS["N"], AREAS["S"].number)):
        raise Misconfigured(
            "this processor does not say of which type a file is; take the addresses from the programming software"
        )
    for letter in ("O", "I"):
        for slot in range(_SLOTS):
            words = await _length(session, Address(AREAS[letter], AREAS[letter].number, slot, 0, -1, 0, in_slot=True))
            if words:
                yield _range(f"{letter}:{slot}.0", f"{letter}/{slot}", words, "INT")
    for number in range(AREAS["S"].number, _FILES):
        letters = ("S",) if number < _FIRST else [one for one in _USUAL if one != "L" or family == "micrologix"]
        for letter in letters:
            found = await _length(session, _first(AREAS[letter], number))
            if found:
                for info in _listed(letter, number, found):
                    yield info
                break  # a file has one type


def _first(area: Area, number: int) -> Address:
    return Address(area, number, 0, 0, -1, 0)


def _listed(letter: str, number: int, found: int) -> list[TagInfo]:
    area = AREAS[letter]
    file = letter if area.number >= 0 else f"{letter}{number}"
    if area.parts:
        return [_range(f"{file}:0.{part}", f"{file}/{part}", found, area.type) for part in area.parts]
    return [_range(f"{file}:0", file, found, "STRING" if area.type == "ASCII" else area.type)]


def _range(start: str, tag: str, found: int, kind: str) -> TagInfo:
    return TagInfo(tag, f"{start}{{{found}}}", data_type=f"{kind}[{found}]")


async def _length(session: Session, first: Address) -> int:
    """How many elements, or words of a slot, there are from the first on; halving what is left each time."""
    if not await _there(session, first):
        return 0
    low, high = 0, _WORDS if first.in_slot else _ELEMENTS
    while high - low > 1:
        middle = (low + high) // 2
        at = first._replace(word=middle) if first.in_slot else first._replace(element=middle)
        low, high = (middle, high) if await _there(session, at) else (low, middle)
    return low + 1


async def _there(session: Session, at: Address) -> bool:
    (answer,) = await session.read_blocks([Block(at, at.area.size)])
    return not isinstance(answer, Refusal)
