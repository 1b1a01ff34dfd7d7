"""The OPC UA source against node-opcua's server: values, losses, commands, browsing."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor.samples import Batch, Command, Outcome, Quality, Sample, Unavailable, Value
from shopfloor.sources.opcua import OpcUaConfig, OpcUaSource
from shopfloor.testing.contracts import same
from shopfloor.testing.faults import FaultProxy
from tests.sources.opcua_peer import Peer

SECOND = 10**9
PATIENCE = 40.0


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with Peer(tmp_path_factory.mktemp("peer"), tags=10_000) as started:
        yield started


@pytest.fixture(autouse=True)
async def _quiet(peer: Peer) -> None:
    """The subscriptions of earlier tests linger; node-opcua fails an assertion of its own when one overflows."""
    await peer.ask(kick=True)


def configured(endpoint: str, folder: Path, *tags: str | dict[str, Any], **more: Any) -> OpcUaConfig:
    listed = [{"tag": t} if isinstance(t, str) else t for t in tags]
    return OpcUaConfig.model_validate(
        {
            "name": "press",
            "type": "opcua",
            "endpoint": endpoint,
            "pki": folder / "pki",
            "publishing": "20 ms",
            "sampling": "0 ms",
            "timeout": "20 s",
            "retry": "200 ms",
            "tags": [{"node": f"nsu=urn:shopfloor:peer;s={t['tag']}", **t} for t in listed],
            **more,
        }
    )


class Taken:
    """Reads batches in the background and remembers every sample."""

    def __init__(self, source: OpcUaSource) -> None:
        self.source = source
        self.batches: list[Batch] = []
        self.error: Exception | None = None

    @property
    def samples(self) -> list[Sample]:
        return [sample for batch in self.batches for sample in batch]

    def of(self, tag: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.tag == tag]

    def values(self, tag: str) -> list[Value]:
        return [sample.value for sample in self.of(tag)]

    async def read(self) -> None:
        try:
            async with aclosing(self.source.batches()) as batches:
                async for batch in batches:
                    self.batches.append(batch)
        except Exception as error:
            self.error = error
            raise

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            if self.error is not None:
                raise self.error
            if asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"still not: {what}; last samples: {self.samples[-5:]}")
            await asyncio.sleep(0.01)

    async def newest(self, tag: str, value: Value) -> Sample:
        await self.until(lambda: any(same(v, value) for v in self.values(tag)[-1:]), f"{tag} is {value!r:.80}")
        return self.of(tag)[-1]


@asynccontextmanager
async def taking(config: OpcUaConfig) -> AsyncIterator[Taken]:
    async with config.build() as source:
        taken = Taken(source)
        task = asyncio.create_task(taken.read())
        try:
            yield taken
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def write(source: OpcUaSource, tag: str, value: Value, within: float = 60.0) -> Outcome:
    return await source.execute(Command("c", tag, value, "test", time.time_ns() + int(within * SECOND)))


@pytest.mark.parametrize(
    ("tag", "put", "wanted"),
    [
        ("PV", "NaN", math.nan),
        ("PV", "Infinity", math.inf),
        ("PV", "-Infinity", -math.inf),
        ("Big", "18446744073709551615", 2**64 - 1),
        ("Small", "-9223372036854775808", -(2**63)),
        ("Order", "ä" * 500_000, "ä" * 500_000),
        ("Blob", "AP8H", b"\x00\xff\x07"),
        ("Running", False, False),
        ("Since", "2026-03-29T01:30:00.123Z", "2026-03-29T01:30:00.1230000Z"),
        ("Curve", [4, 5.5], "[4.0,5.5]"),
        ("Level", 0.5, 0.5),
    ],
)
@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_every_kind_of_value_arrives_as_it_is(
    peer: Peer, tmp_path: Path, mode: str, tag: str, put: Any, wanted: Value
) -> None:
    await peer.ask(set=tag, value=put)
    async with taking(configured(peer.endpoint, tmp_path, tag, mode=mode, poll="20 ms")) as taken:
        sample = await taken.newest(tag, wanted)
        assert sample.good
        assert abs(sample.time - time.time_ns()) < 60 * SECOND or tag != "PV"
        assert sample.server_time or mode == "poll"  # node-opcua gives none with a read


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_status_codes_become_opc_qualities(peer: Peer, tmp_path: Path, mode: str) -> None:
    """The StatusCode stays beside the quality that it stands for."""
    async with taking(configured(peer.endpoint, tmp_path, "PV", mode=mode, poll="20 ms")) as taken:
        for status, quality in (
            ("BadNoCommunication", Quality.COMMUNICATION_FAILURE),
            ("BadSensorFailure", Quality.SENSOR_FAILURE),
            ("UncertainSensorNotAccurate", Quality.SENSOR_NOT_ACCURATE),
            ("UncertainLastUsableValue", Quality.LAST_USABLE),
            ("Good", Quality.GOOD),
        ):
            await peer.ask(set="PV", value=3.5, status=status)
            await taken.until(lambda q=quality: [s.quality for s in taken.of("PV")][-1:] == [q], status)  # type: ignore[misc]  # a default binds it
        assert {sample.status for sample in taken.of("PV")} >= {0x80310000, 0x808C0000}


async def test_every_change_arrives_in_order(peer: Peer, tmp_path: Path) -> None:
    """With a queue that is long enough none is lost, and none comes twice."""
    await peer.ask(set="PV", value=-1)
    async with taking(configured(peer.endpoint, tmp_path, "PV", queue=5000)) as taken:
        await taken.newest("PV", -1.0)
        await peer.ask(burst="PV", values=list(range(2000)))
        await taken.newest("PV", 1999.0)
        assert taken.values("PV")[1:] == [float(i) for i in range(2000)]
        assert sum(batch.lost_before for batch in taken.batches) == 0


async def test_an_overflow_at_the_server_is_counted(peer: Peer, tmp_path: Path) -> None:
    """The server says that its queue was too short: the batch says so, the sample keeps its status."""
    await peer.ask(set="PV", value=-1)
    async with taking(configured(peer.endpoint, tmp_path, "PV", queue=5)) as taken:
        await taken.newest("PV", -1.0)
        await peer.ask(burst="PV", values=list(range(1000)))
        await taken.newest("PV", 999.0)
        assert sum(batch.lost_before for batch in taken.batches) >= 1
        marked = [sample for sample in taken.of("PV") if sample.status]
        assert marked
        assert all(sample.good for sample in marked)


async def test_a_deadband_is_kept_by_the_server(peer: Peer, tmp_path: Path) -> None:
    """Absolute in the tag's unit, percent of its range (0 to 200)."""
    await peer.ask(set="PV", value=0)
    await peer.ask(set="Pressure", value=100)
    tags = ({"tag": "PV", "deadband": "0.5"}, {"tag": "Pressure", "deadband": "2 %"})
    async with taking(configured(peer.endpoint, tmp_path, *tags)) as taken:
        await taken.newest("Pressure", 100.0)
        for pv, pressure in ((0.4, 103), (0.9, 105)):
            await peer.ask(set="PV", value=pv)
            await peer.ask(set="Pressure", value=pressure)
        await taken.newest("PV", 0.9)
        await taken.newest("Pressure", 105.0)
        assert taken.values("PV") == [0.0, 0.9]
        assert taken.values("Pressure") == [100.0, 105.0]


