"""Times and quantities of a window: what can be added up, so that any windows join without a rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from shopfloor.kpi.spread import CycleTimes

Quantity = int | float


class TimeClass(StrEnum):
    """What an instant counts as; each instant is exactly one of them."""

    NOT_SCHEDULED = "not_scheduled"
    PLANNED_STOP = "planned_stop"
    SETUP = "setup"
    PRODUCTION = "production"
    MINOR_STOP = "minor_stop"
    UNPLANNED_STOP = "unplanned_stop"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"


_NAMES: Final = [(name, name.value) for name in TimeClass]
OUTSIDE: Final = frozenset({TimeClass.NOT_SCHEDULED, TimeClass.PLANNED_STOP})
"""Time that is not planned for production: units made then are kept apart."""


_NOTHING: Final = dict.fromkeys(TimeClass, 0)


@dataclass(slots=True)
class Loss:
    """Stops of one reason."""

    count: int = 0
    """How many began in the window."""
    time: int = 0
    """ns that they lasted inside the window."""


@dataclass(slots=True)
class Account:
    """One machine in one window. Times in ns."""

    times: dict[TimeClass, int] = field(default_factory=_NOTHING.copy)
    good: Quantity = 0
    scrap: Quantity = 0
    ideal: int = 0
    """Σ PRI·PQ: how long the units would have taken at the ideal cycle; of units that count for performance."""
    without_ideal: Quantity = 0
    """Units without an ideal cycle: with any of them there is no performance."""
    beyond: Quantity = 0
    """Units that were counted over unknown time: made, but nobody knows how long it took."""
    uncounted: int = 0
    """Of the production the time in which nothing is known of the counter: it cannot be set against units."""
    uncounted_minor: int = 0
    """Likewise of the minor stops."""
    outside: Quantity = 0
    """Units made in time that was not planned; they are in neither ``good`` nor ``scrap``."""
    minor: int = 0
    """Minor stops that began in the window."""
    incidents: int = 0
    """Unplanned stops that began in the window."""
    losses: dict[str, Loss] = field(default_factory=dict[str, Loss])
    """Stops, minor ones too, by reason."""
    scraps: dict[str, Quantity] = field(default_factory=dict[str, Quantity])
    """Scrap by reason; "" where none was given."""
    lost_to: dict[str, Loss] = field(default_factory=dict[str, Loss])
    """Of a line: its stops by the machine that it stood for."""
    to_good: Quantity = 0
    """Units of ``good`` that the machine counted as scrap: a person said so later."""
    to_scrap: Quantity = 0
    """Likewise the other way round."""
    unmatched: Quantity = 0
    """Units of which a person said so, but there were none left."""
    cycles: CycleTimes | None = None
    """Its single cycles; None where nobody asked for them, or there was none."""
    products: dict[str, "Account"] = field(default_factory=dict[str, "Account"])
    """What of it is of which product; "" while none was said. Empty where no tag tells the product."""
    orders: dict[str, "Account"] = field(default_factory=dict[str, "Account"])
    """Likewise of which order."""

    @property
    def length(self) -> int:
        """Ns of the window."""
        return sum(self.times.values())

    @property
    def produced(self) -> Quantity:
        """Good and scrapped units (PQ)."""
        return self.good + self.scrap

    def lose(self, reason: str, time: int, *, begins: bool) -> None:
        """Count a part of a stop."""
        loss = self.losses.setdefault(reason, Loss())
        loss.time += time
        loss.count += begins

    def lose_to(self, machine: str, time: int, count: int) -> None:
        """Count what a line stood for a machine; the times themselves are not touched."""
        loss = self.lost_to.setdefault(machine, Loss())
        loss.time += time
        loss.count += count

    def scrapped(self, reason: str, quantity: Quantity) -> None:
        """Count scrap of a reason; ``scrap`` itself is not touched."""
        self.scraps[reason] = self.scraps.get(reason, 0) + quantity

    def __iadd__(self, other: "Account") -> Self:
        for name, time in other.times.items():
            if time:
                self.times[name] += time
        self.good += other.good
        self.scrap += other.scrap
        self.ideal += other.ideal
        self.without_ideal += other.without_ideal
        self.beyond += other.beyond
        self.uncounted += other.uncounted
        self.uncounted_minor += other.uncounted_minor
        self.outside += other.outside
        self.minor += other.minor
        self.incidents += other.incidents
        self.to_good += other.to_good
        self.to_scrap += other.to_scrap
        self.unmatched += other.unmatched
        for reason, loss in other.losses.items():
            mine = self.losses.setdefault(reason, Loss())
            mine.count += loss.count
            mine.time += loss.time
        for reason, quantity in other.scraps.items():
            self.scrapped(reason, quantity)
        for machine, loss in other.lost_to.items():
            self.lose_to(machine, loss.time, loss.count)
        if other.cycles is not None:
            self.cycles = self.cycles or CycleTimes()
            self.cycles += other.cycles
        _join(self.products, other.products)
        _join(self.orders, other.orders)
        return self

    def record(self) -> dict[str, Any]:
        """As it is stored: times in seconds, exact to the nanosecond as long as they are below 100 days."""
        return {
            "seconds": {text: self.times[name] / 1e9 for name, text in _NAMES},
            "good": self.good,
            "scrap": self.scrap,
            "ideal_seconds": self.ideal / 1e9,
            "without_ideal": self.without_ideal,
            "beyond": self.beyond,
            "outside": self.outside,
            "minor_stops": self.minor,
            "incidents": self.incidents,
            "losses": recorded(self.losses),
            "scrap_by_reason": dict(sorted(self.scraps.items())),
        }


def recorded(losses: Mapping[str, Loss]) -> dict[str, Any]:
    """Losses as they are stored, in the order of their names."""
    return {name: {"count": loss.count, "seconds": loss.time / 1e9} for name, loss in sorted(losses.items())}


def _join(parts: dict[str, Account], others: Mapping[str, Account]) -> None:
    for name, other in others.items():
        part = parts.setdefault(name, Account())
        part += other
