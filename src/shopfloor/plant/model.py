"""The plant as written down: one model per section of the plant file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import ComponentConfig, Name, ProcessorConfig, SinkConfig, SourceConfig, Strict, TagName
from shopfloor.plant.units import DURATION_UNITS, Duration, Size

ClockTime = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]
"""``HH:MM`` in the site's time zone; 24:00 is the end of the day."""

SECOND: Final = DURATION_UNITS["s"]
DAY: Final = DURATION_UNITS["d"]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        msg = f"{name!r} is not an IANA time zone; write one like Europe/Berlin or UTC"
        raise ValueError(msg) from error
    return name


class Site(Strict):
    """Which plant this is."""

    site: Name = Field(description="The site's short name; the first level of topics and paths.")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="IANA time zone of the site: shifts, days and hours of the reports are in it."
    )


class Shift(Strict):
    """One shift of the weekly pattern."""

    name: Name
    days: str = Field(description="`mon-fri`, `sat,sun` or `mon`.")
    start: ClockTime = Field(alias="from", description="Begin, site time.")
    end: ClockTime = Field(alias="to", description="End, site time; earlier than `from` means the next day.")
    breaks: list[Annotated[str, StringConstraints(pattern=r"^\d\d:\d\d-\d\d:\d\d$")]] = Field(
        default=[], description="Scheduled breaks, `09:00-09:15`."
    )


class Machine(Strict):
    """A machine (ISA-95 work unit) and the tags that describe it."""

    id: Name = Field(description="Its id in paths and the console.")
    title: str = Field(default="", description="What people call it.")
    line: Name | None = Field(default=None, description="The line (ISA-95 work centre) that it belongs to.")
    ideal_cycle: Duration | None = Field(default=None, description="The shortest time that one unit takes (PRI).")
    state: TagName | None = Field(default=None, description="The tag that gives its state.")
    good: TagName | None = Field(default=None, description="The tag that counts good units.")
    scrap: TagName | None = Field(default=None, description="The tag that counts scrapped units.")
    show: list[TagName] = Field(default=[], description="Further tags that its page shows, in this order.")


class JournalConfig(Strict):
    """The durable record between sources and everything else."""

    path: Path = Field(default=Path("data/journal.db"), description="Its file, relative to the plant file.")
    keep: Size = Field(default=20 * 10**9, description="The most that it may hold, e.g. `20 GB`.")
    when_full: Literal["refuse", "oldest"] = Field(
        default="refuse",
        description="`refuse` stops reading from sources until there is room; `oldest` drops the oldest entries, "
        "delivered ones first, and says so in the ledger.",
    )


class HistorianConfig(ComponentConfig):
    """The long-term store; which fields it has depends on its type."""

    name: Name = "historian"
    keep: Duration = Field(default=90 * DAY, description="How long samples are kept, e.g. `90 d`.")


class Allow(Strict):
    """One permission to write."""

    tag: TagName = Field(description="The tag that may be written.")
    role: Name = Field(default="operator", description="Who may: the least role that is needed.")
    range: tuple[float, float] | None = Field(default=None, description="Lowest and highest value, both included.")
    momentary: bool = Field(
        default=False, description="True for a button: it is written true on press, false on release."
    )
    lease: Duration = Field(
        default=SECOND // 2, description="A press ends by itself when it was not renewed for this long."
    )
    expires: Duration = Field(default=5 * SECOND, description="A command not carried out within this time never is.")

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


class ConsoleConfig(Strict):
    """The console's address."""

    listen: Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")] = Field(
        default="127.0.0.1:8080", description="`host:port`. Other hosts than this one reach it only if you say so."
    )


class Plant(Strict):
    """A whole plant file, after validation. Paths are absolute."""

    plant: Site
    shifts: list[Shift] = []
    machines: list[Machine] = []
    sources: Sequence[SourceConfig] = []
    processors: Sequence[ProcessorConfig] = []
    sinks: Sequence[SinkConfig] = []
    historian: HistorianConfig | None = None
    journal: JournalConfig = JournalConfig()
    commands: Commands = Commands()
    console: ConsoleConfig | None = ConsoleConfig()
