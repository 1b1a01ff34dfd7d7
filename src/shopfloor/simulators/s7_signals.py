"""Signals of a simulated S7 program: where each lies in the memory, and how it is written there."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from shopfloor.protocols.s7_address import Address, parse
from shopfloor.samples import Value
from shopfloor.simulators.s7_server import Memory

FULL_RAW: Final = 27648
"""What an S7's analogue module gives at the end of its range."""
_OVER: Final = 1.17
"""How far beyond it the module still shows."""


class Tag(NamedTuple):
    """Where a signal lies."""

    address: str
    description: str
    unit: str = ""
    full: float | None = None
    """Engineering value at FULL_RAW, of raw analogue inputs."""
    writable: bool = False


class Signals:
    """Tags by name, in a memory."""

    def __init__(self, memory: Memory, tags: Mapping[str, Tag]) -> None:
        """Writes nothing yet."""
        self._memory, self._tags = memory, tags
        self._addresses: dict[str, Address] = {name: parse(tag.address) for name, tag in tags.items()}

    def get(self, name: str) -> Value:
        """What lies there: as a client wrote it, where clients may."""
        return self._memory.get(self._addresses[name])

    def say(self, name: str, value: bool | float | str) -> None:  # noqa: FBT001  # a value is no option
        """Write a value."""
        self._memory.put(self._addresses[name], value)

    def raw(self, name: str, value: float) -> None:
        """Write an engineering value as an analogue module gives it."""
        full = self._tags[name].full or 1.0
        self.say(name, round(min(max(value / full, 0.0), _OVER) * FULL_RAW))
