"""Which sources are connected: also what a crash left out is told."""

import itertools
from pathlib import Path

import pytest

from shopfloor.journal import SqliteJournal, Tally
from shopfloor.pipeline.presence import Presence
from shopfloor.samples import Batch
from shopfloor.testing.clocks import instant

SECOND = 10**9
BEGIN = instant("2026-01-05T06:00:00Z")
Said = tuple[str, int, object]


class Life:
    """One start of Shopfloor on a journal, ended by a crash: nothing is said at its end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.now = BEGIN

    async def live(self, *notes: tuple[str, bool], data: int = 0) -> list[Said]:
        """Recover, note these, receive something ``data`` seconds later, crash. What was journalled in it."""
        journal = await SqliteJournal.open(self.path)
        try:
            reader = await journal.reader("historian")
            presence = Presence(journal, lambda: self.now)
            await presence.recover()
            for name, connected in notes:
                self.now += SECOND
                await presence.note(name, connected=connected)
            if data:
                self.now += data * SECOND
                await journal.append(Batch("plc", self.now, ("a",), (self.now,), (1.0,)))
            entries = []
            with_something = bool(notes or data) or (await journal.state()).entries
            if with_something:
                entries = await reader.read()
                told = [Tally(e.offset, e.source, "delivered", e.samples, e.received) for e in entries]
                await reader.commit(entries[-1].offset, told)
            batches = [entry.batch for entry in entries if entry.batch is not None]
            return [(s.tag, s.time, s.value) for b in batches for s in b if s.tag.startswith("$source")]
        finally:
            await journal.close()


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


async def test_the_next_start_tells_what_a_crash_left_out(life: Life) -> None:
    """At the time when last something was received: of what came after, nobody knows."""
    first = await life.live(("plc", True), ("oven", True), ("oven", False), ("laser", True), data=60)
    assert len(first) == 4
    crashed = life.now
    life.now += 3600 * SECOND
    assert sorted(await life.live()) == [
        ("$source/laser/connected", crashed, False),
        ("$source/plc/connected", crashed, False),
    ]


async def test_it_is_told_once(life: Life) -> None:
    await life.live(("plc", True), data=1)
    assert len(await life.live()) == 1
    assert await life.live() == []


async def test_after_a_farewell_nothing_is_added(life: Life) -> None:
    await life.live(("plc", True), ("plc", False))
    assert await life.live() == []


async def test_a_crash_after_a_crash(life: Life) -> None:
    times = itertools.count(1)
    await life.live(("plc", True), data=next(times))
    again = await life.live(("plc", True), data=next(times))
    assert [value for _, _, value in again] == [False, True]
    assert [value for _, _, value in await life.live()] == [False]


async def test_a_first_start_has_nothing_to_tell(life: Life) -> None:
    assert await life.live() == []
