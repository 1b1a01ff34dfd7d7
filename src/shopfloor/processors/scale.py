"""Turns raw values into engineering units: times a factor plus an offset, or from one range to another."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from shopfloor.plant.components import ProcessorConfig, Strict, TagName
from shopfloor.samples import Batch, Quality, Sample, TagInfo, Value
from shopfloor.seams import Processor


class Scaling(Strict):
    """How one tag is made of another: `factor` and `offset`, or `raw` and `scaled`."""

    source: TagName = Field(alias="from", description="The tag that is read.")
    target: TagName = Field(alias="to", description="The tag that is given.")
    factor: float | None = Field(default=None, description="The value is multiplied by it; 1 by default.")
    offset: float | None = Field(default=None, description="It is added after multiplying; 0 by default.")
    raw: tuple[float, float] | None = Field(
        default=None, description="Lowest and highest raw value, e.g. `[0, 27648]`; see `outside` for others."
    )
    scaled: tuple[float, float] | None = Field(default=None, description="What they stand for, e.g. `[0, 400]`.")
    outside: Literal["uncertain", "clamp", "bad"] = Field(
        default="uncertain",
        description="What becomes of values outside `raw`: worked out all the same, `uncertain`; the end of `scaled`, "
        "uncertain too (`clamp`); or no value and `bad` quality, since a signal outside its range is a broken wire.",
    )
    unit: str = Field(default="", description="The unit of the tag that is given.")
    description: str = Field(default="", description="What the tag that is given means.")

    @model_validator(mode="after")
    def _one_way(self) -> "Scaling":
        if self.source == self.target:
            raise ValueError("`from` and `to` are the same tag; give the result a name of its own")
        if (self.raw is None) != (self.scaled is None):
            raise ValueError("`raw` and `scaled` belong together; give both, or `factor` and `offset`")
        if self.raw is not None and (self.factor is not None or self.offset is not None):
            raise ValueError("give either `raw` and `scaled` or `factor` and `offset`, not both")
        if self.raw is not None and self.raw[0] == self.raw[1]:
            raise ValueError("the ends of `raw` are the same; two different values are needed")
        if self.raw is None and self.outside != "uncertain":
            raise ValueError("`outside` is of `raw`; give `raw` and `scaled` instead of `factor` and `offset`")
        if self.raw is None and self.factor is None and self.offset is None:
            raise ValueError("says nothing; give `factor` and `offset`, or `raw` and `scaled`")
        if self.factor == 0:
            raise ValueError("`factor` is 0, so the result would never change; give another one")
        return self


class ScaleConfig(ProcessorConfig):
    """Turns raw values into engineering units, one new tag for each that it reads."""

    type: Literal["scale"] = "scale"
    tags: list[Scaling] = Field(min_length=1, description="The tags, one entry each.")

    def build(self) -> "ScaleProcessor":
        """The processor; it has no state."""
        return ScaleProcessor(self.tags)

    def inputs(self) -> Sequence[str]:
        """The tags that it reads."""
        return list(dict.fromkeys(scaling.source for scaling in self.tags))

    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives."""
        return [
            TagInfo(scaling.target, data_type="float", unit=scaling.unit, description=scaling.description)
            for scaling in self.tags
        ]


class ScaleProcessor(Processor):
    """Gives a scaled sample for each one that it reads, with the same time and quality.

    What is no finite number gives no value and bad quality: *configuration error* (4) for text, bytes
    and truth values, *sensor failure* (16) for NaN and infinity; a quality that is bad already stays.
    """

    def __init__(self, scalings: Sequence[Scaling]) -> None:
        """Built by ``ScaleConfig.build``."""
        self._scalings: dict[str, list[Scaling]] = defaultdict(list)
        for scaling in scalings:
            self._scalings[scaling.source].append(scaling)
        self._scalings.default_factory = None

    def process(self, batch: Batch) -> list[Sample]:
        """The scaled samples, in the order of what they are made of."""
        scalings = self._scalings
        return [
            _scaled(scaling, time, value, quality)
            for tag, time, value, quality in zip(batch.tags, batch.times, batch.values, batch.qualities, strict=True)
            if tag in scalings
            for scaling in scalings[tag]
        ]


def _scaled(scaling: Scaling, time: int, value: Value, quality: int) -> Sample:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Sample(scaling.target, time, None, _bad(quality, Quality.CONFIGURATION_ERROR))
    result = _line(scaling, value)
    if not math.isfinite(result):
        return Sample(scaling.target, time, None, _bad(quality, Quality.SENSOR_FAILURE))
    if scaling.raw is not None and not min(scaling.raw) <= value <= max(scaling.raw):
        return _exceeding(scaling, time, result, quality)
    return Sample(scaling.target, time, result, quality)


def _exceeding(scaling: Scaling, time: int, result: float, quality: int) -> Sample:
    """The sample of a raw value outside its range."""
    if scaling.outside == "bad":
        return Sample(scaling.target, time, None, _bad(quality, Quality.SENSOR_FAILURE))
    if scaling.outside == "clamp" and scaling.scaled is not None:
        result = min(max(result, min(scaling.scaled)), max(scaling.scaled))
    return Sample(scaling.target, time, result, min(quality, Quality.ENGINEERING_UNITS_EXCEEDED))


def _line(scaling: Scaling, value: float) -> float:
    if scaling.raw is None or scaling.scaled is None:
        factor = 1.0 if scaling.factor is None else scaling.factor
        return value * factor + (scaling.offset or 0.0)
    (low, high), (bottom, top) = scaling.raw, scaling.scaled
    return bottom + (value - low) / (high - low) * (top - bottom)


def _bad(quality: int, reason: Quality) -> int:
    """The quality if it is bad already, else the reason."""
    return quality if quality < Quality.UNCERTAIN else reason
