"""The physics of a bottle filler between two conveyors: no clock, no network, the same run for the same seed.

The drive follows its set-point (bottles per minute) as a first-order lag. Each bottle is filled out of a tank, closed
and weighed; a low tank fills too little, a valve that closes late too much, and now and then a cap is missing: such
bottles are rejected, with the reason. The machines before and behind it stand for a while now and then; when no bottle
comes (starved) or there is no room for one (blocked) the filler waits. Faults hold it until somebody presses Start, an
overload of the motor stops it at once. After so many good bottles the order is complete.
"""

import math
import random
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import msgspec

from shopfloor.simulators.packml import State

IDEAL_RATE: Final = 60.0
"""Bottles per minute at best; the drive turns no faster."""
SLOWEST: Final = 20.0
"""Bottles per minute that the drive turns at least."""
USUAL_RATE: Final = 57.0
FILLING: Final = 500.0
"""ml"""
LEAST_FILLING, MOST_FILLING = 490.0, 510.0
"""ml; bottles outside are rejected."""
DENSITY: Final = 1.04
"""g/ml"""
EMPTY_BOTTLE: Final = 24.0
"""g, with its cap"""
FULL_POWER: Final = 15.0
"""kW: the end of the power sensor's range."""
FULL_WEIGHT: Final = 1000.0
"""g: the end of the scale's range."""

_STEP: Final = 0.05
"""Seconds; longer steps are taken in pieces of this, so a bottle is never skipped."""
_LAG, _BRAKE = 1.5, 0.3
"""Seconds: time constants of the drive, and of its brake when it aborts."""
_AT_SPEED: Final = 0.9
"""Share of the set-point from which bottles are filled."""
_STANDS: Final = 0.5
"""Bottles per minute below which the drive stands."""
_CLEARING, _RESETTING = 3.0, 4.0
"""Seconds that it takes to clear and to reset."""
_FILLING_NOISE, _BOTTLE_NOISE, _SCALE_NOISE = 2.0, 0.3, 0.4
"""Standard deviations: ml of a filling, g of an empty bottle, g of a weighing."""
_LOW: Final = 40.0
"""% of the tank below which bottles are filled less."""
_LESS: Final = 18.0
"""ml that are missing when the tank is empty."""
_CHANCE_LATE_VALVE, _CHANCE_NO_CAP = 0.004, 0.006
_TANK: Final = 60_000.0
"""ml"""
_SUPPLY: Final = 1000.0
"""ml/s into the tank while its valve is open."""
_VALVE_OPENS, _VALVE_CLOSES = 50.0, 90.0
"""% of the tank"""
_TOO_LOW, _LOW_NO_MORE = 8.0, 30.0
"""% of the tank that stop the filler, and that let it go on."""
_SUPPLY_RUNS, _SUPPLY_STANDS = 1800.0, 75.0
"""Seconds, on average."""
_ROOM: Final = 12.0
"""Bottles on each conveyor."""
_ENOUGH: Final = 6.0
"""Bottles, or room for so many, with which it goes on after it waited."""
_OTHER_RATE: Final = 66.0
"""Bottles per minute of the machines before and behind."""
_OTHER_RUNS, _OTHER_STANDS = 240.0, 25.0
"""Seconds, on average."""
_STANDBY, _FRICTION, _TURNING, _SPEEDING_UP = 0.8, 2.2, 5.5, 3.0
"""kW: always, of the drive, at full speed, and while it speeds up from nothing."""
_AMBIENT, _WARMER = 22.0, 38.0
"""°C of the hall, and by which the motor gets warmer at full speed."""
_WARMING: Final = 180.0
"""Seconds: time constant of the motor's temperature."""
_SEEN: Final = 0.4
"""Seconds for which the light barrier sees a bottle."""
_CHANGEOVER: Final = (20.0, 60.0)
"""Seconds from the end of an order to the next one, when attended."""
_COUNTER: Final = 2**32


class Fault(IntEnum):
    """Fault codes; 0 while there is none."""

    NONE = 0
    FALLEN_BOTTLE = 21
    NO_CAPS = 22
    TANK_EMPTY = 23
    """It goes on only once there is product again."""
    OVERLOAD = 31
    """Of the motor: the filler aborts."""


class Reject(IntEnum):
    """Why a bottle is rejected."""

    NONE = 0
    """None was yet."""
    UNDERFILLED = 1
    OVERFILLED = 2
    NO_CAP = 3


