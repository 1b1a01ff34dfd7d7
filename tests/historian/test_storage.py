"""What is written is found again: before and after compaction, after a restart, late, odd and much of it."""

import asyncio
import math
import shutil
import struct
import threading
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from shopfloor.historian import chunk
from shopfloor.historian.duck import DuckDbConfig
from shopfloor.historian.embedded import DuckDbHistorian
from shopfloor.historian.rows import Rows, encoded, of_batch
from shopfloor.plant import config_class
from shopfloor.samples import Batch, Quality, Rejected, Sample, Unavailable, Value
from shopfloor.testing.clocks import SECOND, instant
from shopfloor.testing.contracts.waiting import until

BEGIN = instant("2026-03-02T08:00:00Z")
HOUR = 3600 * SECOND
DAY = 24 * HOUR
EVER = (-(2**63), 2**63 - 1)

ODD: list[Value] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 0.0, -0.0, math.inf, -math.inf, 5e-324, 1.7e308,
    "", "Grüße 🏭", "\0", "\ud800", "x" * 1_000_000, b"", b"\x00\xff" * 100,
    struct.unpack("<d", b"\x01\0\0\0\0\0\xf0\x7f")[0],
]  # fmt: skip


EARLIER: list[Value] = [
    None, True, -1, 2**63, 2**64 - 1, -0.0, math.inf, math.nan, 0.1, "Grüße 🏭", "\ud800", b"\x00\xff", "x" * 5000, 17,
]  # fmt: skip


def store(folder: Path, generation: int = 2_000_000, keep: str = "90 d") -> DuckDbHistorian:
    return DuckDbHistorian(DuckDbConfig(path=folder / "h.duckdb", keep=keep), generation)


def bits(values: Sequence[Value]) -> list[object]:
    """Values that compare by type and bit."""
    return [(type(v).__name__, struct.pack("<d", v) if isinstance(v, float) else v) for v in values]


def series(tag: str, count: int, begin: int = BEGIN, step: int = SECOND) -> Batch:
    return Batch(
        "s", begin, [tag] * count, [begin + i * step for i in range(count)], [math.sin(i) for i in range(count)]
    )


async def test_every_value_survives_compaction_and_merging(tmp_path: Path) -> None:
    """Type and bits, NaN payloads and lone surrogates included, beside quality, status and server time."""
    samples = [
        Sample("m/x", BEGIN + i * SECOND, value, (i * 7) % 256, i * 2**27 % 2**32, BEGIN + i if i % 3 else 0)
        for i, value in enumerate(ODD)
    ]
    async with store(tmp_path) as historian:
        for i, part in enumerate((samples[:10], samples[10:])):
            await historian.write(i, Batch.of("s", BEGIN, part))
            found = [sample for _, sample in await historian.records("m/x", *EVER)]
            await historian.compact(BEGIN + 2 * DAY)
        for stage in ("segments", "merged"):
            found = [sample for _, sample in await historian.records("m/x", *EVER)]
            assert bits([s.value for s in found]) == bits([s.value for s in samples]), stage
            assert [(s.time, s.quality, s.status, s.server_time) for s in found] == [
                (s.time, s.quality, s.status, s.server_time) for s in samples
            ]
            await historian.compact(BEGIN + 2 * DAY)
        assert len(historian._database.stored) == 1
        assert bits((await historian.history("m/x", *EVER)).values) == bits([s.value for s in samples])


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(),
                  st.binary(max_size=50)),
        min_size=1, max_size=60,
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_any_chunk_decodes_to_what_was_encoded(values: list[Value], random: object) -> None:
    size = len(values)
    draw = random.getrandbits  # type: ignore[attr-defined]
    batch = Batch(
        "s", 0, ["t"] * size, [draw(63) - 2**62 for _ in values], values, [draw(8) for _ in values],
        statuses=[draw(32) for _ in values] if draw(1) else None,
        server_times=[draw(62) for _ in values] if draw(1) else None,
    )  # fmt: skip
    rows = of_batch(draw(40), batch)
    again = chunk.decode(chunk.encode(rows))
    for name in ("entry", "time", "kind", "bits", "quality", "status", "server"):
        assert np.array_equal(getattr(again, name), getattr(rows, name)), name
    assert bits(again.values()) == bits(values)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_chunk_are_damaged_and_nothing_else(content: bytes) -> None:
    with pytest.raises(chunk.Damaged):
        chunk.decode(content)


