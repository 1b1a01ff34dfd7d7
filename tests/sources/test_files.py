"""The files source over real folders: other programs write, files vanish, rights are missing, the process is killed."""

import asyncio
import csv
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import duckdb
import pytest

from shopfloor.journal import SqliteJournal, balances
from shopfloor.pipeline import Pipeline
from shopfloor.samples import Batch, Command, Quality, Sample, Unavailable
from shopfloor.sources import files_folder, files_text
from shopfloor.sources.files import FilesConfig, FilesSource
from shopfloor.sources.files_folder import Found
from shopfloor.testing.contracts import SourceContract, SourceRig, until

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "10"))
BEGIN = 1_767_592_800 * 10**9
"""2026-01-05T06:00:00Z"""


def config(folder: Path, **options: object) -> FilesConfig:
    fields: dict[str, object] = {
        "name": "cmm", "type": "files", "folder": folder, "time": "time", "tag": "{column}", "poll": "10 ms",
        "settle": "0 s",
    }  # fmt: skip
    return FilesConfig.model_validate({**fields, **options})


def drop(folder: Path, name: str, text: str | bytes) -> Path:
    """Put a file there as careful writers do: under another name, then renamed."""
    hidden = folder / f".{name}"
    hidden.write_bytes(text.encode() if isinstance(text, str) else text)
    return hidden.rename(folder / name)


def table(first: int, number: int) -> str:
    rows = (f"{(BEGIN // 10**9 + i) * 1000},{i}" for i in range(first, first + number))
    return "time,x\n" + "\n".join(rows) + "\n"


async def read(source: FilesSource, number: int, within: float = 60) -> list[Sample]:
    """This many samples, each batch acknowledged, and what else comes until it looks for files again."""
    found: list[Sample] = []
    async with aclosing(source.batches()) as batches, asyncio.timeout(within):
        while (batch := await _next(source, batches, 1 if len(found) >= number else 10**9)) is not None:
            found += batch
    return found


async def _next(source: FilesSource, batches: AsyncGenerator[Batch], looks: int) -> Batch | None:
    """The next batch, or None when there was none although the source looked so often."""
    looked = 0
    look = source._folder.settled

    def counted() -> list[Found]:
        nonlocal looked
        looked += 1
        return look()

    with patch.object(source._folder, "settled", counted):
        following = asyncio.ensure_future(anext(batches))
        try:
            while not following.done() and looked <= looks:
                await asyncio.sleep(0.005)
            return await following if following.done() else None
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


class FilesRig(SourceRig):
    def __init__(self, folder: Path) -> None:
        super().__init__(config(folder).build())
        self.folder = folder
        self.number = 0

    async def change(self) -> None:
        self.number += 1
        if self.folder.exists():
            drop(self.folder, f"{self.number}.csv", table(self.number, 1))

    async def lose(self) -> None:
        self.folder.rename(self.folder.with_name("away"))

    async def restore(self) -> None:
        self.folder.with_name("away").rename(self.folder)


class TestFilesContract(SourceContract):
    redelivers = True

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:
        (folder / "inbox").mkdir()
        yield FilesRig(folder / "inbox")


