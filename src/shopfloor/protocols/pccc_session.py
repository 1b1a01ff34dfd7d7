"""A connection to an SLC 500, MicroLogix or PLC-5: PCCC commands by EtherNet/IP, one after the other.

pycomm3 carries the session. Its SLCDriver is not used: in 1.2.16 it asks for each address by itself, takes every bit
``B3/n`` for bit 0, knows no control files, nothing of a PLC-5 and none of the extended errors.

The commands travel unconnected (UCMM), as libplctag and nodepccc do it with the same processors: there is no connection
then that could time out between two slow reads, and a lost one does not stay in the processor for a while.
"""

import os
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast

from pycomm3 import CIPDriver, CommError, ResponseError

from shopfloor.protocols import pccc_commands
from shopfloor.protocols.eip_session import FULL, Answer, EipSession, Lost, Unfit
from shopfloor.protocols.pccc_address import AREAS, Address, Family, parse
from shopfloor.protocols.pccc_commands import COMMAND, DIAGNOSE, MOST, Refusal
from shopfloor.protocols.pccc_grouping import Block, plan
from shopfloor.protocols.pccc_values import decode, encode, halted
from shopfloor.samples import Unavailable

_EXECUTE, _PCCC = 0x4B, 0x67
"""Service and class: execute PCCC."""
_VENDOR: Final = 0
"""Nobody's number: only members of ODVA have one."""


_STATUS: Final = parse("S:1")
"""Where the mode is."""


class Plc(NamedTuple):
    """Which processor, and how it is reached."""

    host: str
    port: int
    family: Family
    timeout: float
    """Seconds for one answer."""


class Session(EipSession):
    """The data files of one processor; ``async with`` connects."""

    def __init__(self, plc: Plc) -> None:
        """Opens nothing yet."""
        super().__init__(plc.host, plc.port, plc.timeout)
        self._family: Family = plc.family
        self._requester = struct.pack("<BH", 7, _VENDOR) + os.urandom(4)
        self._transaction = int.from_bytes(os.urandom(2))

    async def read_blocks(self, blocks: Sequence[Block]) -> list[bytes | Refusal]:
        """The bytes of each block, or why the processor does not give them. Raises Lost.

        A command that comes meanwhile waits for one block, not for all of them.
        """
        return [await self.run(partial(self._read, block)) for block in blocks]

    async def read(self, names: Sequence[str]) -> list[Answer]:
        """What these addresses hold, each asked for by itself. Raises Lost."""
        addresses = [parse(name, self._family) for name in names]
        return await self.run(lambda: [self._one(at) for at in addresses])

    async def halted(self) -> bool:
        """Whether the processor says that its program does not run; False where it does not say. Raises Lost."""
        (found,) = await self.read_blocks([Block(_STATUS, _STATUS.area.size)])
        return isinstance(found, bytes) and halted(int.from_bytes(found, "little"), self._family)

    async def write(self, name: str, value: object, check: Callable[[], None]) -> str:
        """Write a value of the address's own type; why the processor refused it, or "". Raises Lost, Unfit.

        ``check`` is called right before and may raise.
        """
        at = parse(name, self._family)
        if at.bit >= 0 and at.area is AREAS["L"]:
            raise Unfit("single bits of long words are only read: these processors have no command for it")
        if at.bit >= 0:
            command = pccc_commands.write_bit(at, bool(value), self._family)
        else:
            data = encode(value, at, self._family)
            if len(data) > MOST:
                raise Unfit(f"{len(data)} bytes are more than one command takes ({MOST}); write the range in parts")
            command = pccc_commands.write(at, data, self._family)

        def write() -> str:
            check()
            found = self._execute(COMMAND, command)
            return str(found) if isinstance(found, Refusal) else ""

        return await self.run(write)

    def _open(self) -> None:
        self._driver = driver = cast("Any", CIPDriver(f"{self._host}:{self._port}"))
        driver._sock = self._wire  # noqa: SLF001  # pycomm3 offers no other way
        if not driver.open():
            raise ResponseError("no session")
        # Who does not take PCCC at all says so now; what it answers besides is of no interest.
        self._execute(DIAGNOSE[0], DIAGNOSE[1:])

    def _read(self, block: Block) -> bytes | Refusal:
        found = self._execute(COMMAND, pccc_commands.read(block.first, block.size, self._family))
        if isinstance(found, bytes) and len(found) != block.size:
            raise CommError(f"{len(found)} bytes for {block.size} that were asked for")
        return found

    def _one(self, at: Address) -> Answer:
        parts = [self._read(block) for block in plan({0: at}).blocks]
        for part in parts:
            if isinstance(part, Refusal):
                return Answer(None, str(part), at.type)
        try:
            return Answer(decode(b"".join(cast("list[bytes]", parts)), at, self._family), "", at.type)
        except ValueError as error:
            return Answer(None, str(error), at.type)

    def _execute(self, command: int, data: bytes) -> bytes | Refusal:
        """One command; the data of its answer, or why there are none."""
        self._transaction = (self._transaction + 1) & 0xFFFF
        request = self._requester + struct.pack("<BBH", command, 0, self._transaction) + data
        found = self._driver.generic_message(
            service=_EXECUTE, class_code=_PCCC, instance=1, request_data=request, connected=False, route_path=False
        )
        if found.error is not None:
            raise ResponseError(found.error)
        reply = bytes(found.value)
        answered = pccc_commands.answer(reply[reply[0] :], self._transaction) if reply else None
        if answered is None:
            raise CommError("an answer to something else")
        return answered

    def _refused(self, text: str) -> Unavailable:
        if self._opened:
            return Lost(f"{self} refuses a command by its EtherNet/IP interface, not by the processor: {text}")
        if "no session" in text:
            return Unavailable(f"{self} gives no session: {FULL}")
        return Unavailable(
            f"{self} takes no PCCC commands, so it is no SLC 500, MicroLogix or PLC-5; for ControlLogix, CompactLogix "
            f"and Micro800 write `type: logix` ({text})"
        )
