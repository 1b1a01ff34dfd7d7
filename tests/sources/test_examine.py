"""A probe says of each source which tags cannot be had although the PLC answers, and what to change."""

import struct
from pathlib import Path

from shopfloor.pipeline.probe import Probed, probe
from shopfloor.plant import parse
from shopfloor.protocols.s7_address import Area
from shopfloor.protocols.s7_session import State
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.testing.programs import free_port
from tests.sources.logix_plc import Plc
from tests.sources.modbus_peer import Peer
from tests.sources.slc_plc import Plc as Slc
from tests.sources.test_opcua_asyncua import Plc as Server

TIMEOUT = "timeout: 10 s"


async def probed(source: str, folder: Path) -> Probed:
    text = f"plant: {{site: test}}\nsources: [{source}]\nconsole: null\n"
    (found,) = [one async for one in probe(parse(text, "plant.yaml", folder))]
    return found


async def test_an_s7(tmp_path: Path) -> None:
    memory = Memory({(Area.DB, 1): 100})
    block = memory.area(Area.DB, 1)
    assert block is not None
    block[40:42] = b"\xff\x30"  # text that was never set
    port = free_port()
    source = f"{{name: plc, type: s7, host: 127.0.0.1, port: {port}, {TIMEOUT}, tags: ["
    async with S7Server(memory, "127.0.0.1", port) as server:
        good = '{tag: a, address: "DB1,REAL0"}, {tag: z, address: "%DB1.DBX4.1"}'
        bad = (
            '{tag: b, address: "DB7,REAL0"}, {tag: c, address: "DB1,REAL98"}, {tag: d, address: "DB1,STRING40.20"},'
            '{tag: e, address: "T5"}'
        )
        assert (await probed(f"{source}{good}]}}", tmp_path)) == Probed("plc", "s7", "ok")
        found = await probed(f"{source}{good}, {bad}]}}", tmp_path)
        server.state = State.STOP
        stopped = await probed(f"{source}{good}]}}", tmp_path)
    assert found.result == "incomplete"
    b, c, d, e = found.detail.splitlines()
    assert b.startswith("b (DB7,REAL0): the PLC has no DB7: correct the address, or load the block")
    assert c.startswith("c (DB1,REAL98): the PLC's DB1 has no bytes 98 to 101: correct the address")
    assert d.startswith("d (DB1,STRING40.20): 48 characters stand in a STRING of 20")
    assert d.endswith("correct the address or its type")
    assert e.startswith("e (T5): ")
    assert stopped.result == "incomplete"
    assert "the PLC is in STOP" in stopped.detail


async def test_a_modbus_device(tmp_path: Path) -> None:
    with Peer() as peer:
        await peer.set("holding", 0, *struct.unpack(">2H", struct.pack(">f", 10.0)))
        await peer.ask(bad=[17])
        source = f"{{name: meter, type: modbus, host: 127.0.0.1, port: {peer.port}, {TIMEOUT}, tags: ["
        good = "{tag: a, address: 40001, type: float32}"
        bad = "{tag: b, address: 40018}, {tag: c, address: 40001, type: float32, order: CDAB}"
        assert (await probed(f"{source}{good}]}}", tmp_path)) == Probed("meter", "modbus", "ok")
        found = await probed(f"{source}{good}, {bad}]}}", tmp_path)
    assert found.result == "incomplete"
    b, c = found.detail.splitlines()
    assert b.startswith("b at holding 17 (40018): the device has nothing at this address; correct `address`")
    assert c.startswith("c at holding 0 (40001): it reads ")
    assert c.endswith("correct `order`, the address or `type`")


async def test_an_slc_500(tmp_path: Path) -> None:
    async with Slc() as plc:
        plc.processor.put_word(9, 1, 1000)
        source = f"{{name: plc, type: slc, host: 127.0.0.1, port: {plc.port}, {TIMEOUT}, tags: ["
        good = '{tag: a, address: "N7:0"}, {tag: z, address: "B3/17"}'
        bad = '{tag: b, address: "N99:0"}, {tag: c, address: "F8:256"}, {tag: d, address: "ST9:1"}'
        assert (await probed(f"{source}{good}]}}", tmp_path)) == Probed("plc", "slc", "ok")
        found = await probed(f"{source}{good}, {bad}]}}", tmp_path)
    assert found.result == "incomplete"
    b, c, d = found.detail.splitlines()
    assert b.startswith(
        "b (N99:0): there is no such file, it is of another type, or it ends before this address; compare"
    )
    assert c.startswith("c (F8:256): there is no such file, it is of another type, or it ends before this address; ")
    assert d.startswith("d (ST9:1): 1000 characters stand in a string that holds 82; correct the address")


async def test_a_logix_controller(tmp_path: Path) -> None:
    async with Plc() as plc:
        source = f"{{name: plc, type: logix, host: 127.0.0.1, port: {plc.port}, {TIMEOUT}, tags: ["
        good = "{tag: a, address: PV}, {tag: z, address: Word.3}"
        bad = '{tag: b, address: Nope}, {tag: c, address: "Counts[400]"}, {tag: d, address: PV.3}'
        assert (await probed(f"{source}{good}]}}", tmp_path)) == Probed("plc", "logix", "ok")
        found = await probed(f"{source}{good}, {bad}]}}", tmp_path)
    assert found.result == "incomplete"
    b, c, d = found.detail.splitlines()
    assert b.startswith("b (Nope): Tag doesn't exist - Nope: correct its name; a program's tag is Program:NAME.Tag")
    assert "reaches beyond the array; correct it" in c
    assert d.startswith(
        "d (PV.3): Invalid tag request: it cannot be asked for like this: a bit (.3) is of a whole number"
    )


async def test_an_opc_ua_server(tmp_path: Path) -> None:
    plc = Server()
    await plc.begin()
    source = f"{{name: plc, type: opcua, endpoint: '{plc.endpoint}', {TIMEOUT}, tags: ["
    good = "{tag: a, node: 'nsu=urn:shopfloor:peer;s=PV'}"
    bad = "{tag: b, node: 'nsu=urn:shopfloor:peer;s=Nope'}, {tag: c, node: i=85}"
    async with plc.server:
        assert (await probed(f"{source}{good}]}}", tmp_path)) == Probed("plc", "opcua", "ok")
        found = await probed(f"{source}{good}, {bad}]}}", tmp_path)
    assert found.result == "incomplete"
    b, c = found.detail.splitlines()
    assert b == (
        "b (nsu=urn:shopfloor:peer;s=Nope): BadNodeIdUnknown; correct its `node`: `shopfloor browse` lists those that "
        "are there"
    )
    assert c.startswith("c (i=85): BadAttributeIdInvalid; its `node` is no variable")


async def test_of_many_tags_the_first_are_told(tmp_path: Path) -> None:
    port = free_port()
    tags = ", ".join(f'{{tag: t{n}, address: "DB9,REAL{4 * n}"}}' for n in range(50))
    async with S7Server(Memory({(Area.DB, 1): 100}), "127.0.0.1", port):
        found = await probed(
            f"{{name: plc, type: s7, host: 127.0.0.1, port: {port}, {TIMEOUT}, tags: [{tags}]}}", tmp_path
        )
    lines = found.detail.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 30 more"
