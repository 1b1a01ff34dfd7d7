"""A sink with a position of its own meets a journal that has never been so far."""

import shutil
import time
from pathlib import Path

import pytest

from shopfloor.journal import SqliteJournal, balances
from tests.pipeline.hands import Bench, ShelfConfig, Sum, SumConfig, state, until

DAY = 86_400 * 10**9


async def made(path: Path, clock: int) -> None:
    """Make a journal at this time, whose offsets begin there."""
    journal = await SqliteJournal.open(path, clock=lambda: clock)
    await journal.close()


async def delivered(bench: Bench, *values: object) -> None:
    """Give these, and wait until they are there behind what was."""
    before = bench.store.values
    async with bench.running() as pipeline:
        for value in values:
            bench.machine.give(value)
        await until(lambda: bench.store.values == [*before, *values], f"{values} behind {before}")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        rows = await pipeline.ledger()
        assert not [pair for pair in balances(rows) if pair.missing]
    assert bench.store.offsets == sorted(set(bench.store.offsets)), "the sink's position only grows"


async def test_a_new_journal_whose_clock_is_behind_is_delivered(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway that was replaced, and starts before it has the time: its first samples are no old ones."""
    bench.store.own_position = True
    await delivered(bench, 1.0, 2.0)
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    await made(tmp_path / "journal.db", time.time_ns() - DAY)
    await delivered(bench, 3.0)
    assert capsys.readouterr().out.count("shelf holds more than this journal has ever had") == 1
    await delivered(bench, 4.0, 5.0)  # it remembers what it found out
    assert "holds more" not in capsys.readouterr().out


async def test_a_journal_that_came_back_from_a_backup_goes_on(bench: Bench, tmp_path: Path) -> None:
    """What it delivered after the backup is in the sink already; what comes now is new, though its offsets are not."""
    bench.store.own_position = True
    await delivered(bench, 1.0, 2.0)
    journal, backup = tmp_path / "journal.db", tmp_path / "backup.db"
    shutil.copy(journal, backup)
    await delivered(bench, 3.0, 4.0, 5.0)
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    shutil.copy(backup, journal)
    await delivered(bench, 6.0)
    await delivered(bench, 7.0)


async def test_a_name_that_was_something_else_before_is_said(bench: Bench) -> None:
    """A sink took a processor's name, or the reverse: no bug for ever, but the way out."""
    bench.store.own_position = True
    sink = ShelfConfig(name="sum", type="shelf", store=bench.store)
    async with bench.running(processors=[SumConfig(name="sum")]) as pipeline:
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0, 1.0], "the value and its sum")
    async with bench.running(sinks=[sink]) as pipeline:
        await until(lambda: state(pipeline, "sum") == "misconfigured", "the sink says it")
        error = next(c.last_error for c in pipeline.components() if c.name == "sum")
    assert error.startswith("the journal knows sum as something else")
    assert error.endswith("shopfloor ledger forget sum")
    journal = await SqliteJournal.open(bench.folder / "journal.db")
    assert await journal.forget("sum")
    await journal.close()
    async with bench.running(sinks=[sink]) as pipeline:
        bench.machine.give(2.0)
        await until(lambda: 2.0 in bench.store.values, "what is new is delivered")


async def test_a_processor_with_the_name_of_a_sink_is_said(bench: Bench) -> None:
    class Strict(Sum):
        def restore(self, state: bytes) -> None:
            raise ValueError(f"{state!r} is no sum")

    class StrictConfig(SumConfig):
        def build(self) -> Sum:
            return Strict()

    bench.store.own_position = True
    async with bench.running(sinks=[ShelfConfig(name="sum", type="shelf", store=bench.store)]) as pipeline:
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "delivered")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
    async with bench.running(sinks=[], processors=[StrictConfig(name="sum")]) as pipeline:
        await until(lambda: state(pipeline, "sum") == "misconfigured", "the processor says it")
        assert "is no sum" in next(c.last_error for c in pipeline.components() if c.name == "sum")
