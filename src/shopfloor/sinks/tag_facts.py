"""What the plant file says of a tag beside its samples: its unit, and where in the plant it belongs."""

from functools import cached_property
from typing import NamedTuple

from shopfloor.plant import Plant


class Where(NamedTuple):
    """A tag's place in the plant (ISA-95); "" for what the plant file does not say."""

    machine: str
    """The first level of the tag."""
    signal: str
    """The rest of it, or all of a tag without levels."""
    line: str


class TagFacts:
    """Looks up what is known of tags; without a plant that is only what their names say."""

    def __init__(self, plant: Plant | None = None) -> None:
        """Nothing is looked up yet: a plant may have 100,000 tags."""
        self._plant = plant
        self._places: dict[str, Where] = {}

    @property
    def site(self) -> str:
        """The site's name."""
        return "" if self._plant is None else self._plant.plant.site

    @cached_property
    def units(self) -> dict[str, str]:
        """The unit of each tag that has one."""
        if self._plant is None:
            return {}
        given = [info for source in self._plant.sources for info in source.declared() or ()]
        given += [info for processor in self._plant.processors for info in processor.outputs()]
        return {info.tag: info.unit for info in given if info.unit}

    @cached_property
    def _lines(self) -> dict[str, str]:
        return {machine.id: machine.line or "" for machine in self._plant.machines} if self._plant else {}

    def where(self, tag: str) -> Where:
        """Where a tag belongs."""
        found = self._places.get(tag)
        if found is None:
            machine, _, signal = tag.partition("/")
            found = self._places[tag] = Where(machine, signal or machine, self._lines.get(machine, ""))
        return found
