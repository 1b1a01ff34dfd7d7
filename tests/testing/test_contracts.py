"""The contracts let pass what keeps the rules and catch what breaks them."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from shopfloor.samples import Batch, Command, Outcome, Rejected, Sample, Unavailable, Value
from shopfloor.seams import Processor, Sink, Source
from shopfloor.testing.contracts import (
    Leftovers,
    ProcessorContract,
    SinkContract,
    SinkRig,
    SourceContract,
    SourceRig,
    same,
    until,
)

BROKEN = (AssertionError, pytest.fail.Exception, TimeoutError)
"""How a contract says that a rule was broken."""


# ---- a sink into memory ---------------------------------------------------------------------------------


class Memory:
    """The other side."""

    def __init__(self) -> None:
        self.offsets: set[int] = set()
        self.held: list[Sample] = []
        self.away = False
        self.lost = asyncio.Event()


class MemorySink(Sink):
    """Keeps every rule."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.entered = False

    async def __aenter__(self) -> Self:
        if self.memory.away:
            raise Unavailable("the memory is away")
        self.entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.entered = False

    async def held(self) -> int | None:
        return max(self.memory.offsets, default=None)

    async def write(self, offset: int, batch: Batch) -> None:
        if self.memory.away or not self.entered:
            raise Unavailable("the memory is away")
        unfit = [i for i, sample in enumerate(batch) if sample.value == "unfit"]
        if unfit:
            raise Rejected("unfit", unfit)
        if offset not in self.memory.offsets:
            self.memory.offsets.add(offset)
            self.memory.held.extend(batch)


class MemorySinkRig(SinkRig):
    def __init__(self, kind: type[MemorySink]) -> None:
        self.memory = Memory()
        super().__init__(kind(self.memory))

    async def content(self) -> Sequence[Sample]:
        return self.memory.held

    async def lose(self) -> None:
        self.memory.away = True
        self.memory.lost.set()

    async def restore(self) -> None:
        self.memory.away = False
        self.memory.lost.clear()

    async def freeze(self) -> bool:
        self.memory.away = True
        return True

    def rejected(self) -> tuple[Batch, set[int]] | None:
        return Batch("line", 1, ["a", "b"], [1, 1], [1.0, "unfit"]), {1}


class TestMemorySink(SinkContract):
    exactly_once = True
    patience = 2.0
    kind: type[MemorySink] = MemorySink

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SinkRig]:  # noqa: ARG002  # memory needs no folder
        yield MemorySinkRig(self.kind)


class TellingSink(MemorySink):
    """Notices a loss by itself."""

    async def lost(self) -> None:
        await self.memory.lost.wait()
        raise Unavailable("the memory is away")


class TestTellingSink(TestMemorySink):
    kind = TellingSink


class TellsNothing(MemorySink):
    async def lost(self) -> None:
        await asyncio.Event().wait()


class CriesWolf(MemorySink):
    async def lost(self) -> None:
        raise Unavailable("the memory is away")


