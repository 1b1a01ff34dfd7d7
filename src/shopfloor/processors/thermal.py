"""Lengths at 20 °C: what was measured on a warm or cold part, less its thermal expansion.

L20 = L / (1 + α·(T − 20 °C)), with the temperature that was measured nearest in time. 20 °C is the reference of all
drawings (ISO 1). The uncertainty follows the GUM (JCGM 100:2008) with the mixed term of second order, which is all that
is left of α's uncertainty at 20 °C:

    u² = [(L·α·u(T))² + (L·(T − 20 °C)·u(α))² + (L·u(α)·u(T))²] / (1 + α·(T − 20 °C))⁴
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Final, Literal, Self

import msgspec
from pydantic import AfterValidator, Field, model_validator

from shopfloor.plant.components import ProcessorConfig, Strict, TagName
from shopfloor.plant.units import DURATION_UNITS, Duration, format_duration
from shopfloor.processors.materials import material
from shopfloor.processors.naming import Template, named
from shopfloor.samples import Batch, Quality, Sample, TagInfo, Value
from shopfloor.seams import Processor

REFERENCE: Final = 20.0
"""°C, ISO 1."""
TICK: Final = "$clock/tick"
_MINUTE: Final = DURATION_UNITS["min"]
_MOST_TEMPERATURES: Final = 5000
_MOST_WAITING: Final = 1000


def length_at_20(length: float, expansion: float, temperature: float) -> float:
    """The length at 20 °C of what is ``length`` long at ``temperature`` °C, in the same unit; ``expansion`` in 1/K."""
    return length / (1 + expansion * (temperature - REFERENCE))


def uncertainty(length: float, expansion: float, temperature: float, u_temperature: float, u_expansion: float) -> float:
    """Standard uncertainty (k = 1) of ``length_at_20`` by those of the temperature (K) and of the expansion (1/K)."""
    warmth = temperature - REFERENCE
    by_temperature = expansion * u_temperature
    by_expansion = warmth * u_expansion
    together = u_expansion * u_temperature
    return abs(length) * math.hypot(by_temperature, by_expansion, together) / (1 + expansion * warmth) ** 2


def _known(name: str) -> str:
    return material(name).name


def _per_kelvin(value: float) -> float:
    if not -1e-3 < value < 1e-3:  # noqa: PLR2004  # what no material reaches
        raise ValueError(f"is in 1/K, so aluminium's is 23.6e-6; write {value:g}e-6 if you mean {value:g} µm/(m·K)")
    return value


MaterialName = Annotated[str, AfterValidator(_known)]
Expansion = Annotated[float, AfterValidator(_per_kelvin)]


class Length(Strict):
    """A length that is measured, and what is made of it."""

    source: TagName = Field(alias="from", description="The tag that is read: the length as it was measured.")
    target: Template = Field(
        default="{tag}/compensated", alias="to", description="The length at 20 °C; `{tag}` is the tag that is read."
    )
    ok: Template = Field(default="{tag}/ok", description="With `limits`: whether the length at 20 °C is inside.")
    uncertainty: Template = Field(
        default="{tag}/uncertainty",
        description="With an uncertainty given above: that of the length at 20 °C (standard uncertainty, k = 1).",
    )
    reason: Template = Field(
        default="{tag}/reason", description="Why there is no length at 20 °C, empty text when there is one; at changes."
    )
    limits: tuple[float, float] | None = Field(
        default=None, description="Least and greatest length at 20 °C that is allowed, e.g. `[249.97, 250.03]`."
    )
    material: MaterialName | None = Field(default=None, description="Of this part; else the processor's.")
    expansion: Expansion | None = Field(default=None, description="Of this part, in 1/K; else the processor's.")
    unit: str = Field(default="", description="The unit of the length, e.g. `mm`.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.limits is not None and self.limits[0] >= self.limits[1]:
            raise ValueError(f"the least of `limits`, {self.limits[0]:g}, is not below the greatest; swap or mend them")
        if self.material is not None and self.expansion is not None:
            raise ValueError("give `material` or `expansion`, not both")
        names = [named(template, self.source) for template in (self.target, self.ok, self.uncertainty, self.reason)]
        if len(set(names)) < len(names):
            raise ValueError("`to`, `ok`, `uncertainty` and `reason` are four different tags; rename one")
        return self


class ThermalConfig(ProcessorConfig):
    """Lengths at 20 °C: takes the thermal expansion out of what was measured on a warm or cold part."""

    type: Literal["thermal"] = "thermal"
    temperature: TagName = Field(description="The tag with the part's temperature, in °C.")
    lengths: list[Length] = Field(min_length=1, description="The lengths, one entry each.")
    material: MaterialName | None = Field(default=None, description="What the parts are of; see the table above.")
    expansion: Expansion | None = Field(
        default=None, description="Instead of `material`: the coefficient of linear expansion in 1/K, e.g. `23.6e-6`."
    )
    within: Annotated[Duration, Field(gt=0)] = Field(
        default=_MINUTE, description="A temperature that is further in time from the length is not taken."
    )
    remember: Annotated[Duration, Field(ge=0)] = Field(
        default=10 * _MINUTE, description="How much later than the temperatures of its time a length may come."
    )
    plausible: tuple[float, float] = Field(
        default=(-40.0, 100.0), description="Lowest and highest temperature that the sensor can mean; others are bad."
    )
    temperature_uncertainty: float = Field(
        default=0.0, ge=0, description="Standard uncertainty of the temperature in K: the sensor's noise."
    )
    expansion_uncertainty: float = Field(
        default=0.0, ge=0, lt=1e-3, description="Standard uncertainty of the coefficient of expansion in 1/K."
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.material is not None and self.expansion is not None:
            raise ValueError("give `material` or `expansion`, not both")
        if self.plausible[0] >= self.plausible[1]:
            raise ValueError("the lowest temperature of `plausible` is not below its highest; swap them")
        for length in self.lengths:
            if length.source == self.temperature:
                raise ValueError(f"{length.source!r} is the temperature; it cannot be a length too")
            if (length.material, length.expansion, self.material, self.expansion) == (None,) * 4:
                raise ValueError(f"what {length.source!r} is made of is not said; give `material` or `expansion`")
        return self

    def expansion_of(self, length: Length) -> float:
        """The coefficient that holds for one of its lengths, in 1/K."""
        for level in (length, self):
            if level.expansion is not None:
                return level.expansion
            if level.material is not None:
                return material(level.material).expansion
        raise AssertionError("validated: one of them is given")

    @property
    def has_uncertainty(self) -> bool:
        """Whether anything is said of which an uncertainty follows."""
        return self.temperature_uncertainty > 0 or self.expansion_uncertainty > 0

    def build(self) -> "ThermalProcessor":
        """The processor, without any temperature yet."""
        return ThermalProcessor(self)

    def inputs(self) -> Sequence[str]:
        """The tags that it reads, and the clock."""
        return list(dict.fromkeys((self.temperature, *(length.source for length in self.lengths), TICK)))

    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives."""
        return [info for length in self.lengths for info in self._given(length)]

    def _given(self, length: Length) -> Iterator[TagInfo]:
        tag = length.source
        yield TagInfo(named(length.target, tag), data_type="float", unit=length.unit, description=f"{tag} at 20 °C")
        if self.has_uncertainty:
            text = f"standard uncertainty of {tag} at 20 °C"
            yield TagInfo(named(length.uncertainty, tag), data_type="float", unit=length.unit, description=text)
        if length.limits is not None:
            text = f"whether {tag} at 20 °C is inside its limits"
            yield TagInfo(named(length.ok, tag), data_type="bool", description=text)
        text = f"why there is no {tag} at 20 °C"
        yield TagInfo(named(length.reason, tag), data_type="text", description=text)


