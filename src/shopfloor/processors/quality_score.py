"""How good the conditions are under which something is made: 0 to 100, from how far signals lie outside their bands.

A signal inside its band costs nothing; outside it costs the more the further it is, and all of its weight from ``soft``
beyond the band on:

    score = 100 · (1 − Σ weight · outside / Σ weight),   outside = 0 … 1
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal, Self

import msgspec
from pydantic import Field, model_validator

from shopfloor.plant.components import ProcessorConfig, Strict, TagName
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.samples import Batch, Quality, Sample, TagInfo, Value
from shopfloor.seams import Processor

TICK: Final = "$clock/tick"
PRESENCE: Final = ("$source/*/connected", "$source/*/complete")
BEST: Final = 100.0
_SETTLED: Final = 2 * DURATION_UNITS["s"]
"""How long, by the clock, values of the trigger's own time are waited for."""
_MOST: Final = 1000
"""Windows without a sample that are told one by one."""


class Signal(Strict):
    """A signal and where it should be."""

    tag: TagName = Field(description="The tag that is read.")
    band: tuple[float | None, float | None] = Field(
        description="Lowest and highest value that costs nothing, e.g. `[180, 220]`; `[null, 220]` has no lowest."
    )
    soft: float = Field(
        gt=0, description="How far outside the band, in the tag's unit, all of the weight is lost; half of it at half."
    )
    weight: float = Field(default=1.0, gt=0, description="How much it counts beside the others.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        low, high = self.band
        if low is None and high is None:
            raise ValueError("`band` has neither a lowest nor a highest value; give one of them")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"the lowest value of `band`, {low:g}, is not below the highest, {high:g}; swap them")
        return self

    def outside(self, value: float) -> float:
        """0 inside the band, 1 from ``soft`` beyond it on, straight in between."""
        low, high = self.band
        under = 0.0 if low is None else low - value
        over = 0.0 if high is None else value - high
        return min(1.0, max(0.0, under, over) / self.soft)


def score(parts: Sequence[tuple[float, float]]) -> float | None:
    """0 to 100 of (weight, outside) of each signal; None for no signal at all."""
    weights = math.fsum(weight for weight, _ in parts)
    if not weights:
        return None
    return BEST * max(0.0, 1 - math.fsum(weight * outside for weight, outside in parts) / weights)


