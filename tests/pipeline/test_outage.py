"""A real PLC is pulled away and put back: nothing that it still has is lost, and the ledger says so."""

import asyncio
from pathlib import Path

import pytest

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline, runner
from shopfloor.testing.faults import FaultProxy
from tests.pipeline import victim
from tests.pipeline.hands import until
from tests.pipeline.plc import Plc

END = 2**62


@pytest.mark.parametrize("fault", ["drop", "reset", "black_hole"])
async def test_a_cable_that_was_out_costs_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The PLC counts on while it cannot be reached; afterwards every count is in the historian, in order."""
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.5)
    plc = Plc()
    async with plc.running(monkeypatch), FaultProxy("127.0.0.1", plc.port) as proxy:
        plant = victim.described(tmp_path, f"opc.tcp://127.0.0.1:{proxy.port}")
        async with Pipeline(plant) as pipeline:
            await until(lambda: len(plc.acknowledged) > 50, "the first counts")
            for _ in range(1 if fault == "black_hole" else 3):
                began = len(plc.acknowledged)
                if fault == "drop":
                    proxy.drop()
                else:
                    getattr(proxy, fault)()
                    await until(lambda: not connected(pipeline), "the loss")
                    await asyncio.sleep(0.3)
                    proxy.heal()
                enough = began + 50
                # The lambda is done with before the next round changes `enough`.
                await until(lambda: len(plc.acknowledged) > enough, "counts after the return")  # noqa: B023
            plc.counts = False
            last = plc.count
            await until(lambda: last in plc.acknowledged, "the last count")
            await until(lambda: all(not c.lag_entries for c in pipeline.components()), "everything delivered")
            assert pipeline.historian is not None
            series = await pipeline.historian.history("plc/count", 0, END, limit=1_000_000)
            stored = [value for value in series.values if isinstance(value, int)]
            assert set(range(stored[0], last + 1)) <= set(stored), "no count is missing"
            assert stored == sorted(stored)
            told = await pipeline.historian.history("$source/plc/complete", 0, END, limit=10)
            assert len(told.values) > 0, "that nothing is missing is told to the figures"
            assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]


def connected(pipeline: Pipeline) -> bool:
    return next(c.state for c in pipeline.components() if c.kind == "source") == "running"
