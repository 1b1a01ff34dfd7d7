"""`shopfloor kafka-topics`: which topics a plant file names, cluster by cluster, and how they stand."""

from collections.abc import Iterator, Sequence
from typing import Final

import click

from shopfloor.plant import Plant
from shopfloor.plant.kafka import KafkaConnection
from shopfloor.protocols.kafka_topics import Topics, Wanted, merged
from shopfloor.sinks.kafka import KafkaSinkConfig
from shopfloor.sources.kafka import KafkaSourceConfig

_OPEN: Final = (
    "{name}: machines that only messages name have no topic {template} yet: name them with --machine NAME, or have the "
    "sink make them with `create_topics: true`"
)


def wanted(plant: Plant, machines: Sequence[str] = ()) -> Iterator[tuple[KafkaConnection, list[Wanted]]]:
    """The connections of the plant file, one a cluster, and the topics that are named there, also of ``machines``."""
    clusters: dict[tuple[str, ...], tuple[KafkaConnection, list[Wanted]]] = {}
    for sink in plant.sinks:  # the first: what writes knows best how its topics shall be
        if isinstance(sink, KafkaSinkConfig):
            of = clusters.setdefault(tuple(sorted(sink.servers)), (sink, []))[1]
            of += [Wanted(topic, sink.create) for topic in sink.known_topics(machines)]
    for source in plant.sources:
        if isinstance(source, KafkaSourceConfig):
            of = clusters.setdefault(tuple(sorted(source.servers)), (source, []))[1]
            of += [Wanted(topic.topic, topic.create) for topic in source.topics if topic.exact]
    for connection, topics in clusters.values():
        yield connection, merged(topics)


async def report(plant: Plant, machines: Sequence[str], *, create: bool) -> int:
    """Look at them, make those that are missing if so wanted, and print a line each; returns the exit code.

    ``machines`` are known by nothing of the plant file.
    """
    all_well = True
    clusters = list(wanted(plant, machines))
    if not clusters:
        click.echo("the plant file names no topics of Kafka")
    for connection, topics in clusters:
        for found in await Topics(connection).look(topics, create=create):
            all_well = all_well and found.result in ("ok", "created")
            detail = f"  {found.detail}" if found.detail else ""
            click.echo(f"{found.topic:40} {found.result}{detail}")
    for sink in plant.sinks:
        if isinstance(sink, KafkaSinkConfig) and not sink.create_topics and not machines:
            for template in sink.open_templates():
                click.echo(_OPEN.format(name=sink.name, template=template), err=True)
    return 0 if all_well else 1
