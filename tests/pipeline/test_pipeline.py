"""Data goes from source to sink; every trouble stays with its component and is in the ledger."""

import asyncio
import logging
from functools import partial

import pytest

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline, pipeline as pipeline_module, runner
from shopfloor.plant import Allow, Commands
from shopfloor.samples import Batch, Misconfigured, Quality, Rejected
from tests.pipeline.hands import AWAY, BEGIN, Bench, Shelf, ShelfConfig, Store, SumConfig, state, until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff of milliseconds: what is tested is that it comes back, not how long a person would wait."""
    monkeypatch.setattr(runner, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(runner, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(pipeline_module, "STOP_SECONDS", 0.5)


async def balanced(pipeline: Pipeline) -> bool:
    return not any(pair.missing for pair in balances(await pipeline.ledger()))


async def test_what_a_source_gives_reaches_the_sink_in_order(bench: Bench) -> None:
    async with bench.running() as pipeline:
        for i in range(50):
            bench.machine.give(float(i))
        await until(lambda: len(bench.store.samples) == 50, "50 samples in the sink")
        assert bench.store.values == [float(i) for i in range(50)]
        assert await balanced(pipeline)
        assert (sample := pipeline.live.get("press-1/PV")) is not None
        assert sample.value == 49.0


async def test_the_source_is_acknowledged_after_its_batch_is_durable(bench: Bench) -> None:
    """The generator is resumed by the append's return, with the batch in the file of the journal."""
    async with bench.running() as pipeline:
        bench.machine.give(1.0)
        await until(lambda: bench.machine.acknowledged == 1, "the acknowledgement")
        rows = await pipeline.ledger()
        assert [row.samples for row in rows if (row.source, row.outcome) == ("plc", "received")] == [1]


