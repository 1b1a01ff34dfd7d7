"""What goes into a host application and what comes out of it: messages, publications, samples, events, settings."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from shopfloor.protocols.sparkplug.model import Payload
from shopfloor.samples import Sample, Value

BDSEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"
MS: Final = 10**6
SECOND: Final = 10**9
LAST_MS: Final = (2**63 - 1) // MS
"""The last millisecond that a sample's time can say."""

Verb = Literal["NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA"]
Kind = Literal["birth", "death", "rebirth", "gap", "clash", "fault", "clock", "state"]


class NotThere(ValueError):
    """A tag that no node has announced, or whose node or device is away: a birth may change that."""


class Moment(NamedTuple):
    """Now, by both clocks, in ns: UTC for what is written down, monotonic for deadlines."""

    utc: int
    monotonic: int


class Arrival(NamedTuple):
    """A message of an edge node."""

    verb: Verb
    group: str
    node: str
    device: str | None
    payload: Payload


class Publication(NamedTuple):
    """What is to be published: STATE as bytes (QoS 1, retained), commands as a payload (QoS 0)."""

    server: str
    topic: str
    body: bytes | Payload
    qos: Literal[0, 1]
    retain: bool


class Event(NamedTuple):
    """Something that a person may want to know."""

    kind: Kind
    where: str
    """``group/node`` or ``group/node/device``."""
    text: str


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is; durations in ns."""

    host_id: str
    primary: bool = True
    """Whether it publishes STATE, asks for rebirths and sends commands; a passive one only listens."""
    groups: Sequence[str] = ()
    """Which groups it listens to; empty means all."""
    tag: str = "{group}/{node}/{device}/{metric}"
    """How tags are named; a level with ``{device}`` is left out for metrics of the node itself."""
    reorder: int = 2 * SECOND
    """How long a gap in the sequence may stay open; 0 takes every message as it comes."""
    rebirth_rate: int = 20
    """Requests a second over all nodes."""
    rebirth_spread: int = 2 * SECOND
    """The longest random delay of a request."""
    rebirth_pause: int = 30 * SECOND
    """How long a node is left alone after a request; doubled each time that no birth follows."""
    legacy_state: bool = False
    """Whether STATE is that of Sparkplug 2.2: plain text on ``STATE/host_id``."""
    clock_skew_limit: int | None = None
    """A time further than this from reception is replaced by it, uncertain; historical values excepted."""


class Step:
    """What follows from one input: columns of samples, publications in their order, events."""

    __slots__ = ("echoes", "events", "lost", "publications", "qualities", "tags", "times", "values")

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.times: list[int] = []
        self.values: list[Value] = []
        self.qualities: list[int] = []
        self.publications: list[Publication] = []
        self.events: list[Event] = []
        self.echoes: list[Sample] = []
        """Live values of the tags in ``Host.watched``, which are also among the samples."""
        self.lost = 0
        """Messages that a gap in a sequence or a missing birth cost."""

    def add(self, tag: str, time: int, value: Value, quality: int) -> None:
        """One more sample."""
        self.tags.append(tag)
        self.times.append(time)
        self.values.append(value)
        self.qualities.append(quality)
