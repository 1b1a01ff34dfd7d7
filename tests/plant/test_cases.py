"""Each folder of tests/plant/cases is a plant file and what Shopfloor says about it, nothing if all is well."""

import os
from pathlib import Path

import pytest

from shopfloor.plant import PlantError, load

CASES = Path(__file__).parent / "cases"
ENVIRONMENT = {"PLC_PASSWORD": "hunter2", "RACK": "2"}


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_a_plant_file_gives_exactly_these_errors(case: Path) -> None:
    """A case with SHOPFLOOR_ACCEPT=1 writes what is said now; read it before it is committed."""
    try:
        load(case / "plant.yaml", ENVIRONMENT)
        said = ""
    except PlantError as error:
        said = f"{error}\n".replace(f"{case}{os.sep}", "")
    expected = case / "expected.txt"
    if os.environ.get("SHOPFLOOR_ACCEPT") == "1":
        expected.write_text(said, "utf-8")
    assert said == expected.read_text("utf-8")
    assert "hunter2" not in said, "a secret is printed"
