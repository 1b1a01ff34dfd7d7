"""What the machines' figures are: closed windows, the running shift, the timeline, and a day as a report."""

import asyncio
import datetime as dt
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from shopfloor.console import models
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.reading import Instant, demand_historian, interval, machine_of
from shopfloor.console.records import Record, closed, live_tag, running
from shopfloor.console.report import as_csv
from shopfloor.console.state import Console, ConsoleState
from shopfloor.console.timeline import DAY, HOUR, columns_of, timeline
from shopfloor.console.view import milliseconds
from shopfloor.historian.base import Historian
from shopfloor.plant import Machine

Window = Literal["hour", "shift", "day"]

MOST_RECORDS: Final = 10_000
LONGEST: Final = 31 * DAY
"""Of a timeline."""
_BACK: Final[dict[Window, int]] = {"hour": DAY, "shift": 7 * DAY, "day": 31 * DAY}
_MINUTES: Final = 24 * 60

MachineId = Annotated[str, Path(description="The machine's id.")]
Begin = Annotated[str | None, Query(alias="from", max_length=64, description="As of /api/history.")]
Limit = Annotated[int, Query(ge=1, le=MOST_RECORDS, description="The most records, corrected ones included.")]
Day = Annotated[
    str | None,
    Query(
        pattern=r"^(19[7-9]|2[01]\d)\d-\d\d-\d\d$",
        description="A production day, `2026-11-21`; by default today's, site time.",
    ),
]

router = APIRouter(prefix="/api", default_response_class=Json, tags=["figures"])


@router.get("/machines/{id}/kpi", response_model=models.Kpi, responses=answers(404, 422, 503))
async def kpi(
    console: Console,
    id: MachineId,  # noqa: A002  # the API's word
    window: Annotated[Window, Query(description="Which windows.")] = "hour",
    from_: Begin = None,
    to: Instant = "now",
    limit: Limit = 2_000,
) -> Json:
    """A machine's closed windows, each as it was given last, and its running shift."""
    machine = with_figures(console, id)
    return Json(await _windows(console, {"machine": machine.id}, machine.id, (window, from_, to, limit)))


@router.get("/lines", response_model=models.Lines)
async def lines(console: Console) -> Json:
    """Lines, areas and the site that have figures, each with its running shift."""
    live = console.runtime.live
    return Json(
        {"lines": [{**whole.about(), "live": running(live, whole.id)} for whole in console.lines.wholes.values()]}
    )


@router.get("/lines/{id}/kpi", response_model=models.LineKpi, responses=answers(404, 422, 503))
async def line_kpi(
    console: Console,
    id: Annotated[str, Path(description="The id of a line, an area or the site.")],  # noqa: A002  # the API's word
    window: Annotated[Window, Query(description="Which windows.")] = "hour",
    from_: Begin = None,
    to: Instant = "now",
    limit: Limit = 2_000,
) -> Json:
    """A line's closed windows, each as it was given last, and its running shift."""
    whole = console.lines.wholes.get(id)
    if whole is None:
        detail = f"no line with figures has the id {id[:100]!r}; GET /api/lines lists them"
        raise Problem(404, "There is no such line", detail)
    return Json(await _windows(console, {"line": whole.id}, whole.id, (window, from_, to, limit)))


async def _windows(
    console: ConsoleState, about: dict[str, Any], name: str, asked: tuple[Window, str | None, str, int]
) -> dict[str, Any]:
    """What was given of a machine or a line."""
    window, from_, to, limit = asked
    live = running(console.runtime.live, name)
    start, end = interval(console, from_ or _begin(console, window, live), to)
    store = demand_historian(console)
    series = await store.history(f"{name}/kpi/{window}", start, end, limit)
    return {
        **about,
        "window": window,
        "from": milliseconds(start),
        "to": milliseconds(end),
        "now": milliseconds(console.now()),
        "reasons": _titles(console),
        "live": live,
        # In a thread: thousands of records would hold up everything else.
        "records": await asyncio.to_thread(closed, series),
        "truncated": series.truncated,
    }


@router.get("/machines/{id}/timeline", response_model=models.StateTimeline, responses=answers(404, 422, 503))
async def state_timeline(
    console: Console,
    id: MachineId,  # noqa: A002  # the API's word
    from_: Begin = None,
    to: Instant = "now",
) -> Json:
    """As what each moment of a machine counts, by default of its running shift; its state, and since when."""
    machine = with_figures(console, id)
    live = running(console.runtime.live, machine.id)
    if from_ is None and to == "now" and live is not None:
        start, end = live["start"] * 10**6, live["end"] * 10**6
    else:
        start, end = interval(console, from_ or "-8h", to)
    if end - start > LONGEST:
        raise Problem(422, "This is too long a time", "ask for a timeline of at most 31 days")
    roles = machine.roles.values()
    found = await timeline(
        machine,
        demand_historian(console),
        console.catalogue,
        console.calendar,
        (start, end, console.now()),
        [sample for tag in roles if (sample := console.runtime.live.get(tag)) is not None],
    )
    return Json(
        {
            "machine": machine.id,
            "from": milliseconds(start),
            "to": milliseconds(end),
            "until": milliseconds(found.until),
            "state": found.state.value,
            "since": None if found.since is None else milliseconds(found.since),
            **columns_of(found.segments),
        }
    )


