"""The S7 source: with libsnap7's server for what is read and written, with the simulated PLC for what goes wrong."""

import asyncio
import logging
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
from pydantic import ValidationError

from shopfloor.protocols.s7_address import Area
from shopfloor.protocols.s7_session import State
from shopfloor.samples import Batch, Command, Misconfigured, Outcome, Quality, Sample, Unavailable, Value
from shopfloor.simulators import s7_server
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.sources import s7_reading
from shopfloor.sources.s7 import S7Config, S7Source
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sources.s7_peer import Snap7Server

SECOND = 10**9


@pytest.fixture(scope="module")
def peer() -> Iterator[Snap7Server]:
    with Snap7Server() as started:
        yield started


def config(port: int, *tags: dict[str, Any] | str, **options: Any) -> S7Config:
    listed = [{"tag": tag, "address": tag.replace("*", "")} if isinstance(tag, str) else tag for tag in tags]
    for n, tag in enumerate(listed):
        tag["tag"] = str(tag["tag"]).replace("[", "(").replace("]", ")") or f"t{n}"
    given = {"name": "plc", "host": "127.0.0.1", "port": port, "rate": "20 ms", "timeout": "30 s", "retry": "50 ms"}
    return S7Config.model_validate({**given, **options, "tags": listed})


@asynccontextmanager
async def simulated(**areas: int) -> AsyncIterator[S7Server]:
    """A PLC with DB1 of 100 bytes, all other areas of 64."""
    sizes = {(area, 0): 64 for area in Area if area is not Area.DB} | {(Area.DB, 1): areas.get("db1", 100)}
    async with S7Server(Memory(sizes), "127.0.0.1", free_port(), connections=areas.get("connections", 8)) as server:
        yield server


def port_of(server: S7Server) -> int:
    return server._port


async def first(source: S7Source) -> dict[str, Sample]:
    """What the first reads of all groups gave."""
    async with source, aclosing(source.batches()) as batches:
        batch = await asyncio.wait_for(anext(batches), 60)
        return {sample.tag: sample for sample in batch if not sample.tag.startswith("$")}  # a busy machine's overruns


class Kept:
    """What a running source said last of each tag."""

    def __init__(self, source: S7Source) -> None:
        self.source, self.last = source, dict[str, Sample]()
        self.batches: list[Batch] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Kept"]:
        async def take() -> None:
            async with aclosing(self.source.batches()) as batches:
                async for batch in batches:
                    self.batches.append(batch)
                    self.last.update((sample.tag, sample) for sample in batch)

        async with self.source:
            taking = asyncio.create_task(take())
            try:
                yield self
            finally:
                taking.cancel()
                await asyncio.gather(taking, return_exceptions=True)

    async def see(self, tag: str, value: Value, quality: int = Quality.GOOD) -> None:
        async def seen() -> bool:
            sample = self.last.get(tag)
            return sample is not None and (sample.value, sample.quality) == (value, quality)

        await until(seen, f"{tag} is {value!r} with quality {quality}")


async def execute(source: S7Source, tag: str, value: Value, within: float = 60.0) -> Outcome:
    return await source.execute(Command("c1", tag, value, "test", time.time_ns() + int(within * SECOND)))


# --- reading, from libsnap7


async def test_every_area_and_type_is_read_from_an_independent_server(peer: Snap7Server) -> None:
    await peer.put("DB", 0, struct.pack(">fiHhBbdQ", 1.5, -7, 65535, -2, 200, -3, 2.25, 2**63))
    await peer.put("DB", 40, b"\x0a\x05Hallo")
    await peer.put("DB", 60, bytes.fromhex("2611210430591237"))
    await peer.put("DB", 70, b"\x05")
    await peer.put("PE", 64, struct.pack(">H", 13824))
    await peer.put("PA", 2, b"\x11")
    await peer.put("MK", 10, b"\x08")
    await peer.put("CT", 4, bytes.fromhex("0123"))  # libsnap7's server has its counter 8 there, also for its own client
    await peer.put("TM", 5, bytes.fromhex("1050"))
    wanted: dict[str, Value] = {
        "DB1,REAL0": 1.5, "DB1,DINT4": -7, "DB1.DBW8": 65535, "DB1,INT10": -2, "DB1.DBB12": 200, "DB1,SINT13": -3,
        "DB1,LREAL14": 2.25, "DB1,ULINT22": 2**63, "DB1,STRING40.10": "Hallo", "DB1,DT60": "2026-11-21T04:30:59.123",
        "DB1,X70.0": True, "DB1,X70.1": False, "DB1.DBX70.2": True, "IW64": 13824, "QB2": 17, "M10.3": True,
        "M10.2": False, "C8": 123, "T10": 5000,
    }  # fmt: skip
    found = await first(config(peer.port, *wanted).build())
    assert {tag: (sample.value, sample.quality) for tag, sample in found.items()} == {
        tag: (value, Quality.GOOD) for tag, value in wanted.items()
    }


