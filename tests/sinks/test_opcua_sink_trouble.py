"""The OPC UA server among clients that are slow, silent or gone, on a full disk, and with a plant file that changed."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from asyncua import ua

from shopfloor import plant as plants
from shopfloor.interpreter import prepared
from shopfloor.samples import Batch, Sample, Unavailable
from shopfloor.sinks.opcua import OpcUaSink
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sinks.opcua_client import NAMESPACE, Observer, code, config, connected, node_id, read, shown
from tests.sinks.opcua_standard import standard_nodes

__all__ = ["standard_nodes"]  # a fixture

T0 = 1_767_592_800_000_000_000
CODES = ua.StatusCodes


def batch(*values: object, tag: str = "a/x") -> Batch:
    first = values[0]
    after = int(first) if isinstance(first, int) else 0
    return Batch.of("line", T0, [Sample(tag, T0 + (after + i) * 1000, v) for i, v in enumerate(values)])  # type: ignore[arg-type]


TROUBLES: dict[str, Callable[[FaultProxy], None]] = {
    "black-holed": FaultProxy.black_hole,
    "slow": lambda proxy: proxy.delay(0.2),
    "cut off": FaultProxy.drop,
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_client_in_trouble_keeps_nobody_waiting(trouble: str, tmp_path: Path) -> None:
    """The sink goes on and another client hears everything; the one in trouble sees the latest when it is back."""
    port = free_port()
    async with (
        config(tmp_path, port).build() as sink,
        FaultProxy("127.0.0.1", port) as proxy,
        Observer(port) as well,
        AsyncExitStack() as others,
    ):
        await sink.write(1, batch(0))
        troubled = Observer(proxy.port)
        others.enter_context(suppress(ConnectionError, TimeoutError, ua.UaError))  # it may be gone at its end
        await others.enter_async_context(troubled)
        for observer in (well, troubled):
            await observer.watch(["a/x"])
            await until(lambda known=observer: bool(known.heard), "it hears the first value")  # type: ignore[misc]
        TROUBLES[trouble](proxy)
        for number in range(20):
            await sink.write(2 + number, batch(*range(1 + number * 20, 21 + number * 20)))
        await until(lambda: [sample.value for sample in well.heard] == list(range(401)), "the other one hears all", 60)
        proxy.heal()
        if trouble != "cut off":
            await until(lambda: troubled.heard[-1].value == 400, "it hears the latest", 60)
        async with connected(proxy.port) as again:
            assert shown(await read(again, "a/x")) == 400


async def test_a_client_that_never_asks_for_what_it_subscribed_to_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Nothing can be told to it: of each item the newest are kept for a while, and the others go on."""
    port = free_port()
    async with config(tmp_path, port).build() as sink, connected(port) as silent, Observer(port) as well:
        await sink.write(1, batch(0))
        wanted = ua.CreateSubscriptionParameters(RequestedPublishingInterval=10.0, RequestedLifetimeCount=1000)
        created = await silent.uaclient.create_subscription(wanted, lambda _: None)
        item = ua.MonitoredItemCreateRequest()
        index = await silent.get_namespace_index(NAMESPACE)
        item.ItemToMonitor = ua.ReadValueId(NodeId=node_id("a/x", index), AttributeId=ua.AttributeIds.Value)
        item.RequestedParameters.QueueSize = ua.UInt32(0)
        asked = ua.CreateMonitoredItemsParameters(SubscriptionId=created.SubscriptionId, ItemsToCreate=[item])
        (made,) = await silent.uaclient.create_monitored_items(asked)
        assert made.StatusCode.is_good()
        asking = silent.uaclient._publish_task
        assert asking is not None
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await well.watch(["a/x"])
        for number in range(20):
            await sink.write(2 + number, batch(*range(1 + number * 100, 101 + number * 100)))
            await until(lambda told=number: len(well.heard) > (told + 1) * 100, "the other one hears", 60)  # type: ignore[misc]
        assert [sample.value for sample in well.heard] == list(range(2001))


