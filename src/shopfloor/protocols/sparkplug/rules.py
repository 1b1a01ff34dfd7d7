"""The validator: Sparkplug messages in, in the order in which a broker delivers them; what each one breaks out.

It knows what a subscriber can know. Of a node whose birth it has not seen it says only what one message shows,
unless it was told that it sees everything from the beginning. It never raises because of what a message holds.
"""

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from google.protobuf.message import DecodeError

from shopfloor.protocols.sparkplug import wire
from shopfloor.protocols.sparkplug.assertions import ADVICE, ASSERTIONS, RULES
from shopfloor.protocols.sparkplug.model import DataType
from shopfloor.protocols.sparkplug.structure import Finding, Report, check_metric, fits

__all__ = ["ADVICE", "ASSERTIONS", "RULES", "Finding", "Message", "Validator"]

NAMESPACE: Final = "spBv1.0"
REBIRTH: Final = "Node Control/Rebirth"
BD_SEQ: Final = "bdSeq"
NODE_VERBS: Final = frozenset({"NBIRTH", "NDATA", "NDEATH", "NCMD"})
DEVICE_VERBS: Final = frozenset({"DBIRTH", "DDATA", "DDEATH", "DCMD"})

_COUNTED: Final = frozenset({"NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH"})
_COMMANDS: Final = frozenset({"NCMD", "DCMD"})
_SEQ_END: Final = 256
_RESERVED: Final = frozenset("+#")
_LEVELS: Final = (4, 5)
_MOST_NODES: Final = 10_000
"""Nodes beyond that push out those that were silent longest, so that garbage on every topic costs no memory."""
_YEAR_2000: Final = 946_684_800_000
"""Times before are seconds, or nobody set the clock. In ms."""


class Message(NamedTuple):
    """A message as a subscriber gets it."""

    topic: str
    payload: bytes
    qos: int | None = None
    """At which it was delivered; None where that says nothing of how it was published."""
    retain: bool | None = None
    """Its flag; None where a broker clears it on delivery, as MQTT 3.1.1 does for what is not stored."""
    received: int | None = None
    """When it came, in ms since 1970 UTC; None leaves clocks out of it."""


class _Known(NamedTuple):
    """A metric as its birth declared it."""

    datatype: int
    aliased: bool


class _Template(NamedTuple):
    members: frozenset[str]
    parameters: frozenset[str]


class _Node:
    """What is known of one edge node. The node's own metrics stand under the device ``""``."""

    def __init__(self, *, silent: bool) -> None:
        self.born: bool | None = False if silent else None
        """None while its birth may have been before we listened."""
        self.bd_seq: int | None = None
        self.died_with: int | None = None
        self.earlier: set[int] = set()
        self.seq: int | None = None
        self.asked_for_rebirth = False
        self.metrics: dict[str, dict[str, _Known]] = {}
        self.aliases: dict[int, tuple[str, str]] = {}
        self.templates: dict[str, _Template] = {}
        self.newest: dict[tuple[str, str], int] = {}

    def forget(self, device: str) -> None:
        """A new birth of the device, or of the node for all, takes the place of what was declared."""
        if not device:
            self.metrics.clear()
            self.aliases.clear()
            self.newest.clear()
            return
        self.metrics.pop(device, None)
        self.aliases = {alias: owner for alias, owner in self.aliases.items() if owner[0] != device}
        self.newest = {key: time for key, time in self.newest.items() if key[0] != device}


class _Subject(NamedTuple):
    """Whom a message is about."""

    verb: str
    node: _Node
    device: str


