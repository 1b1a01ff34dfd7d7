"""In which state a machine was when, and its stops as wholes."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple

from shopfloor.kpi.facts import NEVER, Facts, Known
from shopfloor.kpi.production import Production
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import STOPS, State, key, resolve


class Segment(NamedTuple):
    """The machine was in one state from ``start`` to ``end``."""

    start: int
    end: int
    state: State


_start: Final = attrgetter("start")
_end: Final = attrgetter("end")


class Stop(NamedTuple):
    """The machine stood by itself, as a whole; ``end`` is None while it still stands."""

    start: int
    end: int | None
    down: bool
    """Whether it was in fault at least for a part of it, not only idle."""

    def length(self, now: int) -> int:
        """Length so far in ns."""
        return (now if self.end is None else self.end) - self.start


class Running:
    """The states of one machine, as far as its facts tell."""

    def __init__(self, spec: Spec, facts: Facts, production: Production) -> None:
        """A view of the facts: what comes in later is seen."""
        self._spec = spec
        self._facts = facts
        self._production = production
        self._known: list[Segment] = []

    def segments(self, start: int, end: int, now: int) -> Iterator[Segment]:
        """States from ``start`` to ``end`` without a gap, as far as known at ``now``: the future is UNKNOWN."""
        until = min(end, now)
        at = start
        for segment in self._told(start, until) if "state" in self._spec.roles else self._inferred(start, until, now):
            if segment.start > at:
                yield Segment(at, segment.start, State.UNKNOWN)
            yield segment
            at = segment.end
        if at < end:
            yield Segment(at, end, State.UNKNOWN)

    def state(self, now: int) -> State:
        """The state right before ``now``."""
        return next(self.segments(now - 1, now, now)).state

    def _told(self, start: int, end: int) -> Iterator[Segment]:
        """What the state tag said; nothing where it was silent."""
        known = self._spells()
        for place in range(bisect_right(known, start, key=_end), len(known)):
            begin, until, state = known[place]
            first, last = max(begin, start), min(until, end)
            if first >= last:
                return
            yield Segment(first, last, state)

    def _spells(self) -> list[Segment]:
        """All that the state tag ever said, a segment for each state and not for each sample.

        Most machines are asked once a second and say for hours the same: whoever looks at a stop, or at the running
        hour, goes from change to change. Only what lies behind a new fact is put together anew.
        """
        since = self._facts.stirred
        if since == NEVER:
            return self._known
        self._facts.stirred = NEVER
        known = self._known
        del known[bisect_left(known, since, key=_start) :]
        if known and known[-1].end > since:
            known[-1] = known[-1]._replace(end=since)
        for segment in self._said(since):
            if known and known[-1].end == segment.start and known[-1].state is segment.state:
                known[-1] = known[-1]._replace(end=segment.end)
            else:
                known.append(segment)
        return known

    def _said(self, start: int) -> Iterator[Segment]:
        """What the state tag says from ``start`` on; the last that it said holds for ever, or until it is lost."""
        for begin, until, value in self._facts.told("state", start, NEVER):
            yield from self._in_modes(begin, until, value)

    def _in_modes(self, start: int, end: int, value: Known) -> Iterator[Segment]:
        modes = self._facts.lines.get("mode")
        changes = () if modes is None else modes.changes(start + 1, end)[0]
        for begin, until in pairwise((start, *changes, end)):
            mode = self._facts.value_at("mode", begin)
            found = resolve(value, mode, self._spec.states, self._spec.model)
            yield Segment(begin, until, found or State.UNKNOWN)

    def _inferred(self, start: int, end: int, now: int) -> Iterator[Segment]:
        """Without a state tag: units tell that it runs, a gap of ``minor_stop_below`` or longer that it stood."""
        production = self._production
        begin = production.before(start)
        if begin is None:
            begin = self._first_told()
        if begin is None:
            return
        after = production.after(end)
        marks = [begin, *production.times(max(start, begin + 1), end), now if after is None else after]
        long = self._spec.minor_stop_below
        first = max(begin, start)
        for one, following in pairwise(marks):
            if following - one >= long:  # a stop of its own; what ran before it is in one piece
                yield from self._where_told(first, max(one, start), State.RUNNING)
                first = min(following, end)
                yield from self._where_told(max(one, start), first, State.IDLE)
        yield from self._where_told(first, min(marks[-1], end), State.RUNNING)

    def _where_told(self, start: int, end: int, state: State) -> Iterator[Segment]:
        """Without the time in which the counter was silent because its source was away."""
        role = self._spec.counted[0]
        at = until = start
        for begin, known, _ in self._facts.told(role, start, end) if start < end else ():
            if begin > until:
                if at < until:
                    yield Segment(at, until, state)
                at = begin
            until = known
        if at < until:
            yield Segment(at, until, state)

    def _first_told(self) -> int | None:
        firsts = (self._facts.lines[role].first for role in self._spec.counted)
        return min((first for first in firsts if first is not None), default=None)

    # --- stops

    def stop_at(self, time: int, now: int) -> Stop | None:
        """The whole stop in which the machine stands at ``time``; None when it does not stand."""
        begin, down_before = self._back(time + 1, now)
        if begin > time:
            return None
        end, down_after = self._on(time, now)
        return Stop(begin, end, down_before or down_after)

    def unchanged(self, since: int, now: int) -> bool:
        """Whether it is clear at a glance that from right before ``since`` until ``now`` it was in one state."""
        if "state" not in self._spec.roles:
            return False
        last = self._newest(now)
        return last is None or last.end < since or (last.start < since and last.end >= now)

    def runs(self, now: int) -> bool:
        """Whether it is clear at a glance that it does not stand at ``now``."""
        if "state" not in self._spec.roles:
            return False
        last = self._newest(now)
        return last is None or last.end < now or last.state not in STOPS

    def _newest(self, now: int) -> Segment | None:
        """The last segment that began before ``now``."""
        known = self._spells()
        if known and known[-1].start < now:
            return known[-1]
        place = bisect_left(known, now, key=_start) - 1
        return known[place] if place >= 0 else None

    def standing_since(self, now: int) -> int | None:
        """Since when it stands at ``now``; without a state tag since the last unit, however long ago."""
        if "state" not in self._spec.roles:
            return self._production.before(now)
        begin, _ = self._back(now, now)
        return begin if begin < now else None

    def _back(self, time: int, now: int) -> tuple[int, bool]:
        """Since when it had stood right before ``time`` (``time`` itself when it did not), and if in fault."""
        begin, down = time, False
        for segment in self._backwards(time, now):
            if segment.state not in STOPS or segment.end < begin:
                break
            begin, down = segment.start, down or segment.state is State.DOWN
        return begin, down

    def _on(self, time: int, now: int) -> tuple[int | None, bool]:
        """Until when it stands from ``time`` on, None: still; and if in fault."""
        down = False
        # Without a state tag a unit ends a stop, even if the next one begins with it.
        unit = None if "state" in self._spec.roles else self._production.after(time + 1)
        for segment in self.segments(time, max(now, time + 1), now):
            if segment.state not in STOPS or (unit is not None and segment.start >= unit):
                return segment.start, down
            down = down or segment.state is State.DOWN
        return None, down

    def _backwards(self, end: int, now: int) -> Iterator[Segment]:
        """Segments before ``end``, the newest first."""
        if "state" not in self._spec.roles:
            last = self._production.before(end)
            begin = self._first_told() if last is None else last
            if begin is not None and begin < end:
                yield from reversed(list(self.segments(begin, end, now)))
            return
        known = self._spells()
        for place in range(bisect_left(known, end, key=_start) - 1, -1, -1):
            begin, until, state = known[place]
            yield Segment(begin, min(until, end), state)

    def whole(self, start: int, end: int, now: int) -> tuple[int, int]:
        """A span of time with the stops, or the gaps between units, that reach into it."""
        begin, _ = self._back(start, now)
        if end >= now:
            return begin, end
        if "state" in self._spec.roles:
            until, _ = self._on(end, now)
            return begin, now if until is None else max(until, end)
        after = self._production.after(end)
        before = self._production.before(start)
        return begin if before is None else min(begin, before), now if after is None else after

    def fault(self, stop: Stop) -> str | None:
        """The first fault code of a stop; None when there was none."""
        line = self._facts.lines.get("fault")
        if line is None:
            return None
        inside = line.changes(stop.start, NEVER if stop.end is None else stop.end)[1]
        values: Iterable[Known] = (line.value_at(stop.start), *inside)
        return next((code for code in map(key, values) if code not in (None, "", "0", "false")), None)
