"""Sources for the same controller share one connection."""

import asyncio
from typing import Self

import pytest

from shopfloor.protocols.sharing import shared
from shopfloor.samples import Unavailable


class Line:
    """A connection that tells what becomes of it."""

    def __init__(self, made: list["Line"], *, fails: bool = False) -> None:
        made.append(self)
        self.fails = fails
        self.events: list[str] = []
        self.connected = True
        self.opening = asyncio.Event()
        self.go = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.events.append("opens")
        self.opening.set()
        await self.go.wait()
        if self.fails:
            raise Unavailable("away")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.events.append("closes")


async def test_the_first_opens_and_the_last_closes() -> None:
    made: list[Line] = []

    async def use(leave: asyncio.Event) -> None:
        async with shared("plc", lambda: Line(made)) as line:
            assert line is made[0]
            await leave.wait()

    leave = [asyncio.Event(), asyncio.Event()]
    users = [asyncio.create_task(use(one)) for one in leave]
    await asyncio.sleep(0)
    made[0].go.set()
    leave[0].set()
    await users[0]
    assert made[0].events == ["opens"]
    leave[1].set()
    await users[1]
    assert made[0].events == ["opens", "closes"]
    assert len(made) == 1


async def test_another_controller_gets_a_connection_of_its_own() -> None:
    made: list[Line] = []

    def opened() -> Line:
        line = Line(made)
        line.go.set()
        return line

    async with shared("one", opened) as one, shared("two", opened) as two:
        assert one is not two


async def test_who_comes_while_it_cannot_be_opened_tries_for_himself() -> None:
    made: list[Line] = []

    async def use() -> None:
        async with shared("plc", lambda: Line(made, fails=not made)):
            pass

    first, second = asyncio.create_task(use()), asyncio.create_task(use())
    await asyncio.sleep(0)
    made[0].go.set()
    with pytest.raises(Unavailable, match="away"):
        await first
    while len(made) < 2:
        await asyncio.sleep(0)
    made[1].go.set()
    await second
    assert [line.events for line in made] == [["opens"], ["opens", "closes"]]


async def test_who_is_cancelled_while_opening_leaves_it_to_the_others() -> None:
    made: list[Line] = []

    async def use() -> None:
        async with shared("plc", lambda: Line(made)):
            pass

    first, second = asyncio.create_task(use()), asyncio.create_task(use())
    await asyncio.sleep(0)
    await made[0].opening.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    while len(made) < 2:
        await asyncio.sleep(0)
    made[1].go.set()
    await second
    assert made[1].events == ["opens", "closes"]


async def test_after_a_loss_who_comes_gets_a_new_one_and_the_old_one_is_closed_by_its_last() -> None:
    made: list[Line] = []

    def opened() -> Line:
        line = Line(made)
        line.go.set()
        return line

    async with shared("plc", opened) as old:
        old.connected = False
        async with shared("plc", opened) as new:
            assert new is not old
            async with shared("plc", opened) as again:
                assert again is new
        assert new.events == ["opens", "closes"]
        assert old.events == ["opens"]
    assert old.events == ["opens", "closes"]
