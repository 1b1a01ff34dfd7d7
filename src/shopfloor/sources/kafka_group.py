"""Reads partitions: where it begins in each, what it takes, what it says is gone.

With a group of several, its coordinator gives out the partitions. One that reads alone takes all of them itself: it
need not wait for anybody after a restart. It works in the client's thread; the source calls one thing after the other.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from shopfloor.plant.components import tag_pattern
from shopfloor.plant.kafka import KafkaConnection
from shopfloor.protocols.kafka import (
    UNKNOWN,
    ClientThread,
    Heard,
    meaning,
    missing_topics,
    reach,
    refuse_missing,
    settings,
    wrong_settings,
)
from shopfloor.protocols.kafka_topics import topic_ids
from shopfloor.samples import Misconfigured, Unavailable

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition

Offsets = dict[str, dict[int, int]]
"""The next offset to read, by topic and partition."""

_TOGETHER: Final = 1000
"""Records of which a batch is made at most, so that others get their turn."""
_WAIT: Final = 0.25
"""Seconds that a call waits for a record, at most: so long whoever leaves has to wait."""
_MOMENT: Final = 1.0
"""Seconds that commits get to be answered when the source is left."""
_LOOK_EVERY: Final = 30.0
"""Seconds between looking for new partitions, and for new topics of a pattern."""
_MOST_AHEAD: Final = 16 * 1024
"""kB that are fetched before they are asked for."""

logger: Final = structlog.get_logger("shopfloor.sources.kafka")


class Reading(NamedTuple):
    """What the plant file says of it."""

    name: str
    """The source's."""
    group: str
    alone: bool
    """Whether it takes all partitions, the group's name is then only where its offsets are shown."""
    topics: Sequence[str]
    """With `*` for any run of characters."""
    start: str
    """``earliest``, ``latest``, or ISO 8601."""


class Taken(NamedTuple):
    """What came since the last call."""

    messages: "list[Message]"
    lost: int = 0
    """Records that were gone before they could be read."""
    assigned: bool = False
    """Whether partitions were given to it."""
    begun: bool = False
    """Whether it begins in one where it never was: then where must be durable before anything else."""
    shrunk: bool = False
    """Whether it goes on before where it was, since the end of one was lost: then where must be durable, too."""


