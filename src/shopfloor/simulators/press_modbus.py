"""A press line behind a real Modbus server: the registers that a small PLC or a gateway would show.

MAP says what is where. Holding registers, Start and Stop can be written, everything else is the machine's own. What it
does is in ``press_line``; this module lets it run in real time and shows it to Modbus masters.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from shopfloor.protocols.modbus_address import Layout, TypeName, parse
from shopfloor.protocols.modbus_line import Framing
from shopfloor.samples import Misconfigured, Value
from shopfloor.simulators.pace import scans
from shopfloor.simulators.press_line import FULL_SCALE, Press

DEVICE: Final = 1
"""Its unit id."""
_WRITES: Final = frozenset({5, 6, 15, 16, 22})
_FRAMERS: Final = {"tcp": FramerType.SOCKET, "rtu-over-tcp": FramerType.RTU}


class Register(NamedTuple):
    """Where the press shows something."""

    address: str
    type: TypeName
    description: str


MAP: Final[Mapping[str, Register]] = {
    "Start": Register("00001", "bool", "Start button: starts on its rising edge"),
    "Stop": Register("00002", "bool", "Stop button: stops while pressed, wins over Start"),
    "MotorStatus": Register("10001", "bool", "The motor runs"),
    "Fault": Register("10002", "bool", "Held by a fault"),
    "PV": Register("30001", "float32", "Pressure, bar"),
    "CV": Register("30003", "float32", "Valve opening, %"),
    "CycleTime": Register("30005", "float32", "Seconds from part to part"),
    "Temperature": Register("30007", "float32", "Hydraulic oil, °C"),
    "GoodParts": Register("30009", "uint32", "Good parts since the PLC was loaded, rolls over"),
    "ScrapParts": Register("30011", "uint32", "Scrapped parts since the PLC was loaded, rolls over"),
    "State": Register("30013", "int16", "PackML state: 2 stopped, 3 starting, 6 execute, 11 held (jammed)"),
    "FaultCode": Register("30014", "uint16", "0 none, 17 sheet jam"),
    "Pressure": Register("30015", "uint16", "Pressure as an analogue input gives it: 0 to 27648 for 0 to 100 bar"),
    "TotalParts": Register("30016", "uint32", "All parts since the PLC was loaded, rolls over"),
    "ScrapReason": Register("30018", "int16", "Of the last scrapped part: 1 pressure, 2 material"),
    "IdealRate": Register("30019", "float32", "Parts per minute at best"),
    "Power": Register("30021", "float32", "Power sensor, kW"),
    "SP": Register("40001", "float32", "Set-point of the pressure, bar"),
    "Order": Register("40003", "string", "Order number, 16 characters"),
    "Lamps": Register("40011", "uint16", "Signal tower by bits: 0 green, 1 yellow, 2 red"),
}
"""Every value of the press by name; floats and long numbers with the high word first."""

_AS_IT_IS: Final = (
    "MotorStatus", "PV", "CV", "CycleTime", "Temperature", "GoodParts", "ScrapParts", "SP", "TotalParts", "IdealRate",
    "Power",
)  # fmt: skip
_ORDER_BYTES: Final = 16
_COUNTS: Final = 27_648


def layout(name: str) -> Layout:
    """How a value of MAP lies in its registers."""
    kind = MAP[name].type
    return Layout(kind, length=_ORDER_BYTES if kind == "string" else 0)


async def serve(
    host: str = "127.0.0.1",
    port: int = 502,
    *,
    framing: Framing = "tcp",
    seed: int = 1,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve a press until cancelled.

    ``ready`` is called once masters can connect. Raises Misconfigured when the port cannot be had.
    """
    async with ModbusPress(Press(seed, running=True, attended=True), host, port, framing=framing) as server:
        if ready is not None:
            ready()
        await server.run()


