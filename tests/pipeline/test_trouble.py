"""Components that misbehave, and people who press buttons at bad moments, harm nobody else."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any

import pytest

from shopfloor.historian.sqlite import SqliteConfig
from shopfloor.historian.sqlite_store import SqliteHistorian
from shopfloor.journal import balances
from shopfloor.journal.work import Fresh, Work
from shopfloor.journal.writer import Writer
from shopfloor.pipeline import Pipeline, pipeline as pipeline_module, processors, runner, sinks
from shopfloor.pipeline.backoff import LONGEST_ASKED
from shopfloor.samples import Batch, Rejected, Unavailable
from shopfloor.seams import Source
from tests.pipeline.hands import AWAY, BEGIN, Bench, HandConfig, Shelf, ShelfConfig, SumConfig, state, until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(pipeline_module, "STOP_SECONDS", 1.0)


class Slamming(Shelf):
    """Cannot leave without an error."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        raise Unavailable("it was gone already")


class SlammingConfig(ShelfConfig):
    def build(self) -> Shelf:
        return Slamming(self.store)


async def test_a_sink_that_fails_to_leave_is_stopped_all_the_same(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bench.running(sinks=[SlammingConfig(name="shelf", type="shelf", store=bench.store)]) as pipeline:
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the sample")
    entered = bench.store.entered
    await asyncio.sleep(0.2)
    assert bench.store.entered == entered, "it went on after the end"
    assert state(pipeline, "shelf") == "stopped"
    assert "did not stop" not in capsys.readouterr().out


class Telling(Shelf):
    """Notices by itself that the connection is lost."""

    async def lost(self) -> None:
        await until(lambda: self.store.away, "the loss")
        assert self.store.away is not None
        raise self.store.away


class TellingConfig(ShelfConfig):
    def build(self) -> Shelf:
        return Telling(self.store)


async def test_a_sink_that_is_idle_comes_back_before_it_is_needed(bench: Bench) -> None:
    async with bench.running(sinks=[TellingConfig(name="shelf", type="shelf", store=bench.store)]) as pipeline:
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the sample")
        bench.store.away = AWAY
        await until(lambda: state(pipeline, "shelf") == "waiting", "the loss, with nothing to write")
        entered = bench.store.entered
        bench.store.away = None
        await until(lambda: state(pipeline, "shelf") == "running", "the return, with nothing to write")
        assert bench.store.entered > entered
        bench.machine.give(2.0)
        await until(lambda: bench.store.values == [1.0, 2.0], "the sample after the return")
        assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]


class Cancelling(Source):
    """Its library cancels it from inside, each time."""

    entered = 0

    async def batches(self) -> AsyncGenerator[Batch]:
        type(self).entered += 1
        raise asyncio.CancelledError
        yield


class CancellingConfig(HandConfig):
    def build(self) -> Any:
        return Cancelling()


async def test_a_component_cancelled_from_inside_backs_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_DELAY", "LONGEST_DELAY"):
        monkeypatch.setattr(runner, name, 10.0**7)  # of which no draw is short
    plant = bench.plant().model_copy(update={"sources": [CancellingConfig(name="plc")]})
    async with Pipeline(plant) as pipeline:
        await until(lambda: state(pipeline, "plc") == "failed", "the failure")
        await asyncio.sleep(0.2)
        assert Cancelling.entered == 1


async def test_who_asks_to_be_left_alone_for_a_while_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After of a server counts, within reason, and a little more than that; each says anew."""
    napped: list[float] = []

    async def nap(_self: runner.Runner, seconds: float) -> None:
        napped.append(seconds)
        bench.store.away = troubles.pop(0) if troubles else None
        await asyncio.sleep(0)

    monkeypatch.setattr(runner.Runner, "_nap", nap)
    troubles = [Unavailable("busy", after=7.0), Unavailable("busy", after=10.0**9), AWAY]
    sinks = [ShelfConfig(name="shelf", type="shelf", store=bench.store)]
    plant = bench.plant(sinks).model_copy(update={"sources": []})
    async with Pipeline(plant) as pipeline:
        await until(lambda: state(pipeline, "shelf") == "running", "the return")
        assert napped[0] == 0.0
        assert 7 <= napped[1] < 8
        assert LONGEST_ASKED <= napped[2] < LONGEST_ASKED + 1
        assert napped[3] < 1


class Wrong(Shelf):
    """Names samples that it was not given."""

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        del entries
        raise Rejected("one by one, please")

    async def write(self, offset: int, batch: Batch) -> None:
        del offset, batch
        raise Rejected("no", [-1])


class WrongConfig(ShelfConfig):
    def build(self) -> Shelf:
        return Wrong(self.store)


async def test_indices_out_of_range_are_the_bug_of_that_sink(bench: Bench) -> None:
    async with bench.running(sinks=[WrongConfig(name="shelf", type="shelf", store=bench.store)]) as pipeline:
        bench.machine.give(1.0, 2.0)
        await until(lambda: state(pipeline, "shelf") == "failed", "the failure")
        assert "index" in next(c.last_error for c in pipeline.components() if c.name == "shelf")


async def test_refusals_of_one_kind_are_said_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.store.refuse = lambda sample: sample.value == "bad"
    async with bench.running():
        for _ in range(20):
            bench.machine.give("bad")
            await asyncio.sleep(0.01)
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the good one")
    assert capsys.readouterr().out.count("refuses samples") == 1


async def test_a_batch_of_nothing_but_a_checkpoint_is_offered_to_no_sink(bench: Bench) -> None:
    async with bench.running() as pipeline:
        bench.machine.queue.put_nowait(Batch("?", BEGIN, [], [], [], checkpoint=b"one"))
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the sample")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
    assert len(bench.store.offsets) == 1


@pytest.mark.parametrize(("heavy", "store_every"), [(False, 0), (True, 0.02), (True, 60)])
async def test_a_processor_paused_while_it_commits_gives_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, heavy: bool, store_every: float
) -> None:
    """Also one whose state is stored now and then, and what came since is folded again."""
    monkeypatch.setattr(processors, "STORE_EVERY", store_every)
    async with bench.running(processors=[SumConfig(name="sum", type="sum", heavy=heavy)]) as pipeline:
        for i in range(60):
            bench.machine.give(1.0)
            await until(lambda: bench.machine.acknowledged > i, "the input")  # noqa: B023  # done with at once
            await asyncio.sleep(0)
            await pipeline.restart("sum")
        await until(lambda: bench.holds(60.0), "the last sum")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
    sums = [sample.value for sample in bench.store.samples if sample.tag == "press-1/sum"]
    assert sums == [float(i + 1) for i in range(60)]


async def test_resuming_while_a_pause_is_still_leaving_does_not_look_paused(bench: Bench) -> None:
    async with bench.running() as pipeline:
        await until(lambda: state(pipeline, "plc") == "running", "the source")
        await asyncio.gather(pipeline.pause("plc"), pipeline.resume("plc"))
        await until(lambda: bench.machine.entered == 2 and state(pipeline, "plc") == "running", "the return")
        await asyncio.sleep(0.05)
        assert state(pipeline, "plc") == "running"


async def test_a_disk_that_refuses_is_said_once_a_source(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is acknowledged meanwhile; when there is space again everything goes on and the ledger balances."""
    full = False
    plain = Writer._transact

    def transact(self: Writer, works: list[Work]) -> tuple[list[Any], Fresh]:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        return plain(self, works)

    monkeypatch.setattr(Writer, "_transact", transact)
    async with bench.running() as pipeline:
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the first")
        full = True
        bench.machine.give(2.0)
        await until(lambda: bench.machine.entered > 6, "several tries")
        assert bench.machine.acknowledged == 1
        full = False
        bench.machine.give(3.0)
        await until(lambda: 3.0 in bench.store.values, "what came after")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
    said = capsys.readouterr().out
    assert said.count("plc is away") == 1
    assert said.count("plc is back") == 1


