"""The Modbus press as strangers see it: Debian's mbpoll (libmodbus), npm's modbus-serial, and our own source."""

import asyncio
import json
import math
import re
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor.samples import Command, Misconfigured
from shopfloor.simulators.press_line import Press
from shopfloor.simulators.press_modbus import MAP, ModbusPress, layout
from shopfloor.sources.modbus import ModbusConfig
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port, require_program
from tests.sources.modbus_peer import command

DOCS = Path(__file__).parents[2] / "docs"


@asynccontextmanager
async def at_work(press: Press | None = None, framing: str = "tcp") -> AsyncIterator[tuple[Press, int]]:
    shown, port = press or Press(running=True, jam_every=math.inf), free_port()
    async with ModbusPress(shown, "127.0.0.1", port, framing=framing) as server:  # type: ignore[arg-type]  # one of two
        running = asyncio.create_task(server.run())
        try:
            yield shown, port
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def mbpoll(port: int, kind: str, start: int, *more: str) -> str:
    program = require_program("mbpoll", "apt-get install mbpoll")
    process = await asyncio.create_subprocess_exec(
        program, "-m", "tcp", "-a", "1", "-o", "10", "-t", kind, "-B", "-r", str(start), "-p", str(port), *more,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return said.decode()


async def read(port: int, kind: str, start: int, count: int = 1) -> list[float]:
    said = await mbpoll(port, kind, start, "-c", str(count), "-1", "127.0.0.1")
    found = [float(one) for one in re.findall(r"^\[\d+\]:\s+(\S+)", said, re.MULTILINE)]
    assert len(found) == count, said
    return found


async def test_mbpoll_reads_and_operates_the_press() -> None:
    async with at_work() as (press, port):
        pressure, valve = await read(port, "3:float", 1, 2)
        assert pressure == pytest.approx(40, abs=2)
        assert 0 < valve <= 100
        assert await read(port, "1", 1, 2) == [1, 0]
        said = await mbpoll(port, "4:float", 1, "127.0.0.1", "55.5")
        assert "Written 1 references" in said
        assert press.set_point == pytest.approx(55.5)
        assert await read(port, "4:float", 1) == [55.5]
        await mbpoll(port, "0", 2, "127.0.0.1", "1")
        assert not press.running
        assert (await read(port, "1", 1))[0] in {0, 1}  # shown with the next scan of the PLC
        await until(lambda: not press.running, "it stopped")


async def test_mbpoll_is_told_what_is_not_there_or_not_taken() -> None:
    async with at_work() as (press, port):
        assert "Illegal data address" in await mbpoll(port, "4", 500, "-c", "1", "-1", "127.0.0.1")
        assert "Illegal data value" in await mbpoll(port, "4:float", 1, "127.0.0.1", "nan")
        assert press.set_point == 40


@pytest.mark.parametrize(("framing", "mode"), [("tcp", "tcp"), ("rtu-over-tcp", "rtu")])
async def test_modbus_serial_reads_and_writes_the_press(framing: str, mode: str) -> None:
    async with at_work(framing=framing) as (press, port):

        async def ask(*request: object) -> Any:
            words = [str(part) for part in (*command(), "ask", mode, port, *request)]
            process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
            said, _ = await process.communicate()
            return json.loads(said)

        high, low = await ask("readInputRegisters", 0, 2)
        (pressure,) = struct.unpack(">f", struct.pack(">2H", high, low))
        assert pressure == pytest.approx(40, abs=2)
        await ask("writeRegisters", 0, layout("SP").encode(33.5))
        assert press.set_point == 33.5
        assert await ask("readHoldingRegisters", 500, 1) == {
            "code": 2,
            "message": "Modbus exception 2: Illegal data address (register not supported by device)",
        }


async def test_our_source_reads_all_of_it_and_stops_the_press() -> None:
    """The plant file of the documentation's page, with the port of this press."""
    async with at_work() as (press, port):
        tags = [
            {"tag": name, "address": at.address, "type": at.type, **({"length": 16} if at.type == "string" else {})}
            for name, at in MAP.items()
        ]
        config = ModbusConfig.model_validate({"name": "p", "host": "127.0.0.1", "port": port, "tags": tags})
        async with config.build() as source, aclosing(source.batches()) as batches:
            seen = {sample.tag: sample for sample in await anext(batches) if not sample.tag.startswith("$")}
            assert seen.keys() == MAP.keys()
            assert all(sample.good for sample in seen.values())
            assert seen["Order"].value == "A-4711"
            assert seen["PV"].value == pytest.approx(40, abs=2)
            expires = 2**62
            assert (await source.execute(Command("c", "Stop", value=True, issued_by="t", expires=expires))).done is True
            assert not press.running
            assert (await source.execute(Command("c", "SP", 35.0, "t", expires))).done is True
            assert press.set_point == 35


def test_the_page_lists_every_address() -> None:
    page = (DOCS / "connectors" / "modbus.md").read_text("utf-8")
    for name, at in MAP.items():
        assert re.search(rf"\| {at.address} \| {name} \| {at.type} \| {re.escape(at.description)} \|", page), name


async def test_a_port_that_is_taken_is_said() -> None:
    async with at_work() as (_, port):
        with pytest.raises(Misconfigured, match="choose another port"):
            await ModbusPress(Press(), "127.0.0.1", port).__aenter__()
