"""Our host with edge nodes of other makes, whose code shares nothing with ours, at a real Mosquitto.

What they do otherwise than the specification says stands in tests/protocols/sparkplug-peers.tsv, which
docs/sparkplug.md shows; that our host lives with it is shown here.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from shopfloor.protocols.sparkplug.rules import Message, Validator
from shopfloor.samples import Command, Quality, Value
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto
from tests.sinks.mosquitto_sub import MosquittoSub
from tests.sources.sparkplug_peers import EdgePeer, metric
from tests.sources.test_sparkplug import Reader, config

MAKES: Final = ("sparkplug-client", "pysparkplug", "tahu")
every_make: Final = pytest.mark.parametrize("make", MAKES)
SOME: Final = (metric("PV", "Double", 0.5), metric("SP", "Double", 1.5))
CNC: Final = {"cnc": (metric("Speed", "Int32", -7),)}

SCALARS: Final[Mapping[str, tuple[Value, Value]]] = {
    "Int8": (-128, 127), "Int16": (-32768, 32767), "Int32": (-(2**31), 2**31 - 1), "Int64": (-(2**63), 2**63 - 1),
    "UInt8": (255, 0), "UInt16": (65535, 0), "UInt32": (2**32 - 1, 2**31), "UInt64": (2**64 - 1, 2**63),
    "Float": (1.5, -0.25), "Double": (0.1, -12345.5), "Boolean": (True, False), "String": ("Größe", ""),
    "DateTime": (1_774_747_800_123, 0), "Text": ("line\nline", "°C"),
    "UUID": ("123e4567-e89b-12d3-a456-426614174000", "00000000-0000-0000-0000-000000000000"),
    "Bytes": (b"\x00\xff", b"\x07"), "File": (b"\x01", b"\x02\x03"),
}  # fmt: skip
"""Of each type a value of the birth and one of the data; both ends of the range where there is one."""
ARRAYS: Final[Mapping[str, tuple[list[Any], list[Any]]]] = {
    "Int8Array": ([-128, 127], [0]), "Int16Array": ([-32768, 32767], [0]), "Int32Array": ([-(2**31), 2**31 - 1], [0]),
    "Int64Array": ([-(2**63), 2**63 - 1], [0]), "UInt8Array": ([0, 127], [1]), "UInt16Array": ([65535], [0]),
    "UInt32Array": ([2**32 - 1], [0]), "UInt64Array": ([2**64 - 1], [0]), "FloatArray": ([1.5, -0.25], [0.0]),
    "DoubleArray": ([0.1, -12345.5], [0.0]), "BooleanArray": ([True, False, True], [False] * 9),
    "StringArray": (["Größe", "x"], ["y"]), "DateTimeArray": ([1_774_747_800_123], [0]),
}  # fmt: skip
TABLES: Final = (
    {"columns": ["n", "u", "s"], "types": ["Int32", "UInt32", "String"], "rows": [[-1, 2**32 - 1, "ö"], [2, 3, ""]]},
    {"columns": ["n", "x"], "types": ["Int64", "Double"], "rows": [[-5, 0.1]]},
)  # fmt: skip


@asynccontextmanager
async def edge(
    make: str,
    port: int,
    metrics: Sequence[Mapping[str, Any]] = SOME,
    devices: Mapping[str, Sequence[Mapping[str, Any]]] = CNC,
    **options: Any,
) -> AsyncIterator[EdgePeer]:
    """An edge node that says its death when it stops, if its make can."""
    more = {"publishDeath": True, **options} if make == "sparkplug-client" else options
    async with EdgePeer(make, port, metrics, devices, **more) as peer:
        yield peer


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("broker")) as started:
        yield started


def typed_metrics(make: str, which: int) -> list[dict[str, Any]]:
    """A metric of every type that this make can write."""
    found = [metric(kind, kind, values[which]) for kind, values in SCALARS.items()]
    if make != "sparkplug-client":
        found += [metric(kind, kind, values[which]) for kind, values in ARRAYS.items()]
    if make != "pysparkplug":
        found.append(metric("DataSet", "DataSet", TABLES[which]))
    return found


def as_read(make: str, which: int) -> dict[str, Value]:
    """What the host must make of ``typed_metrics``, by tag."""
    found: dict[str, Value] = {kind: values[which] for kind, values in SCALARS.items()}
    if make != "sparkplug-client":
        found |= {kind: json.dumps(v[which], ensure_ascii=False, separators=(",", ":")) for kind, v in ARRAYS.items()}
    if make != "pysparkplug":
        found["DataSet"] = json.dumps(TABLES[which], ensure_ascii=False, separators=(",", ":"))
    return {f"g/{make}/{name}": value for name, value in found.items()}


def newest(reader: Reader) -> dict[str, Value]:
    """What each tag said last, as far as it is good."""
    return {sample.tag: sample.value for sample in reader.samples if sample.quality == Quality.GOOD}


def good(reader: Reader, tag: str) -> bool | None:
    """Whether the tag's last sample is good; None before its first."""
    last = [sample for sample in reader.samples if sample.tag == tag]
    return last[-1].good if last else None


