"""The small historian keeps what the large one keeps, answers the same, and needs neither NumPy nor DuckDB to write."""

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.historian.base import AGGREGATES, Aggregate
from shopfloor.historian.sqlite import SqliteConfig
from shopfloor.historian.sqlite_store import SqliteHistorian
from shopfloor.plant import parse
from shopfloor.samples import Batch, Misconfigured, Sample, Unavailable
from shopfloor.testing.clocks import SECOND
from shopfloor.testing.contracts.sink import SinkContract, SinkRig
from tests.historian import child
from tests.historian.child import ROWS
from tests.historian.plain import bucket, near
from tests.historian.test_aggregates import BEGIN, MS, NOW, SAMPLES, _run, scale

EVER = (-(2**63), 2**63 - 1)
HOUR = 3600 * SECOND


def store(folder: Path, keep: int = 24 * HOUR) -> SqliteHistorian:
    return SqliteHistorian(folder / "h.sqlite", keep)


async def everything(historian: SqliteHistorian) -> list[Sample]:
    return [sample for tag in await historian.tags() for _, sample in await historian.records(tag, *EVER)]


class Rig(SinkRig):
    """The other side is the file, which another process may have taken."""

    def __init__(self, folder: Path) -> None:
        self.historian = store(folder)
        super().__init__(self.historian)
        self.path = folder / "h.sqlite"
        self.thief: subprocess.Popen[str] | None = None

    async def content(self) -> Sequence[Sample]:
        return await everything(self.historian)

    async def lose(self) -> None:
        self.historian._file.close()
        code = (
            "import fcntl, sys; file = open(sys.argv[1] + '.lock', 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
            "print('held', flush=True); sys.stdin.read()"
        )
        self.thief = subprocess.Popen(  # noqa: ASYNC220  # it starts at once; the test has nothing else to do
            [sys.executable, "-c", code, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.thief.stdout is not None
        assert self.thief.stdout.readline() == "held\n"

    async def restore(self) -> None:
        if self.thief is not None:
            self.thief.communicate()
            self.thief = None

    def rejected(self) -> tuple[Batch, set[int]] | None:
        samples = [Sample("a/x", BEGIN + i, value) for i, value in enumerate([1, 2**70, 2.0])]
        return Batch.of("line", BEGIN, samples), {1}


class TestSqlite(SinkContract):
    exactly_once: ClassVar[bool] = True

    def rig(self, folder: Path) -> AbstractAsyncContextManager[SinkRig]:
        return self._rig(folder)

    @asynccontextmanager
    async def _rig(self, folder: Path) -> AsyncIterator[SinkRig]:
        rig = Rig(folder)
        try:
            yield rig
        finally:
            await rig.restore()


@pytest.mark.parametrize("function", AGGREGATES)
async def test_equals_the_plain_recomputation(function: Aggregate, tmp_path: Path) -> None:
    """Also when the first half of the samples comes last."""
    number = 0
    async with store(tmp_path) as historian:

        @settings(max_examples=25)
        @given(SAMPLES, st.integers(0, 60), st.integers(1, 60), st.sampled_from([1, 3, 7]))
        async def same(samples: list[Sample], skip: int, length: int, seconds: int) -> None:
            nonlocal number
            number += 1
            tag = f"m/{number}"
            named = [Sample(tag, s.time, s.value, s.quality) for s in samples]
            half = next((i for i, s in enumerate(named) if i >= len(named) // 2 and s.time != named[i - 1].time), 0)
            await historian.write(2 * number, Batch.of("line", NOW, named[half:]))
            await historian.write(2 * number + 1, Batch.of("line", NOW, named[:half]))
            start, end = BEGIN + skip * 333 * MS, BEGIN + (skip + length) * 333 * MS
            found = await historian.aggregate(tag, start, end, seconds * SECOND, function)
            whole = seconds * SECOND
            midnight = BEGIN // (24 * HOUR) * 24 * HOUR
            expected = [
                (begin, result)
                for begin in range(midnight + (start - midnight) // whole * whole, end, whole)
                if (result := bucket(function, named, begin,
                                     begin if function == "interpolated" else max(begin, start),
                                     min(begin + whole, end)))
            ]  # fmt: skip
            expected = expected if named else []
            assert found.times.tolist() == [begin for begin, _ in expected]
            assert found.qualities.tolist() == [quality for _, (_, quality) in expected]
            for value, (_, (exact, _)) in zip(found.values, expected, strict=True):
                assert near(value, exact, scale(named)), (value, exact)

        await _run(same)


async def test_the_newest_outlives_keep_and_nothing_else_does(tmp_path: Path) -> None:
    async with store(tmp_path, keep=HOUR) as historian:
        times = [BEGIN + i * 60 * SECOND for i in range(180)]
        await historian.write(1, Batch("s", NOW, ["m/x"] * 180, times, [float(i) for i in range(180)]))
        await historian.write(2, Batch("s", NOW, ["m/silent"] * 2, [BEGIN, BEGIN + 1], [1, 2]))
        now = times[-1]
        await historian.maintain(now)
        assert (await historian.history("m/x", *EVER)).times.tolist() == [t for t in times if t >= now - HOUR]
        assert [(s.tag, s.value) for s in await historian.latest()] == [("m/silent", 2), ("m/x", 179.0)]
        size = await historian.size()
        assert (size.rows, size.oldest) == (62, BEGIN + 1)
        await historian.maintain(now)
        assert (await historian.size()).rows == 62


async def test_many_old_rows_go_in_steps(tmp_path: Path) -> None:
    """A step is bounded, so that a write waits for one step only; all of them go in the end."""
    async with store(tmp_path, keep=HOUR) as historian:
        count = 900
        await historian.write(1, Batch("s", NOW, ["m/x"] * count, range(BEGIN, BEGIN + count), [1.0] * count))
        file = historian._file
        assert file.drop(BEGIN + HOUR, group=100) == 100
        while file.drop(BEGIN + HOUR, group=100):
            pass
        assert (await historian.size()).rows == 1


async def test_history_is_cut_at_its_limit_and_says_so(tmp_path: Path) -> None:
    async with store(tmp_path) as historian:
        await historian.write(1, Batch("s", NOW, ["m/x"] * 9, range(BEGIN, BEGIN + 9), list(range(9))))
        found = await historian.history("m/x", BEGIN + 1, NOW, limit=3)
        assert (found.values, found.truncated) == ([1, 2, 3], True)
        assert not (await historian.history("m/none", 0, NOW)).times
        assert not (await historian.aggregate("m/none", BEGIN, NOW, HOUR, "count")).times
        with pytest.raises(ValueError, match="at least 1"):
            await historian.history("m/x", 0, 1, limit=0)
        with pytest.raises(ValueError, match="one of avg"):
            await historian.aggregate("m/x", 0, 1, SECOND, "median")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="time zone"):
            await historian.aggregate("m/none", 0, 10, SECOND, "avg", "Mars/Olympus")


@pytest.mark.parametrize("where", ["head", "middle"])
async def test_a_damaged_file_is_moved_aside_and_a_new_one_begun(where: str, tmp_path: Path) -> None:
    """The pipeline leaves and comes back after Unavailable; then what the journal still has is taken again."""
    async with store(tmp_path) as historian:
        await historian.write(1, Batch("s", NOW, ["m/x"] * 5000, range(BEGIN, BEGIN + 5000), [1.5] * 5000))
    path = tmp_path / "h.sqlite"
    content = bytearray(path.read_bytes())
    at = slice(0, 100) if where == "head" else slice(5 * 4096, len(content))
    content[at] = b"\xa5" * (at.stop - at.start)
    path.write_bytes(content)
    historian = store(tmp_path)
    if where == "middle":
        with pytest.raises(Unavailable):
            async with historian:
                await historian.write(2, Batch("s", NOW, ["m/x"], [NOW], [2.0]))
    async with historian:
        assert await historian.held() == -1
        await historian.write(2, Batch("s", NOW, ["m/x"], [NOW], [2.0]))
        assert [s.value for s in await historian.latest()] == [2.0]
    assert len(list(tmp_path.glob("h.sqlite.damaged-*"))) >= 1


async def test_a_file_of_something_else_and_one_in_use_are_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "h.sqlite")
    connection.execute("CREATE TABLE orders (id)")
    connection.close()
    with pytest.raises(Misconfigured, match="something else"):
        async with store(tmp_path):
            pass
    (tmp_path / "h.sqlite").unlink()
    async with store(tmp_path):
        with pytest.raises(Unavailable, match="open in another process"):
            async with store(tmp_path):
                pass
    with pytest.raises(Misconfigured, match="must name a file"):
        async with SqliteHistorian(tmp_path / "h.sqlite" / "below", HOUR):
            pass


async def holds_exactly(folder: Path, acknowledged: int) -> int:
    """What is held: every entry up to its position once, at least all that was acknowledged."""
    async with store(folder) as historian:
        held = await historian.held()
        assert held >= acknowledged
        found = [offset for tag in await historian.tags() for offset, _ in await historian.records(tag, *EVER)]
        assert Counter(found) == dict.fromkeys(range(held + 1), ROWS)
        assert (await historian.size()).rows == len(found)
    return held


async def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    acknowledged = -1
    for turns in (1, 2, 5, 9, 14):
        command = [sys.executable, child.__file__, str(tmp_path), "small"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220  # nothing else to do
            assert process.stdout is not None
            for _ in range(turns):
                acknowledged = int(process.stdout.readline())
            process.kill()
            rest = process.stdout.read().split("\n")[:-1]
        acknowledged = max([acknowledged, *map(int, rest)])
        acknowledged = await holds_exactly(tmp_path, acknowledged)


async def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, child.__file__, str(tmp_path), "small-full"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: ASYNC221  # nothing else to do
    lines = done.stdout.splitlines()
    assert sum(line.startswith("refused:") for line in lines) == 3, done.stderr
    await holds_exactly(tmp_path, max(int(line) for line in lines if line.isdigit()))


def test_writing_loads_no_numpy_and_no_duckdb(tmp_path: Path) -> None:
    """That is what it is for."""
    code = """
import asyncio, sys
from pathlib import Path
from shopfloor.historian.sqlite import SqliteConfig
from shopfloor.samples import Batch

async def work():
    async with SqliteConfig(path=Path(sys.argv[1])).build() as historian:
        await historian.write(1, Batch("s", 1, ["m/x"], [1], [1.5]))
        await historian.maintain(10)
        assert await historian.tags() == ["m/x"]
        print(sorted({"numpy", "pyarrow", "duckdb", "pcodec"} & set(sys.modules)))
        print([sample.value for sample in await historian.latest()])

asyncio.run(work())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "h.sqlite"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[1.5]"]


def test_a_plant_file_names_it() -> None:
    plant = parse("plant: {site: x}\nhistorian: {type: sqlite, keep: 30 d}\n", "x", Path("/plant"), {})
    assert isinstance(plant.historian, SqliteConfig)
    assert (plant.historian.path, plant.historian.keep) == (Path("/plant/data/history.sqlite"), 30 * 24 * HOUR)
