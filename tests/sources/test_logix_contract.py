"""What every source promises, with a simulated controller behind a network that breaks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shopfloor.samples import Value
from shopfloor.sources.logix import LogixConfig
from shopfloor.testing.contracts import SourceContract, SourceRig
from shopfloor.testing.faults import FaultProxy
from tests.sources.logix_plc import Plc


class LogixRig(SourceRig):
    def __init__(self, plc: Plc, proxy: FaultProxy, timeout: str) -> None:
        self.plc, self.proxy, self.number = plc, proxy, 0
        tags = [{"tag": f"press/{name}", "address": name} for name in ("PV", "SP", "Order")]
        tags.append({"tag": "press/Wear", "address": "Press.Tools[1].Wear[2]"})
        config = LogixConfig.model_validate(
            {
                "name": "press",
                "host": "127.0.0.1",
                "port": proxy.port,
                "rate": "20 ms",
                "timeout": timeout,
                "tags": tags,
            }
        )
        super().__init__(config.build())

    async def change(self) -> None:
        self.number += 1
        self.plc.put("PV", self.number + 0.5)

    async def lose(self) -> None:
        self.proxy.reset()

    async def freeze(self) -> bool:
        self.proxy.black_hole()
        return True

    async def restore(self) -> None:
        self.proxy.heal()

    def writable(self) -> tuple[str, Value]:
        return "press/SP", 71.25

    async def held(self, tag: str) -> Value:
        value: Value = self.plc.get(tag.removeprefix("press/"))
        return value


class TestLogix(SourceContract):
    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:  # noqa: ARG002  # needs none
        async with Plc() as plc, FaultProxy("127.0.0.1", plc.port) as proxy:
            yield LogixRig(plc, proxy, "4 s" if self.hasty else "30 s")
