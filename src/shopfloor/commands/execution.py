"""Carries one command out within bounds: at most once, never late, and always with an outcome."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from shopfloor.commands.clock import Clock
from shopfloor.samples import Command, Misconfigured, Outcome, Rejected

Execute = Callable[[Command], Awaitable[Outcome]]
"""Finds the source of a command's tag and lets it execute; ``done`` False when there is none or it is away."""

CANCELLING: Final = 10**9
"""ns that a cancelled execution may take to come back before it is left behind."""

_log = logging.getLogger(__name__)


class Execution:
    """Bounds the calls of ``execute``."""

    def __init__(self, execute: Execute, clock: Clock) -> None:
        self._execute = execute
        self._clock = clock
        self._left_behind: set[asyncio.Task[Outcome]] = set()

    async def carry_out(self, command: Command, patience: int, until: asyncio.Event | None = None) -> Outcome:
        """Execute once and say what became of it; raises nothing but CancelledError.

        After ``patience`` ns, or that long after ``until`` is set where one is given, the execution
        is cancelled and its outcome is unknown.
        """
        task = asyncio.create_task(self._call(command), name=f"execute {command.tag}")
        limit = asyncio.create_task(self._limit(patience, until))
        try:
            await asyncio.wait({task, limit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            limit.cancel()
            if not task.done():
                task.cancel()
        if not task.done():
            await self._leave(task)
        if task.done() and not task.cancelled():
            return task.result()
        return Outcome(command.id, done=None, detail="the other side did not answer in time; look at the machine")

    async def _limit(self, patience: int, until: asyncio.Event | None) -> None:
        if until is not None:
            await until.wait()
        await self._clock.sleep(patience)

    async def _leave(self, task: asyncio.Task[Outcome]) -> None:
        """Give a cancelled execution the time to come back; one that does not is left behind, but referred to."""
        self._left_behind.add(task)
        task.add_done_callback(self._left_behind.discard)
        grace = asyncio.create_task(self._clock.sleep(CANCELLING))
        try:
            await asyncio.wait({task, grace}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            grace.cancel()

    async def _call(self, command: Command) -> Outcome:
        try:
            outcome = await self._execute(command)
        except (Misconfigured, Rejected) as error:
            return Outcome(command.id, done=False, detail=str(error))
        except Exception as error:  # noqa: BLE001  # whatever a source raises, a person gets an outcome
            # How far it came is not known, so it counts as possibly written.
            _log.exception("the execution of a command failed", extra={"tag": command.tag, "command": command.id})
            return Outcome(command.id, done=None, detail=f"{type(error).__name__}: {error}; look at the machine")
        return outcome if outcome.command_id == command.id else Outcome(command.id, outcome.done, outcome.detail)
