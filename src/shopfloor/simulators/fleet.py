"""A fleet of machines: states by a Markov chain, parts, scrap with reasons, a quality score. No clock, no network.

Each machine's state is a Markov chain in continuous time: it stays in a state for an exponentially distributed time
with the mean DWELL and then jumps by the probabilities of JUMPS. While it runs, it makes parts. Heat and speed make
the quality score, the score makes scrap. The same seed gives the same history, whatever the interval of the telemetry.
"""

import heapq
import math
import random
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar

_T = TypeVar("_T")


class State(StrEnum):
    """What a machine does."""

    RUNNING = "running"
    IDLE = "idle"
    SETUP = "setup"
    ERROR = "error"
    MAINTENANCE = "maintenance"


JUMPS: Final[Mapping[State, Mapping[State, float]]] = {
    State.RUNNING: {State.IDLE: 0.45, State.SETUP: 0.20, State.ERROR: 0.30, State.MAINTENANCE: 0.05},
    State.IDLE: {State.RUNNING: 0.80, State.SETUP: 0.15, State.MAINTENANCE: 0.05},
    State.SETUP: {State.RUNNING: 0.85, State.IDLE: 0.10, State.ERROR: 0.05},
    State.ERROR: {State.RUNNING: 0.65, State.SETUP: 0.10, State.MAINTENANCE: 0.25},
    State.MAINTENANCE: {State.SETUP: 0.60, State.IDLE: 0.40},
}
"""Where a machine goes from each state; an error is recovered from, set right by a setup, or repaired."""

DWELL: Final[Mapping[State, float]] = {
    State.RUNNING: 900.0,
    State.IDLE: 180.0,
    State.SETUP: 420.0,
    State.ERROR: 240.0,
    State.MAINTENANCE: 1500.0,
}
"""Seconds that it stays, on average."""

REASONS: Final[Mapping[State, Mapping[str, float]]] = {
    State.IDLE: {"no_material": 0.5, "no_order": 0.3, "break": 0.2},
    State.SETUP: {"changeover": 0.7, "adjustment": 0.3},
    State.ERROR: {"jam": 0.5, "sensor_fault": 0.3, "tool_break": 0.2},
    State.MAINTENANCE: {"planned": 0.6, "repair": 0.4},
}
"""Why it is in a state."""

SCRAP: Final[Mapping[str, Mapping[str, float]]] = {
    "thermal": {"warped": 0.6, "burn_mark": 0.4},
    "geometry": {"undersize": 0.5, "burr": 0.5},
    "material": {"inclusion": 0.4, "scratch": 0.6},
}
"""Reasons of scrap in each category."""

IDEAL_CYCLE: Final = 12.0
"""Seconds for a part at speed 1."""
_BEST: Final = 60.0
"""°C at which parts come out best; a warm machine at speed 1 has it."""
_AMBIENT: Final = 22.0
_WARMING: Final = 300.0
_COOLING: Final = 900.0
"""Seconds: time constants of the temperature."""
_LEAST_SCRAP: Final = 0.004
_MOST_SCRAP: Final = 0.30
"""The chance of scrap at a score of 100 and of 0."""


class Event(NamedTuple):
    """What a machine says at a moment."""

    time: int
    """ns UTC, whole milliseconds."""
    machine: str
    kind: str
    """``telemetry``, ``state`` or ``scrap``."""
    said: Mapping[str, Any]


def quality_score(temperature: float, speed: float) -> float:
    """From 0 to 100: what a part comes out like at this temperature (°C) and speed (1 is nominal)."""
    return max(0.0, 100.0 - _heat_loss(temperature) - _speed_loss(speed))


def _heat_loss(temperature: float) -> float:
    return 1.5 * max(0.0, abs(temperature - _BEST) - 4.0)


def _speed_loss(speed: float) -> float:
    return 200.0 * max(0.0, abs(speed - 1.0) - 0.04)


def scrap_chance(score: float) -> float:
    """How likely a part is scrap at this score."""
    return _LEAST_SCRAP + (_MOST_SCRAP - _LEAST_SCRAP) * (1 - score / 100)


