"""Windows of what is made: from one product, or one order, to the next, corrected by whatever comes late."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from shopfloor.kpi.account import Account
from shopfloor.kpi.facts import Touched
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.news import News
from shopfloor.kpi.orders import MAKING, Making, Spell
from shopfloor.kpi.windows import Windows

Key = tuple[Making, int]
"""What it is about, and when it began."""


class RunResult(NamedTuple):
    """A product, or an order, that was made from ``start`` to ``end``, as it is now known."""

    kind: Making
    start: int
    end: int
    name: str
    product: str
    """Of an order what was made at its end."""
    quantity: float | None
    """Of an order how many units are wanted, as the machine says."""
    account: Account
    revision: int
    """0 at first; each correction counts one more."""
    was: Account | None
    """What was given before; None at first."""
    why: str
    """What corrected it; "" at first."""
    withdrawn: bool = False
    """Late data showed that there was none."""


class Runs:
    """Which products and orders of a machine are over, with which account."""

    def __init__(self, machine: Machine, windows: Windows) -> None:
        """``windows`` are those of the machine; they are asked for the account of any time."""
        self._machine = machine
        self._windows = windows
        self._given: dict[Key, RunResult] = {}
        self._before: dict[Key, Account] = {}
        """What of a run lies before ``_floor``: of that the facts are forgotten."""
        self._floor = 0
        self._news = News()
        self._now = 0
        self._standing: tuple[Any, ...] = ()
        """As what the stop counted that lasts, at the last tick."""
        windows.forgetting.append(self._settle)

    def touch(self, touched: Touched, why: str) -> None:
        """A fact came that may change this time; ``why`` says what it was."""
        self._news.add(touched, why)

    def tick(self, now: int) -> list[RunResult]:
        """It is ``now``: runs that are over since, and those that are otherwise than they were given."""
        if not self._machine.orders.told or not self._windows.begun:
            self._now = now
            return []
        self._judge_again(now)
        touched = [(self._reached(touched, now), why) for touched, why in self._news.take()]
        since = max(min([self._now, *(span.start for span, _ in touched)]), self._floor)
        self._now = now
        found: dict[Key, Spell] = {
            (kind, spell.start): spell for kind in MAKING for spell in self._over(kind, since, now)
        }
        gone = [key for key, run in self._given.items() if run.end > since and key not in found]
        results = [self._given.pop(key)._replace(withdrawn=True, why=_why(touched, key[1], now)) for key in gone]
        for (kind, _), spell in found.items():
            results += self._give(kind, spell, touched, now)
        return sorted(results, key=lambda run: (run.start, run.kind))

    def _reached(self, touched: Touched, now: int) -> Touched:
        return self._machine.affected(touched._replace(start=min(touched.start, now - 1)), now)

    def _over(self, kind: Making, since: int, now: int) -> Iterator[Spell]:
        return (spell for spell in self._machine.orders.spells(kind, since) if spell.end <= now)

    def _judge_again(self, now: int) -> None:
        """A stop that lasts over a change of product may be a minor one no more, or have another reason."""
        stop = self._machine.running.stop_at(now - 1, now)
        standing: tuple[Any, ...] = ()
        if stop is not None and stop.end is None:
            minor = stop.length(now) < self._machine.spec.minor_stop_below
            standing = (stop.start, minor, *self._machine.reasons(stop, now))
            if self._standing and self._standing[0] == stop.start and self._standing != standing:
                self._news.add(Touched(stop.start, now), "a stop became longer")
        self._standing = standing

    def _give(
        self, kind: Making, spell: Spell, touched: Sequence[tuple[Touched, str]], now: int
    ) -> Iterator[RunResult]:
        key = kind, spell.start
        account = Account()
        account += self._before.get(key, Account())
        account += self._windows.span(max(spell.start, self._floor), spell.end, now)
        account.products, account.orders = {}, {}
        orders = self._machine.orders
        product = spell.name if kind == "product" else orders.at("product", spell.end - 1)
        quantity = orders.quantity(spell.end) if kind == "order" else None
        was = self._given.get(key)
        told = RunResult(kind, *spell, product, quantity, account, 0, None, "")
        if was is not None:
            if was._replace(revision=0, was=None, why="") == told:
                return
            why = _why(touched, spell.start, spell.end)
            told = told._replace(revision=was.revision + 1, was=was.account, why=why)
        self._given[key] = told._replace(was=None, why="")
        yield told

    def _settle(self, floor: int, now: int) -> None:
        """What lies before ``floor`` can be corrected no more, and is about to be forgotten."""
        for kind in MAKING:
            for spell in self._machine.orders.spells(kind, self._floor):
                if spell.start < floor < spell.end:
                    account = self._before.setdefault((kind, spell.start), Account())
                    account += self._windows.span(max(spell.start, self._floor), floor, now)
                    account.products, account.orders = {}, {}
        self._floor = floor
        self._given = {key: run for key, run in self._given.items() if run.end > floor}
        kept = {(kind, spell.start) for kind in MAKING for spell in self._machine.orders.spells(kind, floor)}
        self._before = {key: account for key, account in self._before.items() if key in kept}

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {
            "plan": self._windows.plan(),
            "given": list(self._given.values()),
            "before": [(*key, account) for key, account in self._before.items()],
            "floor": self._floor,
            "news": self._news.dump(),
            "now": self._now,
            "standing": self._standing,
        }

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave; where plant file or formula were changed since, everything is looked at again."""
        self._given = {(run.kind, run.start): run for run in msgspec.convert(known["given"], list[RunResult])}
        self._before = {(kind, start): msgspec.convert(one, Account) for kind, start, one in known["before"]}
        self._floor, self._now = known["floor"], known["now"]
        self._news.load(known["news"])
        self._standing = msgspec.convert(known["standing"], tuple[Any, ...])
        if why := self._windows.outdated(known["plan"]):
            self._news.add(Touched(self._floor, self._now), why)


def _why(touched: Sequence[tuple[Touched, str]], start: int, end: int) -> str:
    """What was the first to reach into a span of time."""
    return next((why for span, why in touched if span.start < end and span.end > start), "late samples")
