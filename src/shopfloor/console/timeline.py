"""As what each moment of a machine counts: worked out of its stored samples by the rules of its figures.

The same arithmetic as that of the processor `machine` (kpi.Machine), so that the bar in the console and the
figures beside it tell one story, late samples included.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from shopfloor.console.problem import Problem
from shopfloor.console.view import Catalogue, milliseconds
from shopfloor.historian.base import Historian
from shopfloor.kpi.calendar import Calendar
from shopfloor.kpi.facts import BAD, Edit, Facts, Known, Role
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.running import Stop
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import State
from shopfloor.plant import Machine as MachineConfig
from shopfloor.plant.units import DURATION_UNITS
from shopfloor.samples import Quality, Sample, Value

HOUR: Final = DURATION_UNITS["h"]
DAY: Final = DURATION_UNITS["d"]
MOST: Final = 300_000
"""Samples of one tag that are read at most for an answer."""
PAGE: Final = 50_000
BACK: Final = (HOUR, DAY, 8 * DAY, 64 * DAY)
"""How far back the sample is looked for that holds at the beginning, in steps: most tags were heard of lately."""


class Segment(NamedTuple):
    """From ``start`` (ns UTC) on the time counts as one class; ``reason`` is that of a stop, "" where none is known."""

    start: int
    name: str
    reason: str


class _Part(msgspec.Struct):
    reason: str
    seconds: float


class _Stop(msgspec.Struct):
    """A stop's record, as far as it matters here; one that was withdrawn has no reasons."""

    reasons: list[_Part] = []


class Timeline(NamedTuple):
    """Segments without a gap as far as ``until``; the state then, and since when (None: longer than is kept)."""

    segments: list[Segment]
    until: int
    state: State
    since: int | None


async def timeline(
    config: MachineConfig,
    store: Historian,
    catalogue: Catalogue,
    calendar: Calendar,
    span: tuple[int, int, int],
    newest: Sequence[Sample] = (),
) -> Timeline:
    """Of a machine from ``span[0]`` to ``span[1]``, as is known at ``span[2]``.

    ``newest`` are samples that the historian may not have yet. Raises Problem for more samples than can be read.
    """
    machine, first = await _learned(config, store, catalogue, span, newest)
    # In a thread: a machine that is judged by its units has thousands of them in a shift.
    return await asyncio.to_thread(_evaluated, machine, calendar, first, span)


async def standing(
    config: MachineConfig,
    store: Historian,
    catalogue: Catalogue,
    span: tuple[int, int, int],
    newest: Sequence[Sample] = (),
) -> list[Stop]:
    """The stops that reach into a span, as wholes; of what began long before it the beginning may be later.

    As ``timeline``.
    """
    machine, _ = await _learned(config, store, catalogue, span, newest)
    return await asyncio.to_thread(lambda: list(machine.stops(*span)))


async def _learned(
    config: MachineConfig,
    store: Historian,
    catalogue: Catalogue,
    span: tuple[int, int, int],
    newest: Sequence[Sample],
) -> tuple[Machine, int]:
    """The machine with all that is known of a span, and since when something is."""
    start, end, _ = span
    machine = Machine(Spec.of(config, reasons=catalogue.reasons))
    # A stop is judged as a whole: one that began before is seen as far back as makes it a long one.
    begin = start - max(HOUR, 2 * config.minor_stop_below, *machine.spec.longest.values())
    first = begin
    for role in _telling(machine.spec):
        tag = machine.spec.roles[role]
        source = catalogue.giver(tag)
        machine.facts.sources[role] = source
        for time, value in await samples(store, tag, begin, end):
            machine.facts.take(role, time, value, source)
            first = min(first, time)
        for sample in newest:
            if sample.tag == tag and sample.quality >= Quality.GOOD:
                machine.facts.take(role, sample.time, sample.value, source)
    for source in {source for source in machine.facts.sources.values() if source}:
        await _presence(store, machine.facts, source, (first, end))
    for time, value in await every(store, f"{config.id}/kpi/stop", begin, end):
        for edit in _given(time, value):
            machine.facts.edit(edit)
    return machine, first


