"""The OPC UA server: what clients see of the samples that the sink is given."""

import asyncio
import importlib
import multiprocessing
import pickle
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest
from asyncua import ua
from pydantic import ValidationError

from shopfloor import plant as plants
from shopfloor.journal import balances
from shopfloor.pipeline import Pipeline
from shopfloor.protocols.opcua_values import quality, status_of
from shopfloor.samples import Batch, Misconfigured, Quality, Rejected, Sample, Unavailable, Value
from shopfloor.sinks.opcua import OpcUaSink, OpcUaSinkConfig
from shopfloor.sinks.opcua_memory import Memory
from shopfloor.sources.opcua import OpcUaConfig
from shopfloor.testing.contracts import SinkContract, SinkRig, until
from shopfloor.testing.contracts.values import EVERY_VALUE, same_samples
from shopfloor.testing.programs import free_port
from tests.sinks.killing import WITH, fill
from tests.sinks.opcua_client import NAMESPACE, Observer, code, config, connected, node, node_id, read, shown
from tests.sinks.opcua_standard import standard, standard_nodes

__all__ = ["standard_nodes"]  # a fixture

T0 = 1_767_592_800_123_456_789
TAGS = ("a/x", "a/y", "a/odd", "a/usual", "m0/v", "m1/v", "m2/v")
"""Of the contract's tests."""
CODES = ua.StatusCodes


def batch(*samples: Sample) -> Batch:
    return Batch.of("line", T0, samples)


