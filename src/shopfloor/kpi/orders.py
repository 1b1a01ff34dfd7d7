"""What a machine makes when: products and orders, as spells of time, and the ideal cycle that counts."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from shopfloor.kpi.facts import BAD, NEVER, Facts, Known, Role
from shopfloor.kpi.spec import Spec

Making = Literal["product", "order"]
"""What a window of what is made is about."""
MAKING: Final[tuple[Making, ...]] = ("product", "order")


class Part(NamedTuple):
    """Time in which one product of one order is made; "" where none is said."""

    start: int
    end: int
    product: str
    order: str


class Spell(NamedTuple):
    """The whole time in which one product, or one order, is made without another in between."""

    start: int
    end: int
    """NEVER: it is made still."""
    name: str


@dataclass(slots=True)
class _Line:
    """The changes of a name: from when on it holds, in order."""

    times: list[int]
    names: list[str]

    def at(self, time: int) -> str:
        place = bisect_right(self.times, time) - 1
        return self.names[place] if place >= 0 else ""


class Orders:
    """Products and orders of one machine, as far as its facts tell. A name holds until another one is said."""

    def __init__(self, spec: Spec, facts: Facts) -> None:
        """A view of the facts: what comes in later is seen."""
        self._spec = spec
        self._facts = facts
        self._lines: dict[Making, _Line] = {kind: _Line([], []) for kind in MAKING}
        self._floor = -1
        """Until then the changes are known, but no more the facts that they were made of."""
        roles: dict[Making, Role] = {"product": "product", "order": "order"}
        if "product" not in spec.roles:
            roles["product"] = "order"
        self._roles: dict[Making, Role] = {kind: role for kind, role in roles.items() if role in spec.roles}

    @property
    def told(self) -> bool:
        """Whether any tag says what is made."""
        return bool(self._roles)

    def at(self, kind: Making, time: int) -> str:
        """What is made at a moment; "" where nothing is said."""
        return self._changes()[kind].at(time)

    def ideal(self, time: int) -> int | None:
        """The ideal cycle that counts at a moment, ns: of the order, else of the product, else of the machine."""
        if not self._roles:
            return self._spec.ideal_cycle
        lines = self._changes()
        order = self._spec.orders.get(lines["order"].at(time))
        if order is not None and order.ideal_cycle is not None:
            return order.ideal_cycle
        return self._spec.products.get(lines["product"].at(time), self._spec.ideal_cycle)

    def parts(self, start: int, end: int) -> Iterator[Part]:
        """The time from ``start`` to ``end``, cut where product or order change."""
        lines = self._changes()
        marks = {start, end}
        for line in lines.values():
            marks.update(line.times[bisect_right(line.times, start) : bisect_left(line.times, end)])
        cuts = sorted(marks)
        for begin, until in pairwise(cuts):
            yield Part(begin, until, lines["product"].at(begin), lines["order"].at(begin))

    def spells(self, kind: Making, start: int) -> Iterator[Spell]:
        """The whole spells that reach to ``start`` or lie behind it, in order; nothing where no name is said."""
        line = self._changes()[kind]
        for place in range(max(bisect_right(line.times, start) - 1, 0), len(line.times)):
            end = line.times[place + 1] if place + 1 < len(line.times) else NEVER
            if line.names[place]:
                yield Spell(line.times[place], end, line.names[place])

    def quantity(self, end: int) -> float | None:
        """How many units were wanted right before ``end``, as the machine says; None: it does not say."""
        line = self._facts.lines.get("quantity")
        if line is None:
            return None
        for _, value in line.back(end):
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value if value > 0 else None
        return None

    def forget(self, before: int) -> None:
        """Keep of what was made before only what is still made then, with its beginning."""
        for line in self._changes().values():
            cut = max(bisect_right(line.times, before) - 1, 0)
            del line.times[:cut], line.names[:cut]
        self._floor = max(self._floor, before)

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {"floor": self._floor, **{kind: [line.times, line.names] for kind, line in self._changes().items()}}

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave; what lies behind the facts that are known is put together anew."""
        self._floor = known["floor"]
        self._lines = {kind: _Line(*known[kind]) for kind in MAKING}
        self._facts.switched = 0

    # --- of what is said

    def _changes(self) -> dict[Making, _Line]:
        """Only what lies behind a new fact is put together anew."""
        if self._facts.switched != NEVER:
            since = max(self._facts.switched, self._floor + 1)
            self._facts.switched = NEVER
            for kind, role in self._roles.items():
                self._renew(self._lines[kind], kind, role, since)
        return self._lines

    def _renew(self, line: _Line, kind: Making, role: Role, since: int) -> None:
        cut = bisect_left(line.times, since)
        del line.times[cut:], line.names[cut:]
        told = self._facts.lines[role]
        first = told.next(since)
        later = zip(*told.changes(first + 1, NEVER), strict=True)
        for time, value in [(first, told.value_at(first)), *later] if first < NEVER else ():
            name = self._name(kind, role, value)
            if name is not None and name != (line.names[-1] if line.names else ""):
                line.times.append(time)
                line.names.append(name)

    def _name(self, kind: Making, role: Role, value: Known) -> str | None:
        """What a sample says is made; None for what says nothing."""
        text = name_of(value)
        if text is None:
            return None
        known = self._spec.orders if role == "order" else self._spec.products
        if text == "0" and text not in known:  # what PLCs hold where there is none
            text = ""
        if kind == "product" and role == "order":
            order = self._spec.orders.get(text)
            return order.product if order is not None else ""
        return text


def name_of(value: Known) -> str | None:
    """A product or an order as it stands in the plant file: ``17.0`` is 17; None for what is no name."""
    if value is BAD or value is None or isinstance(value, bytes):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return str(value).strip()
