"""A Sparkplug host application as a state machine: no socket, no clock. Messages go in, samples come out.

What it keeps to:

1. STATE: will and birth of a server session carry one timestamp, each server has its own; who says that
   this host is offline while it is not is contradicted at once. A passive host publishes nothing at all.
2. What a node says counts from its NBIRTH on. Metrics are known by the birth's names and aliases; what
   refers to anything else is a cause for a rebirth, asked once (``rebirth``), and what it says is lost
   until the birth, and counted.
3. Messages count from 0 to 255. One that comes too early waits ``reorder`` for those before it; then they
   are counted as lost, the order goes on behind the gap, and a rebirth is wanted.
4. A sample has the metric's own time, also when it is historical or the clock is a day off; the payload's
   where it has none, else the time of reception.
5. A metric whose node or device died, whose server was lost or that a new birth leaves out becomes a sample
   of value None, quality 8 (not connected): by the host's clock, but never before what was said last. DDEATH
   counts by its own timestamp.
6. An NDEATH counts only with the bdSeq of the birth: a late will of the session before changes nothing.
7. Two clients with one identity show as bdSeqs that go back and forth. No rebirth is asked of them then.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Final, Literal, NamedTuple, cast

import msgspec

from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload, Template
from shopfloor.protocols.sparkplug.payload import Columns, typed
from shopfloor.protocols.sparkplug.reading import quality, reading, suited, type_name
from shopfloor.protocols.sparkplug.rebirth import SEQUENCE, NodeKey, Rebirths
from shopfloor.samples import Quality, Sample, TagInfo, Value

NAMESPACE: Final = "spBv1.0"
BDSEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"

_MS: Final = 10**6
_SECOND: Final = 10**9
_LAST_MS: Final = (2**63 - 1) // _MS
_COUNT: Final = 256
_WINDOW: Final = 64
"""Messages that may be ahead of, or behind, the one that is due and still be the same order."""
_DEVICES_WITHIN: Final = 30 * _SECOND
"""So long after a rebirth its devices must be born again, else they count as gone."""
_STATE_WITHIN: Final = 5 * _SECOND
"""So long nodes have to give their births by themselves when this host is back."""
_CLASH_WITHIN: Final = 300 * _SECOND
_CLASHES: Final = 2
_LONGEST_TAG: Final = 255
_FORBIDDEN: Final = str.maketrans({c: f"%{ord(c):02X}" for c in ("%", *"*?[]", *map(chr, range(32)))})

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
    reorder: int = 2 * _SECOND
    """How long a gap in the sequence may stay open; 0 takes every message as it comes."""
    rebirth_rate: int = 20
    """Requests a second over all nodes."""
    rebirth_spread: int = 2 * _SECOND
    """The longest random delay of a request."""
    rebirth_pause: int = 30 * _SECOND
    """How long a node is left alone after a request; doubled each time that no birth follows."""
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


class _Known:
    """A metric as its birth told it."""

    __slots__ = ("metric", "name", "tag", "type")

    def __init__(self, metric: Metric, name: str, tag: str | None) -> None:
        self.metric = metric
        self.name = name
        self.tag = tag
        """None: gives no samples."""
        self.type = metric.type


class _Owner:
    """A node itself or one of its devices: what its birth told, and whether it is there."""

    __slots__ = ("aliases", "device", "names", "newest", "online", "overdue", "tags", "types")

    def __init__(self, device: str | None) -> None:
        self.device = device
        self.names: dict[str, _Known] = {}
        self.aliases: dict[int, _Known] = {}
        self.tags: dict[int | str, str] = {}
        """By alias and by name."""
        self.types: dict[int | str, DataType] = {}
        """By alias and by name."""
        self.newest = 0
        """The newest live time that was given."""
        self.online = False
        self.overdue: int | None = None
        """Monotonic time by which a device must be born again; None while it need not."""


class _Node:
    """An edge node that was born at least once."""

    def __init__(self, key: NodeKey) -> None:
        self.key = key
        self.server = ""
        self.bdseq: int | None = None
        self.due = 0
        """The sequence number that comes next."""
        self.early: dict[int, Arrival] = {}
        self.deadline: int | None = None
        self.own = _Owner(None)
        self.devices: dict[str, _Owner] = {}
        self.sessions: deque[tuple[int, int]] = deque(maxlen=64)
        self.clashes: deque[int] = deque(maxlen=_CLASHES)
        self.told: set[str] = set()

    @property
    def where(self) -> str:
        return f"{self.key.group}/{self.key.node}"


class Host:
    """The view of one host application over all its servers."""

    def __init__(self, settings: HostSettings, chance: Callable[[], float] = random.random) -> None:
        """``chance`` gives numbers from 0 to below 1: the jitter of rebirth requests."""
        self._settings = settings
        self._groups = frozenset(settings.groups)
        self._rebirths = Rebirths(settings.rebirth_rate, settings.rebirth_spread, settings.rebirth_pause, chance)
        self._nodes: dict[NodeKey, _Node] = {}
        self._strangers: dict[NodeKey, str] = {}
        """Servers of nodes without a birth, bounded by what ``Rebirths`` takes."""
        self._tags: dict[str, tuple[_Node, _Owner, _Known]] = {}
        self._sessions: dict[str, int] = {}
        """The STATE timestamp of each server session, ms."""
        self._timers: list[tuple[int, int, _Node]] = []
        self._numbers = count()
        levels = settings.tag.split("/")
        self._device_tag = settings.tag
        self._node_tag = "/".join(level for level in levels if "{device}" not in level)
        self.watched: set[str] = set()
        """Tags whose live values are given in ``Step.echoes``."""

    # ---- server sessions ----------------------------------------------------------------------------

    @property
    def state_topic(self) -> str:
        """Where this host says whether it is there."""
        return f"{NAMESPACE}/STATE/{self._settings.host_id}"

    def subscriptions(self) -> list[str]:
        """The topic filters, its own STATE first; to be subscribed before ``connected``."""
        groups = [f"{NAMESPACE}/{group}/#" for group in self._settings.groups] or [f"{NAMESPACE}/+/+/+/#"]
        return [self.state_topic, *groups] if self._settings.primary else groups

    def connecting(self, server: str, now: Moment) -> Publication | None:
        """The will of the session that is about to begin, stamped with its time; None for a passive host."""
        self._sessions[server] = now.utc // _MS
        return self._state(server, self._sessions[server], online=False) if self._settings.primary else None

    def connected(self, server: str, now: Moment) -> Step:
        """The session is there and subscribed: the STATE birth, and rebirths of nodes that were lost with it."""
        step = Step()
        if self._settings.primary:
            step.publications.append(self._state(server, self._sessions[server], online=True))
        for node in self._nodes.values():
            if node.server == server and not node.own.online and "server" in node.told:
                self._want(node.key, "the server was lost", now, step, delay=_STATE_WITHIN)
        return step

    def disconnecting(self, server: str, now: Moment) -> list[Publication]:
        """What is to be published before DISCONNECT: the STATE death with the present time."""
        return [self._state(server, now.utc // _MS, online=False)] if self._settings.primary else []

    def disconnected(self, server: str, now: Moment) -> Step:
        """The session ended, for whatever reason: all that came through it is stale."""
        step = Step()
        if self._sessions.pop(server, None) is None:
            return step
        for node in self._nodes.values():
            if node.server == server and node.own.online:
                self._node_died(node, now, step)
                node.told.add("server")
        for key in [key for key, through in self._strangers.items() if through == server]:
            del self._strangers[key]
            self._rebirths.forget(key)
        return step

    def state(self, server: str, host_id: str, body: bytes) -> Step:
        """A STATE message arrived. Other hosts' are no business of ours."""
        step = Step()
        ours = self._sessions.get(server)
        if not self._settings.primary or host_id != self._settings.host_id or ours is None:
            return step
        try:
            said = msgspec.json.decode(body, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError):
            step.events.append(Event("state", host_id, "somebody published a STATE of this host that is no STATE"))
            step.publications.append(self._state(server, ours, online=True))
            return step
        if not said.online:
            step.publications.append(self._state(server, ours, online=True))
        elif said.timestamp > ours:
            text = "another host application uses this host_id; give each its own"
            step.events.append(Event("clash", host_id, text))
        return step

    def _state(self, server: str, timestamp: int, *, online: bool) -> Publication:
        body = msgspec.json.encode(_State(online=online, timestamp=timestamp))
        return Publication(server, self.state_topic, body, 1, retain=True)

    # ---- messages of nodes --------------------------------------------------------------------------

    def received(self, server: str, arrival: Arrival, now: Moment) -> Step:
        """A message of an edge node arrived."""
        step = Step()
        if self._groups and arrival.group not in self._groups:
            return step
        key = NodeKey(arrival.group, arrival.node)
        node = self._nodes.get(key)
        if arrival.verb == "NBIRTH":
            self._node_born(key, server, arrival.payload, now, step)
        elif arrival.verb == "NDEATH":
            self._node_death(node, arrival.payload, now, step)
        elif node is None or not node.own.online:
            step.lost += 1
            wanted = self._want(key, "data before the birth", now, step)
            if node is not None:
                node.server = server
            elif wanted or key in self._strangers:
                self._strangers[key] = server
        else:
            self._in_order(node, arrival, now, step)
        return step

    def types(self, group: str, node: str, device: str | None) -> Mapping[int | str, DataType] | None:
        """The types that a birth gave, by alias and by name; None where nothing was born."""
        found = self._nodes.get(NodeKey(group, node))
        owner = None if found is None else self._owner(found, device)
        return None if owner is None or not owner.online else owner.types

    def received_columns(self, group: str, node: str, device: str | None, columns: Columns, now: Moment) -> Step | None:
        """An NDATA or DDATA as columns: the usual case, many times as fast as ``received``.

        None, and nothing done, where it is not the usual case: it is not this message's turn, a metric was not
        announced, is historical or awaited, or its time is doubtful. Then ``received`` takes the message.
        """
        found = self._nodes.get(NodeKey(group, node))
        owner = None if found is None else self._owner(found, device)
        if found is None or owner is None or not (found.own.online and owner.online) or columns.seq != found.due:
            return None
        if not columns.timestamps or any(columns.historical) or not self._plausible(columns.timestamps, now):
            return None
        step = Step()
        try:
            step.tags = [owner.tags[key] for key in columns.names or columns.aliases]
        except KeyError:
            return None
        if len(step.tags) != len(columns.values) or not self.watched.isdisjoint(step.tags):
            return None
        step.times = [ms * _MS for ms in columns.timestamps]
        step.values = cast("list[Value]", columns.values)
        step.qualities = [Quality.GOOD] * len(step.tags)
        owner.newest = max(owner.newest, *step.times)
        found.due = (found.due + 1) % _COUNT
        self._take_early(found, now, step)
        return step

    @staticmethod
    def _owner(node: _Node, device: str | None) -> _Owner | None:
        return node.own if device is None else node.devices.get(device)

    def _plausible(self, timestamps: Sequence[int], now: Moment) -> bool:
        """Whether all these times, ms, are taken as they are."""
        limit = self._settings.clock_skew_limit
        first, last = min(timestamps) * _MS, max(timestamps) * _MS
        return last <= _LAST_MS * _MS and (limit is None or (now.utc - limit <= first and last <= now.utc + limit))

    def tick(self, now: Moment) -> Step:
        """Time passed: gaps that stayed open, devices that were not born again, rebirths that are due."""
        step = Step()
        while self._timers and self._timers[0][0] <= now.monotonic:
            _, _, node = heapq.heappop(self._timers)
            if node.deadline is not None and node.deadline <= now.monotonic:
                self._skip_gap(node, now, step)
                self._want(node.key, SEQUENCE, now, step)
            for owner in node.devices.values():
                if owner.overdue is not None and owner.overdue <= now.monotonic and owner.online:
                    self._died(owner, now.utc, step)
                    where = f"{node.where}/{owner.device}"
                    step.events.append(Event("death", where, "the rebirth of its node left it out"))
        for key in self._rebirths.take(now.monotonic):
            step.publications.append(self._request(key, now))
            step.events.append(Event("rebirth", f"{key.group}/{key.node}", "a rebirth was requested"))
        return step

    def next_tick(self) -> int | None:
        """The monotonic time, ns, at which ``tick`` has something to do; None while there is nothing."""
        times = [self._timers[0][0]] if self._timers else []
        wanted = self._rebirths.next()
        return min([*times, wanted]) if wanted is not None else min(times, default=None)

    # ---- commands and discovery ---------------------------------------------------------------------

    def write(self, tag: str, value: Value, now: Moment) -> Publication:
        """The NCMD or DCMD that sets a tag; raises ValueError that says why it cannot be written, NotThere."""
        if not self._settings.primary:
            raise ValueError("a passive host sends no commands; set `role: primary`")
        found = self._tags.get(tag)
        if found is None:
            raise NotThere(f"no node has announced a metric for the tag {tag!r}")
        node, owner, known = found
        if not owner.online or not node.own.online:
            raise NotThere(f"{node.where} is not there" if owner.device is None else f"{owner.device} is not there")
        if known.type is None:
            raise ValueError("the birth does not say what type the metric has")
        if _writable(known.metric) is False:
            raise ValueError("the node says that this metric is read-only")
        return self._command(
            node.key, node.server, owner.device, known.name, known.type, suited(value, known.type), now
        )

    def browse(self) -> Iterator[TagInfo]:
        """Every metric of every node and device that was born, there or not."""
        for tag, (node, owner, known) in self._tags.items():
            device = "" if owner.device is None else f"{owner.device}/"
            metric = known.metric
            unit = (metric.properties or {}).get("engUnit")
            yield TagInfo(
                tag,
                address=f"{node.where}/{device}{known.name}",
                data_type=type_name(known.type),
                unit=unit.value if unit is not None and isinstance(unit.value, str) else "",
                description=(metric.metadata.description or "") if metric.metadata is not None else "",
                writable=_writable(metric),
            )

    def _command(
        self, key: NodeKey, server: str, device: str | None, name: str, kind: DataType, value: object, now: Moment
    ) -> Publication:
        moment = now.utc // _MS
        metric = Metric(name=name, timestamp=moment, type=kind, value=value)  # type: ignore[arg-type]
        verb, tail = ("NCMD", "") if device is None else ("DCMD", f"/{device}")
        topic = f"{NAMESPACE}/{key.group}/{verb}/{key.node}{tail}"
        return Publication(server, topic, Payload(timestamp=moment, metrics=[metric]), 0, retain=False)

    def _request(self, key: NodeKey, now: Moment) -> Publication:
        node = self._nodes.get(key)
        server = node.server if node is not None else self._strangers.get(key, "")
        return self._command(key, server, None, REBIRTH, DataType.BOOLEAN, True, now)

    def _want(self, key: NodeKey, cause: str, now: Moment, step: Step, delay: int = 0) -> bool:
        """Want a rebirth of the node, if it may be asked."""
        node = self._nodes.get(key)
        if not self._settings.primary or (node is not None and self._clashing(node, now)):
            return False
        if not self._rebirths.ask(key, cause, now.monotonic, delay):
            return False
        step.events.append(Event("rebirth", f"{key.group}/{key.node}", f"a rebirth is wanted: {cause}"))
        return True

    # ---- births and deaths --------------------------------------------------------------------------

    def _node_born(self, key: NodeKey, server: str, payload: Payload, now: Moment, step: Step) -> None:
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node(key)
            self._strangers.pop(key, None)
        elif node.own.online:
            self._drain(node, now, step)
        bdseq = _bdseq(payload)
        renewed = not node.own.online or bdseq != node.bdseq
        if bdseq is None:
            step.events.append(Event("fault", node.where, "its NBIRTH has no bdSeq"))
        else:
            self._compare(node, bdseq, now, step)
        if payload.seq is None or not 0 <= payload.seq < _COUNT:
            step.events.append(Event("fault", node.where, "its NBIRTH has no sequence number from 0 to 255"))
        node.due = ((payload.seq or 0) + 1) % _COUNT
        node.bdseq, node.server = bdseq, server
        node.told.clear()
        self._check_clock(node, payload, now, step)
        self._rebirths.born(key, new_session=renewed)
        self._owner_born(node, node.own, payload, now, step)
        for owner in node.devices.values():
            if not owner.online:
                continue
            if renewed:
                self._died(owner, now.utc, step)
            else:
                owner.overdue = now.monotonic + _DEVICES_WITHIN
                self._set_timer(owner.overdue, node)
        step.events.append(Event("birth", node.where, f"born with {len(node.own.names)} metrics"))

    def _device_born(self, node: _Node, device: str, payload: Payload, now: Moment, step: Step) -> None:
        owner = node.devices.get(device)
        if owner is None:
            owner = node.devices[device] = _Owner(device)
        self._owner_born(node, owner, payload, now, step)
        step.events.append(Event("birth", f"{node.where}/{device}", f"born with {len(owner.names)} metrics"))

    def _owner_born(self, node: _Node, owner: _Owner, payload: Payload, now: Moment, step: Step) -> None:
        """Take over the names and aliases of a birth, and its values; what it leaves out is stale."""
        before, owner.names, owner.aliases = owner.names, {}, {}
        for metric in payload.metrics:
            name = metric.name
            if name is None or name in (BDSEQ, REBIRTH):
                continue
            known = self._know(node, owner, metric, name, step)
            owner.names[name] = known
            if metric.alias is not None:
                if metric.alias in owner.aliases:
                    text = f"{name} has the alias {metric.alias} of {owner.aliases[metric.alias].name}"
                    step.events.append(Event("fault", node.where, text))
                owner.aliases[metric.alias] = known
        for name, known in before.items():
            if name not in owner.names and known.tag is not None:
                if owner.online:
                    step.add(known.tag, max(now.utc, owner.newest + 1), None, Quality.NOT_CONNECTED)
                self._tags.pop(known.tag, None)
        every: list[tuple[int | str, _Known]] = [*owner.names.items(), *owner.aliases.items()]
        owner.tags = {key: known.tag for key, known in every if known.tag is not None}
        owner.types = {key: known.type for key, known in every if known.type is not None}
        owner.online = True
        owner.overdue = None
        self._values(node, owner, payload, now, step)

    def _know(self, node: _Node, owner: _Owner, metric: Metric, name: str, step: Step) -> _Known:
        """A metric of a birth with its tag, unless it gives no samples or the tag is another's."""
        if isinstance(metric.value, Template) and metric.value.is_definition:
            return _Known(metric, name, None)
        template = self._node_tag if owner.device is None else self._device_tag
        tag = template.format(
            group=node.key.group.translate(_FORBIDDEN), node=node.key.node.translate(_FORBIDDEN),
            device=(owner.device or "").translate(_FORBIDDEN), metric=name.translate(_FORBIDDEN),
        )  # fmt: skip
        if not tag or len(tag) > _LONGEST_TAG or tag[0] in "$ ":
            step.events.append(Event("fault", node.where, f"{name[:80]!r} cannot be a tag's name; it gives no samples"))
            return _Known(metric, name, None)
        known = _Known(metric, name, tag)
        other = self._tags.get(tag)
        if other is not None and (other[0] is not node or other[1] is not owner or other[2].name != name):
            text = f"{name} would have the tag {tag} of {other[0].where}; it gives no samples, change `tag`"
            step.events.append(Event("fault", node.where, text))
            known.tag = None
            return known
        self._tags[tag] = (node, owner, known)
        return known

    def _node_death(self, node: _Node | None, payload: Payload, now: Moment, step: Step) -> None:
        if node is None or not node.own.online:
            return
        bdseq = _bdseq(payload)
        if bdseq is None:
            step.events.append(Event("fault", node.where, "its NDEATH has no bdSeq; it counts nevertheless"))
        elif bdseq != node.bdseq:
            text = f"an NDEATH of another session (bdSeq {bdseq}, not {node.bdseq}) does not count"
            step.events.append(Event("fault", node.where, text))
            return
        self._node_died(node, now, step)
        step.events.append(Event("death", node.where, "the node is gone"))

    def _node_died(self, node: _Node, now: Moment, step: Step) -> None:
        self._drain(node, now, step)
        self._rebirths.forget(node.key)
        for owner in (node.own, *node.devices.values()):
            if owner.online:
                self._died(owner, now.utc, step)

    def _died(self, owner: _Owner, time: int, step: Step) -> None:
        """Everything that it told is stale, from ``time`` on but not before what it said last."""
        owner.online = False
        owner.overdue = None
        moment = owner.newest = max(time, owner.newest + 1)
        for known in owner.names.values():
            if known.tag is not None:
                step.add(known.tag, moment, None, Quality.NOT_CONNECTED)

    def _compare(self, node: _Node, bdseq: int, now: Moment, step: Step) -> None:
        """Find two clients with one identity: bdSeqs that go back to where they were before the last."""
        while node.sessions and node.sessions[0][0] < now.monotonic - _CLASH_WITHIN:
            node.sessions.popleft()
        before = [number for _, number in node.sessions]
        if before and bdseq not in (before[-1], (before[-1] + 1) % _COUNT):
            known = set(before[:-1]) | {(number + 1) % _COUNT for number in before[:-1]}
            if bdseq in known:
                quiet = not self._clashing(node, now)
                node.clashes.append(now.monotonic)
                if quiet and self._clashing(node, now):
                    text = "two clients share this identity: their births alternate; give each its own"
                    step.events.append(Event("clash", node.where, text))
        node.sessions.append((now.monotonic, bdseq))

    @staticmethod
    def _clashing(node: _Node, now: Moment) -> bool:
        return len(node.clashes) == _CLASHES and node.clashes[0] > now.monotonic - _CLASH_WITHIN

    def _check_clock(self, node: _Node, payload: Payload, now: Moment, step: Step) -> None:
        if payload.timestamp is None:
            return
        away = payload.timestamp * _MS - now.utc
        if abs(away) > (self._settings.clock_skew_limit or 60 * _SECOND):
            text = f"its clock is {abs(away) // _SECOND} s {'ahead' if away > 0 else 'behind'}"
            step.events.append(Event("clock", node.where, text))

    # ---- data ---------------------------------------------------------------------------------------

    def _in_order(self, node: _Node, arrival: Arrival, now: Moment, step: Step) -> None:
        """Take a message of a node that is there when it is its turn."""
        seq = arrival.payload.seq
        if seq is None or not 0 <= seq < _COUNT:
            self._tell_once(node, "fault", f"its {arrival.verb} has no sequence number from 0 to 255", step)
            self._take(node, arrival, now, step)
            return
        ahead = (seq - node.due) % _COUNT
        if ahead == 0:
            self._take(node, arrival, now, step)
            node.due = (seq + 1) % _COUNT
            self._take_early(node, now, step)
        elif ahead <= _WINDOW and self._settings.reorder > 0:
            if seq in node.early:
                self._tell_once(node, "fault", f"the sequence number {seq} came twice", step)
                self._take(node, arrival, now, step)
                return
            node.early[seq] = arrival
            if node.deadline is None:
                node.deadline = now.monotonic + self._settings.reorder
                self._set_timer(node.deadline, node)
        elif ahead >= _COUNT - _WINDOW:
            # Late, or twice: what it says is true, but the order is no longer to be trusted.
            self._take(node, arrival, now, step)
            self._want(node.key, SEQUENCE, now, step)
        else:
            self._drain(node, now, step)
            step.lost += (seq - node.due) % _COUNT
            text = f"the sequence jumped from {node.due} to {seq}"
            step.events.append(Event("gap", node.where, text))
            self._take(node, arrival, now, step)
            node.due = (seq + 1) % _COUNT
            self._want(node.key, SEQUENCE, now, step)

    def _take_early(self, node: _Node, now: Moment, step: Step) -> None:
        """Take what waited for the message that just came."""
        while node.early and (arrival := node.early.pop(node.due, None)) is not None:
            self._take(node, arrival, now, step)
            node.due = (node.due + 1) % _COUNT
        if not node.early:
            node.deadline = None
        elif node.deadline is not None and node.deadline <= now.monotonic:
            self._set_timer(now.monotonic, node)

    def _skip_gap(self, node: _Node, now: Moment, step: Step) -> None:
        """Count what did not come as lost and go on behind it."""
        while node.early:
            nearest = min(node.early, key=lambda seq: (seq - node.due) % _COUNT)
            missing = (nearest - node.due) % _COUNT
            step.lost += missing
            if missing:
                text = f"{missing} message(s) from sequence number {node.due} on did not come"
                step.events.append(Event("gap", node.where, text))
            node.due = nearest
            self._take_early(node, now, step)
        node.deadline = None

    def _drain(self, node: _Node, now: Moment, step: Step) -> None:
        """Nothing more comes before what waits: take it."""
        if node.early:
            self._skip_gap(node, now, step)

    def _take(self, node: _Node, arrival: Arrival, now: Moment, step: Step) -> None:
        payload, device = arrival.payload, arrival.device
        if arrival.verb == "NDATA" or device is None:
            self._values(node, node.own, payload, now, step)
            return
        if arrival.verb == "DBIRTH":
            self._device_born(node, device, payload, now, step)
            return
        owner = node.devices.get(device)
        if arrival.verb == "DDEATH":
            if owner is not None and owner.online:
                time = payload.timestamp
                self._died(owner, now.utc if time is None or time > _LAST_MS else time * _MS, step)
                step.events.append(Event("death", f"{node.where}/{device}", "the device is gone"))
        elif owner is None or not owner.online:
            step.lost += 1
            self._want(node.key, f"data of device {device} before its birth", now, step)
        else:
            self._values(node, owner, payload, now, step)

    def _values(self, node: _Node, owner: _Owner, payload: Payload, now: Moment, step: Step) -> None:
        """The samples of a payload; its metrics were all announced, or are a cause for a rebirth."""
        names, aliases = owner.names, owner.aliases
        common = payload.timestamp
        newest = owner.newest
        for metric in payload.metrics:
            name = metric.name
            known = names.get(name) if name is not None else aliases.get(_alias(metric))
            if known is None:
                if name not in (BDSEQ, REBIRTH):
                    self._unknown(node, metric, now, step)
                continue
            tag = known.tag
            if tag is None:
                continue
            time, judged = self._time(metric, common, now)
            value = None if metric.is_null else self._reading(node, metric, known, step)
            if value is None and not metric.is_null:
                judged = Quality.BAD
            if metric.properties is not None:
                judged = min(judged, quality(metric.properties))
            step.add(tag, time, value, judged)
            if not metric.is_historical:
                newest = max(newest, time)
                if tag in self.watched:
                    step.echoes.append(Sample(tag, time, value, judged))
        owner.newest = newest
        self._faults(node, owner, payload, now, step)

    def _faults(self, node: _Node, owner: _Owner, payload: Payload, now: Moment, step: Step) -> None:
        """What could not be read is bad where it is known what it is."""
        common = payload.timestamp
        for fault in payload.faults:
            known = owner.names.get(fault.name)
            if known is not None and known.tag is not None:
                time = now.utc if common is None or common > _LAST_MS else common * _MS
                step.add(known.tag, time, None, Quality.BAD)
            self._tell_once(node, "fault", f"{fault.name or fault.index}: {fault.reason}", step)

    def _reading(self, node: _Node, metric: Metric, known: _Known, step: Step) -> Value:
        """The value as a sample carries it; a message may leave its type to the birth. None: there is none."""
        value = metric.value
        if metric.type is None and known.type is not None:
            try:
                value = typed(value, known.type)
            except ValueError as error:
                self._tell_once(node, "fault", f"{known.name}: {error}", step)
                return None
        return reading(value)

    def _time(self, metric: Metric, common: int | None, now: Moment) -> tuple[int, int]:
        """When a metric's value was true, ns, and the best quality that this time allows."""
        ms = metric.timestamp if metric.timestamp is not None else common
        if ms is None:
            return now.utc, Quality.GOOD
        if ms > _LAST_MS:
            return now.utc, Quality.UNCERTAIN
        limit = self._settings.clock_skew_limit
        if limit is not None and not metric.is_historical and abs(ms * _MS - now.utc) > limit:
            return now.utc, Quality.UNCERTAIN
        return ms * _MS, Quality.GOOD

    def _unknown(self, node: _Node, metric: Metric, now: Moment, step: Step) -> None:
        what = f"alias {metric.alias}" if metric.name is None else metric.name
        self._tell_once(node, "fault", f"{what} was not announced by a birth", step)
        self._want(node.key, f"{what} was not announced", now, step)

    @staticmethod
    def _tell_once(node: _Node, kind: Kind, text: str, step: Step) -> None:
        """An event that is not repeated before the next birth."""
        if text not in node.told and len(node.told) < _COUNT:
            node.told.add(text)
            step.events.append(Event(kind, node.where, text))

    def _set_timer(self, deadline: int, node: _Node) -> None:
        heapq.heappush(self._timers, (deadline, next(self._numbers), node))


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """The body of a STATE message; ms."""

    online: bool
    timestamp: int


def _bdseq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == BDSEQ and isinstance(metric.value, int):
            return metric.value
    return None


def _alias(metric: Metric) -> int:
    """The alias; one that no metric has where there is none."""
    return -1 if metric.alias is None else metric.alias


def _writable(metric: Metric) -> bool | None:
    """What the property ``readOnly`` says, None where there is none."""
    found = (metric.properties or {}).get("readOnly")
    return not found.value if found is not None and isinstance(found.value, bool) else None
