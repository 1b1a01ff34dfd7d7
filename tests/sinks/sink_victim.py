"""Sinks over a filled journal in a process of its own, to be killed."""

import asyncio
from pathlib import Path

from shopfloor import plant
from shopfloor.pipeline import Pipeline


def live(text: str, folder: str) -> None:
    """Run the plant of this text until killed."""
    asyncio.run(_live(text, Path(folder)))


async def _live(text: str, folder: Path) -> None:
    async with Pipeline(plant.parse(text, "victim.yaml", folder, {})):
        await asyncio.Event().wait()
