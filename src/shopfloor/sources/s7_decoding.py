"""From the bytes of a plan's blocks to columns: numbers and bits of a block at once, nothing where no byte changed."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from shopfloor.protocols.s7_address import Address
from shopfloor.protocols.s7_grouping import Piece, Plan
from shopfloor.samples import Value
from shopfloor.sources.changes import Column, Reading, grouped

Decode = Callable[[int, bytes], Reading]
"""The reading of one tag by its place, from its own bytes."""

_NO_BYTES: Final = b""


class _Block(NamedTuple):
    """How the bytes of one block become columns."""

    numbers: struct.Struct
    bits: Sequence[tuple[int, int]]
    """Of each bit: byte, mask."""
    places: Sequence[int]
    """The tags of the numbers, then those of the bits."""
    others: Sequence[tuple[int, int, int]]
    """Of each other tag: place, begin, end."""


class _Seen(NamedTuple):
    """What a block was when it was read last."""

    data: bytes
    quality: int
    columns: Sequence[Column]


class Decoder:
    """Decodes what a plan reads, again and again."""

    def __init__(self, planned: Plan, addresses: Mapping[int, Address], decode: Decode) -> None:
        """``decode`` is for all that is neither number nor bit."""
        self._decode = decode
        inside: list[list[tuple[int, int, int]]] = [[] for _ in planned.blocks]
        self._torn: dict[int, Sequence[Piece]] = {}
        for place, pieces in planned.pieces.items():
            if len(pieces) == 1:
                inside[pieces[0].block].append((pieces[0].begin, pieces[0].end, place))
            else:
                self._torn[place] = pieces
        self._blocks = [_block(sorted(members), addresses) for members in inside]
        self._before = [_Seen(_NO_BYTES, 0, ())] * len(planned.blocks)

    def columns(self, blocks: Sequence[bytes | int], quality: int) -> list[Column]:
        """The columns of all tags whose blocks were read; a block's return code stands for no bytes."""
        found: list[Column] = []
        for number, data in enumerate(blocks):
            if not isinstance(data, int):
                found += self._of(number, data, quality)
        for place, pieces in self._torn.items():
            parts = [part for part in (blocks[piece.block] for piece in pieces) if not isinstance(part, int)]
            if len(parts) == len(pieces):
                found += grouped([place], [self._decode(place, b"".join(parts))])
        return found

    def _of(self, number: int, data: bytes, quality: int) -> Sequence[Column]:
        before = self._before[number]
        if before.data == data and before.quality == quality:
            return before.columns
        block = self._blocks[number]
        values: list[Value] = [*block.numbers.unpack_from(data), *(data[at] & mask != 0 for at, mask in block.bits)]
        columns = [Column(block.places, values, quality)] if values else []
        if block.others:
            columns += grouped(
                [place for place, _, _ in block.others],
                [self._decode(place, data[begin:end]) for place, begin, end in block.others],
            )
        self._before[number] = _Seen(data, quality, columns)
        return columns


def _block(members: Sequence[tuple[int, int, int]], addresses: Mapping[int, Address]) -> _Block:
    """Numbers that do not overlap are unpacked together."""
    form, at = [">"], 0
    numbers: list[int] = []
    bits: dict[int, tuple[int, int]] = {}
    others: list[tuple[int, int, int]] = []
    for begin, end, place in members:
        address = addresses[place]
        if address.is_bit:
            bits[place] = (begin, 1 << address.bit)
        elif address.kind.format and begin >= at:
            form.append(f"{begin - at}x{address.kind.format}")
            numbers.append(place)
            at = end
        else:
            others.append((place, begin, end))
    return _Block(struct.Struct("".join(form)), list(bits.values()), [*numbers, *bits], others)