@router.get("/report", response_model=models.Report, responses=answers(404, 422, 503))
async def report(console: Console, day: Day = None) -> Json:
    """The shifts of a production day, of every machine and line that has figures, and their sums."""
    wanted = _day(console, day)
    return Json(
        {
            "day": wanted.isoformat(),
            "today": _today(console).isoformat(),
            "now": milliseconds(console.now()),
            "machines": await _reported(console, wanted),
            "lines": await _reported_lines(console, wanted),
        }
    )


@router.get(
    "/report.csv",
    response_class=Response,
    responses={
        200: {"description": "The report as CSV (RFC 4180)", "content": {"text/csv": {"schema": {"type": "string"}}}},
        **answers(404, 422, 503),
    },
)
async def report_csv(console: Console, day: Day = None) -> Response:
    """The same as a table: one row for each machine, line, area and shift, ratios as fractions, times in seconds."""
    wanted = _day(console, day)
    headers = {
        "Content-Disposition": f'attachment; filename="shifts-{wanted.isoformat()}.csv"',
        "Cache-Control": "no-store",
    }
    rows = [*await _reported(console, wanted), *await _reported_lines(console, wanted)]
    return Response(as_csv(rows), headers=headers, media_type="text/csv")


def with_figures(console: ConsoleState, name: str) -> Machine:
    """The machine of this id. Raises Problem when there is none, or no figures of it."""
    machine = machine_of(console, name)
    if live_tag(machine.id) not in console.catalogue:
        raise Problem(404, "No figures are worked out for this machine", _HOW.format(machine.id))
    return machine


_HOW: Final = (
    "let the plant file have `processors: [{{name: oee, type: machine}}]` and give the machine {!r} in it a `state`, "
    "or `good` or `total`"
)


def _begin(console: ConsoleState, window: Window, live: Record | None) -> str:
    """Where to begin when nobody says: hours with that in which the running shift began."""
    if window == "hour" and live is not None:
        return str(live["start"] * 10**6 - HOUR + 1)
    return str(console.now() - _BACK[window])


def _titles(console: ConsoleState) -> dict[str, str]:
    """What people call the reasons, by their paths."""
    return {reason.id: reason.title for reason in console.runtime.plant.reasons if reason.title}


def _today(console: ConsoleState) -> dt.date:
    """The production day: at night that on which the running shift began."""
    now = console.now()
    return console.calendar.stretches(now, now + 1)[0].day


def _day(console: ConsoleState, text: str | None) -> dt.date:
    if text is None:
        return _today(console)
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise Problem(422, "There is no such day", f"day: {text!r} is not in the calendar") from error


async def _reported(console: ConsoleState, day: dt.date) -> list[dict[str, Any]]:
    """Each machine with its closed and running shifts of a day. Raises Problem when no machine has figures."""
    machines = [machine for machine in console.runtime.plant.machines if live_tag(machine.id) in console.catalogue]
    if not machines:
        raise Problem(404, "No figures are worked out here", _HOW.format("…"))
    store = demand_historian(console)
    span = _around(console, day)
    return [
        {
            "id": machine.id,
            "title": machine.title,
            "line": console.lines.of(machine),
            **await _reported_windows(console, store, machine.id, day, span),
        }
        for machine in machines
    ]


async def _reported_lines(console: ConsoleState, day: dt.date) -> list[dict[str, Any]]:
    """Each line with its shifts of a day, then areas and the site."""
    wholes = console.lines.wholes
    if not wholes:
        return []
    store, span = demand_historian(console), _around(console, day)
    return [
        {**whole.about(), **await _reported_windows(console, store, whole.id, day, span)} for whole in wholes.values()
    ]


def _around(console: ConsoleState, day: dt.date) -> tuple[int, int]:
    """What belongs to a day begins on it, a night shift as well; an hour's margin costs nothing."""
    return console.calendar.instant(day, 0) - HOUR, console.calendar.instant(day, _MINUTES) + HOUR


async def _reported_windows(
    console: ConsoleState, store: Historian, name: str, day: dt.date, span: tuple[int, int]
) -> dict[str, Any]:
    """The closed and running shifts of a day, and all of it where that is closed."""
    shifts, days = [
        [
            record
            for record in closed(await store.history(f"{name}/kpi/{window}", *span, MOST_RECORDS))
            if record.get("day") == day.isoformat()
        ]
        for window in ("shift", "day")
    ]
    live = running(console.runtime.live, name)
    if live is not None and live.get("day") == day.isoformat():
        known = {record["start"] for record in (shifts if live["window"] == "shift" else days)}
        if live["start"] not in known:
            (shifts if live["window"] == "shift" else days).append(live)
    return {"shifts": shifts, "day": days[-1] if days else None}
