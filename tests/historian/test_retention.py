"""What is kept is bounded, on disk too, and what is dropped is dropped whole."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from shopfloor.historian.chunk import Damaged
from shopfloor.historian.compaction import DAY, HOUR, due, expired
from shopfloor.historian.database import Database
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.historian.errors import translated
from shopfloor.historian.segment import Segment, merged
from shopfloor.historian.tables import Stored
from shopfloor.samples import Batch, Misconfigured, Unavailable
from shopfloor.testing.clocks import SECOND, instant

BEGIN = instant("2026-03-02T00:00:00Z")
EVER = (-(2**63), 2**63 - 1)


def random_walk(offset: int, begin: int, rows: int, noise: np.random.Generator) -> Batch:
    """``rows`` of ten tags at 1 Hz whose values hardly compress."""
    times = [begin + i // 10 * SECOND for i in range(rows)]
    return Batch(f"s{offset}", begin, [f"m/{i % 10}" for i in range(rows)], times, noise.random(rows).tolist())


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_age_bounds_the_disk(tmp_path: Path) -> None:
    """Six hours kept of a day: the files stop growing, and hold no more than the hours kept and one window."""
    config = DuckDbConfig(path=tmp_path / "h.duckdb", keep=6 * HOUR)
    noise = np.random.default_rng(1)
    sizes: list[int] = []
    async with DuckDbHistorian(config, generation=12_000) as historian:
        for hour in range(24):
            begin = BEGIN + hour * HOUR
            await historian.write(hour, random_walk(hour, begin, 18_000, noise))
            await historian.maintain(begin + HOUR)
            sizes.append(on_disk(tmp_path))
        await historian.compact(BEGIN + 24 * HOUR)
        kept = await historian.size()
        assert kept.oldest is not None
        assert BEGIN + 17 * HOUR <= kept.oldest <= BEGIN + 18 * HOUR
        assert 6 * 18_000 <= kept.rows <= 7 * 18_000
        assert kept.size == on_disk(tmp_path)
        assert max(sizes[16:]) < 1.3 * max(sizes[8:16])
        assert (await historian.history("m/3", BEGIN, BEGIN + 16 * HOUR)).times.tolist() == []
        assert len(await historian.latest()) == 10


async def test_size_bounds_the_disk(tmp_path: Path) -> None:
    """The oldest segments go until the rest fits, however long they should be kept."""
    config = DuckDbConfig(path=tmp_path / "h.duckdb").model_copy(update={"keep_size": 8_000_000})
    noise = np.random.default_rng(1)
    async with DuckDbHistorian(config, generation=12_000) as historian:
        for day in range(24):
            begin = BEGIN + day * DAY
            await historian.write(day, random_walk(day, begin, 50_000, noise))
            await historian.maintain(begin + DAY)
            if day > 10:
                assert on_disk(tmp_path) <= 8_000_000 + 2_000_000
        kept = await historian.size()
        assert kept.oldest is not None
        assert kept.oldest > BEGIN + 4 * DAY
        newest = await historian.history("m/3", BEGIN + 23 * DAY, BEGIN + 24 * DAY)
        assert len(newest.times) == 5000


async def test_rows_that_are_too_old_when_they_arrive_are_dropped_at_the_next_compaction(tmp_path: Path) -> None:
    async with DuckDbHistorian(DuckDbConfig(path=tmp_path / "h.duckdb", keep=2 * DAY)) as historian:
        times = [BEGIN - 300 * DAY, BEGIN - 3 * DAY, BEGIN - DAY, BEGIN]
        await historian.write(1, Batch("s", BEGIN, ["m/x"] * 4, times, [1.0, 2.0, 3.0, 4.0]))
        await historian.compact(BEGIN)
        assert (await historian.history("m/x", *EVER)).times.tolist() == times[2:]


async def test_the_newest_value_of_a_silent_tag_outlives_its_rows(tmp_path: Path) -> None:
    """A set-point of last year is still the set-point: latest knows it, and it still holds in averages over time."""
    config = DuckDbConfig(path=tmp_path / "h.duckdb", keep=2 * DAY)
    async with DuckDbHistorian(config) as historian:
        await historian.write(1, Batch("s", BEGIN, ["m/sp"], [BEGIN], [42.0]))
        await historian.compact(BEGIN)
        await historian.compact(BEGIN + 100 * DAY)
        assert (await historian.size()).rows == 0
    async with DuckDbHistorian(config) as historian:
        assert [(s.tag, s.value, s.time) for s in await historian.latest()] == [("m/sp", 42.0, BEGIN)]
        held = await historian.aggregate("m/sp", BEGIN + 99 * DAY, BEGIN + 100 * DAY, DAY, "twa")
        assert list(held.values) == [42.0]


async def test_memory_of_a_merge_is_bounded_by_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the chunks overlap, slices give every row once, in order."""
    monkeypatch.setattr("shopfloor.historian.compaction.SLICE", 500)
    monkeypatch.setattr("shopfloor.historian.chunk.ROWS", 200)
    async with DuckDbHistorian(DuckDbConfig(path=tmp_path / "h.duckdb")) as historian:
        for offset in range(5):
            times = [BEGIN + i * SECOND + offset for i in range(offset * 100, 2000)]
            await historian.write(offset, Batch("s", BEGIN, ["m/x"] * len(times), times, [0.5] * len(times)))
            historian._database.turn()
            historian._compact_all()
        before = await historian.records("m/x", *EVER)
        await historian.compact(BEGIN + 3 * DAY)
        assert len(historian._database.stored) == 1
        assert await historian.records("m/x", *EVER) == before
        assert len(before) == sum(2000 - offset * 100 for offset in range(5))


