"""The machines' stops: which there were, and what people say of them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query

from shopfloor.commands.roles import suffices
from shopfloor.console import stop_models as models
from shopfloor.console.figures import LONGEST, Begin, MachineId, with_figures
from shopfloor.console.person import Person
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.reading import Instant, demand_historian, interval
from shopfloor.console.said import Said, said, why
from shopfloor.console.state import Console, ConsoleState, Me
from shopfloor.console.timeline import BACK, DAY, standing
from shopfloor.console.view import milliseconds
from shopfloor.historian.base import Historian
from shopfloor.plant import Machine, Plant
from shopfloor.plant.units import DURATION_UNITS
from shopfloor.processors.machine import MachineKpiConfig, StopEdit
from shopfloor.samples import Unavailable, Value

EDITS: Final = "operator"
"""The least role that may say why a machine stood."""
MOST_STOPS: Final = 10_000
USED: Final = 30 * DAY
"""How far back is counted how often a reason was given."""
NEAR: Final = DURATION_UNITS["ms"]
"""By how much a time may miss where a stop begins or ends: times of JSON are floats of ms."""
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
    """The stops that reach into a time, by default the last day, as they were given last, and what was said of them."""
    machine = with_figures(console, id)
    start, end = interval(console, from_ or "-24h", to)
    store = demand_historian(console)
    series = await store.history(f"{machine.id}/kpi/stop", start, end, limit)
    newest = dict(zip(series.times, series.values, strict=True))
    found = [stop for time, value in sorted(newest.items()) if (stop := stop_of(time, value)) is not None]
    found = [*await _lasting(store, machine.id, start), *found]
    first = min([start, *(round(stop["start"] * _MS) for stop in found)])
    edits = await said(store, machine.id, first, console.now() + 1)
    for stop in found:
        name_who(stop, edits)
    return Json(
        {
            "machine": machine.id,
            "from": milliseconds(start),
            "to": milliseconds(end),
            "now": milliseconds(console.now()),
            "stops": found,
            "edits": [edit.json() for edit in reversed(edits) if edit.reaches(first, end)],
            "truncated": series.truncated,
        }
    )


@router.get("/machines/{id}/reasons", response_model=models.Reasons, responses=answers(404, 422, 503))
async def reasons(
    console: Console,
    id: MachineId,  # noqa: A002  # the API's word
) -> Json:
    """The reasons that can be given, as the plant file has them, and how often they were given lately."""
    machine = with_figures(console, id)
    now = console.now()
    edits = await said(demand_historian(console), machine.id, now - USED, now + 1)
    used = Counter(one.edit.reason for one in edits if one.undone is None)
    return Json(
        {
            "machine": machine.id,
            "reasons": [
                {
                    "id": reason.id,
                    "title": reason.title or reason.id.rpartition("/")[2],
                    "comment": reason.comment,
                    "used": used[reason.id],
                }
                for reason in console.runtime.plant.reasons
            ],
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
    machine = may_edit(console, person, id)
    start, end = await _exact(console, machine, _span(console, machine, new))
    _known(console.runtime.plant, new)
    edit = StopEdit(start, end, new.reason, person.name, new.comment.strip())
    at = await _journal(console, person, machine, edit, f"{new.reason or 'as the machine says'}{_when(edit)}")
    return Json(_given(machine, edit, at))


@router.post(
    "/machines/{id}/reasons/undo",
    response_model=models.ReasonGiven,
    responses=answers(400, 403, 404, 409, 411, 413, 415, 422, 503),
)
async def undo(
    console: Console,
    person: Me,
    id: MachineId,  # noqa: A002  # the API's word
    what: models.Undo,
) -> Json:
    """Take back one thing that was said: what was said before it counts again."""
    machine = may_edit(console, person, id)
    at = int(what.id)
    found = await said(demand_historian(console), machine.id, at, console.now() + 1)
    if not found or found[0].at != at:
        raise Problem(404, "There is nothing to take back", f"id: nothing was said of {machine.id} then; see its stops")
    if found[0].undone is not None:
        raise Problem(409, "This was taken back already", f"by {found[0].undone[1]}; nothing was changed")
    edit = msgspec.structs.replace(found[0].edit, by=person.name, comment="", undoes=at)
    words = f"takes back {edit.reason or 'as the machine says'}{_when(edit)}, said by {found[0].edit.by}"
    return Json(_given(machine, edit, await _journal(console, person, machine, edit, words)))


def may_edit(console: ConsoleState, person: Person, machine: str) -> Machine:
    """The machine of which a person may say what happened. Raises Problem for who may not, and for what is none."""
    if not suffices(person.role, EDITS):
        raise Problem(403, "You may not do this", f"it takes the role {EDITS}; this is {person.role}")
    return with_figures(console, machine)


def _span(console: ConsoleState, machine: Machine, new: models.NewReason) -> tuple[int, int | None]:
    """The times that are meant, ns UTC. Raises Problem for such that cannot be."""
    now = console.now()
    start, end = round(new.from_ * _MS), None if new.to is None else round(new.to * _MS)
    if start > now:
        raise _wrong("from", "lies in the future: only what has happened has a reason")
    if end is not None and end <= start:
        raise _wrong("to", "must be later than `from`")
    if end is not None and end > now + NEAR:
        raise _wrong("to", "lies in the future; null is the end of the stop, also of one that lasts")
    if (now if end is None else end) - start > LONGEST:
        raise _wrong("from", "a reason is given for at most 31 days at once; give it part by part")
    if (back := too_old(console, machine, now if end is None else end)) is not None:
        raise _wrong("to", back)
    return start, end


def too_old(console: ConsoleState, machine: Machine, time: int) -> str | None:
    """Why figures of a time are not corrected any more; None where they are."""
    for processor in console.runtime.plant.processors:
        if not isinstance(processor, MachineKpiConfig) or machine.id not in (processor.machines or [machine.id]):
            continue
        if time <= console.now() - processor.remember:
            back = f"{processor.remember / DAY:g} d"
            return f"is too long ago: the processor {processor.name} corrects {back} back (`remember`)"
    return None


async def _exact(console: ConsoleState, machine: Machine, span: tuple[int, int | None]) -> tuple[int, int | None]:
    """The times to the nanosecond where they mean begin or end of a stop. Raises Problem when it did not stand."""
    store = console.runtime.historian
    if store is None:
        return span  # it is in the journal; whether there was a stop, the processor sees
    start, end = span
    now = console.now()
    until = max(start + NEAR, min(now if end is None else end + NEAR, now))
    live = console.runtime.live
    newest = [sample for tag in machine.roles.values() if (sample := live.get(tag)) is not None]
    found = await standing(machine, store, console.catalogue, (start - NEAR, until, now), newest)
    marks = [mark for stop in found for mark in (stop.start, stop.end) if mark is not None]
    start, end = _nearest(start, marks), None if end is None else _nearest(end, marks)
    last = start + 1 if end is None else end
    if not any(stop.start < last and (stop.end is None or stop.end > start) for stop in found):
        when = "then" if end is None else "between these times"
        raise _wrong("from", f"the machine did not stand {when}; GET /api/machines/{machine.id}/stops has its stops")
    return start, end


def _nearest(time: int, marks: Sequence[int]) -> int:
    """The mark that is meant by a time; the time itself where none is."""
    return min((mark for mark in marks if abs(mark - time) <= NEAR), key=lambda mark: abs(mark - time), default=time)


def _known(plant: Plant, new: models.NewReason) -> None:
    """Raises Problem for a reason that the plant file does not know, or that lacks its comment."""
    known = {reason.id: reason for reason in plant.reasons}
    if new.reason and known and new.reason not in known:
        raise _wrong("reason", f"is not in the plant file's `reasons`: {', '.join(known)}")
    if new.reason in known and known[new.reason].comment and not new.comment.strip():
        raise _wrong("comment", f"the reason {new.reason} needs a comment")


def _wrong(field: str, text: str) -> Problem:
    return Problem(422, "This reason cannot be given", f"{field}: {text}", errors=[{"field": field, "detail": text}])


async def _journal(console: ConsoleState, person: Person, machine: Machine, edit: StopEdit, words: str) -> int:
    """Keep who said it, then what was said; when that is refused, this is kept as well."""
    commands = console.runtime.commands
    detail = f"{machine.id}: {words} {edit.comment}".strip()
    await commands.record_control(person.name, person.role, detail)
    try:
        return await console.runtime.edit_stops(machine.id, msgspec.json.encode(edit).decode())
    except Unavailable as error:
        await commands.record_control(person.name, person.role, f"{detail}: not taken, {error}")
        raise


def _given(machine: Machine, edit: StopEdit, at: int) -> dict[str, Any]:
    return {
        "id": str(at),
        "machine": machine.id,
        "from": milliseconds(edit.start),
        "to": None if edit.end is None else milliseconds(edit.end),
        "reason": edit.reason,
        "by": edit.by,
    }


def _when(edit: StopEdit) -> str:
    return f" from {_iso(edit.start)} to {'the end of the stop' if edit.end is None else _iso(edit.end)}"


def _iso(moment: int) -> str:
    return datetime.fromtimestamp(moment / 10**9).astimezone().isoformat(timespec="seconds")


async def _lasting(store: Historian, machine: str, start: int) -> list[dict[str, Any]]:
    """The stop that began before a time and lasted longer, if there was one."""
    for back in BACK:
        series = await store.history(f"{machine}/kpi/stop", start - back, start, MOST_STOPS)
        newest = dict(zip(series.times, series.values, strict=True))
        known = (stop for time, value in sorted(newest.items(), reverse=True) if (stop := stop_of(time, value)))
        if (last := next(known, None)) is not None:
            return [last] if last["end"] is None or last["end"] * _MS > start else []
    return []


def name_who(stop: dict[str, Any], edits: Sequence[Said]) -> None:
    """Put into the parts of a stop who gave their reasons."""
    for part in stop["reasons"]:
        # Times of a record are a little before what they mean.
        found = why(edits, round(part["start"] * _MS) + NEAR, round(stop["start"] * _MS) - NEAR)
        by_hand = found is not None and found.edit.reason == part["reason"]
        part["by"], part["comment"] = (found.edit.by, found.edit.comment) if found and by_hand else ("", "")


def stop_of(time: int, value: Value) -> dict[str, Any] | None:
    """A stop's record with its times in ms; None for one that was withdrawn, and for what is none."""
    try:
        found: dict[str, Any] = msgspec.json.decode(value if isinstance(value, str) else "", type=dict[str, Any])
        if found.get("withdrawn"):
            return None
        parts = [
            {**part, "start": round(datetime.fromisoformat(part["start"]).timestamp() * 1000, 3)}
            for part in found["reasons"]
        ]
        return {
            "start": milliseconds(time),
            "end": found["end"] and round(datetime.fromisoformat(found["end"]).timestamp() * 1000, 3),
            "class": found["class"],
            "state": found["state"],
            "unexplained": found.get("unexplained") is True,
            "reasons": parts,
        }
    except (msgspec.DecodeError, ValueError, TypeError, KeyError):
        return None
