"""The historian in a real MariaDB answers as the embedded ones do."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from shopfloor.plant import HistorianConfig
from shopfloor.sinks.mysql_historian import MysqlHistorianConfig
from shopfloor.testing.programs import MariaDb
from tests.historian.tables import HistorianTests
from tests.sinks.mysql import Client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    with MariaDb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


class TestMysqlHistorian(HistorianTests):
    unfit = ("\ud800", 2**64)

    @pytest.fixture(autouse=True)
    def _server(self, server: MariaDb) -> None:
        self.port, self.client = server.port, Client(server.port)

    def config(self, port: int, **options: object) -> HistorianConfig:
        fields: dict[str, object] = {
            "type": "mysql", "dsn": f"mysql://root@127.0.0.1:{port}/{self.client.database}",
            "timeout": "30 s", "keep_alive": "0.2 s",
        }  # fmt: skip
        return MysqlHistorianConfig.model_validate(fields | options)

    def sink(self, **options: object) -> Callable[[], AbstractAsyncContextManager[object]]:
        return self.client.config(self.port, **options).build

    def nowhere(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/nowhere"

    def position(self) -> int:
        if not self.client.ask("SHOW TABLES LIKE 'shopfloor_writer'"):
            return -1
        return int(self.client.ask("SELECT COALESCE(MAX(position), -1) FROM shopfloor_writer")[0][0])
