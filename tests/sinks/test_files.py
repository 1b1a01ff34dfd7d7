"""The files sink: what it writes is read by DuckDB and pyarrow, and it is killed, filled up and pulled away."""

import asyncio
import csv
import gzip
import io
import os
import resource
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from shopfloor import plant
from shopfloor.pipeline.probe import probe
from shopfloor.samples import Batch, Misconfigured, Sample, Unavailable, Value
from shopfloor.sinks import files, files_spool, files_writing
from shopfloor.sinks.files import FilesSink, FilesSinkConfig
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.testing.clocks import instant
from shopfloor.testing.contracts import SinkContract, SinkRig, until
from tests.sinks.killing import fill, kill_and_finish

NOW = instant("2026-01-05T06:00:00Z") + 123_456_789
SECOND = 10**9
DAY = 86_400 * SECOND


@pytest.fixture(autouse=True)
def _long_fields() -> Iterator[None]:
    """Python's own limit is lower than the longest text of the contract; it is the process's, so it is put back."""
    before = csv.field_size_limit(2**24)
    yield
    csv.field_size_limit(before)


def config(folder: Path, **options: object) -> FilesSinkConfig:
    return FilesSinkConfig.model_validate({"name": "out", "type": "files", "folder": folder, **options})


def batch(*samples: Sample) -> Batch:
    return Batch.of("press", NOW, samples)


def parquet(folder: Path) -> list[Sample]:
    """Every sample of the Parquet files, in the order of their names and of the rows."""
    found: list[Sample] = []
    for path in sorted(folder.glob("**/*.parquet"), key=lambda path: int(path.stem.split("-")[-1])):
        rows = pq.read_table(path, partitioning=None).cast(PLAIN).to_pylist()
        found += [Sample(row["tag"], row["time"], value_of(row), row["quality"], row["status"]) for row in rows]
    return found


PLAIN = files_writing.SCHEMA.set(0, files_writing.SCHEMA.field(0).with_type(pa.int64())).set(
    12, files_writing.SCHEMA.field(12).with_type(pa.int64())
)
"""Python's datetime has no nanoseconds."""


def value_of(row: dict[str, Value]) -> Value:
    """A reader's understanding of the documented columns."""
    match row["type"]:
        case "bool":
            return row["value"] == 1
        case "int":
            return row["integer"] if row["integer"] is not None else row["unsigned"]
        case "float":
            return row["value"]
        case "text":
            return row["text"]
        case "bytes":
            return row["binary"]
        case _:
            return None


def comma_separated(folder: Path) -> list[Sample]:
    """Every sample of the CSV files."""
    found: list[Sample] = []
    for path in sorted(folder.glob("**/*.csv*"), key=lambda path: int(path.name.split(".")[0].split("-")[-1])):
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
        for row in csv.DictReader(io.StringIO(text, newline="")):
            seconds, _, digits = row["time"].removesuffix("Z").partition(".")
            time = instant(seconds + "Z") + int(digits)
            found.append(Sample(row["tag"], time, said(row["type"], row["value"]), int(row["quality"])))
    return found


def said(kind: str, text: str) -> Value:
    values: dict[str, Value] = {"none": None, "text": text, "bool": text == "true"}
    if kind in values:
        return values[kind]
    return int(text) if kind == "int" else float(text) if kind == "float" else bytes.fromhex(text)


class FilesRig(SinkRig):
    def __init__(self, folder: Path, form: str) -> None:
        self.connected = config(folder / "share" / "out", format=form).build()
        super().__init__(self.connected)
        self.folder = folder
        self.read = parquet if form == "parquet" else comma_separated
        (folder / "share").mkdir()

    async def content(self) -> Sequence[Sample]:
        await self.connected.finish()  # what waits is put into files now, so that there is something to read
        return self.read(self.folder / "share" / "out")

    async def lose(self) -> None:
        (self.folder / "share").rename(self.folder / "away")

    async def restore(self) -> None:
        (self.folder / "away").rename(self.folder / "share")

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return batch(Sample("a/x", NOW, 1.0), Sample("a/y", NOW, "\ud800"), Sample("a/z\udfff", NOW, 2)), {1, 2}


