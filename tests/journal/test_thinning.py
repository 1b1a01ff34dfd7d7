"""``when_full: thin``: fewer measurements instead of a hole, nothing else touched, and every sample accounted for."""

import asyncio
import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest

from shopfloor.journal import THINNED, Entry, Reader, SqliteJournal, Tally, balances, base, thinning, writer as writing
from shopfloor.journal.thinning import staying
from shopfloor.pipeline.selection import Selection
from shopfloor.pipeline.sinks import COMMITS_UNDER_WAY, SinkRunner
from shopfloor.samples import Batch, Quality, Sample, Value

BEGIN = 1_767_592_800_000_000_000
KEEP = 800_000
TAGS = 40


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(thinning, "AT_ONCE", TAGS * 10)
    monkeypatch.setattr(thinning, "READS_UNDER_WAY", 2)


def scan(number: int, chosen: random.Random, source: str = "plc") -> Batch:
    """Each tag ten times: measurements, a counter, a switch and a text."""
    samples: list[Sample] = []
    for i in range(TAGS * 10):
        tag, at = f"{source}/{i % TAGS}", BEGIN + (number * 10 + i // TAGS) * 10**9
        value: Value = (number * 10 + i // TAGS, number % 2 == 0, f"text {number}", chosen.gauss(0, 1))[
            min(i % TAGS, 3)
        ]
        samples.append(Sample(tag, at, value))
    return Batch.of(source, BEGIN + number, samples)


async def read(reader: Reader, tallies: list[Tally], until: int) -> list[Sample]:
    """As a sink does."""
    selection = Selection(reader.name, ["*"])
    found: list[Sample] = []
    at = 0
    while at < until:
        entries = await asyncio.wait_for(reader.read(), 20)
        found += taken(selection, entries, tallies)
        at = entries[-1].offset
    await reader.commit(at, tallies)
    return found


def taken(selection: Selection, entries: Sequence[Entry], tallies: list[Tally]) -> list[Sample]:
    found: list[Sample] = []
    for entry in entries:
        batch = selection.take(entry, tallies)
        if batch is not None:
            tallies.append(Tally(entry.offset, entry.source, "delivered", len(batch), entry.received))
            found += batch
    return found


def by_tag(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.tag].append(sample)
    return found


def is_part(some: Sequence[Sample], whole: Sequence[Sample]) -> bool:
    """Whether these are all in the other, in its order."""
    rest = iter(whole)
    return all(any(one == other for other in rest) for one in some)


async def missing(journal: SqliteJournal) -> list[int]:
    return [pair.missing for pair in balances(await journal.ledger()) if pair.missing]


async def filled(journal: SqliteJournal, batches: int) -> list[Sample]:
    """Measurements, and figures of a processor between them."""
    chosen = random.Random(3)
    given: list[Sample] = []
    for number in range(batches):
        batch = scan(number, chosen)
        figure = Sample("press/kpi/oee", BEGIN + number, chosen.random())
        given += batch
        given.append(figure)
        await journal.append(batch)
        await journal.append(Batch.of("oee", BEGIN + number, [figure]))
    return given


async def test_measurements_become_fewer_and_nothing_else_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sink is away: the source is never held back, ends and extremes are there, the ledger says how many are not."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin", exact=["oee"])
    sink = await journal.reader("sink")
    given = await filled(journal, 220)
    state = await journal.state()
    assert state.thinned > 0
    assert not state.full
    assert state.size < KEEP * 1.1
    assert not await missing(journal)
    await journal.close()
    assert capsys.readouterr().out.count("keeps fewer of its oldest measurements") == 1
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin", exact=["oee"])
    sink = await journal.reader("sink")
    last = await journal.append(scan(0, random.Random(1), "end"))
    tallies: list[Tally] = []
    found = [sample for sample in await read(sink, tallies, last) if not sample.tag.startswith("end")]
    gone = sum(tally.samples for tally in tallies if tally.outcome == "dropped")
    assert gone == len(given) - len(found) > 0
    assert {tally.reason for tally in tallies if tally.outcome == "dropped"} == {THINNED}
    assert not await missing(journal)
    ours, theirs = by_tag(given), by_tag(found)
    for tag, whole in ours.items():
        part = theirs[tag]
        assert is_part(part, whole)
        assert (part[0], part[-1]) == (whole[0], whole[-1])
        if tag in ("plc/0", "plc/1", "plc/2", "press/kpi/oee"):
            assert part == whole, f"{tag} was touched"
        else:
            values = [sample.value for sample in whole if isinstance(sample.value, float)]
            there = {sample.value for sample in part}
            assert {min(values), max(values)} <= there
    await journal.close()


