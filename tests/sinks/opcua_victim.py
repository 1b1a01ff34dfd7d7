"""The sink opcua over a filled journal, in a process of its own that kills itself at a given moment."""

import os
import pickle
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import sink_victim  # type: ignore[import-not-found]  # beside this one, where the killed process finds it
from asyncua.server.address_space import AddressSpace

from shopfloor.pipeline.sinks import SinkRunner
from shopfloor.sinks import opcua_standard
from shopfloor.sinks.opcua_memory import Latest, Memory
from shopfloor.sinks.opcua_space import Space

Moment = Literal["before it is kept", "while it is kept", "before it is shown", "while it is shown"]


def live(text: str, folder: str, nodes: str, moment: Moment, after: int) -> None:
    """Deliver, until killed at that moment of a write behind ``after`` others; the standard's nodes are in a file."""
    _take_nodes_of(Path(nodes))
    SinkRunner.at_once = 500  # many writes
    _kill(moment, after)
    sink_victim.live(text, folder)


def _take_nodes_of(file: Path) -> None:
    async def load(space: AddressSpace) -> bool:
        for node_id, node in pickle.loads(file.read_bytes()).items():  # written by the test
            space[node_id] = node
        return True

    opcua_standard.load = load


def _kill(moment: Moment, after: int) -> None:
    store, apply = Memory.store, Space.apply
    written = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(rows: Sequence[Any]) -> Iterator[Any]:
        yield from rows[: len(rows) // 2]
        die()

    def storing(self: Memory, rows: Iterable[Latest], offset: int) -> None:
        nonlocal written
        written += 1
        due = written > after
        if due and moment == "before it is kept":
            die()
        store(self, half(list(rows)) if due and moment == "while it is kept" else rows, offset)

    async def showing(self: Space, rows: Sequence[Latest]) -> None:
        if written > after:
            if moment == "while it is shown":
                await apply(self, rows[: len(rows) // 2])
            die()
        await apply(self, rows)

    Memory.store, Space.apply = storing, showing  # type: ignore[method-assign]
