"""Siemens S7: reads addresses of a PLC in scan groups, as few telegrams as its PDU allows, and writes with read-back.

docs/connectors/s7.md says what must be set in the PLC, and what is guaranteed.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from shopfloor.plant import Duration
from shopfloor.protocols.s7_address import Address, parse
from shopfloor.protocols.s7_session import PORT, Plc, Session, State
from shopfloor.protocols.s7_sharing import shared
from shopfloor.samples import Batch, Command, Misconfigured, Outcome, TagInfo, Unavailable
from shopfloor.seams import Source
from shopfloor.sources.s7_reading import Reader
from shopfloor.sources.s7_write import write
from shopfloor.sources.scanning import ScannedConfig, ScannedTag, Scanner

_SECOND: Final = 10**9

Model = Literal["s7-200", "s7-300", "s7-400", "s7-1200", "s7-1500", "et200sp", "logo"]

_SLOTS: Final[dict[Model, int]] = {"s7-300": 2, "s7-400": 3, "s7-1200": 1, "s7-1500": 1, "et200sp": 1}
_TSAPS: Final[dict[Model, tuple[str, str]]] = {"logo": ("03.00", "02.00"), "s7-200": ("10.00", "10.01")}
"""Of models that have no racks: ours and theirs."""
_RESOURCES: Final = {"pg": 1, "op": 2, "basic": 3}

Tsap = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{2}$")]
"""``03.00``: two bytes in hexadecimal."""


class S7Tag(ScannedTag):
    """One address and the tag that it becomes."""

    address: str = Field(
        description="Where it is: `DB1,REAL4`, `DB1.DBD4` with a `type`, `DB1,X0.3`, `DB1,STRING10.20`, `DB1,INT0[8]`, "
        "`M10.3`, `IW64`, `QB2`, `T5`, `C3`, `VW1118` (LOGO!)."
    )
    type: str | None = Field(
        default=None,
        description="What lies there, where the address does not say it: `REAL` for `DB1.DBD4`, `STRING[20]` for "
        "`DB1.DBB10`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        parse(self.address, self.type)
        return self


class S7Config(ScannedConfig):
    """Tags of a Siemens S7-300, 400, 1200, 1500, ET 200SP or LOGO!, by their addresses."""

    type: Literal["s7"] = "s7"
    host: str = Field(min_length=1, description="The PLC's address, e.g. `10.0.3.21`.")
    port: int = Field(default=PORT, ge=1, le=65535, description="Its port; S7 has 102.")
    model: Model = Field(default="s7-1500", description="Which PLC: chooses the usual slot, or the TSAPs.")
    rack: int | None = Field(default=None, ge=0, le=7, description="The CPU's rack; 0 by default.")
    slot: int | None = Field(
        default=None, ge=0, le=31, description="The CPU's slot; by default 2 (S7-300), 3 (S7-400), 1 (the others)."
    )
    local_tsap: Tsap | None = Field(
        default=None, description="Our TSAP, e.g. `03.00`: the remote TSAP of the connection in a LOGO!."
    )
    remote_tsap: Tsap | None = Field(
        default=None, description="The PLC's TSAP, e.g. `02.00`; instead of rack and slot."
    )
    resource: Literal["pg", "op", "basic"] = Field(
        default="op",
        description="Which kind of its connections is taken: like a programming device (`pg`), an HMI (`op`) or "
        "another PLC (`basic`).",
    )
    tags: list[S7Tag] = Field(default=[], max_length=100_000, description="What is acquired.")
    timeout: Annotated[Duration, Field(gt=0)] = Field(
        default=3 * _SECOND, description="How long the PLC may take to answer until it counts as away."
    )
    retry: Annotated[Duration, Field(gt=0)] = Field(
        default=30 * _SECOND, description="When a tag that the PLC refused is tried again."
    )

    @field_validator("host")
    @classmethod
    def _host(cls, text: str) -> str:
        if any(c.isspace() or c in "/@" for c in text):
            raise ValueError(f"{text!r} is no address; write the PLC's name or IP address, e.g. 10.0.3.21")
        return text

    @model_validator(mode="after")
    def _way(self) -> Self:
        named = self.rack is not None or self.slot is not None
        if named and (self.remote_tsap is not None or self.model in _TSAPS):
            raise ValueError("rack and slot do not go with TSAPs (LOGO! and S7-200 have only these); leave one out")
        return self

    def build(self) -> "S7Source":
        """The source itself; opens nothing yet."""
        return S7Source(self)

    def address(self, tag: ScannedTag) -> str:
        """Where a tag is in the PLC, as the plant file writes it."""
        assert isinstance(tag, S7Tag)  # noqa: S101  # the field `tags` has no others
        return tag.address

    def plc(self) -> Plc:
        """Which PLC, and how it is reached."""
        local, remote = _TSAPS.get(self.model, ("01.00", ""))
        local, remote = self.local_tsap or local, self.remote_tsap or remote
        if remote:
            number, where = int(remote.replace(".", ""), 16), f"TSAP {remote} from {local}"
        else:
            rack, slot = self.rack or 0, _SLOTS.get(self.model, 1) if self.slot is None else self.slot
            number, where = _RESOURCES[self.resource] << 8 | rack << 5 | slot, f"rack {rack} slot {slot}"
        own = int(local.replace(".", ""), 16)
        return Plc(self.host, self.port, own, number, self.timeout / _SECOND, where, tells=self.model not in _TSAPS)


class S7Source(Source):
    """A connection to one S7."""

    def __init__(self, config: S7Config) -> None:
        """Opens nothing yet."""
        self._config = config
        self._tags: dict[str, tuple[S7Tag, Address]] = {t.tag: (t, parse(t.address, t.type)) for t in config.tags}
        self._told: dict[int, int] = {}
        self._connection = AsyncExitStack()
        self._session: Session | None = None
        self._reader: Reader | None = None

    async def __aenter__(self) -> Self:
        """Connect and read every tag once. Raises Unavailable, saying what to change."""
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(shared(self._config.plc()))
            reader = Reader(session, self._config.name, self._addresses(), self._config.retry / _SECOND, self._told)
            await reader.look()
            await reader.read(tuple(range(len(self._tags))))
            self._session, self._reader, self._connection = session, reader, stack.pop_all()
        return self

    def _addresses(self) -> Sequence[tuple[str, Address]]:
        return [(name, address) for name, (_, address) in self._tags.items()]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Disconnect."""
        self._session = self._reader = None
        connection, self._connection = self._connection, AsyncExitStack()
        await connection.aclose()

    async def batches(self) -> AsyncGenerator[Batch]:
        """What changed, a batch a read of a scan group. Raises Unavailable when the PLC is away."""
        if self._reader is None:
            raise RuntimeError("enter the source first")
        scanner = Scanner(self._config, self._reader.read, watch=self._reader.watch)
        async with aclosing(scanner.batches()) as batches:
            async for batch in batches:
                yield batch

    async def examine(self) -> AsyncIterator[str]:
        """Each tag that cannot be read; whether the PLC is in STOP. Raises Unavailable."""
        reader = self._reader
        if reader is None:
            raise Unavailable("not connected")
        if reader.state is State.STOP:
            yield "the PLC is in STOP: values are uncertain and nothing is written until it is in RUN"
        await reader.read(tuple(range(len(self._tags))))
        for place, trouble in sorted(reader.troubles.items()):
            tag = self._config.tags[place]
            yield f"{tag.tag} ({tag.address}): {trouble}"

    async def browse(self) -> AsyncIterator[TagInfo]:
        """Nothing: raises Misconfigured."""
        raise Misconfigured(
            "S7 has no names on the wire: take the addresses from the engineering tool (TIA Portal, STEP 7, "
            "LOGO!Soft Comfort); or acquire by names from the PLC's OPC UA server, `type: opcua`"
        )
        yield  # makes this an asynchronous generator

    async def execute(self, command: Command) -> Outcome:
        """Write one value and read it back."""
        known = self._tags.get(command.tag)
        if known is None or known[0].writable is False:
            reason = f"{self._config.name} has no tag {command.tag!r}" if known is None else "the tag is not writable"
            return Outcome(command.id, done=False, detail=reason)
        if self._session is None or self._reader is None:
            raise Unavailable("not connected")
        tag, address = known
        return await write(self._session, command, address, tag.scale, self._reader.state)
