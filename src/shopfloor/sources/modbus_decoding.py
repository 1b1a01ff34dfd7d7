"""From the registers or bits of a block to a column: all numbers of it at once, nothing where no register changed."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from shopfloor.protocols.modbus_address import FORMATS, Layout
from shopfloor.protocols.modbus_plan import Block, Extent
from shopfloor.samples import Value
from shopfloor.sources.changes import Column

_BACKWARDS: Final = frozenset({"CDAB", "DCBA"})
"""Orders whose low word comes first."""
_SWAPPED: Final = frozenset({"BADC", "DCBA"})
"""Orders whose low byte comes first in a word."""


class _Numbers(NamedTuple):
    """Numbers whose words have their bytes in one order."""

    words: Sequence[int]
    """Where their words are in the block, each number's high word first."""
    packed: struct.Struct
    unpacked: struct.Struct


class Decoder:
    """One block, read again and again."""

    def __init__(self, block: Block, layouts: Mapping[int, Layout]) -> None:
        """``layouts`` by an extent's ``tag``."""
        self.block = block
        numbers: dict[bool, list[Extent]] = {False: [], True: []}
        self._flags: list[tuple[int, int]] = []
        """Of each bool: its word, and the mask of its bit."""
        self._others: list[Callable[[Sequence[int]], Value]] = []
        flags: list[Extent] = []
        others: list[Extent] = []
        for extent in block.extents:
            layout = layouts[extent.tag]
            first = extent.start - block.start
            if layout.type == "bool":
                self._flags.append((first, layout.mask))
                flags.append(extent)
            elif layout.type in FORMATS and layout.bits is None:
                numbers[layout.order in _SWAPPED].append(extent)
            else:
                self._others.append(_other(layout, first))
                others.append(extent)
        self._numbers = [
            _numbers(members, layouts, block.start, swapped=swapped) for swapped, members in numbers.items() if members
        ]
        self._places = [extent.tag for extent in (*numbers[False], *numbers[True], *flags, *others)]
        self._words: Sequence[int] = ()
        self._column = Column((), ())

    def column(self, words: Sequence[int]) -> Column:
        """The block's tags; the very same column while no register has changed."""
        if words != self._words:
            values: list[Value] = []
            for numbers in self._numbers:
                values += numbers.unpacked.unpack(numbers.packed.pack(*[words[at] for at in numbers.words]))
            values += [words[at] & mask != 0 for at, mask in self._flags]
            values += [decode(words) for decode in self._others]
            self._words, self._column = words, Column(self._places, values)
        return self._column

    def bad(self, quality: int, status: int) -> Column:
        """The block's tags when it could not be read."""
        return Column(self._places, [None] * len(self._places), quality, status)


def _numbers(members: Sequence[Extent], layouts: Mapping[int, Layout], start: int, *, swapped: bool) -> _Numbers:
    at: list[int] = []
    for extent in members:
        words = range(extent.start - start, extent.end - start)
        at += reversed(words) if layouts[extent.tag].order in _BACKWARDS else words
    form = "".join(FORMATS[layouts[extent.tag].type] for extent in members)
    return _Numbers(at, struct.Struct(f"{'<' if swapped else '>'}{len(at)}H"), struct.Struct(f">{form}"))


def _other(layout: Layout, first: int) -> Callable[[Sequence[int]], Value]:
    last = first + layout.size
    return lambda words: layout.decode(words[first:last])
