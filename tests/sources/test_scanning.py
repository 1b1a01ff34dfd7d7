"""Scan groups: each at its rate, changes only, overruns counted."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Literal

import pytest
from pydantic import ValidationError

from shopfloor.samples import Batch, Quality, Sample, Unavailable, Value
from shopfloor.seams import Source
from shopfloor.sources import scanning
from shopfloor.sources.changes import Column, Reading, changed, grouped
from shopfloor.sources.scanning import Scale, ScannedConfig, ScannedTag, Scanner
from shopfloor.testing.clocks import ManualClock
from shopfloor.testing.contracts import Leftovers, until

SECOND = 10**9
OVERRUNS = "$source/plc/overruns"


class Tags(ScannedConfig):
    type: Literal["test"] = "test"
    tags: Sequence[ScannedTag] = ()

    def build(self) -> Source:
        raise NotImplementedError

    def address(self, tag: ScannedTag) -> str:
        return f"DB1,{tag.tag}"


class Plc:
    """What a protocol would give; ``readings`` by the tag's place."""

    def __init__(self, *tags: dict[str, object], **options: object) -> None:
        self.config = Tags.model_validate({"name": "plc", "rate": "5 ms", "tags": list(tags), **options})
        self.clock = ManualClock()
        self.values: list[Reading] = [Reading(0)] * len(tags)
        self.reads: Counter[tuple[int, ...]] = Counter()
        self.hold: dict[tuple[int, ...], asyncio.Event] = {}
        self.error: Exception | None = None
        self.got: list[Sample] = []
        self.overruns: list[Value] = []
        """On a busy machine there may be some in any test."""
        self.batches: list[Batch] = []

    async def read(self, places: tuple[int, ...]) -> Sequence[Column]:
        self.reads[places] += 1
        if places in self.hold:
            await self.hold[places].wait()
        if self.error is not None:
            raise self.error
        return grouped(places, [self.values[place] for place in places])

    @asynccontextmanager
    async def scanned(self) -> AsyncIterator["Plc"]:
        async def take() -> None:
            async with aclosing(Scanner(self.config, self.read, self.clock).batches()) as batches:
                async for batch in batches:
                    self.batches.append(batch)
                    self.got += [sample for sample in batch if sample.tag != OVERRUNS]
                    self.overruns += [sample.value for sample in batch if sample.tag == OVERRUNS]

        taking = asyncio.create_task(take())
        try:
            yield self
        finally:
            taking.cancel()
            (result,) = await asyncio.gather(taking, return_exceptions=True)
            assert isinstance(result, asyncio.CancelledError), result

    async def more_reads(self, number: int = 3) -> None:
        """Wait until every group was read this often again."""
        wanted = {key: count + number for key, count in self.reads.items()}
        await until(lambda: all(self.reads[key] >= count for key, count in wanted.items()), "further reads")

    def said(self, tag: str) -> list[Value]:
        return [sample.value for sample in self.got if sample.tag == tag]


def tag(name: str, **more: object) -> dict[str, object]:
    return {"tag": name, **more}


async def test_everything_once_then_what_changes() -> None:
    async with Plc(tag("a"), tag("b")).scanned() as plc:
        await until(lambda: len(plc.got) == 2, "both")
        await plc.more_reads()
        plc.values[1] = Reading(7.5, Quality.UNCERTAIN, 0x40000000)
        await until(lambda: len(plc.got) == 3, "the change")
        await plc.more_reads()
        assert plc.got[2:] == [Sample("b", plc.clock.now, 7.5, Quality.UNCERTAIN, 0x40000000)]
        assert all(batch.source == "plc" for batch in plc.batches)


async def test_a_deadband_counts_from_what_was_reported() -> None:
    """So a slow drift is seen."""
    async with Plc(tag("a", deadband=1)).scanned() as plc:
        await until(lambda: plc.said("a") == [0], "the first")
        for value in (0.6, 1.0, 1.2, 1.9, 2.3, -5.0):
            plc.values[0] = Reading(value)
            await plc.more_reads()
        assert plc.said("a") == [0, 0.6, 1.9, -5.0] or plc.said("a") == [0, 1.2, 2.3, -5.0]


async def test_quality_is_a_change_and_a_heartbeat_repeats() -> None:
    async with Plc(tag("a"), heartbeat="60 s").scanned() as plc:
        await until(lambda: len(plc.got) == 1, "the first")
        plc.values[0] = Reading(None, Quality.CONFIGURATION_ERROR)
        await until(lambda: len(plc.got) == 2, "it is bad")
        plc.clock.advance(59 * SECOND)
        await plc.more_reads()
        assert len(plc.got) == 2
        plc.clock.advance(SECOND)
        await until(lambda: len(plc.got) == 3, "the heartbeat")
        await plc.more_reads()
        assert len(plc.got) == 3


async def test_each_rate_is_a_group_and_a_slow_one_holds_nobody_up() -> None:
    plc = Plc(tag("fast"), tag("slow", rate="20 ms"), tag("also"))
    plc.hold[1,] = asyncio.Event()
    async with plc.scanned():
        await until(lambda: plc.reads[0, 2] > 5, "the fast group is read")
        assert plc.reads[1,] == 1
        assert plc.said("slow") == []
        plc.hold.pop((1,)).set()
        await until(lambda: plc.said("slow") == [0], "the slow one is read")


async def _held_up(plc: Plc, times: int) -> None:
    """Reads that take ten times their rate."""
    for _ in range(times):
        plc.hold[0,] = asyncio.Event()
        await plc.more_reads(1)
        await asyncio.sleep(0.05)
        plc.hold.pop((0,)).set()
        await plc.more_reads(2)


