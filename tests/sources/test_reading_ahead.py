"""What waits for the journal: bounded, and joined without a change."""

import asyncio
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from shopfloor.samples import Batch, Quality, Value, column
from shopfloor.sources import reading_ahead
from shopfloor.sources.reading_ahead import ReadAhead, joined


def batch(*values: Value, statuses: Sequence[int] | None = None, at: int = 1) -> Batch:
    return Batch(
        "plc", at, [f"t{n}" for n in range(len(values))], [at] * len(values), column(list(values)),
        [Quality.GOOD if value is not None else Quality.BAD for value in values], statuses=statuses,
    )  # fmt: skip


VALUES = st.lists(st.one_of(st.floats(allow_nan=False), st.integers(-5, 5), st.text(max_size=2), st.none()), max_size=3)


@given(st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=4))
def test_joining_changes_no_sample(parts: list[tuple[list[Value], bool]]) -> None:
    batches = [
        batch(*values, statuses=[7] * len(values) if marked else None, at=n) for n, (values, marked) in enumerate(parts)
    ]
    whole = joined(batches)
    assert list(whole) == [sample for one in batches for sample in one]
    assert whole.received == len(parts) - 1


def test_columns_of_one_kind_stay_arrays() -> None:
    assert joined([batch(1.0), batch(2.0)]).values == array("d", [1.0, 2.0])
    assert joined([batch(1.0), batch(2)]).values == [1.0, 2]


@pytest.mark.parametrize("limit", ["MOST", "LONGEST"])
async def test_who_puts_too_much_waits(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many samples, or samples that wait for too long; nothing of them is lost."""
    monkeypatch.setattr(reading_ahead, limit, 2 if limit == "MOST" else 0)
    ahead = ReadAhead()
    await ahead.put(batch(1.0, 2.0))
    waiting = asyncio.create_task(ahead.put(batch(3.0)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    first = await ahead.take()
    await waiting
    second = await ahead.take()
    assert first is not None
    assert second is not None
    assert (list(first.values), list(second.values)) == ([1.0, 2.0], [3.0])


async def test_it_can_be_woken_with_nothing() -> None:
    ahead = ReadAhead()
    ahead.wake()
    assert await ahead.take() is None
