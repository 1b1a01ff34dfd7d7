"""What people said of a machine's stops, read back from the historian (docs/connectors/machine.md)."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from shopfloor.console.view import milliseconds
from shopfloor.historian.base import Historian
from shopfloor.processors.machine import EDIT, StopEdit
from shopfloor.samples import Value

MOST: Final = 20_000
"""Of what was said about one machine that much is looked at."""
_decode: Final = msgspec.json.Decoder(StopEdit).decode


class Said(NamedTuple):
    """Somebody said something about a machine's stops."""

    at: int
    """ns UTC; it names what was said among all that was said of the machine."""
    edit: StopEdit
    undone: tuple[int, str] | None
    """When it was taken back, ns UTC, and by whom; None: it counts."""

    def reaches(self, start: int, end: int) -> bool:
        """Whether it says something of the time from ``start`` to ``end``."""
        return self.edit.start < end and (self.edit.end is None or self.edit.end > start)

    def counts(self, time: int, stop: int) -> bool:
        """Whether it counts at a moment of the stop that began at ``stop``."""
        if self.undone is not None or time < self.edit.start:
            return False
        return stop <= self.edit.start if self.edit.end is None else time < self.edit.end

    def json(self) -> dict[str, Any]:
        """As the API gives it."""
        return {
            "id": str(self.at),
            "time": milliseconds(self.at),
            "from": milliseconds(self.edit.start),
            "to": None if self.edit.end is None else milliseconds(self.edit.end),
            "reason": self.edit.reason,
            "by": self.edit.by,
            "comment": self.edit.comment,
            "undone": None if self.undone is None else {"time": milliseconds(self.undone[0]), "by": self.undone[1]},
        }


async def said(store: Historian, machine: str, start: int, end: int) -> list[Said]:
    """All that was said from ``start`` on, before ``end``, in that order."""
    series = await store.history(f"{EDIT}{machine}", start, end, MOST)
    edits = [(at, edit) for at, value in zip(series.times, series.values, strict=True) if (edit := _edit(value))]
    undone = {edit.undoes: (at, edit.by) for at, edit in edits if edit.undoes}
    return [Said(at, edit, undone.get(at)) for at, edit in edits if not edit.undoes]


def why(all_said: Sequence[Said], time: int, stop: int) -> Said | None:
    """What counts at a moment of a stop; None where it is what the machine says."""
    found = next((one for one in reversed(all_said) if one.counts(time, stop)), None)
    return found if found is not None and found.edit.reason else None


def _edit(value: Value) -> StopEdit | None:
    try:
        return _decode(value if isinstance(value, str) else "")
    except msgspec.DecodeError:
        return None
