"""The physics of a hydraulic stamping press: no clock, no network, the same run for the same seed.

A pump builds pressure while the motor runs; a controller opens the valve (CV, %) so that the pressure
(PV, bar) follows the set-point (SP, bar) as a first-order lag. With enough pressure the press strokes;
each stroke gives a part, which is scrap when the pressure was off or now and then for no known reason.
Sheets jam once in a while: the press is then held until somebody presses Start.
"""

import math
import random
from enum import IntEnum
from typing import Final

import msgspec

from shopfloor.simulators.packml import State

IDEAL_CYCLE: Final = 1.2
"""Seconds a stroke takes at NOMINAL pressure."""
NOMINAL: Final = 40.0
"""bar"""
FULL_SCALE: Final = 100.0
"""bar at a valve that is fully open."""
LEAST_PRESSURE: Final = 15.0
"""bar; below it the press does not stroke."""
TOLERANCE: Final = 0.10
"""Parts made further than this share from the set-point are scrap."""

_CHANCE_OF_SCRAP: Final = 0.02
"""For a part that was made at the right pressure."""
_STEP: Final = 0.05
"""Seconds; longer steps are taken in pieces of this, so a part is never skipped."""
_LAG: Final = 4.0
"""Seconds: time constant of the pressure at a fixed valve."""
_GAIN: Final = 3.0
"""% of valve for each bar of deviation; the closed loop follows with _LAG / (1 + _GAIN)."""
_AMBIENT: Final = 22.0
_WARM: Final = 58.0
"""°C: what the oil tends to at rest and at work."""
_WARMING: Final = 90.0
"""Seconds: time constant of the oil temperature."""
_RAM_DOWN: Final = 0.4
"""Seconds that the ram is down in each stroke."""
_STANDBY, _PUMP, _STROKES = 0.6, 17.4, 32.0
"""kW: always, of the pump's motor, and of strokes at full pressure."""
_COUNTER: Final = 2**32
"""Part counters are UInt32 and roll over, as the PLC's do."""


class Fault(IntEnum):
    """Fault codes; 0 while there is none."""

    NONE = 0
    SHEET_JAM = 17


class Scrap(IntEnum):
    """Why a part is scrap."""

    NONE = 0
    """None was yet."""
    PRESSURE = 1
    """It was made too far from the set-point."""
    MATERIAL = 2


class Readings(msgspec.Struct, frozen=True):
    """What the PLC shows, with the names and units of its tags."""

    CV: float
    """Valve, %."""
    PV: float
    """Measured pressure, bar."""
    SP: float
    """Set-point, bar."""
    MotorStatus: bool
    GoodParts: int
    ScrapParts: int
    CycleTime: float
    """Seconds from the last part but one to the last one; 0 before."""
    Temperature: float
    """Oil, °C."""
    State: int
    """PackML's number."""
    FaultCode: int
    TotalParts: int
    ScrapReason: int
    """Of the last part that was scrap, see ``Scrap``."""
    IdealRate: float
    """Parts per minute at best."""
    Cycle: bool
    """The ram is down: rises once a part."""
    Power: float
    """kW; more than the pump's while the press strokes, the more the higher the pressure."""
    Energy: float
    """kWh, in the steps of the meter."""


