"""What every source promises, with modbus-serial's server (Modbus TCP) and pymodbus's (RTU over TCP)."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from shopfloor.protocols.modbus_address import Layout
from shopfloor.samples import Value
from shopfloor.sources.modbus import ModbusConfig, ModbusSource
from shopfloor.testing.contracts import ProxiedRig, SourceContract, SourceRig
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sources.modbus_peer import Peer


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer() as started:
        yield started


def source(port: int, framing: str, timeout: str) -> ModbusSource:
    config = ModbusConfig.model_validate(
        {
            "name": "press",
            "host": "127.0.0.1",
            "port": port,
            "framing": framing,
            "rate": "20 ms",
            "timeout": timeout,
            "tags": [
                {"tag": "press/Count", "address": "40001", "type": "uint32"},
                {"tag": "press/SP", "address": "holding 10", "type": "float64", "order": "CDAB"},
                {"tag": "press/Running", "address": "40021.3"},
            ],
        }
    )
    return config.build()


class Rig(ProxiedRig):
    """Both servers say and hold the same; they differ in how they are asked."""

    def __init__(self, proxy: FaultProxy, framing: str, *, hasty: bool) -> None:
        super().__init__(source(proxy.port, framing, "4 s" if hasty else "30 s"), proxy)
        self.number = 0

    async def put(self, address: int, words: list[int]) -> None:
        raise NotImplementedError

    async def words(self, address: int, count: int) -> list[int]:
        raise NotImplementedError

    async def change(self) -> None:
        self.number += 1
        await self.put(0, Layout("uint32").encode(self.number))

    def writable(self) -> tuple[str, Value]:
        return "press/SP", 71.25

    async def held(self, tag: str) -> Value:
        assert tag == "press/SP"
        return Layout("float64", "CDAB").decode(await self.words(10, 4))


class OverTcp(Rig):
    peer: Peer

    async def put(self, address: int, words: list[int]) -> None:
        await self.peer.set("holding", address, *words)

    async def words(self, address: int, count: int) -> list[int]:
        return await self.peer.get("holding", address, count)


class OverRtu(Rig):
    server: ModbusTcpServer

    async def put(self, address: int, words: list[int]) -> None:
        await self.server.async_setValues(1, 16, address, words)

    async def words(self, address: int, count: int) -> list[int]:
        found = await self.server.async_getValues(1, 3, address, count)
        assert isinstance(found, list)
        return [int(word) for word in found]


class TestModbusTcp(SourceContract):
    @pytest.fixture(autouse=True)
    async def _peer(self, peer: Peer) -> None:
        self.peer = peer
        await peer.set("holding", 10, 0, 0, 0, 0)

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:  # noqa: ARG002  # needs none
        async with FaultProxy("127.0.0.1", self.peer.port) as proxy:
            rig = OverTcp(proxy, "tcp", hasty=self.hasty)
            rig.peer = self.peer
            yield rig


class TestRtuOverTcp(SourceContract):
    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:  # noqa: ARG002  # needs none
        port = free_port()
        data = SimData(0, count=100, values=0, datatype=DataType.REGISTERS)
        server = ModbusTcpServer(SimDevice(1, data), framer=FramerType.RTU, address=("127.0.0.1", port))
        await server.serve_forever(background=True)
        try:
            async with FaultProxy("127.0.0.1", port) as proxy:
                rig = OverRtu(proxy, "rtu-over-tcp", hasty=self.hasty)
                rig.server = server
                yield rig
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus left its return type out
