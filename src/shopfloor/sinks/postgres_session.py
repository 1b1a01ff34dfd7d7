"""A connection to PostgreSQL on which nothing can wait for ever.

psycopg waits for the server as long as TCP does, also when its task is cancelled (it then asks the server to cancel,
and waits for that). So work runs in a task of its own, and when the server gives no sign of life, or nobody wants the
result any more, the socket is shut down: that ends whatever waits on it, at once and cleanly.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self, TypeVar

import psycopg

from shopfloor.samples import Unavailable
from shopfloor.sinks.postgres_errors import connecting, translated

T = TypeVar("T")

LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
"""Hosts that are this computer; "" and paths are sockets in the file system."""


class Session:
    """One connection, used by one task at a time."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], patience: float) -> None:
        """Made by ``open``."""
        self.connection = connection
        self._patience = patience
        self._turn = asyncio.Lock()
        self._alive = 0.0

    @classmethod
    async def open(cls, parameters: Mapping[str, Any], *, patience: float) -> Self:
        """Connect. Raises Unavailable and Misconfigured, which say which server it was."""
        where = f"PostgreSQL at {parameters.get('host') or 'the local socket'}:{parameters.get('port') or 5432}"
        try:
            async with asyncio.timeout(patience):
                connection = await psycopg.AsyncConnection.connect(
                    **parameters, connect_timeout=max(2, round(patience)), autocommit=True
                )
        except TimeoutError as error:
            raise Unavailable(f"{where} does not answer within {patience:g} s; is a firewall between?") from error
        except psycopg.Error as error:
            raise connecting(error, where) from error
        return cls(connection, patience)

    async def close(self) -> None:
        """Close it; what is under way is broken off."""
        if self._turn.locked():
            self._break()
        async with self._turn:
            await self.connection.close()

    def alive(self) -> None:
        """The server has just answered: it may take its time again."""
        self._alive = asyncio.get_running_loop().time()

    @property
    def idle(self) -> float:
        """Seconds since the server answered last."""
        return asyncio.get_running_loop().time() - self._alive

    async def run(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Do something with the connection; it says ``alive`` whenever the server has answered.

        Raises Unavailable when the server gives no sign of life for the timeout, and what ``translated`` makes of
        the driver's errors. The connection is broken when this was cancelled.
        """
        async with self._turn:
            self.alive()
            doing = asyncio.ensure_future(self._translated(work))
            try:
                while not doing.done():
                    left = self._patience - self.idle
                    if left <= 0:
                        self._break()
                        await asyncio.wait({doing})
                        if doing.exception() is None:
                            break  # it answered in the last moment
                        raise Unavailable(f"the database has not answered for {self._patience:g} s")
                    await asyncio.wait({doing}, timeout=left)
            except asyncio.CancelledError:
                self._break()
                await asyncio.wait({doing})
                doing.exception()
                raise
            self.alive()
            return doing.result()

    async def _translated(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
        with translated():
            return await work(self.connection)

    def _break(self) -> None:
        """End the connection, from whatever waits on it."""
        if self.connection.closed:
            return
        with socket.socket(fileno=os.dup(self.connection.fileno())) as twin:
            try:
                twin.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the other side was faster
