"""The press in a simulated S7: analogue inputs as raw numbers, digital inputs, counters and set-points in DB1.

What it does is in ``press_line``; TAGS says where everything lies. DB1's set-points, buttons and order are the
operator's, everything else is written by the simulated program in each of its cycles.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from shopfloor.simulators.press_line import FULL_SCALE, Press
from shopfloor.simulators.s7_server import Memory
from shopfloor.simulators.s7_signals import Signals, Tag

_POWER: Final = 75.0
"""kW that the sensor shows at its end of range."""
_HOTTEST: Final = 120.0
_COUNTER: Final = 1000

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
    "TotalParts": Tag("DB1,UDINT66", "All parts since the PLC was loaded, rolls over"),
    "ScrapReason": Tag("DB1,INT70", "Of the last scrapped part: 1 pressure, 2 material"),
    "IdealRate": Tag("DB1,REAL72", "Parts per minute at best", "1/min"),
    "Parts": Tag("C1", "Parts, modulo 1000"),
    "Since": Tag("T1", "Time since the last part, in ms"),
}
"""Every signal of the press by name."""

DB: Final = 1
SIZE: Final = 76
"""Bytes of its data block."""


class PressBlock:
    """The part of the PLC's program that runs the press."""

    def __init__(self, press: Press, memory: Memory) -> None:
        """Writes the set-points into the memory."""
        self.press = press
        self._signals = Signals(memory, TAGS)
        self._parts = 0
        self._since = 0.0
        self._signals.say("SP", press.set_point)
        self._signals.say("Order", "A-1001")
        self._signals.say("Speed", 300)

    def scan(self, dt: float) -> None:
        """One cycle, ``dt`` seconds after the last one: take what was written, work, show."""
        signals = self._signals
        set_point = signals.get("SP")
        if isinstance(set_point, float) and math.isfinite(set_point):
            self.press.set_pressure(set_point)
        self.press.start_button(pressed=bool(signals.get("Start")))
        self.press.stop_button(pressed=bool(signals.get("Stop")))
        self.press.step(dt)
        self._show(dt)

    def _show(self, dt: float) -> None:
        signals, read = self._signals, self.press.read()
        self._since = 0.0 if read.TotalParts != self._parts else self._since + dt
        self._parts = read.TotalParts
        signals.raw("Power", read.Power)
        signals.raw("Pressure", read.PV)
        signals.raw("Oil", read.Temperature)
        signals.raw("Valve", read.CV)
        for name in ("MotorStatus", "Cycle", "PV", "CycleTime", "State", "FaultCode", "GoodParts", "ScrapParts",
                     "TotalParts", "ScrapReason", "IdealRate", "Energy"):  # fmt: skip
            signals.say(name, getattr(read, name))
        signals.say("Lamp", read.FaultCode != 0)
        signals.say("Alive", not signals.get("Alive"))
        signals.say("Clock", datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00"))
        signals.say("Parts", read.TotalParts % _COUNTER)
        signals.say("Since", min(int(self._since * 10) * 100, 9900))
