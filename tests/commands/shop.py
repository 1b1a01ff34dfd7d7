"""A clock that stands still, a machine that remembers what was written, and commands between them."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

from shopfloor.commands import Audit, Commands
from shopfloor.plant import Allow, Commands as CommandsConfig
from shopfloor.samples import Command, Outcome, Value

SECOND = 10**9
LEASE = SECOND // 2


class StillClock:
    """Moves only when the test says so; sleepers wake in order of their due time."""

    def __init__(self) -> None:
        self.utc = 1_763_683_200 * SECOND
        self.mono = 0
        self._sleepers: list[tuple[int, int, asyncio.Event]] = []
        self._number = itertools.count()

    def now(self) -> int:
        return self.utc

    def monotonic(self) -> int:
        return self.mono

    async def sleep(self, duration: int) -> None:
        if duration <= 0:
            return
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self.mono + duration, next(self._number), woken))
        await woken.wait()

    async def advance(self, duration: int) -> None:
        """Let time pass, stopping at every sleeper on the way until the others have settled."""
        end = self.mono + duration
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, woken = heapq.heappop(self._sleepers)
            self.utc += due - self.mono
            self.mono = due
            woken.set()
            await settle()
        self.utc += end - self.mono
        self.mono = end
        await settle()


async def settle() -> None:
    """Let every task run as far as it comes: some turns of the loop, and the audit's thread."""
    for _ in range(3):
        for _ in range(12):
            await asyncio.sleep(0)
        for done in barriers:
            await done()


barriers: list[Callable[[], Awaitable[object]]] = []


class Machine:
    """What stands where the sources would: executes, remembers, and fails as told."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, Value]] = []
        self.commands: list[Command] = []
        self.connected = True
        self.error: Exception | None = None
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def execute(self, command: Command) -> Outcome:
        self.commands.append(command)
        if not self.connected:
            return Outcome(command.id, done=False, detail="the source is not connected")
        await self.hangs.wait()
        if self.error is not None:
            raise self.error
        self.writes.append((command.tag, command.value))
        return Outcome(command.id, done=True, detail=f"read back {command.value!r}")


ALLOW = [
    Allow(tag="press-1/SP", range=(0, 80)),
    Allow(tag="press-1/Mode", role="engineer"),
    Allow(tag="press-1/Start", momentary=True),
    Allow(tag="press-1/Stop", momentary=True),
]


class Shop:
    """Commands over a machine, with the clock and the audit's file."""

    def __init__(self, folder: Path) -> None:
        self.clock = StillClock()
        self.machine = Machine()
        self.path = folder / "audit.db"
        self.known: dict[str, Value] = {}
        self.commands = self.another()

    def another(self) -> Commands:
        """Further commands on the same file: the next start of the process."""
        audit = Audit(self.path, self.clock.now)
        return Commands(CommandsConfig(allow=ALLOW), audit, self.machine.execute, clock=self.clock)

    async def events(self) -> list[tuple[str, str, object]]:
        """Event, tag and value of every record, oldest first."""
        records = await self.commands.audit(1000)
        return [(r.event, r.tag, r.value) for r in reversed(records)]

    async def restart(self) -> None:
        """Stop as a crash would leave the file: nothing that runs gets another turn."""
        old = self.commands
        for task in [*old._runs, *(task for _, task in old._under_way.values())]:
            task.cancel()
        await settle()
        await old._audit.__aexit__()
        self.commands = self.another()
        await self.enter()

    async def enter(self) -> None:
        barriers[:] = [lambda: self.commands._audit._in_order(int)]
        await self.commands.__aenter__()
