"""Records commands; says which are on disk as soon as it was told so."""

import asyncio
import os
import sys
import time
from pathlib import Path

from shopfloor.commands.audit import Audit, Entry


async def main() -> None:
    for first in (0, 15):
        async with Audit(Path(sys.argv[1]) / "audit.db", time.time_ns) as audit:
            if "careless" in sys.argv:  # what is then said is not true
                assert audit._db is not None
                await audit._in_order(audit._db.execute, "PRAGMA synchronous = OFF")
            for number in range(first, first + 15):
                await audit.append(Entry("issued", "anna", "operator", "press/SP", number, str(number)))
                os.write(1, f"durable {number}\n".encode())


asyncio.run(main())
