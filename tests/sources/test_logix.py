"""The Logix source: types, bad tags, another program downloaded, commands, and what it says when it cannot."""

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from ethernetip.cip.service import CipServiceResponse
from ethernetip.cip.status import CipStatus
from pydantic import ValidationError

from shopfloor.samples import Batch, Outcome, Quality, Unavailable, Value
from shopfloor.sources.logix import LogixConfig
from shopfloor.testing.contracts import same, until
from shopfloor.testing.faults import FaultProxy
from shopfloor.testing.programs import free_port
from tests.sources.logix_plc import Plc, program
from tests.sources.taken import taking, write


def configured(port: int, *tags: str | Mapping[str, object], **more: object) -> LogixConfig:
    listed = [{"tag": f"t{n}", "address": t} if isinstance(t, str) else t for n, t in enumerate(tags)]
    return LogixConfig.model_validate(
        {"name": "plc", "host": "127.0.0.1", "port": port, "rate": "20 ms", "timeout": "5 s", "tags": listed, **more}
    )


async def test_every_kind_of_tag() -> None:
    async with Plc() as plc:
        for name, value in (
            ("PV", 1.5), ("Big", -(2**63)), ("Small", -128), ("Run", True), ("Order", "A-4711"), ("Word", 0b1010),
            ("Press.Tools[1].Wear[2]", 2.5), ("Press.Tools[1].Sharp", True), ("Press.Tools[1].Id", 9),
            ("Press.Name", "left"), ("Program:Main.Step", 7), ("Counts[299]", 3), ("Flags[1]", 1),
        ):  # fmt: skip
            plc.put(name, value)
        wanted: dict[str, Value] = {
            "PV": 1.5,
            "Big": -(2**63),
            "Small": -128,
            "Run": True,
            "Order": "A-4711",
            "Word.3": True,
            "Word.2": False,
            "Press.Tools[1].Wear[2]": 2.5,
            "Press.Tools[1].Sharp": True,
            "Press.Tools[1].Worn": False,
            "Press.Name": "left",
            "Program:Main.Step": 7,
            "Counts[298]{2}": "[0,3]",
            "Counts{300}": json.dumps([0] * 299 + [3]).replace(" ", ""),
            "Flags[32]": True,
            "Press.Tools[1]": '{"Id":9,"Wear":[0.0,0.0,2.5],"Worn":false,"Sharp":true}',
        }
        async with taking(configured(plc.port, *wanted)) as taken:
            await until(lambda: len(taken.samples) >= len(wanted), "every tag")
            found = {address: taken.last(f"t{n}") for n, address in enumerate(wanted)}
            assert {address: s.value for address, s in found.items() if s is not None} == wanted


async def test_a_thousand_tags_and_a_value_that_is_not_a_number() -> None:
    """More than one request; each value at its tag."""
    async with Plc(program(*((f"Extra{n}", "DINT", 0) for n in range(1000)))) as plc:
        for n in range(1000):
            plc.put(f"Extra{n}", n * 7)
        plc.put("PV", math.nan)
        config = configured(plc.port, *(f"Extra{n}" for n in range(1000)), "PV")
        async with taking(config) as taken:
            await until(lambda: len(taken.samples) >= 1001, "every tag")
            assert [sample.value for sample in taken.samples[:1000]] == [n * 7 for n in range(1000)]
            assert same(taken.samples[1000].value, math.nan)


async def test_one_bad_tag_never_costs_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with Plc() as plc:
        with caplog.at_level(logging.INFO, "shopfloor"):
            async with taking(configured(plc.port, "PV", "Nope", "Counts[400]", "Press.Nope", "Count")) as taken:
                await until(lambda: len(taken.samples) >= 5, "every tag")
                bad = {s.tag for s in taken.samples if s.quality == Quality.CONFIGURATION_ERROR and s.value is None}
                assert bad == {"t1", "t2", "t3"}
                plc.put("PV", 7.5)
                await taken.newest("t0", 7.5)
        (line,) = [r.getMessage() for r in caplog.records if "cannot be read, the others" in r.getMessage()]
        assert "3 tags cannot be read, the others are: t1 (Nope): Tag doesn't exist" in line