class Forgets(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        await super().write(offset, batch.select(range(len(batch) - 1)) if len(batch) else batch)


class Reorders(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        await super().write(offset, Batch.of(batch.source, batch.received, reversed(list(batch))))


class CountsTwice(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        self.memory.offsets.discard(offset)
        await super().write(offset, batch)


class RoundsIntegers(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        values = [float(value) if isinstance(value, int) else value for value in batch.values]
        await super().write(offset, Batch("line", 1, batch.tags, batch.times, values, batch.qualities))


class CallsAllGood(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        await super().write(offset, Batch("line", 1, batch.tags, batch.times, batch.values))


class HoldsHalf(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        if "unfit" in batch.values:
            self.memory.held.append(next(iter(batch)))
        await super().write(offset, batch)


class HidesLoss(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        if not self.memory.away:
            await super().write(offset, batch)


class WaitsForEver(MemorySink):
    async def write(self, offset: int, batch: Batch) -> None:
        if self.memory.away:
            await asyncio.Event().wait()
        await super().write(offset, batch)


class LeavesATask(MemorySink):
    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(asyncio.sleep(30))
        return await super().__aenter__()


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Forgets, "test_returning_from_write_means_held"),
        (Reorders, "test_a_tag_keeps_its_order"),
        (CountsTwice, "test_the_same_offset_twice"),
        (RoundsIntegers, "test_a_tag_may_change_its_type"),
        (CallsAllGood, "test_quality_survives"),
        (HoldsHalf, "test_rejected_holds_nothing"),
        (HidesLoss, "test_losing_the_other_side_is_said_and_nothing_is_lost"),
        (TellsNothing, "test_a_loss_is_noticed_while_nothing_is_written"),
        (CriesWolf, "test_a_loss_is_noticed_while_nothing_is_written"),
        (WaitsForEver, "test_a_pulled_cable_is_noticed"),
        (LeavesATask, "test_leaving_closes_everything"),
    ],
)
async def test_a_sink_that_breaks_a_rule_is_caught(
    kind: type[MemorySink], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    contract = TestMemorySink()
    monkeypatch.setattr(contract, "kind", kind, raising=False)
    monkeypatch.setattr(contract, "patience", 0.2, raising=False)
    with pytest.raises(BROKEN):
        await getattr(contract, rule)(tmp_path)


# ---- a processor -----------------------------------------------------------------------------------------


class Sum(Processor):
    """Keeps every rule: the running sum of all numbers."""

    def __init__(self) -> None:
        self.total = 0.0

    def process(self, batch: Batch) -> list[Sample]:
        found: list[Sample] = []
        for sample in batch:
            if isinstance(sample.value, float):
                self.total += sample.value
                found.append(Sample("sum", sample.time, self.total))
        return found

    def snapshot(self) -> bytes:
        return repr(self.total).encode()

    def restore(self, state: bytes) -> None:
        self.total = float(state)


class TestSum(ProcessorContract):
    kind: type[Processor] = Sum

    def build(self) -> Processor:
        return self.kind()

    def batches(self) -> Sequence[Batch]:
        values: list[Value] = [1.0, "no number", 2.5, None, 0.1]
        return [
            Batch("line", i, ["a"] * 5, [i * 10 + j for j in range(5)], [*values[i:], *values[:i]]) for i in range(5)
        ]


class Silent(Sum):
    def process(self, batch: Batch) -> list[Sample]:
        return super().process(batch)[:0]


class OncePerBatch(Sum):
    def process(self, batch: Batch) -> list[Sample]:
        return super().process(batch)[-1:]


class LosesItsState(Sum):
    def snapshot(self) -> bytes:
        return b"0"


class StartsAnewAfterASnapshot(Sum):
    def snapshot(self) -> bytes:
        state, self.total = super().snapshot(), 0.0
        return state


class ReadsTheClock(Sum):
    def process(self, batch: Batch) -> list[Sample]:
        time.time_ns()
        return super().process(batch)


class LooksAhead(Sum):
    def process(self, batch: Batch) -> list[Sample]:
        return [Sample("sum", sample.time + 1000, sample.value) for sample in super().process(batch)]


class ChangesItsInput(Sum):
    def process(self, batch: Batch) -> list[Sample]:
        found = super().process(batch)
        if isinstance(batch.values, list) and batch.values:
            batch.values[0] = 0.0
        return found


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Silent, "test_it_gives_something"),
        (OncePerBatch, "test_one_sample_a_batch_gives_the_same"),
        (LosesItsState, "test_a_restart_in_the_middle_changes_nothing"),
        (StartsAnewAfterASnapshot, "test_taking_a_snapshot_changes_nothing"),
        (LooksAhead, "test_output_is_stamped_with_time_that_was_seen"),
    ],
)
def test_a_processor_that_breaks_a_rule_is_caught(kind: type[Processor], rule: str) -> None:
    contract = TestSum()
    contract.kind = kind  # of this instance alone
    with pytest.raises(BROKEN):
        getattr(contract, rule)()


def test_a_processor_that_depends_on_the_split_is_caught() -> None:
    contract = TestSum()
    contract.kind = OncePerBatch  # of this instance alone
    with pytest.raises(BROKEN):
        contract.test_any_split_into_batches_gives_the_same(0)


def test_a_processor_that_reads_the_clock_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = TestSum()
    contract.kind = ReadsTheClock  # of this instance alone
    with pytest.raises(AssertionError, match="must not read a wall clock"):
        contract.test_no_wall_clock(monkeypatch)
    assert time.time_ns() > 0, "the clock is back"


def test_a_processor_that_changes_its_input_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = TestSum()
    fixed = contract.batches()
    contract.kind = ChangesItsInput  # of this instance alone
    monkeypatch.setattr(contract, "batches", lambda: fixed)
    with pytest.raises(AssertionError):
        contract.test_input_is_left_as_it_was()


# ---- a source ----------------------------------------------------------------------------------------------


class Machine:
    """The other side."""

    def __init__(self) -> None:
        self.values: asyncio.Queue[int] = asyncio.Queue()
        self.set_point: Value = 1
        self.count = 0
        self.away = False


class MachineSource(Source):
    """Keeps every rule."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def __aenter__(self) -> Self:
        if self.machine.away:
            raise Unavailable("the machine is away")
        return self

    async def batches(self) -> AsyncGenerator[Batch]:
        while True:
            try:
                async with asyncio.timeout(0.05):  # wait_for of Python 3.11 can swallow a cancellation
                    value = await self.machine.values.get()
            except TimeoutError:
                if self.machine.away:
                    raise Unavailable("the machine is away") from None
                continue
            now = time.time_ns()
            yield Batch("machine", now, ["count"], [now], [value])

    async def execute(self, command: Command) -> Outcome:
        if self.machine.away:
            return Outcome(command.id, done=False, detail="away")
        if command.tag != "set-point" or not isinstance(command.value, int):
            return Outcome(command.id, done=False, detail="refused")
        if command.expires < time.time_ns():
            return Outcome(command.id, done=False, detail="expired")
        self.machine.set_point = command.value
        return Outcome(command.id, done=True)


class MachineRig(SourceRig):
    def __init__(self, kind: type[MachineSource]) -> None:
        self.machine = Machine()
        super().__init__(kind(self.machine))

    async def change(self) -> None:
        self.machine.count += 1
        self.machine.values.put_nowait(self.machine.count)

    async def lose(self) -> None:
        self.machine.away = True

    async def restore(self) -> None:
        self.machine.away = False

    async def freeze(self) -> bool:
        self.machine.away = True
        return True

    def writable(self) -> tuple[str, Value] | None:
        return "set-point", 7

    async def held(self, tag: str) -> Value:
        assert tag == "set-point"
        return self.machine.set_point


class TestMachineSource(SourceContract):
    patience = 2.0
    kind: type[MachineSource] = MachineSource

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:  # noqa: ARG002  # memory needs no folder
        yield MachineRig(self.kind)


class SaysMilliseconds(MachineSource):
    async def batches(self) -> AsyncGenerator[Batch]:
        async for batch in super().batches():
            yield Batch("machine", batch.received, batch.tags, [t // 10**6 for t in batch.times], batch.values)


class YieldsNothing(MachineSource):
    async def batches(self) -> AsyncGenerator[Batch]:
        async for batch in super().batches():
            yield batch.select([])


class ChangesItsName(MachineSource):
    async def batches(self) -> AsyncGenerator[Batch]:
        async for batch in super().batches():
            yield Batch(f"machine-{batch.values[0]!r}", batch.received, batch.tags, batch.times, batch.values)


class NeverNotices(MachineSource):
    async def batches(self) -> AsyncGenerator[Batch]:
        while True:
            value = await self.machine.values.get()
            yield Batch("machine", time.time_ns(), ["count"], [time.time_ns()], [value])


class KeepsATask(MachineSource):
    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(asyncio.sleep(30))
        return await super().__aenter__()


class WritesLate(MachineSource):
    async def execute(self, command: Command) -> Outcome:
        return await super().execute(Command(command.id, command.tag, command.value, "x", 2**62))


class WritesNothing(MachineSource):
    async def execute(self, command: Command) -> Outcome:
        return Outcome(command.id, done=True)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (SaysMilliseconds, "test_batches_have_equal_columns_and_times_in_ns"),
        (YieldsNothing, "test_batches_have_equal_columns_and_times_in_ns"),
        (ChangesItsName, "test_all_batches_come_from_one_source"),
        (NeverNotices, "test_unavailable_when_the_other_side_goes"),
        (NeverNotices, "test_a_pulled_cable_is_noticed"),
        (KeepsATask, "test_leaving_closes_everything"),
        (KeepsATask, "test_cancelling_closes_everything"),
        (WritesLate, "test_an_expired_command_is_never_written"),
        (WritesNothing, "test_a_command_is_written_and_read_back"),
        (WritesNothing, "test_an_unknown_tag_is_refused"),
        (WritesNothing, "test_a_value_of_the_wrong_type_is_refused"),
        (WritesNothing, "test_a_command_to_an_other_side_that_is_away_is_not_called_done"),
    ],
)
async def test_a_source_that_breaks_a_rule_is_caught(
    kind: type[MachineSource], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    contract = TestMachineSource()
    monkeypatch.setattr(contract, "kind", kind, raising=False)
    monkeypatch.setattr(contract, "patience", 0.3, raising=False)
    with pytest.raises(BROKEN):
        await getattr(contract, rule)(tmp_path)


# ---- what they are made of ----------------------------------------------------------------------------------


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken components are waited for as shortly as good ones would take."""

    async def soon(condition: Callable[[], Any], what: str, within: float = 0.2) -> None:
        await until(condition, what, min(within, 0.2))

    none = Leftovers.none
    monkeypatch.setattr("shopfloor.testing.contracts.sink.until", soon)
    monkeypatch.setattr("shopfloor.testing.contracts.source.until", soon)
    monkeypatch.setattr(Leftovers, "none", lambda self: none(self, within=0.1))


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0, False), (0.0, -0.0), ("1", b"1"), (None, 0), (2**53, 2**53 + 1)]
)
def test_values_of_different_types_or_bits_are_not_the_same(one: Value, other: Value) -> None:
    assert not same(one, other)
    assert same(one, one)


def test_nan_is_the_same_as_nan() -> None:
    assert same(float("nan"), float("nan"))


async def test_waiting_has_an_end() -> None:
    with pytest.raises(pytest.fail.Exception, match="still not: pigs fly"):
        await until(lambda: False, "pigs fly", 0.05)
