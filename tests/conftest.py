"""What all tests share: how Hypothesis searches, logs, how many run at once. Ports and servers: `shopfloor.testing`."""

import atexit
import os

import pytest
from hypothesis import HealthCheck, settings

from shopfloor import logs

# No deadline: a busy machine is no fault. In CI the same examples every time, so a red build is red again.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


@pytest.fixture(autouse=True)
def _logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb of the command line that is tested in this process leaves its logs, and pytest's, as they are.

    Else no later test would hear a warning: `configure` takes all handlers away and sets a level for good.
    """

    def configure(level: str = "info") -> None:
        assert level in logs.LEVELS

    monkeypatch.setattr(logs, "configure", configure)


def pytest_configure(config: pytest.Config) -> None:
    """A worker ends as tools/tests.sh does: not by the interpreter's end, where DuckDB complains on stderr."""
    if hasattr(config, "workerinput"):
        atexit.register(os._exit, 0)  # what tests register is called first


def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: two for each core, as most tests wait for a server most of their time."""
    return min(2 * (os.cpu_count() or 1), 12)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, what needs a long time begins first: else one worker is left with it while the others rest."""

    def patience(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark is not None else 0

    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: patience(item) < _LONG)


_LONG = 300
"""Seconds that a test asks for by its mark, from which on it is a long one."""
