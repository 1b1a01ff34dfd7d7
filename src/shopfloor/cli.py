"""The command line: ``shopfloor VERB``. Exit 0 done, 1 failed, 2 the user must change something.

Each verb imports what it needs when it runs, so ``--help`` answers at once.
"""

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from functools import partial
from itertools import dropwhile, islice, takewhile
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from shopfloor.simulators.pace import Pace

BENCHES: Final = (
    "journal",
    "historian",
    "opcua",
    "kpi",
    "s7",
    "modbus",
    "logix",
    "connections",
    "mqtt",
    "sparkplug",
    "recorder",
)
PLANT: Final = click.argument("plant", type=click.Path(path_type=Path))


def _base(_context: click.Context, _parameter: click.Parameter, url: str) -> str:
    """The address as the API's paths are put behind it; people leave ``http://`` out."""
    return (url if "://" in url else f"http://{url}").rstrip("/")


URL: Final = click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    envvar="SHOPFLOOR_URL",
    callback=_base,
    help="The console of the plant.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="shopfloor", message="%(version)s")
def shopfloor() -> None:
    """What machines say, as durable data, honest OEE and safe control.

    Start with `shopfloor demo`, then write a plant file of your own and `shopfloor run` it.
    """


def main() -> NoReturn:
    """Run the command line; every error of ours ends as one plain message, never as a traceback."""
    from shopfloor.samples import Misconfigured, Unavailable  # noqa: PLC0415  # keeps --help fast

    try:
        code = shopfloor(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Misconfigured as error:
        click.echo(str(error), err=True)
        code = 2
    except Unavailable as error:
        click.echo(str(error), err=True)
        code = 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away: nothing to complain about
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _run(work: Coroutine[Any, Any, int | None]) -> None:
    """Run to the end on uvloop where there is one; a number that it returns is the exit code."""
    try:
        import uvloop  # noqa: PLC0415  # not on Windows
    except ImportError:
        code = asyncio.run(work)
    else:
        code = uvloop.run(work)
    if code:
        raise click.exceptions.Exit(code)


@shopfloor.command()
@PLANT
@click.option("--for", "duration", help="Stop by itself after this time, e.g. 30s.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def run(plant: Path, duration: str | None, log_level: str) -> None:
    """Run a plant file until it is stopped by Ctrl-C or SIGTERM."""
    from shopfloor import logs, plant as plants, running  # noqa: PLC0415

    logs.configure(log_level)
    loaded = plants.load(plant)
    _run(running.run(loaded, _seconds(duration)))


@shopfloor.group()
def service() -> None:
    """A plant as a service of systemd, under a user of its own."""


NAME: Final = click.option("--name", default="shopfloor", show_default=True, help="What the service is called.")
ROOT: Final = click.option(
    "--root", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Not here: in the image of a system."
)


@service.command("install")
@PLANT
@NAME
@click.option("--user", default="shopfloor", show_default=True, help="As whom it runs; made when there is none.")
@click.option(
    "--environment", type=click.Path(path_type=Path), help="File with NAME=value lines: what ${NAME} stands for."
)
@ROOT
def service_install(plant: Path, name: str, user: str, environment: Path | None, root: Path | None) -> None:
    """Run a plant file as a service, now and at each boot. Needs root; docs/service.md says what it writes."""
    from shopfloor import service as services  # noqa: PLC0415

    services.install(plant, name, user, environment, root)


@service.command("uninstall")
@NAME
@ROOT
def service_uninstall(name: str, root: Path | None) -> None:
    """Stop the service and take it away; its user and data stay."""
    from shopfloor import service as services  # noqa: PLC0415

    services.uninstall(name, root)


@service.command("status")
@NAME
def service_status(name: str) -> None:
    """How the service is, and its newest log lines."""
    from shopfloor import service as services  # noqa: PLC0415

    raise click.exceptions.Exit(services.status(name))


@shopfloor.command()
@PLANT
def check(plant: Path) -> None:
    """Check a plant file without touching the network."""
    from shopfloor import logs, plant as plants, reports  # noqa: PLC0415

    logs.configure("error")
    click.echo(reports.plant(plants.load(plant)))


@shopfloor.command()
@PLANT
def probe(plant: Path) -> None:
    """Try every connection of a plant file once, and what the sources would acquire; writes nothing."""
    from shopfloor import logs, plant as plants, reports  # noqa: PLC0415

    logs.configure("error")
    _run(reports.probe(plants.load(plant)))


@shopfloor.command()
@PLANT
@click.argument("source")
@click.option(
    "--filter", "pattern", default="*", show_default=True, help="Only tags or addresses that match; * is any text."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
def browse(plant: Path, source: str, pattern: str, output: Path | None) -> None:
    """List what SOURCE offers, as lines for the plant file: put them below the source."""
    from shopfloor import browsing, logs, plant as plants  # noqa: PLC0415

    logs.configure("error")
    _run(browsing.browse(plants.load(plant), source, pattern, output))


@shopfloor.command()
@PLANT
@click.option("--from", "first", required=True, help="Where to begin, 2026-11-20 or 2026-11-20T06:00, site time.")
@click.option("--to", "last", help="Where to end; now by default.")
@click.option("--processor", help="Which processor of type machine, if there are several.")
def replay(plant: Path, first: str, last: str | None, processor: str | None) -> None:
    """Work machines' figures out anew from the historian's samples, and show what differs; changes nothing."""
    from shopfloor import logs, plant as plants, replaying, reports  # noqa: PLC0415

    logs.configure("error")

    async def shown() -> int:
        found = await replaying.replayed(plants.load(plant), first, last, processor, time_ns())
        click.echo(reports.replayed(found))
        return 1 if found.differences else 0

    _run(shown())


@shopfloor.command("test")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
def test(files: tuple[Path, ...]) -> None:
    """Play scenarios: what machines do, and which figures must come of it.

    docs/scenarios.md is the notation. Exit 1 when a figure is not as expected; it is said with file and line.
    """
    from shopfloor.scenarios import notation, playing  # noqa: PLC0415

    played = [playing.play(file) for file in notation.read_all(files)]
    failures = [failure for one in played for failure in one.failures]
    for failure in failures:
        click.echo(str(failure))
    click.echo(playing.summary(played))
    raise click.exceptions.Exit(1 if failures else 0)


@shopfloor.command("import")
@click.argument("origin", metavar="FROM", envvar="SHOPFLOOR_IMPORT")
@click.option("--plc", help="Where the PLC is, host or host:port, when FROM does not say it.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write to this file, not to the terminal.")
@click.option("--force", is_flag=True, help="Write over the file that is there.")
def import_(origin: str, plc: str | None, target: Path | None, *, force: bool) -> None:
    """Make a plant file of what the signal recorder has in MongoDB: its sensors, pins and machines.

    FROM is mongodb://host/database, a folder of exports (mongoexport, mongodump), or the recorder's config.json.
    An address with a password is better put into the environment variable SHOPFLOOR_IMPORT. What could not be
    mapped is said, also in the file; the exit code is then 2.
    """
    from shopfloor import importing, plant as plants, reports  # noqa: PLC0415

    if target is not None and target.exists() and not force:
        raise click.UsageError(f"{target} is there already; give another name, or --force to write over it")
    found = importing.imported(importing.read(origin), plc)
    text = importing.text(found)
    plants.parse(text, "the imported plant file", (target or Path("plant.yaml")).resolve().parent)
    reports.imported(found, text, target)
    raise click.exceptions.Exit(2 if any(finding.lost for finding in found.findings) else 0)


@shopfloor.command()
@click.option("--for", "duration", help="End by itself after this time, e.g. 30s.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Address of the console.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where it keeps its data; used again by the next start."
)
@click.option("--show", is_flag=True, help="Print the demo's plant file and end.")
def demo(duration: str | None, listen: str, folder: Path | None, *, show: bool) -> None:
    """Run a simulated plant over real protocols: presses, fillers, a fleet, a measuring machine."""
    from shopfloor import demo as demonstration, logs  # noqa: PLC0415

    if show:
        click.echo(demonstration.plant_text(), nl=False)
        return
    logs.configure("info" if sys.stderr.isatty() else "warning")
    _run(demonstration.run(listen, folder, _seconds(duration)))


@shopfloor.group()
def simulate() -> None:
    """Machines that speak the real protocols, for any client.

    Each runs until Ctrl-C. docs/simulators.md has their tags, addresses and messages.
    """


@simulate.command("opcua")
@click.option("--port", type=click.IntRange(1, 65535), default=4840, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same noise and faults.")
@click.option("--tags", type=click.IntRange(0, 100_000), default=0, show_default=True, help="Further changing tags.")
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
def simulate_opcua(port: int, host: str, seed: int, tags: int, *, with_parent: bool) -> None:
    """A press behind an OPC UA server as CODESYS and Kepware show it."""
    from shopfloor import logs  # noqa: PLC0415
    from shopfloor.simulators import press  # noqa: PLC0415

    logs.configure("warning")
    endpoint = f"opc.tcp://{host}:{port}"
    ready = None if with_parent else partial(click.echo, f"A press is at {endpoint}; Ctrl-C ends it.")
    _run(_simulate(press.serve(endpoint, seed=seed, extra_tags=tags, ready=ready), with_parent=with_parent))


@simulate.command("modbus")
@click.option("--port", type=click.IntRange(1, 65535), default=5020, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--framing", type=click.Choice(["tcp", "rtu-over-tcp"]), default="tcp", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same noise and faults.")
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
def simulate_modbus(port: int, host: str, framing: Any, seed: int, *, with_parent: bool) -> None:
    """A press behind a Modbus server, unit id 1."""
    from shopfloor import logs  # noqa: PLC0415
    from shopfloor.simulators import press_modbus  # noqa: PLC0415

    logs.configure("warning")
    ready = None if with_parent else partial(click.echo, f"A press is at {host}:{port}; Ctrl-C ends it.")
    serving = press_modbus.serve(host, port, framing=framing, seed=seed, ready=ready)
    _run(_simulate(serving, with_parent=with_parent))


@simulate.command("s7")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=1102, show_default=True, help="S7's own, 102, needs root."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same noise and faults.")
@click.option("--tags", type=click.IntRange(0, 10_000), default=0, show_default=True, help="Changing REALs in DB2.")
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
def simulate_s7(port: int, host: str, seed: int, tags: int, *, with_parent: bool) -> None:
    """A press and a filler behind a Siemens S7, rack 0, slot 1."""
    from shopfloor import logs  # noqa: PLC0415
    from shopfloor.simulators import s7_plant  # noqa: PLC0415

    logs.configure("warning")
    there = f"A press and a filler are at {host}, port {port}; Ctrl-C ends them."
    ready = None if with_parent else partial(click.echo, there)
    _run(_simulate(s7_plant.serve(host, port, seed=seed, extra_tags=tags, ready=ready), with_parent=with_parent))


def _past(command: Any) -> Any:
    """The options of a simulation that can begin in the past."""
    for option in (
        click.option("--speed", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
                     help="With --from: how many times faster than real time."),
        click.option("--until", help="End at this time."),
        click.option("--from", "begin", help="Begin in the past: a time, 2026-01-31T12:00:00Z, UTC where it has no "
                     "zone. It runs at --speed until the present, then as time passes. By default it begins now."),
    ):  # fmt: skip
        command = option(command)
    return command


@simulate.command("cmm")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the files are put.")
@click.option("--every", default="10s", show_default=True, help="How often a part is measured.")
@click.option("--per-file", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Parts of a file.")
@click.option("--parts", type=click.IntRange(1), help="End after so many parts.")
@click.option("--machine", default="cmm-1", show_default=True, help="What it is called in the files.")
@click.option("--decimal-comma", is_flag=True, help="Write 1,5 and separate columns by semicolons.")
@click.option("--slow", is_flag=True, help="Write each file in pieces under its own name, as careless machines do.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same parts and weather.")
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
@_past
def simulate_cmm(  # noqa: PLR0913, PLR0917  # an option each
    folder: Path,
    every: str,
    per_file: int,
    parts: int | None,
    machine: str,
    decimal_comma: bool,  # noqa: FBT001  # a flag
    slow: bool,  # noqa: FBT001  # a flag
    seed: int,
    with_parent: bool,  # noqa: FBT001  # a flag
    begin: str | None,
    until: str | None,
    speed: float,
) -> None:
    """A measuring machine that puts CSV files into a folder."""
    from shopfloor.simulators import cmm  # noqa: PLC0415

    pace, first, last = _times(begin, until, speed)
    measured = islice(cmm.measurements(seed, first, _duration(every, "--every") / 1e9), parts)
    some = takewhile(lambda part: last is None or part.time < last, measured)
    work = cmm.serve(
        folder, pace, some, machine=machine, per_file=per_file, slow=slow, decimal_comma=decimal_comma,
        written=None if with_parent else click.echo,
    )  # fmt: skip
    _run(_simulate(work, with_parent=with_parent))


@simulate.command("fleet")
@click.option("--server", required=True, help="The broker, mqtt://host:1883 or mqtts://host:8883 for TLS.")
@click.option("--machines", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many.")
@click.option("--every", default="1s", show_default=True, help="How often each tells its telemetry.")
@click.option("--topic", default="fleet", show_default=True, help="The topic below which they publish.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same history.")
@click.option("--username", help="User name at --server; the password comes from SHOPFLOOR_MQTT_PASSWORD.")
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="PEM file of the authority of the broker's certificate."
)
@click.option(
    "--warm-up", default="0s", show_default=True, help="How long they have been at work already, without a word of it."
)
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
@_past
def simulate_fleet(  # noqa: PLR0913, PLR0917  # an option each
    server: str,
    machines: int,
    every: str,
    topic: str,
    seed: int,
    username: str | None,
    ca_file: Path | None,
    warm_up: str,
    with_parent: bool,  # noqa: FBT001  # a flag
    begin: str | None,
    until: str | None,
    speed: float,
) -> None:
    """Machines that publish states, parts and scrap by MQTT."""
    from shopfloor import listening  # noqa: PLC0415
    from shopfloor.simulators import fleet, fleet_mqtt  # noqa: PLC0415

    pace, first, last = _times(begin, until, speed)
    settings = listening.connection(server, username, os.environ.get("SHOPFLOOR_MQTT_PASSWORD"), ca_file)
    born = first - _duration(warm_up, "--warm-up")
    events = fleet.fleet(machines, seed, born, _duration(every, "--every") / 1e9)
    some = takewhile(lambda event: last is None or event.time < last, dropwhile(lambda e: e.time < first, events))
    there = f"{machines} machines publish at {server}, {topic}/#; Ctrl-C ends it."
    ready = None if with_parent else partial(click.echo, there)
    say = partial(click.echo, err=True)
    serving = fleet_mqtt.serve(settings, some, pace, topic=topic, ready=ready, said=say)
    _run(_simulate(serving, with_parent=with_parent))


def _times(begin: str | None, until: str | None, speed: float) -> tuple["Pace", int, int | None]:
    """The pace of a simulation, its beginning and its end in ns UTC."""
    from shopfloor.simulators.pace import Pace  # noqa: PLC0415

    if begin is None and speed != 1:
        raise click.UsageError("--speed needs --from: what is simulated never lies in the future")
    first = _moment(begin, "--from") if begin else time_ns() // 10**6 * 10**6
    last = _moment(until, "--until") if until else None
    if last is not None and last <= first:
        raise click.UsageError("--until must be later than the beginning")
    try:
        return Pace(first, speed), first, last
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--from") from error


def _moment(text: str, option: str) -> int:
    """A time in ns UTC, whole milliseconds."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter("write it like 2026-01-31T12:00:00Z", param_hint=option) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000) * 10**6


@simulate.command("logix")
@click.option("--port", type=click.IntRange(1, 65535), default=44818, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same noise and faults.")
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
def simulate_logix(port: int, host: str, seed: int, *, with_parent: bool) -> None:
    """A press and a filler in a Logix controller (EtherNet/IP), slot 0."""
    from shopfloor import logs  # noqa: PLC0415
    from shopfloor.simulators import logix_plant  # noqa: PLC0415

    logs.configure("warning")
    there = f"A press and a filler are at {host}:{port}; Ctrl-C ends them."
    ready = None if with_parent else partial(click.echo, there)
    _run(_simulate(logix_plant.serve(host, port, seed=seed, ready=ready), with_parent=with_parent))


@simulate.command("slc")
@click.option("--port", type=click.IntRange(1, 65535), default=44818, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--family", type=click.Choice(["slc500", "micrologix", "plc5"]), default="slc500", show_default=True,
    help="Which processor it is.",
)  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same noise and faults.")
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
def simulate_slc(port: int, host: str, family: Any, seed: int, *, with_parent: bool) -> None:
    """A press line in the data files of an SLC 500, MicroLogix or PLC-5; docs/simulators.md has its addresses."""
    from shopfloor import logs  # noqa: PLC0415
    from shopfloor.simulators import press_slc  # noqa: PLC0415

    logs.configure("warning")
    ready = None if with_parent else partial(click.echo, f"A press line is at {host}:{port}; Ctrl-C ends it.")
    _run(_simulate(press_slc.serve(host, port, family=family, seed=seed, ready=ready), with_parent=with_parent))


async def _simulate(server: Coroutine[Any, Any, None], *, with_parent: bool) -> None:
    from shopfloor import running  # noqa: PLC0415

    serving = asyncio.create_task(server)
    stopped = asyncio.create_task(running.until_stopped(with_parent=with_parent))
    done, _ = await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, stopped):
        task.cancel()
    await asyncio.gather(serving, stopped, return_exceptions=True)
    if serving in done:
        serving.result()


@shopfloor.group()
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
    _run(listening.listen(settings, running.until_stopped(_seconds(duration)), as_json=as_json))


@shopfloor.command("load-test")
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
    every, whole = _duration(interval, "--interval"), _duration(duration, "--for")
    _run(testing.run(testing.load(shape, every, whole, settings or None), as_json=as_json))


@shopfloor.command()
@click.argument("tag")
@URL
def tap(tag: str, url: str) -> None:
    """Follow the values of TAG (or a pattern with *) in a running plant."""
    from shopfloor import remote  # noqa: PLC0415

    remote.tap(url, tag)


@shopfloor.command(context_settings={"ignore_unknown_options": True})  # -5 is a value
@click.argument("tag")
@click.argument("value")
@URL
def send(tag: str, value: str, url: str) -> None:
    """Write VALUE to TAG in a running plant, once, and say what became of it."""
    from shopfloor import remote  # noqa: PLC0415

    raise click.exceptions.Exit(remote.send(url, tag, value))


@shopfloor.group(invoke_without_command=True)
@click.option("--plant", type=click.Path(path_type=Path), help="The plant file; the demo's data by default.")
@click.option("--json", "as_json", is_flag=True, help="Every row as JSON.")
@click.pass_context
def ledger(context: click.Context, plant: Path | None, *, as_json: bool) -> None:
    """What was received and what became of it. Exit 1 when it does not balance."""
    from shopfloor import demo as demonstration, journal, plant as plants, reports  # noqa: PLC0415

    path = plants.load(plant).journal.path if plant else demonstration.journal_path()
    context.obj = path
    if context.invoked_subcommand is None:
        rows = journal.read_file(path)
        click.echo(reports.ledger_json(rows) if as_json else reports.ledger(rows))
        raise click.exceptions.Exit(0 if reports.balanced(rows) else 1)


@ledger.command("forget")
@click.argument("reader")
@click.pass_obj
def ledger_forget(path: Path, reader: str) -> None:
    """Forget READER: what waits in the journal for it is thrown away. Stop the plant first."""
    from shopfloor import reports  # noqa: PLC0415

    _run(reports.forget(path, reader))


@shopfloor.group()
def audit() -> None:
    """The record of who wrote what to which machine."""


@audit.command("verify")
@click.option("--plant", type=click.Path(path_type=Path), help="The plant file; the demo's data by default.")
def audit_verify(plant: Path | None) -> None:
    """Check that no record was changed or taken out. Exit 1 when one was."""
    from shopfloor import commands, demo as demonstration, plant as plants  # noqa: PLC0415

    path = commands.audit_path(plants.load(plant)) if plant else demonstration.journal_path().with_name("audit.db")
    found = commands.verify(path)
    click.echo(f"{path}: {found.records} records, {found.detail or 'the chain is whole'}; head {found.head}")
    raise click.exceptions.Exit(0 if found.intact else 1)


@shopfloor.command()
def schema() -> None:
    """Print the JSON Schema of the plant file, for editors."""
    from shopfloor import plant as plants  # noqa: PLC0415

    click.echo(json.dumps(plants.schema(), indent=2))


@shopfloor.command()
@click.argument("name", type=click.Choice([*BENCHES, "all"]))
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
@click.option("--thorough", is_flag=True, help="Longer and with more data.")
def bench(name: str, *, as_json: bool, thorough: bool) -> None:
    """Measure on this machine. Figures are medians; ratios are to a limit measured in the same run."""
    from shopfloor import reports  # noqa: PLC0415
    from shopfloor.samples import Misconfigured  # noqa: PLC0415

    for one in BENCHES if name == "all" else (name,):
        try:
            results = importlib.import_module(f"shopfloor.bench.{one}").run(thorough=thorough)
        except Misconfigured as error:
            if name != "all":
                raise
            click.echo(f"{one}: not measured: {error}", err=True)  # one that lacks a program must not cost the others
            continue
        click.echo(reports.bench_json(one, results) if as_json else reports.bench(one, results))


def _seconds(duration: str | None) -> float | None:
    return None if duration is None else _duration(duration, "--for") / 1e9


def _duration(text: str, option: str) -> int:
    """A duration in ns."""
    from shopfloor.plant import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error
