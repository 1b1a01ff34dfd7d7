"""Kafka's topics as a plant file wants them: which are missing or otherwise, and making those that are missing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from shopfloor.protocols.kafka import UNKNOWN, ClientThread, Cluster, Heard, meaning, reach, settings, wrong_settings
from shopfloor.samples import Misconfigured, Unavailable

_LONGEST: Final = 60.0
"""Seconds within which the cluster must have made its topics."""
_NO_ID: Final = "A" * 22
"""Zero, which no topic has."""
_NO_IDS: Final = UNKNOWN | {"_UNSUPPORTED_FEATURE", "UNSUPPORTED_VERSION", "TOPIC_AUTHORIZATION_FAILED"}
"""What is said by a cluster, or of a topic, whose id cannot be had."""


class TopicSettings(Protocol):
    """How a topic shall be: the fields of its config model."""

    @property
    def partitions(self) -> int: ...  # noqa: D102  # the model's fields document each
    @property
    def replication(self) -> int | None: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, str]: ...  # noqa: D102


class Wanted(NamedTuple):
    """A topic that a component names."""

    topic: str
    settings: TopicSettings | None
    """None: as the cluster makes them."""


class Found(NamedTuple):
    """How a topic stands."""

    topic: str
    result: Literal["ok", "created", "missing", "differs", "failed"]
    detail: str = ""
    """What differs or failed, and what to do."""


class Topics:
    """One cluster, asked by an administrator's connection."""

    def __init__(self, connection: Cluster) -> None:
        """Opens nothing yet."""
        self._connection = connection
        self._seconds = connection.timeout / 1e9
        self._heard = Heard()
        self._thread = ClientThread("kafka-topics")

    async def look(self, wanted: Sequence[Wanted], *, create: bool) -> list[Found]:
        """How each topic stands; with ``create`` those that are missing are made. Raises Unavailable, Misconfigured."""
        admin = await self._thread.run(self._connect)
        try:
            return await self._thread.run(self._look, admin, wanted, create)
        finally:
            await self._thread.end(int)

    def _connect(self) -> Any:
        from confluent_kafka import KafkaException  # noqa: PLC0415  # loaded where it is needed
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415  # as above

        try:
            return AdminClient(settings(self._connection, self._heard))
        except KafkaException as error:
            raise wrong_settings(error) from error

    def _look(self, admin: Any, wanted: Sequence[Wanted], create: bool) -> list[Found]:  # noqa: FBT001  # by ``run``
        metadata = reach(admin, self._heard, self._thread, self._seconds, lambda: admin.poll(0))
        there = {name: topic for name, topic in metadata.topics.items() if topic.error is None}
        found = {one.topic: Found(one.topic, "missing") for one in wanted if one.topic not in there}
        found |= self._compared(admin, [one for one in wanted if one.topic in there], there)
        if create:
            found |= self._create(admin, [one for one in wanted if one.topic not in there])
        return [found[name] for name in sorted(found)]

    def _compared(self, admin: Any, wanted: Sequence[Wanted], there: Any) -> dict[str, Found]:
        """How those stand that are there."""
        found: dict[str, Found] = {}
        settings_of = self._settings(admin, [one.topic for one in wanted if one.settings and one.settings.settings])
        for one in wanted:
            if one.settings is None:
                found[one.topic] = Found(one.topic, "ok")
                continue
            differs = list(_partitions(one.settings, there[one.topic]))
            said = settings_of.get(one.topic)
            differs += [] if said is None else _otherwise(one.settings, said)
            found[one.topic] = Found(one.topic, "differs" if differs else "ok", "; ".join(differs))
        return found

    def _settings(self, admin: Any, topics: Sequence[str]) -> dict[str, dict[str, str] | None]:
        """The settings of topics; None where we may not see them."""
        from confluent_kafka import KafkaException  # noqa: PLC0415  # loaded where it is needed
        from confluent_kafka.admin import (  # noqa: PLC0415  # as above
            ConfigResource,  # pyright: ignore[reportPrivateImportUsage]  # documented there
            ResourceType,  # pyright: ignore[reportPrivateImportUsage]  # documented there
        )

        if not topics:
            return {}
        asked = admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in topics], request_timeout=self._seconds
        )
        found: dict[str, dict[str, str] | None] = {}
        for resource, said in asked.items():
            try:
                found[resource.name] = {name: entry.value or "" for name, entry in said.result(_LONGEST).items()}
            except KafkaException:
                found[resource.name] = None
            except TimeoutError as error:
                raise Unavailable(f"the cluster does not say how topic {resource.name} is set") from error
        return found

    def _create(self, admin: Any, wanted: Sequence[Wanted]) -> dict[str, Found]:
        from confluent_kafka import KafkaException  # noqa: PLC0415  # loaded where it is needed
        from confluent_kafka.admin import (  # noqa: PLC0415  # as above
            NewTopic,  # pyright: ignore[reportPrivateImportUsage]  # documented there
        )

        if not wanted:
            return {}
        new = [
            NewTopic(one.topic)
            if one.settings is None
            else NewTopic(
                one.topic, one.settings.partitions, one.settings.replication or -1, config=dict(one.settings.settings)
            )
            for one in wanted
        ]
        found: dict[str, Found] = {}
        for name, done in admin.create_topics(new, operation_timeout=self._seconds).items():
            try:
                done.result(_LONGEST)
            except KafkaException as error:
                found[name] = _not_made(name, error.args[0])
            except TimeoutError as error:
                raise Unavailable(f"the cluster does not say whether it made {name}") from error
            else:
                found[name] = Found(name, "created")
        return found