async def test_another_program_is_downloaded(caplog: pytest.LogCaptureFixture) -> None:
    """Other types, other places in the tag list, a tag gone and one new: found out without a restart.

    No value of the new program is ever decoded by the old tag list: a DINT read as REAL would look like a value.
    """
    async with Plc() as plc:
        plc.put("Count", 1_084_227_584)  # 5.0, if somebody took it for a REAL
        with caplog.at_level(logging.INFO, "shopfloor"):
            async with taking(configured(plc.port, "Count", "PV", "Later")) as taken:
                await taken.newest("t0", 1_084_227_584)
                await taken.newest("t2", None, Quality.CONFIGURATION_ERROR)
                for round_ in range(10):
                    other = program()
                    other.tags = {"later": other.tags["small"], **other.tags}
                    other.tags["later"].name = "Later"
                    del other.tags["pv"]
                    other.add("Count", "REAL")
                    other.put("Count", float(round_))
                    other.put("Later", 42)
                    before = plc.controller.program
                    plc.controller.download(other)
                    await taken.newest("t0", float(round_))
                    await taken.newest("t1", None, Quality.CONFIGURATION_ERROR)
                    await taken.newest("t2", 42)
                    before.put("Count", 1_084_227_584)
                    plc.controller.download(before)
                    await taken.newest("t0", 1_084_227_584)
                    await taken.newest("t1", 0.0)
        counts = [sample.value for sample in taken.samples if sample.tag == "t0"]
        assert all(v == 1_084_227_584 if isinstance(v, int) else v in {float(n) for n in range(10)} for v in counts)
        assert any("its program was changed" in r.getMessage() for r in caplog.records)


WRITES: list[tuple[str, Value, str, object]] = [
    ("SP", 71.25, "SP", 71.25),
    ("SP", 0.1, "SP", pytest.approx(0.1)),
    ("Count", -5, "Count", -5),
    ("Big", 2**63 - 1, "Big", 2**63 - 1),
    ("Run", True, "Run", True),
    ("Word.3", True, "Word", 8),
    ("Press.Tools[1].Worn", True, "Press.Tools[1].Worn", True),
    ("Press.Tools[1].Wear[2]", 2.5, "Press.Tools[1].Wear[2]", 2.5),
    ("Program:Main.Step", 12, "Program:Main.Step", 12),
    ("Counts[5]{3}", "[7, 8, 9]", "Counts[7]", 9),
]


@pytest.mark.parametrize(("address", "value", "name", "held"), WRITES)
async def test_values_are_written_and_read_back(address: str, value: Value, name: str, held: object) -> None:
    async with Plc() as plc, configured(plc.port, address).build() as source:
        assert await write(source, "t0", value) == Outcome("c", done=True, detail="written and read back")
        assert plc.get(name) == held
        assert len(plc.written) == 1


async def test_text_and_scaled_values_are_written() -> None:
    scaled = {"tag": "level", "address": "Word", "scale": {"raw": [0, 16384], "scaled": [0, 100]}}
    async with Plc() as plc, configured(plc.port, "Order", scaled).build() as source:
        assert (await write(source, "t0", "B-12")).done is True
        assert (await write(source, "level", 25)).done is True
        assert plc.get("Word") == 4096
        async with taking(configured(plc.port, "Order", scaled)) as taken:
            await taken.newest("t0", "B-12")
            await taken.newest("level", 25.0)


@pytest.mark.parametrize(
    ("address", "value", "said"),
    [
        ("Small", 128, "-128 to 127"),
        ("Count", 1.5, "whole numbers"),
        ("Run", 1, "true and false"),
        ("SP", 1e300, "beyond REAL"),
        ("SP", "1", "takes numbers"),
        ("Order", "x" * 83, "at most 82"),
        ("Order", 5, "takes text"),
        ("Press", "{}", "write its members"),
        ("Counts{3}", "[1, 2]", "an array of 3 DINT"),
        ("Counts{3}", 5, "an array of 3 DINT"),
        ("Nope", 5, "Tag doesn't exist"),
        ("Fixed", 5, "the controller refuses it"),
    ],
)
async def test_what_cannot_be_written_is_refused_with_a_reason(address: str, value: Value, said: str) -> None:
    async with Plc() as plc, configured(plc.port, address).build() as source:
        outcome = await write(source, "t0", value)
        assert (outcome.done, said in outcome.detail) == (False, True), outcome
        assert plc.written == []


async def test_a_program_that_changes_the_value_at_once_is_not_called_done() -> None:
    async with Plc() as plc, configured(plc.port, "Count").build() as source:
        plc.controller._written = lambda name: plc.put(name, 3)
        outcome = await write(source, "t0", 5)
        assert outcome.done is None
        assert "it reads 3" in outcome.detail


async def test_a_write_without_an_answer_is_unknown() -> None:
    async with (
        Plc() as plc,
        FaultProxy("127.0.0.1", plc.port) as proxy,
        configured(proxy.port, "Count").build() as source,
    ):
        plc.controller._written = lambda _: proxy.black_hole()
        outcome = await write(source, "t0", 5)
        assert outcome.done is None
        assert "it is not known whether" in outcome.detail
        proxy.heal()


