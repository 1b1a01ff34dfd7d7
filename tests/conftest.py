"""What all tests share: how Hypothesis searches, logs, how many run at once. Ports and servers: `shopfloor.testing`."""

import atexit
import os
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from shopfloor import logs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kafka_broker import Shared
    from tests.schema_registry import Registry

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


def _kafka_root(factory: pytest.TempPathFactory) -> "Path":
    """A folder that all workers of a run know."""
    own = factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kafka"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Shared]":
    """The run's Kafka broker, the same in all workers; it goes on while one of them uses it."""
    from tests.kafka_broker import shared  # noqa: PLC0415  # its client is large, and most tests need none

    broker, users = shared(_kafka_root(tmp_path_factory))
    with users:
        yield broker


@pytest.fixture(scope="session")
def kafka_slot(kafka: "Shared", tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The port of a listener, and the port that the broker says it has: there a proxy can stand in between."""
    from tests.kafka_broker import slot  # noqa: PLC0415  # as above

    ports, file = slot(_kafka_root(tmp_path_factory), kafka)
    with file:
        yield ports


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Registry]":
    """The run's schema registry, the same in all workers."""
    from tests.schema_registry import shared  # noqa: PLC0415  # few tests need it

    own, users = shared(_kafka_root(tmp_path_factory).with_name("registry"))
    with users:
        yield own


_TOPICS: Final = count()


@pytest.fixture
def topic(kafka: "Shared") -> str:
    """A topic of this test's own, with two partitions."""
    from tests.kafka_broker import create  # noqa: PLC0415  # as above

    name = f"open.{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}.{next(_TOPICS)}"
    create(kafka.server, name, retention_ms="-1")  # tests have samples of long ago
    return name


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
