"""What sinks share whose connection blocks in a thread of its own: entering it, trying it, the position."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from shopfloor.samples import Batch, Unavailable
from shopfloor.seams import Sink

Entries = Sequence[tuple[int, Batch]]


class Session(Protocol):
    """One connection; everything that is asked of it runs one after the other in its thread."""

    async def run(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives; errors of the driver as Unavailable, Misconfigured or Rejected."""

    async def ping(self) -> None:
        """Raise Unavailable when the server does not answer."""

    async def close(self) -> None:
        """Free everything."""


S = TypeVar("S", bound=Session)


class SessionSink(Sink, Generic[S]):
    """Writes batches; enter it to connect."""

    def __init__(self, keep_alive: float) -> None:
        """``keep_alive``: seconds without writing after which the connection is tried."""
        self._keep_alive = keep_alive
        self._session: S | None = None
        self._held = -1
        self._last = 0.0
        """When the server answered last, by the loop's clock."""

    @abstractmethod
    async def _connect(self) -> S:
        """A new connection. Raises Unavailable, Misconfigured."""

    @abstractmethod
    def _begin(self, session: S) -> int:
        """In the session's thread: make or examine the tables and take over the position, which it returns."""

    @abstractmethod
    def _put(self, session: S, entries: Entries) -> None:
        """In the session's thread: hold these entries and the new position in one transaction."""

    async def __aenter__(self) -> Self:
        """Connect, make or examine the tables, take over the position. Raises Unavailable, Misconfigured."""
        session = await self._connect()
        try:
            self._held = await session.run(lambda: self._begin(session))
        except BaseException:
            await session.close()
            raise
        self._session = session
        self._heard()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def held(self) -> int:
        """The last journal offset whose samples are in the database; -1 when there is none."""
        return self._held

    async def lost(self) -> None:
        """Raise Unavailable when the connection is lost: it is tried whenever nothing was written for a while."""
        loop = asyncio.get_running_loop()
        while True:
            session = self._connected()
            await asyncio.sleep(max(0.01, self._last + self._keep_alive - loop.time()))
            if loop.time() - self._last >= self._keep_alive:
                await session.ping()
                self._heard()

    async def write(self, offset: int, batch: Batch) -> None:
        """Take the batch in a transaction of its own."""
        await self.write_many([(offset, batch)])

    async def write_many(self, entries: Entries) -> None:
        """Take the batches in one transaction. Raises Rejected, Unavailable, Misconfigured."""
        session = self._connected()
        fresh = [entry for entry in entries if entry[0] > self._held]
        if not fresh:
            return
        await session.run(lambda: self._put(session, fresh))
        self._held = fresh[-1][0]
        self._heard()

    def _heard(self) -> None:
        self._last = asyncio.get_running_loop().time()

    def _connected(self) -> S:
        if self._session is None:
            raise Unavailable("not connected")
        return self._session
