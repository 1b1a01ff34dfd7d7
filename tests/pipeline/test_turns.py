"""Those who work through a backlog go on one at a time, and everything else goes first."""

import asyncio
import threading
from pathlib import Path

import pytest

from shopfloor.journal import SqliteJournal
from shopfloor.samples import Batch
from shopfloor.turns import Pieces, give_way, giving_way, hurry, turn


async def test_what_is_due_never_waits_for_two_turns() -> None:
    """Five that have much to do, and one that wants a step now and then: between two of its steps one has worked."""
    worked: list[int] = []
    between: list[int] = []

    async def work(number: int) -> None:
        for _ in range(20):
            await turn()
            worked.append(number)

    async def step() -> None:
        while len(worked) < 100:
            before = len(worked)
            await asyncio.sleep(0)
            between.append(len(worked) - before)

    await asyncio.gather(*(work(number) for number in range(5)), step())
    assert max(between) == 1
    assert worked == [0, 1, 2, 3, 4] * 20, "in the order of asking"


async def test_one_that_is_cancelled_keeps_nobody_waiting() -> None:
    """Whether it waits for its turn or has just been given it."""

    async def forever() -> None:
        while True:
            await turn()

    tasks = [asyncio.create_task(forever()) for _ in range(3)]
    for rounds in (1, 7, 12):
        for _ in range(rounds):
            await asyncio.sleep(0)
        tasks.pop().cancel()
    async with asyncio.timeout(30):
        await turn()


def test_each_event_loop_has_turns_of_its_own() -> None:
    """One that was ended in the middle leaves nothing to the next."""

    async def leave_behind() -> None:
        waiting = asyncio.create_task(turn())
        await asyncio.sleep(0)
        assert not waiting.done()

    asyncio.run(leave_behind())
    asyncio.run(asyncio.wait_for(turn(), 30))


async def test_a_batch_on_its_way_to_the_disk_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five that work through a backlog do no further piece until it is durable, and go on then."""
    monkeypatch.setattr("shopfloor.turns.LONGEST", 60.0)
    monkeypatch.setattr("shopfloor.turns.STALE", 60.0)
    worked = 0

    async def work() -> None:
        nonlocal worked
        while True:
            await turn()
            worked += 1

    journal = await SqliteJournal.open(tmp_path / "journal.db")
    backlogs = [asyncio.create_task(work()) for _ in range(5)]
    try:
        async with asyncio.timeout(60):
            for number in range(10):
                before = worked
                while worked == before:
                    await asyncio.sleep(0)
                done, before = journal.append(Batch("plc", number, ["press"], [number], [1.0])), worked
                await done
                assert worked - before <= 1, "but for the one whose turn it was already"
    finally:
        for backlog in backlogs:
            backlog.cancel()
        await asyncio.gather(*backlogs, return_exceptions=True)
        await journal.close()


@pytest.mark.parametrize("overlapping", [True, False])
async def test_a_backlog_goes_on_when_something_hurries_all_the_time(*, overlapping: bool) -> None:
    """One batch after the other, or the next one before the last one is durable: a backlog has its share."""
    worked = 0

    async def work() -> None:
        nonlocal worked
        while worked < 50:
            await turn()
            worked += 1

    async def give() -> None:
        before = asyncio.get_running_loop().create_future()
        while True:
            on_its_way = asyncio.get_running_loop().create_future()
            if not overlapping:
                before.cancel()
            hurry(on_its_way)
            await asyncio.sleep(0)
            before.cancel()
            before = on_its_way

    giving = asyncio.create_task(give())
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(work() for _ in range(5)))
    finally:
        giving.cancel()


async def test_what_waits_for_room_in_the_journal_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a full journal would slow the very readers that make room."""
    monkeypatch.setattr("shopfloor.turns.LONGEST", 600.0)
    monkeypatch.setattr("shopfloor.turns.STALE", 0.0)
    parked = asyncio.get_running_loop().create_future()
    hurry(parked)
    async with asyncio.timeout(60):
        await turn()
        await asyncio.to_thread(give_way)
    parked.cancel()


async def test_a_thread_gives_way_to_what_hurries(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on when that is durable."""
    monkeypatch.setattr("shopfloor.turns.LONGEST", 60.0)
    monkeypatch.setattr("shopfloor.turns.STALE", 60.0)
    monkeypatch.setattr("shopfloor.turns._PIECE", 0.0)
    order: list[str] = []
    begun = threading.Event()

    def work() -> None:
        begun.set()
        order.extend(giving_way(["first", "second"]))

    on_its_way = asyncio.get_running_loop().create_future()
    hurry(on_its_way)
    working = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.to_thread(begun.wait, 60)
    order.append("durable")
    on_its_way.set_result(None)
    async with asyncio.timeout(60):
        await working
    assert order == ["durable", "first", "second"]


async def test_a_thread_goes_on_when_something_hurries_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its patience is used up, and earned by its work only."""
    monkeypatch.setattr("shopfloor.turns.STALE", 600.0)
    monkeypatch.setattr("shopfloor.turns._PIECE", 0.0)
    on_its_way = asyncio.get_running_loop().create_future()
    hurry(on_its_way)
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(lambda: sum(giving_way(range(1000)))) == 499_500
    on_its_way.cancel()


async def test_few_samples_wait_for_no_turn() -> None:
    """Who gets what is new, a few samples at a time, goes on at once; each full piece of a backlog waits."""
    few = Pieces(1000)
    for _ in range(99):
        with pytest.raises(StopIteration):
            few.worked(10).send(None)
    full = asyncio.ensure_future(few.worked(10))
    await asyncio.sleep(0)
    assert not full.done()
    await full
