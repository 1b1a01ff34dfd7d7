"""The historian in a real PostgreSQL answers as the embedded ones do."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from shopfloor.plant import HistorianConfig, PlantError, parse
from shopfloor.sinks.mysql_historian import MysqlHistorianConfig
from shopfloor.sinks.postgres_historian import PostgresHistorianConfig
from shopfloor.sinks.sqlserver_historian import SqlServerHistorianConfig
from shopfloor.testing.contracts.values import EVERY_VALUE
from shopfloor.testing.programs import Postgres
from tests.historian.tables import HistorianTests
from tests.sinks.postgres import config as sink_config

NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


class TestPostgresHistorian(HistorianTests):
    keeps = frozenset(EVERY_VALUE) - {"text"}  # it has the character NUL
    unfit = ("a\x00b", "\ud800", 2**64)

    @pytest.fixture(autouse=True)
    def _server(self, server: Postgres) -> None:
        self.port, self.schema = server.port, f"plant_{next(NUMBERS)}"

    def config(self, port: int, **options: object) -> HistorianConfig:
        fields: dict[str, object] = {
            "type": "postgres", "dsn": f"postgresql://postgres@127.0.0.1:{port}/postgres",
            "schema_name": self.schema, "timeout": "30 s", "keep_alive": "0.2 s",
        }  # fmt: skip
        return PostgresHistorianConfig.model_validate(fields | options)

    def sink(self, **options: object) -> Callable[[], AbstractAsyncContextManager[object]]:
        return sink_config(self.port, self.schema, **options).build

    def nowhere(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/nowhere"

    def position(self) -> int:
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres") as connection:
            if connection.execute("SELECT to_regclass(%s)", [f"{self.schema}.writer"]).fetchone() == (None,):
                return -1
            row = connection.execute(f"SELECT max(position) FROM {self.schema}.writer".encode()).fetchone()
            return -1 if row is None or row[0] is None else int(row[0])


PLANT = """
plant: {site: bremen}
sinks:
  - {name: archive, type: TYPE, dsn: DSN, EXTRA}
historian: {type: TYPE, dsn: DSN}
"""


@pytest.mark.parametrize(
    ("dsn", "elsewhere"),
    [
        ("postgresql://a@10.0.3.7/plant", "schema_name: archive"),
        ("mysql://a@10.0.3.7/plant", "prefix: archive_"),
        ("mssql://a@10.0.3.7/plant", "prefix: archive_"),
        ("mysql://a@10.0.3.7/plant", 'table: samples, columns: {at: "{time}", tag: "{tag}", value: "{value}"}'),
    ],
)
def test_a_sink_into_the_historians_tables_is_found_by_check(dsn: str, elsewhere: str, tmp_path: Path) -> None:
    kind = {"postgresql": "postgres", "mysql": "mysql", "mssql": "sqlserver"}[dsn.partition(":")[0]]
    text = PLANT.replace("TYPE", kind).replace("DSN", dsn)
    with pytest.raises(PlantError, match="'archive' writes into the same tables"):
        parse(text.replace("EXTRA", "keep_alive: 5 s"), "plant.yaml", tmp_path, {})
    plant = parse(text.replace("EXTRA", elsewhere), "plant.yaml", tmp_path, {})
    assert isinstance(plant.historian, PostgresHistorianConfig | MysqlHistorianConfig | SqlServerHistorianConfig)
    assert plant.historian.position == "bremen/historian"
