"""Writes Parquet files; says which entries it holds as soon as it was told so."""

import asyncio
import os
import sys
from pathlib import Path

from shopfloor.samples import Batch
from shopfloor.sinks.files import FilesSinkConfig

BEGIN = 1_767_592_800_000_000_000


async def main() -> None:
    config = FilesSinkConfig.model_validate(
        {"name": "out", "type": "files", "folder": Path(sys.argv[1]) / "out", "partition": "none"}
    )
    for first in (1, 21):
        async with config.build() as sink:
            for offset in range(first, first + 20):
                batch = Batch(
                    "line", BEGIN, ["line/x"] * 10, [BEGIN + offset] * 10, [offset * 10 + i for i in range(10)]
                )
                await sink.write(offset, batch)
                os.write(1, f"durable {offset}\n".encode())
                if offset % 7 == 0:
                    await sink.finish()


asyncio.run(main())
