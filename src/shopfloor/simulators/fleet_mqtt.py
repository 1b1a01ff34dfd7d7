"""A fleet tells what it does to an MQTT broker: JSON messages, at least once, in the order of time."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.mqtt import Message
from shopfloor.protocols.mqtt_session import Session, open_session
from shopfloor.protocols.mqtt_words import reason_text
from shopfloor.samples import Misconfigured, Unavailable
from shopfloor.simulators.fleet import Event
from shopfloor.simulators.pace import Pace

_TOGETHER: Final = 500
"""Messages that are on their way at the same time, at most."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def message(topic: str, event: Event) -> Message:
    """What is published: ``TOPIC/machine-01/telemetry`` with ``machine``, ``timestamp`` and the values."""
    moment = _EPOCH + timedelta(microseconds=event.time // 1000)
    timestamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    payload = msgspec.json.encode({"machine": event.machine, "timestamp": timestamp, **event.said})
    return Message(f"{topic}/{event.machine}/{event.kind}".encode(), payload, retain=False)


async def serve(
    connection: MqttConnection,
    events: Iterator[Event],
    pace: Pace,
    *,
    topic: str = "fleet",
    ready: Callable[[], None] | None = None,
    said: Callable[[str], None] | None = None,
) -> None:
    """Publish the events as their time comes, until there are no more.

    A broker that goes away is waited for, and gets then what came meanwhile; ``said`` hears of it. ``ready`` is
    called once connected. Raises Unavailable when the broker cannot be reached at the start, Misconfigured when it
    refuses.
    """
    client = f"shopfloor-fleet-{secrets.token_hex(4)}"
    session = await open_session(connection, client)
    if ready is not None:
        ready()
    told = _Told(events, pace, topic)
    while True:
        try:
            await told.tell(session)
        except Unavailable as error:
            if said is not None:
                said(f"the broker is away: {error}")
        else:
            return
        finally:
            await session.close()
        session = await _again(connection, client)
        if said is not None:
            said("the broker is there again")


async def _again(connection: MqttConnection, client: str) -> Session:
    """Connect, however long that takes."""
    pause = _FIRST_PAUSE
    while True:
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        with suppress(Unavailable):
            return await open_session(connection, client)


class _Told:
    """The events, and what of them the broker has not acknowledged yet."""

    def __init__(self, events: Iterator[Event], pace: Pace, topic: str) -> None:
        self._events = events
        self._pace = pace
        self._topic = topic
        self._following = next(events, None)
        self._waiting: list[Event] = []
        self._together = 1
        """The first goes alone: where several at once are refused, Mosquitto closes instead of saying so."""

    async def tell(self, session: Session) -> None:
        """Publish to the end. Raises Unavailable; what was under way is published again by the next call."""
        while self._waiting or self._following is not None:
            if not self._waiting and self._following is not None:
                await self._pace.until(self._following.time)
            now = self._pace.now()
            while self._following is not None and self._following.time <= now and len(self._waiting) < self._together:
                self._waiting.append(self._following)
                self._following = next(self._events, None)
            refused = await session.publish([message(self._topic, event) for event in self._waiting], 1)
            if refused:
                raise Misconfigured(
                    f"the broker refuses what is published below {self._topic}: {reason_text(refused[0].reason)}; "
                    "allow it there, or choose another --topic"
                )
            self._waiting = []
            self._together = _TOGETHER
