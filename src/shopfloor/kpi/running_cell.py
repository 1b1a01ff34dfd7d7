"""The cell that is not over yet: its account goes on from where it was settled, instead of from its beginning."""

from typing import Final

from shopfloor.kpi.account import Account
from shopfloor.kpi.calendar import Calendar, Cell
from shopfloor.kpi.evaluated import Evaluated
from shopfloor.kpi.facts import NEVER, Touched

STEP: Final = 60 * 1_000_000_000
"""At least this much time lies between two marks."""
LATE: Final = 5 * 1_000_000_000
"""Samples are often this much later than the clock: nothing so new is settled."""


class RunningCell:
    """The account of one cell as far as it goes: to the last digit what one would find who looks for the first time.

    Any split of time sums to the whole. So the sum is kept up to *marks*, places in time at which the machine did not
    stand, and only what lies behind the last one is evaluated. What touches the time before a mark takes it away.
    """

    def __init__(self, machine: Evaluated, calendar: Calendar, cell: Cell) -> None:
        """Nothing is evaluated yet."""
        self.cell = cell
        self._machine = machine
        self._calendar = calendar
        self._marks: list[tuple[int, Account]] = [(cell.start, Account())]
        self._stirred = NEVER

    def touch(self, start: int) -> None:
        """Something may have changed from ``start`` on."""
        self._stirred = min(start, self._stirred)

    def account(self, now: int) -> Account:
        """Until ``now``, which only goes on, or until the cell's end."""
        self._unsettle(now)
        end = min(self.cell.end, now)
        mark, settled = self._marks[-1]
        if end - mark >= STEP + LATE:
            mark, settled = self._settle(mark, settled, min(now - LATE, end), now)
        rest = self._evaluate(mark, end, now)
        if not _whole(rest) and mark > self.cell.start:
            return self._evaluate(self.cell.start, end, now)
        rest += settled
        return rest

    def _unsettle(self, now: int) -> None:
        if self._stirred == NEVER:
            return
        marks = self._marks
        start, self._stirred = self._stirred, NEVER
        if len(marks) > 1:
            start, _ = self._machine.affected(Touched(start, NEVER), now)
            while len(marks) > 1 and marks[-1][0] > start:
                marks.pop()

    def _settle(self, mark: int, settled: Account, until: int, now: int) -> tuple[int, Account]:
        """A new mark, if there is a place for one."""
        until = self._machine.settled(until)
        if until - mark < STEP:
            return mark, settled
        more = self._evaluate(mark, until, now)
        more += settled
        if not _whole(more):
            return mark, settled
        self._marks.append((until, more))
        return until, more

    def _evaluate(self, start: int, end: int, now: int) -> Account:
        return self._machine.evaluate(self.cell.stretch._replace(start=start, end=end), self._calendar, now)


def _whole(account: Account) -> bool:
    """Whether sums do not depend, in the last digit, on where they are cut, as those of fractions do."""
    return all(
        isinstance(quantity, int)
        for quantity in (
            account.good,
            account.scrap,
            account.beyond,
            account.outside,
            account.without_ideal,
            account.unmatched,
        )
    )
