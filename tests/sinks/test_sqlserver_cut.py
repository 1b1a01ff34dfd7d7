"""The SQL Server sink when the line ends in mid-transaction: each sample is there once, wherever that was.

Microsoft's client, and a scripted server that keeps what was committed; with a real one: test_sqlserver_away.
"""

from collections.abc import Sequence

import pytest

from shopfloor.samples import Batch, Unavailable
from tests.sinks.sqlserver import NOW
from tests.sinks.tds_memory import Memory, Stored
from tests.sinks.test_sqlserver_trouble import config

Entries = Sequence[tuple[int, Batch]]


def group(number: int) -> Entries:
    """Two entries of the journal, with a tag that was not there before."""
    return [
        (offset, Batch("press", NOW, ["a", f"b{number}"], [NOW + offset] * 2, [offset, -offset]))
        for offset in (3 * number, 3 * number + 1)
    ]


def stored(entries: Entries) -> list[Stored]:
    return [Stored(offset, place, (offset, -offset)[place]) for offset, _ in entries for place in (0, 1)]


@pytest.mark.parametrize("late", [False, True])
async def test_a_line_that_is_cut_anywhere_in_a_transaction_costs_nothing_and_doubles_nothing(*, late: bool) -> None:
    """At each message: before the server has heard it, or when it has carried it out and nobody hears of that.

    So also at the commit. As the pipeline does, the sink is entered again and given what is behind its position.
    """
    cuts: list[str] = []
    expected: list[Stored] = []
    under_way: Entries = []
    async with Memory() as server:
        sink = config(server.port).build()
        whole = False
        while not whole:
            try:
                async with sink:
                    held = await sink.held()
                    await sink.write_many([entry for entry in under_way if entry[0] > held])
                    assert server.held.samples == expected, cuts[-1]
                    under_way = group(len(cuts))
                    expected += stored(under_way)
                    server.messages.clear()
                    server.end, server.late = len(cuts), late
                    await sink.write_many(under_way)
                    whole = server.end >= 0  # it has fewer messages
            except Unavailable:
                cuts.append(server.heard[-1])
        assert server.held.samples == expected
    assert len(cuts) > 10
    assert cuts.count("commit") >= 2, "the names of tags, then what is written"
