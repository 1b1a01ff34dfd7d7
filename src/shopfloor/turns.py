"""Turns: what is new goes first, and those who work through a backlog go on one at a time.

All components share one event loop, and its thread shares Python's one lock with all other threads. Five sinks that
each work for three milliseconds and then let others go on would keep a source that wants to acknowledge waiting for
fifteen, at each of its steps. So there are three words:

- ``hurry``: a batch is on its way to the disk, and its source waits for it. The journal says so.
- ``turn``: who works through a backlog in the event loop asks for it before every few milliseconds of work.
- ``give_way``: the same for who works in a thread.

While something hurries, the two others wait, as long as they have patience: by each piece of work they earn ``SHARE``
times the time that it took, up to ``LONGEST``, and waiting uses it up. So a backlog has a quarter of the time in any
case, and all of it when nothing is new. Where the processor is slow, pieces take longer and so may the waiting.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary, WeakSet

T = TypeVar("T")

SHARE: Final = 3
"""How many times as long as one worked one may be held up by what is new."""
LONGEST: Final = 0.02
"""Seconds for which one is held up at most, however long one worked before."""
STALE: Final = 0.25
"""Seconds after which what still hurries waits for the disk, or for room in the journal, and not for the processor."""
_PIECE: Final = 0.0005
"""Seconds that a thread works at least before it gives way: changing threads has its price, too."""
_FREE: Final = 4
"""Rounds of the event loop between two turns: what is new takes some steps to become durable, none has to wait then."""


class _Hurry:
    """What hurries in this process: Python's lock is the process's, so all its event loops and threads are meant."""

    def __init__(self) -> None:
        self._under_way: WeakSet[asyncio.Future[Any]] = WeakSet()
        self._newest = 0.0
        self._over = threading.Event()

    def __bool__(self) -> bool:
        return bool(self._under_way) and time.monotonic() - self._newest < STALE

    def begin(self, done: asyncio.Future[Any]) -> None:
        self._under_way.add(done)
        self._newest = time.monotonic()
        self._over.clear()
        done.add_done_callback(self._end)

    def _end(self, done: asyncio.Future[Any]) -> None:
        self._under_way.discard(done)
        if not self._under_way:
            self._over.set()
            if turns := _turns.get(asyncio.get_running_loop()):
                turns.go_on()

    def wait(self, longest: float) -> None:
        self._over.wait(longest)


class _Patience:
    """How long somebody may be held up."""

    def __init__(self) -> None:
        self.left = LONGEST
        """Seconds."""

    def earn(self, worked: float) -> None:
        self.left = min(self.left + SHARE * worked, LONGEST)

    def use_up(self, waited: float) -> None:
        self.left = max(self.left - waited, 0.0)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.patience = _Patience()
        self.since = 0.0
        """When it went on to work, by ``time.monotonic``."""


class _Turns:
    """Who waits for a turn in one event loop, which it does not hold: loops end when they are not used any more."""

    def __init__(self) -> None:
        self._queue: deque[asyncio.Future[None]] = deque()
        self._patience = _Patience()
        self._due = 0.0
        """Since when the next one is held up, by ``time.monotonic``; 0: he is not."""
        self._held: asyncio.TimerHandle | None = None

    def ask(self) -> asyncio.Future[None]:
        mine = asyncio.get_running_loop().create_future()
        self._queue.append(mine)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._rest, _FREE)
        return mine

    def go_on(self) -> None:
        """Nothing hurries any more, or not for so long that a backlog may be held up for it."""
        if self._held is not None:
            self._held.cancel()
            self._held = None
            self._rest(_FREE)

    def _rest(self, rounds: int) -> None:
        """Let others go first for so many rounds, then give the turn away."""
        loop, now = asyncio.get_running_loop(), time.monotonic()
        if rounds:
            loop.call_soon(self._rest, rounds - 1)
            return
        if hurried:
            self._due = self._due or now
            if now - self._due < self._patience.left:
                self._held = loop.call_later(self._due + self._patience.left - now, self.go_on)
                return
        if self._due:
            self._patience.use_up(now - self._due)
            self._due = 0.0
        # Taken out only when it is given: who asks meanwhile finds the queue at work.
        given = self._queue[0]
        if not given.done():
            given.set_result(None)
        loop.call_soon(self._after, now)

    def _after(self, began: float) -> None:
        """The one whose turn it was has worked in this round, before us."""
        self._patience.earn(time.monotonic() - began)
        self._queue.popleft()
        if self._queue:
            self._rest(_FREE)


hurried: Final = _Hurry()
"""Whether something is on its way to the disk for which its source waits."""
_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns]] = WeakKeyDictionary()
_thread: Final = _Thread()


def hurry(done: asyncio.Future[Any]) -> None:
    """Hold up those who have time until this future is done. Called in its event loop."""
    hurried.begin(done)


async def turn() -> None:
    """Wait until it is one's turn; ask for it before every few milliseconds of work on what has time.

    Turns are given in the order of asking, one at a time, and everything else goes first.
    """
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = _Turns()
    await turns.ask()


class Pieces:
    """Counts the samples that someone has worked on, who may have few or very many: many are done in turns."""

    def __init__(self, size: int = 1000) -> None:
        """``size``: samples that take a millisecond or some."""
        self._size = size
        self._worked = 0

    async def worked(self, samples: int) -> None:
        """Wait for a turn each time a piece is full; what is new is few, and never waits."""
        self._worked += samples
        if self._worked >= self._size:
            self._worked = 0
            await turn()


def give_way() -> None:
    """In a thread, before every millisecond or less of work on what has time: let what hurries go first."""
    now, me = time.monotonic(), _thread
    if now - me.since < _PIECE:
        return
    me.patience.earn(now - me.since)
    me.since = now
    if hurried and me.patience.left:
        hurried.wait(me.patience.left)
        me.since = time.monotonic()
        me.patience.use_up(me.since - now)


def giving_way(items: Iterable[T]) -> Iterator[T]:
    """The items, in a thread that gives way before each: what is done with one takes about a millisecond, or less."""
    for item in items:
        give_way()
        yield item