class _Reading(msgspec.Struct, array_like=True):
    """What a tag gave, judged."""

    tag: str
    time: int
    value: float
    """Meaningless when there is a reason."""
    quality: int
    reason: str
    """Why it cannot be used, else empty."""
    since: int | None = None
    """Of a length that waits: the first clock tick after it came, ns."""


class _State(msgspec.Struct):
    temperatures: list[_Reading]
    """In the order of their times."""
    waiting: list[_Reading]
    """Lengths whose temperature may still come, in the order of their coming."""
    reasons: dict[str, str]
    """What was said last, by tag."""


class ThermalProcessor(Processor):
    """Gives the length at 20 °C of each length, with the quality of the worse of length and temperature.

    A length waits for the temperature nearest in time: until one of its very time is there, until the next one comes
    that is not older than itself, or until the clock has gone on by the distance to the nearest that is there, at most
    ``within``: for then a nearer one cannot come any more.
    """

    def __init__(self, config: ThermalConfig) -> None:
        """Built by ``ThermalConfig.build``."""
        self._config = config
        self._lengths: dict[str, list[Length]] = defaultdict(list)
        for length in config.lengths:
            self._lengths[length.source].append(length)
        self._lengths.default_factory = None
        self._state = _State([], [], {})

    def process(self, batch: Batch) -> list[Sample]:
        """What follows from the batch, in the order in which it is known."""
        found: list[Sample] = []
        for tag, time, value, quality in zip(batch.tags, batch.times, batch.values, batch.qualities, strict=True):
            if tag == TICK:
                found.extend(self._ticked(time))
            elif tag == self._config.temperature:
                self._remember(self._temperature(_judged(tag, time, value, quality)))
                found.extend(self._settle(partial(_not_after, time)))
            elif tag in self._lengths:
                found.extend(self._measured(_judged(tag, time, value, quality)))
        return found

    def snapshot(self) -> bytes:
        """The temperatures that lengths may still need, and the lengths that wait."""
        return msgspec.msgpack.encode(self._state)

    def restore(self, state: bytes) -> None:
        """Take up a state; lengths that are no longer in the plant file are let go."""
        self._state = msgspec.msgpack.decode(state, type=_State)
        self._state.waiting = [length for length in self._state.waiting if length.tag in self._lengths]

    def _temperature(self, reading: _Reading) -> _Reading:
        """The temperature, refused when the sensor cannot mean it."""
        low, high = self._config.plausible
        if not reading.reason and not low <= reading.value <= high:
            reading.reason = f"{reading.tag} gave {reading.value:g} °C, which is not from {low:g} to {high:g} °C"
            reading.quality = Quality.SENSOR_FAILURE
        return reading

    def _remember(self, reading: _Reading) -> None:
        temperatures = self._state.temperatures
        place = bisect_left(temperatures, reading.time, key=_time)
        same = place < len(temperatures) and temperatures[place].time == reading.time
        temperatures[place : place + same] = [reading]
        needed = reading.time - self._config.remember - self._config.within
        del temperatures[: max(bisect_left(temperatures, needed, key=_time), len(temperatures) - _MOST_TEMPERATURES)]

    def _measured(self, length: _Reading) -> Iterator[Sample]:
        nearest = self._nearest(length.time)
        if nearest is not None and nearest.time == length.time:
            yield from self._compensated(length, nearest)
            return
        self._state.waiting.append(length)
        if len(self._state.waiting) > _MOST_WAITING:
            oldest = self._state.waiting.pop(0)
            yield from self._compensated(oldest, self._nearest(oldest.time))

    def _ticked(self, now: int) -> Iterator[Sample]:
        for length in self._state.waiting:
            if length.since is None:
                length.since = now

        def long_enough(length: _Reading, nearest: _Reading | None) -> bool:
            wait = self._config.within if nearest is None else abs(nearest.time - length.time)
            return length.since is not None and now - length.since >= wait

        yield from self._settle(long_enough)

    def _settle(self, final: Callable[[_Reading, _Reading | None], bool]) -> Iterator[Sample]:
        """What becomes of the lengths of which ``final`` says that no nearer temperature can come."""
        waiting, self._state.waiting = self._state.waiting, []
        for length in waiting:
            nearest = self._nearest(length.time)
            if final(length, nearest):
                yield from self._compensated(length, nearest)
            else:
                self._state.waiting.append(length)

    def _nearest(self, time: int) -> _Reading | None:
        """The temperature nearest in time, of two equally near the earlier; None when there is none ``within``."""
        temperatures = self._state.temperatures
        place = bisect_left(temperatures, time, key=_time)
        near = temperatures[max(0, place - 1) : place + 1]
        nearest = min(near, key=lambda temperature: abs(temperature.time - time), default=None)
        return nearest if nearest and abs(nearest.time - time) <= self._config.within else None

    def _compensated(self, length: _Reading, nearest: _Reading | None) -> Iterator[Sample]:
        """All that is given for one length that was measured."""
        quality, reason = length.quality, length.reason
        if not reason and nearest is None:
            within = format_duration(self._config.within)
            quality, reason = Quality.NOT_CONNECTED, f"{self._config.temperature} gave nothing within {within}"
        elif not reason and nearest is not None:
            quality, reason = min(quality, nearest.quality), nearest.reason
        warm = None if reason or nearest is None else nearest.value
        for form in self._lengths[length.tag]:
            yield from self._formed(form, length, warm, quality)
            yield from self._said(named(form.reason, form.source), length.time, reason)

    def _formed(self, form: Length, length: _Reading, temperature: float | None, quality: int) -> Iterator[Sample]:
        config, alpha = self._config, self._config.expansion_of(form)
        result = None if temperature is None else length_at_20(length.value, alpha, temperature)
        yield Sample(named(form.target, form.source), length.time, result, quality)
        if config.has_uncertainty:
            spread = (
                None
                if temperature is None
                else uncertainty(
                    length.value, alpha, temperature, config.temperature_uncertainty, config.expansion_uncertainty
                )
            )
            yield Sample(named(form.uncertainty, form.source), length.time, spread, quality)
        if form.limits is not None:
            inside = None if result is None else form.limits[0] <= result <= form.limits[1]
            yield Sample(named(form.ok, form.source), length.time, inside, quality)

    def _said(self, tag: str, time: int, reason: str) -> Iterator[Sample]:
        """The reason when it is another than last time."""
        if self._state.reasons.get(tag) != reason:
            self._state.reasons[tag] = reason
            yield Sample(tag, time, reason)


def _judged(tag: str, time: int, value: Value, quality: int) -> _Reading:
    """The value as a number, or why it is none that can be used."""
    reason = ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        quality, reason = _bad(quality, Quality.CONFIGURATION_ERROR), f"{tag} gave no number"
    elif not math.isfinite(value):
        quality, reason = _bad(quality, Quality.SENSOR_FAILURE), f"{tag} gave {value}"
    elif quality < Quality.UNCERTAIN:
        reason = f"{tag} was bad (quality {quality})"
    number = 0.0 if reason or not isinstance(value, int | float) else float(value)
    return _Reading(tag, time, number, quality, reason)


def _time(reading: _Reading) -> int:
    return reading.time


def _not_after(time: int, length: _Reading, _nearest: _Reading | None) -> bool:
    return length.time <= time


def _bad(quality: int, reason: Quality) -> int:
    """The quality if it is bad already, else the reason."""
    return quality if quality < Quality.UNCERTAIN else reason
