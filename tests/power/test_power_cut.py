"""The power fails at any moment: what was promised is on disk, in order, and nothing that nobody wrote.

No power is cut: what a process did to its files is recorded by strace, and disks are made of it that a power cut may
leave (`disk.py` says which). What the model cannot do is in docs/limits.md.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from shopfloor.commands.audit import Audit
from shopfloor.journal import SqliteJournal, balances
from shopfloor.sinks.files import FilesSinkConfig
from tests.power.disk import Cut, Disk, Inode, Write, put
from tests.power.recording import Replay, recorded
from tests.sinks.test_files import parquet

CUTS = int(os.environ.get("SHOPFLOOR_POWER_CUTS", "40"))
"""Moments of each process at which its power fails; a soak sets more."""
SEED = int(os.environ.get("SHOPFLOOR_POWER_SEED", "5"))
HERE = Path(__file__).parent


async def cut_and_look(
    script: str, tmp_path: Path, look: Callable[[Path, Sequence[str]], Awaitable[None]], *options: str
) -> int:
    """Run a script, cut its power at random moments, look at each disk; returns how many steps there were."""
    root = tmp_path / "written"
    root.mkdir()
    trace = await asyncio.to_thread(recorded, HERE / script, root, tmp_path / "trace", *options)
    steps = sum(1 for _ in Replay(trace, root).steps())
    chosen = random.Random(SEED)
    moments = sorted(chosen.choices(range(steps), k=CUTS))
    replay = Replay(trace, root)
    for step, _ in enumerate(replay.steps()):
        while moments and moments[0] == step:
            moments.pop(0)
            folder = tmp_path / f"left-{step}-{len(moments)}"
            folder.mkdir()
            put(replay.disk.after_power_cut(chosen), str(root), folder)
            try:
                await look(folder, replay.said)
            except Exception as error:
                error.add_note(f"power cut after step {step} of {steps}; the disk is {folder}")
                raise
    assert not moments
    return steps


def numbers(said: Sequence[str], word: str) -> list[list[int]]:
    return [[int(part) for part in line.split()[1:]] for line in said if line.startswith(f"{word} ")]


async def test_the_journal_has_what_it_said_is_durable(tmp_path: Path) -> None:
    """Entries, positions and the ledger; also while the WAL is carried over, entries are trimmed and thinned."""

    async def look(folder: Path, said: Sequence[str]) -> None:
        durable = {one[0]: one[1] for one in numbers(said, "durable")}
        submitted = {number for (number,) in numbers(said, "submitted")}
        committed = max((offset for (offset,) in numbers(said, "committed")), default=0)
        journal = await SqliteJournal.open(folder / "journal.db", 400_000)
        try:
            reader = await journal.reader("sink")
            if "open" in said:
                assert not journal.salvaged
            assert reader.position >= committed
            position, found = reader.position, dict[int, int]()
            end = position + reader.lag()[0]
            while position < end:
                for entry in await asyncio.wait_for(reader.read(), 60):
                    assert entry.offset > position
                    position = entry.offset
                    assert entry.batch is not None
                    if entry.source == "line":
                        assert entry.samples == 190
                        number = entry.batch.values[-1]
                        assert isinstance(number, int)
                        assert set(entry.batch.values) <= {*(float(number + i) for i in range(189)), number}
                        found[number] = entry.offset
            assert list(found.values()) == sorted(found.values())
            assert found.keys() <= submitted, "what nobody wrote"
            started = reader.position
            for number, offset in durable.items():
                assert offset <= started or found.get(number) == offset, f"{number} was durable, and is lost"
            assert not [pair for pair in balances(await journal.ledger()) if pair.missing]
        finally:
            await journal.close()

    steps = await cut_and_look("write_journal.py", tmp_path, look)
    assert steps > 500


async def test_the_audit_record_has_what_it_said_is_durable(tmp_path: Path) -> None:
    """The chain is whole, and as long as it was told to be."""
    assert await cut_and_look("write_audit.py", tmp_path, look_at_audit) > 50


async def look_at_audit(folder: Path, said: Sequence[str]) -> None:
    durable = len(numbers(said, "durable"))
    async with Audit(folder / "audit.db", time.time_ns) as audit:
        found = await audit.verify()
    assert found.intact, found.detail
    assert durable <= found.records <= durable + 1, "a record was durable, and is lost"


async def test_a_writer_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    """Else the model would find everything in order, always."""
    with pytest.raises(AssertionError, match="was durable, and is lost"):
        await cut_and_look("write_audit.py", tmp_path, look_at_audit, "careless")


async def test_files_hold_what_they_said_is_held(tmp_path: Path) -> None:
    """Each entry once, whether it was in the spool or in a file; no file is cut."""

    async def look(folder: Path, said: Sequence[str]) -> None:
        durable = max((offset for (offset,) in numbers(said, "durable")), default=0)
        options = {"name": "out", "folder": folder / "out", "partition": "none"}
        async with FilesSinkConfig.model_validate(options).build() as sink:
            held = max(await sink.held(), 0)
            await sink.finish()
        assert durable <= held <= durable + 1
        found = [sample.value for sample in parquet(folder / "out")]
        assert found == [offset * 10 + i for offset in range(1, held + 1) for i in range(10)]

    assert await cut_and_look("write_files.py", tmp_path, look) > 100


def test_the_model_loses_what_was_not_synced() -> None:
    """Else every disk would be as it was left, and nothing be shown."""
    disk, inode = Disk(), Inode()
    disk.name("a", inode)
    disk.sync_names()
    inode.pending.append(Write(0, b"x" * 1024))
    inode.sync()
    inode.pending += [Write(512, b"y" * 1024), Cut(100)]
    disk.rename("a", "b")
    left = [disk.after_power_cut(random.Random(seed)) for seed in range(2000)]
    assert {frozenset(one) for one in left} == {frozenset({"a"}), frozenset({"b"})}
    contents = {content for one in left for content in one.values()}
    x, y, sector = b"x" * 512, b"y" * 512, b"\0" * 512
    assert {x + x, x[:100], x + y + y, x + y, x + x + y} <= contents
    assert all(content[:100] == x[:100] for content in contents), "what was synced is there"
    assert sector not in contents
