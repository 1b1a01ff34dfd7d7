"""Units that were judged otherwise later: scrap that was good after all, good units that turned out to be scrap.

A person says of a span of time how many of its units became what. Which ones these are nobody says: the first of
the span that are still the other thing. So each moves where it was made, into its own window, product and reason, no
window ever has less than none, and any split of time still sums to the whole.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shopfloor.kpi.account import OUTSIDE, Account, Quantity, TimeClass
from shopfloor.kpi.facts import Facts, Rejudged, Touched
from shopfloor.kpi.production import Production
from shopfloor.kpi.spec import Spec

Pieces = Callable[[int, int], Sequence[tuple[int, TimeClass]]]
"""As what the time from one moment to another counts: pieces by their beginnings."""


class Move(NamedTuple):
    """Units that are counted otherwise than the machine did."""

    time: int
    quantity: Quantity
    """Above 0: scrap became good; below 0: good units became scrap."""
    reason: str
    """Why they were scrap, or are."""
    unmatched: Quantity = 0
    """What was said of units that there were not; at the beginning of the span."""


@dataclass(slots=True)
class _Unit:
    time: int
    left: Quantity
    reason: str = ""


class Rework:
    """What people said of the units of one machine."""

    def __init__(self, spec: Spec, facts: Facts, production: Production) -> None:
        """A view of the facts: what comes in later is seen."""
        self._spec = spec
        self._facts = facts
        self._production = production

    def apply(self, account: Account, start: int, end: int, pieces: Pieces) -> None:
        """Count the units of a stretch as people say."""
        for span, said in self._together():
            if span.start < end and span.end > start:
                for move in self._moves(span, said, pieces):
                    if start <= move.time < end:
                        _moved(account, move)

    def reached(self, touched: Touched) -> Touched:
        """With the spans that a fact reaches into: which units were judged anew may change in all of them."""
        start, end = touched
        for span, _ in self._together():
            if span.start < end and span.end > start:
                start, end = min(start, span.start), max(end, span.end)
        return Touched(start, end)

    def _together(self) -> Iterator[tuple[Touched, list[Rejudged]]]:
        """Spans that overlap belong together: what was said later is about what was left then."""
        found: list[tuple[Touched, list[Rejudged]]] = []
        for one in sorted(self._facts.rejudged, key=lambda one: one.start):
            if found and one.start < found[-1][0].end:
                span, said = found[-1]
                found[-1] = Touched(span.start, max(span.end, one.end)), [*said, one]
            else:
                found.append((Touched(one.start, one.end), [one]))
        for span, said in found:
            yield span, sorted(said, key=lambda one: one.at)

    def _moves(self, span: Touched, said: Sequence[Rejudged], pieces: Pieces) -> Iterator[Move]:
        good, scrap = self._units(span, pieces)
        for one in said:
            left = one.quantity
            source, target = (scrap, good) if one.good else (good, scrap)
            for unit in sorted(source, key=lambda unit: unit.time):
                if not (one.start <= unit.time < one.end and unit.left > 0 and left > 0):
                    continue
                taken = min(unit.left, left)
                unit.left -= taken
                left -= taken
                reason = unit.reason if one.good else one.reason
                target.append(_Unit(unit.time, taken, "" if one.good else one.reason))
                yield Move(unit.time, taken if one.good else -taken, reason)
            if left:
                yield Move(one.start, 0, "", left)

    def _units(self, span: Touched, pieces: Pieces) -> tuple[list[_Unit], list[_Unit]]:
        """The good units and the scrap of a span, as the machine counted them in planned time."""
        classes = pieces(*span)
        starts = [start for start, _ in classes]
        good: list[_Unit] = []
        scrap: list[_Unit] = []
        for time, made, wasted, reason in self._production.judged(*span):
            place = bisect_right(starts, time) - 1
            if place < 0 or classes[place][1] in OUTSIDE:
                continue
            good.append(_Unit(time, made))
            scrap.append(_Unit(time, wasted, reason))
        return _settled(good), _settled(scrap)


def _settled(units: list[_Unit]) -> list[_Unit]:
    """What one tag took back of another's count is taken from the units before, else from those behind."""
    owed: Quantity = 0
    for unit in (*reversed(units), *units):
        if unit.left < 0:
            owed, unit.left = owed - unit.left, 0
        taken = min(unit.left, owed)
        unit.left -= taken
        owed -= taken
    return [unit for unit in units if unit.left > 0]


def _moved(account: Account, move: Move) -> None:
    account.good += move.quantity
    account.scrap -= move.quantity
    account.unmatched += move.unmatched
    if move.quantity > 0:
        account.to_good += move.quantity
    else:
        account.to_scrap -= move.quantity
    if move.quantity:
        account.scrapped(move.reason, -move.quantity)
        if not account.scraps[move.reason]:
            del account.scraps[move.reason]
