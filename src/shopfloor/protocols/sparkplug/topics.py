"""Topics of Sparkplug B 3.0: ``spBv1.0/group/TYPE/node[/device]`` and ``spBv1.0/STATE/host``.

A topic is read with ``parse`` and written with ``str``; both ways the ids are checked, so a topic that exists is
one that may be published.
"""

from enum import StrEnum
from typing import Final

import msgspec

NAMESPACE: Final = "spBv1.0"
"""The first level of every topic; a later version of Sparkplug has another."""
LEGACY_STATE: Final = "STATE"
"""The first level of a host's state in Sparkplug 2.2 and before."""
LONGEST_TOPIC: Final = 65_535
"""Bytes of UTF-8, MQTT's limit."""

_RESERVED: Final = "+/#"


class MessageType(StrEnum):
    """What a message is about: N of an edge node, D of a device, STATE of a host application."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    NDATA = "NDATA"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    DDATA = "DDATA"
    DCMD = "DCMD"
    STATE = "STATE"

    @property
    def of_device(self) -> bool:
        """Whether its topic ends with a device."""
        return self in _OF_DEVICE


_OF_DEVICE: Final = frozenset((MessageType.DBIRTH, MessageType.DDEATH, MessageType.DDATA, MessageType.DCMD))


class NotSparkplug(ValueError):
    """A topic that is none of Sparkplug's; the text says why."""


def id_problem(text: str) -> str | None:
    """What is wrong with the id of a group, an edge node, a device or a host, and what to do; None if nothing is."""
    if not text:
        return "it is empty; give it at least one character"
    for character in text:
        if character in _RESERVED:
            return f"it has {character!r}, which MQTT topics reserve; leave out + / and #"
        if character == "\0":
            return "it has the character NUL, which MQTT does not allow; leave it out"
        if "\ud800" <= character <= "\udfff":
            return "it has half of a surrogate pair, which is no UTF-8 text; leave it out"
    size = len(text.encode())
    if size > LONGEST_TOPIC:
        return f"it has {size} bytes, more than an MQTT topic may have; make it shorter"
    return None


def check_id(text: str, what: str) -> str:
    """``text``, the id of ``what`` ("group", "edge node", "device", "host"); raises NotSparkplug."""
    problem = id_problem(text)
    if problem is not None:
        raise NotSparkplug(f"{text!r} cannot be the {what} id: {problem}")
    return text


class EdgeTopic(msgspec.Struct, frozen=True):
    """Where messages of or to an edge node, or one of its devices, go; raises NotSparkplug for ids that cannot be."""

    group: str
    type: MessageType
    node: str
    device: str | None = None

    def __post_init__(self) -> None:
        if self.type is MessageType.STATE:
            raise NotSparkplug("STATE is the message of a host; use StateTopic")
        check_id(self.group, "group")
        check_id(self.node, "edge node")
        if self.type.of_device:
            if self.device is None:
                raise NotSparkplug(f"{self.type} is about a device; the topic needs its id")
            check_id(self.device, "device")
        elif self.device is not None:
            raise NotSparkplug(f"{self.type} is about an edge node; the topic ends before {self.device!r}")
        _check_length(str(self))

    def __str__(self) -> str:
        node = f"{NAMESPACE}/{self.group}/{self.type}/{self.node}"
        return node if self.device is None else f"{node}/{self.device}"


class StateTopic(msgspec.Struct, frozen=True):
    """Where a host application says that it is there; raises NotSparkplug for an id that cannot be."""

    host: str
    legacy: bool = False
    """Whether it is that of Sparkplug 2.2, ``STATE/host``."""

    def __post_init__(self) -> None:
        check_id(self.host, "host")
        _check_length(str(self))

    def __str__(self) -> str:
        state = f"{MessageType.STATE}/{self.host}"
        return state if self.legacy else f"{NAMESPACE}/{state}"


def _check_length(topic: str) -> None:
    size = len(topic.encode())
    if size > LONGEST_TOPIC:
        raise NotSparkplug(f"a topic of {size} bytes; MQTT allows {LONGEST_TOPIC}: make the ids shorter")


def parse(topic: str, *, legacy_state: bool = False) -> EdgeTopic | StateTopic:
    """The topic in its parts; ``legacy_state`` also takes ``STATE/host``. Raises NotSparkplug, which says why."""
    levels = topic.split("/")
    match levels:
        case [MessageType.STATE, host] if legacy_state:
            return StateTopic(host, legacy=True)
        case [namespace, MessageType.STATE, host] if namespace == NAMESPACE:
            return StateTopic(host)
        case [namespace, group, kind, node, *device] if namespace == NAMESPACE and len(device) <= 1:
            return EdgeTopic(group, _message_type(kind, topic), node, device[0] if device else None)
        case [namespace, *_] if namespace == NAMESPACE:
            raise NotSparkplug(
                f"{topic!r} has {len(levels)} levels; Sparkplug's are {NAMESPACE}/group/TYPE/node, "
                f"{NAMESPACE}/group/TYPE/node/device and {NAMESPACE}/STATE/host"
            )
        case _:
            raise NotSparkplug(f"{topic!r} does not start with {NAMESPACE}/")


def _message_type(text: str, topic: str) -> MessageType:
    try:
        return MessageType(text)
    except ValueError:
        known = ", ".join(kind for kind in MessageType if kind is not MessageType.STATE)
        raise NotSparkplug(f"{topic!r} has {text!r} where a message type is: {known}") from None
