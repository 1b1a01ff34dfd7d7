"""The plant of the bench of figures is one that runs."""

from pathlib import Path

from shopfloor import plant
from shopfloor.bench.kpi_live import MACHINES, plant_text


def test_its_plant_file_is_sound() -> None:
    found = plant.parse(plant_text("mqtt://127.0.0.1:1883", 8080), "plant.yaml", Path("/nowhere"), {})
    assert len(found.machines) == MACHINES
    assert len([tag for tag in found.processors[0].inputs() if not tag.startswith("$")]) == 3 * MACHINES
