"""The four roles and their order."""

from typing import Final, get_args

from shopfloor.plant import Role

__all__ = ["ROLES", "Role", "suffices"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From the least to the most."""


def suffices(role: Role, needed: Role) -> bool:
    """Whether ``role`` may what ``needed`` may."""
    return ROLES.index(role) >= ROLES.index(needed)
