"""What a host application knows of an edge node: its births, its order, and whether two clients share its name."""

from collections import deque
from typing import Final

from shopfloor.protocols.sparkplug.exchange import SECOND, Arrival, Event, Kind, Moment, Step
from shopfloor.protocols.sparkplug.model import DataType, Metric
from shopfloor.protocols.sparkplug.rebirth import NodeKey

COUNT: Final = 256
"""Sequence numbers and bdSeqs go from 0 to below it."""
_CLASH_WITHIN: Final = 300 * SECOND
_CLASHES: Final = 2


class Known:
    """A metric as its birth told it."""

    __slots__ = ("metric", "name", "tag", "type")

    def __init__(self, metric: Metric, name: str, tag: str | None) -> None:
        """``tag`` None: it gives no samples."""
        self.metric = metric
        self.name = name
        self.tag = tag
        self.type = metric.type


class Owner:
    """A node itself or one of its devices: what its birth told, and whether it is there."""

    __slots__ = ("aliases", "device", "died", "names", "newest", "online", "overdue", "tags", "types")

    def __init__(self, device: str | None) -> None:
        """``device`` None: the node itself."""
        self.device = device
        self.names: dict[str, Known] = {}
        self.aliases: dict[int, Known] = {}
        self.tags: dict[int | str, str] = {}
        """By alias and by name."""
        self.types: dict[int | str, DataType] = {}
        """By alias and by name."""
        self.newest = 0
        """The newest live time that was given."""
        self.died = 0
        """The time that its last death gave to everything that became stale by it; 0: it never died."""
        self.online = False
        self.overdue: int | None = None
        """Monotonic time by which a device must be born again; None while it need not."""


class Node:
    """An edge node that was born at least once."""

    def __init__(self, key: NodeKey) -> None:
        """Nothing was born yet."""
        self.key = key
        self.server = ""
        self.bdseq: int | None = None
        self.due = 0
        """The sequence number that comes next."""
        self.early: dict[int, Arrival] = {}
        self.deadline: int | None = None
        self.own = Owner(None)
        self.devices: dict[str, Owner] = {}
        self.sessions: deque[tuple[int, int]] = deque(maxlen=64)
        """Monotonic time and bdSeq of the last births."""
        self.clashes: deque[int] = deque(maxlen=_CLASHES)
        self.told: set[str] = set()

    @property
    def where(self) -> str:
        """``group/node``."""
        return f"{self.key.group}/{self.key.node}"

    def owner(self, device: str | None) -> Owner | None:
        """The node itself or its device; None for a device without a birth."""
        return self.own if device is None else self.devices.get(device)

    def tell_once(self, kind: Kind, text: str, step: Step) -> None:
        """An event that is not repeated before the next birth."""
        if text not in self.told and len(self.told) < COUNT:
            self.told.add(text)
            step.events.append(Event(kind, self.where, text))

    def compare(self, bdseq: int, now: Moment, step: Step) -> None:
        """Find two clients with one identity: bdSeqs that go back to where they were before the last."""
        while self.sessions and self.sessions[0][0] < now.monotonic - _CLASH_WITHIN:
            self.sessions.popleft()
        before = [number for _, number in self.sessions]
        if before and bdseq not in (before[-1], (before[-1] + 1) % COUNT):
            known = set(before[:-1]) | {(number + 1) % COUNT for number in before[:-1]}
            if bdseq in known:
                quiet = not self.clashing(now)
                self.clashes.append(now.monotonic)
                if quiet and self.clashing(now):
                    text = "two clients share this identity: their births alternate; give each its own"
                    step.events.append(Event("clash", self.where, text))
        self.sessions.append((now.monotonic, bdseq))

    def clashing(self, now: Moment) -> bool:
        """Whether two clients share this identity, as far as the last minutes tell."""
        return len(self.clashes) == _CLASHES and self.clashes[0] > now.monotonic - _CLASH_WITHIN
