"""One machine's times and quantities: against an independent recomputation, in any order, in any split."""

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings, strategies as st

from shopfloor.kpi.account import OUTSIDE, Account, TimeClass
from shopfloor.kpi.calendar import Calendar, Kind, Stretch
from shopfloor.kpi.facts import BAD, Edit
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import Spec
from tests.kpi.reference import History, Told

NOW = 300
DAY = Calendar("UTC").local(0)

states = st.sampled_from([6, 6, 6, 3, 5, 4, 9, 99])
told_states = st.lists(st.tuples(st.integers(0, NOW - 1), states, st.booleans() | st.just(True)), max_size=25)
told_counts = st.lists(
    st.tuples(st.integers(0, NOW - 1), st.integers(0, 15) | st.just(-3), st.booleans() | st.just(True)), max_size=25
)
losses = st.lists(st.integers(0, NOW), max_size=3)
kinds = st.lists(st.tuples(st.integers(0, NOW), st.integers(1, 60), st.sampled_from(["break", "off"])), max_size=3)


def unique(told: list[Told]) -> list[Told]:
    """One sample a time, in the order of time."""
    return sorted({time: (time, value, good) for time, value, good in told}.values(), key=lambda t: t[0])


class Planned(Calendar):
    """A calendar of single instants, as the reference has it."""

    def __init__(self, kinds: dict[int, str]) -> None:
        super().__init__("UTC")
        self.kinds = kinds

    def stretches(self, start: int, end: int) -> list[Stretch]:
        found: list[Stretch] = []
        for time in range(start, end):
            kind: Kind = self.kinds.get(time, "shift")  # type: ignore[assignment]
            if found and found[-1].kind == kind:
                found[-1] = found[-1]._replace(end=time + 1)
            else:
                found.append(Stretch(time, time + 1, kind, "", DAY))
        return found


def spec(**given: object) -> Spec:
    return Spec("m", {"state": "m/state", "good": "m/good"}, minor_stop_below=20, ideal_cycle=3, **given)  # type: ignore[arg-type]


def fed(spec: Spec, states: list[Told], counts: list[Told], losses: list[int]) -> Machine:
    machine = Machine(spec)
    machine.facts.sources.update(dict.fromkeys(spec.roles, "plc"))
    for time, value, good in states:
        machine.facts.take("state", time, value if good else BAD, "plc")  # type: ignore[arg-type]
    for time, value, good in counts:
        machine.facts.take("good", time, value if good else BAD, "plc")  # type: ignore[arg-type]
    for time in losses:
        machine.facts.lose("plc", time)
    return machine


def window(machine: Machine, calendar: Planned, start: int, end: int, now: int = NOW) -> Account:
    account = Account()
    for stretch in calendar.stretches(start, end):
        account += machine.evaluate(stretch, calendar, now)
    return account


def laid_out(found: list[tuple[int, int, str]]) -> dict[int, str]:
    return {time: kind for start, length, kind in found for time in range(start, start + length)}


@settings(max_examples=300, deadline=None)
@given(told_states, told_counts, losses, kinds, st.integers(1, NOW), st.sampled_from([None, 16]))
def test_the_same_as_an_independent_recomputation(
    said: list[Told], counted: list[Told], lost: list[int], planned: list[tuple[int, int, str]], now: int,
    modulus: int | None,
) -> None:  # fmt: skip
    said, counted = unique(said), unique(counted)
    said, counted = [t for t in said if t[0] < now], [t for t in counted if t[0] < now]
    history = History(said, counted, lost, kinds=laid_out(planned), modulus=modulus)
    machine = fed(spec(modulus=modulus), said, counted, lost)
    account = window(machine, Planned(history.kinds), 0, NOW, now)
    classes = history.classes(now)
    assert {k: v for k, v in account.times.items() if v} == dict(Counter(classes))
    expected = history.incidents(0, NOW, now)
    assert (account.minor, account.incidents) == (expected[TimeClass.MINOR_STOP], expected[TimeClass.UNPLANNED_STOP])
    made = [(time, units, missed) for time, units, missed in history.made() if classes[time] not in OUTSIDE]
    assert account.good == sum(units for _, units, _ in made)
    unknown = [missed or classes[time] is TimeClass.UNKNOWN for time, _, missed in made]
    assert account.beyond == sum(units for (_, units, _), doubt in zip(made, unknown, strict=True) if doubt)
    assert account.ideal == 3 * (account.good - account.beyond)
    silent = Counter(classes[time] for time in range(now) if not history.tells().knows(time))
    assert account.uncounted == silent[TimeClass.PRODUCTION]
    assert account.uncounted_minor == silent[TimeClass.MINOR_STOP]
    outside = sum(units for time, units, _ in history.made() if classes[time] in OUTSIDE)
    assert account.outside == outside
    lost_time = sum(loss.time for loss in account.losses.values())
    assert lost_time == account.times[TimeClass.MINOR_STOP] + account.times[TimeClass.UNPLANNED_STOP]


