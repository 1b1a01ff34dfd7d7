"""Reading a PLC again and again: scan groups with a rate of their own, report by exception, overruns counted.

A connector for a protocol that only answers gives a function that reads some of its tags; the scanner asks it at the
rate of each group, and makes batches of what changed.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Annotated, Final, NamedTuple, Self

from pydantic import Field, model_validator

from shopfloor.plant.components import SourceConfig, Strict, TagName
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.samples import Batch, Quality, TagInfo, Value
from shopfloor.sources.changes import changed

_SECOND: Final = DURATION_UNITS["s"]

_log: Final = logging.getLogger(__name__)


class Reading(NamedTuple):
    """What a read gave for one tag; ``value`` None with a bad quality where it could not be read."""

    value: Value
    quality: int = Quality.GOOD
    status: int = 0
    """The protocol's own status code; 0: none."""


Read = Callable[[Sequence[int]], Awaitable[Sequence[Reading]]]
"""Reads the tags at these places of the configuration's list, in this order. Raises Unavailable, Misconfigured."""


class Scale(Strict):
    """Raw numbers into engineering units, straight: `raw: [0, 27648]` stands for `scaled: [0, 400]`."""

    raw: tuple[float, float] = Field(description="Two raw values, e.g. `[0, 27648]`.")
    scaled: tuple[float, float] = Field(description="What they stand for, e.g. `[0, 400]`.")

    @model_validator(mode="after")
    def _two_points(self) -> Self:
        for name, (first, second) in (("raw", self.raw), ("scaled", self.scaled)):
            if first == second:
                raise ValueError(f"the two values of `{name}` are the same; two different ones are needed")
        return self

    def from_raw(self, value: Value) -> Value:
        """The value in engineering units; what is no number stays as it is."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        return _straight(value, self.raw, self.scaled)

    def to_raw(self, value: Value) -> Value:
        """The raw value to be written for this one."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        return _straight(value, self.scaled, self.raw)


def _straight(value: float, of: tuple[float, float], to: tuple[float, float]) -> float:
    return to[0] + (value - of[0]) * (to[1] - to[0]) / (of[1] - of[0])


class ScannedTag(Strict):
    """What every tag of a scanned source has; a connector adds its address."""

    tag: TagName = Field(description="The tag's name, `machine/signal`.")
    unit: str = Field(default="", description="The unit of its values.")
    description: str = Field(default="", description="What it is.")
    rate: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description="How often it is read; else the source's. Tags of one rate are read together."
    )
    deadband: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Changes up to it are not recorded, in the tag's unit."
    )
    scale: Scale | None = Field(default=None, description="Raw numbers into engineering units.")
    writable: bool | None = Field(
        default=None, description="False refuses every command for it; otherwise the PLC decides."
    )


class ScannedConfig(SourceConfig):
    """What every scanned source has; a connector adds ``tags`` of its own kind."""

    tags: Sequence[ScannedTag]
    rate: Annotated[Duration, Field(gt=0)] = Field(default=_SECOND, description="How often tags are read.")
    heartbeat: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description="A tag that did not change for this long is recorded again; by default it is not."
    )

    @model_validator(mode="after")
    def _once(self) -> Self:
        seen: set[str] = set()
        for tag in self.tags:
            if tag.tag in seen:
                raise ValueError(f"the tag {tag.tag!r} stands in `tags` twice; keep one")
            seen.add(tag.tag)
        return self

    def declared(self) -> Sequence[TagInfo]:
        """The tags as the plant file lists them."""
        return [
            TagInfo(t.tag, self.address(t), unit=t.unit, description=t.description, writable=t.writable)
            for t in self.tags
        ]

    def address(self, tag: ScannedTag) -> str:
        """Where a tag is in the PLC, as the plant file writes it."""
        raise NotImplementedError(type(self).__name__)


