"""Modbus: reads registers and bits of devices over TCP, also behind gateways, and writes with read-back.

docs/connectors/modbus.md says what is guaranteed and what is not.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from shopfloor.plant import Duration
from shopfloor.protocols import modbus_address
from shopfloor.protocols.modbus_address import BITS, Layout, Order, Place, TypeName
from shopfloor.protocols.modbus_line import Framing, Line, Refused, Silent, shared
from shopfloor.protocols.modbus_plan import MOST_REGISTERS, Extent
from shopfloor.samples import Batch, Command, Misconfigured, Outcome, Quality, TagInfo, Unavailable
from shopfloor.seams import Source
from shopfloor.sources.changes import Column, by_place
from shopfloor.sources.modbus_reading import Devices, Limits, Reader
from shopfloor.sources.modbus_write import Writer
from shopfloor.sources.scanning import ScannedConfig, ScannedTag, Scanner

_SECOND: Final = 10**9
_MOST_DEVICES: Final = 255
_LEAST, _MOST = 1e-30, 1e30
"""Beyond these no machine measures: the bytes of the number lie otherwise."""

AddressText = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, int) and not isinstance(v, bool) else v)]
"""``40001`` stands in a plant file without quotes, so YAML takes it for a number; ``40001.10`` needs them."""
Device = Annotated[int, Field(ge=0, le=_MOST_DEVICES)]


class ModbusTag(ScannedTag):
    """One value in a device."""

    address: AddressText = Field(
        description="Where it is: `40001` as manuals number it (0 coil, 1 discrete input, 3 input register, 4 holding "
        'register; counted from 1; quotes round "00001"), or `holding 0`, `input 0`, `coil 0`, `discrete 0`, counted '
        "from 0. A bit of a register: `40001.3`, several: `40001.4-7`; bit 0 is the least significant."
    )
    type: TypeName | None = Field(
        default=None, description="What its registers hold; by default `uint16`, and `bool` for a bit."
    )
    length: Annotated[int, Field(ge=1, le=2 * MOST_REGISTERS)] | None = Field(
        default=None, description="How many characters (bytes) a `string` has, two a register."
    )
    order: Order | None = Field(default=None, description="The order of its bytes; else the source's.")
    device: Device | None = Field(
        default=None, description="The device's id (unit id, slave address); else the source's."
    )

    @field_validator("address")
    @classmethod
    def _address(cls, text: str) -> str:
        modbus_address.parse(text)
        return text

    @model_validator(mode="after")
    def _fits(self) -> Self:
        place, kind = self.place(), self.type
        if (kind == "string") != (self.length is not None):
            raise ValueError("`type: string` and `length` go together")
        if place.kind in BITS and kind not in {None, "bool"}:
            raise ValueError(f"a {place.kind} is one bit: leave `type` out, or give an input or holding register")
        if place.bits is not None and kind not in {None, "bool", "uint16"}:
            raise ValueError("bits of a register are `bool` (one) or `uint16` (several); leave `type` out")
        if kind == "bool" and place.bits is None and place.kind not in BITS:
            raise ValueError("a register is no bool; say which bit, for example `40001.0`")
        if kind == "bool" and place.bits is not None and place.bits[0] != place.bits[1]:
            raise ValueError("several bits are no bool; leave `type` out, or name one bit")
        if self.extent(0, 0).end > modbus_address.SPACE:
            raise ValueError(f"{self.address!r} is too near to the end of what Modbus can address for its type")
        return self

    def place(self) -> Place:
        """Where it begins."""
        return modbus_address.parse(self.address)

    def layout(self, order: Order) -> Layout:
        """How it lies there; ``order`` is the source's."""
        place = self.place()
        single = place.kind in BITS or (place.bits is not None and place.bits[0] == place.bits[1])
        kind: TypeName = self.type or ("bool" if single else "uint16")
        return Layout(kind, self.order or order, self.length or 0, place.bits)

    def extent(self, number: int, device: int) -> Extent:
        """What of the address space it takes; ``device`` is the source's."""
        place = self.place()
        own = device if self.device is None else self.device
        return Extent(number, own, place.kind, place.start, self.layout("ABCD").size)


class ModbusConfig(ScannedConfig):
    """Registers and bits of Modbus devices: over TCP, or RTU over TCP behind a gateway."""

    type: Literal["modbus"] = "modbus"
    host: str = Field(min_length=1, description="The device's or gateway's name or IP address.")
    port: int = Field(default=502, ge=1, le=65_535, description="Its TCP port.")
    framing: Framing = Field(
        default="tcp", description="`rtu-over-tcp` for gateways that only pass serial Modbus through."
    )
    device: Device = Field(
        default=1, description="The device's id (unit id, slave address); many devices with TCP of their own ignore it."
    )
    order: Order = Field(
        default="ABCD", description="How the bytes of 32 and 64 bits lie in registers; `CDAB`: the low word first."
    )
    gap: int = Field(
        default=8,
        ge=0,
        le=MOST_REGISTERS,
        description="So many registers that nobody wants may be read along, to save a request.",
    )
    registers: int = Field(
        default=MOST_REGISTERS, ge=1, le=MOST_REGISTERS, description="What the device allows one request to read."
    )
    bit_writes: Literal["mask", "read-write"] = Field(
        default="mask",
        description="How bits of a register are written: `mask` leaves the others alone (function 22). `read-write`, "
        "for devices that do not know that, writes them as they were read, so a change in between is undone.",
    )
    timeout: Annotated[Duration, Field(gt=0)] = Field(
        default=3 * _SECOND, description="How long a device may take to answer."
    )
    retry: Annotated[Duration, Field(gt=0)] = Field(
        default=30 * _SECOND, description="When a tag that was refused, or a silent device, is tried again."
    )
    tags: Sequence[ModbusTag] = Field(default=(), description="What is acquired.", max_length=100_000)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        for tag in self.tags:
            if tag.place().kind not in BITS and tag.extent(0, 0).size > self.registers:
                raise ValueError(f"the tag {tag.tag!r} needs more than {self.registers} registers (`registers`)")
        return self

    def build(self) -> "ModbusSource":
        """The source itself; opens nothing yet."""
        return ModbusSource(self)

    def address(self, tag: ScannedTag) -> str:
        """As the plant file writes it."""
        return tag.address if isinstance(tag, ModbusTag) else ""


