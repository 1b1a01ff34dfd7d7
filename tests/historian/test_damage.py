"""Crashes, damaged files, full disks and forbidden folders: nothing acknowledged is lost, nobody deletes files."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.historian.database import CHECKPOINT
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.historian.segment import Segment
from shopfloor.samples import Batch, Misconfigured, Unavailable
from shopfloor.testing.clocks import SECOND
from tests.historian import child
from tests.historian.child import BEGIN, ROWS, entry

EVER = (-(2**63), 2**63 - 1)
LATER = BEGIN + 3 * 86_400 * SECOND


def store(folder: Path, generation: int = 600) -> DuckDbHistorian:
    return DuckDbHistorian(DuckDbConfig(path=folder / "h.duckdb"), generation)


async def offsets(historian: DuckDbHistorian) -> Counter[int]:
    """How many rows there are of each entry."""
    found: Counter[int] = Counter()
    for tag in await historian.tags():
        records = await historian.records(tag, *EVER, limit=10**7)
        found.update(offset for offset, _ in records)
        assert all(sample.value == float(offset) for offset, sample in records)
    return found


async def test_killed_at_any_moment_every_entry_is_there_exactly_once(tmp_path: Path) -> None:
    """A kill -9 while it writes, closes generations, compacts and merges; then again, on the same files."""
    chance = random.Random(7)
    for _ in range(5):
        process = subprocess.Popen(  # noqa: ASYNC220  # the test has nothing else to do
            [sys.executable, child.__file__, str(tmp_path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert process.stdout is not None
        acknowledged = -1
        for _ in range(chance.randint(1, 60)):
            line = process.stdout.readline()
            assert line, "the child ended by itself"
            acknowledged = int(line)
        await asyncio.sleep(chance.random() * 0.02)  # the moment is random; nothing waits for it
        process.kill()
        acknowledged = max([acknowledged, *(int(line) for line in process.stdout.read().split("\n")[:-1] if line)])
        process.wait()
        process.stdout.close()
        async with store(tmp_path) as historian:
            held = await historian.held()
            assert held >= acknowledged
            assert await offsets(historian) == Counter(dict.fromkeys(range(held + 1), ROWS))
            assert [s.time for s in await historian.latest()] == [
                BEGIN + held * SECOND + ROWS - 8 + i for i in range(8)
            ]


async def test_a_killed_historian_opens_again_with_little_to_read(tmp_path: Path) -> None:
    """What is to be replayed after a crash is bounded: the write-ahead log never grows far beyond its limit."""
    most = 0
    async with store(tmp_path, generation=2_000_000) as historian:
        wal = tmp_path / "h.duckdb.wal"
        for offset in range(60):
            times = [BEGIN + offset * SECOND + i for i in range(10_000)]
            await historian.write(offset, Batch("s", BEGIN, ["m/x"] * 10_000, times, [0.5] * 10_000))
            most = max(most, wal.stat().st_size if wal.exists() else 0)
        copy = tmp_path / "crashed"
        copy.mkdir()
        for file in tmp_path.glob("h.duckdb*"):
            (shutil.copytree if file.is_dir() else shutil.copy)(file, copy / file.name)
    assert CHECKPOINT == "4MB"
    assert most < 8 * 10**6
    async with store(copy) as historian:
        assert (await historian.size()).rows == 600_000


async def filled(folder: Path) -> None:
    """Entries 0 to 59: the first 45 in segments, the others only in the database."""
    async with store(folder, generation=10**6) as historian:
        for part in (range(15), range(15, 30), range(30, 45)):
            await historian.write_many([entry(offset) for offset in part])
            historian._database.turn()
            historian._compact_all()
        await historian.write_many([entry(offset) for offset in range(45, 60)])


def middle(content: bytearray) -> None:
    for i in range(4096, len(content), 512):
        content[i] ^= 0xA5


def head(content: bytearray) -> None:
    content[:64] = bytes(64)


def cut(content: bytearray) -> None:
    del content[len(content) // 2 :]


def emptied(content: bytearray) -> None:
    del content[1:]


@pytest.mark.parametrize("damage", [middle, head, cut, emptied])
async def test_a_damaged_database_is_moved_aside_and_the_journal_fills_the_new_one(
    tmp_path: Path, damage: Callable[[bytearray], None]
) -> None:
    """Segments stay; entries that are in them count once when the journal gives everything again."""
    await filled(tmp_path)
    file = tmp_path / "h.duckdb"
    content = bytearray(file.read_bytes())
    damage(content)
    file.write_bytes(content)
    historian = store(tmp_path)
    for _ in range(3):  # as the pipeline: leave when it fails, come back
        try:
            async with historian:
                held = await historian.held()
                await historian.write_many([entry(offset) for offset in range(max(held + 1, 20), 80)])
                await historian.compact(LATER)
                assert await offsets(historian) == Counter(dict.fromkeys(range(80), ROWS))
                assert await historian.held() == 79
                assert len(await historian.latest()) == 8
                break
        except Unavailable:
            continue
    else:
        pytest.fail("the historian did not come back")
    assert [path for path in tmp_path.glob("h.duckdb.damaged-*") if path.suffix != ".wal"]
    async with store(tmp_path) as historian:
        assert await offsets(historian) == Counter(dict.fromkeys(range(80), ROWS))


async def test_damage_anywhere_ends_with_every_entry_there_once(tmp_path: Path) -> None:
    """Wherever the file is damaged, found at opening or later: leaving and coming back makes everything whole."""
    whole = tmp_path / "whole"
    whole.mkdir()
    async with store(whole, generation=10**6) as historian:
        for part in (range(15), range(15, 30)):
            await historian.write_many([entry(offset) for offset in part])
            historian._database.turn()
            historian._compact_all()
        await historian.write_many([entry(offset) for offset in range(30, 300)])
    chance = random.Random(3)
    for number in range(8):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        content = bytearray((folder / "h.duckdb").read_bytes())
        place = chance.randrange(len(content))
        if number % 2:
            content[place : place + 4096] = bytes(len(content[place : place + 4096]))
        else:
            content[place] ^= 1 << chance.randrange(8)
        (folder / "h.duckdb").write_bytes(content)
        historian = store(folder, generation=10**6)
        for _ in range(3):
            try:
                async with historian:
                    held = await historian.held()
                    await historian.write_many([entry(offset) for offset in range(held + 1, 310)])
                    await historian.compact(LATER)
                    assert await offsets(historian) == Counter(dict.fromkeys(range(310), ROWS))
                    break
            except Unavailable:
                continue
        else:
            pytest.fail(f"the historian did not come back from damage at byte {place}")


async def test_a_damaged_write_ahead_log_does_not_stop_the_historian(tmp_path: Path) -> None:
    """Whether DuckDB reads it up to the damage or not at all, the journal makes everything whole again."""
    async with store(tmp_path, generation=10**6) as historian:
        await historian.write_many([entry(offset) for offset in range(30)])
        wal = tmp_path / "h.duckdb.wal"
        assert wal.exists()
        copies = tmp_path / "copies"
        for number in range(12):
            copy = copies / str(number)
            copy.mkdir(parents=True)
            for file in (tmp_path / "h.duckdb", wal):
                shutil.copy(file, copy / file.name)
    for number in range(12):
        file = copies / str(number) / "h.duckdb.wal"
        content = bytearray(file.read_bytes())
        place = len(content) * (number + 1) // 14
        if number % 2:
            del content[place:]
        else:
            content[place] ^= 0xFF
        file.write_bytes(content)
        async with store(copies / str(number)) as historian:
            held = await historian.held()
            await historian.write_many([entry(offset) for offset in range(held + 1, 30)])
            assert await offsets(historian) == Counter(dict.fromkeys(range(30), ROWS))


async def test_a_lost_database_is_put_together_from_its_segments(tmp_path: Path) -> None:
    """Someone deleted the file: the compressed past is still there, with the newest of each tag."""
    await filled(tmp_path)
    for file in tmp_path.glob("h.duckdb*"):
        if file.is_file():
            file.unlink()
    async with store(tmp_path) as historian:
        assert await offsets(historian) == Counter(dict.fromkeys(range(45), ROWS))
        assert [s.value for s in await historian.latest()] == [44.0] * 8
        await historian.write_many([entry(offset) for offset in range(60)])
        assert await offsets(historian) == Counter(dict.fromkeys(range(60), ROWS))


async def test_an_older_database_put_back_takes_up_newer_segments(tmp_path: Path) -> None:
    """A copy from before compaction holds rows that are in segments by now: they count once."""
    async with store(tmp_path, generation=10**6) as historian:
        await historian.write_many([entry(offset) for offset in range(15)])
    shutil.copy(tmp_path / "h.duckdb", tmp_path / "copy")
    async with store(tmp_path, generation=10**6) as historian:
        await historian.write_many([entry(offset) for offset in range(15, 30)])
        await historian.compact(LATER)
        await historian.write_many([entry(offset) for offset in range(30, 45)])
    shutil.move(tmp_path / "copy", tmp_path / "h.duckdb")
    async with store(tmp_path) as historian:
        await historian.write_many([entry(offset) for offset in range(await historian.held() + 1, 45)])
        assert await offsets(historian) == Counter(dict.fromkeys(range(45), ROWS))


async def test_a_flipped_byte_in_a_chunk_loses_that_chunk_alone(tmp_path: Path) -> None:
    """A query leaves it out and goes on; merging keeps all the rest."""
    await filled(tmp_path)
    path = min((tmp_path / "h.duckdb.segments").iterdir())
    segment = Segment(path)
    lost = next(segment.pieces(3, *EVER))
    segment.close()
    content = bytearray(path.read_bytes())
    content[lost.place + lost.size // 2] ^= 0x10
    path.write_bytes(content)
    async with store(tmp_path) as historian:
        for _ in range(2):
            found = await offsets(historian)
            assert sum(found.values()) == 60 * ROWS - lost.rows
            assert {found[offset] for offset in range(15, 60)} == {ROWS}
            await historian.compact(LATER)


@pytest.mark.parametrize("damage", [head, cut, emptied])
async def test_a_segment_that_cannot_be_read_is_moved_aside(
    tmp_path: Path, damage: Callable[[bytearray], None]
) -> None:
    await filled(tmp_path)
    path = sorted((tmp_path / "h.duckdb.segments").iterdir())[1]
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    async with store(tmp_path) as historian:
        expected = Counter(dict.fromkeys([*range(15), *range(30, 60)], ROWS))
        assert await offsets(historian) == expected
        await historian.compact(LATER)
        assert await offsets(historian) == expected
    assert path.with_name(path.name + ".damaged").exists()


async def test_a_segment_that_was_deleted_is_missed_and_the_rest_goes_on(tmp_path: Path) -> None:
    await filled(tmp_path)
    sorted((tmp_path / "h.duckdb.segments").iterdir())[1].unlink()
    async with store(tmp_path) as historian:
        assert await offsets(historian) == Counter(dict.fromkeys([*range(15), *range(30, 60)], ROWS))


async def test_what_a_crash_left_in_the_folder_is_cleared_away(tmp_path: Path) -> None:
    """Unfinished files go; strange files stay."""
    await filled(tmp_path)
    folder = tmp_path / "h.duckdb.segments"
    (folder / "0000000000000099-00000009-1.segment.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    async with store(tmp_path) as historian:
        assert await offsets(historian) == Counter(dict.fromkeys(range(60), ROWS))
    assert not list(folder.glob("*.part"))
    assert (folder / "notes.txt").exists()


async def test_a_second_process_is_told_that_the_file_is_in_use(tmp_path: Path) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220  # the test has nothing else to do
        [sys.executable, child.__file__, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(Unavailable, match="another process"):
            async with store(tmp_path):
                pass
    finally:
        process.kill()
        process.communicate()


async def test_a_path_that_cannot_be_a_file_is_misconfigured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "h.duckdb").mkdir(parents=True)
    for path in (tmp_path / "file" / "h.duckdb", tmp_path / "folder" / "h.duckdb"):
        with pytest.raises(Misconfigured, match="path"):
            async with DuckDbHistorian(DuckDbConfig(path=path)):
                pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
async def test_a_folder_that_may_not_be_written_is_misconfigured(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Misconfigured, match="chown"):
            async with store(tmp_path):
                pass
    finally:
        tmp_path.chmod(0o700)


async def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415  # only here

    with duckdb.connect(str(tmp_path / "h.duckdb")) as connection:
        connection.execute("CREATE TABLE precious (x INTEGER)")
    with pytest.raises(Misconfigured, match="something else"):
        async with store(tmp_path):
            pass


async def test_a_database_of_a_newer_shopfloor_is_left_alone(tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415  # only here

    await filled(tmp_path)
    with duckdb.connect(str(tmp_path / "h.duckdb")) as connection:
        connection.execute("UPDATE about SET format = 99")
    with pytest.raises(Misconfigured, match="newer Shopfloor"):
        async with store(tmp_path):
            pass
    assert not list(tmp_path.glob("*damaged*"))


async def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    """Files may not grow any more: every write says so, and what was acknowledged is there when there is room."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, child.__file__, str(tmp_path), "full"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("no room on the disk" in line for line in lines), lines
    acknowledged = max(int(line) for line in lines if line.isdigit())
    async with store(tmp_path) as historian:
        held = await historian.held()
        assert held >= acknowledged
        found = Counter(offset for offset, _ in await historian.records("m/x", *EVER, limit=10**7))
        assert found == Counter(dict.fromkeys(range(held + 1), 5000))
    assert not list(tmp_path.glob("*damaged*"))
