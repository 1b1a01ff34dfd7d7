"""The journal: how much it takes against the bare disk, how fast it gives it back, how long a commit takes.

1,000 float tags, one sample of each a batch, ten batches a commit (220 kB). `append` and the raw
write + fdatasync of the same bytes take turns in one run, in one folder.
"""

import asyncio
import os
import random
import statistics
import tempfile
import time
from array import array
from collections import deque
from pathlib import Path
from typing import Final

import uvloop

from shopfloor.bench import Result
from shopfloor.journal import Reader, SqliteJournal, Tally, body as bodies
from shopfloor.samples import Batch

TAGS: Final = tuple(f"machine-{i // 20}/signal-{i % 20}" for i in range(1000))
BATCHES: Final = 10
"""Batches in one commit."""
FEW_ROUNDS: Final = 7
PACE: Final = 400_000
"""Samples a second while commit times are measured."""


def run(*, thorough: bool = False) -> list[Result]:
    """The figures; about 20 s, thorough about a minute. Needs 500 MB in the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="shopfloor-bench-") as folder:
        return uvloop.run(_run(Path(folder), rounds=15 if thorough else FEW_ROUNDS, commits=300 if thorough else 120))


async def _run(folder: Path, rounds: int, commits: int) -> list[Result]:
    journal = await SqliteJournal.open(folder / "journal.db")
    try:
        reader = await journal.reader("bench")
        groups = [_group(n, shared=True) for n in range(8)]
        changing = [_group(n, shared=False) for n in range(8)]
        raw: list[float] = []
        kept: list[float] = []
        mixed: list[float] = []
        for _ in range(rounds):
            raw.append(_raw(folder, groups[0], commits))
            kept.append(await _append(journal, groups, commits))
            mixed.append(await _append(journal, changing, commits))
        samples = 2 * rounds * commits * BATCHES * len(TAGS)
        size = (await journal.state()).size
        read = [await _read(reader, samples) for _ in range(3)]
    finally:
        await journal.close()
    times = await _paced(folder / "paced.db", groups, seconds=10.0 if rounds > FEW_ROUNDS else 4.0)
    slow = statistics.quantiles(times, n=100)[98]
    ratios = [ours / bare for ours, bare in zip(kept, raw, strict=True)]
    return [
        _median("append", kept, "samples/s", ratio=statistics.median(ratios), ratio_to="raw write+fdatasync"),
        _median("append_changing_tags", mixed, "samples/s"),
        _median("raw_write", raw, "samples/s"),
        _median("read", read, "samples/s"),
        Result("bytes_per_sample", size / samples, "B"),
        Result("commit_p50_ms", statistics.median(times), "ms", min=min(times), max=max(times), runs=len(times)),
        Result("commit_p99_ms", slow, "ms", min=min(times), max=max(times), runs=len(times)),
    ]  # fmt: skip


def _median(
    name: str, values: list[float], unit: str, ratio: float | None = None, ratio_to: str | None = None
) -> Result:
    return Result(name, statistics.median(values), unit, ratio, ratio_to, min(values), max(values), len(values))


def _group(seed: int, *, shared: bool) -> list[Batch]:
    """The batches of one commit; ``shared``: the same tags in the same order, as a scan group has them."""
    chosen = random.Random(seed)  # noqa: S311  # made-up measurements, the same at each run
    batches: list[Batch] = []
    for n in range(BATCHES):
        begin = 1_767_592_800_000_000_000 + (seed * BATCHES + n) * 10**9
        times = array("q", [begin + chosen.randrange(10**9) for _ in TAGS])
        values = array("d", [chosen.gauss(50, 10) for _ in TAGS])
        qualities = array("H", [192] * (len(TAGS) - 1) + [0])
        tags = TAGS if shared else tuple(chosen.sample(TAGS, len(TAGS)))
        batches.append(Batch("bench", begin, tags, times, values, qualities))
    return batches


def _raw(folder: Path, group: list[Batch], commits: int) -> float:
    """Samples a second when the same bytes are only written and synced."""
    ids = array("I", range(len(TAGS)))
    content = b"".join(bodies.encode(batch, ids).content for batch in group)
    path = folder / "raw"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        began = time.perf_counter()
        for _ in range(commits):
            os.write(handle, content)
            os.fdatasync(handle)
        took = time.perf_counter() - began
    finally:
        os.close(handle)
        path.unlink()
    return commits * BATCHES * len(TAGS) / took


async def _append(journal: SqliteJournal, groups: list[list[Batch]], commits: int) -> float:
    """Samples a second with two commits under way: one is being written while the next is handed over."""
    began = time.perf_counter()
    under_way: deque[asyncio.Future[list[int]]] = deque()
    for n in range(commits):
        under_way.append(asyncio.gather(*map(journal.append, groups[n % len(groups)])))
        if len(under_way) > 1:
            await under_way.popleft()
    await asyncio.gather(*under_way)
    return commits * BATCHES * len(TAGS) / (time.perf_counter() - began)


async def _read(reader: Reader, samples: int) -> float:
    began = time.perf_counter()
    await _everything(reader, samples)
    return samples / (time.perf_counter() - began)


async def _everything(reader: Reader, samples: int) -> tuple[int, int]:
    """Read everything from the file, decoded; returns samples and the last offset."""
    reader.rewind(0)
    taken, last = 0, 0
    while taken < samples:
        entries = await reader.read()
        taken += sum(len(entry.batch) for entry in entries if entry.batch is not None)
        last = entries[-1].offset
    return taken, last


async def _paced(path: Path, groups: list[list[Batch]], seconds: float) -> list[float]:
    """Milliseconds from handing over to durable: a batch every 2.5 ms (400,000 samples a second), a reader at work."""
    journal = await SqliteJournal.open(path)
    reader = await journal.reader("bench")
    step = len(TAGS) / PACE
    batches = [batch for group in groups for batch in group]
    times: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(batch: Batch) -> None:
        at = time.perf_counter()
        await journal.append(batch)
        times.append((time.perf_counter() - at) * 1e3)

    async def follow() -> None:
        while True:
            entries = await reader.read()
            tallies = [Tally(e.offset, e.source, "delivered", e.samples, e.received) for e in entries]
            await reader.commit(entries[-1].offset, tallies)

    following = asyncio.create_task(follow())
    async with asyncio.TaskGroup() as tasks:
        for n in range(int(seconds / step)):
            await asyncio.sleep(max(0.0, began + n * step - loop.time()))
            tasks.create_task(one(batches[n % len(batches)]))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await journal.close()
    return times
