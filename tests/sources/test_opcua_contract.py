"""What every source promises, with node-opcua's server behind a network that breaks."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from shopfloor.samples import Value
from shopfloor.sources.opcua import OpcUaConfig
from shopfloor.testing.contracts import ProxiedRig, SourceContract, SourceRig
from shopfloor.testing.faults import FaultProxy
from tests.sources.opcua_peer import Peer

MS = 10**6


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with Peer(tmp_path_factory.mktemp("peer")) as started:
        yield started


class OpcUaRig(ProxiedRig):
    def __init__(self, peer: Peer, proxy: FaultProxy, folder: Path, mode: str, *, hasty: bool) -> None:
        self.peer, self.number = peer, 0
        config = OpcUaConfig.model_validate(
            {
                "name": "press",
                "type": "opcua",
                "endpoint": f"opc.tcp://127.0.0.1:{proxy.port}",
                "pki": folder,
                "mode": mode,
                "publishing": "20 ms",
                "sampling": "50 ms",
                "poll": "50 ms",
                "timeout": "4 s" if hasty else "30 s",
                "tags": [{"tag": f"press/{n}", "node": f"nsu=urn:shopfloor:peer;s={n}"} for n in ("PV", "SP", "Order")],
            }
        )
        super().__init__(config.build(), proxy)

    async def change(self) -> None:
        self.number += 1
        await self.peer.ask(set="PV", value=self.number + 0.5)

    def writable(self) -> tuple[str, Value]:
        return "press/SP", 71.25

    async def held(self, tag: str) -> Value:
        value: Value = await self.peer.ask(get=tag.removeprefix("press/"))
        return float(value) if isinstance(value, int) else value


class TestSubscribed(SourceContract):
    redelivers: ClassVar[bool] = True

    @pytest.fixture(autouse=True)
    async def _peer(self, peer: Peer) -> None:
        self.peer = peer
        await peer.ask(set="SP", value=1.5)

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:
        async with FaultProxy("127.0.0.1", self.peer.port) as proxy:
            yield OpcUaRig(self.peer, proxy, folder, "subscribe", hasty=self.hasty)


class TestPolled(SourceContract):
    @pytest.fixture(autouse=True)
    async def _peer(self, peer: Peer) -> None:
        self.peer = peer
        await peer.ask(set="SP", value=1.5)

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[SourceRig]:
        async with FaultProxy("127.0.0.1", self.peer.port) as proxy:
            yield OpcUaRig(self.peer, proxy, folder, "poll", hasty=self.hasty)
