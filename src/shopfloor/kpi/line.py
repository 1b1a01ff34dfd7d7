"""What machines make of a line: their times and units added, those of its bottleneck, or instant by instant.

A line is evaluated as a machine is, cell by cell, out of what is known of its machines; so ``Windows`` closes and
corrects it likewise. docs/specs/kpi.md says what each policy means.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from shopfloor.kpi.account import Account, TimeClass
from shopfloor.kpi.calendar import SECOND, Calendar, Stretch
from shopfloor.kpi.evaluated import Evaluated, Stood
from shopfloor.kpi.facts import Touched
from shopfloor.kpi.machine import Machine, Piece
from shopfloor.kpi.running import Stop
from shopfloor.kpi.states import STOPS, State
from shopfloor.kpi.windows import Windows

HOUR: Final = 3600 * SECOND
_TRIES: Final = 8
"""To find a moment at which none of a line's machines stands."""


class Part(NamedTuple):
    """A machine of a line, or a line of an area."""

    id: str
    unit: Evaluated
    windows: Windows
    """Its own; they have had their tick before those of the whole."""

    def account(self, stretch: Stretch, calendar: Calendar, now: int) -> Account:
        """Its times and quantities in a stretch; not to be changed."""
        found = self.windows.evaluated(stretch)
        return self.unit.evaluate(stretch, calendar, now) if found is None else found


class Standing(NamedTuple):
    """What a line does at a moment."""

    state: State
    machine: str
    """The machine that it stands for; "" when it does not stand."""


class Line(ABC):
    """Parts and how they make a whole. What changes in a part is known from the part's windows."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """``parts`` in the order of flow."""
        self.parts = parts

    @property
    def plan(self) -> object:
        """What the plant file says of it."""
        return type(self).__name__, [part.unit.plan for part in self.parts]

    @abstractmethod
    def evaluate(self, stretch: Stretch, calendar: Calendar, now: int) -> Account:
        """Times and quantities of a stretch as far as ``now``."""

    def affected(self, touched: Touched, _now: int, /) -> Touched:
        """The time that a change of a part may reach: what was evaluated again there."""
        return touched

    def stood(self, _time: int, _now: int, /) -> Stood | None:
        """None: its stops are those of its machines."""
        return None

    def stops(self, *_: int) -> Iterator[Stop]:
        """None: its stops are those of its machines."""
        return iter(())

    def minor(self, _stop: Stop, _now: int, /) -> bool:
        """It has no stops of its own."""
        return False

    def reasons(self, _stop: Stop, _now: int, /) -> Iterator[tuple[int, str]]:
        """It has no stops of its own."""
        return iter(())

    def forget(self, _before: int, _now: int, /) -> None:
        """Nothing: the facts are those of its machines."""
        return

    def settled(self, _time: int, /) -> int:
        """Nothing: it is made of what its parts have."""
        return 0

    def goes_on(self, _since: int, _now: int, /) -> bool | None:
        """It does not stand by itself."""
        return True

    @property
    def edited(self) -> bool:
        """Nobody says anything of its stops but of those of its machines."""
        return False

    def standing(self, _now: int, /) -> Standing | None:
        """What it does right before now; None where its parts stand side by side."""
        return None


class Sum(Line):
    """Everything added, never a ratio averaged: machines side by side, lines of an area."""

    def evaluate(self, stretch: Stretch, calendar: Calendar, now: int) -> Account:
        """The sum of the parts."""
        total = Account()
        for part in self.parts:
            account = part.account(stretch, calendar, now)
            total += account
            if isinstance(part.unit, Machine):
                _lose(total, part.id, account)
        total.cycles = None  # of different machines they tell nothing
        return total


class Flow(Line):
    """Machines one behind the other: what is good leaves the line at one of them, each may scrap."""

    def __init__(self, parts: Sequence[Part], output: str, pace: str) -> None:
        """``output``: the machine behind which units are counted; ``pace``: the one whose performance is the line's."""
        super().__init__(parts)
        self.machines = [part.unit for part in parts if isinstance(part.unit, Machine)]
        names = [part.id for part in parts]
        self._output, self._pace = names.index(output), names.index(pace)

    @property
    def plan(self) -> object:
        """What the plant file says of it."""
        return super().plan, self._output, self._pace

    def _count(self, account: Account, stretch: Stretch, calendar: Calendar, now: int) -> None:
        """The units of the line."""
        output = self.parts[self._output].account(stretch, calendar, now)
        account.good, account.outside, account.scrap = output.good, output.outside, 0
        account.scraps.clear()
        for part in self.parts:
            made = part.account(stretch, calendar, now)
            account.scrap += made.scrap
            for reason, quantity in made.scraps.items():
                account.scrapped(reason, quantity)


class Bottleneck(Flow):
    """Times, stops and performance are those of the machine that sets the pace."""

    def evaluate(self, stretch: Stretch, calendar: Calendar, now: int) -> Account:
        """The bottleneck's account with the line's units."""
        bottleneck = self.parts[self._pace]
        account = Account()
        account += bottleneck.account(stretch, calendar, now)
        account.products, account.orders = {}, {}  # they are of its units, not of the line's
        _lose(account, bottleneck.id, account)
        # Cycles, and what of it is of which product, are the machine's: the line's units are others.
        account.cycles = None
        account.products.clear()
        account.orders.clear()
        self._count(account, stretch, calendar, now)
        return account

    def standing(self, now: int, /) -> Standing:
        """What the bottleneck does."""
        state = self.machines[self._pace].running.state(now)
        return Standing(state, self.parts[self._pace].id if state in STOPS else "")


