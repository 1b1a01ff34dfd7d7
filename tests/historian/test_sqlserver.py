"""The historian in SQL Server answers as the embedded ones do: with a real server, where the environment names one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from shopfloor.plant import HistorianConfig
from shopfloor.sinks.sqlserver_historian import SqlServerHistorianConfig
from shopfloor.testing.contracts.values import EVERY_VALUE
from tests.historian.tables import HistorianTests
from tests.sinks.sqlserver import Client, server


class TestSqlServerHistorian(HistorianTests):
    unfit = ("\ud800", 2**64)
    silence = "30 s"
    pause = 0.2  # Babelfish is no fast server
    connects = 2  # whether somebody listens there is seen first

    @pytest.fixture(autouse=True)
    def _server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.client = Client(server())
        self.port = self.client.port
        if self.client.babelfish:  # it has no text with the character NUL, and makes tables slowly
            monkeypatch.setattr("shopfloor.pipeline.probe.PATIENCE", 60.0)
            monkeypatch.setattr(type(self), "keeps", frozenset(EVERY_VALUE) - {"text"})
        yield
        self.client.drop()

    def config(self, port: int, **options: object) -> HistorianConfig:
        fields: dict[str, object] = {
            "type": "sqlserver", "dsn": self.client.dsn(port), "timeout": "10 s", "keep_alive": "0.2 s",
        }  # fmt: skip
        return SqlServerHistorianConfig.model_validate(fields | options)

    def sink(self, **options: object) -> Callable[[], AbstractAsyncContextManager[object]]:
        return self.client.config(self.port, **options).build

    def nowhere(self) -> str:
        return self.client.dsn(database="nowhere")

    def position(self) -> int:
        return self.client.position()
