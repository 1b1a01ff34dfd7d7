"""What every source promises, with libsnap7's server behind a network that breaks."""

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.samples import Value
from shopfloor.sources.s7 import S7Config
from shopfloor.testing.contracts import ProxiedRig, SourceContract, SourceRig
from shopfloor.testing.faults import FaultProxy
from tests.sources.s7_peer import Snap7Server


@pytest.fixture(scope="module")
def peer() -> Iterator[Snap7Server]:
    with Snap7Server() as started:
        yield started


class S7Rig(ProxiedRig):
    def __init__(self, peer: Snap7Server, proxy: FaultProxy, timeout: str) -> None:
        self.peer, self.number = peer, 0
        config = S7Config.model_validate({
            "name": "press", "type": "s7", "host": "127.0.0.1", "port": proxy.port, "rate": "20 ms", "timeout": timeout,
            "tags": [{"tag": "press/PV", "address": "DB1,REAL0"}, {"tag": "press/SP", "address": "DB1,REAL4"}],
        })  # fmt: skip
        super().__init__(config.build(), proxy)

    async def change(self) -> None:
        self.number += 1
        await self.peer.put("DB", 0, struct.pack(">f", self.number))

    def writable(self) -> tuple[str, Value]:
        return "press/SP", 71.25

    async def held(self, tag: str) -> Value:
        assert tag == "press/SP"
        value: float = struct.unpack(">f", await self.peer.get("DB", 4, 4))[0]
        return value


class TestS7(SourceContract):
    @pytest.fixture(autouse=True)
    def _peer(self, peer: Snap7Server) -> None:
        self.peer = peer

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:
        del folder
        await self.peer.put("DB", 0, bytes(512))
        async with FaultProxy("127.0.0.1", self.peer.port) as proxy:
            yield S7Rig(self.peer, proxy, "4 s" if self.hasty else "30 s")
