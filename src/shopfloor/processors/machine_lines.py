"""Lines, areas and the site as the processor `machine` gives them: made of the machines that it works out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from shopfloor.kpi.account import Account, recorded
from shopfloor.kpi.calendar import Calendar, Window
from shopfloor.kpi.figures import Figures, MinorStops, Policy
from shopfloor.kpi.line import Bottleneck, FirstDown, Line, Part, Sum
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.windows import Windows
from shopfloor.plant.line import LOWER_IS_BETTER, Line as LineConfig, Targets, machines_of
from shopfloor.plant.model import Plant
from shopfloor.samples import Value

Level = Literal["machine", "line", "area", "site"]
AVAILABILITY: Final[MinorStops] = "availability"


class Told(ABC):
    """Something that figures are given of: its windows, and what was said of it last."""

    def __init__(self, level: Level, name: str, windows: Windows, policy: Policy, targets: Targets) -> None:
        self.level: Level = level
        self.id = name
        self.windows = windows
        self.policy = policy
        self.said: dict[str, tuple[Value, int]] = {}
        self._targets = targets.wanted

    def about(self) -> dict[str, Any]:
        """With what its records begin."""
        return {self.level: self.id}

    @abstractmethod
    def standing(self, window: Window, now: int) -> dict[str, Any]:
        """What the running record says of the moment."""

    def details(self, _account: Account, /) -> dict[str, Any]:
        """What its records say besides."""
        return {}

    @abstractmethod
    def doubts(self) -> dict[str, Any]:
        """What its records say of samples that could not be used."""

    def target(self, found: Figures) -> dict[str, Any]:
        """Each figure that has a target: what is wished for and whether it is so; null while it has no meaning."""
        if not self._targets:
            return {}
        return {"target": {name: _met(name, wish, found) for name, wish in self._targets.items()}}


def _met(name: str, wish: float, found: Figures) -> dict[str, Any]:
    value: float | None = getattr(found, name)
    if value is None:
        return {"value": wish, "met": None}
    return {"value": wish, "met": value <= wish if name in LOWER_IS_BETTER else value >= wish}


class Rolled(Told):
    """A line, an area or the plant."""

    def __init__(self, level: Level, name: str, line: Line, calendar: Calendar, remember: int, policy: Policy,
                 targets: Targets = Targets()) -> None:  # fmt: skip  # noqa: B008  # it is frozen
        super().__init__(level, name, Windows(line, calendar, remember), policy, targets)
        self.line = line

    def about(self) -> dict[str, Any]:
        """The parts, in the order of flow, and how they make the whole."""
        parts = "machines" if self.level == "line" else "lines"
        return super().about() | {"policy": _WORDS[type(self.line)], parts: [part.id for part in self.line.parts]}

    def details(self, account: Account, /) -> dict[str, Any]:
        """Which machine it stood for, how often and how long."""
        return {"lost_to": recorded(account.lost_to)}

    def standing(self, window: Window, now: int) -> dict[str, Any]:
        """Its state, the machine that it stands for, what each does, and how many of their stops need a reason."""
        found = self.line.standing(now)
        said: dict[str, Any] = {}
        if found is not None:
            said = {"state": found.state.value, "stands_for": found.machine or None}
        machines = [(part.id, part.unit) for part in self.line.parts if isinstance(part.unit, Machine)]
        states = {name: machine.running.state(now).value for name, machine in machines}
        unexplained = sum(part.windows.unexplained(window) for part in self.line.parts)
        return said | ({"states": states, "unexplained": unexplained} if states else {})

    def doubts(self) -> dict[str, Any]:
        """Samples of its machines that came too late."""
        return {"too_late": self.windows.too_late} if self.windows.too_late else {}

    def part(self) -> Part:
        """As a part of something larger."""
        return Part(self.id, self.line, self.windows)


_WORDS: Final[Mapping[type[Line], str]] = {Sum: "sum", Bottleneck: "bottleneck", FirstDown: "first_down"}


def lines_of(plant: Plant, known: Mapping[str, object]) -> list[tuple[LineConfig, list[str]]]:
    """The lines whose machines are all known, with these in the order of flow."""
    pairs = [(machine.id, machine.line) for machine in plant.machines]
    found = [(line, machines_of(line, pairs)) for line in plant.lines]
    return [(line, names) for line, names in found if names and all(name in known for name in names)]


def together(plant: Plant, known: Mapping[str, object]) -> list[tuple[Level, str, list[str]]]:
    """The areas and the site, with their lines: those whose lines are all known."""
    lines = [line.id for line, _ in lines_of(plant, known)]
    areas = dict.fromkeys(line.area for line in plant.lines if line.area is not None)
    found: list[tuple[Level, str, list[str]]] = [
        ("area", area, [line.id for line in plant.lines if line.area == area]) for area in areas
    ]
    if plant.lines:
        found.append(("site", plant.plant.site, [line.id for line in plant.lines]))
    return [(level, name, names) for level, name, names in found if set(names) <= set(lines)]


def rolled(
    plant: Plant, machines: Mapping[str, tuple[Machine, Windows, Policy]], calendar: Calendar, remember: int
) -> list[Rolled]:
    """The lines, areas and the site; each behind what it is made of."""
    lines: dict[str, Rolled] = {}
    for config, names in lines_of(plant, machines):
        parts = [Part(name, *machines[name][:2]) for name in names]
        deciding = config.bottleneck if config.policy == "bottleneck" else None
        policy = _line_policy(machines[deciding or names[0]][2], config)
        lines[config.id] = Rolled("line", config.id, _line(config, parts), calendar, remember, policy, config.targets)
    found = list(lines.values())
    for level, name, names in together(plant, machines):
        whole = Sum([lines[line].part() for line in names])
        found.append(Rolled(level, name, whole, calendar, remember, _joint([lines[line].policy for line in names])))
    return found


def _line(config: LineConfig, parts: Sequence[Part]) -> Line:
    if config.policy == "sum":
        return Sum(parts)
    output = config.output or parts[-1].id
    kind = Bottleneck if config.policy == "bottleneck" else FirstDown
    return kind(parts, output, config.bottleneck or output)


def _line_policy(policy: Policy, config: LineConfig) -> Policy:
    """How a machine's figures are made, with what is added where machines become a line."""
    named = f" {config.bottleneck}" if config.policy == "bottleneck" else ""
    return Policy(policy.minor_stops, policy.weights, f"{config.policy}{named}")


def _joint(policies: Sequence[Policy]) -> Policy:
    """Of the sum of lines: minor stops are losses of availability only where they are so in all of them."""
    all_available = all(policy.minor_stops == AVAILABILITY for policy in policies)
    return Policy(AVAILABILITY if all_available else "performance", policies[0].weights, "sum of lines")
