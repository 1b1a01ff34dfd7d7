"""The program that builds the standard's nodes for ``opcua_standard``, and ends when nobody waits for them."""

import asyncio
import importlib
import os
import sys
import threading


def _end_with_who_asked() -> None:
    """Who was killed has closed the pipe; building for nobody would take a core for seconds."""
    os.read(sys.stdin.fileno(), 1)  # not by sys.stdin: the end of the process would wait for its lock
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_who_asked, daemon=True).start()
    # Only now what takes a second to load.
    asyncio.run(importlib.import_module("shopfloor.sinks.opcua_standard").build())
