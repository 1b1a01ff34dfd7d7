"""The press behaves as hydraulics, motors and operators do."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from shopfloor.simulators.packml import State
from shopfloor.simulators.press_line import IDEAL_CYCLE, NOMINAL, Fault, Press, Readings, Scrap

COUNTED = ("TotalParts", "GoodParts", "ScrapParts", "ScrapReason", "State", "FaultCode", "CycleTime", "Energy")


def at_work(seed: int = 1) -> Press:
    return Press(seed, running=True, jam_every=math.inf)


def until(press: Press, condition: Callable[[Readings], bool], within: float = 600) -> Readings:
    for _ in range(int(within / 0.1)):
        press.step(0.1)
        if condition(readings := press.read()):
            return readings
    raise AssertionError(f"not within {within} s: {press.read()}")


def mean_pressure(press: Press) -> float:
    return sum(press.read().PV for _ in range(200)) / 200


def test_the_same_seed_gives_the_same_shift() -> None:
    def shift(seed: int) -> list[Readings]:
        press = Press(seed, running=True, attended=True, jam_every=30)
        found: list[Readings] = []
        for _ in range(3000):
            press.step(0.1)
            found.append(press.read())
        return found

    assert shift(7) == shift(7)
    assert shift(7) != shift(8)


def test_pressure_follows_the_set_point_with_lag_and_noise() -> None:
    press = at_work()
    assert mean_pressure(press) == pytest.approx(NOMINAL, abs=0.1)
    press.set_pressure(60)
    press.step(0.1)
    assert press.read().PV < 50, "no jump"
    risen: list[float] = []
    for _ in range(60):
        press.step(0.1)
        risen.append(press.read().PV)
    assert risen[5] < risen[20] < risen[50]
    press.step(20)
    assert mean_pressure(press) == pytest.approx(60, abs=0.1)
    assert len({press.read().PV for _ in range(20)}) == 20, "a real sensor never shows the same twice"


def test_the_valve_saturates_and_pressure_stays_physical() -> None:
    press = at_work()
    press.set_pressure(500)
    press.step(60)
    assert press.read().CV == 100
    assert mean_pressure(press) == pytest.approx(100, abs=0.5)
    press.set_pressure(-20)
    press.step(60)
    assert press.read().CV == 0
    assert 0 <= press.read().PV < 2


@pytest.mark.parametrize("bar", [math.nan, math.inf, -math.inf])
def test_what_is_no_pressure_is_refused(bar: float) -> None:
    press = at_work()
    with pytest.raises(ValueError, match="no pressure"):
        press.set_pressure(bar)
    assert press.set_point == NOMINAL


@pytest.mark.parametrize("dt", [-0.1, math.nan, math.inf])
def test_time_passes_forward_and_ends(dt: float) -> None:
    with pytest.raises(ValueError, match="time cannot pass"):
        at_work().step(dt)


def test_parts_are_counted_only_while_the_motor_runs() -> None:
    press = at_work()
    press.step(60)
    made = press.read()
    assert 60 / (IDEAL_CYCLE * 1.3) < made.GoodParts + made.ScrapParts <= 60 / IDEAL_CYCLE
    assert made.GoodParts > made.ScrapParts
    assert IDEAL_CYCLE <= made.CycleTime < IDEAL_CYCLE * 1.3
    press.stop_button(pressed=True)
    press.step(60)
    stopped = press.read()
    assert (stopped.GoodParts, stopped.ScrapParts) == (made.GoodParts, made.ScrapParts)
    assert (stopped.State, stopped.MotorStatus) == (State.STOPPED, False)
    assert stopped.PV < 1


def test_start_builds_pressure_before_the_first_part() -> None:
    press = Press(1, jam_every=math.inf)
    assert not press.running
    press.start_button(pressed=True)
    press.start_button(pressed=False)
    press.step(0.1)
    assert (press.read().State, press.read().MotorStatus) == (State.STARTING, True)
    assert until(press, lambda r: r.State == State.EXECUTE).GoodParts == 0
    until(press, lambda r: r.GoodParts > 0)


def test_start_works_on_its_rising_edge_only() -> None:
    press = Press(1, jam_every=math.inf)
    press.start_button(pressed=True)
    press.stop_button(pressed=True)
    press.stop_button(pressed=False)
    press.start_button(pressed=True)
    assert not press.running, "a button that is stuck must not start the press after a stop"
    press.start_button(pressed=False)
    press.start_button(pressed=True)
    assert press.running


def test_stop_wins() -> None:
    press = Press(1, jam_every=math.inf)
    press.stop_button(pressed=True)
    press.start_button(pressed=True)
    assert not press.running
    press.stop_button(pressed=False)
    assert not press.running, "letting go of Stop starts nothing"
    press.start_button(pressed=False)
    press.start_button(pressed=True)
    press.stop_button(pressed=True)
    assert not press.running


def test_a_jam_holds_the_press_until_start() -> None:
    press = Press(3, running=True, jam_every=20)
    jammed = until(press, lambda r: r.State == State.HELD)
    assert (jammed.MotorStatus, jammed.FaultCode) == (False, Fault.SHEET_JAM)
    press.step(600)
    assert press.read().State == State.HELD, "nobody came"
    press.start_button(pressed=True)
    until(press, lambda r: r.State == State.EXECUTE and r.FaultCode == Fault.NONE, within=30)


def test_stop_acknowledges_a_jam() -> None:
    press = Press(3, running=True, jam_every=20)
    until(press, lambda r: r.State == State.HELD)
    press.stop_button(pressed=True)
    assert (press.read().State, press.read().FaultCode) == (State.STOPPED, Fault.NONE)


def test_an_attended_press_goes_on_by_itself_after_a_jam() -> None:
    press = Press(3, running=True, attended=True, jam_every=20)
    until(press, lambda r: r.State == State.HELD)
    until(press, lambda r: r.State == State.EXECUTE, within=60)


def test_an_operator_does_not_undo_a_stop() -> None:
    press = Press(3, running=True, attended=True, jam_every=20)
    until(press, lambda r: r.State == State.HELD)
    press.stop_button(pressed=True)
    press.stop_button(pressed=False)
    press.step(120)
    assert press.read().State == State.STOPPED


def test_parts_made_off_pressure_are_scrap() -> None:
    press = at_work()
    press.step(30)
    before = press.read()
    press.set_pressure(90)
    press.step(2.5)
    after = press.read()
    assert after.ScrapParts > before.ScrapParts
    assert after.ScrapReason == Scrap.PRESSURE


def test_power_follows_the_motor() -> None:
    press = at_work()
    press.step(1)
    assert press.read().Power == pytest.approx(0.6 + 17.4 + 32 * 0.4, abs=1.5)
    before = press.read().Energy
    press.step(360)
    assert press.read().Energy - before == pytest.approx(3.08, abs=0.1), "a tenth of an hour at about 31 kW"
    press.stop_button(pressed=True)
    press.step(1)
    assert press.read().Power == pytest.approx(0.6, abs=1)


def test_to_look_changes_nothing() -> None:
    often, seldom = (Press(5, running=True, attended=True, jam_every=30) for _ in range(2))
    for _ in range(3000):
        often.step(0.1)
        often.read()
        seldom.step(0.1)
    assert [getattr(often.read(), n) for n in COUNTED] == [getattr(seldom.read(), n) for n in COUNTED]


def test_oil_warms_up_at_work_and_cools_down_at_rest() -> None:
    press = at_work()
    press.step(600)
    assert press.read().Temperature == pytest.approx(58, abs=1)
    press.stop_button(pressed=True)
    press.step(600)
    assert press.read().Temperature == pytest.approx(22, abs=1)


@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.sampled_from(["start", "stop", "release", "set"]), st.floats(0, 30)), max_size=30),
)
def test_whatever_is_pressed_the_readings_stay_possible(seed: int, actions: list[tuple[str, float]]) -> None:
    press = Press(seed, jam_every=15)
    parts, energy = 0, 0.0
    for action, number in actions:
        if action == "set":
            press.set_pressure(number * 4)
        elif action == "release":
            press.start_button(pressed=False)
            press.stop_button(pressed=False)
        elif action == "start":
            press.start_button(pressed=True)
        else:
            press.stop_button(pressed=True)
        press.step(number)
        readings = press.read()
        assert 0 <= readings.CV <= 100
        assert 0 <= readings.PV <= 102
        assert 20 <= readings.Temperature <= 60
        assert readings.MotorStatus == (readings.State in (State.STARTING, State.EXECUTE))
        assert (readings.FaultCode != Fault.NONE) == (readings.State == State.HELD)
        assert readings.TotalParts == readings.GoodParts + readings.ScrapParts >= parts
        assert (readings.ScrapReason == Scrap.NONE) == (readings.ScrapParts == 0)
        assert readings.Energy >= energy
        energy = readings.Energy
        assert readings.GoodParts + readings.ScrapParts - parts <= number / 0.6 + 1
        parts = readings.GoodParts + readings.ScrapParts
