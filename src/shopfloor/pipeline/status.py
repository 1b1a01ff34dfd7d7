"""What the pipeline says about its components: for the console, `/metrics` and the end of the demo."""

from typing import Literal

import msgspec

State = Literal["starting", "running", "waiting", "paused", "misconfigured", "failed", "stopped"]
"""``waiting``: the other side is away, it is retried. ``misconfigured``: a person must act.
``failed``: a bug, being restarted with backoff. ``paused``: by a person."""


class ComponentStatus(msgspec.Struct, frozen=True):
    """One source, processor, sink or historian as it stands."""

    name: str
    kind: Literal["source", "processor", "sink", "historian"]
    type: str
    state: State
    since: int
    """ns UTC: when it entered this state."""
    required: bool
    last_error: str = ""
    """The newest error in plain words, "" when there was none; it stays after recovery."""
    last_error_at: int = 0
    restarts: int = 0
    samples: int = 0
    """Received (source) or delivered (the others) since the process started."""
    lag_entries: int = 0
    """Journal entries that it has not taken yet; 0 for sources."""
    lag_seconds: float = 0.0
    """Age of the oldest entry that it has not taken yet."""
    dropped: int = 0
    """Samples that the journal dropped before it could take them, since it entered this state."""
