"""What a host's NCMD and DCMD ask an edge node to write, as requests of tags."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from shopfloor.protocols.sparkplug.edge import REBIRTH, EdgeNode
from shopfloor.protocols.sparkplug.edge_tags import BDSEQ
from shopfloor.protocols.sparkplug.model import Metric, Payload
from shopfloor.samples import Request

_MILLISECOND: Final = 10**6


class Order(NamedTuple):
    """One metric of a command."""

    request: Request
    problem: str
    """Why it cannot be asked for; empty when it can."""


def orders(node: EdgeNode, device: str, payload: Payload) -> Iterator[Order]:
    """Each metric of a command to this device (empty: the node itself), but a rebirth, which ``EdgeNode`` obeys.

    A metric is meant by its alias, else by its name. The payload's timestamp counts as the time of sending.
    """
    sent = None if payload.timestamp is None else payload.timestamp * _MILLISECOND
    for metric in payload.metrics:
        if not device and metric.name in (REBIRTH, BDSEQ):
            continue
        yield _order(node, device, metric, sent)
    for fault in payload.faults:
        tag = node.tag_of(device, fault.name)
        yield Order(Request(tag, None, sent=sent), f"its value cannot be read: {fault.reason}")


def _order(node: EdgeNode, device: str, metric: Metric, sent: int | None) -> Order:
    known = node.metric(device, (metric.name or "") if metric.alias is None else metric.alias)
    if known is None:
        called = repr(metric.name) if metric.alias is None else f"with alias {metric.alias}"
        tag = node.tag_of(device, metric.name or "")
        return Order(Request(tag, None, sent=sent), f"the births of this node have no metric {called} there")
    tag = node.tag_of(device, known.name)
    value = metric.value
    if not isinstance(value, bool | int | float | str | bytes | None):
        return Order(Request(tag, None, sent=sent), "arrays, data sets and templates cannot be written")
    if metric.is_null or value is None:
        return Order(Request(tag, None, sent=sent), "it has no value")
    return Order(Request(tag, value, sent=sent), "")
