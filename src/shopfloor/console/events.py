"""What happened at the machines, in order: stops, corrected figures, what people said, sources that were away."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from operator import itemgetter
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from shopfloor.commands import to_json
from shopfloor.console import stop_models as models
from shopfloor.console.figures import LONGEST, with_figures
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.reading import Instant, demand_historian, interval
from shopfloor.console.records import live_tag, record, running
from shopfloor.console.said import Said, said
from shopfloor.console.state import Console, ConsoleState
from shopfloor.console.stops import name_who, stop_of
from shopfloor.console.timeline import DAY, every
from shopfloor.console.view import CUT, milliseconds
from shopfloor.historian.base import Historian, Series
from shopfloor.kpi.facts import BAD, Bad, Known
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import resolve
from shopfloor.plant import Machine
from shopfloor.processors.machine import WINDOWS, MachineKpiConfig
from shopfloor.processors.making import RATIOS
from shopfloor.samples import Value

MOST: Final = 1_000
_RECORDS: Final = 100_000
"""Records of one tag that are read at most for a part of an answer."""
_COMPARED: Final = (*RATIOS, "good", "scrap")
_MS: Final = 10**6

Fields = dict[str, Any]

router = APIRouter(prefix="/api", default_response_class=Json, tags=["figures"])


@router.get("/events", response_model=models.Events, responses=answers(404, 422, 503))
async def events(
    console: Console,
    from_: Annotated[Instant, Query(alias="from")] = "-24h",
    to: Instant = "now",
    machine: Annotated[str | None, Query(max_length=255, description="Only of this machine, by its id.")] = None,
    kind: Annotated[list[models.Kind] | None, Query(description="Only of these kinds; may be repeated.")] = None,
    limit: Annotated[
        int, Query(ge=1, le=MOST, description="The most events; those of one moment stay together.")
    ] = 200,
) -> Json:
    """What happened in a time, the newest first, of all machines that have figures or of one; at most 31 days."""
    start, end = interval(console, from_, to)
    if end - start > LONGEST:
        raise Problem(422, "This is too long a time", "ask for the events of at most 31 days")
    asked = _Asked(console, demand_historian(console), machine, set(kind or models.KINDS))
    found = await asked.between(start, end, limit)
    following = found[limit - 1]["time"] if len(found) > limit else None
    if following is not None:
        found = [event for event in found if event["time"] >= following]
    return Json(
        {
            "from": milliseconds(start),
            "to": milliseconds(end),
            "now": milliseconds(console.now()),
            "reasons": {reason.id: reason.title for reason in console.runtime.plant.reasons if reason.title},
            "events": [event | {"time": milliseconds(event["time"])} for event in found],
            "next": None if following is None else str(following),
        }
    )


def _machines(console: ConsoleState, name: str | None) -> list[Machine]:
    if name is not None:
        return [with_figures(console, name)]
    return [machine for machine in console.runtime.plant.machines if live_tag(machine.id) in console.catalogue]


class _Asked:
    """A question for events: of which machines, of which kinds."""

    def __init__(self, console: ConsoleState, store: Historian, machine: str | None, kinds: set[str]) -> None:
        """Raises Problem when there is no such machine, or no figures of it."""
        self._console = console
        self._store = store
        self._machines = _machines(console, machine)
        self._whole = machine is None
        self._kinds = kinds
        processors = [p for p in console.runtime.plant.processors if isinstance(p, MachineKpiConfig)]
        self._remember = max((p.remember for p in processors), default=0)

    async def between(self, start: int, end: int, enough: int) -> list[Fields]:
        """The events with start <= time < end, the newest first; times in ns. Days behind enough of them are left."""
        found: list[Fields] = []
        losses = await self._losses(start, end) if "loss" in self._kinds else []
        until = end
        while until > start and len(found) <= enough:
            begin = max(start, until - DAY)
            some = [event for event in losses if begin <= event["time"] < until]
            for machine in self._machines:
                some += await self._of(machine, begin, until)
            found += sorted(some, key=itemgetter("time"), reverse=True)
            until = begin
        return found

    async def _of(self, machine: Machine, start: int, end: int) -> list[Fields]:
        found: list[Fields] = []
        edits: list[Said] = []
        if self._kinds & {"stop", "edit"}:
            edits = await said(self._store, machine.id, start, self._console.now() + 1)
        if "stop" in self._kinds:
            series = await self._store.history(f"{machine.id}/kpi/stop", start, end, _RECORDS)
            for time, stop in await asyncio.to_thread(_stops, series):
                name_who(stop, edits)
                found.append({**stop, "time": time, "kind": "stop", "machine": machine.id})
        if "edit" in self._kinds:
            found += (
                one.json() | {"time": one.at, "kind": "edit", "machine": machine.id} for one in edits if one.at < end
            )
        if "correction" in self._kinds:
            for window in WINDOWS:
                # A window is stamped with its beginning; it may be corrected as long as is remembered.
                tag, first = f"{machine.id}/kpi/{window}", start - self._remember - 2 * DAY
                series = await self._store.history(tag, first, end, _RECORDS)
                found += await asyncio.to_thread(_corrections, series, start, end)
        if "unknown_state" in self._kinds:
            found += await self._strange(machine, start, end)
        return found

    async def _strange(self, machine: Machine, start: int, end: int) -> list[Fields]:
        """Where the machine began to give a state that nobody explained; most never do, and are not looked at."""
        live = running(self._console.runtime.live, machine.id)
        if machine.state is None or live is None or not live.get("unknown_states"):
            return []
        samples = await every(self._store, machine.state, start, end)
        states = Spec.of(machine).states
        return [
            {
                "time": time,
                "kind": "unknown_state",
                "machine": machine.id,
                "tag": machine.state,
                "value": to_json(value, CUT),
            }
            for time, value in _changes(samples)
            if not isinstance(value, Bad) and resolve(value, None, states) is None
        ]

    async def _losses(self, start: int, end: int) -> list[Fields]:
        found: list[Fields] = []
        for source, machines in self._sources().items():
            now = self._console.now() + 1
            told = [(time, value is True) for time, value in await every(self._store, _there(source), start, now)]
            complete = [time for time, _ in await every(self._store, f"$source/{source}/complete", start, now)]
            for (time, there), (until, _) in pairwise([*told, (0, True)]):
                if there or time >= end:
                    continue
                following = min((later for later, again in told if later > until and not again), default=now)
                found.append(
                    {
                        "time": time,
                        "kind": "loss",
                        "source": source,
                        "machines": machines,
                        "until": milliseconds(until) if until else None,
                        "complete": bool(until) and any(until <= moment <= following for moment in complete),
                    }
                )
        return found

    def _sources(self) -> dict[str, list[str]]:
        """The sources and the machines that they tell of; of all machines also such that tell of none."""
        found: dict[str, list[str]] = {source.name: [] for source in self._console.runtime.plant.sources if self._whole}
        for machine in self._machines:
            for source in {self._console.catalogue.giver(tag) for tag in machine.roles.values()} - {""}:
                found.setdefault(source, []).append(machine.id)
        return found


def _there(source: str) -> str:
    return f"$source/{source}/connected"


def _stops(series: Series) -> list[tuple[int, Fields]]:
    newest = dict(zip(series.times, series.values, strict=True))
    return [(time, stop) for time, value in newest.items() if (stop := stop_of(time, value)) is not None]


def _corrections(series: Series, start: int, end: int) -> list[Fields]:
    """The records that were corrected between two times."""
    return [
        found
        for value in series.values
        if isinstance(value, str) and '"corrected"' in value and (found := _correction(value)) is not None
        if start <= found["time"] < end
    ]


def _correction(value: Value) -> Fields | None:
    found = record(value)
    try:
        if found is None:
            return None
        return {
            "time": round(datetime.fromisoformat(found["corrected"]).timestamp() * 1000) * _MS,
            "kind": "correction",
            "machine": found["machine"],
            "window": found["window"],
            "shift": found["shift"],
            "start": found["start"],
            "end": found["end"],
            "revision": found["revision"],
            "was": {name: found["was"][name] for name in _COMPARED},
            "is": {name: found[name] for name in _COMPARED},
            "why": found["why"],
        }
    except (KeyError, TypeError, ValueError):
        return None


def _changes(samples: Sequence[tuple[int, Known]]) -> Iterator[tuple[int, Known]]:
    last: Known = BAD
    for time, value in samples:
        if value is not BAD and value != last:
            yield time, value
        last = value
