"""What may be written: the entries of ``commands.allow`` and whether a value fits one."""

import math
from collections.abc import Callable, Mapping

import msgspec

from shopfloor.commands.refusal import Refused
from shopfloor.commands.roles import Role, suffices
from shopfloor.plant import Commands as CommandsConfig
from shopfloor.samples import INT_MAX, INT_MIN, Sample, Value

LONGEST = 65_536
"""Characters or bytes of a text that may be written."""

Current = Callable[[str], Sample | None]
"""The newest sample of a tag, where one is known."""


class Permission(msgspec.Struct, frozen=True):
    """One entry of ``commands.allow``. Durations are in ns."""

    tag: str
    role: Role
    range: tuple[float, float] | None
    momentary: bool
    lease: int
    expires: int
    held_by: str | None = None
    """Who holds the button now."""

    def demand(self, role: Role) -> None:
        """Raise Refused when the role is too low."""
        if not suffices(role, self.role):
            raise Refused("role", "You may not do this", f"{self.tag} takes the role {self.role}; this is {role}")

    def demand_fit(self, value: Value, known: Sample | None) -> None:
        """Raise Refused when the value cannot be right for the tag, whose newest sample is ``known``."""
        if value is None:
            raise Refused("type", "There is no value", f"{self.tag} cannot be set to nothing")
        if isinstance(value, int) and not INT_MIN <= value <= INT_MAX:
            raise Refused("range", "The value is out of range", f"{self.tag} takes integers of 64 bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused("type", "This is not a number", f"{self.tag} takes finite numbers, not {value}")
        if isinstance(value, str | bytes) and len(value) > LONGEST:
            raise Refused("range", "The value is too long", f"{self.tag} takes at most {LONGEST} characters")
        if self.range is not None:
            self._demand_range(value, *self.range)
        kind = _kind(value)
        now = None if known is None or known.value is None else _kind(known.value)
        if now is not None and kind != now:
            raise Refused("type", "The value is of the wrong kind", f"{self.tag} is {now}; {kind} was given")

    def _demand_range(self, value: Value, low: float, high: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused("type", "This is not a number", f"{self.tag} takes a number, {low:g} to {high:g}")
        if not low <= value <= high:
            raise Refused("range", "The value is out of range", f"{self.tag} takes {low:g} to {high:g}, not {value}")


def permissions(config: CommandsConfig) -> Mapping[str, Permission]:
    """The entries by tag."""
    return {
        allow.tag: Permission(
            allow.tag,
            allow.role,
            allow.range,
            allow.momentary,
            allow.lease,
            allow.expires,
        )
        for allow in config.allow
    }


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "bytes"
