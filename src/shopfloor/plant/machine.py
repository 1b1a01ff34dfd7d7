"""Machines, and why they stop, as the plant file says it."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from shopfloor.plant.components import Form, Name, Strict, TagName
from shopfloor.plant.line import Targets
from shopfloor.plant.units import DURATION_UNITS, Duration

MINUTE: Final = DURATION_UNITS["min"]
ROLES: Final = (
    "state", "mode", "good", "scrap", "total", "product", "order", "quantity", "cycle", "cycle_time", "fault",
    "scrap_reason",
)  # fmt: skip
"""Keys of a machine that name a tag which says something about it."""
CYCLE_UNITS: Final = {"ms": DURATION_UNITS["ms"], "s": DURATION_UNITS["s"], "min": DURATION_UNITS["min"]}
"""ns of the units in which a PLC may say how long a cycle took."""
StateName = Literal["running", "idle", "setup", "down", "planned", "blocked", "unknown"]
"""The states of the time model (kpi.states.State)."""

ReasonPath = Annotated[
    str, Form(r"[^/\x00-\x1f]{1,60}(/[^/\x00-\x1f]{1,60}){0,3}", "a path of at most four levels, `machine/hydraulics`")
]
"""A place in the tree of reasons: category, reason, detail."""


class Reason(Strict):
    """One reason for a stop, as people choose it."""

    id: ReasonPath = Field(description="Its place in the tree: `machine/hydraulics`; the first level is the category.")
    title: str = Field(default="", description="What people read; by default the last level of `id`.")
    comment: bool = Field(default=False, description="Whether whoever chooses it must write a comment.")
    longest: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description="How long a stop may last for it; a longer one needs another reason."
    )


def _plausible(cycle: int) -> int:
    if not DURATION_UNITS["ms"] <= cycle <= DURATION_UNITS["d"]:
        msg = "is no ideal time for one unit; write one from 1 ms to 1 d, for example 1.5 s"
        raise ValueError(msg)
    return cycle


Cycle = Annotated[Duration, AfterValidator(_plausible)]
"""The ideal time for one unit: from 1 ms to a day."""


class Nameplate(Strict):
    """What stands on the machine's nameplate, for those who ask by OPC UA for Machinery (OPC 40001-1)."""

    manufacturer: str = Field(default="", description="Who made it.")
    model: str = Field(default="", description="What its maker calls it.")
    serial_number: str = Field(default="", description="Its maker's serial number.")
    product_instance_uri: str = Field(default="", description="The URI of this very machine, where its maker gave one.")
    product_code: str = Field(default="", description="Its maker's order number.")
    device_class: str = Field(default="", description="What kind of machine it is.")
    year_of_construction: Annotated[int, Field(ge=1800, le=2200)] | None = Field(
        default=None, description="When it was made."
    )
    asset_id: str = Field(default="", description="Its number in the plant's own books; by default its `id`.")
    location: str = Field(default="", description="Where it stands; by default site and line.")


class Machine(Strict):
    """A machine (ISA-95 work unit) and the tags that describe it."""

    id: Name = Field(description="Its id in paths and the console.")
    title: str = Field(default="", description="What people call it.")
    line: Name | None = Field(default=None, description="The line (ISA-95 work centre) that it belongs to.")
    ideal_cycle: Cycle | None = Field(default=None, description="The shortest time that one unit takes (PRI).")
    products: dict[str, Cycle] = Field(
        default={}, description="The ideal cycle of each product, by what the tag `product` says: `{A17: 1.5 s}`."
    )
    state: TagName | None = Field(
        default=None, description="The tag that gives its state; without it units tell whether it runs."
    )
    states: dict[str, StateName] = Field(
        default={},
        description="What values of `state` mean that are not PackML's numbers or names: `{10: running, jam: down}`.",
    )
    state_model: Literal["packml", "machinery"] = Field(
        default="packml",
        description="Whose numbers and names `state` and `mode` give: PackML's, or those of OPC UA for Machinery "
        "(`MachineryItemState`, `MachineryOperationMode`).",
    )
    mode: TagName | None = Field(
        default=None,
        description="The tag that gives its mode; in maintenance mode (PackML 2, Machinery 1) a stop is planned.",
    )
    good: TagName | None = Field(default=None, description="The tag that counts good units.")
    scrap: TagName | None = Field(default=None, description="The tag that counts scrapped units.")
    total: TagName | None = Field(default=None, description="The tag that counts all units; two of three are enough.")
    counting: Literal["counter", "pulse", "event"] = Field(
        default="counter",
        description="What these tags say: a sum that goes on (`counter`), true for each unit (`pulse`), or how many "
        "were made just now (`event`).",
    )
    rollover: Annotated[int, Field(gt=1)] | None = Field(
        default=None,
        description="Where a counter begins anew at 0: 65536 for 16 bits. Else a smaller value is a reset.",
    )
    product: TagName | None = Field(
        default=None, description="The tag that says what is made; without it the order's product is."
    )
    order: TagName | None = Field(
        default=None, description="The tag that says which order is made, by its id in `orders`."
    )
    quantity: TagName | None = Field(default=None, description="The tag that says how many units the order wants.")
    cycles: Literal["none", "windows", "each"] = Field(
        default="none",
        description="Whether single cycles are timed: `windows` for hours, shifts and days, `each` gives every cycle, "
        "too.",
    )
    cycle: TagName | None = Field(
        default=None, description="The tag whose edge ends each cycle; without it a unit does."
    )
    cycle_edge: Literal["rising", "falling"] = Field(default="rising", description="Which edge of `cycle`.")
    cycle_time: TagName | None = Field(
        default=None, description="The tag that says how long the cycle took that has just ended; each value is one."
    )
    cycle_unit: Literal["ms", "s", "min"] = Field(default="s", description="The unit of `cycle_time`.")
    units_per_cycle: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=1, description="How many units one cycle makes: the cavities of a mould."
    )
    fault: TagName | None = Field(default=None, description="The tag that gives the fault code; 0 is none.")
    reasons: dict[str, ReasonPath] = Field(default={}, description="What fault codes mean: `{17: machine/hydraulics}`.")
    scrap_reason: TagName | None = Field(default=None, description="The tag that says why a unit is scrap.")
    scrap_reasons: dict[str, ReasonPath] = Field(
        default={}, description="What it means: `{3: QUALITY/scratch}`; the first level is the category."
    )
    minor_stop_below: Annotated[Duration, Field(gt=0)] = Field(
        default=5 * MINUTE, description="A stop shorter than this is a minor stop, any longer one an incident."
    )
    minor_stops: Literal["performance", "availability"] = Field(
        default="performance",
        description="Which loss minor stops are: of `performance` (six big losses) or `availability` (ISO 22400).",
    )
    stale: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None,
        description="After this time without a sample of a tag nothing is known of it; by default a value holds until "
        "its source is lost.",
    )
    targets: Targets = Field(default=Targets(), description="Figures that are wished for: `{oee: 0.85}` is 85 %.")
    nameplate: Nameplate = Field(default=Nameplate(), description="What stands on its nameplate.")
    show: list[TagName] = Field(default=[], description="Further tags that its page shows, in this order.")

    @property
    def roles(self) -> dict[str, str]:
        """The tags that tell of its state and its units, by the key that names them."""
        tags = {role: getattr(self, role) for role in ROLES}
        return {role: tag for role, tag in tags.items() if tag is not None}
