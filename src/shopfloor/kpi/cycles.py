"""The single cycles of a machine: from when to when, how long, and whether that says anything."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from shopfloor.kpi.account import Account, Quantity
from shopfloor.kpi.facts import BAD, NEVER, Facts, Known, Role
from shopfloor.kpi.orders import Orders
from shopfloor.kpi.production import Production
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.spread import CycleTimes
from shopfloor.kpi.timeline import quantity_of

Kind = Literal["cycle", "interrupted", "several"]
"""``cycle``: its length is known. ``interrupted``: it did not run all the time, or part of it is unknown.
``several``: more units came at once than one cycle makes; of none of them the cycle is known."""

ALL_RUNNING: Final[Callable[[int, int], bool]] = lambda _start, _end: True  # noqa: E731


class Cycle(NamedTuple):
    """What ended at one time. Times in ns UTC."""

    start: int
    end: int
    length: int
    """ns: what the machine itself says where it does, else from ``start`` to ``end``."""
    quantity: Quantity
    """How many units ended it; of a cycle that a signal tells, those that a cycle makes."""
    kind: Kind


class _End(NamedTuple):
    """A cycle before anybody looked whether the machine ran all the time."""

    since: int
    """From when on the machine must have run."""
    start: int
    end: int
    quantity: Quantity
    doubt: bool
    """Whether something may have been missed in between."""


class Cycles:
    """The cycles of one machine, as far as its facts tell."""

    def __init__(self, spec: Spec, facts: Facts, production: Production, orders: Orders) -> None:
        """A view of the facts: what comes in later is seen."""
        self._spec = spec
        self._facts = facts
        self._production = production
        self._orders = orders
        given = spec.roles
        self._signal: Role | None = "cycle_time" if "cycle_time" in given else "cycle" if "cycle" in given else None

    def between(self, start: int, end: int, ran: Callable[[int, int], bool]) -> Iterator[Cycle]:
        """The cycles that ended from ``start`` on, before ``end``; ``ran`` says if it ran all the time in between."""
        for one in self._ends(start, end):
            kind: Kind = "cycle"
            if one.quantity != self._spec.units_per_cycle:
                kind = "several"
            elif one.doubt or not ran(one.since, one.end):
                kind = "interrupted"
            yield Cycle(one.start, one.end, one.end - one.start, one.quantity, kind)

    def add(self, account: Account, start: int, end: int, ran: Callable[[int, int], bool]) -> None:
        """Count the cycles that ended in a stretch."""
        times = CycleTimes()
        for cycle in self.between(start, end, ran):
            if cycle.kind == "cycle":
                ideal = self._orders.ideal(cycle.end)
                times.took(cycle.length, None if ideal is None else round(ideal * self._spec.units_per_cycle))
            elif cycle.kind == "interrupted":
                times.interrupted += 1
            else:
                times.several += cycle.quantity
            account.cycles = times

    def after(self, time: int) -> int | None:
        """When the first cycle ended at or after ``time``; None: none has yet."""
        if self._signal is not None:
            return next((one.end for one in self._ends(time, NEVER)), None)
        found = (next(self._production.units(role, time, NEVER), None) for role in self._spec.producing)
        return min((unit.time for unit in found if unit is not None), default=None)

    # --- what ends a cycle

    def _ends(self, start: int, end: int) -> Iterator[_End]:
        if self._signal == "cycle_time":
            return self._said(start, end)
        return self._by_signal(start, end) if self._signal == "cycle" else self._by_units(start, end)

    def _said(self, start: int, end: int) -> Iterator[_End]:
        """Each value is a cycle that has just ended, and how long it took."""
        line = self._facts.lines["cycle_time"]
        last = max(line.last(start - 1), 0)
        for time, value in line.between(start, end):
            length = _length(value, self._spec.cycle_unit)
            if length is not None:
                # Where the PLC says it a little late, the cycle before is none of this one's.
                yield _End(max(time - length, last), time - length, time, self._spec.units_per_cycle, doubt=False)
            last = time

    def _by_signal(self, start: int, end: int) -> Iterator[_End]:
        """From one edge to the next."""
        line = self._facts.lines["cycle"]
        edges = (time for time, value in line.back(start) if self._edge(time, value))
        last = next(edges, None)
        for time, value in zip(*line.changes(start, end), strict=True):
            if not self._edge(time, value):
                continue
            if last is not None:
                yield _End(last, last, time, self._spec.units_per_cycle, self._doubtful(last, time))
            last = time

    def _edge(self, time: int, value: Known) -> bool:
        """Whether a change of the signal is the edge at which a cycle ends; after a gap nobody saw it."""
        line = self._facts.lines["cycle"]
        since = line.last(time - 1)
        if since < 0 or self._facts.missed("cycle", since, time):
            return False
        now, before = quantity_of(value), quantity_of(line.value_at(since))
        if now is None or before is None:
            return False
        return bool(before) and not now if self._spec.cycle_falls else bool(now) and not before

    def _doubtful(self, since: int, until: int) -> bool:
        """Whether the signal was bad between two edges, or something may have been missed."""
        _, told = self._facts.lines["cycle"].changes(since, until)
        return any(quantity_of(value) is None for value in told) or self._facts.broken("cycle", since, until)

    def _by_units(self, start: int, end: int) -> Iterator[_End]:
        """From one unit to the next."""
        before = [time for role in self._spec.producing if (time := self._production.last(role, start)) is not None]
        last = max(before, default=None)
        doubts = [] if last is None else list(self._doubts(last, end))
        made: dict[int, tuple[Quantity, bool]] = {}
        for role in self._spec.producing:
            for unit in self._production.units(role, start, end):
                quantity, beyond = made.get(unit.time, (0, False))
                made[unit.time] = quantity + unit.quantity, beyond or unit.beyond
        for time, (quantity, beyond) in sorted(made.items()):
            if last is None:
                doubts = list(self._doubts(time, end))
            else:
                doubt = beyond or bisect_right(doubts, time) > bisect_right(doubts, last)
                yield _End(last, last, time, quantity, doubt)
            last = time

    def _doubts(self, start: int, end: int) -> Iterator[int]:
        """Until when units may have been missed that a pulse or an event told; a counter tells them afterwards."""
        if self._spec.counting == "counter":
            return
        found: set[int] = set()
        for role in self._spec.producing:
            line = self._facts.lines[role]
            before = line.last(start)
            known = before < 0 or quantity_of(line.value_at(before)) is not None
            for time, value in line.between(start + 1, end):
                counts = quantity_of(value) is not None
                if not (known and counts) or (before >= 0 and self._facts.missed(role, before, time)):
                    found.add(time)
                before, known = time, counts
        yield from sorted(found)


def _length(value: Known, unit: int) -> int | None:
    """How long a cycle took, ns; None for what is no time, and for 0: the PLC has none yet."""
    number = None if value is BAD or isinstance(value, bool) else quantity_of(value)
    return round(number * unit) or None if number else None


def running_throughout(stretches: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    """Whether nothing of ``stretches`` (in order, without overlap) lies in the time from ``start`` to ``end``."""
    place = bisect_right(stretches, start, key=lambda stretch: stretch[1])
    return place == len(stretches) or stretches[place][0] >= end
