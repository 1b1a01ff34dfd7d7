"""Dead letters: offered again once, to the reader that refused them, or thrown away."""

import asyncio
from pathlib import Path

import pytest

from shopfloor.journal import Entry, Reader, SqliteJournal, Tally, addressed, balances, dead
from shopfloor.samples import Batch

BEGIN = 1_767_592_800_000_000_000
STATUSES = [0x80340000, 0]


def batch(number: int) -> Batch:
    return Batch("line", BEGIN, ["a/x", "a/y"], [BEGIN + number, BEGIN], [number, "text"], [0, 192], statuses=STATUSES)


async def refuse(journal: SqliteJournal, reader: Reader, number: int) -> None:
    refused = batch(number)
    offset = await journal.append(refused)
    await reader.commit(offset, [Tally(offset, "line", "rejected", 2, BEGIN, "no")], dead=[(offset, "no", refused)])


async def next_entry(reader: Reader) -> Entry:
    async with asyncio.timeout(60):
        (entry,) = await reader.read()
    return entry


async def test_a_letter_is_offered_again_once_and_whole(tmp_path: Path) -> None:
    """Also when two ask for it at the same time, and after it was offered."""
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path)
    sink = await journal.reader("sink")
    await refuse(journal, sink, 1)
    await refuse(journal, sink, 2)
    newest, oldest = await journal.dead_letters()
    assert (newest.source, newest.reader, newest.reason) == ("line", "sink", "no")
    sink.rewind()
    given = await asyncio.gather(journal.retry([oldest.id, 999]), journal.retry([oldest.id]))
    assert sorted(given) == [[], [oldest.id]]
    assert await journal.retry([oldest.id]) == []
    entry = await next_entry(sink)
    assert addressed(entry.source) == ("sink", "line")
    assert entry.batch is not None
    assert (list(entry.batch), list(entry.batch.statuses or ())) == (list(batch(1)), STATUSES)
    assert [letter.id for letter in await journal.dead_letters()] == [newest.id]
    await sink.commit(entry.offset, [Tally(entry.offset, entry.source, "delivered", 2, entry.received)])
    assert not [pair for pair in balances(await journal.ledger()) if pair.missing]
    await journal.close()

    journal = await SqliteJournal.open(path)
    assert [letter.id for letter in await journal.dead_letters()] == [newest.id]
    assert await journal.drop([newest.id, newest.id, 999]) == 1
    assert await journal.dead_letters() == []
    assert {row.samples for row in await journal.ledger() if row.outcome == "rejected"} == {4}, "it was refused"
    await journal.close()


async def test_a_letter_of_a_reader_that_is_gone_stays(tmp_path: Path) -> None:
    """Nobody would take it: it would be lost without a word."""
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    await refuse(journal, await journal.reader("sink"), 1)
    (letter,) = await journal.dead_letters()
    await journal.forget("sink")
    assert await journal.retry([letter.id]) == []
    assert await journal.dead_letters() == [letter]
    await journal.close()


async def test_an_ordinary_entry_is_addressed_to_nobody() -> None:
    assert addressed("line") is None
    assert addressed("$edit") is None


async def test_many_large_letters_are_listed_by_their_first_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All samples of all letters may be more than fits into memory. Each letter can be offered again whole."""
    monkeypatch.setattr(dead, "PIECE", 1000)  # bytes: so listing takes several pieces
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    sink = await journal.reader("sink")
    text = "é" * 5000
    large = Batch("line", BEGIN, ["a"] * 500, range(500), [text, *(float(n) for n in range(1, 499)), b"x" * 5000])
    offset = await journal.append(large)
    letters = [(offset, f"no {number}", large.select(range(number, 500))) for number in range(20)]
    await sink.commit(offset, [Tally(offset, "line", "rejected", 500, BEGIN, "no")], dead=letters)
    listed = await journal.dead_letters()
    assert [(letter.reason, letter.count) for letter in listed] == [(f"no {n}", 500 - n) for n in range(19, -1, -1)]
    assert [sample.value for sample in listed[0].samples] == [float(n) for n in range(19, 29)]
    assert listed[-1].samples[0].value == f"{'é' * 1000}…"
    assert [letter.id for letter in await journal.dead_letters(3)] == [letter.id for letter in listed[:3]]
    assert await journal.retry([listed[-1].id, 999]) == [listed[-1].id]
    sink.rewind()
    entry = await next_entry(sink)
    assert list(entry.batch or ()) == list(large), "all of it, whatever was listed"
    await journal.close()