class Validator:
    """Checks one broker's traffic; give it every message in order with ``check``."""

    def __init__(self, *, complete: bool = False, clock_tolerance: int = 300_000) -> None:
        """``complete`` says that the messages are all there are from the beginning, so a missing birth is a fault.

        ``clock_tolerance`` in ms is how far a sender's clock may be from the reception.
        """
        self._complete = complete
        self._tolerance = clock_tolerance
        self._nodes: OrderedDict[tuple[str, str], _Node] = OrderedDict()
        self._spellings: OrderedDict[tuple[str, ...], tuple[str, ...]] = OrderedDict()

    def check(self, message: Message) -> list[Finding]:
        """What this message breaks, given those before it. A topic that is not of Sparkplug breaks nothing."""
        report = Report()
        levels = message.topic.split("/")
        if levels[0] != NAMESPACE:
            _check_namespace(levels, report)
        elif levels[1:2] == ["STATE"]:
            _check_state(levels, message, report)
        elif (problem := _topic_problem(levels)) is not None:
            report.add(*problem)
        else:
            self._check_ids(levels, report)
            self._check_message(levels, message, report)
        return report.findings()

    # ---- topics -------------------------------------------------------------------------------------

    def _check_ids(self, levels: Sequence[str], report: Report) -> None:
        ids = [levels[1], *levels[3:]]
        for what, name in zip(("group id", "edge node id", "device id"), ids, strict=False):
            if not name or _RESERVED & set(name):
                report.add(what, f"the {what} {name!r} is empty or has a + or # in it")
        spelt = tuple(ids)
        first = self._spellings.setdefault(tuple(name.casefold() for name in ids), spelt)
        if first != spelt:
            report.add("ids differ by case", f"{'/'.join(spelt)} differs from {'/'.join(first)} by case only")
        if len(self._spellings) > _MOST_NODES:
            self._spellings.popitem(last=False)

    def _node(self, group: str, name: str) -> _Node:
        node = self._nodes.get((group, name))
        if node is None:
            node = self._nodes[group, name] = _Node(silent=self._complete)
            if len(self._nodes) > _MOST_NODES:
                self._nodes.popitem(last=False)
        self._nodes.move_to_end((group, name))
        return node

    # ---- messages of nodes, devices and commands ------------------------------------------------------

    def _check_message(self, levels: Sequence[str], message: Message, report: Report) -> None:
        verb = levels[2]
        _check_flags(verb, message, report)
        try:
            payload: Any = wire.Payload.FromString(message.payload)
        except DecodeError:
            rule = f"{verb} payload"
            report.add(rule if rule in RULES else "payload", "the payload is no Sparkplug B protobuf")
            return
        subject = _Subject(verb, self._node(levels[1], levels[3]), "".join(levels[4:]))
        self._check_times(verb, payload, message.received, report)
        _check_seq(subject, payload, report)
        for metric in payload.metrics:
            check_metric(metric, verb, _label(metric, subject.node), report)
        match verb:
            case "NBIRTH":
                _check_node_birth(subject, payload, report)
            case "DBIRTH":
                _check_device_birth(subject, payload, report)
            case "NDATA" | "DDATA":
                _check_data(subject, payload, report)
            case "NDEATH":
                _check_node_death(subject.node, payload, report)
            case "DDEATH":
                subject.node.metrics.pop(subject.device, None)
            case _:
                _check_command(subject, payload, report)

    def _check_times(self, verb: str, payload: Any, received: int | None, report: Report) -> None:
        if not payload.HasField("timestamp"):
            if verb != "NDEATH":
                report.add(f"{verb} timestamp", f"the payload of {verb} has no timestamp")
        elif verb != "NDEATH":  # a will was written when its session began
            self._check_sent(payload.timestamp, received, report)
        ahead = None if received is None else received + self._tolerance
        for metric in payload.metrics:
            if not metric.HasField("timestamp"):
                if verb in _COUNTED:
                    report.add("metric timestamp missing", f"{_name(metric)} has no timestamp of its own")
            elif metric.timestamp < _YEAR_2000 or (ahead is not None and metric.timestamp > ahead):
                report.add("metric time", f"{_name(metric)}: {metric.timestamp} is no time in ms UTC that has been")

    def _check_sent(self, sent: int, received: int | None, report: Report) -> None:
        if sent < _YEAR_2000:
            report.add("payload time", f"{sent} is no time in ms since 1970 UTC")
        elif received is not None and abs(sent - received) > self._tolerance:
            report.add(
                "payload time",
                f"the payload says it was sent {abs(sent - received) / 1000:.0f} s "
                f"{'after' if sent > received else 'before'} it came: wrong clock or no UTC",
            )


