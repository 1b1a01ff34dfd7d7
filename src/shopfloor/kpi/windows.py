"""The windows of a machine or a line: closed once, and corrected when a fact of the past comes, with the reason why.

Time is cut into cells (calendar.Cell). Each closed cell has its account; a window's account is the sum of its
cells'. What arrives late names the time that it touches; only the cells there are evaluated again.
Nothing happens but at a tick, so how samples were cut into batches leaves no trace.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from shopfloor.kpi.account import Account
from shopfloor.kpi.calendar import Calendar, Cell, Stretch, Window, WindowKind
from shopfloor.kpi.evaluated import Evaluated, Stood
from shopfloor.kpi.facts import NEVER, Touched
from shopfloor.kpi.figures import FORMULA
from shopfloor.kpi.running import Stop
from shopfloor.kpi.running_cell import RunningCell

DAY: Final = 86_400 * 1_000_000_000
_KINDS: Final[tuple[WindowKind, ...]] = ("hour", "shift", "day")


class Result(NamedTuple):
    """A closed window and what became of it."""

    window: Window
    account: Account
    revision: int
    """0 at first; each correction counts one more."""
    was: Account | None
    """What was given before; None at first."""
    why: str
    """What corrected it; "" at first."""


class StopResult(NamedTuple):
    """A stop as it is now known; one that was given before and never was, is withdrawn."""

    start: int
    end: int | None
    """None: it lasts."""
    minor: bool
    down: bool
    reasons: tuple[tuple[int, str], ...]
    """From when on which reason counts; one at least."""
    withdrawn: bool = False
    unexplained: bool = False
    """Whether nobody knows why it stood in a part of the planned time, and it is no minor one."""


class Windows:
    """Which windows of a machine or a line are closed, with which account, and which stops there were."""

    def __init__(self, machine: Evaluated, calendar: Calendar, remember: int) -> None:
        """``remember``: ns for which the past can be corrected."""
        self.machine = machine
        self.too_late = 0
        """Facts that came too late to correct everything that they touch."""
        self.anew: list[tuple[Touched, str]] = []
        """What the last tick evaluated, and why again."""
        self.stirred = NEVER
        """Since when something may have changed since the last tick, for what is made of this."""
        self._calendar = calendar
        self._remember = remember
        self._cells: list[Cell] = []
        self._accounts: list[Account] = []
        """Of the closed cells, in order."""
        self._given: dict[tuple[WindowKind, int], tuple[int, Account]] = {}
        """Revision and account of each window that was given."""
        self._closed = 0
        """Every cell that ends until here is closed; 0 while no fact is known."""
        self._touched: list[tuple[Touched, str]] = []
        self._running: RunningCell | None = None
        """The cell behind the closed ones, while it is the one that was looked at last."""
        self._open: tuple[Stretch, Account] | None = None
        """What ``live`` evaluated last: the part of this cell that was over."""
        self._sum: tuple[Window, Account] | None = None
        """Of the closed cells of the window that was asked for last."""
        self._preceding = False
        """Whether there are windows of days before the first one that are not given yet."""
        self._stood: Stood | None = None
        """As what the stop counts that goes over the end of the closed cells."""
        self._stops: dict[int, StopResult] = {}
        """The stops that were given, by their beginning."""
        self._begins: list[int] = []
        """When they begin, in order."""
        self._news = NEVER
        """Since when something may have changed that no stop was given for."""
        self._fresh = True
        """Whether anything came since it was looked for stops."""
        self._lasting: Stop | None = None
        """The stop that lasted then."""
        self.forgetting: list[Callable[[int, int], None]] = []
        """Told before what lies before a time is forgotten: that time, and now."""

    @property
    def begun(self) -> bool:
        """Whether anything is known."""
        return self._closed > 0

    def touch(self, touched: Touched | None, why: str, now: int) -> None:
        """A fact came: ``touched`` is the time that it may change, ``why`` says what it was."""
        if touched is None:
            return
        floor = now - self._remember
        if touched.start < floor:
            self.too_late += 1
        if touched.end <= floor:
            return
        start = max(touched.start, floor)
        self._news, self._fresh = min(self._news, start), True
        if not self.begun:
            self._closed = self._day_of(start)
        elif start < self._closed and start < self.begin:
            self._extend(start, now)
        self._stir(start)
        if start < self._closed:
            self._touched.append((Touched(start, touched.end), why))

    def _stir(self, start: int) -> None:
        self.stirred = min(self.stirred, start)
        if self._running is not None:
            self._running.touch(start)

    def follows(self, time: int, now: int) -> bool:
        """Whether facts from ``time`` on come to what is not closed yet, and are not too late."""
        return 0 < self._closed <= time and time >= now - self._remember

    @property
    def begin(self) -> int:
        """Since when anything is known; whole days."""
        return self._cells[0].start if self._cells else self._closed

    def _day_of(self, time: int) -> int:
        """Where the production day of a moment begins: windows are whole."""
        return self._calendar.window("day", next(self._calendar.cells(time))).start

    def _extend(self, time: int, now: int) -> None:
        """Facts of days before the first one came: these are closed, too."""
        new = list(self._between(self._day_of(time), self.begin))
        self._sum, self._preceding = None, True
        self._cells[:0] = new
        self._accounts[:0] = [self.machine.evaluate(cell.stretch, self._calendar, now) for cell in new]
        for window in self._windows(new):
            self._given.setdefault((window.kind, window.start), (-1, Account()))

    def follow(self, parts: Sequence["Windows"], now: int) -> None:
        """What was evaluated again of the parts in this tick, which they have had, is to be so here as well."""
        self.too_late = sum(part.too_late for part in parts)
        begins = [part.begin for part in parts if part.begun]
        if not begins:
            return
        if not self.begun:
            self._closed = min(begins)
        elif min(begins) < self.begin:
            self._extend(min(begins), now)
        for part in parts:
            self._stir(part.stirred)
            self._touched += [(touched, why) for touched, why in part.anew if touched.start < self._closed]

    def evaluated(self, stretch: Stretch) -> Account | None:
        """The account of a closed cell, or of one that ``live`` has just looked at; None of other stretches."""
        place = bisect_left(self._cells, stretch.start, key=lambda cell: cell.start)
        if place < len(self._cells) and self._cells[place].stretch == stretch:
            return self._accounts[place]
        return self._open[1] if self._open is not None and self._open[0] == stretch else None

    def _between(self, start: int, end: int) -> Iterator[Cell]:
        for cell in self._calendar.cells(start):
            if cell.end > end:
                return
            yield cell

    def _current(self) -> RunningCell:
        """The first cell that is not closed."""
        if self._running is None or self._running.cell.start != self._closed:
            cell = next(self._calendar.cells(self._closed))
            self._running = RunningCell(self.machine, self._calendar, cell)
        return self._running

    def tick(self, now: int) -> list[Result]:
        """It is ``now``: close what has ended and correct what was touched. In the order of the windows' beginnings."""
        self.anew.clear()
        self._open = None
        if not self.begun:
            return []
        self._outgrown(now)
        changed = self._correct(now) if self._touched or self._preceding else {}
        closed = self._closed
        while (running := self._current()).cell.end <= now:
            cell = running.cell
            self._cells.append(cell)
            self._accounts.append(running.account(now))
            self._closed, self._sum = cell.end, None
            for window in self._windows([cell]):
                if window.end == cell.end:
                    changed.setdefault(window, "")
        self._stood = self.machine.stood(self._closed, now)
        # For a line that is ahead of one of its machines, of which it had known nothing.
        self.anew.append((Touched(closed, self._closed), "its first samples came"))
        return [result for window, why in sorted(changed.items()) if (result := self._give(window, why))]

    def stops(self, now: int) -> list[StopResult]:
        """Stops that are new or otherwise than they were given. A minor one is given when it is over."""
        if not self.begun:
            return []
        since, self._news = min(self._news, now - 1), now
        fresh, self._fresh = self._fresh, False
        if self._as_given(since, now, fresh=fresh):
            return []
        start, _ = self.machine.affected(Touched(since, NEVER), now)
        stops = list(self.machine.stops(start, now, now))
        self._lasting = stops[-1] if stops and stops[-1].end is None else None
        found = {stop.start: self._stop(stop, now) for stop in stops}
        found = {at: stop for at, stop in found.items() if stop.end is not None or not stop.minor}
        gone = [stop for stop in self._given_from(start) if stop.start not in found]
        results = [stop._replace(withdrawn=True) for stop in gone]
        results += [stop for stop in found.values() if self._stops.get(stop.start) != stop]
        for stop in gone:
            del self._stops[stop.start]
        self._stops |= found
        if gone or len(self._stops) != len(self._begins):
            self._begins = sorted(self._stops)
        return sorted(results)

    def _as_given(self, since: int, now: int, *, fresh: bool) -> bool:
        """Whether it is clear at a glance that what was said of stops is still so."""
        runs = self.machine.goes_on(since, now)
        if runs:
            last = self._stops[self._begins[-1]] if self._begins else None
            return last is None or (last.end is not None and last.end <= since)
        stop = self._lasting
        if runs is False or fresh or stop is None:
            return False
        if self.machine.minor(stop, now):
            return True
        given = self._stops.get(stop.start)
        if given is None or self.machine.edited:
            return False
        return given.unexplained or all(reason for _, reason in given.reasons)

    def _given_from(self, time: int) -> list[StopResult]:
        """The stops that were given and reach behind ``time``, the newest first."""
        found: list[StopResult] = []
        for begin in reversed(self._begins):
            stop = self._stops[begin]
            if stop.end is not None and stop.end <= time:
                break
            found.append(stop)
        return found

    def _stop(self, stop: Stop, now: int) -> StopResult:
        minor, reasons = self.machine.minor(stop, now), tuple(self.machine.reasons(stop, now))
        ends = [begin for begin, _ in reasons[1:]] + [now if stop.end is None else stop.end]
        unexplained = not minor and any(
            not reason and any(piece.kind == "shift" for piece in self._calendar.stretches(begin, end))
            for (begin, reason), end in zip(reasons, ends, strict=True)
        )
        return StopResult(stop.start, stop.end, minor, stop.down, reasons, unexplained=unexplained)

    def unexplained(self, window: Window) -> int:
        """How many stops that reach into a window need a reason."""
        return sum(stop.unexplained and stop.start < window.end for stop in self._given_from(window.start))

    def _outgrown(self, now: int) -> None:
        """What came since the last cell was closed may change as what the stop counts that goes over its end."""
        before, stood = self._stood, self.machine.stood(self._closed, now)
        if stood is not None and stood != before:
            longer = before is None or before[1] != stood[1]
            why = "a stop became longer than a minor one" if longer else "another reason counts for a stop"
            self._touched.append((Touched(stood[0], NEVER), why))

    def _correct(self, now: int) -> dict[Window, str]:
        """Evaluate again what was touched; the closed windows that changed by it, with the reasons."""
        changed: dict[Window, str] = {}
        again: dict[int, str] = {}
        for touched, why in self._touched:
            start, end = affected = self.machine.affected(touched, now)
            self.anew.append((affected, why))
            first = bisect_right(self._cells, start, key=lambda cell: cell.end)
            last = bisect_left(self._cells, end, key=lambda cell: cell.start)
            for place in range(first, last):
                again.setdefault(place, why)
        self._touched.clear()
        for place, why in sorted(again.items()):
            cell = self._cells[place]
            account = self.machine.evaluate(cell.stretch, self._calendar, now)
            if account != self._accounts[place]:
                self._accounts[place], self._sum = account, None
                for window in self._windows([cell]):
                    if window.end <= self._closed:
                        changed.setdefault(window, why)
        preceding, self._preceding = self._preceding, False
        for (kind, start), (revision, _) in list(self._given.items()) if preceding else ():
            if revision < 0:
                cell = self._cells[bisect_left(self._cells, start, key=lambda cell: cell.start)]
                changed.setdefault(self._calendar.window(kind, cell), "")
        return changed

    def _windows(self, cells: Iterable[Cell]) -> Iterator[Window]:
        """The windows that these cells are in, each once."""
        seen: set[Window] = set()
        for cell in cells:
            for kind in _KINDS:
                if kind == "shift" and not cell.shift:
                    continue
                window = self._calendar.window(kind, cell)
                if window not in seen:
                    seen.add(window)
                    yield window

    def _give(self, window: Window, why: str) -> Result | None:
        """The window's new account; None when it says the same as before."""
        account = self.account(window)
        revision, was = self._given.get((window.kind, window.start), (-1, None))
        if revision >= 0 and account == was:
            return None
        self._given[window.kind, window.start] = (revision + 1, account)
        first = revision < 0
        return Result(window, account, revision + 1, None if first else was, "" if first else why)

    def account(self, window: Window) -> Account:
        """The sum of a window's closed cells."""
        total = Account()
        first = bisect_left(self._cells, window.start, key=lambda cell: cell.start)
        for place in range(first, len(self._cells)):
            cell = self._cells[place]
            if cell.start >= window.end:
                break
            if window.kind != "shift" or cell.shift == window.shift:
                total += self._accounts[place]
        return total

    def span(self, start: int, end: int, now: int) -> Account:
        """The account of any time, closed or not; what is known of whole cells is not evaluated again."""
        total = Account()
        for part in self._calendar.cells(start) if start < end else ():
            if part.start >= end:
                break
            place = bisect_left(self._cells, part.start, key=lambda cell: cell.start)
            if start <= part.start and part.end <= end and place < len(self._cells) and self._cells[place] == part:
                total += self._accounts[place]
            else:
                stretch = part.stretch._replace(start=max(part.start, start), end=min(part.end, end))
                total += self.machine.evaluate(stretch, self._calendar, now)
        return total

    def live(self, now: int) -> tuple[Window, Account] | None:
        """The running shift, or the day where there is none, until ``now``, the last tick; None: nothing is known."""
        if not self.begun or now <= self._closed:
            return None
        running = self._current()
        cell = running.cell
        if self._sum is None:
            window = self._calendar.window("shift" if cell.shift else "day", cell)
            self._sum = window, self.account(window)
        window, closed = self._sum
        part = running.account(now)
        self._open = cell.stretch._replace(end=min(cell.end, now)), part
        total = Account()
        total += closed
        total += part
        return window, total

    def forget(self, now: int) -> None:
        """Drop days that nothing can correct any more, and the facts that only they needed.

        Not before everything that is made of these facts has had its tick.
        """
        self.stirred = NEVER
        floor = now - self._remember
        if not self._cells or self._cells[0].end > floor - DAY:
            return
        keep = self._day_of(floor)
        cut = bisect_left(self._cells, keep, key=lambda cell: cell.start)
        for tell in self.forgetting:
            tell(keep, now)
        del self._cells[:cut], self._accounts[:cut]
        self._given = {key: given for key, given in self._given.items() if key[1] >= keep}
        self._stops = {start: stop for start, stop in self._stops.items() if start >= keep}
        self._begins = sorted(self._stops)
        self.machine.forget(keep, now)

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {
            "plan": self.plan(),
            "first": self._cells[0].start if self._cells else 0,
            "accounts": self._accounts,
            "given": [(*key, *given) for key, given in self._given.items()],
            "closed": self._closed,
            "touched": self._touched,
            "stood": self._stood,
            "stops": list(self._stops.values()),
            "news": self._news,
            "too_late": self.too_late,
        }

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave; where plant file or formula were changed since, every window is evaluated anew."""
        self._closed, self.too_late = known["closed"], known["too_late"]
        self._stood = msgspec.convert(known.get("stood"), Stood | None)
        self._touched = [(Touched(*touched), why) for touched, why in known["touched"]]
        self._stops = {stop[0]: msgspec.convert(stop, StopResult) for stop in known["stops"]}
        self._begins = sorted(self._stops)
        self._news = known["news"]
        self._given = {(kind, start): (revision, _account(given)) for kind, start, revision, given in known["given"]}
        self._preceding = any(revision < 0 for revision, _ in self._given.values())
        self._running = self._open = self._sum = self._lasting = None
        self._fresh = True
        if not known["first"]:
            return
        if not (why := self.outdated(known["plan"])):
            self._cells = list(self._between(known["first"], self._closed))
            self._accounts = [_account(account) for account in known["accounts"]]
            return
        first = self._day_of(known["first"])
        self._cells = list(self._between(first, self._closed))
        self._closed = self._cells[-1].end if self._cells else first
        self._accounts = [Account() for _ in self._cells]
        self._touched.append((Touched(first, self._closed), why))
        self._news = first
        starts = {(window.kind, window.start) for window in self._windows(self._cells)}
        self._given = {key: given for key, given in self._given.items() if key in starts}

    def plan(self) -> str:
        """Tells one plant file from another, as far as it matters here, and one formula from another."""
        plan = hashlib.sha256(repr((self.machine.plan, self._calendar.plan)).encode()).hexdigest()
        return f"{FORMULA} {plan}"

    def outdated(self, plan: str) -> str:
        """Why what was made by a ``plan`` is to be made anew; "" where it is the same."""
        if plan == self.plan():
            return ""
        # The first formula was not named.
        unchanged = plan.rpartition(" ")[2] == self.plan().rpartition(" ")[2]
        return f"the formula is {FORMULA} now" if unchanged else "the plant file was changed"


def _account(known: object) -> Account:
    return msgspec.convert(known, Account)
