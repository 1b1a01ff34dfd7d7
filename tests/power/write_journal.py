"""Fills a journal, trims and thins it, opens it again; says what is durable as soon as it was told so."""

import asyncio
import os
import sys
from pathlib import Path

from shopfloor.journal import SqliteJournal, Tally, thinning, writer
from shopfloor.samples import Batch

BEGIN = 1_767_592_800_000_000_000
TAGS = ("line/number", *(f"line/{i}" for i in range(20)))


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def append(journal: SqliteJournal, number: int) -> None:
    floats = [float(number + i) for i in range(len(TAGS) * 9)]
    batch = Batch("line", BEGIN + number, [*TAGS * 9, TAGS[0]], [BEGIN + number] * (len(floats) + 1), [*floats, number])
    say("submitted", number)
    say("durable", number, await journal.append(batch))


async def life(path: Path, first: int) -> None:
    journal = await SqliteJournal.open(path, 400_000, "thin")
    say("open")
    reader = await journal.reader("sink")
    say("reader")
    for number in range(first, first + 36, 3):
        await asyncio.gather(*(append(journal, number + i) for i in range(3)))
        if number % 5 == 0 and first:
            entries = await reader.read(600)
            tallies = [Tally(entry.offset, "line", "delivered", entry.samples, 1) for entry in entries]
            say("committing", entries[-1].offset)
            await reader.commit(entries[-1].offset, tallies, state=bytes(number))
            say("committed", entries[-1].offset)
    await journal.close()


async def main() -> None:
    writer.WAL_BYTES = 150_000  # type: ignore[misc]  # so that it is carried over now and then
    writer.LOOK_SECONDS = 0.0  # type: ignore[misc]
    thinning.MOST, thinning.FEWEST = 2_000, 500  # type: ignore[misc]
    for first in (0, 36, 72):
        await life(Path(sys.argv[1]) / "journal.db", first)


asyncio.run(main())
