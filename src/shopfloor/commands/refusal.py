"""The error of a command that is not carried out because it must not be."""

from typing import Literal

Reason = Literal[
    "not_allowed", "role", "type", "range", "momentary", "not_momentary", "id", "conflict", "held", "closed", "late",
    "malformed", "busy",
]  # fmt: skip
"""``not_allowed``: no entry in ``commands.allow``. ``role``: the role is too low. ``type``, ``range``: the
value does not fit. ``momentary``, ``not_momentary``: press what is sent, or the reverse. ``id``: not a
valid id. ``conflict``: the id was used for something else. ``held``: somebody else holds the button, or
its last release is still owed. ``closed``: commands are shutting down. Of messages only: ``late``: too old, or nobody
knows how old. ``malformed``: cannot be understood. ``busy``: too many are under way."""


class Refused(Exception):
    """Nothing was written, and it was recorded. ``str`` of it is for the engineer."""

    def __init__(self, reason: Reason, title: str, detail: str, *, held_by: str | None = None) -> None:
        """``title`` is for the shift lead; ``held_by`` names who holds a momentary tag."""
        super().__init__(detail)
        self.reason: Reason = reason
        self.title = title
        self.held_by = held_by
