"""How fast figures of machines are worked out, live as in the plant and anew from what was recorded, and how small.

A machine says its state and its counter once a second, mostly unchanged states: it makes a unit every second, has a
minor stop an hour, a longer one a shift, and scrap of one in fifty. ``fold`` is twenty of them for an hour as the
pipeline brings them: a batch and a tick of the clock each second, live figures every two. ``machine_month`` is one
machine in batches of ten minutes, a tick an hour; then it is looked at how much memory it takes (``kept``: what three
days back are corrected with) and how large the state is that is stored. ``live`` is two hundred of them in a
Shopfloor of their own, see ``kpi_live``.
"""

import gc
import random
import statistics
import time
import tracemalloc
from array import array
from collections.abc import Iterator
from typing import Final

from shopfloor.bench import Result, kpi_live
from shopfloor.plant import Plant
from shopfloor.processors.machine import TICK, MachineKpiConfig
from shopfloor.samples import Batch
from shopfloor.seams import Processor

SECOND: Final = 10**9
BEGIN: Final = 1_772_409_600
"""2026-03-02, a Monday, midnight UTC; in seconds."""
MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86_400
MACHINES: Final = 20
_LIVE: Final = HOUR
"""Seconds of live data a run: a whole hour, since the running one could be looked at from its beginning."""
_RUNS: Final = 2
_KEPT: Final = 5
"""Days that are known at most: ``remember`` is three, whole days are forgotten, a day after that."""
_CLOCKS: Final = {"even": 0, "ns": 5_000_000}
"""How late samples come, ns at most: not at all, and five milliseconds, told in nanoseconds."""
_ROLES: Final = ("state", "good", "scrap")


def plant(machines: int) -> Plant:
    """Machines with three shifts, as a plant file has them."""
    shifts = [("early", "06:00", "14:00"), ("late", "14:00", "22:00"), ("night", "22:00", "06:00")]
    config = MachineKpiConfig(name="figures")
    return Plant.model_validate(
        {
            "plant": {"site": "bench", "timezone": "Europe/Berlin"},
            "shifts": [{"name": name, "days": "mon-sun", "from": a, "to": b} for name, a, b in shifts],
            "machines": [
                {"id": f"m{n}", "ideal_cycle": "1 s"} | {role: f"m{n}/{role}" for role in _ROLES}
                for n in range(machines)
            ],
            "processors": [config],
        }
    )


def state(second: int) -> int:
    """What a machine says it does: a stop of 2 min an hour, one of 20 min every eight hours."""
    stopped = second % HOUR < 2 * MINUTE or second % (8 * HOUR) < 20 * MINUTE
    return 9 if stopped else 6


class Counted:
    """A machine's counters."""

    def __init__(self) -> None:
        self._good = self._scrap = 0

    def at(self, second: int) -> tuple[int, int, int]:
        """State, good and scrap of the next second."""
        now = state(second)
        if now == 6:  # noqa: PLR2004  # PackML's Execute
            self._scrap += second % 50 == 0
            self._good += second % 50 != 0
        return now, self._good, self._scrap


def _live(processor: Processor) -> float:
    """Samples a second of processor time, with a tick each second."""
    tags = [f"m{n}/{role}" for n in range(MACHINES) for role in _ROLES]
    machine = Counted()
    taken = 0.0
    for second in range(BEGIN + HOUR, BEGIN + HOUR + _LIVE):
        now = second * SECOND
        batch = Batch("plc", now, tags, array("q", [now]) * len(tags), array("q", machine.at(second) * MACHINES))
        tick = Batch("$clock", now, [TICK], [now], [now])
        begin = time.process_time()
        processor.process(batch)
        processor.process(tick)
        taken += time.process_time() - begin
    return _LIVE * len(tags) / taken


def _recorded(days: int, jitter: int = 0) -> Iterator[Batch]:
    """A machine's samples in batches of ten minutes, with a tick each hour; their clock is up to ``jitter`` ns late."""
    tags = ["m0/state", "m0/good", "m0/scrap"] * 600
    machine, chance = Counted(), random.Random(1)  # noqa: S311  # no secret
    for start in range(BEGIN, BEGIN + days * DAY, 600):
        seconds = range(start, start + 600)
        late = [chance.randrange(jitter) if jitter else 0 for _ in seconds]
        times = array("q", [second * SECOND + by for second, by in zip(seconds, late, strict=True) for _ in range(3)])
        values = array("q", [value for second in seconds for value in machine.at(second)])
        yield Batch("plc", times[-1], tags, times, values)
        if (start + 600) % HOUR == 0:
            now = (start + 600) * SECOND
            yield Batch("$clock", now, [TICK], [now], [now])


def _anew(processor: Processor, days: int) -> float:
    """Seconds of processor time that a machine's time takes; making the samples is not counted."""
    taken = 0.0
    for batch in _recorded(days):
        begin = time.process_time()
        processor.process(batch)
        taken += time.process_time() - begin
    return taken


def _kept(jitter: int) -> tuple[float, float, float]:
    """Bytes of memory and of the stored state for five days, per day; milliseconds of processor time to encode it."""
    gc.collect()
    tracemalloc.start()
    processor = _built(1)
    for batch in _recorded(_KEPT, jitter):
        processor.process(batch)
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    begin = time.process_time()
    state = processor.snapshot()
    return memory / _KEPT, len(state) / _KEPT, 1000 * (time.process_time() - begin)


def _built(machines: int) -> Processor:
    return plant(machines).processors[0].build()


def run(*, thorough: bool) -> list[Result]:
    """The fold, a machine-month anew, and the running product; when thorough a machine-year, memory and state."""
    live = [_live(_built(MACHINES)) for _ in range(_RUNS)]
    days, name, runs = (365, "machine_year", 1) if thorough else (30, "machine_month", 1)
    seconds = _anew(_built(1), days)
    found = [
        Result(
            "fold", round(statistics.median(live)), "samples/s", None, None, round(min(live)), round(max(live)), _RUNS
        ),
        Result(f"{name}_s", round(seconds, 2), "s", runs=runs),
        Result(f"{name}_rate", round(3 * days * DAY / seconds), "samples/s", runs=runs),
    ]
    for clock, jitter in _CLOCKS.items() if thorough else ():
        memory, state, took = _kept(jitter)
        found += [
            Result(f"kept_kb_{clock}", round(memory / 1000), "kB a machine-day", runs=1),
            Result(f"state_kb_{clock}", round(state / 1000), "kB a machine-day", runs=1),
            Result(f"state_ms_{clock}", round(took, 2), f"ms, {_KEPT} days", runs=1),
        ]
    return found + kpi_live.measure(thorough=thorough)
