"""Figures of machines: the published numbers of public literature, and what has no meaning has no value."""

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, strategies as st

from shopfloor import plant
from shopfloor.kpi.account import Account, TimeClass
from shopfloor.kpi.calendar import Calendar, Stretch
from shopfloor.kpi.figures import Figures, Policy, figures, percent
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import Spec
from shopfloor.samples import Batch, Sample

SECOND = 10**9
MINUTE = 60 * SECOND
DAY = 24 * 60
BEGIN = 1_767_571_200 * SECOND  # Monday 2026-01-05, 00:00 UTC
UTC = Calendar("UTC")


class Example(NamedTuple):
    """A line of literature.tsv."""

    source: str
    planned: int
    stopped: int
    ideal: int
    """ns for a unit."""
    units: int
    good: int
    published: tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]
    """Availability, performance, quality, OEE in per cent."""
    how: str


def literature() -> Iterator[Example]:
    for line in (Path(__file__).parent / "literature.tsv").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        source, planned, stopped, ideal, units, good, a, p, q, oee, how = line.split("\t")
        told = tuple(None if text == "-" else Decimal(text) for text in (a, p, q, oee))
        times = int(planned), int(stopped), int(Decimal(ideal) * SECOND)
        yield Example(source, *times, int(units), int(good), told, how)  # type: ignore[arg-type]


EXAMPLES = list(literature())
by_source = pytest.mark.parametrize("example", EXAMPLES, ids=[example.source[:40] for example in EXAMPLES])


def shown(fraction: float, like: Decimal, how: str) -> Decimal:
    """A fraction as the source would print it."""
    rounding = ROUND_DOWN if how.startswith("cut") else ROUND_HALF_UP
    return (Decimal(repr(fraction)) * 100).quantize(like, rounding)


def agrees(example: Example, found: Figures) -> None:
    """The figures are what the source says, in its digits and by its way of rounding."""
    ours = found.availability, found.performance, found.quality, found.oee
    told = list(example.published)
    if example.how.endswith("factors"):
        # An OEE that was multiplied out of rounded factors: not ours, but not far away.
        a, p, q, oee = (figure for figure in told if figure is not None)
        assert (a * p * q / 10_000).quantize(oee, ROUND_HALF_UP) == oee
        assert found.oee is not None
        assert abs(Decimal(repr(found.oee)) * 100 - oee) < Decimal("0.15")
        told[3] = None
    pairs = [(mine, figure) for mine, figure in zip(ours, told, strict=True) if figure is not None]
    assert pairs
    assert [shown(mine or 0, figure, example.how) for mine, figure in pairs] == [figure for _, figure in pairs]


def test_there_are_enough_examples() -> None:
    """At least ten have an OEE, of at least ten sources."""
    whole = {example.source for example in EXAMPLES if example.published[3] is not None}
    assert len(whole) >= 10


@by_source
def test_literature_by_an_account(example: Example) -> None:
    account = Account(good=example.good, scrap=example.units - example.good, ideal=example.ideal * example.units)
    account.times[TimeClass.PRODUCTION] = (example.planned - example.stopped) * MINUTE
    account.times[TimeClass.UNPLANNED_STOP] = example.stopped * MINUTE
    agrees(example, figures(account))