def stored(name: str, window: int | None, rows: int, last: int = 0, size: int = 100) -> Stored:
    return Stored(Segment(Path(name)), window, 0, last, rows, size, [])


def test_what_is_merged_next() -> None:
    """Eight of about one size; in a closed window the rest once it is worth it; never over windows."""
    now = BEGIN + 30 * DAY
    today, yesterday = now // DAY, now // DAY - 2
    alike = [stored(f"{i}", today, 1000 + i) for i in range(8)]
    assert due(alike, DAY, now) == alike
    assert due(alike[:7], DAY, now) == []
    assert due([stored(f"{i}", today - 3 - i, 1000) for i in range(20)], DAY, now) == []
    small = [stored("a", yesterday, 10), stored("b", yesterday, 10)]
    large = stored("c", yesterday, 10**6)
    assert due([*small, large], DAY, now) == small
    assert due([small[0], large], DAY, now) == []
    assert due([stored("d", yesterday, 200_000), large], DAY, now) != []
    strays = [stored(f"{i}", None, 5) for i in range(8)]
    assert due(strays, DAY, now) == strays
    assert due([], DAY, now) == []


def test_what_is_dropped_next() -> None:
    lines = [stored(str(i), i, 10, last=i * 10) for i in range(5)]
    assert expired(lines, 20, None) == lines[:2]
    assert expired(lines, 0, 250) == lines[:3]
    assert expired(lines, 35, 250) == lines[:4]
    assert expired(lines, 0, 0) == lines


def test_ranges_that_touch_are_one() -> None:
    assert merged([(5, 7), (-1, 3), (3, 4), (6, 9)]) == [(-1, 4), (5, 9)]


def test_a_file_that_is_no_segment_says_so(tmp_path: Path) -> None:
    file = tmp_path / "x.segment"
    for content in (b"", b"short", bytes(1000)):
        file.write_bytes(content)
        with pytest.raises(Damaged):
            Segment(file).tags()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device"), Unavailable, "no room on the disk"),
        (duckdb.IOException("IO Error: Could not write file: No space left on device"), Unavailable, "keep_size"),
        (PermissionError(13, "Permission denied"), Misconfigured, "chown"),
        (duckdb.IOException('IO Error: Cannot open file "x": Permission denied'), Misconfigured, "chown"),
        (duckdb.OutOfMemoryException("could not allocate block"), Unavailable, "memory"),
        (duckdb.IOException("IO Error: Could not set lock on file"), Unavailable, "another process"),
        (OSError(5, "Input/output error"), Unavailable, "fails"),
    ],
)
def test_an_error_says_what_to_do(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words), translated(Path("data/h.duckdb")):
        raise error


def test_a_database_that_was_never_opened_can_be_closed(tmp_path: Path) -> None:
    Database(tmp_path / "h.duckdb", 2**30, 2).close()