def test_values_of_subclasses_are_plain_values() -> None:
    """A source may give an IntEnum or NumPy's float, which is a float."""
    kinds, _, _ = encoded([Quality.GOOD, np.float64(1.5), np.str_("x")])
    assert kinds.tolist() == [2, 4, 5]


@pytest.mark.parametrize(
    ("value", "words"),
    [(2**64, "64 bits"), (-(2**63) - 1, "64 bits"), ([1], "list"), ({"a": 1}, "dict"), (1j, "complex")],
)
async def test_what_cannot_be_stored_is_refused_and_the_rest_is_taken(
    tmp_path: Path, value: object, words: str
) -> None:
    async with store(tmp_path) as historian:
        batch = Batch("s", BEGIN, ["m/x"] * 3, [BEGIN, BEGIN + 1, BEGIN + 2], [1, value, 2.0])  # type: ignore[list-item]
        with pytest.raises(Rejected, match=words) as refused:
            await historian.write_many([(1, series("m/y", 3)), (2, batch)])
        assert refused.value.indices == [1]
        await historian.write_many([(1, series("m/y", 3)), (2, batch.select([0, 2]))])
        assert list((await historian.history("m/x", *EVER)).values) == [1, 2.0]
        assert len((await historian.history("m/y", *EVER)).times) == 3


async def test_a_tag_name_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    async with store(tmp_path) as historian:
        with pytest.raises(Rejected, match="Unicode") as refused:
            await historian.write(1, Batch("s", BEGIN, ["ok", "\udfff", "ok"], [1, 2, 3], [1, 2, 3]))
        assert refused.value.indices == [1]


async def test_the_newest_of_each_tag_by_its_own_time(tmp_path: Path) -> None:
    """Late samples do not replace newer ones; of equal times the one that came last counts; restarts change nothing."""
    batches = [
        Batch("s", BEGIN, ["a", "b", "a", "c"], [20, 20, 10, 5], [1.0, "x", 2.0, None]),
        Batch("s", BEGIN, ["b", "a", "a"], [10, 20, 20], ["late", 3.0, 4], [192, 64, 0], statuses=[1, 2, 3],
              server_times=[4, 5, 6]),
    ]  # fmt: skip
    expected = [Sample("a", 20, 4, 0, 3, 6), Sample("b", 20, "x"), Sample("c", 5, None)]
    async with store(tmp_path) as historian:
        for offset, batch in enumerate(batches):
            await historian.write(offset, batch)
        assert await historian.latest() == expected
        assert await historian.latest(["c", "nothing", "a", "a"]) == [expected[2], expected[0]]
        assert await historian.tags() == ["a", "b", "c"]
    async with store(tmp_path) as historian:
        assert await historian.latest() == expected
        await historian.compact(BEGIN)
        assert await historian.latest() == expected
    async with store(tmp_path) as historian:
        assert await historian.latest() == expected
        await historian.write(7, Batch("s", BEGIN, ["b", "d"], [21, 1], [b"y", True]))
    async with store(tmp_path) as historian:
        assert [s.value for s in await historian.latest()] == [4, b"y", None, True]


async def test_history_is_cut_at_its_limit_and_says_so(tmp_path: Path) -> None:
    async with store(tmp_path, generation=300) as historian:
        for offset in range(10):
            await historian.write(offset, series("m/x", 100, BEGIN + offset * 100 * SECOND))
        for _ in range(2):
            whole = await historian.history("m/x", BEGIN, BEGIN + 1000 * SECOND)
            assert (len(whole.times), whole.truncated) == (1000, False)
            assert isinstance(whole.values, array)
            part = await historian.history("m/x", BEGIN + 50 * SECOND, BEGIN + 900 * SECOND, limit=333)
            assert (part.times, part.truncated) == (whole.times[50:383], True)
            exact = await historian.history("m/x", BEGIN, BEGIN + 333 * SECOND, limit=333)
            assert (len(exact.times), exact.truncated) == (333, False)
            await historian.compact(BEGIN + DAY)


