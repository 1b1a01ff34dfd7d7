"""A PostgreSQL for all tests of sinks that do not stop it."""

from collections.abc import Iterator
from itertools import count

import pytest

from shopfloor.testing.programs import Postgres
from tests.sinks.postgres import Client

_NUMBERS = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for the whole run; each test has a schema of its own."""
    with Postgres() as server:
        yield server


@pytest.fixture
def client(postgres: Postgres) -> Client:
    """Looks at a schema that is this test's only."""
    return Client(postgres.port, f"plant_{next(_NUMBERS)}")