# ---- what they say -----------------------------------------------------------------------------------


@every_make
async def test_every_type_of_a_birth_and_of_data_arrives_as_it_was(make: str, broker: Mosquitto) -> None:
    async with (
        config(broker.port).build() as source,
        Reader.of(source) as reader,
        edge(make, broker.port, typed_metrics(make, 0)) as peer,
    ):
        born = as_read(make, 0)
        await until(lambda: good(reader, f"g/{make}/cnc/Speed") is True, "its births arrived")
        assert {tag: value for tag, value in newest(reader).items() if tag in born} == born
        await peer.tell(*typed_metrics(make, 1))
        await peer.tell(metric("Speed", "Int32", -8), device="cnc")
        await reader.has(f"g/{make}/cnc/Speed", -8)
        said = as_read(make, 1)
        assert {tag: value for tag, value in newest(reader).items() if tag in said} == said


@pytest.mark.parametrize("make", ["sparkplug-client", "tahu"])
async def test_members_of_a_template_have_the_types_of_the_birth(make: str, broker: Mosquitto) -> None:
    """Tahu leaves the types out of its data; a negative number would be another one without them."""

    def instance(value: int) -> dict[str, Any]:
        members = [metric("n", "Int32", value), metric("b", "Int8", value), metric("x", "Double", 0.1)]
        return metric("motor", "Template", {"templateRef": "Motor", "isDefinition": False, "metrics": members})

    definition = metric("Motor", "Template", {"isDefinition": True, "metrics": [metric("n", "Int32", 0)]})
    async with (
        config(broker.port).build() as source,
        Reader.of(source) as reader,
        edge(make, broker.port, [definition, instance(-7)]) as peer,
    ):
        tag = f"g/{make}/motor"
        await until(lambda: good(reader, tag) is True, "its birth arrived")
        await peer.tell(instance(-8))
        await until(lambda: len([s for s in reader.samples if s.tag == tag]) > 1, "its data arrived")
        for value, sample in zip((-7, -8), [s for s in reader.samples if s.tag == tag], strict=True):
            said = json.loads(str(sample.value))
            assert said["metrics"] == [
                {"name": "n", "type": "Int32", "value": value}, {"name": "b", "type": "Int8", "value": value},
                {"name": "x", "type": "Double", "value": 0.1},
            ]  # fmt: skip


