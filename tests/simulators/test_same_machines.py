"""Every server shows the same machine: what it does is worked out once, and each protocol only shows it."""

import pytest

from shopfloor.protocols.modbus_address import parse as parse_modbus
from shopfloor.protocols.s7_address import parse
from shopfloor.simulators import s7_filler, s7_press
from shopfloor.simulators.filling_line import Filler
from shopfloor.simulators.logix_plant import LogixPlant
from shopfloor.simulators.press_line import Press
from shopfloor.simulators.press_modbus import MAP, ModbusPress, layout
from shopfloor.simulators.s7_plant import S7Plant

PRESS = (
    "PV", "CycleTime", "Energy", "IdealRate", "GoodParts", "ScrapParts", "TotalParts", "ScrapReason", "State",
    "FaultCode",
)  # fmt: skip
FILLER = (
    "Speed", "FillLevel", "Weight", "Energy", "CycleTime", "IdealRate", "TotalBottles", "GoodBottles", "RejectBottles",
    "RejectReason", "State", "FaultCode", "Remaining", "Starved", "Blocked", "Cycle",
)  # fmt: skip


def test_s7_logix_and_modbus_show_the_same_run() -> None:
    """Five minutes with faults, scan by scan."""
    presses = [Press(4, running=True, attended=True, jam_every=60) for _ in range(3)]
    fillers = [Filler(4, running=True, attended=True, fault_every=60) for _ in range(2)]
    s7 = S7Plant(presses[0], fillers[0])
    logix = LogixPlant(presses[1], fillers[1], "127.0.0.1", 0)
    modbus = ModbusPress(presses[2], "127.0.0.1", 0)
    # S7's constructor has shown them once.
    logix.show()
    modbus.show()
    faults: set[object] = set()
    for _ in range(3000):
        s7.scan(0.1)
        for machine in (presses[1], fillers[1], presses[2]):
            machine.step(0.1)
        logix.show()
        modbus.show()
        for structure, names, tags in (("Press", PRESS, s7_press.TAGS), ("Filler", FILLER, s7_filler.TAGS)):
            for name in names:
                there = s7.memory.get(parse(tags[name].address))
                assert logix.controller.program.get(f"{structure}.{name}") == pytest.approx(there, rel=1e-6)
        faults.add(logix.controller.program.get("Filler.FaultCode"))
    program = logix.controller.program
    assert len(faults) > 1
    assert program.get("Press.TotalParts") > 50
    assert program.get("Filler.TotalBottles") > 50
    for name in set(PRESS) & set(MAP):
        place, lies = parse_modbus(MAP[name].address), layout(name)
        words = [modbus._held[place.kind, place.start + n] for n in range(lies.size)]
        assert lies.decode(words) == pytest.approx(program.get(f"Press.{name}"), rel=1e-6)
