"""Plays scenarios: the processor of figures works in quick motion on what machines do; its records are looked at."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby
from typing import Any, Final, NamedTuple, cast

from shopfloor.kpi.account import TimeClass
from shopfloor.kpi.calendar import Calendar, calendar_of
from shopfloor.plant import Plant
from shopfloor.plant.reader import Problem
from shopfloor.plant.units import DURATION_UNITS
from shopfloor.processors.machine import TICK, MachineKpiConfig
from shopfloor.samples import Batch, Quality, Sample
from shopfloor.scenarios.notation import (
    MADE,
    WINDOWS,
    Amount,
    Bad,
    Eval,
    Expectation,
    Expected,
    File,
    Load,
    Scenario,
    ScenarioError,
    When,
)
from shopfloor.seams import Processor

SECOND: Final = DURATION_UNITS["s"]
MINUTE: Final = DURATION_UNITS["min"]
RATIOS: Final = (
    "oee", "availability", "performance", "quality", "oee_low", "oee_high", "nee", "teep", "scrap_rate", "error_rate",
    "coverage", "state_coverage",
)  # fmt: skip
SECONDS: Final = ("mtbf", "mttr", "planned_seconds", "actual_seconds", "uncounted_seconds", "ideal_seconds", "seconds")
CYCLE_SECONDS: Final = ("seconds", "mean", "shortest", "median", "p95", "longest", "loss", "gain")
CLASSES: Final = tuple(name.value for name in TimeClass)
_PARTS: Final = {"loss": "losses", "lost_to": "lost_to", "scrap_reason": "scrap_by_reason"}
"""Where in a record the figures are that need a name behind them."""
_SHARE: Final = "%"
_ORDER: Final = ("machine", "line", "area", "site", "window", "start", "end", "day", "shift", "formula")


class Failure(NamedTuple):
    """A figure that is not what was expected."""

    file: str
    line: int
    scenario: str
    window: str
    expected: str
    got: str
    record: Mapping[str, Any]
    """The whole record; empty when there is none, or when it was given with the failure before."""

    def __str__(self) -> str:
        head = f"{self.file}:{self.line}: {self.window}: expected {self.expected}, got {self.got}"
        return "\n".join((head, *([f"    in: {self.scenario}", *_shown(self.record)] if self.record else [])))


class Played(NamedTuple):
    """What became of the scenarios of a file."""

    scenarios: int
    figures: int
    """How many figures were looked at."""
    failures: list[Failure]


_Key = tuple[str, str, int]
"""Machine, window, begin in ns."""
_Records = dict[_Key, Mapping[str, Any]]


def play(file: File) -> Played:
    """Every scenario of a file, each on a plant that knows nothing yet. Raises ScenarioError."""
    failures: list[Failure] = []
    figures = 0
    for scenario in file.scenarios:
        for moment, records in _Play(file, scenario).records():
            for expectation in moment.expectations:
                figures += len(expectation.expected)
                failures += _compared(file, scenario, expectation, records)
    return Played(len(file.scenarios), figures, failures)


def summary(played: Sequence[Played]) -> str:
    """``8 scenarios, 64 figures: all as expected``."""
    scenarios, figures = sum(one.scenarios for one in played), sum(one.figures for one in played)
    wrong = sum(len(one.failures) for one in played)
    verdict = f"{wrong} {'is' if wrong == 1 else 'are'} not as expected" if wrong else "all as expected"
    return f"{scenarios} scenario{'s' * (scenarios != 1)}, {figures} figures: {verdict}"


class _Arrival(NamedTuple):
    """Something that comes."""

    time: int
    rank: int
    """Of what comes at the same time the lower comes first."""
    source: str
    sample: Sample


class _Play:
    """One scenario under way."""

    def __init__(self, file: File, scenario: Scenario) -> None:
        self._file = file
        self._scenario = scenario
        self._calendar = _calendar(file.plant)

    def records(self) -> Iterator[tuple[Eval, _Records]]:
        """Each moment of the scenario, in order, with the newest record of each window then."""
        processor = _processor(self._file)
        start = self._at(self._scenario.start)
        arrivals = sorted(self._arrivals(start), key=lambda one: (one.time, one.rank, one.sample.time))
        known: _Records = {}
        now, place = start, 0
        for moment in sorted(self._scenario.evals, key=lambda one: self._at(one.when)):
            end = self._at(moment.when)
            if end <= start:
                line = moment.expectations[0].line if moment.expectations else self._scenario.line
                text = "looks before the scenario has started; write a later `eval at`, with a date on another day"
                raise ScenarioError([Problem(self._file.name, line, "", text)])
            while now < end:
                now = min(now + MINUTE, end)
                first = place
                while place < len(arrivals) and arrivals[place].time <= now:
                    place += 1
                self._feed(processor, arrivals[first:place], known, now)
            yield moment, known

    def _at(self, when: When) -> int:
        return self._calendar.instant(self._scenario.day(when), when.minutes)

    def _arrivals(self, start: int) -> Iterator[_Arrival]:
        """What comes when: a source is back first, then it gives what it has, then it says that this was all."""
        for load in self._scenario.loads:
            begin = start if load.begin is None else self._at(load.begin)
            at_once = 0 if load.arrives is None else self._at(load.arrives)
            for sample in _loaded(load, begin):
                yield _Arrival(max(sample.time + load.late, at_once), 1, load.source, sample)
        for lost in self._scenario.losses:
            yield _presence(lost.source, "connected", self._at(lost.begin), there=False)
            if lost.end is not None:
                yield _presence(lost.source, "connected", self._at(lost.end), there=True)
            if lost.end is not None and lost.kept:
                yield _presence(lost.source, "complete", self._at(lost.end), there=True)

    @staticmethod
    def _feed(processor: Processor, arrivals: Sequence[_Arrival], known: _Records, now: int) -> None:
        given: list[Sample] = []
        for source, group in groupby(arrivals, key=lambda arrival: arrival.source):
            given += processor.process(Batch.of(source, now, [arrival.sample for arrival in group]))
        given += processor.process(Batch("$clock", now, [TICK], [now], [now]))
        for sample in given:
            machine, found, window = sample.tag.rpartition("/kpi/")
            if found and window in WINDOWS and isinstance(sample.value, str):
                key = machine, window, 0 if window == "live" else sample.time
                known[key] = json.loads(sample.value)
                if known[key].get("withdrawn"):
                    del known[key]


def _presence(source: str, what: str, time: int, *, there: bool) -> _Arrival:
    rank = 2 if what == "complete" else 0
    return _Arrival(time, rank, "$source", Sample(f"$source/{source}/{what}", time, there))


def _loaded(load: Load, begin: int) -> Iterator[Sample]:
    for series in load.series:
        for step, value in series.values:
            time = begin + step * load.step
            if isinstance(value, Bad):
                yield Sample(series.tag, time, None, Quality.BAD)
            else:
                yield Sample(series.tag, time, value)


def _calendar(plant: Plant) -> Calendar:
    return calendar_of(plant.plant.timezone, plant.shifts, plant.exceptions)


def _processor(file: File) -> Processor:
    """The plant's processor of figures, or one as it is without options."""
    found = next((config for config in file.plant.processors if isinstance(config, MachineKpiConfig)), None)
    if found is None:
        found = MachineKpiConfig(name="figures")
        found.place(file.plant)
    return found.build()


