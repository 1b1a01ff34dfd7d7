"""The simulated S7 as strangers see it: libsnap7's client reads, writes and browses both lines."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.protocols.s7_address import Area, parse
from shopfloor.protocols.s7_session import State
from shopfloor.samples import Misconfigured
from shopfloor.simulators import s7_filler, s7_plant, s7_press, s7_signals
from shopfloor.simulators.filling_line import Filler
from shopfloor.simulators.packml import State as Packml
from shopfloor.simulators.press_line import Press
from shopfloor.simulators.s7_plant import S7Plant
from shopfloor.simulators.s7_server import S7Server
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port
from tests.sources.s7_peer import stranger


@asynccontextmanager
async def running(seed: int = 1) -> AsyncIterator[tuple[S7Server, S7Plant, int]]:
    filler = Filler(seed, running=True, fault_every=1e9, steady=True)
    plc, port = S7Plant(Press(seed, running=True), filler, extra_tags=10), free_port()
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
        set_point, cycle_time, buttons = struct.unpack(">ffB", bytes.fromhex(back))
        assert (set_point, buttons) == (55.5, 0b10)
        # Between the two lies its old neighbour; a part that was made meanwhile has changed it a little.
        assert cycle_time == pytest.approx(struct.unpack(">f", bytes.fromhex(data)[8:12])[0], abs=5)

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
        for request in (["db_read", 9, 0, 4], ["db_read", 1, 74, 4]):
            assert "error" in await stranger(port, request)
        assert "error" in await stranger(port, ["db_read", 1, 0, 4], slot=3)
        server.state = State.STOP
        assert await stranger(port, ["get_cpu_state"]) == ["S7CpuStatusStop"]


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[object]:
        plc = S7Plant(Press(seed, running=True, attended=True), Filler(seed, running=True, attended=True))
        tags = [tag for tags in (s7_press.TAGS, s7_filler.TAGS) for name, tag in tags.items() if name != "Clock"]
        seen: list[object] = []
        for _ in range(600):
            plc.scan(0.1)
            seen += [plc.memory.get(parse(tag.address)) for tag in tags]
        return seen

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize(
    ("tags", "pulse", "counted", "modulo"),
    [
        (s7_press.TAGS, "I0.1", ("TotalParts", "GoodParts", "ScrapParts"), "Parts"),
        (s7_filler.TAGS, "I4.1", ("TotalBottles", "GoodBottles", "RejectBottles"), "Bottles"),
    ],
    ids=["press", "filler"],
)
def test_pulses_and_counters_say_the_same(
    tags: dict[str, s7_signals.Tag], pulse: str, counted: tuple[str, str, str], modulo: str
) -> None:
    """Ten minutes of work: what is made rises an input, and counts in the data block and in the S7 counter."""
    press, filler = Press(1, running=True, jam_every=1e9), Filler(1, running=True, fault_every=60, attended=True)
    plc = S7Plant(press, filler)
    pulses = before = 0
    for _ in range(6000):
        plc.scan(0.1)
        now = int(bool(plc.memory.get(parse(pulse))))
        pulses += now > before
        before = now
    total, good, bad, counter = (plc.memory.get(parse(tags[name].address)) for name in (*counted, modulo))
    assert isinstance(good, int)
    assert isinstance(bad, int)
    assert total == good + bad == counter
    assert good > 200
    assert pulses == total


async def test_a_stranger_reads_and_operates_the_filling_line() -> None:
    async with running() as (_, plc, port):

        async def filled() -> bool:
            return plc.filler.read().TotalBottles > 0

        await until(filled, "a bottle is filled", 60)
        inputs, data, counter, _, _ = await stranger(
            port,
            ["read_area", "PE", 0, 72, 8],
            ["db_read", 10, 0, s7_filler.SIZE],
            ["ct_read", 2, 1],
            ["db_write", 10, 4, "0x" + struct.pack(">f", 44.0).hex()],
            ["write_bit", "DB", 10, 16 * 8 + 1, 1],
        )
        power, tank, weight, motor = struct.unpack(">4H", bytes.fromhex(inputs))
        block = bytes.fromhex(data)
        speed, wanted, fill, grams = struct.unpack_from(">4f", block)
        state, fault, total, good, rejected = struct.unpack_from(">hHIII", block, 18)
        assert 5 < power / 27648 * 15 < 12
        assert 40 < tank / 27648 * 100 < 100
        assert 50 < motor / 27648 * 120 < 70
        assert (speed, wanted) == (pytest.approx(57, abs=1), 57)
        assert 470 < fill < 530
        assert weight / 27648 * 1000 == pytest.approx(grams, abs=0.1)
        assert grams == pytest.approx(24 + 1.04 * fill, abs=3)
        assert (state, fault) == (Packml.EXECUTE, 0)
        assert total == good + rejected > 0
        assert struct.unpack_from(">f", block, 36) == (60,)
        assert len(counter) == 4

        async def obeyed() -> bool:
            return plc.filler.set_point == 44 and plc.filler.read().State == Packml.STOPPED

        await until(obeyed, "the program has taken set-point and stop button", 30)


def test_the_page_lists_every_address() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulators.md").read_text(encoding="utf-8")
    for tags in (s7_press.TAGS, s7_filler.TAGS):
        for name, tag in tags.items():
            assert f"| `{tag.address}` | {name} |" in page


async def test_a_port_that_is_taken_is_told() -> None:
    async with running() as (_, _, port):
        with pytest.raises(Misconfigured, match="choose another"):
            await s7_plant.serve(port=port)
