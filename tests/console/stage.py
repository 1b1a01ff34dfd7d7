"""A plant that acts, for the page tests: a press and an oven behind the real console, in a process of its own.

``python stage.py PORT FOLDER [SENSORS [filler]]``; SENSORS below zero is an empty plant; with ``filler`` there is a
machine with figures as well, made by the real processor of a day and five hours that it has worked. Commands,
presses and the audit record are the real ones; machines, components and history are played, so that tests can say
what they see.
"""

import asyncio
import math
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from shopfloor.commands import Audit, Commands
from shopfloor.console import serve
from shopfloor.historian.base import Aggregate, Historian, Series, Size
from shopfloor.journal import DeadLetter, JournalState, LedgerRow
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.status import ComponentStatus, State
from shopfloor.plant import HistorianConfig, Plant, SourceConfig
from shopfloor.samples import Batch, Command, Outcome, Quality, Sample, TagInfo, Value
from shopfloor.seams import Processor, Source

if TYPE_CHECKING:
    from tests.console import worked
else:
    import worked  # this is a program of its own, and begins in its own folder

SECOND = 10**9
PRESS = [
    TagInfo("press-1/Running", data_type="Boolean"),
    TagInfo("press-1/PV", data_type="Double", unit="bar", description="Pressure of the ram"),
    TagInfo("press-1/SP", data_type="Double", unit="bar"),
    TagInfo("press-1/Good", data_type="UInt32"),
    TagInfo("press-1/Message", data_type="String"),
    TagInfo("press-1/Start", data_type="Boolean"),
    TagInfo("press-1/Stop", data_type="Boolean"),
]
OVEN = [TagInfo("oven-2/Temperature", data_type="Double", unit="°C"), TagInfo("oven-2/Door", data_type="Boolean")]
MACHINES = [
    {"id": "press-1", "title": "Press 1", "line": "stamping", "state": "press-1/Running", "good": "press-1/Good",
     "show": ["press-1/PV", "press-1/SP", "press-1/Message"]},
    {"id": "oven-2", "title": "Tempering oven", "line": "heat", "show": ["oven-2/Temperature", "oven-2/Door"]},
]  # fmt: skip
ALLOW = [
    {"tag": "press-1/SP", "range": [0, 80]},
    {"tag": "press-1/Start", "momentary": True, "lease": "4 s"},  # a busy machine hangs for longer than half a second
    {"tag": "press-1/Stop", "momentary": True},
    {"tag": "oven-2/Door", "role": "engineer"},
]


class StageSource(SourceConfig):
    """Declares the tags of its machines."""

    infos: Sequence[object] = ()

    def build(self) -> Source:
        raise NotImplementedError

    def declared(self) -> Sequence[TagInfo]:
        return [info for info in self.infos if isinstance(info, TagInfo)]


class StageHistorianConfig(HistorianConfig):
    """Says that there is a historian."""

    def build(self) -> Historian:
        raise NotImplementedError


