"""A simulated SLC 500, MicroLogix or PLC-5 in this process, with the data files that a test wants."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from shopfloor.simulators.press_slc import CATALOGUE, Family
from shopfloor.simulators.slc_controller import DataFile, Port, Processor
from shopfloor.testing.programs import free_port


def files(family: Family = "slc500") -> dict[int, DataFile]:
    """Files of every type, 100 words and more of some."""
    words = 1 if family == "plc5" else 2
    made = {
        0: DataFile("O", 10, words=words), 1: DataFile("I", 10, words=words), 2: DataFile("S", 83),
        3: DataFile("B", 256),
        4: DataFile("T", 50), 5: DataFile("C", 10), 6: DataFile("R", 10), 7: DataFile("N", 256), 8: DataFile("F", 256),
        9: DataFile("ST", 10), 12: DataFile("N", 10, writable=False), 200: DataFile("N", 1000),
    }  # fmt: skip
    if family != "plc5":
        made[10] = DataFile("A", 40)
    if family == "micrologix":
        made[11] = DataFile("L", 20)
    return made


class Plc:
    """Listens on a free port while it is entered."""

    def __init__(
        self, family: Family = "slc500", held: Mapping[int, DataFile] | None = None, *, connections: int = 32
    ) -> None:
        self.processor = Processor(CATALOGUE[family], files(family) if held is None else held, plc5=family == "plc5")
        self.written: list[int] = []
        self.processor.written = self.written.append
        self._listening: Any = Port(self.processor, connections)
        self.port = free_port()

    async def __aenter__(self) -> Self:
        await self._listening.listen("127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._listening.close()