class TestParquet(SinkContract):
    exactly_once = True
    form = "parquet"

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "LOOK_EVERY", 0.05)

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        yield FilesRig(folder, self.form)


class TestCsv(TestParquet):
    form = "csv"


# ---- what the files are ----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


def series(first: int, length: int, tag: str = "press-1/PV") -> Batch:
    return batch(*(Sample(tag, NOW + (first + i) * SECOND, (first + i) / 2) for i in range(length)))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith("."))


async def test_duckdb_reads_them(tmp_path: Path) -> None:
    """As the page says it; the days are a column without being stored."""
    text = f"""
        plant: {{site: bremen, timezone: Europe/Berlin}}
        sources:
          - {{name: plc, type: modbus, host: 127.0.0.1, tags: [{{tag: press-1/PV, address: "30001", unit: bar}}]}}
        sinks:
          - {{name: lake, type: files, folder: {tmp_path}/lake}}
          - {{name: sheet, type: files, folder: {tmp_path}/sheet, format: csv, compression: gzip, partition: none}}
    """
    offered = batch(
        Sample("press-1/PV", NOW, 41.5), Sample("press-1/PV", NOW + DAY, 43, 64), Sample("press-1/State", NOW, 'a"b,\n')
    )  # fmt: skip
    for configured in plant.parse(text, "plant.yaml", Path()).sinks:
        sink = configured.build()
        assert isinstance(sink, FilesSink)
        async with sink:
            await sink.write(17, offered)
            await sink.finish()
    with duckdb.connect() as db:
        query = "FROM read_parquet(?, hive_partitioning=true) SELECT day::TEXT, tag, value, unit, quality ORDER BY 1, 2"
        assert db.execute(query, [f"{tmp_path}/lake/**/*.parquet"]).fetchall() == [
            ("2026-01-05", "press-1/PV", 41.5, "bar", 192),
            ("2026-01-05", "press-1/State", None, None, 192),
            ("2026-01-06", "press-1/PV", 43.0, "bar", 64),
        ]
        query = "FROM read_parquet(?) SELECT sum(epoch_ns(time)), max(source), max(integer), max(text)"
        whole = (3 * NOW + DAY, "press", 43, 'a"b,\n')
        assert db.execute(query, [f"{tmp_path}/lake/**/*.parquet"]).fetchone() == whole
        query = "FROM read_csv(?) SELECT tag, type, value, unit, quality, time ORDER BY ALL"
        rows = db.execute(query, [f"{tmp_path}/sheet/*.csv.gz"]).fetchall()
        assert [row[:5] for row in rows] == [
            ("press-1/PV", "float", "41.5", "bar", 192),
            ("press-1/PV", "int", "43", "bar", 64),
            ("press-1/State", "text", 'a"b,\n', None, 192),
        ]
        assert rows[0][5].isoformat().startswith("2026-01-05T06:00:00.123456")


async def test_a_day_is_one_of_the_sites_calendar_and_late_samples_go_to_theirs(tmp_path: Path) -> None:
    text = "plant: {site: x, timezone: Asia/Kolkata}\nsinks: [{name: out, type: files, folder: out, prefix: line-1}]"
    configured = plant.parse(text, "plant.yaml", tmp_path).sinks[0]
    assert isinstance(configured, FilesSinkConfig)
    midnight = instant("2026-01-05T18:30:00Z")
    async with configured.build() as sink:
        await sink.write(5, batch(Sample("a", midnight - 1, 1), Sample("a", midnight, 2)))
        await sink.write(9, batch(Sample("a", midnight - 2, 0)))
        await sink.finish()
        assert names(tmp_path / "out") == [
            "day=2026-01-05",
            "day=2026-01-05/line-1-5-9.parquet",
            "day=2026-01-06",
            "day=2026-01-06/line-1-5-9.parquet",
        ]
        assert [sample.value for sample in parquet(tmp_path / "out" / "day=2026-01-05")] == [1, 0]


