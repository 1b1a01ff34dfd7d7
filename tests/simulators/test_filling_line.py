"""The filler behaves as drives, bottles, conveyors and operators do, along PackML's states."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from shopfloor.simulators.filling_line import (
    IDEAL_RATE,
    SLOWEST,
    USUAL_RATE,
    Fault,
    Filler,
    Readings,
    Reject,
)
from shopfloor.simulators.packml import State

PACKML: dict[State, set[State]] = {
    State.EXECUTE: {State.HOLDING, State.SUSPENDING, State.COMPLETING, State.ABORTING},
    State.HOLDING: {State.HELD},
    State.HELD: {State.UNHOLDING},
    State.UNHOLDING: {State.EXECUTE},
    State.SUSPENDING: {State.SUSPENDED},
    State.SUSPENDED: {State.UNSUSPENDING},
    State.UNSUSPENDING: {State.EXECUTE},
    State.COMPLETING: {State.COMPLETE},
    State.COMPLETE: {State.RESETTING},
    State.RESETTING: {State.IDLE},
    State.IDLE: {State.STARTING},
    State.STARTING: {State.EXECUTE},
    State.STOPPING: {State.STOPPED},
    State.STOPPED: {State.RESETTING},
    State.ABORTING: {State.ABORTED},
    State.ABORTED: {State.CLEARING},
    State.CLEARING: {State.STOPPED},
}
"""Where each state may lead to, as ISA-TR88.00.02 draws it; Stop leads from most of them to stopping."""
FAULTY = (State.HOLDING, State.HELD, State.ABORTING, State.ABORTED)


def at_work(seed: int = 1, **more: float) -> Filler:
    return Filler(seed, running=True, steady=True, fault_every=math.inf, order=int(more.get("order", 10**9)))


def until(filler: Filler, condition: Callable[[Readings], bool], within: float = 3600) -> Readings:
    for _ in range(int(within / 0.1)):
        filler.step(0.1)
        if condition(readings := filler.read()):
            return readings
    raise AssertionError(f"not within {within} s: {filler.read()}")


def shift(filler: Filler, seconds: float) -> list[Readings]:
    found: list[Readings] = []
    for _ in range(int(seconds / 0.1)):
        filler.step(0.1)
        found.append(filler.read())
    return found


def test_the_same_seed_gives_the_same_shift() -> None:
    def of(seed: int) -> list[Readings]:
        return shift(Filler(seed, running=True, attended=True, fault_every=30), 300)

    assert of(7) == of(7)
    assert of(7) != of(8)


def test_to_look_changes_nothing() -> None:
    often, seldom = (Filler(5, running=True, attended=True, fault_every=30) for _ in range(2))
    shift(often, 600)
    for _ in range(6000):
        seldom.step(0.1)
    for name in ("TotalBottles", "GoodBottles", "RejectReason", "State", "Weight", "FillLevel", "Energy", "Remaining"):
        assert getattr(often.read(), name) == getattr(seldom.read(), name)


def test_an_attended_shift_passes_every_state_along_the_standards_arrows() -> None:
    """The machine goes through every state, never by a way that PackML does not have; all is counted, all recovers."""
    filler = Filler(3, running=True, attended=True, fault_every=90, order=100)
    before = filler.read()
    seen: set[State] = set()
    faults: set[int] = set()
    hours = 3
    for _ in range(hours * 3600 * 20):
        filler.step(0.05)
        after = filler.read()
        assert after.State == before.State or State(after.State) in PACKML[State(before.State)]
        assert after.TotalBottles == after.GoodBottles + after.RejectBottles
        assert after.TotalBottles - before.TotalBottles in ({0, 1} if before.State == State.EXECUTE else {0})
        assert (after.FaultCode != Fault.NONE) == (after.State in FAULTY)
        seen.add(State(after.State))
        faults.add(after.FaultCode)
        before = after
    stopping = {State.STOPPING}  # only the Stop button leads there
    assert seen == set(State) - stopping
    assert faults >= set(Fault) - {Fault.TANK_EMPTY}
    assert before.GoodBottles % 100 == (100 - before.Remaining) % 100, "orders are filled to the bottle"
    assert before.GoodBottles > 0.3 * hours * 60 * USUAL_RATE


def test_bottles_weigh_what_is_in_them() -> None:
    filler = at_work()
    bottles = {r.TotalBottles: r for r in shift(filler, 1800) if r.TotalBottles}
    weights = [r.Weight for r in bottles.values()]
    assert len(bottles) > 1500
    assert sum(weights) / len(weights) == pytest.approx(24 + 500 * 1.04, abs=1)
    assert len(set(weights)) == len(weights), "no two bottles are the same"
    for r in bottles.values():
        assert r.Weight == pytest.approx(24 + r.FillLevel * 1.04, abs=3)
        assert 450 < r.FillLevel < 540
    for before, after in pairwise(bottles.values()):
        rejected = after.RejectBottles > before.RejectBottles
        if not 490 <= after.FillLevel <= 510:
            assert rejected
            assert after.RejectReason == (Reject.UNDERFILLED if after.FillLevel < 490 else Reject.OVERFILLED)
        elif rejected:
            assert after.RejectReason == Reject.NO_CAP


def test_speed_follows_the_set_point_and_bottles_the_speed() -> None:
    filler = at_work()
    shift(filler, 5)
    filler.set_speed(30)
    filler.step(0.1)
    assert filler.read().Speed > 50, "no jump"
    filler.step(15)
    before = filler.read().TotalBottles
    filler.step(120)
    seen = filler.read()
    assert seen.TotalBottles - before == pytest.approx(60, abs=1)
    assert seen.Speed == pytest.approx(30, abs=1)
    assert seen.CycleTime == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("asked", "kept"), [(500, IDEAL_RATE), (-3, SLOWEST), (45, 45)])
def test_the_drive_keeps_its_limits(asked: float, kept: float) -> None:
    filler = at_work()
    filler.set_speed(asked)
    assert filler.set_point == filler.read().SpeedSP == kept


@pytest.mark.parametrize("speed", [math.nan, math.inf, -math.inf])
def test_what_is_no_speed_is_refused(speed: float) -> None:
    filler = at_work()
    with pytest.raises(ValueError, match="no speed"):
        filler.set_speed(speed)
    assert filler.set_point == USUAL_RATE


@pytest.mark.parametrize("dt", [-0.1, math.nan, math.inf])
def test_time_passes_forward_and_ends(dt: float) -> None:
    with pytest.raises(ValueError, match="time cannot pass"):
        at_work().step(dt)


def test_power_follows_the_motor() -> None:
    filler = at_work()
    filler.step(10)
    fast = filler.read().Power
    filler.set_speed(SLOWEST)
    filler.step(30)
    slow = filler.read().Power
    filler.stop_button(pressed=True)
    filler.step(30)
    resting = filler.read()
    assert fast > slow + 2
    assert slow > resting.Power + 2
    assert resting.Power == pytest.approx(0.8, abs=0.3)
    assert (resting.MotorStatus, resting.Speed) == (False, 0)


def test_stop_runs_out_and_start_resets_first() -> None:
    filler = at_work()
    filler.stop_button(pressed=True)
    assert filler.read().State == State.STOPPING
    until(filler, lambda r: r.State == State.STOPPED, 30)
    filler.start_button(pressed=True)
    filler.step(30)
    assert filler.read().State == State.STOPPED, "Stop is still pressed"
    filler.stop_button(pressed=False)
    filler.start_button(pressed=False)
    filler.start_button(pressed=True)
    states = list(dict.fromkeys(r.State for r in shift(filler, 30)))
    assert states == [State.RESETTING, State.IDLE, State.STARTING, State.EXECUTE]


@pytest.mark.parametrize(("fault", "through"), [
    (Fault.FALLEN_BOTTLE, [State.HOLDING, State.HELD, State.UNHOLDING, State.EXECUTE]),
    (Fault.NO_CAPS, [State.HOLDING, State.HELD, State.UNHOLDING, State.EXECUTE]),
    (Fault.OVERLOAD, [
        State.ABORTING, State.ABORTED, State.CLEARING, State.STOPPED, State.RESETTING, State.IDLE, State.STARTING,
        State.EXECUTE,
    ]),
])  # fmt: skip
def test_a_fault_stays_until_start_and_is_then_recovered_from(fault: Fault, through: list[State]) -> None:
    filler = next(
        filler for filler in (Filler(seed, running=True, steady=True, fault_every=20) for seed in range(1, 99))
        if until(filler, lambda r: r.FaultCode != 0).FaultCode == fault
    )  # fmt: skip
    states = [State(filler.read().State)]
    for _ in range(1200):
        filler.step(0.05)
        states.append(State(filler.read().State))
    assert states[-1] == through[1], "nobody came"
    assert filler.read().FaultCode == fault
    filler.start_button(pressed=True)
    for _ in range(400):
        states.append(State(filler.read().State))
        filler.step(0.05)
        if states[-1] == State.EXECUTE:
            break
    assert list(dict.fromkeys(states)) == through
    assert filler.read().FaultCode == 0 or filler.read().State in FAULTY


def test_an_empty_tank_holds_it_until_there_is_product_again() -> None:
    """Start is in vain before."""
    filler = next(
        filler for filler in (Filler(seed, running=True, attended=False, fault_every=math.inf) for seed in range(1, 99))
        if any(r.FaultCode == Fault.TANK_EMPTY for r in shift(filler, 1800))
    )  # fmt: skip
    tank = filler.read().TankLevel
    if tank < 25:
        filler.start_button(pressed=True)
        filler.start_button(pressed=False)
        assert filler.read().State in (State.HOLDING, State.HELD)
    until(filler, lambda r: r.TankLevel > 35)
    filler.start_button(pressed=True)
    until(filler, lambda r: r.State == State.EXECUTE and r.FaultCode == Fault.NONE, 30)


def test_a_filler_without_neighbours_waits_and_goes_on() -> None:
    """Starved and blocked are suspended, not a fault, and end by themselves."""
    filler = Filler(2, running=True, fault_every=math.inf, order=10**9)
    hours = [r for r in shift(filler, 2 * 3600) if r.FaultCode == 0]
    waits = [r for r in hours if r.State == State.SUSPENDED]
    assert {(r.Starved, r.Blocked) for r in waits} >= {(True, False), (False, True)}
    assert Counter(r.State for r in hours)[State.EXECUTE] > len(waits)


def test_a_complete_order_waits_for_the_next_one() -> None:
    filler = at_work(order=20)
    done = until(filler, lambda r: r.State == State.COMPLETE, 60)
    assert (done.GoodBottles, done.Remaining) == (20, 0)
    filler.step(600)
    assert filler.read().State == State.COMPLETE
    filler.start_button(pressed=True)
    assert until(filler, lambda r: r.State == State.EXECUTE, 30).Remaining == 20


@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.sampled_from(["start", "stop", "release", "set"]), st.floats(0, 30)), max_size=30),
)
def test_whatever_is_pressed_the_readings_stay_possible(seed: int, actions: list[tuple[str, float]]) -> None:
    filler = Filler(seed, fault_every=15, order=50)
    before = filler.read()
    for action, number in actions:
        if action == "set":
            filler.set_speed(number * 4)
        elif action == "release":
            filler.start_button(pressed=False)
            filler.stop_button(pressed=False)
        elif action == "start":
            filler.start_button(pressed=True)
        else:
            filler.stop_button(pressed=True)
        filler.step(number)
        r = filler.read()
        assert r.TotalBottles == r.GoodBottles + r.RejectBottles
        assert 0 <= r.TotalBottles - before.TotalBottles <= number + 1
        assert (r.FaultCode != Fault.NONE) == (r.State in FAULTY)
        assert 0 <= r.Remaining <= 50
        assert 0 <= r.TankLevel <= 100
        assert 0 <= r.Speed <= IDEAL_RATE + 1
        assert r.Energy >= before.Energy
        assert 0 <= r.Power < 15
        before = r
