"""What every journal promises (docs/specs/journal.md, docs/specs/ledger.md)."""

import asyncio
from abc import ABC, abstractmethod
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from shopfloor.journal.base import Entry, Journal, LedgerRow, Reader, Tally
from shopfloor.samples import Batch, Quality, Sample, Unavailable
from shopfloor.testing.contracts.values import EVERY_VALUE, same_samples
from shopfloor.testing.contracts.waiting import until

_BEGIN = 1_767_592_800_123_456_789
_SMALL = 4 * 10**6
"""Bytes: a journal that a test can fill."""


class JournalContract(ABC):
    """Inherit it as ``class TestMyJournal(JournalContract)`` and say how to open one."""

    durable: ClassVar[bool] = True
    """Whether it survives being closed and opened again."""

    @abstractmethod
    async def open(
        self, folder: Path, *, keep: int = 10**9, when_full: Literal["refuse", "oldest"] = "refuse"
    ) -> Journal:
        """The journal of this folder: a new one, or the one that was closed there."""

    @asynccontextmanager
    async def _opened(
        self, folder: Path, *, keep: int = 10**9, when_full: Literal["refuse", "oldest"] = "refuse"
    ) -> AsyncGenerator[Journal]:
        journal = await self.open(folder, keep=keep, when_full=when_full)
        try:
            yield journal
        finally:
            await journal.close()

    async def test_offsets_are_positive_and_ascend(self, tmp_path: Path) -> None:
        """Also when appends wait for each other in one commit."""
        async with self._opened(tmp_path) as journal:
            first = [await journal.append(_batch(i)) for i in range(3)]
            second = await asyncio.gather(*(journal.append(_batch(i)) for i in range(50)))
            offsets = [*first, *second]
            assert offsets[0] > 0
            assert offsets == sorted(set(offsets))

    async def test_a_new_reader_gets_every_entry_once_and_in_order(self, tmp_path: Path) -> None:
        """It starts at the oldest entry that is there."""
        async with self._opened(tmp_path) as journal:
            keeper = await journal.reader("keeper")  # a journal without readers may trim
            offsets = [await journal.append(_batch(i)) for i in range(20)]
            reader = await journal.reader("late")
            entries = await _read(reader, 20)
            assert [entry.offset for entry in entries] == offsets
            assert [_number(entry) for entry in entries] == list(range(20))
            assert keeper.position < offsets[0]

    async def test_it_knows_when_the_newest_entry_was_received(self, tmp_path: Path) -> None:
        """Also when the entry is trimmed, because every reader has it."""
        async with self._opened(tmp_path) as journal:
            assert await journal.newest() is None
            reader = await journal.reader("sink")
            for number in range(3):
                await journal.append(_batch(number))
                assert await journal.newest() == _batch(number).received
            (*_, last) = await _read(reader, 3)
            await reader.commit(
                last.offset, [Tally(last.offset, last.source, "delivered", last.samples, last.received)]
            )
            assert await journal.newest() == last.received

    async def test_reading_waits_for_the_next_entry(self, tmp_path: Path) -> None:
        """A reader at the head sleeps until something becomes durable, and never gets an empty list."""
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("sink")
            waiting = asyncio.create_task(reader.read())
            await asyncio.sleep(0)
            assert not waiting.done()
            offset = await journal.append(_batch(1))
            assert [entry.offset for entry in await asyncio.wait_for(waiting, 60)] == [offset]

    async def test_a_cancelled_read_loses_nothing(self, tmp_path: Path) -> None:
        """What comes after the cancellation is given to the next read."""
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("sink")
            waiting = asyncio.create_task(reader.read())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            offset = await journal.append(_batch(1))
            assert [entry.offset for entry in await _read(reader, 1)] == [offset]

    async def test_readers_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        """Each has its own position: that is what fan-out costs."""
        async with self._opened(tmp_path) as journal:
            fast, slow = await journal.reader("fast"), await journal.reader("slow")
            offsets = [await journal.append(_batch(i)) for i in range(10)]
            await _read(fast, 10)
            await fast.commit(offsets[-1])
            assert [entry.offset for entry in await _read(slow, 10)] == offsets
            assert slow.position < offsets[0]
            assert slow.lag()[0] == 10
            assert fast.lag() == (0, 0)

    async def test_rewinding_reads_again_from_the_last_commit(self, tmp_path: Path) -> None:
        """A sink that lost its connection gets what it did not take once more."""
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("sink")
            offsets = [await journal.append(_batch(i)) for i in range(6)]
            await _read(reader, 6)
            await reader.commit(offsets[2])
            reader.rewind()
            assert [entry.offset for entry in await _read(reader, 3)] == offsets[3:]
            reader.rewind(offsets[4])
            assert [entry.offset for entry in await _read(reader, 1)] == offsets[5:]

    async def test_reading_is_bounded(self, tmp_path: Path) -> None:
        """``most_samples`` bounds what one read gives; one entry comes in any case."""
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("sink")
            for i in range(10):
                await journal.append(_batch(i, samples=100))
            assert len(await reader.read(most_samples=1)) == 1
            assert len(await reader.read(most_samples=300)) <= 4

    async def test_everything_that_a_batch_says_survives(self, tmp_path: Path) -> None:
        """Values to the bit, both times, qualities, statuses, reception, source and losses, read hot or cold."""
        batch = _telling()
        async with self._opened(tmp_path) as journal:
            await journal.reader("keeper")
            await journal.append(batch)
            (entry,) = await _read(await journal.reader("hot"), 1)
            _same_batch(entry, batch)
        if self.durable:
            async with self._opened(tmp_path) as journal:
                (entry,) = await _read(await journal.reader("keeper"), 1)
                _same_batch(entry, batch)

    async def test_a_value_that_cannot_be_stored_is_refused_alone(self, tmp_path: Path) -> None:
        """An integer beyond 64 bits raises ValueError; appends beside it are taken."""
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("sink")
            wide = Batch("line", _BEGIN, ["a"], [_BEGIN], [2**64])
            results = await asyncio.gather(
                journal.append(_batch(0)), journal.append(wide), journal.append(_batch(1)), return_exceptions=True
            )
            assert isinstance(results[1], ValueError)
            assert [_number(entry) for entry in await _read(reader, 2)] == [0, 1]

    async def test_a_commit_survives_with_its_state(self, tmp_path: Path) -> None:
        """After closing, the reader goes on behind its last commit with the state that it stored."""
        if not self.durable:
            pytest.skip("this journal lives in memory")
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("processor")
            offsets = [await journal.append(_batch(i)) for i in range(4)]
            await _read(reader, 4)
            await reader.commit(offsets[1], state=b"half-way")
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("processor")
            assert (reader.position, reader.state) == (offsets[1], b"half-way")
            assert [entry.offset for entry in await _read(reader, 2)] == offsets[2:]
            assert await journal.append(_batch(9)) > offsets[-1]

    async def test_a_state_stays_until_another_is_stored(self, tmp_path: Path) -> None:
        """A commit without a state keeps the one before."""
        async with self._opened(tmp_path) as journal:
            reader = await journal.reader("processor")
            assert reader.state == b""
            offsets = [await journal.append(_batch(i)) for i in range(2)]
            await reader.commit(offsets[0], state=b"one")
            await reader.commit(offsets[1])
            assert (await journal.reader("processor")).state == b"one"

    async def test_output_is_an_entry_like_any_other(self, tmp_path: Path) -> None:
        """What a processor gives comes behind its input, in the transaction of its commit."""
        async with self._opened(tmp_path) as journal:
            processor, sink = await journal.reader("scale"), await journal.reader("sink")
            offset = await journal.append(_batch(1))
            await processor.commit(offset, output=Batch("scale", _BEGIN, ["a/psi"], [_BEGIN], [14.5]))
            entries = await _read(sink, 2)
            assert [entry.source for entry in entries] == ["line", "scale"]
            assert entries[1].offset > offset

    async def test_checkpoints_are_the_last_durable_ones(self, tmp_path: Path) -> None:
        """A source goes on where its last durable batch said; a batch without a checkpoint changes nothing."""
        async with self._opened(tmp_path) as journal:
            await journal.reader("keeper")
            assert await journal.checkpoint("line") is None
            await journal.append(_batch(1, checkpoint=b"one"))
            await journal.append(_batch(2, checkpoint=b"two"))
            await journal.append(_batch(3))
            assert await journal.checkpoint("line") == b"two"
            assert await journal.checkpoint("other") is None
        if self.durable:
            async with self._opened(tmp_path) as journal:
                assert await journal.checkpoint("line") == b"two"

    async def test_what_every_reader_has_is_trimmed(self, tmp_path: Path) -> None:
        """One slow reader holds entries; once it commits they go, and offsets are still never used twice."""
        async with self._opened(tmp_path) as journal:
            fast, slow = await journal.reader("fast"), await journal.reader("slow")
            offsets = [await journal.append(_batch(i)) for i in range(20)]
            await fast.commit(offsets[-1])
            assert (await journal.state()).entries == 20
            await slow.commit(offsets[-1])

            async def trimmed() -> bool:
                return (await journal.state()).entries == 0

            await until(trimmed, "the entries that every reader has are trimmed")
        if self.durable:
            async with self._opened(tmp_path) as journal:
                assert await journal.append(_batch(0)) > offsets[-1]

    async def test_a_reader_holds_its_entries_until_it_is_forgotten(self, tmp_path: Path) -> None:
        """A sink that was taken out of the plant file loses nothing until somebody says so."""
        async with self._opened(tmp_path) as journal:
            gone, here = await journal.reader("gone"), await journal.reader("here")
            offsets = [await journal.append(_batch(i)) for i in range(5)]
            await here.commit(offsets[-1])
            assert (await journal.state()).entries == 5
            assert gone.position < offsets[0]
            assert await journal.forget("gone")
            assert not await journal.forget("gone")

            async def trimmed() -> bool:
                return (await journal.state()).entries == 0

            await until(trimmed, "the entries of the forgotten reader are trimmed")
            assert not [row for row in await journal.ledger() if row.reader == "gone"]

    async def test_the_ledger_balances(self, tmp_path: Path) -> None:
        """What was received is delivered, filtered, deduplicated, rejected, dropped or waiting, for every reader."""
        async with self._opened(tmp_path) as journal:
            sink = await journal.reader("sink")
            offsets = [await journal.append(_batch(i, samples=10)) for i in range(5)]
            tallies = [
                Tally(offsets[0], "line", "delivered", 7, _BEGIN),
                Tally(offsets[0], "line", "filtered", 3, _BEGIN),
                Tally(offsets[1], "line", "delivered", 6, _BEGIN),
                Tally(offsets[1], "line", "rejected", 4, _BEGIN, "not a number"),
                Tally(offsets[2], "line", "deduplicated", 10, _BEGIN, "held already"),
            ]
            await sink.commit(offsets[2], tallies)
            await journal.reader("late")
            rows = await journal.ledger()
            _balances(rows, "line", ["sink", "late"])
            assert _sum(rows, "sink", "rejected") == 4
            assert [row.reason for row in rows if (row.reader, row.outcome) == ("sink", "rejected")] == ["not a number"]
            assert _sum(rows, "sink", "waiting") == 20

    async def test_a_tally_counts_once(self, tmp_path: Path) -> None:
        """An entry that is delivered and committed again after a restored database is not counted again."""
        async with self._opened(tmp_path) as journal:
            sink = await journal.reader("sink")
            offset = await journal.append(_batch(1, samples=10))
            await journal.append(_batch(2, samples=10))
            for _ in range(2):
                await sink.commit(offset, [Tally(offset, "line", "delivered", 10, _BEGIN)])
                sink.rewind(0)
            rows = await journal.ledger()
            assert _sum(rows, "sink", "delivered") == 10
            _balances(rows, "line", ["sink"])

    async def test_what_was_lost_before_us_is_shown(self, tmp_path: Path) -> None:
        """Queue overflows of the other side are summed per source, outside the balance."""
        async with self._opened(tmp_path) as journal:
            await journal.reader("sink")
            for lost in (3, 0, 4):
                await journal.append(Batch("line", _BEGIN, ["a"], [_BEGIN], [1.0], lost_before=lost))
            rows = await journal.ledger()
            assert sum(row.samples for row in rows if (row.source, row.outcome) == ("line", "lost before us")) == 7
            _balances(rows, "line", ["sink"])

    async def test_refused_samples_are_kept_with_the_reason(self, tmp_path: Path) -> None:
        """The dead-letter record holds the samples themselves, newest first."""
        async with self._opened(tmp_path) as journal:
            sink = await journal.reader("sink")
            for i in range(3):
                offset = await journal.append(_batch(i, samples=2))
                await sink.commit(offset, dead=[(offset, f"reason {i}", _batch(i).select([0]))])
            letters = await journal.dead_letters()
            assert [letter.reason for letter in letters] == ["reason 2", "reason 1", "reason 0"]
            assert {letter.reader for letter in letters} == {"sink"}
            assert same_samples(list(letters[0].samples), list(_batch(2).select([0])))
            assert len(await journal.dead_letters(limit=1)) == 1

    async def test_a_full_journal_makes_sources_wait(self, tmp_path: Path) -> None:
        """``refuse``: append waits until a reader makes room, then goes on; nothing is lost."""
        async with self._opened(tmp_path, keep=_SMALL, when_full="refuse") as journal:
            sink = await journal.reader("sink")

            async def full() -> bool:
                return (await journal.state()).full

            await _fill(journal, full)
            waiting = asyncio.ensure_future(journal.append(_batch(0)))
            assert not (await asyncio.wait({waiting}, timeout=0.3))[0], "a full journal took a batch"
            last = 0
            while not waiting.done():
                (entry,) = await asyncio.wait_for(sink.read(most_samples=1), 60)
                await sink.commit(
                    entry.offset, [Tally(entry.offset, entry.source, "delivered", entry.samples, entry.received)]
                )
                last = entry.offset
            # Equal where the reader has read it before whoever appended it heard that it is durable.
            assert await waiting >= last
            _balances(await journal.ledger(), "line", ["sink"])

    async def test_a_full_journal_drops_the_oldest_and_says_so(self, tmp_path: Path) -> None:
        """``oldest``: append goes on, what is dropped is in the ledger with its reason, and a gap is marked."""
        async with self._opened(tmp_path, keep=_SMALL, when_full="oldest") as journal:
            sink = await journal.reader("sink")

            async def dropped() -> bool:
                return _sum(await journal.ledger(), "sink", "dropped") > 0

            await _fill(journal, dropped)
            rows = await journal.ledger()
            _balances(rows, "line", ["sink"])
            assert all(row.reason for row in rows if row.outcome == "dropped")
            sources: set[str] = set()
            while "$journal" not in sources:
                sources |= {entry.source for entry in await asyncio.wait_for(sink.read(), 60)}

    async def test_closing_twice_does_no_harm_and_ends_appends(self, tmp_path: Path) -> None:
        """After closing nothing is taken: the source must not believe it durable."""
        journal = await self.open(tmp_path)
        await journal.append(_batch(1))
        await journal.close()
        await journal.close()
        with pytest.raises(Unavailable):
            await journal.append(_batch(2))


