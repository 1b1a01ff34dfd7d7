"""The machines' stops: which there were, and what people say of them."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query

from shopfloor.commands.roles import suffices
from shopfloor.console import models
from shopfloor.console.figures import Begin, MachineId, with_figures
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.reading import Instant, demand_historian, interval
from shopfloor.console.state import Console, Me
from shopfloor.console.view import milliseconds
from shopfloor.plant import Plant
from shopfloor.processors.machine import StopEdit
from shopfloor.samples import Value

EDITS: Final = "operator"
"""The least role that may say why a machine stood."""
MOST_STOPS: Final = 10_000
_MS: Final = 10**6

router = APIRouter(prefix="/api", default_response_class=Json, tags=["figures"])


@router.get("/machines/{id}/stops", response_model=models.Stops, responses=answers(404, 422, 503))
async def stops(
    console: Console,
    id: MachineId,  # noqa: A002  # the API's word
    from_: Begin = None,
    to: Instant = "now",
    limit: Annotated[int, Query(ge=1, le=MOST_STOPS, description="The most records, changed ones included.")] = 2_000,
) -> Json:
    """The stops that began in a time, by default in the last day, as they were given last."""
    machine = with_figures(console, id)
    start, end = interval(console, from_ or "-24h", to)
    series = await demand_historian(console).history(f"{machine.id}/kpi/stop", start, end, limit)
    newest = dict(zip(series.times, series.values, strict=True))
    found = [stop for time, value in sorted(newest.items()) if (stop := _stop(time, value)) is not None]
    return Json(
        {
            "machine": machine.id,
            "from": milliseconds(start),
            "to": milliseconds(end),
            "now": milliseconds(console.now()),
            "stops": found,
            "truncated": series.truncated,
        }
    )


@router.post(
    "/machines/{id}/reasons",
    response_model=models.ReasonGiven,
    responses=answers(400, 403, 404, 411, 413, 415, 422, 503),
)
async def give_reason(
    console: Console,
    person: Me,
    id: MachineId,  # noqa: A002  # the API's word
    new: models.NewReason,
) -> Json:
    """Say why a machine stood between two times; it counts instead of what the machine says. It is recorded who did."""
    if not suffices(person.role, EDITS):
        raise Problem(403, "You may not do this", f"it takes the role {EDITS}; this is {person.role}")
    machine = with_figures(console, id)
    _check(console.runtime.plant, new, console.now())
    edit = StopEdit(round(new.from_ * _MS), round(new.to * _MS), new.reason, person.name, new.comment)
    said = f"{machine.id}: {new.reason or 'as the machine says'} from {_iso(new.from_)} to {_iso(new.to)}"
    await console.runtime.commands.record_control(person.name, person.role, f"{said} {new.comment}".strip())
    await console.runtime.edit_stops(machine.id, msgspec.json.encode(edit).decode())
    return Json({"machine": machine.id, "from": new.from_, "to": new.to, "reason": new.reason, "by": person.name})


def _check(plant: Plant, new: models.NewReason, now: int) -> None:
    if not new.from_ < new.to:
        raise _wrong("to", "must be later than `from`")
    if new.from_ * _MS > now:
        raise _wrong("from", "lies in the future: only what has happened has a reason")
    known = {reason.id: reason for reason in plant.reasons}
    if new.reason and known and new.reason not in known:
        raise _wrong("reason", f"is not in the plant file's `reasons`: {', '.join(known)}")
    if new.reason in known and known[new.reason].comment and not new.comment.strip():
        raise _wrong("comment", f"the reason {new.reason} needs a comment")


def _wrong(field: str, text: str) -> Problem:
    return Problem(422, "This reason cannot be given", f"{field}: {text}", errors=[{"field": field, "detail": text}])


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment / 1000).astimezone().isoformat(timespec="seconds")


def _stop(time: int, value: Value) -> dict[str, Any] | None:
    """A stop with its times in ms; None for one that was withdrawn, and for what is none."""
    try:
        found: dict[str, Any] = msgspec.json.decode(value if isinstance(value, str) else "", type=dict[str, Any])
        if found.get("withdrawn"):
            return None
        end = found["end"] and datetime.fromisoformat(found["end"]).timestamp() * 1000
        reasons = [
            {**part, "start": round(datetime.fromisoformat(part["start"]).timestamp() * 1000, 3)}
            for part in found["reasons"]
        ]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError):
        return None
    return {
        "start": milliseconds(time),
        "end": end,
        "class": found["class"],
        "state": found["state"],
        "reasons": reasons,
    }
