"""A sink that is gone for days and back, by a clock that a test moves: what it costs is what was declared, no more."""

import asyncio
import json
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import httpx
import pytest

from shopfloor.console import create_app
from shopfloor.journal import LedgerRow, balances, thinning, window, writer as writing
from shopfloor.pipeline import Pipeline, runner as runner_module
from shopfloor.pipeline.runner import LONGEST_DELAY, Runner
from shopfloor.pipeline.status import ComponentStatus
from shopfloor.plant import JournalConfig
from shopfloor.samples import Batch, Sample
from shopfloor.testing.clocks import SECOND, ManualClock
from tests.pipeline.hands import AWAY, Bench, ShelfConfig, Store, state, until

DAY = 86_400
EACH = 400
"""Samples in one."""
MARKS = "$journal/*"
FIGURES = "page_count", "freelist_count", "page_size"


class Days:
    """Time that passes as fast as the sink tries again: each of its pauses is over at once, and both clocks know it."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, every: int = 300) -> None:
        """``every``: seconds between two batches of the machine."""
        self.every = every
        self.clock = ManualClock()
        self.begin = self.clock.now
        self.given: list[Sample] = []
        self.pauses: list[float] = []
        self.passed = 0.0
        """Seconds."""
        self.back_after = 0.0
        self._bench = bench
        plain = Runner._nap

        async def nap(runner: Runner, seconds: float) -> None:
            if runner.name != "shelf" or bench.store.away is None:
                return await plain(runner, seconds)
            self.pauses.append(seconds)
            self._pass(seconds)
            await asyncio.sleep(0)
            if bench.machine.acknowledged * EACH < len(self.given):
                # Else days would pass before the journal has got what the machine gave.
                await until(lambda: self.taken() or self.held_back(), "the machine's data is taken")
            await until(self.settled, "the journal is as small as it shall be")
            return None

        self.held_back: Callable[[], bool] = lambda: False
        self.settled: Callable[[], bool] = lambda: True
        monkeypatch.setattr(Runner, "_nap", nap)
        monkeypatch.setattr(runner_module, "time", SimpleNamespace(monotonic=lambda: self.passed))

    def taken(self) -> bool:
        """Whether the journal has all that the machine gave."""
        return self._bench.machine.acknowledged * EACH == len(self.given)

    def _pass(self, seconds: float) -> None:
        self.passed += seconds
        self.clock.now = self.begin + round(self.passed * SECOND)
        while len(self.given) < self.passed / self.every * EACH:
            self.give()
        if self.passed > self.back_after:
            self._bench.store.away = None

    def give(self) -> None:
        """A batch of the machine: waves, whose ends and extremes are known."""
        at = self.begin + len(self.given) // EACH * self.every * SECOND
        number = len(self.given)
        made = [Sample(f"press-1/{i % 4}", at + i, float((number + i) * 7919 % 1009)) for i in range(EACH)]
        self.given += made
        self._bench.machine.queue.put_nowait(Batch.of("?", at, made))


@asynccontextmanager
async def away_for(
    bench: Bench, days: Days, seconds: float, keep: int, policy: Literal["refuse", "oldest", "thin"]
) -> AsyncIterator[tuple[Pipeline, Store]]:
    """A plant whose sink leaves after a sample, stays away so long and is back; beside it one that gets the marks."""
    marks = Store()
    sinks = [
        ShelfConfig(name="shelf", type="shelf", store=bench.store),
        ShelfConfig(name="marks", type="shelf", store=marks, tags=[MARKS]),
    ]
    journal = JournalConfig(path=bench.folder / "journal.db", keep=keep, when_full=policy)
    plant = bench.plant(sinks).model_copy(update={"journal": journal})
    async with Pipeline(plant, days.clock) as pipeline:
        days.give()
        await until(lambda: bench.store.samples, "the first samples")
        days.back_after = seconds
        bench.store.away = AWAY
        days.give()
        yield pipeline, marks


async def caught_up(pipeline: Pipeline, days: Days) -> Sequence[LedgerRow]:
    """Wait until nothing waits, neither here nor at the machine; the ledger, which balances."""
    await until(lambda: days.taken() and all(c.lag_entries == 0 for c in pipeline.components()), "all delivered")
    rows = await pipeline.ledger()
    assert not [pair for pair in balances(rows) if pair.missing]
    return rows


def back(pipeline: Pipeline, bench: Bench) -> bool:
    return bench.store.away is None and state(pipeline, "shelf") == "running"


def dropped(rows: Sequence[LedgerRow], source: str = "") -> int:
    """What the ledger says that the sink did not get, of one source or of all."""
    return sum(
        row.samples
        for row in rows
        if row.reader == "shelf" and row.outcome == "dropped" and (not source or row.source == source)
    )


def shelf(pipeline: Pipeline) -> ComponentStatus:
    return next(component for component in pipeline.components() if component.name == "shelf")


def told(marks: Store, tag: str) -> list[dict[str, Any]]:
    return [json.loads(str(sample.value)) for sample in marks.samples if sample.tag == tag]


def used(path: Path) -> int:
    """Bytes of a journal that are in use."""
    with closing(sqlite3.connect(path)) as db:
        pages, free, size = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in FIGURES)
        return int((pages - free) * size)


def lines(said: str, name: str) -> list[str]:
    return [line for line in said.splitlines() if f"component={name}" in line]


async def seen(pipeline: Pipeline, days: Days, folder: Path) -> dict[str, Any]:
    """What a person, a load balancer and Prometheus see meanwhile."""
    app = create_app(pipeline, now=days.clock, folder=folder)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        ready, metrics = await client.get("/ready"), await client.get("/metrics")
        components = (await client.get("/api/components")).json()["components"]
        alive = await client.get("/health")
    figures = dict(line.rsplit(" ", 1) for line in metrics.text.splitlines() if not line.startswith("#"))
    labels = '{component="shelf",kind="sink",type="shelf"'
    return {
        "alive": alive.status_code,
        "ready": (ready.status_code, ready.json()["waiting"]),
        "component": next(row for row in components if row["name"] == "shelf"),
        "entries": float(figures[f"shopfloor_component_lag_entries{labels}}}"]),
        "seconds": float(figures[f"shopfloor_component_lag_seconds{labels}}}"]),
        "waiting": float(
            figures['shopfloor_component_state{component="shelf",kind="sink",state="waiting",type="shelf"}']
        ),
    }


async def test_three_days_within_keep_cost_nothing_but_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tried again every 30 s at the latest, one line at each end, everything in order; some 17,000 tries."""
    days = Days(bench, monkeypatch, every=1800)
    async with away_for(bench, days, 3 * DAY, 10**9, "refuse") as (pipeline, _):
        await until(lambda: days.passed > 2 * DAY and days.taken(), "two of the days, and what was given meanwhile")
        looked = await seen(pipeline, days, bench.folder)
        await until(lambda: back(pipeline, bench), "the return")
        rows = await caught_up(pipeline, days)
    assert max(days.pauses) <= LONGEST_DELAY
    # 15 s on average, with a standard deviation of 8.7: the sum of n of them is 259,200 s for an n of 17,280 ± 76.
    assert 17_280 - 8 * 76 < len(days.pauses) < 17_280 + 8 * 76 + 8
    assert bench.store.samples == days.given
    assert dropped(rows) == 0

    assert looked["alive"] == 200
    assert looked["ready"] == (503, [{"name": "shelf", "state": "waiting", "reason": "the cable is out"}])
    assert 2 * DAY / days.every <= looked["entries"] <= looked["component"]["lag_entries"]
    assert looked["seconds"] == pytest.approx(2 * DAY, rel=0.1)
    assert looked["waiting"] == 1

    went, came = lines(capsys.readouterr().out, "shelf")
    assert "sink shelf is away" in went
    assert "the cable is out" in went
    assert "sink shelf is back" in came
    assert "buffered_entries=14" in came  # 144 of the days, and one or two
    assert "away='3 days, 0:00:" in came


