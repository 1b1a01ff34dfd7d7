"""Timelines: what is known of a tag at each time, in the order of time however the samples came."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from shopfloor.samples import Value

Role = Literal[
    "state", "mode", "good", "scrap", "total", "product", "order", "quantity", "cycle", "cycle_time", "fault",
    "scrap_reason",
]  # fmt: skip
"""What a tag tells of a machine."""


_STATES: Final = frozenset({"state", "mode"})
"""Roles out of which states are derived."""
_NAMES: Final = frozenset({"product", "order"})
"""Roles out of which it is derived what is made: a name holds until another one is said."""


class Bad:
    """Stands for a value of bad quality: something was said, but nothing is known."""

    def __repr__(self) -> str:
        return "BAD"


BAD: Final = Bad()
Known = Value | Bad
_BAD_EXTENSION: Final = 1
_BASE: Final = 3600 * 10**9
"""How much more is kept than is judged, ns: the first cycle begins with a unit that was made before."""
NEVER: Final = 2**63 - 1
"""A time after all others."""


class Touched(NamedTuple):
    """What a new fact may change: time from ``start`` to ``end``, ns UTC."""

    start: int
    end: int


class Timeline:
    """The samples of one tag by time; of several with one time the last that came counts."""

    __slots__ = ("times", "values")

    def __init__(self, times: list[int] | None = None, values: list[Known] | None = None) -> None:
        self.times = times if times is not None else []
        self.values = values if values is not None else []

    def __len__(self) -> int:
        return len(self.times)

    def put(self, time: int, value: Known) -> Touched | None:
        """Take a sample in; the time that it may change, None for nothing: it was known."""
        times, values = self.times, self.values
        if not times or time > times[-1]:
            times.append(time)
            values.append(value)
            return Touched(time, NEVER)
        at = bisect_left(times, time)
        if times[at] == time:
            if same(values[at], value):
                return None
            values[at] = value
        else:
            times.insert(at, time)
            values.insert(at, value)
        # What the next sample says of a counter depends on this one.
        return Touched(time, times[at + 1] + 1 if at + 1 < len(times) else NEVER)

    def at(self, time: int) -> int:
        """The place of the last sample at or before ``time``; -1 when there is none."""
        return bisect_right(self.times, time) - 1

    def value_at(self, time: int) -> Known:
        """What held at ``time``; BAD when nothing was said yet."""
        place = self.at(time)
        return self.values[place] if place >= 0 else BAD

    def between(self, start: int, end: int) -> Iterator[tuple[int, Known]]:
        """The samples from ``start`` on, before ``end``."""
        for place in range(bisect_left(self.times, start), bisect_left(self.times, end)):
            yield self.times[place], self.values[place]

    def next_said(self, time: int) -> int:
        """When the next sample after ``time`` comes that says anything; NEVER when there is none."""
        for place in range(bisect_right(self.times, time), len(self.times)):
            if self.values[place] is not BAD and self.values[place] is not None:
                return self.times[place]
        return NEVER

    def forget(self, before: int) -> None:
        """Drop samples before ``before``, all but the last of them: it says what holds from there on."""
        cut = self.at(before)
        if cut > 0:
            del self.times[:cut]
            del self.values[:cut]


class Presence:
    """When a source was lost: from then on only what it gives anew is known."""

    __slots__ = ("losses",)

    def __init__(self, losses: list[int] | None = None) -> None:
        self.losses = losses if losses is not None else []
        """Ascending, ns UTC."""

    def lost(self, time: int) -> None:
        """It was lost at ``time``."""
        at = bisect_left(self.losses, time)
        if at == len(self.losses) or self.losses[at] != time:
            self.losses.insert(at, time)

    def covered(self, start: int, end: int) -> bool:
        """Everything between these times is there after all: losses in between count no more. False: there was none."""
        first, last = bisect_left(self.losses, start), bisect_right(self.losses, end)
        del self.losses[first:last]
        return last > first

    def next(self, time: int) -> int:
        """The first loss after ``time``; NEVER when there is none."""
        at = bisect_right(self.losses, time)
        return self.losses[at] if at < len(self.losses) else NEVER

    def forget(self, before: int) -> None:
        """Drop what was before."""
        del self.losses[: bisect_left(self.losses, before)]


def _extension(value: object) -> msgspec.msgpack.Ext:
    if value is BAD:
        return msgspec.msgpack.Ext(_BAD_EXTENSION, b"")
    raise NotImplementedError(type(value))


def pack(value: object) -> bytes:
    """Facts and what is made of them, as bytes."""
    return msgspec.msgpack.encode(value, enc_hook=_extension)


def unpack(data: bytes) -> Any:
    """What ``pack`` made bytes of."""
    return msgspec.msgpack.decode(data, ext_hook=lambda _code, _data: BAD)


def same(one: Known, other: Known) -> bool:
    """Whether two values are the same thing: 1, 1.0 and true are not."""
    return one is other or (type(one) is type(other) and one == other)


class Edit(NamedTuple):
    """What a person says about stops between two times: it counts instead of what the machine says."""

    start: int
    end: int
    """NEVER: to the end of the stop in which ``start`` lies."""
    reason: str
    at: int = 0
    """When it was said; 0 where nobody will take it back."""


class Facts:
    """What is known of one machine: only samples, losses of sources, and edits, in whatever order they came."""

    def __init__(self, roles: Iterable[Role]) -> None:
        """Nothing is known yet."""
        self.lines: dict[Role, Timeline] = {role: Timeline() for role in roles}
        self.sources: dict[Role, str] = {}
        """Which source gives what."""
        self.presence: dict[str, Presence] = {}
        self.edits: list[Edit] = []
        """The later counts more."""
        self.floor = 0
        """What was before matters no more, and is not known."""
        self.stirred = 0
        """From when on something new is known since whoever derives states from it looked last; NEVER: nothing."""
        self.switched = 0
        """Likewise of what is made."""

    def take(self, role: Role, time: int, value: Known, source: str) -> Touched | None:
        """A sample; the time that it may change, None for nothing."""
        self.sources.setdefault(role, source)
        touched = self.lines[role].put(time, value)
        if role in _NAMES and touched is not None:
            self.switched = min(self.switched, time)
            return Touched(time, self.lines[role].next_said(time))
        return self._stir(touched) if role in _STATES else touched

    def lose(self, source: str, time: int) -> Touched | None:
        """A source was lost; None when it gives nothing of this machine."""
        if source not in self.sources.values():
            return None
        self.presence.setdefault(source, Presence()).lost(time)
        return self._stir(Touched(time, NEVER))

    def cover(self, source: str, start: int, end: int) -> Touched | None:
        """Whatever the source had between these times has come, or will come, after all."""
        presence = self.presence.get(source)
        covered = presence is not None and presence.covered(start, end)
        return self._stir(Touched(start, NEVER)) if covered else None

    def _stir(self, touched: Touched | None) -> Touched | None:
        if touched is not None and touched.start < self.stirred:
            self.stirred = touched.start
        return touched

    def edit(self, edit: Edit) -> Touched:
        """A person said something about stops."""
        self.edits.append(edit)
        return Touched(edit.start, edit.end)

    def unsay(self, at: int) -> Touched | None:
        """What a person said at ``at`` counts no more; None when nothing was said then, or it matters no more."""
        place = next((place for place, edit in enumerate(self.edits) if edit.at == at), None)
        if place is None:
            return None
        edit = self.edits.pop(place)
        return Touched(edit.start, edit.end)

    def value_at(self, role: Role, time: int) -> Known:
        """What the tag of a role said last; BAD when nothing, or there is no such tag."""
        line = self.lines.get(role)
        return BAD if line is None else line.value_at(time)

    def known_until(self, role: Role, time: int, stale: int | None) -> int:
        """How long a sample of ``time`` holds without a newer one, ns UTC."""
        presence = self.presence.get(self.sources.get(role, ""))
        until = presence.next(time) if presence is not None else NEVER
        return until if stale is None else min(until, time + stale)

    def forget(self, before: int, standing: int) -> None:
        """Drop what matters only to the time before ``before``; ``standing``: since when it stands then, if it does."""
        self.stirred = 0
        # Of a stop that goes back behind the last time of this, the beginning is forgotten already: it has all edits.
        since = standing if standing > self.floor else 0
        self.floor = before
        for line in self.lines.values():
            line.forget(before - _BASE)
        for presence in self.presence.values():
            presence.forget(before)
        self.edits = [edit for edit in self.edits if edit.end > before and (edit.end != NEVER or edit.start >= since)]

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {
            "lines": {role: (line.times, line.values) for role, line in self.lines.items()},
            "sources": self.sources,
            "losses": {source: presence.losses for source, presence in self.presence.items()},
            "edits": self.edits,
            "floor": self.floor,
        }

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave, as far as the roles are the same."""
        self.stirred = self.switched = 0
        for role, line in self.lines.items():
            line.times, line.values = known["lines"].get(role, ([], []))
        self.sources = {role: source for role, source in known["sources"].items() if role in self.lines}
        self.presence = {source: Presence(losses) for source, losses in known["losses"].items()}
        self.edits = [Edit(*edit) for edit in known["edits"]]
        self.floor = known.get("floor", 0)
