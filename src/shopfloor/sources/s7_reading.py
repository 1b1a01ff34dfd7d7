"""Reads tags of an S7 in as few telegrams as its PDU allows; one that cannot be read costs only itself."""

import asyncio
import logging
from collections.abc import Container, Iterable, Sequence
from typing import Final, NamedTuple

from shopfloor.protocols.s7_address import Address
from shopfloor.protocols.s7_grouping import Plan, plan
from shopfloor.protocols.s7_session import Refused, Session, State, why
from shopfloor.protocols.s7_values import Unfit
from shopfloor.samples import Quality
from shopfloor.sources.changes import Column, Reading, grouped
from shopfloor.sources.s7_decoding import Decoder

_log: Final = logging.getLogger(__name__)

_WATCH: Final = 5.0
"""Seconds between two looks at the CPU's state and at the data blocks; also the sign of life."""
_HARDWARE: Final = 0x01
_REFUSED: Final = 0x100
"""Stands for a telegram that was refused as a whole; the PLC's own codes have one byte."""
_QUALITIES: Final = {_HARDWARE: Quality.DEVICE_FAILURE}
"""What a return code says of a tag; all others that it is wrongly configured."""


class _Group(NamedTuple):
    """How the tags of a scan group are read."""

    plan: Plan
    decoder: Decoder
    bad: Sequence[int]
    """The tags that are not in the plan, because the PLC refused them."""
    columns: Sequence[Column]
    """What is said of those."""


