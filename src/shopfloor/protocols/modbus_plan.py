"""Modbus: which tags are read with one request, and what to do with a request that a device refuses.

A device refuses a whole request when one of its addresses is not there. So a refused request is taken apart until
the tag stands alone that is to blame, and the others are read as before.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from shopfloor.protocols.modbus_address import BITS, Kind

MOST_REGISTERS: Final = 125
MOST_BITS: Final = 2000
"""What one request can ask for."""
_BITS_PER_REGISTER: Final = 16


class Extent(NamedTuple):
    """Where a tag lies."""

    tag: int
    device: int
    kind: Kind
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.size


class Block(NamedTuple):
    """What one request reads."""

    device: int
    kind: Kind
    start: int
    size: int
    extents: Sequence[Extent]
    """In the order of their addresses; they may overlap."""


def plan(extents: Iterable[Extent], gap: int, registers: int = MOST_REGISTERS) -> list[Block]:
    """The fewest requests that keep to the limits.

    ``gap``: how many registers that nobody wants may lie between two tags of a request, ``registers``: how many one
    request may ask for (of coils and discrete inputs 16 times as many bits).
    """
    ordered = sorted(extents, key=lambda e: (e.device, e.kind, e.start, e.end))
    return [_block(group) for group in _groups(ordered, gap, registers)]


def parts(block: Block) -> list[Block]:
    """A refused block taken apart: where nobody wants what lies between, else in halves; [] for one tag."""
    if len(block.extents) == 1:
        return []
    gapless = plan(block.extents, 0, MOST_REGISTERS)
    if len(gapless) > 1:
        return gapless
    half = len(block.extents) // 2
    return [_block(block.extents[:half]), _block(block.extents[half:])]


def _groups(ordered: Sequence[Extent], gap: int, registers: int) -> Iterator[list[Extent]]:
    group: list[Extent] = []
    end = 0
    for extent in ordered:
        width = _BITS_PER_REGISTER if extent.kind in BITS else 1
        most = min(registers * width, MOST_BITS if extent.kind in BITS else MOST_REGISTERS)
        fits = (
            group
            and (group[0].device, group[0].kind) == (extent.device, extent.kind)
            and extent.start - end <= gap * width
            and max(end, extent.end) - group[0].start <= most
        )
        if group and not fits:
            yield group
            group = []
        end = max(end, extent.end) if group else extent.end
        group.append(extent)
    if group:
        yield group


def _block(extents: Sequence[Extent]) -> Block:
    first = extents[0]
    return Block(
        first.device, first.kind, first.start, max(extent.end for extent in extents) - first.start, tuple(extents)
    )
