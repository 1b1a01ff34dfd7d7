"""When a sink that was lost counts as back, and when one is told to hold less than it confirmed."""

from collections.abc import Callable

import pytest

from shopfloor.pipeline import runner
from shopfloor.samples import Unavailable
from tests.pipeline.hands import AWAY, Bench, ShelfConfig, Store, state, until

FULL = Unavailable("the disk of the database is full")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.02)


def said(text: str) -> tuple[int, int]:
    """How often it went and came."""
    return text.count("sink shelf is away"), text.count("sink shelf is back")


async def test_a_sink_whose_writes_fail_is_not_back_by_its_connection(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its database's disk is full: it connects at each attempt, and is not back until it has written."""
    async with bench.running() as pipeline:
        bench.machine.give(0.0)
        await until(lambda: bench.store.values == [0.0], "the first sample")
        bench.store.full = FULL
        bench.machine.give(1.0)
        await until(lambda: bench.store.entered > 1, "the loss")
        states = set[str]()

        def tried() -> bool:
            states.add(state(pipeline, "shelf"))
            return bench.store.entered > 8

        await until(tried, "several attempts")
        assert states == {"waiting"}
        bench.store.full = None
        await until(lambda: state(pipeline, "shelf") == "running", "the return")
        assert bench.store.values == [0.0, 1.0]
    assert said(capsys.readouterr().out) == (1, 1)


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_sink_that_has_nothing_to_write_is_back(bench: Bench, *, waiting: bool) -> None:
    """What waits is none of its own, or nothing does."""
    bench.store.away = AWAY
    async with bench.running(sinks=[ShelfConfig(name="shelf", store=bench.store, tags=["other/*"])]) as pipeline:
        if waiting:
            bench.machine.give(1.0)
        await until(lambda: state(pipeline, "shelf") == "waiting", "the loss")
        bench.store.away = None
        await until(lambda: state(pipeline, "shelf") == "running", "the return")
    assert bench.store.values == []


@pytest.mark.parametrize("lost", [False, True])
async def test_only_a_sink_that_takes_again_what_it_confirmed_holds_less(
    bench: Bench, capsys: pytest.CaptureFixture[str], *, lost: bool
) -> None:
    """One whose last entry was refused whole stands before it for good, and is told nothing when it comes back."""
    bench.store.own_position = True
    bench.store.refuse = lambda sample: sample.value == "bad"
    slow = Store()
    slow.away = AWAY  # it keeps the journal from trimming
    sinks = [ShelfConfig(name="shelf", store=bench.store), ShelfConfig(name="slow", store=slow)]
    async with bench.running(sinks=sinks) as pipeline:

        def lag() -> int:
            return next(c.lag_entries for c in pipeline.components() if c.name == "shelf")

        async def again(given: Callable[[], object], what: str) -> None:
            await until(lambda: given() and not lag(), what)
            entered = bench.store.entered
            await pipeline.restart("shelf")
            await until(lambda: bench.store.entered > entered and state(pipeline, "shelf") == "running", "the restart")

        for value in (1.0, 2.0, "bad"):
            bench.machine.give(value)
        await until(lambda: bench.machine.acknowledged == 3, "the entries")
        await again(lambda: bench.holds(2.0), "the samples")
        if lost:
            del bench.store.samples[1:], bench.store.offsets[1:]  # it came back from a backup
            await again(lambda: True, "nothing more")
        bench.machine.give(3.0)
        await until(lambda: bench.holds(3.0), "what came after")
        assert set(bench.store.values) == {1.0, 2.0, 3.0}
        assert len(await pipeline.dead_letters()) == 1
    assert capsys.readouterr().out.count("shelf holds less than it once confirmed") == lost
