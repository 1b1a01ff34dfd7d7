"""Writes one value to a Modbus device: not after its expiry, never twice, and read back."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from shopfloor.protocols import modbus_line as line_
from shopfloor.protocols.modbus_address import BITS, WRITABLE, Layout, Place, Unfit
from shopfloor.protocols.modbus_line import Line, Lost, Refused, Send, Silent
from shopfloor.samples import Command, Outcome, Unavailable, Value

_PATIENCE: Final = 1.0
"""Seconds that a device has to take the value over into what it reads out."""
_AGAIN: Final = 0.02
_READ_ONLY: Final = {"input": "an input register", "discrete": "a discrete input"}
_NOT_KNOWN: Final = frozenset({line_.DEVICE_FAILURE, line_.NO_ANSWER})
"""Exceptions after which nobody knows whether the value arrived."""


class _Expired(Exception):
    """It is too late to write."""


class Writer:
    """Executes commands on one connection."""

    def __init__(self, line: Line, timeout: float, *, read_write: bool) -> None:
        """``timeout`` in seconds; ``read_write``: bits are written with the rest of their register, as it was read."""
        self._line = line
        self._timeout = timeout
        self._read_write = read_write

    async def write(self, command: Command, value: Value, device: int, place: Place, layout: Layout) -> Outcome:  # noqa: PLR0911  # one a way to fail
        """Write ``value``, the command's in raw units, and read it back."""
        if place.kind not in WRITABLE:
            return _not_done(command, f"{_READ_ONLY[place.kind]} can only be read; write a coil or a holding register")
        try:
            words = layout.encode(value)
        except Unfit as error:
            return _not_done(command, str(error))
        try:
            await self._send(command, device, place, layout, words)
        except _Expired:
            return _not_done(command, "the command expired before it could be sent")
        except Refused as error:
            if error.code in _NOT_KNOWN:
                return _unknown(command, f"it is not known whether the value was written: {error}")
            if error.code != line_.ACKNOWLEDGED:
                return _not_done(command, self._advice(error, place))
        except (Silent, Lost) as error:
            return _unknown(command, f"it is not known whether the value was written: {error}")
        except Unavailable as error:
            return _not_done(command, str(error))
        return await self._read_back(command, device, place, layout, words)

    async def _send(self, command: Command, device: int, place: Place, layout: Layout, words: Sequence[int]) -> None:
        """Send the request, where the device does not know it (nothing is written then) its more general form."""

        def in_time() -> None:
            if time.time_ns() >= command.expires:
                raise _Expired

        if place.bits is not None and self._read_write:
            try:
                (now,) = await self._line.read(place.kind, device, place.start, 1, self._timeout)
            except (Refused, Silent, Lost) as error:
                raise Unavailable(str(error)) from error  # nothing was written yet
            words = [now & ~layout.mask & 0xFFFF | words[0]]
        last = _requests(device, place, layout, words, masked=place.bits is not None and not self._read_write)
        for send in last[:-1]:
            try:
                await self._line.request(send, self._timeout, in_time)
            except Refused as error:
                if error.code != line_.ILLEGAL_FUNCTION:
                    raise
            else:
                return
        await self._line.request(last[-1], self._timeout, in_time)

    def _advice(self, error: Refused, place: Place) -> str:
        if error.code == line_.ILLEGAL_FUNCTION and place.bits is not None and not self._read_write:
            return (
                "the device cannot write single bits of a register (function 22); set `bit_writes: read-write` if no "
                "other bit of it changes by itself"
            )
        return str(error)

    async def _read_back(
        self, command: Command, device: int, place: Place, layout: Layout, words: Sequence[int]
    ) -> Outcome:
        """Done when the device reads what was written within a second."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                found = await self._line.read(place.kind, device, place.start, layout.size, self._timeout)
            except (Refused, Silent, Unavailable) as error:
                return _unknown(command, f"written, but it cannot be read back: {error}")
            if [word & layout.mask for word in found] == list(words):
                return Outcome(command.id, done=True, detail="written and read back")
            if time.monotonic() >= until:
                return _unknown(
                    command,
                    f"the device took {layout.decode(words)!r:.100}, but it reads {layout.decode(found)!r:.100}: it "
                    "may have changed or refused it; look at the machine",
                )
            await asyncio.sleep(_AGAIN)


def _requests(device: int, place: Place, layout: Layout, words: Sequence[int], *, masked: bool) -> list[Send]:
    """The ways to write this, the one that more devices know first."""
    start = place.start
    if masked:
        keep, put = ~layout.mask & 0xFFFF, words[0]
        return [lambda c: c.mask_write_register(address=start, and_mask=keep, or_mask=put, device_id=device)]
    if place.kind in BITS:
        bits = [bool(word) for word in words]
        return [
            lambda c: c.write_coil(start, bits[0], device_id=device),
            lambda c: c.write_coils(start, bits, device_id=device),
        ]
    several: Send = lambda c: c.write_registers(start, list(words), device_id=device)  # noqa: E731  # named by what it is
    if len(words) > 1:
        return [several]
    return [lambda c: c.write_register(start, words[0], device_id=device), several]


def _not_done(command: Command, why: str) -> Outcome:
    return Outcome(command.id, done=False, detail=f"not written: {why}")


def _unknown(command: Command, why: str) -> Outcome:
    return Outcome(command.id, done=None, detail=why)
