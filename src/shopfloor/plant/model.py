"""The plant as written down: one model per section of the plant file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from shopfloor.plant.calendar import DAY_MINUTES, Span, parse_clock, parse_days
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
from shopfloor.plant.units import DURATION_UNITS, Duration, Size
from shopfloor.seams import Sink

ClockTime = Annotated[str, Form(r"([01]\d|2[0-3]):[0-5]\d|24:00", "a time of day, `HH:MM` from 00:00 to 24:00")]
"""``HH:MM`` in the site's time zone; 24:00 is the end of the day."""

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


class Site(Strict):
    """Which plant this is."""

    site: Name = Field(description="The site's short name; the first level of topics and paths.")
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="IANA time zone of the site: shifts, days and hours of the reports are in it."
    )


def _days(text: str) -> str:
    parse_days(text)
    return text


class Shift(Strict):
    """One shift of the weekly pattern; one that runs past midnight belongs to the day on which it begins."""

    name: Name = Field(description="What people call it; may stand several times for different days.")
    days: Annotated[str, AfterValidator(_days)] = Field(
        description="The days on which it begins: `mon-fri`, `sat,sun` or `mon`."
    )
    start: ClockTime = Field(alias="from", description="Begin, site time.")
    end: ClockTime = Field(alias="to", description="End, site time; earlier than `from` means the next day.")
    breaks: list[Annotated[str, Form(r"\d\d:\d\d-\d\d:\d\d", "a break, `09:00-09:15`")]] = Field(
        default=[], description="Scheduled breaks inside the shift, `09:00-09:15`."
    )

    @model_validator(mode="after")
    def _check(self) -> "Shift":
        if self.start == "24:00" or parse_clock(self.start) == parse_clock(self.end):
            msg = "begins when it ends; a whole day is from 00:00 to 24:00"
            raise ValueError(msg)
        spans = sorted(self._break(text) for text in self.breaks)
        if any(a.end > b.start for a, b in pairwise(spans)):
            msg = "has breaks that overlap; make one of them"
            raise ValueError(msg)
        return self

    @property
    def weekdays(self) -> tuple[int, ...]:
        """The days on which it begins, 0 for Monday."""
        return parse_days(self.days)

    @property
    def spans(self) -> list[Span]:
        """When it runs in a week, breaks included."""
        return self._weekly([self._whole])

    @property
    def break_spans(self) -> list[Span]:
        """When its breaks are in a week."""
        return self._weekly([self._break(text) for text in self.breaks])

    def _weekly(self, spans: list[Span]) -> list[Span]:
        return [Span(day * DAY_MINUTES + a, day * DAY_MINUTES + b) for day in self.weekdays for a, b in spans]

    @property
    def _whole(self) -> Span:
        start, end = parse_clock(self.start), parse_clock(self.end)
        return Span(start, end if end > start else end + DAY_MINUTES)

    def _break(self, text: str) -> Span:
        """Minutes from midnight of the day on which the shift begins. Raises ValueError outside the shift."""
        shift = self._whole
        start, end = (parse_clock(part) for part in text.split("-"))
        start += DAY_MINUTES if start < shift.start else 0
        end += DAY_MINUTES * ((start - end) // DAY_MINUTES + 1) if end <= start else 0
        if end > shift.end:
            msg = f"has a break {text} outside {self.start}-{self.end}; move it, or make the shift longer"
            raise ValueError(msg)
        return Span(start, end)


class Machine(Strict):
    """A machine (ISA-95 work unit) and the tags that describe it."""

    id: Name = Field(description="Its id in paths and the console.")
    title: str = Field(default="", description="What people call it.")
    line: Name | None = Field(default=None, description="The line (ISA-95 work centre) that it belongs to.")
    ideal_cycle: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description="The shortest time that one unit takes (PRI)."
    )
    state: TagName | None = Field(default=None, description="The tag that gives its state.")
    good: TagName | None = Field(default=None, description="The tag that counts good units.")
    scrap: TagName | None = Field(default=None, description="The tag that counts scrapped units.")
    show: list[TagName] = Field(default=[], description="Further tags that its page shows, in this order.")


class JournalConfig(Strict):
    """The durable record between sources and everything else."""

    path: Path = Field(default=Path("data/journal.db"), description="Its file, relative to the plant file.")
    keep: Size = Field(default=20 * 10**9, gt=0, description="The most that it may hold, e.g. `20 GB`.")
    when_full: Literal["refuse", "oldest"] = Field(
        default="refuse",
        description="`refuse` stops reading from sources until there is room; `oldest` drops the oldest entries, "
        "delivered ones first, and says so in the ledger.",
    )


class HistorianConfig(ComponentConfig, ABC):
    """The long-term store; which fields it has depends on its type."""

    name: Name = Field(default="historian", description="Its name in the console, the ledger and the logs.")
    keep: Duration = Field(default=90 * DAY, gt=0, description="How long samples are kept, e.g. `90 d`.")

    @abstractmethod
    def build(self) -> Sink:
        """The historian itself (a sink that can be asked: ``historian.base.Historian``); opens nothing yet."""


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
    machines: list[Machine] = Field(default=[], description="The machines and the tags that describe them.")
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