def _batch(number: int, samples: int = 1, checkpoint: bytes | None = None) -> Batch:
    times = [_BEGIN + number * 10**9 + i for i in range(samples)]
    return Batch("line", _BEGIN + number, ["a/x"] * samples, times, [float(number)] * samples, checkpoint=checkpoint)


def _telling() -> Batch:
    values = list(EVERY_VALUE.values())
    return Batch(
        "line",
        _BEGIN,
        [f"a/{i}" for i in range(len(values))],
        [_BEGIN - i * 10**15 for i in range(len(values))],
        values,
        [Quality.GOOD if i % 2 else Quality.BAD for i in range(len(values))],
        statuses=[0x80000000 + i for i in range(len(values))],
        server_times=[_BEGIN + i for i in range(len(values))],
        lost_before=3,
    )


async def _read(reader: Reader, number: int) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < number:
        more = await asyncio.wait_for(reader.read(), 60)
        assert more, "a read gives at least one entry"
        entries.extend(more)
    return entries


async def _fill(journal: Journal, enough: Callable[[], Awaitable[bool]]) -> None:
    """Append until it is enough; fails after a minute."""
    tags, values = [f"a/{i}" for i in range(1000)], array("d", range(1000))
    numbers = count(1)
    async with asyncio.timeout(60):
        while not await enough():
            begin = _BEGIN + next(numbers) * 10**9
            appending = asyncio.ensure_future(
                journal.append(Batch("line", begin, tags, range(begin, begin + 1000), values))
            )
            while not (await asyncio.wait({appending}, timeout=0.05))[0] and not await enough():
                pass
            if not appending.done():
                appending.add_done_callback(lambda task: task.exception())  # closing the journal refuses it


