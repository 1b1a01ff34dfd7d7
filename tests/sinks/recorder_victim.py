"""The signal recorder's job in a process of its own, to be killed: a PLC → units and hours → MongoDB.

``recorder_victim.py FOLDER``: the plant file there, a clock that the test sets (8 bytes: ns beside the real one), and
what is known now, again and again, for the test to read.
"""

import asyncio
import json
import mmap
import struct
import sys
import time
from pathlib import Path

FOLDER = Path(sys.argv[1])
_real = time.time_ns
with (FOLDER / "clock").open("rb") as _file:
    _beside = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _shifted() -> int:
    beside: int = struct.unpack("<q", _beside[:8])[0]
    return _real() + beside


time.time_ns = _shifted  # before anybody takes it as a default

from shopfloor import plant  # noqa: E402
from shopfloor.pipeline import Pipeline, runner  # noqa: E402

runner.FIRST_DELAY = 0.02  # type: ignore[misc]
runner.LONGEST_DELAY = 0.1  # type: ignore[misc]


async def _live() -> None:
    known, new = FOLDER / "known.json", FOLDER / "known.new"
    async with Pipeline(plant.load(FOLDER / "plant.yaml"), _shifted) as pipeline:
        while True:
            newest = {tag: pipeline.live.get(tag) for tag in ("press-1/cycle", "press-1/units", "press-1/hourly")}
            said = {tag: [one.time, one.value, one.quality] for tag, one in newest.items() if one is not None}
            states = {one.name: [one.state, one.lag_entries] for one in pipeline.components()}
            new.write_text(json.dumps({"tags": said, "states": states}))
            new.replace(known)
            await asyncio.sleep(0.01)


asyncio.run(_live())
