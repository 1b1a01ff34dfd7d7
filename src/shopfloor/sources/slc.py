"""SLC: reads data files of SLC 500, MicroLogix and PLC-5 by EtherNet/IP and writes with read-back.

docs/connectors/slc.md says what is guaranteed and what is not.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from shopfloor.plant import Duration
from shopfloor.protocols.eip_session import Unfit
from shopfloor.protocols.pccc_address import Family, parse
from shopfloor.protocols.pccc_session import Plc, Session
from shopfloor.protocols.sharing import shared
from shopfloor.samples import Batch, Command, Outcome, TagInfo, Unavailable
from shopfloor.seams import Source
from shopfloor.sources.logix_write import write
from shopfloor.sources.scanning import ScannedConfig, ScannedTag, Scanner
from shopfloor.sources.slc_browse import browse
from shopfloor.sources.slc_reading import HALTED, Reader

_SECOND: Final = 10**9


class SlcTag(ScannedTag):
    """One address and the tag that it becomes."""

    address: str = Field(
        description="Where it is: `N7:0`, a bit `N7:0/3` or `B3/21`, `F8:1`, `T4:0.ACC`, `C5:0/DN`, `R6:0.LEN`, "
        "`I:1.0/2`, `O:2.0`, `S:1/5`, `ST9:0`, `L11:0`, ten elements `N7:0{10}`."
    )

    @field_validator("address")
    @classmethod
    def _an_address(cls, text: str) -> str:
        parse(text, "micrologix")  # it has every kind of file; what the family lacks is said by the source
        return text


class SlcConfig(ScannedConfig):
    """Data files of Allen-Bradley's SLC 500, MicroLogix and PLC-5, by Ethernet (PCCC in EtherNet/IP)."""

    type: Literal["slc"] = "slc"
    host: str = Field(min_length=1, description="Name or IP address of the processor.")
    port: int = Field(default=44_818, ge=1, le=65_535, description="Its TCP port.")
    family: Family = Field(default="slc500", description="Which processor it is.")
    timeout: Annotated[Duration, Field(gt=0)] = Field(
        default=5 * _SECOND, description="How long it may take to answer."
    )
    retry: Annotated[Duration, Field(gt=0)] = Field(
        default=30 * _SECOND, description="When a tag that the processor refused is tried again."
    )
    tags: Sequence[SlcTag] = Field(default=(), max_length=100_000, description="What is acquired.")

    @field_validator("host")
    @classmethod
    def _host(cls, text: str) -> str:
        if any(c.isspace() or c in "/@" for c in text):
            raise ValueError(f"{text!r} is no address; write the processor's name or IP address, e.g. 10.0.3.21")
        return text

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        wrong: list[str] = []
        for tag in self.tags:
            try:
                parse(tag.address, self.family)
            except Unfit as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def build(self) -> "SlcSource":
        """The source itself; opens nothing yet."""
        return SlcSource(self)

    def address(self, tag: ScannedTag) -> str:
        """As the plant file writes it."""
        return tag.address if isinstance(tag, SlcTag) else ""

    def plc(self) -> Plc:
        """Which processor, and how it is reached; sources for the same one share a connection."""
        return Plc(self.host, self.port, self.family, self.timeout / _SECOND)


class SlcSource(Source):
    """The data files of one processor."""

    def __init__(self, config: SlcConfig) -> None:
        """Opens nothing yet."""
        self._config = config
        self._tags = {tag.tag: tag for tag in config.tags}
        self._told: dict[int, str] = {}
        self._connection = AsyncExitStack()
        self._session: Session | None = None

    async def __aenter__(self) -> Self:
        """Connect, or share what another source has. Raises Unavailable that says what to look at."""
        plc = self._config.plc()
        async with AsyncExitStack() as stack:
            self._session = await stack.enter_async_context(shared(plc, lambda: Session(plc)))
            self._connection = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Disconnect."""
        self._session = None
        connection, self._connection = self._connection, AsyncExitStack()
        await connection.aclose()

    async def batches(self) -> AsyncGenerator[Batch]:
        """What changed, scan by scan."""
        async with aclosing(Scanner(self._config, self._reader().read).batches()) as batches:
            async for batch in batches:
                yield batch

    async def examine(self) -> AsyncIterator[str]:
        """Each tag that cannot be read. Raises Unavailable."""
        for line in await self._reader().examine():
            yield line

    async def browse(self) -> AsyncIterator[TagInfo]:
        """Every data file as ranges, found by reading. Raises Misconfigured for a PLC-5, Unavailable."""
        async for found in browse(self._connected(), self._config.family):
            yield found

    def _connected(self) -> Session:
        if self._session is None:
            raise Unavailable(f"{self._config.name} is not connected")
        return self._session

    def _reader(self) -> Reader:
        config = self._config
        tags = [(tag.tag, tag.address, parse(tag.address, config.family)) for tag in config.tags]
        return Reader(self._connected(), config.name, tags, config.family, config.retry / _SECOND, self._told)

    async def execute(self, command: Command) -> Outcome:
        """Write in the address's own type, unless the command has expired, and read back."""
        tag = self._tags.get(command.tag)
        if tag is None:
            return Outcome(command.id, done=False, detail=f"{self._config.name} has no tag {command.tag!r}")
        if tag.writable is False:
            return Outcome(command.id, done=False, detail="the plant file says that this tag is not written")
        if self._session is None:
            return Outcome(command.id, done=False, detail=f"not written: {self._config.name} is not connected")
        try:
            if await self._session.halted():  # a button written now would be pressed when it goes to RUN
                return Outcome(command.id, done=False, detail=f"not written: {HALTED}")
        except Unavailable as error:
            return Outcome(command.id, done=False, detail=f"not written: {error}")
        return await write(self._session, command, tag.address, tag.scale)