async def test_a_file_is_closed_by_size_and_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY", 0.01)
    clock = Clock()
    configured = config(tmp_path / "out", rotate_size="10 kB", rotate_every="1 min", partition="none")
    async with FilesSink(configured, TagFacts(), clock) as sink:
        await sink.write(1, series(0, 10))
        assert names(tmp_path / "out") == []
        await sink.write_many([(2, series(10, 500)), (3, series(510, 10))])
        assert names(tmp_path / "out") == ["out-1-3.parquet"]
        await sink.write(4, series(520, 10))
    async with FilesSink(configured, TagFacts(), clock) as sink:
        clock.now += 61 * SECOND  # nothing comes, and its time is counted over a restart
        await until(lambda: len(names(tmp_path / "out")) == 2, "the second file")
        assert names(tmp_path / "out")[1] == "out-4-4.parquet"
        assert await sink.held() == 4
    assert [sample.value for sample in parquet(tmp_path / "out")] == [i / 2 for i in range(530)]


@pytest.mark.parametrize("form", ["parquet", "csv"])
async def test_years_in_one_file_are_written_with_few_files_open(
    form: Literal["parquet", "csv"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import: each day has its file, a bounded number is open at once, and a bounded number of rows waits."""
    monkeypatch.setattr(files_writing, "OPEN", 4)
    monkeypatch.setattr(files_writing, "WAITING", 10)
    folder = tmp_path / "out"
    offered = [batch(*(Sample("a", NOW + i % 30 * DAY + i, i) for i in range(at, at + 45))) for at in (0, 45)]
    kind: Any = files_writing._PARTS[form]
    opened, most = [0], [0, 0]
    finish, add = kind.finish, kind.add

    def made(*given: Any) -> Any:
        opened[0] += 1
        most[0] = max(most[0], opened[0])
        return kind(*given)

    def added(part: Any, *given: Any) -> None:
        add(part, *given)
        most[1] = max(most[1], part.waiting)

    def finished(part: Any) -> None:
        finish(part)
        opened[0] -= 1

    monkeypatch.setattr(kind, "add", added)
    monkeypatch.setattr(kind, "finish", finished)
    monkeypatch.setitem(files_writing._PARTS, form, made)
    async with config(folder, format=form).build() as sink:
        await sink.write_many([(1, offered[0]), (2, offered[1])])
        await sink.finish()
    assert most[0] == 4
    assert most[1] <= 10
    found = sorted((parquet if form == "parquet" else comma_separated)(folder), key=lambda one: one.time)
    assert found == sorted([*offered[0], *offered[1]], key=lambda one: one.time)
    assert [name for name in names(folder) if name.endswith(f"/out-1-2.{form}")] == names(folder)[1::2]
    assert len(names(folder)) == 2 * 30
    assert not list(folder.glob(".*.part"))


async def test_a_file_that_somebody_deletes_meanwhile_is_no_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    old = [folder / f"out-{i}-{i}.parquet" for i in range(3)]
    for path in old:
        path.write_bytes(b"")
        os.utime(path, ns=(NOW, NOW - 8 * DAY))
    listed = [(path, 1, 1) for path in old]
    monkeypatch.setattr(files_writing.Layout, "finished", lambda _: iter(listed))
    async with FilesSink(config(folder, keep="7 d"), TagFacts(), Clock()) as sink:
        old[1].unlink()
        await sink._run(sink._tidy, 60)
    assert names(folder) == []


async def test_a_write_waits_for_a_file_that_takes_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file has longer than an answer of the disk: neither who closes it nor who waits for it is cut off."""
    monkeypatch.setattr(files, "ANSWERS_WITHIN", 3.0)
    monkeypatch.setattr(files, "LOOK_EVERY", 3600)
    whole, free, begun = files_writing.write, threading.Event(), threading.Event()

    def slow(*given: Any) -> None:
        begun.set()
        assert free.wait(60)
        whole(*given)

    monkeypatch.setattr(files, "write", slow)
    async with config(tmp_path / "out", rotate_size="1 kB", partition="none").build() as sink:
        closing = asyncio.create_task(sink.write(1, series(0, 100)))
        await asyncio.to_thread(begun.wait, 60)
        waiting = asyncio.create_task(sink.write(2, series(100, 1)))
        done, _ = await asyncio.wait({closing, waiting}, timeout=3.2)
        assert not done
        free.set()
        await asyncio.gather(closing, waiting)
    assert names(tmp_path / "out") == ["out-1-1.parquet"]


async def test_old_files_are_deleted_and_others_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_EVERY", 0.01)
    folder = tmp_path / "out"
    (folder / "day=2025-01-01").mkdir(parents=True)
    (folder / "day=2025-01-02").mkdir()
    old = [folder / "day=2025-01-01/out-1-2.parquet", folder / "out-1-2.csv.gz"]
    kept = [folder / "day=2025-01-02/other-1-2.parquet", folder / "notes.txt", folder / "out-3-4.parquet"]
    for path in (*old, *kept):
        path.write_bytes(b"")
        os.utime(path, ns=(NOW, NOW - 8 * DAY) if path is not kept[2] else (NOW, NOW - 6 * DAY))
    clock = Clock()
    async with FilesSink(config(folder, keep="7 d"), TagFacts(), clock):
        await until(lambda: not any(path.exists() for path in old), "the old files are gone")
    assert names(folder) == ["day=2025-01-02", "day=2025-01-02/other-1-2.parquet", "notes.txt", "out-3-4.parquet"]


# ---- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["the second day", "the spool"])
async def test_a_file_that_was_cut_off_is_finished_by_the_next_start(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut between the files of two days, or before the spool knows; the format may be another one afterwards."""
    folder = tmp_path / "out"
    offered = batch(*(Sample("a", NOW + i * DAY // 2, i) for i in range(6)))

    class Cut(Exception):
        pass

    def cut(*_: object, **__: object) -> Path:
        raise Cut

    sink = config(folder).build()
    async with sink:
        await sink.write(3, offered)
        with monkeypatch.context() as patched:
            if step == "the spool":
                patched.setattr(files_spool.Spool, "finish", cut)
            else:
                renamed = Path.replace
                patched.setattr(Path, "replace", lambda a, b: renamed(a, b) if "01-05" in str(b) else cut())
                patched.setattr(Path, "unlink", cut)  # a killed process clears nothing up
            with pytest.raises(Cut):
                await sink.finish()
        await sink.write(4, batch(Sample("b", NOW, 99)))
    assert "day=2026-01-05/out-3-3.parquet" in names(folder)
    async with config(folder, format="csv").build() as sink:
        await sink.finish()
        assert await sink.held() == 4
    assert sorted(comma_separated(folder), key=lambda s: s.time) == sorted(
        [*offered, Sample("b", NOW, 99)], key=lambda s: (s.time, s.tag)
    )
    assert not list(folder.rglob("*.parquet"))
    assert not list(folder.rglob("*.part"))


async def fill_up(sink: FilesSink) -> None:
    for offset in range(1000):
        await sink.write(offset + 1, series(offset * 100, 100))


async def test_without_room_nothing_is_lost_or_cut(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; first the spool meets it, then a file."""
    folder = tmp_path / "out"
    configured = config(folder, partition="none", compression="none", format="csv", rotate_size="1 GB")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with configured.build() as sink:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with pytest.raises(Unavailable, match=r"(no room on the|the) disk of"):
                await fill_up(sink)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    async with configured.build() as sink:
        held = await sink.held()
        assert 1000 > held > 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(Unavailable, match=r"no room on the disk of .*: free some, or set or lower `keep`"):
                await sink.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert names(folder) == []
        await sink.finish()
    assert [sample.value for sample in comma_separated(folder)] == [i / 2 for i in range(held * 100)]


async def test_a_disk_that_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ANSWERS_WITHIN", 0.2)
    monkeypatch.setattr(files, "LEAVES_WITHIN", 0.2)
    hanging = threading.Event()
    monkeypatch.setattr(files_spool.Spool, "put", lambda *_: hanging.wait(60))
    try:
        async with config(tmp_path / "out").build() as sink:
            with pytest.raises(Unavailable, match=r"does not answer within 0\.2 s"):
                await sink.write(1, series(0, 1))
    finally:
        hanging.set()


async def test_two_do_not_write_the_same_files(tmp_path: Path) -> None:
    async with config(tmp_path / "out").build() as sink:
        with pytest.raises(Unavailable, match=r"another Shopfloor or sink writes these files.*its own `prefix`"):
            await config(tmp_path / "out").build().__aenter__()
        async with config(tmp_path / "out", prefix="other").build() as other:
            await other.write(1, series(0, 1))
        await sink.write(1, series(0, 1))


async def test_without_its_spool_the_names_of_the_files_tell_what_is_held(tmp_path: Path) -> None:
    async with config(tmp_path / "out").build() as sink:
        await sink.write(41, series(0, 10))
        await sink.finish()
    for path in (tmp_path / "out").glob(".out.spool*"):
        path.unlink()
    async with config(tmp_path / "out").build() as sink:
        assert await sink.held() == 41
        await sink.write(41, series(0, 10))
        await sink.finish()
    assert len(parquet(tmp_path / "out")) == 10


async def test_a_spool_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".out.spool").write_bytes(b"no database" * 1000)
    with pytest.raises(Misconfigured, match=r"cannot be read .*: move the hidden \.spool away"):
        await config(tmp_path / "out").build().__aenter__()


async def test_killed_while_it_writes_each_sample_is_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = await fill(tmp_path, "out", 60, 500)
    text = """
        plant: {site: bremen}
        sinks:
          - {name: out, type: files, folder: out, rotate_size: 1 kB}
        journal: {path: journal.db}
        console: null
    """
    folder = tmp_path / "out"
    folder.mkdir()
    seen: list[int] = []

    def progress() -> int:
        """How often the folder was seen to have changed."""
        with suppress(FileNotFoundError):  # gone between being listed and being looked at
            size = sum(path.stat().st_size for path in folder.rglob("*"))
            if not seen or seen[-1] != size:
                seen.append(size)
        return len(seen)

    await kill_and_finish(tmp_path, text, "out", progress, monkeypatch, most=4)
    async with config(folder).build() as sink:
        await sink.finish()
    assert parquet(folder) == filled


async def test_a_probe_says_what_is_wrong_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folders = [tmp_path / "out", tmp_path / "share" / "out", tmp_path / "file" / "out"]
    site = plant.parse("plant: {site: bremen}", "plant.yaml", Path())
    sinks = [config(folder, name=f"out-{i}") for i, folder in enumerate(folders)]
    probed = [one async for one in probe(site.model_copy(update={"sinks": sinks}))]
    assert [one.result for one in probed] == ["ok", "away", "misconfigured"]
    assert "make it, or mount the share that it is on" in probed[1].detail
    assert "is no folder" in probed[2].detail
    assert names(tmp_path) == ["file"]


def test_a_check_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(plant.PlantError, match=r"plant\.yaml:2: sinks\[0\]\.folder: .*file is no folder; name one"):
        plant.parse("plant: {site: x}\nsinks: [{name: a, type: files, folder: file}]", "plant.yaml", tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "csv", "compression": "snappy"}, "write gzip, zstd or none"),
        ({"format": "xlsx"}, "'parquet' or 'csv'"),
        ({"rotate_every": "0 s"}, "greater than or equal to"),
        ({"prefix": "a/b"}, "must be letters, digits"),
    ],
)
def test_what_is_wrong_in_the_plant_file_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(Path("out"), **options)
