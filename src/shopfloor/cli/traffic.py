"""Verbs of what travels: Sparkplug messages, values of a running plant, and a load to try it with."""

import os
from pathlib import Path

import click

from shopfloor.cli.options import URL, duration_ns, execute, seconds


@click.group()
def sparkplug() -> None:
    """What travels in Sparkplug B."""


@sparkplug.command("listen")
@click.option("--broker", required=True, help="mqtt://host:1883, or mqtts://host:8883 for TLS.")
@click.option("--username", help="User name; the password comes from SHOPFLOOR_MQTT_PASSWORD.")
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="PEM file of the authority of the broker's certificate."
)
@click.option("--for", "duration", help="End by itself after this time, e.g. 30s.")
@click.option("--json", "as_json", is_flag=True, help="Every message as a line of JSON.")
def sparkplug_listen(
    broker: str, username: str | None, ca_file: Path | None, duration: str | None, *, as_json: bool
) -> None:
    """Show a broker's Sparkplug traffic and name the assertion that each faulty message breaks.

    Exit 1 when a message broke what the specification demands.
    """
    from shopfloor import listening, running  # noqa: PLC0415

    settings = listening.connection(broker, username, os.environ.get("SHOPFLOOR_MQTT_PASSWORD"), ca_file)
    execute(listening.listen(settings, running.until_stopped(seconds(duration)), as_json=as_json))


@click.command("load-test")
@click.option("--nodes", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Edge nodes.")
@click.option("--devices", type=click.IntRange(1, 1000), default=10, show_default=True, help="Devices of each node.")
@click.option("--metrics", type=click.IntRange(1, 1000), default=10, show_default=True, help="Metrics of each device.")
@click.option("--interval", default="1s", show_default=True, help="How often each device sends all of them.")
@click.option("--for", "duration", default="60s", show_default=True, help="How long, e.g. 300s.")
@click.option(
    "--server",
    help="Your own broker, mqtt://host:1883 or mqtts://host:8883 for TLS; by default one of its own with a Shopfloor.",
)
@click.option("--group", default="load", show_default=True, help="The Sparkplug group of the nodes.")
@click.option("--username", help="User name at --server; the password comes from SHOPFLOOR_MQTT_PASSWORD.")
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="PEM file of the authority of the broker's certificate."
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def load_test(  # noqa: PLR0913, PLR0917  # an option each
    nodes: int,
    devices: int,
    metrics: int,
    interval: str,
    duration: str,
    server: str | None,
    group: str,
    username: str | None,
    ca_file: Path | None,
    as_json: bool,  # noqa: FBT001  # a flag
) -> None:
    """Play many Sparkplug edge nodes and say what became of every sample.

    Without --server it starts a broker and a whole Shopfloor of its own in a temporary folder, and measures until
    each sample is durable in the historian. With --server it measures until a subscriber of its own has received
    it; whoever else listens there gets the load, too. Exit 1 unless every sample arrived exactly once.
    """
    from shopfloor import listening, load_test as testing  # noqa: PLC0415
    from shopfloor.simulators.sparkplug_fleet import Shape  # noqa: PLC0415

    if server is None and (username or ca_file):
        raise click.UsageError("--username and --ca-file are for a broker of yours; give it by --server")
    settings = server and listening.connection(server, username, os.environ.get("SHOPFLOOR_MQTT_PASSWORD"), ca_file)
    shape = Shape(group=group, nodes=nodes, devices=devices, metrics=metrics)
    every, whole = duration_ns(interval, "--interval"), duration_ns(duration, "--for")
    execute(testing.run(testing.load(shape, every, whole, settings or None), as_json=as_json))


@click.command()
@click.argument("tag")
@URL
def tap(tag: str, url: str) -> None:
    """Follow the values of TAG (or a pattern with *) in a running plant."""
    from shopfloor import remote  # noqa: PLC0415

    remote.tap(url, tag)


@click.command(context_settings={"ignore_unknown_options": True})  # -5 is a value
@click.argument("tag")
@click.argument("value")
@URL
def send(tag: str, value: str, url: str) -> None:
    """Write VALUE to TAG in a running plant, once, and say what became of it."""
    from shopfloor import remote  # noqa: PLC0415

    raise click.exceptions.Exit(remote.send(url, tag, value))


@click.command()
@click.argument("faults", nargs=-1, metavar="[FAULT...]")
@click.option("--list", "listed", is_flag=True, help="Say which faults there are, and end.")
@click.option("--for", "duration", default="5s", show_default=True, help="How long each fault lasts.")
@click.option("--rate", type=click.FloatRange(0.1, 50), default=10.0, show_default=True, help="Parts each second.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep journal, files and log in this new folder.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def chaos(  # an option each
    faults: tuple[str, ...],
    listed: bool,  # noqa: FBT001  # a flag
    duration: str,
    rate: float,
    folder: Path | None,
    as_json: bool,  # noqa: FBT001  # a flag
) -> None:
    """Break things on this computer, and count what became of every sample.

    A simulated measuring machine writes files, a Shopfloor of its own brings them to a simulated MES and, where these
    are installed, to a PostgreSQL and a MariaDB that it starts itself. One after the other they are killed, halted, cut
    off and left without disk. Exit 1 when a sample was lost or counted twice.
    """
    from shopfloor import chaos as kit  # noqa: PLC0415

    if listed:
        click.echo(kit.as_list())
        return
    execute(kit.run(faults, folder, duration_ns(duration, "--for") / 1e9, rate, as_json=as_json))
