"""A running plant that is none: what the console asks, answered by the test; commands are the real ones."""

import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from shopfloor.commands import Audit, Commands
from shopfloor.historian.base import Aggregate, Historian, Series, Size
from shopfloor.journal import DeadLetter, JournalState, LedgerRow
from shopfloor.pipeline.live import Live
from shopfloor.pipeline.status import ComponentStatus, State
from shopfloor.plant import HistorianConfig, Plant, SourceConfig
from shopfloor.samples import Batch, Command, Outcome, Sample, TagInfo, Unavailable
from shopfloor.seams import Source

T0 = 1_763_683_200_000_000_000
DECLARED = [
    TagInfo("press-1/PV", "ns=2;s=PV", "Double", "bar", "pressure"),
    TagInfo("press-1/SP", "ns=2;s=SP", "Double", "bar"),
    TagInfo("press-1/Start", "ns=2;s=Start", "Boolean"),
    TagInfo("press-1/good", "ns=2;s=good", "UInt64"),
]
PLANT = {
    "plant": {"site": "bremen", "timezone": "Europe/Berlin"},
    "machines": [
        {"id": "press-1", "title": "Press 1", "line": "stamping", "ideal_cycle": "1.2 s", "good": "press-1/good",
         "show": ["press-1/PV", "press-1/SP"]},
    ],
    "commands": {"allow": [
        {"tag": "press-1/SP", "range": [0, 80]},
        {"tag": "press-1/Start", "momentary": True, "lease": "5 s"},
        {"tag": "press-1/Stop", "momentary": True},
        {"tag": "press-1/Mode", "role": "engineer"},
    ]},
}  # fmt: skip


class FakeSource(SourceConfig):
    """Declares the tags of the press."""

    def build(self) -> Source:
        raise NotImplementedError

    def declared(self) -> Sequence[TagInfo]:
        return DECLARED


class FakeHistorianConfig(HistorianConfig):
    """A long-term store of nothing."""

    def build(self) -> Historian:
        raise NotImplementedError


class FakeHistorian(Historian):
    """Remembers what was asked and answers from a list."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.series = Series("press-1/PV", array("q", [T0, T0 + 1_500_001]), [41.5, 42.0], array("H", [192, 64]))

    async def latest(self, tags: Sequence[str] | None = None) -> list[Sample]:
        raise NotImplementedError

    async def history(self, tag: str, start: int, end: int, limit: int = 100_000) -> Series:
        self.asked.append((tag, start, end, limit))
        return self.series if tag == "press-1/PV" else Series(tag, array("q"), [], array("H"))

    async def aggregate(
        self, tag: str, start: int, end: int, every: int, function: Aggregate, timezone: str = "UTC"
    ) -> Series:
        self.asked.append((tag, start, end, every, function, timezone))
        return self.series if tag == "press-1/PV" else Series(tag, array("q"), [], array("H"))

    async def tags(self) -> list[str]:
        return ["press-1/PV", "press-9/old"]

    async def maintain(self, now: int) -> None:
        raise NotImplementedError

    async def size(self) -> Size:
        raise NotImplementedError

    async def write(self, offset: int, batch: Batch) -> None:
        raise NotImplementedError


class FakeRuntime:
    """The plant file of the press, without anything behind it."""

    def __init__(self, folder: Path) -> None:
        source = FakeSource(name="plc", type="fake")
        self.plant = Plant.model_validate(PLANT).model_copy(
            update={"sources": [source], "historian": FakeHistorianConfig(type="fake")}
        )
        self.live = Live()
        self.historian: Historian | None = FakeHistorian()
        self.started = T0
        bad = [Sample("press-1/PV", T0 + i, float("nan")) for i in range(12)]
        self.letters = [
            DeadLetter(2, "mqtt", 9, T0, "too long", 12, bad[:10], "plc"),
            DeadLetter(1, "files", 8, T0, "", 1, bad[:1]),
        ]
        self.decided: list[tuple[str, tuple[int, ...]]] = []
        self.edits: list[tuple[str, str]] = []
        self.clock = T0
        """ns UTC, for a console that asks for it."""
        self.writes: list[tuple[str, object]] = []
        self.connected = True
        self.controlled: list[tuple[str, str]] = []
        self.states: dict[str, State] = {"plc": "running", "mqtt": "running"}
        self.audit = Audit(folder / "audit.db", time.time_ns)
        self.commands = Commands(self.plant.commands, self.audit, self._execute, current=self.live.get)

    async def _execute(self, command: Command) -> Outcome:
        if not self.connected:
            return Outcome(command.id, done=False, detail="plc is not connected")
        self.writes.append((command.tag, command.value))
        return Outcome(command.id, done=True, detail=f"read back {command.value!r}")

    def give(self, *samples: Sample) -> None:
        """These samples became durable."""
        self.live.take(Batch.of("plc", T0, samples))

    async def edit_stops(self, machine: str, edit: str) -> int:
        if not self.connected:
            raise Unavailable("the disk is full")
        self.edits.append((machine, edit))
        return self.clock

    def components(self) -> list[ComponentStatus]:
        return [
            ComponentStatus("plc", "source", "fake", self.states["plc"], T0, True, samples=5),  # required
            ComponentStatus(
                "mqtt", "sink", "mqtt", self.states["mqtt"], T0, False, "refused", T0, 1, 4, 1, 0.5  # required
            ),
        ]  # fmt: skip

    async def ledger(self) -> list[LedgerRow]:
        return [
            LedgerRow("plc", "", "received", 5),
            LedgerRow("plc", "mqtt", "delivered", 4),
            LedgerRow("plc", "mqtt", "rejected", 1, 'too "long"\n', T0, T0 + 1),
        ]

    async def dead_letters(self, limit: int = 1000) -> list[DeadLetter]:
        return self.letters[:limit]

    async def retry_dead_letters(self, ids: Sequence[int]) -> list[int]:
        self.decided.append(("retry", tuple(ids)))
        return [letter.id for letter in self.letters if letter.id in ids]

    async def drop_dead_letters(self, ids: Sequence[int]) -> int:
        self.decided.append(("drop", tuple(ids)))
        return sum(letter.id in ids for letter in self.letters)

    async def journal_state(self) -> JournalState:
        return JournalState(3, 5, 4096, 20_000_000_000, T0, full=False, damaged=0)

    async def restart(self, name: str) -> None:
        self.controlled.append((name, "restart"))

    async def pause(self, name: str) -> None:
        self.controlled.append((name, "pause"))

    async def resume(self, name: str) -> None:
        if name == "mqtt":
            raise Unavailable("not now")
        self.controlled.append((name, "resume"))
