"""What every sink promises."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import ClassVar

import pytest

from shopfloor.samples import Batch, Quality, Rejected, Sample, Unavailable, Value
from shopfloor.seams import Sink
from shopfloor.testing.contracts.values import EVERY_VALUE, same_samples
from shopfloor.testing.contracts.waiting import Leftovers, until

_BEGIN = 1_767_592_800_123_456_789
_STEP = 1_000_003


class SinkRig(ABC):
    """A sink with its other side, for one test."""

    def __init__(self, sink: Sink) -> None:
        """``sink`` is built and not entered."""
        self.sink = sink

    @abstractmethod
    async def content(self) -> Sequence[Sample]:
        """Every sample that the other side holds, each tag's in the order of its times or of arrival."""

    @abstractmethod
    async def lose(self) -> None:
        """Take the other side away so that connections break and new ones are refused."""

    @abstractmethod
    async def restore(self) -> None:
        """Bring the other side back, after ``lose`` or ``freeze``."""

    async def freeze(self) -> bool:
        """Cut the cable without closing anything; False where the rig cannot."""
        return False

    def rejected(self) -> tuple[Batch, set[int]] | None:
        """A batch that the sink refuses in part, and the indices of what it refuses; None if it takes everything."""
        return None


class SinkContract(ABC):
    """Inherit it as ``class TestMySink(SinkContract)`` and give it a rig."""

    exactly_once: ClassVar[bool] = False
    """Whether the same offset twice counts once."""
    keeps: ClassVar[frozenset[str]] = frozenset(EVERY_VALUE)
    """The names in EVERY_VALUE that the other side can hold without loss."""
    patience: ClassVar[float] = 60.0
    """Seconds after which the sink must have noticed that the other side is away."""
    hasty: bool = False
    """Whether the test at hand takes the other side away: a rig may give the sink a short timeout then.

    All others want a long one: on a busy machine the other side may need some seconds for an answer.
    """

    @abstractmethod
    def rig(self, folder: Path) -> AbstractAsyncContextManager[SinkRig]:
        """A sink whose other side is empty; ``folder`` is the test's own."""

    async def test_returning_from_write_means_held(self, tmp_path: Path) -> None:
        """Once write returns the other side holds every sample: no flush and no leaving is needed."""
        async with self.rig(tmp_path) as rig, rig.sink:
            batch = _series("a/x", 50)
            await rig.sink.write(1, batch)
            await _holds(rig, list(batch))

    async def test_a_tag_keeps_its_order(self, tmp_path: Path) -> None:
        """Samples of one tag arrive in the order in which they were written, over all batches."""
        async with self.rig(tmp_path) as rig, rig.sink:
            times = count(_BEGIN, _STEP)
            batches = [
                Batch.of("line", _BEGIN, [Sample(f"m{i % 3}/v", next(times), float(i)) for i in range(60)])
                for _ in range(5)
            ]
            for offset, batch in enumerate(batches, 1):
                await rig.sink.write(offset, batch)
            await _holds(rig, [sample for batch in batches for sample in batch])

    @pytest.mark.parametrize("kind", EVERY_VALUE)
    async def test_every_value_survives(self, kind: str, tmp_path: Path) -> None:
        """A value comes back with its type and to the bit, whatever stands beside it in the batch."""
        if kind not in self.keeps:
            pytest.skip(f"the other side cannot hold {kind}: its page says so")
        async with self.rig(tmp_path) as rig, rig.sink:
            samples = [Sample("a/odd", _BEGIN, EVERY_VALUE[kind]), Sample("a/usual", _BEGIN, 1.5)]
            await rig.sink.write(1, Batch.of("line", _BEGIN, samples))
            await _holds(rig, samples)

    async def test_a_tag_may_change_its_type(self, tmp_path: Path) -> None:
        """A PLC programmer turns an integer into text overnight: both are kept."""
        async with self.rig(tmp_path) as rig, rig.sink:
            values: list[Value] = [1, 1.0, True, "one", None]
            samples = [Sample("a/x", _BEGIN + i * _STEP, value) for i, value in enumerate(values)]
            for offset, sample in enumerate(samples, 1):
                await rig.sink.write(offset, Batch.of("line", _BEGIN, [sample]))
            await _holds(rig, samples)

    async def test_quality_survives(self, tmp_path: Path) -> None:
        """Bad and uncertain samples are kept with their quality, not dropped and not turned good."""
        async with self.rig(tmp_path) as rig, rig.sink:
            qualities = [Quality.GOOD, Quality.BAD, Quality.UNCERTAIN, Quality.COMMUNICATION_FAILURE, 216, 255]
            samples = [Sample("a/x", _BEGIN + i * _STEP, float(i), quality) for i, quality in enumerate(qualities)]
            await rig.sink.write(1, Batch.of("line", _BEGIN, samples))
            await _holds(rig, samples)

    async def test_the_same_offset_twice(self, tmp_path: Path) -> None:
        """After a crash the pipeline writes an offset again: it counts once if promised, and is there in any case."""
        async with self.rig(tmp_path) as rig:
            batch = _series("a/x", 20)
            async with rig.sink:
                await rig.sink.write(7, batch)
            async with rig.sink:
                await rig.sink.write(7, batch)
                await rig.sink.write(8, _series("a/y", 1))
                if self.exactly_once:
                    await _holds(rig, [*batch, *_series("a/y", 1)])
                else:
                    await _holds_at_least(rig, [*batch, *_series("a/y", 1)])

    async def test_a_sink_that_names_its_position_names_the_last_written(self, tmp_path: Path) -> None:
        """``held`` is None, or the offset behind which the pipeline may go on, also after leaving."""
        async with self.rig(tmp_path) as rig:
            async with rig.sink:
                keeps_a_position = await rig.sink.held() is not None
                await rig.sink.write(5, _series("a/x", 3))
                held = await rig.sink.held()
                assert held in (None, 5)
                assert held is not None or not keeps_a_position
            async with rig.sink:
                assert await rig.sink.held() == held

    async def test_several_batches_at_once_are_the_same_as_one_by_one(self, tmp_path: Path) -> None:
        """``write_many`` holds every batch, in order."""
        async with self.rig(tmp_path) as rig, rig.sink:
            entries = [(offset, _series("a/x", 30, _BEGIN + offset * 10**9)) for offset in range(1, 8)]
            await rig.sink.write_many(entries)
            await _holds(rig, [sample for _, batch in entries for sample in batch])

    async def test_an_empty_batch_is_taken(self, tmp_path: Path) -> None:
        """Nothing to write is no error."""
        async with self.rig(tmp_path) as rig, rig.sink:
            await rig.sink.write(1, Batch("line", _BEGIN, [], [], []))
            await rig.sink.write_many([])
            await _holds(rig, [])

    async def test_rejected_holds_nothing(self, tmp_path: Path) -> None:
        """Rejected names what will never be taken; nothing of the batch is held, the rest is taken afterwards."""
        async with self.rig(tmp_path) as rig:
            refusal = rig.rejected()
            if refusal is None:
                pytest.skip("this sink takes every value")
            batch, expected = refusal
            async with rig.sink:
                with pytest.raises(Rejected) as refused:
                    await rig.sink.write(1, batch)
                indices = range(len(batch)) if refused.value.indices is None else refused.value.indices
                assert set(indices) == expected
                assert refused.value.reason
                await _holds(rig, [])
                rest = batch.select([i for i in range(len(batch)) if i not in expected])
                await rig.sink.write(1, rest)
                await _holds(rig, list(rest))

    async def test_losing_the_other_side_is_said_and_nothing_is_lost(self, tmp_path: Path) -> None:
        """A write that cannot be held raises Unavailable; after leaving and entering again the same batch arrives."""
        self.hasty = True
        async with self.rig(tmp_path) as rig:
            first, second = _series("a/x", 20), _series("a/x", 20, _BEGIN + 10**9)
            async with self._written(rig.sink, 1, first):
                await rig.lose()
                with pytest.raises(Unavailable) as lost:
                    await asyncio.wait_for(rig.sink.write(2, second), self.patience)
                assert str(lost.value)
            with pytest.raises(Unavailable):
                async with asyncio.timeout(self.patience), rig.sink:
                    pytest.fail("the sink was entered although the other side is away")
            await rig.restore()
            async with self._written(rig.sink, 2, second):
                await _holds_at_least(rig, [*first, *second], exactly=self.exactly_once)

    async def test_a_loss_is_noticed_while_nothing_is_written(self, tmp_path: Path) -> None:
        """``lost`` waits while the connection is there and raises Unavailable when it breaks, each time anew."""
        self.hasty = True
        async with self.rig(tmp_path) as rig:
            if type(rig.sink).lost is Sink.lost:
                pytest.skip("this sink learns of a loss by its next write")
            async with self._written(rig.sink, 1, _series("a/x", 5)):
                await self._loses(rig)
            await rig.restore()
            async with self._written(rig.sink, 2, _series("a/x", 5, _BEGIN + 10**9)):
                await self._loses(rig)

    async def _loses(self, rig: SinkRig) -> None:
        losing = asyncio.create_task(rig.sink.lost())
        try:
            await rig.sink.write(3, Batch("line", _BEGIN, [], [], []))
            await asyncio.wait({losing}, timeout=0.1)
            assert not losing.done(), "it says that a connection is lost which is there"
            await rig.lose()
            with pytest.raises(Unavailable) as lost:
                await asyncio.wait_for(losing, self.patience)
            assert str(lost.value)
        finally:
            losing.cancel()
            await asyncio.wait({losing})

    async def test_a_pulled_cable_is_noticed(self, tmp_path: Path) -> None:
        """When nothing answers and nothing closes, write raises Unavailable in time instead of waiting for ever."""
        self.hasty = True
        async with self.rig(tmp_path) as rig:
            batch = _series("a/x", 20)
            async with self._written(rig.sink, 1, batch):
                if not await rig.freeze():
                    pytest.skip("this rig cannot cut a cable")
                with pytest.raises(Unavailable):
                    await asyncio.wait_for(rig.sink.write(2, _series("a/y", 5)), self.patience)
            await rig.restore()
            async with self._written(rig.sink, 2, _series("a/y", 5)):
                await _holds_at_least(rig, [*batch, *_series("a/y", 5)], exactly=self.exactly_once)

    async def test_leaving_closes_everything(self, tmp_path: Path) -> None:
        """No task and no connection stays behind, not even when a write was cancelled half-way."""
        async with self.rig(tmp_path) as rig:
            left = Leftovers()
            async with rig.sink:
                await rig.sink.write(1, _series("a/x", 5))
            await left.none()
            async with rig.sink:
                cut = await rig.freeze()
                writing = asyncio.create_task(rig.sink.write(2, _series("a/x", 2000)))
                await asyncio.sleep(0)
                writing.cancel()
                with suppress(asyncio.CancelledError, Unavailable):
                    await writing
            if cut:
                await rig.restore()
            await left.none()

    @asynccontextmanager
    async def _written(self, sink: Sink, offset: int, batch: Batch) -> AsyncGenerator[None]:
        """Enter and write again and again, as the pipeline does, until the batch is held.

        The other side may still be coming back, or need longer than a hasty sink waits.
        """

        async def held() -> bool:
            try:
                await sink.__aenter__()
                await sink.write(offset, batch)
            except Unavailable as away:
                await sink.__aexit__(type(away), away, away.__traceback__)
                return False
            return True

        await until(held, "the sink can be entered and holds a batch", self.patience)
        try:
            yield
        finally:
            await sink.__aexit__(None, None, None)


