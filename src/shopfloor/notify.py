"""What systemd is told of a running Shopfloor: that it is ready, that it is alive, that it stops (sd_notify(3)).

Without systemd, where NOTIFY_SOCKET is not set, nothing is told to anybody.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import structlog

_PARTS: Final = 3
"""How often the watchdog is told in the time after which it would bite."""

_log: Final = structlog.get_logger("shopfloor")


def notify(state: str) -> None:
    """Tell systemd, for example ``READY=1``; a socket that does not take it is told to the log only."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name that is no file
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
            there.connect(address)
            there.sendall(state.encode())
    except OSError as error:
        _log.warning("systemd cannot be told", state=state, error=str(error))


@asynccontextmanager
async def told() -> AsyncGenerator[None]:
    """Ready at the beginning of the block, alive as long as the event loop goes round, stopping at its end."""
    notify("READY=1")
    alive = asyncio.create_task(_alive(), name="systemd's watchdog")
    try:
        yield
    finally:
        notify("STOPPING=1")
        alive.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await alive


async def _alive() -> None:
    given = os.environ.get("WATCHDOG_USEC", "")
    wanted = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not (given.isdigit() and int(given) and wanted):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(given) / 10**6 / _PARTS)