async def _presence(store: Historian, facts: Facts, source: str, span: tuple[int, int]) -> None:
    """When the source was lost, as far as it did not make up for it (`$source/NAME/complete`)."""
    told = [(time, "connected", value) for time, value in await every(store, f"$source/{source}/connected", *span)]
    told += [(time, "complete", value) for time, value in await every(store, f"$source/{source}/complete", *span)]
    lost = 0
    for time, what, value in sorted(told, key=itemgetter(0)):
        if what == "connected" and value is False:
            facts.lose(source, time)
            lost = time
        elif what == "complete" and lost:
            facts.cover(source, lost, time)


def _given(start: int, record: Known) -> Iterator[Edit]:
    """The reasons of a stop as the processor gave them last: in them is what people said."""
    try:
        found = msgspec.json.decode(record if isinstance(record, str) else "", type=_Stop)
    except msgspec.DecodeError:
        return
    for part in found.reasons:
        end = start + round(part.seconds * 10**9)
        if part.reason:
            yield Edit(start, end, part.reason)
        start = end


def _telling(spec: Spec) -> list[Role]:
    """The roles that say as what the time counts; units only where there is no state."""
    wanted: tuple[Role, ...] = ("state", "mode", "fault") if "state" in spec.roles else (*spec.counted, "fault")
    return [role for role in wanted if role in spec.roles]


async def samples(store: Historian, tag: str, start: int, end: int) -> list[tuple[int, Known]]:
    """The samples of a tag, and the last one before them: it holds until the first."""
    found = await every(store, tag, start, end)
    for back in BACK:
        before = await every(store, tag, start - back, start)
        if before:
            return [before[-1], *found]
    return found


async def every(store: Historian, tag: str, start: int, end: int) -> list[tuple[int, Known]]:
    """All samples of a tag in a time; bad ones as BAD. Raises Problem for more than can be read."""
    found: list[tuple[int, Known]] = []
    while True:
        series = await store.history(tag, start, end, PAGE)
        columns = zip(series.times, series.values, series.qualities, strict=True)
        found += ((time, _known(value, quality)) for time, value, quality in columns)
        if not series.truncated:
            return found
        if len(found) >= MOST:
            raise Problem(
                422, "Too much for one answer", f"{tag} has more than {MOST} samples then; ask for a shorter time"
            )
        start = series.times[-1] + 1


def _known(value: Value, quality: int) -> Known:
    return BAD if quality < Quality.GOOD or isinstance(value, bytes) else value


def _evaluated(machine: Machine, calendar: Calendar, first: int, span: tuple[int, int, int]) -> Timeline:
    start, end, now = span
    until = min(end, now)
    pieces = (
        Segment(
            piece.start, piece.name.value, "" if piece.stop is None else machine.reason(piece.stop, piece.start, now)
        )
        for piece in machine.pieces(start, until, calendar, now)
    )
    state, since = _standing(machine, first, until, now)
    return Timeline(list(_joined(pieces)), until, state, since)


def _joined(segments: Iterator[Segment]) -> Iterator[Segment]:
    """Neighbours that say the same are one."""
    for _, same in groupby(segments, key=lambda segment: segment[1:]):
        yield next(same)


def _standing(machine: Machine, first: int, until: int, now: int) -> tuple[State, int | None]:
    """The state right before ``until`` and since when it is so."""
    state, since = State.UNKNOWN, first
    for _, same in groupby(machine.running.segments(first, until, now), key=lambda segment: segment.state):
        segment = next(same)
        state, since = segment.state, segment.start
    return state, since if since > first or _told(machine, first) else None


def _told(machine: Machine, time: int) -> bool:
    """Whether a sample of the state says that it began then."""
    line = machine.facts.lines.get("state")
    return line is not None and line.first == time


def columns_of(segments: Sequence[Segment]) -> dict[str, list[Any]]:
    """As the API gives them: columns of equal length, times in ms."""
    return {
        "starts": [milliseconds(segment.start) for segment in segments],
        "classes": [segment.name for segment in segments],
        "reasons": [segment.reason for segment in segments],
    }
