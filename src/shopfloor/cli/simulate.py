"""``shopfloor simulate``: machines that speak the real protocols."""

import asyncio
import os
from collections.abc import Coroutine
from datetime import UTC, datetime
from functools import partial
from itertools import dropwhile, islice, takewhile
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

import click

from shopfloor.cli.options import duration_ns, execute

if TYPE_CHECKING:
    from shopfloor.simulators.pace import Pace


@click.group()
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
    execute(_simulate(press.serve(endpoint, seed=seed, extra_tags=tags, ready=ready), with_parent=with_parent))


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
    execute(_simulate(serving, with_parent=with_parent))


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
    execute(_simulate(s7_plant.serve(host, port, seed=seed, extra_tags=tags, ready=ready), with_parent=with_parent))


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
    measured = islice(cmm.measurements(seed, first, duration_ns(every, "--every") / 1e9), parts)
    some = takewhile(lambda part: last is None or part.time < last, measured)
    work = cmm.serve(
        folder, pace, some, machine=machine, per_file=per_file, slow=slow, decimal_comma=decimal_comma,
        written=None if with_parent else click.echo,
    )  # fmt: skip
    execute(_simulate(work, with_parent=with_parent))


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
    born = first - duration_ns(warm_up, "--warm-up")
    events = fleet.fleet(machines, seed, born, duration_ns(every, "--every") / 1e9)
    some = takewhile(lambda event: last is None or event.time < last, dropwhile(lambda e: e.time < first, events))
    there = f"{machines} machines publish at {server}, {topic}/#; Ctrl-C ends it."
    ready = None if with_parent else partial(click.echo, there)
    say = partial(click.echo, err=True)
    serving = fleet_mqtt.serve(settings, some, pace, topic=topic, ready=ready, said=say)
    execute(_simulate(serving, with_parent=with_parent))


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
    execute(_simulate(logix_plant.serve(host, port, seed=seed, ready=ready), with_parent=with_parent))


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
    execute(_simulate(press_slc.serve(host, port, family=family, seed=seed, ready=ready), with_parent=with_parent))


@simulate.command("mes")
@click.option("--port", type=click.IntRange(1, 65535), default=8088, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--file", type=click.Path(path_type=Path), help="Where it keeps what it took, so that a kill loses none.")
@click.option("--delay", default="0s", show_default=True, help="How long each answer takes.")
@click.option("--refuse", default="", help="Refuse requests with samples of such tags: oven/*")
@click.option("--partial", "in_part", is_flag=True, help="Take the other samples of such a request (answer 207).")
@click.option("--status", type=click.IntRange(400, 599), help="Take nothing, answer this.")
@click.option("--retry-after", default="", help="What it says beside --status: seconds, or a date of HTTP.")
@click.option("--with-parent", is_flag=True, help="End when standard input is closed.")
def simulate_mes(  # noqa: PLR0913, PLR0917  # an option each
    port: int,
    host: str,
    file: Path | None,
    delay: str,
    refuse: str,
    in_part: bool,  # noqa: FBT001  # a flag
    status: int | None,
    retry_after: str,
    with_parent: bool,  # noqa: FBT001  # a flag
) -> None:
    """An MES that takes samples by HTTP, to be stopped, slowed down and killed; docs/simulators.md."""
    from shopfloor import logs  # noqa: PLC0415
    from shopfloor.simulators import mes  # noqa: PLC0415

    logs.configure("warning")
    behaviour = mes.Behaviour(status or 0, retry_after, duration_ns(delay, "--delay") / 1e9, refuse, in_part)
    there = f"An MES takes samples at http://{host}:{port}; what it counted: http://{host}:{port}{mes.OWN}/state. "
    ready = None if with_parent else partial(click.echo, f"{there}Ctrl-C ends it.")

    async def serve() -> None:
        await mes.serve(host, port, mes.Mes(file, behaviour), ready)

    execute(_simulate(serve(), with_parent=with_parent))


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
