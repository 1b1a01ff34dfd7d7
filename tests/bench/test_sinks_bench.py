"""The bench of sinks counts what it measures."""

from shopfloor.bench.sinks import measured
from shopfloor.bench.sinks_mysql import MysqlBench
from shopfloor.bench.sinks_postgres import PostgresBench
from shopfloor.samples import Misconfigured
from shopfloor.testing.programs import MariaDb, Postgres, missing


def test_postgres_is_measured_beside_its_own_bulk_path() -> None:
    """Both have every row in the end, else it raises."""
    try:
        bench = PostgresBench()
    except Misconfigured:
        missing("PostgreSQL is not installed", Postgres.HOW_TO_INSTALL)
    with bench as server:
        rate, effort = measured(server, seconds=10, rounds=2)
        assert (rate.name, rate.unit, rate.ratio_to, rate.runs) == ("postgres", "rows/s", "psycopg binary COPY", 2)
        assert rate.ratio
        assert effort.name == "postgres_per_cpu_second"
        ours, theirs = server.counted(1)
        assert ours == theirs > 5000


def test_mariadb_is_measured_beside_its_own_bulk_path() -> None:
    """Both have every row in the end, else it raises."""
    try:
        bench = MysqlBench()
    except Misconfigured:
        missing("MariaDB is not installed", MariaDb.HOW_TO_INSTALL)
    with bench as server:
        rate, effort = measured(server, seconds=10, rounds=2)
        assert (rate.name, rate.unit, rate.ratio_to, rate.runs) == ("mariadb", "rows/s", "LOAD DATA LOCAL", 2)
        assert rate.ratio
        assert effort.name == "mariadb_per_cpu_second"
        ours, theirs = server.counted(1)
        assert ours == theirs > 5000
