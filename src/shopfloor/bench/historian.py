"""How fast the embedded historian takes rows, how small it keeps them, how soon it answers.

A plant of 1,000 tags for 24 hours: the fast ones at 1 Hz (100 of them; 570 when thorough, which makes
50 million rows), the others once a minute. The values are like a sensor's: random walks in steps of
0.01, one tag in ten with all its digits random below 0.0001, one in ten a counter, one in ten a switch;
clocks jitter by some milliseconds. A plain DuckDB table with the same rows in arrival order answers
the same question in the same run.
"""

import asyncio
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import duckdb
import numpy as np
import pyarrow as pa

from shopfloor.bench import Result
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.journal import SqliteJournal
from shopfloor.samples import Batch

TAGS: Final = 1000
SECOND: Final = 10**9
BEGIN: Final = 1_772_409_600 * SECOND
"""2026-03-02, midnight UTC."""
DAY: Final = 86_400
STEP: Final = 10
"""Seconds of fast tags in one batch of each kind."""
_ASKED: Final = 15
_COUNTER: Final = 8
_SWITCH: Final = 9
"""The last digit of a tag's number says what it is; the others are analogue."""
_arrow_table: Final[Callable[[dict[str, object]], pa.Table]] = cast("Any", pa).table


class Plant:
    """The tags and their values, the same in every run."""

    def __init__(self, fast: int) -> None:
        """``fast``: how many of the tags give a value every second."""
        self.fast = fast
        self.names = [f"line-{i // 100}/machine-{i // 10 % 10}/signal-{i % 10}" for i in range(TAGS)]
        self._noise = np.random.default_rng(2026)
        self._level = np.full(TAGS, 50.0)
        self._count = 0

    def batches(self, seconds: int) -> Iterator[Batch]:
        """What the plant gives in this many seconds, ten seconds of one kind of value at a time."""
        for begin in range(0, seconds, STEP):
            yield from self._batches(begin, np.arange(self.fast), STEP)
            if begin % 60 == 0:
                yield from self._batches(begin, np.arange(self.fast, TAGS), 1)

    def _batches(self, begin: int, tags: np.ndarray[Any, Any], seconds: int) -> Iterator[Batch]:
        walk = np.cumsum(self._noise.normal(0, 0.05, (seconds, TAGS)), axis=0) + self._level
        self._level = walk[-1]
        kind = tags % 10
        for chosen in (tags[kind < _COUNTER], tags[kind == _COUNTER], tags[kind == _SWITCH]):
            if not len(chosen):
                continue
            numbers: list[int] = chosen.tolist()
            names = [self.names[i] for i in numbers] * seconds
            second = begin + np.repeat(np.arange(seconds), len(chosen))
            times = BEGIN + second * SECOND + self._noise.integers(0, 20, len(second)) * 10**6
            values: Sequence[Any]
            if chosen[0] % 10 == _COUNTER:
                values = _array("q", second // 3 + np.tile(chosen, seconds))
            elif chosen[0] % 10 == _SWITCH:
                values = ((second // 300 + np.tile(chosen, seconds)) % 2 == 0).tolist()
            else:
                rounded = np.round(walk[:, chosen], 2)
                rounded[:, chosen % 10 == 0] += self._noise.random((seconds, int((chosen % 10 == 0).sum()))) * 1e-4
                values = _array("d", rounded.reshape(-1))
            yield Batch("plc", int(times[-1]) + 10**7, names, _array("q", times), values)


def _array(code: str, numbers: np.ndarray[Any, Any]) -> "array[Any]":
    result: array[Any] = array(code)
    result.frombytes(numbers.astype(code, copy=False).tobytes())
    return result


class PlainTable:
    """The same rows in a DuckDB table, in the order of their arrival."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._connection = duckdb.connect(str(path), config={"threads": 2, "memory_limit": "512MiB"})
        self._connection.execute("CREATE TABLE plain (tag INTEGER, time BIGINT, value DOUBLE, quality USMALLINT)")
        self._ids = {name: i for i, name in enumerate(names)}

    def write(self, batches: Sequence[Batch]) -> None:
        """Append the batches' rows."""
        table = _arrow_table(
            {
                "tag": np.array([self._ids[tag] for batch in batches for tag in batch.tags], np.int32),
                "time": np.concatenate([np.frombuffer(cast("bytes", batch.times), np.int64) for batch in batches]),
                "value": np.concatenate([np.array(batch.values, np.float64) for batch in batches]),
                "quality": np.concatenate(
                    [np.frombuffer(cast("bytes", batch.qualities), np.uint16) for batch in batches]
                ),
            }
        )
        self._connection.register("incoming", table)
        self._connection.execute("INSERT INTO plain SELECT * FROM incoming")
        self._connection.unregister("incoming")

    def day_by_minute(self, tag: str) -> int:
        """The average of each minute; how many there are."""
        found = self._connection.execute(
            "SELECT time // 60000000000 AS minute, avg(value), min(quality) FROM plain "
            "WHERE tag = ? AND time >= ? AND time < ? AND quality >= 192 GROUP BY minute ORDER BY minute",
            [self._ids[tag], BEGIN, BEGIN + DAY * SECOND],
        ).fetchall()
        return len(found)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def run(*, thorough: bool = False) -> list[Result]:
    """Ingest, bytes a row, questions and opening after a crash; 10 million rows, thorough 50 million."""
    with tempfile.TemporaryDirectory(prefix="shopfloor-bench-") as folder:
        return asyncio.run(_run(Path(folder), 570 if thorough else 100, 2_000_000 if thorough else 1_000_000))


async def _run(folder: Path, fast: int, journalled: int) -> list[Result]:
    ingest = [await _ingest(folder / f"ingest-{i}", journalled) for i in range(5)]
    plant = Plant(fast)
    plain = PlainTable(folder / "plain.duckdb", plant.names)
    config = DuckDbConfig(path=folder / "history" / "history.duckdb")
    results = [_median("ingest", ingest, "rows/s")]
    with contextlib.closing(plain):
        async with DuckDbHistorian(config) as historian:
            await _fill(historian, plain, plant)
            results += await _bytes_per_row(historian)
            results += await _questions(historian, plain, plant)
            await historian.write_many(list(enumerate(Plant(TAGS).batches(200), 10**9)))
            opened = [await _opened(folder, i) for i in range(5)]
    results.append(_median("open_after_crash_ms", opened, "ms"))
    return results


async def _ingest(folder: Path, rows: int) -> float:
    """Rows a second from the journal's file to held, in a process that has nothing else to do."""
    await asyncio.to_thread(folder.mkdir)
    journal = await SqliteJournal.open(folder / "journal.db")
    try:
        total = 0
        waiting: list[asyncio.Future[int]] = []
        for batch in Plant(TAGS).batches(10**6):
            waiting.append(journal.append(batch))
            total += len(batch)
            if len(waiting) > 20:  # noqa: PLR2004  # enough to share a commit
                await asyncio.gather(*waiting)
                waiting = []
            if total >= rows:
                break
        await asyncio.gather(*waiting)
    finally:
        await journal.close()
    journal = await SqliteJournal.open(folder / "journal.db")
    try:
        reader = await journal.reader("historian")
        async with DuckDbHistorian(DuckDbConfig(path=folder / "history.duckdb")) as historian:
            done = 0
            start = time.perf_counter()
            while done < total:
                entries = await reader.read()
                batches = [(entry.offset, entry.batch) for entry in entries if entry.batch is not None]
                await historian.write_many(batches)
                await reader.commit(entries[-1].offset)
                done += sum(len(batch) for _, batch in batches)
            return done / (time.perf_counter() - start)
    finally:
        await journal.close()
        await asyncio.to_thread(shutil.rmtree, folder)


async def _fill(historian: DuckDbHistorian, plain: PlainTable, plant: Plant) -> None:
    group: list[tuple[int, Batch]] = []
    rows = 0
    for offset, batch in enumerate(plant.batches(DAY), 1):
        group.append((offset, batch))
        rows += len(batch)
        if rows >= 100_000:  # noqa: PLR2004  # as many as the pipeline reads at once
            await historian.write_many(group)
            plain.write([batch for _, batch in group])
            group, rows = [], 0
    if group:
        await historian.write_many(group)
        plain.write([batch for _, batch in group])


async def _bytes_per_row(historian: DuckDbHistorian) -> list[Result]:
    await historian.compact(BEGIN + 3 * DAY * SECOND)
    size = await historian.size()
    segments = sum(line.size for line in historian.stored())
    return [
        Result("bytes_per_row", size.size / size.rows, f"B, all files, {size.rows:,} rows"),
        Result("bytes_per_row_segments", segments / size.rows, "B, without the DuckDB file"),
    ]


async def _questions(historian: DuckDbHistorian, plain: PlainTable, plant: Plant) -> list[Result]:
    end = BEGIN + DAY * SECOND
    hour: list[float] = []
    day: list[float] = []
    beside: list[float] = []
    latest: list[float] = []
    for i in range(_ASKED):
        tag = plant.names[i * 7 % plant.fast]
        hour.append(await _timed(lambda tag=tag: historian.history(tag, end - 3600 * SECOND, end)))  # type: ignore[misc]  # a default binds the loop's variable
        day.append(await _timed(lambda tag=tag: historian.aggregate(tag, BEGIN, end, 60 * SECOND, "avg")))  # type: ignore[misc]  # as above
        beside.append(await _timed(lambda tag=tag: asyncio.to_thread(plain.day_by_minute, tag)))  # type: ignore[misc]  # as above
        latest.append(await _timed(historian.latest))
    ratio = statistics.median(day) / statistics.median(beside)
    return [
        _median("hour_p50_ms", hour, "ms"),
        _median("day_by_minute_p50_ms", day, "ms", ratio, "the same on a plain DuckDB table in arrival order"),
        _median("latest_p50_ms", latest, "ms"),
    ]


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1000


async def _opened(folder: Path, number: int) -> float:
    """Milliseconds to open the files as a kill -9 now would leave them."""
    copy = folder / f"crashed-{number}"
    source = folder / "history"
    await asyncio.to_thread(
        shutil.copytree,
        source,
        copy,
        copy_function=lambda a, b: (os.link if a.endswith(".segment") else shutil.copy)(a, b),
    )
    historian = DuckDbHistorian(DuckDbConfig(path=copy / "history.duckdb"))
    start = time.perf_counter()
    async with historian:
        await historian.held()
        took = (time.perf_counter() - start) * 1000
    await asyncio.to_thread(shutil.rmtree, copy)
    return took


def _median(
    name: str, figures: Sequence[float], unit: str, ratio: float | None = None, ratio_to: str | None = None
) -> Result:
    return Result(
        name, statistics.median(figures), unit, ratio, ratio_to, min(figures), max(figures), len(figures)
    )  # fmt: skip
