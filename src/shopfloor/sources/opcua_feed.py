"""What the subscription and the polling of an OPC UA source have in common: items in, deliveries out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from asyncua import ua

from shopfloor.protocols.opcua_publish import Changes


@dataclass(frozen=True)
class Deadband:
    """Changes below it are not recorded."""

    value: float
    percent: bool
    """Of the tag's EURange on the server; otherwise in the tag's own unit."""


@dataclass
class Item:
    """One node that is watched. Its handle is its place in the source's list of items."""

    handle: int
    tag: str
    node: ua.NodeId
    sampling: float
    """Milliseconds; for polled items the time between reads."""
    queue: int
    deadband: Deadband | None = None
    server_id: int | None = None
    """What the server calls the monitored item; None while there is none."""
    status: int = 0
    """Why it could not be monitored, as a StatusCode; 0 when it is."""
    unfiltered: bool = field(default=False)
    """Whether the server refused the deadband."""


@dataclass
class Delivery:
    """What became new, and what to do once it is durable."""

    changes: Changes
    lost: int = 0
    """Messages that the server no longer had: each at least one value."""
    sequences: Sequence[int] = ()
    checkpoint: bytes | None = None
    complete: bool = False
    """Whether nothing is missing although the connection was lost before."""


class Feed(Protocol):
    """Something that delivers changes."""

    async def next(self) -> Delivery:
        """The next changes, at least one. Raises Unavailable when the connection is lost."""
        ...

    def acknowledge(self, delivery: Delivery) -> None:
        """The delivery is durable. Called before the next ``next``."""
        ...

    async def close(self) -> None:
        """Stop; never raises."""
        ...