async def test_a_full_disk_is_said_and_nothing_is_shown_that_could_not_be_kept(tmp_path: Path) -> None:
    """Of SQLite itself, as on a disk without room; with room again the same batch is shown."""
    port = free_port()
    async with config(tmp_path, port).build() as sink, connected(port) as client:
        await sink.write(1, batch("small"))
        await _pages(sink, 0)
        with pytest.raises(Unavailable, match=r"latest values cannot be kept in .* full"):
            await sink.write(2, batch("x" * 100_000))
        assert shown(await read(client, "a/x")) == "small"
        assert await sink.held() == 1
        await _pages(sink, 1_000_000)
        await sink.write(2, batch("x" * 100_000))
        assert shown(await read(client, "a/x")) == "x" * 100_000


async def _pages(sink: OpcUaSink, most: int) -> None:
    """Let the file have no more pages than this; fewer than it has are those that it has."""

    async def limit() -> None:
        assert sink._memory is not None
        sink._memory._db.execute(f"PRAGMA max_page_count = {most or 1}")

    assert sink._thread is not None
    await sink._thread.call(limit())


PLANT = """
plant: {{site: bremen}}
machines:
{machines}
sources:
  - name: plc
    type: opcua
    endpoint: opc.tcp://127.0.0.1:1
    tags:
{tags}
sinks:
  - name: scada
    type: opcua
    endpoint: opc.tcp://127.0.0.1:{port}
    anonymous: true
    security: {{policies: [None]}}
"""


async def test_tags_keep_their_node_ids_when_the_plant_file_changes(tmp_path: Path) -> None:
    """Others come before them, their machine moves to another line, some go: what a client has stored stays right."""
    port = free_port()

    def placed(machines: list[str], tags: list[str]) -> OpcUaSink:
        text = PLANT.format(
            port=port,
            machines="\n".join(f"  - {machine}" for machine in machines),
            tags="\n".join(f'      - {{tag: {tag}, node: "ns=2;s={tag}"}}' for tag in tags),
        )
        sink = plants.parse(text, "plant.yaml", tmp_path, {}).sinks[0].build()
        assert isinstance(sink, OpcUaSink)
        return sink

    async with (
        placed(["{id: press-1, line: stamping}"], ["press-1/PV", "press-1/Old"]) as sink,
        connected(port) as client,
    ):
        await sink.write(1, Batch.of("plc", T0, [Sample("press-1/PV", T0, 41.5), Sample("press-1/Old", T0, 1)]))
        index = await client.get_namespace_index("urn:shopfloor:bremen")
    machines = ["{id: filler-1}", "{id: press-1, line: pressing}"]
    async with placed(machines, ["filler-1/Count", "press-1/New", "press-1/PV"]), connected(port) as client:
        assert await client.get_namespace_index("urn:shopfloor:bremen") == index
        kept = client.get_node(node_id("press-1/PV", index))
        assert await kept.read_value() == 41.5
        way = [f"{index + 1}:bremen", f"{index + 1}:pressing", f"{index + 1}:press-1", f"{index}:PV"]
        assert await client.nodes.objects.get_child(way) == kept
        for tag, expected in (("press-1/Old", CODES.BadNodeIdUnknown), ("press-1/New", CODES.BadWaitingForInitialData)):
            said = await client.get_node(node_id(tag, index)).read_data_value(raise_on_bad_status=False)
            assert code(said) == expected, tag


async def test_what_stays_is_out_of_the_collectors_sight_after_a_restart_too(tmp_path: Path) -> None:
    """And what the server was made of can go: it is not kept with the rest."""
    stays = [[number] for number in range(1000)]

    def in_sight(wanted: object) -> bool:
        return any(one is wanted for one in gc.get_objects())

    with prepared():
        port = free_port()
        for _ in range(2):
            async with config(tmp_path, port).build() as sink:
                await sink.write(1, batch(0))
                assert sink._server is not None
                server = weakref.ref(sink._server)
                assert not in_sight(sink._server)
                assert not in_sight(stays)
            assert server() is None
            assert gc.get_freeze_count() > len(stays)
            assert not in_sight(stays)
    assert in_sight(stays)


async def test_a_server_that_runs_on_stays_out_of_sight_when_the_rest_is_not(tmp_path: Path) -> None:
    """At the end of a plant its sinks end last."""
    stays = [[number] for number in range(1000)]
    async with config(tmp_path, free_port()).build() as sink:
        with prepared():
            assert gc.get_freeze_count() > len(stays)
        assert sink._server is not None
        assert gc.get_freeze_count() > len(stays)
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0
