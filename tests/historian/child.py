"""A process that writes to a historian without end: until the test kills it, or (``full``) files cannot grow."""

import asyncio
import resource
import sys
from pathlib import Path

from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.historian.sqlite_store import SqliteHistorian
from shopfloor.samples import Batch, Unavailable

BEGIN = 1_772_438_400 * 10**9
ROWS = 40


def entry(offset: int) -> tuple[int, Batch]:
    tags = [f"m/{i % 8}" for i in range(ROWS)]
    times = [BEGIN + offset * 10**9 + i for i in range(ROWS)]
    return offset, Batch("s", times[0], tags, times, [float(offset)] * ROWS)


async def work(folder: Path) -> None:
    async with DuckDbHistorian(DuckDbConfig(path=folder / "h.duckdb"), generation=600) as historian:
        tidying = asyncio.create_task(tidy(historian))
        offset = await historian.held() + 1
        while not tidying.done():
            await historian.write_many([entry(offset + i) for i in range(7)])
            offset += 7
            print(offset - 1, flush=True)  # noqa: T201  # the test reads what was acknowledged
        tidying.result()


async def tidy(historian: DuckDbHistorian) -> None:
    while True:
        await historian.maintain(BEGIN + 3 * 86_400 * 10**9)
        await asyncio.sleep(0)


async def fill_up(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
    historian = DuckDbHistorian(DuckDbConfig(path=folder / "h.duckdb"), generation=10**6)
    for _ in range(3):
        try:
            async with historian:
                offset = await historian.held() + 1
                while True:
                    times = [BEGIN + offset * 10**9 + i for i in range(5000)]
                    batch = Batch("s", BEGIN, ["m/x"] * 5000, times, [i * 1.1 for i in range(5000)])
                    await historian.write(offset, batch)
                    print(offset, flush=True)  # noqa: T201  # the test reads what was acknowledged
                    offset += 1
        except Unavailable as error:
            print("refused:", error, flush=True)  # noqa: T201  # the test reads it


async def small(folder: Path) -> None:
    """The same with the small historian."""
    async with SqliteHistorian(folder / "h.sqlite", 10**18) as historian:
        offset = await historian.held() + 1
        while True:
            await historian.write_many([entry(offset + i) for i in range(7)])
            offset += 7
            print(offset - 1, flush=True)  # noqa: T201  # the test reads what was acknowledged
            await historian.maintain(BEGIN)


async def small_full(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    for _ in range(3):
        try:
            await small(folder)
        except Unavailable as error:
            print("refused:", error, flush=True)  # noqa: T201  # the test reads it


if __name__ == "__main__":
    jobs = {"": work, "full": fill_up, "small": small, "small-full": small_full}
    asyncio.run(jobs["".join(sys.argv[2:])](Path(sys.argv[1])))
