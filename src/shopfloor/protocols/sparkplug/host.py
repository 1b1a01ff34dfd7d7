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
   counts by its own timestamp. Born again, a value that is older than that counts from the birth: it says that the
   value holds now.
6. An NDEATH counts only with the bdSeq of the birth: a late will of the session before changes nothing.
7. Two clients with one identity show as bdSeqs that go back and forth. No rebirth is asked of them then.
"""

import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Final, cast

from shopfloor.protocols.sparkplug.exchange import (
    BDSEQ,
    LAST_MS,
    MS,
    REBIRTH,
    SECOND,
    Arrival,
    Event,
    HostSettings,
    Moment,
    NotThere,
    Publication,
    Step,
)
from shopfloor.protocols.sparkplug.model import DataType, Metric, Payload
from shopfloor.protocols.sparkplug.naming import Tags
from shopfloor.protocols.sparkplug.nodes import COUNT, Known, Node, Owner
from shopfloor.protocols.sparkplug.order import Order
from shopfloor.protocols.sparkplug.payload import Columns
from shopfloor.protocols.sparkplug.presence import Presence
from shopfloor.protocols.sparkplug.reading import suited, type_name
from shopfloor.protocols.sparkplug.rebirth import SEQUENCE, NodeKey, Rebirths
from shopfloor.protocols.sparkplug.topics import NAMESPACE
from shopfloor.protocols.sparkplug.values import Values
from shopfloor.samples import Quality, TagInfo, Value

_DEVICES_WITHIN: Final = 30 * SECOND
"""So long after a rebirth its devices must be born again, else they count as gone."""
_STATE_WITHIN: Final = 5 * SECOND
"""So long nodes have to give their births by themselves when this host is back."""


class Host:
    """The view of one host application over all its servers."""

    def __init__(self, settings: HostSettings, chance: Callable[[], float] = random.random) -> None:
        """``chance`` gives numbers from 0 to below 1: the jitter of rebirth requests."""
        self._settings = settings
        self._groups = frozenset(settings.groups)
        self._rebirths = Rebirths(settings.rebirth_rate, settings.rebirth_spread, settings.rebirth_pause, chance)
        self._nodes: dict[NodeKey, Node] = {}
        self._strangers: dict[NodeKey, str] = {}
        """Servers of nodes without a birth, bounded by what ``Rebirths`` takes."""
        self._sessions: set[str] = set()
        """Servers to which there is a session, or is about to be one."""
        self._presence = Presence(settings.host_id, legacy=settings.legacy_state)
        self._tags = Tags(settings.tag)
        self._values = Values(settings.clock_skew_limit, self._unknown)
        self._order = Order(settings.reorder, self._take, self._disordered, self._set_timer)
        self._timers: list[tuple[int, int, Node]] = []
        self._numbers = count()
        self.watched = self._values.watched
        """Tags whose live values are given in ``Step.echoes``."""

    # ---- server sessions ----------------------------------------------------------------------------

    @property
    def state_topic(self) -> str:
        """Where this host says whether it is there."""
        return self._presence.topic

    def subscriptions(self) -> list[str]:
        """The topic filters, its own STATE first; to be subscribed before ``connected``."""
        groups = [f"{NAMESPACE}/{group}/#" for group in self._settings.groups] or [f"{NAMESPACE}/+/+/+/#"]
        return [self.state_topic, *groups] if self._settings.primary else groups

    def connecting(self, server: str, now: Moment) -> Publication | None:
        """The will of the session that is about to begin, stamped with its time; None for a passive host."""
        self._sessions.add(server)
        return self._presence.will(server, now) if self._settings.primary else None

    def connected(self, server: str, now: Moment) -> Step:
        """The session is there and subscribed: the STATE birth, and rebirths of nodes that were lost with it."""
        step = Step()
        if self._settings.primary:
            step.publications.append(self._presence.birth(server))
        for node in self._nodes.values():
            if node.server == server and not node.own.online and "server" in node.told:
                self._want(node.key, "the server was lost", now, step, delay=_STATE_WITHIN)
        return step

    def disconnecting(self, server: str, now: Moment) -> list[Publication]:
        """What is to be published before DISCONNECT: the STATE death with the present time."""
        return [self._presence.death(server, now)] if self._settings.primary else []

    def disconnected(self, server: str, now: Moment) -> Step:
        """The session ended, for whatever reason: all that came through it is stale."""
        step = Step()
        if server not in self._sessions:
            return step
        self._sessions.remove(server)
        self._presence.ended(server)
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
        return self._presence.heard(server, host_id, body) if self._settings.primary else Step()

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
            self._order.arrived(node, arrival, now, step)
        return step

    def types(self, group: str, node: str, device: str | None) -> Mapping[int | str, DataType] | None:
        """The types that a birth gave, by alias and by name; None where nothing was born."""
        found = self._nodes.get(NodeKey(group, node))
        owner = None if found is None else found.owner(device)
        return None if owner is None or not owner.online else owner.types

    def received_columns(self, group: str, node: str, device: str | None, columns: Columns, now: Moment) -> Step | None:
        """An NDATA or DDATA as columns: the usual case, many times as fast as ``received``.

        None, and nothing done, where it is not the usual case: it is not this message's turn, a metric was not
        announced, is historical or awaited, or its time is doubtful. Then ``received`` takes the message.
        """
        found = self._nodes.get(NodeKey(group, node))
        owner = None if found is None else found.owner(device)
        if found is None or owner is None or not (found.own.online and owner.online) or columns.seq != found.due:
            return None
        if not columns.timestamps or any(columns.historical) or not self._values.plausible(columns.timestamps, now):
            return None
        step = Step()
        try:
            step.tags = [owner.tags[key] for key in columns.names or columns.aliases]
        except KeyError:
            return None
        if len(step.tags) != len(columns.values) or not self.watched.isdisjoint(step.tags):
            return None
        step.times = [ms * MS for ms in columns.timestamps]
        step.values = cast("list[Value]", columns.values)
        step.qualities = [Quality.GOOD] * len(step.tags)
        owner.newest = max(owner.newest, *step.times)
        found.due = (found.due + 1) % COUNT
        self._order.follow(found, now, step)
        return step

    def tick(self, now: Moment) -> Step:
        """Time passed: gaps that stayed open, devices that were not born again, rebirths that are due."""
        step = Step()
        while self._timers and self._timers[0][0] <= now.monotonic:
            _, _, node = heapq.heappop(self._timers)
            if node.deadline is not None and node.deadline <= now.monotonic:
                self._order.skip(node, now, step)
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
        kind, moment, alias = known.type, now.utc // MS, known.metric.alias
        name = known.name if alias is None else None
        # The type is repeated although it need not be: there are edge nodes that cannot read a command without it.
        meant = Metric(name=name, alias=alias, timestamp=moment, type=kind, value=suited(value, kind))
        return self._command(node.key, node.server, owner.device, meant, now)

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

    def _command(self, key: NodeKey, server: str, device: str | None, metric: Metric, now: Moment) -> Publication:
        verb, tail = ("NCMD", "") if device is None else ("DCMD", f"/{device}")
        topic = f"{NAMESPACE}/{key.group}/{verb}/{key.node}{tail}"
        return Publication(server, topic, Payload(timestamp=now.utc // MS, metrics=[metric]), 0, retain=False)

    def _request(self, key: NodeKey, now: Moment) -> Publication:
        node = self._nodes.get(key)
        server = node.server if node is not None else self._strangers.get(key, "")
        wish = Metric(name=REBIRTH, timestamp=now.utc // MS, type=DataType.BOOLEAN, value=True)
        return self._command(key, server, None, wish, now)

    def _want(self, key: NodeKey, cause: str, now: Moment, step: Step, delay: int = 0) -> bool:
        """Want a rebirth of the node, if it may be asked."""
        node = self._nodes.get(key)
        if not self._settings.primary or (node is not None and node.clashing(now)):
            return False
        if not self._rebirths.ask(key, cause, now.monotonic, delay):
            return False
        step.events.append(Event("rebirth", f"{key.group}/{key.node}", f"a rebirth is wanted: {cause}"))
        return True

    # ---- births and deaths --------------------------------------------------------------------------

    def _node_born(self, key: NodeKey, server: str, payload: Payload, now: Moment, step: Step) -> None:
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(key)
            self._strangers.pop(key, None)
        elif node.own.online:
            self._order.drain(node, now, step)
        bdseq = _bdseq(payload)
        renewed = not node.own.online or bdseq != node.bdseq
        if bdseq is None:
            step.events.append(Event("fault", node.where, "its NBIRTH has no bdSeq"))
        else:
            node.compare(bdseq, now, step)
        if payload.seq is None or not 0 <= payload.seq < COUNT:
            step.events.append(Event("fault", node.where, "its NBIRTH has no sequence number from 0 to 255"))
        node.due = ((payload.seq or 0) + 1) % COUNT
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

    def _device_born(self, node: Node, device: str, payload: Payload, now: Moment, step: Step) -> None:
        owner = node.devices.get(device)
        if owner is None:
            owner = node.devices[device] = Owner(device)
        self._owner_born(node, owner, payload, now, step)
        step.events.append(Event("birth", f"{node.where}/{device}", f"born with {len(owner.names)} metrics"))

    def _owner_born(self, node: Node, owner: Owner, payload: Payload, now: Moment, step: Step) -> None:
        """Take over the names and aliases of a birth, and its values; what it leaves out is stale."""
        before, owner.names, owner.aliases = owner.names, {}, {}
        stale = set[str | None]() if owner.online else {known.tag for known in before.values()}
        for metric in payload.metrics:
            name = metric.name
            if name is None or name in (BDSEQ, REBIRTH):
                continue
            known = self._tags.know(node, owner, metric, name, step)
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
                self._tags.forget(known.tag)
        every: list[tuple[int | str, Known]] = [*owner.names.items(), *owner.aliases.items()]
        owner.tags = {key: known.tag for key, known in every if known.tag is not None}
        owner.types = {key: known.type for key, known in every if known.type is not None}
        owner.online = True
        owner.overdue = None
        self._values.give(node, owner, payload, now, step, stale)

    def _node_death(self, node: Node | None, payload: Payload, now: Moment, step: Step) -> None:
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

    def _node_died(self, node: Node, now: Moment, step: Step) -> None:
        self._order.drain(node, now, step)
        self._rebirths.forget(node.key)
        for owner in (node.own, *node.devices.values()):
            if owner.online:
                self._died(owner, now.utc, step)

    def _died(self, owner: Owner, time: int, step: Step) -> None:
        """Everything that it told is stale, from ``time`` on but not before what it said last."""
        owner.online = False
        owner.overdue = None
        moment = owner.newest = owner.died = max(time, owner.newest + 1)
        for known in owner.names.values():
            if known.tag is not None:
                step.add(known.tag, moment, None, Quality.NOT_CONNECTED)

    def _check_clock(self, node: Node, payload: Payload, now: Moment, step: Step) -> None:
        if payload.timestamp is None:
            return
        away = payload.timestamp * MS - now.utc
        if abs(away) > (self._settings.clock_skew_limit or 60 * SECOND):
            text = f"its clock is {abs(away) // SECOND} s {'ahead' if away > 0 else 'behind'}"
            step.events.append(Event("clock", node.where, text))

    # ---- data ---------------------------------------------------------------------------------------

    def _take(self, node: Node, arrival: Arrival, now: Moment, step: Step) -> None:
        payload, device = arrival.payload, arrival.device
        if arrival.verb == "NDATA" or device is None:
            self._values.give(node, node.own, payload, now, step)
            return
        if arrival.verb == "DBIRTH":
            self._device_born(node, device, payload, now, step)
            return
        owner = node.devices.get(device)
        if arrival.verb == "DDEATH":
            if owner is not None and owner.online:
                time = payload.timestamp
                self._died(owner, now.utc if time is None or time > LAST_MS else time * MS, step)
                step.events.append(Event("death", f"{node.where}/{device}", "the device is gone"))
        elif owner is None or not owner.online:
            step.lost += 1
            self._want(node.key, f"data of device {device} before its birth", now, step)
        else:
            self._values.give(node, owner, payload, now, step)

    def _disordered(self, node: Node, now: Moment, step: Step) -> None:
        self._want(node.key, SEQUENCE, now, step)

    def _unknown(self, node: Node, cause: str, now: Moment, step: Step) -> None:
        self._want(node.key, cause, now, step)

    def _set_timer(self, deadline: int, node: Node) -> None:
        heapq.heappush(self._timers, (deadline, next(self._numbers), node))


def _bdseq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == BDSEQ and isinstance(metric.value, int):
            return metric.value
    return None


def _writable(metric: Metric) -> bool | None:
    """What the property ``readOnly`` says, None where there is none."""
    found = (metric.properties or {}).get("readOnly")
    return not found.value if found is not None and isinstance(found.value, bool) else None
