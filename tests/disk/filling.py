"""Writes to a disk until it is full, goes on when there is room again, and looks whether all is there.

A script of its own, since it has a disk of its own (``small_disk``). What it asserts, the test that runs it asserts.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from shopfloor.commands import Audit, Entry, verify
from shopfloor.historian.base import Historian
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.sqlite import SqliteConfig
from shopfloor.journal import Reader, SqliteJournal, Tally, balances
from shopfloor.pipeline.selection import Selection
from shopfloor.samples import Batch, Unavailable, Value
from shopfloor.sinks.files import FilesSinkConfig

BEGIN = 1_767_592_800_000_000_000
EACH = 2000
SELECTION = Selection("sink", ["*"])
TRIES = 12
"""Times that it is asked of a full disk: each must say so, and harm nothing."""


def batch(number: int) -> Batch:
    """Floats that cannot be packed small; the first of them is the number."""
    values = [float(number), *(((number * EACH + i) * 7919 % 104_729) / 7 for i in range(1, EACH))]
    times = [BEGIN + number * 10**9 + i for i in range(EACH)]
    return Batch("line", BEGIN + number, ["a/x"] * EACH, times, values)


def fill(folder: Path) -> None:
    """Take all the room that is left."""
    with (folder / "ballast").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def free(folder: Path) -> None:
    """Give it back."""
    (folder / "ballast").unlink()


async def until_full(write: Callable[[int], Awaitable[object]], first: int) -> list[int]:
    """Write on until it has refused TRIES times; the numbers that were acknowledged."""
    kept: list[int] = []
    refused, number = 0, first
    while refused < TRIES:
        assert number < first + 20_000, "the disk was never full"
        try:
            await write(number)
            kept.append(number)
        except Unavailable:
            refused += 1
        number += 1
    return kept


async def again(write: Callable[[int], Awaitable[object]], first: int, count: int) -> list[int]:
    """There is room: it goes on, after a while at most."""
    async with asyncio.timeout(60):
        for number in range(first, first + count):
            while True:
                try:
                    await write(number)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
    return list(range(first, first + count))


# ---- the journal ------------------------------------------------------------------------------------------


async def journals(folder: Path) -> None:
    """With each policy, one after the other."""
    policies: Sequence[Literal["refuse", "oldest", "thin"]] = ("refuse", "oldest", "thin")
    for policy in policies:
        await journal(folder, policy)
        for file in folder.iterdir():
            file.unlink()


async def journal(folder: Path, policy: Literal["refuse", "oldest", "thin"]) -> None:
    """Others fill the disk; what was acknowledged is there, in order, once, and nothing else."""
    path = folder / "journal.db"
    record = await SqliteJournal.open(path, 10**9, policy)
    sink = await record.reader("sink")
    kept = await again(lambda n: record.append(batch(n)), 0, 50)
    fill(folder)
    kept += await until_full(lambda n: record.append(batch(n)), 1000)
    free(folder)
    kept += await again(lambda n: record.append(batch(n)), 50_000, 50)
    assert not [pair for pair in balances(await record.ledger()) if pair.missing]
    await record.close()
    record = await SqliteJournal.open(path, 10**9, policy)
    assert not record.salvaged, record.salvaged
    sink = await record.reader("sink")
    found: list[int] = []
    while len(found) < len(kept):
        for entry in await asyncio.wait_for(sink.read(), 60):
            assert entry.batch is not None
            assert list(entry.batch) == list(batch(int(float(str(entry.batch.values[0]))))), "bit by bit"
            found.append(int(float(str(entry.batch.values[0]))))
    assert found == kept
    await record.close()
    sound(path)


async def itself(folder: Path) -> None:
    """The journal fills the disk, `keep` is larger: the policy holds all the same, and nobody has to come."""
    policies: Sequence[Literal["refuse", "oldest"]] = ("refuse", "oldest")
    for policy in policies:
        await fills(folder, policy)
        for file in folder.iterdir():
            file.unlink()


async def fills(folder: Path, policy: Literal["refuse", "oldest"]) -> None:
    path = folder / "journal.db"
    record = await SqliteJournal.open(path, 10**10, policy)
    sink = await record.reader("sink")
    waits: asyncio.Future[int] | None = None
    given: list[int] = []
    for number in range(1600):  # more than the disk holds
        done = record.append(batch(number))
        given.append(number)
        while not (await asyncio.wait({done}, timeout=1))[0] and not (await record.state()).full:
            pass
        if not done.done():
            waits = done
            break
        done.result()  # none is refused
    state = await record.state()
    assert state.full == (waits is not None) == (policy == "refuse")
    assert state.keep < 10**9, "what the disk has room for"
    assert (state.dropped == 0) == (policy == "refuse")

    async with asyncio.timeout(60):
        tallies: list[Tally] = []
        found = await taken(sink, tallies)
        if waits is not None:
            await waits  # what was read made room
        given += await again(lambda n: record.append(batch(n)), 50_000, 50)
        found += await taken(sink, tallies)
    rows = await record.ledger()
    assert not [pair for pair in balances(rows) if pair.missing]
    lost = sum(row.samples for row in rows if row.outcome == "dropped" and row.source == "line")
    assert len(given) * EACH - lost == len(found)
    due = iter(value for number in given for value in batch(number).values)
    assert all(any(one == other for other in due) for one in found), "in order, nothing else"
    assert lost or policy != "oldest"
    await record.close()
    sound(path)


async def taken(sink: Reader, tallies: list[Tally]) -> list[Value]:
    """All values that wait, as a sink takes them."""
    found: list[Value] = []
    while sink.lag()[0]:
        entries = await sink.read()
        for entry in entries:
            kept = SELECTION.take(entry, tallies)
            if kept is not None:
                tallies.append(Tally(entry.offset, entry.source, "delivered", len(kept), entry.received))
                found += kept.values if kept.source == "line" else []
        await sink.commit(entries[-1].offset, tallies)
        tallies.clear()
    return found


def sound(path: Path) -> None:
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


# ---- the audit record -------------------------------------------------------------------------------------


async def audit(folder: Path) -> None:
    """What cannot be recorded is refused; the chain has what was acknowledged, whole."""
    path = folder / "audit.db"
    async with Audit(path, lambda: BEGIN) as record:

        async def write(number: int) -> None:
            await record.append(Entry("control", "ada", "operator", detail=f"{number} " + "x" * 900))

        kept = await again(write, 0, 20)
        fill(folder)
        kept += await until_full(write, 1000)
        free(folder)
        kept += await again(write, 50_000, 20)
        held = [int(one.detail.split()[0]) for one in reversed(await record.records(limit=10**6))]
    assert held == kept
    found = verify(path)
    assert found.intact, found
    assert found.records == len(kept)
    sound(path)


# ---- the files sink ---------------------------------------------------------------------------------------


async def files(folder: Path) -> None:
    """As the pipeline does: it leaves, comes back, and goes on behind what the sink holds."""
    config = FilesSinkConfig.model_validate(
        {"name": "lake", "folder": folder / "out", "partition": "none", "rotate_size": "1 MB"}
    )
    refused, full = 0, False
    for _ in range(TRIES):
        try:
            async with config.build() as sink:
                for offset in range((await sink.held() or 0) + 1, 151):
                    if offset == 75 and not full:
                        fill(folder)
                        full = True
                    await sink.write(offset, batch(offset))
                await sink.finish()
            break
        except Unavailable:
            refused += 1
            if refused == 4:
                free(folder)
    else:
        raise AssertionError("it does not come back")
    assert refused >= 4
    values: list[object] = []
    for path in sorted((folder / "out").glob("**/*.parquet"), key=lambda path: int(path.stem.split("-")[-1])):
        values += pq.read_table(path, partitioning=None)["value"].to_pylist()
    assert values == [value for offset in range(1, 151) for value in batch(offset).values]


# ---- the embedded historian -------------------------------------------------------------------------------


async def historian(folder: Path, config: Any) -> None:
    """The same: what it holds is whole, and all is there in the end, once."""
    refused, full = 0, False
    for _ in range(TRIES):
        try:
            async with config.build() as store:
                assert isinstance(store, Historian)
                for offset in range(max(await store.held() or 0, 0) + 1, 101):
                    if offset == 50 and not full:
                        fill(folder)
                        full = True
                    await store.write_many([(offset, batch(offset))])
                    if offset % 20 == 0:
                        await store.maintain(BEGIN)
                series = await store.history("a/x", 0, 2**62, limit=10**6)
                held = list(zip(series.times, series.values, strict=True))
                due = [(one.time, one.value) for offset in range(1, 101) for one in batch(offset)]
                assert held == due, f"{len(held)} beside {len(due)}"
            break
        except Unavailable:
            refused += 1
            if refused == 4:
                free(folder)
    else:
        raise AssertionError("it does not come back")
    assert refused >= 4


SCENES: dict[str, Callable[[Path], Coroutine[Any, Any, None]]] = {
    "journals": journals,
    "itself": itself,
    "audit": audit,
    "files": files,
    "duckdb": lambda folder: historian(folder, DuckDbConfig(path=folder / "h.duckdb")),
    "sqlite": lambda folder: historian(folder, SqliteConfig(path=folder / "h.db")),
}

if __name__ == "__main__":
    asyncio.run(SCENES[sys.argv[1]](Path(sys.argv[2])))