class Press:
    """One press, as its PLC sees it. Press the buttons, let time pass, read."""

    def __init__(
        self, seed: int = 1, *, running: bool = False, attended: bool = False, jam_every: float = 240.0
    ) -> None:
        """A press at rest, or ``running`` with its pressure up.

        ``attended`` has a simulated operator who clears a jam with Start after 10 to 40 s.
        ``jam_every`` is the mean of the running time between two jams in seconds; math.inf for none.
        """
        self._chance = random.Random(seed)  # noqa: S311  # a machine's whims, no secret
        # A stream of its own, so that what happens does not depend on how often somebody looks.
        self._senses = random.Random(f"{seed}/senses")  # noqa: S311  # a sensor's noise, no secret
        self._attended = attended
        self._jam_every = jam_every
        self._start = self._stop = False
        self._set_point = NOMINAL
        self._pressure = NOMINAL if running else 0.0
        self._valve = NOMINAL if running else 0.0
        self._oil = _WARM if running else _AMBIENT
        self._state = State.EXECUTE if running else State.STOPPED
        self._fault = Fault.NONE
        self._good = self._scrap = 0
        self._reason = Scrap.NONE
        self._energy = 0.0
        self._stroke = self._stroke_length()
        self._since_part = 0.0
        self._ram = 0.0
        """Seconds for which the ram is still down."""
        self._cycle_time = 0.0
        self._operator_comes = math.inf

    @property
    def running(self) -> bool:
        """Whether the motor runs."""
        return self._state in (State.STARTING, State.EXECUTE)

    @property
    def set_point(self) -> float:
        """The pressure that is asked for, bar."""
        return self._set_point

    def set_pressure(self, bar: float) -> None:
        """Ask for another pressure. The valve saturates at 0 and FULL_SCALE; raises ValueError for NaN and infinity."""
        if not math.isfinite(bar):
            raise ValueError(f"{bar} is no pressure")
        self._set_point = bar

    def start_button(self, *, pressed: bool) -> None:
        """Press or release Start: the press starts on the press, not while it is held, and never against Stop."""
        edge = pressed and not self._start
        self._start = pressed
        if edge and not self._stop and not self.running:
            self._fault = Fault.NONE
            self._state = State.STARTING
            self._since_part = 0.0
            self._operator_comes = math.inf

    def stop_button(self, *, pressed: bool) -> None:
        """Press or release Stop: it stops at once, wins over Start, and acknowledges a fault."""
        self._stop = pressed
        if pressed:
            self._fault = Fault.NONE
            self._state = State.STOPPED
            self._operator_comes = math.inf

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass. Raises ValueError for a negative or endless time."""
        if not 0 <= dt < math.inf:
            raise ValueError(f"time cannot pass by {dt} s")
        pieces = math.ceil(dt / _STEP)
        for _ in range(pieces):
            self._flow(dt / pieces)
            self._work(dt / pieces)

    def read(self) -> Readings:
        """What the PLC shows now; analogue values carry their sensors' noise."""
        return Readings(
            CV=self._valve,
            PV=max(0.0, self._pressure + self._senses.gauss(0, 0.15)),
            SP=self._set_point,
            MotorStatus=self.running,
            GoodParts=self._good,
            ScrapParts=self._scrap,
            CycleTime=self._cycle_time,
            Temperature=self._oil + self._senses.gauss(0, 0.05),
            State=self._state,
            FaultCode=self._fault,
            TotalParts=(self._good + self._scrap) % _COUNTER,
            ScrapReason=self._reason,
            IdealRate=60 / IDEAL_CYCLE,
            Cycle=self._ram > 0,
            Power=max(0.0, self._power() + self._senses.gauss(0, 0.2)),
            Energy=math.floor(self._energy * 100) / 100,
        )

    def _flow(self, dt: float) -> None:
        """Valve, pressure and oil; exact for a valve that stays put, so the result hardly depends on the step."""
        if self.running:
            deviation = self._set_point - self._pressure
            self._valve = min(100.0, max(0.0, self._set_point / FULL_SCALE * 100 + _GAIN * deviation))
        else:
            self._valve = 0.0
        self._pressure = _towards(self._valve / 100 * FULL_SCALE, self._pressure, dt / _LAG)
        self._oil = _towards(_WARM if self.running else _AMBIENT, self._oil, dt / _WARMING)
        self._energy += self._power() * dt / 3600

    def _power(self) -> float:
        strokes = _STROKES * self._pressure / FULL_SCALE if self._state is State.EXECUTE else 0.0
        return _STANDBY + (_PUMP if self.running else 0.0) + strokes

    def _work(self, dt: float) -> None:
        self._operator_comes -= dt
        self._ram = max(0.0, self._ram - dt)
        if self._state is State.HELD and self._operator_comes <= 0:
            self.start_button(pressed=True)
            self.start_button(pressed=False)
        if not self.running:
            return
        self._state = State.EXECUTE if self._pressure >= LEAST_PRESSURE else State.STARTING
        if self._state is not State.EXECUTE:
            return
        self._since_part += dt
        self._stroke -= dt
        if self._stroke <= 0:
            self._count()
        if self._chance.random() < dt / self._jam_every:
            self._jam()

    def _count(self) -> None:
        off = abs(self._pressure - self._set_point) > TOLERANCE * max(self._set_point, 1.0)
        if off or self._chance.random() < _CHANCE_OF_SCRAP:
            self._scrap = (self._scrap + 1) % _COUNTER
            self._reason = Scrap.PRESSURE if off else Scrap.MATERIAL
        else:
            self._good = (self._good + 1) % _COUNTER
        self._ram = _RAM_DOWN
        self._cycle_time = self._since_part
        self._since_part = 0.0
        self._stroke += self._stroke_length()

    def _stroke_length(self) -> float:
        """A little more than ideal, longer the lower the pressure; never shorter than physics allows."""
        slower = math.sqrt(NOMINAL / max(self._pressure, LEAST_PRESSURE))
        return max(0.6, IDEAL_CYCLE * slower * (1.02 + abs(self._chance.gauss(0, 0.03))))

    def _jam(self) -> None:
        self._state = State.HELD
        self._fault = Fault.SHEET_JAM
        if self._attended:
            self._operator_comes = self._chance.uniform(10, 40)


def _towards(target: float, value: float, share: float) -> float:
    """A first-order lag, exact over any step: ``share`` is the step in time constants."""
    return target + (value - target) * math.exp(-share)
