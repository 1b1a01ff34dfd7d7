"""Components that a test holds in its hand, and a plant made of them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from shopfloor.pipeline import Pipeline
from shopfloor.plant import JournalConfig, Plant, ProcessorConfig, SinkConfig, Site, SourceConfig
from shopfloor.samples import Batch, Command, Outcome, Rejected, Sample, TagInfo, Unavailable
from shopfloor.seams import Processor, Sink, Source

BEGIN = 1_767_592_800_000_000_000


class Machine:
    """The other side of a source: what it gives, and whether it can be reached."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Batch | Exception] = asyncio.Queue()
        self.away: Exception | None = None
        self.acknowledged = 0
        self.entered = 0
        self.left = 0
        self.hangs = False
        self.resumed: list[bytes] = []
        self.written: list[Command] = []
        self.given = 0

    def give(self, *values: object, tag: str = "press-1/PV", checkpoint: bytes | None = None) -> None:
        times = [BEGIN + self.given + i for i in range(len(values))]
        self.given += len(values)
        self.queue.put_nowait(Batch("?", BEGIN, [tag] * len(values), times, list(values), checkpoint=checkpoint))  # type: ignore[arg-type]


class Hand(Source):
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def __aenter__(self) -> Self:
        self.machine.entered += 1
        if self.machine.away:
            raise self.machine.away
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.machine.left += 1
        while self.machine.hangs:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    def resume(self, checkpoint: bytes) -> None:
        self.machine.resumed.append(checkpoint)

    async def batches(self) -> AsyncGenerator[Batch]:
        while True:
            item = await self.machine.queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
            self.machine.acknowledged += 1

    async def execute(self, command: Command) -> Outcome:
        self.machine.written.append(command)
        return Outcome(command.id, done=True, detail="read back")


class HandConfig(SourceConfig):
    machine: Any = None
    type: str = "hand"

    def build(self) -> Hand:
        return Hand(self.machine)

    def declared(self) -> list[TagInfo]:
        return [TagInfo("press-1/PV"), TagInfo("press-1/SP")]


class Store:
    """The other side of a sink: what it holds, and how it behaves."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.offsets: list[int] = []
        self.away: Exception | None = None
        self.full: Exception | None = None
        """What a write raises while the connection works."""
        self.refuse: Callable[[Sample], bool] = lambda _sample: False
        self.own_position = False
        self.entered = 0

    @property
    def values(self) -> list[object]:
        return [sample.value for sample in self.samples]


class Shelf(Sink):
    def __init__(self, store: Store) -> None:
        self.store = store

    async def __aenter__(self) -> Self:
        self.store.entered += 1
        if self.store.away:
            raise self.store.away
        return self

    async def held(self) -> int | None:
        return (self.store.offsets[-1] if self.store.offsets else 0) if self.store.own_position else None

    async def write(self, offset: int, batch: Batch) -> None:
        if trouble := self.store.away or self.store.full:
            raise trouble
        refused = [i for i, sample in enumerate(batch) if self.store.refuse(sample)]
        if refused:
            raise Rejected("not in this shelf", refused)
        self.store.samples.extend(batch)
        self.store.offsets.append(offset)


class ShelfConfig(SinkConfig):
    store: Any = None
    type: str = "shelf"

    def build(self) -> Shelf:
        return Shelf(self.store)


class Sum(Processor):
    """The running sum of the inputs: any doubled or lost input shows."""

    def __init__(self) -> None:
        self.total = 0.0

    def process(self, batch: Batch) -> list[Sample]:
        given: list[Sample] = []
        for sample in batch:
            if sample.value == "poison":
                raise ZeroDivisionError("poison")
            self.total += float(sample.value)  # type: ignore[arg-type]
            given.append(Sample("press-1/sum", sample.time, self.total))
        return given

    def snapshot(self) -> bytes:
        return str(self.total).encode()

    def restore(self, state: bytes) -> None:
        self.total = float(state)


class HeavySum(Sum):
    """The same, with a state that is stored now and then."""

    heavy = True


class SumConfig(ProcessorConfig):
    type: str = "sum"
    heavy: bool = False

    def build(self) -> Sum:
        return HeavySum() if self.heavy else Sum()

    def inputs(self) -> list[str]:
        return ["press-1/PV"]

    def outputs(self) -> list[TagInfo]:
        return [TagInfo("press-1/sum")]


class Bench:
    """One machine, one store, and pipelines over one journal, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = Machine()
        self.store = Store()

    def plant(self, sinks: Sequence[SinkConfig] | None = None, processors: Sequence[ProcessorConfig] = ()) -> Plant:
        return Plant(
            plant=Site(site="test"),
            sources=[HandConfig(name="plc", machine=self.machine)],
            processors=list(processors),
            sinks=list(sinks) if sinks is not None else [ShelfConfig(name="shelf", type="shelf", store=self.store)],
            journal=JournalConfig(path=self.folder / "journal.db"),
            console=None,
        )

    def holds(self, value: object) -> bool:
        return value in self.store.values

    def running(self, **parts: Any) -> AbstractAsyncContextManager[Pipeline]:
        return Pipeline(self.plant(**parts))


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds; fails after two minutes, saying what was awaited."""
    try:
        async with asyncio.timeout(120):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within 120 s: {what}")


def state(pipeline: Pipeline, name: str) -> str:
    return next(c.state for c in pipeline.components() if c.name == name)


AWAY = Unavailable("the cable is out")
