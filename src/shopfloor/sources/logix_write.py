"""Writes one value to a Logix tag: in its own type, not after its expiry, never twice, and read back."""

import asyncio
import math
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

import orjson

from shopfloor.protocols.eip_session import Answer, Lost, Unfit
from shopfloor.samples import Command, Outcome, Unavailable, Value
from shopfloor.sources.scanning import Scale

_PATIENCE: Final = 1.0
"""Seconds that a controller has to take the value over into what it reads out."""
_AGAIN: Final = 0.02
_INTEGERS: Final = {"SINT": 8, "INT": 16, "DINT": 32, "LINT": 64}
_UNSIGNED: Final = {"USINT": 8, "UINT": 16, "UDINT": 32, "ULINT": 64, "BYTE": 8, "WORD": 16, "DWORD": 32, "LWORD": 64}
_LONGEST: Final = 82


class Readable(Protocol):
    """A session of any of Rockwell's families."""

    async def read(self, names: Sequence[str]) -> list[Answer]:
        """What these tags hold. Raises Lost."""
        ...

    async def write(self, name: str, value: object, check: Callable[[], None]) -> str:
        """Write a value of the tag's own type; why the controller refused it, or "".

        ``check`` is called right before and may raise. Raises Lost, and Unfit for a value that cannot be written there.
        """
        ...


class _Expired(Exception):
    """It is too late to write."""


async def write(  # noqa: PLR0911  # one a way to fail
    session: Readable, command: Command, address: str, scale: Scale | None
) -> Outcome:
    """Write the command's value to the tag and read it back."""

    def in_time() -> None:
        if time.time_ns() >= command.expires:
            raise _Expired

    try:
        (now,) = await session.read([address])
        if now.error:
            return _not_done(command, f"the tag cannot be read: {now.error}")
        value = convert(command.value, now, scale)
    except Unfit as error:
        return _not_done(command, str(error))
    except Unavailable as error:
        return _not_done(command, str(error))
    try:
        refused = await session.write(address, value, in_time)
    except _Expired:
        return _not_done(command, "the command expired before it could be sent")
    except Unfit as error:
        return _not_done(command, str(error))
    except (Lost, Unavailable) as error:
        return Outcome(command.id, done=None, detail=f"it is not known whether the value was written: {error}")
    if refused:
        return _not_done(command, f"the controller refuses it: {refused}")
    return await _read_back(session, command, address, value, now.type)


async def _read_back(session: Readable, command: Command, address: str, value: object, kind: str) -> Outcome:
    """Done when the controller reads what was written within a second."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            (found,) = await session.read([address])
        except Unavailable as error:
            return Outcome(command.id, done=None, detail=f"written, but it cannot be read back: {error}")
        if not found.error and _same(found.value, value, kind):
            return Outcome(command.id, done=True, detail="written and read back")
        if time.monotonic() >= until:
            return Outcome(
                command.id,
                done=None,
                detail=f"the controller took {value!r:.100}, but it reads {found.error or repr(found.value):.100}: its "
                "program may have changed or refused it; look at the machine",
            )
        await asyncio.sleep(_AGAIN)


def convert(value: Value, now: Answer, scale: Scale | None) -> object:
    """The value as the tag takes it; ``now`` is what it reads. Raises Unfit that says what would fit."""
    base, array, size = now.type.partition("[")
    if scale is not None:
        value = scale.to_raw(value)
        if isinstance(value, float) and (base in _INTEGERS or base in _UNSIGNED):
            value = float(round(value))  # the nearest that it can hold
    if not array:
        if isinstance(now.value, str) and now.value.startswith("{") and base != "STRING":
            raise Unfit(f"the tag is a structure ({base}); write its members")
        return _one(value, base)
    try:
        items = orjson.loads(value) if isinstance(value, str) else None
    except orjson.JSONDecodeError:
        items = None
    count = int(size.rstrip("]"))
    if not isinstance(items, list) or len(cast("list[Value]", items)) != count:
        raise Unfit(f"the tag is an array of {count} {base}; give JSON text with as many, like [1, 2, 3]")
    return [_one(item, base) for item in cast("list[Value]", items)]


def _one(value: Value, kind: str) -> object:
    if kind == "BOOL":
        if not isinstance(value, bool):
            raise Unfit(f"the tag takes true and false, not {value!r:.100}")
        return value
    if kind in {"REAL", "LREAL"}:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit(f"the tag takes numbers, not {value!r:.100}")
        try:
            struct.pack("<f" if kind == "REAL" else "<d", value)
        except OverflowError as error:
            raise Unfit(f"{value!r:.100} is beyond {kind}") from error
        return float(value)
    if kind in _INTEGERS or kind in _UNSIGNED:
        bits = _INTEGERS.get(kind) or _UNSIGNED[kind]
        low, high = (0, 2**bits - 1) if kind in _UNSIGNED else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return _whole(value, kind, low, high)
    if not isinstance(value, str):
        raise Unfit(f"the tag takes text ({kind}), not {value!r:.100}")
    if len(value.encode("latin-1", errors="replace")) > _LONGEST or not value.isascii():
        raise Unfit(f"the tag takes at most {_LONGEST} ASCII characters")
    return value


def _whole(value: Value, kind: str, low: int, high: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit(f"the tag takes whole numbers ({kind}), not {value!r:.100}")
    if not low <= value <= high:
        raise Unfit(f"{value} is beyond {kind}: {low} to {high}")
    return value


def _same(found: Value, written: object, kind: str) -> bool:
    if isinstance(written, list):
        return isinstance(found, str) and all(
            _same(one, other, kind)
            for one, other in zip(orjson.loads(found), cast("list[object]", written), strict=True)
        )
    if isinstance(written, float) and isinstance(found, int | float):
        if math.isnan(written):
            return math.isnan(found)
        if kind.startswith("REAL"):  # it has fewer digits than what was asked for
            (written,) = struct.unpack("<f", struct.pack("<f", written))
            (found,) = struct.unpack("<f", struct.pack("<f", found))
    return found == written


def _not_done(command: Command, why: str) -> Outcome:
    return Outcome(command.id, done=False, detail=f"not written: {why}")
