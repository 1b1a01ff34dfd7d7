"""One press of a button, from its true to its false: a lease that ends by itself.

Rules 13 to 20 of docs/specs/commands.md. A press is one task that does one thing after the other, so
its ``false`` cannot overtake its ``true``.
"""

import asyncio
import logging
from typing import Final

import msgspec

from shopfloor.commands.audit import Audit, Entry, Event, Record
from shopfloor.commands.clock import Clock
from shopfloor.commands.execution import Execution
from shopfloor.commands.permission import Permission
from shopfloor.commands.refusal import Refused
from shopfloor.samples import Command, Outcome, Unavailable

FIRST_RETRY: Final = 10**8
LAST_RETRY: Final = 2 * 10**9
"""ns between the attempts to release a button, doubling from the first to the last."""

_log = logging.getLogger(__name__)


class Release(msgspec.Struct, frozen=True):
    """How a press ended."""

    reason: str
    outcome: Outcome
    """Of the first attempt to write false; when it is not done, further ones follow by themselves."""


class Press:
    """A press and its lease."""

    def __init__(  # noqa: PLR0913  # a press is all of this
        self,
        press_id: str,
        who: str,
        role: str,
        session: str,
        permission: Permission,
        *,
        clock: Clock,
        audit: Audit,
        execution: Execution,
    ) -> None:
        """The lease begins now. ``session`` tells windows of one person apart."""
        self.id = press_id
        self.who = who
        self.session = session
        self.permission = permission
        loop = asyncio.get_running_loop()
        self.pressed: asyncio.Future[Outcome] = loop.create_future()
        """What became of the true; Refused or Unavailable when it was not even tried."""
        self.released: asyncio.Future[Release] = loop.create_future()
        """What became of the first false; never done for a press that was refused."""
        self.over = asyncio.Event()
        """Set when nothing is owed any more."""
        self.reason = ""
        """Why it ended; "" while it is held."""
        self._role = role
        self._clock = clock
        self._audit = audit
        self._execution = execution
        self._began = clock.monotonic()
        self._deadline = self._began + permission.lease
        self._sequence = 0
        self._ended = asyncio.Event()
        self._by_person = False
        self._kick = asyncio.Event()
        for future in (self.pressed, self.released):
            future.add_done_callback(_retrieve)

    def renew(self, sequence: int) -> bool:
        """Lengthen the lease; False when the press has ended. A sequence that does not grow changes nothing."""
        if self._ended.is_set() or self._clock.monotonic() >= self._deadline:
            self.end("lease ended")
            return False
        if sequence > self._sequence:
            self._sequence = sequence
            self._deadline = self._clock.monotonic() + self.permission.lease
        return True

    def end(self, reason: str, *, by_person: bool = False) -> None:
        """End it; only the first call counts. ``by_person``: let go, so a tap not yet carried out still is."""
        if not self._ended.is_set():
            self.reason = reason
            self._by_person = by_person
            self._ended.set()

    def hurry(self) -> None:
        """Try an owed release again at once."""
        self._kick.set()

    def give_up(self, error: BaseException | None) -> None:
        """Its task has ended: nobody may wait for it any longer."""
        for future in (self.pressed, self.released):
            if not future.done():
                future.set_exception(error or Unavailable("Shopfloor is stopping"))

    async def run(self, predecessor: "Press | None" = None) -> None:
        """Carry the press through: wait for the one before, true, hold, false until it is done."""
        try:
            await self._wait_for(predecessor)
            await self._record_begin()
        except (Refused, Unavailable) as refusal:
            self.pressed.set_exception(refusal)
            self.end("refused")
            self.over.set()
            return
        outcome = await self._press()
        self._note(_event(outcome), value=True, detail=outcome.detail)
        self.pressed.set_result(outcome)
        await self._watch()
        await self.let_go(owed=outcome.done is not False)

    async def let_go(self, *, owed: bool) -> None:
        """Write false: until it is done when it is ``owed``, else once."""
        self._note("release", value=False, detail=self.reason)
        outcome = await self._release(1)
        self._note(_event(outcome), value=False, detail=outcome.detail, closes=bool(outcome.done) or not owed)
        self.released.set_result(Release(self.reason, outcome))
        attempt, pause = 1, FIRST_RETRY
        while owed and not outcome.done:
            if attempt == 1:
                _log.warning(
                    "a button is not released yet: %s (%s)", self.permission.tag, outcome.detail,
                    extra={"tag": self.permission.tag, "press": self.id},
                )  # fmt: skip
            await self._pause(pause)
            attempt, pause = attempt + 1, min(2 * pause, LAST_RETRY)
            outcome = await self._release(attempt)
            if outcome.done:
                self._note("done", value=False, detail=f"{outcome.detail} (attempt {attempt})".strip(), closes=True)
                _log.warning("the button is released now: %s", self.permission.tag, extra={"press": self.id})
        self.over.set()

    async def _wait_for(self, predecessor: "Press | None") -> None:
        """Until the press that this one supersedes is over, at most to the end of the own lease."""
        if predecessor is None or predecessor.over.is_set():
            return
        if predecessor.released.done():  # and not over: it failed, which may last
            raise owed_by(predecessor)
        predecessor.end("superseded")
        over = asyncio.create_task(predecessor.over.wait())
        limit = asyncio.create_task(self._clock.sleep(self.permission.lease))
        try:
            await asyncio.wait({over, limit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            limit.cancel()
        if not predecessor.over.is_set():
            raise owed_by(predecessor)

    async def _record_begin(self) -> None:
        entry = Entry("press", self.who, self._role, self.permission.tag, True, self.id)
        record, _ = await self._audit.begin(entry, "press")
        if record is None:
            raise Refused(
                "conflict", "This press was made before", f"the id {self.id} was used; a press needs a new one"
            )

    async def _press(self) -> Outcome:
        left = self._began + self.permission.lease - self._clock.monotonic()
        if left <= 0:
            self.end("lease ended")
            return Outcome(self.id, done=False, detail="the press was over before it could be carried out")
        if self._ended.is_set() and not self._by_person:
            return Outcome(
                self.id, done=False, detail=f"the press was over before it could be carried out: {self.reason}"
            )
        command = Command(self.id, self.permission.tag, True, self.who, self._clock.now() + left)
        watch = asyncio.create_task(self._watch())
        try:
            return await self._execution.carry_out(command, self.permission.lease, self._ended)
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        """Return when the press has ended; end it when its lease does."""
        while not self._ended.is_set():
            left = self._deadline - self._clock.monotonic()
            if left <= 0:
                self.end("lease ended")
                return
            ended = asyncio.create_task(self._ended.wait())
            limit = asyncio.create_task(self._clock.sleep(left))
            try:
                await asyncio.wait({ended, limit}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                limit.cancel()

    async def _release(self, attempt: int) -> Outcome:
        patience = self.permission.expires
        command = Command(
            f"{self.id}~{attempt}", self.permission.tag, False, self.who, self._clock.now() + patience
        )  # fmt: skip
        return await self._execution.carry_out(command, patience)

    async def _pause(self, duration: int) -> None:
        self._kick.clear()
        kicked = asyncio.create_task(self._kick.wait())
        limit = asyncio.create_task(self._clock.sleep(duration))
        try:
            await asyncio.wait({kicked, limit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            kicked.cancel()
            limit.cancel()

    def _note(self, event: Event, *, value: bool, detail: str, closes: bool = False) -> None:
        """Record without waiting: a release must not wait for a disk."""
        entry = Entry(event, self.who, self._role, self.permission.tag, value, self.id, detail)
        self._audit.append(entry, closes=closes).add_done_callback(_report)


def owed_by(press: Press) -> Refused:
    """The refusal for a tag that another press still has."""
    tag = press.permission.tag
    if press.reason:
        return Refused(
            "held", "The last release has not arrived yet",
            f"the release of {tag} by {press.who} ({press.reason}) is still being written", held_by=press.who,
        )  # fmt: skip
    return Refused("held", "Somebody else holds it", f"{press.who} holds {tag}", held_by=press.who)


def _event(outcome: Outcome) -> Event:
    if outcome.done is None:
        return "unknown"
    return "done" if outcome.done else "failed"


def _retrieve(future: "asyncio.Future[Outcome] | asyncio.Future[Release]") -> None:
    """Nobody may be waiting; asyncio would call that an error."""
    if not future.cancelled():
        future.exception()


def _report(future: asyncio.Future[Record]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.error("a command could not be recorded: %s", error)
