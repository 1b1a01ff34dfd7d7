"""Reading a PLC again and again: scan groups with a rate of their own, report by exception, overruns counted.

A connector for a protocol that only answers gives a function that reads some of its tags; the scanner asks it at the
rate of each group, and makes batches of what changed.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator

from shopfloor.plant.components import SourceConfig, Strict, TagName
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.samples import Batch, TagInfo, Value
from shopfloor.sources.changes import Changes, Column
from shopfloor.sources.reading_ahead import ReadAhead

_SECOND: Final = DURATION_UNITS["s"]
_TOLD_EVERY: Final = 1.0
"""Seconds between two samples of how many reads were left out."""

_AGAIN_AFTER: Final = 0.1
"""Seconds until a task that has not ended is told so again."""

_log: Final = logging.getLogger(__name__)


Read = Callable[[tuple[int, ...]], Awaitable[Sequence[Column]]]
"""Reads the tags at these places of the configuration's list, each in one of the columns. Raises Unavailable,
Misconfigured. A scan group always asks with the same places."""
Watch = Callable[[], Coroutine[Any, Any, None]]
"""Runs beside the reads and raises Unavailable when it sees that the connection is lost."""


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

    def __init__(
        self, config: ScannedConfig, read: Read, clock: Callable[[], int] = time.time_ns, watch: Watch | None = None
    ) -> None:
        """``clock`` gives ns UTC; the rates go by the event loop's own time."""
        places: dict[int, list[int]] = defaultdict(list)
        for place, tag in enumerate(config.tags):
            places[tag.rate or config.rate].append(place)
        changes = Changes(
            config.name,
            [tag.tag for tag in config.tags],
            deadbands={place: tag.deadband for place, tag in enumerate(config.tags) if tag.deadband is not None},
            scales={place: tag.scale.from_raw for place, tag in enumerate(config.tags) if tag.scale is not None},
            heartbeat=config.heartbeat,
        )
        overruns = Overruns(config.name)
        self._groups = [
            _Group(rate, tuple(group), read, changes, overruns, clock) for rate, group in sorted(places.items())
        ]
        self._watch = watch

    async def batches(self) -> AsyncGenerator[Batch]:
        """What changed, for ever. Raises what ``read`` and ``watch`` raise.

        Reads go on while a batch becomes durable, within the limits of ``ReadAhead``, so that a slow disk makes no read
        late; what they give meanwhile is the next batch.
        """
        ahead = ReadAhead()
        work: list[Coroutine[Any, Any, None]] = [group.read_on(ahead) for group in self._groups]
        if self._watch is not None:
            work.append(self._watch())
        tasks = [asyncio.create_task(one) for one in work]
        for task in tasks:
            task.add_done_callback(lambda _: ahead.wake())
        try:
            while True:
                batch = await ahead.take()
                if batch is not None:
                    yield batch
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel them until they have ended: the ``wait_for`` of Python 3.11, which libraries use, can swallow one."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_AFTER)
    await asyncio.gather(*tasks, return_exceptions=True)  # so that nobody complains of an error that was not asked for


_NO_HICCUP: Final = 5
"""Reads that are too slow, after which it is said: a single one is a machine that was busy, and is only counted."""


class Overruns:
    """Reads of a source that were left out since the connection, because others took longer than their rate."""

    def __init__(self, source: str) -> None:
        """None so far."""
        self._source = source
        self._late = 0
        """Reads that took longer than their rate."""
        self._count = 0
        self._said = 0
        self._say_at = 0.0

    def add(self, missed: int, tags: int, rate: float) -> None:
        """Count reads that a group of so many tags and this rate (s) has left out; logged when it is no hiccup."""
        self._late += missed > 0
        if missed and self._late == _NO_HICCUP:
            _log.warning(
                "%s: %d tags cannot be read every %g s; reads are left out and counted in $source/%s/overruns",
                self._source, tags, rate, self._source,
            )  # fmt: skip
        self._count += missed

    @property
    def due(self) -> bool:
        """Whether there are some to tell, at most once a second: telling each would cost as much as a read."""
        return self._count > self._said and asyncio.get_running_loop().time() >= self._say_at

    def told(self, now: int) -> Batch:
        """The count as a sample."""
        self._said, self._say_at = self._count, asyncio.get_running_loop().time() + _TOLD_EVERY
        return Batch(self._source, now, [f"$source/{self._source}/overruns"], [now], [self._count])


class _Group:
    """The tags of one rate."""

    def __init__(
        self,
        rate: int,
        places: tuple[int, ...],
        read: Read,
        changes: Changes,
        overruns: Overruns,
        clock: Callable[[], int],
    ) -> None:
        self._places = places
        self._rate = rate / _SECOND
        self._read = read
        self._changes = changes
        self._overruns = overruns
        self._clock = clock
        self._due = asyncio.get_running_loop().time()
        self._before: Sequence[Column] = ()

    async def read_on(self, ahead: ReadAhead) -> None:
        """Read at the rate, for ever, and put what changed."""
        while True:
            await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))
            columns = await self._read(self._places)
            if sum(len(one.places) for one in columns) != len(self._places):
                raise RuntimeError(f"a read of {len(self._places)} tags gave others")
            self._schedule()
            batch = self._changes.of(columns, self._before, self._clock())
            self._before = columns
            if len(batch):
                await ahead.put(batch)
            if self._overruns.due:
                await ahead.put(self._overruns.told(self._clock()))

    def _schedule(self) -> None:
        """The next read on the grid of the rate; a read that took longer than that leaves some out."""
        now = asyncio.get_running_loop().time()
        steps = max(1, int((now - self._due) / self._rate) + 1)
        self._due += steps * self._rate
        self._overruns.add(steps - 1, len(self._places), self._rate)