# ---- files of other programs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", ["DELIMITER ','", "DELIMITER ';'", "DELIMITER '\t'", "DELIMITER '|', QUOTE '\"', FORCE_QUOTE *"]
)
async def test_a_table_of_duckdb_is_read_as_it_was_written(options: str, tmp_path: Path) -> None:
    """An independent writer: quotes, line feeds and delimiters in text, times to the microsecond, empty cells."""
    texts = ["plain", "semi;colon, and comma", 'a "quoted" one', "two\nlines", "tab\there|", "ü°µ 漢"]
    rows = [(i, texts[i % 6], None if i % 5 == 0 else i / 7) for i in range(5000)]
    source = config(tmp_path, columns=[{"column": "text", "data_type": "text"}, {"column": "x"}]).build()
    with duckdb.connect() as base:
        base.execute("CREATE TABLE t (time TIMESTAMP, text VARCHAR, x DOUBLE)")
        base.executemany(
            "INSERT INTO t VALUES (make_timestamp(?), ?, ?)", [(BEGIN // 1000 + i, t, x) for i, t, x in rows]
        )
        await asyncio.to_thread(base.execute, f"COPY t TO '{tmp_path}/.t' (HEADER, {options})")
    (tmp_path / ".t").rename(tmp_path / "t.csv")
    wanted = [
        (name, BEGIN + i * 1000, value)
        for i, text, x in rows
        for name, value in (("text", text), ("x", x))
        if value is not None
    ]
    async with source:
        found = await read(source, len(wanted))
    assert [(s.tag, s.time, s.value) for s in found] == wanted


async def test_json_lines_of_duckdb_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Objects in objects become paths, integers stay exact, text stays text."""
    options = {"format": "jsonl", "tag": "{machine}/{column}"}
    with duckdb.connect() as base:
        base.execute(
            f"""COPY (SELECT make_timestamp({BEGIN // 1000} + i) AS time, 'm-' || i % 3 AS machine, i % 2 = 0 AS "on",
                9223372036854775000 + i AS n, '007' AS serial, {{'pv': i / 4, 'cv': NULL}} AS data
                FROM range(100) r(i)) TO '{tmp_path}/.t' (FORMAT json)"""
        )
    (tmp_path / ".t").rename(tmp_path / "t.jsonl")
    source = config(tmp_path, **options).build()
    async with source:
        found = await read(source, 400)
    assert [(s.tag, s.time, s.value) for s in found[:8]] == [
        ("m-0/on", BEGIN, True), ("m-0/n", BEGIN, 9223372036854775000), ("m-0/serial", BEGIN, "007"),
        ("m-0/data.pv", BEGIN, 0.0), ("m-1/on", BEGIN + 1000, False), ("m-1/n", BEGIN + 1000, 9223372036854775001),
        ("m-1/serial", BEGIN + 1000, "007"), ("m-1/data.pv", BEGIN + 1000, 0.25),
    ]  # fmt: skip
    assert len(found) == 400


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_encodings_are_told_by_their_bytes(codec: str, end: str, tmp_path: Path) -> None:
    """A German Excel: byte order mark or Windows-1252, semicolons, decimal comma, a character whose half is 0x0A."""
    extra = "Ċਊ" if codec != "cp1252" else "ß"
    lines = ["Maschine;Datum;Uhrzeit;Länge [mm];Bemerkung", *(
        f"KMG-{i % 2};05.01.2026;07:00:{i:02};{i},5;Größe {extra} {i}" for i in range(60))]  # fmt: skip
    drop(tmp_path, "a.CSV", end.join(lines).encode(codec))
    source = config(
        tmp_path, time=["Datum", "Uhrzeit"], time_format="%d.%m.%Y %H:%M:%S", timezone="Europe/Berlin", decimal=",",
        tag="{Maschine}/{column}",
        columns=[{"column": "Länge [mm]", "tag": "{Maschine}/length"}, {"column": "Bemerkung"}],
    ).build()  # fmt: skip
    async with source:
        found = await read(source, 120)
    assert [(s.tag, s.time, s.value, s.quality) for s in found] == [
        one
        for i in range(60)
        for one in (
            (f"KMG-{i % 2}/length", BEGIN + i * 10**9, i + 0.5, Quality.GOOD),
            (f"KMG-{i % 2}/Bemerkung", BEGIN + i * 10**9, f"Größe {extra} {i}", Quality.GOOD),
        )
    ]


async def test_rows_without_a_time_have_that_of_the_file(tmp_path: Path) -> None:
    path = drop(tmp_path, "press-7.csv", "1;2\n3;4\n")
    os.utime(path, ns=(BEGIN, BEGIN))
    source = config(tmp_path, time=[], tag="{file}/{column}", header=["a", "b"]).build()
    async with source:
        found = await read(source, 4)
    assert [(s.tag, s.time, s.value) for s in found] == [
        ("press-7/a", BEGIN, 1), ("press-7/b", BEGIN, 2), ("press-7/a", BEGIN, 3), ("press-7/b", BEGIN, 4),
    ]  # fmt: skip


# ---- complete or not --------------------------------------------------------------------------------------


async def test_a_file_that_is_written_slowly_is_read_once_and_whole(tmp_path: Path) -> None:
    """Another process writes half a row, pauses for almost as long as ``settle``, writes on: nothing is read early.

    The folder's clock stands still but for what the test adds: a slow machine must not make the writer's pauses longer.
    """
    clock, looks, path = SimpleNamespace(now=0.0), count(), tmp_path / "slow.csv"
    source = config(tmp_path, settle="1 s").build()
    look, looked = source._folder.settled, -1

    def counted() -> list[Found]:
        nonlocal looked
        looked = next(looks)
        return look()

    async def let_it_look() -> None:
        enough = looked + 2
        await until(lambda: looked >= enough, "the source looked through its folder")

    with path.open("wb") as file:
        writer = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=file)
    assert writer.stdin is not None
    with (
        patch.object(files_folder, "time", SimpleNamespace(monotonic=lambda: clock.now)),
        patch.object(source._folder, "settled", counted),
    ):
        async with source, aclosing(source.batches()) as batches, asyncio.timeout(60):
            following, written = asyncio.ensure_future(anext(batches)), 0
            for part in (b"time,x\n1767592800000,1", b"2\n1767592801000,", b"34"):
                writer.stdin.write(part)
                written += len(part)
                await until(lambda: path.stat().st_size == written, "the writer wrote its part")  # noqa: B023  # at once
                await let_it_look()
                clock.now += 0.9
                await let_it_look()
                assert not following.done()
            clock.now += 0.1
            assert [*(await following).values] == [12, 34]
            assert path.exists(), "not acknowledged yet"
            following = asyncio.ensure_future(anext(batches))
            await until(lambda: not path.exists(), "it was moved away")
            await let_it_look()
            assert not following.done()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    writer.stdin.close()
    assert await writer.wait() == 0


async def test_a_file_that_grows_after_it_was_read_is_gone_on_with(tmp_path: Path) -> None:
    """A writer that pauses for longer than ``settle``: what was read stays, the rest follows, no half row."""
    path = drop(tmp_path, "a.csv", table(0, 2500))
    source = config(tmp_path, settle="50 ms").build()
    async with source, aclosing(source.batches()) as batches, asyncio.timeout(60):
        found = [*await anext(batches)]
        with path.open("a") as file:
            file.write(f"{BEGIN // 10**6 + 2_500_000},25")
        found += await anext(batches)
        with path.open("a") as file:
            file.write("00\n")
        while len(found) < 2501:
            found += await anext(batches)
    assert [s.value for s in found] == list(range(2501))


async def test_what_a_pattern_or_a_dot_leaves_out_stays(tmp_path: Path) -> None:
    for name in (".hidden.csv", "~$open.csv", "a.tmp", "b.csv.done"):
        (tmp_path / name).write_text(table(0, 1))
    (tmp_path / "folder.csv").mkdir()
    drop(tmp_path, "b.csv", table(7, 1))
    source = config(tmp_path, done="rename", files="*").build()
    drop(tmp_path, "c.csv", table(8, 1))
    (tmp_path / "a.tmp").unlink()
    async with source:
        assert [s.value for s in await read(source, 2)] == [7, 8]
        await _polled(source)
    assert {path.name for path in tmp_path.iterdir()} == {
        ".hidden.csv", "~$open.csv", "b.csv.done", "b.csv-2.done", "c.csv.done", "folder.csv",
    }  # fmt: skip


async def _polled(source: FilesSource) -> None:
    """Let it look through its folder with nothing new in it."""
    async with aclosing(source.batches()) as batches:
        assert await _next(source, batches, 3) is None


async def test_files_of_one_name_are_all_read_and_all_kept(tmp_path: Path) -> None:
    source = config(tmp_path).build()
    async with source:
        for i in range(3):
            drop(tmp_path, "same.csv", table(i, 1))
            assert [s.value for s in await read(source, 1)] == [i]
            await _polled(source)
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == ["same-2.csv", "same-3.csv", "same.csv"]


# ---- bad rows and bad files -------------------------------------------------------------------------------

ROWS = """time,x,y
2026-01-05T06:00:00Z,1,a
2026-01-05T06:00:01Z,2
yesterday,3,b
2026-01-05T06:00:02Z,"open,c
2026-01-05T06:00:03Z,5,d
1826-01-05T06:00:03Z,6,e
2026-01-05T06:00:04Z,six,f
2026-01-05T06:00:05Z,"7","two
lines"
2026-01-05T06:00:06Z,"8,5",g
"""
REASONS = {
    3: "has 2 columns, the header has 3", 4: "its time 'yesterday' is not as expected", 5: "its quotes",
    7: "its time is in the year 1826", 8: "in column 'x' 'six': it is no float", 11: 'set `decimal: ","`',
}  # fmt: skip


async def test_bad_rows_go_to_a_file_with_line_and_reason_and_the_good_ones_go_on(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.csv", ROWS.encode() + b"2026-01-05T06:00:07Z,\x81,h\n2026-01-05T06:00:08Z,9,i")
    source = config(tmp_path, columns=[{"column": "x", "data_type": "float"}, {"column": "y"}]).build()
    async with source:
        found = await read(source, 9)
        await _polled(source)
    assert not path.exists()
    values = [(s.tag, s.value) for s in found]
    assert values == [
        ("x", 1.0), ("y", "a"), ("x", 5.0), ("y", "d"), ("x", 7.0), ("y", "two\nlines"), ("x", 9.0), ("y", "i"),
        ("$source/cmm/bad_rows", 7),
    ]  # fmt: skip
    (rejects,) = (tmp_path / "failed").iterdir()
    with rejects.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["line", "reason", "row"]
    assert [int(row[0]) for row in rows[1:]] == [*REASONS, 12]
    for line, reason, row in rows[1:-1]:
        assert reason.startswith(REASONS[int(line)]) or REASONS[int(line)] in reason
        assert row == ROWS.splitlines()[int(line) - 1]
    assert "set `encoding`" in rows[-1][1]


async def test_a_rejected_row_is_written_down_once_however_often_its_batch_comes_again(tmp_path: Path) -> None:
    drop(tmp_path, "a.csv", "time,x\n1767592800000,1\nbad,2\n1767592801000,3\n")
    for _ in range(3):
        source = config(tmp_path).build()
        async with source, aclosing(source.batches()) as batches:
            assert len(await asyncio.wait_for(anext(batches), 60)) == 3
    (rejects,) = (tmp_path / "failed").iterdir()
    assert [row.split(",")[0] for row in rejects.read_text().splitlines()] == ["line", "3"]


BAD = {
    "excel": (b"PK\x03\x04....", "save it as CSV"),
    "binary": (b"a,b\0c\n", "is not text"),
    "utf16": ("time;x\n1;2\n".encode("utf-16-le"), "set `encoding: utf-16-le`"),
    "empty": (b"", "is empty"),
    "blank": (b"\n\n", "begins with a blank line where the names of its columns should be"),
    "cr": (b"time;x\r1;2\r", "end them by LF"),
    "damaged": (b"time;x\0y;z\n" + b"1;2;3\n" * 9, "(line 1 has zero bytes"),
    "delimiter": (b"time:x\n1:2\n", "its columns are: time:x; set `delimiter`"),
    "other": (b"when;x\n1;2\n", "has no column 'time'; its columns are: when, x"),
    "twice": (b"time,x,x\n1,2,3\n", "has two columns called 'x'"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_file_that_cannot_be_read_goes_aside_with_the_reason_and_costs_no_other(
    kind: str, tmp_path: Path
) -> None:
    content, reason = BAD[kind]
    drop(tmp_path, "bad.csv", content)
    drop(tmp_path, "good.csv", table(1, 1))
    source = config(tmp_path).build()
    async with source:
        assert [s.value for s in await read(source, 1)] == [1]
        await _polled(source)
    assert (tmp_path / "failed" / "bad.csv").read_bytes() == content
    assert reason in (tmp_path / "failed" / "bad.csv.reason.txt").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done", "failed"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that also an ordinary user reaches."""
    folder = Path(tempfile.mkdtemp(prefix="shopfloor-files-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


async def test_a_file_that_may_not_be_read_or_moved_is_tried_again_and_costs_no_other(open_folder: Path) -> None:
    """Rights are given later: then it is read, once."""
    root = os.geteuid() == 0
    secret = drop(open_folder, "1.csv", table(1, 1))
    secret.chmod(0)
    drop(open_folder, "2.csv", table(2, 1)).chmod(0o666)
    source = config(open_folder).build()
    try:
        if root:
            os.seteuid(65534)
        async with source:
            assert [s.value for s in await read(source, 1)] == [2]
            await _polled(source)
            if root:
                os.seteuid(0)
            secret.chmod(0o644)
            open_folder.chmod(0o555)
            if root:
                os.seteuid(65534)
            assert [s.value for s in await read(source, 1)] == [1]
            await _polled(source)  # read, but it may not be moved
            assert secret.exists()
            if root:
                os.seteuid(0)
            open_folder.chmod(0o777)
            if root:
                os.seteuid(65534)
            await _polled(source)
            assert not secret.exists()
    finally:
        if root:
            os.seteuid(0)


async def test_a_file_that_vanishes_in_the_middle_costs_no_other(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.csv", table(0, 3000))
    os.utime(path, (1, 1))
    drop(tmp_path, "b.csv", table(5000, 1))
    source = config(tmp_path).build()
    async with source, aclosing(source.batches()) as batches, asyncio.timeout(60):
        assert [s.value for s in await anext(batches)] == list(range(1000))
        path.unlink()
        assert [s.value for s in await anext(batches)] == [5000]


async def test_a_file_that_is_replaced_in_the_middle_is_read_from_its_beginning(tmp_path: Path) -> None:
    drop(tmp_path, "a.csv", table(0, 3000))
    source = config(tmp_path).build()
    async with source, aclosing(source.batches()) as batches, asyncio.timeout(60):
        assert [s.value for s in await anext(batches)] == list(range(1000))
        drop(tmp_path, "a.csv", table(7000, 2))
        assert [s.value for s in await anext(batches)] == [7000, 7001]


async def test_it_cannot_be_written_to(tmp_path: Path) -> None:
    outcome = await config(tmp_path).build().execute(Command("c", "x", 1, "test", 2**62))
    assert (outcome.done, outcome.detail) == (False, "this source cannot be written to")


@pytest.mark.parametrize(("make", "text"), [("nothing", "make it, or mount"), ("file", "is no folder")])
async def test_a_folder_that_is_none_says_what_to_do(make: str, text: str, tmp_path: Path) -> None:
    if make == "file":
        (tmp_path / "inbox").write_text("")
    with pytest.raises(Unavailable, match=text):
        await config(tmp_path / "inbox").build().__aenter__()


# ---- restart ----------------------------------------------------------------------------------------------


async def test_a_restart_goes_on_behind_the_last_durable_row(tmp_path: Path) -> None:
    """With a new object each batch, as after a crash: every row once, whatever was moved or not."""
    drop(tmp_path, "a.csv", table(0, 3500))
    drop(tmp_path, "b.csv", table(3500, 1))
    found: list[object] = []
    checkpoint = b"[]"
    while len(found) < 3501:
        source = config(tmp_path).build()
        source.resume(checkpoint)
        async with source, aclosing(source.batches()) as batches:
            batch = await asyncio.wait_for(anext(batches), 60)
            assert batch.checkpoint is not None
            checkpoint = batch.checkpoint
            found += batch.values
    assert sorted(found) == list(range(3501))  # type: ignore[type-var]  # they are numbers
    source = config(tmp_path).build()
    source.resume(checkpoint)
    async with source:
        await _polled(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done"]


async def test_a_share_that_is_away_for_a_while_brings_its_files_back_as_they_were(tmp_path: Path) -> None:
    """Only a part of a file was read when its folder was empty (a mount point without its share)."""
    inbox, away = tmp_path / "inbox", tmp_path / "away"
    inbox.mkdir()
    path = drop(inbox, "a.csv", table(0, 1500))
    source = config(inbox).build()
    async with source, aclosing(source.batches()) as batches, asyncio.timeout(60):
        found = [*(await anext(batches)).values]
        checkpoint = b""
        path.rename(away)
        drop(inbox, "b.csv", table(9000, 1))
        batch = await anext(batches)
        assert list(batch.values) == [9000]
        checkpoint = batch.checkpoint or b""
    source = config(inbox).build()
    source.resume(checkpoint)
    away.rename(path)
    async with source:
        found += [s.value for s in await read(source, 500)]
    assert found == list(range(1500))


async def test_a_huge_file_is_read_in_bounded_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is larger than its bound, and no more of the file is read than a piece and its look-ahead."""
    number = 200_000
    drop(tmp_path, "a.csv", table(0, number))
    pieces: list[int] = []
    original = files_text.piece

    def counted(*words: object) -> files_text.Piece:
        found = original(*words)  # type: ignore[arg-type]  # passed on as they came
        pieces.append(len(found.records))
        return found

    monkeypatch.setattr("shopfloor.sources.files.piece", counted)
    source = config(tmp_path).build()
    total = 0
    async with source, aclosing(source.batches()) as batches, asyncio.timeout(100):
        while total < number:
            total += len(await anext(batches))
    assert total == number
    assert max(pieces) == 1000
    wide = ",".join(f"c{i}" for i in range(2000))
    (tmp_path / "wide").mkdir()
    source = config(tmp_path / "wide").build()
    drop(
        tmp_path / "wide", "b.csv", "time," + wide + "\n" + "".join(f"{i},{wide}\n" for i in range(10**9, 10**9 + 100))
    )
    async with source, aclosing(source.batches()) as batches, asyncio.timeout(60):
        assert len(await anext(batches)) == 18_000


def _journalled(batches: list[Batch]) -> Counter[object]:
    return Counter(s.value for batch in batches for s in batch if s.tag == "x")


@pytest.mark.timeout(300)
async def test_kill_9_takes_every_row_into_the_journal_exactly_once(  # noqa: PLR0915  # one story
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again in the middle of files, between them, while they are moved."""
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("files_victim")
    chosen = random.Random(5)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["files_victim"])
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    plant = victim.described(tmp_path)
    journal = await SqliteJournal.open(plant.journal.path)
    await journal.reader("keeps everything for this test")
    await journal.close()
    said = lives_with_data = 0

    async def write() -> None:
        nonlocal said
        for number in count():
            if ended.is_set():
                return  # not cancelled: a file that is being written is counted, too
            size = chosen.choice((1, 10, 1000, 3000, 20_000))
            await asyncio.to_thread(drop, inbox, f"{number % 7}-{number}.csv", table(said, size))
            said += size
            await asyncio.sleep(0.1)
            await until(lambda: ended.is_set() or len(list(inbox.glob("*.csv"))) < 20, "what is there is read", 300)

    def done() -> int:
        return len(list(inbox.glob("done/*")))

    ended = asyncio.Event()
    writing = asyncio.create_task(write())
    try:
        for life in range(KILLS):
            before = done()
            process = forks.Process(target=victim.live, args=(str(tmp_path),), daemon=True)
            await asyncio.to_thread(process.start)
            # Every third life ends at any moment of the start, the others some time after the first file.
            if life % 3:
                await until(lambda: done() > before, "a file is done", 120)  # noqa: B023  # done by then
            await asyncio.sleep(chosen.uniform(0.0, 0.4))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.join)
            lives_with_data += done() > before
    finally:
        ended.set()
        await writing
    assert lives_with_data > KILLS / 3, "the test must have killed processes that were at work"
    async with Pipeline(plant) as pipeline:
        await until(lambda: not list(inbox.glob("*.csv")), "every file is done", 120)
        assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
    journal = await SqliteJournal.open(plant.journal.path)
    reader = await journal.reader("keeps everything for this test")
    found: Counter[object] = Counter()
    while len(found) < said:
        async with asyncio.timeout(60):
            found += _journalled([entry.batch for entry in await reader.read() if entry.batch is not None])
    await journal.close()
    assert set(found) == set(range(said))
    assert set(found.values()) == {1}
