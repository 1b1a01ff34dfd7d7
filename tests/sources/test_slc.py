"""Data files of SLC 500, MicroLogix and PLC-5: types, bad addresses, downloads, writing, and why it does not work."""

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import aclosing

import pytest
from pydantic import ValidationError

from shopfloor.protocols.pccc_address import parse
from shopfloor.protocols.pccc_grouping import plan
from shopfloor.samples import Misconfigured, Outcome, Quality, Unavailable, Value
from shopfloor.simulators.press_slc import Family
from shopfloor.simulators.slc_controller import DataFile
from shopfloor.sources.logix import LogixConfig
from shopfloor.sources.slc import SlcConfig, SlcSource
from shopfloor.testing.contracts import until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sources.logix_plc import Plc as LogixPlc
from tests.sources.slc_plc import Plc, files
from tests.sources.taken import taking, write

FAMILIES: list[Family] = ["slc500", "micrologix", "plc5"]


def configured(port: int, *tags: str | Mapping[str, object], **more: object) -> SlcConfig:
    listed = [{"tag": f"t{n}", "address": t} if isinstance(t, str) else t for n, t in enumerate(tags)]
    return SlcConfig.model_validate(
        {
            "name": "plc", "host": "127.0.0.1", "port": port, "rate": "20 ms", "timeout": "5 s", "retry": "100 ms",
            "tags": listed, **more,
        }
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_kind_of_file(family: Family) -> None:
    async with Plc(family) as plc:
        cpu = plc.processor
        for number, element, value in ((3, 1, 0b100000), (7, 0, -5), (7, 255, 32767), (2, 1, 32), (200, 999, 7)):
            cpu.put_word(number, element, value)
        cpu.put_word(4, 49, 0x2000)
        cpu.put_word(4, 49, 120, 1)
        cpu.put_word(4, 49, 55, 2)
        cpu.put_word(6, 3, 9, 1)
        cpu.put_word(1, 8, 0x0300)
        cpu.put_real(8, 255, -1.5)
        cpu.put_text(9, 9, "A-4711")
        wanted: dict[str, Value] = {
            "B3/21": True, "B3:1/4": False, "N7:0": -5, "N7:0/15": True, "N7:255": 32767, "N7:253{3}": "[0,0,32767]",
            "S:1/5": True, "T4:49.ACC": 55, "T4:49.PRE": 120, "T4:49/DN": True, "T4:49/EN": False, "R6:3.LEN": 9,
            "T4:48.ACC{2}": "[0,55]", "F8:255": -1.5, "ST9:9": "A-4711", "ST9:8{2}": '["","A-4711"]',
            "N200:999": 7, "N200:0{1000}": json.dumps([0] * 999 + [7]).replace(" ", ""),
            "I:010/10" if family == "plc5" else "I:8.0/8": True,
        }  # fmt: skip
        if family != "plc5":
            cpu.put_word(1, 8, 4, 1)
            cpu.put_word(10, 0, 0x4142)
            wanted |= {"I:8.1": 4, "I:8/18": True, "A10:0": "AB", "A10:0{20}": "AB"}
        if family == "micrologix":
            cpu.put_long(11, 19, -70_000)
            wanted |= {"L11:19": -70_000, "L11:19/31": True}
        async with taking(configured(plc.port, *wanted, family=family)) as taken:
            await until(lambda: len(taken.samples) >= len(wanted), "every tag")
            found = {address: taken.last(f"t{n}") for n, address in enumerate(wanted)}
            assert {address: s.value for address, s in found.items() if s is not None} == wanted


async def test_neighbours_are_read_by_one_command() -> None:
    """118 words of a file are one command a scan, not 118; the other one asks whether the program runs."""
    async with Plc() as plc:
        # One scan: of more than one on a busy machine, a count of those that were left out could be among them.
        config = configured(plc.port, *(f"N7:{n}" for n in range(118)), rate="1 h")
        async with config.build() as source, aclosing(source.batches()) as batches:
            plc.processor.commands.clear()
            assert len(await anext(batches)) == 118
            assert plc.processor.commands == [0xA2, 0xA2]


async def test_one_bad_address_never_costs_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the end of a file, a file that is not there, one of another type; each is said once."""
    async with Plc() as plc:
        with caplog.at_level(logging.INFO, "shopfloor"):
            config = configured(plc.port, "N7:0", "N12:10", "N99:0", "F9:0", "N12:9")
            async with taking(config) as taken:
                await until(lambda: len(taken.samples) >= 5, "every tag")
                bad = {s.tag for s in taken.samples if s.quality == Quality.CONFIGURATION_ERROR and s.value is None}
                assert bad == {"t1", "t2", "t3"}
                for value in range(1, 20):
                    plc.processor.put_word(7, 0, value)
                    plc.processor.put_word(12, 9, value)
                    await taken.newest("t0", value)
                    await taken.newest("t4", value)
        (line,) = [r.getMessage() for r in caplog.records if "cannot be read, the others" in r.getMessage()]
        assert "3 tags cannot be read, the others are: " in line
        assert "t2 (N99:0): there is no such file" in line


@pytest.mark.parametrize("family", ["slc500", "plc5"])
async def test_another_program_is_downloaded(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    """Shorter files, one gone, one new: errors for these tags alone, and they heal by themselves."""
    async with Plc(family) as plc:
        before = plc.processor.files
        with caplog.at_level(logging.INFO, "shopfloor"):
            async with taking(configured(plc.port, "N7:0", "N7:200", "F8:0", "N50:0", family=family)) as taken:
                await taken.newest("t0", 0)
                await taken.newest("t3", None, Quality.CONFIGURATION_ERROR)
                after = files(family) | {7: DataFile("N", 20), 50: DataFile("N", 1)}
                del after[8]
                plc.processor.files = after
                plc.processor.put_word(7, 0, 5)
                plc.processor.put_word(50, 0, 6)
                await taken.newest("t0", 5)
                await taken.newest("t1", None, Quality.CONFIGURATION_ERROR)
                await taken.newest("t2", None, Quality.CONFIGURATION_ERROR)
                await taken.newest("t3", 6)
                plc.processor.files = before
                await taken.newest("t1", 0)
                await taken.newest("t2", 0.0)
        assert any("tags can be read again: t1" in r.getMessage() for r in caplog.records)


async def test_while_a_program_is_loaded_every_value_is_bad_and_comes_back_at_once() -> None:
    """What is of the moment is asked again with the next scan, not after `retry`."""
    async with Plc() as plc, taking(configured(plc.port, "N7:0", "F8:0", retry="1 h")) as taken:
        await taken.newest("t1", 0.0)
        plc.processor.refuse = (0xB0,)
        await taken.newest("t0", None, Quality.DEVICE_FAILURE)
        await taken.newest("t1", None, Quality.DEVICE_FAILURE)
        plc.processor.refuse = ()
        await taken.newest("t0", 0)
        await taken.newest("t1", 0.0)


@pytest.mark.parametrize(
    ("family", "stopped", "runs"),
    [("slc500", 17, 30), ("slc500", 1, 6), ("micrologix", 27, 7), ("micrologix", 6 | 1 << 13, 6), ("plc5", 8, 2)],
)
async def test_a_processor_that_does_not_run_is_told_and_not_written(
    family: Family, stopped: int, runs: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What its memory holds is of before; a button written now would be pressed when it goes to RUN."""
    monkeypatch.setattr("shopfloor.sources.slc_reading._WATCH", 0.05)
    async with Plc(family) as plc, taking(configured(plc.port, "N7:0", "N99:0", family=family)) as taken:
        plc.processor.put_word(2, 1, runs)
        await taken.newest("t0", 0)
        plc.processor.put_word(2, 1, stopped)
        await taken.newest("t0", 0, Quality.LAST_USABLE)
        outcome = await write(taken.source, "t0", 5)
        assert (outcome.done, plc.written) == (False, [])
        assert "not written: the processor is not in RUN" in outcome.detail
        plc.processor.put_word(2, 1, runs)
        await taken.newest("t0", 0)
        assert (await write(taken.source, "t0", 5)).done is True
    assert caplog.text.count("values are uncertain and nothing is written until it is; look at it") == 1
    assert caplog.text.count("in RUN again") == 1


async def test_a_string_that_is_none_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    async with Plc() as plc:
        plc.processor.put_word(9, 0, 1000)
        async with taking(configured(plc.port, "ST9:0", "ST9:1")) as taken:
            await taken.newest("t0", None, Quality.CONFIGURATION_ERROR)
            await taken.newest("t1", "")
            plc.processor.put_text(9, 0, "well")
            await taken.newest("t0", "well")
    assert "t0 (ST9:0): 1000 characters stand in a string that holds 82; correct the address" in caplog.text


WRITES: list[tuple[str, Value, int, int, int, int]] = [
    ("N7:3", -7, 7, 3, 0, -7),
    ("N7:3/4", True, 7, 3, 0, 16),
    ("B3/17", True, 3, 1, 0, 2),
    ("T4:2.PRE", 500, 4, 2, 1, 500),
    ("T4:2.ACC/0", True, 4, 2, 2, 1),
    ("C5:1.ACC", 12, 5, 1, 2, 12),
    ("N7:5{3}", "[7, 8, 9]", 7, 7, 0, 9),
    ("N200:999", 4, 200, 999, 0, 4),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("address", "value", "file", "element", "word", "held"), WRITES)
async def test_values_are_written_and_read_back(  # a column each
    family: Family, address: str, value: Value, file: int, element: int, word: int, held: int
) -> None:
    async with Plc(family) as plc, configured(plc.port, address, family=family).build() as source:
        assert await write(source, "t0", value) == Outcome("c", done=True, detail="written and read back")
        assert plc.processor.word(file, element, word) == held
        assert plc.written == [file]


@pytest.mark.parametrize("family", FAMILIES)
async def test_numbers_and_text_are_written(family: Family) -> None:
    scaled = {"tag": "level", "address": "N7:0", "scale": {"raw": [0, 16384], "scaled": [0, 100]}}
    config = configured(1, "F8:3", "ST9:0", scaled, family=family)
    async with Plc(family) as plc, config.model_copy(update={"port": plc.port}).build() as source:
        assert (await write(source, "t0", 0.1)).done is True
        assert (await write(source, "t1", "B-12")).done is True
        assert (await write(source, "level", 25)).done is True
        assert plc.processor.real(8, 3) == pytest.approx(0.1)
        assert (plc.processor.text(9, 0), plc.processor.word(7, 0)) == ("B-12", 4096)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_bit_is_written_without_its_neighbours(family: Family) -> None:
    """The processor itself changes the bit: what its program does to the others meanwhile stays.

    Between the read of before and the write all other bits of the word are turned over.
    """
    async with Plc(family) as plc, configured(plc.port, "B3:0/5", family=family).build() as source:
        session = source._session
        assert session is not None
        sent = session.write

        async def turned(name: str, value: object, check: object) -> str:
            plc.processor.put_word(3, 0, 0x5A5A & ~0x20)
            return await sent(name, value, check)  # type: ignore[arg-type]  # as it was given

        session.write = turned  # type: ignore[method-assign]  # the program of the processor, so to say
        assert (await write(source, "t0", value=True)).done is True
        assert plc.processor.word(3, 0) == 0x5A5A | 0x20
        assert (await write(source, "t0", value=False)).done is True
        assert plc.processor.word(3, 0) == 0x5A5A & ~0x20


@pytest.mark.parametrize(
    ("address", "value", "said"),
    [
        ("N7:0", 32768, "-32768 to 32767"),
        ("N7:0", 1.5, "whole numbers"),
        ("B3:0/1", 1, "true and false"),
        ("F8:0", 1e300, "beyond REAL"),
        ("ST9:0", "x" * 83, "at most 82"),
        ("A10:0", "ABC", "room for 2 characters"),
        ("N7:0{3}", "[1, 2]", "an array of 3 INT"),
        ("T4:0.ACC{2}", "[1, 2]", "write them one by one"),
        ("N7:0{200}", json.dumps([0] * 200), "write the range in parts"),
        ("N99:0", 5, "there is no such file"),
        ("N12:0", 5, "the controller refuses it: access is denied: the file is protected"),
        ("L11:0/3", True, "single bits of long words are only read"),
    ],
)
async def test_what_cannot_be_written_is_refused_with_a_reason(address: str, value: Value, said: str) -> None:
    async with Plc("micrologix") as plc, configured(plc.port, address, family="micrologix").build() as source:
        outcome = await write(source, "t0", value)
        assert (outcome.done, said in outcome.detail) == (False, True), outcome
        assert plc.written == []


async def test_a_program_that_changes_the_value_at_once_is_not_called_done() -> None:
    async with Plc() as plc, configured(plc.port, "N7:0").build() as source:
        plc.processor.written = lambda number: plc.processor.put_word(number, 0, 3)
        outcome = await write(source, "t0", 5)
        assert outcome.done is None
        assert "it reads 3" in outcome.detail


async def test_a_write_without_an_answer_is_unknown() -> None:
    async with (
        Plc() as plc,
        FaultProxy("127.0.0.1", plc.port) as proxy,
        configured(proxy.port, "N7:0").build() as source,
    ):
        plc.processor.written = lambda _: proxy.black_hole()
        outcome = await write(source, "t0", 5)
        assert outcome.done is None
        assert "it is not known whether" in outcome.detail
        proxy.heal()


async def test_a_command_does_not_wait_for_a_long_read() -> None:
    """A group of many files is read block by block; what an operator presses goes in between."""
    async with Plc() as plc, configured(plc.port, "B3:0/1").build() as source:
        session = source._session
        assert session is not None
        begun = asyncio.Event()
        answer = plc.processor._read

        def read(fields: object) -> bytes:
            begun.set()
            return answer(fields)  # type: ignore[arg-type]  # as it was given

        plc.processor._read = read  # type: ignore[method-assign]  # to be told when it begins
        plc.processor.commands.clear()
        blocks = [*plan({n: parse(f"N200:{118 * n}{{118}}") for n in range(8)}).blocks] * 5
        reading = asyncio.create_task(session.read_blocks(blocks))
        await begun.wait()
        assert (await write(source, "t0", value=True)).done is True
        assert len(await reading) == 40
        assert plc.processor.commands.index(0xAB) < 20


async def test_two_sources_share_one_connection() -> None:
    """A processor with one connection left serves both; the last who leaves closes it."""
    async with Plc(connections=1) as plc:
        first, second = configured(plc.port, "N7:0"), configured(plc.port, "F8:0", name="other")
        async with taking(first) as one:
            async with taking(second) as two:
                await one.newest("t0", 0)
                await two.newest("t0", 0.0)
            plc.processor.put_word(7, 0, 4)
            await one.newest("t0", 4)
        async with taking(second) as two:
            await two.newest("t0", 0.0)


async def test_two_sources_hear_of_a_lost_connection_and_share_the_next() -> None:
    async with Plc(connections=1) as plc, FaultProxy("127.0.0.1", plc.port) as proxy:
        one, two = configured(proxy.port, "N7:0").build(), configured(proxy.port, "F8:0", name="other").build()

        async def lost(source: SlcSource) -> None:
            async with aclosing(source.batches()) as batches:
                while True:
                    await anext(batches)

        async with one, two:
            reading = [asyncio.create_task(lost(source)) for source in (one, two)]
            proxy.reset()
            for task in reading:
                with pytest.raises(Unavailable):
                    await task
            proxy.heal()

            async def back() -> bool:
                try:
                    async with configured(proxy.port, "N7:0").build() as source, aclosing(source.batches()) as batches:
                        return bool(await anext(batches))
                except Unavailable:
                    return False

            await until(back, "a new connection beside the lost one")


@pytest.mark.parametrize("family", ["slc500", "micrologix"])
async def test_browsing_finds_files_and_their_lengths(family: Family) -> None:
    """What it lists is what the plant file takes, and as long as the files are."""
    async with Plc(family) as plc, configured(plc.port, family=family).build() as source:
        found = {info.address: info for info in [info async for info in source.browse()]}
        files_ = {f"{f.letter}{n}": f.elements for n, f in plc.processor.files.items() if f.letter not in "OIS"}
        wanted = {f"{file}:0{{{n}}}" for file, n in files_.items() if file[0] not in "TCR"}
        wanted |= {f"{file}:0.ACC{{{n}}}" for file, n in files_.items() if file[0] in "TC"}
        assert wanted | {"S:0{83}", "I:9.0{2}", "O:0.0{2}", "R6:0.LEN{10}", "T4:0.PRE{50}"} <= found.keys()
        assert found["F8:0{256}"].data_type == "REAL[256]"
        assert found["T4:0.ACC{50}"].tag == "T4/ACC"
        assert set(plc.processor.commands) <= {0x03, 0xA2}  # it only reads
        config = configured(plc.port, *({"tag": i.tag, "address": i.address} for i in found.values()), family=family)
        async with taking(config) as taken:
            await until(lambda: len(taken.samples) >= len(found), "what was browsed can be read")
            assert all(sample.good for sample in taken.samples)


async def test_a_plc5_cannot_be_browsed() -> None:
    async with Plc("plc5") as plc, configured(plc.port, family="plc5").build() as source:
        with pytest.raises(Misconfigured, match="take the addresses from the programming software"):
            await anext(source.browse())


async def test_why_it_cannot_be_reached() -> None:
    with pytest.raises(Unavailable, match="refuses the connection; check `host` and `port`"):
        await configured(free_port()).build().__aenter__()
    with pytest.raises(Unavailable, match=r"the name 'no\.such\.host\.invalid' is not known"):
        await configured(1, host="no.such.host.invalid").build().__aenter__()
    async with Plc() as plc, FaultProxy("127.0.0.1", plc.port) as proxy:
        proxy.black_hole()
        with pytest.raises(Unavailable, match="within 1 s, although the connection is there: is it a controller"):
            await configured(proxy.port, timeout="1 s").build().__aenter__()
        proxy.heal()
    async with Plc(connections=0) as plc:
        with pytest.raises(Unavailable, match="all its connections are in use: close another client"):
            await configured(plc.port).build().__aenter__()
    async with LogixPlc() as logix:
        with pytest.raises(Unavailable, match="for ControlLogix, CompactLogix and Micro800 write `type: logix`"):
            await configured(logix.port).build().__aenter__()
    async with Plc() as plc:
        logix_config = LogixConfig.model_validate({"name": "p", "host": "127.0.0.1", "port": plc.port})
        with pytest.raises(Unavailable, match="does not answer as a Logix controller"):
            await logix_config.build().__aenter__()


async def test_the_wrong_family_is_said() -> None:
    async with Plc("plc5") as plc, configured(plc.port, "N7:0").build() as source:
        outcome = await write(source, "t0", 1)
        assert outcome.done is False
        assert "is `family` right?" in outcome.detail


def test_addresses_are_checked_with_the_file() -> None:
    with pytest.raises(ValidationError, match="'Count' is no address of a data file; write it like N7:0"):
        configured(1, "Count")
    with pytest.raises(ValidationError) as both:
        configured(1, "N7:0/16", "N7:0", "Nope")
    assert [error["loc"] for error in both.value.errors()] == [("tags", 0, "address"), ("tags", 2, "address")]
    with pytest.raises(ValidationError, match=r"'L10:0': .* is `family: micrologix` meant.*; 'L11:0': only"):
        configured(1, "L10:0", "L11:0")
    with pytest.raises(ValidationError, match="is no address; write the processor's name or IP address"):
        configured(1, "N7:0", host="10.0.0.1/0")