async def test_over_keep_it_refuses_when_that_is_declared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The machine waits instead: nothing of what was acknowledged is dropped, and all that it kept comes afterwards."""
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    days = Days(bench, monkeypatch)
    async with away_for(bench, days, DAY / 2, 600_000, "refuse") as (pipeline, marks):
        days.held_back = lambda: pipeline._journal._writer.full
        await until(days.held_back, "the journal is full")
        acknowledged = bench.machine.acknowledged
        await until(lambda: back(pipeline, bench), "the return")
        assert acknowledged * EACH < len(days.given), "what did not fit was not taken from the machine"
        rows = await caught_up(pipeline, days)
    assert bench.store.samples == days.given
    assert dropped(rows) == 0
    assert not marks.samples
    while_away, _ = capsys.readouterr().out.split("sink shelf is back")
    assert while_away.count("the journal is full") == 1


async def test_over_keep_the_oldest_go_and_marks_and_ledger_say_which(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing lies within the marks, what is there outside of them, and the sums are the same."""
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    days = Days(bench, monkeypatch)
    async with away_for(bench, days, math.inf, 600_000, "oldest") as (pipeline, marks):
        await until(lambda: shelf(pipeline).dropped, "it is said while it is away")
        assert shelf(pipeline).state == "waiting"
        days.back_after = max(DAY / 2, days.passed)
        await until(lambda: back(pipeline, bench), "the return")
        rows = await caught_up(pipeline, days)
        assert shelf(pipeline).dropped < dropped(rows), "only what was dropped since it is back"
    held = set(bench.store.samples)
    missing = [sample for sample in days.given if sample not in held]
    assert missing
    assert bench.store.samples == [sample for sample in days.given if sample in held], "in order, none twice"
    assert dropped(rows, "plc") == len(missing)
    gaps = told(marks, "$journal/gap")
    assert sum(gap["dropped"].get("shelf", 0) for gap in gaps) == dropped(rows)
    assert {in_a_gap(sample, gaps) for sample in missing} == {True}
    assert {in_a_gap(sample, gaps) for sample in held} == {False}
    assert capsys.readouterr().out.count("the journal drops its oldest entries") == 1


