"""An idempotent producer: it takes records and says of each whether all replicas hold it."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shopfloor.protocols.kafka import ClientThread, Heard, meaning
from shopfloor.samples import Unavailable

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

_REFUSED: Final = {
    "MSG_SIZE_TOO_LARGE": "more than the topic takes of a message (max.message.bytes)",
    "INVALID_MSG_SIZE": "more than the topic takes of a message",
    "RECORD_LIST_TOO_LARGE": "more than a segment of the topic takes",
    "INVALID_TIMESTAMP": "the topic does not take its time; set `timestamp: sent`, or the topic's "
    "message.timestamp.after.max.ms",
    "INVALID_RECORD": "the cluster refuses the record",
    "POLICY_VIOLATION": "it breaks a rule of the cluster",
    "TOPIC_EXCEPTION": "the cluster does not take the topic's name",
}  # fmt: skip
"""What is refused for good, whatever is done here."""
_INNOCENT: Final = "_INVALID_DIFFERENT_RECORD"
_OF_BATCH: Final = frozenset((
    "MSG_SIZE_TOO_LARGE", "INVALID_MSG_SIZE", "RECORD_LIST_TOO_LARGE", "INVALID_TIMESTAMP", "INVALID_RECORD", _INNOCENT,
))  # fmt: skip
"""What is said of records of a batch of which the broker takes none. Of several causes the client library says
INVALID_RECORD, whatever they are; of those that are none, that another one was."""
_OVERHEAD: Final = 400
"""Bytes that a record may have in its batch beside key and value: our headers have 200 at most."""
_FRAME: Final = 80
"""Bytes of a record, and its share of the batch, beside key, value and headers."""
_MOST: Final = 8000
"""Records that are sent together; the library's own limit of a batch is 10000."""


class Record(NamedTuple):
    """A message to be written."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    time: int
    """ms UTC; 0: the time of writing."""


def size(record: Record) -> int:
    """How many bytes a batch with nothing else may have."""
    return _OVERHEAD + len(record.key) + len(record.value)


def _together(records: Sequence[Record], most: int) -> Iterator[Sequence[int]]:
    """The places of records that fit into one batch a partition, which ``most`` bytes may have.

    Only when that is taken the next ones follow: else records of a batch that is refused, which are written again,
    would stand behind later ones of their key.
    """
    begin, room = 0, most
    for place, (_, key, value, headers, _) in enumerate(records):
        needs = _FRAME + len(key) + len(value) + sum(len(name) + len(said) for name, said in headers)
        if place > begin and (needs > room or place - begin == _MOST):
            yield range(begin, place)
            begin, room = place, most
        room -= needs
    if records:
        yield range(begin, len(records))


class Delivery:
    """Records that are under way; works in the client's thread."""

    def __init__(self, producer: Any, heard: Heard, thread: ClientThread, seconds: float, most: int) -> None:
        """``seconds``: how long nothing may be confirmed. ``most``: bytes that the library puts into a batch.

        The producer must not send before it is flushed, so that what is sent together is one batch a partition.
        """
        self._producer = producer
        self._heard = heard
        self._thread = thread
        self._seconds = seconds
        self._most = most - _FRAME
        self._records: Sequence[Record] = ()
        self._sent = self._done = 0
        self._heard_at = 0.0
        self._failed: list[tuple[KafkaError, Message]] = []

    def deliver(self, records: Sequence[Record]) -> dict[int, str]:
        """Write the records; returns why some are refused, by their place. All others are held then.

        Raises Unavailable, Misconfigured: then what is held is not known, and nothing is under way any more.
        """
        refused: dict[int, str] = {}
        for places in _together(records, self._most):
            for place, error in self._write(records, places).items():
                refused[place] = _REFUSED[error.name()]
        return refused

    def _write(self, records: Sequence[Record], places: Sequence[int]) -> dict[int, "KafkaError"]:
        """Write these of the records; returns the errors of those that are refused for themselves."""
        errors = self._send(records, places)
        alone = len(places) == 1
        for place, error in errors.items():
            if error.name() not in _REFUSED and (alone or error.name() != _INNOCENT):
                raise meaning(error, records[place].topic)
        again = sorted(place for place, error in errors.items() if error.name() in _OF_BATCH)
        if alone or not again:
            return errors
        # The broker took none of the batch: by smaller ones each record is taken, or named with its own reason. Those
        # that it names beside innocent ones are the cause, else all may be; in order, as they stand.
        innocent = [place for place in again if errors[place].name() == _INNOCENT]
        causes = [place for place in again if errors[place].name() != _INNOCENT]
        half = (len(again) + 1) // 2
        named = innocent or errors[again[0]].name() == "INVALID_RECORD"
        found = {place: error for place, error in errors.items() if error.name() not in _OF_BATCH}
        groups = [innocent, *([place] for place in causes)] if causes and named else [again[:half], again[half:]]
        for group in filter(None, groups):
            found |= self._write(records, group)
        return found

    def _send(self, records: Sequence[Record], places: Sequence[int]) -> dict[int, "KafkaError"]:
        """Write these of the records; returns the errors by place."""
        from confluent_kafka import KafkaException  # noqa: PLC0415  # loaded where it is needed

        errors: dict[int, KafkaError] = {}
        self._failed.clear()
        self._sent = self._done = 0
        self._heard_at = time.monotonic()
        produce, said = self._producer.produce, self._said
        for place in places:
            topic, key, value, headers, stamp = records[place]
            while True:
                try:
                    produce(topic, value, key, on_delivery=said, timestamp=stamp, headers=headers)
                except BufferError:
                    self._wait(0.1)
                    continue
                except KafkaException as error:
                    errors[place] = error.args[0]
                else:
                    self._sent += 1
                break
            if not self._sent % 1000:
                self._wait(0.0)
        while self._wait(0.1):
            pass
        return errors | self._reported(records, places)

    def _reported(self, records: Sequence[Record], places: Sequence[int]) -> dict[int, "KafkaError"]:
        """The errors that the cluster reported, by content: a report has no headers."""
        if not self._failed:
            return {}
        errors = {(said.topic(), said.key(), said.value()): error for error, said in self._failed}
        return {place: errors[records[place][:3]] for place in places if records[place][:3] in errors}

    def _wait(self, seconds: float) -> int:
        """Hear what was confirmed; returns how many records are still under way.

        Raises Unavailable when nothing was confirmed for too long, Misconfigured when a person must act.
        """
        self._producer.poll(0)
        left = self._producer.flush(seconds) if seconds else len(self._producer)
        self._heard.check()
        if self._thread.left:
            raise Unavailable("left while it was writing")
        if self._sent - left > self._done:
            self._done = self._sent - left
            self._heard_at = time.monotonic()
            self._heard.down = None
        elif left and time.monotonic() - self._heard_at > self._seconds:
            why = f": {self._heard.down}" if self._heard.down else ""
            raise Unavailable(f"the cluster confirms nothing for {self._seconds:g} s{why}")
        return left

    def _said(self, error: "KafkaError | None", message: "Message") -> None:
        """Called for what failed only."""
        if error is not None:
            self._failed.append((error, message))


def close(producer: Any) -> Callable[[], None]:
    """What closes the producer; what is under way is given up."""

    def closing() -> None:
        producer.purge()
        producer.flush(0)
        producer.close()

    return closing
