# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The standard's own 6,000 nodes: built by asyncua in a process of their own, and taken over piece by piece.

asyncua builds them of ten megabytes of Python. Where that is not compiled yet, each of its 25 files holds all threads
of a process for a tenth of a second, and running them keeps a core busy for more than one: sources would be read late.
"""

import asyncio
import logging
import pickle
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Final

from asyncua import ua
from asyncua.server.address_space import AddressSpace, NodeData
from asyncua.server.internal_server import InternalServer

BUILDER: Final = "shopfloor.sinks.opcua_builder"
_log: Final = logging.getLogger("shopfloor.sinks.opcua")

_PIECE: Final = 25
"""Nodes that are taken over at once: some milliseconds."""
_LENGTH: Final = struct.Struct("<I")
_PAUSE: Final = 0.001


async def give_way() -> None:
    """Let the other threads of the process work for a moment, without asking them to fight for it."""
    await asyncio.sleep(_PAUSE)


async def load(space: AddressSpace) -> bool:
    """Put the nodes into the space; False where no process can be had, or it ends too early: then none is there yet."""
    try:
        builder = await asyncio.create_subprocess_exec(
            # Away from Ctrl-C, which ends its pipes anyway.
            sys.executable, "-m", BUILDER, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            nodes = await _taken(builder)
        finally:
            if builder.returncode is None:
                builder.kill()
            if builder.stdin is not None:
                builder.stdin.close()
            await builder.communicate()  # to the end of its pipe, too: what is open then would outlive the loop
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        _log.debug("the standard's nodes are built here, as there is no process for it: %r", error)
        return False
    for node_id, node in nodes:  # milliseconds
        space[node_id] = node
    return True


async def _taken(builder: Process) -> list[tuple[ua.NodeId, NodeData]]:
    """All the nodes. Raises EOFError when the builder ends before its end mark."""
    if builder.stdout is None:
        raise EOFError
    nodes: list[tuple[ua.NodeId, NodeData]] = []
    while size := _LENGTH.unpack(await builder.stdout.readexactly(_LENGTH.size))[0]:
        nodes += pickle.loads(await builder.stdout.readexactly(size))  # noqa: S301  # our own process
        await give_way()
    return nodes


async def build() -> None:
    """The builder's part: the nodes to stdout."""
    server = InternalServer()
    await server.load_standard_address_space()
    _give(server.aspace)


def _give(space: AddressSpace) -> None:
    """In pieces, each behind its length; a length of 0 is the end."""
    ids = list(space.keys())
    # Not by sys.stdout: unbuffered (PYTHONUNBUFFERED) it leaves out the rest of what could be written in part only, as
    # when the process is stopped and goes on.
    with open(sys.stdout.fileno(), "wb", closefd=False) as pipe:
        for first in range(0, len(ids), _PIECE):
            nodes = [(node_id, space[node_id]) for node_id in ids[first : first + _PIECE]]
            piece = pickle.dumps(nodes, pickle.HIGHEST_PROTOCOL)
            pipe.write(_LENGTH.pack(len(piece)) + piece)
        pipe.write(_LENGTH.pack(0))
