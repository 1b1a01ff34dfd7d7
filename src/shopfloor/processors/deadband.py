"""Thins out what changes little: by a deadband round the last value that passed, or by the swinging door.

A swinging door (E. H. Bristol, 1990) keeps a value only where a straight line through those kept would miss one of the
others by more than the deviation. The door's hinge is the last value that passed; each further value narrows the slopes
that a line from there may have. The first value whose own slope is not among them ends the line: the one before passes.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import BeforeValidator, Field, model_validator

from shopfloor.plant.components import ProcessorConfig, Strict, TagName
from shopfloor.plant.units import Duration
from shopfloor.processors.naming import Template, named
from shopfloor.samples import Batch, Sample, TagInfo, Value
from shopfloor.seams import Processor

TICK: Final = "$clock/tick"
PRESENCE: Final = ("$source/*/connected", "$source/*/complete")
_WHOLE: Final = 100
"""Per cent."""
_WIDTH: Final = re.compile(r"(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(%?)")


def _parsed(text: object) -> tuple[float, bool]:
    """The number, and whether it is per cent. Raises ValueError."""
    match = _WIDTH.fullmatch(str(text).strip()) if isinstance(text, str | int | float) else None
    if match is None or isinstance(text, bool):
        raise ValueError("needs a number that is not negative: `0.5` in the tag's unit, or `1 %` of `span`")
    number, percent = float(match[1]), bool(match[2])
    if percent and not 0 < number <= _WHOLE:
        raise ValueError("must be above 0 and at most 100 %")
    return number, percent


def _width(text: object) -> object:
    _parsed(text)
    return text


Width = Annotated[str | float, BeforeValidator(_width)]
"""How much may be lost: in the tag's unit, or in per cent of its span."""


