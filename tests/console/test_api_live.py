"""The live stream: a state, then deltas, a heartbeat, and nobody who slows the others."""

import asyncio
import json
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from shopfloor.console import live
from shopfloor.console.live import QUEUE, Stream, Viewer
from shopfloor.console.view import Catalogue
from shopfloor.pipeline.live import Live
from shopfloor.samples import Batch, Sample
from tests.console.fakes import T0, FakeRuntime

MS = T0 // 10**6
Event = tuple[str, dict[str, Any]]


@asynccontextmanager
async def watching(address: str) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of a stream as they come."""
    async with (
        asyncio.timeout(60),
        httpx.AsyncClient(timeout=30) as client,
        client.stream("GET", f"http://{address}/api/live") as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield events(answer.aiter_lines())


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    name = ""
    async for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


async def until(stream: AsyncIterator[Event], wanted: Callable[[Event], bool]) -> Event:
    async for event in stream:
        if wanted(event):
            return event
    pytest.fail("the stream ended")


class Table:
    """What a page makes of the events, by the rules of docs/api.md."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.values: list[Any] = []

    def take(self, event: Event) -> None:
        name, data = event
        if name == "state":
            self.names, self.values = list(data["names"]), list(data["values"])
        elif name == "delta":
            fresh = data.get("names", [])
            self.names += fresh
            self.values += [None] * len(fresh)
            for index, value in zip(data["tags"], data["values"], strict=True):
                self.values[index] = value

    def __getitem__(self, tag: str) -> Any:
        return self.values[self.names.index(tag)]


async def test_first_comes_a_state_with_every_tag(address: str, runtime: FakeRuntime) -> None:
    runtime.give(Sample("press-1/PV", T0 + 1_999_999, 41.5), Sample("$clock/tick", T0, 1))
    async with watching(address) as stream:
        name, state = await anext(stream)
    assert name == "state"
    assert state["names"] == ["press-1/PV", "press-1/SP", "press-1/Start", "press-1/good"]
    assert state["units"] == ["bar", "bar", "", ""]
    assert (state["values"], state["times"]) == ([41.5, None, None, None], [MS + 1, None, None, None])
    assert state["qualities"] == [192, 32, 32, 32]


async def test_then_what_changes_as_columns_and_new_names_once(address: str, runtime: FakeRuntime) -> None:
    async with watching(address) as stream:
        await anext(stream)
        runtime.give(Sample("press-1/SP", T0, 1.0), Sample("new/one", T0, 2**60), Sample("$clock/tick", T0, 1))
        _, first = await until(stream, lambda event: event[0] == "delta")
        assert (first["tags"], first["names"], first["units"]) == ([1, 4], ["new/one"], [""])
        assert first["values"] == [1.0, {"int": str(2**60)}]
        runtime.give(Sample("new/one", T0 + 10**6, math.nan, 64))
        _, second = await until(stream, lambda event: event[0] == "delta")
        assert (second["tags"], second["values"], second["times"]) == ([4], [{"float": "NaN"}], [MS + 1])
        assert second["qualities"] == [64]
        assert "names" not in second


async def test_silence_is_told_from_a_dead_server_by_a_heartbeat_also_while_only_own_tags_change(
    address: str, runtime: FakeRuntime
) -> None:
    async def tick() -> None:
        while True:
            runtime.give(Sample("$clock/tick", T0, 1))
            await asyncio.sleep(0.05)

    ticking = asyncio.create_task(tick())
    async with watching(address) as stream:
        await anext(stream)
        name, beat = await anext(stream)
        assert name == "heartbeat"
        assert set(beat) == {"revision", "now"}
    ticking.cancel()


async def test_many_viewers_see_the_same_whenever_they_come(address: str, runtime: FakeRuntime) -> None:
    done = asyncio.Event()

    async def change() -> None:
        for i in range(200):
            runtime.give(Sample(f"tag/{i % 17}", T0 + i, i))
            await asyncio.sleep(0.005)
        runtime.give(Sample("end", T0, True))  # the value
        done.set()

    async def look(after: float) -> Table:
        await asyncio.sleep(after)
        table = Table()
        async with watching(address) as stream:
            async for event in stream:
                table.take(event)
                if "end" in table.names and done.is_set():
                    return table
        pytest.fail("the stream ended")

    changing = asyncio.create_task(change())
    tables = await asyncio.gather(*[look(i * 0.1) for i in range(12)])
    await changing
    for table in tables:
        assert [table[f"tag/{i}"] for i in range(17)] == [
            next(j for j in range(199, -1, -1) if j % 17 == i) for i in range(17)
        ]


