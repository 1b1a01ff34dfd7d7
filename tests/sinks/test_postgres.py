"""The PostgreSQL sink against a real server, looked at by a connection of the test's own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.samples import Batch, Sample, Value
from shopfloor.testing.contracts import SinkContract, SinkRig
from shopfloor.testing.contracts.values import EVERY_VALUE
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Postgres
from tests.sinks.postgres import NOW, Client, config


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


class PostgresRig(SinkRig):
    def __init__(self, proxy: FaultProxy, client: Client, timeout: str) -> None:
        super().__init__(config(proxy.port, client.schema, timeout=timeout).build())
        self.proxy = proxy
        self.client = client

    async def content(self) -> Sequence[Sample]:
        return await self.client.samples()

    async def lose(self) -> None:
        self.proxy.reset()

    async def restore(self) -> None:
        self.proxy.heal()

    async def freeze(self) -> bool:
        self.proxy.black_hole()
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        odd: list[Value] = ["a\x00b", "\ud800", 2**64, b"x" * (64 * 2**20 + 1)]
        samples = [Sample("a/x", NOW, 1.0), *(Sample("a/y", NOW + i, value) for i, value in enumerate(odd))]
        return batch(*samples, Sample("a/z\x00", NOW, 2), Sample("a/\udfff", NOW, 2)), {1, 2, 3, 4, 5, 6}


class TestPostgres(SinkContract):
    exactly_once = True
    keeps = frozenset(EVERY_VALUE) - {"text"}  # it has the character NUL

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres, client: Client) -> None:
        self.server, self.client = postgres, client

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:  # noqa: ARG002  # the server keeps its own
        async with FaultProxy("127.0.0.1", self.server.port) as proxy:
            yield PostgresRig(proxy, self.client, "5 s" if self.hasty else "30 s")