# --- what is expected


def _compared(file: File, scenario: Scenario, expectation: Expectation, records: _Records) -> Iterator[Failure]:
    place = file.name, expectation.line, scenario.title, expectation.label
    record = _record(file, expectation, scenario.day(expectation.begin), records)
    if record is None:
        there = sorted(key[1:] for key in records if key[0] == expectation.machine)
        hint = "nothing is known of it then" if not there else "that window was not closed then"
        yield Failure(*place, "a record", f"none: {hint}", {})
        return
    shown: Mapping[str, Any] = record
    for expected in expectation.expected:
        try:
            got = _differs(expected, record)
        except ValueError as error:
            raise ScenarioError([Problem(file.name, expectation.line, "", str(error))]) from error
        if got is not None:
            yield Failure(*place, expected.text, got, shown)
            shown = {}


def _record(file: File, expectation: Expectation, day: date, records: _Records) -> Mapping[str, Any] | None:
    if expectation.window == "hour":
        begin = _calendar(file.plant).instant(day, expectation.begin.minutes)
        return records.get((expectation.machine, "hour", begin))
    if expectation.window == "cycle":
        ended = _calendar(file.plant).instant(day, expectation.begin.minutes) + expectation.seconds * SECOND
        return records.get((expectation.machine, "cycle", ended))
    if expectation.window in MADE:
        return _run(file, expectation, day, records)
    for (machine, window, _), record in records.items():
        if (machine, window) != (expectation.machine, expectation.window):
            continue
        if window == "live" or (record["day"] == day.isoformat() and record["shift"] == expectation.shift):
            return record
    return None


