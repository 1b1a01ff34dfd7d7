"""A real Apache Kafka broker for tests and benches; built in a checkout of Shopfloor only (tests/peers/kafka)."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,  # pyright: ignore[reportPrivateImportUsage]  # documented there
    NewTopic,  # pyright: ignore[reportPrivateImportUsage]  # documented there
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage]  # documented there
)

import shopfloor
from shopfloor.testing.programs import ServerProcess, free_port, missing, require_program

HOW_TO_INSTALL: Final = "apt-get install maven default-jdk-headless, then make test"
BUILT: Final = Path(shopfloor.__file__).parents[2] / "tests" / "peers" / "kafka" / "target"
QUIET: Final[dict[str, Any]] = {"log_level": 0, "logger": logging.getLogger("shopfloor.kafka.client")}
"""Settings of a client that does not repeat on stderr what the other side does."""
WITHIN: Final = 180.0
"""Seconds for a start: a JVM beside other tests on a slow machine."""
_CLUSTER: Final = "c2hvcGZsb29yLXRlc3QtMQ"


class Broker(ServerProcess):
    """A broker that a test may stop and kill; its data stay in the folder. ``server`` is its address."""

    def __init__(self, folder: Path, *, via: int | None = None, memory: str = "256m") -> None:
        """``via`` is the port that it says of itself, ``memory`` that of the Java machine."""
        port, controller = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        own = settings(folder, port, controller)
        own["advertised.listeners"] = f"PLAIN://127.0.0.1:{via or port}"
        self.server = f"127.0.0.1:{port}"
        command = java(folder, own, memory=memory)
        super().__init__(command, port, within=WITHIN, ready=lambda: serves(self.server))


def java(folder: Path, own: Mapping[str, str], users: Path | None = None, *, memory: str = "256m") -> list[str | Path]:
    """The command that starts a broker with these settings; it ends by itself once nobody holds a lock on ``users``."""
    if not (BUILT / "lib").is_dir():
        missing("Kafka's broker is not built", HOW_TO_INSTALL)
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in own.items()))
    classes = os.pathsep.join((str(BUILT / "classes"), str(BUILT / "lib" / "*")))
    return [
        require_program("java", "apt-get install default-jdk-headless"), "-Xms64m", f"-Xmx{memory}", "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1", "-cp", classes, "peer.Broker", file, _CLUSTER, *([] if users is None else [users]),
    ]  # fmt: skip


def settings(folder: Path, port: int, controller: int) -> dict[str, str]:
    """Of a node that is broker and controller, with small buffers."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAIN",
        "log.dirs": str(folder / "data"),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "num.network.threads": "1",
        "num.io.threads": "2",
        "log.cleaner.dedupe.buffer.size": str(10 * 2**20),
        "log.retention.check.interval.ms": "500",
        "log.initial.task.delay.ms": "500",
        "file.delete.delay.ms": "100",
        "message.max.bytes": "4000000",
    }  # fmt: skip


def serves(server: str) -> bool:
    """Whether a broker answers there."""
    with suppress(KafkaException):
        found: Any = AdminClient({"bootstrap.servers": server, **QUIET}).list_topics(timeout=1)
        return bool(found.brokers)
    sleep(0.05)
    return False


def create(server: str, *topics: str, partitions: int = 2, **config: str) -> None:
    """Make topics and wait until they can be used."""
    admin: Any = AdminClient({"bootstrap.servers": server, **QUIET})
    named = {name.replace("_", "."): value for name, value in config.items()}
    for done in admin.create_topics([NewTopic(t, partitions, 1, config=named) for t in topics]).values():
        done.result(30)
    untyped: Any = OffsetSpec
    latest = untyped.latest()
    places = {TopicPartition(topic, number): latest for topic in topics for number in range(partitions)}
    deadline = monotonic() + WITHIN
    while not _led(admin, places):
        assert monotonic() < deadline, "the topics did not appear"


def _led(admin: Any, places: dict[TopicPartition, Any]) -> bool:
    """Whether each partition has a leader that knows it: it needs a moment for that."""
    try:
        for asked in admin.list_offsets(places).values():
            asked.result(30)
    except KafkaException:
        sleep(0.02)
        return False
    return True
