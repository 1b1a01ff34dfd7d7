"""What a historian answers, whichever database keeps it."""

from abc import abstractmethod
from array import array
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from shopfloor.samples import Sample, Value
from shopfloor.seams import Sink

Aggregate = Literal["avg", "min", "max", "first", "last", "count", "twa", "interpolated"]
"""How a bucket is summed up. ``twa``: time-weighted average, each value holding until the next
(OPC UA Part 13 TimeAverage, stepped). ``interpolated``: the value at the bucket's begin, on the
straight line between its neighbours. Both are null where a bucket has no good value to stand on."""

AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)


class Series(msgspec.Struct, frozen=True):
    """One tag's values in time order, as columns of equal length."""

    tag: str
    times: "array[int]"
    """ns UTC; for aggregates the begin of the bucket."""
    values: Sequence[Value]
    qualities: "array[int]"
    """OPC quality; for aggregates the worst quality of the bucket."""
    truncated: bool = False
    """Whether ``limit`` cut the series; ask again from the last time."""


class Size(msgspec.Struct, frozen=True):
    """What the store holds."""

    rows: int
    size: int
    """Bytes on disk."""
    oldest: int | None
    """ns UTC of the oldest sample, None when empty."""


class Historian(Sink):
    """The long-term store: a sink that can be asked.

    Bad and uncertain values are kept with their quality; aggregates are computed over good values
    only and carry the worst quality of their bucket. All times are ns UTC, intervals half open:
    start <= time < end.
    """

    @abstractmethod
    async def latest(self, tags: Sequence[str] | None = None) -> list[Sample]:
        """The newest sample (by its own time) of each of these tags that has one; of every tag by default."""

    @abstractmethod
    async def history(self, tag: str, start: int, end: int, limit: int = 100_000) -> Series:
        """The raw samples of a tag, at most ``limit`` of them."""

    @abstractmethod
    async def aggregate(
        self, tag: str, start: int, end: int, every: int, function: Aggregate, timezone: str = "UTC"
    ) -> Series:
        """One value per bucket of ``every`` ns that has samples (``count``, ``twa``, ``interpolated``: every bucket).

        Buckets of a day or more start at midnight in ``timezone`` (a DST day has its true length),
        shorter ones at whole multiples of ``every`` from that midnight. Raises ValueError for an
        unknown time zone, for ``every`` below 1 ms, or for more than 100,000 buckets.
        """

    @abstractmethod
    async def tags(self) -> list[str]:
        """Every tag that has a sample, sorted."""

    @abstractmethod
    async def maintain(self, now: int) -> None:
        """Drop what is older than ``keep``, sort and compress closed hours; safe to call at any time.

        The pipeline calls it every minute; it must never delay ``write`` or a query noticeably.
        """

    @abstractmethod
    async def size(self) -> Size:
        """How much is stored."""
