"""What state values mean: PackML's numbers and names, other machines' words, a mapping of one's own, maintenance."""

import pytest

from shopfloor.kpi.account import TimeClass
from shopfloor.kpi.calendar import Calendar, Stretch
from shopfloor.kpi.facts import BAD
from shopfloor.kpi.machine import Machine
from shopfloor.kpi.spec import Spec
from shopfloor.kpi.states import PACKML, State, key, resolve
from shopfloor.plant.machine import Machine as MachineConfig

PACKTAGS = {
    1: ("Clearing", State.DOWN),
    2: ("Stopped", State.IDLE),
    3: ("Starting", State.SETUP),
    4: ("Idle", State.IDLE),
    5: ("Suspended", State.BLOCKED),
    6: ("Execute", State.RUNNING),
    7: ("Stopping", State.IDLE),
    8: ("Aborting", State.DOWN),
    9: ("Aborted", State.DOWN),
    10: ("Holding", State.DOWN),
    11: ("Held", State.DOWN),
    12: ("Unholding", State.DOWN),
    13: ("Suspending", State.BLOCKED),
    14: ("Unsuspending", State.BLOCKED),
    15: ("Resetting", State.SETUP),
    16: ("Completing", State.SETUP),
    17: ("Complete", State.IDLE),
}
"""PackTags' StateCurrent (ANSI/ISA-TR88.00.02) and what each is to the time model."""


@pytest.mark.parametrize(("number", "name", "state"), [(n, *told) for n, told in PACKTAGS.items()])
def test_packml_by_number_and_by_name(number: int, name: str, state: State) -> None:
    """Whichever way a machine says it: as a number, as a float of a PLC, as text, in any case."""
    for value in (number, float(number), str(number), name, name.lower(), name.upper(), f" {name} "):
        assert resolve(value, None, PACKML) is state, value


def test_there_are_17_and_undefined() -> None:
    assert {text for text in PACKML if text.isdigit()} == {str(number) for number in range(18)}
    assert resolve(0, None, PACKML) is State.UNKNOWN


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Running", State.RUNNING),
        ("producing", State.RUNNING),
        ("changeover", State.SETUP),
        ("ERROR", State.DOWN),
        ("fault", State.DOWN),
        ("alarm", State.DOWN),
        ("waiting", State.IDLE),
        ("off", State.IDLE),
        ("maintenance", State.PLANNED),
        ("starved", State.BLOCKED),
        ("blocked", State.BLOCKED),
        ("unknown", State.UNKNOWN),
    ],
)
def test_words(word: str, state: State) -> None:
    assert resolve(word, None, PACKML) is state


@pytest.mark.parametrize("value", [18, -1, 6.5, "", "jam", None, b"6", float("nan"), float("inf"), True, 10**30])
def test_what_no_mapping_knows_is_no_state(value: object) -> None:
    """None, so that it is counted and named; never the nearest guess. True is no 1, nor is 6.5 a 6."""
    assert resolve(value, None, PACKML) is None
    assert key(6.5) is None


def test_a_mapping_of_ones_own_comes_before_the_default() -> None:
    config = MachineConfig.model_validate(
        {"id": "m", "state": "m/state", "states": {"10": "running", "JAM": "down", "true": "running", "6": "idle"}}
    )
    states = Spec.of(config).states
    said = {10: State.RUNNING, "jam": State.DOWN, True: State.RUNNING, 6: State.IDLE, "execute": State.RUNNING}
    assert {value: resolve(value, None, states) for value in said} == said
    assert resolve(False, None, states) is None


@pytest.mark.parametrize("mode", [2, 2.0, "2", "Maintenance", "MAINTENANCE "])
def test_in_maintenance_mode_every_known_state_is_planned(mode: object) -> None:
    for number in PACKTAGS:
        assert resolve(number, mode, PACKML) is State.PLANNED
    assert resolve(0, mode, PACKML) is State.UNKNOWN
    assert resolve("jam", mode, PACKML) is None


@pytest.mark.parametrize("mode", [1, 3, 0, "production", "manual", None, BAD, True])
def test_other_modes_change_nothing(mode: object) -> None:
    for number, (_, state) in PACKTAGS.items():
        assert resolve(number, mode, PACKML) is state


def test_a_mode_that_changes_in_the_middle_of_a_state() -> None:
    """Running from 0, maintenance mode from 40 to 70: planned while it lasts."""
    machine = Machine(Spec("m", {"state": "m/state", "mode": "m/mode"}))
    machine.facts.take("state", 0, 6, "plc")
    machine.facts.take("mode", 0, 1, "plc")
    machine.facts.take("mode", 40, 2, "plc")
    machine.facts.take("mode", 70, 1, "plc")
    calendar = Calendar("UTC")
    found = machine.evaluate(Stretch(0, 100, "shift", "", calendar.local(0)), calendar, 100)
    assert {name: time for name, time in found.times.items() if time} == {
        TimeClass.PRODUCTION: 70,
        TimeClass.PLANNED_STOP: 30,
    }


MACHINERY = {
    ("NotAvailable", 0): State.IDLE,
    ("OutOfService", 1): State.DOWN,
    ("NotExecuting", 2): State.IDLE,
    ("Executing", 3): State.RUNNING,
}


@pytest.mark.parametrize("mode", [None, BAD, 0, "None", 3, "Processing"])
def test_states_of_opc_ua_for_machinery_are_read_as_annex_c_does(mode: object) -> None:
    spec = Spec.of(MachineConfig(id="m", state="m/state", state_model="machinery", states={"warming": "setup"}))
    for values, state in MACHINERY.items():
        assert {resolve(value, mode, spec.states, spec.model) for value in values} == {state}
    assert resolve("warming", mode, spec.states, spec.model) is State.SETUP
    assert resolve(4, mode, spec.states, spec.model) is None, "no PackML in between"
    assert resolve("execute", mode, spec.states, spec.model) is None


def test_modes_of_opc_ua_for_machinery() -> None:
    """In setup all is setup but a fault; maintenance is planned."""
    spec = Spec.of(MachineConfig(id="m", state="m/state", mode="m/mode", state_model="machinery"))
    for (name, _), state in MACHINERY.items():
        for maintenance in (1, "Maintenance"):
            assert resolve(name, maintenance, spec.states, spec.model) is State.PLANNED
        for setup in (2, "Setup"):
            expected = State.DOWN if state is State.DOWN else State.SETUP
            assert resolve(name, setup, spec.states, spec.model) is expected
    assert resolve(6, 2, PACKML) is State.PLANNED, "2 is PackML's maintenance"
