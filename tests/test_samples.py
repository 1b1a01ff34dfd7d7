"""A batch is one thing with two faces: samples one by one, and columns of equal length."""

from array import array
from typing import Any

import pytest
from hypothesis import given, strategies as st

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Outcome, Quality, Rejected, Sample, TagInfo

TIMES = st.integers(-(2**63), 2**63 - 1)
VALUES = (
    st.none() | st.booleans() | st.integers(INT_MIN, INT_MAX) | st.floats(allow_nan=False) | st.text() | st.binary()
)
SAMPLES = st.builds(
    Sample,
    tag=st.text(min_size=1, max_size=20),
    time=TIMES,
    value=VALUES,
    quality=st.integers(0, 2**16 - 1),
    status=st.integers(0, 2**32 - 1),
    server_time=TIMES,
)


@given(st.lists(SAMPLES))
def test_a_batch_of_samples_iterates_as_those_samples(samples: list[Sample]) -> None:
    batch = Batch.of("plc-1", 7, samples)
    assert list(batch) == samples
    assert len(batch) == len(samples)
    assert [type(sample.value) for sample in batch] == [type(sample.value) for sample in samples]


@given(st.lists(SAMPLES))
def test_the_columns_are_the_samples_fields(samples: list[Sample]) -> None:
    batch = Batch.of("plc-1", 7, samples)
    assert list(batch.tags) == [sample.tag for sample in samples]
    assert list(batch.times) == [sample.time for sample in samples]
    assert list(batch.values) == [sample.value for sample in samples]
    assert list(batch.qualities) == [sample.quality for sample in samples]
    assert (batch.statuses is None) == (not any(sample.status for sample in samples))
    assert (batch.server_times is None) == (not any(sample.server_time for sample in samples))


@given(st.data(), st.lists(SAMPLES, max_size=10))
def test_selecting_is_picking_samples_in_that_order(data: st.DataObject, samples: list[Sample]) -> None:
    indices = data.draw(st.lists(st.sampled_from(range(len(samples))), unique=True) if samples else st.just([]))
    batch = Batch.of("plc-1", 7, samples)
    # As many indices as samples mean all of it, whatever their order.
    expected = samples if len(indices) == len(samples) else [samples[i] for i in indices]
    assert list(batch.select(indices)) == expected
    assert list(batch) == samples, "the batch itself stays as it is"


@given(st.lists(SAMPLES, min_size=1))
def test_selecting_keeps_where_it_came_from_and_which_columns_there_are(samples: list[Sample]) -> None:
    batch = Batch.of("plc-1", 7, samples)
    batch.lost_before = 3
    chosen = batch.select([0])
    assert (chosen.source, chosen.received) == ("plc-1", 7)
    assert (chosen.statuses is None) == (batch.statuses is None)
    assert (chosen.server_times is None) == (batch.server_times is None)
    assert chosen.lost_before == 3


@pytest.mark.parametrize("values", [array("d", [1.0, 2.0, 3.0]), array("q", [1, 2, 3]), [1, "a", None]])
def test_selecting_keeps_the_layout_of_the_values(values: Any) -> None:
    batch = Batch("plc-1", 7, ["a", "b", "c"], [1, 2, 3], values)
    chosen = batch.select([2, 0])
    assert type(chosen.values) is type(values)
    assert list(chosen.values) == [values[2], values[0]]
    assert getattr(chosen.values, "typecode", None) == getattr(values, "typecode", None)


def test_selecting_all_is_the_batch_itself() -> None:
    batch = Batch("plc-1", 7, ["a", "b"], [1, 2], [1.0, 2.0])
    assert batch.select([0, 1]) is batch


def test_an_empty_batch_is_a_batch() -> None:
    batch = Batch("plc-1", 7, [], [], [])
    assert list(batch) == []
    assert len(batch) == 0
    assert batch.select([]) is batch


def test_qualities_left_out_mean_all_good() -> None:
    batch = Batch("plc-1", 7, ["a", "b"], [1, 2], [1.0, 2.0])
    assert list(batch.qualities) == [Quality.GOOD, Quality.GOOD]
    assert all(sample.good for sample in batch)


@pytest.mark.parametrize(
    "wrong",
    [
        {"times": [1]},
        {"values": [1.0, 2.0, 3.0]},
        {"qualities": [192]},
        {"statuses": [0]},
        {"server_times": [0, 0, 0]},
        {"tags": []},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_columns_of_different_length_are_refused(wrong: dict[str, Any]) -> None:
    columns: dict[str, Any] = {"tags": ["a", "b"], "times": [1, 2], "values": [1.0, 2.0]} | wrong
    with pytest.raises(ValueError, match="the columns of a batch of 'plc-1' differ in length"):
        Batch("plc-1", 7, **columns)


def test_arrays_are_taken_as_they_are() -> None:
    """What a source has decoded into arrays is not copied again."""
    times, values = array("q", [1, 2]), array("d", [1.0, 2.0])
    batch = Batch("plc-1", 7, ["a", "b"], times, values)
    assert batch.times is times
    assert batch.values is values
    assert memoryview(values).format == "d"


@pytest.mark.parametrize(("quality", "good"), [(0, False), (64, False), (191, False), (192, True), (216, True)])
def test_good_is_192_and_above(quality: int, good: bool) -> None:  # noqa: FBT001  # a column of the table above
    assert Sample("a", 1, 2.0, quality).good is good


@given(SAMPLES)
def test_a_sample_cannot_be_changed(sample: Sample) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        sample.value = 0  # type: ignore[misc]  # that it is read-only is what this shows


def test_an_outcome_may_be_unknown() -> None:
    assert Outcome("1", done=None).done is None


def test_what_is_not_known_of_a_tag_is_empty() -> None:
    assert TagInfo("a") == TagInfo("a", "", "", "", "", None)


def test_rejected_says_why_and_which() -> None:
    error = Rejected("no such column", [1, 3])
    assert (str(error), error.reason, error.indices) == ("no such column", "no such column", [1, 3])
    assert Rejected("all of it").indices is None
    assert Rejected("all of it").why(2) == {"all of it": [0, 1]}
    each = Rejected.each({4: "b", 1: "a", 2: "b\ud800"})
    assert (str(each), each.indices) == ("b", [1, 2, 4])
    assert each.why(9) == {"a": [1], "b?": [2], "b": [4]}
