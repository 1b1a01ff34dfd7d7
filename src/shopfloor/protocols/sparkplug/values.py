"""The samples of a payload: which time, which value, which quality each metric gives."""

from collections.abc import Callable, Collection, Sequence

import msgspec

from shopfloor.protocols.sparkplug.exchange import BDSEQ, LAST_MS, MS, REBIRTH, Moment, Step
from shopfloor.protocols.sparkplug.model import Metric, MetricValue, Payload, Template
from shopfloor.protocols.sparkplug.nodes import Known, Node, Owner
from shopfloor.protocols.sparkplug.payload import typed
from shopfloor.protocols.sparkplug.reading import quality, reading
from shopfloor.samples import Quality, Sample, Value


class Values:
    """Reads the metrics of nodes and devices that are there."""

    def __init__(self, clock_skew_limit: int | None, unknown: Callable[[Node, str, Moment, Step], object]) -> None:
        """``clock_skew_limit`` in ns; ``unknown`` is told of each metric that no birth announced."""
        self._clock_skew_limit = clock_skew_limit
        self._told_unknown = unknown
        self.watched: set[str] = set()
        """Tags whose live values are given in ``Step.echoes``."""

    def plausible(self, timestamps: Sequence[int], now: Moment) -> bool:
        """Whether all these times, ms, are taken as they are."""
        limit = self._clock_skew_limit
        first, last = min(timestamps) * MS, max(timestamps) * MS
        return last <= LAST_MS * MS and (limit is None or (now.utc - limit <= first and last <= now.utc + limit))

    def give(  # a message and where it belongs
        self,
        node: Node,
        owner: Owner,
        payload: Payload,
        now: Moment,
        step: Step,
        stale: Collection[str | None] = (),
    ) -> None:
        """The samples of a payload; its metrics were all announced, or are a cause for a rebirth.

        ``stale``: the tags that the last death made so. A birth's value of them that is older holds again from now on.
        """
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
            if tag in stale and time <= owner.died and not metric.is_historical:
                time = max(now.utc if common is None or common > LAST_MS else common * MS, owner.died + 1)
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

    def _faults(self, node: Node, owner: Owner, payload: Payload, now: Moment, step: Step) -> None:
        """What could not be read is bad where it is known what it is."""
        common = payload.timestamp
        for fault in payload.faults:
            known = owner.names.get(fault.name)
            if known is not None and known.tag is not None:
                time = now.utc if common is None or common > LAST_MS else common * MS
                step.add(known.tag, time, None, Quality.BAD)
            node.tell_once("fault", f"{fault.name or fault.index}: {fault.reason}", step)

    def _reading(self, node: Node, metric: Metric, known: Known, step: Step) -> Value:
        """The value as a sample carries it; a message may leave its type to the birth. None: there is none."""
        value = metric.value
        try:
            if isinstance(value, Template):
                value = _completed(value, known.metric.value)
            elif metric.type is None and known.type is not None:
                value = typed(value, known.type)
        except ValueError as error:
            node.tell_once("fault", f"{known.name}: {error}", step)
            return None
        return reading(value)

    def _time(self, metric: Metric, common: int | None, now: Moment) -> tuple[int, int]:
        """When a metric's value was true, ns, and the best quality that this time allows."""
        ms = metric.timestamp if metric.timestamp is not None else common
        if ms is None:
            return now.utc, Quality.GOOD
        if ms > LAST_MS:
            return now.utc, Quality.UNCERTAIN
        limit = self._clock_skew_limit
        if limit is not None and not metric.is_historical and abs(ms * MS - now.utc) > limit:
            return now.utc, Quality.UNCERTAIN
        return ms * MS, Quality.GOOD

    def _unknown(self, node: Node, metric: Metric, now: Moment, step: Step) -> None:
        what = f"alias {metric.alias}" if metric.name is None else metric.name
        node.tell_once("fault", f"{what} was not announced by a birth", step)
        self._told_unknown(node, f"{what} was not announced", now, step)


def _completed(instance: Template, born: MetricValue) -> Template:
    """An instance whose members have the types of those of the birth where they say none; raises ValueError.

    A member that the birth did not have stays as the wire has it, with the type unknown.
    """
    kinds = {member.name: member for member in born.metrics} if isinstance(born, Template) else {}
    members = [_member(member, kinds.get(member.name)) for member in instance.metrics]
    return msgspec.structs.replace(instance, metrics=members)


def _member(member: Metric, born: Metric | None) -> Metric:
    if born is None:
        return member
    kind = member.type or born.type
    value = member.value
    if isinstance(value, Template):
        value = _completed(value, born.value)
    elif member.type is None and kind is not None:
        value = typed(value, kind)
    return msgspec.structs.replace(member, type=kind, value=value)


def _alias(metric: Metric) -> int:
    """The alias; one that no metric has where there is none."""
    return -1 if metric.alias is None else metric.alias
