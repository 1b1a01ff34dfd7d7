"""How a machine is to be read, as the arithmetic needs it. Durations in ns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, cast

from shopfloor.kpi.counting import Counting
from shopfloor.kpi.facts import Role
from shopfloor.kpi.states import MODELS, PACKML, State
from shopfloor.plant.machine import CYCLE_UNITS, Machine, Reason
from shopfloor.plant.orders import Order

MINUTE: Final = 60_000_000_000

COUNTS: Final[tuple[Role, ...]] = ("total", "good", "scrap")


CyclesAsked = Literal["none", "windows", "each"]


class OrderSpec(NamedTuple):
    """An order, as far as it matters to figures."""

    product: str
    quantity: float | None
    ideal_cycle: int | None
    """Instead of the product's."""
    due: str
    """ISO 8601; "" for none."""


@dataclass(frozen=True)
class Spec:
    """One machine."""

    id: str
    roles: Mapping[Role, str]
    """The tags that tell of it."""
    states: Mapping[str, State] = field(default_factory=lambda: PACKML)
    model: Literal["packml", "machinery"] = "packml"
    """Whose modes the mode tag gives, and whose states ``states`` begin with."""
    counting: Counting = "counter"
    modulus: int | None = None
    """What a counter's values stay below: it begins anew at 0 when it gets there."""
    ideal_cycle: int | None = None
    products: Mapping[str, int] = field(default_factory=dict[str, int])
    """Ideal cycles of products; of others ``ideal_cycle`` counts."""
    orders: Mapping[str, OrderSpec] = field(default_factory=dict[str, OrderSpec])
    """The orders that may be made on it."""
    cycles: CyclesAsked = "none"
    cycle_falls: bool = False
    """Whether a cycle ends where its signal falls, not where it rises."""
    cycle_unit: int = 10**9
    """ns of 1 in the tag that says how long a cycle took."""
    units_per_cycle: int = 1
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    """What fault codes mean, as paths in the tree of reasons: `17: machine/hydraulics`."""
    longest: Mapping[str, int] = field(default_factory=dict[str, int])
    """How long a stop may last for a reason, ns; of those that have a limit."""
    scrap_reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    minor_stop_below: int = 5 * MINUTE
    stale: int | None = None
    """After this time without any sample of a tag nothing is known of it; None: it holds until its source is lost."""

    @classmethod
    def of(cls, machine: Machine, orders: Iterable[Order] = (), reasons: Iterable[Reason] = ()) -> "Spec":
        """As the plant file describes it, with the orders that may be made on it, and the reasons that it knows."""
        return cls(
            machine.id,
            cast("Mapping[Role, str]", machine.roles),
            model=machine.state_model,
            states={
                **MODELS[machine.state_model].states,
                **{text.strip().lower(): State(state) for text, state in machine.states.items()},
            },
            counting=machine.counting,
            modulus=machine.rollover,
            ideal_cycle=machine.ideal_cycle,
            products=machine.products,
            orders={
                order.id: OrderSpec(
                    order.product, order.quantity, order.ideal_cycle, order.due.isoformat() if order.due else ""
                )
                for order in orders
            },
            cycles=machine.cycles,
            cycle_falls=machine.cycle_edge == "falling",
            cycle_unit=CYCLE_UNITS[machine.cycle_unit],
            units_per_cycle=machine.units_per_cycle,
            reasons=machine.reasons,
            longest={reason.id: reason.longest for reason in reasons if reason.longest is not None},
            scrap_reasons=machine.scrap_reasons,
            minor_stop_below=machine.minor_stop_below,
            stale=machine.stale,
        )

    @property
    def counted(self) -> tuple[Role, ...]:
        """The roles that count units."""
        return tuple(role for role in COUNTS if role in self.roles)

    @property
    def producing(self) -> tuple[Role, ...]:
        """The roles whose units add up to what was produced."""
        return ("total",) if "total" in self.roles else self.counted
