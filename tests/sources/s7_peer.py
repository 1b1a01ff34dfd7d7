"""libsnap7's server and client, written in C: implementations that share no code with ours."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any, Final

from shopfloor.testing.programs import ServerProcess, answers, free_port, missing

PEER: Final = Path(__file__).parents[1] / "peers" / "snap7"


def python() -> Path:
    """The peer's own Python; skips the test where it is not installed."""
    found = PEER / ".venv" / "bin" / "python"
    if not found.exists():
        missing("the peer snap7 is not installed", "make test")
    return found


class Snap7Server(ServerProcess):
    """An S7 server on a free port, with a control port."""

    def __init__(self) -> None:
        port, self.control = free_port(), free_port()
        super().__init__(
            [python(), PEER / "peer.py", "server", str(port), str(self.control)],
            port,
            ready=lambda: answers("127.0.0.1", port) and answers("127.0.0.1", self.control),
        )

    async def ask(self, do: str, **request: Any) -> Any:
        """Tell the server to do something, and its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.control)
        try:
            writer.write(json.dumps({"do": do, **request}).encode() + b"\n")
            return json.loads(await reader.readline())
        finally:
            writer.close()

    async def put(self, area: str, at: int, data: bytes) -> None:
        """Put bytes into its memory."""
        await self.ask("put", area=area, at=at, data=data.hex())

    async def get(self, area: str, at: int, size: int) -> bytes:
        """The bytes of its memory."""
        return bytes.fromhex(await self.ask("get", area=area, at=at, size=size))


async def stranger(port: int, *requests: list[Any], slot: int = 1) -> Any:
    """What snap7's client hears of a server; a dict with `error` when it cannot connect or is refused."""
    command = [str(python()), str(PEER / "peer.py"), "client", str(port), "0", str(slot)]
    said = await asyncio.to_thread(
        subprocess.run, command, input=json.dumps(requests).encode(), capture_output=True, timeout=60, check=False
    )
    assert said.stdout, said.stderr.decode()
    return json.loads(said.stdout)
