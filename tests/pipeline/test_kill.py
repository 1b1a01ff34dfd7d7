"""`kill -9` at any moment loses nothing that was acknowledged to a real OPC UA server."""

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import random
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from asyncua import Server, ua
from asyncua.server.internal_subscription import InternalSubscription

from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.testing.programs import free_port
from tests.pipeline.hands import until

KILLS = int(os.environ.get("SHOPFLOOR_KILLS", "120"))
"""Some hundred by default; a soak sets more."""
END = 2**62


class Plc:
    """A PLC that counts, and remembers which counts were acknowledged to it."""

    def __init__(self) -> None:
        self.endpoint = f"opc.tcp://127.0.0.1:{free_port()}"
        self.count = 0
        self.acknowledged: set[int] = set()

    @asynccontextmanager
    async def running(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
        plain = InternalSubscription.publish

        def publish(subscription: InternalSubscription, acks: Iterable[int]) -> None:
            numbers = list(acks)
            for number in numbers:
                self._remember(subscription._not_acknowledged_results.get(number))
            plain(subscription, numbers)

        monkeypatch.setattr(InternalSubscription, "publish", publish)
        server = Server()
        await server.init()
        server.set_endpoint(self.endpoint)
        await server.register_namespace("urn:shopfloor:test")
        node = await server.nodes.objects.add_variable(
            ua.NodeId.from_string("ns=2;s=Count"), "Count", 0, ua.VariantType.Int64
        )
        async with server:
            counting = asyncio.create_task(self._go_on(node))
            yield
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)

    async def _go_on(self, node: object) -> None:
        while True:
            self.count += 1
            await node.write_value(ua.Variant(self.count, ua.VariantType.Int64))  # type: ignore[attr-defined]
            await asyncio.sleep(0.005)

    def _remember(self, result: ua.PublishResult | None) -> None:
        for notification in result.NotificationMessage.NotificationData if result else ():
            if isinstance(notification, ua.DataChangeNotification):
                self.acknowledged.update(item.Value.Value.Value for item in notification.MonitoredItems)


@pytest.mark.timeout(900)
async def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed again and again at random moments over one journal and one historian.

    At the end every count that the PLC was told to forget is in the historian, no stored sample is
    there twice by our fault, and the ledger balances.
    """
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("victim")
    plc = Plc()
    chosen = random.Random(7)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["victim"])
    async with plc.running(monkeypatch):
        lives_with_data = 0
        for _ in range(KILLS):
            before = len(plc.acknowledged)
            process = forks.Process(target=victim.live, args=(str(tmp_path), plc.endpoint), daemon=True)
            await asyncio.to_thread(process.start)
            # Half of the lives end at any moment of the start, half some time after the first data.
            if chosen.random() < 0.5:
                await asyncio.sleep(chosen.uniform(0.0, 0.6))
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(20):
                        while len(plc.acknowledged) == before:
                            await asyncio.sleep(0.005)
                await asyncio.sleep(chosen.uniform(0.0, 0.2))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.join)
            lives_with_data += len(plc.acknowledged) > before
        acknowledged = set(plc.acknowledged)
        assert lives_with_data > KILLS / 4, "the test must have killed processes that were at work"
        async with Pipeline(victim.described(tmp_path, plc.endpoint)) as pipeline:
            await until(lambda: pipeline.historian is not None, "the historian")
            await until(lambda: all(not c.lag_entries for c in pipeline.components()), "everything delivered")
            assert pipeline.historian is not None
            series = await pipeline.historian.history("plc/count", 0, END, limit=10_000_000)
            stored = list(series.values)
            assert not acknowledged - set(stored), "acknowledged, but lost"
            assert not [pair for pair in balances(await pipeline.ledger()) if pair.missing]
