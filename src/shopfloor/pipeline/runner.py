"""Supervises one component: connects it, meets its errors, backs off, and says each change once.

A component only raises; what follows is decided here:
Unavailable → leave, wait with jitter, come back; Misconfigured → stop until a person restarts it;
anything else is a bug: logged with its traceback, tried again with backoff. None of them reaches
the other components.
"""

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, Literal

import structlog

from shopfloor.pipeline.status import ComponentStatus, State
from shopfloor.plant import ComponentConfig, format_duration
from shopfloor.samples import Misconfigured, Unavailable

logger: Final = structlog.get_logger("shopfloor.pipeline")

FIRST_DELAY: Final = 0.25
LONGEST_DELAY: Final = 30.0
LONGEST_ASKED: Final = 3600.0
"""The longest that the other side may ask us to stay away: a mistaken date must not silence a component for a year."""
STABLE: Final = 10.0
"""Seconds that a component must have run before its next trouble counts as the first."""


class Runner(ABC):
    """Runs one component until it is stopped."""

    kind: ClassVar[Literal["source", "processor", "sink", "historian"]]

    def __init__(self, config: ComponentConfig, clock: Callable[[], int] = time.time_ns) -> None:
        """``clock`` gives ns UTC for what people see; waiting uses the event loop's own time."""
        self.config = config
        self.name = config.name
        self.samples = 0
        self._clock = clock
        self._state: State = "starting"
        self._since = clock()
        self._error = ""
        self._error_at = 0
        self._restarts = 0
        self._asked = 0.0
        """Seconds for which the other side asked us to stay away."""
        self._lost_at: float | None = None
        self._running_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._work_task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._paused = False
        self._stopping = False
        self._said = ""
        """The bug that was logged last, until it has run well for a while."""

    @abstractmethod
    async def work(self) -> None:
        """Connect, call ``running`` and work until an error; return only when there is nothing more to do."""

    def lag(self) -> tuple[int, int]:
        """Entries not taken yet and the time of reception of the oldest of them."""
        return 0, 0

    def start(self, delay: float = 0.0) -> None:
        """Begin after ``delay`` seconds; returns at once."""
        self._task = asyncio.create_task(self._supervise(delay), name=f"{self.kind} {self.name}")

    async def stop(self, seconds: float) -> bool:
        """Cancel and wait at most ``seconds``; False when it hangs."""
        if self._task is None:
            return True
        self._stopping = True
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=seconds)
        if self._task.done():
            self._enter("stopped")
        return self._task.done()

    async def restart(self) -> None:
        """Leave and come back now, also out of ``misconfigured`` and ``paused``."""
        self._paused = False
        await self._interrupt()

    async def pause(self) -> None:
        """Leave until ``resume``."""
        self._paused = True
        await self._interrupt()
        if self._paused:  # not resumed meanwhile
            self._enter("paused")

    async def resume(self) -> None:
        """Come back after ``pause``; nothing when it was not paused."""
        if self._paused:
            await self.restart()

    async def _interrupt(self) -> None:
        self._wake.set()
        if self._work_task is not None:
            self._work_task.cancel()
            await asyncio.wait({self._work_task}, timeout=5)

    def status(self) -> ComponentStatus:
        """How it stands."""
        entries, oldest = self.lag()
        return ComponentStatus(
            name=self.name,
            kind=self.kind,
            type=self.config.type,
            state=self._state,
            since=self._since,
            required=self.config.required,
            last_error=self._error,
            last_error_at=self._error_at,
            restarts=self._restarts,
            samples=self.samples,
            lag_entries=entries,
            lag_seconds=max(0.0, (self._clock() - oldest) / 1e9) if oldest else 0.0,
        )

    def running(self) -> None:
        """To be called by ``work`` once it is connected: says the return after a loss."""
        self._running_at = asyncio.get_running_loop().time()
        self._enter("running")
        if self._lost_at is not None:
            away = time.monotonic() - self._lost_at
            entries, _ = self.lag()
            self._lost_at = None
            logger.info(
                f"{self.kind} {self.name} is back",
                component=self.name,
                away=format_duration(round(away * 10) * 10**8),
                buffered_entries=entries,
            )

    def _enter(self, state: State) -> None:
        if state != self._state:
            self._state, self._since = state, self._clock()

    async def _supervise(self, start_delay: float) -> None:
        await self._nap(start_delay)
        delay = FIRST_DELAY
        while True:
            self._wake.clear()
            if self._paused:
                self._enter("paused")
                await self._wake.wait()
                continue
            self._running_at = None
            again = await self._attempt()
            if self._stopping:  # what failed while leaving has swallowed the cancellation
                return
            if self._running_at is not None and asyncio.get_running_loop().time() - self._running_at > STABLE:
                delay = FIRST_DELAY
                self._said = ""
            if again == "now":
                continue
            if again == "never":
                await self._wake.wait()
                delay = FIRST_DELAY
                continue
            jittered = delay * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
            await self._nap(max(jittered, min(self._asked, LONGEST_ASKED)))
            delay = min(delay * 2, LONGEST_DELAY)

    async def _nap(self, seconds: float) -> None:
        """Wait, unless a person wants something."""
        with contextlib.suppress(TimeoutError):  # not wait_for: in Python 3.11 it can swallow a cancellation
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _attempt(self) -> Literal["now", "later", "never"]:
        """One run of ``work`` and what follows from its end."""
        self._asked = 0.0
        if self._state not in ("waiting", "failed"):
            self._enter("starting")
        self._work_task = asyncio.create_task(self.work(), name=f"{self.kind} {self.name}: work")
        try:
            await self._work_task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                await self._leave()
                raise
            if self._wake.is_set():
                return "now"
            self._trouble("failed", "CancelledError: it was cancelled from inside")
            return "later"
        except Unavailable as error:
            self._asked = error.after
            self._trouble("waiting", str(error))
            return "later"
        except Misconfigured as error:
            self._trouble("misconfigured", str(error))
            return "never"
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if text != self._said:
                logger.exception(
                    f"{self.kind} {self.name} failed; this is a bug, please report it", component=self.name
                )
                self._said = text
            self._trouble("failed", text)
            return "later"
        finally:
            self._work_task = None
        self._enter("stopped")
        return "never"

    async def _leave(self) -> None:
        """Let a cancelled work task finish its closing; ``stop`` has the deadline."""
        if self._work_task is not None and not self._work_task.done():
            self._work_task.cancel()
            await asyncio.wait({self._work_task})

    def _trouble(self, state: State, error: str) -> None:
        """Enter a bad state; log it when it is new."""
        self._restarts += 1
        self._error, self._error_at = error, self._clock()
        if self._lost_at is None or self._state != state:
            if state != "failed":
                logger.warning(
                    f"{self.kind} {self.name} is away, it will be tried again"
                    if state == "waiting"
                    else f"{self.kind} {self.name} needs a person",
                    component=self.name,
                    error=error,
                )
            self._lost_at = self._lost_at if self._lost_at is not None else time.monotonic()
        self._enter(state)
