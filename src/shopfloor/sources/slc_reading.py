"""Reads addresses of data files in as few commands as an answer allows; one that cannot be read costs only itself."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, cast

from shopfloor.protocols.pccc_address import Address, Family
from shopfloor.protocols.pccc_commands import Refusal
from shopfloor.protocols.pccc_grouping import Plan, plan
from shopfloor.protocols.pccc_session import Session
from shopfloor.protocols.pccc_values import decode
from shopfloor.samples import Quality
from shopfloor.sources.changes import Column, Reading, grouped

_NAMED: Final = 5
"""Tags that a log line names."""
_WATCH: Final = 5.0
"""Seconds between two looks at whether the program runs."""
HALTED: Final = (
    "the processor is not in RUN (program mode, suspended or halted by an error): values are uncertain and nothing is "
    "written until it is"
)
_log: Final = logging.getLogger(__name__)


class Reader:
    """Reads the tags of one source over one session."""

    def __init__(
        self,
        session: Session,
        source: str,
        tags: Sequence[tuple[str, str, Address]],
        family: Family,
        retry: float,
        told: dict[int, str],
    ) -> None:
        """``tags`` are name, address as written, and address; ``retry`` the seconds until a refused tag is tried again.

        ``told`` remembers over connections which tags were said to be bad, so that each is said once.
        """
        self._session = session
        self._source = source
        self._tags = tags
        self._family: Family = family
        self._retry = retry
        self._told = told
        self._plans: dict[tuple[int, ...], Plan] = {}
        self._bad: dict[int, float] = {}
        """Tags that the processor refuses, and when they are tried again (event loop's time)."""
        self._alone: set[int] = set()
        """Tags that can be read, but not together with their neighbours."""
        self._halted = False
        self._look_at = 0.0
        """When it is looked next whether the program runs (event loop's time)."""

    async def read(self, places: tuple[int, ...]) -> list[Column]:
        """What the tags at these places have. Raises Unavailable."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + _WATCH
            await self._look()
        well = tuple(place for place in places if self._bad.get(place, now) <= now)
        if well not in self._plans:
            addresses = {place: self._tags[place][2] for place in well}
            self._plans[well] = plan(addresses, alone=self._alone | self._bad.keys())
        found = await self._carry_out(self._plans[well])
        suspects = [place for place, answer in found.items() if isinstance(answer, Refusal) and not answer.passing]
        if suspects:
            self._plans.clear()  # they are made anew of what is readable
            found |= await self._one_by_one(suspects)
        readings, reasons = self._decoded(found)
        self._remember(found, reasons, now)
        nothing = Reading(None, Quality.CONFIGURATION_ERROR)
        return grouped(places, [readings.get(place, nothing) for place in places])

    async def _look(self) -> None:
        """Ask whether the program runs, and say so when that has changed."""
        before, self._halted = self._halted, await self._session.halted()
        if self._halted and not before:
            _log.warning("%s: %s; look at it", self._source, HALTED)
        elif before and not self._halted:
            _log.warning("%s: the processor is in RUN again", self._source)

    async def examine(self) -> list[str]:
        """Each tag that cannot be read, and why. Raises Unavailable."""
        await self._look()
        found = await self._carry_out(plan({place: at for place, (_, _, at) in enumerate(self._tags)}))
        suspects = [place for place, answer in found.items() if isinstance(answer, Refusal)]
        if suspects:
            found |= await self._one_by_one(suspects)
        troubles = [self._described(place, reason) for place, reason in sorted(self._decoded(found)[1].items())]
        return [HALTED, *troubles] if self._halted else troubles

    def _decoded(self, found: Mapping[int, bytes | Refusal]) -> tuple[dict[int, Reading], dict[int, str]]:
        """The readings, and of those that are bad why."""
        readings: dict[int, Reading] = {}
        reasons: dict[int, str] = {}
        # While the program does not run, what the memory holds is of before.
        usual = Quality.LAST_USABLE if self._halted else Quality.GOOD
        for place, answer in found.items():
            quality = Quality.CONFIGURATION_ERROR
            if isinstance(answer, bytes):
                try:
                    readings[place] = Reading(decode(answer, self._tags[place][2], self._family), usual)
                    continue
                except ValueError as error:
                    reasons[place] = f"{error}; correct the address, or let the program set the text"
            else:
                reasons[place] = str(answer)
                quality = Quality.DEVICE_FAILURE if answer.passing else quality
            readings[place] = Reading(None, quality)
        return readings, reasons

    def _described(self, place: int, reason: str) -> str:
        name, address, _ = self._tags[place]
        return f"{name} ({address}): {reason}"

    async def _carry_out(self, planned: Plan) -> dict[int, bytes | Refusal]:
        """The bytes of each tag, or why a block that it needs cannot be read."""
        answers = await self._session.read_blocks(planned.blocks)
        found: dict[int, bytes | Refusal] = {}
        for place, pieces in planned.pieces.items():
            refused = next(
                (answers[piece.block] for piece in pieces if isinstance(answers[piece.block], Refusal)), None
            )
            parts = (cast("bytes", answers[block])[begin:end] for block, begin, end in pieces)
            found[place] = b"".join(parts) if refused is None else refused
        return found

    async def _one_by_one(self, places: Sequence[int]) -> dict[int, bytes | Refusal]:
        """Each tag in a block of its own: what is readable is separated from what is not."""
        found = await self._carry_out(plan({place: self._tags[place][2] for place in places}, alone=places))
        if not any(isinstance(answer, Refusal) for answer in found.values()):
            self._alone |= set(places)  # it is what lies between them that cannot be read
        return found

    def _remember(self, found: Mapping[int, bytes | Refusal], reasons: Mapping[int, str], now: float) -> None:
        """When the refused are tried again, and one log line for those that are new, one for those that are back."""
        new: list[str] = []
        back: list[str] = []
        for place, answer in found.items():
            if isinstance(answer, bytes):
                if self._bad.pop(place, None) is not None:
                    self._plans.clear()
            elif not answer.passing:
                self._bad[place] = now + self._retry
            reason = reasons.get(place)
            if reason is not None and self._told.get(place) != reason:
                self._told[place] = reason
                new.append(self._described(place, reason))
            elif reason is None and self._told.pop(place, None) is not None:
                back.append(self._tags[place][0])
        if new:
            more = f"; and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
            few = "1 tag" if len(new) == 1 else f"{len(new)} tags"
            others = ", the others are" if len(self._told) < len(self._tags) else ""
            _log.warning("%s: %s cannot be read%s: %s%s", self._source, few, others, "; ".join(new[:_NAMED]), more)
        if back:
            _log.info("%s: %d tags can be read again: %s", self._source, len(back), ", ".join(back[:_NAMED]))
