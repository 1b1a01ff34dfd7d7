"""A real Apache Kafka broker for tests: one for all that do not stop it, and others for those that do."""

import fcntl
import json
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from shopfloor.testing.certificates import Authority, Identity
from shopfloor.testing.kafka import QUIET, WITHIN, Broker, create, java, serves, settings
from shopfloor.testing.programs import free_port

__all__ = ["QUIET", "Broker", "Shared", "create", "delete", "everything", "headers", "once", "put", "shared", "slot"]

SLOTS: Final = 8
"""Listeners that say the port of a proxy: as many workers of the tests can break connections at a time."""
PASSWORD: Final = "s3cret"


class Shared:
    """The broker that all tests of a run share, over all workers; nobody stops it, and it ends with its last user."""

    def __init__(self, where: Mapping[str, Any]) -> None:
        self.server: str = where["server"]
        self.sasl: str = where["sasl"]
        """Of the listener that wants a user: ``limited``, who may write to and read from topics named ``open…``."""
        self.tls: str = where["tls"]
        """Of the listener with TLS that wants a user."""
        self.authority = Path(where["authority"])
        self.slots: list[tuple[int, int]] = [tuple(slot) for slot in where["slots"]]
        """Ports of listeners, and the port that the broker says each of them has."""
        self.admin = AdminClient({"bootstrap.servers": self.server, **QUIET})
        self.admin.list_topics(timeout=30)  # now: connecting some seconds later, a test would take it for a leak


