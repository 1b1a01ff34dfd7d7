"""A filler that works in shifts, and the figures that the real processor makes of what it says."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from shopfloor.plant import Plant
from shopfloor.processors.machine import MachineKpiConfig
from shopfloor.samples import Batch, Sample, TagInfo
from shopfloor.seams import Processor

SECOND: Final = 10**9
MINUTE: Final = 60 * SECOND
SHIFT: Final = 8 * 60 * MINUTE
CYCLE: Final = 10 * SECOND
ROLES: Final = ("state", "fault", "good", "scrap", "why")
INFOS: Final = [TagInfo(f"filler-1/{name}") for name in ROLES]
MACHINE: Final = {
    "id": "filler-1", "title": "Filler 1", "line": "bottling", "ideal_cycle": "9 s",
    "state": "filler-1/state", "fault": "filler-1/fault", "good": "filler-1/good", "scrap": "filler-1/scrap",
    "reasons": {"17": "machine/hydraulics"}, "scrap_reason": "filler-1/why",
    "scrap_reasons": {"3": "QUALITY/underfilled", "4": "MATERIAL/cap"}, "targets": {"oee": 0.9},
}  # fmt: skip
LINES: Final = [
    {"id": "bottling", "title": "Bottling", "area": "hall-1", "policy": "first_down", "targets": {"quality": 0.9}}
]
REASONS: Final = [
    {"id": "machine/hydraulics", "title": "Hydraulics"},
    {"id": "QUALITY/underfilled", "title": "Underfilled"},
    {"id": "MATERIAL/cap", "title": "Cap missing"},
    {"id": "machine/valve/stuck", "title": "Valve stuck"},
    {"id": "machine/valve/worn", "title": "Valve worn", "comment": True},
    {"id": "organisation/meeting", "title": "Team meeting"},
    {"id": "organisation/no_operator", "title": "No operator"},
]
RUNS, IDLES, FAILS, BLOCKED, SETUP = 6, 4, 9, 5, 15
PLAN: Final = (
    (0, SETUP, 0), (20, RUNS, 0), (70, FAILS, 17), (98, RUNS, 0), (118, IDLES, 0), (135, RUNS, 0), (180, 42, 0),
    (186, RUNS, 0), (200, BLOCKED, 0), (204, RUNS, 0), (220, FAILS, 22), (232, RUNS, 0), (250, IDLES, 0),
    (252, RUNS, 0), (260, IDLES, 0), (261, RUNS, 0), (271, IDLES, 0), (273, RUNS, 0),
)  # fmt: skip
"""Minutes after the beginning of a shift, state and fault code; a break is from minute 120 to 135."""


def shifts(first: int) -> list[dict[str, Any]]:
    """Three of eight hours, around the clock; the first begins at this hour."""
    found: list[dict[str, Any]] = []
    for name, hour in zip(("early", "late", "night"), range(first, first + 24, 8), strict=True):
        rest = f"{(hour + 2) % 24:02d}:00-{(hour + 2) % 24:02d}:15"
        times = {"from": f"{hour % 24:02d}:00", "to": f"{(hour + 8) % 24:02d}:00"}
        found.append({"name": name, "days": "mon-sun", **times, "breaks": [rest]})
    return found


def processor(plant: Plant) -> tuple[MachineKpiConfig, Processor]:
    """The real one, for the filler of this plant."""
    config = MachineKpiConfig(name="oee", machines=["filler-1"])
    config.place(plant)
    return config, config.build()


def said(start: int, end: int) -> Iterator[Sample]:
    """What the filler says from the beginning of a shift on, shift after shift, a unit every 10 s while it runs."""
    good = scrap = 0
    for begin in range(start, end, SHIFT):
        changes = [(begin + minute * MINUTE, state, fault) for minute, state, fault in PLAN]
        following = [time for time, _, _ in changes[1:]] + [begin + SHIFT]
        for (time, state, fault), until in zip(changes, following, strict=True):
            if time >= end:
                return
            yield Sample("filler-1/state", time, state)
            yield Sample("filler-1/fault", time, fault)
            yield Sample("filler-1/good", time, good)
            yield Sample("filler-1/scrap", time, scrap)
            for unit in range(time + CYCLE, min(until, end) if state == RUNS else time, CYCLE):
                if (good + scrap) % 37 == 36:
                    yield Sample("filler-1/why", unit, 3 + scrap % 2)
                    scrap += 1
                    yield Sample("filler-1/scrap", unit, scrap)
                else:
                    good += 1
                    yield Sample("filler-1/good", unit, good)


def batches(samples: Iterable[tuple[int, Sample]], start: int, end: int) -> Iterator[Batch]:
    """Samples as (arrival, sample), by the minute, with a tick of the clock after each."""
    waiting = sorted(samples, key=lambda pair: pair[0])
    place = 0
    for tick in range(start + MINUTE, end + 1, MINUTE):
        first = place
        while place < len(waiting) and waiting[place][0] <= tick:
            place += 1
        if place > first:
            yield Batch.of("plc", tick, [sample for _, sample in waiting[first:place]])
        yield Batch.of("$clock", tick, [Sample("$clock/tick", tick, tick)])
