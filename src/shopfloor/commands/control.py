"""Writing to machines: who may, at most once, never late, and on record (docs/specs/commands.md)."""

import asyncio
import json
import logging
import re
import uuid
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NoReturn, Self

from shopfloor.commands.audit import Audit, Entry, Event, Pending, Record, Verification, recorded
from shopfloor.commands.clock import Clock, SystemClock
from shopfloor.commands.exact import from_json
from shopfloor.commands.execution import Execute, Execution
from shopfloor.commands.permission import Current, Permission, permissions
from shopfloor.commands.press import Press, Release, owed_by
from shopfloor.commands.refusal import Refused
from shopfloor.commands.roles import Role
from shopfloor.plant import Commands as CommandsConfig
from shopfloor.samples import Command, Outcome, Unavailable, Value

ANSWERING: Final = 5 * 10**9
"""ns that a source has after the expiry of a command to say what became of it."""
STOPPING: Final = 2 * 10**9
"""ns that ``__aexit__`` gives to what is under way."""

REMEMBERED: Final = 256
"""Presses that are over, for who still asks how they ended."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECOND: Final = 10**9

_log = logging.getLogger(__name__)


class Commands:
    """The one way by which values get to machines. Enter it to begin, leave it to stop.

    Leaving ends every press with a release and gives what is under way two seconds.
    """

    def __init__(
        self,
        config: CommandsConfig,
        audit: Audit,
        execute: Execute,
        *,
        clock: Clock | None = None,
        current: Current = lambda _tag: None,
    ) -> None:
        """``execute`` finds the source; ``current`` (``Live.get``) gives a tag's newest sample, to check kinds.

        ``execute`` must answer ``done`` False where no source has the tag or it is not connected; any
        error but Misconfigured and Rejected counts as *unknown*.
        """
        self._allowed = permissions(config)
        self._audit = audit
        self._clock = clock or SystemClock()
        self._current = current
        self._execution = Execution(execute, self._clock)
        self._under_way: dict[str, tuple[Entry, asyncio.Task[Outcome]]] = {}
        self._presses: dict[str, Press] = {}
        self._holders: dict[str, Press] = {}
        self._over: OrderedDict[str, asyncio.Future[Release]] = OrderedDict()
        self._runs: set[asyncio.Task[None]] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self._closed = True

    async def __aenter__(self) -> Self:
        """Open the audit record and take up what a crash left. Raises Misconfigured when the record is unusable."""
        await self._audit.__aenter__()
        try:
            for pending in await self._audit.pending():
                self._take_up(pending)
        except BaseException:
            await self._audit.__aexit__()
            raise
        self._closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        for press in self._presses.values():
            press.end("shutdown")
        rest: set[asyncio.Task[object]] = {*(task for _, task in self._under_way.values()), *self._runs}
        if rest:
            limit = asyncio.create_task(self._clock.sleep(STOPPING))
            whole = asyncio.create_task(asyncio.wait(rest))
            await asyncio.wait({whole, limit}, return_when=asyncio.FIRST_COMPLETED)
            for task in (*rest, limit, whole):
                task.cancel()
            await asyncio.gather(*rest, limit, whole, return_exceptions=True)
        await self._audit.__aexit__()

    @property
    def permissions(self) -> Sequence[Permission]:
        """What may be written, in the order of the plant file, with who holds which button now."""
        return [self._with_holder(permission) for permission in self._allowed.values()]

    def permission(self, tag: str) -> Permission | None:
        """What the plant file allows for this tag, None when nothing."""
        permission = self._allowed.get(tag)
        return None if permission is None else self._with_holder(permission)

    async def send(
        self,
        tag: str,
        value: Value,
        *,
        issued_by: str,
        role: Role,
        expires_in: int | None = None,
        command_id: str | None = None,
    ) -> Outcome:
        """Write a value once and say what became of it.

        ``expires_in`` (ns) shortens the expiry of the plant file. ``command_id`` given twice is carried
        out once; both get the first outcome. Raises Refused when it must not be written (recorded),
        Unavailable when it cannot be recorded: in both cases nothing was written.
        """
        command_id = str(uuid.uuid4()) if command_id is None else command_id
        entry = Entry("issued", issued_by, role, tag, value, command_id)
        try:
            permission = self._permit(tag, role, command_id, momentary=False)
            permission.demand_fit(value, self._current(tag))
            return await asyncio.shield(self._task(entry, _life(permission, expires_in)))
        except Refused as refusal:
            await self._record_refusal(entry, refusal)
            raise

    def press(
        self, tag: str, press_id: str, *, issued_by: str, role: Role, session: str = ""
    ) -> Coroutine[Any, Any, Outcome]:
        """Press a momentary tag and hold it for one lease; await what became of the true.

        The press begins with the call: it can be renewed and released before it is awaited. The same
        press id again, while it is held, answers the same. ``session`` tells windows of one person
        apart. Awaiting raises Refused and Unavailable as ``send`` does.
        """
        entry = Entry("press", issued_by, role, tag, True, press_id)
        try:
            permission = self._permit(tag, role, press_id, momentary=True)
            press = self._presses.get(press_id)
            if press is None:
                press = self._begin(press_id, issued_by, role, session, permission)
            elif (press.who, press.session, press.permission.tag) != (issued_by, session, tag):
                raise _used(press_id)
        except Refused as refusal:
            return self._refuse(entry, refusal)
        return self._pressed(entry, press)

    def renew(self, press_id: str, sequence: int) -> bool:
        """Lengthen a press by one lease from now; False when it is over. ``sequence`` must grow."""
        press = self._presses.get(press_id)
        return press is not None and press.renew(sequence)

    def release(self, press_id: str, reason: str, *, by_person: bool = True) -> bool:
        """End a press; False when it was over already. ``by_person`` False: its connection was lost."""
        press = self._presses.get(press_id)
        if press is None or press.reason:
            return False
        press.end(reason, by_person=by_person)
        return True

    async def released(self, press_id: str) -> Release:
        """Wait until the press has ended and its first false was tried, and say how it ended.

        Raises KeyError for a press that never was or was over long ago.
        """
        press = self._presses.get(press_id)
        return await asyncio.shield(self._over[press_id] if press is None else press.released)

    async def recover(self) -> None:
        """Try owed releases again at once; the pipeline calls it when a source has (re)connected."""
        for press in self._presses.values():
            press.hurry()

    def record_control(self, who: str, role: Role, detail: str) -> asyncio.Future[Record]:
        """Record that somebody paused, resumed or restarted a component; ``detail`` says which and what."""
        return self._audit.append(Entry("control", who, role, detail=detail))

    async def record_refusal(self, tag: str, value: Value, command_id: str, who: str, role: Role, why: Refused) -> None:
        """Record what was refused before it came to ``send`` or ``press``."""
        await self._record_refusal(Entry("issued", who, role, tag, value, command_id), why)

    def audit(self, limit: int = 100, before: int | None = None) -> asyncio.Future[list[Record]]:
        """The newest audit records first; with ``before`` those of smaller numbers."""
        return self._audit.records(limit, before)

    def verify(self) -> asyncio.Future[Verification]:
        """Walk along the audit chain."""
        return self._audit.verify()

    def _with_holder(self, permission: Permission) -> Permission:
        holder = self._holders.get(permission.tag)
        if holder is None:
            return permission
        return Permission(
            permission.tag, permission.role, permission.range, permission.momentary, permission.lease,
            permission.expires, holder.who,
        )  # fmt: skip

    def _permit(self, tag: str, role: Role, command_id: str, *, momentary: bool) -> Permission:
        if self._closed:
            raise Refused("closed", "Shopfloor is stopping", "no commands are taken any more")
        if not _ID.fullmatch(command_id):
            raise Refused("id", "The id is not valid", "an id has 1 to 64 characters out of A-Z a-z 0-9 . _ -")
        permission = self._allowed.get(tag)
        if permission is None:
            raise Refused(
                "not_allowed", "This cannot be written",
                f"{tag} is not in commands.allow of the plant file; add it there if it may be written",
            )  # fmt: skip
        permission.demand(role)
        if permission.momentary and not momentary:
            raise Refused("momentary", "This is a button", f"{tag} is momentary: press and release it")
        if momentary and not permission.momentary:
            raise Refused("not_momentary", "This is no button", f"{tag} is not momentary: send it a value")
        return permission

    def _task(self, entry: Entry, life: int) -> asyncio.Task[Outcome]:
        """The task that carries this command out; the one under way where its id came before."""
        known = self._under_way.get(entry.id)
        if known is None:
            task = asyncio.create_task(self._carry_out(entry, life), name=f"command {entry.id}")
            self._under_way[entry.id] = (entry, task)
            task.add_done_callback(lambda _: self._under_way.pop(entry.id, None))
            return task
        if not _same(known[0], entry):
            raise _used(entry.id)
        return known[1]

    async def _carry_out(self, entry: Entry, life: int) -> Outcome:
        began = self._clock.monotonic()
        expires = self._clock.now() + life
        record, earlier = await self._audit.begin(entry, "command")
        if record is None:
            return _first_outcome(entry, earlier)
        # One at a time for each tag: the last value that was asked for is the last that is written.
        async with self._turns.setdefault(entry.tag, asyncio.Lock()):
            left = began + life - self._clock.monotonic()
            if left <= 0 or self._clock.now() >= expires:
                outcome = Outcome(entry.id, done=False, detail="expired before it could be carried out")
            else:
                command = Command(entry.id, entry.tag, entry.value, entry.who, expires)
                outcome = await self._execution.carry_out(command, left + ANSWERING)
        event: Event = "unknown" if outcome.done is None else "done" if outcome.done else "failed"
        try:
            await self._audit.append(
                Entry(event, entry.who, entry.role, entry.tag, entry.value, entry.id, outcome.detail), closes=True
            )
        except Unavailable as error:
            _log.error("the outcome of command %s (%s) could not be recorded: %s", entry.id, event, error)
            return Outcome(entry.id, outcome.done, f"{outcome.detail}; this outcome could not be recorded: {error}")
        return outcome

    def _begin(self, press_id: str, who: str, role: Role, session: str, permission: Permission) -> Press:
        holder = self._holders.get(permission.tag)
        if holder is not None and (holder.who, holder.session) != (who, session):
            raise owed_by(holder)
        press = Press(
            press_id, who, role, session, permission,
            clock=self._clock, audit=self._audit, execution=self._execution,
        )  # fmt: skip
        self._hold(press, press.run(holder), holder)
        return press

    def _take_up(self, pending: Pending) -> None:
        """What a crash left: a press is released, a command is reported as unknown and not sent again."""
        record = pending.record
        if pending.kind == "command":
            detail = "Shopfloor ended before the outcome was known; look at the machine"
            entry = Entry("unknown", record.who, record.role, record.tag, _value(record), record.id, detail)
            self._audit.append(entry, closes=True)
            _log.warning("the outcome of command %s to %s is unknown: %s", record.id, record.tag, detail)
            return
        permission = self._allowed.get(record.tag) or Permission(
            record.tag, "operator", None, momentary=True, lease=_SECOND // 2, expires=5 * _SECOND
        )
        press = Press(
            record.id, record.who, record.role, "", permission,
            clock=self._clock, audit=self._audit, execution=self._execution,
        )  # fmt: skip
        press.end("restart")
        self._hold(press, press.let_go(owed=True), self._holders.get(record.tag))

    def _hold(self, press: Press, work: Coroutine[None, None, None], predecessor: Press | None) -> None:
        tag = press.permission.tag
        self._presses[press.id] = press
        self._holders[tag] = press
        task = asyncio.create_task(work, name=f"press {tag}")
        self._runs.add(task)

        def forget(_: asyncio.Task[None]) -> None:
            self._runs.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                _log.error("a press ended by an error in Shopfloor itself", exc_info=error)
            press.give_up(error)
            self._presses.pop(press.id, None)
            self._over[press.id] = press.released
            if len(self._over) > REMEMBERED:
                self._over.popitem(last=False)
            if self._holders.get(tag) is press:
                if predecessor is not None and not predecessor.over.is_set():
                    self._holders[tag] = predecessor
                else:
                    del self._holders[tag]

        task.add_done_callback(forget)

    async def _pressed(self, entry: Entry, press: Press) -> Outcome:
        try:
            return await asyncio.shield(press.pressed)
        except Refused as refusal:
            return await self._refuse(entry, refusal)

    async def _refuse(self, entry: Entry, refusal: Refused) -> NoReturn:
        await self._record_refusal(entry, refusal)
        raise refusal

    async def _record_refusal(self, entry: Entry, refusal: Refused) -> None:
        detail = f"{refusal.reason}: {refusal}"
        refused = Entry("refused", entry.who, entry.role, entry.tag[:255], entry.value, entry.id[:64], detail)
        try:
            await self._audit.append(refused)
        except Unavailable as error:
            _log.error("a refusal could not be recorded (%s): %s", detail, error)


def _value(record: Record) -> Value:
    """The value of a record; what was cut is not given back in part."""
    try:
        return from_json(record.value)
    except ValueError:
        return None


def _used(command_id: str) -> Refused:
    return Refused(
        "conflict", "This id was used before", f"the id {command_id} stands for another command; use a new one"
    )


def _same(one: Entry | Record, other: Entry) -> bool:
    """Whether two commands of the same id are the same command. 1, 1.0 and true are three values."""
    values = (one.value if isinstance(one, Record) else recorded(one.value), recorded(other.value))
    written, given = (json.dumps(value, sort_keys=True) for value in values)
    return (one.event, one.who, one.tag, written) == (other.event, other.who, other.tag, given)


def _life(permission: Permission, expires_in: int | None) -> int:
    if expires_in is None:
        return permission.expires
    if expires_in <= 0:
        raise Refused("range", "The time to live is over", "a command must live longer than 0 ns")
    return min(expires_in, permission.expires)


def _first_outcome(entry: Entry, earlier: Sequence[Record]) -> Outcome:
    """The outcome of a command that was carried out before, out of its records."""
    first, last = earlier[0], earlier[-1]
    if not _same(first, entry):
        raise _used(entry.id)
    if last.event == "issued":
        return Outcome(entry.id, done=None, detail="Shopfloor ended before the outcome was known; look at the machine")
    return Outcome(entry.id, {"done": True, "failed": False}.get(last.event), last.detail)
