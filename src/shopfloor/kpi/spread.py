"""How long cycles took: sums and a histogram, so that any windows join without a rest."""

from dataclasses import dataclass, field
from typing import Any, Final, Self

Quantity = int | float

_DIGITS: Final = 6
"""Binary digits that a class of the histogram keeps: it is at most 1/32 (3.1 %) wide."""


@dataclass(slots=True)
class CycleTimes:
    """The cycles of a window, told by their ends. Times in ns."""

    count: int = 0
    """Cycles whose length is known."""
    time: int = 0
    """What they took together."""
    shortest: int = 0
    longest: int = 0
    loss: int = 0
    """How much longer than the ideal those took that took longer."""
    gain: int = 0
    """How much shorter than the ideal those took that took less."""
    without_ideal: int = 0
    """Cycles of products without an ideal cycle: they are in neither ``loss`` nor ``gain``."""
    interrupted: int = 0
    """Cycles in which it did not run all the time, or part of which is unknown: their length says nothing."""
    several: Quantity = 0
    """Units that came together, so that the single cycle of none of them is known."""
    classes: dict[int, int] = field(default_factory=dict[int, int])
    """How many cycles took how long, by the lower bound of their class."""

    def took(self, length: int, ideal: int | None) -> None:
        """Count a cycle."""
        self.shortest = min(self.shortest, length) if self.count else length
        self.longest = max(self.longest, length)
        self.count += 1
        self.time += length
        bound = class_of(length)
        self.classes[bound] = self.classes.get(bound, 0) + 1
        if ideal is None:
            self.without_ideal += 1
        elif length > ideal:
            self.loss += length - ideal
        else:
            self.gain += ideal - length

    def __iadd__(self, other: "CycleTimes") -> Self:
        if other.count:
            self.shortest = min(self.shortest, other.shortest) if self.count else other.shortest
            self.longest = max(self.longest, other.longest)
        self.count += other.count
        self.time += other.time
        self.loss += other.loss
        self.gain += other.gain
        self.without_ideal += other.without_ideal
        self.interrupted += other.interrupted
        self.several += other.several
        for bound, count in other.classes.items():
            self.classes[bound] = self.classes.get(bound, 0) + count
        return self

    def quantile(self, share: float) -> int | None:
        """The length that ``share`` of the cycles did not exceed, as exact as the histogram; None of no cycle."""
        rank = share * self.count
        seen = 0
        for bound in sorted(self.classes):
            seen += self.classes[bound]
            if seen >= rank:
                middle = bound + width(bound) // 2
                return min(max(middle, self.shortest), self.longest)
        return None

    def record(self, *, histogram: bool = True) -> dict[str, Any]:
        """As it is stored: times in seconds; None for what no cycle tells."""
        found: dict[str, Any] = {
            "count": self.count,
            "seconds": self.time / 1e9,
            "mean": self.time / self.count / 1e9 if self.count else None,
            "shortest": self.shortest / 1e9 if self.count else None,
            "median": _seconds(self.quantile(0.5)),
            "p95": _seconds(self.quantile(0.95)),
            "longest": self.longest / 1e9 if self.count else None,
            "loss": self.loss / 1e9,
            "gain": self.gain / 1e9,
            "without_ideal": self.without_ideal,
            "interrupted": self.interrupted,
            "several": self.several,
        }
        if histogram:
            found["histogram"] = [[bound / 1e9, self.classes[bound]] for bound in sorted(self.classes)]
        return found


def class_of(length: int) -> int:
    """The lower bound of the histogram's class in which a length lies, ns."""
    low = max(length.bit_length() - _DIGITS, 0)
    return length >> low << low


def width(bound: int) -> int:
    """How wide a class of the histogram is, by its lower bound, ns."""
    return 1 << max(bound.bit_length() - _DIGITS, 0)


def _seconds(time: int | None) -> float | None:
    return None if time is None else time / 1e9
