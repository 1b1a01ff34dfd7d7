# cm-ethernetip carries no types:
# pyright: reportUnknownMemberType=false
"""A press line in a simulated SLC 500, MicroLogix or PLC-5: its data files as EtherNet/IP clients read and write them.

SHOWN says what is where. Start, Stop, SP and Order can be written, everything else is the machine's own. What it does
is in ``press_line``; this module lets it run in real time.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Literal, Self

from shopfloor.samples import Misconfigured
from shopfloor.simulators.pace import scans
from shopfloor.simulators.press_line import FULL_SCALE, Press
from shopfloor.simulators.slc_controller import DataFile, Port, Processor

Family = Literal["slc500", "micrologix", "plc5"]
CATALOGUE: Final[Mapping[Family, str]] = {"slc500": "1747-L552", "micrologix": "1766-L32BWA", "plc5": "1785-L40E"}
"""What each says that it is."""

SHOWN: Final[Mapping[str, str]] = {
    "B3:0/0": "Start button: starts on its rising edge; can be written",
    "B3:0/1": "Stop button: stops while pressed, wins over Start; can be written",
    "I:1.0/0": "The motor runs (PLC-5: I:001/00)",
    "I:1.0/1": "Held by a fault (PLC-5: I:001/01)",
    "I:1.0/2": "The ram is down: rises once a part (PLC-5: I:001/02)",
    "S:1": "The mode of the processor: remote run",
    "O:2.0/0": "Signal tower green; /1 yellow, /2 red (PLC-5: O:002/00)",
    "N7:0": "PackML state: 2 stopped, 3 starting, 6 execute, 11 held (jammed)",
    "N7:1": "Fault code: 0 none, 17 sheet jam",
    "N7:2": "Pressure as an analogue input gives it: 3277 to 16384 for 0 to 100 bar",
    "N7:3": "Why the last scrapped part was scrapped: 1 pressure, 2 material",
    "F8:0": "Pressure, bar",
    "F8:1": "Valve opening, %",
    "F8:2": "Set-point of the pressure, bar; can be written",
    "F8:3": "Seconds from part to part",
    "F8:4": "Hydraulic oil, °C",
    "F8:5": "Parts per minute at best",
    "F8:6": "Power, kW",
    "F8:7": "Energy, kWh",
    "T4:0": "The last stroke: ACC in hundredths of a second, PRE 120, EN while the motor runs, DN when it was slow",
    "C5:0.ACC": "Good parts, rolls over from 32767 to -32768",
    "C5:1.ACC": "Scrapped parts, rolls over",
    "C5:2.ACC": "All parts, rolls over",
    "R6:0.POS": "Which of the last ten pressures is the newest",
    "N10:0{10}": "The last ten pressures, tenths of bar",
    "ST9:0": "Order number; can be written",
    "L11:0": "MicroLogix only: good parts, 32 bits; L11:1 scrapped, L11:2 all parts",
}
"""Every value of the press by its address."""

_OUTPUTS, _INPUTS, _STATUS, _BITS, _TIMERS, _COUNTERS, _CONTROLS, _WORDS, _REALS, _TEXTS, _RING, _LONGS = range(12)
_ZERO, _SPAN = 3277, 13_107
"""Counts of 4 to 20 mA in an analogue input."""
_EN, _TT, _DN, _CU, _OV = 15, 14, 13, 15, 12
_IDEAL: Final = 120
_REMOTE_RUN, _PLC5_RUN = 6, 1 << 1 | 1 << 7
"""S:1 while the program runs, the key at remote."""
_KEPT: Final = 10


def press_files(family: Family) -> dict[int, DataFile]:
    """The data files of the press, as they are downloaded."""
    words = 1 if family == "plc5" else 2
    files = {
        _OUTPUTS: DataFile("O", 8, words=words, writable=False),
        _INPUTS: DataFile("I", 8, words=words, writable=False),
        _STATUS: DataFile("S", 83, writable=False),
        _BITS: DataFile("B", 4),
        _TIMERS: DataFile("T", 2, writable=False),
        _COUNTERS: DataFile("C", 3, writable=False),
        _CONTROLS: DataFile("R", 1, writable=False),
        _WORDS: DataFile("N", 20, writable=False),
        _REALS: DataFile("F", 10),
        _TEXTS: DataFile("ST", 2),
        _RING: DataFile("N", _KEPT, writable=False),
    }
    if family == "micrologix":
        files[_LONGS] = DataFile("L", 3, writable=False)
    return files


async def serve(
    host: str = "127.0.0.1",
    port: int = 44_818,
    *,
    family: Family = "slc500",
    seed: int = 1,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve a press until cancelled.

    ``ready`` is called once clients can connect. Raises Misconfigured when the port cannot be had.
    """
    async with SlcPress(Press(seed, running=True, attended=True), host, port, family) as server:
        if ready is not None:
            ready()
        await server.run()


