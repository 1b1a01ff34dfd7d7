"""How many MQTT messages of QoS 1 become durable and acknowledged, beside mosquitto_sub on the same broker.

Both find the same messages queued at a Mosquitto, each in a session of its own, and take them one after the
other: so the publisher costs neither of them anything.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Final, NamedTuple

from shopfloor.bench import Result
from shopfloor.journal import SqliteJournal
from shopfloor.plant.mqtt import MqttConnection
from shopfloor.protocols.broker import Broker
from shopfloor.protocols.mqtt import Message, connect
from shopfloor.samples import Misconfigured
from shopfloor.sources.mqtt import MqttSourceConfig
from shopfloor.sources.mqtt_payload import MqttTopic, MqttValue

if sys.platform != "win32":  # it is not made for Windows
    import uvloop

_SIZE: Final = 200
"""Bytes of a message."""
_TOPICS: Final = 100


def run(thorough: bool) -> list[Result]:  # noqa: FBT001  # the signature of every bench
    """Messages a second, their ratio to mosquitto_sub's in the same run, and messages a second of processor time."""
    messages, runs = (200_000, 9) if thorough else (50_000, 5)
    with asyncio.Runner(loop_factory=None if sys.platform == "win32" else uvloop.new_event_loop) as runner:
        took = [runner.run(_measure(messages)) for _ in range(runs)]
    rates = [round(messages / one.ours) for one in took]
    processor = [round(messages / one.processor) for one in took]
    ratio = round(statistics.median(one.theirs / one.ours for one in took), 2)
    return [
        Result("durable_qos1", statistics.median(rates), "1/s", ratio, "mosquitto_sub", min(rates), max(rates), runs),
        Result(
            "durable_qos1_per_cpu_second",
            statistics.median(processor),
            "1/s",
            min=min(processor),
            max=max(processor),
            runs=runs,
        ),
    ]


class _Took(NamedTuple):
    """Seconds that the messages took."""

    ours: float
    processor: float
    """Of which this process was at work, all its threads together."""
    theirs: float


async def _measure(messages: int) -> _Took:
    program = shutil.which("mosquitto_sub")
    if program is None:
        raise Misconfigured("mosquitto_sub is not installed; install it with: apt-get install mosquitto-clients")
    async with Broker(kind="mosquitto") as broker:
        config = MqttSourceConfig(
            name="bench", servers=[broker.address], client_id="bench",
            topics=[MqttTopic(topic="bench/#", payload="json", time="time", values=[MqttValue(path="value")])],
        )  # fmt: skip
        subscriber = [
            program,
            "-h",
            broker.host,
            "-p",
            str(broker.port),
            "-c",
            "-i",
            "peer",
            "-q",
            "1",
            "-t",
            "bench/#",
        ]
        async with config.build():
            pass
        await _wait_for(subscriber, "-E")  # subscribe and leave
        await _fill(broker, messages)
        theirs = await _timed_peer(subscriber, messages)
        before = time.process_time()
        ours = await _timed(config, messages)
        processor = time.process_time() - before
    return _Took(ours, processor, theirs)


async def _fill(broker: Broker, messages: int) -> None:
    body = b'{"value":%d,"time":1767592800000,"note":"'
    said = [
        Message(b"bench/%d" % (i % _TOPICS), (body % i).ljust(_SIZE - 2, b"-") + b'"}', retain=False)
        for i in range(messages)
    ]
    publisher = await connect(MqttConnection(servers=[broker.address]), "publisher")
    try:
        await publisher.publish(said, 1, 1000)
    finally:
        await publisher.close()


async def _timed(config: MqttSourceConfig, messages: int) -> float:
    """Seconds until the journal has all of them and they are acknowledged."""
    with tempfile.TemporaryDirectory() as folder:
        journal = await SqliteJournal.open(Path(folder) / "journal.db")
        try:
            began = time.perf_counter()
            left = messages
            async with config.build() as source, aclosing(source.batches()) as batches:
                async for batch in batches:
                    await journal.append(batch)
                    left -= len(batch)
                    if left <= 0:
                        break
                return time.perf_counter() - began
        finally:
            await journal.close()


async def _timed_peer(subscriber: list[str], messages: int) -> float:
    began = time.perf_counter()
    await _wait_for(subscriber, "-C", str(messages))
    return time.perf_counter() - began


async def _wait_for(command: list[str], *options: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *command, *options, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    if await child.wait():
        raise RuntimeError(f"mosquitto_sub ended with {child.returncode}")
