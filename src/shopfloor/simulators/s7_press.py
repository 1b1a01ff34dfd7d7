"""A press behind a real S7: analogue inputs as raw numbers, digital inputs, counters and set-points in a data block.

What it does is in ``press_line``; TAGS says where everything lies. DB1's set-point, buttons and order are the
operator's, everything else is written by the simulated program in each of its cycles. DB2 holds as many REALs as asked
for, each of which changes once a second.
"""

import asyncio
import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from shopfloor.protocols.s7_address import Address, Area, parse
from shopfloor.protocols.s7_session import State
from shopfloor.simulators.press_line import FULL_SCALE, IDEAL_CYCLE, Press, State as PressState
from shopfloor.simulators.s7_server import Memory, S7Server

PORT: Final = 1102
"""S7's own, 102, needs root."""
CYCLE: Final = 0.1
"""Seconds of the simulated program's cycle."""
FULL_RAW: Final = 27648
"""What an S7's analogue module gives at the end of its range."""

_POWER: Final = 75.0
"""kW that the sensor shows at its end of range."""
_HOTTEST: Final = 120.0
_MEMORY: Final = 128
_EXTRA_EVERY: Final = 1.0
_COUNTER: Final = 1000


class Tag(NamedTuple):
    """Where a signal lies."""

    address: str
    description: str
    unit: str = ""
    full: float | None = None
    """Engineering value at FULL_RAW, of raw analogue inputs."""
    writable: bool = False


TAGS: Final[Mapping[str, Tag]] = {
    "MotorStatus": Tag("I0.0", "The motor runs"),
    "Cycle": Tag("I0.1", "The ram is down: rises once a part"),
    "Power": Tag("IW64", "Power sensor", "kW", _POWER),
    "Pressure": Tag("IW66", "Pressure sensor", "bar", FULL_SCALE),
    "Oil": Tag("IW68", "Oil temperature sensor", "°C", _HOTTEST),
    "Valve": Tag("QW80", "Valve", "%", 100.0),
    "Lamp": Tag("Q0.0", "The fault lamp"),
    "Alive": Tag("M10.0", "Changes in each cycle of the program"),
    "PV": Tag("DB1,REAL0", "Pressure", "bar"),
    "SP": Tag("DB1,REAL4", "Set-point of the pressure", "bar", writable=True),
    "CycleTime": Tag("DB1,REAL8", "Seconds from part to part", "s"),
    "Start": Tag("DB1,X12.0", "Start button: starts on its rising edge", writable=True),
    "Stop": Tag("DB1,X12.1", "Stop button: stops while pressed, wins over Start", writable=True),
    "State": Tag("DB1,INT14", "PackML state: 2 stopped, 3 starting, 6 execute, 11 held (jammed)"),
    "FaultCode": Tag("DB1,WORD16", "0 none, 17 sheet jam"),
    "GoodParts": Tag("DB1,UDINT18", "Good parts since the PLC was loaded, rolls over"),
    "ScrapParts": Tag("DB1,UDINT22", "Scrapped parts since the PLC was loaded, rolls over"),
    "Energy": Tag("DB1,LREAL26", "Energy since the PLC was loaded", "kWh"),
    "Order": Tag("DB1,STRING34.20", "The order that is worked on", writable=True),
    "Clock": Tag("DB1,DT56", "The PLC's clock, UTC"),
    "Speed": Tag("DB1,INT64", "Set-point of the speed", "1/min", writable=True),
    "Parts": Tag("C1", "Parts, modulo 1000"),
    "Since": Tag("T1", "Time since the last part, in ms"),
}
"""Every signal of the press by name."""

DB1_SIZE: Final = 66