@every_make
@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-offline",
)
async def test_a_device_goes_and_comes_and_a_node_stops(
    make: str, broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    speed, value = f"g/{make}/cnc/Speed", f"g/{make}/PV"
    async with (
        config(broker.port).build() as source,
        Reader.of(source) as reader,
        edge(make, broker.port) as peer,
    ):
        await until(lambda: good(reader, speed) is True, "its births arrived")
        await peer.ask(leave="cnc")
        await until(lambda: good(reader, speed) is False, "the device is gone")
        assert good(reader, value) is True
        await peer.ask(join="cnc")
        await until(lambda: good(reader, speed) is True, "the device is back")
        await peer.ask(stop=True)
        if make == "pysparkplug":  # its NDEATH has the bdSeq of a session that never was
            await until(
                lambda: "an NDEATH of another session (bdSeq 1, not 0) does not count" in caplog.text, "a fault"
            )
            assert good(reader, value) is True
        else:
            await until(lambda: good(reader, value) is False, "the node is gone")
            assert good(reader, speed) is False


@every_make
@pytest.mark.sparkplug(
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale",
    "tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale",
)
async def test_a_node_that_vanishes_is_bad_until_it_is_born_again(make: str, broker: Mosquitto) -> None:
    tag = f"g/{make}/PV"
    async with (
        FaultProxy("127.0.0.1", broker.port) as proxy,
        config(broker.port).build() as source,
        Reader.of(source) as reader,
        edge(make, proxy.port) as peer,
    ):
        await until(lambda: good(reader, tag) is True, "its birth arrived")
        for value in (2.5,) if make == "tahu" else (2.5, 3.5):  # Tahu takes seconds to connect
            proxy.reset()
            await until(lambda: good(reader, tag) is False, "its will was published")
            proxy.heal()
            await until(lambda: good(reader, tag) is True, "it was born again")
            await peer.tell(metric("PV", "Double", value))
            await reader.has(tag, value)


@every_make
@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-verb",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-name",
    "tck-id-operational-behavior-data-commands-ncmd-rebirth-value",
)
async def test_a_host_that_comes_late_gets_the_births_that_it_asks_for(make: str, broker: Mosquitto) -> None:
    async with MosquittoSub.at(broker.port, "spBv1.0/g/#") as listener, edge(make, broker.port) as peer:
        await until(lambda: any("/DBIRTH/" in heard.topic for heard in listener.heard), "it was born")
        async with config(broker.port).build() as source, Reader.of(source) as reader:
            await peer.tell(metric("PV", "Double", 7.5))
            await reader.has(f"g/{make}/PV", 7.5)
            await reader.has(f"g/{make}/cnc/Speed", -7)
        assert [name for _, name, _ in await peer.commands()] == ["Node Control/Rebirth"]


async def test_tahu_waits_for_our_state_and_leaves_with_it(broker: Mosquitto) -> None:
    """Its births come once we said that we are online, its death when we say that we go."""
    async with (
        MosquittoSub.at(broker.port, "spBv1.0/g/#") as listener,
        edge("tahu", broker.port, primaryHost="mes") as peer,
    ):
        async with asyncio.timeout(120):
            while not (await peer.ask(ping=True))["connected"]:
                await asyncio.sleep(0.05)
        assert listener.heard == []
        async with config(broker.port).build() as source, Reader.of(source) as reader:
            await until(lambda: good(reader, "g/tahu/PV") is True, "its birth arrived")
        await until(lambda: any("/NDEATH/" in heard.topic for heard in listener.heard), "its death arrived")


# ---- what is written to them -------------------------------------------------------------------------

WRITTEN: Final[Mapping[str, Value]] = {
    "Int8": 3, "Int16": 4, "Int32": -(2**31), "Int64": -(2**63), "UInt8": 254, "UInt16": 65534, "UInt64": 2**64 - 2,
    "Float": 2.5, "Double": 0.3, "Boolean": False, "String": "ö", "DateTime": 1_774_747_800_999, "Text": "t",
    "UUID": "00000000-0000-0000-0000-000000000001", "Bytes": b"\x05\x06",
}  # fmt: skip


