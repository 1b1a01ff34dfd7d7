"""What can be done: write a value, press a button, restart, pause and resume a component."""

import uuid
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, WebSocket

from shopfloor.commands import from_json, to_json
from shopfloor.commands.roles import suffices
from shopfloor.console import models
from shopfloor.console.hold import Hold
from shopfloor.console.problem import Json, Problem, answers
from shopfloor.console.state import Console, Me
from shopfloor.console.view import component_json

CONTROLS: Final = "operator"
"""The least role that may restart, pause and resume components."""

router = APIRouter(prefix="/api", default_response_class=Json, tags=["writing"])
sockets = APIRouter(prefix="/api")


@router.post("/commands", response_model=models.Outcome, responses=answers(400, 403, 409, 411, 413, 415, 422, 503))
async def command(console: Console, person: Me, new: models.NewCommand) -> Json:
    """Write a value to a tag, once, and say what became of it."""
    try:
        value = from_json(new.value)
    except ValueError as error:
        detail = {"field": "value", "detail": str(error)}
        raise Problem(422, "This value is not understood", str(error), errors=[detail]) from error
    command_id = new.id or str(uuid.uuid4())
    outcome = await console.runtime.commands.send(
        new.tag,
        value,
        issued_by=person.name,
        role=person.role,
        expires_in=None if new.expires is None else max(1, int(new.expires * 1e6)),
        command_id=command_id,
    )
    return Json(
        {
            "id": command_id,
            "tag": new.tag,
            "value": to_json(value),
            "done": outcome.done,
            "detail": outcome.detail,
        }
    )


@router.post(
    "/components/{name}/{action}",
    response_model=models.Component,
    responses=answers(400, 403, 404, 411, 413, 415, 422, 503),
)
async def control(
    console: Console,
    person: Me,
    name: Annotated[str, Path(description="The component.")],
    action: Annotated[Literal["restart", "pause", "resume"], Path(description="What to do.")],
) -> Json:
    """Restart, pause or resume a component. It is recorded who did it."""
    runtime = console.runtime
    if not suffices(person.role, CONTROLS):
        raise Problem(403, "You may not do this", f"it takes the role {CONTROLS}; this is {person.role}")
    if all(status.name != name for status in runtime.components()):
        raise Problem(
            404, "There is no such component", f"none is called {name[:100]!r}; GET /api/components lists them"
        )
    await runtime.commands.record_control(person.name, person.role, f"{name}: {action}")
    await {"restart": runtime.restart, "pause": runtime.pause, "resume": runtime.resume}[action](name)
    return Json(component_json(next(status for status in runtime.components() if status.name == name)))


@sockets.websocket("/hold")
async def hold(socket: WebSocket) -> None:
    """Press and hold: one socket for the buttons of one page."""
    state = socket.app.state
    await Hold(socket, state.console.runtime.commands, state.identify(socket)).run()
