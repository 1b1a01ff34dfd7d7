# cm-ethernetip carries no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false
"""A press line in a simulated Logix controller: its tags as EtherNet/IP clients read, list and write them.

``Press`` is a structure; Start, Stop, SP and Order can be written, everything else is the machine's own. What it does
is in ``press_line``; this module lets it run in real time.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from ethernetip.cip.identity_info import IdentityInfo
from ethernetip.protocol.eip_adapter import EipAdapter

from shopfloor.samples import Misconfigured
from shopfloor.simulators.logix_controller import Controller, Member, Program
from shopfloor.simulators.press_line import Press

TICK: Final = 0.1
"""Seconds from one scan of the simulated controller to the next."""
_SHOWN: Final = {"PV": "PV", "CV": "CV", "CycleTime": "CycleTime", "Temperature": "Temperature",
                 "Running": "MotorStatus", "GoodParts": "GoodParts", "ScrapParts": "ScrapParts"}  # fmt: skip


def press_program() -> Program:
    """The program of the press, as it is downloaded."""
    program = Program()
    program.structure(
        "PressData",
        Member("Running", "BOOL"),
        Member("Jammed", "BOOL"),
        *(Member(name, "REAL") for name in ("PV", "CV", "CycleTime", "Temperature")),
        *(Member(name, "DINT") for name in ("GoodParts", "ScrapParts", "State", "FaultCode")),
    )
    program.add("Press", "PressData", writable=False)
    program.add("SP", "REAL")
    program.add("Start", "BOOL")
    program.add("Stop", "BOOL")
    program.add("Order", "STRING")
    program.add("Pressures", "REAL", 10, writable=False)
    program.add("Program:Main.Scans", "DINT", writable=False)
    program.put("Order", "A-4711")
    return program


async def serve(
    host: str = "127.0.0.1", port: int = 44_818, *, seed: int = 1, ready: Callable[[], None] | None = None
) -> None:
    """Serve a press until cancelled.

    ``ready`` is called once clients can connect. Raises Misconfigured when the port cannot be had.
    """
    async with LogixPress(Press(seed, running=True, attended=True), host, port) as server:
        if ready is not None:
            ready()
        await server.run()


class LogixPress:
    """A controller that shows a press; enter it to listen, ``run`` it to let time pass."""

    def __init__(self, press: Press, host: str, port: int) -> None:
        """Prepare; nothing listens yet."""
        self.press = press
        self._address = (host, port)
        identity = IdentityInfo(
            product_code=55, device_type=14, major_revision=32, minor_revision=11, product_name="1756-L83E/B"
        )
        self.controller = Controller(identity, press_program(), self._written)
        self._adapter: Any = EipAdapter(self.controller, identity)
        self._scans = 0

    async def __aenter__(self) -> Self:
        self.show()
        self.controller.program.put("SP", self.press.set_point)
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
        """Let the press run in real time until cancelled."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            self.press.step(now - last)
            self.show()
            last = now

    def show(self) -> None:
        """Put what the press shows into the controller's tags."""
        seen, program = self.press.read(), self.controller.program
        for member, name in _SHOWN.items():
            value = getattr(seen, name)
            signed = value - (value >> 31 << 32) if member.endswith("Parts") else value  # DINTs roll over
            program.put(f"Press.{member}", signed)
        program.put("Press.State", int(seen.State))
        program.put("Press.FaultCode", int(seen.FaultCode))
        program.put("Press.Jammed", seen.FaultCode != 0)
        self._scans += 1
        program.put(f"Pressures[{self._scans % 10}]", seen.PV)
        program.put("Program:Main.Scans", self._scans % 2**31)

    def _written(self, name: str) -> None:
        """A client wrote: hand it to the press, so that no short press of a button is missed."""
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
            case _:
                pass
