"""How many units a machine made, when, and what they would have taken."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, cast

from shopfloor.kpi.account import OUTSIDE, Account, Quantity, TimeClass
from shopfloor.kpi.counting import Units, rise, units
from shopfloor.kpi.facts import NEVER, Facts, Known, Role
from shopfloor.kpi.orders import Orders
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import key
from shopfloor.kpi.timeline import quantity_of

_TREATED: Final = {TimeClass.UNKNOWN: TimeClass.UNKNOWN} | dict.fromkeys(OUTSIDE, TimeClass.NOT_SCHEDULED)


class Production:
    """The units of one machine, as far as its facts tell."""

    def __init__(self, spec: Spec, facts: Facts) -> None:
        """A view of the facts: what comes in later is seen."""
        self._spec = spec
        self._facts = facts
        self._counted, self._producing = spec.counted, spec.producing
        self.orders = Orders(spec, facts)

    def units(self, role: Role, start: int, end: int) -> Iterator[Units]:
        """What a tag counted from ``start`` on, before ``end``."""
        spec = self._spec
        line = self._facts.lines[role]
        return units(line, start, end, counting=spec.counting, modulus=spec.modulus, gap=self._gap(role, start))

    def _gap(self, role: Role, start: int) -> Callable[[int, int], bool] | None:
        facts = self._facts
        if self._spec.counting == "event":  # who tells each unit has made none while he is silent
            return lambda since, until: facts.away(role, since, until)
        if facts.whole(role, facts.lines[role].last(start - 1)):
            return None
        return lambda since, until: facts.missed(role, since, until)

    def between(self, start: int, end: int) -> list[tuple[int, Quantity, Quantity]]:
        """When how many good units and how much scrap were counted, from ``start`` on, before ``end``."""
        found: dict[int, dict[Role, Quantity]] = {}
        for role in self._counted:
            for unit in self.units(role, start, end):
                made = found.setdefault(unit.time, {"good": 0, "scrap": 0, "total": 0})
                made[role] += unit.quantity
        return [(time, *self._split(made)) for time, made in sorted(found.items())]

    def judged(self, start: int, end: int) -> Iterator[tuple[int, Quantity, Quantity, str]]:
        """As ``between``, with the reason of the scrap."""
        return ((time, good, scrap, self._why(time)) for time, good, scrap in self.between(start, end))

    def times(self, start: int, end: int) -> list[int]:
        """When units were counted, each time once."""
        return sorted({unit.time for role in self._counted for unit in self.units(role, start, end)})

    def before(self, time: int) -> int | None:
        """When the last unit before ``time`` was counted."""
        latest: int | None = None
        for role in self._counted:
            found = self.last(role, time, -1 if latest is None else latest)
            latest = latest if found is None else found
        return latest

    def last(self, role: Role, time: int, after: int = -1) -> int | None:
        """When a tag counted a unit last before ``time``; None where that was not after ``after``."""
        line, until = self._facts.lines[role], time
        for change, value in line.back(time):
            if until - 1 <= after:
                return None
            if self._spec.counting == "event":
                found = line.last(until - 1) if quantity_of(value) else None
            else:
                found = change if any(self.units(role, change, change + 1)) else None
            if found is not None:
                return found if found > after else None
            until = change
        return None

    def after(self, time: int) -> int | None:
        """When the first unit at or after ``time`` was counted."""
        found = (next(self.units(role, time, NEVER), None) for role in self._counted)
        return min((unit.time for unit in found if unit is not None), default=None)

    def account(self, account: Account, starts: Sequence[int], names: Sequence[TimeClass], end: int) -> None:
        """Add the units of a stretch, whose pieces begin at ``starts`` and count as ``names``."""
        if not starts or not self._counted:
            return
        pace = self._counted[0]
        plain = self._plain(pace, starts[0], end)
        if silent := self._silent(pace, starts[0], end, plain):
            starts, names = _left_out(account, starts, names, end, silent)
        made: dict[Role, Quantity] = {"good": 0, "scrap": 0, "total": 0}
        spans = list(_spans(starts, names, end))
        for role in self._counted:
            producing = role in self._producing
            for start, until, name in spans:
                for found in self._told(role, start, until, plain if role == pace and len(spans) == 1 else None):
                    if name in OUTSIDE:
                        account.outside += found.quantity if producing else 0
                        continue
                    made[role] += found.quantity
                    if role == "scrap":
                        account.scrapped(self._why(found.time), found.quantity)
                    if producing:
                        self._perform(account, found, name)
        account.good, account.scrap = self._split(made)

    def _plain(self, role: Role, start: int, end: int) -> int | None:
        """By how much a counter went on, where that is plain and nothing may have been missed."""
        if self._spec.counting != "counter":
            return None
        if self._gap(role, start) is not None and not self._facts.unbroken(role, start - 1, end):
            return None
        return rise(self._facts.lines[role], start, end)

    def _silent(self, role: Role, start: int, end: int, plain: int | None) -> list[tuple[int, int]]:
        """When nothing is known of a counter: its source is away, it is bad, or it has said nothing yet.

        Nearly always there is no such time: ``plain`` says that it only rose.
        """
        line = self._facts.lines[role]
        if plain:
            return []
        stale = self._spec.counting != "event"
        if self._facts.unbroken(role, start, end, stale=stale):
            _, values = line.changes(start + 1, end)
            if _all_counts((line.value_at(start), *values)):
                return []
        silent: list[tuple[int, int]] = []
        at = start
        for begin, until, value in self._facts.told(role, start, end, stale=stale):
            if quantity_of(value) is None:
                continue
            if begin > at:
                silent.append((at, begin))
            at = until
        return [*silent, (at, end)] if at < end else silent

    def _told(self, role: Role, start: int, end: int, plain: int | None) -> Iterator[Units]:
        """The units of a span; of one product and one reason of scrap as one, where they are plain.

        ``plain``: by how much the counter went on in it; None: that is to be found out.
        """
        if self._spec.counting != "counter":
            yield from self.units(role, start, end)
            return
        cuts = {start, end}
        if self.orders.told:
            cuts.update(part.start for part in self.orders.parts(start, end))
        if role == "scrap" and "scrap_reason" in self._facts.lines:
            cuts.update(self._facts.lines["scrap_reason"].changes(start + 1, end)[0])
        for first, last in pairwise(sorted(cuts)):
            more = plain if plain is not None and len(cuts) == 2 else self._plain(role, first, last)  # noqa: PLR2004
            if more is None:
                yield from self.units(role, first, last)
            elif more:
                yield Units(first, more, beyond=False)

    def _split(self, made: dict[Role, Quantity]) -> tuple[Quantity, Quantity]:
        """Good and scrap out of whatever two of the three counts there are."""
        roles = self._spec.roles
        if "total" not in roles:
            return made["good"], made["scrap"]
        if "scrap" not in roles and "good" in roles:
            return made["good"], made["total"] - made["good"]
        return made["total"] - made["scrap"], made["scrap"]

    def _perform(self, account: Account, unit: Units, name: TimeClass) -> None:
        """Units of time that is not known cannot be set against the time that they took."""
        if unit.beyond or name is TimeClass.UNKNOWN:
            account.beyond += unit.quantity
        elif (ideal := self.orders.ideal(unit.time)) is not None:
            account.ideal += round(ideal * unit.quantity)
        else:
            account.without_ideal += unit.quantity

    def _why(self, time: int) -> str:
        code = key(self._facts.value_at("scrap_reason", time))
        return "" if code in (None, "", "0") else self._spec.scrap_reasons.get(code, code)


def _all_counts(values: Sequence[Known]) -> bool:
    """Whether each of these can be a count; whole numbers, of which there are many, are looked at as one."""
    if set(map(type, values)) == {int}:
        return min(cast("Sequence[int]", values)) >= 0
    return all(quantity_of(value) is not None for value in values)


def _left_out(
    account: Account, starts: Sequence[int], names: Sequence[TimeClass], end: int, silent: Sequence[tuple[int, int]]
) -> tuple[list[int], list[TimeClass]]:
    """Note how long the counter was not known; the pieces again, in which that time is as unknown to units."""
    edges = [edge for span in silent for edge in span]
    marks = sorted({*starts, *edges} - {end})
    kinds: list[TimeClass] = []
    for begin, until in pairwise((*marks, end)):
        name = names[bisect_right(starts, begin) - 1]
        if bisect_right(edges, begin) % 2:
            if name is TimeClass.PRODUCTION:
                account.uncounted += until - begin
            elif name is TimeClass.MINOR_STOP:
                account.uncounted_minor += until - begin
            name = name if name in OUTSIDE else TimeClass.UNKNOWN
        kinds.append(name)
    return marks, kinds


def _spans(starts: Sequence[int], names: Sequence[TimeClass], end: int) -> Iterator[tuple[int, int, TimeClass]]:
    """Pieces joined where their units count alike: the class matters only outside of planned time and where unknown."""
    kinds = [_TREATED.get(name, TimeClass.PRODUCTION) for name in names]
    first = 0
    for place in range(1, len(kinds)):
        if kinds[place] is not kinds[first]:
            yield starts[first], starts[place], kinds[first]
            first = place
    if kinds:
        yield starts[first], end, kinds[first]