@every_make
@pytest.mark.sparkplug(
    "tck-id-operational-behavior-data-commands-ncmd-verb", "tck-id-operational-behavior-data-commands-ncmd-metric-name",
    "tck-id-operational-behavior-data-commands-ncmd-metric-value",
    "tck-id-operational-behavior-data-commands-dcmd-verb", "tck-id-operational-behavior-data-commands-dcmd-metric-name",
    "tck-id-operational-behavior-data-commands-dcmd-metric-value",
)  # fmt: skip
async def test_what_is_written_is_published_by_the_node_and_so_confirmed(make: str, broker: Mosquitto) -> None:
    async with (
        config(broker.port).build() as source,
        Reader.of(source) as reader,
        edge(make, broker.port, typed_metrics(make, 0)) as peer,
    ):
        await until(lambda: good(reader, f"g/{make}/cnc/Speed") is True, "its births arrived")
        values = {**WRITTEN, "cnc/Speed": -12}
        if make == "tahu":
            values["UInt32"] = 2**32 - 3
        for name, value in values.items():
            command = Command(name, f"g/{make}/{name}", value, "test", time.time_ns() + 10**10)
            outcome = await source.execute(command)
            assert (name, outcome.done) == (name, True), outcome.detail
        assert {name for _, name, _ in await peer.commands()} == {name.removeprefix("cnc/") for name in values}


# ---- their faults ------------------------------------------------------------------------------------

FAULTS: Final[Mapping[str, set[str]]] = {
    "sparkplug-client": {
        "NDEATH bdSeq type", "bdSeq same", "bdSeq type", "commands at QoS 0", "datatype repeated",
        "metric timestamp missing", "value of another type", "will at QoS 0",
    },
    "pysparkplug": {"NDEATH bdSeq", "datatype repeated", "rebirth missing", "will at QoS 0"},
    "tahu": {"NDEATH bdSeq type", "value of another type"},
}  # fmt: skip
"""The rules that a life of each breaks, most by the names of our validator; sparkplug-peers.tsv has them in words."""


def seen_by_broker(log: str) -> Iterator[str]:
    """Faults that no subscriber can see."""
    if re.search(r"Will message specified \(\d+ bytes\) \(r0, q0\)", log):
        yield "will at QoS 0"
    if re.search(r"spBv1.0/g/NCMD/\S+ \(QoS 0\)", log):
        yield "commands at QoS 0"


@every_make
async def test_a_life_has_the_faults_that_are_listed_and_no_others(make: str, tmp_path: Path) -> None:
    """Births, data, a device that goes and comes, a lost connection, an end. A version without a fault fails here."""
    async with (
        Mosquitto(tmp_path, options=["log_type all"]) as broker,
        MosquittoSub.at(broker.port, "spBv1.0/g/#") as listener,
        FaultProxy("127.0.0.1", broker.port) as proxy,
        edge(make, proxy.port, [*SOME, metric("Count", "UInt32", 2**32 - 1)]) as peer,
    ):

        def births() -> int:
            return sum("/DBIRTH/" in heard.topic for heard in listener.heard)

        await until(lambda: births() == 1, "it was born")
        await peer.tell(metric("PV", "Double", 1.25))
        await peer.ask(leave="cnc")
        await peer.ask(join="cnc")
        await until(lambda: births() == 2, "its device was born again")
        if make != "tahu":  # it leaves bdSeq to its user, and takes seconds to connect
            proxy.reset()
            await until(lambda: "/NDEATH/" in listener.heard[-1].topic, "its will was published")
            proxy.heal()
            await until(lambda: births() == 3, "it was born again")
        await peer.ask(stop=True)
        await until(lambda: "/NDEATH/" in listener.heard[-1].topic, "its death was published")
        log = broker.log()
    validator = Validator(complete=True)
    now = time.time_ns() // 10**6
    found = {
        finding.rule
        for heard in listener.heard
        for finding in validator.check(Message(heard.topic, heard.payload, None, None, now))
    }
    assert found | set(seen_by_broker(log)) == FAULTS[make]


async def test_an_end_without_a_death_is_healed_by_the_next_birth(broker: Mosquitto) -> None:
    """What sparkplug-client does unless it is told otherwise: nobody can know that it is gone."""
    tag = "g/sparkplug-client/PV"
    async with config(broker.port).build() as source, Reader.of(source) as reader:
        async with edge("sparkplug-client", broker.port, publishDeath=False) as peer:
            await until(lambda: good(reader, tag) is True, "its birth arrived")
            await peer.ask(stop=True)
        async with edge("sparkplug-client", broker.port, [metric("PV", "Double", 9.5)]):
            await reader.has(tag, 9.5)
            await until(lambda: good(reader, "g/sparkplug-client/SP") is False, "what is left out is bad")