async def test_late_rows_are_found_at_once_and_merged_later(tmp_path: Path) -> None:
    """Rows of an hour that was compacted long ago stand in their place, whatever holds them."""
    async with store(tmp_path) as historian:
        await historian.write(1, series("m/x", 1000, BEGIN, 2 * SECOND))
        await historian.compact(BEGIN + 3 * DAY)
        await historian.write(2, series("m/x", 1000, BEGIN + SECOND, 2 * SECOND))
        for expected in (1, 2, 1):
            assert len(historian._database.stored) == expected
            found = await historian.history("m/x", *EVER)
            assert found.times.tolist() == [BEGIN + i * SECOND for i in range(2000)]
            assert (await historian.aggregate("m/x", BEGIN, BEGIN + 2000 * SECOND, 2000 * SECOND, "count")).values[
                -1
            ] != 0
            if expected == 1:
                historian._database.turn()
                historian._start_compacting()
                await until(lambda: historian._database.closed() is None, "the generation is compacted")
            else:
                await historian.compact(BEGIN + 3 * DAY)


async def test_wrong_clocks_do_not_make_thousands_of_files(tmp_path: Path) -> None:
    """A device that gives times over five centuries costs one more file, and every row is found."""
    times = [(-180 + i % 400) * 365 * DAY // 2 + i for i in range(2000)]
    async with store(tmp_path) as historian:
        for offset in range(4):
            await historian.write(offset, Batch("s", BEGIN, ["m/x"] * 2000, [t + offset for t in times], [1.0] * 2000))
            await historian.compact(times[0])
        assert len(historian._database.stored) <= 4 * 33
        found = await historian.history("m/x", *EVER, limit=30_000)
        assert found.times.tolist() == sorted(t + offset for t in times for offset in range(4))


async def test_the_same_offset_counts_once_however_it_comes(tmp_path: Path) -> None:
    """Alone, in a group, after a restart, after compaction."""
    entries = [(offset, series(f"m/{offset % 3}", 10, BEGIN + offset * 10 * SECOND)) for offset in range(1, 30)]
    async with store(tmp_path, generation=50) as historian:
        assert await historian.held() < 1
        await historian.write_many(entries[:10])
        await historian.write_many(entries[5:20])
        await historian.write(*entries[0])
        assert await historian.held() == entries[19][0]
    async with store(tmp_path, generation=50) as historian:
        await historian.write_many(entries)
        await historian.compact(BEGIN + DAY)
        await historian.write_many(entries)
        assert (await historian.size()).rows == 290
    async with store(tmp_path, generation=50) as historian:
        assert await historian.held() == 29
        found = [offset for tag in await historian.tags() for offset, _ in await historian.records(tag, *EVER)]
        assert sorted(found) == sorted([offset for offset, _ in entries] * 10)


async def test_questions_are_answered_the_same_while_everything_moves(tmp_path: Path) -> None:
    """Writing, closing generations, compacting and merging never show a row twice or not at all."""
    async with store(tmp_path, generation=2000) as historian:

        async def ask() -> None:
            seen = 0
            while not done.is_set():
                found = await historian.history("m/x", *EVER, limit=10**6)
                assert found.times.tolist() == [BEGIN + i * SECOND for i in range(len(found.times))]
                assert len(found.times) >= seen
                seen = len(found.times)

        async def tidy() -> None:
            while not done.is_set():
                await historian.maintain(BEGIN + 3 * DAY)
                await asyncio.sleep(0)

        done = asyncio.Event()
        tasks = [asyncio.create_task(ask()), asyncio.create_task(ask()), asyncio.create_task(tidy())]
        try:
            for offset in range(150):
                await historian.write(offset, series("m/x", 200, BEGIN + offset * 200 * SECOND))
                assert not any(task.done() for task in tasks)
        finally:
            done.set()
        await asyncio.gather(*tasks)
        assert len((await historian.history("m/x", *EVER)).times) == 30_000


def noting(work: Callable[..., object], threads: set[int]) -> Callable[..., object]:
    """The work, noting on which thread it is done."""

    def noted(*arguments: object) -> object:
        threads.add(threading.get_ident())
        return work(*arguments)

    return noted


async def test_the_event_loop_goes_on_while_the_historian_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All work is done on other threads: none of it runs on the loop's."""
    async with store(tmp_path, generation=1000) as historian:
        here = threading.get_ident()
        used: set[int] = set()
        database = historian._database
        for name in ("write", "snapshot", "replace", "turn"):
            monkeypatch.setattr(database, name, noting(getattr(database, name), used))
        for offset in range(4):
            await historian.write(offset, series("m/x", 600, BEGIN + offset * 600 * SECOND))
        await historian.history("m/x", *EVER)
        await historian.size()
        await historian.compact(BEGIN + DAY)
        assert len(used) >= 3
        assert here not in used


async def test_old_generations_are_closed_by_age_so_that_a_slow_plant_is_compacted_too(tmp_path: Path) -> None:
    async with store(tmp_path) as historian:
        await historian.write(1, series("m/x", 100))
        await historian.maintain(BEGIN)
        await historian.maintain(BEGIN + 23 * HOUR)
        assert not historian._database.stored
        await historian.maintain(BEGIN + 25 * HOUR)
        assert len(historian._database.stored) == 1


async def test_a_closed_historian_says_that_it_is_not_open(tmp_path: Path) -> None:
    historian = store(tmp_path)
    for _ in range(2):
        with pytest.raises(Unavailable, match="not open"):
            await historian.latest()
        with pytest.raises(Unavailable, match="not open"):
            await historian.write(1, series("m/x", 1))
        async with historian:
            await historian.write(1, series("m/x", 1))


def test_its_type_is_found_and_its_options_are_checked() -> None:
    config = config_class("historians", "duckdb")
    assert config is DuckDbConfig
    made = DuckDbConfig.model_validate({"type": "duckdb", "keep": "30 d", "keep_size": "2 GB"})
    assert isinstance(made.build(), DuckDbHistorian)
    for wrong in (
        {"keep_size": "1 MB"},
        {"keep": "0 s"},
        {"threads": 0},
        {"memory": "1 MB"},
        {"paht": "x"},
        {"keep": 5},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DuckDbConfig.model_validate(wrong)


def test_no_rows_are_rows_too() -> None:
    assert len(Rows.joined([])) == 0
    assert list(Rows.empty().values()) == []


async def test_segments_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """``data/*.segment`` were written by the version that first had their format; they are never written anew."""
    for file in sorted((Path(__file__).parent / "data").glob("*.segment")):
        folder = tmp_path / file.stem
        (folder / "h.duckdb.segments").mkdir(parents=True)
        shutil.copy(file, folder / "h.duckdb.segments" / "0000000000000002-00000001-20514.segment")
        async with store(folder) as historian:
            assert await historian.tags() == ["m/odd", "m/walk"]
            odd = [sample for _, sample in await historian.records("m/odd", *EVER)]
            assert bits([s.value for s in odd]) == bits(EARLIER)
            assert [(s.time, s.quality, s.status, s.server_time) for s in odd] == [
                (BEGIN + i * SECOND, i * 9, i * 2**27, BEGIN + i if i % 2 else 0) for i in range(len(EARLIER))
            ]
            walk = await historian.history("m/walk", *EVER)
            assert walk.times.tolist() == [BEGIN + i * SECOND + i % 7 * 10**6 for i in range(2000)]
            assert list(walk.values) == [i * i % 977 / 100 for i in range(2000)]
