"""Shopfloor is killed at random moments while it delivers to everything that there is; then every sample is counted.

Between two lives a witness reads what the journal has got: what is in the journal then was promised, and has to be
in every sink. The witness also works out the machine's figures, in one life without interruption.
"""

import asyncio
import importlib
import multiprocessing
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from shopfloor import plant
from shopfloor.journal import Entry, LedgerRow, SqliteJournal, Tally, balances
from shopfloor.pipeline import Pipeline
from shopfloor.pipeline.selection import Selection
from shopfloor.samples import Sample
from tests.soak.destinations import Destination
from tests.soak.machine import COLUMNS, Press
from tests.soak.soak_victim import Clock, Halting
from tests.soak.verdict import differences

DAY: Final = 86_400 * 10**9
SPEED: Final = 600
"""The plant's seconds in one of ours: an hour closes each six seconds, a day each two and a half minutes."""
FIRST: Final = 1.0
"""The longest life in seconds, at first: they become longer while too little is delivered in one, else shorter."""
LONGEST: Final = 20.0
LONG: Final = 0.1
"""How many lives may be as long as the longest: so the slowest to start are killed at work, too."""
MOST: Final = 2 / 3
"""Any other life is long enough in which this share of the journal's readers came on."""
SERVER: Final = 0.1
"""How many lives in all see a server killed, too."""
PATIENCE: Final = 240.0
"""Seconds after which the last life ends when nothing more of what is left was delivered in them."""
WITNESS: Final = "witness"
LOADED: Final = (
    "shopfloor.pipeline", "shopfloor.historian.duck", "shopfloor.processors.machine", "shopfloor.processors.edges",
    "shopfloor.sources.files", "shopfloor.sinks.files", "shopfloor.sinks.http", "shopfloor.sinks.influxdb",
    "shopfloor.sinks.mqtt", "shopfloor.sinks.mysql", "shopfloor.sinks.postgres", "shopfloor.sinks.sparkplug", "uvloop",
    "shopfloor.sinks.kafka", "shopfloor.sinks.mongodb", "shopfloor.sinks.opcua", "shopfloor.sinks.sqlserver",
    "shopfloor.historian.database", "anyio._backends._asyncio", "certifi", "dateutil.relativedelta", "encodings.idna",
    "httpcore", "pcodec.standalone",
)  # fmt: skip
"""What each life needs, loaded once."""
_PLANT: Final = """
plant: {{site: soak, timezone: Europe/Berlin}}
shifts:
  - {{name: early, days: mon-sun, from: "06:00", to: "14:00", breaks: ["09:00-09:15"]}}
  - {{name: late, days: mon-sun, from: "14:00", to: "22:00"}}
journal: {{path: journal.db}}
historian: {history}
console: null
sources:
  - name: machine
    type: files
    folder: measurements
    tag: press/{{column}}
    time: time
    settle: 0 s
    poll: 0.05 s
    columns:
      - {{column: state, data_type: int}}
      - {{column: good, data_type: int}}
      - {{column: scrap, data_type: int}}
      - {{column: cycle, data_type: bool}}
      - {{column: temperature, data_type: float}}
      - {{column: serial, data_type: text}}
machines:
  - {{id: press, state: press/state, good: press/good, scrap: press/scrap, ideal_cycle: 3 s}}
processors:
  - {{name: oee, type: machine, every: 30 s}}
  - {{name: units, type: edges, tags: [{{from: press/cycle, to: press/units, hourly: press/hourly}}]}}
sinks:
{sinks}
"""


class Found(NamedTuple):
    """What became of it all."""

    lives: int
    at_work: int
    """Lives in which something was delivered."""
    servers: int
    """How often a server was killed beside."""
    written: int
    """Samples that the machine wrote."""
    journalled: int
    """Samples in the journal, those that were worked out among them."""
    moved: Mapping[str, int]
    """In how many lives each reader of the journal came on."""
    again: Mapping[str, int]
    """Samples that came again, where that is allowed."""
    wrong: Sequence[str]
    """What must not be: a sentence each."""