class SlcPress:
    """A processor that shows a press; enter it to listen, ``run`` it to let time pass."""

    def __init__(self, press: Press, host: str, port: int, family: Family = "slc500") -> None:
        """Prepare; nothing listens yet."""
        self.press = press
        self._address = (host, port)
        self.processor = Processor(CATALOGUE[family], press_files(family), plc5=family == "plc5")
        self.processor.written = self._written
        self._port: Any = Port(self.processor)
        self._scans = 0

    async def __aenter__(self) -> Self:
        self.processor.put_text(_TEXTS, 0, "A-4711")
        self.processor.put_word(_STATUS, 1, _PLC5_RUN if self.processor.plc5 else _REMOTE_RUN)
        self.processor.put_real(_REALS, 2, self.press.set_point)
        self.show()
        try:
            await self._port.listen(*self._address)
        except OSError as error:
            host, port = self._address
            raise Misconfigured(
                f"the simulator cannot listen at {host}:{port}: {error.strerror or error}; choose another port"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._port.close()

    async def run(self) -> None:
        """Let the press run in real time until cancelled."""
        await scans(self._scan)

    def _scan(self, dt: float) -> None:
        self.press.step(dt)
        self.show()

    def show(self) -> None:
        """Put what the press shows into the data files."""
        seen, plc = self.press.read(), self.processor
        jammed = seen.FaultCode != 0
        plc.put_word(_INPUTS, 1, seen.MotorStatus | jammed << 1 | seen.Cycle << 2)
        plc.put_word(_OUTPUTS, 2, seen.MotorStatus | (not seen.MotorStatus and not jammed) << 1 | jammed << 2)
        level = _ZERO + round(seen.PV / FULL_SCALE * _SPAN)
        for place, word in enumerate((seen.State, seen.FaultCode, level, seen.ScrapReason)):
            plc.put_word(_WORDS, place, int(word))
        # The set-point, F8:2, is the client's.
        plc.put_real(_REALS, 0, seen.PV)
        plc.put_real(_REALS, 1, seen.CV)
        for place, real in enumerate((seen.CycleTime, seen.Temperature, seen.IdealRate, seen.Power, seen.Energy), 3):
            plc.put_real(_REALS, place, real)
        self._stroke(seen.CycleTime, running=seen.MotorStatus)
        for place, parts in enumerate((seen.GoodParts, seen.ScrapParts, seen.TotalParts)):
            plc.put_word(_COUNTERS, place, 1 << _CU | (parts > 2**15 - 1) << _OV)
            plc.put_word(_COUNTERS, place, 2**15 - 1, 1)
            plc.put_word(_COUNTERS, place, parts, 2)
            if _LONGS in plc.files:
                plc.put_long(_LONGS, place, parts)
        self._scans += 1
        newest = self._scans % _KEPT
        plc.put_word(_RING, newest, round(seen.PV * 10))
        plc.put_word(_CONTROLS, 0, 1 << _EN)
        plc.put_word(_CONTROLS, 0, _KEPT, 1)
        plc.put_word(_CONTROLS, 0, newest, 2)

    def _stroke(self, seconds: float, *, running: bool) -> None:
        """The timer of the last stroke, in hundredths."""
        elapsed = round(seconds * 100)
        slow = elapsed >= _IDEAL
        self.processor.put_word(_TIMERS, 0, running << _EN | (running and not slow) << _TT | slow << _DN)
        self.processor.put_word(_TIMERS, 0, _IDEAL, 1)
        self.processor.put_word(_TIMERS, 0, min(elapsed, 2**15 - 1), 2)

    def _written(self, number: int) -> None:
        """A client wrote: hand it to the press, so that no short press of a button is missed."""
        if number == _BITS:
            buttons = self.processor.word(_BITS, 0)
            self.press.start_button(pressed=bool(buttons & 1))
            self.press.stop_button(pressed=bool(buttons & 2))
        elif number == _REALS:
            with suppress(ValueError):  # NaN: the press goes on with what it had
                self.press.set_pressure(self.processor.real(_REALS, 2))
            self.processor.put_real(_REALS, 2, self.press.set_point)
