"""The demonstration: machines behind five real protocols, a broker, and the whole product round them."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

import click
import psutil

from shopfloor import reports, running
from shopfloor.journal import read_file
from shopfloor.pipeline import ComponentStatus
from shopfloor.plant import Plant, parse
from shopfloor.protocols.broker import Broker, Kind
from shopfloor.samples import Misconfigured, Unavailable

PULLED_SECONDS: Final = 10
"""How long after somebody ended its process a simulator starts again. It then needs some seconds, and so does
the source, which tries less and less often."""
_STARTS_WITHIN: Final = 60.0
"""Seconds."""
_PORTS: Final[Mapping[str, int]] = {
    "OPCUA_PORT": 4840, "S7_PORT": 1102, "LOGIX_PORT": 44818, "MQTT_PORT": 1883, "SCADA_PORT": 4841,
}  # fmt: skip
"""What stands in the plant file when nothing listens yet."""
_VERSIONS: Final = {"mosquitto": "auto", "amqtt": "3.1.1"}
"""Of MQTT, by the broker: amqtt does not even refuse what a source says in MQTT 5."""
_SOURCES: Final[Mapping[str, str]] = {
    "opcua": "Press 1, by OPC UA",
    "s7": "Press 2 and Filler 1, by S7",
    "logix": "Press 3 and Filler 2, by EtherNet/IP",
    "fleet": "Assembly 1 to 4, by MQTT",
    "cmm": "CMM 1, by files",
    "oee": "OEE of the machines, worked out here",
    "units": "bar into psi, worked out here",
}


def plant_text() -> str:
    """The demo's plant file."""
    return (files("shopfloor.simulators") / "demo.yaml").read_text("utf-8")


def folder(chosen: Path | None = None) -> Path:
    """Where the demo keeps its data, by the XDG rules: the same place at each start."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return chosen or Path(state) / "shopfloor" / "demo"


def journal_path() -> Path:
    """The demo's journal in its usual folder."""
    return folder() / "data" / "journal.db"


class Simulator:
    """`shopfloor simulate …` in a process of its own, put back when somebody pulls it away."""

    def __init__(self, kind: str, *options: str, port: int = 0) -> None:
        """``port`` is where it will answer; 0 for one that only talks."""
        self.kind = kind
        self.port = port
        self._options = (*options, f"--port={port}") if port else options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process that is the machine now."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it and wait until it answers. Raises Unavailable when it does not."""
        # It ends when our end of its standard input closes: also when this process is killed.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shopfloor", "simulate", self.kind, *self._options, "--with-parent",
            stdin=PIPE, stdout=DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process, which ends the simulators last
        )  # fmt: skip
        deadline = time.monotonic() + _STARTS_WITHIN
        while self.port and not await _answers(self.port):
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise Unavailable(
                    f"the simulated {self.kind} did not start; `shopfloor simulate {self.kind}` shows why"
                )
            await asyncio.sleep(0.1)

    async def watch(self) -> None:
        """Put it back PULLED_SECONDS after it went away."""
        while self._process is not None:
            await self._process.wait()
            click.echo(f"The simulated {self.kind} was pulled away; it starts again in {PULLED_SECONDS} s.")
            await asyncio.sleep(PULLED_SECONDS)
            with contextlib.suppress(Unavailable):  # it is tried again
                await self.start()
                click.echo(f"The simulated {self.kind} is there again (process {self.pid}).")

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()


