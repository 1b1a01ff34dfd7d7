"""The Modbus source against modbus-serial's server and pymodbus's: what a device refuses, holds back and hides."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any, Self

import pytest
from pydantic import ValidationError
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from shopfloor.plant.units import WRITTEN
from shopfloor.samples import Misconfigured, Outcome, Quality, Unavailable, Value
from shopfloor.sources.modbus import ModbusConfig
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sources.modbus_peer import Peer
from tests.sources.taken import taking, write


@pytest.fixture(scope="module")
def server() -> Iterator[Peer]:
    with Peer() as started:
        yield started


@pytest.fixture
async def peer(server: Peer) -> Peer:
    for kind in ("holding", "input", "coil", "discrete"):
        await server.set(kind, 0, *[0] * 400)
    await server.ask(bad=[], silent=[])
    await server.ask()  # forgets the requests so far
    return server


def configured(port: int, *tags: dict[str, object], **more: object) -> ModbusConfig:
    return ModbusConfig.model_validate(
        {"name": "plc", "host": "127.0.0.1", "port": port, "rate": "20 ms", "timeout": "30 s", "retry": "200 ms",
         "tags": list(tags), **more}
    )  # fmt: skip


def tag(name: str, address: str, **more: object) -> dict[str, object]:
    return {"tag": name, "address": address, **more}


async def test_all_four_kinds_and_every_type(peer: Peer) -> None:
    await peer.set("holding", 0, 0xFFFE, 0x4148, 0xF5C3, 0xF5C3, 0x4148, 0x6869, 0x2100, 0b1010_0000)
    await peer.set("input", 4, 0, 1, 0, 0)
    await peer.set("coil", 9, 1)
    await peer.set("discrete", 3, 1)
    wanted: list[tuple[dict[str, object], Value]] = [
        (tag("int16", "40001", type="int16"), -2),
        (tag("uint16", "40001"), 0xFFFE),
        (tag("float", "40002", type="float32"), 12.5600004196167),
        (tag("swapped", "40004", type="float32", order="CDAB"), 12.5600004196167),
        (tag("text", "holding 5", type="string", length=4), "hi!"),
        (tag("bit", "holding 7.5"), True),
        (tag("bits", "holding 7.4-7"), 0b1010),
        (tag("long", "30005", type="uint64"), 2**32),
        (tag("coil", "00010"), True),
        (tag("discrete", "10004"), True),
        (tag("scaled", "40008", scale={"raw": [0, 320], "scaled": [0, 100]}), 50.0),
    ]
    async with taking(configured(peer.port, *(one for one, _ in wanted))) as taken:
        await until(lambda: len(taken.samples) == len(wanted), "every tag")
        assert {s.tag: s.value for s in taken.samples} == {str(one["tag"]): value for one, value in wanted}
        assert all(sample.good for sample in taken.samples)


async def test_neighbours_share_a_request(peer: Peer) -> None:
    """100 floats and a few coils: three requests a scan, none longer than the protocol and `registers` allow."""
    tags = [tag(f"f{n}", f"holding {2 * n}", type="float32") for n in range(100)]
    tags += [tag(f"c{n}", f"coil {n}") for n in range(0, 40, 3)]
    async with taking(configured(peer.port, *tags, rate="1 h")) as taken:
        await until(lambda: len(taken.samples) == len(tags), "every tag")
        requests = await peer.ask()
    assert requests[0] == ["holding", 1, 0, 2], "entering asks for one tag"
    assert [one for one in requests[1:] if one[0] == "holding"] == [["holding", 1, 0, 124], ["holding", 1, 124, 76]]
    async with taking(configured(peer.port, *tags, rate="1 h", registers=16)) as taken:
        await until(lambda: len(taken.samples) == len(tags), "every tag")
        assert max(one[3] for one in await peer.ask()) == 16


async def test_one_bad_tag_never_costs_the_others(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """The request is taken apart until the address that is not there stands alone; once it is there it is read."""
    await peer.set("holding", 0, *range(50))
    await peer.ask(bad=[17, 18, 33])
    tags = [tag(f"t{n}", f"holding {n}") for n in range(50)]
    with caplog.at_level(logging.INFO):
        async with taking(configured(peer.port, *tags)) as taken:
            await until(lambda: len(taken.samples) == 50, "every tag")
            bad = {s.tag: s for s in taken.samples if not s.good}
            assert set(bad) == {"t17", "t18", "t33"}
            assert all((s.value, s.quality, s.status) == (None, Quality.CONFIGURATION_ERROR, 2) for s in bad.values())
            assert all(
                (found := taken.last(f"t{n}")) is not None and found.value == n
                for n in range(50)
                if n not in {17, 18, 33}
            )
            await peer.ask()
            await peer.set("holding", 49, 7)
            await taken.newest("t49", 7)
            later = await peer.ask()
            assert max(one[3] for one in later) > 10, "the good ones are still read together"
            await peer.ask(bad=[])
            for n in (17, 18, 33):
                await taken.newest(f"t{n}", n)
            await peer.ask()
            await peer.set("holding", 0, 4711)
            await taken.newest("t0", 4711)
            assert max(one[3] for one in await peer.ask()) == 50, "one request again"
    (line,) = [r.getMessage() for r in caplog.records if "tags cannot be read, the others" in r.getMessage()]
    assert "t17 at holding 17 (40018): the device has nothing at this address; correct `address`" in line


async def test_a_hole_between_two_tags_does_no_harm(peer: Peer) -> None:
    """Some devices refuse what nobody asked for: then neighbours are read one by one."""
    await peer.set("holding", 0, 1, 0, 3)
    await peer.ask(bad=[1])
    async with taking(configured(peer.port, tag("a", "holding 0"), tag("b", "holding 2"), retry="1 h")) as taken:
        await taken.newest("a", 1)
        await taken.newest("b", 3)
        assert all(sample.good for sample in taken.samples)


async def test_a_silent_device_behind_a_gateway_costs_the_others_nothing(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    await peer.ask(silent=[2])
    await peer.set("holding", 0, 5)
    tags = [tag("here", "holding 0"), tag("there", "holding 1", device=2)]
    with caplog.at_level(logging.INFO):
        async with taking(configured(peer.port, *tags, timeout="2500 ms")) as taken:
            await taken.newest("here", 5)
            await until(lambda: taken.last("there") is not None, "a bad sample")
            bad = taken.last("there")
            assert bad is not None
            assert (bad.value, bad.quality) == (None, Quality.COMMUNICATION_FAILURE)
            for value in range(10, 13):
                await peer.set("holding", 0, value)
                await taken.newest("here", value)
            await peer.ask(silent=[])
            await taken.newest("there", 0)
    said = [r.getMessage() for r in caplog.records if "device 2" in r.getMessage()]
    assert ["does not answer" in said[0], "answers again" in said[-1]] == [True, True]
    assert len(said) == 2


async def test_a_device_that_never_answers_is_unavailable_and_says_what_to_look_at(peer: Peer) -> None:
    await peer.ask(silent=[9])
    with pytest.raises(Unavailable, match=r"no answer .* whether `device` \(9\) and `framing` are right"):
        async with configured(peer.port, tag("a", "holding 0"), device=9, timeout="1 s").build():
            pytest.fail("it was entered")


async def test_why_it_cannot_be_reached(peer: Peer) -> None:
    """Nobody there, a black hole, a name that is not known, a device that has no connection left."""
    one = tag("a", "holding 0")
    with pytest.raises(Unavailable, match="refuses the connection; check the port"):
        await configured(free_port(), one).build().__aenter__()
    with pytest.raises(Unavailable, match=r"the name 'no\.such\.host\.invalid' is not known"):
        await configured(502, one, host="no.such.host.invalid").build().__aenter__()
    async with FaultProxy("127.0.0.1", peer.port) as proxy:
        proxy.black_hole()
        with pytest.raises(Unavailable, match=r"within 1 s; the connection is there"):
            await configured(proxy.port, one, timeout="1 s").build().__aenter__()

    async def full(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(full, "127.0.0.1", 0) as busy:
        with pytest.raises(Unavailable, match="many devices have few connections to give"):
            await configured(busy.sockets[0].getsockname()[1], one).build().__aenter__()


async def test_what_is_no_modbus_is_said(peer: Peer) -> None:
    """RTU frames to a Modbus TCP server: it does not answer them, and the message names `framing`."""
    with pytest.raises(Unavailable, match="`framing`"):
        await configured(peer.port, tag("a", "holding 0"), framing="rtu-over-tcp", timeout="3 s").build().__aenter__()


async def test_sources_of_one_address_share_its_connection(peer: Peer) -> None:
    """Many gateways have one connection to give."""
    async with FaultProxy("127.0.0.1", peer.port) as proxy:
        first = configured(proxy.port, tag("a", "holding 0"))
        # The second one reads once: if it left in the middle of a request, the connection would be made anew.
        second = configured(proxy.port, tag("b", "holding 1", device=2), rate="1 h")
        await peer.set("holding", 0, 11, 12)
        async with taking(first) as one:
            async with taking(second) as two:
                await one.newest("a", 11)
                await two.newest("b", 12)
                assert (proxy.connections, proxy.accepted) == (1, 1)
            await peer.set("holding", 0, 21)
            await one.newest("a", 21)
            assert proxy.accepted == 1


WRITES: list[tuple[dict[str, object], Value, str, int, list[int]]] = [
    (tag("t", "40001", type="int16"), -2, "holding", 0, [0xFFFE]),
    (tag("t", "40001", type="float32", order="CDAB"), 12.5, "holding", 0, [0, 0x4148]),
    (tag("t", "40001", type="uint64"), 2**64 - 1, "holding", 0, [0xFFFF] * 4),
    (tag("t", "40001", type="string", length=5), "Öl", "holding", 0, [0xC396, 0x6C00, 0]),
    (tag("t", "00001"), True, "coil", 0, [1]),
    (tag("t", "40001", scale={"raw": [0, 27648], "scaled": [0, 400]}), 100, "holding", 0, [6912]),
    (tag("t", "40001", type="float32", scale={"raw": [0, 1], "scaled": [0, 100]}), 50, "holding", 0, [0x3F00, 0]),
]


@pytest.mark.parametrize(("one", "value", "kind", "address", "words"), WRITES)
async def test_values_are_written_and_read_back(
    peer: Peer, one: dict[str, object], value: Value, kind: str, address: int, words: list[int]
) -> None:
    async with configured(peer.port, one).build() as source:
        outcome = await write(source, "t", value)
        assert outcome == Outcome("c", done=True, detail="written and read back")
        assert await peer.get(kind, address, len(words)) == words


@pytest.mark.parametrize(
    ("one", "value", "said"),
    [
        (tag("t", "40001"), 65536, "0 to 65535"),
        (tag("t", "40001"), 1.5, "whole numbers"),
        (tag("t", "00001"), 1, "true and false"),
        (tag("t", "30001"), 1, "an input register can only be read; write a coil or a holding register"),
        (tag("t", "40001", writable=False), 1, "the plant file says"),
        (tag("t", "40301"), 1, "nothing at this address"),
        (tag("t", "40001.3"), True, "set `bit_writes: read-write`"),
    ],
)
async def test_what_cannot_be_written_is_refused_with_a_reason(
    peer: Peer, one: dict[str, object], value: Value, said: str
) -> None:
    """The last row: this server does not know function 22, and nothing weaker is done by itself."""
    await peer.ask(bad=[300])
    async with configured(peer.port, one).build() as source:
        await peer.ask()
        outcome = await write(source, "t", value)
        assert (outcome.done, said in outcome.detail) == (False, True), outcome
        assert await peer.get("holding", 0) == [0]


async def test_bits_are_written_with_the_rest_as_it_was_read_where_the_plant_file_says_so(peer: Peer) -> None:
    await peer.set("holding", 0, 0b1000_0001)
    config = configured(peer.port, tag("t", "40001.3"), tag("u", "40001.4-6"), bit_writes="read-write")
    async with config.build() as source:
        assert (await write(source, "t", value=True)).done is True
        assert (await write(source, "u", 5)).done is True
        assert await peer.get("holding", 0) == [0b1101_1001]


async def test_a_write_without_an_answer_is_unknown_and_not_repeated(peer: Peer) -> None:
    """Nobody knows whether it arrived; a person looks."""
    async with configured(peer.port, tag("t", "40001"), timeout="5 s").build() as source:
        await peer.ask(silent=[1])
        await peer.ask()
        outcome = await write(source, "t", 5)
        assert outcome.done is None
        assert "it is not known whether the value was written" in outcome.detail
        await peer.ask(silent=[])
        assert [one for one in await peer.ask() if one[0] == "write"] == []


class Device:
    """pymodbus's server, whose action decides about each access."""

    def __init__(self, **refuse: ExcCodes) -> None:
        self.refuse = {int(function.removeprefix("f")): code for function, code in refuse.items()}
        self.asked: list[int] = []
        self.keeps: int | None = None
        self.port = free_port()

    async def action(self, function: int, *more: Any) -> ExcCodes | None:
        self.asked.append(function)
        if self.keeps is not None and more[-1] is not None:
            more[-1][0] = self.keeps
        return self.refuse.get(function)

    async def __aenter__(self) -> Self:
        data = SimData(0, count=20, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(1, data, action=self.action)
        self.server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await self.server.serve_forever(background=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus left its return type out


async def test_single_bits_are_written_by_mask(peer: Peer) -> None:  # noqa: ARG001  # the others' server must not matter
    """Function 22 leaves the other bits alone, whatever happens to them meanwhile."""
    async with (
        Device() as device,
        configured(device.port, tag("t", "40003.3"), tag("u", "40003.8-11")).build() as source,
    ):
        await device.server.async_setValues(1, 16, 2, [0b0100_0001])
        assert (await write(source, "t", value=True)).done is True
        assert (await write(source, "u", 0b1001)).done is True
        assert await device.server.async_getValues(1, 3, 2, 1) == [0b1001_0100_1001]
        assert 22 in device.asked
        assert 6 not in device.asked


async def test_a_device_that_only_knows_function_16_is_written_by_it() -> None:
    refusing = Device(f6=ExcCodes.ILLEGAL_FUNCTION)
    async with refusing as device, configured(device.port, tag("t", "40001")).build() as source:
        assert (await write(source, "t", 5)).done is True
        assert await device.server.async_getValues(1, 3, 0, 1) == [5]


@pytest.mark.parametrize(
    ("code", "done", "said"),
    [
        (ExcCodes.ILLEGAL_VALUE, False, "does not accept this value"),
        (ExcCodes.DEVICE_BUSY, False, "busy"),
        (ExcCodes.DEVICE_FAILURE, None, "not known whether"),
        (ExcCodes.GATEWAY_NO_RESPONSE, None, "not known whether"),
        (ExcCodes.GATEWAY_PATH_UNAVIABLE, False, "correct `device`"),
        (ExcCodes.ILLEGAL_FUNCTION, False, "does not know this function"),
    ],
)
async def test_what_the_device_answers_to_a_write(*, code: ExcCodes, done: bool | None, said: str) -> None:
    async with Device(f6=code, f16=code) as device, configured(device.port, tag("t", "40001")).build() as source:
        outcome = await write(source, "t", 5)
        assert (outcome.done, said in outcome.detail) == (done, True), outcome


async def test_a_device_that_keeps_its_own_value_is_not_called_done() -> None:
    async with Device() as device, configured(device.port, tag("t", "40001")).build() as source:
        device.keeps = 3
        outcome = await write(source, "t", 5)
        assert outcome.done is None
        assert "the device took 5, but it reads 3" in outcome.detail


async def test_a_busy_device_passes() -> None:
    """Its tags are bad for that scan and nothing is taken apart."""
    async with Device(f3=ExcCodes.DEVICE_BUSY) as device, taking(configured(device.port, tag("t", "40001"))) as taken:
        await until(lambda: taken.last("t") is not None, "a sample")
        assert taken.samples[0].quality == Quality.COMMUNICATION_FAILURE
        assert taken.samples[0].status == ExcCodes.DEVICE_BUSY
        device.refuse.clear()
        await taken.newest("t", 0)


async def test_there_is_nothing_to_browse(peer: Peer) -> None:
    async with configured(peer.port).build() as source:
        with pytest.raises(Misconfigured, match="manual"):
            _ = [info async for info in source.browse()]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (tag("t", "40001", type="string"), "`type: string` and `length` go together"),
        (tag("t", "00001", type="int16"), "is one bit"),
        (tag("t", "40001", type="bool"), "say which bit"),
        (tag("t", "40001.1-2", type="bool"), "several bits are no bool"),
        (tag("t", "40001.1", type="float32"), "bits of a register are"),
        (tag("t", "465536", type="float32"), "too near to the end"),
        (tag("t", "40001", type="string", length=200), "needs more than 50 registers"),
        (tag("t", "400"), 'YAML drops its zeros: "00400"'),
        (tag("t", "40001", device=256), "255"),
    ],
)
def test_what_is_wrong_in_the_plant_file_is_said(one: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        configured(502, one, registers=50)
    assert said in str(error.value)


def test_an_address_may_stand_without_quotes() -> None:
    """As YAML gives it: a number. What YAML would change by itself (40001.10) is refused."""
    raw = {"name": "p", "host": "h", "tags": [{"tag": "a", "address": 40001}]}
    assert ModbusConfig.model_validate(raw, context={WRITTEN: True}).declared()[0].address == "40001"
    with pytest.raises(ValidationError):
        ModbusConfig.model_validate({"name": "p", "host": "h", "tags": [{"tag": "a", "address": 40001.1}]})