REPAIR: Final[Mapping[Fault, tuple[float, float]]] = {
    Fault.FALLEN_BOTTLE: (8.0, 30.0),
    Fault.NO_CAPS: (15.0, 45.0),
    Fault.TANK_EMPTY: (5.0, 15.0),
    Fault.OVERLOAD: (30.0, 90.0),
}
"""Seconds, from and to, until an operator has cleared a fault."""
_HOW_OFTEN: Final = {Fault.FALLEN_BOTTLE: 0.5, Fault.NO_CAPS: 0.35, Fault.OVERLOAD: 0.15}

_ONCE_IT_STANDS: Final = {
    State.STOPPING: State.STOPPED,
    State.SUSPENDING: State.SUSPENDED,
    State.HOLDING: State.HELD,
    State.ABORTING: State.ABORTED,
    State.COMPLETING: State.COMPLETE,
}
_TURNS: Final = (State.STARTING, State.UNHOLDING, State.UNSUSPENDING, State.EXECUTE)
_AFTER: Final = {State.CLEARING: (_CLEARING, State.STOPPED), State.RESETTING: (_RESETTING, State.IDLE)}
_ONCE_ASKED: Final = {
    State.STOPPED: State.RESETTING,
    State.COMPLETE: State.RESETTING,
    State.IDLE: State.STARTING,
}
"""Where it goes when it shall run."""
_CANNOT_STOP: Final = (State.ABORTING, State.ABORTED, State.CLEARING, State.STOPPING, State.STOPPED)


class Readings(msgspec.Struct, frozen=True):
    """What the PLC shows, with the names and units of its tags."""

    Speed: float
    """Bottles per minute."""
    SpeedSP: float
    """Set-point, bottles per minute."""
    MotorStatus: bool
    Cycle: bool
    """A bottle is at the light barrier: rises once a bottle."""
    Starved: bool
    Blocked: bool
    FillLevel: float
    """ml in the last bottle."""
    Weight: float
    """g of the last bottle."""
    TankLevel: float
    """%"""
    Temperature: float
    """Motor, °C."""
    Power: float
    """kW"""
    Energy: float
    """kWh, in the steps of the meter."""
    CycleTime: float
    """Seconds from the last bottle but one to the last one; 0 before."""
    State: int
    """PackML's number."""
    FaultCode: int
    TotalBottles: int
    GoodBottles: int
    RejectBottles: int
    RejectReason: int
    """Of the last one that was rejected, see ``Reject``."""
    IdealRate: float
    """Bottles per minute at best."""
    Remaining: int
    """Good bottles that the order still needs."""