async def test_an_array_and_a_text_longer_than_a_telegram_are_read_whole(peer: Snap7Server) -> None:
    await peer.put("DB", 0, struct.pack(">250h", *range(250)))
    found = await first(config(peer.port, {"tag": "a", "address": "DB1,INT0[250]"}).build())
    assert found["a"].value == str(list(range(250)))


async def test_many_scattered_tags_are_read_from_an_independent_server(peer: Snap7Server) -> None:
    """More blocks than one request takes, and more requests than may be under way at once."""
    await peer.put("DB", 0, bytes(n % 251 for n in range(512)))
    places = range(0, 512, 5)
    found = await first(
        config(peer.port, *(f"DB1,B{n}" for n in places), *(f"M,B{n}" for n in range(0, 120, 40))).build()
    )
    assert [found[f"DB1,B{n}"].value for n in places] == [n % 251 for n in places]


async def test_raw_numbers_become_engineering_units_and_back(peer: Snap7Server) -> None:
    await peer.put("DB", 0, struct.pack(">h", 13824))
    scale = {"raw": [0, 27648], "scaled": [0, 400]}
    source = config(peer.port, {"tag": "power", "address": "DB1,INT0", "scale": scale}).build()
    async with Kept(source).running() as kept:
        await kept.see("power", 200.0)
        assert (await execute(source, "power", 100.0)).done is True
        assert struct.unpack(">h", await peer.get("DB", 0, 2)) == (6912,)
        refused = await execute(source, "power", 1000.0)
        assert refused.done is False
        assert "-32768 to 32767" in refused.detail


# --- writing


async def test_a_bit_is_written_without_its_neighbours(peer: Snap7Server) -> None:
    """Another writer sets bits of the same byte between our reads and writes: none of its bits is undone."""
    await peer.put("DB", 80, b"\xa5")
    source = config(peer.port, *(f"DB1,X80.{n}" for n in range(8))).build()
    async with source:
        assert (await execute(source, "DB1,X80.1", True)).done is True
        assert await peer.get("DB", 80, 1) == b"\xa7"
        assert (await execute(source, "DB1,X80.7", False)).done is True
        assert await peer.get("DB", 80, 1) == b"\x27"


@pytest.mark.parametrize(
    ("address", "value", "data"),
    [
        ("DB1,REAL100", 0.1, "3dcccccd"),
        ("DB1,INT100", -5, "fffb"),
        ("DB1,LREAL100", 0.1, "3fb999999999999a"),
        ("DB1,DT100", "2026-11-21T04:30:59.123", "2611210430591237"),
        ("DB1,INT100[2]", "[1, 2]", "00010002"),
        ("M101.0", True, None),
        ("QW20", 4660, None),
    ],
)
async def test_values_are_written_and_nothing_beside_them(
    peer: Snap7Server, address: str, value: Value, data: str | None
) -> None:
    await peer.put("DB", 96, b"\xee" * 24)
    source = config(peer.port, {"tag": "t", "address": address}).build()
    async with source:
        outcome = await execute(source, "t", value)
        assert outcome.done is True, outcome.detail
    if data is not None:
        wanted = bytes.fromhex(data)
        assert await peer.get("DB", 96, 24) == b"\xee" * 4 + wanted + b"\xee" * (20 - len(wanted))


