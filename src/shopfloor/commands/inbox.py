"""Commands that come as messages: a value each, from somebody whom only the broker knows (docs/specs/commands.md)."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

import msgspec

from shopfloor.commands.clock import Clock, SystemClock
from shopfloor.commands.control import Commands
from shopfloor.commands.permission import Permission
from shopfloor.commands.refusal import Refused
from shopfloor.plant import ByMessage, format_duration
from shopfloor.samples import Answer, Request, Unavailable

AT_ONCE: Final = 100
"""Requests that may be under way."""

Tell = Callable[[Answer], None]

_log = logging.getLogger(__name__)


class _Held(msgspec.Struct):
    """A button that a message pressed."""

    press: str
    renewals: int = 0


class CommandInbox:
    """One sink's requests; see ``seams.Inbox``.

    A message cannot say that its sender went away, so a press lives for its lease and ends earlier only by
    a message, or when nobody could be heard any more (``lost``). ``{"value": true}`` again renews it.
    """

    def __init__(self, commands: Commands, config: ByMessage, name: str, clock: Clock | None = None) -> None:
        """``name`` of the sink."""
        self._commands = commands
        self._config = config
        self._name = name
        self._who = config.who or name
        self._clock = clock or SystemClock()
        self._held: dict[str, _Held] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def _asker(self, request: Request) -> str:
        """Who the audit record says it was."""
        return f"{self._who}/{request.who}" if request.who else self._who

    @property
    def tags(self) -> Sequence[str]:
        """What may be asked for, in the order of the plant file."""
        return [permission.tag for permission in self._commands.permissions]

    def put(self, request: Request, answer: Tell) -> None:
        """Take a request at most once; see ``seams.Inbox``."""
        named = bool(request.id)
        given = request if named else msgspec.structs.replace(request, id=str(uuid.uuid4()))
        permission = self._commands.permission(given.tag)
        button = permission is not None and permission.momentary
        try:
            if button and given.value is False:
                self._release(given, named=named, answer=answer)  # the safe direction: nothing is asked first
                return
            self._demand_fresh(given)
            if button:
                self._press(given, named=named, answer=answer)
            else:
                self._begin(self._set(given, permission, answer))
        except Refused as refusal:
            self._refused(given, refusal, answer)

    def refuse(self, request: Request, problem: str, detail: str, answer: Tell) -> None:
        """Answer a request that cannot be understood, and record that."""
        self._refused(request, Refused("malformed", problem, detail), answer)

    def lost(self) -> None:
        """Nobody who asks can be heard any more: release every button."""
        for held in list(self._held.values()):
            self._commands.release(held.press, "connection lost", by_person=False)

    # ---- inside -------------------------------------------------------------------------------------

    def _demand_fresh(self, request: Request) -> None:
        """Raise Refused for what is late, and when there is too much."""
        if request.sent is not None:
            age = self._clock.now() - request.sent
            if abs(age) > self._config.max_age:
                when = f"{format_duration(abs(age) // 10**6 * 10**6)} {'ago' if age > 0 else 'in the future'}"
                raise Refused(
                    "late", "The message is not of now",
                    f"it says that it was sent {when}; at most {format_duration(self._config.max_age)} are allowed: "
                    "set the sender's clock right, or raise `max_age`",
                )  # fmt: skip
        if len(self._under_way) >= AT_ONCE:
            raise Refused("busy", "Too much is asked for at once", f"{AT_ONCE} requests are under way; wait for them")

    def _release(self, request: Request, *, named: bool, answer: Tell) -> None:
        """End a press; only who presses may let go, as far as ids tell."""
        held = self._held.get(request.tag)
        reason = "session ended" if request.left else "released"
        if (
            held is None
            or (named and held.press != request.id)
            or not self._commands.release(held.press, reason, by_person=not request.left)
        ):
            answer(_gone(request))

    def _press(self, request: Request, *, named: bool, answer: Tell) -> None:
        """Press a button, or renew the press that this message repeats."""
        if request.value is not True:
            raise Refused("momentary", "This is a button", f"{request.tag} takes true to press and false to release")
        held = self._held.get(request.tag)
        if held is None:
            self._begin_press(request, answer)
        elif named and held.press != request.id:
            detail = f"{request.tag} is held by the press {held.press}"
            raise Refused("held", "Somebody else holds it", detail, held_by=self._who)
        elif request.sequence is not None:
            if not self._commands.renew(held.press, request.sequence):
                answer(_gone(request))
            held.renewals = max(held.renewals, request.sequence)
        else:
            held.renewals += 1
            if not self._commands.renew(held.press, held.renewals):
                self._begin_press(request, answer)

    def _begin_press(self, request: Request, answer: Tell) -> None:
        held = self._held[request.tag] = _Held(request.id, request.sequence or 0)
        # It begins with this call, so that a release right behind it finds it.
        pressing = self._commands.press(
            request.tag, request.id,
            issued_by=self._asker(request), role=self._config.role, session=f"{self._name} {request.id}",
        )  # fmt: skip

        async def follow() -> None:
            try:
                outcome = await pressing
                answer(Answer(request.id, request.tag, "press", value=True, done=outcome.done, detail=outcome.detail))
                release = await self._commands.released(request.id)
                answer(
                    Answer(
                        request.id, request.tag, "release", value=False,
                        done=release.outcome.done, detail=release.outcome.detail, reason=release.reason,
                    )
                )  # fmt: skip
            except (Refused, Unavailable) as error:
                answer(_no(request, error))
            finally:
                if self._held.get(request.tag) is held:
                    del self._held[request.tag]

        self._begin(follow())

    async def _set(self, request: Request, permission: Permission | None, answer: Tell) -> None:
        life = None
        if permission is not None and request.sent is not None:
            life = permission.expires - max(self._clock.now() - request.sent, 0)
        try:
            outcome = await self._commands.send(
                request.tag, request.value,
                issued_by=self._asker(request), role=self._config.role, expires_in=life, command_id=request.id,
            )  # fmt: skip
        except (Refused, Unavailable) as error:
            answer(_no(request, error))
            return
        answer(Answer(request.id, request.tag, "set", request.value, outcome.done, outcome.detail))

    def _refused(self, request: Request, refusal: Refused, answer: Tell) -> None:
        """Answer at once; the record follows."""
        answer(_no(request, refusal))
        if len(self._under_way) < 2 * AT_ONCE:  # beyond, somebody floods us: the log says it
            self._begin(
                self._commands.record_refusal(
                    request.tag, request.value, request.id, self._asker(request), self._config.role, refusal
                )
            )

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"request to {self._name}")
        self._under_way.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a request by message failed", exc_info=error)


def _gone(request: Request) -> Answer:
    detail = "this press does not hold it: it was released, or its lease has ended"
    return Answer(request.id, request.tag, "release", value=False, done=False, detail=detail, reason="gone")


def _no(request: Request, error: Exception) -> Answer:
    title, kind = "It cannot be recorded, so it is not done", ""
    if isinstance(error, Refused):
        title, kind = error.title, error.reason
    _log.warning("a command by message was refused: %s (%s)", error, request.tag)
    return Answer(
        request.id, request.tag, "refused", request.value,
        done=False, detail=str(error), reason=title, refusal=kind,
    )  # fmt: skip
