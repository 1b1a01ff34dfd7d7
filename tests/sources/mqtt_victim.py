"""A whole plant in a process of its own, to be killed: MQTT → journal → historian."""

import asyncio
from pathlib import Path

from shopfloor import historian, plant, sources  # noqa: F401  # loaded once by the fork server
from shopfloor.historian import duck  # noqa: F401
from shopfloor.pipeline import Pipeline
from shopfloor.plant import Plant
from shopfloor.sources import mqtt  # noqa: F401


def described(folder: Path, port: int) -> Plant:
    """The victim's plant file."""
    text = f"""
        plant: {{site: victim}}
        sources:
          - name: cells
            type: mqtt
            servers: mqtt://127.0.0.1:{port}
            topics:
              - {{topic: "cell/#"}}
        historian: {{type: duckdb, path: history.duckdb}}
        journal: {{path: journal.db}}
        console: null
    """
    return plant.parse(text, "victim.yaml", folder, {})


def live(folder: str, port: int) -> None:
    """Run until killed."""
    asyncio.run(_live(described(Path(folder), port)))


async def _live(described_plant: Plant) -> None:
    async with Pipeline(described_plant):
        await asyncio.Event().wait()
