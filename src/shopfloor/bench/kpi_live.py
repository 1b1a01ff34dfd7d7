"""How long it takes until a sample of one of two hundred machines is in its figures on the console's API.

The whole product in a process of its own: MQTT from a Mosquitto, journal, figures, historian, console. Each machine
says state, good and scrap once a second; three of them are asked for over the API again and again.
"""

import asyncio
import http.client
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import psutil

from shopfloor.bench import Result
from shopfloor.bench.recorder import process
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.broker import Broker
from shopfloor.protocols.mqtt import Message, connect
from shopfloor.samples import Unavailable
from shopfloor.testing.programs import free_port

MACHINES: Final = 200
_ASKED: Final = (0, 99, 199)
_WARM_UP: Final = 15
"""Seconds before it counts."""
_READY_WITHIN: Final = 60.0
_PAUSE: Final = 0.02
"""Seconds from one question to the next: as good as this is the latency known."""
_MB: Final = 10**6


def measure(*, thorough: bool) -> list[Result]:
    """Over 30 seconds or five minutes. Raises Unavailable when the plant does not start."""
    return asyncio.run(_measure(300 if thorough else 30))


def plant_text(broker: str, console: int) -> str:
    """The plant file."""
    values = "[{path: state}, {path: good}, {path: scrap}]"
    topics = [f"{{topic: m{n}, payload: json, tag: m{n}, time: time, values: {values}}}" for n in range(MACHINES)]
    roles = [f"state: m{n}/state, good: m{n}/good, scrap: m{n}/scrap" for n in range(MACHINES)]
    machines = [f"{{id: m{n}, ideal_cycle: 1 s, {roles[n]}}}" for n in range(MACHINES)]
    return "\n".join(
        [
            "plant: {site: bench}",
            f"console: {{listen: '127.0.0.1:{console}'}}",
            "historian: {type: sqlite}",
            "processors: [{name: figures, type: machine}]",
            "machines:",
            *(f"  - {machine}" for machine in machines),
            "sources:",
            f"  - {{name: fleet, type: mqtt, servers: ['{broker}'], client_id: bench, topics: [",
            ",\n".join(f"      {topic}" for topic in topics),
            "    ]}",
        ]
    )


class _Fleet:
    """What the machines said, and when."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self.said: dict[int, float] = {}
        """Monotonic time of each count."""

    async def run(self) -> None:
        """Say something each second, until cancelled."""
        publisher = await connect(MqttConnection(servers=[self._broker]), "publisher")
        try:
            count = 0
            while True:
                await asyncio.sleep(1 - time.time() % 1)
                body = b'{"time":%d,"state":6,"good":%d,"scrap":0}' % (time.time_ns() // 10**6, count)
                self.said[count] = time.monotonic()
                await publisher.publish([Message(b"m%d" % n, body, retain=False) for n in range(MACHINES)], 0, 1000)
                count += 1
        finally:
            await publisher.close()


class _Asker:
    """Asks the console for the running figures of a machine."""

    def __init__(self, port: int, machine: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._path = f"/api/machines/m{machine}/kpi"
        self._seen = -1
        self.latencies: list[float] = []

    def good(self) -> int:
        """Units of the running day; -1 while there are no figures."""
        try:
            self._connection.request("GET", self._path)
            answer = self._connection.getresponse()
            body = answer.read()
        except OSError:
            self._connection.close()
            return -1
        live = msgspec.json.decode(body).get("live") if answer.status == 200 else None  # noqa: PLR2004
        return -1 if live is None else int(live["good"])

    async def ask(self, fleet: _Fleet) -> None:
        """Ask, and note how old what is new now is."""
        good = await asyncio.to_thread(self.good)
        now = time.monotonic()
        if self._seen >= 0:
            # The first count was the baseline: what was made is what it says less that.
            self.latencies += [1000 * (now - fleet.said[count]) for count in range(self._seen + 1, good + 1)]
        self._seen = max(good, self._seen)


async def _measure(seconds: int) -> list[Result]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        async with Broker() as broker:
            plant = Path(folder) / "plant.yaml"
            plant.write_text(plant_text(broker.address, port), "utf-8")
            with process("run", str(plant), "--log-level", "warning") as child:
                await _ready(port)
                fleet = _Fleet(broker.address)
                saying = asyncio.create_task(fleet.run())
                try:
                    return await _asked(psutil.Process(child.pid), fleet, port, seconds)
                finally:
                    saying.cancel()
                    with suppress(asyncio.CancelledError):
                        await saying


async def _ready(port: int) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise Unavailable("the plant did not start; what it said stands above") from error
            await asyncio.sleep(0.2)
    await asyncio.sleep(1)  # sources connect


async def _asked(process: psutil.Process, fleet: _Fleet, port: int, seconds: int) -> list[Result]:
    await asyncio.sleep(_WARM_UP)
    askers = [_Asker(port, machine) for machine in _ASKED]
    began, used, asked = time.monotonic(), process.cpu_times(), 0
    while time.monotonic() < began + seconds:
        for asker in askers:
            await asker.ask(fleet)
            asked += 1
        await asyncio.sleep(_PAUSE)
    now, took = process.cpu_times(), time.monotonic() - began
    found = sorted(latency for asker in askers for latency in asker.latencies)
    if not found:
        raise Unavailable("no figures came; what the plant said stands above")
    cpu = 100 * (now.user + now.system - used.user - used.system) / took
    return [
        Result(
            "live_latency_ms",
            round(statistics.median(found)),
            "ms",
            None,
            None,
            round(found[0]),
            round(found[-1]),
            len(found),
        ),
        Result("live_latency_p95_ms", round(found[int(0.95 * len(found))]), "ms", runs=len(found)),
        Result("live_cpu_percent", round(cpu, 1), f"% of one core, of which {asked / took:.0f} questions/s", runs=1),
        Result("live_rss_mb", round(process.memory_info().rss / _MB, 1), "MB", runs=1),
    ]
