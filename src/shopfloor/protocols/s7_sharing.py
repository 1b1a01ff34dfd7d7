"""Sources for the same PLC share one connection: a PLC has few."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from shopfloor.protocols.s7_session import Plc, Session


class _Shared:
    """A session, or the place of one that is being opened, and how many use it."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.users = 0
        self.opening = asyncio.Lock()

    @property
    def lost(self) -> bool:
        """Whether it was connected and is no more."""
        return self.session is not None and not self.session.connected


_open: Final[dict[tuple[asyncio.AbstractEventLoop, Plc], _Shared]] = {}


@asynccontextmanager
async def shared(plc: Plc) -> AsyncGenerator[Session]:
    """A connection to this PLC, opened by the first who wants it and closed by the last. Raises Unavailable.

    Once it is lost everybody hears so; who comes then gets a new one.
    """
    key = (asyncio.get_running_loop(), plc)
    entry = _open.get(key)
    if entry is None or entry.lost:
        entry = _open[key] = _Shared()
    entry.users += 1
    try:
        async with entry.opening:
            if entry.session is None:
                session = Session(plc)
                await session.__aenter__()
                entry.session = session
        yield entry.session
    finally:
        entry.users -= 1
        if not entry.users:
            if _open.get(key) is entry:
                del _open[key]
            if entry.session is not None:
                await entry.session.__aexit__()