async def test_a_polled_deadband_is_kept_here(peer: Peer, tmp_path: Path) -> None:
    await peer.ask(set="PV", value=0)
    config = configured(peer.endpoint, tmp_path, {"tag": "PV", "deadband": "0.5"}, mode="poll", poll="10 ms")
    async with taking(config) as taken:
        await taken.newest("PV", 0.0)
        await peer.ask(set="PV", value=0.4)
        await asyncio.sleep(0.1)  # several polls, which must bring nothing
        await peer.ask(set="PV", value=0.9)
        await taken.newest("PV", 0.9)
        assert taken.values("PV") == [0.0, 0.9]


async def test_a_refused_deadband_records_every_change(
    peer: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Text has no deadband: it flows without, and the log says so once."""
    await peer.ask(set="Order", value="a")
    async with taking(configured(peer.endpoint, tmp_path, {"tag": "Order", "deadband": "1"}, "PV")) as taken:
        await taken.newest("Order", "a")
        await peer.ask(set="Order", value="b")
        assert (await taken.newest("Order", "b")).good
    said = [record for record in caplog.records if "deadband" in record.message]
    assert len(said) == 1


async def test_a_node_that_is_not_there_is_a_bad_tag(peer: Peer, tmp_path: Path) -> None:
    """It turns bad, the others flow, and it comes when the node does."""
    async with taking(configured(peer.endpoint, tmp_path, "PV", "Later")) as taken:
        await taken.until(lambda: bool(taken.of("Later") and taken.of("PV")), "both tags")
        assert (taken.of("Later")[0].quality, taken.of("Later")[0].value) == (Quality.CONFIGURATION_ERROR, None)
        assert taken.of("PV")[0].good
        await peer.ask(create="Later", type="Double", value=8.5)
        assert (await taken.newest("Later", 8.5)).good
        assert len(taken.of("Later")) == 2  # noted bad once, however often it was tried
    await peer.ask(remove="Later")


async def test_a_node_that_vanishes_and_comes_back_with_another_type(peer: Peer, tmp_path: Path) -> None:
    await peer.ask(create="Fleeting", type="Double", value=1.5)
    async with taking(configured(peer.endpoint, tmp_path, "PV", "Fleeting")) as taken:
        await taken.newest("Fleeting", 1.5)
        await peer.ask(remove="Fleeting")
        await taken.until(lambda: not taken.of("Fleeting")[-1].good, "the tag is bad")
        await peer.ask(set="PV", value=77)
        await taken.newest("PV", 77.0)
        await peer.ask(create="Fleeting", type="String", value="back")
        assert (await taken.newest("Fleeting", "back")).good
        assert (await write(taken.source, "Fleeting", "written")).done is True
    await peer.ask(remove="Fleeting")


async def _counted_through(peer: Peer, folder: Path, proxy: FaultProxy, last: int, every: int) -> list[Value]:
    """Everything that a source received through ``proxy`` while the server counted from 1 to ``last``.

    The connections are dropped after every ``every`` counts, whatever is going on then.
    """
    await peer.ask(set="PV", value=0)
    seen: list[Value] = []
    lost = 0
    source = configured(f"opc.tcp://127.0.0.1:{proxy.port}", folder, "PV", queue=1000).build()
    began = asyncio.Event()

    async def count() -> None:
        await began.wait()
        for number in range(1, last + 1):
            await peer.ask(set="PV", value=number)
            if number % every == 0:
                proxy.drop()

    counting = asyncio.create_task(count())
    deadline = time.monotonic() + 200
    while float(last) not in seen and time.monotonic() < deadline:
        try:
            async with source, aclosing(source.batches()) as batches:
                async for batch in batches:
                    began.set()
                    seen += [sample.value for sample in batch]
                    lost += batch.lost_before
                    if float(last) in seen:
                        break
        except Unavailable:
            continue
    await counting
    assert lost == 0
    return seen


@pytest.mark.parametrize("every", [80, 23, 7])
async def test_nothing_is_lost_while_connections_break(peer: Peer, tmp_path: Path, every: int) -> None:
    """Connections are dropped again and again, also in the middle of coming back: every number arrives."""
    async with FaultProxy("127.0.0.1", peer.port) as proxy:
        seen = await _counted_through(peer, tmp_path, proxy, 400, every)
    assert set(seen) >= {float(n) for n in range(1, 401)}


async def test_nothing_is_lost_by_a_restart_of_shopfloor(peer: Peer, tmp_path: Path) -> None:
    """A new process goes on behind the checkpoint: what the server queued meanwhile is all there."""
    await peer.ask(set="PV", value=0)
    config = configured(peer.endpoint, tmp_path, "PV", "Nowhere", queue=1000)
    async with taking(config) as taken:
        await taken.newest("PV", 0.0)
        await peer.ask(burst="PV", values=[1, 2, 3])
        await taken.newest("PV", 3.0)
        checkpoint = taken.batches[-1].checkpoint
    assert checkpoint is not None
    await peer.ask(burst="PV", values=list(range(4, 300)))
    async with config.build() as source:
        source.resume(checkpoint)
        again = Taken(source)
        task = asyncio.create_task(again.read())
        await again.newest("PV", 299.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    found = again.values("PV")
    assert [v for v in found if v in range(4, 300)][:296] == [float(n) for n in range(4, 300)]


async def test_a_checkpoint_of_another_plant_file_is_no_use(peer: Peer, tmp_path: Path) -> None:
    """The handles may mean other tags: it begins anew. So does an unreadable one."""
    async with taking(configured(peer.endpoint, tmp_path, "PV", "SP")) as taken:
        await taken.until(lambda: bool(taken.of("SP")), "values")
        checkpoint = taken.batches[-1].checkpoint
    for old in (checkpoint, b"\xc1 nonsense"):
        async with configured(peer.endpoint, tmp_path, "SP", "PV").build() as source:
            assert old is not None
            source.resume(old)
            batches = source.batches()
            first = await asyncio.wait_for(anext(batches), PATIENCE)
            assert set(first.tags) <= {"SP", "PV"}
            await batches.aclose()


async def test_a_session_that_the_server_ends_is_unavailable(peer: Peer, tmp_path: Path) -> None:
    """The pipeline comes back with a new one."""
    source = configured(peer.endpoint, tmp_path, "PV").build()
    async with source:
        taken = Taken(source)
        task = asyncio.create_task(taken.read())
        await taken.until(lambda: bool(taken.samples), "values")
        await peer.ask(kick=True)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, PATIENCE)
    async with source:
        assert await asyncio.wait_for(anext(source.batches()), PATIENCE)


async def test_a_server_that_restarts(tmp_path: Path) -> None:
    """It is Unavailable, and afterwards its tags come again."""
    async with Peer(tmp_path) as own:
        source = configured(own.endpoint, tmp_path, "PV").build()
        async with source:
            taken = Taken(source)
            task = asyncio.create_task(taken.read())
            await taken.until(lambda: bool(taken.samples), "values")
            await asyncio.to_thread(own.kill)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(task, PATIENCE)
        with pytest.raises(Unavailable):
            await source.__aenter__()
        await asyncio.to_thread(own.start)
        async with source:
            assert (await asyncio.wait_for(anext(source.batches()), PATIENCE)).tags == ["PV"]


async def test_a_clock_that_jumps_does_not_move_the_past(peer: Peer, tmp_path: Path) -> None:
    """Beyond `clock_skew_limit` the time of reception counts and the quality is uncertain."""
    async with taking(configured(peer.endpoint, tmp_path, "PV", clock_skew_limit="1 h")) as taken:
        await peer.ask(set="PV", value=1.25, time="2001-01-01T00:00:00Z")
        past = await taken.newest("PV", 1.25)
        await peer.ask(set="PV", value=2.25, time="2090-01-01T00:00:00Z")
        future = await taken.newest("PV", 2.25)
        await peer.ask(set="PV", value=3.25)
        now = await taken.newest("PV", 3.25)
    for wrong in (past, future):
        assert abs(wrong.time - time.time_ns()) < 60 * SECOND
        assert wrong.quality == Quality.UNCERTAIN
    assert now.good


async def test_without_a_limit_the_source_time_counts(peer: Peer, tmp_path: Path) -> None:
    async with taking(configured(peer.endpoint, tmp_path, "PV")) as taken:
        await peer.ask(set="PV", value=1.25, time="2001-01-01T00:00:00Z")
        assert (await taken.newest("PV", 1.25)).time == 978_307_200 * SECOND


class TestCommands:
    @pytest.mark.parametrize(
        ("tag", "value", "held"),
        [
            ("SP", 42.5, 42.5),
            ("SP", 43, 43.0),
            ("Count", 7, 7),
            ("Count", 8.0, 8),
            ("Level", 1.1, None),
            ("Running", False, False),
            ("Order", "Größe 7", "Größe 7"),
            ("Blob", b"\x00\x01", "AAE="),
            ("Since", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000Z"),
            ("Curve", "[9, 8.5]", [9, 8.5]),
            ("Big", 2**64 - 2, None),
            ("Small", -(2**63) + 1, None),
        ],
    )
    async def test_values_are_written_in_the_nodes_own_type(
        self, peer: Peer, tmp_path: Path, tag: str, value: Value, held: Any
    ) -> None:
        async with configured(peer.endpoint, tmp_path, tag).build() as source:
            assert await write(source, tag, value) == Outcome("c", done=True, detail="written and read back")
        if held is not None:
            assert await peer.ask(get=tag) == held

    @pytest.mark.parametrize(
        ("tag", "value", "said"),
        [
            ("SP", "fast", "takes numbers"),
            ("SP", True, "takes numbers"),
            ("SP", None, "a value is needed"),
            ("Byte", 256, "beyond Byte: 0 to 255"),
            ("Byte", 1.5, "whole numbers"),
            ("Count", -1, "beyond UInt32"),
            ("Level", 1e300, "32-bit"),
            ("Running", 1, "true and false"),
            ("Order", 5, "takes text"),
            ("Since", "yesterday", "no time like"),
            ("Curve", "7", "JSON"),
            ("Curve", "[1, 'a']", "JSON"),
            ("Curve", '["a"]', "takes numbers"),
            ("Locked", 1.0, "BadNotWritable"),
            ("Nowhere", 1.0, "BadNodeIdUnknown"),
        ],
    )
    async def test_what_does_not_fit_is_not_written(
        self, peer: Peer, tmp_path: Path, tag: str, value: Value, said: str
    ) -> None:
        async with configured(peer.endpoint, tmp_path, tag).build() as source:
            outcome = await write(source, tag, value)
        assert outcome.done is False
        assert said in outcome.detail

    async def test_a_tag_that_is_not_to_be_written(self, peer: Peer, tmp_path: Path) -> None:
        async with configured(peer.endpoint, tmp_path, {"tag": "SP", "writable": False}).build() as source:
            assert (await write(source, "SP", 1.0)).done is False

    async def test_a_lost_connection_leaves_it_unknown_or_not_done(self, peer: Peer, tmp_path: Path) -> None:
        """A black hole takes the request along: nobody knows."""
        async with FaultProxy("127.0.0.1", peer.port) as proxy:
            config = configured(f"opc.tcp://127.0.0.1:{proxy.port}", tmp_path, "SP", timeout="6 s")
            async with config.build() as source:
                assert (await write(source, "SP", 1.0)).done is True
                proxy.black_hole()
                outcome = await write(source, "SP", 2.0)
                assert outcome.done is None
                proxy.reset()
                await asyncio.sleep(0)
            assert (await write(source, "SP", 3.0)).done is False

    async def test_many_at_once_beside_batches(self, peer: Peer, tmp_path: Path) -> None:
        async with taking(configured(peer.endpoint, tmp_path, "SP", "Count", "Level")) as taken:
            outcomes = await asyncio.gather(*(write(taken.source, "Level", 0.5) for _ in range(20)))
            assert all(outcome.done for outcome in outcomes)


class TestBrowse:
    async def test_a_large_address_space(self, peer: Peer, tmp_path: Path) -> None:
        """Every variable with its type, and nothing of the server's own."""
        async with configured(peer.endpoint, tmp_path).build() as source:
            found = {info.tag: info async for info in source.browse()}
        assert sum(tag.startswith("Bench/Bench.") for tag in found) == 10_000
        assert not any(tag.startswith("Server") for tag in found)
        pressure = found["Press/Pressure"]
        assert (pressure.unit, pressure.data_type, pressure.description) == ("bar", "Double", "Hydraulic pressure")
        assert (found["Press/PV"].writable, found["Press/Locked"].writable) == (True, False)
        assert found["Press/Curve"].data_type == "Double[]"

    async def test_what_is_found_can_be_acquired(self, peer: Peer, tmp_path: Path) -> None:
        """The address is what the plant file takes, the tag is a valid tag."""
        async with configured(peer.endpoint, tmp_path).build() as source:
            infos = [info async for info in source.browse(wanted=["press/p"])]
        assert {info.tag for info in infos} == {"Press/PV", "Press/Pressure"}
        tags = [{"tag": info.tag, "node": info.address} for info in infos]
        async with taking(configured(peer.endpoint, tmp_path, *tags)) as taken:
            await taken.until(
                lambda: {s.tag for s in taken.samples if s.good} == {"Press/PV", "Press/Pressure"}, "both"
            )

    async def test_a_part_of_it(self, peer: Peer, tmp_path: Path) -> None:
        async with configured(peer.endpoint, tmp_path).build() as source:
            (start,) = [i.address.split(";")[0] async for i in source.browse(wanted=["Press/PV"])]
            below = [info.tag async for info in source.browse(f"{start};s=Press")]
        assert "PV" in below
        assert json.dumps(below)
