"""Samples that a sink refused: which there are, offering them again, throwing them away."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from shopfloor.commands import to_json
from shopfloor.commands.roles import suffices
from shopfloor.console import models
from shopfloor.console.person import Person
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.state import Console, Me
from shopfloor.console.view import milliseconds
from shopfloor.journal import DeadLetter

DECIDES: Final = "operator"
"""The least role that may offer refused samples again or throw them away."""
NAMED: Final = 10
"""Letters that the record of a decision names."""

router = APIRouter(prefix="/api", default_response_class=Json, tags=["dead letters"])


@router.get("/dead-letters", response_model=models.DeadLetters, responses=answers(422, 503))
async def letters(
    console: Console,
    reader: Annotated[str | None, Query(max_length=255, description="Only those of this sink.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="The most letters.")] = 1_000,
) -> Json:
    """What sinks refused, the newest first; each is kept with its reason until somebody decides."""
    found = await console.runtime.dead_letters(limit)
    return Json({"letters": [letter_json(letter) for letter in found if reader in (None, letter.reader)]})


@router.post("/dead-letters/retry", response_model=models.Decided, responses=answers(400, 403, 411, 413, 415, 422, 503))
async def retry(console: Console, person: Me, chosen: models.ChosenLetters) -> Json:
    """Offer refused samples again to the sink that refused them. Letters that are gone already are left out."""
    await _record(console, person, f"dead letters {_named(chosen.ids)}: retry")
    return Json({"letters": len(await console.runtime.retry_dead_letters(chosen.ids))})


@router.post("/dead-letters/drop", response_model=models.Decided, responses=answers(400, 403, 411, 413, 415, 422, 503))
async def drop(console: Console, person: Me, chosen: models.ChosenLetters) -> Json:
    """Throw refused samples away for good. The ledger goes on counting them as rejected."""
    await _record(console, person, f"dead letters {_named(chosen.ids)}: drop")
    return Json({"letters": await console.runtime.drop_dead_letters(chosen.ids)})


async def _record(console: Console, person: Person, what: str) -> None:
    if not suffices(person.role, DECIDES):
        raise Problem(403, "You may not do this", f"it takes the role {DECIDES}; this is {person.role}")
    await console.runtime.commands.record_control(person.name, person.role, what)


def _named(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:NAMED])) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")


def letter_json(letter: DeadLetter) -> dict[str, Any]:
    """As the API gives it."""
    return {
        "id": letter.id,
        "reader": letter.reader,
        "source": letter.source,
        "time": milliseconds(letter.time),
        "reason": letter.reason,
        "count": letter.count,
        "samples": [
            {
                "tag": sample.tag,
                "time": milliseconds(sample.time),
                "value": to_json(sample.value),
                "quality": int(sample.quality),
            }
            for sample in letter.samples
        ],
    }
