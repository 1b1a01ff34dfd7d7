"""Which requests read many addresses of an S7 in the fewest telegrams.

Neighbouring bytes are read as one block, and as many blocks as the negotiated PDU holds go into one request. A tag is
torn apart only when it is longer than a PDU.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Final, NamedTuple

from shopfloor.protocols.s7_address import Address, Area

ITEMS_MAX: Final = 20
"""Blocks of one request: what every S7 takes."""

_HEADER: Final = 14
"""Bytes of a read's answer, and a little more than a request has, before its items."""
_ASK: Final = 12
_ANSWER: Final = 4
"""Bytes that a block costs in the request, and in the answer beside its data."""
_GAP: Final = _ASK + _ANSWER
"""Bytes that nobody asked for are read, too, up to what a block of its own would cost."""
_NUMBERED: Final = (Area.TIMERS, Area.COUNTERS)
_NUMBERED_SIZE: Final = 2


class Block(NamedTuple):
    """Bytes of one area that are read together; of timers and counters ``start`` is the number of the first."""

    area: Area
    db: int
    start: int
    length: int
    """Bytes."""

    @property
    def elements(self) -> int:
        """How many timers or counters; of other areas the bytes."""
        return self.length // _NUMBERED_SIZE if self.area in _NUMBERED else self.length


class Piece(NamedTuple):
    """Where a tag's bytes are: in which block, from where to where."""

    block: int
    begin: int
    end: int


class Plan(NamedTuple):
    """How to read some tags."""

    blocks: Sequence[Block]
    requests: Sequence[Sequence[int]]
    """Each request's blocks."""
    pieces: Mapping[int, Sequence[Piece]]
    """Of each tag by its place; more than one only where it is longer than a PDU."""
    members: Sequence[Sequence[int]]
    """The tags in each block."""


def plan(addresses: Mapping[int, Address], pdu: int, *, alone: Container[int] = ()) -> Plan:
    """The plan for the addresses by place; those of ``alone`` get a block of their own, so that none costs another."""
    room = pdu - _HEADER - _ANSWER
    blocks: list[Block] = []
    pieces: dict[int, list[Piece]] = {}
    members: list[list[int]] = []
    for place, address in sorted(addresses.items(), key=lambda item: (item[1][:3], -item[1].size)):
        unit = _NUMBERED_SIZE if address.area in _NUMBERED else 1
        last = blocks[-1] if blocks and place not in alone and members[-1][0] not in alone else None
        if last is not None and (last.area, last.db) == (address.area, address.db):
            begin = (address.start - last.start) * unit
            end = begin + address.size
            gap = 0 if address.area is Area.PERIPHERY else _GAP  # a missing module must not cost its neighbours
            if begin <= last.length + gap and end <= room:
                blocks[-1] = last._replace(length=max(last.length, end))
                members[-1].append(place)
                pieces[place] = [Piece(len(blocks) - 1, begin, end)]
                continue
        pieces[place] = []
        for offset in range(0, address.size, room):
            length = min(room, address.size - offset)
            pieces[place].append(Piece(len(blocks), 0, length))
            blocks.append(Block(address.area, address.db, address.start + offset // unit, length))
            members.append([place])
    return Plan(blocks, _requests(blocks, pdu), pieces, members)


def _requests(blocks: Sequence[Block], pdu: int) -> list[list[int]]:
    """The blocks in as few requests as putting each, the longest first, where there is room gives."""
    requests: list[list[int]] = []
    asked: list[int] = []
    answered: list[int] = []
    for number in sorted(range(len(blocks)), key=lambda n: -blocks[n].length):
        answer = _ANSWER + blocks[number].length + blocks[number].length % 2
        for i, request in enumerate(requests):
            if len(request) < ITEMS_MAX and asked[i] + _ASK <= pdu and answered[i] + answer <= pdu:
                request.append(number)
                asked[i] += _ASK
                answered[i] += answer
                break
        else:
            requests.append([number])
            asked.append(_HEADER + _ASK)
            answered.append(_HEADER + answer)
    return requests
