"""A connection to SQL Server that an event loop can use and cut: its client in a thread of its own."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from shopfloor.samples import Unavailable
from shopfloor.sinks.sqlserver_errors import Refused, connecting, meaning
from shopfloor.sinks.sqlserver_link import Link

T = TypeVar("T")
_GRACE: Final = 2.0
"""Seconds by which an answer is waited for longer than the client waits by itself."""

_AGAIN: Final = 0.2
"""Seconds after which a connection that is still waited on is cut again."""


class Address(NamedTuple):
    """Where the server is and who asks."""

    host: str
    port: int
    """0: the one that the instance's name stands for, which the client asks for."""
    instance: str
    text: str
    """The client's connection string; it has the password."""
    seconds: float
    """How long an answer may take."""

    @property
    def place(self) -> str:
        """As people write it."""
        return f"{self.host}:{self.port}" if self.port else f"{self.host}\\{self.instance}"


class Session:
    """One connection; everything that is asked of it runs one after the other in its thread.

    A task that is cancelled while it waits for an answer breaks the connection: nothing stays behind.
    """

    def __init__(self, link: Link, seconds: float) -> None:
        """Made by ``connect``. ``seconds``: how long one answer may take."""
        self.link = link
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="sqlserver")
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, which may use the link.

        Raises what it raises; ``Refused`` as Unavailable or Misconfigured, in words. A transaction is over then.
        """
        async with self._turn:
            return await self._in_thread(lambda: self._translated(work))

    async def ping(self) -> None:
        """Raise Unavailable when the server does not answer."""
        await self.run(lambda: self.link.rows("SELECT 1"))

    async def close(self) -> None:
        """Say goodbye if the server is there, and free everything."""
        try:
            if self.link.open:
                with suppress(Refused, TimeoutError):
                    async with asyncio.timeout(self._seconds):
                        await self._in_thread(self.link.close)
        finally:
            self._threads.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        watching = asyncio.create_task(self._watch())
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                self.link.cut()
                await asyncio.wait({running}, timeout=_AGAIN)
            if not running.cancelled():
                running.exception()  # seen; the cancellation is what the caller hears of
            raise
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """Break the connection when one answer takes longer than the client itself would wait.

        It ends a statement that takes too long by asking the server, and waits for the answer to that for ever.
        """
        while True:
            began = self.link.began
            late = self._seconds + _GRACE - (0 if began is None else monotonic() - began)
            if late < 0:
                self.link.cut()
            await asyncio.sleep(max(late, 0.1))

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Refused as error:
            self._roll_back()
            raise meaning(error) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self.link.open:
            with suppress(Refused):
                self.link.roll_back()


async def connect(address: Address) -> Session:
    """Log in and set what the session needs; raises Unavailable or Misconfigured in words."""
    if address.port:
        await _reach(address)
    link = Link(address.text, address.seconds, address.place, address.port)
    session = Session(link, address.seconds)
    try:
        await session.run(lambda: _log_in(link, address))
    except BaseException:
        await session.close()
        raise
    return session


def _log_in(link: Link, address: Address) -> None:
    try:
        link.log_in()
    except Refused as error:
        raise connecting(error, address.place) from error
    for statement in (
        "SET LANGUAGE us_english",  # its words for errors are understood, and dates have one order
        "SET XACT_ABORT ON",  # an error ends the transaction, not just the statement
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        f"SET LOCK_TIMEOUT {max(1, round(address.seconds * 500))}",  # ms
    ):
        link.execute(statement)
    link.commit()


async def _reach(address: Address) -> None:
    """Whether anybody listens there: what the client says of it is hard to read. Raises Unavailable."""
    try:
        async with asyncio.timeout(address.seconds):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError as error:
        raise Unavailable(
            f"{address.place} does not answer within {address.seconds:g} s; is a firewall between?"
        ) from error
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error  # asyncio has words of its own
        raise Unavailable(
            f"nobody answers at {address.place}: {why}; does the server run, and are host and port in `dsn` right?"
        ) from error
    writer.transport.abort()
