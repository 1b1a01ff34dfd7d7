"""The live stream: one writer that encodes each change once, and viewers that get the same bytes."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shopfloor.commands import column_to_json
from shopfloor.console.problem import Problem, dumps
from shopfloor.console.view import CUT, Catalogue
from shopfloor.pipeline.live import Live
from shopfloor.samples import Quality, Sample

PACE: Final = 0.2
"""Seconds between two deltas at least."""
HEARTBEAT: Final = 0.8
"""Seconds without a change after which a heartbeat goes out: with PACE at most a second between two events."""
QUEUE: Final = 25
"""Events that wait for a viewer before it skips to a new state."""
PATIENCE: Final = 10.0
"""Seconds that a viewer may take to read one event."""
FAREWELL: Final = 0.3
"""Seconds that a viewer has to read the last event when the console stops."""
VIEWERS: Final = 500
"""At most at once."""
FRESH: Final = 0.1
"""Seconds for which one encoded state serves all who come."""


_log = logging.getLogger(__name__)


class Viewer:
    """What waits for one connection."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._skips = True
        self.closed = asyncio.Event()

    def offer(self, event: bytes) -> None:
        """Add an event; when too many wait they are all replaced by a new state."""
        if self._skips:
            return
        if len(self._events) >= QUEUE:
            self._events.clear()
            self._skips = True
        else:
            self._events.append(event)
        self._wake.set()

    def close(self) -> None:
        """End the connection."""
        self.closed.set()
        self._wake.set()

    async def next(self, state: Callable[[], bytes]) -> bytes | None:
        """What is to be sent now, in one piece; None at the end. ``state`` gives the whole state of now."""
        while not (self._events or self._skips or self.closed.is_set()):
            self._wake.clear()
            await self._wake.wait()
        if self.closed.is_set():
            return None
        if self._skips:
            self._skips = False
            self._events.clear()
            return state()
        waiting = b"".join(self._events)
        self._events.clear()
        return waiting


