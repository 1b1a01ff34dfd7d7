"""Which sources are connected, in the journal: so that "nothing changed" can be told from "nobody was listening"."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from shopfloor.journal import Journal
from shopfloor.samples import Batch, Unavailable

SOURCE: Final = "$source"
FAREWELL: Final = 1.0
"""Seconds: a full journal must not keep a source from leaving."""

_encode: Final = msgspec.msgpack.encode


class Presence:
    """Journals ``$source/NAME/connected`` when a source connects or is lost.

    Each note carries, as its checkpoint, what all sources were then. So the next start knows which of them were
    connected when a process ended without a farewell.
    """

    def __init__(self, journal: Journal, clock: Callable[[], int]) -> None:
        """``clock`` gives ns UTC."""
        self._journal = journal
        self._clock = clock
        self._connected: dict[str, bool] = {}

    async def recover(self) -> None:
        """Note what a crash left out: its sources were lost when last something was received, as far as is known.

        Raises Unavailable when the disk refuses.
        """
        checkpoint = await self._journal.checkpoint(SOURCE)
        known: Mapping[str, bool] = {}
        if checkpoint is not None:
            with contextlib.suppress(msgspec.DecodeError):  # of another version
                known = msgspec.msgpack.decode(checkpoint, type=dict[str, bool])
        open_ended = [name for name, connected in known.items() if connected]
        newest = await self._journal.newest()
        if open_ended and newest is not None:
            tags = [_tag(name) for name in open_ended]
            batch = Batch(SOURCE, self._clock(), tags, (newest,) * len(tags), (False,) * len(tags))
            batch.checkpoint = _encode({})
            await self._journal.append(batch)

    async def note(self, name: str, *, connected: bool) -> None:
        """Journal that a source has connected. Raises Unavailable when the disk refuses."""
        self._connected[name] = connected
        now = self._clock()
        batch = Batch(SOURCE, now, (_tag(name),), (now,), (connected,))
        batch.checkpoint = _encode(self._connected)
        await self._journal.append(batch)

    async def complete(self, name: str) -> None:
        """Journal that nothing is missing although the source was away. Raises Unavailable when the disk refuses."""
        now = self._clock()
        await self._journal.append(Batch(SOURCE, now, (f"$source/{name}/complete",), (now,), (True,)))

    async def lost(self, name: str) -> None:
        """Journal that a source is lost, if the journal takes it soon."""
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self.note(name, connected=False)


def _tag(source: str) -> str:
    return f"$source/{source}/connected"
