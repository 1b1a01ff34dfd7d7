"""The seams: what a source, a processor and a sink are to the pipeline that runs them.

Components hold no retry, backoff, reconnect or counting: they raise one of the three errors of
``samples`` and the pipeline does the rest. ``async with`` is the connection, so leaving it must
close everything that was opened, also after an error or a cancellation.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import ClassVar, Protocol, Self

from shopfloor.samples import Answer, Batch, Command, Outcome, Request, Sample, TagInfo


class Connection(ABC):  # noqa: B024  # abstract by role: sources and sinks open what they need, some nothing
    """Something that is entered to connect and left to disconnect."""

    async def __aenter__(self) -> Self:
        """Connect. Raise Unavailable when the other side is away, Misconfigured when a person must act."""
        return self

    async def __aexit__(  # noqa: B027  # one that opened nothing has nothing to close
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Disconnect and free everything; never raise because the other side is already gone."""


class Source(Connection):
    """Where samples come from and commands go.

    After Unavailable the same object is entered again, so it may keep what it needs to take up a session
    that the other side still has; after any other end a new one is built.
    """

    def resume(self, checkpoint: bytes) -> None:
        """Go on after this checkpoint: the last one that became durable. Called before ``batches``."""

    @abstractmethod
    def batches(self) -> AsyncGenerator[Batch]:
        """Yield batches until cancelled. The code after a ``yield`` runs only once that batch is on disk.

        So the acknowledgement to the other side goes right there. Raise Unavailable when the
        connection is lost.
        """

    async def execute(self, command: Command) -> Outcome:
        """Write ``command.value`` to ``command.tag``, read it back and say what became of it.

        Called while connected, concurrently with ``batches``. Check ``command.expires`` right before
        the write. Never retry: when it is not known whether the write took place, ``done`` is None.
        """
        return Outcome(command.id, done=False, detail="this source cannot be written to")

    async def examine(self) -> AsyncIterator[str]:
        """What cannot be acquired although the other side is there, a line each with what to change.

        Called by a probe while connected, not beside ``batches``. Reads, and changes nothing on the other side.
        """
        return
        yield ""  # makes this an empty asynchronous generator

    async def browse(self) -> AsyncIterator[TagInfo]:
        """Every tag that the other side offers. Called while connected, not beside ``batches``."""
        return
        yield  # makes this an empty asynchronous generator


class Inbox(Protocol):
    """Where messages go that ask for a value to be written: the command path decides about each."""

    @property
    def tags(self) -> Sequence[str]:
        """What may be asked for."""
        ...

    def put(self, request: Request, answer: Callable[[Answer], None]) -> None:
        """Take a request at most once, in the order of the calls; ``answer`` is called in the event loop."""
        ...

    def refuse(self, request: Request, problem: str, detail: str, answer: Callable[[Answer], None]) -> None:
        """Answer one that cannot be understood, and record that."""
        ...

    def lost(self) -> None:
        """Who asks cannot be heard any more: what it holds pressed is released."""
        ...


class Sink(Connection):
    """Where samples go."""

    def commanded(self, inbox: Inbox) -> None:  # most have nobody who could command
        """Whoever gets the samples may ask for values to be written: put that into ``inbox``.

        Called before entering where the plant file allows it (``SinkConfig.commanded``). The pipeline calls
        ``inbox.lost`` when the sink is left.
        """

    async def held(self) -> int | None:
        """The last offset that the sink itself holds, or None when it keeps no position of its own.

        A sink that stores the offset in the transaction that stores the samples makes them count
        exactly once: after a crash the pipeline goes on behind this offset. Called after connecting.
        """
        return None

    async def lost(self) -> None:
        """Raise Unavailable when the connection is lost; wait as long as it is there.

        The pipeline awaits it while there is nothing to write, and cancels it. A sink that does not
        override it is taken to be connected until a write says otherwise.
        """
        await asyncio.Event().wait()

    @abstractmethod
    async def write(self, offset: int, batch: Batch) -> None:
        """Take the batch; returning means that it is held. The same offset twice must count once if promised.

        Raise Rejected with the indices that will never be accepted: nothing of the batch is then
        held, and the pipeline offers it again without them.
        """

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Take several batches in ascending offsets; sinks with transactions override it to use one.

        When it raises Rejected the pipeline offers the entries again one by one.
        """
        for offset, batch in entries:
            await self.write(offset, batch)


class Processor(ABC):
    """What is worked out of samples: pure, no I/O, no wall clock; any split into batches gives the same."""

    heavy: ClassVar[bool] = False
    """Whether its state is too large to be stored with each output: then it is stored now and then, and what came since
    is folded again, silently, after a restart."""

    @abstractmethod
    def process(self, batch: Batch) -> list[Sample]:
        """Fold the batch into the state and return what it gives, each stamped with sample time."""

    def snapshot(self) -> bytes:
        """The state, to be stored in the transaction that stores the output and the position."""
        return b""

    def restore(self, state: bytes) -> None:  # noqa: B027  # one without state has nothing to restore
        """Take up a state that ``snapshot`` gave, possibly of an older version of this processor."""
