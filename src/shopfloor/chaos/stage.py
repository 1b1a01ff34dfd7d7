"""A measuring machine that writes files, a Shopfloor that reads them, and an MES behind a network that can be cut.

Whatever is broken, the machine goes on measuring, and what it wrote is known here: the count does not take Shopfloor's
word for anything.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import httpx

from shopfloor.demo import Simulator
from shopfloor.samples import Unavailable
from shopfloor.simulators import cmm
from shopfloor.simulators.network import FaultProxy

_PLANT: Final = """
plant: {{site: chaos}}
journal: {{path: journal.db}}
historian: {{type: sqlite, path: history.db}}
console: {{listen: "127.0.0.1:{console}"}}
sources:
  - name: cmm
    type: files
    folder: measurements
    tag: "cmm-1/{{column}}"
    time: timestamp
    settle: 0 s
    columns:
      - {{column: serial, data_type: text}}
{columns}
sinks:
  - name: mes
    type: http
    url: "http://127.0.0.1:{mes}/api/samples"
    timeout: 2 s
"""
NUMBERS: Final = ("temperature", *(feature.name for feature in cmm.FEATURES))
TAGS: Final = ("cmm-1/serial", *(f"cmm-1/{name}" for name in NUMBERS))
_STARTS_WITHIN: Final = 60.0


class Sample(NamedTuple):
    """What makes a sample that one: its tag and the time of the measurement, ms UTC."""

    tag: str
    time: int


class Stage:
    """All of it, from entering to leaving."""

    def __init__(self, folder: Path, rate: float) -> None:
        """``rate``: parts measured a second, a file and six samples each."""
        self.folder = folder
        self.measured: list[int] = []
        """When each part was measured whose file is there, ms UTC."""
        self.proxy: FaultProxy
        self._rate = rate
        self._measurements = folder / "measurements"
        self._console = _free_port()
        self._mes = Simulator("mes", f"--file={folder / 'taken.jsonl'}", port=_free_port())
        self._stack = contextlib.AsyncExitStack()
        self._shopfloor: Process | None = None
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        """Start everything; returns when the first sample has arrived. Raises Unavailable."""
        try:
            await asyncio.to_thread(self._measurements.mkdir, parents=True)
            self._http = await self._stack.enter_async_context(httpx.AsyncClient(timeout=5, trust_env=False))
            self.proxy = await self._stack.enter_async_context(FaultProxy("127.0.0.1", self._mes.port))
            columns = "\n".join(f"      - {{column: {name}, data_type: float}}" for name in NUMBERS)
            text = _PLANT.format(console=self._console, mes=self.proxy.port, columns=columns)
            (self.folder / "plant.yaml").write_text(text)
            self._stack.push_async_callback(self._mes.stop)
            await self._mes.start()
            self._stack.push_async_callback(self.stop_shopfloor)
            await self.start_shopfloor()
            measuring = asyncio.create_task(self._measure(), name="measuring machine")
            self._stack.push_async_callback(_cancelled, measuring)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._stack.aclose()

    # --- the machine

    async def _measure(self) -> None:
        begin = time.time_ns()
        loop = asyncio.get_running_loop()
        since = loop.time()
        for number, part in enumerate(cmm.measurements(1, begin, 1 / self._rate)):
            await asyncio.sleep(max(0.0, since + number / self._rate - loop.time()))
            moment = datetime.fromtimestamp(part.time / 1e9, UTC)
            path = self._measurements / f"{moment:%Y%m%dT%H%M%S}_{part.serial}.csv"
            hidden = path.with_name(f".{path.name}")
            hidden.write_text(cmm.table("cmm-1", [part]))
            hidden.rename(path)
            self.measured.append(part.time // 10**6)

    def expected(self, first: int, last: int) -> Iterator[Sample]:
        """What has to be in the MES of the parts from number ``first`` on, before ``last``."""
        return (Sample(tag, at) for at in self.measured[first:last] for tag in TAGS)

    @property
    def under_way(self) -> int:
        """Parts that are between machine and MES at any moment, when all is well."""
        return max(3, round(self._rate))

    # --- the MES

    async def start_mes(self) -> None:
        """Start it again where it was."""
        await self._mes.start()

    def signal_mes(self, number: signal.Signals) -> None:
        """Kill it, halt it, let it go on."""
        os.kill(self._mes.pid, number)

    async def behave(self, **behaviour: object) -> None:
        """Let the MES answer otherwise; without anything: well."""
        answer = await self._http.put(f"{self._own}/behaviour", json=behaviour)
        answer.raise_for_status()

    async def taken(self) -> Counter[Sample]:
        """How often the MES counted each sample. Raises httpx.HTTPError while it is away."""
        answer = await self._http.get(f"{self._own}/received", timeout=30)
        bodies = (httpx.Response(200, text=one["body"]).json() for one in answer.raise_for_status().json())
        return Counter(Sample(one["tag"], _ms(one["time"])) for body in bodies for one in body["samples"])

    async def came_again(self) -> int:
        """Requests whose key the MES knew already: it counted them once."""
        answer = await self._http.get(f"{self._own}/state")
        doubles: int = answer.raise_for_status().json()["doubles"]
        return doubles

    @property
    def _own(self) -> str:
        return f"http://127.0.0.1:{self._mes.port}/mes"

    # --- Shopfloor

    @property
    def shopfloor(self) -> int:
        """Its process."""
        return self._shopfloor.pid if self._shopfloor else 0

    async def start_shopfloor(self) -> None:
        """Run the plant file. Raises Unavailable when it does not come up."""
        with (self.folder / "shopfloor.log").open("ab") as log:
            self._shopfloor = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shopfloor", "run", str(self.folder / "plant.yaml"),
                stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _STARTS_WITHIN
        while await self.waiting() is None:
            if self._shopfloor.returncode is not None or time.monotonic() > deadline:
                log_lines = (self.folder / "shopfloor.log").read_text("utf-8", "replace").splitlines()
                raise Unavailable("\n".join(["Shopfloor did not start; it said:", *log_lines[-10:]]))
            await asyncio.sleep(0.05)

    async def kill_shopfloor(self) -> None:
        """As a power cut ends it."""
        if self._shopfloor is not None and self._shopfloor.returncode is None:
            self._shopfloor.kill()
            await self._shopfloor.wait()

    async def stop_shopfloor(self) -> None:
        """As an operator ends it."""
        if self._shopfloor is not None and self._shopfloor.returncode is None:
            self._shopfloor.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._shopfloor.wait(), 30)
        await self.kill_shopfloor()

    async def waiting(self) -> int | None:
        """Buffer depth: how many journal entries wait for the MES; None while Shopfloor does not answer."""
        try:
            answer = await self._http.get(f"http://127.0.0.1:{self._console}/api/components")
            rows: list[dict[str, Any]] = answer.raise_for_status().json()["components"]
        except httpx.HTTPError:
            return None
        return next((row["lag_entries"] for row in rows if row["name"] == "mes"), None)

    async def unread(self) -> int:
        """Files of the machine that Shopfloor has not taken yet: it could not make them durable."""
        names = await asyncio.to_thread(os.listdir, self._measurements)
        return sum(name.endswith(".csv") and not name.startswith(".") for name in names)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