async def test_browsing_lists_structures_down_to_their_members() -> None:
    async with Plc() as plc, configured(plc.port).build() as source:
        found = {info.address: info for info in [info async for info in source.browse()]}
    assert {"PV", "Press.PV", "Press.Running", "Press.Name", "Program:Main.Step", "Order"} <= found.keys()
    assert (found["Counts{300}"].data_type, found["Flags{64}"].data_type) == ("DINT[300]", "BOOL[64]")
    assert found["Program:Main.Step"].tag == "Main/Step"
    assert (found["Fixed"].writable, found["PV"].writable) == (False, True)
    config = configured(1, *({"tag": info.tag, "address": info.address} for info in found.values()))
    async with Plc() as plc, taking(config.model_copy(update={"port": plc.port})) as taken:
        await until(lambda: len(taken.samples) >= len(found), "what was browsed can be read")
        assert all(sample.good for sample in taken.samples)


async def test_a_command_does_not_wait_for_a_long_read() -> None:
    """Three thousand tags are read in pieces; what an operator presses goes in between."""
    many = program(*((f"Extra{n}", "DINT", 0) for n in range(3000)))
    async with Plc(many) as plc, configured(plc.port, "SP").build() as source:
        session = source._session
        assert session is not None
        begun = asyncio.Event()
        answer = plc.controller.dispatch

        def dispatch(service: int, path: Any, data: bytes) -> Any:
            begun.set()
            return answer(service, path, data)

        plc.controller.dispatch = dispatch  # type: ignore[method-assign, assignment]  # to be told when it begins
        reading = asyncio.create_task(session.read([f"Extra{n}" for n in range(3000)]))
        await begun.wait()
        assert (await write(source, "t0", 12.5)).done is True
        assert not reading.done()
        assert len(await reading) == 3000


async def of_plc(batches: AsyncIterator[Batch]) -> list[Value]:
    """The values of the next batch; a busy machine leaves reads out, which the source counts in a tag of its own."""
    return [sample.value for sample in await anext(batches) if not sample.tag.startswith("$")]


async def test_two_sources_share_one_connection() -> None:
    """The tag list is uploaded once; the last who leaves closes it."""
    async with Plc() as plc:
        config = configured(plc.port, "PV")
        async with config.build() as one, config.model_copy(update={"name": "other"}).build() as two:
            assert one._session is two._session
            assert one._session is not None
            assert one._session.uploads == 1
            plc.put("PV", 2.5)
            for source in (one, two):
                async with aclosing(source.batches()) as batches:
                    assert await of_plc(batches) == [2.5]
        async with config.build() as again, aclosing(again.batches()) as batches:
            assert await of_plc(batches) == [2.5]


async def test_why_it_cannot_be_reached() -> None:
    with pytest.raises(Unavailable, match="refuses the connection; check `host` and `port`"):
        await configured(free_port()).build().__aenter__()
    with pytest.raises(Unavailable, match=r"the name 'no\.such\.host\.invalid' is not known"):
        await configured(1, host="no.such.host.invalid").build().__aenter__()
    async with Plc() as plc, FaultProxy("127.0.0.1", plc.port) as proxy:
        proxy.black_hole()
        with pytest.raises(
            Unavailable, match="although the connection is there: is it a controller, and is `path: 0` right"
        ):
            await configured(proxy.port).build().__aenter__()
        proxy.heal()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as other:
        with pytest.raises(Unavailable, match="closed the connection"):
            await configured(other.sockets[0].getsockname()[1]).build().__aenter__()


@pytest.mark.parametrize(
    ("service", "status", "said"),
    [
        (0x52, (0x01, 0x0312), "is `path: 3` its slot"),
        (0x54, (0x01, 0x0113), "all its connections are in use"),
    ],
)
async def test_a_wrong_slot_and_a_controller_without_a_free_connection(
    service: int, status: tuple[int, int], said: str
) -> None:
    async with Plc() as plc:
        answer = plc.controller.dispatch

        def dispatch(asked: int, path: Any, data: bytes) -> Any:
            if asked == service and path.class_id == 0x06:
                return CipServiceResponse.error(asked, CipStatus.error(*status))
            return answer(asked, path, data)

        plc.controller.dispatch = dispatch  # type: ignore[method-assign, assignment]  # this controller is full, or not there
        with pytest.raises(Unavailable) as error:
            await configured(plc.port, path="3").build().__aenter__()
        assert said in str(error.value)


@pytest.mark.parametrize("address", ["", "1Count", "Count[", "Count.", "Counts{0}", "A B", "Word.123"])
def test_what_is_no_tag_is_said(address: str) -> None:
    with pytest.raises(ValidationError, match="a Logix tag like"):
        configured(1, address)


@pytest.mark.parametrize("address", ["N7:0", "F8:1{10}", "T4:0.ACC"])
def test_addresses_of_older_families_are_sent_to_their_source(address: str) -> None:
    with pytest.raises(ValidationError, match="write `type: slc` for these"):
        configured(1, address)


@pytest.mark.parametrize("path", ["", "/0", "backplane//0"])
def test_what_is_no_path_is_said(path: str) -> None:
    with pytest.raises(ValidationError, match="is no path; write the slot"):
        configured(1, path=path)
