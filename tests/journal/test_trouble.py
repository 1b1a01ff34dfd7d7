"""Whatever goes wrong inside or around the journal: who waits is answered, and what was acknowledged is there."""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shopfloor.journal import Entry, Reader, SqliteJournal, Tally, balances, salvage as salvaging, writer as writing
from shopfloor.journal.work import Fresh, Work
from shopfloor.journal.writer import Writer
from shopfloor.samples import Batch, Unavailable

BEGIN = 1_767_592_800_000_000_000


def batch(number: int, samples: int = 3, text: str = "") -> Batch:
    values: list[Any] = [text] * samples if text else [float(number)] * samples
    return Batch("line", BEGIN + number, ["a/x"] * samples, [BEGIN + i for i in range(samples)], values)


async def taken(reader: Reader, number: int) -> list[Entry]:
    entries: list[Entry] = []
    async with asyncio.timeout(60):
        while len(entries) < number:
            entries += await reader.read()
    return entries


async def missing(journal: SqliteJournal) -> list[str]:
    return [
        f"{pair.source} → {pair.reader}: {pair.missing}" for pair in balances(await journal.ledger()) if pair.missing
    ]


@pytest.mark.parametrize(
    "odd",
    [
        Batch("line", BEGIN, ["a"], [BEGIN], [1.0], lost_before=-1),
        Batch("line", BEGIN, [None], [BEGIN], [1.0]),  # type: ignore[list-item]  # a connector's bug
        Batch("line", None, ["a"], [BEGIN], [1.0]),  # type: ignore[arg-type]  # a connector's bug
    ],
)
async def test_a_batch_that_no_connector_should_give_is_refused_alone(tmp_path: Path, odd: Batch) -> None:
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    async with asyncio.timeout(60):
        with pytest.raises(ValueError, match=r".+"):
            await journal.append(odd)
        assert await journal.append(batch(1)) > 0
        await journal.close()


async def test_reading_while_a_commit_ends_takes_no_sound_file_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry is on disk a moment before the writer has said so; a reader behind the window may see it then."""
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path)
    await journal.reader("sink")
    await journal.append(batch(1))
    await journal.close()
    go_on, on_disk = threading.Event(), threading.Event()
    plain = Writer._transact

    def slow(self: Writer, works: list[Work]) -> tuple[list[Any], Fresh]:
        results = plain(self, works)
        on_disk.set()
        go_on.wait(10)
        return results

    journal = await SqliteJournal.open(path)
    reader = await journal.reader("sink")
    monkeypatch.setattr(Writer, "_transact", slow)
    appending = journal.append(batch(2))
    await asyncio.to_thread(on_disk.wait, 10)
    reading = asyncio.ensure_future(taken(reader, 2))
    await asyncio.wait({reading}, timeout=0.5)
    go_on.set()
    assert [entry.offset for entry in await reading][-1] == await appending
    assert not journal.salvaged
    await journal.close()


async def refuse_once(monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]) -> Any:
    """What ``do`` hands in meets a full disk, alone; returns what it gave."""
    plain = Writer._transact
    refused = threading.Event()

    def transact(self: Writer, works: list[Work]) -> tuple[list[Any], Fresh]:
        if refused.is_set():
            return plain(self, works)
        refused.set()
        self.db.execute("BEGIN IMMEDIATE")
        for work in works:
            if work.apply is not None:
                work.apply(self.db)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Writer, "_transact", transact)
    given = do()
    while not refused.is_set():
        await asyncio.sleep(0.001)
    return given


async def test_a_commit_behind_a_failed_one_fails_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the position would pass by the tallies and dead letters of the failed one: lost without a word."""
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    sink = await journal.reader("sink")
    offsets = [await journal.append(batch(i)) for i in range(2)]
    await taken(sink, 2)
    dead = [(offsets[0], "never", batch(0).select([0]))]
    first = [Tally(offsets[0], "line", "delivered", 2, BEGIN), Tally(offsets[0], "line", "rejected", 1, BEGIN, "never")]
    second = [Tally(offsets[1], "line", "delivered", 3, BEGIN)]
    failing = await refuse_once(monkeypatch, lambda: sink.commit(offsets[0], first, dead=dead))
    behind = sink.commit(offsets[1], second)
    with pytest.raises(Unavailable):
        await failing
    with pytest.raises(Unavailable):
        await behind
    sink = await journal.reader("sink")
    sink.rewind()
    assert [entry.offset for entry in await taken(sink, 2)] == offsets
    await sink.commit(offsets[0], first, dead=dead)
    await sink.commit(offsets[1], second)
    assert not await missing(journal)
    assert len(await journal.dead_letters()) == 1
    await journal.close()


