"""Counts units by the edges of a signal that each of them makes: a light barrier, a contact, a motor's current."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal, Self

import msgspec
from pydantic import Field, PrivateAttr, model_validator

from shopfloor.plant.components import ProcessorConfig, Strict, TagName
from shopfloor.plant.model import Plant, Zone
from shopfloor.plant.units import Duration
from shopfloor.processors.edges_hours import Hours, Production, Told
from shopfloor.processors.edges_record import NOTHING, OFF, ON, UNKNOWN, Point, Record, Rule, Taken
from shopfloor.processors.naming import Template, named
from shopfloor.samples import Batch, Quality, Sample, TagInfo, Value
from shopfloor.seams import Processor

TICK: Final = "$clock/tick"
PRESENCE: Final = ("$source/*/connected", "$source/*/complete")
_MANY: Final = 4
"""Hours that are kept without asking whether they can still change."""


class Counted(Strict):
    """A signal whose edges are counted."""

    source: TagName = Field(alias="from", description="The tag that is read.")
    target: Template = Field(
        default="{tag}/units",
        alias="to",
        description="The tag that counts, since the beginning; `{tag}` is the tag read.",
    )
    hourly: Template | None = Field(
        default=None, description="A tag with the units of each hour of the site's clock, e.g. `{tag}/hourly`."
    )
    edge: Literal["rising", "falling", "both"] = Field(default="rising", description="What a unit makes.")
    debounce: Annotated[Duration, Field(ge=0)] = Field(
        default=0, description="An edge counts when the signal rested this long before it; so a contact may bounce."
    )
    above: float | None = Field(default=None, description="A number is on above it; by default when it is not 0.")
    below: float | None = Field(
        default=None, description="With `above`: a number is off below it, and says nothing in between (hysteresis)."
    )
    unit: str = Field(default="", description="What is counted, e.g. `pcs`.")
    description: str = Field(default="", description="What the tag that is given means.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.below is not None and self.above is None:
            raise ValueError("`below` belongs to `above`; give both, or neither")
        if self.below is not None and self.above is not None and self.below > self.above:
            raise ValueError(f"`below`, {self.below:g}, is greater than `above`, {self.above:g}; swap them")
        names = {named(self.target, self.source), named(self.hourly or "{tag}/hourly", self.source)}
        if len(names) == 1:
            raise ValueError("`to` and `hourly` are two different tags; rename one")
        return self

    @property
    def rule(self) -> Rule:
        """Which edges count."""
        return Rule(self.edge != "falling", self.edge != "rising", self.debounce)

    def level(self, value: Value, quality: int) -> int | None:
        """ON, OFF or UNKNOWN; None for a number between `below` and `above`, which says nothing."""
        if quality < Quality.UNCERTAIN or not isinstance(value, int | float) or not math.isfinite(value):
            return UNKNOWN
        if isinstance(value, bool) or self.above is None:
            return ON if value else OFF
        if value > self.above:
            return ON
        return OFF if self.below is None or value < self.below else None


class EdgesConfig(ProcessorConfig):
    """Counts units by the rising or falling edges of a signal, and how many there are in each hour."""

    type: Literal["edges"] = "edges"
    tags: list[Counted] = Field(min_length=1, description="The signals, one entry each.")
    timezone: Zone | None = Field(default=None, description="IANA time zone of the hours; by default the site's.")

    _site: str = PrivateAttr(default="UTC")

    def place(self, plant: Plant) -> None:
        """Remember the site's time zone."""
        self._site = plant.plant.timezone

    def build(self) -> "EdgesProcessor":
        """The processor, that has counted nothing yet."""
        return EdgesProcessor(self.tags, Hours(self.timezone or self._site))

    def inputs(self) -> Sequence[str]:
        """The tags that it reads, the clock, and which sources are connected."""
        return list(dict.fromkeys((*(tag.source for tag in self.tags), TICK, *PRESENCE)))

    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives."""
        return [info for tag in self.tags for info in _given(tag)]


def _given(tag: Counted) -> Iterator[TagInfo]:
    yield TagInfo(named(tag.target, tag.source), data_type="int", unit=tag.unit, description=tag.description)
    if tag.hourly is not None:
        text = f"{tag.source}: units of the hour that ends"
        yield TagInfo(named(tag.hourly, tag.source), data_type="int", unit=tag.unit, description=text)


class _State(msgspec.Struct):
    """What is known of one signal."""

    record: Record
    production: Production
    units: int = 0
    said: int | None = None
    """When the count was said last, ns; sample time."""
    since: int | None = None
    """The first clock tick after the newest sample."""
    source: str = ""


class EdgesProcessor(Processor):
    """Gives a signal's count at each edge, and with ``hourly`` the units of each hour when it is over.

    The first sample ever, after bad quality and after a loss of the source is a baseline: no edge leads to it.
    """

    def __init__(self, tags: Sequence[Counted], hours: Hours) -> None:
        """Built by ``EdgesConfig.build``."""
        self._signals = [_Signal(tag, hours) for tag in tags]
        self._by_source: dict[str, list[_Signal]] = defaultdict(list)
        for signal in self._signals:
            self._by_source[signal.tag.source].append(signal)
        self._by_source.default_factory = None

    def process(self, batch: Batch) -> list[Sample]:
        """The counts and records that follow from the batch."""
        found: list[Sample] = []
        for tag, time, value, quality in zip(batch.tags, batch.times, batch.values, batch.qualities, strict=True):
            if tag in self._by_source:
                for signal in self._by_source[tag]:
                    found.extend(signal.take(time, value, quality, batch.source))
            elif tag == TICK:
                for signal in self._signals:
                    found.extend(signal.tick(time))
            elif tag.startswith("$source/"):
                _, source, what = tag.split("/")
                for signal in self._signals:
                    if signal.state.source == source:
                        signal.resume() if what == "complete" else signal.interrupt()
        return found

    def snapshot(self) -> bytes:
        """The counts and the newest samples, by the name of what counts."""
        return msgspec.msgpack.encode({signal.target: signal.state for signal in self._signals})

    def restore(self, state: bytes) -> None:
        """Take up a state; what is no longer in the plant file is let go."""
        states = msgspec.msgpack.decode(state, type=dict[str, _State])
        for signal in self._signals:
            signal.state = states.get(signal.target, signal.state)


class _Signal:
    """One signal that is counted."""

    def __init__(self, tag: Counted, hours: Hours) -> None:
        self.tag = tag
        self.target = named(tag.target, tag.source)
        self.state = _State(Record(), Production())
        self._hourly = None if tag.hourly is None else named(tag.hourly, tag.source)
        self._rule = tag.rule
        self._hours = hours

    def take(self, time: int, value: Value, quality: int, source: str) -> Iterator[Sample]:
        """What follows from a sample."""
        level = self.tag.level(value, quality)
        if level is None:
            return
        state, record = self.state, self.state.record
        first, known = record.newest is None, record.known
        in_order = record.newest is None or time >= record.newest.time
        yield from self._over(time, in_order=in_order, known=known)
        taken = record.take(Point(time, level), self._rule)
        if taken is None:
            return
        if in_order:
            state.source, state.since = source, None
            state.production.settle()
            if not record.known or quality < Quality.GOOD or not (first or known):
                state.production.doubt(time, self._hours)
        self._add(taken)
        if taken is not NOTHING or first or known != record.known:
            yield self._count(time)

    def tick(self, now: int) -> Iterator[Sample]:
        """What follows from the time: the source's clock is taken to have gone on as ours has."""
        state, newest = self.state, self.state.record.newest
        if newest is None:
            return
        if state.since is None:
            state.since = now
        ahead = min(newest.time + max(0, now - state.since), max(newest.time, now))  # never later than what was seen
        yield from self._records(state.production.corrections(self._hours))
        yield from self._records(state.production.until(ahead, self._hours, known=state.record.known))

    def interrupt(self) -> None:
        """The source was lost or is back: nobody knows what the signal did meanwhile."""
        if not self.state.record.broken:
            self.state.record.broken = True
            self.state.production.doubt(self.state.production.following, self._hours)

    def resume(self) -> None:
        """Nothing is missing although the source was away: it gives now what it had kept."""
        if self.state.record.broken:
            self.state.record.broken = False
            self.state.production.trust()

    def _over(self, time: int, *, in_order: bool, known: bool) -> Iterator[Sample]:
        """The records of the hours that are over now that a sample of this time comes."""
        production = self.state.production
        if self.state.record.newest is None:
            production.begin(time, self._hours)
        yield from self._records(production.corrections(self._hours, besides=time))
        if in_order:
            yield from self._records(production.until(time, self._hours, known=known))

    def _add(self, taken: Taken) -> None:
        state = self.state
        for edges, units in ((taken.added, 1), (taken.removed, -1)):
            for edge in edges:
                state.units += units
                state.production.count(edge, units, self._hours)
        if len(state.production.hours) > _MANY:
            state.production.forget((w.points[0].time, w.points[-1].time) for w in state.record.windows)

    def _count(self, time: int) -> Sample:
        """The count, never earlier than it was said before."""
        state = self.state
        state.said = time if state.said is None else max(time, state.said)
        quality = Quality.GOOD if state.record.known else Quality.LAST_USABLE
        return Sample(self.target, state.said, state.units, quality)

    def _records(self, told: Iterator[Told]) -> Iterator[Sample]:
        for hour in told:
            if self._hourly is not None:
                yield Sample(self._hourly, hour.end, hour.units, Quality.GOOD if hour.sure else Quality.UNCERTAIN)
