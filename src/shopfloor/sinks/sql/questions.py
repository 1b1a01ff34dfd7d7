"""A few connections for questions, apart from the one that writes: neither waits for the other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from shopfloor.samples import Unavailable
from shopfloor.sinks.sql.asking import Link

T = TypeVar("T")

FRESH: Final = 30.0
"""Seconds after which a connection that nobody used is not trusted: a firewall may have forgotten it without a word,
and who asks would wait for its timeout."""


class Asked(Protocol):
    """One connection; a task that is cancelled while it waits for an answer breaks it."""

    async def run(self, work: Callable[[Link], T]) -> T:
        """What ``work`` gives, in a thread. Raises Unavailable and Misconfigured in words, and what ``work`` raises."""
        ...

    async def close(self) -> None:
        """Say goodbye if the server is there, and free everything."""
        ...


class Questions:
    """Opens connections when they are needed, up to ``most``, and keeps those that are whole."""

    def __init__(self, connect: Callable[[], Awaitable[Asked]], most: int) -> None:
        """``connect`` raises Unavailable and Misconfigured."""
        self._connect = connect
        self._turns = asyncio.Semaphore(most)
        self._idle: list[tuple[Asked, float]] = []
        """With the time of the last answer, by the loop's clock; the last is the latest."""
        self._asking: set[asyncio.Task[object]] = set()
        self._closed = False

    async def ask(self, work: Callable[[Link], T]) -> T:
        """What ``work`` gives. Raises Unavailable, Misconfigured, and what ``work`` raises, which ends a connection."""
        asking = asyncio.create_task(self._ask(work), name="historian: question")
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        try:
            return await asking
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise Unavailable("the historian has been left") from None

    async def _ask(self, work: Callable[[Link], T]) -> T:
        async with self._turns:
            if self._closed:
                raise Unavailable("the historian has been left")
            while self._idle:
                asked, since = self._idle.pop()
                if asyncio.get_running_loop().time() - since > FRESH:
                    await asked.close()
                    continue
                try:
                    return await self._with(asked, work)
                except Unavailable:
                    continue  # it may have died while nobody asked; a question can be asked again
            return await self._with(await self._connect(), work)

    async def _with(self, asked: Asked, work: Callable[[Link], T]) -> T:
        try:
            result = await asked.run(work)
        except BaseException:
            await asked.close()
            raise
        self._idle.append((asked, asyncio.get_running_loop().time()))
        return result

    async def close(self) -> None:
        """Break off what is asked, which then raises Unavailable, and close everything."""
        self._closed = True
        for asking in self._asking:
            asking.cancel()
        if self._asking:
            await asyncio.wait(self._asking)
        while self._idle:
            await self._idle.pop()[0].close()
