"""What all tests share: how Hypothesis searches, and logs. Ports, programs and servers are in `shopfloor.testing`."""

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