class Thinned(Strict):
    """A tag that is thinned out."""

    source: TagName = Field(alias="from", description="The tag that is read.")
    target: Template = Field(
        default="{tag}/compressed", alias="to", description="The tag that is given; `{tag}` is the tag that is read."
    )
    deadband: Width | None = Field(
        default=None,
        description="A value passes when it is further than this from the last one that did: `0.5` in the tag's unit, "
        "`1 %` of `span`. 0: every change passes.",
    )
    deviation: Width | None = Field(
        default=None,
        description="Swinging door: a straight line through what passes is never further than this from what did not: "
        "`0.5`, or `1 %` of `span`.",
    )
    span: tuple[float, float] | None = Field(
        default=None, description="Lowest and highest value of the tag; what `%` is of (OPC UA's EURange)."
    )
    longest: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description="For `deviation`: no line is longer; what would make it so lets the one before pass."
    )
    heartbeat: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description="When nothing passed for this long, the newest value does; by default it waits."
    )
    unit: str = Field(default="", description="The unit of the tag that is given.")
    description: str = Field(default="", description="What the tag that is given means.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.deadband is None) == (self.deviation is None):
            raise ValueError("give `deadband` or, for a swinging door, `deviation`: one of them")
        if self.span is None and _parsed(self._given)[1]:
            raise ValueError(f"what {self._given} is of is not said; give `span: [lowest, highest]`")
        if self.span is not None and self.span[0] >= self.span[1]:
            raise ValueError("the lowest value of `span` is not below its highest; swap or mend them")
        if self.longest is not None and self.deviation is None:
            raise ValueError("`longest` belongs to `deviation`; for a deadband give `heartbeat`")
        named(self.target, self.source)
        return self

    @property
    def _given(self) -> str | float | None:
        return self.deviation if self.deadband is None else self.deadband

    @property
    def width(self) -> float:
        """The deadband or deviation in the tag's unit."""
        number, percent = _parsed(self._given)
        return number / _WHOLE * (self.span[1] - self.span[0]) if percent and self.span is not None else number


class DeadbandConfig(ProcessorConfig):
    """Thins out what changes little: by a deadband, or by the swinging door that history compression uses."""

    type: Literal["deadband"] = "deadband"
    tags: list[Thinned] = Field(min_length=1, description="The tags, one entry each.")

    def build(self) -> "DeadbandProcessor":
        """The processor, that has seen nothing yet."""
        return DeadbandProcessor(self.tags)

    def inputs(self) -> Sequence[str]:
        """The tags that it reads, the clock, and which sources are connected."""
        return list(dict.fromkeys((*(tag.source for tag in self.tags), TICK, *PRESENCE)))

    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives."""
        return [TagInfo(named(tag.target, tag.source), unit=tag.unit, description=tag.description) for tag in self.tags]


class _Point(msgspec.Struct, array_like=True, frozen=True):
    time: int
    value: Any
    quality: int


class _Door(msgspec.Struct, array_like=True):
    """What is known of one tag."""

    hinge: _Point
    """The last that passed."""
    newest: _Point | None = None
    """The newest that came since, if one did; it has not passed."""
    low: float = -math.inf
    high: float = math.inf
    """The slopes, per nanosecond, that a line from the hinge may have."""
    since: int | None = None
    """The first clock tick after the hinge passed, ns."""
    broken: bool = False
    """Nobody listened for a while: the next value passes."""
    source: str = ""
    """Who gave the newest."""


class DeadbandProcessor(Processor):
    """Lets pass what the line through the passed would miss; everything that passes is as it came.

    A change of quality or of the kind of value passes, with the value before it; so does the first value after a
    loss of its source. What is older than the newest of its tag passes as it is.
    """

    def __init__(self, tags: Sequence[Thinned]) -> None:
        """Built by ``DeadbandConfig.build``."""
        self._lines = [_Line(tag) for tag in tags]
        self._by_source: dict[str, list[_Line]] = defaultdict(list)
        for line in self._lines:
            self._by_source[line.source].append(line)
        self._by_source.default_factory = None

    def process(self, batch: Batch) -> list[Sample]:
        """What passes, in the order in which that is known."""
        found: list[Sample] = []
        for tag, time, value, quality in zip(batch.tags, batch.times, batch.values, batch.qualities, strict=True):
            if tag in self._by_source:
                for line in self._by_source[tag]:
                    found.extend(line.take(_Point(time, value, quality), batch.source))
            elif tag == TICK:
                for line in self._lines:
                    found.extend(line.tick(time))
            elif tag.startswith("$source/"):
                _, source, what = tag.split("/")
                for line in self._lines:
                    found.extend(line.interrupt(source, complete=what == "complete"))
        return found

    def snapshot(self) -> bytes:
        """The last values that passed and came, by the name of what is given."""
        return msgspec.msgpack.encode({line.target: line.door for line in self._lines if line.door is not None})

    def restore(self, state: bytes) -> None:
        """Take up a state; what is no longer in the plant file is let go."""
        doors = msgspec.msgpack.decode(state, type=dict[str, _Door])
        for line in self._lines:
            line.door = doors.get(line.target)


class _Line:
    """One tag that is thinned out."""

    def __init__(self, tag: Thinned) -> None:
        self.source = tag.source
        self.target = named(tag.target, tag.source)
        self.door: _Door | None = None
        self._swings = tag.deviation is not None
        self._width = tag.width
        self._longest = math.inf if tag.longest is None else tag.longest
        self._heartbeat = math.inf if tag.heartbeat is None else tag.heartbeat

    def take(self, point: _Point, source: str) -> Iterator[Sample]:
        """What passes because of this value."""
        door = self.door
        if door is None:
            yield self._pass(point, source)
            return
        last = door.newest or door.hinge
        door.source = source
        if point.time < last.time:
            yield self._sample(point)
        elif point.time == last.time and not door.broken and _alike(last, point):
            return  # the very same again
        elif door.broken or point.time == last.time or _differ_in_kind(last, point):
            yield from self._release()
            yield self._pass(point, source)
        else:
            yield from self._weigh(door, point)

    def tick(self, now: int) -> Iterator[Sample]:
        """What passes because of the time."""
        door = self.door
        if door is None:
            return
        if door.since is None:
            door.since = now
        if now - door.since >= self._heartbeat:
            yield from self._release()

    def interrupt(self, source: str, *, complete: bool) -> Iterator[Sample]:
        """What passes because the source was lost or is back: a line must not be drawn over what nobody saw.

        With ``complete`` nothing is missing all the same.
        """
        if self.door is not None and self.door.source == source:
            yield from self._release()
            self.door.broken = not complete

    def _weigh(self, door: _Door, point: _Point) -> Iterator[Sample]:
        """What passes because of a value of the same kind as the last, that came after it."""
        if not self._holds(door, point):
            yield from self._release()
            door = self.door or door
            if not (self._swings and self._holds(door, point)):
                yield self._pass(point, door.source)
                return
        if self._swings:
            self._narrow(door, point)
        door.newest = point
        if point.time - door.hinge.time >= self._heartbeat:
            yield from self._release()

    def _holds(self, door: _Door, point: _Point) -> bool:
        """Whether the value need not pass: the lines that are still possible, or the deadband, reach it."""
        if not _is_number(point.value):
            return True  # the same as before, or it would differ in kind
        if not self._swings:
            return bool(abs(point.value - door.hinge.value) <= self._width)
        slope = _slope(door.hinge, point, 0.0)
        return math.isfinite(slope) and door.low <= slope <= door.high and point.time - door.hinge.time <= self._longest

    def _narrow(self, door: _Door, point: _Point) -> None:
        if _is_number(point.value):
            door.low = max(door.low, _slope(door.hinge, point, -self._width))
            door.high = min(door.high, _slope(door.hinge, point, self._width))

    def _release(self) -> Iterator[Sample]:
        """The newest passes, if it has not yet: the next line begins there."""
        if self.door is not None and self.door.newest is not None:
            yield self._pass(self.door.newest, self.door.source)

    def _pass(self, point: _Point, source: str) -> Sample:
        self.door = _Door(point, source=source)
        return self._sample(point)

    def _sample(self, point: _Point) -> Sample:
        return Sample(self.target, point.time, point.value, point.quality)


def _slope(hinge: _Point, point: _Point, aside: float) -> float:
    return float((point.value - hinge.value + aside) / (point.time - hinge.time))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _alike(one: _Point, other: _Point) -> bool:
    same = one.value == other.value or (one.value != one.value and other.value != other.value)  # NaN
    return type(one.value) is type(other.value) and one.quality == other.quality and same


def _differ_in_kind(one: _Point, other: _Point) -> bool:
    """Whether no line can join them: another quality, or a value that is no number and not the same."""
    if _is_number(one.value) and _is_number(other.value):
        return one.quality != other.quality
    return not _alike(one, other)
