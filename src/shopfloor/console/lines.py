"""Lines, areas and the site as the console knows them: those that figures are worked out of."""

from dataclasses import dataclass, field
from typing import Any, Literal

from shopfloor.console.records import live_tag
from shopfloor.console.view import Catalogue
from shopfloor.plant import Machine, Plant
from shopfloor.plant.line import machines_of


@dataclass(frozen=True)
class Whole:
    """A line, or an area or the site, which are sums of lines."""

    level: Literal["line", "area", "site"]
    id: str
    title: str = ""
    area: str | None = None
    policy: str = "sum"
    machines: list[str] = field(default_factory=list[str])
    """Of a line, in the order of flow."""
    lines: list[str] = field(default_factory=list[str])
    """Of an area or the site."""
    targets: dict[str, float] = field(default_factory=dict[str, float])

    def about(self) -> dict[str, Any]:
        """As the API gives it."""
        return {
            "level": self.level,
            "id": self.id,
            "title": self.title,
            "area": self.area,
            "policy": self.policy,
            "machines": self.machines,
            "lines": self.lines,
            "targets": self.targets,
        }


class Lines:
    """What there is of them in a plant file."""

    def __init__(self, plant: Plant, catalogue: Catalogue) -> None:
        """``catalogue``: the tags that are given, by which it is seen what has figures."""
        pairs = [(machine.id, machine.line) for machine in plant.machines]
        lines = [
            Whole(
                "line", line.id, line.title, line.area, line.policy, machines_of(line, pairs), [], line.targets.wanted
            )
            for line in plant.lines
        ]
        areas = dict.fromkeys(line.area for line in lines if line.area is not None)
        sums = [Whole("area", area, lines=[line.id for line in lines if line.area == area]) for area in areas]
        sums.append(Whole("site", plant.plant.site, lines=[line.id for line in lines]))
        self.wholes = {whole.id: whole for whole in (*lines, *sums) if lines and live_tag(whole.id) in catalogue}
        """By id: lines in the plant file's order, areas, the site."""
        self._homes = {machine: line.id for line in lines for machine in line.machines}

    def of(self, machine: Machine) -> str | None:
        """The line of a machine."""
        return self._homes.get(machine.id, machine.line)