async def test_text_keeps_to_the_length_that_the_program_declared(peer: Snap7Server) -> None:
    """The declared length is the program's; text that is longer than it is refused though the plant file allows it."""
    await peer.put("DB", 200, b"\x05\x01a" + b"\xee" * 10)
    source = config(peer.port, {"tag": "order", "address": "DB1,STRING200.10"}).build()
    async with source:
        assert (await execute(source, "order", "abcde")).done is True
        assert await peer.get("DB", 200, 9) == b"\x05\x05abcde\xee\xee"
        refused = await execute(source, "order", "abcdef")
    assert refused.done is False
    assert "STRING of 5" in refused.detail
    assert await peer.get("DB", 200, 9) == b"\x05\x05abcde\xee\xee"


@pytest.mark.parametrize(
    ("address", "says"),
    [("IW64", "inputs"), ("PQW64", "process image"), ("T1", "timers"), ("C1", "counters"), ("DB1,REAL99", "bytes 99")],
)
async def test_what_cannot_be_written_is_refused_with_a_reason(address: str, says: str) -> None:
    async with simulated() as server:
        source = config(port_of(server), {"tag": "t", "address": address}).build()
        async with source:
            outcome = await execute(source, "t", 1)
    assert outcome.done is False
    assert says in outcome.detail


async def test_a_value_that_the_program_overwrites_is_unknown_not_done() -> None:
    async with simulated() as server:
        source = config(port_of(server), {"tag": "t", "address": "DB1,INT0"}).build()
        data = server.memory.area(Area.DB, 1)
        assert data is not None

        async def program() -> None:
            while True:
                data[0:2] = b"\x00\x2a"
                await asyncio.sleep(0)

        running = asyncio.create_task(program())
        async with source:
            outcome = await execute(source, "t", 7)
        running.cancel()
    assert outcome.done is None
    assert "reads 42" in outcome.detail


async def test_nothing_is_written_in_stop_or_where_the_plant_file_forbids_it() -> None:
    async with simulated() as server:
        server.state = State.STOP
        source = config(port_of(server), "DB1,INT0", {"tag": "no", "address": "DB1,INT2", "writable": False}).build()
        async with source:
            stopped, forbidden = await execute(source, "DB1,INT0", 7), await execute(source, "no", 7)
        assert (stopped.done, forbidden.done) == (False, False)
        assert "put it into RUN" in stopped.detail
        assert "not writable" in forbidden.detail
        assert bytes(server.memory.area(Area.DB, 1) or b"") == bytes(100)


async def test_a_command_that_waits_for_its_turn_expires_there() -> None:
    """Requests under way hold the line; the command's time is looked at when it is sent, not when it was asked."""
    async with simulated() as server, FaultProxy("127.0.0.1", port_of(server)) as proxy:
        source = config(proxy.port, "DB1,INT0").build()
        async with source:
            proxy.delay(0.2)
            waiting = [asyncio.create_task(execute(source, "DB1,INT0", n + 1, within=0.1)) for n in range(40)]
            outcomes = await asyncio.gather(*waiting)
    assert any(o.done is False and "expired" in o.detail for o in outcomes)


# --- what goes wrong


async def test_bad_tags_cost_only_themselves_and_come_back(caplog: pytest.LogCaptureFixture) -> None:
    """Tags of one block with one that lies beyond the DB, and a DB that is loaded later."""
    caplog.set_level(logging.INFO)
    async with simulated() as server:
        source = config(port_of(server), "DB1,INT0", "DB1,INT96", "DB1,DINT98", "DB7,INT0", "M0.0").build()
        async with Kept(source).running() as kept:
            await kept.see("DB1,INT0", 0)
            await kept.see("M0.0", False)
            await kept.see("DB1,INT96", 0)
            await kept.see("DB1,DINT98", None, Quality.CONFIGURATION_ERROR)
            await kept.see("DB7,INT0", None, Quality.CONFIGURATION_ERROR)
            assert (kept.last["DB7,INT0"].status, kept.last["DB1,DINT98"].status) == (0x0A, 0x05)
            server.memory.load(7, 10)
            server.memory.load(1, 110)
            await kept.see("DB7,INT0", 0)
            await kept.see("DB1,DINT98", 0)
            server.memory.load(7, 0)
            await kept.see("DB7,INT0", None, Quality.CONFIGURATION_ERROR)
    said = [r.message for r in caplog.records]
    assert sum("DB7,INT0 cannot be read: the PLC has no DB7" in m for m in said) == 2
    assert sum("DB1,DINT98 cannot be read: the PLC's DB1 has no bytes 98 to 101" in m for m in said) == 1
    assert all("Optimized block access" in m for m in said if "cannot be read:" in m)
    assert sum("can be read again" in m for m in said) == 2


