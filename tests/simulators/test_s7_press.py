"""The simulated S7 press as strangers see it: libsnap7's client reads, writes and browses it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shopfloor.protocols.s7_address import Area, parse
from shopfloor.protocols.s7_session import State
from shopfloor.samples import Misconfigured
from shopfloor.simulators import s7_press
from shopfloor.simulators.press_line import Press
from shopfloor.simulators.s7_press import TAGS, PressPlc
from shopfloor.simulators.s7_server import S7Server
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port
from tests.sources.s7_peer import stranger


@asynccontextmanager
async def running(seed: int = 1) -> AsyncIterator[tuple[S7Server, PressPlc, int]]:
    plc, port = PressPlc(Press(seed, running=True), seed=seed, extra_tags=10), free_port()
    async with S7Server(plc.memory, "127.0.0.1", port) as server:
        working = asyncio.create_task(plc.run(server))
        try:
            yield server, plc, port
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def test_a_stranger_reads_every_area_and_writes_the_set_point() -> None:
    async with running() as (_, plc, port):
        inputs, data, counter, timer, state, _, _, back = await stranger(
            port,
            ["read_area", "PE", 0, 64, 6],
            ["db_read", 1, 0, 66],
            ["ct_read", 1, 1],
            ["tm_read", 1, 1],
            ["get_cpu_state"],
            ["db_write", 1, 4, "0x" + struct.pack(">f", 55.5).hex()],
            ["write_bit", "DB", 1, 12 * 8 + 1, 1],
            ["db_read", 1, 4, 9],
        )
        power, pressure, oil = struct.unpack(">HHH", bytes.fromhex(inputs))
        assert 0 < power < 27648
        assert abs(pressure / 27648 * 100 - struct.unpack(">f", bytes.fromhex(data)[:4])[0]) < 5
        assert 20 < oil / 27648 * 120 < 70
        assert bytes.fromhex(data)[34:42] == b"\x14\x06A-1001"
        assert (len(counter), len(timer)) == (4, 4)
        assert state == "S7CpuStatusRun"
        assert bytes.fromhex(back) == struct.pack(">f", 55.5) + bytes.fromhex(data)[8:12] + b"\x02"

        async def obeyed() -> bool:
            return plc.press.set_point == 55.5 and not plc.press.running

        await until(obeyed, "the program has taken set-point and stop button", 10)


async def test_a_bit_that_a_stranger_writes_leaves_its_neighbours() -> None:
    async with running() as (_, plc, port):
        marks = plc.memory.area(Area.MARKERS, 0)
        assert marks is not None
        marks[20] = 0xA5
        assert await stranger(port, ["write_bit", "MK", 0, 20 * 8 + 1, 1], ["write_bit", "MK", 0, 20 * 8 + 7, 0]) == [
            0,
            0,
        ]
        assert marks[20] == 0x27


async def test_a_stranger_is_refused_where_nothing_is() -> None:
    async with running() as (server, _, port):
        for request in (["db_read", 9, 0, 4], ["db_read", 1, 64, 4]):
            assert "error" in await stranger(port, request)
        assert "error" in await stranger(port, ["db_read", 1, 0, 4], slot=3)
        server.state = State.STOP
        assert await stranger(port, ["get_cpu_state"]) == ["S7CpuStatusStop"]


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[object]:
        plc = PressPlc(Press(seed, running=True, attended=True), seed=seed)
        names = [name for name in TAGS if name != "Clock"]
        seen: list[object] = []
        for _ in range(600):
            plc.scan(0.1)
            seen += [plc.memory.get(parse(TAGS[name].address)) for name in names]
        return seen

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_memory_says_what_the_physics_does() -> None:
    """A minute of work: parts are counted alike in the counters, the S7 counter and the pulses of the input."""
    plc = PressPlc(Press(1, running=True, jam_every=1e9))
    pulses = before = 0
    for _ in range(600):
        plc.scan(0.1)
        now = int(bool(plc.memory.get(parse("I0.1"))))
        pulses += now > before
        before = now
    good, scrap, counter = (plc.memory.get(parse(TAGS[n].address)) for n in ("GoodParts", "ScrapParts", "Parts"))
    assert isinstance(good, int)
    assert isinstance(scrap, int)
    assert good + scrap == counter
    assert good > 20
    assert abs(pulses - (good + scrap)) <= 1


async def test_a_port_that_is_taken_is_told() -> None:
    async with running() as (_, _, port):
        with pytest.raises(Misconfigured, match="choose another"):
            await s7_press.serve(port=port)
