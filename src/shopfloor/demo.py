"""The demonstration: a simulated press behind a real OPC UA server, a broker, and the whole product round it."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from shopfloor import reports, running
from shopfloor.console import url
from shopfloor.journal import read_file
from shopfloor.plant import Plant, parse
from shopfloor.protocols.broker import Broker
from shopfloor.samples import Misconfigured, Unavailable

PULLED_SECONDS: Final = 10
"""How long after somebody ended its process the press starts again. It then needs some seconds, and so does
the source, which tries less and less often."""


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


class Press:
    """The simulated PLC in a process of its own, put back when somebody pulls it away."""

    def __init__(self) -> None:
        self.port = _port(4840)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process that is the PLC now."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it and wait until it answers. Raises Unavailable when it does not."""
        # It ends when our end of its standard input closes: also when this process is killed.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shopfloor", "simulate", "opcua", f"--port={self.port}", "--with-parent",
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which ends the press last
        )  # fmt: skip
        for _ in range(300):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                if self._process.returncode is not None:
                    break
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return
        raise Unavailable("the simulated PLC did not start; `shopfloor simulate opcua` shows why")

    async def watch(self) -> None:
        """Put it back PULLED_SECONDS after it went away."""
        while self._process is not None:
            await self._process.wait()
            click.echo(f"The PLC was pulled away; it starts again in {PULLED_SECONDS} s.")
            await asyncio.sleep(PULLED_SECONDS)
            await self.start()
            click.echo(f"The PLC is there again (process {self.pid}); Shopfloor connects within seconds.")

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()


@asynccontextmanager
async def _press() -> AsyncGenerator[Press]:
    press = Press()
    await press.start()
    watching = asyncio.create_task(press.watch(), name="watch the PLC")
    try:
        yield press
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await press.stop()


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
    raise Unavailable("no port is free on 127.0.0.1")


async def run(listen: str, chosen: Path | None, seconds: float | None) -> int:
    """Run the demo until it is stopped or the time is over, then print what became of the data; the exit code."""
    place = folder(chosen)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(
            f"the folder {place} cannot be made: {error.strerror}; choose another by --folder"
        ) from error
    _plant(place, listen)  # a wrong --listen is said before anything starts
    with running.stopping() as stop:
        async with _press() as press, Broker() as broker:
            plant = _plant(place, listen, press.port, broker.port)
            async with running.running(plant) as pipeline:
                click.echo(_welcome(listen, press, broker, place))
                await running.until_stopped(seconds, stop=stop)
                statuses = pipeline.components()
    rows = read_file(plant.journal.path)
    click.echo(f"{reports.components(statuses)}\n\n{reports.summary(rows)}\n\n{reports.ledger(rows)}")
    return 0 if reports.balanced(rows) and all(status.samples for status in statuses) else 1


def _plant(place: Path, listen: str, press: int = 4840, broker: int = 1883) -> Plant:
    environment = {
        **os.environ,
        "PRESS_ENDPOINT": f"opc.tcp://127.0.0.1:{press}",
        "MQTT_PORT": str(broker),
        "CONSOLE": listen,
    }
    try:
        return parse(plant_text(), "demo.yaml", place, environment)
    except Misconfigured as error:
        # The plant file is ours: what can be wrong is what was asked for.
        raise Misconfigured(
            f"--listen {listen}: must be host:port with a port up to 65535, like 127.0.0.1:8081"
        ) from error


def _welcome(listen: str, press: Press, broker: Broker, place: Path) -> str:
    return f"""
Shopfloor demo: a simulated press line, read over OPC UA, kept, published by MQTT, shown.

  console    {url(listen)}
  OPC UA     opc.tcp://127.0.0.1:{press.port} (the simulated PLC, process {press.pid})
  MQTT       127.0.0.1:{broker.port} ({broker.kind}); topics shopfloor/#
  data       {place}

Try: press Stop and Start in the console. Pull the PLC away: `kill {press.pid}`; within half a minute it is back.
Set a value as a phone would: `mosquitto_pub -p {broker.port} -t shopfloor/demo/press-1/SP/set -m 45`.
Kill this process and start it again, then look at `shopfloor ledger`. Ctrl-C ends the demo.
"""
