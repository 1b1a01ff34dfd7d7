"""What a machine's own state values mean: PackML by default, or as the plant file maps them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class State(StrEnum):
    """The states that the time model knows."""

    RUNNING = "running"
    IDLE = "idle"
    SETUP = "setup"
    DOWN = "down"
    PLANNED = "planned"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


STOPS: Final = frozenset({State.IDLE, State.DOWN})
"""States in which the machine stands by itself."""

_PACKML: Final = (
    ("clearing", State.DOWN),
    ("stopped", State.IDLE),
    ("starting", State.SETUP),
    ("idle", State.IDLE),
    ("suspended", State.BLOCKED),
    ("execute", State.RUNNING),
    ("stopping", State.IDLE),
    ("aborting", State.DOWN),
    ("aborted", State.DOWN),
    ("holding", State.DOWN),
    ("held", State.DOWN),
    ("unholding", State.DOWN),
    ("suspending", State.BLOCKED),
    ("unsuspending", State.BLOCKED),
    ("resetting", State.SETUP),
    ("completing", State.SETUP),
    ("complete", State.IDLE),
)
"""Names and meanings in the order of their numbers, 1 to 17 (ANSI/ISA-TR88.00.02, PackTags' StateCurrent)."""
_WORDS: Final = {
    "running": State.RUNNING,
    "run": State.RUNNING,
    "producing": State.RUNNING,
    "setup": State.SETUP,
    "changeover": State.SETUP,
    "down": State.DOWN,
    "error": State.DOWN,
    "fault": State.DOWN,
    "faulted": State.DOWN,
    "alarm": State.DOWN,
    "stop": State.IDLE,
    "waiting": State.IDLE,
    "off": State.IDLE,
    "planned": State.PLANNED,
    "maintenance": State.PLANNED,
    "blocked": State.BLOCKED,
    "starved": State.BLOCKED,
    "unknown": State.UNKNOWN,
}
PACKML: Final[Mapping[str, State]] = {
    **{str(number): state for number, (_, state) in enumerate(_PACKML, start=1)},
    **dict(_PACKML),
    **_WORDS,
    "0": State.UNKNOWN,
}
"""The default: PackML's numbers and names, and the words that machines without PackML use."""


class Model(NamedTuple):
    """A standard's states and modes; keys as ``key`` gives them."""

    states: Mapping[str, State]
    maintenance: frozenset[str]
    """Modes in which it is planned that the machine does not produce."""
    setup: frozenset[str] = frozenset()
    """Modes in which it is set up, whatever it does, unless it is in fault."""


_ITEM_STATES: Final = (
    ("notavailable", State.IDLE),
    ("outofservice", State.DOWN),
    ("notexecuting", State.IDLE),
    ("executing", State.RUNNING),
)
"""MachineryItemState in the order of its StateNumbers, 0 to 3, as Annex C of OPC 40001-1 reads them in the mode
Processing by SEMI E10: OutOfService is unscheduled downtime, NotExecuting standby, Executing productive. A machine that
is NotAvailable (switched off, saving energy) stands, and that is known."""
MODELS: Final[Mapping[str, Model]] = {
    "packml": Model(PACKML, frozenset({"2", "maintenance"})),  # PackTags' UnitModeCurrent
    "machinery": Model(
        {
            **_WORDS,
            **dict(_ITEM_STATES),
            **{str(number): state for number, (_, state) in enumerate(_ITEM_STATES)},
        },
        frozenset({"1", "maintenance"}),  # MachineryOperationMode: 0 None, 1 Maintenance, 2 Setup, 3 Processing
        frozenset({"2", "setup"}),
    ),
}
"""By the names that the plant file uses."""


def key(value: object) -> str | None:
    """How a state value stands in a map: ``6``, ``true``, ``execute``; None for what can be no state."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value.strip().lower()
    return None


def resolve(value: object, mode: object, states: Mapping[str, State], model: str = "packml") -> State | None:
    """What a state value means; None when the map does not know it. In maintenance mode every state is planned."""
    found = states.get(key(value) or "")
    said = key(mode)
    if found is None or found is State.UNKNOWN or said is None:
        return found
    if said in MODELS[model].maintenance:
        return State.PLANNED
    return State.SETUP if said in MODELS[model].setup and found is not State.DOWN else found
