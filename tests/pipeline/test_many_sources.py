"""Many PLCs at once: they are not all called upon at the same moment, and one that is not there costs no other."""

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor.pipeline import Pipeline, pipeline as pipeline_module
from shopfloor.plant import JournalConfig, Plant, Site, SourceConfig
from shopfloor.protocols.s7_address import Area
from shopfloor.simulators.s7_server import Memory, S7Server
from shopfloor.sources.logix import LogixConfig
from shopfloor.sources.modbus import ModbusConfig
from shopfloor.sources.s7 import S7Config
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import free_port
from tests.pipeline.hands import state


class Restless(S7Server):
    """Its DB1 is another at each read."""

    def _span(self, size: int, count: int, db: int, area: int, address: int) -> tuple[int, bytearray, int]:
        code, data, begin = super()._span(size, count, db, area, address)
        data[0] = (data[0] + 1) % 256
        return code, data, begin


@asynccontextmanager
async def plcs(count: int) -> AsyncIterator[Sequence[int]]:
    """The ports of so many."""
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(count)]
        for port in ports:
            await stack.enter_async_context(Restless(Memory({(Area.DB, 1): 4}), "127.0.0.1", port))
        yield ports


def s7(name: str, port: int, **options: Any) -> S7Config:
    tags = [{"tag": f"{name}/a", "address": "DB1,B0"}]
    return S7Config.model_validate({
        "name": name, "host": "127.0.0.1", "port": port, "rate": "20 ms", "tags": tags, **options
    })  # fmt: skip


def plant(folder: Path, *sources: SourceConfig) -> Plant:
    return Plant(
        plant=Site(site="many", timezone="UTC"), sources=list(sources), console=None,
        journal=JournalConfig(path=folder / "journal.db"),
    )  # fmt: skip


def samples(pipeline: Pipeline, name: str) -> int:
    return next(one.samples for one in pipeline.components() if one.name == name)


@contextmanager
def silent() -> Iterator[int]:
    """A port where connections are made by the kernel and nobody ever says anything, nor takes them."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield listening.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that does not even answer who wants to connect: its queue is full, so Linux drops what comes."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port


async def test_sources_start_one_after_another_and_a_person_need_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "APART", 3600.0)
    async with plcs(2) as (first, second), Pipeline(plant(tmp_path, s7("a", first), s7("b", second))) as pipeline:
        await until(lambda: samples(pipeline, "a") > 3, "the first is read")
        assert (state(pipeline, "b"), samples(pipeline, "b")) == ("starting", 0)
        await pipeline.restart("b")
        await until(lambda: samples(pipeline, "b") > 3, "the other one is read")


async def test_what_does_not_answer_costs_no_other(tmp_path: Path) -> None:
    """Neither a PLC that swallows every packet, nor one that takes the connection and then says nothing."""
    with silent() as mute, black_hole() as hole:
        away: list[SourceConfig] = [
            s7("s7-hole", hole, timeout="1 h"),
            s7("s7-mute", mute, timeout="1 h"),
            ModbusConfig.model_validate({
                "name": "modbus-hole", "host": "127.0.0.1", "port": hole, "timeout": "1 h",
                "tags": [{"tag": "m/a", "address": "40001"}],
            }),
            LogixConfig.model_validate({
                "name": "logix-hole", "host": "127.0.0.1", "port": hole, "timeout": "1 s",
                "tags": [{"tag": "l/a", "address": "Count"}],
            }),
        ]  # fmt: skip
        async with plcs(5) as ports:
            there = [s7(f"plc-{n}", port) for n, port in enumerate(ports)]
            async with Pipeline(plant(tmp_path, *away, *there)) as pipeline:
                names = [one.name for one in there]
                await until(lambda: all(samples(pipeline, name) > 20 for name in names), "all others are read on")
                assert [state(pipeline, one.name) for one in away[:3]] == ["starting"] * 3
                assert state(pipeline, "logix-hole") in {"starting", "waiting"}
                assert all(state(pipeline, name) == "running" for name in names)
