"""The bench of sinks counts what it measures."""

from functools import partial

from shopfloor.bench.sinks import measured, plant
from shopfloor.bench.sinks_influxdb import InfluxDbBench
from shopfloor.bench.sinks_kafka import KafkaBench
from shopfloor.bench.sinks_mongodb import MongoDbBench
from shopfloor.bench.sinks_mysql import MysqlBench
from shopfloor.bench.sinks_postgres import PostgresBench
from shopfloor.bench.sinks_together import together
from shopfloor.samples import Misconfigured
from shopfloor.testing import kafka
from shopfloor.testing.databases import InfluxDb, MongoPeer
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


def test_influxdb_is_measured_and_the_source_beside_it() -> None:
    """Both have every point in the end, else it raises; in each phase the source gave, and the live sink took."""
    try:
        bench = InfluxDbBench()
    except Misconfigured:
        missing("InfluxDB is not installed", InfluxDb.HOW_TO_INSTALL)
    with bench as server:
        rate, effort = measured(server, seconds=10, rounds=2, fast=20)
        assert (rate.name, rate.unit, rate.ratio_to, rate.runs) == ("influxdb", "rows/s", "POST of finished lines", 2)
        assert rate.ratio
        assert effort.name == "influxdb_per_cpu_second"
        found = {result.name: result for result in together([server], partial(plant, 60), seconds=0.5, rounds=1)}
    for phase, before in (("alone", None), ("beside_others", "alone"), ("beside_all", "beside_others")):
        assert found[f"source_{phase}"].value > 0
        assert found[f"live_{phase}_p99"].value > 0
        related = None if before is None else f"source_{before}_p99"
        assert found[f"source_{phase}_p99"].ratio_to == related
    assert found["caught_up_meanwhile"].value > 0


def test_the_peer_of_mongodb_is_measured_beside_insert_many() -> None:
    """Both have every document in the end, else it raises."""
    try:
        bench = MongoDbBench()
    except Misconfigured:
        missing("the peer mongo-java-server is not built", MongoPeer.HOW_TO_INSTALL)
    with bench as server:
        rate, _ = measured(server, seconds=10, rounds=1, fast=20)
        assert (rate.name, rate.ratio_to) == ("mongodb_peer", "insert_many")


def test_kafka_is_measured_beside_the_library_s_own_producer() -> None:
    """Both topics have every record in the end, else it raises."""
    try:
        bench = KafkaBench()
    except Misconfigured:
        missing("Kafka's broker is not built", kafka.HOW_TO_INSTALL)
    with bench as server:
        rate, effort = measured(server, seconds=10, rounds=1, fast=20)
    assert (rate.name, rate.ratio_to) == ("kafka", "confluent-kafka's producer")
    assert rate.ratio
    assert effort.name == "kafka_per_cpu_second"
