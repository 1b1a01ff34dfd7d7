"""Reads the tags of Modbus devices in few requests; a bad tag and a silent device never cost the others."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from shopfloor.protocols import modbus_line as line_
from shopfloor.protocols.modbus_address import Layout
from shopfloor.protocols.modbus_line import Line, Refused, Silent
from shopfloor.protocols.modbus_plan import Block, Extent, parts, plan
from shopfloor.samples import Quality, Unavailable
from shopfloor.sources.changes import Column, Reading, grouped
from shopfloor.sources.modbus_decoding import Decoder

_log: Final = logging.getLogger(__name__)

_TO_BLAME: Final = frozenset({line_.ILLEGAL_ADDRESS, line_.ILLEGAL_VALUE, line_.DEVICE_FAILURE})
"""Exceptions that a single address of a request may be the reason of."""
_ABSENT: Final = frozenset({line_.NO_PATH, line_.NO_ANSWER})
"""Those by which a gateway says that the device behind it is away."""
_NAMED: Final = 5
"""Tags that a log line names."""


class Devices:
    """Which devices answer; a silent one is left out for a while, so that waiting for it does not cost the others."""

    def __init__(self, name: str, known: Sequence[int], retry: float) -> None:
        """``known`` are all device ids, ``retry`` is in seconds."""
        self._name = name
        self._known = frozenset(known)
        self._retry = retry
        self._away: dict[int, float] = {}
        self._silent: set[int] = set()

    def is_away(self, device: int) -> bool:
        """Whether it is not asked now."""
        return self._away.get(device, 0) > asyncio.get_running_loop().time()

    def answered(self, device: int) -> None:
        """It is there."""
        self._silent.discard(device)
        if self._away.pop(device, None) is not None:
            _log.info("%s: device %d answers again", self._name, device)

    def failed(self, device: int, why: Refused | Silent) -> None:
        """It is not. Raises Unavailable when not one of them answers at all."""
        if isinstance(why, Silent):
            self._silent.add(device)
            if self._silent >= self._known:
                ids = ", ".join(map(str, sorted(self._known)))
                raise Unavailable(
                    f"{why}; the connection is there, so look at the device, at a firewall, and whether `device` "
                    f"({ids}) and `framing` are right"
                )
        if device not in self._away:
            _log.warning(
                "%s: device %d does not answer: %s; its tags are bad, it is asked again every %g s",
                self._name, device, why, self._retry,
            )  # fmt: skip
        self._away[device] = asyncio.get_running_loop().time() + self._retry


class Limits(NamedTuple):
    """What a reader keeps to."""

    gap: int
    """Registers that nobody wants between two tags of a request."""
    registers: int
    """Of one request."""
    retry: float
    """Seconds until a refused tag is tried again."""
    timeout: float
    """Seconds that a device has to answer."""


class Reader:
    """The tags of one scan group."""

    def __init__(  # each is a part of its task
        self,
        name: str,
        extents: Sequence[Extent],
        layouts: Mapping[int, Layout],
        describe: Mapping[int, str],
        devices: Devices,
        limits: Limits,
    ) -> None:
        """``layouts`` and ``describe`` are by an extent's ``tag``."""
        self._name = name
        self._extents = extents
        self._layouts = layouts
        self._describe = describe
        self._devices = devices
        self._limits = limits
        self._refused: dict[Extent, Reading] = {}
        self._decoders = self._plan()
        self._again = 0.0

    async def read(self, line: Line) -> list[Column]:
        """What the tags have, by their extents' ``tag``. Raises Unavailable."""
        found: list[Column] = []
        before = set(self._refused)
        decoders: list[Decoder] = []
        waiting = [*self._due(), *self._decoders][::-1]
        while waiting:
            decoder = waiting.pop()
            smaller = await self._take(line, decoder, found)
            if smaller is None:
                if decoder.block.extents[0] not in self._refused:
                    decoders.append(decoder)
            else:
                waiting += smaller[::-1]
        self._decoders = decoders
        if before - set(self._refused):
            self._decoders = self._plan()  # something is there again: the rest may be as well, in large requests
        self._say(set(self._refused) - before)
        return found + grouped([extent.tag for extent in self._refused], self._refused.values())

    def _plan(self) -> list[Decoder]:
        wanted = [extent for extent in self._extents if extent not in self._refused]
        return self._decoded(plan(wanted, self._limits.gap, self._limits.registers))

    def _decoded(self, blocks: Iterable[Block]) -> list[Decoder]:
        return [Decoder(block, self._layouts) for block in blocks]

    def _due(self) -> list[Decoder]:
        """What was refused and is to be tried again, one by one."""
        now = asyncio.get_running_loop().time()
        if not self._refused or now < self._again:
            return []
        self._again = now + self._limits.retry
        return self._decoded(block for extent in self._refused for block in plan([extent], 0))

    async def _take(self, line: Line, decoder: Decoder, found: list[Column]) -> list[Decoder] | None:
        """Read a block; None when that is settled, else what to read instead."""
        block = decoder.block
        if self._devices.is_away(block.device):
            found.append(decoder.bad(Quality.COMMUNICATION_FAILURE, line_.NO_ANSWER))
            return None
        try:
            words = await line.read(block.kind, block.device, block.start, block.size, self._limits.timeout)
        except Silent as error:
            self._devices.failed(block.device, error)
            found.append(decoder.bad(Quality.COMMUNICATION_FAILURE, line_.NO_ANSWER))
            return None
        except Refused as error:
            return self._refusal(decoder, error, found)
        self._devices.answered(block.device)
        found.append(decoder.column(words))
        if self._refused:
            for extent in block.extents:
                self._refused.pop(extent, None)
        return None

    def _refusal(self, decoder: Decoder, error: Refused, found: list[Column]) -> list[Decoder] | None:
        block = decoder.block
        if error.code in _ABSENT:
            self._devices.failed(block.device, error)
            found.append(decoder.bad(Quality.COMMUNICATION_FAILURE, error.code))
            return None
        self._devices.answered(block.device)
        if error.code in _TO_BLAME:
            smaller = parts(block)
            if smaller:
                return self._decoded(smaller)
        elif error.code != line_.ILLEGAL_FUNCTION:  # busy: it will pass
            found.append(decoder.bad(Quality.COMMUNICATION_FAILURE, error.code))
            return None
        failed = error.code == line_.DEVICE_FAILURE
        quality = Quality.DEVICE_FAILURE if failed else Quality.CONFIGURATION_ERROR
        if not self._refused:
            self._again = asyncio.get_running_loop().time() + self._limits.retry
        self._refused |= {extent: Reading(None, quality, error.code) for extent in block.extents}
        return None

    def _say(self, new: set[Extent]) -> None:
        """One line for all tags that are refused since the last read."""
        if not new:
            return
        listed = sorted(new)
        named = "; ".join(
            f"{self._describe[extent.tag]}: {Refused(self._refused[extent].status)}" for extent in listed[:_NAMED]
        )
        more = f"; and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        few = "1 tag" if len(listed) == 1 else f"{len(listed)} tags"
        others = ", the others are" if len(self._refused) < len(self._extents) else ""
        _log.warning(
            "%s: %s cannot be read%s; tried again every %g s: %s%s",
            self._name, few, others, self._limits.retry, named, more,
        )  # fmt: skip