async def test_a_negative_int8_ends_pysparkplug_and_the_command_stays_unknown(broker: Mosquitto) -> None:
    """It expects 8 bits in the field of 32; Tahu, sparkplug-client and we write the sign to the left end."""
    async with (
        config(broker.port, confirmation="500 ms").build() as source,
        Reader.of(source) as reader,
        edge("pysparkplug", broker.port, [metric("Small", "Int8", -3)], keepalive=4),
    ):
        await reader.has("g/pysparkplug/Small", -3)
        outcome = await source.execute(Command("c", "g/pysparkplug/Small", -4, "test", time.time_ns() + 10**10))
        assert outcome.done is None
        await until(lambda: good(reader, "g/pysparkplug/Small") is False, "the broker missed it")


@pytest.mark.parametrize("legacy", [False, True])
async def test_sparkplug_client_takes_a_uint32_only_in_the_old_place(legacy: bool, broker: Mosquitto) -> None:  # noqa: FBT001  # pytest
    tag, value = "g/sparkplug-client/Count", 2**32 - 2
    options = {"confirmation": "60 s" if legacy else "500 ms", "legacy": {"uint32_in_long": legacy}}
    async with (
        config(broker.port, **options).build() as source,
        Reader.of(source) as reader,
        edge("sparkplug-client", broker.port, [metric("Count", "UInt32", 2**31)]) as peer,
    ):
        await reader.has(tag, 2**31)
        outcome = await source.execute(Command("c", tag, value, "test", time.time_ns() + 10**10))
        assert outcome.done is (True if legacy else None)
        assert await peer.commands() == [("", "Count", str(value) if legacy else "null")]


@pytest.mark.parametrize("algorithm", ["GZIP", "DEFLATE"])
async def test_what_sparkplug_client_compresses_arrives(algorithm: str, broker: Mosquitto) -> None:
    async with (
        config(broker.port).build() as source,
        Reader.of(source) as reader,
        edge("sparkplug-client", broker.port, compress=algorithm) as peer,
    ):
        await reader.has("g/sparkplug-client/cnc/Speed", -7)
        await peer.tell(metric("PV", "Double", 3.5))
        await reader.has("g/sparkplug-client/PV", 3.5)
        assert "g/sparkplug-client/algorithm" not in newest(reader)


async def test_what_tahu_says_by_alias_arrives(tmp_path: Path) -> None:
    """A metric whose name node and device share, Tahu tells by the device's alias: a birth must tell the node's."""
    async with (
        Mosquitto(tmp_path) as broker,
        MosquittoSub.at(broker.port, "spBv1.0/g/#") as heard,
        config(broker.port).build() as source,
        Reader.of(source) as reader,
        edge("tahu", broker.port, typed_metrics("tahu", 0), {"cnc": [metric("Int8", "Int8", 5)]}, aliases=True) as peer,
    ):
        await reader.has("g/tahu/cnc/Int8", 5)
        await peer.tell(*typed_metrics("tahu", 1))
        await peer.tell(metric("Int8", "Int8", 6), device="cnc")
        await reader.has("g/tahu/cnc/Int8", 6)
        assert not [one for one in reader.samples if (one.tag, one.value) == ("g/tahu/cnc/Int8", 127)]
        await reader.has("g/tahu/Int8", 127)
        said = as_read("tahu", 1)
        assert {tag: value for tag, value in newest(reader).items() if tag in said} == said
        validator = Validator(complete=True)
        found = {
            finding.rule
            for one in heard.heard
            if "/NCMD/" not in one.topic
            for finding in validator.check(Message(one.topic, one.payload, None, None, None))
        }
        assert found == {"value of another type", "NDATA unknown metric"}