class Scanner:
    """All scan groups of a source. Each reads in its own task, so a slow group does not hold a fast one up."""

    def __init__(self, config: ScannedConfig, read: Read, clock: Callable[[], int] = time.time_ns) -> None:
        """``clock`` gives ns UTC; the rates go by the event loop's own time."""
        places: dict[int, list[int]] = defaultdict(list)
        for place, tag in enumerate(config.tags):
            places[tag.rate or config.rate].append(place)
        self._name = config.name
        self._overruns = 0
        self._groups = [_Group(config, rate, group, read, clock) for rate, group in sorted(places.items())]

    async def batches(self) -> AsyncGenerator[Batch]:
        """What changed, a batch a read, for ever. Raises what ``read`` raises."""
        if not self._groups:
            await asyncio.Event().wait()
        pending = {asyncio.create_task(group.next()): group for group in self._groups}
        try:
            while True:
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    group = pending.pop(task)
                    yield self._with_overruns(group, task.result())
                    pending[asyncio.create_task(group.next())] = group
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _with_overruns(self, group: "_Group", batch: Batch) -> Batch:
        """The batch, and when reads took longer than their rate how many were left out since the connection."""
        missed = group.take_missed()
        if not missed:
            return batch
        self._overruns += missed
        tag = f"$source/{self._name}/overruns"
        return Batch(
            batch.source, batch.received, [*batch.tags, tag], [*batch.times, batch.received],
            [*batch.values, self._overruns], [*batch.qualities, Quality.GOOD],
            statuses=None if batch.statuses is None else [*batch.statuses, 0],
        )  # fmt: skip


class _Group:
    """The tags of one rate."""

    def __init__(
        self, config: ScannedConfig, rate: int, places: Sequence[int], read: Read, clock: Callable[[], int]
    ) -> None:
        self._source = config.name
        self._tags = [config.tags[place] for place in places]
        self._places = places
        self._rate = rate / _SECOND
        self._heartbeat = config.heartbeat
        self._read = read
        self._clock = clock
        self._due = asyncio.get_running_loop().time()
        self._names = [tag.tag for tag in self._tags]
        self._scales = [tag.scale for tag in self._tags]
        self._deadbands = [tag.deadband for tag in self._tags]
        self._said: list[Reading | None] = [None] * len(places)
        self._values: list[Value] = [None] * len(places)
        self._said_at = [0] * len(places)
        """What was reported last of each tag: as it was read, in engineering units, and when (ns UTC)."""
        self._missed = 0
        self._warned = False

    async def next(self) -> Batch:
        """Wait for the time, read, and give what changed; reads again until something did."""
        while True:
            await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))
            readings = await self._read(self._places)
            if len(readings) != len(self._places):
                raise RuntimeError(f"{len(readings)} readings for {len(self._places)} tags")
            self._schedule()
            batch = self._report(readings)
            if len(batch) or self._missed:
                return batch

    def take_missed(self) -> int:
        """Reads left out since this was asked last."""
        missed, self._missed = self._missed, 0
        return missed

    def _schedule(self) -> None:
        """The next read on the grid of the rate; a read that took longer than that leaves some out."""
        now = asyncio.get_running_loop().time()
        steps = max(1, int((now - self._due) / self._rate) + 1)
        self._due += steps * self._rate
        self._missed += steps - 1
        if steps > 1 and not self._warned:
            self._warned = True
            _log.warning(
                "%s: %d tags cannot be read every %g s; reads are left out and counted in $source/%s/overruns",
                self._source, len(self._tags), self._rate, self._source,
            )  # fmt: skip

    def _report(self, readings: Sequence[Reading]) -> Batch:
        now = self._clock()
        beat = -1 if self._heartbeat is None else now - self._heartbeat
        said, said_at, old, deadbands = self._said, self._said_at, self._values, self._deadbands
        news: list[int] = []
        for i, (reading, before, scale) in enumerate(zip(readings, said, self._scales, strict=True)):
            if reading is before and said_at[i] > beat:
                continue  # the very reading of before: it was not even decoded anew
            value = reading[0] if scale is None else scale.from_raw(reading[0])
            if (
                before is not None
                and said_at[i] > beat
                and reading[1] == before[1]
                and reading[2] == before[2]
                and not changed(old[i], value, deadbands[i])
            ):
                continue
            said[i], said_at[i], old[i] = reading, now, value
            news.append(i)
        statuses = [readings[i][2] for i in news]
        return Batch(
            self._source, now, [self._names[i] for i in news], [now] * len(news), [old[i] for i in news],
            [readings[i][1] for i in news], statuses=statuses if any(statuses) else None,
        )  # fmt: skip
