"""What every processor promises."""

import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from typing import ClassVar, NoReturn

import pytest

from shopfloor.samples import Batch, Sample
from shopfloor.seams import Processor
from shopfloor.testing.contracts.values import same_samples

_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime")


class ProcessorContract(ABC):
    """Inherit it as ``class TestMyProcessor(ProcessorContract)``; say how to build it and what to feed it."""

    splits: ClassVar[int] = 25
    """How many random splits are tried."""

    @abstractmethod
    def build(self) -> Processor:
        """A processor in its first state; the same configuration each time."""

    @abstractmethod
    def batches(self) -> Sequence[Batch]:
        """What it is fed: enough to make it give something, with bad values, gaps and late samples among it."""

    def test_it_gives_something(self) -> None:
        """The input of the other tests must move the processor, else they prove nothing."""
        assert _run(self.build(), self.batches())

    @pytest.mark.parametrize("seed", range(5))
    def test_any_split_into_batches_gives_the_same(self, seed: int) -> None:
        """How samples are cut into batches is chance; what follows from them is not."""
        expected = _run(self.build(), self.batches())
        chance = random.Random(seed)  # noqa: S311  # a test's own dice
        for _ in range(self.splits // 5):
            assert same_samples(_run(self.build(), _split(self.batches(), chance)), expected)

    def test_one_sample_a_batch_gives_the_same(self) -> None:
        """The finest split of all."""
        single = [batch.select([i]) if len(batch) > 1 else batch for batch in self.batches() for i in range(len(batch))]
        assert same_samples(_run(self.build(), single), _run(self.build(), self.batches()))

    def test_a_restart_in_the_middle_changes_nothing(self) -> None:
        """A new processor that takes up the snapshot goes on as if nothing had happened, wherever the cut is."""
        batches = self.batches()
        expected = _run(self.build(), batches)
        for cut in range(len(batches) + 1):
            before = self.build()
            output = _run(before, batches[:cut])
            after = self.build()
            after.restore(before.snapshot())
            assert same_samples(output + _run(after, batches[cut:]), expected), f"restarted before batch {cut}"

    def test_taking_a_snapshot_changes_nothing(self) -> None:
        """It has no effect on what follows, and a processor that takes it up gives the same snapshot."""
        watched, plain = self.build(), self.build()
        for batch in self.batches():
            assert same_samples(watched.process(batch), plain.process(batch))
            restored = self.build()
            restored.restore(watched.snapshot())
            assert restored.snapshot() == watched.snapshot()

    def test_no_wall_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It knows sample times only: reading a clock fails the test."""
        processor, batches = self.build(), self.batches()
        clocks = [getattr(time, clock) for clock in _CLOCKS]
        with monkeypatch.context() as without:
            for clock in _CLOCKS:
                without.setattr(time, clock, _no_clock)
            for module in _modules(processor):
                for name, thing in list(vars(module).items()):
                    if thing is datetime:
                        without.setattr(module, name, _NoClock)
                    elif any(thing is clock for clock in clocks):
                        without.setattr(module, name, _no_clock)
            output = _run(processor, batches)
        assert same_samples(output, _run(self.build(), batches))

    def test_output_is_stamped_with_time_that_was_seen(self) -> None:
        """No sample of the output is newer than the newest sample or clock tick of the input so far."""
        processor = self.build()
        newest: int | None = None
        for batch in self.batches():
            newest = max((time for time in (newest, *batch.times) if time is not None), default=None)
            for sample in processor.process(batch):
                assert newest is not None
                assert sample.time <= newest
                assert 0 <= sample.quality <= 0xFFFF

    def test_input_is_left_as_it_was(self) -> None:
        """Other readers of the journal share the batch."""
        batches = self.batches()
        before = [list(batch) for batch in batches]
        _run(self.build(), batches)
        assert all(same_samples(list(batch), samples) for batch, samples in zip(batches, before, strict=True))

    def test_an_empty_batch_gives_nothing(self) -> None:
        """Nothing seen, nothing said."""
        assert self.build().process(Batch("line", 0, [], [], [])) == []


def _run(processor: Processor, batches: Iterable[Batch]) -> list[Sample]:
    return [sample for batch in batches for sample in processor.process(batch)]


def _split(batches: Sequence[Batch], chance: random.Random) -> Iterator[Batch]:
    for source, received, samples in _runs(batches):
        left = samples
        while left:
            size = chance.randint(1, len(left))
            yield Batch.of(source, received, left[:size])
            left = left[size:]


def _runs(batches: Sequence[Batch]) -> list[tuple[str, int, list[Sample]]]:
    """Neighbouring batches of one source joined."""
    runs: list[tuple[str, int, list[Sample]]] = []
    for batch in batches:
        if runs and runs[-1][0] == batch.source:
            runs[-1][2].extend(batch)
        else:
            runs.append((batch.source, batch.received, list(batch)))
    return runs


def _modules(processor: Processor) -> list[object]:
    return [sys.modules[kind.__module__] for kind in type(processor).__mro__ if kind.__module__ != "builtins"]


def _no_clock(*_: object) -> NoReturn:
    raise AssertionError("a processor must not read a wall clock: use the times of samples or $clock/tick")


class _NoClock(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> NoReturn:
        _no_clock(tz)

    @classmethod
    def utcnow(cls) -> NoReturn:
        _no_clock()

    @classmethod
    def today(cls) -> NoReturn:
        _no_clock()
