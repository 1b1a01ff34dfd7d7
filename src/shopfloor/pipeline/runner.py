"""Supervises one component: connects it, meets its errors, backs off, and says each change once.

A component only raises; what follows is decided here:
Unavailable → leave, wait with jitter, come back; Misconfigured → stop until a person restarts it;
anything else is a bug: logged with its traceback, tried again with backoff. None of them reaches
the other components.
"""

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar, Final, Literal

import structlog

from shopfloor.pipeline.backoff import Backoff
from shopfloor.pipeline.status import ComponentStatus, State
from shopfloor.plant import ComponentConfig, format_duration
from shopfloor.samples import Misconfigured, Unavailable

logger: Final = structlog.get_logger("shopfloor.pipeline")

FIRST_DELAY: Final = 0.25
"""Seconds that the first pause takes at most."""
LONGEST_DELAY: Final = 30.0
STABLE: Final = 10.0
"""Seconds that a component must have run before its next trouble counts as the first."""
_A_MINUTE: Final = 60


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
        self._dropped_before = 0
        self._error = ""
        self._error_at = 0
        self._restarts = 0
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
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

    def dropped(self) -> int:
        """Samples that the journal dropped before it could take them, since the start."""
        return 0

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
            dropped=self.dropped() - self._dropped_before,
        )

    @property
    def lost(self) -> bool:
        """Whether its loss was said, and its return not yet."""
        return self._lost_at is not None

    def running(self, waiting: int | None = None) -> None:
        """To be called by ``work`` once it is connected, or has shown that it is of use: says the return after a loss.

        ``waiting``: entries that waited for it then, by default as many as do now.
        """
        self._running_at = asyncio.get_running_loop().time()
        self._enter("running")
        if self._lost_at is not None:
            away = time.monotonic() - self._lost_at
            self._lost_at = None
            logger.info(
                f"{self.kind} {self.name} is back",
                component=self.name,
                away=_said(away),
                buffered_entries=self.lag()[0] if waiting is None else waiting,
            )

    def _enter(self, state: State) -> None:
        if state != self._state:
            self._state, self._since, self._dropped_before = state, self._clock(), self.dropped()

    async def _supervise(self, start_delay: float) -> None:
        await self._nap(start_delay)
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
                self._backoff.reset()
                self._said = ""
            if again == "now":
                continue
            if again == "never":
                await self._wake.wait()
                self._backoff.reset()
                continue
            await self._nap(self._backoff.pause(self._asked))

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


def was_another(name: str, why: Exception) -> Misconfigured:
    """What to raise when the journal's state of a component is none of its kind: its name was another's before."""
    return Misconfigured(
        f"the journal knows {name} as something else, whose state it cannot go on with ({why}); give it another "
        f"name, or forget what it was while Shopfloor is stopped: shopfloor ledger forget {name}"
    )


def _said(seconds: float) -> str:
    """How long, for people: after days nobody wants milliseconds."""
    if seconds < _A_MINUTE:
        return format_duration(max(1, round(seconds * 10)) * 10**8)
    return str(timedelta(seconds=round(seconds)))