class Filler:
    """One filler, as its PLC sees it. Press the buttons, let time pass, read."""

    def __init__(
        self,
        seed: int = 1,
        *,
        running: bool = False,
        attended: bool = False,
        fault_every: float = 360.0,
        steady: bool = False,
        order: int = 600,
    ) -> None:
        """A filler at rest, or ``running`` at its usual speed.

        ``attended`` has a simulated operator who clears faults and begins the next order. ``fault_every`` is the mean
        of the running time between two faults in seconds; math.inf for none. When ``steady``, neither its neighbours
        nor the supply of product ever stand. ``order`` is how many good bottles an order has.
        """
        # A stream of chance for each, so that what happens does not depend on how often somebody looks.
        self._chance, self._quality, self._senses, before, behind, supply = (
            random.Random(f"{seed}/filler/{what}")  # noqa: S311  # a machine's whims, no secret
            for what in ("faults", "bottles", "senses", "before", "behind", "supply")
        )
        stands = 0.0 if steady else 1.0
        self._before = _Other(before, _OTHER_RUNS, _OTHER_STANDS * stands)
        self._behind = _Other(behind, _OTHER_RUNS, _OTHER_STANDS * stands)
        self._supply = _Other(supply, _SUPPLY_RUNS, _SUPPLY_STANDS * stands)
        self._attended = attended
        self._fault_every = fault_every
        self._order = self._remaining = order
        self._start = self._stop = False
        self._wanted = running
        """Whether it shall run: since Start, until Stop, a fault or the end of the order."""
        self._state = State.EXECUTE if running else State.STOPPED
        self._since = 0.0
        """Seconds in this state."""
        self._set_point = USUAL_RATE
        self._speed = USUAL_RATE if running else 0.0
        self._turned = 0.0
        """Share of a bottle's way that the drive has turned."""
        self._seen = 0.0
        """Seconds for which the light barrier still sees the last bottle."""
        self._infeed, self._outfeed = _ROOM, 0.0
        self._starved = self._blocked = False
        self._tank = 80.0
        self._valve = False
        self._motor = _AMBIENT + (_WARMER if running else 0.0)
        self._energy = 0.0
        self._fault = Fault.NONE
        self._operator_comes = math.inf
        self._fill_level = self._weight = 0.0
        self._since_bottle = self._cycle_time = 0.0
        self._good = self._rejected = 0
        self._reason = Reject.NONE

    @property
    def running(self) -> bool:
        """Whether the motor is on."""
        return self._state in _TURNS

    @property
    def set_point(self) -> float:
        """The speed that is asked for, bottles per minute."""
        return self._set_point

    def set_speed(self, per_minute: float) -> None:
        """Ask for another speed; the drive keeps it within SLOWEST and IDEAL_RATE. Raises ValueError for NaN."""
        if not math.isfinite(per_minute):
            raise ValueError(f"{per_minute} is no speed")
        self._set_point = min(IDEAL_RATE, max(SLOWEST, per_minute))

    def start_button(self, *, pressed: bool) -> None:
        """Press or release Start: on the press it clears a fault and starts, never against Stop."""
        edge = pressed and not self._start
        self._start = pressed
        if not edge or self._stop:
            return
        if self._state is State.HELD and self._fault is Fault.TANK_EMPTY and self._tank < _LOW_NO_MORE:
            return  # an interlock: it would run dry again at once
        if self._state in (State.HOLDING, State.ABORTING, State.STOPPING, State.COMPLETING):
            return  # it must stand first
        self._wanted = True
        if self._state is State.HELD:
            self._enter(State.UNHOLDING)
        elif self._state is State.ABORTED:
            self._enter(State.CLEARING)

    def stop_button(self, *, pressed: bool) -> None:
        """Press or release Stop: it runs out, wins over Start, and acknowledges a fault."""
        self._stop = pressed
        if not pressed:
            return
        self._wanted = False
        if self._state is State.ABORTED:
            self._enter(State.CLEARING)
        elif self._state not in _CANNOT_STOP:
            self._enter(State.STOPPING)

    def step(self, dt: float) -> None:
        """Let ``dt`` seconds pass. Raises ValueError for a negative or endless time."""
        if not 0 <= dt < math.inf:
            raise ValueError(f"time cannot pass by {dt} s")
        pieces = math.ceil(dt / _STEP)
        for _ in range(pieces):
            self._flow(dt / pieces)
            self._convey(dt / pieces)
            if self._state is State.EXECUTE:
                self._work(dt / pieces)
            else:
                self._go_on(dt / pieces)

    def read(self) -> Readings:
        """What the PLC shows now; analogue values carry their sensors' noise."""
        noise = self._senses.gauss
        return Readings(
            Speed=max(0.0, self._speed + noise(0, 0.1)) if self._speed > _STANDS else 0.0,
            SpeedSP=self._set_point,
            MotorStatus=self.running,
            Cycle=self._seen > 0,
            Starved=self._starved,
            Blocked=self._blocked,
            FillLevel=self._fill_level,
            Weight=self._weight,
            TankLevel=min(100.0, max(0.0, self._tank + noise(0, 0.2))),
            Temperature=self._motor + noise(0, 0.1),
            Power=max(0.0, self._power() + noise(0, 0.05)),
            Energy=math.floor(self._energy * 100) / 100,
            CycleTime=self._cycle_time,
            State=self._state,
            FaultCode=self._fault,
            TotalBottles=(self._good + self._rejected) % _COUNTER,
            GoodBottles=self._good % _COUNTER,
            RejectBottles=self._rejected % _COUNTER,
            RejectReason=self._reason,
            IdealRate=IDEAL_RATE,
            Remaining=self._remaining,
        )

    # ---- inside -------------------------------------------------------------------------------------

    def _flow(self, dt: float) -> None:
        """Drive, motor and tank."""
        target = self._set_point if self.running else 0.0
        lag = _BRAKE if self._state in (State.ABORTING, State.ABORTED) else _LAG
        self._speed = _towards(target, self._speed, dt / lag)
        self._motor = _towards(_AMBIENT + _WARMER * self._speed / IDEAL_RATE, self._motor, dt / _WARMING)
        self._energy += self._power() * dt / 3600
        self._valve = self._tank < (_VALVE_CLOSES if self._valve else _VALVE_OPENS)
        if self._supply.runs(dt) and self._valve:
            self._tank = min(100.0, self._tank + _SUPPLY * dt / _TANK * 100)

    def _power(self) -> float:
        if not self.running:
            return _STANDBY
        lacking = max(0.0, self._set_point - self._speed)
        return _STANDBY + _FRICTION + (_TURNING * self._speed + _SPEEDING_UP * lacking) / IDEAL_RATE

    def _convey(self, dt: float) -> None:
        """The conveyors before and behind, and the sensors on them."""
        self._seen = max(0.0, self._seen - dt)
        moved = _OTHER_RATE / 60 * dt
        if self._before.runs(dt):
            self._infeed = min(_ROOM, self._infeed + moved)
        if self._behind.runs(dt):
            self._outfeed = max(0.0, self._outfeed - moved)
        self._starved = self._infeed < (_ENOUGH if self._starved else 1.0)
        self._blocked = self._outfeed > _ROOM - (_ENOUGH if self._blocked else 1.0)

    def _go_on(self, dt: float) -> None:
        """Leave the state where it is over."""
        self._since += dt
        self._operator_comes -= dt
        if self._operator_comes <= 0:
            self.start_button(pressed=True)
            self.start_button(pressed=False)
        state = self._state
        if state in _ONCE_IT_STANDS and self._speed < _STANDS:
            self._enter(_ONCE_IT_STANDS[state])
        elif state in _AFTER and self._since >= _AFTER[state][0]:
            self._enter(_AFTER[state][1])
        elif state in _ONCE_ASKED and self._wanted:
            self._enter(_ONCE_ASKED[state])
        elif state is State.SUSPENDED and not self._starved and not self._blocked:
            self._enter(State.UNSUSPENDING)
        elif state in _TURNS and state is not State.EXECUTE and self._speed >= _AT_SPEED * self._set_point:
            self._enter(State.EXECUTE)

    def _enter(self, state: State) -> None:
        before, self._state, self._since = self._state, state, 0.0
        match state:
            case State.UNHOLDING | State.CLEARING | State.STOPPING:
                self._fault = Fault.NONE
                self._operator_comes = math.inf
            case State.RESETTING:
                self._operator_comes = math.inf
                if before is State.COMPLETE:
                    self._remaining = self._order
            case State.HELD | State.ABORTED if self._attended:
                self._operator_comes = self._chance.uniform(*REPAIR[self._fault])
            case State.COMPLETE if self._attended:
                self._operator_comes = self._chance.uniform(*_CHANGEOVER)
            case _:
                pass

    def _work(self, dt: float) -> None:
        self._since_bottle += dt
        self._turned += self._speed / 60 * dt
        if self._turned >= 1:
            self._turned -= 1
            self._bottle()
        if self._remaining == 0:
            self._wanted = False
            self._enter(State.COMPLETING)
        elif self._tank < _TOO_LOW:
            self._fail(Fault.TANK_EMPTY)
        elif self._chance.random() < dt / self._fault_every:
            self._fail(self._chance.choices(list(_HOW_OFTEN), list(_HOW_OFTEN.values()))[0])
        elif self._starved or self._blocked:
            self._enter(State.SUSPENDING)

    def _fail(self, fault: Fault) -> None:
        self._fault = fault
        self._wanted = False
        self._enter(State.ABORTING if fault is Fault.OVERLOAD else State.HOLDING)

    def _bottle(self) -> None:
        """One bottle from conveyor to conveyor; rejected ones fall into a box beside."""
        self._infeed -= 1
        chance = self._quality
        level = chance.gauss(FILLING, _FILLING_NOISE) - _LESS * max(0.0, 1 - self._tank / _LOW)
        if chance.random() < _CHANCE_LATE_VALVE:
            level += chance.uniform(12.0, 25.0)
        capped = chance.random() >= _CHANCE_NO_CAP
        self._tank = max(0.0, self._tank - level / _TANK * 100)
        self._fill_level = level
        self._weight = chance.gauss(EMPTY_BOTTLE, _BOTTLE_NOISE) + level * DENSITY + chance.gauss(0, _SCALE_NOISE)
        reason = _judged(level, capped=capped)
        if reason is Reject.NONE:
            self._good += 1
            self._remaining -= 1
            self._outfeed += 1
        else:
            self._rejected += 1
            self._reason = reason
        self._seen = _SEEN
        self._cycle_time, self._since_bottle = self._since_bottle, 0.0


class _Other:
    """Something that runs for a while and stands for a while."""

    def __init__(self, chance: random.Random, runs: float, stands: float) -> None:
        """Means in seconds; with 0 for ``stands`` it never does."""
        self._chance, self._means = chance, (stands, runs)
        self._runs = True
        self._left = chance.expovariate(1 / runs) if stands else math.inf

    def runs(self, dt: float) -> bool:
        """Whether it ran in these ``dt`` seconds."""
        self._left -= dt
        if self._left <= 0:
            self._runs = not self._runs
            self._left = self._chance.expovariate(1 / self._means[self._runs])
        return self._runs


def _judged(level: float, *, capped: bool) -> Reject:
    if level < LEAST_FILLING:
        return Reject.UNDERFILLED
    if level > MOST_FILLING:
        return Reject.OVERFILLED
    return Reject.NONE if capped else Reject.NO_CAP


def _towards(target: float, value: float, share: float) -> float:
    """A first-order lag, exact over any step: ``share`` is the step in time constants."""
    return target + (value - target) * math.exp(-share)
