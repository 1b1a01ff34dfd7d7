"""The filler in a simulated S7: analogue inputs as raw numbers, digital inputs, counters and set-points in DB10.

What it does is in ``filling_line``; TAGS says where everything lies. DB10's set-point and buttons are the operator's,
everything else is written by the simulated program in each of its cycles.
"""

import math
from collections.abc import Mapping
from typing import Final

from shopfloor.simulators.filling_line import FULL_POWER, FULL_WEIGHT, Filler
from shopfloor.simulators.s7_server import Memory
from shopfloor.simulators.s7_signals import Signals, Tag

_HOTTEST: Final = 120.0
_COUNTER: Final = 1000

TAGS: Final[Mapping[str, Tag]] = {
    "MotorStatus": Tag("I4.0", "The motor runs"),
    "Cycle": Tag("I4.1", "A bottle is at the light barrier: rises once a bottle"),
    "Starved": Tag("I4.2", "No bottle comes"),
    "Blocked": Tag("I4.3", "No room for a bottle"),
    "Power": Tag("IW72", "Power sensor", "kW", FULL_POWER),
    "TankLevel": Tag("IW74", "Level sensor of the tank", "%", 100.0),
    "Scale": Tag("IW76", "Scale: the last bottle", "g", FULL_WEIGHT),
    "Temperature": Tag("IW78", "Temperature sensor of the motor", "°C", _HOTTEST),
    "Lamp": Tag("Q4.0", "The fault lamp"),
    "Speed": Tag("DB10,REAL0", "Bottles per minute", "1/min"),
    "SpeedSP": Tag("DB10,REAL4", "Set-point of the speed, 20 to 60", "1/min", writable=True),
    "FillLevel": Tag("DB10,REAL8", "In the last bottle", "ml"),
    "Weight": Tag("DB10,REAL12", "The last bottle", "g"),
    "Start": Tag("DB10,X16.0", "Start button: clears a fault and starts on its rising edge", writable=True),
    "Stop": Tag("DB10,X16.1", "Stop button: stops while pressed, wins over Start", writable=True),
    "State": Tag("DB10,INT18", "PackML state"),
    "FaultCode": Tag("DB10,WORD20", "0 none, 21 fallen bottle, 22 no caps, 23 tank empty, 31 motor overload"),
    "TotalBottles": Tag("DB10,UDINT22", "All bottles since the PLC was loaded, rolls over"),
    "GoodBottles": Tag("DB10,UDINT26", "Good bottles since the PLC was loaded, rolls over"),
    "RejectBottles": Tag("DB10,UDINT30", "Rejected bottles since the PLC was loaded, rolls over"),
    "RejectReason": Tag("DB10,INT34", "Of the last rejected bottle: 1 underfilled, 2 overfilled, 3 no cap"),
    "IdealRate": Tag("DB10,REAL36", "Bottles per minute at best", "1/min"),
    "CycleTime": Tag("DB10,REAL40", "Seconds from bottle to bottle", "s"),
    "Energy": Tag("DB10,LREAL44", "Energy since the PLC was loaded", "kWh"),
    "Remaining": Tag("DB10,UDINT52", "Good bottles that the order still needs"),
    "Bottles": Tag("C2", "Bottles, modulo 1000"),
}
"""Every signal of the filler by name."""

DB: Final = 10
SIZE: Final = 56
"""Bytes of its data block."""

_AS_IT_IS: Final = (
    "MotorStatus", "Cycle", "Starved", "Blocked", "Speed", "FillLevel", "Weight", "State", "FaultCode", "TotalBottles",
    "GoodBottles", "RejectBottles", "RejectReason", "IdealRate", "CycleTime", "Energy", "Remaining",
)  # fmt: skip


class FillerBlock:
    """The part of the PLC's program that runs the filler."""

    def __init__(self, filler: Filler, memory: Memory) -> None:
        """Writes the set-point into the memory."""
        self.filler = filler
        self._signals = Signals(memory, TAGS)
        self._signals.say("SpeedSP", filler.set_point)

    def scan(self, dt: float) -> None:
        """One cycle, ``dt`` seconds after the last one: take what was written, work, show."""
        signals = self._signals
        set_point = signals.get("SpeedSP")
        if isinstance(set_point, float) and math.isfinite(set_point):
            self.filler.set_speed(set_point)
        signals.say("SpeedSP", self.filler.set_point)  # as the drive keeps it
        self.filler.start_button(pressed=bool(signals.get("Start")))
        self.filler.stop_button(pressed=bool(signals.get("Stop")))
        self.filler.step(dt)
        self._show()

    def _show(self) -> None:
        signals, read = self._signals, self.filler.read()
        for name in ("Power", "TankLevel", "Temperature"):
            signals.raw(name, getattr(read, name))
        signals.raw("Scale", read.Weight)
        for name in _AS_IT_IS:
            signals.say(name, getattr(read, name))
        signals.say("Lamp", read.FaultCode != 0)
        signals.say("Bottles", read.TotalBottles % _COUNTER)