def _run(file: File, expectation: Expectation, day: date, records: _Records) -> Mapping[str, Any] | None:
    """The product, or the order, that began at a time; without one the last of its name."""
    begin = expectation.begin.minutes
    at = _calendar(file.plant).instant(day, begin) if begin >= 0 else None
    found = [
        (time, record)
        for (machine, window, time), record in records.items()
        if (machine, window) == (expectation.machine, expectation.window)
        and record[window] == expectation.shift
        and at in (None, time)
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def _differs(expected: Expected, record: Mapping[str, Any]) -> str | None:
    """What the record says instead; None when it is what is expected. Raises ValueError where that makes no sense."""
    got = _figure(expected, record)
    if not isinstance(expected.value, Amount):
        text = None if got is None else str(got)
        return None if text == expected.value else (text or "—")
    amount = expected.value
    scale = _scale(expected, amount.unit)
    if got is None:
        return "—"
    if isinstance(got, str | bool):
        # An order's number is a name.
        return None if str(got) == expected.text.split(maxsplit=1)[-1] else str(got)
    found = Decimal(repr(got)) * scale
    if amount.tolerance is not None:
        agrees = abs(found - amount.number) <= amount.tolerance
    else:
        agrees = found.quantize(amount.number, ROUND_HALF_UP) == amount.number
    return None if agrees else f"{round(found, 4).normalize():f} {amount.unit}".strip()


def _figure(expected: Expected, record: Mapping[str, Any]) -> Any:
    """The value of a record, seconds and ratios as they are stored."""
    if expected.within:
        return _part_figure(expected, record)
    key = expected.key
    if key in _PARTS and (part := _PARTS[key]) in record:
        return _part(record[part].get(expected.of, 0))
    if key == "target":
        met = record.get(key, {}).get(expected.of, {"met": None})["met"]
        return None if met is None else "met" if met else "missed"
    if key in CLASSES:
        return record["seconds"][key]
    optional = (
        "why",
        "revision",
        "planned_quantity",
        "due",
        "product",
        "order",
        "state",
        "stands_for",
        "calendar",
        "too_late",
        "from_the_future",
    )
    if key not in record and key in optional:
        return None
    if key not in record or isinstance(record[key], dict | list):
        names = [name for name, value in record.items() if not isinstance(value, dict | list)]
        more = ("loss REASON", "scrap_reason REASON", "target FIGURE", *(["lost_to MACHINE"] * ("lost_to" in record)))
        known = ", ".join(sorted({*names, *CLASSES, *more}))
        msg = f"there is no figure {key!r}; known: {known}"
        raise ValueError(msg)
    return record[key]


def _part(value: Any) -> Any:
    """What one reason or one machine is to blame for: seconds of a loss, units of scrap."""
    return _inside(value).get("seconds", value)


def _part_figure(expected: Expected, record: Mapping[str, Any]) -> Any:
    """Of what a record says of its cycles, of one product or of one order."""
    key = expected.key
    if expected.within == "cycle":
        return _named(record.get("cycles"), key, f"cycle {key}")
    share = record.get(f"{expected.within}s", {}).get(expected.of)
    if share is not None and key in CLASSES:
        return share["seconds"][key]
    return _named(share, key, f"{expected.within} {expected.of} {key}")


def _named(part: Mapping[str, Any] | None, key: str, name: str) -> Any:
    """A figure of a part of a record; None where there is no such part."""
    if part is None:
        return None
    if key not in part or isinstance(part[key], dict | list):
        known = ", ".join(sorted(name for name, value in part.items() if not isinstance(value, dict | list)))
        msg = f"there is no figure {name!r}; known there: {known}"
        raise ValueError(msg)
    return part[key]


def _scale(expected: Expected, unit: str) -> Decimal:
    """What a stored figure is to be multiplied by to be in the unit that is written."""
    key = expected.key
    timed = (
        key in CLASSES
        or key in SECONDS
        or key in ("loss", "lost_to")
        or (expected.within == "cycle" and key in CYCLE_SECONDS)
    )
    if timed and unit in ("", _SHARE):
        msg = f"{key!r} is a time; write it with its unit: `{key} 30 min`"
        raise ValueError(msg)
    if timed:
        return Decimal(DURATION_UNITS["s"]) / DURATION_UNITS[unit]
    if unit == _SHARE and key in RATIOS:
        return Decimal(100)
    if unit:
        msg = f"{key!r} is not in {unit}; write it " + ("in per cent: `74.8 %`" if key in RATIOS else "without a unit")
        raise ValueError(msg)
    return Decimal(1)


def _shown(record: Mapping[str, Any]) -> Iterator[str]:
    """A record as lines for people, without what is nothing."""
    if not record:
        return
    yield "    " + ", ".join(f"{name} {record[name]}" for name in _ORDER if record.get(name))
    plain = {name: value for name, value in record.items() if name not in _ORDER and not isinstance(value, dict)}
    yield "    " + ", ".join(f"{name} {_rounded(value)}" for name, value in plain.items() if value not in (None, 0))
    for name, value in record.items():
        inside = _inside(value)
        if any(inside.values()):
            told = (f"{key or 'no reason'} {_rounded(one)}" for key, one in inside.items() if one)
            yield f"    {name}: " + ", ".join(told)


def _inside(value: object) -> Mapping[str, Any]:
    """What is in a part of a record; nothing in what is no part."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _rounded(value: object) -> object:
    if inside := _inside(value):
        return " ".join(f"{name} {_rounded(one)}" for name, one in inside.items())
    return round(value, 4) if isinstance(value, float) else value
