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
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from shopfloor.protocols.opcua_publish import Changes, Structures, structure
from shopfloor.protocols.opcua_session import Session
from shopfloor.protocols.opcua_values import nanoseconds, plain
from shopfloor.samples import Value
from shopfloor.sources.opcua_feed import Delivery, Item

_ALIVE: Final = 5.0
"""Seconds without a read after which the server is asked for a sign of life, which also keeps the session."""


class Polling:
    """All polled items of a source, read in groups of the same interval."""

    def __init__(self, session: Session, items: Sequence[Item], structures: Structures | None) -> None:
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
            due, order, every, items = self._due[0]
            now = asyncio.get_running_loop().time()
            if due - now > _ALIVE:
                await asyncio.sleep(_ALIVE)
                await self._read([ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_State))])
                continue
            await asyncio.sleep(due - now)
            # A read that took longer than the interval makes the next one late, not twice.
            later = max(due + every, asyncio.get_running_loop().time())
            heapq.heapreplace(self._due, (later, order, every, items))
            for item, found in zip(items, await self._read([item.node for item in items]), strict=True):
                self._compare(item, found, changes)
        return Delivery(changes)

    async def _read(self, nodes: Sequence[ua.NodeId]) -> list[ua.DataValue]:
        try:
            return await self._session.read([(node, AttributeIds.Value) for node in nodes])
        except UaStatusCodeError as error:
            raise self._session.explain(error) from error

    def _compare(self, item: Item, found: ua.DataValue, changes: Changes) -> None:
        status = 0 if found.StatusCode is None else int(found.StatusCode.value)
        try:
            value = None if found.Value is None or status >> 31 else self._plain(found.Value.Value)
        except Exception:  # noqa: BLE001  # a value of one tag must not stop the others
            value, status = None, StatusCodes.BadDecodingError
        if not _changed(self._last.get(item.handle), value, status, item):
            return
        self._last[item.handle] = (value, status)
        source, server = (
            0 if stamp is None else nanoseconds(ua.datetime_to_win_epoch(stamp))
            for stamp in (found.SourceTimestamp, found.ServerTimestamp)
        )
        changes.add(item.handle, value, status, source, server)

    def _plain(self, value: object) -> Value:
        if isinstance(value, ua.ExtensionObject):
            return plain(structure(value.TypeId, value.Body, self._structures))
        return plain(value)

    def acknowledge(self, delivery: Delivery) -> None:
        """A read needs no acknowledgement."""

    async def close(self) -> None:
        """Nothing runs between calls."""


def _changed(last: tuple[Value, int] | None, value: Value, status: int, item: Item) -> bool:
    if last is None or last[1] != status or type(last[0]) is not type(value):
        return True
    before = last[0]
    if isinstance(value, float) and isinstance(before, float) and math.isnan(value) and math.isnan(before):
        return False
    if item.deadband is not None and isinstance(value, int | float) and isinstance(before, int | float):
        return not abs(value - before) <= item.deadband.value
    return before != value
