"""Logix: reads tags of Rockwell's controllers by EtherNet/IP and writes with read-back.

docs/connectors/logix.md says what is guaranteed and what is not.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator

from shopfloor.plant import Duration
from shopfloor.plant.components import Form
from shopfloor.protocols.eip_session import Answer
from shopfloor.protocols.logix_session import Controller, Session
from shopfloor.protocols.sharing import shared
from shopfloor.samples import Batch, Command, Outcome, Quality, TagInfo, Unavailable
from shopfloor.seams import Source
from shopfloor.sources.changes import Column, Reading, grouped
from shopfloor.sources.logix_write import write
from shopfloor.sources.scanning import ScannedConfig, ScannedTag, Scanner

_SECOND: Final = 10**9
_NAMED: Final = 5
"""Tags that a log line names."""
_log: Final = logging.getLogger(__name__)

_DATA_FILE: Final = re.compile(r"(?:[NBFTCRLA]|ST)\d{1,3}:\d+.*", re.IGNORECASE)
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_INDEX: Final = r"(\[\d+(,\d+){0,2}\])?"
LogixName = Annotated[
    str,
    Form(
        rf"(Program:{_NAME}\.)?{_NAME}(:{_NAME}|:\d+)*{_INDEX}(\.{_NAME}{_INDEX})*(\.\d{{1,2}})?(\{{[1-9]\d{{0,4}}\}})?",
        "a Logix tag like `Count`, `Program:Main.Step`, `Press.Tools[1].Wear`, `Word.3` (a bit) or `Counts{10}` (ten "
        "elements of an array)",
    ),
]


class LogixTag(ScannedTag):
    """One tag of the controller."""

    address: LogixName = Field(
        description="Its name there: `Count`, `Program:Main.Step`, a member `Press.Tools[1].Wear`, a bit `Word.3`, ten "
        "elements of an array `Counts{10}` (from 5 on: `Counts[5]{10}`)."
    )

    @field_validator("address")
    @classmethod
    def _of_logix(cls, text: str) -> str:
        if _DATA_FILE.fullmatch(text):
            raise ValueError(f"{text!r} is an address of SLC 500, MicroLogix or PLC-5; write `type: slc` for these")
        return text


class LogixConfig(ScannedConfig):
    """Tags of Rockwell's Logix controllers by EtherNet/IP: ControlLogix, CompactLogix, Micro800."""

    type: Literal["logix"] = "logix"
    host: str = Field(min_length=1, description="Name or IP address of the controller, or of its EtherNet/IP module.")
    port: int = Field(default=44_818, ge=1, le=65_535, description="Its TCP port.")
    path: str = Field(
        default="0",
        description="The controller's slot in the rack (CompactLogix and Micro800: 0), or the way to it: "
        "`backplane/2/enet/10.0.9.1/backplane/0`.",
    )
    timeout: Annotated[Duration, Field(gt=0)] = Field(
        default=5 * _SECOND, description="How long the controller may take to answer."
    )
    tags: Sequence[LogixTag] = Field(
        default=(), description="What is acquired; `shopfloor browse` writes this list.", max_length=100_000
    )

    @field_validator("path")
    @classmethod
    def _path(cls, text: str) -> str:
        if not text or text.startswith("/") or any(not part for part in text.split("/")):
            raise ValueError(f"{text!r} is no path; write the slot (`0`) or `backplane/2/enet/10.0.9.1/backplane/0`")
        return text

    def build(self) -> "LogixSource":
        """The source itself; opens nothing yet."""
        return LogixSource(self)

    def controller(self) -> Controller:
        """Which controller, and how it is reached; sources for the same one share a connection."""
        return Controller(self.host, self.port, self.path, self.timeout / _SECOND)

    def address(self, tag: ScannedTag) -> str:
        """As the plant file writes it."""
        return tag.address if isinstance(tag, LogixTag) else ""