class _Watched(OpcUaSink):
    """The sink with a subscriber that is there from the first moment: Shopfloor's own source."""

    def __init__(self, chosen: OpcUaSinkConfig, plant: plants.Plant) -> None:
        super().__init__(chosen, plant)
        self.heard: list[Sample] = []
        self.times: dict[int, int] = {}
        """The given times by what OPC UA's unit of 100 ns leaves of them."""
        self._given = 0
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        waiting = set(TAGS)
        self._listening = asyncio.create_task(self._listen(waiting))
        await until(lambda: not waiting, "the subscriber knows every tag")
        return self

    async def _listen(self, waiting: set[str]) -> None:
        source = OpcUaConfig.model_validate(
            {
                "name": "observer",
                "type": "opcua",
                "endpoint": self._config.endpoint,
                "queue": 1000,
                "publishing": "20 ms",
                "tags": [{"tag": tag, "node": f"nsu=urn:shopfloor:bremen;s={tag}"} for tag in TAGS],
            }
        ).build()
        async with source:
            async for told in source.batches():
                for sample in told:
                    if sample.tag in waiting:
                        waiting.discard(sample.tag)  # what was there before
                        self._before = sample
                    else:
                        self.heard.append(sample)

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        self.times |= {time // 100 * 100: time for _, given in entries for time in given.times}
        fresh = sum(len(given) for at, given in entries if at > self._offset)
        await super().write_many(entries)
        self._given += fresh

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._listening is not None:
            with suppress(pytest.fail.Exception):
                await until(lambda: len(self.heard) >= self._given, "everything was told", 30)
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        await super().__aexit__(kind, error, trace)


class _Rig(SinkRig):
    sink: _Watched

    async def content(self) -> Sequence[Sample]:
        return [msgspec.structs.replace(s, time=self.sink.times[s.time]) for s in self.sink.heard]

    async def lose(self) -> None:
        """The disk takes nothing: nobody could say after a restart what was shown."""
        self._lock = sqlite3.connect(self.file(), isolation_level=None)
        self._lock.execute("BEGIN EXCLUSIVE")

    def file(self) -> Path:
        return self.sink._config.memory / "scada.db"

    async def restore(self) -> None:
        self._lock.close()

    def rejected(self) -> tuple[Batch, set[int]] | None:
        values: list[Value] = ["good", "\ud800", 3, "x" * (5 * 2**20)]
        samples = [Sample("a/x", T0 + i * 1000, value) for i, value in enumerate(values)]
        return batch(*samples), {1, 3}


class TestOpcUaSink(SinkContract):
    """It shows the present, but a subscriber hears of everything on the way, once and in order."""

    @asynccontextmanager
    async def rig(self, folder: Path) -> AsyncIterator[_Rig]:
        listed = "\n".join(f"      - {{tag: {tag}, node: 'ns=2;s={tag}'}}" for tag in TAGS)
        text = f"""
plant: {{site: bremen}}
sources:
  - name: line
    type: opcua
    endpoint: opc.tcp://127.0.0.1:1
    tags:
{listed}
"""
        yield _Rig(_Watched(config(folder, free_port()), plants.parse(text, "plant.yaml", folder, {})))

    async def test_every_value_survives(self, tmp_path: Path) -> None:  # type: ignore[override]
        """All of them with one server: a start takes a second."""
        async with self.rig(tmp_path) as rig, rig.sink:
            samples = [Sample("a/odd", T0 + i * 1_000_003, value) for i, value in enumerate(EVERY_VALUE.values())]
            await rig.sink.write(1, batch(*samples))
            await until(lambda: len(rig.sink.heard) >= len(samples), "all are told")
            assert [s.time for s in rig.sink.heard] == [s.time // 100 * 100 for s in samples]
            for told, given in zip(await rig.content(), samples, strict=True):
                assert same_samples([told], [given]), f"{told} instead of {given}"

    async def test_quality_survives(self, tmp_path: Path) -> None:
        """Severity, subcode and limits; with a bad status OPC UA has no value, and it knows not every subcode."""
        qualities = [192, 0, 64, 24, 216, 255, 66, 20]
        expected = [192, 0, 64, 24, 216, 195, 66, 24]
        async with self.rig(tmp_path) as rig, rig.sink:
            samples = [Sample("a/x", T0 + i * 1000, float(i), quality) for i, quality in enumerate(qualities)]
            await rig.sink.write(1, batch(*samples))
            await until(lambda: len(rig.sink.heard) >= len(samples), "all are told")
            told = await rig.content()
            assert [sample.quality for sample in told] == expected
            assert [s.value for s in told] == [
                s.value if q >= 64 else None for s, q in zip(samples, qualities, strict=True)
            ]

    async def test_losing_the_other_side_is_said_and_nothing_is_lost(self, tmp_path: Path) -> None:
        """A server has no other side; it loses the disk on which the latest values are kept."""
        async with self.rig(tmp_path) as rig, rig.sink:
            await rig.sink.write(1, batch(Sample("a/x", T0, 1.0)))
            await rig.lose()
            with pytest.raises(Unavailable, match="latest values cannot be kept"):
                await rig.sink.write(2, batch(Sample("a/x", T0 + 100, 2.0)))
            assert await rig.sink.held() == 1
            await rig.restore()
            await rig.sink.write(2, batch(Sample("a/x", T0 + 100, 2.0)))
            await until(lambda: [s.value for s in rig.sink.heard] == [1.0, 2.0], "both are told, once")


PLANT = """
plant: {{site: bremen}}
machines:
  - {{id: press-1, line: stamping, state: press-1/State}}
sources:
  - name: plc
    type: opcua
    endpoint: opc.tcp://127.0.0.1:1
    tags:
      - {{tag: press-1/PV, node: "ns=2;s=PV", unit: {unit}, description: Pressure}}
      - {{tag: press-1/SP, node: "ns=2;s=SP", unit: bar}}
      - {{tag: press-1/State, node: "ns=2;s=State"}}
      - {{tag: hall/north/Temperature, node: "ns=2;s=T", unit: furlong}}
sinks:
  - name: scada
    type: opcua
    endpoint: opc.tcp://127.0.0.1:{port}
    anonymous: true
    security: {{policies: [None, Basic256Sha256]}}
    commands: {{}}
    users: []
commands:
  allow: [{{tag: press-1/SP, range: [0, 80]}}]
"""


def placed(folder: Path, port: int, unit: str = "bar") -> OpcUaSink:
    plant = plants.parse(PLANT.format(port=port, unit=unit), "plant.yaml", folder, {})
    sink = plant.sinks[0].build()
    assert isinstance(sink, OpcUaSink)
    return sink


async def test_tags_stand_in_folders_by_line_machine_and_level_with_units(tmp_path: Path) -> None:
    """ISA-95: site, line, machine; then the levels of the tag. What has no value yet says so."""
    port = free_port()
    async with placed(tmp_path, port), connected(port) as client:
        index = await client.get_namespace_index("urn:shopfloor:bremen")
        folders = f"{index + 1}"
        way = [f"{folders}:bremen", f"{folders}:stamping", f"{folders}:press-1", f"{index}:PV"]
        found = await client.nodes.objects.get_child(way)
        assert found.nodeid == node_id("press-1/PV", index)
        assert (await found.read_description()).Text == "Pressure"
        nothing = await found.read_data_value(raise_on_bad_status=False)
        assert code(nothing) == CODES.BadWaitingForInitialData
        unit = await (await found.get_child("0:EngineeringUnits")).read_value()
        assert (unit.DisplayName.Text, unit.UnitId) == ("bar", int.from_bytes(b"BAR"))
        sp = client.get_node(node_id("press-1/SP", index))
        bounds = await (await sp.get_child("0:EURange")).read_value()
        assert (bounds.Low, bounds.High) == (0, 80)
        assert await sp.read_type_definition() == ua.NodeId(ua.Int32(ua.ObjectIds.AnalogItemType))
        assert await found.read_type_definition() == ua.NodeId(ua.Int32(ua.ObjectIds.AnalogUnitType))
        hall = await client.nodes.objects.get_child(
            [f"{folders}:bremen", f"{folders}:hall", f"{folders}:north", f"{index}:Temperature"]
        )
        strange = await (await hall.get_child("0:EngineeringUnits")).read_value()
        assert (strange.DisplayName.Text, strange.UnitId) == ("furlong", -1)


async def test_a_unit_that_changed_in_the_plant_file_is_told_after_the_restart(tmp_path: Path) -> None:
    """And the value, its time and the node id are as they were."""
    port = free_port()
    for unit in ("bar", "psi"):
        async with placed(tmp_path, port, unit) as sink:
            if unit == "bar":
                await sink.write(1, Batch.of("plc", T0, [Sample("press-1/PV", T0, 41.5)]))
            async with connected(port) as client:
                index = await client.get_namespace_index("urn:shopfloor:bremen")
                found = client.get_node(node_id("press-1/PV", index))
                told = await (await found.get_child("0:EngineeringUnits")).read_value()
                assert told.DisplayName.Text == unit
                assert await found.read_value() == 41.5
                assert (await found.read_data_type()).Identifier == ua.ObjectIds.Double


async def test_after_a_restart_the_latest_values_are_there_and_what_the_plant_has_no_more_is_gone(
    tmp_path: Path,
) -> None:
    """In the order of the journal, also over several batches; a tag that the source declares no more is dropped."""
    port = free_port()
    async with placed(tmp_path, port) as sink:
        old = [Sample("press-1/Old", T0, 1), Sample("press-1/PV", T0, 1.0), Sample("press-1/PV", T0 + 100, 2.0)]
        await sink.write_many(
            [(1, Batch.of("plc", T0, old)), (2, Batch.of("plc", T0, [Sample("press-1/SP", T0, 7.0)]))]
        )
        await sink.write(3, Batch.of("away", T0, [Sample("press-9/PV", T0, 1.0)]))
    again = placed(tmp_path, port)
    async with again, connected(port) as client:
        assert await again.held() == 3
        index = await client.get_namespace_index("urn:shopfloor:bremen")
        assert await client.get_node(node_id("press-1/PV", index)).read_value() == 2.0
        assert await client.get_node(node_id("press-1/SP", index)).read_value() == 7.0
        for gone in ("press-1/Old", "press-9/PV"):
            said = await client.get_node(node_id(gone, index)).read_data_value(raise_on_bad_status=False)
            assert code(said) == CODES.BadNodeIdUnknown


async def test_a_lost_source_makes_its_tags_uncertain_until_it_is_back(tmp_path: Path) -> None:
    """Bad ones stay bad, other sources' stay as they are, a value that comes nevertheless counts."""
    port = free_port()
    lost = Batch.of("$source", T0, [Sample("$source/line/connected", T0, value=False)])
    back = Batch.of("$source", T0, [Sample("$source/line/connected", T0, value=True)])
    first = [Sample("a/x", T0, 1.0), Sample("a/y", T0, 2.0, Quality.DEVICE_FAILURE), Sample("a/z", T0, 3.0)]

    async def statuses(*tags: str) -> list[int]:
        async with connected(port) as client:
            return [code(await read(client, tag)) for tag in tags]

    async with config(tmp_path, port).build() as sink:
        await sink.write(1, batch(*first))
        await sink.write(2, Batch.of("other", T0, [Sample("b/x", T0, 1.0)]))
        await sink.write(3, lost)
        no = CODES.UncertainNoCommunicationLastUsableValue
        assert await statuses("a/x", "a/y", "a/z", "b/x") == [no, CODES.BadDeviceFailure, no, 0]
        await sink.write(4, batch(Sample("a/z", T0 + 100, 4.0)))
        assert await statuses("a/x", "a/z") == [no, 0]
    async with config(tmp_path, port).build() as sink:
        assert await statuses("a/x", "a/y", "b/x") == [no, CODES.BadDeviceFailure, 0]
        await sink.write(5, back)
        assert await statuses("a/x", "a/y", "a/z", "b/x") == [0, CODES.BadDeviceFailure, 0, 0]


async def test_the_status_code_of_the_machine_comes_through(tmp_path: Path) -> None:
    """As the source gave it, but for the overflow bit, which spoke of another queue."""
    port = free_port()
    given = [
        (CODES.UncertainSensorNotAccurate, quality(CODES.UncertainSensorNotAccurate)),
        (0x0480, Quality.GOOD),
        (CODES.GoodClamped, Quality.GOOD),
        (CODES.BadSensorFailure, Quality.GOOD),  # a processor made it good: the quality counts
    ]
    async with config(tmp_path, port).build() as sink:
        samples = [Sample(f"a/{i}", T0, 1.0, good, status) for i, (status, good) in enumerate(given)]
        await sink.write(1, batch(*samples))
        async with connected(port) as client:
            told = [code(await read(client, f"a/{i}")) for i in range(len(given))]
    assert told == [CODES.UncertainSensorNotAccurate, 0x0400, CODES.GoodClamped, 0]


@pytest.mark.parametrize("known", list(Quality))
def test_every_quality_has_a_status_code(known: Quality) -> None:
    """And it reads back as the same, but for one that OPC UA has no code for."""
    expected = Quality.COMMUNICATION_FAILURE if known is Quality.LAST_KNOWN else known
    assert quality(status_of(known)) == expected
    assert quality(status_of(known | 2)) == expected | 2


async def test_a_type_that_changes_is_told_and_ends_as_any_type(tmp_path: Path) -> None:
    """The first value gives the type; numbers that differ are Number, else BaseDataType; StructureChanged says so."""
    port = free_port()
    steps: list[tuple[Value, int, int]] = [
        (1, ua.ObjectIds.Int64, 0),
        (2**64 - 1, ua.ObjectIds.Integer, 0x8000),
        (1.5, ua.ObjectIds.Number, 0x8000),
        (7, ua.ObjectIds.Number, 0),
        ("text", ua.ObjectIds.BaseDataType, 0x8000),
        (8, ua.ObjectIds.BaseDataType, 0),
    ]
    async with config(tmp_path, port).build() as sink:
        for number, (value, kind, bit) in enumerate(steps, 1):
            await sink.write(number, batch(Sample("a/x", T0 + number, value)))
            async with connected(port) as client:
                found = await node(client, "a/x")
                assert (await found.read_data_type()).Identifier == kind, value
                told = await found.read_data_value()
                assert (shown(told), code(told)) == (value, bit)


async def test_new_tags_and_many_values_reach_a_subscriber_in_order(tmp_path: Path) -> None:
    """A subscriber of 100 tags hears each of 20,000 values, in order, while more tags come."""
    port = free_port()
    tags = [f"m{i}/v" for i in range(100)]
    async with config(tmp_path, port).build() as sink:
        await sink.write(1, batch(*(Sample(tag, T0, -1) for tag in tags)))
        async with Observer(port) as observer:
            await observer.watch(tags)
            for number in range(20):
                rows = [Sample(tag, T0 + number * 10**6 + i, number * 10 + i) for i in range(10) for tag in tags]
                await sink.write(2 + number, batch(*rows, Sample(f"new{number}/v", T0, 1)))
            await until(lambda: len(observer.heard) == 20_100, "everything is heard", 200)
            for tag in tags:
                assert [s.value for s in observer.heard if s.tag == tag] == [-1, *range(200)]


async def test_a_port_that_is_taken_is_said_and_tried_again(tmp_path: Path) -> None:
    """Unavailable, because it may be the process before, which is just ending."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sink = config(tmp_path, port).build()
        with pytest.raises(Unavailable, match=f"the port {port} is taken"):
            await sink.__aenter__()
        with pytest.raises(Unavailable, match="is taken"):
            await config(tmp_path, port).probe().__aenter__()
    async with sink:
        assert await sink.held() == 0


async def test_an_address_that_is_not_ours_is_a_mistake(tmp_path: Path) -> None:
    wrong = config(tmp_path, 4840, endpoint=f"opc.tcp://192.0.2.1:{free_port()}")
    with pytest.raises(Misconfigured, match=r"write one of its own addresses in `endpoint`"):
        await wrong.build().__aenter__()


async def test_a_damaged_memory_is_moved_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody deletes files by hand; the tags come again with their next values."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "scada.db").write_bytes(b"no database at all " * 1000)
    port = free_port()
    async with config(tmp_path, port).build() as sink:
        assert await sink.held() == 0
        await sink.write(1, batch(Sample("a/x", T0, 1.0)))
    assert "was damaged and was moved" in caplog.text
    assert (tmp_path / "memory" / "scada.damaged").exists()


async def test_what_cannot_be_told_is_refused_by_name(tmp_path: Path) -> None:
    async with config(tmp_path, free_port()).build() as sink:
        for bad, words in (
            (Sample("a/x", T0, "\ud800"), "UTF-8"),
            (Sample("a/\ud800", T0, 1), "UTF-8"),
            (Sample("a/" + "x" * 5000, T0, 1), "4096 characters"),
            (Sample("a/x", T0, bytes(5 * 2**20)), "larger than"),
        ):
            with pytest.raises(Rejected, match=words) as refused:
                await sink.write(1, batch(Sample("a/y", T0, 1), bad))
            assert refused.value.indices == [1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"anonymous": False}, "nobody could log in"),
        ({"endpoint": "http://localhost"}, "no address to listen on"),
        ({"endpoint": "opc.tcp://0.0.0.0:70000"}, "no address to listen on"),
        ({"security": {"policies": []}}, "at least 1"),
        ({"security": {"modes": ["none"]}}, "add None to `policies`"),
        ({"security": {"certificate": "x.der"}}, "go together"),
        ({"security": {"policies": ["None"]}, "users": [{"name": "x", "password": "y"}]}, "set them by"),
    ],
)
def test_a_configuration_that_cannot_be_meant(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    if words == "set them by":
        words = "a secret must not stand"
    with pytest.raises(ValidationError, match=words):
        config(tmp_path, 4840, **options)


VICTIM = """
plant: {{site: bremen}}
sources:
  - {{name: line, type: files, folder: incoming, tag: "press/{{column}}"}}
sinks:
  - name: scada
    type: opcua
    endpoint: opc.tcp://127.0.0.1:{port}
    anonymous: true
    security: {{policies: [None]}}
    pki: pki
    memory: memory
journal: {{path: journal.db}}
console: null
"""


MOMENTS = ("before it is kept", "while it is kept", "before it is shown", "while it is shown")


async def test_killed_again_and_again_it_shows_the_latest_of_every_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Four lives, each killed at another moment of a write. Nothing is given again, nothing is left out."""
    port = free_port()
    text = VICTIM.format(port=port)
    (tmp_path / "incoming").mkdir()
    filled = await fill(tmp_path, "scada", entries=150, each=50)
    file = tmp_path / "memory" / "scada.db"
    nodes = tmp_path / "nodes"
    nodes.write_bytes(pickle.dumps(await standard()))
    monkeypatch.syspath_prepend(Path(__file__).parent)  # by a name that the fork server can import, too
    victim = importlib.import_module("opcua_victim")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["shopfloor.pipeline", *WITH])
    offsets, kept = [0], -1
    for moment in MOMENTS:
        process = forks.Process(target=victim.live, args=(text, str(tmp_path), str(nodes), moment, 2), daemon=True)
        await asyncio.to_thread(process.start)
        await asyncio.to_thread(process.join, 120)
        ended = process.exitcode
        process.kill()
        assert ended == -signal.SIGKILL, f"it did not kill itself {moment}"
        memory = Memory(file)
        offsets.append(memory.offset())
        kept = max(row.value for row in memory.all() if isinstance(row.value, int))
        memory.close()
    assert offsets == sorted(set(offsets)), "each life went on where the one before was killed"
    assert kept < len(filled) - 1, "there was something left to deliver"
    async with Pipeline(plants.parse(text, "victim.yaml", tmp_path, {})) as pipeline:
        await until(
            lambda: all(c.state == "running" and not c.lag_entries for c in pipeline.components()),
            "everything is delivered",
            60,
        )
        rows = await pipeline.ledger()
        assert not [pair for pair in balances(rows) if pair.missing]
        own = [row for row in rows if row.reader == "scada" and not row.source.startswith("$")]
        assert {row.outcome for row in own} <= {"delivered", "base", "waiting"}
        async with connected(port) as client:
            index = await client.get_namespace_index("urn:shopfloor:bremen")
            newest = {sample.tag: sample for sample in filled}
            for tag, sample in newest.items():
                assert await client.get_node(node_id(tag, index)).read_value() == sample.value
    assert "delivers again" not in caplog.text
    memory = Memory(file)
    assert {row.tag: (row.time, row.value) for row in memory.all() if not row.tag.startswith("$")} == {
        tag: (sample.time, sample.value) for tag, sample in newest.items()
    }
    memory.close()


async def test_the_namespace_is_what_the_plant_file_says(tmp_path: Path) -> None:
    port = free_port()
    async with config(tmp_path, port, namespace="urn:works:7").build(), connected(port) as client:
        spaces = await client.get_namespace_array()
        assert "urn:works:7" in spaces
        assert NAMESPACE not in spaces