async def test_what_is_not_on_disk_is_forgotten_also_where_the_disk_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit is refused, and what holds instead cannot be read: what it had taken must not be trimmed."""
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    sink = await journal.reader("sink")
    offset = await journal.append(batch(0))
    plain, failing = Writer._load, 3

    def load(self: Writer) -> None:
        nonlocal failing
        failing -= 1
        if failing >= 0:
            raise sqlite3.OperationalError("disk I/O error")
        plain(self)

    monkeypatch.setattr(Writer, "_load", load)
    tally = Tally(offset, "line", "delivered", 3, 1)
    refused = await refuse_once(monkeypatch, lambda: sink.commit(offset, [tally]))
    with pytest.raises(Unavailable):
        await refused
    async with asyncio.timeout(60):
        while failing >= 0:
            await asyncio.sleep(0.01)
        await journal.append(batch(1))
    sink.rewind()
    assert (await sink.read())[0].offset == offset
    assert not await missing(journal)
    await journal.close()


async def test_whoever_stops_waiting_for_a_commit_does_not_undo_it(tmp_path: Path) -> None:
    """A processor that is paused while its commit is under way must not fold the same entries again."""
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    reader = await journal.reader("sum")
    offset = await journal.append(batch(1))
    await taken(reader, 1)

    async def commit() -> None:
        await reader.commit(offset, state=b"3")

    task = asyncio.create_task(commit())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    again = await journal.reader("sum")
    assert (again.position, again.state) == (offset, b"3")
    await journal.close()


async def test_who_gives_it_again_can_withdraw_what_waits_for_room(tmp_path: Path) -> None:
    """A source that is restarted while the journal is full gives the same batch again: it would be there twice.

    What nobody gives again, as a message that a source was lost, is stored all the same.
    """
    journal = await SqliteJournal.open(tmp_path / "journal.db", keep=300_000)
    reader = await journal.reader("sink")
    filled = asyncio.create_task(fill(journal))
    while not (await journal.state()).full:
        await asyncio.sleep(0.01)
    waiting = [journal.append(batch(number), only_awaited=number == 1_000) for number in (1_000, 2_000)]
    filled.cancel()
    for one in waiting:
        one.cancel()
    assert await journal.checkpoint("line") is None  # and it knows what became of all that was handed in before
    await reader.commit(journal.head)
    received = set()
    while BEGIN + 2_000 not in received:
        received |= {entry.received for entry in await reader.read()}
    assert BEGIN + 1_000 not in received
    await journal.close()


async def fill(journal: SqliteJournal) -> None:
    for number in range(1_000):
        await journal.append(batch(number, text="x" * 20_000))


async def test_a_checkpoint_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    """Else a source that was stopped at that moment would begin before it, and give it twice."""
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    for number in range(20):
        one = batch(number)
        one.checkpoint = str(number).encode()
        journal.append(one, only_awaited=True)
        assert await journal.checkpoint("line") == one.checkpoint
    await journal.close()


async def test_one_that_cannot_be_written_takes_no_other_along(tmp_path: Path) -> None:
    """Of those that are written together; but a commit behind it fails, since it would pass by what that one counts."""
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    reader = await journal.reader("mes")
    first, second = [await journal.append(batch(number)) for number in (1, 2)]
    refused = Tally(first, "line", "rejected", 3, BEGIN, "half a character: \ud83d")
    together = [
        reader.commit(first, [refused]),
        reader.commit(second, [Tally(second, "line", "delivered", 3, BEGIN)]),
        journal.append(batch(3)),
        journal.append(batch(4)),
    ]
    found = await asyncio.gather(*together, return_exceptions=True)
    assert [type(one) for one in found] == [UnicodeEncodeError, Unavailable, int, int]
    assert (await journal.reader("mes")).position < first
    await journal.close()


async def test_housekeeping_that_fails_counts_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trimming and dropping fail for some seconds, by errors of SQLite and of the system."""
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    journal = await SqliteJournal.open(tmp_path / "journal.db", 2 * 10**6, "oldest")
    await journal.reader("sink")
    await journal.append(batch(0))
    plain = Writer._delete_to
    failing = 0

    def refuse(self: Writer, offset: int) -> None:
        nonlocal failing
        if failing < 4:
            failing += 1
            raise OSError("no space") if failing % 2 else sqlite3.OperationalError("database or disk is full")
        plain(self, offset)

    monkeypatch.setattr(Writer, "_delete_to", refuse)
    async with asyncio.timeout(60):
        number = 0
        while failing < 4:
            number += 1
            await journal.append(batch(number, 1000, text="x" * 100))
            assert not await missing(journal)
        offset = await journal.append(batch(0))
        assert not await missing(journal)
        await journal.close()
    journal = await SqliteJournal.open(tmp_path / "journal.db", 2 * 10**6, "oldest")
    assert offset
    assert not await missing(journal)
    await journal.close()
    assert capsys.readouterr().out.count("housekeeping") <= 2


