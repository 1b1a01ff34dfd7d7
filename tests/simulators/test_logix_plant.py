"""The press and the filler in a Logix controller as strangers see them: PyPI's pylogix, and our own source."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor import plant
from shopfloor.browsing import browse
from shopfloor.samples import Command, Misconfigured
from shopfloor.simulators.filling_line import Filler
from shopfloor.simulators.logix_plant import LogixPlant
from shopfloor.simulators.packml import State
from shopfloor.simulators.press_line import Press
from shopfloor.sources.logix import LogixConfig
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port, missing

PEER = Path(__file__).parents[1] / "peers" / "pylogix"
EXPIRES = 2**62


@asynccontextmanager
async def at_work() -> AsyncIterator[tuple[Press, int]]:
    async with both_at_work() as (plant, port):
        yield plant.press, port


@asynccontextmanager
async def both_at_work() -> AsyncIterator[tuple[LogixPlant, int]]:
    press, port = Press(running=True, jam_every=math.inf), free_port()
    filler = Filler(running=True, fault_every=math.inf, steady=True)
    async with LogixPlant(press, filler, "127.0.0.1", port) as server:
        running = asyncio.create_task(server.run())
        try:
            yield server, port
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def pylogix(port: int, *requests: list[Any]) -> list[Any]:
    """What pylogix says to each request: value and status."""
    python = PEER / ".venv" / "bin" / "python"
    if not python.exists():
        missing("the peer pylogix is not installed", "make test, or tools/venv.sh peer tests/peers/pylogix")
    process = await asyncio.create_subprocess_exec(
        python, PEER / "client.py", str(port), json.dumps(requests), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    answers: list[Any] = json.loads(said)
    return answers


async def test_pylogix_lists_reads_and_operates_the_press() -> None:
    async with at_work() as (press, port):
        listed, pressure, pressures, *rest = await pylogix(
            port, ["list"], ["read", "Press.PV"], ["read", "Pressures", 10], ["write", "SP", 55.5], ["read", "SP"],
            ["write", "Order", "B-12"], ["read", "Order"], ["read", "Program:Main.Scans"], ["write", "Stop", True],
        )  # fmt: skip
        assert ["Press", "PressData"] in listed[0]
        assert ["Program:Main.Scans", "DINT"] in listed[0]
        assert pressure[0] == pytest.approx(40, abs=2)
        assert len(pressures[0]) == 10
        assert [status for _, status in rest] == ["Success"] * 6
        assert [value for value, _ in rest][1:4:2] == [55.5, "B-12"]
        assert press.set_point == 55.5
        await until(lambda: not press.running, "it stopped")


async def test_pylogix_reads_and_operates_the_filling_line() -> None:
    async with both_at_work() as (plant, port):
        await until(lambda: plant.filler.read().TotalBottles > 0, "a bottle is filled", 60)
        listed, *read = await pylogix(
            port, ["list"],
            *(["read", f"Filler.{name}"] for name in (
                "State", "FaultCode", "IdealRate", "Speed", "Weight", "Power", "Running", "Blocked",
            )),
            ["write", "FillerSpeedSP", 44.0], ["write", "FillerStop", True],
        )  # fmt: skip
        assert ["Filler", "FillerData"] in listed[0]
        assert [status for _, status in read] == ["Success"] * 10
        state, fault, ideal, speed, weight, power, runs, blocked, *_ = (value for value, _ in read)
        assert (state, fault, ideal, runs, blocked) == (State.EXECUTE, 0, 60, True, False)
        assert speed == pytest.approx(57, abs=1)
        assert 500 < weight < 580
        assert 5 < power < 12
        counters = await pylogix(port, *(["read", f"Filler.{name}Bottles"] for name in ("Total", "Good", "Reject")))
        assert counters[0][0] > 0
        assert plant.filler.set_point == 44
        await until(lambda: plant.filler.read().State == State.STOPPED, "it stopped", 30)


async def test_pylogix_is_told_what_is_not_there_or_not_taken() -> None:
    async with at_work() as (press, port):
        answers = await pylogix(
            port, ["read", "Nope"], ["write", "Press.PV", 1.0], ["read", "Pressures[20]"], ["write", "SP", math.nan]
        )
        assert [status for _, status in answers[:2]] == ["Path destination unknown", "Privilege violation"]
        assert answers[2][1] != "Success"
        assert press.set_point == 40


async def test_our_source_finds_reads_and_operates_the_press() -> None:
    """What `browse` lists is what the plant file takes."""
    async with at_work() as (press, port):
        bare = LogixConfig.model_validate({"name": "p", "host": "127.0.0.1", "port": port})
        async with bare.build() as source:
            found = [info async for info in source.browse()]
        tags = [{"tag": info.tag, "address": info.address} for info in found]
        config = LogixConfig.model_validate({"name": "p", "host": "127.0.0.1", "port": port, "tags": tags})
        async with config.build() as source, aclosing(source.batches()) as batches:
            seen = {sample.tag: sample for sample in await anext(batches) if not sample.tag.startswith("$")}
            assert seen.keys() == {info.tag for info in found}
            assert all(sample.good for sample in seen.values())
            assert seen["Press/Running"].value is True
            assert seen["Order"].value == "A-4711"
            assert seen["Press/PV"].value == pytest.approx(40, abs=2)
            assert (await source.execute(Command("c", "SP", 35.0, "t", EXPIRES))).done is True
            assert press.set_point == 35
            assert (await source.execute(Command("c", "Stop", value=True, issued_by="t", expires=EXPIRES))).done is True
            assert not press.running
            refused = await source.execute(Command("c", "Press/PV", 1.0, "t", EXPIRES))
            assert refused.done is False


async def test_what_the_command_line_lists_can_be_pasted_below_the_source(tmp_path: Path) -> None:
    async with at_work() as (_, port):
        head = f"plant: {{site: x}}\nsources:\n  - name: p\n    type: logix\n    host: 127.0.0.1\n    port: {port}\n"
        file, lines = tmp_path / "plant.yaml", tmp_path / "tags.yaml"
        file.write_text(head)
        await browse(plant.load(file), "p", "Press*", lines)
        file.write_text(head + lines.read_text())
        declared = plant.load(file).sources[0].declared() or ()
        assert "Press.GoodParts" in {info.address for info in declared}


async def test_a_port_that_is_taken_is_said() -> None:
    async with at_work() as (_, port):
        with pytest.raises(Misconfigured, match="choose another port"):
            await LogixPlant(Press(), Filler(), "127.0.0.1", port).__aenter__()
