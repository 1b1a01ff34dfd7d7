"""Probing tells whether the other sides are there, and disturbs nobody who is connected."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from shopfloor.pipeline.probe import probe
from shopfloor.plant import parse
from shopfloor.samples import Batch
from shopfloor.testing.contracts import until
from shopfloor.testing.programs import Mosquitto

PLANT = """
plant: {{site: test}}
sources:
  - {{name: cell, type: mqtt, servers: "mqtt://127.0.0.1:{port}", client_id: cell, topics: [{{topic: "cell/#"}}]}}
  - {{name: floor, type: sparkplug, host_id: mes, client_id: floor, servers: "mqtt://127.0.0.1:{port}"}}
sinks:
  - {{name: cloud, type: mqtt, client_id: cloud, servers: "mqtt://127.0.0.1:{port}"}}
  - {{name: edge, type: sparkplug, client_id: edge, group: g, node: n, memory: memory,
     servers: "mqtt://127.0.0.1:{port}"}}
console: null
"""


async def test_a_running_client_of_the_same_name_is_not_thrown_out(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        plant = parse(PLANT.format(port=broker.port), "plant.yaml", tmp_path)
        sources, sinks = [c.build() for c in plant.sources], [c.build() for c in plant.sinks]
        async with sources[0], sources[1], sinks[0], sinks[1]:
            losing = [asyncio.create_task(sink.lost()) for sink in sinks]
            reading = [asyncio.create_task(_read(source.batches())) for source in sources]
            await until(lambda: len(asyncio.all_tasks()) > len(losing) + len(reading), "they are at work")
            said = [probed async for probed in probe(plant)]
            assert [(one.name, one.result) for one in said] == [
                ("cell", "ok"), ("floor", "ok"), ("cloud", "ok"), ("edge", "ok"),
            ]  # fmt: skip
            await asyncio.sleep(0.3)  # a broker throws the first of two at once
            assert not any(task.done() for task in (*losing, *reading))
            for task in (*losing, *reading):
                task.cancel()
            await asyncio.gather(*losing, *reading, return_exceptions=True)


async def _read(batches: AsyncGenerator[Batch]) -> None:
    async with aclosing(batches) as reading:
        async for _ in reading:
            pass