async def test_it_is_marked_with_time_and_number(tmp_path: Path) -> None:
    """So that a history with fewer samples is not taken for a quiet machine: the historian keeps the marks."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    sink = await journal.reader("sink")
    await filled(journal, 160)
    marks: list[dict[str, dict[str, int]]] = []
    while sum(sum(mark["thinned"].values()) for mark in marks) < (await journal.state()).thinned:
        entries = await asyncio.wait_for(sink.read(), 20)
        marks += [
            json.loads(str(sample.value))
            for entry in entries
            if entry.batch is not None
            for sample in entry.batch
            if sample.tag == "$journal/thinned"
        ]
    assert marks
    assert all(BEGIN <= int(str(mark["from"])) <= int(str(mark["to"])) < BEGIN + 160 for mark in marks)
    await journal.close()


async def test_who_has_read_an_entry_before_it_was_thinned_counts_what_it_got(tmp_path: Path) -> None:
    """The ledger must balance whether a reader got an entry before or after."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    early, late = await journal.reader("early"), await journal.reader("late")
    offset = (await asyncio.gather(*(journal.append(scan(n, random.Random(n))) for n in range(8))))[-1]
    entries = await early.read(
        8 * TAGS * 10
    )  # more than a sink reads at once; under way while the journal becomes full
    assert entries[-1].offset == offset
    await filled(journal, 160)
    tallies: list[Tally] = []
    assert len(taken(Selection("early", ["*"]), entries, tallies)) == 8 * TAGS * 10
    await early.commit(offset, tallies)
    assert not await missing(journal)
    last = await journal.append(scan(1, random.Random(1)))
    for reader in (early, late):
        await read(reader, [], last)
    assert not await missing(journal)
    await journal.close()


async def test_what_a_sink_may_have_delivered_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    """An answer was lost: the sink sends it again under a key that is made of the place in the entry."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    early, late = await journal.reader("early"), await journal.reader("late")
    offsets = await asyncio.gather(*(journal.append(scan(n, random.Random(n))) for n in range(20)))
    await late.commit(offsets[9], [Tally(offset, "plc", "delivered", TAGS * 10, 0) for offset in offsets[:10]])
    await filled(journal, 100)
    await journal.close()
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    early = await journal.reader("early")
    found = {entry.offset: len(entry.batch or ()) for entry in await early.read(20 * TAGS * 10)}
    whole = [number for number, offset in enumerate(offsets) if found[offset] == TAGS * 10]
    assert whole == [0, 1, 10, 11], "two reads behind each position"
    await journal.close()


def test_as_much_stays_whole_as_a_sink_may_have_delivered() -> None:
    """Before it waits for a commit, one more is under way, and a read that was delivered in part."""
    assert SinkRunner.at_once <= base.AT_ONCE
    assert COMMITS_UNDER_WAY + 2 <= base.READS_UNDER_WAY


@pytest.mark.parametrize(("tags", "most"), [(1, thinning.SMALL - 1), (thinning.SMALL - 1, thinning.SMALL - 1)])
async def test_of_small_entries_the_oldest_go(tmp_path: Path, tags: int, most: int) -> None:
    """Thinned, they would lose more samples than space: pages of small rows stay, half empty."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    await journal.reader("sink")
    chosen = random.Random(7)
    names = [f"plc/{i % tags}" for i in range(most)]
    async with asyncio.timeout(60):
        while not (await journal.state()).dropped:
            values = [chosen.gauss(0, 1) for _ in range(most)]
            batch = Batch("plc", BEGIN, names, [BEGIN + i for i in range(most)], values)
            await asyncio.gather(*(journal.append(batch) for _ in range(200)))
    assert (await journal.state()).thinned == 0
    assert not await missing(journal)
    await journal.close()


async def test_samples_do_not_go_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of which nothing but few bytes of measurements can go: after a moment the oldest go instead."""
    monkeypatch.setattr(thinning, "JUDGED", 300_000)
    monkeypatch.setattr(thinning, "MOST", 1000)
    monkeypatch.setattr(thinning, "FEWEST", 500)
    journal = await SqliteJournal.open(tmp_path / "journal.db", 4 * KEEP, "thin")
    await journal.reader("sink")
    chosen = random.Random(7)
    given = 0
    async with asyncio.timeout(60):
        while not (await journal.state()).dropped:
            for _ in range(40):
                samples = [Sample("plc/text", BEGIN, f"{given:200}") for _ in range(50)]
                samples += [Sample("plc/x", BEGIN + i, chosen.gauss(0, 1)) for i in range(50)]
                await journal.append(Batch.of("plc", BEGIN, samples))
                given += 50
    state = await journal.state()
    assert 0 < state.thinned < given / 5
    assert not await missing(journal)
    await journal.close()


async def test_figures_are_made_of_everything(tmp_path: Path) -> None:
    """What a processor has not read yet stays whole; where that is all there is, the oldest go, and are counted."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin", exact=["oee"])
    oee = await journal.reader("oee")
    await filled(journal, 160)
    assert (await journal.state()).thinned == 0
    tallies: list[Tally] = []
    last = await journal.append(scan(0, random.Random(1)))
    await read(oee, tallies, last)
    assert not any(tally.reason == THINNED for tally in tallies)
    rows = await journal.ledger()
    assert any(row.outcome == "dropped" and "keep" in row.reason for row in rows)
    assert not await missing(journal)
    await journal.close()


