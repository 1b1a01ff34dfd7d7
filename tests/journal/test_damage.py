"""Damage costs what is damaged and nothing else; nobody deletes files by hand."""

import asyncio
import random
import shutil
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.journal import Entry, SqliteJournal, Tally, balances, salvage as salvaging
from shopfloor.journal.file import PAGE
from shopfloor.journal.pages import Pages
from shopfloor.samples import Batch, Misconfigured

TAGS = ("a/x", "a/y", "b/z")
BEGIN = 1_767_592_800_000_000_000
SEEDS = 4
"""Of as many files that are damaged, side by side where tests run so; they share the bytes of the file's head."""


def batch(number: int, samples: int = 3) -> Batch:
    return Batch(
        "line",
        BEGIN + number,
        [TAGS[i % 3] for i in range(samples)],
        [BEGIN + number * 10**6 + i for i in range(samples)],
        [number + i / 1000 for i in range(samples)],
    )


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = await SqliteJournal.open(path)
    try:
        yield journal
    finally:
        await journal.close()


async def filled(path: Path, entries: int, samples: int = 3) -> list[int]:
    """A journal with a reader that has taken the first two entries; the offsets."""
    async with opened(path) as journal:
        reader = await journal.reader("sink")
        offsets = [await journal.append(batch(i, samples)) for i in range(entries)]
        tallies = [Tally(offset, "line", "delivered", samples, BEGIN) for offset in offsets[:2]]
        await reader.commit(offsets[1], tallies, state=b"state")
        return offsets


async def everything(journal: SqliteJournal, last: int) -> list[Entry]:
    reader = await journal.reader("sink")
    entries: list[Entry] = []
    while not entries or entries[-1].offset < last:
        entries += await asyncio.wait_for(reader.read(), 60)
    return entries


async def test_an_entry_damaged_at_any_byte_costs_that_entry_alone(tmp_path: Path) -> None:
    """Each byte of a stored body is flipped, and the body cut at each byte: the reader gets all the others."""
    path = tmp_path / "journal.db"
    offsets = await filled(path, 6)
    with sqlite3.connect(path) as db:
        whole: bytes = db.execute("SELECT body FROM entry WHERE offset = ?", (offsets[3],)).fetchone()[0]
    damages = [whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :] for at in range(len(whole))]
    damages += [whole[:at] for at in range(len(whole))]
    for damaged in damages:
        with sqlite3.connect(path) as db:
            db.execute("UPDATE entry SET body = ? WHERE offset = ?", (damaged, offsets[3]))
        db.close()
        async with opened(path) as journal:
            entries = await everything(journal, offsets[-1])
            assert [(e.offset, e.batch is None, e.source, e.samples) for e in entries] == [
                (offset, offset == offsets[3], "line", 3) for offset in offsets[2:]
            ]
            assert (await journal.state()).damaged == 1


async def test_a_damaged_dictionary_row_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    offsets = await filled(path, 3)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE name SET name = 'wrong'")
    db.close()
    async with opened(path) as journal:
        (entry,) = await everything(journal, offsets[-1])
        assert entry.batch is not None
        assert list(entry.batch.tags) == list(TAGS)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_file_damaged_anywhere_is_salvaged(tmp_path: Path, seed: int) -> None:
    """Bytes of the file are flipped, page heads above all: opening salvages, what is lost is in the ledger."""
    chosen = random.Random(seed)
    origin = tmp_path / "origin.db"
    offsets = await filled(origin, 60, samples=40)
    size = origin.stat().st_size
    heads = [page + at for page in range(0, size, PAGE) for at in (0, 1, 3, 5, 8, 9, 20)]
    head = range(seed, 100, SEEDS)
    places = [*head, *chosen.sample(heads, min(60, len(heads))), *(chosen.randrange(size) for _ in range(60))]
    for place in places:
        folder = tmp_path / str(place)
        folder.mkdir(exist_ok=True)
        path = folder / "journal.db"
        content = bytearray(origin.read_bytes())
        content[place] ^= 0xFF
        path.write_bytes(content)
        async with opened(path) as journal:
            fresh = await journal.append(batch(1000))
            entries = await everything(journal, fresh)
            whole = [e for e in entries if e.batch is not None]
            lost = 59 - len(whole)
            assert lost <= PAGE // 800, f"byte {place}: one flipped byte cost {lost} entries, more than a page holds"
            for entry in whole[:-1]:
                number = offsets.index(entry.offset)
                assert entry.batch is not None
                assert list(entry.batch) == list(batch(number, 40))
            assert not any(pair.missing for pair in balances(await journal.ledger())), f"byte {place}"
        shutil.rmtree(folder)