@settings(max_examples=200, deadline=None)
@given(told_states, told_counts, losses, kinds, st.lists(st.integers(1, NOW - 1), max_size=8))
def test_any_split_of_windows_sums_to_the_whole(
    said: list[Told], counted: list[Told], lost: list[int], planned: list[tuple[int, int, str]], cuts: list[int]
) -> None:
    machine = fed(spec(), unique(said), unique(counted), lost)
    calendar = Planned(laid_out(planned))
    machine.facts.edit(Edit(40, 90, "tool/broken"))
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(machine, calendar, start, end)
    whole = window(machine, calendar, 0, NOW)
    assert joined == whole
    assert whole.length == NOW


@settings(max_examples=200, deadline=None)
@given(told_states, told_counts, losses, st.randoms(use_true_random=False))
def test_late_and_out_of_order_gives_the_same(
    said: list[Told], counted: list[Told], lost: list[int], chance: object
) -> None:
    said, counted = unique(said), unique(counted)
    in_order = window(fed(spec(), said, counted, lost), Planned({}), 0, NOW)
    chance.shuffle(said), chance.shuffle(counted), chance.shuffle(lost)  # type: ignore[attr-defined]
    assert window(fed(spec(), said, counted, lost), Planned({}), 0, NOW) == in_order


@settings(max_examples=100, deadline=None)
@given(told_states, told_counts, losses, st.tuples(st.integers(0, NOW - 1), states, st.booleans()))
def test_what_a_late_sample_changes_is_announced(
    said: list[Told], counted: list[Told], lost: list[int], late: tuple[int, int, bool]
) -> None:
    """Instants outside of the span that the machine names as affected keep their account."""
    machine = fed(spec(), unique(said), unique(counted), lost)
    before = [window(machine, Planned({}), t, t + 1) for t in range(NOW)]
    time, value, good = late
    touched = machine.facts.take("state", time, value if good else BAD, "plc")
    if touched is None:
        affected = range(0)
    else:
        start, end = machine.affected(touched, NOW)
        affected = range(start, min(end, NOW))
    for t in range(NOW):
        if t not in affected:
            assert window(machine, Planned({}), t, t + 1) == before[t], (t, affected)


@settings(max_examples=150, deadline=None)
@given(told_counts, losses, st.lists(st.integers(1, NOW - 1), max_size=6), st.randoms(use_true_random=False))
def test_inferred_states_split_and_come_in_any_order(
    counted: list[Told], lost: list[int], cuts: list[int], chance: object
) -> None:
    """Without a state tag the units tell whether it ran."""
    inferred = Spec("m", {"good": "m/good"}, minor_stop_below=20, ideal_cycle=3)
    counted = unique(counted)
    machine = fed(inferred, [], counted, lost)
    whole = window(machine, Planned({}), 0, NOW)
    assert whole.length == NOW
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(machine, Planned({}), start, end)
    assert joined == whole
    chance.shuffle(counted)  # type: ignore[attr-defined]
    assert window(fed(inferred, [], counted, lost), Planned({}), 0, NOW) == whole


def test_time_of_which_nothing_is_known_parts_two_stops() -> None:
    """Down from 10, the source lost at 25, back and still down at 50 to 60: two minor stops, never one long one."""
    said: list[Told] = [(0, 6, True), (10, 9, True), (50, 9, True), (60, 6, True)]
    account = window(fed(spec(), said, [], [25]), Planned({}), 0, 100)
    assert (account.minor, account.incidents) == (2, 0)
    assert account.times[TimeClass.UNKNOWN] == 25
    assert account.times[TimeClass.MINOR_STOP] == 25


def test_a_unit_between_two_gaps_parts_two_stops() -> None:
    """Units at 20 and 60 only, minor below 20: it stood until 20, until 60, and ever since, however it is cut."""
    inferred = Spec("m", {"good": "m/good"}, minor_stop_below=20, ideal_cycle=5)
    machine = fed(inferred, [], [(0, 0, True), (20, 1, True), (60, 2, True)], [])
    whole = window(machine, Planned({}), 0, 100)
    joined = Account()
    for start, end in pairwise((0, 10, 20, 60, 61, 100)):
        joined += window(machine, Planned({}), start, end)
    assert whole == joined
    assert (whole.incidents, whole.losses[""].count, whole.losses[""].time) == (3, 3, 100)


