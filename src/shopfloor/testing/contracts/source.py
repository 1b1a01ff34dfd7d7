"""What every source promises."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import ClassVar

import pytest

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Command, Outcome, Sample, Unavailable, Value
from shopfloor.seams import Source
from shopfloor.testing.contracts.values import same
from shopfloor.testing.contracts.waiting import Leftovers, until
from shopfloor.testing.faults import FaultProxy

_PLAUSIBLE = range(946_684_800 * 10**9, 4_102_444_800 * 10**9)
"""2000 to 2100 in ns: milliseconds or seconds taken for nanoseconds fall outside."""
_MINUTE = 60 * 10**9


class SourceRig(ABC):
    """A source with its other side, for one test."""

    def __init__(self, source: Source) -> None:
        """``source`` is built and not entered."""
        self.source = source

    @abstractmethod
    async def change(self) -> None:
        """Make the other side say something new: at least one sample follows."""

    @abstractmethod
    async def lose(self) -> None:
        """Take the other side away so that connections break and new ones are refused."""

    @abstractmethod
    async def restore(self) -> None:
        """Bring the other side back, after ``lose`` or ``freeze``."""

    async def freeze(self) -> bool:
        """Cut the cable without closing anything; False where the rig cannot."""
        return False

    def writable(self) -> tuple[str, Value] | None:
        """A tag that may be written and a value that it does not have; None for a source that only reads."""
        return None

    async def held(self, tag: str) -> Value:
        """What the other side holds for this tag, asked without the source."""
        raise NotImplementedError(tag)


class ProxiedRig(SourceRig):
    """A source whose connections go through a fault proxy, so that they can be broken."""

    def __init__(self, source: Source, proxy: FaultProxy) -> None:
        """``source`` connects to ``proxy.port``."""
        super().__init__(source)
        self.proxy = proxy

    async def lose(self) -> None:
        """Connections break, new ones are refused."""
        self.proxy.reset()

    async def freeze(self) -> bool:
        """Nothing arrives, nothing closes."""
        self.proxy.black_hole()
        return True

    async def restore(self) -> None:
        """Everything passes again."""
        self.proxy.heal()


class SourceContract(ABC):
    """Inherit it as ``class TestMySource(SourceContract)`` and give it a rig."""

    redelivers: ClassVar[bool] = False
    """Whether the other side gives again what was yielded and not acknowledged (MQTT QoS 1, Kafka, files)."""
    patience: ClassVar[float] = 60.0
    """Seconds after which the source must have noticed that the other side is away."""
    hasty: bool = False
    """Whether the test at hand takes the other side away: a rig may give the source a short timeout then.

    All others want a long one: on a busy machine the other side may need some seconds for an answer.
    """

    @abstractmethod
    def rig(self, folder: Path) -> AbstractAsyncContextManager[SourceRig]:
        """A source whose other side is there; ``folder`` is the test's own."""

    async def test_batches_have_equal_columns_and_times_in_ns(self, tmp_path: Path) -> None:
        """A batch holds at least one sample, values of the five types, int ns times, OPC qualities."""
        async with self.rig(tmp_path) as rig, rig.source:
            for batch in await self._some(rig, 3):
                assert len(batch) > 0
                assert batch.source
                assert batch.received in _PLAUSIBLE
                assert len(batch.tags) == len(batch.times) == len(batch.values) == len(batch.qualities)
                for sample in batch:
                    _check(sample)

    async def test_all_batches_come_from_one_source(self, tmp_path: Path) -> None:
        """The source's name in the plant file is on every batch: the ledger counts by it."""
        async with self.rig(tmp_path) as rig, rig.source:
            assert len({batch.source for batch in await self._some(rig, 3)}) == 1

    async def test_a_source_can_be_left_and_entered_again(self, tmp_path: Path) -> None:
        """The same object connects anew: that is how the pipeline comes back after a loss."""
        async with self.rig(tmp_path) as rig:
            for _ in range(3):
                async with rig.source:
                    assert await self._some(rig, 1)

    async def test_leaving_closes_everything(self, tmp_path: Path) -> None:
        """No task and no connection stays behind, whether batches were read, being read or never asked for."""
        async with self.rig(tmp_path) as rig:
            left = Leftovers()
            async with rig.source:
                pass
            await left.none()
            async with rig.source:
                await self._some(rig, 1)
            await left.none()

    async def test_cancelling_closes_everything(self, tmp_path: Path) -> None:
        """A task that reads batches ends at once when it is cancelled, and nothing stays behind."""
        async with self.rig(tmp_path) as rig:
            left = Leftovers()
            began = asyncio.Event()

            async def read() -> None:
                async with rig.source, aclosing(rig.source.batches()) as batches:
                    began.set()
                    async for _ in batches:
                        pass

            reading = asyncio.create_task(read())
            await until(lambda: began.is_set() or reading.done(), "it is entered", self.patience)
            if reading.done():
                reading.result()  # raises why it could not be
            await rig.change()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait_for(reading, self.patience)
            await left.none()

    async def test_unavailable_when_the_other_side_goes(self, tmp_path: Path) -> None:
        """A lost connection ends ``batches`` with Unavailable, entering fails with it, and later it works again."""
        self.hasty = True
        async with self.rig(tmp_path) as rig:
            await self._lost(rig, rig.lose)
            with pytest.raises(Unavailable):
                async with asyncio.timeout(self.patience), rig.source:
                    pytest.fail("the source was entered although the other side is away")
            await rig.restore()
            await self._back(rig)

    async def test_a_pulled_cable_is_noticed(self, tmp_path: Path) -> None:
        """When nothing arrives and nothing closes, ``batches`` raises Unavailable in time."""
        self.hasty = True
        async with self.rig(tmp_path) as rig:

            async def cut() -> None:
                if not await rig.freeze():
                    pytest.skip("this rig cannot cut a cable")

            await self._lost(rig, cut)
            await rig.restore()
            await self._back(rig)

    async def test_what_was_not_acknowledged_comes_again(self, tmp_path: Path) -> None:
        """A batch after whose ``yield`` the source was not resumed is not acknowledged."""
        if not self.redelivers:
            pytest.skip("the other side of this source does not keep what it sent")
        async with self.rig(tmp_path) as rig:
            async with rig.source, aclosing(rig.source.batches()) as batches:
                await rig.change()
                unacknowledged = await asyncio.wait_for(_samples(batches), self.patience)
            async with rig.source, aclosing(rig.source.batches()) as batches:
                again = await asyncio.wait_for(_samples(batches), self.patience)
            wanted = {(sample.tag, str(sample.value)) for sample in unacknowledged}
            assert wanted <= {(sample.tag, str(sample.value)) for sample in again}

    async def test_a_command_is_written_and_read_back(self, tmp_path: Path) -> None:
        """``done`` is True only when the other side holds the value."""
        async with self.rig(tmp_path) as rig, rig.source, self._reading(rig):
            tag, value = _writable(rig)
            outcome = await self._execute(rig, tag, value)
            assert outcome == Outcome("c1", done=True, detail=outcome.detail), outcome.detail
            assert same(await rig.held(tag), value)

    async def test_an_expired_command_is_never_written(self, tmp_path: Path) -> None:
        """The expiry is checked right before the write: ``done`` is False and the other side is untouched."""
        async with self.rig(tmp_path) as rig, rig.source, self._reading(rig):
            tag, value = _writable(rig)
            before = await rig.held(tag)
            outcome = await self._execute(rig, tag, value, expires=time_ns() - 1)
            assert outcome.done is False
            assert outcome.detail
            assert same(await rig.held(tag), before)

    async def test_an_unknown_tag_is_refused(self, tmp_path: Path) -> None:
        """Also a source that only reads answers with ``done`` False and a reason."""
        async with self.rig(tmp_path) as rig, rig.source, self._reading(rig):
            outcome = await self._execute(rig, "no/such/tag", 1)
            assert (outcome.command_id, outcome.done) == ("c1", False)
            assert outcome.detail

    async def test_a_value_of_the_wrong_type_is_refused(self, tmp_path: Path) -> None:
        """Bytes for a number are not written and the source lives on."""
        async with self.rig(tmp_path) as rig, rig.source, self._reading(rig):
            tag, value = _writable(rig)
            before = await rig.held(tag)
            outcome = await self._execute(rig, tag, b"\xff" if not isinstance(value, bytes) else 1)
            assert outcome.done is False
            assert same(await rig.held(tag), before)
            assert (await self._execute(rig, tag, value)).done is True

    async def test_a_command_to_an_other_side_that_is_away_is_not_called_done(self, tmp_path: Path) -> None:
        """It is refused or unknown, or Unavailable is raised; never True."""
        async with self.rig(tmp_path) as rig, rig.source:
            tag, value = _writable(rig)
            await rig.lose()
            with suppress(Unavailable):
                assert (await self._execute(rig, tag, value)).done is not True

    async def _execute(self, rig: SourceRig, tag: str, value: Value, expires: int | None = None) -> Outcome:
        command = Command("c1", tag, value, "test", time_ns() + _MINUTE if expires is None else expires)
        return await asyncio.wait_for(rig.source.execute(command), self.patience)

    async def _some(self, rig: SourceRig, number: int) -> list[Batch]:
        """This many batches, the other side saying something new all the time."""
        found: list[Batch] = []
        async with _talking(rig), aclosing(rig.source.batches()) as batches, asyncio.timeout(self.patience):
            async for batch in batches:
                found.append(batch)
                if len(found) == number:
                    break
        return found

    async def _lost(self, rig: SourceRig, lose: Callable[[], Awaitable[None]]) -> None:
        """Read until something came, lose the other side, and hear of it.

        Where the other side needs longer for the first than a hasty source waits, it is tried again, as the pipeline
        does; once it is taken away nothing is.
        """

        async def heard() -> bool:
            came = False
            try:
                async with rig.source, aclosing(rig.source.batches()) as batches:
                    await rig.change()
                    await asyncio.wait_for(anext(batches), self.patience)
                    came = True
                    await lose()
                    with pytest.raises(Unavailable) as lost:
                        await asyncio.wait_for(_exhausted(batches), self.patience)
                    assert str(lost.value)
            except Unavailable:
                if came:
                    raise
            return came

        await until(heard, "the source says that it lost the other side", self.patience)

    async def _back(self, rig: SourceRig) -> None:
        async def entered() -> bool:
            try:
                async with rig.source:
                    return bool(await self._some(rig, 1))
            except Unavailable:
                return False

        await until(entered, "the source yields again", self.patience)

    @asynccontextmanager
    async def _reading(self, rig: SourceRig) -> AsyncGenerator[None]:
        """Batches are taken beside commands, as in the pipeline."""

        async def read() -> None:
            async with aclosing(rig.source.batches()) as batches:
                async for _ in batches:
                    pass

        reading = asyncio.create_task(read())
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, Unavailable):
                await reading


