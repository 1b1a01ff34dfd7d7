"""What clients of the OPC UA server may wish for in a subscription: nothing of it stops the server or fills memory."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.server.internal_session import InternalSession

from shopfloor.samples import Batch, Quality, Sample
from shopfloor.sinks import opcua_monitoring
from shopfloor.sinks.opcua import OpcUaSink
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port
from tests.sinks.opcua_client import NAMESPACE, config, connected, node_id, sample
from tests.sinks.opcua_standard import standard_nodes

__all__ = ["standard_nodes"]  # a fixture

T0 = 1_767_592_800_000_000_000
BAD = ua.StatusCodes.BadMonitoredItemFilterUnsupported


def said(number: int, value: Any, tag: str = "a/x") -> Batch:
    quality = Quality.BAD if value is None else Quality.GOOD
    return Batch.of("line", T0, [Sample(tag, T0 + number * 1000, value, quality)])


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[OpcUaSink]:
    async with config(tmp_path, free_port()).build() as sink:
        await sink.write(1, said(1, 1.0))
        yield sink


class Told:
    """What a subscription was told, in the order of arrival."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def datachange_notification(self, node: Any, _value: object, data: Any) -> None:
        told = sample(node.nodeid.Identifier, data.monitored_item.Value)
        self.values.append(None if told is None else told.value)


def deadband(width: float) -> ua.DataChangeFilter:
    return ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValue, DeadbandType=ua.UInt32(1), DeadbandValue=width)


async def item(client: Client, wanted: Any = None, queue: int = 10) -> ua.MonitoredItemCreateRequest:
    index = await client.get_namespace_index(NAMESPACE)
    asked = ua.MonitoredItemCreateRequest()
    asked.ItemToMonitor = ua.ReadValueId(NodeId=node_id("a/x", index), AttributeId=ua.AttributeIds.Value)
    asked.MonitoringMode = ua.MonitoringMode.Reporting
    asked.RequestedParameters.QueueSize = ua.UInt32(queue)
    if wanted is not None:
        asked.RequestedParameters.Filter = wanted
    return asked


def port(sink: OpcUaSink) -> int:
    return int(sink._config.endpoint.rpartition(":")[2])


async def test_a_deadband_is_none_for_what_is_no_number(sink: OpcUaSink) -> None:
    """A tag that turns bad, and good again, is told; the server and its other clients stay."""
    async with connected(port(sink)) as client:
        told = Told()
        subscription = await client.create_subscription(50, told)
        await subscription._subscribe(
            client.get_node((await item(client)).ItemToMonitor.NodeId),
            ua.AttributeIds.Value, mfilter=deadband(0.5), queuesize=10,
        )  # fmt: skip
        for number, value in enumerate([1.1, None, 3.0, 3.2, "stopped", 4.0], 2):
            await sink.write(number, said(number, value))
        await until(lambda: bool(told.values) and told.values[-1] == 4.0, "it hears the last", 60)
        assert told.values == [1.0, None, 3.0, "stopped", 4.0]
        assert await sink.held() == 7


@pytest.mark.parametrize("wanted", [ua.AggregateFilter(), ua.EventFilter()])
async def test_a_filter_that_is_not_for_data_is_refused(sink: OpcUaSink, wanted: object) -> None:
    async with connected(port(sink)) as client:
        created = await client.uaclient.create_subscription(
            ua.CreateSubscriptionParameters(RequestedPublishingInterval=50.0, RequestedLifetimeCount=1000),
            lambda _: None,
        )
        asked = ua.CreateMonitoredItemsParameters(
            SubscriptionId=created.SubscriptionId, ItemsToCreate=[await item(client, wanted)]
        )
        (made,) = await client.uaclient.create_monitored_items(asked)
        assert made.StatusCode.value == BAD
        await sink.write(2, said(2, 2.0))
        assert await sink.held() == 2


async def test_what_waits_for_a_client_that_never_asks_is_bounded(
    sink: OpcUaSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it asks for more later, and for no interval at all."""
    monkeypatch.setattr(opcua_monitoring, "MOST_KEPT", 50)
    async with connected(port(sink)) as client:
        created = await client.uaclient.create_subscription(
            ua.CreateSubscriptionParameters(RequestedPublishingInterval=0.0, RequestedLifetimeCount=1000),
            lambda _: None,
        )
        assert created.RevisedPublishingInterval == opcua_monitoring.SHORTEST_INTERVAL
        asked = ua.CreateMonitoredItemsParameters(
            SubscriptionId=created.SubscriptionId, ItemsToCreate=[await item(client)]
        )
        (made,) = await client.uaclient.create_monitored_items(asked)
        wish = ua.MonitoredItemModifyRequest(MonitoredItemId=made.MonitoredItemId)
        wish.RequestedParameters.QueueSize = ua.UInt32(0)
        (changed,) = await client.uaclient.modify_monitored_items(
            ua.ModifyMonitoredItemsParameters(SubscriptionId=created.SubscriptionId, ItemsToModify=[wish])
        )
        assert changed.RevisedQueueSize == 1000
        assert sink._server is not None
        there = sink._server.iserver.subscription_service.subscriptions[created.SubscriptionId]
        await there.set_publishing_mode(False)
        for number in range(2, 302):
            await sink.write(number, said(number, float(number)))
        (waiting,) = there._triggered_datachanges.values()
        assert len(waiting) == 50
        assert waiting[-1].Value.Value.Value == 301.0


async def test_a_session_that_waits_for_its_client_ends_with_the_server(tmp_path: Path) -> None:
    """Else each restart would leave one that counts, until nobody may log in any more."""
    before = InternalSession._current_connections
    for life in range(3):
        async with config(tmp_path, free_port()).build() as sink, connected(port(sink)) as client:
            await sink.write(life + 1, said(life + 1, 1.0))
            await client.create_subscription(100, Told())
            client.disconnect_socket()
    assert InternalSession._current_connections <= before


async def test_so_many_sessions_as_are_allowed(tmp_path: Path) -> None:
    async with config(tmp_path, free_port(), sessions=2).build() as sink:
        async with connected(port(sink)), connected(port(sink)):
            with pytest.raises((ConnectionError, TimeoutError, ua.UaError)):
                async with connected(port(sink)):
                    pass
        async with connected(port(sink)):
            pass