def test_inferred_by_hand() -> None:
    """Units at 10, 15, 20 and 60, minor below 20: it ran from 5 to 20, stood from 20 to 60, ran on to 70."""
    inferred = Spec("m", {"good": "m/good"}, minor_stop_below=20, ideal_cycle=5)
    counted: list[Told] = [(5, 0, True), (10, 1, True), (15, 2, True), (20, 3, True), (60, 4, True)]
    account = window(fed(inferred, [], counted, []), Planned({}), 0, 100, now=70)
    assert {k: v for k, v in account.times.items() if v} == {
        TimeClass.UNKNOWN: 5,
        TimeClass.PRODUCTION: 25,
        TimeClass.UNPLANNED_STOP: 40,
    }
    assert (account.incidents, account.good, account.ideal) == (1, 4, 20)


whatever = st.one_of(
    st.tuples(st.just("state"), st.integers(0, NOW - 1), states, st.booleans() | st.just(True)),
    st.tuples(st.just("mode"), st.integers(0, NOW - 1), st.sampled_from([1, 2]), st.just(True)),
    st.tuples(st.just("lost"), st.integers(0, NOW), st.just(0), st.just(True)),
    st.tuples(st.just("kept"), st.integers(0, NOW), st.integers(0, 100), st.just(True)),
    st.tuples(st.just("forget"), st.integers(0, NOW), st.just(0), st.just(True)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(whatever, max_size=25), st.none() | st.integers(1, 60))
def test_looking_in_between_changes_nothing(told: list[tuple[str, int, int, bool]], stale: int | None) -> None:
    """What is put together once and kept is what somebody would find who looks for the first time."""
    roles = {"state": "m/state", "mode": "m/mode"}
    kept = Machine(Spec("m", roles, stale=stale, minor_stop_below=20))  # type: ignore[arg-type]
    kept.facts.sources.update({"state": "plc", "mode": "plc"})
    for what, time, value, good in told:
        if what == "lost":
            kept.facts.lose("plc", time)
        elif what == "kept":
            kept.facts.cover("plc", time, time + value)
        elif what == "forget":
            kept.facts.forget(time, time)
        else:
            kept.facts.take(what, time, value if good else BAD, "plc")  # type: ignore[arg-type]
        fresh = Machine(kept.spec)
        fresh.facts.load(kept.facts.dump())
        assert list(kept.running.segments(0, NOW, NOW)) == list(fresh.running.segments(0, NOW, NOW))
        assert window(kept, Planned({}), 0, NOW) == window(fresh, Planned({}), 0, NOW)


@settings(max_examples=150, deadline=None)
@given(
    told_states,
    st.lists(st.tuples(st.integers(0, NOW), st.integers(1, 60), st.sampled_from(["a", "b", ""])), max_size=4),
    st.integers(1, 40), st.integers(0, NOW), st.lists(st.integers(1, NOW - 1), max_size=6),
)  # fmt: skip
def test_a_reason_counts_only_as_long_as_it_may(
    said: list[Told], edits: list[tuple[int, int, str]], longest: int, now: int, cuts: list[int]
) -> None:
    """Instant by instant: the run of the same reason round it, inside its stop, decides, however windows are cut."""
    said = [told for told in unique(said) if told[0] < now]
    machine = fed(spec(longest={"a": longest}), said, [], [])
    for start, length, reason in edits:
        machine.facts.edit(Edit(start, start + length, reason))
    raw = [History(said, []).raw(time, now) for time in range(NOW)]
    stated = [next((r for s, n, r in reversed(edits) if s <= time < s + n), "") for time in range(NOW)]

    def counts(time: int) -> str:
        first = last = time
        while first > 0 and raw[first - 1] == "stop" and stated[first - 1] == stated[time]:
            first -= 1
        while last + 1 < now and raw[last + 1] == "stop" and stated[last + 1] == stated[time]:
            last += 1
        return "" if stated[time] == "a" and last + 1 - first > longest else stated[time]

    expected = Counter(counts(time) for time in range(now) if raw[time] == "stop")
    whole = window(machine, Planned({}), 0, NOW, now)
    assert {reason: loss.time for reason, loss in whole.losses.items() if loss.time} == dict(expected)
    joined = Account()
    for start, end in pairwise(sorted({0, *cuts, NOW})):
        joined += window(machine, Planned({}), start, end, now)
    assert joined == whole
