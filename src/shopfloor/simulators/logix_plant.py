# cm-ethernetip carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
"""A press and a filler in a simulated Logix controller: their tags as EtherNet/IP clients read, list and write them.

``Press`` and ``Filler`` are structures; Start, Stop, SP, Order, FillerStart, FillerStop and FillerSpeedSP can be
written, everything else is the machines' own. What they do is in ``press_line`` and ``filling_line``; this module lets
them run in real time.
"""

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.protocol.eip_adapter import EipAdapter

from shopfloor.samples import Misconfigured
from shopfloor.simulators.filling_line import Filler
from shopfloor.simulators.logix_controller import Controller, Member, Program
from shopfloor.simulators.pace import scans
from shopfloor.simulators.press_line import Press

_DINT: Final = 2**31

_PRESS: Final = {
    "Running": "MotorStatus", **{name: name for name in (
        "Cycle", "PV", "CV", "CycleTime", "Temperature", "Power", "Energy", "IdealRate", "GoodParts", "ScrapParts",
        "TotalParts", "ScrapReason", "State", "FaultCode",
    )},
}  # fmt: skip
"""Members of PressData, and the readings that they show."""
_FILLER: Final = {
    "Running": "MotorStatus", **{name: name for name in (
        "Cycle", "Starved", "Blocked", "Speed", "FillLevel", "Weight", "TankLevel", "Temperature", "Power", "Energy",
        "CycleTime", "IdealRate", "TotalBottles", "GoodBottles", "RejectBottles", "RejectReason", "State", "FaultCode",
        "Remaining",
    )},
}  # fmt: skip
"""Members of FillerData, and the readings that they show."""


def plant_program() -> Program:
    """The program of both lines, as it is downloaded."""
    program = Program()
    program.structure(
        "PressData",
        *(Member(name, "BOOL") for name in ("Running", "Jammed", "Cycle")),
        *(Member(name, "REAL") for name in ("PV", "CV", "CycleTime", "Temperature", "Power", "Energy", "IdealRate")),
        *(Member(name, "DINT") for name in (
            "GoodParts", "ScrapParts", "State", "FaultCode", "TotalParts", "ScrapReason",
        )),
    )  # fmt: skip
    program.structure(
        "FillerData",
        *(Member(name, "BOOL") for name in ("Running", "Fault", "Cycle", "Starved", "Blocked")),
        *(Member(name, "REAL") for name in (
            "Speed", "FillLevel", "Weight", "TankLevel", "Temperature", "Power", "Energy", "CycleTime", "IdealRate",
        )),
        *(Member(name, "DINT") for name in (
            "State", "FaultCode", "TotalBottles", "GoodBottles", "RejectBottles", "RejectReason", "Remaining",
        )),
    )  # fmt: skip
    program.add("Press", "PressData", writable=False)
    program.add("SP", "REAL")
    program.add("Start", "BOOL")
    program.add("Stop", "BOOL")
    program.add("Order", "STRING")
    program.add("Pressures", "REAL", 10, writable=False)
    program.add("Filler", "FillerData", writable=False)
    program.add("FillerSpeedSP", "REAL")
    program.add("FillerStart", "BOOL")
    program.add("FillerStop", "BOOL")
    program.add("Program:Main.Scans", "DINT", writable=False)
    program.put("Order", "A-4711")
    return program


async def serve(
    host: str = "127.0.0.1", port: int = 44_818, *, seed: int = 1, ready: Callable[[], None] | None = None
) -> None:
    """Serve both lines until cancelled.

    ``ready`` is called once clients can connect. Raises Misconfigured when the port cannot be had.
    """
    press, filler = Press(seed, running=True, attended=True), Filler(seed, running=True, attended=True)
    async with LogixPlant(press, filler, host, port) as server:
        if ready is not None:
            ready()
        await server.run()


class LogixPlant:
    """A controller that shows a press and a filler; enter it to listen, ``run`` it to let time pass."""

    def __init__(self, press: Press, filler: Filler, host: str, port: int) -> None:
        """Prepare; nothing listens yet."""
        self.press, self.filler = press, filler
        self._address = (host, port)
        identity = IdentityInfo(
            product_code=55, device_type=14, major_revision=32, minor_revision=11, product_name="1756-L83E/B"
        )
        self.controller = Controller(identity, plant_program(), self._written)
        self._adapter: Any = EipAdapter(self.controller, identity)
        self._scans = 0

    async def __aenter__(self) -> Self:
        self.show()
        self.controller.program.put("SP", self.press.set_point)
        self.controller.program.put("FillerSpeedSP", self.filler.set_point)
        try:
            await self._adapter.listen(*self._address)
        except OSError as error:
            host, port = self._address
            raise Misconfigured(
                f"the simulator cannot listen at {host}:{port}: {error.strerror or error}; choose another port"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._adapter.close()

    async def run(self) -> None:
        """Let both run in real time until cancelled."""
        await scans(self._scan)

    def _scan(self, dt: float) -> None:
        self.press.step(dt)
        self.filler.step(dt)
        self.show()

    def show(self) -> None:
        """Put what the machines show into the controller's tags."""
        press, filler, program = self.press.read(), self.filler.read(), self.controller.program
        for structure, seen, members in (("Press", press, _PRESS), ("Filler", filler, _FILLER)):
            for member, name in members.items():
                value = getattr(seen, name)
                # Counters of 32 bits roll over as a DINT does.
                shown = (value + _DINT) % (2 * _DINT) - _DINT if type(value) is int else value
                program.put(f"{structure}.{member}", shown)
        program.put("Press.Jammed", press.FaultCode != 0)
        program.put("Filler.Fault", filler.FaultCode != 0)
        self._scans += 1
        program.put(f"Pressures[{self._scans % 10}]", press.PV)
        program.put("Program:Main.Scans", self._scans % _DINT)

    def _written(self, name: str) -> None:
        """A client wrote: hand it to the machine, so that no short press of a button is missed."""
        program = self.controller.program
        match name:
            case "SP":
                with suppress(ValueError):  # NaN: the press goes on with what it had
                    self.press.set_pressure(program.get("SP"))
                program.put("SP", self.press.set_point)
            case "Start":
                self.press.start_button(pressed=bool(program.get("Start")))
            case "Stop":
                self.press.stop_button(pressed=bool(program.get("Stop")))
            case "FillerSpeedSP":
                with suppress(ValueError):
                    self.filler.set_speed(program.get("FillerSpeedSP"))
                program.put("FillerSpeedSP", self.filler.set_point)  # as the drive keeps it
            case "FillerStart":
                self.filler.start_button(pressed=bool(program.get("FillerStart")))
            case "FillerStop":
                self.filler.stop_button(pressed=bool(program.get("FillerStop")))
            case _:
                pass