def _check_namespace(levels: Sequence[str], report: Report) -> None:
    if levels[0].casefold() in (NAMESPACE.casefold(), "spav1.0"):
        report.add("namespace", f"the first level is {levels[0]!r}; it must be {NAMESPACE}")
    elif levels[0] == "STATE" and len(levels) == 2:  # noqa: PLR2004  # STATE/host
        report.add("STATE topic", f"STATE/{levels[1]} is of Sparkplug 2.2; it is {NAMESPACE}/STATE/{levels[1]} now")


def _topic_problem(levels: Sequence[str]) -> tuple[str, str] | None:
    """The rule that a topic of nodes or devices breaks, and how."""
    verb = levels[2] if len(levels) > 2 else ""  # noqa: PLR2004  # namespace/group/verb
    if verb in NODE_VERBS and len(levels) == _LEVELS[1]:
        return "device level", f"{verb} concerns a node; its topic ends with the node"
    if verb in DEVICE_VERBS and len(levels) == _LEVELS[0]:
        return "device level missing", f"{verb} concerns a device; its topic ends with the device"
    if verb not in NODE_VERBS | DEVICE_VERBS or len(levels) not in _LEVELS:
        return "topic", f"a topic is {NAMESPACE}/group/TYPE/node or …/node/device, or {NAMESPACE}/STATE/host"
    return None


def _check_flags(verb: str, message: Message, report: Report) -> None:
    rule = f"{verb} qos"
    # An NDEATH has QoS 1 as a will; no clause says it of one that the node publishes itself.
    if rule in RULES and message.qos:
        report.add(rule, f"{verb} came with QoS {message.qos}; it is published with QoS 0")
    if message.retain:
        report.add(f"{verb} retain", f"{verb} is retained; it must not be")


# ---- sequences ------------------------------------------------------------------------------------------


def _check_seq(subject: _Subject, payload: Any, report: Report) -> None:
    verb, node, _ = subject
    if verb not in _COUNTED:
        if payload.HasField("seq"):
            report.add(f"{verb} seq", f"{verb} has seq {payload.seq}; it has none")
        return
    if not payload.HasField("seq"):
        report.add(f"{verb} seq missing", f"{verb} has no seq")
        node.seq = None
        return
    if verb == "NBIRTH":
        if payload.seq >= _SEQ_END:
            report.add("NBIRTH seq range", f"seq is {payload.seq}; it is from 0 to 255")
        if payload.seq != 0:
            report.add("NBIRTH seq", f"seq of NBIRTH is {payload.seq}; it is 0")
    elif node.seq is not None and payload.seq != (expected := (node.seq + 1) % _SEQ_END):
        report.add(f"{verb} seq", f"seq is {payload.seq}, {expected} was to come: a message is missing or doubled")
    elif payload.seq >= _SEQ_END:
        report.add(f"{verb} seq", f"seq is {payload.seq}; 0 comes after 255")
    node.seq = payload.seq % _SEQ_END


# ---- births -----------------------------------------------------------------------------------------------


def _check_node_birth(subject: _Subject, payload: Any, report: Report) -> None:
    node = subject.node
    _check_bd_seq(node, payload, report)
    _check_rebirth_metric(payload, report)
    node.forget("")
    node.templates = dict(_definitions(payload))
    node.born, node.died_with, node.asked_for_rebirth = True, None, False
    _declare(subject, payload, report)


def _check_device_birth(subject: _Subject, payload: Any, report: Report) -> None:
    if subject.node.born is False:
        report.add("DBIRTH before NBIRTH", "DBIRTH comes before the NBIRTH of its node")
    subject.node.forget(subject.device)
    _declare(subject, payload, report)