class Scored(Strict):
    """One score."""

    to: TagName = Field(description="The tag that is given: the score at each moment at which it changes.")
    signals: list[Signal] = Field(min_length=1, description="What it is made of.")
    unit: TagName | None = Field(
        default=None,
        description="A tag whose change says that a unit is done (a counter, a serial number), or that becomes true: "
        "then `<to>/unit` is the unit's score.",
    )
    mean: Literal["time", "samples"] = Field(
        default="time",
        description="What a unit's score is the mean of: `time`, each value as long as it lasted; or `samples`, those "
        "stamped after the unit before and not after this one, as when a machine gives its values with each part.",
    )
    every: Annotated[Duration, Field(ge=DURATION_UNITS["s"])] | None = Field(
        default=None, description="Windows, counted from midnight UTC: `<to>/window` is the mean of each over its time."
    )
    description: str = Field(default="", description="What the tag that is given means.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        tags = [signal.tag for signal in self.signals]
        for tag in tags:
            if tags.count(tag) > 1:
                raise ValueError(f"{tag!r} stands in `signals` twice; keep one")
        if self.to in (*tags, self.unit):
            raise ValueError(f"{self.to!r} is read and given; give the score a name of its own")
        if self.mean == "samples" and self.unit is None:
            raise ValueError("`mean: samples` is of units; say by `unit` when one is done")
        return self

    @property
    def reads(self) -> list[str]:
        """The tags that it reads."""
        return [*(signal.tag for signal in self.signals), *([self.unit] if self.unit else [])]


class QualityScoreConfig(ProcessorConfig):
    """Scores conditions from 0 to 100 by how far signals lie outside their bands: live, for each unit, for windows."""

    type: Literal["quality_score"] = "quality_score"
    scores: list[Scored] = Field(min_length=1, description="The scores, one entry each.")

    def build(self) -> "QualityScoreProcessor":
        """The processor, that knows no signal yet."""
        return QualityScoreProcessor(self.scores)

    def inputs(self) -> Sequence[str]:
        """The tags that it reads, the clock, and which sources are connected."""
        return list(dict.fromkeys((*(tag for scored in self.scores for tag in scored.reads), TICK, *PRESENCE)))

    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives."""
        found: list[TagInfo] = []
        for scored in self.scores:
            found.append(TagInfo(scored.to, data_type="float", description=scored.description))
            if scored.unit is not None:
                found.append(TagInfo(f"{scored.to}/unit", data_type="float", description="score of the unit done then"))
            if scored.every is not None:
                text = "mean score of the window that ends then"
                found.append(TagInfo(f"{scored.to}/window", data_type="float", description=text))
        return found


class _Mean(msgspec.Struct, array_like=True):
    """Of how far one signal was outside."""

    total: float = 0.0
    amount: float = 0.0
    """Nanoseconds or samples."""

    def add(self, outside: float, amount: float) -> None:
        self.total += outside * amount
        self.amount += amount


class _Now(msgspec.Struct, array_like=True):
    """What is known of one signal."""

    last: float | None = None
    """How far it was outside when it came last; None: it was no number."""
    time: int = 0
    sure: bool = True
    source: str = ""
    lost: bool = False
    """Its source was lost since."""

    @property
    def outside(self) -> float | None:
        """How far it is outside; None: not known."""
        return None if self.lost else self.last


class _Span(msgspec.Struct, array_like=True):
    """A unit or a window that is under way."""

    begin: int
    means: list[_Mean]
    sure: bool = True


class _Done(msgspec.Struct, array_like=True):
    """A unit for whose last values is waited."""

    time: int
    since: int | None = None


class _State(msgspec.Struct):
    signals: list[_Now]
    at: int | None = None
    """The newest time that was seen."""
    since: int | None = None
    """The first clock tick after it was seen."""
    said: tuple[float | None, int] | None = None
    """The live score and quality given last."""
    trigger: Any = None
    """The unit's tag's last value; None: the next one is a baseline."""
    trigger_source: str = ""
    trigger_lost: bool = False
    unit: _Span | None = None
    done: list[_Done] = []
    window: _Span | None = None


class QualityScoreProcessor(Processor):
    """Gives each score when it changes, at the end of each unit, and at the end of each window.

    A signal that is bad, or whose source is lost, is unknown: the others make the score, which is then uncertain.
    Where none is known there is no score. Late samples do not change what was given.
    """

    def __init__(self, scores: Sequence[Scored]) -> None:
        """Built by ``QualityScoreConfig.build``."""
        self._scores = [_Score(scored) for scored in scores]
        self._readers: dict[str, list[_Score]] = defaultdict(list)
        for one in self._scores:
            for tag in one.scored.reads:
                self._readers[tag].append(one)
        self._readers.default_factory = None

    def process(self, batch: Batch) -> list[Sample]:
        """The scores that follow from the batch."""
        found: list[Sample] = []
        for tag, time, value, quality in zip(batch.tags, batch.times, batch.values, batch.qualities, strict=True):
            if tag in self._readers:
                for one in self._readers[tag]:
                    found.extend(one.take(Sample(tag, time, value, quality), batch.source))
            elif tag == TICK:
                for one in self._scores:
                    found.extend(one.tick(time))
            elif tag.startswith("$source/"):
                _, source, what = tag.split("/")
                for one in self._scores:
                    found.extend(one.interrupt(source, complete=what == "complete"))
        return found

    def snapshot(self) -> bytes:
        """The signals as they are, and the units and windows under way, by the name of the score."""
        return msgspec.msgpack.encode({one.scored.to: one.state for one in self._scores})

    def restore(self, state: bytes) -> None:
        """Take up a state; a score whose signals are others now begins anew."""
        states = msgspec.msgpack.decode(state, type=dict[str, _State])
        for one in self._scores:
            found = states.get(one.scored.to)
            if found is not None and len(found.signals) == len(one.scored.signals):
                one.state = found


class _Score:
    """One score."""

    def __init__(self, scored: Scored) -> None:
        self.scored = scored
        self.state = _State([_Now() for _ in scored.signals])
        self._places = {signal.tag: i for i, signal in enumerate(scored.signals)}

    def take(self, sample: Sample, source: str) -> Iterator[Sample]:
        """What follows from a sample of a signal, or of the tag that says that a unit is done."""
        state = self.state
        state.since = None
        yield from self._advance(sample.time)
        if sample.tag == self.scored.unit and self._ends(sample, source):
            yield from self._end(sample.time)
        if sample.tag in self._places:
            yield from self._close(lambda done: sample.time > done.time)
            self._know(self._places[sample.tag], sample, source)
            yield from self._live()

    def tick(self, now: int) -> Iterator[Sample]:
        """What follows from the time: the sources' clocks are taken to have gone on as ours has."""
        state = self.state
        if state.at is None:
            return
        for done in state.done:
            done.since = now if done.since is None else done.since
        yield from self._close(lambda done: done.since is not None and now - done.since >= _SETTLED)
        if state.since is None:
            state.since = now
        elif self.scored.every is not None and now > state.since:
            ahead = min(state.at + now - state.since, max(state.at, now))  # never later than anything that was seen
            state.since = now
            yield from self._advance(ahead)

    def interrupt(self, source: str, *, complete: bool) -> Iterator[Sample]:
        """The source was lost or is back: its signals are not known until they come again.

        With ``complete`` nothing is missing all the same.
        """
        state = self.state
        for signal in state.signals:
            if signal.source == source:
                signal.lost = not complete
        if state.trigger_source == source:
            state.trigger_lost = not complete
        yield from self._live()

    def _ends(self, sample: Sample, source: str) -> bool:
        """Whether a unit is done."""
        state = self.state
        before = None if state.trigger_lost else state.trigger
        bad = sample.quality < Quality.UNCERTAIN or sample.value is None
        state.trigger, state.trigger_source, state.trigger_lost = None if bad else sample.value, source, False
        if bad:
            state.unit = None
        elif before is None:
            state.unit = self._begin(sample.time)
        rose = sample.value is True or not isinstance(sample.value, bool)
        return not bad and before is not None and sample.value != before and rose

    def _end(self, time: int) -> Iterator[Sample]:
        state = self.state
        if self.scored.mean == "samples":
            state.done.append(_Done(time))
        elif state.unit is not None and time > state.unit.begin:
            yield self._sample(f"{self.scored.to}/unit", time, state.unit, time - state.unit.begin)
            state.unit = self._begin(time)

    def _close(self, settled: Callable[[_Done], bool]) -> Iterator[Sample]:
        """Give the units, by samples, for which no more values can come."""
        state = self.state
        while state.done and settled(state.done[0]):
            done = state.done.pop(0)
            if state.unit is not None:
                yield self._sample(f"{self.scored.to}/unit", done.time, state.unit, 0)
            state.unit = self._begin(done.time)

    def _advance(self, time: int) -> Iterator[Sample]:
        """Let the signals last until ``time``; windows that end before are given."""
        state, every = self.state, self.scored.every
        if state.at is None:
            state.at = time
            if every is not None:
                state.window = self._begin(time)
        while every is not None and state.window is not None and (end := (state.at // every + 1) * every) <= time:
            self._last(end - state.at)
            yield self._sample(f"{self.scored.to}/window", end, state.window, every)
            state.at, state.window = max(end, time // every * every - _MOST * every), self._begin(end)
        self._last(max(0, time - state.at))
        state.at = max(state.at, time)

    def _last(self, duration: int) -> None:
        for span in (self.state.window, self.state.unit if self.scored.mean == "time" else None):
            if span is not None and duration:
                for signal, mean in zip(self.state.signals, span.means, strict=True):
                    span.sure = span.sure and signal.sure
                    if signal.outside is not None:
                        mean.add(signal.outside, duration)

    def _know(self, place: int, sample: Sample, source: str) -> None:
        signal = self.state.signals[place]
        if sample.time < signal.time:
            return
        outside = None if sample.quality < Quality.UNCERTAIN else _outside(self.scored.signals[place], sample.value)
        self.state.signals[place] = _Now(outside, sample.time, sample.quality >= Quality.GOOD, source)
        unit = self.state.unit
        if self.scored.mean == "samples" and unit is not None and sample.time > unit.begin:
            unit.sure = unit.sure and outside is not None and sample.quality >= Quality.GOOD
            if outside is not None:
                unit.means[place].add(outside, 1)

    def _live(self) -> Iterator[Sample]:
        """The score of now, when it is another than the one given last."""
        state = self.state
        if state.at is None:
            return
        pairs = zip(self.scored.signals, state.signals, strict=True)
        known = [(signal.weight, now.outside) for signal, now in pairs if now.outside is not None]
        value, quality = _judged(known, len(state.signals), sure=all(now.sure for now in state.signals))
        if state.said != (value, quality):
            state.said = (value, quality)
            yield Sample(self.scored.to, state.at, value, quality)

    def _begin(self, time: int) -> _Span:
        return _Span(time, [_Mean() for _ in self.scored.signals])

    def _sample(self, tag: str, time: int, span: _Span, whole: int) -> Sample:
        """The score of a unit or a window, of which each signal should be known for ``whole`` ns."""
        known = [
            (signal.weight, mean.total / mean.amount)
            for signal, mean in zip(self.scored.signals, span.means, strict=True)
            if mean.amount
        ]
        sure = span.sure and all(mean.amount >= whole for mean in span.means)
        value, quality = _judged(known, len(span.means), sure=sure)
        return Sample(tag, time, value, quality)


def _outside(signal: Signal, value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return signal.outside(value)


def _judged(known: list[tuple[float, float]], signals: int, *, sure: bool) -> tuple[float | None, int]:
    """The score and its quality."""
    value = score(known)
    if value is None:
        return None, Quality.WAITING_FOR_INITIAL_DATA
    return value, Quality.GOOD if sure and len(known) == signals else Quality.UNCERTAIN