async def test_values_that_come_fast_are_thinned_to_the_newest(address: str, runtime: FakeRuntime) -> None:
    async with watching(address) as stream:
        await anext(stream)
        for i in range(1_000):
            runtime.give(Sample("press-1/PV", T0 + i, float(i)))
        seen = [(await until(stream, lambda event: event[0] == "delta"))[1]["values"]]
        while seen[-1] != [999.0]:
            seen.append((await until(stream, lambda event: event[0] == "delta"))[1]["values"])
    assert len(seen) <= 2


def batch(value: float) -> Batch:
    return Batch.of("plc", T0, [Sample("t", T0, value)])


async def test_a_viewer_that_reads_too_slowly_skips_to_a_new_state() -> None:
    viewer = Viewer()
    assert await viewer.next(lambda: b"state 1") == b"state 1"
    for i in range(QUEUE):
        viewer.offer(b"%d " % i)
    assert await viewer.next(lambda: b"") == b"".join(b"%d " % i for i in range(QUEUE))
    for i in range(QUEUE + 5):
        viewer.offer(b"%d" % i)
    assert await viewer.next(lambda: b"state 2") == b"state 2"
    viewer.offer(b"delta")
    assert await viewer.next(lambda: b"") == b"delta"
    viewer.close()
    assert await viewer.next(lambda: b"") is None


async def test_a_state_from_before_a_delta_is_not_given_to_who_comes_after_it(runtime: FakeRuntime) -> None:
    values = Live()
    stream = Stream(values, Catalogue(runtime.plant), lambda: T0)
    first = stream.join()
    stream.state()
    values.take(batch(1.0))
    stream._delta()
    second = stream.join()
    assert b'"t"' in (await second.next(stream.state) or b"")
    stream.leave(first)
    stream.leave(second)
    assert len(stream) == 0


async def test_a_viewer_that_reads_nothing_is_disconnected_and_others_go_on(
    address: str, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PATIENCE", 2.0)
    host, _, port = address.partition(":")
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect((host, int(port)))
    stuck.sendall(f"GET /api/live HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())

    async def change() -> None:
        i = 0
        while True:
            i += 1
            runtime.give(*[Sample(f"wide/{n}", T0 + i, "x" * 900) for n in range(500)])
            await asyncio.sleep(0.05)

    heard = 0

    async def listen(stream: AsyncIterator[Event]) -> None:
        nonlocal heard
        async for _ in stream:  # all the time: who asks for numbers in between would be slow, too
            heard += 1

    changing = asyncio.create_task(change())
    async with watching(address) as stream:
        await anext(stream)
        listening = asyncio.create_task(listen(stream))
        stuck.setblocking(False)
        async with asyncio.timeout(60):
            while await viewers(address) > 1:
                await asyncio.sleep(0.01)
            before = heard
            while heard <= before:
                assert not listening.done()
                await asyncio.sleep(0.01)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    changing.cancel()
    await asyncio.to_thread(read_to_the_end, stuck)


def read_to_the_end(stuck: socket.socket) -> None:
    """What the kernel held for it still comes, then nothing more: the end or a reset, never a wait."""
    stuck.settimeout(60)
    with stuck, suppress(ConnectionResetError):
        while stuck.recv(65536):
            pass


async def viewers(address: str) -> int:
    async with httpx.AsyncClient(timeout=30) as client:
        text = (await client.get(f"http://{address}/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("shopfloor_live_viewers ")]
    return int(float(line.split()[1]))


async def test_who_leaves_is_forgotten(address: str) -> None:
    async with watching(address) as stream:
        await anext(stream)
        assert await viewers(address) == 1
    async with asyncio.timeout(60):
        while await viewers(address):  # what the server says is polled
            await asyncio.sleep(0.01)


async def test_too_many_viewers_are_told_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "VIEWERS", 0)
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.get(f"http://{address}/api/live")
    assert answer.status_code == 503
    assert answer.json()["title"] == "Too many screens are open"


async def test_a_broken_encoder_is_logged_and_the_next_viewer_starts_anew(
    address: str, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Stream) -> bytes:
        raise ZeroDivisionError

    async with watching(address) as stream:
        await anext(stream)
        with monkeypatch.context() as patch:
            patch.setattr(Stream, "_delta", broken)
            runtime.give(Sample("press-1/PV", T0, 1.0))
            async with asyncio.timeout(30):
                while "broke off" not in caplog.text:  # a log has no event
                    await asyncio.sleep(0.01)
        async with watching(address) as other:
            assert (await anext(other))[0] == "state"
            runtime.give(Sample("press-1/PV", T0, 2.0))
            await until(other, lambda event: event[0] == "delta")