class Group:
    """Reads the partitions that are its own."""

    def __init__(self, connection: KafkaConnection, reading: Reading, offsets: Offsets, ids: Mapping[str, str]) -> None:
        """``offsets`` are durable, and the ids of the topics that they are of, as far as they are known."""
        self.offsets: Offsets = {topic: dict(parts) for topic, parts in offsets.items()}
        """Behind what was taken."""
        self.ids = dict(ids)
        """The cluster's ids of the topics that the offsets are of: one that is made anew has another."""
        self._connection = connection
        self._reading = reading
        self._seconds = connection.timeout / 1e9
        self._heard = Heard()
        self._consumer: Consumer | None = None
        self._subscribed = False
        self._look_at = 0.0
        """When to look for new partitions."""
        self._early: list[Message] = []
        self._mine: set[tuple[str, int]] = set()
        self._changed: set[tuple[str, int]] = set()
        """Partitions whose offset was not committed to the group yet."""
        self._committing = 0
        """Commits without an answer yet."""
        self._lost = 0
        self._assigned = self._begun = self._shrunk = False
        self._trouble: Exception | None = None
        self._stuck: set[tuple[str, int, str]] = set()
        """What the library said of a partition that it cannot read, until a record of it comes."""

    def connect(self, thread: ClientThread) -> None:
        """Find the cluster and the topics; joins nothing yet. Raises Unavailable, Misconfigured."""
        from confluent_kafka import Consumer, KafkaException  # noqa: PLC0415  # loaded where it is needed

        own = {
            "group.id": self._reading.group,
            "session.timeout.ms": 10_000,  # so long nobody has the partitions of one that was killed
            "enable.auto.commit": False,
            "on_commit": self._on_commit,
            "auto.offset.reset": "error",  # what is gone must be said
            "partition.assignment.strategy": "range,roundrobin",
            "queued.max.messages.kbytes": _MOST_AHEAD,
            "fetch.wait.max.ms": 500,
            "topic.metadata.refresh.interval.ms": int(_LOOK_EVERY * 1000),
        }
        given = settings(self._connection, self._heard)
        given["socket.timeout.ms"] = max(1000, given["socket.timeout.ms"])  # longer than a fetch may wait
        try:
            self._consumer = consumer = Consumer(given | own)
        except KafkaException as error:
            raise wrong_settings(error) from error
        metadata = reach(consumer, self._heard, thread, self._seconds, self._peek)
        exact = [topic for topic in self._reading.topics if "*" not in topic]
        refuse_missing(missing_topics(consumer, metadata, exact, self._seconds))

    def close(self) -> None:
        """Leave the cluster; commits that are under way, and leaving the group, get a moment.

        The library's own ``close`` would wait for as long as the group's coordinator is away; dropping the client
        ends it at once.
        """
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        if self._subscribed and not self._reading.alone:
            consumer.unsubscribe()
        else:
            self._mine = set()
        deadline = time.monotonic() + _MOMENT
        while (self._committing or self._mine) and self._heard.down is None and time.monotonic() < deadline:
            consumer.consume(1, timeout=0.05)  # serves what is heard; what comes is not ours any more
        del consumer

    def take(self, thread: ClientThread) -> Taken:
        """What has come, or nothing after a moment. Raises Unavailable, Misconfigured."""
        from confluent_kafka import KafkaException  # noqa: PLC0415  # loaded where it is needed

        try:
            return self._take(thread)
        except KafkaException as error:
            raise meaning(error.args[0], ", ".join(self._reading.topics)) from error

    def _take(self, thread: ClientThread) -> Taken:
        consumer = self._connected()
        if self._reading.alone:
            self._look_around(consumer)
        elif not self._subscribed:
            topics = [_regular(topic) for topic in self._reading.topics]
            consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke)
        self._subscribed = True
        came, self._early = self._early or consumer.consume(1, timeout=_WAIT), []
        if came:
            came += consumer.consume(_TOGETHER - len(came), timeout=0)
        self._check(thread, came)
        messages = [message for message in came if self._fits(message)]
        for message in messages:
            place = (str(message.topic()), int(message.partition() or 0))
            self._move(place, int(message.offset() or 0) + 1)
        taken = Taken(messages, self._lost, self._assigned, self._begun, self._shrunk)
        self._lost, self._assigned, self._begun, self._shrunk = 0, False, False, False
        return taken

    def commit(self) -> None:
        """What was taken is durable: tell the group, without waiting."""
        from confluent_kafka import KafkaException, TopicPartition  # noqa: PLC0415  # as above

        changed, self._changed = self._changed & self._mine, set()
        if changed:
            positions = [TopicPartition(topic, part, self.offsets[topic][part]) for topic, part in changed]
            with contextlib.suppress(KafkaException):  # the journal has them; the next one tells the group, too
                self._connected().commit(offsets=positions, asynchronous=True)
                self._committing += 1

    # ---- inside -------------------------------------------------------------------------------------

    def _connected(self) -> "Consumer":
        if self._consumer is None:
            raise Unavailable("not connected")
        return self._consumer

    def _peek(self) -> None:
        """Let the library say what it heard; a record that comes meanwhile is kept."""
        self._early += self._connected().consume(1, timeout=0)

    def _move(self, place: tuple[str, int], offset: int) -> None:
        self.offsets.setdefault(place[0], {})[place[1]] = offset
        self._changed.add(place)

    def _check(self, thread: ClientThread, came: "Sequence[Message]") -> None:
        self._heard.check()
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        if self._heard.down is not None and not came:
            reach(self._connected(), self._heard, thread, self._seconds, self._peek)

    def _fits(self, message: "Message") -> bool:
        """Whether it is a record, from where reading has come to; what is none is acted on."""
        place = (str(message.topic()), int(message.partition() or 0))
        error = message.error()
        if error is None:
            if self._stuck:
                self._goes_on(place)
            return place in self._mine and int(message.offset() or 0) >= self.offsets.get(place[0], {}).get(place[1], 0)
        name = error.name()
        if name == "_AUTO_OFFSET_RESET":
            self._reset(place)
        elif name in UNKNOWN:
            raise Unavailable(f"topic {message.topic()} is not there any more")  # connecting again says whether it is
        elif name == "GROUP_AUTHORIZATION_FAILED":
            raise Misconfigured(
                f"the cluster does not let us use the group: {error.str()}; allow it in its access list, or set `group`"
            )
        elif error.fatal() or name == "TOPIC_AUTHORIZATION_FAILED":
            raise meaning(error, str(message.topic()))
        elif (*place, name) not in self._stuck:
            self._stuck.add((*place, name))
            logger.warning(
                "reading fails; it is tried again", component=self._reading.name, topic=message.topic(),
                partition=message.partition(), reason=error.str(),
            )  # fmt: skip
        return False

    def _goes_on(self, place: tuple[str, int]) -> None:
        """A record came: say that of a partition which could not be read."""
        stuck = {said for said in self._stuck if said[:2] == place}
        if stuck:
            self._stuck -= stuck
            logger.info("reading goes on", component=self._reading.name, topic=place[0], partition=place[1])

    def _reset(self, place: tuple[str, int]) -> None:
        """Its offset is not there (any more): go on where there is something."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415  # as above

        consumer = self._connected()
        if place in self._mine:
            low, high = self._ends(*place)
            known = self.offsets[place[0]][place[1]]
            same, _ = self._compared([place[0]])
            self._move(place, self._checked(place, known, low, high, same=place[0] in same))
            self._assigned = True
            consumer.assign([TopicPartition(t, part, self.offsets[t][part]) for t, part in self._mine])

    def _look_around(self, consumer: "Consumer") -> None:
        """Take partitions and topics that are new. Raises Unavailable, Misconfigured."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415  # as above

        if self._subscribed and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY
        patterns = [tag_pattern(topic) for topic in self._reading.topics]
        topics = consumer.list_topics(timeout=self._seconds).topics
        places = {
            (name, part)
            for name, topic in topics.items()
            if topic.error is None and any(pattern.fullmatch(name) for pattern in patterns)
            for part in topic.partitions
        }
        if new := places - self._mine:
            self._begin(consumer, [TopicPartition(*place) for place in sorted(new)])
            self._mine |= new
            consumer.assign([TopicPartition(t, part, self.offsets[t][part]) for t, part in self._mine])

    def _on_assign(self, consumer: "Consumer", partitions: "list[TopicPartition]") -> None:
        from confluent_kafka import KafkaException  # noqa: PLC0415  # as above

        try:
            self._begin(consumer, partitions)
        except (KafkaException, Unavailable, Misconfigured) as error:  # the library would lose it; ``take`` raises it
            topics = ", ".join({one.topic for one in partitions})
            self._trouble = meaning(error.args[0], topics) if isinstance(error, KafkaException) else error
            consumer.assign([])
        else:
            for one in partitions:
                one.offset = self.offsets[one.topic][one.partition]
            self._mine = {(one.topic, one.partition) for one in partitions}
            consumer.assign(partitions)

    def _begin(self, consumer: "Consumer", partitions: "list[TopicPartition]") -> None:
        """Find out where to begin in partitions that are new to it."""
        committed = consumer.committed(partitions, timeout=self._seconds) if partitions else []
        started = {topic for topic, parts in self.offsets.items() if parts}
        same, anew = self._compared(sorted({one.topic for one in committed}))
        for one in committed:
            place = (one.topic, one.partition)
            low, high = self._ends(*place)
            told = -1 if one.topic in anew and self._reading.alone else one.offset
            known = max(self.offsets.get(one.topic, {}).get(one.partition, -1), told)
            if known >= 0:
                self._move(place, self._checked(place, known, low, high, same=one.topic in same))
            else:
                self._begun = True
                self._move(place, self._first(place, started, low, high))
        self._assigned = self._assigned or bool(partitions)

    def _on_revoke(self, consumer: "Consumer", _partitions: "list[TopicPartition]") -> None:
        self._mine = set()
        consumer.unassign()

    def _on_commit(self, _error: object, _partitions: object) -> None:
        self._committing -= 1

    def _ends(self, topic: str, partition: int) -> tuple[int, int]:
        """The lowest offset that is there, and the one behind the highest."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415  # as above

        found = self._connected().get_watermark_offsets(TopicPartition(topic, partition), timeout=self._seconds)
        if not found:  # the library says None when the time is over, whatever its types say
            raise Unavailable(f"the cluster does not say what partition {partition} of {topic} has")
        return int(found[0]), int(found[1])

    def _compared(self, topics: Sequence[str]) -> tuple[set[str], set[str]]:
        """Those of the topics that are certainly the ones that the offsets are of, and those that were made anew.

        The offsets of the latter are forgotten. Raises Unavailable when one of them is being read: the next connection
        begins in all of its partitions.
        """
        same: set[str] = set()
        anew: set[str] = set()
        for topic, now in topic_ids(self._connection, topics).items():
            before = self.ids.get(topic)
            if before == now:
                same.add(topic)
            elif before is not None:
                if any(topic == mine for mine, _ in self._mine):
                    raise Unavailable(f"topic {topic} was made anew")
                anew.add(topic)
                if self.offsets.pop(topic, None):
                    logger.warning(
                        "the topic was made anew; it is read from its beginning",
                        component=self._reading.name, topic=topic,
                    )  # fmt: skip
            self.ids[topic] = now
        return same, anew

    def _checked(self, place: tuple[str, int], known: int, low: int, high: int, *, same: bool) -> int:
        """Where to go on; what is gone is said, and counted as lost.

        ``same``: whether what is ``known`` is certainly of this topic, and not of one before it with its name.
        """
        if low <= known <= high:
            return known
        where = {"component": self._reading.name, "topic": place[0], "partition": place[1]}
        if known < low:
            self._lost += low - known
            logger.warning(
                "records were gone before they could be read: the topic's retention had passed; keep them for longer",
                **where, records=low - known,
            )  # fmt: skip
        elif same:
            self._shrunk = True
            logger.warning(
                "the partition ends before what was read of it: the cluster lost its end; what comes now is read",
                **where, read=known, end=high,
            )  # fmt: skip
            return high
        else:
            logger.warning(
                "the partition ends before what was read of it: the topic was made anew or its end was lost; "
                "it is read from its beginning",
                **where, read=known, end=high,
            )  # fmt: skip
        return low

    def _first(self, place: tuple[str, int], started: set[str], low: int, high: int) -> int:
        """Where to begin in a partition that nobody knows.

        One that came later, of a topic or a pattern that is being read, is read from its beginning: else what came
        between its making and now would be lost.
        """
        from confluent_kafka import TopicPartition  # noqa: PLC0415  # as above

        entries = [tag_pattern(topic) for topic in self._reading.topics]
        entry = next((one for one in entries if one.fullmatch(place[0])), None)
        later = entry is not None and any(entry.fullmatch(topic) for topic in started)
        if later or self._reading.start == "earliest":
            return low
        if self._reading.start == "latest":
            return high
        moment = int(datetime.fromisoformat(self._reading.start).timestamp() * 1000)
        found = self._connected().offsets_for_times([TopicPartition(*place, moment)], timeout=self._seconds)[0]
        return found.offset if found.offset >= 0 else high


def _regular(topic: str) -> str:
    """A pattern as the library writes it."""
    return topic if "*" not in topic else "^" + topic.replace(".", r"\.").replace("*", ".*") + "$"
