"""How many units a machine made, when, and what they would have taken."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from shopfloor.kpi.account import OUTSIDE, Account, Quantity, TimeClass
from shopfloor.kpi.counting import Units, units
from shopfloor.kpi.facts import NEVER, Facts, Role
from shopfloor.kpi.orders import Orders
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import key


class Production:
    """The units of one machine, as far as its facts tell."""

    def __init__(self, spec: Spec, facts: Facts) -> None:
        """A view of the facts: what comes in later is seen."""
        self._spec = spec
        self._facts = facts
        self.orders = Orders(spec, facts)

    def units(self, role: Role, start: int, end: int) -> Iterator[Units]:
        """What a tag counted from ``start`` on, before ``end``."""
        spec = self._spec
        line = self._facts.lines[role]
        return units(line, start, end, counting=spec.counting, modulus=spec.modulus, gap=self._gap(role))

    def _gap(self, role: Role) -> Callable[[int, int], bool]:
        facts, stale = self._facts, self._spec.stale
        return lambda since, until: facts.known_until(role, since, stale) < until

    def between(self, start: int, end: int) -> list[tuple[int, Quantity, Quantity]]:
        """When how many good units and how much scrap were counted, from ``start`` on, before ``end``."""
        found: dict[int, dict[Role, Quantity]] = {}
        for role in self._spec.counted:
            for unit in self.units(role, start, end):
                made = found.setdefault(unit.time, {"good": 0, "scrap": 0, "total": 0})
                made[role] += unit.quantity
        return [(time, *self._split(made)) for time, made in sorted(found.items())]

    def times(self, start: int, end: int) -> list[int]:
        """When units were counted, each time once."""
        return sorted({unit.time for role in self._spec.counted for unit in self.units(role, start, end)})

    def before(self, time: int) -> int | None:
        """When the last unit before ``time`` was counted."""
        latest: int | None = None
        for role in self._spec.counted:
            times = self._facts.lines[role].times
            for place in range(bisect_right(times, time - 1) - 1, -1, -1):
                if latest is not None and times[place] <= latest:
                    break
                if any(self.units(role, times[place], times[place] + 1)):
                    latest = times[place]
                    break
        return latest

    def after(self, time: int) -> int | None:
        """When the first unit at or after ``time`` was counted."""
        found = (next(self.units(role, time, NEVER), None) for role in self._spec.counted)
        return min((unit.time for unit in found if unit is not None), default=None)

    def account(self, account: Account, starts: Sequence[int], names: Sequence[TimeClass], end: int) -> None:
        """Add the units of a stretch, whose pieces begin at ``starts`` and count as ``names``."""
        made: dict[Role, Quantity] = {"good": 0, "scrap": 0, "total": 0}
        for role in self._spec.counted:
            producing = role in self._spec.producing
            for unit in self.units(role, starts[0], end):
                name = names[bisect_right(starts, unit.time) - 1]
                if name in OUTSIDE:
                    account.outside += unit.quantity if producing else 0
                    continue
                made[role] += unit.quantity
                if role == "scrap":
                    account.scrapped(self._why(unit.time), unit.quantity)
                if producing:
                    self._perform(account, unit, name)
        account.good, account.scrap = self._split(made)

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
