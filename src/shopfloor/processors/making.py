"""What a machine makes: the records of products, orders and single cycles."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from shopfloor.kpi.account import Account
from shopfloor.kpi.calendar import Calendar
from shopfloor.kpi.facts import Touched
from shopfloor.kpi.figures import Policy, figures
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.orders import MAKING
from shopfloor.kpi.runs import RunResult, Runs
from shopfloor.kpi.singles import Single, Singles
from shopfloor.kpi.windows import Windows
from shopfloor.plant.machine import Machine as MachineConfig
from shopfloor.samples import Quality, Sample, TagInfo

RATIOS: Final = ("oee", "availability", "performance", "quality")
"""Figures that are given as tags of their own; the records have all of them."""
SURE: Final = 0.99
"""Figures of a window of which less is known are of uncertain quality."""


class Making:
    """Products, orders and cycles of one machine as samples."""

    def __init__(self, machine: Machine, windows: Windows, calendar: Calendar, policy: Policy) -> None:
        """Nothing is known yet."""
        self._machine = machine
        self._calendar = calendar
        self._policy = policy
        self._runs = Runs(machine, windows) if machine.orders.told else None
        self._singles = Singles(machine, windows, calendar) if machine.spec.cycles == "each" else None

    def touch(self, touched: Touched, why: str) -> None:
        """A fact came that may change this time."""
        if self._runs is not None:
            self._runs.touch(touched, why)
        if self._singles is not None:
            self._singles.touch(touched)

    def tick(self, now: int) -> Iterator[Sample]:
        """What is over, or otherwise than it was given."""
        for run in self._runs.tick(now) if self._runs is not None else ():
            yield self._run(run)
        for end, single in self._singles.tick(now) if self._singles is not None else ():
            yield Sample(f"{self._machine.spec.id}/kpi/cycle", end, _json(self._cycle(end, single)))

    def now(self, now: int) -> dict[str, str]:
        """What is made right before ``now``, for the live record."""
        orders = self._machine.orders
        if not orders.told:
            return {}
        found = {"product": orders.at("product", now - 1)}
        return found | ({"order": orders.at("order", now - 1)} if "order" in self._machine.spec.roles else {})

    def _run(self, run: RunResult) -> Sample:
        """A product's or an order's record, stamped with its beginning."""
        record: dict[str, Any] = {
            "machine": self._machine.spec.id,
            "window": run.kind,
            "start": self._iso(run.start),
            "end": self._iso(run.end),
            "day": self._calendar.local(run.start).isoformat(),
            "product": run.product,
        }
        if run.kind == "order":
            record |= {"order": run.name, **self._planned(run)}
        tag = f"{self._machine.spec.id}/kpi/{run.kind}"
        if run.withdrawn:
            return Sample(tag, run.start, _json(record | {"withdrawn": True, "why": run.why}))
        found = figures(run.account, self._policy)
        record |= {"formula": self._policy.id, **asdict(found), **run.account.record()}
        if run.account.cycles is not None:
            record["cycles"] = run.account.cycles.record()
        record |= _judged(run.account)
        record["revision"] = run.revision
        if run.was is not None:
            before = figures(run.was, self._policy)
            record["was"] = {name: getattr(before, name) for name in RATIOS}
            record["was"] |= {"good": run.was.good, "scrap": run.was.scrap}
            record["why"] = run.why
        sure = found.coverage is None or found.coverage >= SURE
        return Sample(tag, run.start, _json(record), Quality.GOOD if sure else Quality.UNCERTAIN)

    def _planned(self, run: RunResult) -> dict[str, Any]:
        """What was planned: what the machine says counts before the plant file."""
        order = self._machine.spec.orders.get(run.name)
        quantity = run.quantity if run.quantity is not None or order is None else order.quantity
        found: dict[str, Any] = {"planned_quantity": quantity, "due": None}
        if order is not None and order.due:
            due = datetime.fromisoformat(order.due)
            found["due"] = (due if due.tzinfo else due.replace(tzinfo=self._zone)).isoformat()
        return found

    def _cycle(self, end: int, single: Single | None) -> dict[str, Any]:
        record: dict[str, Any] = {"machine": self._machine.spec.id, "end": self._iso(end)}
        if single is None:
            return record | {"withdrawn": True}
        cycle = single.cycle
        record |= {
            "start": self._iso(cycle.start),
            "class": cycle.kind,
            "seconds": cycle.length / 1e9 if cycle.kind == "cycle" else None,
            "ideal_seconds": None if single.ideal is None else single.ideal / 1e9,
            "units": cycle.quantity,
            "good": single.good,
            "scrap": single.scrap,
        }
        return record | ({"product": single.product, "order": single.order} if self._machine.orders.told else {})

    @property
    def _zone(self) -> ZoneInfo:
        return self._calendar.zone

    def _iso(self, time: int) -> str:
        seconds, rest = divmod(time, 10**9)
        return datetime.fromtimestamp(seconds, self._zone).replace(microsecond=rest // 1000).isoformat()

    def dump(self) -> dict[str, Any]:
        """Everything, for ``load``."""
        return {
            "made": self._machine.orders.dump() if self._runs is not None else None,
            "runs": self._runs.dump() if self._runs is not None else None,
            "singles": self._singles.dump() if self._singles is not None else None,
        }

    def load(self, known: Mapping[str, Any]) -> None:
        """What ``dump`` gave, as far as it is asked for still."""
        if self._runs is not None and known["runs"] is not None:
            self._machine.orders.load(known["made"])
            self._runs.load(known["runs"])
        if self._singles is not None and known["singles"] is not None:
            self._singles.load(known["singles"])


def _json(record: Mapping[str, object]) -> str:
    return msgspec.json.encode(record).decode()


def made(machine: MachineConfig) -> Iterator[TagInfo]:
    """The tags of what a machine makes."""
    for kind in MAKING:
        if kind in machine.roles:
            text = f"All figures of each {kind} that was made"
            yield TagInfo(f"{machine.id}/kpi/{kind}", data_type="json", description=text)
    if machine.cycles == "each":
        yield TagInfo(f"{machine.id}/kpi/cycle", data_type="json", description="Each cycle, stamped with its end")


def shares(account: Account, policy: Policy, *, whole: bool) -> dict[str, Any]:
    """Of a window's record what is about products, orders and cycles; ``whole``: with all that adds up."""
    found: dict[str, Any] = {}
    if account.products:
        found["products"] = {name: _share(part, policy) for name, part in sorted(account.products.items())}
        unknown = sorted(name for name, part in account.products.items() if part.without_ideal)
        if unknown:
            found["without_ideal_cycle"] = unknown
    if account.orders:
        found["orders"] = {name: _share(part, policy) for name, part in sorted(account.orders.items())}
    if account.cycles is not None:
        found["cycles"] = account.cycles.record(histogram=whole)
    return found | _judged(account)


def _judged(account: Account) -> dict[str, Any]:
    """What of the units counts otherwise than the machine said."""
    names = ("to_good", "to_scrap", "unmatched")
    judged = {name: getattr(account, name) for name in names}
    return {"rejudged": judged} if any(judged.values()) else {}


def _share(part: Account, policy: Policy) -> dict[str, Any]:
    ratios = figures(part, policy)
    known = part.record()
    found: dict[str, Any] = {name: getattr(ratios, name) for name in RATIOS}
    for name in ("good", "scrap", "ideal_seconds", "without_ideal", "beyond", "outside", "seconds"):
        found[name] = known[name]
    return found