async def test_a_commit_that_the_disk_refuses_is_made_good_also_when_nothing_follows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was delivered last before a quiet night is not left waiting until the morning."""
    refused = 0
    plain = Writer._transact

    def transact(self: Writer, works: list[Work]) -> tuple[list[Any], Fresh]:
        nonlocal refused
        if bench.store.values and not refused:  # it holds the sample: this is the commit that says so
            refused += 1
            raise sqlite3.OperationalError("database or disk is full")
        return plain(self, works)

    monkeypatch.setattr(Writer, "_transact", transact)
    async with bench.running() as pipeline:
        bench.machine.give(1.0)
        await until(lambda: refused == 1, "the refusal")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        assert bench.store.values[0] == 1.0
        assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]


async def test_a_bug_that_comes_again_is_said_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    async with bench.running(processors=[SumConfig(name="sum", type="sum")]) as pipeline:
        bench.machine.give("poison")
        await until(lambda: next(c.restarts for c in pipeline.components() if c.name == "sum") > 4, "several tries")
    assert capsys.readouterr().out.count("please report it") == 1


async def test_owed_releases_do_not_wait_for_a_full_journal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A button must come up at once when its source is back, whatever the disk does."""
    async with bench.running() as pipeline:
        await until(lambda: state(pipeline, "plc") == "running", "the source")
        recovered = asyncio.Event()

        async def recover() -> None:
            recovered.set()

        source = pipeline._sources[0]
        monkeypatch.setattr(source, "_connected", recover)
        pipeline._journal._writer.full = True
        monkeypatch.setattr(pipeline._journal._writer, "_enforce_keep", lambda: None)
        await pipeline.restart("plc")
        async with asyncio.timeout(30):
            await recovered.wait()
        pipeline._journal._writer.full = False


async def test_a_start_that_fails_leaves_nothing_open(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: HandConfig) -> None:
        raise AWAY

    with monkeypatch.context() as patched:
        patched.setattr(HandConfig, "declared", broken)
        with pytest.raises(Unavailable):
            await Pipeline(bench.plant()).__aenter__()
    async with bench.running():  # the journal's lock is free
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the sample")


async def test_a_database_that_is_away_while_the_historian_is_looked_after_is_said_in_one_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once until it went well again; no traceback, and the historian stores on meanwhile."""
    tried: list[bool] = []

    async def maintain(_self: SqliteHistorian, _now: int) -> None:
        tried.append(len(tried) not in range(3, 5))
        if tried[-1]:
            raise Unavailable("the database does not answer")

    monkeypatch.setattr(sinks, "MAINTAIN_EVERY", 0.001)
    monkeypatch.setattr(SqliteHistorian, "maintain", maintain)
    historian = SqliteConfig(type="sqlite", path=bench.folder / "history.db")
    async with Pipeline(bench.plant().model_copy(update={"historian": historian})) as pipeline:
        await until(lambda: len(tried) > 10, "it is tried again")
        bench.machine.give(1.0)
        await until(lambda: pipeline.historian is not None, "the store")
        assert pipeline.historian is not None
        while not await pipeline.historian.latest(["press-1/PV"]):
            await asyncio.sleep(0.005)
        assert state(pipeline, "historian") == "running"
    said = capsys.readouterr().out
    assert said.count("looking after the historian failed; it will be tried again") == 2
    assert said.count("the database does not answer") == 2
    assert "Traceback" not in said