async def _exhausted(batches: AsyncGenerator[Batch]) -> None:
    async for _ in batches:
        pass


async def _samples(batches: AsyncGenerator[Batch]) -> Batch:
    """The next batch that is not empty."""
    async for batch in batches:
        if len(batch):
            return batch
    pytest.fail("the source ended")


def _writable(rig: SourceRig) -> tuple[str, Value]:
    found = rig.writable()
    if found is None:
        pytest.skip("this source only reads")
    return found


@asynccontextmanager
async def _talking(rig: SourceRig) -> AsyncGenerator[None]:
    async def talk() -> None:
        while True:
            await rig.change()
            await asyncio.sleep(0.02)

    talking = asyncio.create_task(talk())
    try:
        yield
    finally:
        talking.cancel()
        with suppress(asyncio.CancelledError):
            await talking


def _check(sample: Sample) -> None:
    assert isinstance(sample.tag, str)
    assert sample.tag
    assert sample.time in _PLAUSIBLE
    assert sample.value is None or isinstance(sample.value, bool | int | float | str | bytes)
    assert not isinstance(sample.value, int) or INT_MIN <= sample.value <= INT_MAX
    assert 0 <= sample.quality <= 0xFFFF
    assert sample.server_time == 0 or sample.server_time in _PLAUSIBLE
