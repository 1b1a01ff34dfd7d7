"""Every single cycle, given once, and again when late data shows it otherwise."""

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from shopfloor.kpi.account import Quantity
from shopfloor.kpi.calendar import Calendar
from shopfloor.kpi.cycles import Cycle
from shopfloor.kpi.facts import Touched
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.news import News
from shopfloor.kpi.windows import Windows


class Single(NamedTuple):
    """A cycle with what was made in it. Times in ns UTC."""

    cycle: Cycle
    good: Quantity
    scrap: Quantity
    product: str
    order: str
    ideal: int | None
    """How long it should have taken, ns; None: nobody knows."""


class Singles:
    """Which cycles of a machine were given. Of each only the end is kept, and a mark that tells what was said of it."""

    def __init__(self, machine: Machine, windows: Windows, calendar: Calendar) -> None:
        """``windows`` are those of the machine."""
        self._machine = machine
        self._windows = windows
        self._calendar = calendar
        self._ends = array("q")
        self._marks = array("Q")
        self._news = News()
        self._now = 0
        windows.forgetting.append(self._forget)

    def touch(self, touched: Touched) -> None:
        """A fact came that may change this time."""
        self._news.add(touched, "")

    def tick(self, now: int) -> list[tuple[int, Single | None]]:
        """The cycles that ended since, and those that are otherwise than they were given; None: there was none."""
        if not self._windows.begun:
            return []
        spans = [
            self._machine.affected(touched._replace(start=min(touched.start, now - 1)), now)
            for touched, _ in self._news.take()
        ]
        if self._now:
            spans.append(Touched(self._now, now))
        self._now = now
        found: list[tuple[int, Single | None]] = []
        for start, end in _joined(spans, self._windows.begin, now):
            found += self._again(start, end, now)
        return found

    def _again(self, start: int, end: int, now: int) -> Iterator[tuple[int, Single | None]]:
        """Look at a span of time again: what is otherwise, in the order of the cycles' ends."""
        first, last = bisect_left(self._ends, start), bisect_left(self._ends, end)
        before = dict(zip(self._ends[first:last], self._marks[first:last], strict=True))
        singles = {single.cycle.end: single for single in self._singles(start, end, now)}
        marks = {at: _mark(single) for at, single in singles.items()}
        self._ends[first:last] = array("q", marks)
        self._marks[first:last] = array("Q", marks.values())
        for at in sorted({*before, *marks}):
            if before.get(at) != marks.get(at):
                yield at, singles.get(at)

    def _singles(self, start: int, end: int, now: int) -> Iterator[Single]:
        machine = self._machine
        cycles = list(machine.timed(start, end, self._calendar, now))
        made = machine.production.between(cycles[0].start + 1, end) if cycles else []
        times = [time for time, _, _ in made]
        for cycle in cycles:
            units = made[bisect_left(times, cycle.start + 1) : bisect_left(times, cycle.end + 1)]
            ideal = machine.orders.ideal(cycle.end)
            yield Single(
                cycle,
                sum(good for _, good, _ in units),
                sum(scrap for _, _, scrap in units),
                machine.orders.at("product", cycle.end),
                machine.orders.at("order", cycle.end),
                None if ideal is None else round(ideal * machine.spec.units_per_cycle),
            )

    def _forget(self, floor: int, _now: int) -> None:
        cut = bisect_left(self._ends, floor)
        del self._ends[:cut], self._marks[:cut]

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {
            "plan": self._windows.plan(),
            "ends": self._ends.tobytes(),
            "marks": self._marks.tobytes(),
            "news": self._news.dump(),
            "now": self._now,
        }

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave; where plant file or formula were changed since, everything is looked at again."""
        self._ends, self._marks = array("q", known["ends"]), array("Q", known["marks"])
        self._news.load(known["news"])
        self._now = known["now"]
        if self._windows.outdated(known["plan"]) and self._ends:
            self._news.add(Touched(self._ends[0], self._now), "")


def _mark(single: Single) -> int:
    said = msgspec.msgpack.encode(single)
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest())


def _joined(spans: list[Touched], begin: int, now: int) -> Iterator[tuple[int, int]]:
    """The spans from ``begin`` to ``now`` in order, those that overlap as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        first, last = max(start, begin), min(end, now)
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        elif first < last:
            found.append((first, last))
    yield from found
