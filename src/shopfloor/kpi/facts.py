"""Facts: what is known of a machine, in the order of time however it came."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, pairwise
from operator import sub
from typing import Any, Final, Literal, NamedTuple

from shopfloor.kpi.column import BAD, Bad, Known, pack, unpack
from shopfloor.kpi.timeline import NEVER, Timeline, Touched, same

__all__ = [
    "BAD",
    "NEVER",
    "Bad",
    "Edit",
    "Facts",
    "Known",
    "Presence",
    "Role",
    "Timeline",
    "Touched",
    "pack",
    "same",
    "unpack",
]

Role = Literal[
    "state", "mode", "good", "scrap", "total", "product", "order", "quantity", "cycle", "cycle_time", "fault",
    "scrap_reason",
]  # fmt: skip
"""What a tag tells of a machine."""

_STATES: Final = frozenset({"state", "mode"})
"""Roles out of which states are derived."""
_COUNTS: Final = frozenset({"good", "scrap", "total"})
"""Roles that count units."""
_NAMES: Final = frozenset({"product", "order"})
"""Roles out of which it is derived what is made: a name holds until another one is said."""
_EACH: Final = frozenset({"cycle_time"})
"""Roles of which each sample says something of its own."""
_BASE: Final = 3600 * 10**9
"""How much more is kept than is judged, ns: the first cycle begins with a unit that was made before."""


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

    def between(self, start: int, end: int) -> list[int]:
        """The losses from ``start`` on, before ``end``."""
        return self.losses[bisect_left(self.losses, start) : bisect_left(self.losses, end)]

    def forget(self, before: int) -> None:
        """Drop what was before, all but the last: what was said before it holds no more."""
        del self.losses[: max(bisect_left(self.losses, before) - 1, 0)]


class Edit(NamedTuple):
    """What a person says about stops between two times: it counts instead of what the machine says."""

    start: int
    end: int
    """NEVER: to the end of the stop in which ``start`` lies."""
    reason: str
    at: int = 0
    """When it was said; 0 where nobody will take it back."""


class Rejudged(NamedTuple):
    """What a person says of units that were made between two times: they are good, or scrap, after all."""

    start: int
    end: int
    quantity: int | float
    """How many, above 0."""
    good: bool
    """Whether they became good; else scrap."""
    reason: str
    """Why they are scrap."""
    at: int
    """When it was said: the later is about what the earlier left."""


class Facts:
    """What is known of one machine: only samples, losses of sources, and edits, in whatever order they came."""

    def __init__(self, roles: Iterable[Role], *, stale: int | None = None, each: bool = False) -> None:
        """Nothing is known yet. ``stale``: for how many ns a sample holds; ``each``: repeats say something, too."""
        self.lines: dict[Role, Timeline] = {role: Timeline() for role in roles}
        self.sources: dict[Role, str] = {}
        """Which source gives what."""
        self.presence: dict[str, Presence] = {}
        self.edits: list[Edit] = []
        """The later counts more."""
        self.rejudged: list[Rejudged] = []
        self.floor = 0
        """What was before matters no more, and is not known."""
        self.stirred = 0
        """From when on something new is known since whoever derives states from it looked last; NEVER: nothing."""
        self.switched = 0
        """Likewise of what is made."""
        self._stale = stale
        self._each = each or stale is not None

    def take(self, role: Role, time: int, value: Known, source: str) -> Touched | None:
        """A sample; the time that it may change, None for nothing."""
        if role not in self.sources:
            self.sources[role] = source
        line = self.lines[role]
        before = line.newest
        if time > before:
            repeats = line.append(time, value)
            if repeats and not self._says_more(role, before, time):
                return None
            touched: Touched | None = Touched(time, NEVER)
        else:
            touched = line.put(time, value)
        return self._derived(role, touched)

    def follow(self, role: Role, times: Sequence[int], values: Sequence[Known], source: str) -> Touched | None:
        """``take`` of samples that are newer than all others of the role, in the order of time; one at least."""
        self.sources.setdefault(role, source)
        line = self.lines[role]
        before = line.newest
        if line.extend(times, values) and not self._says_more(role, before, times[-1]):
            return None
        return self._derived(role, Touched(times[0], NEVER))

    def _derived(self, role: Role, touched: Touched | None) -> Touched | None:
        """Remember what is to be derived anew."""
        if role in _NAMES and touched is not None:
            self.switched = min(self.switched, touched.start)
            return (
                touched if touched.end == NEVER else Touched(touched.start, self.lines[role].next_said(touched.start))
            )
        if role in _COUNTS and touched is not None and touched.end != NEVER:
            # What the next count adds is more or less now, and a bad value is none.
            count = self.lines[role].next_count(touched.end - 1)
            touched = Touched(touched.start, max(touched.end, min(count + 1, NEVER)))
        return self._stir(touched) if role in _STATES else touched

    def _says_more(self, role: Role, before: int, time: int) -> bool:
        """Whether a repeat at ``time`` of what was said ``before`` says more: its source was lost meanwhile."""
        presence = self.presence.get(self.sources[role])
        return self._each or role in _EACH or (presence is not None and presence.next(before) <= time)

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

    def rejudge(self, said: Rejudged) -> Touched | None:
        """A person said something about units; None when it is known."""
        if said in self.rejudged:
            return None
        self.rejudged.append(said)
        return Touched(said.start, said.end)

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

    def missed(self, role: Role, since: int, until: int) -> bool:
        """Whether something may have been missed between two samples of a role."""
        stale = self._stale is not None and since + self._stale < until
        return stale or self.away(role, since, until)

    def away(self, role: Role, since: int, until: int) -> bool:
        """Whether the source of a role was lost between two of its samples."""
        presence = self.presence.get(self.sources.get(role, ""))
        return presence is not None and presence.next(since) < until

    def broken(self, role: Role, since: int, until: int) -> bool:
        """Whether something may have been missed anywhere between two samples of a role."""
        line, presence = self.lines[role], self.presence.get(self.sources.get(role, ""))
        losses = () if presence is None else presence.between(since + 1, until)
        if any(line.last(loss) != loss for loss in losses):
            return True
        if self._stale is None:
            return False
        times = [since, *(time for time, _ in line.between(since + 1, until)), until]
        return any(self.missed(role, one, other) for one, other in pairwise(times))

    def whole(self, role: Role, start: int) -> bool:
        """Whether from ``start`` on every sample of a role holds until the next one."""
        presence = self.presence.get(self.sources.get(role, ""))
        return self._stale is None and (presence is None or presence.next(start) == NEVER)

    def unbroken(self, role: Role, start: int, end: int, *, stale: bool = True) -> bool:
        """Whether it is clear at a glance that from ``start`` to ``end`` what was said last held.

        ``stale``: whether a value holds only so long.
        """
        line, presence = self.lines[role], self.presence.get(self.sources.get(role, ""))
        since = line.last(start)
        if since < 0 or (presence is not None and presence.next(since) < end):
            return False
        if not stale or self._stale is None:
            return True
        times = sorted((since, *line.changes(start + 1, end)[0], *line.repeats(start + 1, end), end))
        longest: int = max(map(sub, islice(times, 1, None), times))
        return longest <= self._stale

    def told(self, role: Role, start: int, end: int, *, stale: bool = True) -> Iterator[tuple[int, int, Known]]:
        """From when until when which value is known, from ``start`` to ``end``; nothing where nothing is.

        ``stale``: whether a value holds only so long.
        """
        line = self.lines[role]
        sampled = line.last(start)
        for begin, until, value in line.spells(start):
            if begin >= end:
                return
            if value is BAD:
                continue
            for first, last in self._holds(role, max(begin, sampled), until, stale=stale):
                if last > start and first < end:
                    yield max(first, start), min(last, end), value

    def _holds(self, role: Role, begin: int, end: int, *, stale: bool) -> Iterator[tuple[int, int]]:
        """How far a value reaches that is said at ``begin`` and repeated; at ``end`` something else is said."""
        line, presence = self.lines[role], self.presence.get(self.sources.get(role, ""))
        if stale and self._stale is not None:
            since = last = begin
            for time in chain(line.repeats(begin + 1, end), (end,)):
                until = last + self._stale if presence is None else min(last + self._stale, presence.next(last))
                if until < time:
                    yield since, until
                    since = time
                last = time
            if since < end:
                yield since, end
            return
        for loss in () if presence is None else presence.between(begin + 1, end):
            if loss > begin:
                yield begin, loss
                begin = line.next(loss)
                if begin >= end:
                    return
        yield begin, end

    def forget(self, before: int, standing: int) -> None:
        """Drop what matters only to the time before ``before``; ``standing``: since when it stands then, if it does."""
        self.stirred = 0
        # Of a stop that goes back behind the last time of this, the beginning is forgotten already: it has all edits.
        since = standing if standing > self.floor else 0
        self.floor = before
        self.rejudged = [said for said in self.rejudged if said.end > before]
        base = min([before, *(said.start for said in self.rejudged)])
        for line in self.lines.values():
            line.forget(base - _BASE)
        for presence in self.presence.values():
            presence.forget(before)
        self.edits = [edit for edit in self.edits if edit.end > before and (edit.end != NEVER or edit.start >= since)]

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {
            "lines": {role: line.dump() for role, line in self.lines.items()},
            "sources": self.sources,
            "losses": {source: presence.losses for source, presence in self.presence.items()},
            "rejudged": self.rejudged,
            "edits": self.edits,
            "floor": self.floor,
        }

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave, as far as the roles are the same."""
        self.stirred = self.switched = 0
        self.lines = {role: Timeline.load(known["lines"].get(role, ((), ()))) for role in self.lines}
        self.sources = {role: source for role, source in known["sources"].items() if role in self.lines}
        self.presence = {source: Presence(losses) for source, losses in known["losses"].items()}
        self.edits = [Edit(*edit) for edit in known["edits"]]
        self.rejudged = [Rejudged(*said) for said in known.get("rejudged", ())]
        self.floor = known.get("floor", 0)
