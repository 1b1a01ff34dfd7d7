"""A backlog has a quarter of the time, whatever hurries: by a clock that moves while somebody works or waits for it."""

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shopfloor import turns
from shopfloor.journal import SqliteJournal
from shopfloor.pipeline.sinks import SinkRunner
from shopfloor.samples import Batch
from shopfloor.turns import give_way, hurry, turn
from tests.pipeline.hands import Shelf, ShelfConfig, Store

QUARTER = 0.25
_ROUND = 1e-9
"""Seconds that a round of the loop takes in which nobody works."""


class Simulated(asyncio.SelectorEventLoop):
    """An event loop that does not wait for a time: its clock is put on instead. What threads do takes none of it."""

    def __init__(self) -> None:
        class Selector(selectors.DefaultSelector):
            def select(_, timeout: float | None = None) -> Any:  # noqa: N805  # ``self`` is the loop
                self.now += timeout or _ROUND
                return super().select(None if timeout is None else 0)

        self.now = 0.0
        super().__init__(Selector())

    def time(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        """Somebody works so long, and holds all others up."""
        self.now += seconds


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    with asyncio.Runner(loop_factory=Simulated) as runner:
        found = runner.get_loop()
        assert isinstance(found, Simulated)
        # Of this module only: others, threads among them, wait by the real one.
        monkeypatch.setattr(turns, "time", type("Clock", (), {"monotonic": staticmethod(found.time)}))
        yield found


async def worked(loop: Simulated, pieces: Sequence[float], rounds: int) -> float:
    """Which share of the time several had, together, for so many pieces of work each: each asks for a turn before."""

    async def work(piece: float) -> None:
        for _ in range(rounds):
            await turn()
            loop.work(piece)

    began = loop.time()
    await asyncio.gather(*map(work, pieces))
    return sum(pieces) * rounds / (loop.time() - began)


async def hurrying(every: float) -> None:
    """Something hurries all the time: before it is durable the next comes."""
    before = None
    while True:
        on_its_way = asyncio.get_running_loop().create_future()
        hurry(on_its_way)
        if before is not None:
            before.cancel()
        before = on_its_way
        await asyncio.sleep(every)


@pytest.mark.parametrize("pieces", [[0.0005], [0.004], [0.004] * 5, [0.001, 0.006]], ids=str)
def test_backlogs_have_a_quarter_together_while_something_always_hurries(loop: Simulated, pieces: list[float]) -> None:
    """No less, however many they are; and no more, else what is new would not go first."""

    async def beside() -> float:
        giving = asyncio.create_task(hurrying(0.01))
        try:
            return await worked(loop, pieces, 500)
        finally:
            giving.cancel()

    assert loop.run_until_complete(beside()) == pytest.approx(QUARTER, rel=0.05)


def test_a_backlog_has_all_of_the_time_when_nothing_hurries(loop: Simulated) -> None:
    assert loop.run_until_complete(worked(loop, [0.004] * 5, 100)) == pytest.approx(1, rel=0.001)


def test_a_long_piece_of_work_is_held_up_no_longer_than_a_moment(loop: Simulated) -> None:
    """So it has more than a quarter: nobody who works for a second is then held up for three."""

    async def beside() -> float:
        hurry(held := asyncio.get_running_loop().create_future())
        share = await worked(loop, [1.0], 20)
        held.cancel()
        return share

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "STALE", 1e9)
        share = loop.run_until_complete(beside())
    assert share == pytest.approx(1 / (1 + turns.LONGEST), rel=0.01)


def test_a_thread_has_a_quarter_while_something_always_hurries(
    loop: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for one that works through a backlog in a thread of its own."""
    monkeypatch.setattr(turns, "STALE", 1e9)
    shares: list[float] = []

    def work() -> None:
        give_way()
        began = loop.time()
        for _ in range(500):
            loop.work(0.002)
            give_way()
        shares.append(500 * 0.002 / (loop.time() - began))

    async def beside() -> None:
        hurry(held := asyncio.get_running_loop().create_future())
        monkeypatch.setattr(turns.hurried, "wait", loop.work)
        thread = threading.Thread(target=work)  # a new one has no patience left over
        thread.start()
        await asyncio.to_thread(thread.join)
        held.cancel()

    loop.run_until_complete(beside())
    assert shares == [pytest.approx(QUARTER, rel=0.05)]


class _Working(Shelf):
    def __init__(self, store: Store, work: Callable[[], None]) -> None:
        super().__init__(store)
        self._work = work

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        await super().write_many(entries)
        self._work()


class _WorkingConfig(ShelfConfig):
    work: Any = None

    def build(self) -> Shelf:
        return _Working(self.store, self.work)


def test_a_sink_that_catches_up_has_a_quarter_while_something_always_hurries(
    loop: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real journal and the runner of all sinks, whose work with what they read at once takes 4 ms here."""
    monkeypatch.setattr(turns, "STALE", 1e9)
    monkeypatch.setattr(SinkRunner, "at_once", 2000)
    store, times, caught_up = Store(), list[float](), asyncio.Event()

    def work() -> None:
        loop.work(0.004)
        times.append(loop.time())
        if len(times) == 100:
            caught_up.set()

    async def catch_up() -> None:
        journal = await SqliteJournal.open(tmp_path / "journal.db")
        await journal.reader("shelf")
        for number in range(100):
            at = range(number * 2000, number * 2000 + 2000)
            await journal.append(Batch("plc", number, ["press"] * 2000, at, [1.0] * 2000))
        hurry(held := asyncio.get_running_loop().create_future())
        runner = SinkRunner(_WorkingConfig(name="shelf", store=store, work=work), journal, time.time_ns)
        runner.start()
        try:
            await caught_up.wait()  # asking again and again would let the clock stand still
            assert runner.status().last_error == ""
        finally:
            held.cancel()
            await runner.stop(60)
            await journal.close()

    loop.run_until_complete(catch_up())
    assert len(store.samples) == 200_000
    share = 0.004 * (len(times) - 1) / (times[-1] - times[0])
    assert share == pytest.approx(QUARTER, rel=0.05)