async def test_what_was_dropped_is_marked_or_was_not_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk refuses the entry that says so: as many samples are in gap markers as the ledger has dropped."""
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    journal = await SqliteJournal.open(tmp_path / "journal.db", 2 * 10**6, "oldest")
    await journal.reader("sink")
    quick = await journal.reader("quick")
    plain, refused, marked = writing._insert, 0, 0

    def insert(db: sqlite3.Connection, rows: Sequence[tuple[int, int, int, int, bytearray]]) -> None:
        nonlocal refused
        if rows[0][3] == 1 and refused < 3:  # a marker is one sample
            refused += 1
            raise sqlite3.OperationalError("database or disk is full")
        plain(db, rows)

    async def read_all() -> None:
        nonlocal marked
        while quick.lag()[0]:
            entries = await quick.read()
            for entry in entries:
                if entry.source == "$journal" and entry.batch is not None:
                    marked += json.loads(str(entry.batch.values[0]))["dropped"]["sink"]
            tallies = [Tally(e.offset, e.source, "delivered", e.samples, e.received) for e in entries]
            await quick.commit(entries[-1].offset, tallies)

    monkeypatch.setattr(writing, "_insert", insert)
    async with asyncio.timeout(60):
        while refused < 3 or not marked:
            await journal.append(batch(refused, 1000, text="x" * 100))
            await read_all()
        while marked != (dropped := await _dropped(journal, "sink")):
            await asyncio.sleep(0.01)
            await read_all()
    assert dropped > 0
    assert not await missing(journal)
    await journal.close()


async def _dropped(journal: SqliteJournal, reader: str) -> int:
    return sum(row.samples for row in await journal.ledger() if (row.reader, row.outcome) == (reader, "dropped"))


async def test_a_salvage_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space for the new file: who waits is told, and once there is space the journal goes on."""
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path)
    await journal.reader("sink")
    offset = await journal.append(batch(1))
    plain = salvaging.salvage
    tries = 0

    def refuse(path: Path, now: int) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(28, "No space left on device")
        return plain(path, now)

    monkeypatch.setattr(writing, "salvage", refuse)
    spoilt = sqlite3.DatabaseError("database disk image is malformed")
    transact = Writer._transact

    def damaged(self: Writer, works: list[Work]) -> tuple[list[Any], Fresh]:
        if not tries:
            raise spoilt
        return transact(self, works)

    monkeypatch.setattr(Writer, "_transact", damaged)
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await journal.append(batch(2))
        for _ in range(100):
            with contextlib.suppress(Unavailable):
                await journal.append(batch(3))
                break
            await asyncio.sleep(0.05)
        assert tries >= 3
        entries = await taken(await journal.reader("sink"), 2)
        assert entries[0].offset == offset
        await journal.close()


async def test_a_salvaged_journal_goes_on_behind_every_offset_it_ever_gave(tmp_path: Path) -> None:
    """Also when nothing at all can be read: a historian that remembers an offset would ignore what is below it."""
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path)
    before = await journal.append(batch(1))
    await journal.close()
    path.write_bytes(bytes(len(path.read_bytes())))
    journal = await SqliteJournal.open(path)
    assert await journal.append(batch(2)) > before
    await journal.close()


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_a_salvage_that_was_cut_off_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Power fails between any two of its last steps, which rename files."""
    path = tmp_path / "live.db"
    journal = await SqliteJournal.open(path)
    await journal.reader("sink")
    offset = await journal.append(batch(1))
    place = tmp_path / "cut"
    place.mkdir()
    copy = place / "journal.db"
    for ending in ("", "-wal", "-shm"):
        copy.with_name(copy.name + ending).write_bytes(path.with_name(path.name + ending).read_bytes())
    await journal.close()
    content = bytearray(copy.read_bytes())
    content[:100] = bytes(100)
    copy.write_bytes(content)
    renames = 0
    plain = Path.rename

    def rename(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames > cut:
            raise KeyboardInterrupt
        return plain(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            salvaging.salvage(copy, time.time_ns())
    journal = await SqliteJournal.open(copy)
    assert [entry.offset for entry in await taken(await journal.reader("sink"), 1)] == [offset]
    await journal.close()


async def test_offsets_begin_at_the_time_whenever_the_first_start_was_cut_off(tmp_path: Path) -> None:
    def stopped() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await SqliteJournal.open(tmp_path / "journal.db", clock=stopped)
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    assert await journal.append(batch(1)) > 10**15
    await journal.close()


async def test_many_small_batches_do_not_outgrow_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``oldest`` drops as fast as batches come, and says so once, not each second.

    A hundred sources give one after the other without a pause, each when its last one is durable.
    """
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    keep = 10**6
    journal = await SqliteJournal.open(tmp_path / "journal.db", keep, "oldest")
    await journal.reader("sink")
    worst = 0

    async def source() -> None:
        nonlocal worst
        for i in range(400):
            await journal.append(batch(i))
            if i % 20 == 0:
                worst = max(worst, (await journal.state()).size)

    await asyncio.gather(*(source() for _ in range(100)))
    assert keep * 0.9 < worst < 1.2 * keep
    assert not await missing(journal)
    await journal.close()
    assert capsys.readouterr().out.count("drops its oldest") == 1