def _check_bd_seq(node: _Node, payload: Any, report: Report) -> None:
    metric = _metric(payload, BD_SEQ)
    if metric is None:
        report.add("bdSeq missing", "NBIRTH has no metric bdSeq")
        node.bd_seq = None
        return
    if metric.datatype != DataType.INT64:
        report.add("bdSeq type", f"bdSeq has type {metric.datatype}; it is 4, Int64")
    found = _integer(metric)
    if found is not None and found == node.died_with:
        report.add("bdSeq same", f"bdSeq is {found} as in the session that ended; each CONNECT counts on")
    if node.asked_for_rebirth and node.born and node.bd_seq not in (None, found):
        report.add("bdSeq changed by rebirth", f"bdSeq was {node.bd_seq} and is {found}; a rebirth keeps it")
    if node.bd_seq is not None and len(node.earlier) < _SEQ_END:
        node.earlier.add(node.bd_seq)
    node.bd_seq = found


def _check_rebirth_metric(payload: Any, report: Report) -> None:
    metric = _metric(payload, REBIRTH)
    if metric is None:
        report.add("rebirth missing", f"NBIRTH has no metric {REBIRTH}")
        return
    if metric.datatype != DataType.BOOLEAN:
        report.add("rebirth type", f"{REBIRTH} has type {metric.datatype}; it is 11, Boolean")
    if metric.WhichOneof("value") != "boolean_value" or metric.boolean_value:
        report.add("rebirth value", f"{REBIRTH} is not false")
    if metric.HasField("alias"):
        report.add("rebirth alias", f"{REBIRTH} has the alias {metric.alias}; hosts must be able to name it")


def _declare(subject: _Subject, payload: Any, report: Report) -> None:
    """Take what a birth declares."""
    verb, node, device = subject
    declared = node.metrics.setdefault(device, {})
    spellings: dict[str, str] = {}
    for metric in payload.metrics:
        _check_declaration(verb, metric, report)
        name = _text(metric.name)
        declared[name] = _Known(metric.datatype, metric.HasField("alias"))
        first = spellings.setdefault(name.casefold(), name)
        if first != name:
            report.add("names differ by case", f"{name} differs from {first} by case only")
        if metric.HasField("alias"):
            owner = node.aliases.setdefault(metric.alias, (device, name))
            if owner != (device, name):
                report.add("alias twice", f"alias {metric.alias} of {name} belongs to {'/'.join(filter(None, owner))}")
        _check_instance(subject, metric, report)
    _check_order(subject, payload, report)


def _check_declaration(verb: str, metric: Any, report: Report) -> None:
    if not metric.name:
        report.add(f"{verb} name missing", f"{_name(metric)} has no name; in births every metric has one")
    if not metric.HasField("datatype"):
        report.add(f"{verb} type missing", f"{_name(metric)} has no datatype; in births every metric has one")
    has_value = metric.WhichOneof("value") is not None
    if metric.is_null and has_value:
        report.add(f"{verb} null with value", f"{_name(metric)} says is_null and has a value")
    if not metric.is_null and not has_value:
        report.add(f"{verb} value missing", f"{_name(metric)} has neither a value nor is_null")


# ---- templates --------------------------------------------------------------------------------------------


def _definitions(payload: Any) -> Iterator[tuple[str, _Template]]:
    for metric in payload.metrics:
        template = metric.template_value if metric.WhichOneof("value") == "template_value" else None
        if template is not None and template.is_definition:
            members = frozenset(_text(member.name) for member in template.metrics)
            yield _text(metric.name), _Template(members, frozenset(_text(each.name) for each in template.parameters))