def _not_made(name: str, error: Any) -> Found:
    if error.name() == "TOPIC_ALREADY_EXISTS":
        return Found(name, "ok", "somebody else made it meanwhile")
    if error.name() in ("TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"):
        return Found(
            name, "failed", "we may not create topics; allow it in the cluster's access list, or let others do it"
        )
    if error.name() == "INVALID_REPLICATION_FACTOR":
        return Found(name, "failed", f"{error.str()} Set `replication` to as many brokers as there are, at most")
    return Found(name, "failed", error.str())


def _partitions(wanted: TopicSettings, topic: Any) -> Iterable[str]:
    there = len(topic.partitions)
    if there < wanted.partitions:
        yield f"it has {there} partitions, not {wanted.partitions}; more move keys to other partitions, so it is left"
    replicas = min((len(part.replicas) for part in topic.partitions.values()), default=0)
    if wanted.replication is not None and replicas < wanted.replication:
        yield f"it is kept on {replicas} brokers, not {wanted.replication}"


def _otherwise(wanted: TopicSettings, said: Mapping[str, str]) -> Iterable[str]:
    for name, value in wanted.settings.items():
        if _plain(said.get(name, "")) != _plain(value):
            yield f"{name} is {said.get(name, 'not known to the cluster')}, not {value}"


def _plain(value: str) -> str:
    """A setting that is a list, whatever the order."""
    return ",".join(sorted(part.strip() for part in value.split(",")))


def topic_ids(connection: Cluster, topics: Sequence[str]) -> dict[str, str]:
    """The ids that the cluster gave to these topics, by their names; blocks. Raises Unavailable, Misconfigured.

    A topic that is made anew under its name has another id. Left out are those of clusters without ids (before Kafka
    2.8), those that we may not see, and those that are gone.
    """
    from confluent_kafka import KafkaException, TopicCollection  # noqa: PLC0415  # loaded where it is needed
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415  # as above

    if not topics:
        return {}
    seconds = connection.timeout / 1e9
    found: dict[str, str] = {}
    try:
        admin: Any = AdminClient(settings(connection, Heard()))
        for name, asked in admin.describe_topics(TopicCollection(list(topics)), request_timeout=seconds).items():
            try:
                number = str(asked.result(_LONGEST).topic_id)
            except KafkaException as error:
                if error.args[0].name() not in _NO_IDS:
                    raise
            else:
                found |= {} if number == _NO_ID else {name: number}
    except KafkaException as error:
        raise meaning(error.args[0], ", ".join(topics)) from error
    except TimeoutError as error:
        raise Unavailable("the cluster does not say which topics it has") from error
    return found


def merged(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Each topic once; who says how it shall be goes before who does not. Raises Misconfigured when two differ."""
    found: dict[str, Wanted] = {}
    for one in wanted:
        before = found.get(one.topic)
        if before is None or before.settings is None:
            found[one.topic] = one
        elif one.settings is not None and one.settings != before.settings:
            raise Misconfigured(f"two components want topic {one.topic} otherwise; give both the same `create`")
    return list(found.values())