def in_a_gap(sample: Sample, gaps: Sequence[dict[str, Any]]) -> bool:
    """By the time of reception, which is that of the batch's first sample here."""
    received = sample.time // SECOND * SECOND
    return any(gap["from"] <= received <= gap["to"] for gap in gaps)


async def test_over_keep_it_becomes_thinner_and_marks_and_ledger_say_where(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every batch is still told of, each tag's extremes are there, and as many are counted as gone as are gone."""
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(window, "WINDOW_BYTES", 0)  # else all is in memory still, whole
    monkeypatch.setattr(thinning, "AT_ONCE", 1)  # else what may be under way, and stays whole, is all there is
    monkeypatch.setattr(thinning, "READS_UNDER_WAY", 1)
    days = Days(bench, monkeypatch)
    keep = 900_000
    # Who reads an entry before it is thinned has it whole. So the sink returns when there is nothing to be thinned.
    days.settled = lambda: used(bench.folder / "journal.db") <= keep
    async with away_for(bench, days, DAY / 2, keep, "thin") as (pipeline, marks):
        await until(lambda: back(pipeline, bench), "the return")
        rows = await caught_up(pipeline, days)
    held = set(bench.store.samples)
    assert bench.store.samples == [sample for sample in days.given if sample in held], "in order, none twice"
    gone = len(days.given) - len(held)
    assert gone
    assert not told(marks, "$journal/gap"), "thinning was enough"
    assert dropped(rows, "plc") == gone
    thinned = told(marks, "$journal/thinned")
    assert sum(mark["thinned"].get("plc", 0) for mark in thinned) == gone
    assert all(in_a_gap(sample, thinned) for sample in days.given if sample not in held)
    assert {sample.time // SECOND for sample in held} == {sample.time // SECOND for sample in days.given}, "every batch"
    for tag in {sample.tag for sample in days.given}:
        values = [float(str(sample.value)) for sample in days.given if sample.tag == tag]
        left = [float(str(sample.value)) for sample in bench.store.samples if sample.tag == tag]
        assert (min(values), max(values)) == (min(left), max(left))
        assert (values[0], values[-1]) == (left[0], left[-1])
    assert capsys.readouterr().out.count("keeps fewer of its oldest measurements") == 1