def _number(entry: Entry) -> object:
    assert entry.batch is not None
    return entry.batch.values[0]


def _same_batch(entry: Entry, batch: Batch) -> None:
    found = entry.batch
    assert found is not None
    assert (entry.source, entry.samples, entry.received) == (batch.source, len(batch), batch.received)
    assert (found.source, found.received, found.lost_before) == (batch.source, batch.received, batch.lost_before)
    assert same_samples(list(found), list(batch))
    assert [sample.status for sample in found] == [sample.status for sample in batch]
    assert [sample.server_time for sample in found] == [sample.server_time for sample in batch]
    assert all(isinstance(sample, Sample) for sample in found)


def _sum(rows: Sequence[LedgerRow], reader: str, outcome: str) -> int:
    return sum(row.samples for row in rows if (row.reader, row.outcome) == (reader, outcome))


def _balances(rows: Sequence[LedgerRow], source: str, readers: Sequence[str]) -> None:
    received = sum(row.samples for row in rows if (row.source, row.outcome) == (source, "received"))
    for reader in readers:
        mine = {
            outcome: sum(
                row.samples for row in rows if (row.source, row.reader, row.outcome) == (source, reader, outcome)
            )
            for outcome in ("base", "delivered", "filtered", "deduplicated", "rejected", "dropped", "waiting")
        }
        assert received - mine.pop("base") == sum(mine.values()), f"{reader}: {received} received, {mine}"
