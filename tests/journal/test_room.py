"""How much of its disk the journal takes: its WAL stays small whatever is written, and it leaves some room."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shopfloor.journal import SqliteJournal, Tally, file, room as rooms, writer as writing
from shopfloor.journal.room import COPIED, RESERVE, SPARE, Room
from shopfloor.samples import Batch, Sample

BEGIN = 1_767_592_800_000_000_000
MB = 2**20
GB = 2**30


async def singles(journal: SqliteJournal, count: int) -> None:
    """As slow machines give them: a sample a commit, which each of three sinks commits by itself."""
    sinks = [await journal.reader(f"sink-{i}") for i in range(3)]
    for number in range(count):
        at = BEGIN + number
        last = await journal.append(Batch.of("plc", at, [Sample("press/x", at, number)]))
        for sink in sinks:
            entries = await sink.read()
            await sink.commit(last, [Tally(e.offset, e.source, "delivered", 1, e.received) for e in entries])


def wal(folder: Path) -> int:
    return (folder / "journal.db-wal").stat().st_size


async def test_samples_that_come_alone_do_not_let_the_wal_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 150 kB each: a machine that says something once a second would have 12 GB there after a day."""
    monkeypatch.setattr(writing, "WAL_MOST", MB)
    monkeypatch.setattr(file, "WAL_LIMIT", MB // 2)
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    await singles(journal, 100)
    assert wal(tmp_path) < 2 * MB
    await journal.close()


async def test_who_reads_the_file_for_long_delays_that_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "WAL_MOST", MB)
    monkeypatch.setattr(file, "WAL_LIMIT", MB // 2)
    journal = await SqliteJournal.open(tmp_path / "journal.db")
    await singles(journal, 1)
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM entry").fetchall()
        await singles(journal, 40)
        assert wal(tmp_path) > 2 * MB, "it could not begin anew"
    await singles(journal, 40)
    assert wal(tmp_path) < 2 * MB
    await journal.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the operating system says of a disk of 100 GB: bytes, ``f_bavail`` those that are left."""
    said = SimpleNamespace(f_frsize=1, f_blocks=100 * GB, f_bavail=50 * GB)
    monkeypatch.setattr(os, "statvfs", lambda _: said)
    return said


class Told:
    """A database that says how large it is; counts how often it is copied."""

    def __init__(self, used: int, free: int, error: Exception | None = None) -> None:
        self.figures = {"PRAGMA page_count": (used + free) // file.PAGE, "PRAGMA freelist_count": free // file.PAGE}
        self.copies = 0
        self._error = error

    def execute(self, statement: str) -> "Told":
        if statement == "VACUUM":
            self.copies += 1
            if self._error:
                raise self._error
        self._said = self.figures.get(statement)
        return self

    def fetchone(self) -> tuple[int | None]:
        return (self._said,)

    @property
    def db(self) -> sqlite3.Connection:
        """Itself, as what it stands for."""
        return cast("sqlite3.Connection", self)


def look(folder: Path, keep: int, used: int, free: int = 0) -> tuple[Room, Told]:
    """A file that has all of its pages."""
    path = folder / "journal.db"
    with path.open("wb") as held:
        held.truncate(used + free)
    room, told = Room(path, keep), Told(used, free)
    assert room.look(told.db) == used
    return room, told


def test_a_disk_with_room_leaves_it_its_keep(tmp_path: Path, disk: SimpleNamespace) -> None:
    room, _ = look(tmp_path, 20 * GB, 5 * GB)
    assert (room.limit, room.short) == (20 * GB, False)
    disk.f_bavail = 15 * GB + RESERVE
    assert look(tmp_path, 20 * GB, 5 * GB)[0].limit == 20 * GB


def test_a_smaller_disk_limits_it_and_what_is_free_in_the_file_counts(tmp_path: Path, disk: SimpleNamespace) -> None:
    disk.f_bavail = GB
    room, _ = look(tmp_path, 20 * GB, 5 * GB, 2 * GB)
    assert (room.limit, room.short) == (8 * GB - RESERVE, True)


def test_a_full_disk_has_it_make_room_for_the_reserve(tmp_path: Path, disk: SimpleNamespace) -> None:
    disk.f_bavail = 0
    assert look(tmp_path, 20 * GB, 5 * GB)[0].limit == 5 * GB - RESERVE
    assert look(tmp_path, 20 * GB, 5 * GB, RESERVE)[0].limit == 5 * GB


def test_others_who_fill_the_disk_do_not_cost_a_small_journal_what_it_has(
    tmp_path: Path, disk: SimpleNamespace
) -> None:
    disk.f_bavail = 0
    room, _ = look(tmp_path, 20 * GB, 10 * MB)
    assert room.limit == RESERVE


def test_what_the_wal_still_has_to_bring_into_the_file_is_counted(tmp_path: Path, disk: SimpleNamespace) -> None:
    disk.f_bavail = GB
    path = tmp_path / "journal.db"
    path.write_bytes(b"")
    room = Room(path, 20 * GB)
    assert room.look(Told(GB // 2, 0).db) == GB // 2
    assert room.limit == GB - RESERVE


def test_of_a_small_disk_a_quarter_is_left(tmp_path: Path, disk: SimpleNamespace) -> None:
    disk.f_blocks, disk.f_bavail = 40 * MB, 20 * MB
    assert look(tmp_path, GB, 15 * MB)[0].limit == 25 * MB


def copies(folder: Path, used: int, free: int = SPARE + 16 * MB) -> int:
    room, told = look(folder, GB, used, free)
    assert room.give_back(told.db) == bool(told.copies)
    return told.copies


def test_free_space_is_given_back_only_where_the_copy_has_room(tmp_path: Path, disk: SimpleNamespace) -> None:
    assert copies(tmp_path, 16 * MB)
    disk.f_bavail = RESERVE
    assert not copies(tmp_path, 16 * MB)


@pytest.mark.usefixtures("disk")
def test_free_space_is_given_back_only_where_little_is_to_be_copied(tmp_path: Path) -> None:
    """Nothing becomes durable meanwhile, however large `keep` is."""
    assert copies(tmp_path, COPIED, 16 * COPIED)
    assert not copies(tmp_path, COPIED + file.PAGE, 16 * COPIED)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), MemoryError()])
def test_free_space_that_cannot_be_given_back_is_said_once_and_left_for_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    room, _ = look(tmp_path, GB, 16 * MB, SPARE + 16 * MB)
    told = Told(16 * MB, SPARE + 16 * MB, error)
    for _ in range(3):
        assert not room.give_back(told.db)
    assert told.copies == 1
    assert capsys.readouterr().out.count("could not be given back") == 1
    monkeypatch.setattr(rooms, "REST", 0.0)
    room._rest_until = 0.0
    room.give_back(told.db)
    assert told.copies == 2


@pytest.mark.usefixtures("disk")
def test_a_damaged_file_is_not_taken_for_one_without_room(tmp_path: Path) -> None:
    room, _ = look(tmp_path, GB, 16 * MB, SPARE + 16 * MB)
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        room.give_back(Told(16 * MB, SPARE + 16 * MB, sqlite3.DatabaseError("malformed")))  # type: ignore[arg-type]


class Refusing:
    """A connection that cannot copy the file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement == "VACUUM":
            raise sqlite3.OperationalError("database or disk is full")
        return self._db.execute(statement, *parameters)


@pytest.mark.parametrize("refuses", [False, True])
async def test_after_an_outage_sources_go_on_whether_or_not_the_file_becomes_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refuses: bool
) -> None:
    """It was full; the sink is back and has had everything."""
    monkeypatch.setattr(rooms, "SPARE", 200_000)
    monkeypatch.setattr(writing, "WAL_BYTES", 200_000)
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.0)
    path = tmp_path / "journal.db"
    journal = await SqliteJournal.open(path, 4_000_000)
    if refuses:
        journal._writer.db = Refusing(journal._writer.db)  # type: ignore[assignment]
    sink = await journal.reader("sink")
    large, small = (Batch.of("plc", BEGIN, [Sample("press/text", BEGIN, "x" * size)]) for size in (150_000, 1))
    last = (await asyncio.gather(*(journal.append(large) for _ in range(40))))[-1]
    async with asyncio.timeout(60):
        while not journal._writer.full or path.stat().st_size < 3_000_000:
            await asyncio.sleep(0.01)
        waiting = journal.append(small)
        await sink.commit(last)
        await sink.commit(await waiting)
        while journal._writer.full or not (refuses or path.stat().st_size < 1_000_000):
            await asyncio.sleep(0.01)
    await journal.close()


def test_a_disk_that_nobody_knows_leaves_it_its_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object) -> None:
        raise OSError("no such call")

    monkeypatch.setattr(os, "statvfs", unknown)
    assert look(tmp_path, 20 * GB, 5 * GB)[0].limit == 20 * GB
