"""The verb that makes Kafka's topics before anything uses them."""

from pathlib import Path

import click

from shopfloor.cli.options import PLANT, execute


@click.command("kafka-topics")
@PLANT
@click.option("--check", is_flag=True, help="Create nothing; exit 1 when a topic is missing or otherwise.")
@click.option("--machine", "machines", multiple=True, help="A machine that only messages name; may be repeated.")
def kafka_topics(plant: Path, machines: tuple[str, ...], *, check: bool) -> None:
    """Create the topics of Kafka that a plant file names, where they are missing; changes none that is there.

    Says of each whether it is there, and what of it is otherwise than the plant file's `create` says.
    """
    from shopfloor import kafka_topics as topics, logs, plant as plants  # noqa: PLC0415

    logs.configure("error")
    execute(topics.report(plants.load(plant), machines, create=not check))