def samples(example: Example, begin: int) -> list[Sample]:
    """A machine that does what the example says: it runs, then stands until the end; units come in ten portions."""
    stop = begin + (example.planned - example.stopped) * MINUTE
    told = [Sample("m/state", begin, 6), Sample("m/state", stop, 9)]
    for part in range(11):
        time = begin + (stop - begin) * part // 11
        told.append(Sample("m/good", time, example.good * part // 10))
        told.append(Sample("m/scrap", time, (example.units - example.good) * part // 10))
    return told


@by_source
def test_literature_by_a_machine(example: Example) -> None:
    roles = {"state": "m/state", "good": "m/good", "scrap": "m/scrap"}
    machine = Machine(Spec("m", roles, ideal_cycle=example.ideal))  # type: ignore[arg-type]
    for tag, time, value, _ in ((s.tag, s.time, s.value, s.quality) for s in samples(example, BEGIN)):
        machine.facts.take(tag.removeprefix("m/"), time, value, "plc")  # type: ignore[arg-type]
    end = BEGIN + example.planned * MINUTE
    found = machine.evaluate(Stretch(BEGIN, end, "shift", "", UTC.local(BEGIN)), UTC, end)
    assert (found.good, found.scrap) == (example.good, example.units - example.good)
    agrees(example, figures(found))


PLANT = """
plant: {{site: test, timezone: UTC}}
shifts: [{{name: long, days: mon, from: "00:00", to: "{to}"}}]
machines: [{{id: m, ideal_cycle: {ideal} ms, state: m/state, good: m/good, scrap: m/scrap}}]
sources: [{{name: plc, type: mqtt, servers: ["mqtt://127.0.0.1"], topics: [{{topic: "#"}}]}}]
processors: [{{name: oee, type: machine}}]
"""


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.planned <= DAY], ids=lambda e: e.source[:40])
def test_literature_by_the_processor(example: Example) -> None:
    """From samples to the record of the shift that every sink gets."""
    to = f"{example.planned // 60:02}:{example.planned % 60:02}"
    text = PLANT.format(to=to, ideal=Decimal(example.ideal) / 10**6)
    processor = plant.parse(text, "plant.yaml", Path("/nowhere"), {}).processors[0].build()
    processor.process(Batch.of("plc", BEGIN, sorted(samples(example, BEGIN), key=lambda s: s.time)))
    ticks = [Sample("$clock/tick", BEGIN + minute * MINUTE, 0) for minute in (1, example.planned)]
    given = processor.process(Batch.of("$clock", BEGIN, ticks))
    record = next(json.loads(str(s.value)) for s in given if s.tag == "m/kpi/shift")
    names = ("availability", "performance", "quality", "oee")
    account = figures(Account())
    agrees(example, replace(account, **{name: record[name] for name in names}))
    told = {s.tag: s.value for s in given}
    assert [told[f"m/kpi/shift/{name}"] for name in names] == [record[name] for name in names]


def account(**given: int) -> Account:
    """Times in minutes by class; good, scrap, ideal (minutes), incidents and the like by name."""
    found = Account()
    for name, value in given.items():
        if name in set(TimeClass):
            found.times[TimeClass(name)] = value * MINUTE
        else:
            setattr(found, name, value * MINUTE if name in ("ideal", "uncounted", "uncounted_minor") else value)
    return found


def test_nothing_planned_has_no_figures() -> None:
    """Not 0 and not 1: there is nothing that could have been better or worse."""
    found = figures(account(not_scheduled=400, planned_stop=80, outside=7))
    times = {"planned_seconds", "actual_seconds", "uncounted_seconds"}
    assert {name for name, value in vars(found).items() if value is not None} == times


def test_no_unit_has_no_quality_and_so_no_oee() -> None:
    found = figures(account(production=100, unplanned_stop=100))
    assert (found.availability, found.performance, found.quality, found.oee) == (0.5, 0.0, None, None)
    assert (found.health, found.scrap_rate, found.error_rate) == (None, None, 0.5)


def test_no_ideal_cycle_has_no_performance_and_so_no_oee() -> None:
    found = figures(account(production=100, good=9, scrap=1, without_ideal=10))
    assert (found.performance, found.oee, found.oee_low, found.oee_high, found.nee, found.teep) == (None,) * 6
    assert found.quality == 0.9


def test_one_unit_without_an_ideal_cycle_is_enough() -> None:
    """A performance of a part of the units would be a confident wrong number."""
    assert figures(account(production=100, good=9, scrap=1, ideal=50, without_ideal=1)).performance is None


def test_unknown_all_the_time_has_no_figures_but_bounds_of_nothing() -> None:
    found = figures(account(unknown=480))
    assert (found.availability, found.oee, found.coverage) == (None, None, 0.0)


def test_production_without_a_known_counter_is_left_out_of_performance_and_widens_the_bounds() -> None:
    """Of 80 min of production the counter was known for 60: 54 / 60; the 20 may have made nothing, or as much."""
    found = figures(account(production=80, unplanned_stop=20, uncounted=20, ideal=54, good=9, scrap=1))
    assert (found.availability, found.state_coverage) == (0.8, 1.0)
    assert (found.performance, found.coverage, found.uncounted_seconds) == (0.9, 0.8, 20 * 60)
    assert found.oee == pytest.approx(0.8 * 0.9 * 0.9)
    assert found.oee_low == pytest.approx(0.54 * 0.9)
    assert found.oee_high == found.oee


def test_no_counter_at_all_has_an_availability_and_nothing_else() -> None:
    found = figures(account(production=80, unplanned_stop=20, uncounted=80))
    assert (found.availability, found.performance, found.oee, found.oee_low) == (0.8, None, None, None)
    assert (found.coverage, found.state_coverage) == (0.2, 1.0)


def test_minor_stops_without_a_known_counter_are_left_out_where_they_are_a_loss_of_performance() -> None:
    given = account(production=60, minor_stop=20, uncounted=10, uncounted_minor=10, ideal=45, good=1)
    habit, iso = figures(given), figures(given, Policy("availability"))
    assert (habit.performance, habit.coverage) == (0.75, 0.75)
    assert (iso.performance, iso.coverage) == (0.9, 0.875)


def test_a_stop_all_the_time_is_an_availability_of_0() -> None:
    found = figures(account(unplanned_stop=480, incidents=1))
    assert (found.availability, found.performance, found.error_rate) == (0.0, None, 1.0)
    assert (found.mtbf, found.mttr) == (0.0, 480 * 60)


def test_performance_above_1_is_not_clipped_but_makes_no_machine_healthier_than_healthy() -> None:
    found = figures(account(production=100, ideal=150, good=10))
    assert (found.performance, found.oee) == (1.5, 1.5)
    assert found.health == 100


def test_minor_stops_are_a_loss_of_performance_or_of_availability() -> None:
    """The policy moves the loss from one factor to another; the OEE is the same."""
    given = account(production=60, minor_stop=20, unplanned_stop=20, ideal=48, good=9, scrap=1)
    habit, iso = figures(given), figures(given, Policy("availability"))
    assert (habit.availability, habit.performance) == (0.8, 0.6)
    assert (iso.availability, iso.performance) == (0.6, 0.8)
    assert habit.oee == pytest.approx(iso.oee) == pytest.approx(0.432)
    assert Policy().id != Policy("availability").id


def test_health_by_hand() -> None:
    """OEE 0.432, 10 % scrap, 20 % of the time in unplanned stops: 21.6 + 22.5 + 20."""
    given = account(production=60, minor_stop=20, unplanned_stop=20, ideal=48, good=9, scrap=1)
    assert figures(given).health == pytest.approx(64.1)
    assert figures(given, Policy(weights=(1, 0, 0))).health == pytest.approx(43.2)
    assert Policy(weights=(1, 0, 0)).id != Policy().id


def test_nee_and_teep_by_hand() -> None:
    given = account(not_scheduled=100, production=60, setup=20, unplanned_stop=20, ideal=48, good=9, scrap=1)
    found = figures(given)
    assert found.oee == pytest.approx(0.6 * 0.8 * 0.9)
    assert found.nee == pytest.approx(0.8 * 0.8 * 0.9)
    assert found.teep == pytest.approx(0.6 * 0.8 * 0.9 / 2)


minutes = st.integers(0, 1000)


def silent(found: Account, production: float, minor: float) -> Account:
    """Of these shares of its production and its minor stops the counter is not known."""
    found.uncounted = round(production * found.times[TimeClass.PRODUCTION])
    found.uncounted_minor = round(minor * found.times[TimeClass.MINOR_STOP])
    return found


shares = st.sampled_from([0, 0, 0.25, 1])
accounts = st.builds(
    silent,
    st.builds(
        account,
        **{name.value: minutes for name in TimeClass},
        good=minutes,
        scrap=minutes,
        ideal=minutes,
        incidents=st.integers(0, 5),
    ),
    shares,
    shares,
)


@given(accounts, st.sampled_from([Policy(), Policy("availability")]))
def test_the_bounds_hold_the_oee(given: Account, policy: Policy) -> None:
    """Low ≤ OEE ≤ high; all the same when everything is known; further apart the less is known."""
    found = figures(given, policy)
    if found.oee is None:
        return
    assert found.oee_low is not None
    assert found.oee_high is not None
    assert found.oee_low <= found.oee * (1 + 1e-12)
    assert found.oee <= found.oee_high * (1 + 1e-12)
    if not given.times[TimeClass.UNKNOWN] and not found.uncounted_seconds:
        assert found.oee_low == found.oee == found.oee_high
        assert found.coverage == 1
    given.times[TimeClass.UNKNOWN] += MINUTE
    less = figures(given, policy)
    assert less.oee == found.oee
    assert less.oee_low is not None
    assert less.oee_low <= found.oee_low


@given(accounts, accounts, st.sampled_from([Policy(), Policy("availability")]))
def test_joined_windows_lie_between_their_parts(one: Account, other: Account, policy: Policy) -> None:
    """Adding times and units, never averaging: a ratio of the whole is no better and no worse than both parts."""
    parts = figures(one, policy), figures(other, policy)
    one += other
    whole = figures(one, policy)
    for name in ("availability", "performance", "quality", "scrap_rate", "error_rate", "coverage", "state_coverage"):
        told = [value for part in parts if (value := getattr(part, name)) is not None]
        if len(told) == 2:
            assert min(told) - 1e-9 <= getattr(whole, name) <= max(told) + 1e-9, name


@pytest.mark.parametrize(
    ("fraction", "digits", "text"),
    [
        (0.8725, 1, "87.3 %"),  # whose binary neighbour is below it
        (0.87249, 1, "87.2 %"),
        (0.00045, 2, "0.05 %"),
        (0.125, 0, "13 %"),
        (0.115, 0, "12 %"),
        (1.0, 1, "100.0 %"),
        (1.5, 1, "150.0 %"),
        (0.0, 1, "0.0 %"),
        (1e-9, 1, "0.0 %"),
        (None, 1, "—"),
    ],
)
def test_percentages_are_rounded_half_up(fraction: float | None, digits: int, text: str) -> None:
    assert percent(fraction, digits) == text
