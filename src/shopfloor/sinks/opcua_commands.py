"""Writes of OPC UA clients: into the command path, and what became of them as a StatusCode.

A client that presses a button (writes true to a momentary tag) holds it until it writes false, its session ends,
or the lease does; true again renews the lease.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from asyncua.ua.status_codes import StatusCodes

from shopfloor.samples import Answer, Request, Value
from shopfloor.seams import Inbox

PATIENCE: Final = 30.0
"""Seconds until nobody waits any more; the command path itself gives up long before."""

_CODES: Final = StatusCodes
_REFUSALS: Final[Mapping[str, int]] = {
    "not_allowed": _CODES.BadUserAccessDenied,
    "role": _CODES.BadUserAccessDenied,
    "type": _CODES.BadTypeMismatch,
    "range": _CODES.BadOutOfRange,
    "momentary": _CODES.BadTypeMismatch,
    "not_momentary": _CODES.BadTypeMismatch,
    "held": _CODES.BadInvalidState,
    "conflict": _CODES.BadInvalidState,
    "closed": _CODES.BadShutdown,
    "busy": _CODES.BadTooManyOperations,
    "id": _CODES.BadInvalidArgument,
    "malformed": _CODES.BadInvalidArgument,
    "late": _CODES.BadTimeout,
}
_GONE: Final = "gone"


class _Press:
    """A button that a session holds."""

    def __init__(self, press_id: str) -> None:
        self.id = press_id
        self.renewals = 0
        self.begun: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.over: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def __call__(self, answer: Answer) -> None:
        """A press is answered for its beginning and for its end; a refused one, and a value that was set, once."""
        if not self.begun.done():
            self.begun.set_result(answer)
        if answer.event != "press" and not self.over.done():
            self.over.set_result(answer)


class Writes:
    """Puts values into the inbox; lives in the event loop of the command path."""

    def __init__(self, inbox: Inbox) -> None:
        """Nobody holds anything yet."""
        self._inbox = inbox
        self._held: dict[tuple[str, str], _Press] = {}

    async def write(self, session: str, who: str, tag: str, value: Value, asked: int) -> int:
        """Ask for it once and return the StatusCode of what became of it; ``asked``: when the client did, ns UTC."""
        try:
            async with asyncio.timeout(PATIENCE):
                return _status(await self._ask(session, who, tag, value, asked))
        except TimeoutError:
            return _CODES.BadTimeout

    def left(self, session: str) -> None:
        """A client is gone: let go what it holds."""
        for (holder, tag), press in list(self._held.items()):
            if holder == session:
                self._inbox.put(Request(tag, value=False, id=press.id, left=True), _nobody)

    async def _ask(self, session: str, who: str, tag: str, value: Value, asked: int) -> Answer:
        key = (session, tag)
        held = self._held.get(key)
        if held is not None and value is True:
            renewed = self._renew(held, who, tag, asked)
            if renewed is not None:
                return renewed
        if held is not None and value is False:
            return await self._release(held, who, tag)
        press = _Press(str(uuid.uuid4()))
        if value is True:
            self._held[key] = press
            press.over.add_done_callback(self._forget(key, press))
        self._inbox.put(Request(tag, value, press.id, sent=asked, who=who), press)
        return await press.begun

    def _renew(self, held: _Press, who: str, tag: str, asked: int) -> Answer | None:
        """Renew the press; None when it has ended meanwhile."""
        held.renewals += 1
        told: list[Answer] = []
        self._inbox.put(Request(tag, value=True, id=held.id, sequence=held.renewals, sent=asked, who=who), told.append)
        if told and told[0].reason == _GONE:
            return None
        return told[0] if told else Answer(held.id, tag, "press", value=True, done=True)

    async def _release(self, held: _Press, who: str, tag: str) -> Answer:
        told: list[Answer] = []
        self._inbox.put(Request(tag, value=False, id=held.id, who=who), told.append)
        return told[0] if told else await held.over

    def _forget(self, key: tuple[str, str], press: _Press) -> Callable[[object], None]:
        def forget(_: object) -> None:
            if self._held.get(key) is press:
                del self._held[key]

        return forget


def _nobody(_: Answer) -> None:
    """Nobody is there any more to hear it."""


def _status(answer: Answer) -> int:
    """What a client is told."""
    if answer.event == "refused":
        return _REFUSALS.get(answer.refusal, _CODES.BadResourceUnavailable)
    if answer.done:
        return 0
    if answer.reason == _GONE:
        return _CODES.BadInvalidState
    return _CODES.BadUnexpectedError if answer.done is None else _CODES.BadDeviceFailure
