"""Units that were judged otherwise later, against a plain recomputation."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings, strategies as st

from shopfloor.kpi.account import Account
from shopfloor.kpi.facts import Rejudged
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import Spec
from tests.kpi.test_machine import NOW, Planned, kinds, laid_out, window

Unit = tuple[int, str, int, int]
"""Time, good or scrap, how many, why."""

units = st.lists(
    st.tuples(
        st.integers(0, NOW - 1), st.sampled_from(["good", "scrap"]), st.integers(1, 5), st.sampled_from([0, 1, 2])
    ),
    max_size=30,
)
said = st.lists(
    st.tuples(st.integers(0, NOW - 1), st.integers(1, 150), st.integers(1, 9), st.booleans(), st.sampled_from("ab")),
    max_size=5,
)
REASONS = {"1": "a", "2": "b"}


def fed(made: Sequence[Unit], judged: Sequence[tuple[int, int, int, bool, str]], *, total: bool = False) -> Machine:
    counts = ("total", "scrap") if total else ("good", "scrap")
    roles = {role: f"m/{role}" for role in ("state", *counts, "scrap_reason")}
    spec = Spec("m", roles, counting="event", ideal_cycle=3, scrap_reasons=REASONS)  # type: ignore[arg-type]
    machine = Machine(spec)
    machine.facts.take("state", 0, 6, "plc")
    for time, kind, quantity, why in made:
        if total:
            machine.facts.take("total", time, quantity, "plc")
        if kind == "scrap" or not total:
            machine.facts.take(kind, time, quantity, "plc")  # type: ignore[arg-type]
        machine.facts.take("scrap_reason", time, why, "plc")
    for at, (start, length, quantity, good, reason) in enumerate(judged):
        machine.facts.rejudge(Rejudged(start, start + length, quantity, good, "" if good else reason, at))
    return machine


def plainly(
    made: Sequence[Unit], judged: Sequence[tuple[int, int, int, bool, str]], outside: set[int]
) -> tuple[list[tuple[int, str, str]], int]:
    """Every single unit with what it is in the end, one statement after the other, and how many had no unit."""
    every: list[list[Any]] = [
        [time, kind, REASONS.get(str(why), "") if kind == "scrap" else ""]
        for time, kind, quantity, why in sorted(made)
        for _ in range(quantity)
        if time not in outside
    ]
    unmatched = 0
    for start, length, quantity, good, reason in judged:
        for _ in range(quantity):
            wrong = "scrap" if good else "good"
            found = [unit for unit in every if start <= unit[0] < start + length and unit[1] == wrong]
            if not found:
                unmatched += 1
                continue
            found[0][1], found[0][2] = ("good", "") if good else ("scrap", reason)
    return [(time, kind, why) for time, kind, why in every], unmatched


@settings(max_examples=300, deadline=None)
@given(units, said, kinds, st.lists(st.integers(1, NOW - 1), max_size=6), st.booleans())
def test_units_become_what_people_say_each_where_it_was_made(
    made: list[Unit], judged: list[tuple[int, int, int, bool, str]], planned: list[tuple[int, int, str]],
    cuts: list[int], total: bool,  # noqa: FBT001
) -> None:  # fmt: skip
    """Of one time one unit record: which of several reasons goes first is not said."""
    made = list({unit[0]: unit for unit in made}.values())
    calendar = Planned(laid_out(planned))
    machine = fed(made, judged, total=total)
    every, unmatched = plainly(made, judged, set(calendar.kinds))
    whole = window(machine, calendar, 0, NOW)
    assert whole.unmatched == unmatched
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        part = window(machine, calendar, start, end)
        inside = [(kind, why) for time, kind, why in every if start <= time < end]
        assert (part.good, part.scrap) == (sum(k == "good" for k, _ in inside), sum(k == "scrap" for k, _ in inside))
        if len(judged) < 2:  # of a unit that was moved twice the reason depends on which of its time it was
            assert part.scraps == {
                why: sum((k, w) == ("scrap", why) for k, w in inside) for k, why in inside if k == "scrap"
            }
        joined += part
    assert joined == whole
    before = window(fed(made, [], total=total), calendar, 0, NOW)
    assert whole.produced == before.produced
    assert whole.good - whole.to_good + whole.to_scrap == before.good
    assert whole.ideal == before.ideal


@settings(max_examples=80, deadline=None)
@given(units, said, st.tuples(st.integers(0, NOW - 1), st.integers(1, 5)))
def test_what_a_late_unit_changes_is_announced(
    made: list[Unit], judged: list[tuple[int, int, int, bool, str]], late: tuple[int, int]
) -> None:
    machine = fed(made, judged)
    before = [window(machine, Planned({}), time, time + 1) for time in range(NOW)]
    touched = machine.facts.take("good", *late, "plc")
    start, end = (0, 0) if touched is None else machine.affected(touched, NOW)
    for time in range(NOW):
        if not start <= time < end:
            assert window(machine, Planned({}), time, time + 1) == before[time]


@settings(max_examples=100, deadline=None)
@given(units, said, st.randoms(use_true_random=False))
def test_statements_count_in_the_order_in_which_they_were_made(
    made: list[Unit], judged: list[tuple[int, int, int, bool, str]], chance: object
) -> None:
    """However they come in: the time of each is its own."""
    machine, other = fed(made, judged), fed(made, [])
    stored = list(machine.facts.rejudged)
    chance.shuffle(stored)  # type: ignore[attr-defined]
    for one in stored:
        other.facts.rejudge(one)
    assert window(other, Planned({}), 0, NOW) == window(machine, Planned({}), 0, NOW)