async def serve(
    host: str = "127.0.0.1",
    port: int = PORT,
    *,
    seed: int = 1,
    extra_tags: int = 0,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve a press until cancelled; ``ready`` is called once clients can connect. Raises Misconfigured."""
    press = PressPlc(Press(seed, running=True, attended=True), seed=seed, extra_tags=extra_tags)
    async with S7Server(press.memory, host, port) as server:
        if ready is not None:
            ready()
        await press.run(server)


class PressPlc:
    """The program of the PLC: the physics, and the memory that it is seen by."""

    def __init__(self, press: Press, *, seed: int = 1, extra_tags: int = 0) -> None:
        """At rest until ``run`` or ``scan``."""
        sizes = {(area, 0): _MEMORY for area in (Area.INPUTS, Area.OUTPUTS, Area.MARKERS, Area.TIMERS, Area.COUNTERS)}
        self.press = press
        self.memory = Memory({**sizes, (Area.DB, 1): DB1_SIZE, (Area.DB, 2): max(4, 4 * extra_tags)})
        self._noise = random.Random(seed)  # noqa: S311  # a sensor's noise, no secret
        self._addresses: dict[str, Address] = {name: parse(tag.address) for name, tag in TAGS.items()}
        self._extra = [parse(f"DB2,REAL{4 * n}") for n in range(extra_tags)]
        self._time = 0.0
        self._energy = 0.0
        self._parts = 0
        self._since = 0.0
        self._say("SP", press.set_point)
        self._say("Order", "A-1001")
        self._say("Speed", 300)
        self.scan(0.0)

    async def run(self, server: S7Server) -> None:
        """Let time pass; in STOP nothing moves."""
        loop = asyncio.get_running_loop()
        then = loop.time()
        while True:
            await asyncio.sleep(CYCLE)
            now = loop.time()
            if server.state is State.RUN:
                self.scan(now - then)
            then = now

    def scan(self, dt: float) -> None:
        """One cycle of the program, ``dt`` seconds after the last one: take what was written, work, show."""
        memory, at = self.memory, self._addresses
        set_point = memory.get(at["SP"])
        if isinstance(set_point, float) and math.isfinite(set_point):
            self.press.set_pressure(set_point)
        self.press.start_button(pressed=bool(memory.get(at["Start"])))
        self.press.stop_button(pressed=bool(memory.get(at["Stop"])))
        self.press.step(dt)
        self._show(dt)
        self._change_extra(dt)

    def _show(self, dt: float) -> None:
        read = self.press.read()
        works = read.State == PressState.EXECUTE
        power = (18.0 if read.MotorStatus else 0.6) + (32.0 if works else 0.0) * read.PV / FULL_SCALE
        power += self._noise.gauss(0, 0.2)
        self._energy += max(0.0, power) * dt / 3600
        made = read.GoodParts + read.ScrapParts
        self._since = 0.0 if made != self._parts else self._since + dt
        self._parts = made
        self._raw("Power", power)
        self._raw("Pressure", read.PV)
        self._raw("Oil", read.Temperature)
        self._raw("Valve", read.CV)
        for name in ("MotorStatus", "PV", "CycleTime", "State", "FaultCode", "GoodParts", "ScrapParts"):
            self._say(name, getattr(read, name))
        self._say("Cycle", works and self._since < IDEAL_CYCLE / 2)
        self._say("Lamp", read.FaultCode != 0)
        self._say("Alive", not self.memory.get(self._addresses["Alive"]))
        self._say("Energy", self._energy)
        self._say("Clock", datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00"))
        self._say("Parts", made % _COUNTER)
        self._say("Since", min(int(self._since * 10) * 100, 9900))

    def _raw(self, name: str, value: float) -> None:
        full = TAGS[name].full or 1.0
        self._say(name, round(min(max(value / full, 0.0), 1.17) * FULL_RAW))

    def _say(self, name: str, value: bool | float | str) -> None:  # noqa: FBT001  # a value is no option
        self.memory.put(self._addresses[name], value)

    def _change_extra(self, dt: float) -> None:
        """Each of the extra values once in _EXTRA_EVERY, a part of them in each cycle."""
        before, self._time = self._time, self._time + dt
        count = len(self._extra)
        for n in range(int(before / _EXTRA_EVERY * count), int(self._time / _EXTRA_EVERY * count)):
            self.memory.put(self._extra[n % count], math.sin(self._time + n % count) * 100)
