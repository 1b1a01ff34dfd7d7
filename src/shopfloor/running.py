"""A plant file at work with its console, until a signal or a time ends it."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Final

import structlog

from shopfloor.interpreter import prepared
from shopfloor.notify import told
from shopfloor.pipeline import Pipeline
from shopfloor.plant import Plant

logger: Final = structlog.get_logger("shopfloor")


@asynccontextmanager
async def running(plant: Plant) -> AsyncGenerator[Pipeline]:
    """The pipeline and, unless the plant file says otherwise, its console. Raises Misconfigured."""
    # Imported here: FastAPI costs 0.3 s, and a plant without a console does not need it.
    async with Pipeline(plant) as pipeline:
        if plant.console is None:
            yield pipeline
            return
        from shopfloor.console import serve  # noqa: PLC0415

        ready = asyncio.Event()
        console = asyncio.create_task(serve(pipeline, plant.console.listen, ready), name="console")
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({console, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if console.done():
                console.result()
            yield pipeline
        finally:
            waiting.cancel()
            console.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await console


@contextmanager
def stopping() -> Generator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set, also while things are still starting; a second one ends at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def told(number: int) -> None:
        if stop.is_set():
            loop.remove_signal_handler(number)
            os.kill(os.getpid(), number)
        stop.set()

    for number in numbers:
        loop.add_signal_handler(number, told, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def until_stopped(
    seconds: float | None = None, *, with_parent: bool = False, stop: asyncio.Event | None = None
) -> None:
    """Wait for SIGINT or SIGTERM, for so many seconds, or until standard input ends (``with_parent``).

    ``stop`` of a ``stopping`` that began before.
    """
    with nullcontext(stop) if stop is not None else stopping() as told:
        if with_parent:
            # A daemon: a thread of the loop's pool that waits for input would keep the process from ending.
            threading.Thread(target=_until_input_ends, args=(asyncio.get_running_loop(), told), daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await told.wait()


def _until_input_ends(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended by itself
        loop.call_soon_threadsafe(stop.set)


async def run(plant: Plant, seconds: float | None = None) -> None:
    """Run a plant until it is stopped. Raises Misconfigured when it cannot start."""
    with stopping() as stop:
        async with running(plant), told():
            with prepared():
                logger.info("running", site=plant.plant.site, console=_console(plant))
                await until_stopped(seconds, stop=stop)
            logger.info("stopping")


def _console(plant: Plant) -> str | None:
    if plant.console is None:
        return None
    from shopfloor.console import url  # noqa: PLC0415  # loaded already when there is a console

    return url(plant.console.listen)
