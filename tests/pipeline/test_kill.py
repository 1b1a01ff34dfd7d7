"""`kill -9` at any moment loses nothing that was acknowledged to a real OPC UA server."""

import asyncio
import contextlib
import importlib
import json
import math
import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from tests.pipeline.hands import until
from tests.pipeline.plc import Plc

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "48"))
"""By default, divided between the plants; a soak sets more."""
SEEDS = (7, 11, 13, 17)
"""Of as many plants: they are killed side by side where tests run so."""
END = 2**62


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_that_was_acknowledged_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Killed again and again at random moments over one journal and one historian.

    At the end every count that the PLC was told to forget is in the historian, no stored sample is
    there twice by our fault, and the ledger balances.
    """
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("victim")
    plc = Plc()
    chosen = random.Random(seed)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["victim"])
    async with plc.running(monkeypatch):
        lives_with_data, kills = 0, math.ceil(KILLS / len(SEEDS))
        for _ in range(kills):
            before = len(plc.acknowledged)
            process = forks.Process(target=victim.live, args=(str(tmp_path), plc.endpoint), daemon=True)
            await asyncio.to_thread(process.start)
            # Half of the lives end at any moment of the start, half some time after the first data.
            if chosen.random() < 0.5:
                await asyncio.sleep(chosen.uniform(0.0, 0.6))
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(45):
                        while len(plc.acknowledged) == before:
                            await asyncio.sleep(0.005)
                await asyncio.sleep(chosen.uniform(0.0, 0.2))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.join)
            lives_with_data += len(plc.acknowledged) > before
        acknowledged = set(plc.acknowledged)
        plc.counts = False
        assert lives_with_data > kills / 4, "the test must have killed processes that were at work"
        async with Pipeline(victim.described(tmp_path, plc.endpoint)) as pipeline:
            await until(lambda: pipeline.historian is not None, "the historian")
            await until(lambda: all(not c.lag_entries for c in pipeline.components()), "everything delivered")
            assert pipeline.historian is not None
            series = await pipeline.historian.history("plc/count", 0, END, limit=10_000_000)
            stored = list(series.values)
            assert not acknowledged - set(stored), "acknowledged, but lost"
            assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
            assert isinstance(series.values[0], int)
            await _figures(pipeline, series.values[0], plc.count)


async def _figures(pipeline: Pipeline, first: int, last: int) -> None:
    """What the processor has counted over all its deaths is what the PLC has: no unit twice, none left out."""
    assert pipeline.historian is not None
    days = await pipeline.historian.history("press/kpi/day", 0, END)
    closed = {start: json.loads(str(day))["good"] for start, day in zip(days.times, days.values, strict=True)}

    def good() -> float:
        live = pipeline.live.get("press/kpi/live")
        return float(sum(closed.values()) + (json.loads(str(live.value))["good"] if live is not None else 0))

    await until(lambda: good() >= last - first, "the figures")
    assert good() == last - first
