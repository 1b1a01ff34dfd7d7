"""Partners older than Sparkplug 3.0, only where the plant file says so: STATE as plain text, UInt32 in long_value."""

import time
from pathlib import Path

import pytest

from shopfloor.protocols.sparkplug.model import DataType
from shopfloor.protocols.sparkplug.payload import Types, decode
from shopfloor.samples import Batch, Sample, Unavailable
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import Mosquitto
from tests.sinks.mosquitto_sub import MosquittoSub
from tests.sinks.test_sparkplug import ORDINARY, config, kept_out, live, say, state
from tests.sources.test_sparkplug import Reader, config as host_config

OLD_STATE = {"legacy": {"state_2_2": True}}


async def test_a_host_says_online_and_offline_as_plain_text(tmp_path: Path) -> None:
    """Retained, and by its will when it vanishes; who says that it is offline is contradicted at once."""
    async with (
        Mosquitto(tmp_path) as broker,
        FaultProxy("127.0.0.1", broker.port) as proxy,
        MosquittoSub.at(broker.port, "#") as heard,
    ):

        def said() -> list[tuple[str, bytes]]:
            return [(one.topic, one.payload) for one in heard.heard]

        async with host_config(proxy.port, **OLD_STATE).build() as source, Reader.of(source):
            await until(lambda: said() == [("STATE/mes", b"ONLINE")], "its birth")
            await say(broker.port, "STATE/mes", b"OFFLINE", "-r")
            await until(
                lambda: said()[1:] == [("STATE/mes", b"OFFLINE"), ("STATE/mes", b"ONLINE")], "the contradiction"
            )
            proxy.reset()
            await until(lambda: said()[3:] == [("STATE/mes", b"OFFLINE")], "its will")
        proxy.heal()
        async with host_config(proxy.port, **OLD_STATE).build():
            await until(lambda: said()[4:] == [("STATE/mes", b"ONLINE")], "its return")
        await until(lambda: said()[5:] == [("STATE/mes", b"OFFLINE")], "its end")
        async with MosquittoSub.at(broker.port, "STATE/mes") as later:
            await until(
                lambda: [(one.payload, one.retained) for one in later.heard] == [(b"OFFLINE", True)], "retained"
            )


async def test_a_node_obeys_plain_text_and_nothing_else(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as heard:
        chosen = config(broker.port, tmp_path, primary_host="scada", **OLD_STATE)
        sink = chosen.build()
        await state(broker.port, online=True, timestamp=time.time_ns() // 10**6)
        await say(broker.port, "STATE/other", b"ONLINE", "-r")
        await kept_out(chosen, "scada is not online")
        assert heard.heard == []
        await say(broker.port, "STATE/scada", b"ONLINE", "-r")
        async with sink:
            await sink.write(1, live("press/PV", 1.5))
            await state(broker.port, online=False, timestamp=time.time_ns() // 10**6)
            await say(broker.port, "STATE/scada", b"perhaps")
            await sink.write(2, live("press/PV", 2.5))
            await say(broker.port, "STATE/scada", b"OFFLINE", "-r")
            with pytest.raises(Unavailable, match="scada went offline"):
                await sink.write(3, live("press/PV", 3.5))
        await until(lambda: "/NDEATH/" in heard.heard[-1].topic, "it said its death")


async def test_our_node_obeys_our_host_in_the_old_way_too(tmp_path: Path) -> None:
    async with (
        Mosquitto(tmp_path) as broker,
        host_config(broker.port, **OLD_STATE).build() as source,
        Reader.of(source) as reader,
        config(broker.port, tmp_path, primary_host="mes", **OLD_STATE).build() as sink,
    ):
        await sink.write(1, live("press/PV", 1.5))
        await reader.has("bremen/edge/press/PV", 1.5)


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_uint32_goes_where_the_plant_file_says(legacy: bool, tmp_path: Path) -> None:  # noqa: FBT001  # pytest
    """The one that our node writes is the protocol's own status of a sample."""
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, ORDINARY) as heard:
        async with config(broker.port, tmp_path, legacy={"uint32_in_long": legacy}).build() as sink:
            at = time.time_ns()
            sample = Sample("press/PV", at, None, 0, 0x80340000)
            await sink.write(1, Batch.of("plc", at, [sample]))
            await until(lambda: any("/DDATA/" in one.topic for one in heard.heard), "the sample")
        (data,) = [one.payload for one in heard.heard if "/DDATA/" in one.topic]
        types: Types = {1: DataType.STRING}
        strict, lenient = decode(data, types), decode(data, types, legacy_uint32_in_long=True)
        assert bool(strict.faults) is legacy
        assert lenient.metrics[0].properties is not None
        assert lenient.metrics[0].properties["Status"].value == 0x80340000


async def test_nothing_of_it_is_done_unasked(tmp_path: Path) -> None:
    async with Mosquitto(tmp_path) as broker, MosquittoSub.at(broker.port, "STATE/#") as heard:
        await say(broker.port, "STATE/scada", b"ONLINE", "-r")
        async with host_config(broker.port).build():
            await kept_out(config(broker.port, tmp_path, primary_host="scada"), "scada is not online")
        await say(broker.port, "STATE/end", b"x")
        await until(lambda: heard.heard[-1].topic == "STATE/end", "all was heard")
        assert [one.topic for one in heard.heard] == ["STATE/scada", "STATE/end"]
