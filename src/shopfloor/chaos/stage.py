"""A measuring machine that writes files, a Shopfloor that reads them, an MES and databases behind a network.

Whatever is broken, the machine goes on measuring, and what it wrote is known here: the count does not take Shopfloor's
word for anything.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from shopfloor.chaos.databases import Database, Sample
from shopfloor.demo import Simulator
from shopfloor.samples import Unavailable
from shopfloor.simulators import cmm
from shopfloor.simulators.network import FaultProxy, claimed

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
{databases}"""
MES: Final = "mes"
NUMBERS: Final = ("temperature", *(feature.name for feature in cmm.FEATURES))
TAGS: Final = ("cmm-1/serial", *(f"cmm-1/{name}" for name in NUMBERS))
_STARTS_WITHIN: Final = 60.0
_COMES_WITHIN: Final = 90.0


class Stage:
    """All of it, from entering to leaving."""

    def __init__(self, folder: Path, rate: float, kinds: Sequence[type[Database]] = ()) -> None:
        """``rate``: parts measured a second, a file and six samples each; ``kinds``: the databases beside the MES."""
        self.folder = folder
        self.databases: Mapping[str, Database] = {}
        self.measured: list[int] = []
        """When each part was measured whose file is there, ms UTC."""
        self.proxies: dict[str, FaultProxy] = {}
        """The network before each destination."""
        self._kinds = kinds
        self._rate = rate
        self._measurements = folder / "measurements"
        self._claims = (claimed(), claimed())
        self._console, mes = (claim.getsockname()[1] for claim in self._claims)
        self._mes = Simulator("mes", f"--file={folder / 'taken.jsonl'}", port=mes)
        self._stack = contextlib.AsyncExitStack()
        self._shopfloor: Process | None = None
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> Self:
        """Start everything; returns when Shopfloor runs and the machine measures. Raises Unavailable, Misconfigured."""
        try:
            for claim in self._claims:
                self._stack.callback(claim.close)
            await asyncio.to_thread(self._measurements.mkdir, parents=True)
            self._http = await self._stack.enter_async_context(httpx.AsyncClient(timeout=5, trust_env=False))
            self._stack.push_async_callback(self._mes.stop)
            self.databases = {kind.name: kind(self.folder) for kind in self._kinds}
            for database in self.databases.values():
                self._stack.push_async_callback(database.stop)
            await _all(self._mes.start(), *(database.start() for database in self.databases.values()))
            ports = {MES: self._mes.port, **{name: one.port for name, one in self.databases.items()}}
            for name, port in ports.items():
                self.proxies[name] = await self._stack.enter_async_context(FaultProxy("127.0.0.1", port))
            (self.folder / "plant.yaml").write_text(self._plant())
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

    def _plant(self) -> str:
        return _PLANT.format(
            console=self._console,
            columns="\n".join(f"      - {{column: {name}, data_type: float}}" for name in NUMBERS),
            mes=self.proxies[MES].port,
            databases="".join(one.lines(self.proxies[name].port) for name, one in self.databases.items()),
        )

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
        """What has to be in each destination of the parts from number ``first`` on, before ``last``."""
        return (Sample(tag, at) for at in self.measured[first:last] for tag in TAGS)

    @property
    def under_way(self) -> int:
        """Parts that are between machine and destinations at any moment, when all is well."""
        return max(3, round(self._rate))

    # --- the destinations

    @property
    def titles(self) -> Mapping[str, str]:
        """Each destination by its name, the sink's, and what people call it."""
        return {MES: "MES", **{name: one.title for name, one in self.databases.items()}}

    async def held(self, destination: str, first: int) -> Counter[Sample]:
        """How often it counted each sample of the parts from number ``first`` on. Raises Unavailable when away."""
        since = self.measured[first] if first < len(self.measured) else 0
        try:
            return await (self._taken() if destination == MES else self.databases[destination].held(since))
        except httpx.HTTPError as error:
            raise Unavailable(f"the simulated MES does not answer: {error}") from error

    async def answers_lost(self) -> Sequence[str]:
        """Wait until each destination has given an answer that the network lost; says so. Raises Unavailable."""
        deadline = time.monotonic() + _COMES_WITHIN
        before = {name: proxy.lost for name, proxy in self.proxies.items()}
        while waited := [name for name, proxy in self.proxies.items() if proxy.lost == before[name]]:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"nothing was sent to {waited[0]} for {_COMES_WITHIN:g} s, so no answer could be lost"
                )
            await asyncio.sleep(0.05)
        return [f"{title}: the answer to what it had stored was lost" for title in self.titles.values()]

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

    async def _taken(self) -> Counter[Sample]:
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
        passwords = {one.variable: one.password for one in self.databases.values()}
        with (self.folder / "shopfloor.log").open("ab") as log:
            self._shopfloor = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shopfloor", "run", str(self.folder / "plant.yaml"),
                stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True,
                env={**os.environ, **passwords},
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
        """Buffer depth: how many journal entries wait for the slowest sink; None while Shopfloor does not answer."""
        try:
            answer = await self._http.get(f"http://127.0.0.1:{self._console}/api/components")
            rows: list[dict[str, Any]] = answer.raise_for_status().json()["components"]
        except httpx.HTTPError:
            return None
        depths = [row["lag_entries"] for row in rows if row["name"] in self.titles]
        return max(depths) if len(depths) == len(self.titles) else None

    async def unread(self) -> int:
        """Files of the machine that Shopfloor has not taken yet: it could not make them durable."""
        names = await asyncio.to_thread(os.listdir, self._measurements)
        return sum(name.endswith(".csv") and not name.startswith(".") for name in names)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _all(*starting: Coroutine[Any, Any, None]) -> None:
    """All of them side by side; the first error once none is under way any more, so that each can be stopped."""
    done = await asyncio.gather(*starting, return_exceptions=True)
    for one in done:
        if one is not None:
            raise one