class LinePiece(NamedTuple):
    """A part of a stretch that counts as one class for the line."""

    start: int
    end: int
    name: TimeClass
    place: int
    """Of the machine that the line stands for; -1 when it does not stand."""
    stop: Stop | None


class FirstDown(Flow):
    """The line stands as soon as a machine stands by itself, for the first such machine in the order of flow."""

    def evaluate(self, stretch: Stretch, calendar: Calendar, now: int) -> Account:
        """Instant by instant."""
        account = Account()
        end = min(stretch.end, now)
        pieces = list(self._pieces(stretch.start, end, calendar, now))
        lost: dict[tuple[int, int], str | None] = {}
        for piece in pieces:
            account.times[piece.name] += piece.end - piece.start
            if piece.stop is not None:
                self._stand(account, piece, piece.stop, lost, calendar, now)
        if pieces:
            self._count(account, stretch, calendar, now)
            self._perform(account, pieces, end)
        return account

    def _stand(
        self,
        account: Account,
        piece: LinePiece,
        stop: Stop,
        lost: dict[tuple[int, int], str | None],
        calendar: Calendar,
        now: int,
    ) -> None:
        """A stop counts where the line stands for it first: other machines may have stood before it in the flow."""
        key = piece.place, stop.start
        if key not in lost:
            lost[key] = self._reason_before(piece, stop, calendar, now)
        reason = self.machines[piece.place].reason(stop, piece.start, now)
        begins, length = lost[key] is None, piece.end - piece.start
        account.lose(reason, length, begins=lost[key] != reason)
        account.lose_to(self.parts[piece.place].id, length, int(begins))
        lost[key] = reason
        if begins:
            account.minor += piece.name is TimeClass.MINOR_STOP
            account.incidents += piece.name is TimeClass.UNPLANNED_STOP

    def _reason_before(self, piece: LinePiece, stop: Stop, calendar: Calendar, now: int) -> str | None:
        """For which reason the line stood for a stop last before a piece; None when it did not yet."""
        end = piece.start
        while end > stop.start:
            start = max(stop.start, end - HOUR)
            for before in reversed(list(self._pieces(start, end, calendar, now))):
                if before.place == piece.place and before.stop is not None and before.stop.start == stop.start:
                    return self.machines[piece.place].reason(stop, before.start, now)
            end = start
        return None

    def _perform(self, account: Account, pieces: Sequence[LinePiece], end: int) -> None:
        """Set the units of the machine that sets the pace against the line's time."""
        made = Account()
        starts, names = [piece.start for piece in pieces], [piece.name for piece in pieces]
        self.machines[self._pace].production.account(made, starts, names, end)
        account.ideal, account.without_ideal, account.beyond = made.ideal, made.without_ideal, made.beyond
        account.uncounted, account.uncounted_minor = made.uncounted, made.uncounted_minor

    def _pieces(self, start: int, end: int, calendar: Calendar, now: int) -> Iterator[LinePiece]:
        """As what the time counts, without a gap, until ``now``."""
        end = min(end, now)
        if end <= start:
            return
        told = [list(machine.pieces(start, end, calendar, now)) for machine in self.machines]
        marks = sorted({piece.start for pieces in told for piece in pieces} | {end})
        places = [0] * len(told)
        for begin, until in pairwise(marks):
            for i, pieces in enumerate(told):
                while pieces[places[i]].end <= begin:
                    places[i] += 1
            yield _together(begin, until, [pieces[places[i]] for i, pieces in enumerate(told)])

    def affected(self, touched: Touched, now: int, /) -> Touched:
        """With the stops that reach into it: where they count first depends on the other machines."""
        spans = [touched, *(machine.affected(touched, now) for machine in self.machines)]
        return Touched(min(span.start for span in spans), max(span.end for span in spans))

    def settled(self, time: int, /) -> int:
        """Until when, at most until ``time``, no machine stands or has a gap between its units that goes on."""
        for _ in range(_TRIES):
            found = min(machine.settled(time) for machine in self.machines)
            if found == time:
                return time
            time = found
        return 0

    def standing(self, now: int, /) -> Standing:
        """What the line does, by the same order as its time."""
        states = [machine.running.state(now) for machine in self.machines]
        for place, state in enumerate(states):
            if state in STOPS:
                return Standing(state, self.parts[place].id)
        return Standing(next((state for state in _STATES if state in states), State.BLOCKED), "")


_CLASSES: Final = (
    TimeClass.NOT_SCHEDULED,
    TimeClass.UNKNOWN,
    TimeClass.PLANNED_STOP,
    TimeClass.SETUP,
    TimeClass.PRODUCTION,
)
"""What a line does when no machine stands by itself: the first of these that a machine does, else it is blocked."""
_STATES: Final = (State.UNKNOWN, State.PLANNED, State.SETUP, State.RUNNING)


def _together(start: int, end: int, pieces: Sequence[Piece]) -> LinePiece:
    """What machines in a flow make of an instant."""
    for place, piece in enumerate(pieces):
        if piece.stop is not None:
            return LinePiece(start, end, piece.name, place, piece.stop)
    names = {piece.name for piece in pieces}
    return LinePiece(start, end, next((name for name in _CLASSES if name in names), TimeClass.BLOCKED), -1, None)


def _lose(account: Account, machine: str, lost: Account) -> None:
    time = sum(loss.time for loss in lost.losses.values())
    if time or lost.minor or lost.incidents:
        account.lose_to(machine, time, lost.minor + lost.incidents)
