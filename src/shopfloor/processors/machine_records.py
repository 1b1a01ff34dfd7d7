"""Figures of a machine, a line, an area or the site as samples: what runs, closed windows, stops."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from shopfloor.kpi.account import Account
from shopfloor.kpi.calendar import Calendar, Window
from shopfloor.kpi.figures import Figures, figures
from shopfloor.kpi.windows import Result, StopResult
from shopfloor.processors.machine_lines import Told
from shopfloor.processors.making import RATIOS, SURE, shares
from shopfloor.samples import Quality, Sample, Value

_OF_STATES: Final = frozenset({"availability"})
"""Figures that are made of states alone: where only the counter is not known they are."""


class Records:
    """Writes what is known as samples, in the site's time zone."""

    def __init__(self, calendar: Calendar) -> None:
        """``calendar``: of the site."""
        self._calendar = calendar
        self._iso = lru_cache(maxsize=4096)(self._written)

    def live(self, told: Told, now: int, window: Window, account: Account) -> Iterator[Sample]:
        """What changed of the running window since it was given last."""
        found = figures(account, told.policy)
        values: dict[str, Value] = {name: getattr(found, name) for name in RATIOS}
        values |= {"good": float(account.good), "scrap": float(account.scrap)}
        record = self._record(told, window, account, found)
        record |= {"until": self._iso(now)} | told.standing(window, now)
        record |= shares(account, told.policy, whole=False)
        values["live"] = _json(record)
        sure, of_states = _sure(found.coverage), _sure(found.state_coverage)
        for name, value in values.items():
            quality = of_states if name in _OF_STATES else sure
            if told.said.get(name) != (value, quality):
                told.said[name] = (value, quality)
                yield Sample(f"{told.id}/kpi/{name}", now, value, quality)

    def closed(self, told: Told, result: Result, now: int) -> Iterator[Sample]:
        """A window's record and main figures, stamped with its beginning."""
        window, account = result.window, result.account
        found = figures(account, told.policy)
        record = self._record(told, window, account, found) | {"revision": result.revision}
        record |= shares(account, told.policy, whole=True)
        if result.was is not None:
            before = figures(result.was, told.policy)
            record["was"] = {name: getattr(before, name) for name in RATIOS} | {
                "good": result.was.good,
                "scrap": result.was.scrap,
            }
            record |= {"why": result.why, "corrected": self._iso(now)}
        tag = f"{told.id}/kpi/{window.kind}"
        sure, of_states = _sure(found.coverage), _sure(found.state_coverage)
        yield Sample(tag, window.start, _json(record), sure)
        for name in RATIOS:
            quality = of_states if name in _OF_STATES else sure
            yield Sample(f"{tag}/{name}", window.start, getattr(found, name), quality)

    def stop(self, machine: str, stop: StopResult, now: int) -> Sample:
        """A stop's record, stamped with its beginning."""
        record: dict[str, Any] = {"machine": machine, "start": self._iso(stop.start)}
        if stop.withdrawn:
            record["withdrawn"] = True
        else:
            ends = [begin for begin, _ in stop.reasons[1:]] + [now if stop.end is None else stop.end]
            record |= {
                "end": None if stop.end is None else self._iso(stop.end),
                "class": "minor_stop" if stop.minor else "unplanned_stop",
                "state": "down" if stop.down else "idle",
                "reasons": [
                    {"reason": reason, "start": self._iso(begin), "seconds": (end - begin) / 1e9}
                    for (begin, reason), end in zip(stop.reasons, ends, strict=True)
                ],
                "unexplained": stop.unexplained,
            }
        return Sample(f"{machine}/kpi/stop", stop.start, _json(record))

    def _record(self, told: Told, window: Window, account: Account, found: Figures) -> dict[str, Any]:
        record = {
            **told.about(),
            "window": window.kind,
            "start": self._iso(window.start),
            "end": self._iso(window.end),
            "day": window.day.isoformat(),
            "shift": window.shift,
            "formula": told.policy.id,
            **vars(found),
            **account.record(),
            **told.details(account),
            **told.target(found),
        }
        if self._calendar.assumed:
            record["calendar"] = "no calendar: 24 h assumed"
        return record | told.doubts()

    def _written(self, time: int) -> str:
        seconds, rest = divmod(time, 10**9)
        return datetime.fromtimestamp(seconds, self._calendar.zone).replace(microsecond=rest // 1000).isoformat()


def _sure(coverage: float | None) -> Quality:
    return Quality.GOOD if coverage is None or coverage >= SURE else Quality.UNCERTAIN


def _json(record: Mapping[str, object]) -> str:
    return msgspec.json.encode(record).decode()