async def test_where_nothing_can_be_thinned_the_oldest_go(tmp_path: Path) -> None:
    """Texts alone: the source is not held back for ever."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    await journal.reader("sink")
    async with asyncio.timeout(60):
        for number in range(150):
            tags, times = ["plc/x"] * 100, [BEGIN + number] * 100
            await journal.append(Batch("plc", BEGIN + number, tags, times, [f"{number:100}"] * 100))
    state = await journal.state()
    assert state.thinned == 0
    assert state.dropped > 0
    assert state.size < KEEP * 1.2
    assert not await missing(journal)
    await journal.close()


async def test_with_room_again_everything_is_whole(tmp_path: Path) -> None:
    """The sink is back and has caught up: what comes then is not thinned."""
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    sink = await journal.reader("sink")
    await filled(journal, 160)
    last = await journal.append(scan(0, random.Random(1)))
    await read(sink, [], last)
    async with asyncio.timeout(20):
        while (state := await journal.state()).entries:
            await asyncio.sleep(0.01)
    before = state.thinned
    fresh = await filled(journal, 20)
    last = await journal.append(scan(0, random.Random(1), "end"))
    found = await read(sink, [], last)
    assert [sample for sample in found if not sample.tag.startswith("end")] == fresh
    assert (await journal.state()).thinned == before
    await journal.close()


async def test_what_everybody_has_had_makes_room_before_anything_is_thinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a journal too busy to trim by itself: the sink keeps up, so being over ``keep`` costs nothing."""
    look_after = writing.Writer._look_after
    monkeypatch.setattr(writing.Writer, "_look_after", lambda self, **_: look_after(self, idle=False))
    monkeypatch.setattr(writing, "TRIM_STEP", 10_000)
    journal = await SqliteJournal.open(tmp_path / "journal.db", KEEP, "thin")
    sink = await journal.reader("sink")
    chosen = random.Random(9)
    tallies: list[Tally] = []
    last = 0
    for number in range(400):  # some three times `keep`
        batch = scan(number, chosen)
        last = await journal.append(batch)
        assert await read(sink, tallies, last) == list(batch)
    state = await journal.state()
    assert state.entries < last, "some were trimmed"
    assert state.thinned == 0
    assert state.dropped == 0
    await journal.close()


@pytest.mark.parametrize("seed", range(20))
def test_what_stays_of_any_samples(seed: int) -> None:
    """Ends, extremes, changes of quality and all that is no measurement, however samples are cut into batches."""
    chosen = random.Random(seed)
    values: Sequence[Value] = (1.5, -2.25, 7.0, math.nan, math.inf, None, True, 3, "x", b"y")
    batches: list[Batch] = []
    for number in range(chosen.randint(1, 30)):
        samples = [
            Sample(
                f"t/{chosen.randint(0, 2)}",
                number * 100 + i,
                chosen.choice(values) if chosen.random() < 0.1 else chosen.gauss(0, 1),
                Quality.BAD if chosen.random() < 0.05 else Quality.GOOD,
            )
            for i in range(chosen.randint(0, 20))
        ]
        batches.append(Batch.of("plc", number, samples))
    stay = staying(batches)
    given = by_tag([sample for batch in batches for sample in batch])
    kept = by_tag([s for batch, indices in zip(batches, stay, strict=True) for s in batch.select(list(indices))])
    for tag, whole in given.items():
        for (measured, _), stretch in groupby(whole, key=_stretch):
            group, part = list(stretch), kept[tag]
            if not measured:
                assert {one.time for one in group} <= {one.time for one in part}
                continue
            times = {one.time for one in group}
            mine = [one for one in part if one.time in times]
            numbers = [one.value for one in group if isinstance(one.value, float)]
            assert (mine[0], mine[-1]) == (group[0], group[-1])
            assert {min(numbers), max(numbers)} <= {one.value for one in mine}
            assert len(mine) <= 2 + 2 * math.ceil(len(group) / 4)


def _stretch(sample: Sample) -> tuple[bool, int]:
    return isinstance(sample.value, float) and math.isfinite(sample.value), sample.quality
