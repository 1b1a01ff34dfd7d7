"""How many units were made: from pulses, from cumulative counters with rollover and reset, from unit events."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import le
from typing import Literal, NamedTuple, cast

from shopfloor.kpi.account import Quantity
from shopfloor.kpi.facts import BAD, Timeline
from shopfloor.kpi.timeline import quantity_of

Counting = Literal["counter", "pulse", "event"]


class Units(NamedTuple):
    """Units that were counted at one time."""

    time: int
    quantity: Quantity
    beyond: bool
    """Whether they were made over time of which nothing is known, so that nobody knows when."""


def units(
    timeline: Timeline,
    start: int,
    end: int,
    *,
    counting: Counting = "counter",
    modulus: int | None = None,
    gap: Callable[[int, int], bool] | None = None,
) -> Iterator[Units]:
    """What was counted from ``start`` on, before ``end``; what was before ``start`` is looked at as the baseline.

    ``gap`` says whether between two times something may have been missed; None: nothing was. Samples of bad quality
    and such that are no count move nothing.
    """
    if counting == "event":
        yield from _events(timeline, start, end, gap)
        return
    _, last, doubt = baseline(timeline, start)
    for time, value in zip(*timeline.changes(start, end), strict=True):
        now = quantity_of(value)
        if now is None:
            doubt = True
            continue
        if last is not None:
            missed = doubt or (gap is not None and gap(timeline.last(time - 1), time))
            if counting == "pulse":
                # After a gap the level is a baseline: nobody saw it rise.
                if now and not last and not missed:
                    yield Units(time, 1, beyond=False)
            elif increase := increased(last, now, modulus):
                yield Units(time, increase, beyond=missed)
        last, doubt = now, False


def _events(timeline: Timeline, start: int, end: int, gap: Callable[[int, int], bool] | None) -> Iterator[Units]:
    """Units that each sample tells for itself. The first one behind a gap ended in time of which nothing is known."""
    since = timeline.last(start - 1)
    known = since >= 0 and quantity_of(timeline.value_at(since)) is not None
    for time, value in timeline.between(start, end):
        quantity = quantity_of(value)
        if quantity:
            yield Units(time, quantity, beyond=not known or (gap is not None and gap(since, time)))
        since, known = time, quantity is not None


def increased(last: Quantity, now: Quantity, modulus: int | None) -> Quantity:
    """How much a cumulative counter went on from one value to the next.

    A smaller value is a rollover when ``modulus`` is known and the way over it is the shorter half of the
    circle; else the counter was reset and began again at 0.
    """
    if now >= last:
        return now - last
    if modulus is not None and last < modulus and (over := now - last + modulus) < modulus / 2:
        return over
    return now


def rise(timeline: Timeline, start: int, end: int) -> int | None:
    """By how much a counter went on from ``start`` on, before ``end``, where it is plain: whole numbers that only rise.

    None where it is not so plain, or a bad value was among them. Nobody may have missed anything in between.
    """
    _, counts = timeline.changes(start, end)
    if not counts:
        return 0
    _, last, doubt = baseline(timeline, start)
    if doubt or not isinstance(last, int) or set(map(type, counts)) != {int}:
        return None
    rising = cast("Sequence[int]", counts)
    if rising[0] < last or not all(map(le, rising, islice(rising, 1, None))):
        return None
    return rising[-1] - last


def baseline(timeline: Timeline, start: int) -> tuple[int, Quantity | None, bool]:
    """The last count before ``start``: its time, the count, and whether a bad value followed it."""
    doubt = False
    since = timeline.last(start - 1)
    for time, value in timeline.back(start):
        found = None if value is BAD else quantity_of(value)
        if found is not None:
            return since, found, doubt
        doubt = True
        since = timeline.last(time - 1)
    return start, None, False
