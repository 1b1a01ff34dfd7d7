"""OPC UA servers for tests: each begins with the standard's 6,000 nodes, which asyncua builds anew in a second each.

Here they are built once a process, and copied.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from asyncua.server.address_space import AttributeValue, NodeData
from asyncua.server.internal_server import InternalServer

from shopfloor.sinks.opcua_sessions import Sessions

_original = InternalServer.load_standard_address_space
_nodes: dict[Any, NodeData] = {}


def _copy(node: NodeData) -> NodeData:
    made = NodeData(node.nodeid)
    made.attributes = {key: AttributeValue(held.value) for key, held in node.attributes.items()}  # type: ignore[arg-type]
    made.references = list(node.references)
    made.call = node.call
    return made


async def standard() -> Mapping[Any, NodeData]:
    """As asyncua builds them; not to be changed."""
    if not _nodes:
        server = InternalServer()
        await _original(server)
        _nodes.update(server.aspace._nodes)
    return _nodes


async def _load(self: InternalServer, _shelf_file: Any = None) -> None:
    self.aspace._nodes.update({key: _copy(node) for key, node in (await standard()).items()})


@pytest.fixture(autouse=True)
def standard_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import it into a module whose tests start servers."""
    for server in (InternalServer, Sessions):
        monkeypatch.setattr(server, "load_standard_address_space", _load)
