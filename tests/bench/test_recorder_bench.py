"""The bench of the recorder measures plants that Shopfloor takes."""

from pathlib import Path

import pytest

from shopfloor.bench.recorder import HISTORIANS, SENSORS, plant_text
from shopfloor.plant import parse


@pytest.mark.parametrize("name", HISTORIANS)
def test_its_plant_files_are_right(name: str) -> None:
    plant = parse(plant_text(102, HISTORIANS[name]), "plant.yaml", Path())
    (source,) = plant.sources
    assert len(source.declared() or ()) == SENSORS == 16
    assert plant.console is None
    assert (plant.historian is None) == (name == "_journal_only")
