"""Sources for the same controller share one connection: a controller has few."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, Protocol, Self, TypeVar, cast


class Shareable(Protocol):
    """A connection that can be shared: entered by the first, left by the last."""

    @property
    def connected(self) -> bool:
        """False once it is lost."""
        ...

    async def __aenter__(self) -> Self:
        """Connect. Raises Unavailable."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        ...


_S = TypeVar("_S", bound=Shareable)


class _Shared(Generic[_S]):
    """A session, or the place of one that is being opened, and how many use it."""

    def __init__(self) -> None:
        self.session: _S | None = None
        self.users = 0
        self.opening = asyncio.Lock()

    @property
    def lost(self) -> bool:
        """Whether it was connected and is no more."""
        return self.session is not None and not self.session.connected


_open: Final[dict[tuple[asyncio.AbstractEventLoop, Hashable], _Shared[Any]]] = {}


@asynccontextmanager
async def shared(plc: Hashable, make: Callable[[], _S]) -> AsyncGenerator[_S]:
    """The connection to this controller, made and opened by the first who wants it and closed by the last.

    ``plc`` is all that says where and how it is reached. Once the connection is lost everybody hears so; who comes then
    gets a new one. Raises Unavailable.
    """
    key = (asyncio.get_running_loop(), plc)
    found = cast("_Shared[_S] | None", _open.get(key))
    entry = _Shared[_S]() if found is None or found.lost else found
    _open[key] = entry
    entry.users += 1
    try:
        async with entry.opening:
            if entry.session is None:
                session = make()
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