async def test_dead_letters_do_not_fill_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go before a source is held back for ever."""
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.05)
    keep = 4 * 10**6
    journal = await SqliteJournal.open(tmp_path / "journal.db", keep, "refuse")
    sink = await journal.reader("sink")
    async with asyncio.timeout(60):
        for number in range(80):
            refused = batch(number, 1000, text="x" * 100)
            offset = await journal.append(refused)
            await sink.commit(
                offset,
                [Tally(offset, "line", "rejected", 1000, BEGIN, "never")],
                dead=[(offset, f"never {number}", refused)],
            )
        await journal.append(batch(0))
    letters = await journal.dead_letters()
    assert letters[0].reason == "never 79"
    assert not await missing(journal)
    await journal.close()


async def test_somebody_who_reads_the_file_for_long_does_not_hold_up_commits(tmp_path: Path) -> None:
    """A backup or `sqlite3` with an open snapshot keeps the WAL from beginning anew; commits go on."""
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path)
    await journal.reader("sink")
    await journal.append(batch(1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM entry").fetchall()
    longest = 0.0
    for number in range(150):
        began = time.monotonic()
        await journal.append(batch(number, 1000, text="x" * 100))
        longest = max(longest, time.monotonic() - began)
    other.close()
    await journal.close()
    assert longest < 10, "SQLite's own patience was not waited for"


async def test_the_ledger_balances_with_a_damaged_dictionary_row(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path)
    await journal.reader("sink")
    await journal.append(batch(1))
    await journal.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE name SET name = 'wrong'")
    db.close()
    journal = await SqliteJournal.open(path)
    assert not await missing(journal)
    await journal.close()


CHILD = """
import asyncio, json, resource, sys
from pathlib import Path
from shopfloor.journal import SqliteJournal, Tally, balances
from shopfloor.samples import Batch, Unavailable

async def main():
    journal = await SqliteJournal.open(Path(sys.argv[1]))
    sink = await journal.reader("sink")
    kept, refused = [], 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(4000):
        if number == 200:
            resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, hard))
        if refused == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        try:
            offset = await journal.append(Batch("line", 1, ["a/x"] * 100, [number] * 100, [str(number) * 100] * 100))
            kept.append((offset, number))
            if number % 3 == 0:
                tallies = [Tally(taken, "line", "delivered", 100, 1) for taken, _ in waiting(kept, sink)]
                await sink.commit(offset, tallies)
        except Unavailable:
            refused += 1
            await asyncio.sleep(0.05)
        if refused >= 20 and len(kept) > 3000:
            break
    missing = [pair.missing for pair in balances(await journal.ledger())]
    await journal.close()
    journal = await SqliteJournal.open(Path(sys.argv[1]))
    sink = await journal.reader("sink")
    left = [pair for pair in kept if pair[0] > sink.position]
    found = []
    while len(found) < len(left):
        found += [(e.offset, e.batch.times[0]) for e in await asyncio.wait_for(sink.read(), 60)]
    missing += [pair.missing for pair in balances(await journal.ledger())]
    await journal.close()
    print(json.dumps({"refused": refused, "kept": len(kept), "same": found == left, "missing": missing,
                      "salvaged": journal.salvaged}))

def waiting(kept, sink):
    return [pair for pair in kept if pair[0] > sink.position]

asyncio.run(main())
"""


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """A process that may write no more bytes says so to who waits; when it may again, it goes on."""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", CHILD, str(tmp_path / "journal.db")], capture_output=True, timeout=100
    )
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    found = json.loads(run.stdout.decode().splitlines()[-1])
    assert found["refused"] >= 20, found
    assert found["same"], found
    assert not any(found["missing"]), found
    assert not found["salvaged"], found
    said = (run.stdout + run.stderr).decode().count("housekeeping")
    assert said <= 2, f"said {said} times"