async def test_reads_that_take_too_long_are_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_TOLD_EVERY", 0.0)
    plc = Plc(tag("a"))
    async with plc.scanned():
        await _held_up(plc, scanning._NO_HICCUP)
        await until(lambda: len(plc.overruns) >= 3 and int(plc.overruns[-1] or 0) >= 12, "what was left out")
        counts = plc.overruns
    assert counts == sorted(counts)  # type: ignore[type-var]  # integers
    assert len([record for record in caplog.records if "overruns" in record.getMessage()]) == 1


def test_a_single_late_read_is_counted_and_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    overruns = scanning.Overruns("plc")
    for late in range(5):
        overruns.add(3, 10, 0.1)
        assert len(caplog.records) == (late == 4)
        overruns.add(0, 10, 0.1)
    assert "cannot be read every 0.1 s" in caplog.text


async def test_overruns_are_told_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every read takes too long, telling each would cost as much as the read."""
    monkeypatch.setattr(scanning, "_TOLD_EVERY", 3600.0)
    plc = Plc(tag("a"))
    async with plc.scanned():
        await _held_up(plc, 3)
    assert len(plc.overruns) == 1


async def test_reads_go_on_while_a_batch_becomes_durable() -> None:
    """What they give comes as one batch, each sample with the time of its own read."""
    plc = Plc(tag("a"), tag("b", rate="1 h"))
    async with aclosing(Scanner(plc.config, plc.read, plc.clock).batches()) as batches:
        given = 0
        while given < 2:
            given += len(await anext(batches))
        began = plc.clock.now
        for n in range(1, 4):
            plc.clock.advance(SECOND)
            plc.values[0] = Reading(n)
            reads = plc.reads[0,]
            await until(lambda reads=reads: plc.reads[0,] >= reads + 2, "it reads on while nobody takes what it has")  # type: ignore[misc]
        batch = await anext(batches)
        values = [(s.value, s.time - began) for s in batch if s.tag == "a"]
    assert values == [(1, SECOND), (2, 2 * SECOND), (3, 3 * SECOND)]


async def test_a_library_that_swallows_the_cancellation_does_not_hold_it_up() -> None:
    plc = Plc(tag("a"))
    waits, swallowed = asyncio.Event(), asyncio.Event()
    plain = plc.read

    async def read(places: tuple[int, ...]) -> Sequence[Column]:
        if plc.reads and not swallowed.is_set():
            waits.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.set()
        return await plain(places)

    left = Leftovers()
    async with aclosing(Scanner(plc.config, read).batches()) as batches:
        await anext(batches)
        await until(waits.is_set, "the next read")
    assert swallowed.is_set()
    await left.none()


async def test_what_watches_the_connection_ends_it() -> None:
    async def watch() -> None:
        raise Unavailable("nobody answers")

    plc = Plc(tag("a", rate="1 h"))
    left = Leftovers()
    with pytest.raises(Unavailable, match="nobody answers"):
        async for _ in Scanner(plc.config, plc.read, watch=watch).batches():
            pass
    await left.none()


async def test_an_error_ends_it_and_nothing_stays_behind() -> None:
    plc = Plc(tag("a"), tag("b", rate="1 h"))
    left = Leftovers()
    batches = Scanner(plc.config, plc.read).batches()
    first: set[str] = set()
    while not {"a", "b"} <= first:  # in one batch or in two
        first |= {sample.tag for sample in await anext(batches)}
    plc.error = Unavailable("gone")
    with pytest.raises(Unavailable):
        await anext(batches)
    await left.none()


def _scaled() -> Scale:
    return Scale(raw=(0, 27648), scaled=(-50, 350))


async def test_raw_numbers_become_engineering_units() -> None:
    raw: Callable[[Value], Reading] = Reading
    plc = Plc(tag("a", scale={"raw": [0, 27648], "scaled": [-50, 350]}))
    plc.values[0] = raw(13824)
    async with plc.scanned():
        await until(lambda: plc.said("a") == [150.0], "the scaled value")
        plc.values[0] = raw(None)._replace(quality=Quality.BAD)
        await until(lambda: plc.said("a") == [150.0, None], "nothing stays nothing")


@pytest.mark.parametrize("value", [-50.0, 0.0, 17.25, 350.0, 400.0])
def test_a_scale_goes_both_ways(value: float) -> None:
    there = _scaled().to_raw(value)
    assert _scaled().from_raw(there) == pytest.approx(value)


@pytest.mark.parametrize(
    ("before", "after", "deadband", "is_change"),
    [
        (1, 1, None, False), (1, 1.0, None, True), (True, 1, None, True), ("a", "b", 5.0, True),
        (math.nan, math.nan, None, False), (math.nan, 1.0, 100.0, True), (1.0, math.nan, 100.0, True),
        (1.0, 2.0, 1.0, False), (1.0, 2.5, 1.0, True), (None, None, None, False), (None, 1, 1.0, True),
    ],
)  # fmt: skip
def test_what_a_change_is(before: Value, after: Value, deadband: float | None, is_change: bool) -> None:  # noqa: FBT001  # a column
    assert changed(before, after, deadband) is is_change


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ([tag("a"), tag("a")], "twice"),
        ([tag("a", rate="0 s")], "greater than 0"),
        ([tag("a", deadband=-1)], "greater than or equal to 0"),
        ([tag("a", scale={"raw": [1, 1], "scaled": [0, 1]})], "two different"),
    ],
)
def test_what_cannot_be_is_refused(tags: list[dict[str, object]], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Plc(*tags)


def test_its_tags_are_declared_with_their_addresses() -> None:
    (info,) = Plc(tag("a", unit="bar", description="Pressure", writable=False)).config.declared()
    assert (info.tag, info.address, info.unit, info.description, info.writable) == (
        "a", "DB1,a", "bar", "Pressure", False,
    )  # fmt: skip
