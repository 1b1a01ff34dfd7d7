"""A whole plant in a process of its own, to be killed: OPC UA → journal → historian."""

import asyncio
from pathlib import Path

from shopfloor import historian, plant, sources  # noqa: F401  # loaded once by the fork server
from shopfloor.historian import duck  # noqa: F401
from shopfloor.pipeline import Pipeline
from shopfloor.plant import Plant
from shopfloor.processors import machine  # noqa: F401
from shopfloor.sources import opcua  # noqa: F401


def described(folder: Path, endpoint: str) -> Plant:
    """The victim's plant file.

    The queue holds what is counted in the longest outage of a test, on the fastest machine.
    """
    text = f"""
        plant: {{site: victim}}
        sources:
          - name: plc
            type: opcua
            endpoint: {endpoint}
            publishing: 20 ms
            queue: 10000
            tags:
              - {{tag: plc/count, node: "ns=2;s=Count", sampling: 5 ms}}
        machines:
          - {{id: press, good: plc/count, ideal_cycle: 5 ms}}
        processors:
          - {{name: oee, type: machine}}
        historian: {{type: duckdb, path: history.duckdb}}
        journal: {{path: journal.db}}
        console: null
    """
    return plant.parse(text, "victim.yaml", folder, {})


def live(folder: str, endpoint: str) -> None:
    """Run until killed."""
    asyncio.run(_live(described(Path(folder), endpoint)))


async def _live(described_plant: Plant) -> None:
    async with Pipeline(described_plant):
        await asyncio.Event().wait()
