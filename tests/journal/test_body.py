"""An entry's body keeps every batch to the bit and notices every change."""

import math
from array import array

import pytest
from hypothesis import given, strategies as st

from shopfloor.journal import body
from shopfloor.samples import Batch, Value

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary(max_size=50)
)
TIMES = st.integers(-(2**63), 2**63 - 1)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    kind = draw(st.sampled_from([VALUES, st.floats(), st.integers(-(2**63), 2**63 - 1)]))
    rows = draw(st.lists(st.tuples(st.sampled_from("abc"), TIMES, kind, st.integers(0, 65535)), max_size=8))
    statuses = draw(st.none() | st.lists(st.integers(0, 2**32 - 1), min_size=len(rows), max_size=len(rows)))
    server_times = draw(st.none() | st.lists(TIMES, min_size=len(rows), max_size=len(rows)))
    return Batch(
        "line",
        draw(TIMES),
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
        statuses=statuses,
        server_times=server_times,
        lost_before=draw(st.integers(0, 2**32 - 1)),
    )


def exactly(value: Value) -> tuple[type, object]:
    return type(value), math.copysign(1, value) if isinstance(value, float) and value == 0 else repr(value)


@given(batches())
def test_a_batch_comes_back_to_the_bit(batch: Batch) -> None:
    stored = sealed(batch)
    found = body.decode(bytes(stored), 7, 3, "line", "abc".__getitem__)
    assert list(found.tags) == list(batch.tags)
    assert found.times == batch.times
    assert list(map(exactly, found.values)) == list(map(exactly, batch.values))
    assert found.qualities == batch.qualities
    assert found.statuses == batch.statuses
    assert found.server_times == batch.server_times
    assert (found.received, found.lost_before) == (batch.received, batch.lost_before)


def test_every_changed_byte_is_noticed() -> None:
    stored = sealed(Batch("line", 5, ["a", "b"], [1, 2], [1.5, "text"], statuses=[0, 9]))
    for at in range(len(stored)):
        changed = bytearray(stored)
        changed[at] ^= 0x10
        with pytest.raises(body.Damaged):
            body.decode(bytes(changed), 7, 3, "line", "abc".__getitem__)


def test_every_cut_is_noticed() -> None:
    stored = sealed(Batch("line", 5, ["a", "b"], [1, 2], [1.5, 2.5]))
    for size in range(len(stored)):
        with pytest.raises(body.Damaged):
            body.decode(bytes(stored[:size]), 7, 3, "line", "abc".__getitem__)


@pytest.mark.parametrize(("offset", "source"), [(8, 3), (7, 4)])
def test_an_entry_in_the_place_of_another_is_noticed(offset: int, source: int) -> None:
    with pytest.raises(body.Damaged):
        body.decode(bytes(sealed(Batch("line", 5, ["a"], [1], [1.5]))), offset, source, "line", "abc".__getitem__)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800"])
def test_what_no_column_can_hold_is_refused(value: Value) -> None:
    with pytest.raises(ValueError, match="stored"):
        sealed(Batch("line", 5, ["a"], [1], [value]))


def sealed(batch: Batch) -> bytearray:
    return body.encode(batch, array("I", ["abc".index(tag) for tag in batch.tags])).seal(7, 3)