async def test_a_cut_file_is_salvaged_and_the_damaged_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    offsets = await filled(path, 200, samples=60)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    async with opened(path) as journal:
        fresh = await journal.append(batch(0))
        assert fresh > offsets[-1]
        entries = await everything(journal, fresh)
        assert len(entries) > 80
        assert "damaged" in journal.salvaged
        assert [kept for kept in tmp_path.iterdir() if ".damaged-" in kept.name]


async def test_what_is_only_in_the_wal_is_salvaged(tmp_path: Path) -> None:
    """The file's head is destroyed while the last commits stand in the WAL alone."""
    path = tmp_path / "live.db"
    async with opened(path) as journal:
        await journal.reader("sink")
        offsets = [await journal.append(batch(i)) for i in range(20)]
        copy = tmp_path / "journal.db"
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    content = bytearray(copy.read_bytes())
    content[:100] = bytes(100)
    copy.write_bytes(content)
    async with opened(copy) as journal:
        entries = await everything(journal, offsets[-1])
        assert [entry.offset for entry in entries if entry.batch is not None] == offsets


async def test_damage_met_while_running_is_repaired_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    offsets = await filled(path, 300, samples=60)
    async with opened(path) as journal:
        with path.open("r+b") as file:  # behind the back of the running journal
            file.seek(path.stat().st_size // 2 // PAGE * PAGE)
            file.write(b"\xff" * PAGE)
        fresh = await journal.append(batch(1))
        entries = await everything(journal, fresh)
        assert len([e for e in entries if e.batch is not None]) > 280
        assert entries[0].offset == offsets[2]
        assert not any(pair.missing for pair in balances(await journal.ledger()))


async def test_a_file_that_is_no_journal_is_set_aside_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_text("my shopping list" * 100)
    async with opened(path) as journal:
        await journal.append(batch(1))
        (kept,) = [kept for kept in tmp_path.iterdir() if ".damaged-" in kept.name]
        assert kept.read_text().startswith("my shopping list")


async def test_two_processes_cannot_use_one_journal(tmp_path: Path) -> None:
    async with opened(tmp_path / "journal.db"):
        with pytest.raises(Misconfigured, match="in use by another Shopfloor"):
            await SqliteJournal.open(tmp_path / "journal.db")


async def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(Misconfigured, match="cannot be created"):
        await SqliteJournal.open(tmp_path / "data" / "journal.db")


def test_a_large_file_is_not_held_in_memory_to_be_salvaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with path.open("wb") as held:
        held.truncate(64 * 2**20 + 100)
    tracemalloc.start()
    try:
        with Pages(path) as pages:
            assert not list(salvaging.rows(pages))
            assert len(list(pages)) == 64 * 2**20 // PAGE + 1
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


async def test_too_little_memory_to_salvage_is_said_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"no journal" * 10_000)

    def none(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(salvaging, "_carry_over", none)
        with pytest.raises(Misconfigured, match="too little memory"):
            await SqliteJournal.open(path)
    assert path.read_bytes() == b"no journal" * 10_000
    async with opened(path) as journal:
        assert "damaged" in journal.salvaged