def shared(root: Path) -> tuple[Shared, Any]:
    """The run's broker, started if it is not there; it ends once every file that came with it is closed."""
    root.mkdir(exist_ok=True)
    with (root / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        users = (root / "users").open("a+")
        fcntl.lockf(users, fcntl.LOCK_SH)
        where = root / "where.json"
        if where.exists():
            found = Shared(json.loads(where.read_text()))
            if serves(found.server):
                return found, users
            shutil.rmtree(root / "broker", ignore_errors=True)
        where.write_text(json.dumps(_start(root / "broker", Path(users.name))))
        return Shared(json.loads(where.read_text())), users


def slot(root: Path, kafka: Shared) -> tuple[tuple[int, int], Any]:
    """A listener and its proxy's port for this process alone, until the file that comes with them is closed."""
    for number, ports in enumerate(kafka.slots):
        file = (root / f"slot{number}").open("w")
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ports, file
        file.close()
    raise RuntimeError(f"more than {SLOTS} workers break Kafka's connections; raise SLOTS")


def _start(folder: Path, users: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    port, controller, sasl, tls = (free_port() for _ in range(4))
    slots = [(free_port(), _claimed()) for _ in range(SLOTS)]
    authority = Authority(folder / "ca")
    store = _store(folder, authority.server())
    names = ["PLAIN", "SASL", "TLS", *(f"SLOT{i}" for i in range(SLOTS))]
    ports = [port, sasl, tls, *(own for own, _ in slots)]
    said = [port, sasl, tls, *(via for _, via in slots)]
    own = settings(folder, port, controller) | {
        "listeners": ",".join(
            [*(f"{n}://127.0.0.1:{p}" for n, p in zip(names, ports, strict=True)), f"CONTROLLER://127.0.0.1:{controller}"]
        ),
        "advertised.listeners": ",".join(f"{n}://127.0.0.1:{p}" for n, p in zip(names, said, strict=True)),
        "listener.security.protocol.map": ",".join(
            [*(f"{n}:PLAINTEXT" for n in names if n not in ("SASL", "TLS")), "SASL:SASL_PLAINTEXT", "TLS:SASL_SSL",
             "CONTROLLER:PLAINTEXT"]
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "sasl.enabled.mechanisms": "PLAIN",
        "auto.create.topics.enable": "true",  # Kafka's own default: we must not make use of it
    }  # fmt: skip
    for name in ("sasl", "tls"):
        own[f"listener.name.{name}.sasl.enabled.mechanisms"] = "PLAIN"
        own[f"listener.name.{name}.plain.sasl.jaas.config"] = (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_limited="{PASSWORD}";'
        )
    command = [str(part) for part in java(folder, own, users)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _STARTED.append(process)
    deadline = monotonic() + WITHIN
    server = f"127.0.0.1:{port}"
    while not serves(server):
        if process.poll() is not None or monotonic() > deadline:
            process.kill()
            pytest.fail(f"Kafka did not start; it said:\n{(folder / 'log').read_text()[-5000:]}")
    _allow(AdminClient({"bootstrap.servers": server, **QUIET}))
    return {
        "server": server, "sasl": f"127.0.0.1:{sasl}", "tls": f"127.0.0.1:{tls}",
        "authority": str(authority.certificate), "slots": slots,
    }  # fmt: skip


_CLAIMS: Final[list[socket.socket]] = []
_STARTED: Final[list[subprocess.Popen[bytes]]] = []
"""Kept, since Python complains of one that is forgotten while it runs; it ends by itself."""


def _claimed() -> int:
    """A port that stays this run's, where a proxy can listen."""
    port = free_port()
    claim = socket.socket()
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    claim.bind(("127.0.0.1", port))
    _CLAIMS.append(claim)
    return port


def _allow(admin: AdminClient) -> None:
    """``limited`` may use topics that begin with ``open``, and groups of any name."""
    from confluent_kafka.admin import (  # noqa: PLC0415  # of this function only
        AclBinding,
        AclOperation,
        AclPermissionType,
        ResourcePatternType,
        ResourceType,
    )

    rules = [
        AclBinding(kind, name, pattern, "User:limited", "*", AclOperation.ALL, AclPermissionType.ALLOW)
        for kind, name, pattern in (
            (ResourceType.TOPIC, "open", ResourcePatternType.PREFIXED),
            (ResourceType.GROUP, "open", ResourcePatternType.PREFIXED),
        )
    ]
    for done in admin.create_acls(rules).values():
        done.result(30)


def _store(folder: Path, identity: Identity) -> Path:
    """Key and certificates in one PEM file, as Kafka wants them; the key as PKCS 8."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # of this function only

    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    store = folder / "server-store.pem"
    store.write_bytes(text + identity.certificate.read_bytes())
    return store


def delete(server: str, *topics: str) -> None:
    """Take topics away."""
    admin = AdminClient({"bootstrap.servers": server, **QUIET})
    for done in admin.delete_topics(list(topics)).values():
        done.result(30)
    deadline = monotonic() + 120
    while set(topics) & set(admin.list_topics(timeout=30).topics):
        assert monotonic() < deadline, "the topics are still there"


def everything(server: str, topic: str) -> list[Message]:
    """All messages of a topic, partition by partition, in order."""
    consumer = Consumer({
        "bootstrap.servers": server, "group.id": "observer", "enable.auto.commit": False,
        "enable.partition.eof": False, "fetch.wait.max.ms": 10, **QUIET,
    })  # fmt: skip
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        found: list[Message] = []
        for number in sorted(partitions):
            low, high = _ends(consumer, TopicPartition(topic, number))
            consumer.assign([TopicPartition(topic, number, low)])
            position = low
            while position < high:
                for message in consumer.consume(min(10_000, high - position), timeout=0.5):
                    assert message.error() is None, message.error()
                    position = (message.offset() or 0) + 1
                    found.append(message)
        return found
    finally:
        consumer.close()


def _ends(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """First and next offset; a broker that hung for a while is nobody's leader for a moment."""
    deadline = monotonic() + 60
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=30)
        except KafkaException as error:
            if error.args[0].name() != "NOT_LEADER_FOR_PARTITION" or monotonic() > deadline:
                raise
            sleep(0.1)
        else:
            return low, high


def headers(message: Message) -> dict[str, str]:
    """The headers of a message; each name stands once there."""
    return {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in dict(message.headers() or ()).items()
    }


def once(messages: Sequence[Message]) -> list[Message]:
    """The messages without what came again, told by the headers as docs/connectors/kafka-sink.md says."""
    found: dict[tuple[str, ...], Message] = {}
    for message in messages:
        said = headers(message)
        found.setdefault((said["writer"], said["entry"], said["place"]), message)
    return list(found.values())


def put(server: str, topic: str, messages: Sequence[tuple[str, bytes | None]], **settings: Any) -> None:
    """Write messages, each a key and a payload, and wait until the broker has them."""
    producer = Producer({"bootstrap.servers": server, "linger.ms": 0, **QUIET})
    for key, payload in messages:
        producer.produce(topic, payload, key, **settings)
    assert not producer.flush(60)
    producer.close()
