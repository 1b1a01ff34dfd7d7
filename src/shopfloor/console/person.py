"""Who asks: every request acts as a person with a role."""

from collections.abc import Callable

import msgspec
from starlette.requests import HTTPConnection

from shopfloor.commands import Role


class Person(msgspec.Struct, frozen=True):
    """Somebody at the console."""

    name: str
    role: Role


Identify = Callable[[HTTPConnection], Person]
"""Who sends this request."""


def anybody(connection: HTTPConnection) -> Person:
    """Everybody is an operator, named by the address: for a plant without user accounts."""
    return Person(f"console@{connection.client.host if connection.client else 'unknown'}", "operator")
