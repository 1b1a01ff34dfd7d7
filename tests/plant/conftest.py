"""Plant files here are made of the component types of tests/plant/components.py alone."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from shopfloor.plant import components

_TYPES = {
    "sources": {"plc": "PlcConfig", "topic": "TopicConfig", "broken": "Missing", "wrong": "NOT_A_MODEL"},
    "processors": {"rename": "RenameConfig"},
    "sinks": {"table": "TableConfig"},
    "historians": {"store": "StoreConfig"},
}
_POINTS = EntryPoints(
    [
        EntryPoint(name, f"tests.plant.components:{attribute}", f"shopfloor.{kind}")
        for kind, types in _TYPES.items()
        for name, attribute in types.items()
    ]
    + [EntryPoint("twice", f"tests.plant.components:{name}", "shopfloor.sinks") for name in ("A", "B")]
)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs the test's component types for the time of a test."""
    monkeypatch.setattr(components, "entry_points", _POINTS.select)
    components.types.cache_clear()
    components.config_class.cache_clear()
    yield
    components.types.cache_clear()
    components.config_class.cache_clear()
