"""How much the journal holds is summed up without reading all of it each time, and is the same as if it were."""

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from shopfloor.journal import SqliteJournal, Tally, blocks, read_file
from shopfloor.journal.blocks import Blocks
from shopfloor.journal.file import SCHEMA, connect
from shopfloor.samples import Batch

SOURCES = 3


def insert(db: sqlite3.Connection, first: int, last: int) -> None:
    """An entry for each offset, some of ``SOURCES`` sources, of one to five samples."""
    rows = ((offset, 1 + offset % SOURCES, 0, 1 + offset % 5, b"") for offset in range(first, last + 1))
    db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", rows)


def by_reading_all(db: sqlite3.Connection, position: int) -> dict[int, int]:
    query = "SELECT source, sum(samples) FROM entry WHERE offset > ? GROUP BY source"
    return dict(db.execute(query, (position,)).fetchall())


def demand_right(db: sqlite3.Connection, kept: Blocks, positions: list[int]) -> None:
    assert kept.held(db) == db.execute("SELECT count(*), coalesce(sum(samples), 0) FROM entry").fetchone()
    assert {at: +found for at, found in kept.behind(db, positions).items()} == {
        at: by_reading_all(db, at) for at in positions
    }


def test_the_sums_are_right_whatever_came_and_went(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries come at one end, go at the other, and offsets may leap; asked again and again of the same sums."""
    monkeypatch.setattr(blocks, "SIZE", 8)
    monkeypatch.setattr(blocks, "AT_ONCE", 3)
    chance = random.Random(7)
    db = connect(None)
    db.executescript(SCHEMA)
    kept, trimmed, head = Blocks(), 0, 0
    demand_right(db, kept, [0])
    for _ in range(300):
        first = head + 1 + chance.choice((0, 0, 0, 5, 1000))
        head = first + chance.randrange(40)
        insert(db, first, head)
        if chance.random() < 0.7:
            trimmed = chance.choice((head, chance.randint(trimmed, head), min(head, trimmed + 20)))
            db.execute("DELETE FROM entry WHERE offset <= ?", (trimmed,))
        demand_right(db, kept, [chance.randint(max(0, trimmed - 20), head) for _ in range(4)] + [0, trimmed, head])


def test_what_was_summed_up_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand entries wait; the second answer takes what SQLite does for the two blocks at the ends."""
    monkeypatch.setattr(blocks, "SIZE", 64)
    db = connect(None)
    db.executescript(SCHEMA)
    insert(db, 1, 10_000)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    db.set_progress_handler(step, 10)
    kept, taken = Blocks(), list[int]()
    for _ in range(2):
        steps = 0
        kept.held(db)
        kept.behind(db, [0, 5000, 9999])
        taken.append(steps)
    assert taken[1] * 5 < taken[0], "tens of steps of SQLite"


async def test_a_running_journal_and_its_file_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader is behind: while others write, commit and trim, console and command line have the same sums."""
    monkeypatch.setattr(blocks, "SIZE", 8)
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path)
    ahead, behind = await journal.reader("ahead"), await journal.reader("behind")
    total = 0
    for number in range(1, 61):
        source = f"line {number % SOURCES}"
        offset = await journal.append(Batch(source, number, ["a"] * 2, [number] * 2, [1.0, 2.0]))
        total += 2
        await ahead.commit(offset, [Tally(offset, source, "delivered", 2, number)])
        if number == 40:
            await behind.commit(offset)
            while (await journal.state()).entries:
                await asyncio.sleep(0.01)
            total = 0
        if number % 10 == 0:
            state, rows = await journal.state(), await journal.ledger()
            assert (state.samples, state.entries) == (total, total // 2)
            waiting = {name: [r.samples for r in rows if (r.reader, r.outcome) == (name, "waiting")]
                       for name in ("ahead", "behind")}  # fmt: skip
            assert [sum(waiting[name]) for name in ("ahead", "behind")] == [0, total]
            assert read_file(path) == rows
    await journal.close()
