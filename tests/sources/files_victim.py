"""A whole plant in a process of its own, to be killed: files → journal → historian."""

import asyncio
from pathlib import Path

from shopfloor import historian, plant, sources  # noqa: F401  # loaded once by the fork server
from shopfloor.historian import duck  # noqa: F401
from shopfloor.pipeline import Pipeline
from shopfloor.plant import Plant
from shopfloor.sources import files  # noqa: F401


def described(folder: Path) -> Plant:
    """The victim's plant file."""
    text = """
        plant: {site: victim}
        sources:
          - name: cmm
            type: files
            folder: inbox
            tag: "{column}"
            time: time
            poll: 10 ms
            settle: 0 s
        historian: {type: duckdb, path: history.duckdb}
        journal: {path: journal.db}
        console: null
    """
    return plant.parse(text, "victim.yaml", folder, {})


def live(folder: str) -> None:
    """Run until killed."""
    asyncio.run(_live(described(Path(folder))))


async def _live(described_plant: Plant) -> None:
    async with Pipeline(described_plant):
        await asyncio.Event().wait()
