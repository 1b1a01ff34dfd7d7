"""The bench of historians in databases counts what it measures."""

import pytest

from shopfloor.bench.historian import Plant
from shopfloor.bench.historian_tables import TYPES, measured
from shopfloor.samples import Misconfigured
from shopfloor.testing.programs import MariaDb, Postgres, missing


@pytest.mark.parametrize(("kind", "name", "how"), [
    ("postgres", "postgres", Postgres.HOW_TO_INSTALL), ("mysql", "mariadb", MariaDb.HOW_TO_INSTALL),
])  # fmt: skip
def test_a_historian_is_measured_beside_the_embedded_one(kind: str, name: str, how: str) -> None:
    """Both have every row in the end, else it raises."""
    try:
        bench = TYPES[kind]()
    except Misconfigured:
        missing(f"{kind} is not installed", how)
    with bench as server:
        found = {one.name.removeprefix(f"{name}_"): one for one in measured(server, Plant(300), 600)}
    assert list(found) == [
        "ingest", "bytes_per_row", "hour_p50_ms", "day_by_minute_p50_ms", "latest_p50_ms", "dropped",
    ]  # fmt: skip
    assert found["ingest"].ratio_to is not None
    assert found["ingest"].ratio_to.startswith("duckdb")
    assert found["dropped"].value > 0