async def test_a_lost_sink_gets_everything_when_it_is_back(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once when it goes and once when it is back, with what was buffered."""
    with caplog.at_level(logging.INFO):
        async with bench.running() as pipeline:
            bench.machine.give(0.0)
            await until(lambda: bench.store.values == [0.0], "the first sample")
            bench.store.away = AWAY
            for i in range(1, 20):
                bench.machine.give(float(i))
            await until(lambda: state(pipeline, "shelf") == "waiting" and bench.store.entered > 5, "several tries")
            assert pipeline.live.get("press-1/PV") is not None
            shelf = pipeline.components
            await until(lambda: next(c for c in shelf() if c.name == "shelf").lag_entries >= 18, "all of it waits")
            bench.store.away = None
            await until(lambda: len(bench.store.values) == 20, "everything")
            assert bench.store.values == [float(i) for i in range(20)]
            assert await balanced(pipeline)


async def test_a_loss_and_its_end_are_each_said_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    async with bench.running() as pipeline:
        bench.machine.give(0.0)
        await until(lambda: bench.store.values == [0.0], "the first sample")
        bench.store.away = AWAY
        bench.machine.give(1.0)
        await until(lambda: bench.store.entered > 6, "several tries")
        bench.store.away = None
        await until(lambda: state(pipeline, "shelf") == "running", "the return")
    said = capsys.readouterr().out
    assert said.count("shelf is away") == 1
    assert said.count("shelf is back") == 1


async def test_a_lost_source_is_tried_again(bench: Bench) -> None:
    async with bench.running() as pipeline:
        bench.machine.give(1.0)
        bench.machine.queue.put_nowait(AWAY)
        await until(lambda: bench.machine.entered >= 2, "a second connection")
        bench.machine.give(2.0)
        await until(lambda: bench.store.values == [1.0, 2.0], "what came after")
        status = next(c for c in pipeline.components() if c.name == "plc")
        assert (status.state, status.last_error) == ("running", "the cable is out")


async def test_the_last_known_value_never_looks_live(bench: Bench) -> None:
    """While its source is away a tag keeps its value with bad quality; what did not change is good again after."""
    async with bench.running() as pipeline:
        bench.machine.give(1.0)
        bench.machine.give(40.0, tag="press-1/SP")
        await until(lambda: len(bench.store.values) == 2, "both")
        bench.machine.away = AWAY
        bench.machine.queue.put_nowait(AWAY)
        await until(lambda: state(pipeline, "plc") == "waiting", "the loss")
        shown = {sample.tag: (sample.value, sample.quality) for sample in pipeline.live.samples()}
        assert shown == {"press-1/PV": (1.0, Quality.LAST_KNOWN), "press-1/SP": (40.0, Quality.LAST_KNOWN)}
        bench.machine.away = None
        bench.machine.give(2.0)
        await until(lambda: len(bench.store.values) == 3, "what came after")
        shown = {sample.tag: (sample.value, sample.quality) for sample in pipeline.live.samples()}
        assert shown == {"press-1/PV": (2.0, Quality.GOOD), "press-1/SP": (40.0, Quality.GOOD)}


async def test_when_a_source_was_connected_is_kept(bench: Bench) -> None:
    sinks = [ShelfConfig(name="shelf", type="shelf", store=bench.store, tags=["$source/*"])]
    async with bench.running(sinks=sinks):
        await until(lambda: bench.store.values == [True], "the connection")
        bench.machine.queue.put_nowait(AWAY)
        await until(lambda: bench.store.values == [True, False, True], "the loss and the return")
        assert {sample.tag for sample in bench.store.samples} == {"$source/plc/connected"}


async def test_a_misconfigured_component_waits_for_a_person(bench: Bench) -> None:
    """The others run on; a restart by hand tries it again."""
    bench.store.away = Misconfigured("wrong password")
    other = Store()
    sinks = [
        ShelfConfig(name="shelf", type="shelf", store=bench.store),
        ShelfConfig(name="other", type="shelf", store=other),
    ]
    async with bench.running(sinks=sinks) as pipeline:
        bench.machine.give(1.0)
        await until(lambda: other.values == [1.0], "the other sink")
        await until(lambda: state(pipeline, "shelf") == "misconfigured", "the state")
        tries = bench.store.entered
        await asyncio.sleep(0.1)
        assert bench.store.entered == tries
        bench.store.away = None
        await pipeline.restart("shelf")
        await until(lambda: bench.store.values == [1.0], "what had waited")


async def test_a_bug_is_logged_and_only_its_component_is_restarted(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bench.running() as pipeline:
        bench.machine.queue.put_nowait(KeyError("oops"))
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the sample after the bug")
        assert "oops" in next(c.last_error for c in pipeline.components() if c.name == "plc")
    said = capsys.readouterr().out
    assert "please report it" in said
    assert "Traceback" in said


async def test_refused_samples_become_dead_letters_and_the_rest_goes_on(bench: Bench) -> None:
    bench.store.refuse = lambda sample: sample.value == "bad"
    async with bench.running() as pipeline:
        bench.machine.give(1.0, "bad", 2.0, "bad")
        bench.machine.give(3.0)
        await until(lambda: bench.store.values == [1.0, 2.0, 3.0], "the good ones")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        (letter,) = await pipeline.dead_letters()
        assert [sample.value for sample in letter.samples] == ["bad", "bad"]
        assert letter.reason == "not in this shelf"
        rows = [row for row in await pipeline.ledger() if row.reader == "shelf" and row.outcome == "rejected"]
        assert [(row.samples, row.reason) for row in rows] == [(2, "not in this shelf")]
        assert await balanced(pipeline)


async def test_samples_refused_for_several_reasons_are_dead_letters_each_for_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at once: the batch is offered once more, without them."""
    offered: list[int] = []

    async def write(shelf: Shelf, _: int, batch: Batch) -> None:
        offered.append(len(batch))
        bad = {i: f"no order {sample.value}" for i, sample in enumerate(batch) if isinstance(sample.value, str)}
        if bad:
            raise Rejected.each(bad)
        shelf.store.samples.extend(batch)

    monkeypatch.setattr(Shelf, "write", write)
    async with bench.running() as pipeline:
        bench.machine.give(1.0, "a", 2.0, "b", "a")
        await until(lambda: bench.store.values == [1.0, 2.0], "the good ones")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        found = {letter.reason: [one.value for one in letter.samples] for letter in await pipeline.dead_letters()}
        assert found == {"no order a": ["a", "a"], "no order b": ["b"]}
        rows = [row for row in await pipeline.ledger() if row.reader == "shelf" and row.outcome == "rejected"]
        assert sum(row.samples for row in rows) == 3
        assert await balanced(pipeline)
    assert offered[-1] == 2
    assert offered[:-1] == [5] * (len(offered) - 1)


async def test_refused_samples_are_offered_again_to_the_sink_that_refused_them(bench: Bench) -> None:
    """What it refuses once more is a dead letter again; no other sink and no processor gets it twice."""
    bench.store.refuse = lambda sample: sample.value in (7.0, 8.0)
    other = Store()
    sinks = [
        ShelfConfig(name="shelf", type="shelf", store=bench.store),
        ShelfConfig(name="other", type="shelf", store=other),
    ]
    async with bench.running(sinks=sinks, processors=[SumConfig(name="sum")]) as pipeline:
        bench.machine.give(1.0, 7.0, 8.0)
        await until(lambda: other.values == [1.0, 7.0, 8.0, 1.0, 8.0, 16.0], "the samples and their sums")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commits")
        first, second = await pipeline.dead_letters()
        assert second.reason == "not in this shelf"
        bench.store.refuse = lambda sample: sample.value == 7.0
        assert await pipeline.retry_dead_letters([second.id, first.id]) == [second.id, first.id]
        await until(lambda: bench.store.values.count(8.0) == 2, "what was offered again: the sample and the sum")
        bench.machine.give(2.0)
        await until(lambda: bench.store.values[-1] == 18.0, "what came after")
        await until(lambda: other.values[-2:] == [2.0, 18.0], "nothing twice for the other")
        assert len(other.values) == 8
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commits")
        (again,) = await pipeline.dead_letters()
        assert ([sample.value for sample in again.samples], again.source) == ([7.0], "plc")
        assert await pipeline.drop_dead_letters([again.id]) == 1
        assert await pipeline.dead_letters() == []
        assert await balanced(pipeline)


async def test_what_a_sink_does_not_want_is_counted_as_filtered(bench: Bench) -> None:
    sinks = [ShelfConfig(name="shelf", type="shelf", store=bench.store, tags=["press-1/S*"])]
    async with bench.running(sinks=sinks) as pipeline:
        bench.machine.give(1.0, 2.0)
        bench.machine.give(40.0, tag="press-1/SP")
        await until(lambda: bench.store.values == [40.0], "the wanted sample")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        rows = {row.outcome: row.samples for row in await pipeline.ledger() if row.reader == "shelf"}
        assert (rows["filtered"], rows["delivered"]) == (2, 1)
        assert await balanced(pipeline)


@pytest.mark.parametrize("heavy", [False, True])
async def test_a_processor_counts_each_sample_once_over_restarts(bench: Bench, *, heavy: bool) -> None:
    """Its sum over five runs of the plant is the sum of everything that was given."""
    for run in range(5):
        async with bench.running(processors=[SumConfig(name="sum", type="sum", heavy=heavy)]) as pipeline:
            for _ in range(10):
                bench.machine.give(1.0)
            expected = (run + 1) * 10.0
            await until(partial(bench.holds, expected), "the sum of this run")
            await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commits")
            assert await balanced(pipeline)
    sums = [sample.value for sample in bench.store.samples if sample.tag == "press-1/sum"]
    assert sums == [float(i + 1) for i in range(50)]


async def test_a_processor_that_stumbles_goes_on_from_its_last_commit(bench: Bench) -> None:
    async with bench.running(processors=[SumConfig(name="sum", type="sum")]) as pipeline:
        bench.machine.give(1.0, 2.0)
        await until(lambda: 3.0 in bench.store.values, "the first sum")
        bench.machine.give("poison")
        await until(lambda: state(pipeline, "sum") == "failed", "the failure")
        await until(lambda: "poison" in bench.store.values, "the sink gets it all the same")


async def test_the_clock_is_journalled_for_processors_and_goes_to_no_sink(bench: Bench) -> None:
    async with bench.running(processors=[SumConfig(name="sum", type="sum")]) as pipeline:
        bench.machine.give(1.0)
        await until(lambda: 1.0 in bench.store.values, "the sample")

        async def ticked() -> bool:
            return any(row.source == "$clock" for row in await pipeline.ledger())

        while not await ticked():
            await asyncio.sleep(0.01)
        assert not [sample for sample in bench.store.samples if sample.tag.startswith("$")]


async def test_a_sink_with_its_own_position_is_not_given_twice(bench: Bench) -> None:
    """It held more than the journal knew when the process died: it is counted, not written again."""
    bench.store.own_position = True
    async with bench.running() as pipeline:
        bench.machine.give(1.0)
        await until(lambda: bench.store.values == [1.0], "the first")
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        reader = await pipeline._journal.reader("shelf")
        position = reader.position
        await pipeline.pause("shelf")
        bench.machine.give(2.0)
        await until(lambda: bench.machine.acknowledged == 2, "the second to be durable")
        # as if it had taken the second sample and died before the journal heard of it
        bench.store.offsets.append(position + 1)
        bench.machine.give(3.0)
        await pipeline.resume("shelf")
        await until(lambda: 3.0 in bench.store.values, "the third")
        assert bench.store.values == [1.0, 3.0]
        await until(lambda: all(c.lag_entries == 0 for c in pipeline.components()), "the commit")
        assert await balanced(pipeline)


async def test_a_restored_database_gets_again_what_the_journal_still_has(bench: Bench) -> None:
    bench.store.own_position = True
    other = Store()
    sinks = [
        ShelfConfig(name="shelf", type="shelf", store=bench.store),
        ShelfConfig(name="slow", type="shelf", store=other),
    ]
    async with bench.running(sinks=sinks) as pipeline:
        other.away = AWAY  # holds the journal's entries
        for i in range(5):
            bench.machine.give(float(i))
        await until(lambda: len(bench.store.values) == 5, "all")
        await pipeline.pause("shelf")
        del bench.store.samples[2:], bench.store.offsets[2:]  # yesterday's backup
        await pipeline.resume("shelf")
        await until(lambda: len(bench.store.values) == 5, "all again")
        assert bench.store.values == [float(i) for i in range(5)]
        await until(lambda: next(c for c in pipeline.components() if c.name == "shelf").lag_entries == 0, "the commit")
        assert await balanced(pipeline)


async def test_a_value_that_cannot_be_stored_turns_its_tag_bad(bench: Bench) -> None:
    async with bench.running():
        bench.machine.give(1.0, 2**70, "\ud800", 2.0)
        await until(lambda: len(bench.store.samples) == 4, "all four")
        assert [(s.value, s.quality) for s in bench.store.samples] == [
            (1.0, Quality.GOOD),
            (None, Quality.CONFIGURATION_ERROR),
            (None, Quality.CONFIGURATION_ERROR),
            (2.0, Quality.GOOD),
        ]


async def test_the_source_goes_on_behind_its_last_durable_checkpoint(bench: Bench) -> None:
    async with bench.running():
        bench.machine.give(1.0, checkpoint=b"one")
        bench.machine.give(2.0, checkpoint=b"two")
        await until(lambda: len(bench.store.values) == 2, "both")
    async with bench.running():
        await until(lambda: bench.machine.resumed == [b"two"], "the checkpoint")


async def test_pause_and_resume(bench: Bench) -> None:
    async with bench.running() as pipeline:
        await pipeline.pause("shelf")
        assert state(pipeline, "shelf") == "paused"
        bench.machine.give(1.0)
        await until(lambda: bench.machine.acknowledged == 1, "durable all the same")
        assert bench.store.values == []
        await pipeline.resume("shelf")
        await until(lambda: bench.store.values == [1.0], "what had waited")
        with pytest.raises(KeyError):
            await pipeline.pause("nobody")


async def test_stopping_lets_sinks_take_the_rest(bench: Bench) -> None:
    async with bench.running():
        for i in range(200):
            bench.machine.give(float(i))
        await until(lambda: bench.machine.acknowledged == 200, "200 batches durable")
    assert bench.store.values == [float(i) for i in range(200)]


async def test_stopping_says_what_hangs(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.machine.hangs = True
    async with bench.running():
        await until(lambda: bench.machine.entered == 1, "the source")
    assert "plc did not stop within" in capsys.readouterr().out
    bench.machine.hangs = False


async def test_commands_reach_the_source_that_has_the_tag(bench: Bench) -> None:
    plant = bench.plant().model_copy(update={"commands": Commands(allow=[Allow(tag="press-1/SP", range=(0, 80))])})
    async with Pipeline(plant) as pipeline:
        await until(lambda: state(pipeline, "plc") == "running", "the source")
        outcome = await pipeline.commands.send("press-1/SP", 42.0, issued_by="test", role="operator")
        assert outcome.done
        assert [(c.tag, c.value) for c in bench.machine.written] == [("press-1/SP", 42.0)]
        await pipeline.pause("plc")
        outcome = await pipeline.commands.send("press-1/SP", 43.0, issued_by="test", role="operator")
        assert outcome.done is False
        assert "not connected" in outcome.detail
        assert len(bench.machine.written) == 1


async def test_late_samples_do_not_move_the_live_view_back(bench: Bench) -> None:
    async with bench.running() as pipeline:
        bench.machine.give(1.0)
        bench.machine.given = -(10**9)
        bench.machine.give(0.5)
        await until(lambda: bench.store.values == [1.0, 0.5], "both in the sink")
        assert (sample := pipeline.live.get("press-1/PV")) is not None
        assert (sample.value, sample.time) == (1.0, BEGIN)
