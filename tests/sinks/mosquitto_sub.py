"""mosquitto_sub as a subscriber: an implementation that is not ours."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from shopfloor.testing.contracts import until
from shopfloor.testing.programs import require_program


class Heard(NamedTuple):
    topic: str
    retained: bool
    payload: bytes

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.payload)
        return found


class MosquittoSub:
    """mosquitto_sub as a child process; ``heard`` grows by itself."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    @classmethod
    @asynccontextmanager
    async def at(cls, port: int, topic: str = "shopfloor/#", *options: str | Path) -> AsyncIterator[Self]:
        listener = cls()
        program = require_program("mosquitto_sub", "apt-get install mosquitto-clients")
        publish = require_program("mosquitto_pub", "apt-get install mosquitto-clients")
        where = ["-h", "127.0.0.1", "-p", str(port), *map(str, options)]
        greeting = f"test/{os.urandom(4).hex()}"
        child = await asyncio.create_subprocess_exec(
            program, *where, "-q", "1", "-F", "%t|%r|%x", "-t", topic, "-t", greeting,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=2**26,
        )  # fmt: skip
        reading = asyncio.create_task(listener._read(child))
        try:
            # A retained greeting is there whether it is subscribed to before or after it is published.
            said = await asyncio.create_subprocess_exec(publish, *where, "-q", "1", "-r", "-t", greeting, "-m", "hello")
            assert await said.wait() == 0
            await until(lambda: any(heard.topic == greeting for heard in listener.heard), "the listener has subscribed")
            listener.heard = [heard for heard in listener.heard if heard.topic != greeting]
            yield listener
        finally:
            child.kill()  # its own handler of SIGTERM takes locks, and can wait for itself
            await child.wait()
            await reading

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        async for line in child.stdout:
            if not line.endswith(b"\n"):
                return  # it was killed while it wrote
            topic, retained, payload = line.decode().rstrip("\n").rsplit("|", 2)
            self.heard.append(Heard(topic, retained == "1", bytes.fromhex(payload)))