def _series(tag: str, length: int, begin: int = _BEGIN) -> Batch:
    return Batch.of("line", begin, [Sample(tag, begin + i * _STEP, math.sin(i)) for i in range(length)])


def _by_tag(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    tags: dict[str, list[Sample]] = {}
    for sample in samples:
        tags.setdefault(sample.tag, []).append(sample)
    return tags


async def _holds(rig: SinkRig, expected: Sequence[Sample]) -> None:
    """The other side holds exactly this, each tag in this order; observers over a network get a moment."""
    wanted = _by_tag(expected)

    async def arrived() -> bool:
        return len(await rig.content()) >= len(expected)

    await until(arrived, f"the other side holds {len(expected)} samples")
    found = _by_tag(await rig.content())
    assert found.keys() == wanted.keys()
    for tag, samples in wanted.items():
        assert same_samples(found[tag], samples), f"{tag}: {_short(found[tag])} instead of {_short(samples)}"


async def _holds_at_least(rig: SinkRig, expected: Sequence[Sample], *, exactly: bool = False) -> None:
    if exactly:
        await _holds(rig, expected)
        return
    wanted = {(sample.tag, sample.time) for sample in expected}

    async def arrived() -> bool:
        return wanted <= {(sample.tag, sample.time) for sample in await rig.content()}

    await until(arrived, f"the other side holds {len(wanted)} samples")


def _short(samples: Sequence[Sample]) -> str:
    return str(samples)[:400]
