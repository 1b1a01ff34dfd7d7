"""Lines (ISA-95 work centres) and what figures are wished for, as the plant file says it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from shopfloor.plant.components import Name, Strict

Share = Annotated[float, Field(gt=0, le=1)]
LinePolicy = Literal["sum", "bottleneck", "first_down"]


class Targets(Strict):
    """Figures that are wished for, as fractions: 0.85 is 85 %. Without a target a figure is neither good nor bad."""

    oee: Share | None = Field(default=None, description="OEE, at least.")
    availability: Share | None = Field(default=None, description="Availability, at least.")
    performance: Share | None = Field(default=None, description="Performance, at least.")
    quality: Share | None = Field(default=None, description="Quality, at least.")
    scrap_rate: Share | None = Field(default=None, description="Scrap rate, at most.")

    @property
    def wanted(self) -> dict[str, float]:
        """The targets that there are, by figure."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


LOWER_IS_BETTER = frozenset({"scrap_rate"})
"""Figures whose target is the highest that is wished for."""


class Line(Strict):
    """A line (ISA-95 work centre): machines in the order of flow, and how their figures become its own."""

    id: Name = Field(description="Its id in paths and the console.")
    title: str = Field(default="", description="What people call it.")
    area: Name | None = Field(default=None, description="The area (ISA-95) that it belongs to.")
    machines: list[Name] = Field(
        default=[],
        description="Its machines in the order of flow; by default those that name it as their `line`, in the order of "
        "`machines`.",
    )
    policy: LinePolicy = Field(
        default="sum",
        description="How machines make a line. `sum`: their times and units are added, for machines side by side. "
        "`bottleneck`: its time is that of one machine. `first_down`: it stands as soon as a machine stands by itself.",
    )
    bottleneck: Name | None = Field(
        default=None,
        description="The machine that sets the pace: its time and performance are the line's; with `first_down` its "
        "performance, by default that of `output`.",
    )
    output: Name | None = Field(
        default=None, description="The machine whose good units leave the line; by default the last."
    )
    targets: Targets = Field(default=Targets(), description="Figures that are wished for.")


def machines_of(line: Line, machines: Sequence[tuple[str, str | None]]) -> list[str]:
    """The ids of a line's machines in the order of flow, out of all machines as (id, line)."""
    return line.machines or [machine for machine, named in machines if named == line.id]