class Reader:
    """Reads the tags of one source over one session."""

    def __init__(
        self, session: Session, source: str, tags: Sequence[tuple[str, Address]], retry: float, told: dict[int, int]
    ) -> None:
        """``retry`` is the seconds until a tag that could not be read is tried again.

        ``told`` remembers over connections which tags were said to be bad, so that each is said once.
        """
        self._session = session
        self._source = source
        self._tags = tags
        self._retry = retry
        self._told = told
        self._groups: dict[tuple[int, ...], _Group] = {}
        """How each scan group is read, until it is known better."""
        self._bad: dict[int, tuple[int, float]] = {}
        """Tags that the PLC refuses: its code, and when they are tried again (event loop's time)."""
        self._alone: set[int] = set()
        """Tags that can be read, but not together with their neighbours."""
        self._torn: set[int] = set()
        """Tags whose bytes are no value of their type."""
        self.troubles: dict[int, str] = {}
        """Why a tag is bad, and what to change."""
        self.state: State | None = None
        self._stamps: dict[int, bytes | None] = {}

    async def read(self, places: tuple[int, ...]) -> Sequence[Column]:
        """What the tags at these places have. Raises Unavailable."""
        group = self._groups.get(places)
        if group is None:
            group = self._groups[places] = self._grouped(places)
        columns, failed = await self._carry_out(group.plan, group.decoder)
        now = asyncio.get_running_loop().time()
        due = [place for place in group.bad if place in self._bad and self._bad[place][1] <= now]
        if not (failed or due):
            return [*columns, *group.columns] if group.columns else columns
        columns += await self._one_by_one([*failed, *due], now)
        self._groups.clear()  # they are made anew of what is readable
        for members in group.plan.members:
            if failed.keys() >= set(members) and not self._bad.keys() & set(members):
                self._alone |= set(members)  # it was what lies between them that cannot be read
        read = {place for column in columns for place in column.places}
        return columns + self._unreadable([place for place in places if place not in read])

    def _grouped(self, places: tuple[int, ...]) -> "_Group":
        """What of a group can be read together, and what not."""
        bad = [place for place in places if place in self._bad]
        well = [place for place in places if place not in self._bad]
        return _Group(*self._planned(well, alone=self._alone), bad, self._unreadable(bad))

    def _planned(self, places: Iterable[int], *, alone: Container[int] = ()) -> tuple[Plan, Decoder]:
        addresses = {place: self._tags[place][1] for place in places}
        planned = plan(addresses, self._session.pdu, alone=alone)
        return planned, Decoder(planned, addresses, self._decoded)

    async def _carry_out(self, planned: Plan, decoder: Decoder) -> tuple[list[Column], dict[int, int]]:
        """The columns, and the code of each tag in a block that could not be read."""
        answers = await asyncio.gather(*(self._request(planned, request) for request in planned.requests))
        blocks: list[bytes | int] = [0] * len(planned.blocks)
        failed: dict[int, int] = {}
        for request, answer in zip(planned.requests, answers, strict=True):
            for block, item in zip(request, answer, strict=True):
                blocks[block] = item
                if isinstance(item, int):
                    failed |= dict.fromkeys(planned.members[block], item)
        return decoder.columns(blocks, self._quality), failed

    def _unreadable(self, places: Sequence[int]) -> list[Column]:
        """The columns of tags that are in ``_bad``."""
        codes = [self._bad[place][0] for place in places]
        qualities = [_QUALITIES.get(code, Quality.CONFIGURATION_ERROR) for code in codes]
        return grouped(places, [Reading(None, *mark) for mark in zip(qualities, codes, strict=True)])

    @property
    def _quality(self) -> int:
        """In STOP the program does not run: what the memory holds is of before."""
        return Quality.LAST_USABLE if self.state is State.STOP else Quality.GOOD

    async def _request(self, planned: Plan, request: Sequence[int]) -> Sequence[bytes | int]:
        try:
            return await self._session.read([planned.blocks[block] for block in request])
        except Refused:
            if len(request) == 1 and len(planned.members[request[0]]) == 1 and len(self._tags) > 1:
                return [_REFUSED]
            if len(self._tags) == 1:
                raise
            return [_REFUSED] * len(request)  # who of them is to blame is found out one by one

    async def _one_by_one(self, places: Sequence[int], now: float) -> list[Column]:
        """Each tag in a block of its own: what is readable is separated from what is not."""
        found, failed = await self._carry_out(*self._planned(places, alone=places))
        for place in [place for place, code in failed.items() if code == _REFUSED]:
            del failed[place]
            more, still = await self._carry_out(*self._planned([place]))
            found += more
            failed |= still
        if not found and _REFUSED in failed.values() and len(self._bad.keys() | failed.keys()) == len(self._tags):
            # Nothing can be read at all: the refusal itself says why.
            await self._session.read(self._planned([0])[0].blocks[:1])
        for place in [place for column in found for place in column.places]:
            if place not in self._torn:
                self.troubles.pop(place, None)
            self._bad.pop(place, None)
            if self._told.pop(place, None) is not None:
                _log.info("%s: %s can be read again", self._source, self._tags[place][0])
        for place, code in failed.items():
            self.troubles[place] = why(code, self._tags[place][1])
            if self._told.get(place) != code:
                self._told[place] = code
                tag, address = self._tags[place]
                _log.warning("%s: %s cannot be read: %s", self._source, tag, why(code, address))
            self._bad[place] = (code, now + self._retry)
        return found

    def _decoded(self, place: int, data: bytes) -> Reading:
        try:
            value = self._tags[place][1].kind.decode(data)
        except Unfit as error:
            if place not in self._torn:
                self._torn.add(place)
                self.troubles[place] = f"{error}; correct the address or its type"
                _log.warning("%s: %s: %s", self._source, self._tags[place][0], self.troubles[place])
            return Reading(None, Quality.CONFIGURATION_ERROR)
        if place in self._torn:
            self._torn.discard(place)
            self.troubles.pop(place, None)
        return Reading(value, self._quality)

    async def watch(self) -> None:
        """Notice STOP and RUN, and data blocks that were loaded anew, until the connection is lost."""
        while True:
            await asyncio.sleep(_WATCH)
            await self.look()

    async def look(self) -> None:
        """Ask for the CPU's state and for the stamps of the data blocks."""
        state = await self._session.state()
        if state is not self.state and state is State.STOP:
            _log.warning(
                "%s: the PLC is in STOP: values are uncertain and nothing is written until it is in RUN; look at it",
                self._source,
            )
        elif state is not self.state and self.state is State.STOP:
            _log.warning("%s: the PLC is in RUN again", self._source)
        self.state = state
        stamps = {db: await self._session.stamp(db) for db in _data_blocks(self._tags)}
        changed = [db for db, stamp in stamps.items() if db in self._stamps and self._stamps[db] != stamp]
        self._stamps = stamps
        if changed:
            names = ", ".join(f"DB{db}" for db in changed)
            _log.warning(
                "%s: %s was loaded anew: everything is read afresh; when its layout changed, correct the addresses",
                self._source, names,
            )  # fmt: skip
            self._bad = {place: (code, 0.0) for place, (code, _) in self._bad.items()}
            self._groups.clear()


def _data_blocks(tags: Iterable[tuple[str, Address]]) -> Iterable[int]:
    return sorted({address.db for _, address in tags if address.db})