class Soak:
    """All of it, from entering to leaving."""

    def __init__(self, folder: Path, destinations: Sequence[Destination], seed: int) -> None:
        """Nothing is started yet."""
        self.folder = folder
        self.destinations = destinations
        self._chosen = random.Random(seed)
        now = time.time_ns()
        self.clock = Clock(now - 40 * DAY, now, SPEED)
        """It begins in the past, so that it stays there."""
        self.press = Press(folder / "measurements", self.clock, random.Random(seed + 1))
        self.entries: list[Entry] = []
        self._stack = AsyncExitStack()
        self._positions: dict[str, int] = {}
        self._moved: Counter[str] = Counter()
        self._at_work = self._servers = self._lives = 0
        self._life_time = FIRST
        self._slow = any(not one.quick for one in destinations)

    async def __aenter__(self) -> Self:
        try:
            for destination in self.destinations:
                self._stack.push_async_exit(destination)
            started = [destination.start() for destination in self.destinations]
            for one in await asyncio.gather(*started, return_exceptions=True):  # none is left behind half started
                if one is not None:
                    raise one  # noqa: TRY301  # what was started is stopped below
            sinks = [f"  - {{name: {d.name}, {d.lines()}}}" for d in self.destinations if d.lines()]
            history = "{type: duckdb, path: history.duckdb}"
            self.text = _PLANT.format(sinks="\n".join(sinks), history=history)
            self.secrets = {name: value for one in self.destinations for name, value in one.secrets().items()}
            self.plant = plant.parse(self.text, "soak.yaml", self.folder, self.secrets)
            self._processors = [(c.name, c.build(), Selection(c.name, c.inputs())) for c in self.plant.processors]
            self.given: Mapping[str, list[Sample]] = {name: [] for name, _, _ in self._processors}
            """What each processor gives that lives on."""
            await self._witness()  # before the first life: it misses nothing
        except BaseException:
            await self._stack.aclose()
            raise
        # By a name that the fork server can import, too; it does not get the path that pytest made.
        self._live = importlib.import_module("soak_victim").live
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(list(LOADED))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self, lives: int, until: float, said: Callable[[str], None]) -> Found:
        """So many lives, or until that moment of the loop's time; then the last one, and the count."""
        loop = asyncio.get_running_loop()
        pressing = asyncio.create_task(self.press.run())
        told = loop.time()
        while self._lives < lives and loop.time() < until:
            await self._life()
            await self._witness()
            if loop.time() > told + 10:
                told = loop.time()
                said(f"{self._lives} lives, {self._at_work} at work, {len(self.press.written):,} samples written")
        pressing.cancel()
        await asyncio.gather(pressing, return_exceptions=True)
        wrong = await self._last()
        await self._witness()
        return await self._count(wrong)

    async def _life(self) -> None:
        process = self._forks.Process(
            target=self._live,
            args=(self.text, str(self.folder), self.secrets, self.clock.begin, self.clock.real, self.clock.speed),
            daemon=True,
        )
        begun = time.monotonic()
        await asyncio.to_thread(process.start)
        life_time = LONGEST if self._slow and self._chosen.random() < LONG else self._life_time
        # Longer ones more often: what is killed while it starts has delivered nothing yet.
        ends = begun + life_time * self._chosen.random() ** 0.5
        broken = self._victim() if self._chosen.random() < SERVER else None
        if broken is not None:
            await asyncio.sleep((ends - time.monotonic()) * self._chosen.random())
            await asyncio.to_thread(broken.kill)
            self._servers += 1
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.join)
        self._lives += 1
        if broken is not None:
            await asyncio.to_thread(broken.start)

    def _victim(self) -> Any:
        mortal = [one.server for one in self.destinations if one.server is not None]
        return self._chosen.choice(mortal) if mortal else None

    async def _witness(self) -> None:
        """Read on what the journal has got, fold it, and see who came on."""
        journal = await SqliteJournal.open(self.folder / "journal.db")
        try:
            if journal.salvaged:
                raise AssertionError(f"the journal was damaged: {journal.salvaged}")
            reader = await journal.reader(WITNESS)
            reader.rewind()
            while reader.lag()[0]:
                entries = await reader.read()
                for entry in entries:
                    self._fold(entry)
                tallies = [Tally(e.offset, e.source, "delivered", e.samples, e.received) for e in entries]
                await reader.commit(entries[-1].offset, tallies)
            now = {name: (await journal.reader(name)).position for name in self._names()}
        finally:
            await journal.close()
        moved = [name for name in now if now[name] > self._positions.get(name, now[name])]
        self._moved.update(moved)
        self._at_work += bool(moved)
        longer = 1.25 if not moved else 1.05 if len(moved) < MOST * len(now) else 0.9
        self._life_time = min(self._life_time * longer, LONGEST)
        self._positions = now

    def _names(self) -> Sequence[str]:
        return [*(one.name for one in self.destinations), *(one.name for one in self.plant.processors)]

    def _fold(self, entry: Entry) -> None:
        assert entry.batch is not None, f"entry {entry.offset} is damaged"
        self.entries.append(entry)
        for name, processor, selection in self._processors:
            batch = selection.take(entry, [])
            if batch is not None:
                self.given[name].extend(processor.process(batch))

    async def _last(self) -> list[str]:
        """The last life ends by itself, when all is delivered."""
        clock = Halting(self.clock)
        async with Pipeline(self.plant, clock) as pipeline:

            def waits() -> str:
                late = [c for c in pipeline.components() if c.state != "running" or c.lag_entries]
                return ", ".join(f"{c.name} is {c.state}, {c.lag_entries} entries behind {c.last_error}" for c in late)

            await asyncio.sleep(1.0)  # for the files source to have looked
            said = await _empty(self._unread, self._unread)
            clock.halt()  # no more figures: what is left to deliver becomes less

            def taken() -> object:  # processors count ticks, too, which do not end
                return [c.samples for c in pipeline.components() if c.kind in ("sink", "historian")]

            said = said or await _empty(waits, taken)
            for one in self.destinations:
                await one.look(self._declared())
            rows = await pipeline.ledger()
        return [*([f"not all delivered, and nothing more in {PATIENCE:.0f} s: {said}"] if said else []), *_ledger(rows)]

    def _declared(self) -> Sequence[str]:
        sources = [info.tag for source in self.plant.sources for info in source.declared() or ()]
        return [*sources, *(info.tag for processor in self.plant.processors for info in processor.outputs())]

    def _unread(self) -> str:
        left = sum(1 for _ in (self.folder / "measurements").glob("*.csv"))
        return f"{left} files are not read" if left else ""

    async def _count(self, wrong: list[str]) -> Found:
        journalled = [sample for entry in self.entries if entry.batch is not None for sample in entry.batch]
        ours = {f"press/{column}" for column in COLUMNS}
        wrong += differences(
            "the journal",
            "once",
            self.press.written,
            [sample for sample in journalled if sample.tag in ours],
            sort=True,
        ).wrong
        for name, expected in self.given.items():
            stored = [s for e in self.entries if e.source == name and e.batch is not None for s in e.batch]
            wrong += differences(f"figures of {name}, in the journal beside one life's", "once", expected, stored).wrong
        again: dict[str, int] = {}
        for one in self.destinations:
            due = [e for e in self.entries if not e.source.startswith("$") and e.offset <= self._positions[one.name]]
            expected = [sample for entry in due if entry.batch is not None for sample in entry.batch]
            one.tags = sorted({sample.tag for sample in expected})
            try:
                held = await one.samples()
            except Exception as error:  # noqa: BLE001  # a server that lost its mind must not hide what the others hold
                wrong.append(f"{one.name} cannot be counted: {str(error)[:300]}")
                continue
            exact = {"quality": one.has_quality, "sort": one.by_time}
            found = differences(one.name, one.promise, expected, held, unit=one.unit, **exact)
            wrong += found.wrong
            again[one.name] = found.again
        return Found(
            self._lives, self._at_work, self._servers, len(self.press.written), len(journalled), dict(self._moved),
            {name: count for name, count in again.items() if count}, wrong,
        )  # fmt: skip


