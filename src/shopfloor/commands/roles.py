"""The four roles and their order."""

from typing import Final, Literal, get_args

from shopfloor.samples import Misconfigured

Role = Literal["viewer", "operator", "engineer", "admin"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From the least to the most."""


def role_of(text: str, where: str) -> Role:
    """The role of that name; ``where`` is the place to name in the error. Raises Misconfigured."""
    for role in ROLES:
        if role == text:
            return role
    raise Misconfigured(f"{where}: {text!r} is no role; write one of {', '.join(ROLES)}")


def suffices(role: Role, needed: Role) -> bool:
    """Whether ``role`` may what ``needed`` may."""
    return ROLES.index(role) >= ROLES.index(needed)
