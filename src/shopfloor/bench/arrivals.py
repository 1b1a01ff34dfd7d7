"""The account of a load: what was said, what arrived and when; so what was lost, doubled or out of order.

A sample is known by its tag and its time: what is said carries a time that its device did not use before. What
arrives beside that (births without values, what turned stale) is none of it.
"""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

_MS: Final = 10**6
MOST_SAMPLES: Final = 100_000_000
"""An account takes 5 bytes a sample and 20 bytes a message, and as much as 8 bytes a sample at the end."""
_AT_ONCE: Final = 2**20
"""Samples that are counted up together at the end."""
_FRESH: Final = 10_000
"""Batches that ``recent`` looks at; nobody may ask."""


class Latency(msgspec.Struct, frozen=True):
    """Percentiles over samples, ms."""

    p50: float
    p95: float
    p99: float
    max: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the samples."""

    sent: int
    arrived_once: int
    lost: int
    doubled: int
    """Arrivals beyond the first, except where a birth told the sample once more."""
    out_of_order: int
    """Arrived for the first time after a newer sample of their tag."""
    latency: Latency | None
    """Of the first arrival of each; None when nothing arrived."""
    seconds: float
    """From the first that was said to the last that arrived."""

    @property
    def success(self) -> float:
        """The part that arrived exactly once; 1 is all."""
        return self.arrived_once / self.sent if self.sent else 0.0


class Account:
    """Of ``devices`` with ``metrics`` each, that say something up to ``turns`` times."""

    def __init__(self, devices: int, metrics: int, turns: int) -> None:
        """Raises ValueError when there is more than can be kept."""
        if devices * metrics * turns > MOST_SAMPLES:
            raise ValueError(
                f"{devices * metrics * turns:,} samples are more than the {MOST_SAMPLES:,} that are counted"
            )
        self.sent = 0
        """Samples."""
        self.arrived = 0
        """Samples that arrived at least once."""
        self._metrics = metrics
        self._said = np.zeros((turns, devices), np.int64)
        """When, ns; 0: not."""
        self._retold: dict[tuple[int, int], int] = {}
        self._counts = np.zeros((turns, devices * metrics), np.uint8)
        self._latencies = np.zeros((turns, devices * metrics), np.float32)
        self._times = [array("q") for _ in range(devices)]
        """Of each device, ascending, ns; the turns that they belong to beside them."""
        self._turns = [array("i") for _ in range(devices)]
        self._devices = devices
        self._newest = np.full(devices * metrics, -1, np.int64)
        self._out_of_order = 0
        self._fresh: deque[NDArray[np.float32]] = deque(maxlen=_FRESH)
        self._last = 0

    def said(self, device: int, turn: int, time: int, at: int) -> None:
        """All metrics of a device went to the network ``at``, ns, with this ``time``, ns, later than the one before."""
        self._said[turn, device] = at
        self._times[device].append(time)
        self._turns[device].append(turn)
        self.sent += self._metrics

    def retold(self, device: int, turn: int) -> None:
        """A birth tells what the device said in this turn once more."""
        self._retold[turn, device] = self._retold.get((turn, device), 0) + 1

    def arrive(self, tags: NDArray[np.uint32], times: NDArray[np.int64], at: int) -> None:
        """These samples, by number of tag and time in ns, arrived together at ``at``, ns."""
        every, turns = self._known(tags, times)
        if not len(every):
            return
        self._last = max(self._last, at)
        first = self._first(every, turns)
        np.add.at(self._counts, (turns, every), self._counts[turns, every] < np.iinfo(np.uint8).max)
        every, turns = every[first], turns[first]
        self._count_order(every, turns)
        latencies = ((at - self._said[turns, every // self._metrics]) / _MS).astype(np.float32)
        self._latencies[turns, every] = latencies
        self._fresh.append(latencies)
        self.arrived += len(every)

    def _known(self, tags: NDArray[np.uint32], times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Those that were said, with their turns."""
        numbers = tags.astype(np.int64)
        ours = numbers < self._devices * self._metrics
        numbers, times = numbers[ours], times[ours]
        if not len(numbers):
            return numbers, numbers
        # Metrics of a device come together, so a turn is looked up once for many samples.
        devices = numbers // self._metrics
        other = (np.diff(devices, prepend=-1) != 0) | (np.diff(times, prepend=-1) != 0)
        starts = np.flatnonzero(other)
        found = list(map(self._turn, devices[starts].tolist(), times[starts].tolist()))
        turns = np.repeat(np.array(found, np.int64), np.diff(starts, append=len(numbers)))
        known = turns >= 0
        return numbers[known], turns[known]

    def _turn(self, device: int, time: int) -> int:
        """The turn in which the device said something with this time; -1: in none."""
        times = self._times[device]
        position = bisect_left(times, time)
        return self._turns[device][position] if position < len(times) and times[position] == time else -1

    def _first(self, tags: NDArray[np.int64], turns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions, in order, of what did not arrive before, nor earlier among these."""
        _, positions = np.unique(turns * len(self._newest) + tags, return_index=True)
        positions.sort()
        fresh: NDArray[np.int64] = positions[self._counts[turns[positions], tags[positions]] == 0]
        return fresh

    def _count_order(self, tags: NDArray[np.int64], turns: NDArray[np.int64]) -> None:
        if not len(tags):
            return
        order = np.argsort(tags, kind="stable")
        tags, turns = tags[order], turns[order]
        # One rising line for each tag, each above that of the tag before: who is below the line came late.
        height = len(self._said) + 1
        line = np.maximum.accumulate(tags * height + np.maximum(turns, self._newest[tags]))
        self._out_of_order += int(np.count_nonzero(tags * height + turns < line))
        np.maximum.at(self._newest, tags, turns)

    def recent(self) -> Latency | None:
        """Of what arrived since the last call."""
        fresh = list(self._fresh)
        self._fresh.clear()
        return _percentiles(np.concatenate(fresh)) if fresh else None

    def outcome(self) -> Outcome:
        """How it stands."""
        once = lost = doubled = 0
        height = max(1, _AT_ONCE // len(self._newest))
        for begin in range(0, len(self._said), height):
            counts, beyond = self._counted(slice(begin, begin + height))
            once += int(np.count_nonzero((counts > 0) & (beyond == 0)))
            lost += int(np.count_nonzero(counts == 0))
            doubled += int(beyond.sum())
        some = self._said[self._said > 0]
        return Outcome(
            sent=self.sent,
            arrived_once=once,
            lost=lost,
            doubled=doubled,
            out_of_order=self._out_of_order,
            latency=_percentiles(self._latencies[self._counts > 0]),
            seconds=(self._last - int(some.min())) / 1e9 if len(some) and self._last else 0.0,
        )

    def _counted(self, turns: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each sample that was said in these turns: how often it arrived, and how often more than it was said."""
        said = np.repeat(self._said[turns] > 0, self._metrics, axis=1)
        expected = np.ones(said.shape, np.int64)
        for (turn, device), more in self._retold.items():
            if turns.start <= turn < turns.stop:
                expected[turn - turns.start, device * self._metrics : (device + 1) * self._metrics] += more
        counts = self._counts[turns][said].astype(np.int64)
        return counts, np.maximum(0, counts - expected[said])


def _percentiles(latencies: NDArray[np.float32]) -> Latency | None:
    if not len(latencies):
        return None
    found: Iterable[float] = np.percentile(latencies, [50, 95, 99, 100], overwrite_input=True).tolist()
    return Latency(*(round(value, 2) for value in found))