class LogixSource(Source):
    """The tags of one controller."""

    def __init__(self, config: LogixConfig) -> None:
        """Opens nothing yet."""
        self._config = config
        self._tags = {tag.tag: tag for tag in config.tags}
        self._connection = AsyncExitStack()
        self._session: Session | None = None
        self._bad: set[str] = set()

    async def __aenter__(self) -> Self:
        """Connect and upload the tag list, or share what another source has. Raises Unavailable."""
        controller = self._config.controller()
        async with AsyncExitStack() as stack:
            self._session = await stack.enter_async_context(shared(controller, lambda: Session(controller)))
            self._connection = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the connection; without a word where it is lost or something is under way."""
        self._session = None
        connection, self._connection = self._connection, AsyncExitStack()
        await connection.aclose()

    async def batches(self) -> AsyncGenerator[Batch]:
        """What changed, scan by scan."""
        session, config = self._connected(), self._config

        async def read(places: tuple[int, ...]) -> Sequence[Column]:
            answers = await session.read([config.tags[place].address for place in places])
            self._say([config.tags[place] for place in places], answers)
            bad = Reading(None, Quality.CONFIGURATION_ERROR)
            return grouped(places, [bad if answer.error else Reading(answer.value) for answer in answers])

        async with aclosing(Scanner(config, read).batches()) as batches:
            async for batch in batches:
                yield batch

    def _say(self, tags: Sequence[LogixTag], answers: Sequence[Answer]) -> None:
        """One line for the tags that cannot be read since this read, one for those that can again."""
        new = [(t, a.error) for t, a in zip(tags, answers, strict=True) if a.error and t.tag not in self._bad]
        back = [t.tag for t, a in zip(tags, answers, strict=True) if not a.error and t.tag in self._bad]
        if new:
            named = "; ".join(f"{tag.tag} ({tag.address}): {why}" for tag, why in new[:_NAMED])
            more = f"; and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
            few = "1 tag" if len(new) == 1 else f"{len(new)} tags"
            others = ", the others are" if any(not answer.error for answer in answers) else ""
            _log.warning("%s: %s cannot be read%s: %s%s", self._config.name, few, others, named, more)
        if back:
            _log.info("%s: %d tags can be read again: %s", self._config.name, len(back), ", ".join(back[:_NAMED]))
        self._bad |= {tag.tag for tag, _ in new}
        self._bad -= set(back)

    async def examine(self) -> AsyncIterator[str]:
        """Each tag that cannot be read. Raises Unavailable."""
        tags = self._config.tags
        answers = await self._connected().read([tag.address for tag in tags]) if tags else []
        for tag, answer in zip(tags, answers, strict=True):
            if answer.error:
                yield f"{tag.tag} ({tag.address}): {answer.error}"

    async def execute(self, command: Command) -> Outcome:
        """Write in the tag's own type, unless the command has expired, and read back."""
        tag = self._tags.get(command.tag)
        if tag is None:
            return Outcome(command.id, done=False, detail=f"{self._config.name} has no tag {command.tag!r}")
        if tag.writable is False:
            return Outcome(command.id, done=False, detail="the plant file says that this tag is not written")
        if self._session is None:
            return Outcome(command.id, done=False, detail=f"not written: {self._config.name} is not connected")
        return await write(self._session, command, tag.address, tag.scale)

    async def browse(self) -> AsyncIterator[TagInfo]:
        """Every tag of the controller and its programs, structures down to their members."""
        for name, info in sorted((await self._connected().tags()).items()):
            for found in _described(name, info, writable=info.get("external_access") in {"Read/Write", None}):
                yield found
            await asyncio.sleep(0)

    def _connected(self) -> Session:
        if self._session is None:
            raise Unavailable(f"{self._config.name} is not connected")
        return self._session


def _described(name: str, info: Mapping[str, Any], *, writable: bool) -> list[TagInfo]:
    """A tag, or the members of a structure; arrays as a whole."""
    kind = str(info["data_type_name"])
    dimensions = [size for size in info.get("dimensions", [info.get("array", 0)]) if size]
    structure = info["data_type"] if info["tag_type"] == "struct" else None
    if structure is not None and not dimensions and "string" not in structure:
        members = structure["internal_tags"]
        return [
            found
            for member in structure["attributes"]
            for found in _described(f"{name}.{member}", members[member], writable=writable)
        ]
    count = 1
    for size in dimensions:
        count *= size * (32 if kind == "DWORD" else 1)
    address = f"{name}{{{count}}}" if dimensions else name
    data_type = f"{'BOOL' if kind == 'DWORD' else kind}{[count] if dimensions else ''}"
    tag = name.removeprefix("Program:").replace(".", "/").replace("[", "(").replace("]", ")")
    return [TagInfo(tag, address, data_type=data_type, writable=writable)]
