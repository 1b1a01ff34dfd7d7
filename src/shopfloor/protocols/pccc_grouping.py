"""Which commands read many addresses in the fewest round trips.

A processor answers about once a scan, whatever is asked for: so whatever lies in one file is read together, with what
lies between, as far as an answer holds. Nothing but words of one slot are put together of inputs and outputs, and
without gaps: what a slot does not have cannot be read.
"""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from shopfloor.protocols.pccc_address import WORD, Address
from shopfloor.protocols.pccc_commands import MOST


class Block(NamedTuple):
    """Elements of one file, or words of one slot, that are read together."""

    first: Address
    """Where it begins."""
    size: int
    """Bytes."""


class Piece(NamedTuple):
    """Where a tag's bytes are: in which block, from where to where."""

    block: int
    begin: int
    end: int


class Plan(NamedTuple):
    """How to read some tags."""

    blocks: Sequence[Block]
    pieces: Mapping[int, Sequence[Piece]]
    """Of each tag by its place; more than one only where an answer does not hold it."""
    members: Sequence[Sequence[int]]
    """The tags in each block."""


def plan(addresses: Mapping[int, Address], *, alone: Container[int] = ()) -> Plan:
    """The plan for the addresses by place; those of ``alone`` get a block of their own, so that none costs another."""
    blocks: list[Block] = []
    pieces: dict[int, list[Piece]] = {}
    members: list[list[int]] = []
    for place, at in sorted(addresses.items(), key=lambda item: (_space(item[1]), item[1].start, -item[1].length)):
        if blocks and place not in alone and members[-1][0] not in alone and _space(blocks[-1].first) == _space(at):
            last = blocks[-1]
            begin = at.start - last.first.start
            end = begin + at.length
            if end <= MOST and (not at.in_slot or begin <= last.size):
                blocks[-1] = last._replace(size=max(last.size, end))
                members[-1].append(place)
                pieces[place] = [Piece(len(blocks) - 1, begin, end)]
                continue
        pieces[place] = []
        most = MOST // at.area.size * at.area.size
        for offset in range(0, at.length, most):
            size = min(most, at.length - offset)
            pieces[place].append(Piece(len(blocks), 0, size))
            blocks.append(Block(_moved(at, offset), size))
            members.append([place])
    return Plan(blocks, pieces, members)


def _space(at: Address) -> tuple[int, int, int]:
    """What can be read together: a file, a slot."""
    return (at.area.code, at.file, at.element if at.in_slot else -1)


def _moved(at: Address, offset: int) -> Address:
    """So many bytes behind an address, at the beginning of an element."""
    if at.in_slot:
        return at._replace(word=at.word + offset // WORD, bit=-1, elements=0)
    return at._replace(element=at.element + offset // at.area.size, word=0, bit=-1, elements=0)