@asynccontextmanager
async def _at_work(simulators: Sequence[Simulator]) -> AsyncGenerator[None]:
    """All of them, started together, ended last."""
    async with AsyncExitStack() as stack:
        for simulator in simulators:
            stack.push_async_callback(simulator.stop)
        tasks = [asyncio.create_task(simulator.start()) for simulator in simulators]
        try:
            await asyncio.gather(*tasks)
            tasks = [asyncio.create_task(simulator.watch()) for simulator in simulators]
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Effort:
    """What this process and those it started cost from now on."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._before = self._now()

    def report(self) -> str:
        """One line."""
        now, seconds = self._now(), time.monotonic() - self._since
        cpu = {pid: used - self._before.get(pid, (0.0, 0))[0] for pid, (used, _) in now.items()}
        own = cpu.get(os.getpid(), 0.0)
        memory = sum(resident for _, resident in now.values()) / 1e6
        return (
            f"Processor: {sum(cpu.values()) / seconds:.2f} of one core over {seconds:.0f} s "
            f"(Shopfloor {own / seconds:.2f}, simulators and broker {(sum(cpu.values()) - own) / seconds:.2f}). "
            f"Memory: {memory:,.0f} MB in {len(now)} processes."
        )

    def _now(self) -> dict[int, tuple[float, int]]:
        """Seconds of processor time and bytes of memory of each process."""
        found: dict[int, tuple[float, int]] = {}
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error), process.oneshot():  # it ended just now
                times = process.cpu_times()
                found[process.pid] = (times.user + times.system, process.memory_info().rss)
        return found


async def run(listen: str, chosen: Path | None, seconds: float | None) -> int:
    """Run the demo until it is stopped or the time is over, then print what became of the data; the exit code."""
    place = folder(chosen)
    measurements = place / "measurements"
    try:
        measurements.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            f"the folder {place} cannot be made: {error.strerror}; choose another by --folder"
        ) from error
    _plant(place, listen, _PORTS)  # a wrong --listen is said before anything starts
    _may_listen(listen)
    with running.stopping() as stop:
        async with Broker() as broker:
            opcua = Simulator("opcua", port=_port(_PORTS["OPCUA_PORT"]))
            s7 = Simulator("s7", "--seed=2", port=_port(_PORTS["S7_PORT"]))
            logix = Simulator("logix", "--seed=3", port=_port(_PORTS["LOGIX_PORT"]))
            fleet = Simulator("fleet", f"--server={broker.address}", "--machines=4", "--seed=43", "--warm-up=30min")
            cmm = Simulator("cmm", f"--folder={measurements}", "--every=5s")
            click.echo("Starting five simulators …")
            async with _at_work((opcua, s7, logix, fleet, cmm)):
                scada = _port(_PORTS["SCADA_PORT"])
                ports = (opcua.port, s7.port, logix.port, broker.port, scada)
                plant = _plant(place, listen, dict(zip(_PORTS, ports, strict=True)), broker.kind)
                async with running.running(plant) as pipeline:
                    click.echo(_welcome(listen, (opcua, s7, logix, fleet, cmm), broker, scada, place))
                    effort = _Effort()
                    await running.until_stopped(seconds, stop=stop)
                    statuses, cost = pipeline.components(), effort.report()
    return _farewell(plant, statuses, cost)


def _farewell(plant: Plant, statuses: Sequence[ComponentStatus], cost: str) -> int:
    """Print what became of everything; the exit code."""
    rows = read_file(plant.journal.path)
    click.echo(f"What came in since {plant.journal.path} was begun, and where it went, in samples:\n")
    click.echo(reports.fates(rows, _SOURCES))
    click.echo()
    silent = [status.name for status in statuses if not status.samples]
    if silent:
        click.echo(f"Nothing came in this time from or to: {', '.join(silent)}.")
    if any(status.state != "running" for status in statuses):
        click.echo(reports.components([status for status in statuses if status.state != "running"]))
    click.echo(cost)
    return 0 if reports.balanced(rows) and not silent else 1


def _plant(place: Path, listen: str, ports: Mapping[str, int], broker: Kind = "mosquitto") -> Plant:
    environment = {
        **os.environ,
        "MQTT_VERSION": _VERSIONS[broker],
        **{name: str(port) for name, port in ports.items()},
        "CONSOLE": listen,
    }
    try:
        return parse(plant_text(), "demo.yaml", place, environment)
    except Misconfigured as error:
        # The plant file is ours: what can be wrong is what was asked for.
        raise Misconfigured(
            f"--listen {listen}: must be host:port with a port up to 65535, like 127.0.0.1:8081"
        ) from error


def _port(preferred: int) -> int:
    """The preferred port when it is free, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            bound: int = probe.getsockname()[1]
            return bound
    raise Unavailable("no port is free on 127.0.0.1 for the simulated machines")


def _may_listen(listen: str) -> None:
    """Say that the console's port is taken before anything is started; the console itself says all the rest."""
    host, _, port = listen.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=1):
        raise Misconfigured(
            f"--listen {listen}: another program listens there already, perhaps another demo; end it, or choose "
            "another port: --listen 127.0.0.1:8081"
        )


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _welcome(listen: str, simulators: Sequence[Simulator], broker: Broker, scada: int, place: Path) -> str:
    from shopfloor.console import url  # noqa: PLC0415  # FastAPI: `shopfloor ledger` asks here for a folder only

    opcua, s7, logix, fleet, cmm = simulators
    mosquitto = broker.kind == "mosquitto"
    kind = "Mosquitto" if mosquitto else "amqtt, inside this process, because Mosquitto is not installed"
    where = [
        ("console", url(listen), "open it in a browser"),
        ("OPC UA", f"opc.tcp://127.0.0.1:{opcua.port}", f"Press 1 (process {opcua.pid})"),
        ("S7", f"127.0.0.1:{s7.port}", f"Press 2 and Filler 1 (process {s7.pid})"),
        ("Logix", f"127.0.0.1:{logix.port}", f"Press 3 and Filler 2 (process {logix.pid})"),
        ("MQTT", f"127.0.0.1:{broker.port}", f"the broker: {kind}"),
        ("", "fleet/#", f"what Assembly 1 to 4 say (process {fleet.pid})"),
        ("", "shopfloor/#", "what Shopfloor publishes: every value of the plant"),
        ("SCADA", f"opc.tcp://127.0.0.1:{scada}", "the same by OPC UA, without security"),
        ("files", "measurements/*.csv", f"what CMM 1 writes (process {cmm.pid})"),
        ("data", str(place), ""),
    ]
    lines = "\n".join(f"  {name:<8} {address:<27} {what}".rstrip() for name, address, what in where)
    return f"""
Shopfloor demo: a simulated plant, read over five protocols, kept, published by MQTT and OPC UA, shown.

{lines}

Try: press Stop and Start in the console. Pull a PLC away: `kill {opcua.pid}`; within half a minute it is back.
Set a value as a phone would: `mosquitto_pub -p {broker.port} -t shopfloor/demo/press-1/SP/set -m 45`.
Kill this process and start it again, then look at `shopfloor ledger`. Ctrl-C ends the demo.
"""
