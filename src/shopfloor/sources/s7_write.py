"""Writes one value to an S7: the bytes of its type and no others, not after its expiry, and read back."""

import asyncio
import time
from typing import Final

from shopfloor.protocols.s7_address import Address, Area
from shopfloor.protocols.s7_grouping import Block
from shopfloor.protocols.s7_session import OK, Expired, Refused, Session, State, why
from shopfloor.protocols.s7_values import Unfit, shown
from shopfloor.samples import Command, Outcome, Unavailable, Value
from shopfloor.sources.scanning import Scale

_PATIENCE: Final = 1.0
"""Seconds that a program has to take the value over into what is read."""
_AGAIN: Final = 0.02
_WRITE_OVERHEAD: Final = 28
"""Bytes of a write's telegram beside its data."""
_HEADS: Final = {"STRING": 1, "WSTRING": 2}
"""Bytes of the declared length of text, which belongs to the program and is never written."""
_REASONS: Final = {
    Area.INPUTS: "inputs are what sensors say; write a data block, a marker or an output",
    Area.PERIPHERY: "the periphery cannot be read back; write the output in the process image (QW…)",
    Area.TIMERS: "timers belong to the program; write a data block or a marker that it reads",
    Area.COUNTERS: "counters belong to the program; write a data block or a marker that it reads",
}


async def write(
    session: Session, command: Command, address: Address, scale: Scale | None, state: State | None
) -> Outcome:
    """Write the command's value to the address and read it back; never twice."""
    head = _HEADS.get(address.kind.name, 0)
    try:
        wanted = _encoded(session, command.value, address, scale, state)
        if head:
            await _check_room(session, address, wanted, head)
    except (Unfit, Unavailable) as error:
        return Outcome(command.id, done=False, detail=f"not written: {error}")
    try:
        code = await session.write(address, head, wanted[head:], command.expires)
    except Expired:
        return Outcome(command.id, done=False, detail="not written: the command expired before it could be sent")
    except Refused as error:
        return Outcome(command.id, done=False, detail=f"not written: {error}")
    except Unavailable as error:
        return _unknown(command, f"it is not known whether the value was written: {error}")
    if code != OK:
        return Outcome(command.id, done=False, detail=f"not written: {why(code, address)}")
    return await _read_back(session, command, address, wanted)


def _encoded(session: Session, value: Value, address: Address, scale: Scale | None, state: State | None) -> bytes:
    """The bytes to be written. Raises Unfit."""
    if address.area in _REASONS:
        raise Unfit(_REASONS[address.area])
    if state is State.STOP:
        raise Unfit("the PLC is in STOP; put it into RUN")
    wanted = address.kind.encode(_raw(value, address, scale))
    if len(wanted) + _WRITE_OVERHEAD > session.pdu:
        raise Unfit(f"{len(wanted)} bytes are more than the PLC takes in one telegram")
    return wanted


def _raw(value: Value, address: Address, scale: Scale | None) -> Value:
    """What stands in the PLC for this value."""
    raw = value if scale is None else scale.to_raw(value)
    return round(raw) if scale is not None and address.kind.whole and isinstance(raw, float) else raw


async def _check_room(session: Session, address: Address, wanted: bytes, head: int) -> None:
    """Whether the text fits into what the program declared there, which may be less than the plant file says."""
    (found,) = await session.read([Block(address.area, address.db, address.start, head)])
    if isinstance(found, int):
        raise Unfit(why(found, address))
    room, length = int.from_bytes(found, "big"), int.from_bytes(wanted[head : 2 * head], "big")
    if length > room:
        raise Unfit(f"{length} characters do not fit into the {address.kind.name} of {room} that the PLC has there")


async def _read_back(session: Session, command: Command, address: Address, wanted: bytes) -> Outcome:
    """Read until the PLC holds what was written, for as long as its cycle may take."""
    until = time.monotonic() + _PATIENCE
    head = _HEADS.get(address.kind.name, 0)
    block = Block(address.area, address.db, address.start, len(wanted))
    while True:
        try:
            (found,) = await session.read([block])
        except Unavailable as error:
            return _unknown(command, f"the PLC took the value, but it could not be read back: {error}")
        if isinstance(found, int):
            return _unknown(command, f"the PLC took the value, but it could not be read back: {why(found, address)}")
        if address.is_bit:
            found = bytes([found[0] >> address.bit & 1])
        if found[head:] == wanted[head:]:
            return Outcome(command.id, done=True, detail="written and read back")
        if time.monotonic() >= until:
            return _unknown(
                command,
                f"the PLC took {shown(command.value)}, but it reads {_decoded(address, found)}: the program may have "
                "changed or refused it; look at the machine",
            )
        await asyncio.sleep(_AGAIN)


def _decoded(address: Address, found: bytes) -> str:
    try:
        return shown(address.kind.decode(found))
    except (Unfit, ValueError, IndexError):
        return found.hex(" ")


def _unknown(command: Command, detail: str) -> Outcome:
    return Outcome(command.id, done=None, detail=detail)