class Stream:
    """Encodes what changes while somebody looks, and hands the same bytes to all."""

    def __init__(self, live: Live, catalogue: Catalogue, now: Callable[[], int]) -> None:
        """``now`` gives ns UTC."""
        self._live = live
        self._catalogue = catalogue
        self._now = now
        self._indices: dict[str, int] = {}
        self._revision = 0
        self._viewers: set[Viewer] = set()
        self._writer: asyncio.Task[None] | None = None
        self._kept: tuple[float, bytes] = (-1.0, b"")

    def __len__(self) -> int:
        """How many look."""
        return len(self._viewers)

    def demand_room(self) -> None:
        """Raise Problem when there are too many viewers."""
        if len(self._viewers) >= VIEWERS:
            raise Problem(503, "Too many screens are open", f"{VIEWERS} viewers are connected; close some")

    def join(self) -> Viewer:
        """A new viewer; its first event will be a state."""
        if self._writer is None or self._writer.done():
            self._revision = self._live.revision
            self._index(self._catalogue)
            self._index(sample.tag for sample in self._live.samples())
            self._kept = (-1.0, b"")
            self._writer = asyncio.create_task(self._write(), name="live stream")
            self._writer.add_done_callback(_report)
        viewer = Viewer()
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """The viewer is gone; with the last one the work ends."""
        self._viewers.discard(viewer)
        if not self._viewers and self._writer is not None:
            self._writer.cancel()
            self._writer = None

    def close(self) -> None:
        """End every connection."""
        for viewer in self._viewers:
            viewer.close()

    def state(self) -> bytes:
        """The event that replaces everything a viewer knows."""
        at, event = self._kept
        now = asyncio.get_running_loop().time()
        if not 0 <= now - at < FRESH:
            event = _event("state", self._state())
            self._kept = (now, event)
        return event

    def _state(self) -> Mapping[str, Any]:
        samples = [self._live.get(tag) for tag in self._indices]
        return {
            "revision": self._live.revision,
            "now": self._now() // 1_000_000,
            "names": list(self._indices),
            "units": [self._catalogue.info(tag).unit for tag in self._indices],
            "values": column_to_json((None if s is None else s.value for s in samples), CUT),
            "times": [None if s is None else s.time // 1_000_000 for s in samples],
            "qualities": [int(Quality.WAITING_FOR_INITIAL_DATA) if s is None else s.quality for s in samples],
        }

    def _delta(self) -> Mapping[str, Any]:
        """What changed since the last delta. Nothing waits between reading it and noting how far it was read."""
        changed = [s for s in self._live.samples(self._revision) if not s.tag.startswith("$")]
        self._revision = self._live.revision
        fresh = self._index(sample.tag for sample in changed)
        event: dict[str, Any] = {"revision": self._revision, "now": self._now() // 1_000_000}
        if fresh:
            event["names"] = fresh
            event["units"] = [self._catalogue.info(tag).unit for tag in fresh]
        # Who joins from here on does not get this delta, so an older state would lack it.
        self._kept = (-1.0, b"")
        return event | self._columns(changed)

    def _columns(self, samples: list[Sample]) -> dict[str, Any]:
        return {
            "tags": [self._indices[sample.tag] for sample in samples],
            "values": column_to_json((sample.value for sample in samples), CUT),
            "times": [sample.time // 1_000_000 for sample in samples],
            "qualities": [sample.quality for sample in samples],
        }

    def _index(self, tags: Iterable[str]) -> list[str]:
        """Give every tag an index that has none yet; returns those, in order."""
        fresh = [tag for tag in dict.fromkeys(tags) if tag not in self._indices and not tag.startswith("$")]
        for tag in fresh:
            self._indices[tag] = len(self._indices)
        return fresh

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + HEARTBEAT
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed()
            delta = self._delta()
            if delta["tags"]:
                event = _event("delta", delta)
            elif loop.time() >= due:
                event = self._heartbeat()
            else:  # only tags of Shopfloor's own changed
                continue
            for viewer in self._viewers:
                viewer.offer(event)
            await asyncio.sleep(PACE)
            due = loop.time() + HEARTBEAT

    async def _changed(self) -> None:
        while self._live.revision == self._revision:
            await self._live.changed()

    def _heartbeat(self) -> bytes:
        return _event("heartbeat", {"revision": self._revision, "now": self._now() // 1_000_000})


def _report(writer: asyncio.Task[None]) -> None:
    if not writer.cancelled() and (error := writer.exception()) is not None:
        _log.error("the live stream broke off", exc_info=error)


def _event(name: str, content: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), dumps(content))


class LiveResponse(Response):
    """One viewer's connection to the stream."""

    media_type = "text/event-stream"

    def __init__(self, stream: Stream) -> None:
        """``stream`` has room for one more."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the viewer is gone, does not read, or the stream is closed."""
        viewer = self._stream.join()
        sending = asyncio.create_task(self._send(viewer, send))
        leaving = asyncio.create_task(_disconnected(receive))
        closing = asyncio.create_task(viewer.closed.wait())
        try:
            await asyncio.wait({sending, leaving, closing}, return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                await asyncio.wait({sending, leaving}, timeout=FAREWELL, return_when=asyncio.FIRST_COMPLETED)
            gone = leaving.done()
        finally:
            self._stream.leave(viewer)
            for task in (sending, leaving, closing):
                task.cancel()
            await asyncio.gather(sending, leaving, closing, return_exceptions=True)
        if not gone and (sending.cancelled() or sending.exception() is not None):
            # A plain close would wait for ever for what this viewer never reads.
            abort = scope.get("state", {}).get("abort")
            if abort is not None:
                abort()
                await _disconnected(receive)

    async def _send(self, viewer: Viewer, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while (events := await viewer.next(self._stream.state)) is not None:
            async with asyncio.timeout(PATIENCE):
                await send({"type": "http.response.body", "body": events, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