class ModbusSource(Source):
    """The devices at one address."""

    def __init__(self, config: ModbusConfig) -> None:
        """Opens nothing yet."""
        self._config = config
        self._numbers = {tag.tag: number for number, tag in enumerate(config.tags)}
        self._layouts = {number: tag.layout(config.order) for number, tag in enumerate(config.tags)}
        self._extents = [tag.extent(number, config.device) for number, tag in enumerate(config.tags)]
        self._describe = {number: f"{tag.tag} at {tag.place()}" for number, tag in enumerate(config.tags)}
        self._timeout, self._retry = config.timeout / _SECOND, config.retry / _SECOND
        self._devices = self._all_devices()
        self._stack = AsyncExitStack()
        self._line: Line | None = None

    async def __aenter__(self) -> Self:
        """Connect and see that a device answers. Raises Unavailable that says what to look at."""
        config = self._config
        self._devices = self._all_devices()
        async with AsyncExitStack() as stack:
            line = await stack.enter_async_context(shared((config.host, config.port, config.framing)))
            await line.connect(self._timeout)
            await self._answers(line)
            self._stack, self._line = stack.pop_all(), line
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Leave the connection; the last source that uses it closes it."""
        self._line = None
        await self._stack.aclose()

    async def _answers(self, line: Line) -> None:
        """Ask each device for one tag until one of them says anything."""
        for extent in {extent.device: extent for extent in reversed(self._extents)}.values():
            try:
                await line.read(extent.kind, extent.device, extent.start, extent.size, self._timeout)
            except Refused:
                return
            except Silent as error:
                self._devices.failed(extent.device, error)
            else:
                return

    def _all_devices(self) -> Devices:
        return Devices(self._config.name, [extent.device for extent in self._extents], self._retry)

    async def batches(self) -> AsyncGenerator[Batch]:
        """What changed, scan by scan."""
        line, config, devices = self._connected(), self._config, self._devices
        limits = Limits(config.gap, config.registers, self._retry, self._timeout)
        readers: dict[tuple[int, ...], Reader] = {}

        async def read(places: tuple[int, ...]) -> Sequence[Column]:
            if places not in readers:
                wanted = [self._extents[place] for place in places]
                readers[places] = Reader(config.name, wanted, self._layouts, self._describe, devices, limits)
            return await readers[places].read(line)

        async with aclosing(Scanner(config, read).batches()) as batches:
            async for batch in batches:
                yield batch

    async def examine(self) -> AsyncIterator[str]:
        """Each tag that cannot be read, or that reads what nobody measures. Raises Unavailable."""
        line, config = self._connected(), self._config
        limits = Limits(config.gap, config.registers, self._retry, self._timeout)
        reader = Reader(config.name, self._extents, self._layouts, self._describe, self._devices, limits)
        found = by_place(await reader.read(line))
        for number, reading in sorted(found.items()):
            if reading.quality != Quality.GOOD:
                yield f"{self._describe[number]}: {Refused(reading.status)}"
            elif isinstance(reading.value, float) and reading.value and not _LEAST < abs(reading.value) < _MOST:
                yield f"{self._describe[number]}: it reads {reading.value:g}; correct `order`, the address or `type`"

    async def execute(self, command: Command) -> Outcome:
        """Write in the tag's own type and scale, unless the command has expired, and read back."""
        number = self._numbers.get(command.tag)
        if number is None:
            return Outcome(command.id, done=False, detail=f"{self._config.name} has no tag {command.tag!r}")
        tag = self._config.tags[number]
        if tag.writable is False:
            return Outcome(command.id, done=False, detail="the plant file says that this tag is not written")
        if self._line is None:
            return Outcome(command.id, done=False, detail=f"not written: {self._config.name} is not connected")
        value, layout = command.value, self._layouts[number]
        if tag.scale is not None:
            value = tag.scale.to_raw(value)
            if isinstance(value, float) and not layout.type.startswith("float"):
                value = float(round(value))  # the nearest that the register can hold
        writer = Writer(self._line, self._timeout, read_write=self._config.bit_writes == "read-write")
        return await writer.write(command, value, self._extents[number].device, tag.place(), layout)

    async def browse(self) -> AsyncIterator[TagInfo]:
        """Nothing: raises Misconfigured."""
        self._connected()
        raise Misconfigured(
            "Modbus devices have no list of what they hold; take the addresses from the device's manual"
        )
        yield  # makes this an asynchronous generator

    def _connected(self) -> Line:
        if self._line is None:
            raise Unavailable(f"{self._config.name} is not connected")
        return self._line