async def _empty(waits: Callable[[], str], progress: Callable[[], object]) -> str:
    """Wait until nothing waits, as long as it becomes less; what is left."""
    seen, deadline = progress(), time.monotonic() + PATIENCE
    while (said := waits()) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        if progress() != seen:
            seen, deadline = progress(), time.monotonic() + PATIENCE
    return said


def _ledger(rows: Sequence[LedgerRow]) -> list[str]:
    """Nothing is missing in it, and nothing was refused or dropped: there is no reason to."""
    wrong = [f"ledger: {b.source} to {b.reader}: {b.missing} samples unaccounted" for b in balances(rows) if b.missing]
    lost: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        if row.outcome in ("rejected", "dropped", "lost before us"):
            lost[row.reader, row.outcome, row.reason] += row.samples
    return wrong + [f"ledger: {r or 'source'}: {n} {o}: {why}" for (r, o, why), n in lost.items()]


async def soak(
    folder: Path, kinds: Sequence[type[Destination]], lives: int, seed: int, seconds: float, said: Callable[[str], None]
) -> Found:
    """Start everything, kill and count; ``seconds``: no new life begins after so long."""
    async with Soak(folder, [kind(folder) for kind in kinds], seed) as running:
        return await running.run(lives, asyncio.get_running_loop().time() + seconds, said)