class Slow(S7Server):
    """A PLC that agrees to two requests at once, and answers only when nobody sends any more."""

    most = 0
    """Requests that were waiting at once."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await s7_server._cotp(reader)
        s7_server._send(writer, struct.pack(">BBHHB", len(request) - 1, 0xD0, 0, 1, 0) + request[7:])
        telegrams: list[bytes] = []

        async def answer() -> None:
            while True:
                await asyncio.sleep(0.02)
                self.most = max(self.most, len(telegrams))
                for telegram in telegrams:
                    s7_server._send(writer, b"\x02\xf0\x80" + self._answer(telegram, 240)[0])
                telegrams.clear()

        answering = asyncio.create_task(answer())
        try:
            while True:
                telegrams.append((await s7_server._cotp(reader))[3:])
        finally:
            answering.cancel()

    def _answer(self, telegram: bytes, pdu: int) -> tuple[bytes, int]:
        answer, pdu = super()._answer(telegram, pdu)
        setup = telegram[10] == 0xF0
        return (answer[:14] + struct.pack(">HHH", 2, 2, 240) if setup else answer), pdu


async def test_as_many_requests_are_under_way_as_the_plc_agreed_to() -> None:
    """No more, or it would break the connection; and no fewer, or the way to it would be waited for each time."""
    async with Slow(Memory({(Area.DB, 1): 2000}), "127.0.0.1", free_port()) as server:
        source = config(port_of(server), *(f"DB1,INT{at}" for at in range(0, 2000, 2))).build()
        async with source, aclosing(source.batches()) as batches:
            assert len(await anext(batches)) >= 1000
            for n in range(1, 1000):
                server.memory.area(Area.DB, 1)[:] = struct.pack(">h", n) * 1000  # type: ignore[index]  # it is there
                await anext(batches)
                if server.most == 2 and n > 2:
                    break
        assert server.most == 2


class Holed(S7Server):
    """A PLC whose marker 5 cannot be read: as outputs between two modules."""

    reads = 0

    def _span(self, size: int, count: int, db: int, area: int, address: int) -> tuple[int, bytearray, int]:
        self.reads += 1
        if area == Area.MARKERS and address // 8 <= 5 < address // 8 + count:
            return 0x05, bytearray(), 0
        return super()._span(size, count, db, area, address)


async def test_neighbours_of_a_hole_are_read_apart_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    """It is found out once; every further read asks for two blocks and no more."""
    async with Holed(Memory({(Area.MARKERS, 0): 20}), "127.0.0.1", free_port()) as server:
        source = config(port_of(server), "M,B4", "M,B6").build()
        async with source:
            reader = source._reader
            assert reader is not None
            for _ in range(3):
                server.reads = 0
                assert [list(column.values) for column in await reader.read((0, 1))] in ([[0, 0]], [[0], [0]])
                assert server.reads == 2
    assert not [r for r in caplog.records if "cannot be read:" in r.message]


async def test_a_bad_tag_is_told_once_however_often_the_connection_breaks(caplog: pytest.LogCaptureFixture) -> None:
    async with simulated() as server:
        source = config(port_of(server), "DB1,INT0", "DB7,INT0").build()
        for _ in range(3):
            assert (await first(source))["DB7,INT0"].value is None
    assert sum("DB7,INT0 cannot be read" in r.message for r in caplog.records) == 1


async def test_a_small_plc_is_not_asked_what_it_may_not_answer() -> None:
    async with simulated() as server:
        server.state = State.STOP
        source = config(port_of(server), "VW0", model="logo", remote_tsap="01.01").build()
        assert (await first(source))["VW0"].quality == Quality.GOOD  # the state was not asked for


async def test_a_data_block_that_is_loaded_anew_is_noticed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values go on, and the log says that its layout may have changed; bad tags are tried at once."""
    monkeypatch.setattr(s7_reading, "_WATCH", 0.02)
    async with simulated() as server:
        source = config(port_of(server), "DB1,INT0", "DB1,INT100", retry="1 h").build()
        async with Kept(source).running() as kept:
            await kept.see("DB1,INT100", None, Quality.CONFIGURATION_ERROR)
            server.memory.load(1, 102)
            await kept.see("DB1,INT100", 0)
    assert [r.message for r in caplog.records if "DB1 was loaded anew" in r.message]


