"""The SQL Server sink while a real server goes and comes back in mid-transaction, where the environment names one.

`SHOPFLOOR_TEST_SQLSERVER_CONTROL` names a program that is given `stop`, `kill` or `start`, and returns when that is
done; without it the line is cut only.
"""

import asyncio
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from tests.sinks import sql_victim
from tests.sinks.sqlserver import Client, server

CONTROL = "SHOPFLOOR_TEST_SQLSERVER_CONTROL"
NUMBER = "COALESCE(bigint_value, CAST(double_value AS bigint), CAST(text_value AS bigint))"


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(server())
    yield client
    client.drop()


async def moves(client: Client) -> None:
    """Wait until something more is stored than now."""

    async def beyond(position: int) -> bool:
        return await asyncio.to_thread(client.position) > position

    position = await asyncio.to_thread(client.position)
    await until(lambda: beyond(position), "the sink goes on", 180)


async def everything(folder: Path, client: Client) -> None:
    """What was journalled is in the database once: by count, sum and each number."""
    async with Pipeline(sql_victim.plant(folder, client.config(), counts=False)) as pipeline:
        await until(
            lambda: all(c.state == "running" and not c.lag_entries for c in pipeline.components()), "all is there", 180
        )
        rows = await pipeline.ledger()
        assert not [pair for pair in balances(rows) if pair.missing]
        received = sum(row.samples for row in rows if row.source == "numbers" and row.outcome == "received")
    counted = client.ask(f"SELECT COUNT(*), SUM({NUMBER}), COUNT(DISTINCT {NUMBER}) FROM shopfloor.history")
    assert received > 0
    assert counted == [(received, received * (received - 1) // 2, received)]


@pytest.mark.timeout(900)  # Babelfish is no fast server
async def test_a_line_that_is_cut_while_transactions_are_under_way(client: Client, tmp_path: Path) -> None:
    async with (
        FaultProxy(client.host, client.port) as proxy,
        Pipeline(sql_victim.plant(tmp_path, client.config(proxy.port), pause=0.1)),
    ):
        for _ in range(3):
            await moves(client)
            proxy.drop()
        await moves(client)
    await everything(tmp_path, client)


@pytest.mark.timeout(900)  # as above
@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_server_that_goes_and_comes_back(way: str, client: Client, tmp_path: Path) -> None:
    """One line each time it goes, one when it is back, and everything is there once.

    A slow server may go twice: what takes longer than `timeout` behind its start counts as gone, too.
    """
    program = os.environ.get(CONTROL)
    if program is None:
        pytest.skip(f"needs to stop the SQL Server: name a program in {CONTROL} that is given stop, kill or start")

    async def control(word: str) -> None:
        await asyncio.to_thread(subprocess.run, [*shlex.split(program), word], check=True, timeout=300)

    with capture_logs() as logs:
        async with Pipeline(sql_victim.plant(tmp_path, client.config(), pause=0.1)) as pipeline:
            await moves(client)
            await control(way)
            await until(lambda: pipeline.components()[1].state != "running", "the loss is noticed", 180)
            await control("start")
            await moves(client)
    await everything(tmp_path, client)
    said = [line["event"] for line in logs if line.get("component") == "archive"]
    assert said
    assert said == ["sink archive is away, it will be tried again", "sink archive is back"] * (len(said) // 2)
