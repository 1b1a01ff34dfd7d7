"""Press and hold over a real WebSocket: whatever ends it, the button is released."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from shopfloor.testing.faults import FaultProxy
from tests.console.fakes import FakeRuntime

START = "press-1/Start"
"""Its lease is so long that it does not end in a test by itself, also on a busy machine."""
STOP = "press-1/Stop"
"""Its lease is half a second."""


class Page:
    """The page's end of the socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, kind: str, press: str = "p1", **more: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, "press": press, **more}))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of this type; renewals' answers are passed over."""
        while True:
            message: dict[str, Any] = json.loads(await self.socket.recv())
            if message["type"] == kind:
                return message
            assert message["type"] == "renewed", message

    async def press(self, press: str = "p1", tag: str = START) -> dict[str, Any]:
        await self.say("press", press, tag=tag, seq=0)
        return await self.hear("outcome")


@asynccontextmanager
async def page(address: str, **options: Any) -> AsyncIterator[Page]:
    async with asyncio.timeout(60), connect(f"ws://{address}/api/hold", compression=None, **options) as socket:
        yield Page(socket)


async def until_released(runtime: FakeRuntime, count: int = 2) -> list[object]:
    async with asyncio.timeout(60):
        while len(runtime.writes) < count:  # the fake machine has no event
            await asyncio.sleep(0.005)
    return [value for _, value in runtime.writes]


async def test_press_renew_release(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        pressed = await hands.press()
        assert pressed == {
            "type": "outcome", "event": "press", "press": "p1", "tag": START, "value": True, "done": True,
            "detail": "read back True", "reason": "", "lease": 5000,
        }  # fmt: skip
        for seq in range(1, 8):
            await hands.say("renew", seq=seq)
            assert await hands.hear("renewed") == {"type": "renewed", "press": "p1", "seq": seq}
        assert runtime.writes == [(START, True)]
        await hands.say("release", reason="pointerup")
        released = await hands.hear("outcome")
        assert (released["event"], released["value"], released["done"], released["reason"]) == (
            "release", False, True, "pointerup",
        )  # fmt: skip
        assert runtime.writes == [(START, True), (START, False)]


async def test_without_renewals_the_lease_ends_it_and_the_page_is_told(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        await hands.press(tag=STOP)
        released = await hands.hear("outcome")
        assert (released["event"], released["reason"]) == ("release", "lease ended")
        await hands.say("renew", seq=9)
        assert await hands.hear("gone") == {"type": "gone", "press": "p1"}
    assert runtime.writes == [(STOP, True), (STOP, False)]


async def test_a_closed_socket_releases_at_once(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        await hands.press()
    assert await until_released(runtime) == [True, False]
    records = await runtime.commands.audit()
    assert "socket closed" in [record.detail for record in records]


async def test_a_connection_that_breaks_releases_too(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        await hands.press()
        hands.socket.transport.abort()
        assert await until_released(runtime) == [True, False]


async def test_a_tap_is_true_and_false(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        await hands.say("press", tag=START)
        await hands.say("release")
        assert [(await hands.hear("outcome"))["event"] for _ in range(2)] == ["press", "release"]
    assert runtime.writes == [(START, True), (START, False)]


async def test_two_pages_cannot_hold_one_button_nor_release_each_others(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as one, page(address) as other:
        await one.press("p1")
        await other.say("press", "p2", tag=START)
        refused = await other.hear("refused")
        assert (refused["status"], refused["held_by"]) == (409, "console@127.0.0.1")
        await other.say("release", "p1")
        assert (await other.hear("gone"))["press"] == "p1"
        await other.say("renew", "p1", seq=100)
        assert (await other.hear("gone"))["press"] == "p1"
        assert runtime.writes == [(START, True)]


@pytest.mark.parametrize(("tag", "status"), [("press-1/SP", 422), ("nothing", 403), ("", 403)])
async def test_what_may_not_be_pressed_is_refused(address: str, runtime: FakeRuntime, tag: str, status: int) -> None:
    async with page(address) as hands:
        await hands.say("press", tag=tag)
        refused = await hands.hear("refused")
        assert (refused["status"], refused["press"], refused["held_by"]) == (status, "p1", None)
    assert runtime.writes == []


async def test_a_machine_that_is_away_is_told_for_press_and_release(address: str, runtime: FakeRuntime) -> None:
    runtime.connected = False
    async with page(address) as hands:
        assert (await hands.press())["done"] is False
        assert (await hands.hear("outcome"))["done"] is False


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"type":"press"}', '{"type":"explode","press":"p"}', '{"type":"press","press":"a b"}',
        '{"type":"renew","press":"p","seq":-1}', '{"type":"renew","press":"p","seq":1e400}',
        '{"type":"press","press":1}',
        '{"type":"press","press":"p","tag":"' + "x" * 300 + '"}', '{"type":"renew","press":"p","seq":true}',
        " " * 2_000, "\x00", b"\xff",
    ],
)  # fmt: skip
async def test_a_message_that_is_not_understood_is_answered_and_the_next_one_works(
    address: str, text: str | bytes
) -> None:
    async with page(address) as hands:
        await hands.socket.send(text)
        error = await hands.hear("error")
        assert error["status"] == 400
        assert error["detail"]
        assert (await hands.press())["done"] is True


async def test_the_same_press_twice_is_told_and_stays_one(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        await hands.press()
        await hands.say("press", tag=START)
        assert "under way" in (await hands.hear("error"))["detail"]
        await hands.say("release")
        await hands.hear("outcome")
    assert runtime.writes == [(START, True), (START, False)]


async def test_twenty_bad_messages_close_the_socket_and_release(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        await hands.press()
        with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012  # it may come at either end
            for _ in range(30):
                await hands.socket.send("{")
                await hands.socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    assert await until_released(runtime) == [True, False]


async def test_a_huge_message_closes_the_socket_and_releases(address: str, runtime: FakeRuntime) -> None:
    async with page(address) as hands:
        await hands.press()
        with pytest.raises(ConnectionClosed):  # noqa: PT012  # it may come at either end
            await hands.socket.send("x" * 100_000)
            await hands.socket.recv()
    assert await until_released(runtime) == [True, False]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_another_sites_page_gets_no_socket(address: str, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with page(address, origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_the_consoles_own_page_does(address: str) -> None:
    async with page(address, origin=f"http://{address}") as hands:
        assert (await hands.press())["done"] is True


async def test_no_other_path_gives_a_socket(address: str) -> None:
    for path in ("/api/tags", "/", "/api/none"):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://{address}{path}"):
                pass
        assert refused.value.response.status_code == 403


async def test_a_cable_that_is_pulled_releases_at_the_end_of_the_lease(address: str, runtime: FakeRuntime) -> None:
    host, _, port = address.partition(":")
    async with FaultProxy(host, int(port)) as proxy:
        async with asyncio.timeout(60), connect(f"ws://127.0.0.1:{proxy.port}/api/hold", compression=None) as socket:
            hands = Page(socket)
            await hands.press(tag=STOP)
            await hands.say("renew", seq=1)
            assert (await hands.hear("renewed"))["seq"] == 1
            proxy.black_hole()
            assert await until_released(runtime) == [True, False]
            await hands.say("renew", seq=2)  # under way in the black hole
            proxy.heal()
            assert (await hands.hear("outcome"))["reason"] in {"lease ended", "socket closed"}
        assert runtime.writes == [(STOP, True), (STOP, False)]