class StageHistorian(Historian):
    """A slow wave every second, silent from 150 s to 120 s ago, bad from 60 s to 50 s ago; set-points never change.

    The connection to the PLC was away from 220 s to 200 s ago.
    """

    def __init__(self) -> None:
        self.kept: dict[str, list[Sample]] = {}
        """What the filler said and what was made of it."""

    def keep(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self.kept.setdefault(sample.tag, []).append(sample)

    def _kept(self, tag: str, start: int, end: int, limit: int) -> Series:
        found = sorted((s for s in self.kept[tag] if start <= s.time < end), key=lambda sample: sample.time)
        return Series(
            tag,
            array("q", (sample.time for sample in found[:limit])),
            [sample.value for sample in found[:limit]],
            array("H", (sample.quality for sample in found[:limit])),
            truncated=len(found) > limit,
        )

    async def history(self, tag: str, start: int, end: int, limit: int = 100_000) -> Series:
        now = time.time_ns()
        if tag in self.kept:
            return self._kept(tag, start, end, limit)
        if tag == "$source/plc/connected":
            return Series(
                tag, array("q", [now - 220 * SECOND, now - 200 * SECOND]), [False, True], array("H", [192, 192])
            )
        if not tag.endswith(("PV", "Temperature")):
            return Series(tag, array("q"), [], array("H"))
        times = array("q", (t for t in range(start, min(end, now), SECOND) if not 120 <= (now - t) / SECOND <= 150))
        bad = [50 <= (now - t) / SECOND <= 60 for t in times]
        return Series(
            tag,
            times[:limit],
            [None if wrong else wave(t) for t, wrong in zip(times, bad, strict=True)][:limit],
            array("H", [Quality.NOT_CONNECTED if wrong else Quality.GOOD for wrong in bad])[:limit],
            truncated=len(times) > limit,
        )

    async def aggregate(
        self, tag: str, start: int, end: int, every: int, function: Aggregate, timezone: str = "UTC"
    ) -> Series:
        del timezone
        times = array("q", range(start - start % every, min(end, time.time_ns()), every))
        good = array("H", (192,)) * len(times)
        if tag.endswith(("PV", "Temperature")):
            spread = {"min": -1.0, "max": 1.0}.get(function, 0.0)
            return Series(tag, times, [wave(t) + spread for t in times], good)
        held = [40.0 if tag.endswith("SP") else None] * len(times)
        return Series(tag, times, held, good) if function == "twa" else Series(tag, array("q"), [], array("H"))

    async def latest(self, tags: Sequence[str] | None = None) -> list[Sample]:
        del tags
        return []

    async def tags(self) -> list[str]:
        return ["$source/plc/connected", "$source/kepware/connected"]

    async def maintain(self, now: int) -> None:
        del now

    async def size(self) -> Size:
        return Size(0, 0, None)

    async def write(self, offset: int, batch: Batch) -> None:
        del offset, batch


def wave(time_ns: int) -> float:
    """The pressure at a time, bar."""
    return 40 + 3 * math.sin(time_ns / SECOND / 20)


class Filler:
    """The machine with figures: it began a shift of eight hours some five hours ago, and worked the day before."""

    def __init__(self, zone: str, now: int) -> None:
        hour = 60 * worked.MINUTE
        self._from = now - now % hour - 5 * hour - 3 * worked.SHIFT
        self._at = self._from
        self._said = worked.said(self._from, now + worked.SHIFT)
        self._next: Sample | None = next(self._said)
        local = datetime.fromtimestamp((now - now % hour) / SECOND, ZoneInfo(zone)).hour
        self.plan: dict[str, Any] = {
            "shifts": worked.shifts((local - 5) % 24),
            "reasons": worked.REASONS,
            "lines": worked.LINES,
        }
        self._processor: Processor | None = None

    def join(self, plant: Plant) -> Plant:
        """The plant with the processor that makes its figures."""
        config, self._processor = worked.processor(plant)
        return plant.model_copy(update={"processors": [config]})

    def before(self) -> Iterator[Batch]:
        """What was said until now, and what was made of it, minute by minute."""
        now = time.time_ns()
        said = [(sample.time, sample) for sample in self._until(now)]
        for batch in worked.batches(said, self._from, now):
            yield from self._made(batch)

    def now(self) -> Iterator[Batch]:
        """What is said since the last time, and what is made of it."""
        now = time.time_ns()
        if said := list(self._until(now)):
            yield from self._made(Batch.of("kepware", now, said))
        yield from self._made(Batch.of("$clock", now, [Sample("$clock/tick", now, now)]))

    def hear(self, said: Batch) -> Iterator[Batch]:
        """What a person said, and what is made of it."""
        yield from self._made(said)

    def _until(self, now: int) -> Iterator[Sample]:
        while self._next is not None and self._next.time <= now:
            yield self._next
            self._next = next(self._said, None)

    def _made(self, batch: Batch) -> Iterator[Batch]:
        assert self._processor is not None
        yield batch
        yield Batch.of("oee", batch.received, self._processor.process(batch))


class Stage:
    """The plant: what ``shopfloor.console.Runtime`` asks for."""

    def __init__(self, folder: Path, sensors: int, *, filler: bool = False) -> None:
        self.sensors = [TagInfo(f"line-{i // 100}/sensor-{i % 100:02d}", unit="mm") for i in range(max(sensors, 0))]
        empty = sensors < 0
        self.filler = Filler("Europe/Berlin", time.time_ns()) if filler else None
        machines = [*MACHINES, worked.MACHINE] if filler else MACHINES
        self.plant = Plant.model_validate(
            {"plant": {"site": "bremen", "timezone": "Europe/Berlin"}}
            | ({} if empty else {"machines": machines, "commands": {"allow": ALLOW}})
            | ({} if self.filler is None else self.filler.plan)
        ).model_copy(
            update={}
            if empty
            else {
                "sources": [
                    StageSource(name="plc", type="opcua", infos=PRESS),
                    StageSource(
                        name="kepware",
                        type="opcua",
                        infos=[*OVEN, *self.sensors, *(worked.INFOS if filler else [])],
                    ),
                ],
                "historian": StageHistorianConfig(type="duckdb"),
            }
        )
        self.live = Live()
        self.store = StageHistorian()
        self.historian: Historian | None = None if empty else self.store
        if self.filler is not None:
            self.plant = self.filler.join(self.plant)
            self.take(self.filler.before())
        self.started = time.time_ns() - 3 * 3600 * SECOND
        recipe = Sample("press-1/recipe", self.started, "PET bottle 0.5 l, label front and back")
        letters = [
            DeadLetter(3, "mqtt", 9, self.started + SECOND, "not allowed: set `topic`", 1, [recipe], "plc"),
            DeadLetter(2, "mqtt", 8, self.started + SECOND, "text above 1 MB", 1, [recipe], "plc"),
            DeadLetter(1, "mqtt", 7, self.started, "text above 1 MB", 2, [recipe, recipe], "plc"),
        ]
        self.letters = [] if empty else letters
        self.states: dict[str, State] = (
            {} if empty else dict.fromkeys(("plc", "kepware", "mqtt", "historian"), "running")
        )
        self.since = dict.fromkeys(self.states, self.started)
        self.received = 51_200
        self.setpoint = 40.0
        self.running = False
        self.good = 1_204
        self.commands = Commands(
            self.plant.commands, Audit(folder / "audit.db", time.time_ns), self._execute, current=self.live.get
        )

    async def _execute(self, command: Command) -> Outcome:
        await asyncio.sleep(0.05)
        match command.tag, command.value:
            case "press-1/SP", 77:
                return Outcome(command.id, done=False, detail="the PLC refuses this value")
            case "press-1/SP", 66:
                raise ConnectionError("the connection broke while writing")
            case "press-1/SP", float() | int() as value:
                self.setpoint = float(value)
            case "press-1/Start", True:
                self.running = True
            case "press-1/Stop", True:
                self.running = False
            case _:
                pass
        self.give({command.tag: command.value, "press-1/Running": self.running, "press-1/SP": self.setpoint})
        return Outcome(command.id, done=True, detail=f"read back {str(command.value).lower()}")

    def give(self, values: dict[str, Value], quality: int = Quality.GOOD, age: float = 0) -> None:
        """These values arrive now; they were true ``age`` seconds ago."""
        at = time.time_ns() - int(age * SECOND)
        self.live.take(Batch.of("plc", at, [Sample(tag, at, value, quality) for tag, value in values.items()]))

    def take(self, batches: Iterator[Batch]) -> None:
        """These became durable."""
        for batch in batches:
            self.live.take(batch)
            self.store.keep(list(batch))

    async def act(self) -> None:
        """Play the plant until cancelled."""
        if not self.states:
            await asyncio.Event().wait()
        self.give({"press-1/Running": False, "press-1/Good": self.good, "press-1/Message": "All well"})
        self.give({"press-1/SP": 40.0, "press-1/Start": False, "press-1/Stop": False}, age=7_200)
        self.give({info.tag: float(i) for i, info in enumerate(self.sensors)}, age=30)
        self.give({"oven-2/Temperature": 181.4}, Quality.SENSOR_FAILURE)
        while True:
            if self.states["plc"] == "running":
                self.give({"press-1/PV": wave(time.time_ns())})
                if self.running:
                    self.good += 1
                    self.give({"press-1/Good": self.good})
                self.received += 2
            if self.filler is not None:
                self.take(self.filler.now())
            await asyncio.sleep(0.2)

    def components(self) -> list[ComponentStatus]:
        kinds: dict[str, Literal["source", "sink"]] = {"plc": "source", "kepware": "source", "mqtt": "sink"}
        types = {"historian": "duckdb", "mqtt": "mqtt"}
        return [
            ComponentStatus(
                name, kinds.get(name, "historian"), types.get(name, "opcua"), state, self.since[name],
                required=name != "kepware",
                last_error="127.0.0.1:1883 refuses the connection" if name == "mqtt" else "",
                last_error_at=self.started if name == "mqtt" else 0, samples=self.received,
                lag_entries=40 if state == "paused" else 0, lag_seconds=8.2 if state == "paused" else 0.0,
            )
            for name, state in self.states.items()
        ]  # fmt: skip

    async def ledger(self) -> list[LedgerRow]:
        if not self.states:
            return []
        return [
            LedgerRow("plc", "", "received", self.received),
            LedgerRow("plc", "", "lost before us", 3),
            LedgerRow("plc", "historian", "base", 0),
            LedgerRow("plc", "historian", "delivered", self.received - 4),
            LedgerRow("plc", "historian", "dropped", 4, "damaged entry", self.started, self.started + SECOND),
            LedgerRow("plc", "mqtt", "base", 1_200),
            LedgerRow("plc", "mqtt", "delivered", self.received - 1_200 - 103),
            LedgerRow("plc", "mqtt", "filtered", 100),
            LedgerRow("plc", "mqtt", "rejected", 3, "text above 1 MB", self.started, self.started + SECOND),
        ]

    async def dead_letters(self, limit: int = 1000) -> list[DeadLetter]:
        return self.letters[:limit]

    async def retry_dead_letters(self, ids: Sequence[int]) -> list[int]:
        """The first one is refused again."""
        taken = [letter.id for letter in self.letters if letter.id in ids and letter.id > 1]
        self.letters = [letter for letter in self.letters if letter.id not in taken]
        return list(ids)

    async def drop_dead_letters(self, ids: Sequence[int]) -> int:
        self.letters = [letter for letter in self.letters if letter.id not in ids]
        return len(ids)

    async def journal_state(self) -> JournalState:
        return JournalState(1_200, self.received, 2_300_000, 20 * 10**9, self.started, full=False, damaged=0)

    def _set(self, name: str, state: State) -> None:
        if name not in self.states:
            raise KeyError(name)
        self.states[name] = state
        self.since[name] = time.time_ns()

    async def edit_stops(self, machine: str, edit: str) -> int:
        assert self.filler is not None
        now = time.time_ns()
        self.take(self.filler.hear(Batch.of("$edit", now, [Sample(f"$edit/{machine}", now, edit)])))
        return now

    async def restart(self, name: str) -> None:
        self._set(name, "running")

    async def pause(self, name: str) -> None:
        self._set(name, "paused")

    async def resume(self, name: str) -> None:
        self._set(name, "running")


async def main(port: int, folder: Path, sensors: int, *, filler: bool) -> None:
    """Serve the console on loopback until the process is ended."""
    stage = Stage(folder, sensors, filler=filler)
    async with stage.commands, asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.act())
        tasks.create_task(serve(stage, f"127.0.0.1:{port}"))


if __name__ == "__main__":
    sensors = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), sensors, filler="filler" in sys.argv[4:]))
