"""A PLC behind a real OPC UA server that counts, and knows what was acknowledged to it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from asyncua import Server, ua
from asyncua.server.internal_subscription import InternalSubscription

from shopfloor.testing.programs import free_port


class Plc:
    """A PLC that counts, and remembers which counts were acknowledged to it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"opc.tcp://127.0.0.1:{self.port}"
        self.count = 0
        self.acknowledged: set[int] = set()
        self.counts = True
        """Put to False, it rests: a slow machine would never be done with what comes all the time."""

    @asynccontextmanager
    async def running(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
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
            if self.counts:
                self.count += 1
                await node.write_value(ua.Variant(self.count, ua.VariantType.Int64))  # type: ignore[attr-defined]
            await asyncio.sleep(0.005)

    def _remember(self, result: ua.PublishResult | None) -> None:
        for notification in result.NotificationMessage.NotificationData if result else ():
            if isinstance(notification, ua.DataChangeNotification):
                self.acknowledged.update(item.Value.Value.Value for item in notification.MonitoredItems)