async def test_in_stop_values_are_uncertain_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s7_reading, "_WATCH", 0.02)
    async with simulated() as server, Kept(config(port_of(server), "DB1,INT0").build()).running() as kept:
        await kept.see("DB1,INT0", 0)
        server.state = State.STOP
        await kept.see("DB1,INT0", 0, Quality.LAST_USABLE)
        await asyncio.sleep(0.1)
        server.state = State.RUN
        await kept.see("DB1,INT0", 0)
    said = [r.message for r in caplog.records]
    assert sum("is in STOP" in m for m in said) == 1
    assert sum("is in RUN again" in m for m in said) == 1


async def test_stop_of_an_independent_server_is_seen(peer: Snap7Server) -> None:
    await peer.ask("cpu", status=4)
    try:
        found = await first(config(peer.port, "DB1,INT0").build())
    finally:
        await peer.ask("cpu", status=8)
    assert found["DB1,INT0"].quality == Quality.LAST_USABLE


async def test_bytes_that_are_no_value_are_bad_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with simulated() as server:
        data = server.memory.area(Area.DB, 1)
        assert data is not None
        data[0:2] = b"\xfe\x64"
        async with Kept(config(port_of(server), "DB1,STRING0.5", "DB1,INT20").build()).running() as kept:
            await kept.see("DB1,STRING0.5", None, Quality.CONFIGURATION_ERROR)
            data[0:4] = b"\x05\x01a\x00"
            await kept.see("DB1,STRING0.5", "a")
    assert sum("100 characters stand in a STRING of 5" in r.message for r in caplog.records) == 1


async def away(port: int, **options: Any) -> str:
    """What is said when it cannot be connected."""
    with pytest.raises(Unavailable) as error:
        async with config(port, "DB1,INT0", **options).build():
            pytest.fail("it connected")
    return str(error.value)


async def test_a_wrong_slot_is_told() -> None:
    async with simulated() as server:
        said = await away(port_of(server), slot=2)
    assert "rack 0 slot 2" in said
    assert "check `model`, `rack` and `slot`" in said


async def test_no_connection_left_is_told_and_the_next_one_works() -> None:
    async with simulated(connections=1) as server:
        async with config(port_of(server), "DB1,INT0").build():
            assert "no connection left" in await away(port_of(server), resource="pg")
        assert (await first(config(port_of(server), "DB1,INT0").build()))["DB1,INT0"].value == 0


async def test_sources_for_the_same_plc_share_its_one_connection() -> None:
    """Each may come and go; a loss is heard by both, and both come back on one new connection."""
    async with simulated(connections=1) as server, FaultProxy("127.0.0.1", port_of(server)) as proxy:
        one, two = (Kept(config(proxy.port, tag).build()) for tag in ("DB1,INT0", "M0.0"))
        async with one.running():
            async with two.running():
                await one.see("DB1,INT0", 0)
                await two.see("M0.0", False)
                assert proxy.accepted == 1
            assert (await execute(one.source, "DB1,INT0", 7)).done is True
            await one.see("DB1,INT0", 7)
        for again in (1, 2):
            async with one.source, two.source:
                assert proxy.accepted == 1 + again
                proxy.drop()
                for source in (one.source, two.source):
                    with pytest.raises(Unavailable):
                        await asyncio.wait_for(_to_the_end(source), 60)


async def _to_the_end(source: S7Source) -> None:
    async with aclosing(source.batches()) as batches:
        async for _ in batches:
            pass


async def test_when_two_come_at_once_and_the_plc_is_away_both_hear_it() -> None:
    port = free_port()
    said = await asyncio.gather(away(port), away(port))
    assert all("refuses connections" in text for text in said)


