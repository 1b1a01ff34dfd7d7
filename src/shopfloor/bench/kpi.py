"""How fast figures of machines are worked out: live as in the plant, and anew from what was recorded.

A machine says its state and its counter once a second, mostly unchanged states: it makes a unit every second, has a
minor stop an hour, a longer one a shift, and scrap of one in fifty. ``live`` is twenty of them as the pipeline brings
them: a batch and a tick of the clock each second, live figures every two. ``anew`` is one machine in batches of ten
minutes, a tick an hour.
"""

import statistics
import time
from array import array
from collections.abc import Iterator
from typing import Final

from shopfloor.bench import Result
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
_LIVE: Final = 600
"""Seconds of live data a run: a shorter time would flatter, since the running hour is looked at from its beginning."""
_RUNS: Final = 3
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


def _live(processor: Processor, seconds: int) -> float:
    """Samples a second with a tick each second."""
    tags = [f"m{n}/{role}" for n in range(MACHINES) for role in _ROLES]
    machine = Counted()
    batches: list[Batch] = []
    for second in range(BEGIN, BEGIN + seconds):
        now = second * SECOND
        values = array("q", machine.at(second) * MACHINES)
        batches += [
            Batch("plc", now, tags, array("q", [now]) * len(tags), values),
            Batch("$clock", now, [TICK], [now], [now]),
        ]
    begin = time.perf_counter()
    for batch in batches:
        processor.process(batch)
    return seconds * len(tags) / (time.perf_counter() - begin)


def _recorded(days: int) -> Iterator[Batch]:
    """A machine's samples in batches of ten minutes, with a tick each hour."""
    tags = ["m0/state", "m0/good", "m0/scrap"] * 600
    machine = Counted()
    for start in range(BEGIN, BEGIN + days * DAY, 600):
        seconds = range(start, start + 600)
        times = array("q", [second * SECOND for second in seconds for _ in range(3)])
        values = array("q", [value for second in seconds for value in machine.at(second)])
        yield Batch("plc", times[-1], tags, times, values)
        if (start + 600) % HOUR == 0:
            now = (start + 600) * SECOND
            yield Batch("$clock", now, [TICK], [now], [now])


def _anew(processor: Processor, days: int) -> float:
    """Seconds that a machine's time takes; making the samples is not counted."""
    taken = 0.0
    for batch in _recorded(days):
        begin = time.perf_counter()
        processor.process(batch)
        taken += time.perf_counter() - begin
    return taken


def _built(machines: int) -> Processor:
    return plant(machines).processors[0].build()


def run(*, thorough: bool) -> list[Result]:
    """Live with twenty machines; a machine's week anew, a year when thorough."""
    live = [_live(_built(MACHINES), _LIVE) for _ in range(_RUNS)]
    days, name, runs = (365, "machine_year", 1) if thorough else (7, "machine_week", _RUNS)
    anew = [_anew(_built(1), days) for _ in range(runs)]
    seconds = statistics.median(anew)
    return [
        Result("live", statistics.median(live), "samples/s", None, None, min(live), max(live), _RUNS),
        Result(name, seconds, "s", None, None, min(anew), max(anew), runs),
        Result(f"{name}_rate", 3 * days * DAY / seconds, "samples/s", runs=runs),
    ]