class ModbusPress:
    """A Modbus server that shows a press; enter it to listen, ``run`` it to let time pass."""

    def __init__(self, press: Press, host: str, port: int, *, framing: Framing = "tcp") -> None:
        """Prepare; nothing listens yet."""
        self.press = press
        self._address = (host, port)
        self._framing = framing
        self._held: dict[tuple[str, int], int] = {}
        """What is in each register and bit, by kind and address."""
        for name in MAP:
            initial: dict[str, Value] = {"bool": False, "string": "A-4711"}
            self._put(name, initial.get(layout(name).type, 0))
        self._server: ModbusTcpServer | None = None

    async def __aenter__(self) -> Self:
        self.show()
        blocks = {kind: self._block(kind) for kind in ("coil", "discrete", "holding", "input")}
        device = SimDevice(
            DEVICE, (blocks["coil"], blocks["discrete"], blocks["holding"], blocks["input"]), action=self._accessed
        )
        self._server = ModbusTcpServer(device, framer=_FRAMERS[self._framing], address=self._address)
        if not await self._server.listen():
            host, port = self._address
            raise Misconfigured(
                f"the simulator cannot listen at {host}:{port}; choose another port (below 1024 only as root)"
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus left its return type out

    async def run(self) -> None:
        """Let the press run in real time until cancelled."""
        await scans(self._scan)

    def _scan(self, dt: float) -> None:
        self.press.step(dt)
        self.show()

    def show(self) -> None:
        """Put what the press shows into the registers."""
        seen = self.press.read()
        for name in _AS_IT_IS:
            self._put(name, getattr(seen, name))
        self._put("ScrapReason", int(seen.ScrapReason))
        self._put("State", int(seen.State))
        self._put("FaultCode", int(seen.FaultCode))
        self._put("Fault", seen.FaultCode != 0)
        self._put("Pressure", min(_COUNTS, round(seen.PV / FULL_SCALE * _COUNTS)))

    def _put(self, name: str, value: Value) -> None:
        place = parse(MAP[name].address)
        for offset, word in enumerate(layout(name).encode(value)):
            self._held[place.kind, place.start + offset] = word

    def _block(self, kind: str) -> list[SimData]:
        """One run of addresses; behind its end nothing is there."""
        size = 1 + max(address for of, address in self._held if of == kind)
        if kind in {"coil", "discrete"}:
            return [SimData(0, values=[False] * size, datatype=DataType.BITS)]
        return [SimData(0, count=size, values=0, datatype=DataType.REGISTERS)]

    async def _accessed(
        self,
        function: int,
        first: int,
        address: int,
        _count: int,
        registers: list[int],
        new: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """A master reads or writes: give it what is there, take what it writes. Called before the answer is made."""
        kind = {1: "coil", 2: "discrete", 4: "input", 5: "coil", 15: "coil"}.get(function, "holding")
        if new is not None and function in _WRITES:
            before = dict(self._held)
            self._held |= {(kind, address + offset): int(word) for offset, word in enumerate(new)}
            if not self._operate(kind, range(address, address + len(new))):
                self._held = before
                return ExcCodes.ILLEGAL_VALUE
        self._fill(kind, first, registers)
        return None

    def _fill(self, kind: str, first: int, registers: list[int]) -> None:
        bits = kind in {"coil", "discrete"}
        for (of, address), word in self._held.items():
            if of == kind and not bits:
                registers[address - first] = word
            elif of == kind:
                place, mask = address // 16 - first, 1 << address % 16
                registers[place] = registers[place] | mask if word else registers[place] & ~mask

    def _operate(self, kind: str, written: range) -> bool:
        """Hand what was written to the press; False for what it cannot take."""
        if kind == "coil":
            self.press.start_button(pressed=bool(self._held["coil", 0]))
            self.press.stop_button(pressed=bool(self._held["coil", 1]))
        elif written.start < layout("SP").size:
            words = [self._held["holding", address] for address in range(layout("SP").size)]
            wanted = layout("SP").decode(words)
            if not isinstance(wanted, float) or not math.isfinite(wanted):
                return False
            with suppress(ValueError):
                self.press.set_pressure(wanted)
        return True