def _check_instance(subject: _Subject, metric: Any, report: Report) -> None:
    """An instance has what its definition has. Members of members are not looked into."""
    if metric.WhichOneof("value") != "template_value" or metric.template_value.is_definition:
        return
    template = metric.template_value
    name, definition = _label(metric, subject.node), subject.node.templates.get(_text(template.template_ref))
    if definition is None:
        if template.template_ref and subject.node.born:
            report.add("definition missing", f"{name}: NBIRTH does not define {_text(template.template_ref)!r}")
        return
    members = {_text(member.name) for member in template.metrics}
    for extra in sorted(members - definition.members):
        report.add("instance member unknown", f"{name}: the definition has no member {extra!r}")
    if subject.verb.endswith("BIRTH"):
        for absent in sorted(definition.members - members):
            report.add("instance member missing", f"{name}: the member {absent!r} of the definition is missing")
    for extra in sorted({_text(each.name) for each in template.parameters} - definition.parameters):
        report.add("instance parameter unknown", f"{name}: the definition has no parameter {extra!r}")


# ---- data -------------------------------------------------------------------------------------------------


def _check_data(subject: _Subject, payload: Any, report: Report) -> None:
    verb, node, device = subject
    if verb == "NDATA" and node.born is False:
        report.add("NDATA before NBIRTH", "NDATA comes before the NBIRTH of its node")
    elif verb == "DDATA" and (node.born is False or (node.born and device not in node.metrics)):
        report.add("DDATA before DBIRTH", "DDATA comes before the DBIRTH of its device")
    elif node.born:
        for metric in payload.metrics:
            _check_reference(subject, metric, report)
            _check_instance(subject, metric, report)
        _check_order(subject, payload, report)
    _check_brevity(payload, report)


def _check_reference(subject: _Subject, metric: Any, report: Report) -> None:
    """A metric of data or of a command is one that a birth declared, and says so as the birth allows."""
    verb, node, device = subject
    declared = node.metrics.get(device, {})
    name = _declared_name(subject, metric)
    known = declared.get(name)
    if not name:
        return  # neither name nor alias: `_check_brevity` says so
    if known is None:
        report.add(f"{verb} unknown metric", f"the birth does not declare {name!r}")
        return
    if known.aliased and not metric.HasField("alias"):
        report.add("alias with name", f"{name} has an alias; data and commands use that alone")
    if not fits(metric, known.datatype):
        report.add(
            f"{verb} value" if verb in _COMMANDS else "value of another type",
            f"{name}: the birth declares type {known.datatype}, the value is a {metric.WhichOneof('value')}",
        )


def _declared_name(subject: _Subject, metric: Any) -> str:
    """The name under which the subject's birth may have declared the metric; empty when the metric says none."""
    if not metric.HasField("alias"):
        return _text(metric.name)
    device, name = subject.node.aliases.get(metric.alias, ("", ""))
    return name if name and device == subject.device else f"alias {metric.alias}"


def _check_brevity(payload: Any, report: Report) -> None:
    for metric in payload.metrics:
        if metric.HasField("alias"):
            if metric.name:
                report.add("alias with name", f"{_text(metric.name)} has both name and alias; one of them is enough")
        elif not metric.name:
            report.add("name missing", "a metric has neither name nor alias")
        if metric.HasField("datatype"):
            report.add("datatype repeated", f"{_name(metric)} repeats its datatype; the birth has said it")


def _check_order(subject: _Subject, payload: Any, report: Report) -> None:
    """Values that are not historical come in the order of their times."""
    verb, node, device = subject
    declared = node.metrics.get(device, {})
    for metric in payload.metrics:
        key = (device, _declared_name(subject, metric))
        if metric.is_null and verb.endswith("BIRTH"):
            continue  # there was no value yet, and the first one may be older than the birth
        if metric.is_historical or not metric.HasField("timestamp") or key[1] not in declared:
            continue
        if metric.timestamp < node.newest.get(key, 0):
            report.add(
                "node order" if verb.startswith("N") else "device order",
                f"{key[1]} is older than its last value and not flagged is_historical",
            )
        node.newest[key] = metric.timestamp


# ---- deaths and commands ------------------------------------------------------------------------------------


