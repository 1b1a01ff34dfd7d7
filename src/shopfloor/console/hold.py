"""Press and hold over a WebSocket (docs/api.md): the page renews, this end passes on, the lease decides."""

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Annotated, Final, Literal

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from shopfloor.commands import Commands, Refused
from shopfloor.console.person import Person
from shopfloor.console.problem import REFUSALS, dumps
from shopfloor.console.view import Json, milliseconds
from shopfloor.samples import Outcome, Unavailable

LONGEST: Final = 1024
"""Characters of a message."""
PATIENCE: Final = 20
"""Bad messages before the socket is closed."""
AT_ONCE: Final = 8
"""Presses that one socket may have under way."""

_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
_Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Message(msgspec.Struct, frozen=True):
    type: Literal["press", "renew", "release"]
    press: _Id
    tag: Annotated[str, msgspec.Meta(max_length=255)] = ""
    seq: _Sequence = 0
    reason: Annotated[str, msgspec.Meta(max_length=64)] = "released"


class Hold:
    """One socket: a window with buttons."""

    def __init__(self, socket: WebSocket, commands: Commands, person: Person) -> None:
        self._socket = socket
        self._commands = commands
        self._person = person
        self._session = uuid.uuid4().hex
        self._presses: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serve the socket until it is closed; every press that is left then is released at once."""
        await self._socket.accept()
        bad = 0
        try:
            while bad < PATIENCE:
                try:
                    await self._take(await self._receive())
                except ValueError as error:
                    bad += 1
                    await self._say({"type": "error", "status": 400, "title": "Not understood", "detail": str(error)})
            await self._socket.close(1008, "too many bad messages")
        except WebSocketDisconnect:
            pass
        finally:
            for press in list(self._presses):
                self._commands.release(press, "socket closed", by_person=False)

    async def _receive(self) -> _Message:
        event = await self._socket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1006))
        text = event.get("text")
        if text is None or len(text) > LONGEST:
            raise ValueError(f"a message is JSON text of at most {LONGEST} characters")
        try:
            return msgspec.json.decode(text, type=_Message)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise ValueError(f"{error}; see docs/api.md") from error

    async def _take(self, message: _Message) -> None:
        match message.type:
            case "press":
                self._press(message)
            case "renew":
                alive = message.press in self._presses and self._commands.renew(message.press, message.seq)
                await self._say(
                    {"type": "renewed", "press": message.press, "seq": message.seq} if alive else _gone(message)
                )
            case "release":
                # Only who presses may let go: another window cannot release this one's button.
                if message.press not in self._presses or not self._commands.release(message.press, message.reason):
                    await self._say(_gone(message))

    def _press(self, message: _Message) -> None:
        if message.press in self._presses:
            raise ValueError(f"the press {message.press} is under way; a press needs a new id")
        if len(self._presses) >= AT_ONCE:
            raise ValueError(f"one page presses at most {AT_ONCE} buttons at once")
        person = self._person
        # It begins with this call, so that a release right behind it finds it.
        pressing = self._commands.press(
            message.tag, message.press, issued_by=person.name, role=person.role, session=self._session
        )
        task = asyncio.create_task(self._follow(message, pressing), name=f"hold {message.tag}")
        self._presses[message.press] = task
        task.add_done_callback(lambda _: self._presses.pop(message.press, None))

    async def _follow(self, message: _Message, pressing: Awaitable[Outcome]) -> None:
        """Tell what became of the press, wait for its end, tell that."""
        try:
            outcome = await pressing
        except Refused as refusal:
            await self._say(_refused(message, REFUSALS[refusal.reason], refusal.title, str(refusal), refusal.held_by))
            return
        except Unavailable as error:
            await self._say(_refused(message, 503, "It cannot be recorded, so it is not done", str(error), None))
            return
        await self._say(self._outcome(message, "press", outcome, ""))
        release = await self._commands.released(message.press)
        await self._say(self._outcome(message, "release", release.outcome, release.reason))

    def _outcome(self, message: _Message, event: str, outcome: Outcome, reason: str) -> Json:
        permission = self._commands.permission(message.tag)
        return {
            "type": "outcome",
            "event": event,
            "press": message.press,
            "tag": message.tag,
            "value": event == "press",
            "done": outcome.done,
            "detail": outcome.detail,
            "reason": reason,
            "lease": 0 if permission is None else milliseconds(permission.lease),
        }

    async def _say(self, message: Json) -> None:
        try:
            await self._socket.send_text(dumps(message).decode())
        except (RuntimeError, WebSocketDisconnect):
            return  # the socket is closed; receiving finds that out as well and releases


def _gone(message: _Message) -> Json:
    return {"type": "gone", "press": message.press}


def _refused(message: _Message, status: int, title: str, detail: str, held_by: str | None) -> Json:
    return {
        "type": "refused",
        "press": message.press,
        "tag": message.tag,
        "status": status,
        "title": title,
        "detail": detail,
        "held_by": held_by,
    }
