"""``shopfloor replay``: works out machines' figures anew from the samples of the historian, and shows what differs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from shopfloor.historian.base import Historian
from shopfloor.kpi.calendar import calendar_of
from shopfloor.plant import Plant, passes
from shopfloor.processors.machine import EDIT, TICK, WINDOWS, MachineKpiConfig
from shopfloor.samples import Batch, Misconfigured, Sample

DAY: Final = 86_400 * 10**9
FOREVER: Final = 2**63 - 1
"""ns UTC behind all others."""
_PAGE: Final = 100_000
_FLOAT: Final = 1_000_000
"""ns by which a time may be off that was a float of seconds."""
_COMPARED: Final = (
    "oee", "availability", "performance", "quality", "good", "scrap", "seconds", "losses", "scrap_by_reason",
    "minor_stops", "incidents", "beyond", "outside", "lost_to",
)  # fmt: skip
"""Fields of a record that say the same when nothing differs."""


class Difference(NamedTuple):
    """A window of which the historian has another record than its samples give."""

    machine: str
    """Or the line, the area, the site."""
    window: str
    start: str
    was: Mapping[str, Any] | None
    """What is stored; None: nothing."""
    now: Mapping[str, Any] | None
    """What the samples give; None: the window has none."""

    @property
    def fields(self) -> list[str]:
        """What differs."""
        return [name for name in _COMPARED if (self.was or {}).get(name) != (self.now or {}).get(name)]


class Replayed(NamedTuple):
    """What a replay found."""

    samples: int
    windows: int
    differences: Sequence[Difference]


def moment(text: str, plant: Plant) -> int:
    """A date or a time as ns UTC, in the site's time zone where it names none. Raises Misconfigured."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Misconfigured(f"{text!r} is no time; write 2026-11-20 or 2026-11-20T06:00") from error
    return int((found if found.tzinfo else found.replace(tzinfo=ZoneInfo(plant.plant.timezone))).timestamp()) * 10**9


async def replayed(plant: Plant, first: str, last: str | None, name: str | None, now: int) -> Replayed:
    """Open the historian of a plant that does not run, and replay. Raises Unavailable, Misconfigured."""
    config = processor(plant, name)
    start, end = moment(first, plant), min(moment(last, plant) if last else now, now)
    if start >= end:
        raise Misconfigured("there is nothing between these times; `--from` must be before `--to`, and in the past")
    historian = plant.historian.build() if plant.historian is not None else None
    if not isinstance(historian, Historian):
        raise Misconfigured("the plant file has no `historian`: there are no samples to work anything out of")
    async with historian:
        return await replay(plant, config, historian, start, end)


def processor(plant: Plant, name: str | None) -> MachineKpiConfig:
    """The plant's processor of type ``machine``. Raises Misconfigured."""
    found = [c for c in plant.processors if isinstance(c, MachineKpiConfig) and name in (None, c.name)]
    if not found:
        wanted = f"no processor {name!r}" if name else "no processor"
        raise Misconfigured(f"the plant file has {wanted} of type `machine`; there is nothing to work out anew")
    return found[0]


async def replay(plant: Plant, config: MachineKpiConfig, historian: Historian, start: int, end: int) -> Replayed:
    """Every window from ``start`` to ``end``, ns UTC, anew. Raises Unavailable, Misconfigured."""
    calendar = calendar_of(plant.plant.timezone, plant.shifts, plant.exceptions)
    begin = calendar.window("day", next(calendar.cells(start))).start
    samples = await _samples(plant, config, historian, begin, end)
    worker = config.model_copy(update={"remember": end - begin + 2 * DAY}).build()
    given: list[Sample] = []
    for source, group in groupby(samples, key=lambda found: found[0]):
        given += worker.process(Batch.of(source, end, [sample for _, sample in group]))
    given += worker.process(Batch("$clock", end, [TICK], [end], [end]))
    now = _records(given, start, end)
    stored: list[Sample] = []
    for tag in {info.tag for info in config.outputs() if info.tag.rpartition("/")[2] in WINDOWS}:
        stored += await _history(historian, tag, start, end)
    was = _records(stored, start, end)
    differences = [
        difference
        for key in sorted(was.keys() | now.keys(), key=lambda key: (key[2], key[0], WINDOWS.index(key[1])))
        if (difference := Difference(*key, was.get(key), now.get(key))).fields
    ]
    return Replayed(len(samples), len(now), differences)


def _records(samples: Sequence[Sample], start: int, end: int) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """The newest record of each whole window between the times."""
    found: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for sample in samples:
        name, _, window = sample.tag.rpartition("/kpi/")
        if window in WINDOWS and sample.time >= start and isinstance(sample.value, str):
            record = json.loads(sample.value)
            if datetime.fromisoformat(record["end"]).timestamp() * 1e9 <= end + _FLOAT:
                found[name, window, record["start"]] = record
    return found


async def _samples(
    plant: Plant, config: MachineKpiConfig, historian: Historian, begin: int, end: int
) -> list[tuple[str, Sample]]:
    """What the processor would have read, with its source, in the order of time; at the beginning what held then."""
    inputs = [pattern for pattern in config.inputs() if pattern != TICK]
    sources = dict(_sources(plant))
    only = plant.sources[0].name if len(plant.sources) == 1 else ""
    found: list[tuple[str, Sample]] = []
    for tag in await historian.tags():
        if not passes(tag, inputs):
            continue
        source = tag.partition("/")[0] if tag.startswith("$") else sources.get(tag, only)
        held = await _held(historian, tag, begin, plant.historian.keep if plant.historian else 0)
        if held is not None and not (tag.startswith("$") and held.value is not False):
            found.append((source, held))
        # What people say of a stop, they often say later.
        until = FOREVER if tag.startswith(EDIT) else end
        found += [(source, sample) for sample in await _history(historian, tag, begin, until)]
    found.sort(key=lambda one: one[1].time)
    return found


def _sources(plant: Plant) -> Iterator[tuple[str, str]]:
    for source in plant.sources:
        yield from ((info.tag, source.name) for info in source.declared() or ())


async def _held(historian: Historian, tag: str, time: int, keep: int) -> Sample | None:
    """What a tag said last before ``time``, as a sample of ``time``."""
    days = await historian.aggregate(tag, max(time - keep, 0), time, DAY, "last") if keep else None
    if days is None or not len(days.values):
        return None
    return Sample(tag, time, days.values[-1])


async def _history(historian: Historian, tag: str, start: int, end: int) -> list[Sample]:
    """Every sample of a tag; of several of one time all, in the order in which they came."""
    found: list[Sample] = []
    while True:
        page = await historian.history(tag, start, end, _PAGE)
        found += map(Sample, [tag] * len(page.times), page.times, page.values, page.qualities)
        if not page.truncated:
            return found
        start = page.times[-1]
        while found and found[-1].time == start:
            found.pop()
