"""What people say of a machine's units: scrap that is good after all, good units that turned out to be scrap."""

from datetime import datetime
from typing import Final

import msgspec
from fastapi import APIRouter

from shopfloor.console import unit_models as models
from shopfloor.console.figures import MachineId
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.state import Console, ConsoleState, Me
from shopfloor.console.stops import may_edit, too_old
from shopfloor.console.view import milliseconds
from shopfloor.plant import Machine
from shopfloor.processors.machine import UNITS, UnitsEdit
from shopfloor.samples import Unavailable

LONGEST: Final = 86_400 * 10**9
"""Of how long a time units can be judged anew at once, ns."""
_MS: Final = 10**6

router = APIRouter(prefix="/api", default_response_class=Json, tags=["figures"])


@router.post(
    "/machines/{id}/units",
    response_model=models.UnitsJudged,
    responses=answers(400, 403, 404, 411, 413, 415, 422, 503),
)
async def judge_units(
    console: Console,
    person: Me,
    id: MachineId,  # noqa: A002  # the API's word
    new: models.NewJudgement,
) -> Json:
    """Say of units made between two times that they are good, or scrap, after all. It is recorded who did.

    The first ones of that time move, each in its own hour; what there is no such unit for is `unmatched` in the record.
    """
    machine = may_edit(console, person, id)
    edit = _edit(console, machine, new, person.name)
    detail = f"{machine.id}: {edit.quantity:g} units from {_iso(edit.start)} to {_iso(edit.end)} are {edit.into}"
    detail = " ".join(filter(None, (detail, edit.reason, edit.comment)))
    commands = console.runtime.commands
    await commands.record_control(person.name, person.role, detail)
    try:
        await console.runtime.edit_stops(f"{machine.id}{UNITS}", msgspec.json.encode(edit).decode())
    except Unavailable as error:
        await commands.record_control(person.name, person.role, f"{detail}: not taken, {error}")
        raise
    return Json(
        {
            "machine": machine.id,
            "from": milliseconds(edit.start),
            "to": milliseconds(edit.end),
            "quantity": edit.quantity,
            "into": edit.into,
            "reason": edit.reason,
            "by": edit.by,
        }
    )


def _edit(console: ConsoleState, machine: Machine, new: models.NewJudgement, by: str) -> UnitsEdit:
    """What is meant. Raises Problem for what cannot be."""
    start, end = round(new.from_ * _MS), round(new.to * _MS)
    if not {"good", "scrap", "total"} & machine.roles.keys():
        raise _wrong("into", f"the machine {machine.id} counts no units; give it a tag `good` or `total`")
    if end <= start:
        raise _wrong("to", "must be later than `from`")
    if end > console.now():
        raise _wrong("to", "lies in the future: only what was made can be judged anew")
    if end - start > LONGEST:
        raise _wrong("from", "units are judged anew of at most 24 h at once; say it part by part")
    if (back := too_old(console, machine, start)) is not None:
        raise _wrong("from", back)
    reasons = sorted(set(machine.scrap_reasons.values()))
    if new.into == "good" and new.reason:
        raise _wrong("reason", "is for scrap; leave it empty where units are good")
    if new.reason and reasons and new.reason not in reasons:
        raise _wrong("reason", f"is none of the machine's `scrap_reasons`: {', '.join(reasons)}")
    return UnitsEdit(start, end, new.quantity, new.into, new.reason, by, new.comment.strip())


def _wrong(field: str, text: str) -> Problem:
    return Problem(
        422, "These units cannot be judged so", f"{field}: {text}", errors=[{"field": field, "detail": text}]
    )


def _iso(moment: int) -> str:
    return datetime.fromtimestamp(moment / 10**9).astimezone().isoformat(timespec="seconds")
