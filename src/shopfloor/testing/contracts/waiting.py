"""Waiting for a condition with a deadline, and finding what was left open."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import psutil
import pytest


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, within: float = 60.0) -> None:
    """Wait until the condition holds; fail the test with ``what`` after ``within`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        if loop.time() > deadline:
            pytest.fail(f"after {within} s still not: {what}")
        await asyncio.sleep(0.01)


class Leftovers:
    """The tasks and connections of this process when it was made; ``none`` fails for any that came since and stayed."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._connections = _connections()

    async def none(self, within: float = 30.0) -> None:
        """Fail the test if a task or a connection that began since is still there after ``within`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while left := self._left():
            if loop.time() > deadline:
                pytest.fail("left behind: " + "; ".join(left))
            await asyncio.sleep(0.02)

    def _left(self) -> list[str]:
        here = asyncio.current_task()
        tasks = [str(task) for task in asyncio.all_tasks() - self._tasks if task is not here]
        return tasks + sorted(_connections() - self._connections)


def _connections() -> set[str]:
    """The open TCP and UDP sockets of this process that have another side or wait for one."""
    return {
        f"{found.laddr} to {found.raddr or 'anyone'} {found.status}"
        for found in psutil.Process(os.getpid()).net_connections(kind="inet")
        if found.laddr
    }
