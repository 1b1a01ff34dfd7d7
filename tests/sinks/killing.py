"""Kills a process that delivers a filled journal, again and again, while it is at work."""

import asyncio
import contextlib
import importlib
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor import plant
from shopfloor.journal import balances
from shopfloor.journal.sqlite import SqliteJournal
from shopfloor.pipeline import Pipeline
from shopfloor.samples import Batch, Sample
from tests.pipeline.hands import until

BEGIN = 1_767_592_800_000_000_000
KILLS = int(os.environ.get("SHOPFLOOR_SINK_KILLS", "3"))
"""A few by default; a soak sets more."""
IDLE = 45.0
"""Seconds after which a life ends without much progress: it has delivered everything, or starts slowly."""
WITH = tuple(f"shopfloor.sinks.{name}" for name in ("files", "http", "influxdb", "mongodb", "opcua"))
"""What the victims need beside, loaded once."""


async def fill(folder: Path, reader: str, entries: int, each: int) -> list[Sample]:
    """Put entries of samples into the journal of a folder, all for a reader; returns the samples."""
    journal = await SqliteJournal.open(folder / "journal.db", 10**9, "refuse")
    await journal.reader(reader)
    filled: list[Sample] = []
    for entry in range(entries):
        first = BEGIN + entry * each * 1000
        samples = [Sample(f"press-{i % 3}/n", first + i * 1000, entry * each + i) for i in range(each)]
        await journal.append(Batch.of("line", first, samples))
        filled += samples
    await journal.close()
    return filled


async def kill_and_finish(
    folder: Path,
    text: str,
    reader: str,
    progress: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    most: int = 20,
) -> None:
    """Let the plant deliver, killed KILLS times after some progress (whatever that counts), then until all is done.

    Each life goes on until progress has grown by a random step, up to ``most``, or by nothing for a while; the last
    one delivers the rest, and its ledger must balance.
    """
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("sink_victim")
    forks = multiprocessing.get_context("forkserver")
    # By names that are installed: the fork server of Python 3.11 does not get our path.
    forks.set_forkserver_preload(["shopfloor.pipeline", *WITH])
    chosen = random.Random(5)
    for _ in range(KILLS):
        enough = progress() + chosen.randint(1, most)
        process = forks.Process(target=victim.live, args=(text, str(folder)), daemon=True)
        await asyncio.to_thread(process.start)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE):
                while progress() < enough:
                    await asyncio.sleep(0.02)  # whoever is asked has its work to do
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.join)
    async with Pipeline(plant.parse(text, "victim.yaml", folder, {})) as pipeline:
        await until(
            lambda: all(c.state == "running" and not c.lag_entries for c in pipeline.components()),
            "everything delivered",
        )
        rows = await pipeline.ledger()
        assert not [pair for pair in balances(rows) if pair.missing]
        own = [row for row in rows if row.reader == reader and not row.source.startswith("$")]
        assert {row.outcome for row in own} <= {"delivered", "base", "waiting"}
