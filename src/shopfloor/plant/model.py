"""The plant as written down: one model per section of the plant file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from shopfloor.plant.components import (
    ComponentConfig,
    Form,
    Name,
    ProcessorConfig,
    Role,
    SinkConfig,
    SourceConfig,
    Strict,
    TagName,
)
from shopfloor.plant.line import Line
from shopfloor.plant.machine import Machine, Reason
from shopfloor.plant.orders import Order
from shopfloor.plant.shifts import CalendarException, Shift
from shopfloor.plant.units import DURATION_UNITS, Duration, Size
from shopfloor.seams import Connection, Sink

SECOND: Final = DURATION_UNITS["s"]
DAY: Final = DURATION_UNITS["d"]
LARGEST_PORT: Final = 65535


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        msg = "must be a time zone of the IANA's list; write one like Europe/Berlin or UTC"
        raise ValueError(msg) from error
    return name


Zone = Annotated[str, AfterValidator(_zone)]
"""The name of a time zone of the IANA's list."""


class Site(Strict):
    """Which plant this is."""

    site: Name = Field(description="The site's short name; the first level of topics and paths.")
    timezone: Zone = Field(
        default="UTC", description="IANA time zone of the site: shifts, days and hours of the reports are in it."
    )


class JournalConfig(Strict):
    """The durable record between sources and everything else."""

    path: Path = Field(default=Path("data/journal.db"), description="Its file, relative to the plant file.")
    keep: Size = Field(
        default=20 * 10**9, gt=0,
        description="The most that it may hold, e.g. `20 GB`; less where its disk has no more room.",
    )  # fmt: skip
    when_full: Literal["refuse", "oldest", "thin"] = Field(
        default="refuse",
        description="`refuse` stops reading from sources until there is room; `oldest` drops the oldest entries, "
        "delivered ones first, and says so in the ledger; `thin` first keeps fewer of the oldest measurements, the "
        "smallest and the largest of every four, and drops the oldest when that is not enough.",
    )


class HistorianConfig(ComponentConfig, ABC):
    """The long-term store; which fields it has depends on its type."""

    name: Name = Field(default="historian", description="Its name in the console, the ledger and the logs.")
    keep: Duration = Field(default=90 * DAY, gt=0, description="How long samples are kept, e.g. `90 d`.")

    def place(self, plant: "Plant") -> None:  # most need to know nothing of the plant
        """Told in which plant it is, before anything else is asked."""

    @abstractmethod
    def build(self) -> Sink:
        """The historian itself (a sink that can be asked: ``historian.base.Historian``); opens nothing yet."""

    def probe(self) -> Connection | None:
        """What ``shopfloor probe`` enters and leaves; None: it is this computer's own, and nothing is to be reached."""
        return None


class Allow(Strict):
    """One permission to write."""

    tag: TagName = Field(description="The tag that may be written.")
    role: Role = Field(default="operator", description="Who may: the least role that is needed.")
    range: tuple[float, float] | None = Field(default=None, description="Lowest and highest value, both included.")
    momentary: bool = Field(
        default=False, description="True for a button: it is written true on press, false on release."
    )
    lease: Duration = Field(
        default=SECOND // 2, gt=0, description="A press ends by itself when it was not renewed for this long."
    )
    expires: Duration = Field(
        default=5 * SECOND, gt=0, description="A command not carried out within this time never is."
    )

    @model_validator(mode="after")
    def _check(self) -> "Allow":
        if self.momentary and self.range is not None:
            msg = "a momentary tag takes true and false and has no range"
            raise ValueError(msg)
        if self.range is not None and self.range[0] > self.range[1]:
            msg = "the range's lowest value is above its highest"
            raise ValueError(msg)
        return self


class Commands(Strict):
    """Who may write what; without it nothing can be written."""

    allow: list[Allow] = Field(default=[], description="The tags that may be written, one entry each.")


def _port(listen: str) -> str:
    if int(listen.rpartition(":")[2]) > LARGEST_PORT:
        msg = f"has a port above {LARGEST_PORT}"
        raise ValueError(msg)
    return listen


class ConsoleConfig(Strict):
    """The console's address."""

    listen: Annotated[
        str, Form(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}", "`host:port`, like 127.0.0.1:8080"), AfterValidator(_port)
    ] = Field(
        default="127.0.0.1:8080", description="`host:port`. Other hosts than this one reach it only if you say so."
    )
    hosts: list[str] = Field(
        default=[],
        description="Further names under which browsers reach it, such as a reverse proxy's `plant.example.com`. "
        "Addresses, `localhost` and this computer's own names always work.",
    )


class Plant(Strict):
    """A whole plant file, after validation. Paths are absolute."""

    plant: Site = Field(description="Which plant this is.")
    shifts: list[Shift] = Field(default=[], description="The weekly pattern of shifts.")
    exceptions: list[CalendarException] = Field(
        default=[], description="Days with other shifts, or none: holidays, shutdowns; the last that fits a day counts."
    )
    reasons: list[Reason] = Field(
        default=[], description="The tree of reasons for stops; with it machines may name only these."
    )
    machines: list[Machine] = Field(default=[], description="The machines and the tags that describe them.")
    lines: list[Line] = Field(default=[], description="The lines, with their machines in the order of flow.")
    orders: list[Order] = Field(default=[], description="Planned orders: what is to be made, how many, until when.")
    sources: Sequence[SourceConfig] = Field(default=[], description="Where samples come from.")
    processors: Sequence[ProcessorConfig] = Field(default=[], description="What is worked out of samples.")
    sinks: Sequence[SinkConfig] = Field(default=[], description="Where samples go.")
    historian: HistorianConfig | None = Field(default=None, description="The long-term store; none by default.")
    journal: JournalConfig = Field(
        default=JournalConfig(), description="The durable record between sources and everything else."
    )
    commands: Commands = Field(default=Commands(), description="Who may write what; nobody by default.")
    console: ConsoleConfig | None = Field(
        default=ConsoleConfig(), description="The console's address; `null` runs without a console."
    )

    def model_post_init(self, _: object) -> None:
        """Tell the processors, the sinks and the historian in which plant they are."""
        for processor in self.processors:
            processor.place(self)
        for sink in self.sinks:
            sink.place(self)
        if self.historian is not None:
            self.historian.place(self)
