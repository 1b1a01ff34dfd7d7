"""A press and a filler behind one simulated S7, and as many changing REALs in DB2 as asked for."""

import math
from collections.abc import Callable
from typing import Final

from shopfloor.protocols.s7_address import Area, parse
from shopfloor.protocols.s7_session import State
from shopfloor.simulators import s7_filler, s7_press
from shopfloor.simulators.filling_line import Filler
from shopfloor.simulators.pace import scans
from shopfloor.simulators.press_line import Press
from shopfloor.simulators.s7_server import Memory, S7Server

PORT: Final = 1102
"""S7's own, 102, needs root."""
CYCLE: Final = 0.1
"""Seconds of the simulated program's cycle."""

_MEMORY: Final = 128
_EXTRA_EVERY: Final = 1.0


async def serve(
    host: str = "127.0.0.1",
    port: int = PORT,
    *,
    seed: int = 1,
    extra_tags: int = 0,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve both lines until cancelled; ``ready`` is called once clients can connect. Raises Misconfigured."""
    press, filler = Press(seed, running=True, attended=True), Filler(seed, running=True, attended=True)
    plc = S7Plant(press, filler, extra_tags=extra_tags)
    async with S7Server(plc.memory, host, port) as server:
        if ready is not None:
            ready()
        await plc.run(server)


class S7Plant:
    """The program of the PLC: the physics of both lines, and the memory that they are seen by."""

    def __init__(self, press: Press, filler: Filler, *, extra_tags: int = 0) -> None:
        """Nothing moves until ``run`` or ``scan``."""
        sizes = {(area, 0): _MEMORY for area in (Area.INPUTS, Area.OUTPUTS, Area.MARKERS, Area.TIMERS, Area.COUNTERS)}
        blocks = {s7_press.DB: s7_press.SIZE, 2: max(4, 4 * extra_tags), s7_filler.DB: s7_filler.SIZE}
        self.press, self.filler = press, filler
        self.memory = Memory({**sizes, **{(Area.DB, number): size for number, size in blocks.items()}})
        self._blocks = (s7_press.PressBlock(press, self.memory), s7_filler.FillerBlock(filler, self.memory))
        self._extra = [parse(f"DB2,REAL{4 * n}") for n in range(extra_tags)]
        self._time = 0.0
        self.scan(0.0)

    async def run(self, server: S7Server) -> None:
        """Let time pass; in STOP nothing moves."""
        await scans(lambda dt: self.scan(dt) if server.state is State.RUN else None, CYCLE)

    def scan(self, dt: float) -> None:
        """One cycle of the program, ``dt`` seconds after the last one."""
        for block in self._blocks:
            block.scan(dt)
        self._change_extra(dt)

    def _change_extra(self, dt: float) -> None:
        """Each of the extra values once in _EXTRA_EVERY, a part of them in each cycle."""
        before, self._time = self._time, self._time + dt
        count = len(self._extra)
        for n in range(int(before / _EXTRA_EVERY * count), int(self._time / _EXTRA_EVERY * count)):
            self.memory.put(self._extra[n % count], math.sin(self._time + n % count) * 100)
