# asyncua generates its classes with types that pyright cannot read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Reads nodes again and again, for servers without subscriptions, and delivers what changed."""

import asyncio
import heapq
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaStatusCodeError

from shopfloor.protocols.opcua_publish import Changes, Malformed, read_values
from shopfloor.protocols.opcua_session import Session
from shopfloor.protocols.opcua_structures import StructureTypes
from shopfloor.samples import Unavailable, Value
from shopfloor.sources.changes import changed
from shopfloor.sources.opcua_feed import Delivery, Item

_ALIVE: Final = 5.0
"""Seconds without a read after which the server is asked for a sign of life, which also keeps the session."""


class Polling:
    """All polled items of a source, read in groups of the same interval."""

    def __init__(self, session: Session, items: Sequence[Item], structures: StructureTypes) -> None:
        """Reads nothing yet."""
        self._session = session
        self._structures = structures
        groups = groupby(sorted(items, key=lambda i: i.sampling), key=lambda i: i.sampling)
        now = asyncio.get_running_loop().time()
        self._due = [(now, n, sampling / 1000, list(group)) for n, (sampling, group) in enumerate(groups)]
        heapq.heapify(self._due)
        self._last: dict[int, tuple[Value, int]] = {}

    async def next(self) -> Delivery:
        """Read what is due, until something changed. Raises Unavailable."""
        changes = Changes()
        while not len(changes):
            now = asyncio.get_running_loop().time()
            due, order, every, items = self._due[0] if self._due else (math.inf, 0, 0.0, [])
            if due - now > _ALIVE:
                await asyncio.sleep(_ALIVE)
                await self._read([ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_State))])
                continue
            await asyncio.sleep(due - now)
            # A read that took longer than the interval makes the next one late, not twice.
            later = max(due + every, asyncio.get_running_loop().time())
            heapq.heapreplace(self._due, (later, order, every, items))
            for start in range(0, len(items), self._session.limits.read):
                some = items[start : start + self._session.limits.read]
                self._compare(some, await self._read([item.node for item in some]), changes)
        return Delivery(changes)

    async def _read(self, nodes: Sequence[ua.NodeId]) -> Changes:
        request = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value) for node in nodes]
        try:
            body = await self._session.request(request)
            found = read_values(body.copy(), self._structures)
            if self._structures.wanted:
                await self._structures.learn()
                found = read_values(body, self._structures)
        except UaStatusCodeError as error:
            raise self._session.explain(error) from error
        except Malformed as error:
            raise Unavailable(str(error)) from error
        if len(found) != len(nodes):
            raise Unavailable(f"the server answers a read of {len(nodes)} nodes with {len(found)} values")
        return found

    def _compare(self, items: Sequence[Item], found: Changes, changes: Changes) -> None:
        rows = zip(items, found.values, found.statuses, found.times, found.server_times, strict=True)
        for item, value, status, moment, server in rows:
            held = None if status >> 31 else value
            if _changed(self._last.get(item.handle), held, status, item):
                self._last[item.handle] = (held, status)
                changes.add(item.handle, held, status, moment, server)

    def acknowledge(self, delivery: Delivery) -> None:
        """A read needs no acknowledgement."""

    async def close(self) -> None:
        """Nothing runs between calls."""


def _changed(last: tuple[Value, int] | None, value: Value, status: int, item: Item) -> bool:
    if last is None or last[1] != status:
        return True
    return changed(last[0], value, None if item.deadband is None else item.deadband.value)