def _check_node_death(node: _Node, payload: Any, report: Report) -> None:
    metric = _metric(payload, BD_SEQ)
    if metric is None or len(payload.metrics) != 1:
        names = ", ".join(_name(each) for each in payload.metrics[:3]) or "none"
        report.add("NDEATH metrics", f"NDEATH has the one metric bdSeq, this one has: {names}")
    if metric is None:
        return
    if metric.datatype != DataType.INT64:
        report.add("NDEATH bdSeq type", f"bdSeq has type {metric.datatype}; it is 4, Int64")
    found = _integer(metric)
    if node.born and node.bd_seq is not None and found != node.bd_seq:
        if found not in node.earlier:  # else the will of an earlier session came late: nobody's fault
            report.add("NDEATH bdSeq", f"bdSeq is {found}; NBIRTH said {node.bd_seq}")
        return
    node.forget("")
    node.born, node.died_with, node.seq = False, found, None


def _check_command(subject: _Subject, payload: Any, report: Report) -> None:
    verb, node, _ = subject
    if not payload.metrics:
        report.add(f"{verb} empty", f"{verb} has no metric to write")
    for metric in payload.metrics:
        if _text(metric.name) == REBIRTH:
            if verb == "DCMD":
                report.add("rebirth verb", f"{REBIRTH} is asked of a node, by NCMD")
            if metric.WhichOneof("value") != "boolean_value" or not metric.boolean_value:
                report.add("rebirth request", f"a command sets {REBIRTH} to true, nothing else")
            node.asked_for_rebirth = verb == "NCMD"
        elif node.born:
            _check_reference(subject, metric, report)
    _check_brevity(payload, report)


# ---- STATE --------------------------------------------------------------------------------------------------


def _check_state(levels: Sequence[str], message: Message, report: Report) -> None:
    if len(levels) > 3:  # noqa: PLR2004  # spBv1.0/STATE/host
        report.add("device level", "a STATE topic ends with the host")
        return
    if len(levels) < 3 or not levels[2]:  # noqa: PLR2004
        report.add("STATE topic", f"a STATE topic is {NAMESPACE}/STATE/ and the host")
        return
    said = _state(message.payload)
    online = said.get("online")
    if not isinstance(online, bool):
        report.add("STATE payload", 'STATE is JSON as {"online": true, "timestamp": 1700000000000} in UTF-8')
        return
    what = f"STATE {'birth' if online else 'death'}"
    time = said.get("timestamp")
    if not isinstance(time, int) or isinstance(time, bool) or time < _YEAR_2000:
        report.add(f"{what} payload", f"timestamp is {time!r}; it is a number of ms since 1970 UTC")
    if message.qos is not None and message.qos != 1:
        report.add(f"{what} qos", f"STATE came with QoS {message.qos}; it is published with QoS 1")
    if message.retain is False:
        report.add(f"{what} retain", "STATE is not retained; it must be")


def _state(payload: bytes) -> Mapping[str, object]:
    try:
        said: Any = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, object]", said) if isinstance(said, dict) else {}


# ---- metrics --------------------------------------------------------------------------------------------------


def _metric(payload: Any, name: str) -> Any:
    """The first metric of that name, or None."""
    return next((metric for metric in payload.metrics if metric.name == name), None)


def _integer(metric: Any) -> int | None:
    field: str | None = metric.WhichOneof("value")
    return getattr(metric, field) if field in ("int_value", "long_value") else None


def _text(name: str | bytes) -> str:
    """A text of protobuf; what is no UTF-8 comes as bytes."""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _name(metric: Any) -> str:
    """What a person calls the metric, from the message alone."""
    if metric.name:
        return _text(metric.name)
    return f"alias {metric.alias}" if metric.HasField("alias") else "a metric without name"


def _label(metric: Any, node: _Node) -> str:
    """What a person calls the metric, with the births' help."""
    owner = None if metric.name or not metric.HasField("alias") else node.aliases.get(metric.alias)
    return _name(metric) if owner is None else owner[1]
