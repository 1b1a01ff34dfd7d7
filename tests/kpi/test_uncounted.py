"""Production time of which no counter is known: it is left out of performance, and so are units that came over it.

Against an independent recomputation, for each way of counting and whatever of `total`, `good` and `scrap` there is.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import example, given, settings, strategies as st

from shopfloor.kpi.account import OUTSIDE, Account, TimeClass
from shopfloor.kpi.facts import BAD, Role
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import Spec
from tests.kpi.reference import History, Tells, Told
from tests.kpi.test_machine import NOW, Planned, kinds, laid_out, losses, told_counts, told_states, unique, window

IDEAL = 3
COUNTERS: tuple[tuple[Role, ...], ...] = (
    ("good",), ("total",), ("good", "scrap"), ("total", "scrap"), ("total", "good"),
)  # fmt: skip
CUTS = st.lists(st.integers(1, NOW - 1), max_size=6)


class Plant(NamedTuple):
    """A machine whose state comes from one source, and whose counters from another."""

    states: list[Told]
    counters: dict[Role, list[Told]]
    state_losses: list[int]
    losses: list[int]
    counting: str = "counter"
    stale: int | None = None

    def spec(self) -> Spec:
        roles: Any = {"state": "m/state", **{role: f"m/{role}" for role in self.counters}}
        counting: Any = self.counting
        return Spec("m", roles, counting=counting, stale=self.stale, minor_stop_below=20, ideal_cycle=IDEAL)

    def samples(self) -> list[tuple[Role, Told]]:
        said: list[tuple[Role, Told]] = [("state", told) for told in self.states]
        return said + [(role, told) for role, counts in self.counters.items() for told in counts]

    def machine(self, samples: Sequence[tuple[Role, Told]] | None = None) -> Machine:
        machine = Machine(self.spec())
        for role in self.spec().roles:
            machine.facts.sources[role] = source(role)
        for role, (time, value, good) in self.samples() if samples is None else samples:
            machine.facts.take(role, time, value if good else BAD, source(role))  # type: ignore[arg-type]
        for name, lost in (("plc", self.state_losses), ("gateway", self.losses)):
            for time in lost:
                machine.facts.lose(name, time)
        return machine

    def tells(self, role: Role) -> Tells:
        return Tells(self.counters[role], self.losses, self.counting, stale=self.stale)


BEFORE_A_BAD_ONE = Plant([(0, 6, True)], {"good": [(10, 5, True), (50, 0, False), (100, 9, True)]}, [], [])
"""What comes late before the bad value takes from what the count behind it adds."""


def source(role: Role) -> str:
    return "plc" if role == "state" else "gateway"


@st.composite
def plants(draw: st.DrawFn) -> Plant:
    counters = {role: unique([*draw(told_counts)]) for role in draw(st.sampled_from(COUNTERS))}
    counting = draw(st.sampled_from(["counter", "pulse", "event"]))
    stale = draw(st.sampled_from([None, None, 40]))
    return Plant(unique([*draw(told_states)]), counters, draw(losses), draw(losses), counting, stale)


@settings(max_examples=150, deadline=None)
@given(plants(), kinds, st.integers(1, NOW), CUTS)
def test_the_same_as_an_independent_recomputation(
    plant: Plant, planned: list[tuple[int, int, str]], now: int, cuts: list[int]
) -> None:
    """Instant by instant, and in any split; units count for performance where the time that they took does."""
    plant = plant._replace(
        states=[told for told in plant.states if told[0] < now],
        counters={role: [told for told in counts if told[0] < now] for role, counts in plant.counters.items()},
    )
    machine, calendar = plant.machine(), Planned(laid_out(planned))
    account = window(machine, calendar, 0, NOW, now)
    classes = History(plant.states, (), plant.state_losses, kinds=calendar.kinds, stale=plant.stale).classes(now)
    assert {k: v for k, v in account.times.items() if v} == dict(Counter(classes))

    paces = plant.tells("total" if "total" in plant.counters else "good")
    left_out = Counter(classes[time] for time in range(now) if not paces.knows(time))
    assert account.uncounted == left_out[TimeClass.PRODUCTION]
    assert account.uncounted_minor == left_out[TimeClass.MINOR_STOP]

    producing: list[Role] = ["total"] if "total" in plant.counters else list(plant.counters)
    made = [unit for role in producing for unit in plant.tells(role).made() if classes[unit[0]] not in OUTSIDE]
    doubted = [
        units for time, units, missed in made if missed or classes[time] is TimeClass.UNKNOWN or not paces.knows(time)
    ]
    assert account.produced == sum(units for _, units, _ in made)
    assert account.beyond == sum(doubted)
    assert account.ideal == IDEAL * (account.produced - account.beyond)

    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(machine, calendar, start, end, now)
    assert joined == account


@settings(max_examples=100, deadline=None)
@given(plants(), st.randoms(use_true_random=False), CUTS)
def test_any_order_and_what_was_stored_give_the_same(plant: Plant, chance: Any, cuts: list[int]) -> None:
    samples = plant.samples()
    in_order = window(plant.machine(sorted(samples, key=lambda said: said[1][0])), Planned({}), 0, NOW)
    chance.shuffle(samples)
    shuffled = plant.machine(samples)
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        window(shuffled, Planned({}), start, end)  # who looked before leaves no trace
    assert window(shuffled, Planned({}), 0, NOW) == in_order
    stored = Machine(plant.spec())
    stored.facts.load(shuffled.facts.dump())
    assert window(stored, Planned({}), 0, NOW) == in_order


@settings(max_examples=150, deadline=None)
@given(
    plant=plants(),
    late=st.tuples(st.integers(0, NOW - 1), st.integers(0, 15) | st.just(-3), st.booleans()),
    lose=st.booleans(),
)
@example(plant=BEFORE_A_BAD_ONE, late=(30, 7, True), lose=False)
def test_what_a_late_count_changes_is_announced(plant: Plant, late: tuple[int, int, bool], *, lose: bool) -> None:
    """Time outside of the span that is named keeps its account: nothing is counted twice, or not at all."""
    before, machine = plant.machine(), plant.machine()
    time, value, good = late
    if lose:
        touched = machine.facts.lose("gateway", time)
    else:
        touched = machine.facts.take(next(iter(plant.counters)), time, value if good else BAD, "gateway")
    start, end = (NOW, NOW) if touched is None else machine.affected(touched, NOW)
    for part in ((0, start), (min(end, NOW), NOW)):
        assert window(machine, Planned({}), *part) == window(before, Planned({}), *part)


def test_a_loss_before_what_is_forgotten_still_ends_what_was_said() -> None:
    """The source was lost at 40 and gives again at 150: from 100 on, before which all is forgotten, to 150 is a gap."""
    said = Plant([(0, 6, True), (150, 6, True)], {"good": [(0, 1, True), (150, 5, True)]}, [20, 40], [20, 40])
    machine = said.machine()
    before = window(machine, Planned({}), 100, 200)
    machine.facts.forget(100, 100)
    after = window(machine, Planned({}), 100, 200)
    assert before == after
    assert after.times[TimeClass.UNKNOWN] == 50
