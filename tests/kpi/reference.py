"""The same figures worked out in the plainest way: instant by instant, everything looked at from the beginning.

It shares no code with the product but the names of the classes, and is far too slow for anything but tests.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from shopfloor.kpi.account import TimeClass

Told = tuple[int, object, bool]
"""Time, value, whether its quality is good."""

MEANING = {
    6: TimeClass.PRODUCTION,
    3: TimeClass.SETUP,
    5: TimeClass.BLOCKED,
    4: "stop",
    9: "stop",
    99: TimeClass.UNKNOWN,
}


@dataclass
class History:
    """All that was ever said."""

    states: Sequence[Told]
    good: Sequence[Told]
    losses: Sequence[int] = ()
    minor: int = 20
    modulus: int | None = None
    ideal: int = 3
    kinds: dict[int, str] = field(default_factory=dict)
    """Instants that are no shift: "break" or "off"."""
    stale: int | None = None
    """How long a state holds."""

    def raw(self, time: int, now: int) -> object:
        """The class of an instant without the calendar; "stop" for one that is not judged yet."""
        said = [told for told in self.states if told[0] <= time]
        if not said or time >= now:
            return TimeClass.UNKNOWN
        when, value, good = said[-1]
        if not good or any(when < loss <= time for loss in self.losses):
            return TimeClass.UNKNOWN
        if self.stale is not None and time >= when + self.stale:
            return TimeClass.UNKNOWN
        return MEANING.get(value, TimeClass.UNKNOWN)  # type: ignore[call-overload]

    def classes(self, now: int) -> list[TimeClass]:
        """The class of every instant before now."""
        raw = [self.raw(time, now) for time in range(now)]
        found: list[TimeClass] = []
        for time, kind in enumerate(raw):
            if self.kinds.get(time) == "off":
                found.append(TimeClass.NOT_SCHEDULED)
            elif self.kinds.get(time) == "break":
                found.append(TimeClass.PLANNED_STOP)
            elif kind == "stop":
                first, last = time, time
                while first > 0 and raw[first - 1] == "stop":
                    first -= 1
                while last + 1 < now and raw[last + 1] == "stop":
                    last += 1
                found.append(TimeClass.MINOR_STOP if last + 1 - first < self.minor else TimeClass.UNPLANNED_STOP)
            else:
                found.append(kind)  # type: ignore[arg-type]
        return found

    def incidents(self, start: int, end: int, now: int) -> Counter[TimeClass]:
        """Stops by their first planned instant."""
        classes = self.classes(now)
        raw = [self.raw(time, now) for time in range(now)]
        found: Counter[TimeClass] = Counter()
        for time in range(start, min(end, now)):
            if classes[time] not in (TimeClass.MINOR_STOP, TimeClass.UNPLANNED_STOP):
                continue
            before = time - 1
            while before >= 0 and raw[before] == "stop" and self.kinds.get(before, "shift") != "shift":
                before -= 1
            if before < 0 or raw[before] != "stop":
                found[classes[time]] += 1
        return found

    def tells(self) -> "Tells":
        """What the counter of good units tells."""
        return Tells(self.good, self.losses, modulus=self.modulus)

    def made(self) -> list[tuple[int, int, bool]]:
        """Units: when, how many, and whether over unknown time."""
        return self.tells().made()


@dataclass
class Tells:
    """What a tag that counts units tells, instant by instant."""

    told: Sequence[Told]
    losses: Sequence[int] = ()
    counting: str = "counter"
    modulus: int | None = None
    stale: int | None = None

    def knows(self, time: int) -> bool:
        """Whether at an instant a count holds: the last that was said is one, and its source is there since."""
        said = [told for told in self.told if told[0] <= time]
        if not said:
            return False
        when, value, good = said[-1]
        if not good or not isinstance(value, int) or value < 0:
            return False
        if any(when < loss <= time for loss in self.losses):
            return False
        # Who tells each unit has made none while he is silent.
        return self.counting == "event" or self.stale is None or time < when + self.stale

    def made(self) -> list[tuple[int, int, bool]]:
        """Units: when, how many, and whether over time in which nothing was known."""
        found: list[tuple[int, int, bool]] = []
        last: tuple[int, int] | None = None
        for time, value, good in self.told:
            if not good or not isinstance(value, int) or value < 0:
                continue
            if self.counting == "event":
                found += [(time, value, not self.knows(time - 1))] if value else []
                continue
            if last is not None:
                missed = not all(self.knows(instant) for instant in range(last[0], time))
                if self.counting == "pulse":
                    change = int(value > 0 and last[1] == 0 and not missed)
                else:
                    change = self._increase(last[1], value)
                found += [(time, change, missed)] if change else []
            last = time, value
        return found

    def _increase(self, before: int, value: int) -> int:
        change = value - before
        if change < 0:
            over = change + self.modulus if self.modulus is not None and before < self.modulus else None
            change = over if over is not None and self.modulus and over < self.modulus / 2 else value
        return change
