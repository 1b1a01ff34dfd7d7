"""What every source promises, with a simulated SLC 5/05 and a PLC-5 behind a network that breaks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from shopfloor.samples import Value
from shopfloor.simulators.press_slc import Family
from shopfloor.sources.slc import SlcConfig
from shopfloor.testing.contracts import SourceContract, SourceRig
from shopfloor.testing.contracts.source import ProxiedRig
from shopfloor.testing.faults import FaultProxy
from tests.sources.slc_plc import Plc


class SlcRig(ProxiedRig):
    def __init__(self, plc: Plc, family: Family, proxy: FaultProxy, timeout: str) -> None:
        self.plc, self.number = plc, 0
        addresses = {"PV": "F8:0", "SP": "F8:2", "Order": "ST9:0", "Parts": "C5:0.ACC", "Run": "B3/17"}
        tags = [{"tag": f"press/{name}", "address": address} for name, address in addresses.items()]
        config = SlcConfig.model_validate(
            {
                "name": "press", "host": "127.0.0.1", "port": proxy.port, "family": family, "rate": "20 ms",
                "timeout": timeout, "tags": tags,
            }
        )  # fmt: skip
        super().__init__(config.build(), proxy)

    async def change(self) -> None:
        self.number += 1
        self.plc.processor.put_real(8, 0, self.number + 0.5)

    def writable(self) -> tuple[str, Value]:
        return "press/SP", 71.25

    async def held(self, tag: str) -> Value:
        assert tag == "press/SP"
        return self.plc.processor.real(8, 2)


class TestSlc(SourceContract):
    family: ClassVar[Family] = "slc500"

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:  # noqa: ARG002  # needs none
        async with Plc(self.family) as plc, FaultProxy("127.0.0.1", plc.port) as proxy:
            yield SlcRig(plc, self.family, proxy, "4 s" if self.hasty else "30 s")


class TestPlc5(TestSlc):
    family: ClassVar[Family] = "plc5"