async def test_put_get_that_is_not_permitted_is_told() -> None:
    async with simulated() as server:
        server.permitted = False
        for tags in (("DB1,INT0",), ("DB1,INT0", "DB1,INT50", "M0.0")):
            with pytest.raises(Unavailable, match="permit 'PUT/GET communication"):
                await first(config(port_of(server), *tags).build())


async def test_a_black_hole_a_refusal_and_a_stranger_are_told_apart() -> None:
    async with simulated() as server, FaultProxy("127.0.0.1", port_of(server)) as proxy:
        proxy.black_hole()
        assert "then says nothing" in await away(proxy.port, timeout="1 s")
        proxy.reset()
        assert "refuses connections" in await away(proxy.port)
    assert "is not known here" in await away(102, host="no-such-plc.invalid")

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(http, "127.0.0.1", 0) as web:
        assert "speaks no S7" in await away(web.sockets[0].getsockname()[1])


@pytest.mark.parametrize("seed", range(40))
async def test_a_garbled_answer_ends_the_connection_and_nothing_else(seed: int) -> None:
    """One byte of what the PLC sends is another: the source goes on, or says that the PLC is away."""
    chance = random.Random(seed)

    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on, the wrong byte somewhere in the first 400: connecting, asking for the state, reading."""
        near, wrong = await asyncio.open_connection("127.0.0.1", port_of(server)), chance.randrange(400)

        async def back() -> None:
            at = 0
            while data := bytearray(await near[0].read(4096)):
                if at <= wrong < at + len(data):
                    data[wrong - at] ^= 1 << chance.randrange(8)
                at += len(data)
                writer.write(data)
            writer.close()

        answering = asyncio.create_task(back())
        try:
            while data := await reader.read(4096):
                near[1].write(data)
        finally:
            near[1].close()
            await asyncio.gather(answering, return_exceptions=True)

    async with simulated() as server, await asyncio.start_server(garble, "127.0.0.1", 0) as between:
        port = between.sockets[0].getsockname()[1]
        source = config(port, "DB1,STRING0.20", "DB1,DT40", "M0.0", "IW2", "C1", timeout="300 ms").build()
        with suppress(Unavailable):
            async with source, asyncio.timeout(60):
                outcome = await execute(source, "M0.0", True)
                assert outcome.detail
                async with aclosing(source.batches()) as batches:
                    await anext(batches)


# --- configuration


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tags": [{"tag": "a", "address": "DB1,FOO3"}]}, "no data type of S7"),
        ({"tags": [{"tag": "a", "address": "DB1,X0.9"}]}, "0 to 7"),
        ({"tags": [{"tag": "a", "address": "M0.0"}, {"tag": "a", "address": "M0.1"}]}, "twice"),
        ({"host": "s7://10.0.0.1"}, "write the PLC's name or IP address"),
        ({"slot": 2, "remote_tsap": "02.00"}, "leave one out"),
        ({"model": "logo", "slot": 1}, "leave one out"),
        ({"remote_tsap": "2"}, "remote_tsap"),
        ({"slot": 40}, "slot"),
    ],
)
def test_a_wrong_plant_file_is_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        S7Config.model_validate({"name": "plc", "host": "10.0.0.1", **options})


@pytest.mark.parametrize(
    ("options", "local", "remote"),
    [
        ({}, 0x0100, 0x0201),
        ({"model": "s7-300"}, 0x0100, 0x0202),
        ({"model": "s7-400", "rack": 1, "slot": 4, "resource": "pg"}, 0x0100, 0x0124),
        ({"model": "logo"}, 0x0300, 0x0200),
        ({"model": "logo", "local_tsap": "10.00", "remote_tsap": "20.00"}, 0x1000, 0x2000),
    ],
)
def test_model_rack_and_slot_choose_the_tsaps(options: dict[str, Any], local: int, remote: int) -> None:
    plc = S7Config.model_validate({"name": "plc", "host": "10.0.0.1", **options}).plc()
    assert (plc.local_tsap, plc.remote_tsap) == (local, remote)


async def test_browsing_says_where_addresses_are_found() -> None:
    async with simulated() as server, config(port_of(server)).build() as source:
        with pytest.raises(Misconfigured, match="take the addresses from the engineering tool"):
            [found async for found in source.browse()]