class Machine:
    """One machine of the fleet."""

    def __init__(self, name: str, seed: int, begin: int, every: float) -> None:
        """Its life begins idle and cold at ``begin`` (ns UTC); it tells telemetry ``every`` so many seconds."""
        self.name = name
        self._begin = begin
        self._every = every
        # What happens must not depend on how often somebody looks: a stream of chance for each.
        self._chain, self._parts, self._senses = (
            random.Random(f"{seed}/{name}/{what}") for what in ("chain", "parts", "senses")  # noqa: S311  # no secret
        )  # fmt: skip
        self._state = State.IDLE
        self._speed = 0.0
        self._since = 0.0
        """Seconds after ``begin`` at which the state began."""
        self._warmth = _AMBIENT
        """°C at that moment."""
        self._good = self._scrap = 0

    def life(self) -> Iterator[Event]:
        """Everything that it says, in order, endless."""
        ticks = 0
        jump = self._dwell()
        part = math.inf
        yield self._changed(0.0, State.IDLE, State.IDLE)
        while True:
            tick = ticks * self._every
            now = min(tick, jump, part)
            if now == jump:
                before, self._state = self._state, self._next()
                self._warmth, self._since = self._temperature(now, before), now
                self._speed = min(1.3, max(0.7, self._chain.gauss(1.0, 0.06))) if self._state is State.RUNNING else 0.0
                jump = now + self._dwell()
                part = now + self._cycle() if self._state is State.RUNNING else math.inf
                yield self._changed(now, self._state, before)
            elif now == part:
                part = now + self._cycle()
                yield from self._made(now)
            else:
                ticks += 1
                yield self._telemetry(now)

    # ---- inside -------------------------------------------------------------------------------------

    def _dwell(self) -> float:
        return self._chain.expovariate(1 / DWELL[self._state])

    def _next(self) -> State:
        return _drawn(self._chain, JUMPS[self._state])

    def _cycle(self) -> float:
        return IDEAL_CYCLE / self._speed * (1 + abs(self._parts.gauss(0, 0.02)))

    def _temperature(self, now: float, state: State) -> float:
        """°C; exact from the beginning of the state, so it does not depend on who asks when."""
        running = state is State.RUNNING
        target = _BEST + 60.0 * (self._speed - 1.0) if running else _AMBIENT
        return target + (self._warmth - target) * math.exp((self._since - now) / (_WARMING if running else _COOLING))

    def _changed(self, now: float, state: State, before: State) -> Event:
        reason = _drawn(self._chain, REASONS[state]) if state in REASONS else ""
        return self._event(now, "state", {"state": state.value, "previous_state": before.value, "reason": reason})

    def _made(self, now: float) -> Iterator[Event]:
        """Count a part; one that is scrap is told."""
        temperature = self._temperature(now, self._state)
        if self._parts.random() >= scrap_chance(quality_score(temperature, self._speed)):
            self._good += 1
            return
        self._scrap += 1
        blame = {"thermal": _heat_loss(temperature), "geometry": _speed_loss(self._speed), "material": 1.0}
        category = _drawn(self._parts, blame)
        reason = _drawn(self._parts, SCRAP[category])
        yield self._event(now, "scrap", {
            "scrap_reason": reason, "scrap_category": category, "scrap_part": self._good + self._scrap,
        })  # fmt: skip

    def _telemetry(self, now: float) -> Event:
        temperature = self._temperature(now, self._state)
        running = self._state is State.RUNNING
        return self._event(now, "telemetry", {
            "state": self._state.value,
            "speed": round(max(0.0, self._speed + self._senses.gauss(0, 0.005)), 4) if running else 0.0,
            "temperature": round(temperature + self._senses.gauss(0, 0.2), 2),
            "quality_score": round(quality_score(temperature, self._speed), 2) if running else None,
            "good_parts": self._good,
            "scrap_parts": self._scrap,
        })  # fmt: skip

    def _event(self, now: float, kind: str, said: dict[str, Any]) -> Event:
        known = {name: value for name, value in said.items() if value is not None}
        return Event(self._begin + round(now * 1000) * 10**6, self.name, kind, known)


def _drawn(chance: random.Random, weights: Mapping[_T, float]) -> _T:
    return chance.choices(list(weights), list(weights.values()))[0]


def fleet(machines: int, seed: int, begin: int, every: float) -> Iterator[Event]:
    """What all machines (``machine-01`` …) say, in the order of time, endless; see ``Machine``."""
    lives = [Machine(f"machine-{number:02}", seed, begin, every).life() for number in range(1, machines + 1)]
    return heapq.merge(*lives, key=lambda event: event.time)
