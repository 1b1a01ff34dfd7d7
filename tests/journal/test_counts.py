"""The ledger's rows come to an end, however many reasons there are and however often they come; its sums stay exact."""

from pathlib import Path

from shopfloor.journal import SqliteJournal, Tally, balances
from shopfloor.journal.counts import INTERVAL, INTERVALS, OTHER, REASONS
from shopfloor.samples import Batch

DISTANCE = 2 * INTERVAL
"""ns: each refusal begins an interval of its own."""


async def refuse(path: Path, reasons: list[str]) -> SqliteJournal:
    """A journal where a sample is refused for each reason, later and later."""
    journal = await SqliteJournal.open(path)
    sink = await journal.reader("sink")
    count = len(reasons)
    offset = await journal.append(Batch("line", 0, ["a"] * count, range(count), [1.0] * count))
    tallies = (Tally(offset, "line", "rejected", 1, at * DISTANCE, reason) for at, reason in enumerate(reasons))
    await sink.commit(offset, list(tallies))
    return journal


async def test_reasons_that_never_come_twice_are_summed_up(tmp_path: Path) -> None:
    """Also after a restart, and what had a row before keeps it."""
    many = 50
    for _ in range(2):
        journal = await refuse(tmp_path / "journal.db", [f"row {number}" for number in range(REASONS + many)])
        rows = [row for row in await journal.ledger() if row.outcome == "rejected"]
        assert not [pair for pair in balances(await journal.ledger()) if pair.missing]
        await journal.close()
    assert {row.reason for row in rows} == {*(f"row {number}" for number in range(REASONS)), OTHER}
    assert sum(row.samples for row in rows if row.reason == OTHER) == 2 * many
    assert max(row.last for row in rows if row.reason == OTHER) == (REASONS + many - 1) * DISTANCE


async def test_a_reason_that_comes_again_and_again_is_extended_in_the_end(tmp_path: Path) -> None:
    """A refusal each two minutes would be a quarter of a million rows a year."""
    journal = await refuse(tmp_path / "journal.db", ["no"] * (INTERVALS + 50))
    rows = [row for row in await journal.ledger() if row.outcome == "rejected"]
    assert (len(rows), sum(row.samples for row in rows)) == (INTERVALS, INTERVALS + 50)
    assert rows[-1].last == (INTERVALS + 49) * DISTANCE
    assert not [pair for pair in balances(await journal.ledger()) if pair.missing]
    await journal.close()


async def test_a_reader_that_is_forgotten_takes_all_its_rows_along(tmp_path: Path) -> None:
    """Also those of earlier intervals: one that comes back under its name would have more than it is owed."""
    journal = await refuse(tmp_path / "journal.db", ["no"] * 3)
    assert await journal.forget("sink")
    assert not [row for row in await journal.ledger() if row.reader]
    await journal.reader("sink")
    assert not [pair for pair in balances(await journal.ledger()) if pair.missing]
    await journal.close()
