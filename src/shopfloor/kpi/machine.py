"""One machine: its facts come in, any stretch of time can be evaluated."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from shopfloor.kpi.account import Account, TimeClass
from shopfloor.kpi.calendar import Calendar, Stretch
from shopfloor.kpi.cycles import Cycle, Cycles, running_throughout
from shopfloor.kpi.evaluated import Stood
from shopfloor.kpi.facts import NEVER, Edit, Facts, Touched
from shopfloor.kpi.production import Production
from shopfloor.kpi.rework import Rework
from shopfloor.kpi.running import Running, Stop
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import STOPS, State


class Piece(NamedTuple):
    """A part of a stretch that counts as one class."""

    start: int
    end: int
    name: TimeClass
    stop: Stop | None


class Machine:
    """The facts of one machine, and what follows from them."""

    def __init__(self, spec: Spec, facts: Facts | None = None) -> None:
        """``facts``: what is known already."""
        self.spec = spec
        self.facts = facts or Facts(spec.roles, stale=spec.stale, each=spec.counting == "event")
        self.production = Production(spec, self.facts)
        self.orders = self.production.orders
        self.rework = Rework(spec, self.facts, self.production)
        self.cycles = Cycles(spec, self.facts, self.production, self.orders)
        self.running = Running(spec, self.facts, self.production)

    @property
    def plan(self) -> Spec:
        """What the plant file says of it."""
        return self.spec

    def evaluate(self, stretch: Stretch, calendar: Calendar, now: int) -> Account:
        """Times and quantities of a stretch as far as ``now``; what lies behind it is left out."""
        end = min(stretch.end, now)
        if end <= stretch.start:
            return Account()
        if not self.orders.told:
            return self._evaluate(stretch, end, calendar, now)
        account = Account()
        for start, until, product, order in self.orders.parts(stretch.start, end):
            part = self._evaluate(stretch._replace(start=start, end=until), until, calendar, now)
            account += part
            self._share(account, part, product, order)
        return account

    def _share(self, account: Account, part: Account, product: str, order: str) -> None:
        """Say of a part of an account what was made in it."""
        mine = account.products.setdefault(product, Account())
        mine += part
        if "order" in self.spec.roles:
            mine = account.orders.setdefault(order, Account())
            mine += part

    def _evaluate(self, stretch: Stretch, end: int, calendar: Calendar, now: int) -> Account:
        """A stretch in which one thing is made."""
        account = Account()
        pieces = list(self._pieces(stretch, end, now))
        for piece in pieces:
            account.times[piece.name] += piece.end - piece.start
            if piece.stop is not None:
                self._lose(account, piece, piece.stop, calendar, now)
        if pieces:
            self.production.account(account, [piece.start for piece in pieces], [piece.name for piece in pieces], end)
        if self.facts.rejudged:
            self.rework.apply(account, stretch.start, end, self._classes(calendar, now))
        if self.spec.cycles != "none":
            self.cycles.add(account, stretch.start, end, self._ran(pieces, calendar, now))
        return account

    def _classes(self, calendar: Calendar, now: int) -> Callable[[int, int], list[tuple[int, TimeClass]]]:
        return lambda start, end: [(piece.start, piece.name) for piece in self.pieces(start, end, calendar, now)]

    def timed(self, start: int, end: int, calendar: Calendar, now: int) -> Iterator[Cycle]:
        """The single cycles that ended from ``start`` on, before ``end``."""
        pieces = list(self.pieces(start, end, calendar, now))
        return self.cycles.between(start, end, self._ran(pieces, calendar, now))

    def _ran(self, pieces: list[Piece], calendar: Calendar, now: int) -> Callable[[int, int], bool]:
        """Tells whether it ran all the time from one moment to another that lies in ``pieces``."""
        stood = [(piece.start, piece.end) for piece in pieces if piece.name is not TimeClass.PRODUCTION]
        first = pieces[0].start if pieces else now

        def ran(start: int, end: int) -> bool:
            before = self.pieces(start, first, calendar, now) if start < first else ()
            return running_throughout(stood, start, end) and all(piece.name is TimeClass.PRODUCTION for piece in before)

        return ran

    def pieces(self, start: int, end: int, calendar: Calendar, now: int) -> Iterator[Piece]:
        """As what the time from ``start`` to ``end`` counts, without a gap, until ``now``: what ``evaluate`` adds."""
        for stretch in calendar.stretches(start, end):
            yield from self._pieces(stretch, min(stretch.end, now), now)

    def _pieces(self, stretch: Stretch, end: int, now: int) -> Iterator[Piece]:
        if stretch.kind != "shift":
            name = TimeClass.PLANNED_STOP if stretch.kind == "break" else TimeClass.NOT_SCHEDULED
            if end > stretch.start:
                yield Piece(stretch.start, end, name, None)
            return
        stop: Stop | None = None
        for start, until, state in self.running.segments(stretch.start, end, now):
            if state not in STOPS:
                stop = None
                yield Piece(start, until, _CLASSES[state], None)
                continue
            if stop is None or (stop.end is not None and start >= stop.end):
                stop = self.running.stop_at(start, now)
            if stop is not None:
                name = self._stop_class(stop, now)
                yield from (Piece(a, b, name, stop) for a, b in self._cut_by_edits(start, until))

    def _stop_class(self, stop: Stop, now: int) -> TimeClass:
        """Judged on the whole stop, never on the part inside a window."""
        return TimeClass.MINOR_STOP if self.minor(stop, now) else TimeClass.UNPLANNED_STOP

    def _cut_by_edits(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        marks = {mark for edit in self.facts.edits for mark in (edit.start, edit.end) if start < mark < end}
        return pairwise(sorted({start, *marks, end}))

    def _lose(self, account: Account, piece: Piece, stop: Stop, calendar: Calendar, now: int) -> None:
        begins = _begins(piece.start, stop, calendar)
        reason = self.reason(stop, piece.start, now)
        changes = piece.start > stop.start and self.reason(stop, piece.start - 1, now) != reason
        account.lose(reason, piece.end - piece.start, begins=begins or changes)
        if begins:
            account.minor += piece.name is TimeClass.MINOR_STOP
            account.incidents += piece.name is TimeClass.UNPLANNED_STOP

    def reason(self, stop: Stop, time: int, now: int) -> str:
        """Why it stood at a moment of a stop: what a person says, else what its fault code means; "": nobody knows.

        Nor does anybody where it stood longer for a reason than it may: then there must be another one.
        """
        reason = self._said(stop, time)
        if reason not in self.spec.longest:
            return reason
        first, last = next(
            (begin, end) for begin, end, _ in self._parts(stop, now) if begin <= time < end or end >= _end(stop, now)
        )
        return reason if last - first <= self.spec.longest[reason] else ""

    def _parts(self, stop: Stop, now: int) -> Iterator[tuple[int, int, str]]:
        """From when to when which reason was said of a stop, without a gap."""
        first, said = stop.start, self._said(stop, stop.start)
        for begin, _ in self._cut_by_edits(stop.start, _end(stop, now)):
            if (other := self._said(stop, begin)) != said:
                yield first, begin, said
                first, said = begin, other
        yield first, _end(stop, now), said

    def _said(self, stop: Stop, time: int) -> str:
        for edit in reversed(self.facts.edits):
            if edit.start <= time < edit.end and self._concerns(edit, stop):
                if edit.reason:
                    return edit.reason
                break  # what was said before was taken back
        code = self.running.fault(stop)
        return "" if code is None else self.spec.reasons.get(code, f"fault {code}")

    def _concerns(self, edit: Edit, stop: Stop) -> bool:
        """Whether what a person said "to the end of the stop" was said of this one."""
        # Of a stop that began before everything that is known its beginning is not: only its own edits were kept.
        return edit.end != NEVER or stop.start <= max(edit.start, self.facts.floor)

    def reasons(self, stop: Stop, now: int) -> Iterator[tuple[int, str]]:
        """From when on which reason of a stop counts; one at least."""
        last: str | None = None
        for begin, _, _ in self._parts(stop, now):
            reason = self.reason(stop, begin, now)
            if reason != last:
                yield begin, reason
            last = reason

    def stops(self, start: int, end: int, now: int) -> Iterator[Stop]:
        """The stops that reach into a span of time, as wholes."""
        until = start
        for segment in self.running.segments(start, min(end, now), now):
            if segment.state in STOPS and segment.start >= until:
                stop = self.running.stop_at(segment.start, now)
                if stop is None or stop.end is None:
                    if stop is not None:
                        yield stop
                    return
                yield stop
                until = stop.end

    def minor(self, stop: Stop, now: int) -> bool:
        """Whether a stop is a minor one, as far as is known now."""
        return stop.length(now) < self.spec.minor_stop_below

    def stood(self, time: int, now: int) -> Stood | None:
        """As what the stop counts in which it stood right before ``time``; None when it did not stand."""
        stop = self.running.stop_at(time - 1, now)
        return None if stop is None else (stop.start, self.minor(stop, now), tuple(self.reasons(stop, now)))

    def forget(self, before: int, now: int) -> None:
        """Drop what matters only to the time before; of a stop that reaches further the reasons are kept."""
        stop = self.running.stop_at(before, now)
        self.orders.forget(before)
        self.facts.forget(before, before if stop is None else stop.start)

    def settled(self, time: int) -> int:
        """Until when, at most until ``time``, no stop and no gap between units goes on: it stays what it counts as."""
        if "state" in self.spec.roles:
            return self.running.standing_since(time) or time
        return self.production.before(time) or 0

    def goes_on(self, since: int, now: int) -> bool | None:
        """Whether it is clear at a glance that it ran from right before ``since`` until now; None: or stood."""
        if not self.running.unchanged(since, now):
            return False
        return True if self.running.runs(now) else None

    @property
    def edited(self) -> bool:
        """Whether people have said anything of its stops, or reasons count for them only so long."""
        return bool(self.facts.edits or self.spec.longest)

    def affected(self, touched: Touched, now: int) -> Touched:
        """The time whose evaluation a fact may change: stops are judged as wholes."""
        touched = self.rework.reached(touched)
        start, end = self.running.whole(touched.start, min(touched.end, now), now)
        if touched.end == NEVER:
            return Touched(start, NEVER)
        if self.spec.cycles != "none" and (after := self.cycles.after(end)) is not None:
            end = max(end, after + 1)  # the cycle that goes over its end
        return Touched(start, end)


_CLASSES: Final = {
    State.RUNNING: TimeClass.PRODUCTION,
    State.SETUP: TimeClass.SETUP,
    State.PLANNED: TimeClass.PLANNED_STOP,
    State.BLOCKED: TimeClass.BLOCKED,
    State.UNKNOWN: TimeClass.UNKNOWN,
}


def _end(stop: Stop, now: int) -> int:
    return now if stop.end is None else stop.end


def _begins(time: int, stop: Stop, calendar: Calendar) -> bool:
    """Whether ``time`` is where the stop first falls into planned time."""
    return time <= stop.start or all(piece.kind != "shift" for piece in calendar.stretches(stop.start, time))
