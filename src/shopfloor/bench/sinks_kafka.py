"""Kafka for ``shopfloor bench sinks``: the sink beside the library's own producer with the same records.

The broker is one node with no replicas, on this machine: what is measured is what the sink costs.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Producer, TopicPartition

from shopfloor.plant import SinkConfig
from shopfloor.samples import Batch, Misconfigured
from shopfloor.sinks.kafka import KafkaSinkConfig
from shopfloor.sinks.readings import reading
from shopfloor.testing import kafka

_PARTITIONS: Final = 6
_SECONDS: Final = 60.0
_Record = tuple[bytes, bytes, list[tuple[str, bytes]]]


class KafkaBench:
    """A broker; each run has topics of its own."""

    name: str = "kafka"
    bulk: str = "confluent-kafka's producer"
    share: float = 0.5

    def __init__(self) -> None:
        """Nothing is started yet. Raises Misconfigured where there is no Java, or the broker is not built."""
        if not shutil.which("java") or not (kafka.BUILT / "lib").is_dir():
            raise Misconfigured(f"Kafka's broker is not there; build it with: {kafka.HOW_TO_INSTALL}")
        self._folder = tempfile.TemporaryDirectory(prefix="shopfloor-bench-")
        self._server = kafka.Broker(Path(self._folder.name), memory="1g")
        self._admin: Any = None
        self._groups: list[list[_Record]] = []
        self._run = 0

    def __enter__(self) -> Self:
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415  # pyright: ignore[reportPrivateImportUsage]

        self._server.start()
        self._admin = AdminClient({"bootstrap.servers": self._server.server, **kafka.QUIET})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._admin = None
        self._server.stop()
        self._folder.cleanup()

    def config(self, run: int) -> SinkConfig:
        """A sink with a topic of its own, which is made here."""
        names = [f"sink-{run}", f"bulk-{run}"]
        kafka.create(self._server.server, *names, partitions=_PARTITIONS)
        return KafkaSinkConfig.model_validate({
            "name": f"kafka-{run}", "type": "kafka", "servers": self._server.server, "topic": names[0],
            "timeout": round(_SECONDS * 1e9),
        })  # fmt: skip

    def prepare(self, run: int, groups: Sequence[Sequence[Batch]]) -> None:
        """Make finished records: the same keys, values and headers."""
        self._run = run
        if self._groups:
            return
        entry = 0
        for group in groups:
            records: list[_Record] = []
            for batch in group:
                entry += 1
                for place, sample in enumerate(batch):
                    named = [("writer", b".kafka-0"), ("entry", b"%d" % entry), ("place", b"%d" % place)]
                    key = sample.tag.partition("/")[0].encode()
                    records.append((key, reading(sample, "ns", tag=True), named))
            self._groups.append(records)

    def load(self) -> None:
        """A group after the other, each confirmed before the next, with the settings of the sink."""
        producer: Any = Producer({
            "bootstrap.servers": self._server.server, "enable.idempotence": True, "acks": "all",
            "delivery.report.only.error": True, "compression.type": "lz4", "batch.size": 1_000_000,
            "partitioner": "murmur2_random", "linger.ms": 1, "queue.buffering.max.messages": 10_000_000, **kafka.QUIET,
        })  # fmt: skip
        topic = f"bulk-{self._run}"
        for records in self._groups:
            for key, value, named in records:
                producer.produce(topic, value, key, headers=named)
            if producer.flush(_SECONDS):
                raise RuntimeError("the broker does not confirm the records")

    def counted(self, run: int) -> tuple[int, int]:
        """How many records each topic has; gives them up."""
        names = [f"sink-{run}", f"bulk-{run}"]
        found = self._ends(names[0]), self._ends(names[1])
        for done in self._admin.delete_topics(names).values():
            done.result(_SECONDS)
        return found

    def _ends(self, topic: str) -> int:
        """The records of all partitions: nothing was deleted, and no transactions take places."""
        from confluent_kafka.admin import OffsetSpec  # noqa: PLC0415  # pyright: ignore[reportPrivateImportUsage]

        latest: Any = OffsetSpec
        asked = {TopicPartition(topic, number): latest.latest() for number in range(_PARTITIONS)}
        return sum(done.result(_SECONDS).offset for done in self._admin.list_offsets(asked).values())
