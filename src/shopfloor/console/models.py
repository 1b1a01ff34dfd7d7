"""The documents of the API as models: what OpenAPI shows. Answers are built without them, tests hold them to it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shopfloor.commands import Event
from shopfloor.historian.base import Aggregate
from shopfloor.pipeline.status import State

Moment = int | float
"""ms since 1970-01-01T00:00:00Z."""


class Exact(BaseModel):
    """A value that plain JSON cannot carry, or one that was cut; see docs/api.md."""

    model_config = ConfigDict(extra="forbid")
    int_: str | None = Field(None, alias="int")
    float_: Literal["NaN", "Infinity", "-Infinity"] | None = Field(None, alias="float")
    bytes_: str | None = Field(None, alias="bytes")
    text: str | None = None
    length: int | None = None
    sha256: str | None = None


JsonValue = bool | int | float | str | Exact | None


class Site(BaseModel):
    """Which plant this is."""

    site: str
    timezone: str
    version: str
    started: Moment
    now: Moment
    historian: bool


class Me(BaseModel):
    """Who one is."""

    name: str
    role: str


class TagRow(BaseModel):
    """A tag and its newest value."""

    tag: str
    source: str
    unit: str
    description: str
    data_type: str
    value: JsonValue
    time: Moment | None
    quality: int
    writable: bool


class Tags(BaseModel):
    """Every tag."""

    now: Moment
    tags: list[TagRow]


class Permission(BaseModel):
    """What may be written; durations in ms."""

    tag: str
    role: str
    range: tuple[float, float] | None
    momentary: bool
    lease: Moment
    expires: Moment
    allowed: bool
    held_by: str | None


class TagDetail(TagRow):
    """All that is known of a tag."""

    address: str
    time_ns: str | None
    status: int
    server_time: Moment | None
    command: Permission | None


class Series(BaseModel):
    """One tag's values as columns in time order."""

    model_config = ConfigDict(populate_by_name=True)
    tag: str
    unit: str
    from_: Moment = Field(alias="from")
    to: Moment
    every: Moment | None
    aggregate: Aggregate | None
    times: list[Moment]
    values: list[JsonValue]
    qualities: list[int]
    truncated: bool


class Target(BaseModel):
    """What is wished for of a figure, and whether it is so; null while the figure has no meaning."""

    value: float
    met: bool | None


class LiveFigures(BaseModel):
    """The main figures of a machine's running shift; ratios are fractions, null where they have no meaning."""

    state: str | None
    oee: float | None
    availability: float | None
    performance: float | None
    quality: float | None
    good: float | None
    scrap: float | None
    coverage: float | None
    unexplained: int | None
    until: Moment | None
    target: dict[str, Target] | None


class Machine(BaseModel):
    """A machine, its tags and what may be written to it."""

    id: str
    title: str
    line: str | None
    ideal_cycle: Moment | None
    state: str | None
    good: str | None
    scrap: str | None
    tags: list[str]
    targets: dict[str, float]
    commands: list[Permission]
    live: LiveFigures | None


class Machines(BaseModel):
    """Every machine of the plant file."""

    machines: list[Machine]


class MachineDetail(Machine):
    """A machine with the newest values of its tags."""

    now: Moment
    samples: list[TagRow]


class Loss(BaseModel):
    """Stops of one reason."""

    count: int
    seconds: float


class KpiRecord(BaseModel):
    """All figures of a machine, a line, an area or the site in one window; docs/specs/kpi.md says what each means."""

    model_config = ConfigDict(extra="allow")
    machine: str | None = None
    line: str | None = None
    area: str | None = None
    site: str | None = None
    policy: str | None = None
    machines: list[str] | None = None
    lines: list[str] | None = None
    window: Literal["hour", "shift", "day"]
    start: Moment
    end: Moment
    day: str
    shift: str
    formula: str
    availability: float | None
    performance: float | None
    quality: float | None
    oee: float | None
    oee_low: float | None
    oee_high: float | None
    nee: float | None
    teep: float | None
    mtbf: float | None
    mttr: float | None
    scrap_rate: float | None
    error_rate: float | None
    health: float | None
    coverage: float | None
    state_coverage: float | None = None
    planned_seconds: float
    actual_seconds: float
    uncounted_seconds: float = 0.0
    seconds: dict[str, float]
    good: float
    scrap: float
    minor_stops: int
    incidents: int
    losses: dict[str, Loss]
    scrap_by_reason: dict[str, float]
    lost_to: dict[str, Loss] | None = None
    target: dict[str, Target] | None = None
    state: str | None = None
    stands_for: str | None = None
    states: dict[str, str] | None = None
    until: Moment | None = None
    revision: int | None = None
    was: dict[str, float | None] | None = None
    why: str | None = None
    corrected: str | None = None
    unexplained: int | None = None
    calendar: str | None = None
    unknown_states: dict[str, int] | None = None


class Windows(BaseModel):
    """Closed windows and the running shift."""

    model_config = ConfigDict(populate_by_name=True)
    window: Literal["hour", "shift", "day"]
    from_: Moment = Field(alias="from")
    to: Moment
    now: Moment
    reasons: dict[str, str]
    live: KpiRecord | None
    records: list[KpiRecord]
    truncated: bool


class Kpi(Windows):
    """A machine's closed windows and its running shift."""

    machine: str


class LineKpi(Windows):
    """The closed windows of a line, an area or the site, and its running shift."""

    line: str


class Whole(BaseModel):
    """A line, or an area or the site, which are sums of lines."""

    level: Literal["line", "area", "site"]
    id: str
    title: str
    area: str | None
    policy: Literal["sum", "bottleneck", "first_down"]
    machines: list[str]
    lines: list[str]
    targets: dict[str, float]


class Line(Whole):
    """With its running shift."""

    live: KpiRecord | None


class Lines(BaseModel):
    """Lines, areas and the site that have figures."""

    lines: list[Line]


class StateTimeline(BaseModel):
    """As what each moment of a machine counts; columns of equal length."""

    model_config = ConfigDict(populate_by_name=True)
    machine: str
    from_: Moment = Field(alias="from")
    to: Moment
    until: Moment
    state: str
    since: Moment | None
    starts: list[Moment]
    classes: list[str]
    reasons: list[str]


class ReportedMachine(BaseModel):
    """One machine's shifts of a day, and the whole day."""

    id: str
    title: str
    line: str | None
    shifts: list[KpiRecord]
    day: KpiRecord | None


class ReportedLine(Whole):
    """The shifts of a line, an area or the site of a day, and the whole day."""

    shifts: list[KpiRecord]
    day: KpiRecord | None


class Report(BaseModel):
    """A production day of everything that has figures."""

    day: str
    today: str
    now: Moment
    machines: list[ReportedMachine]
    lines: list[ReportedLine]


class Component(BaseModel):
    """A source, processor, sink or the historian as it stands."""

    name: str
    kind: Literal["source", "processor", "sink", "historian"]
    type: str
    state: State
    since: Moment
    required: bool
    last_error: str
    last_error_at: Moment | None
    restarts: int
    samples: int
    lag_entries: int
    lag_seconds: float
    dropped: int


class Journal(BaseModel):
    """How full the journal is."""

    entries: int
    samples: int
    size: int
    keep: int
    oldest: Moment | None
    full: bool
    damaged: int
    thinned: int
    dropped: int
    salvaged: str


class Components(BaseModel):
    """Every component and the journal."""

    now: Moment
    components: list[Component]
    journal: Journal


class LedgerRow(BaseModel):
    """One sum of the loss ledger."""

    source: str
    reader: str
    outcome: str
    samples: int
    reason: str
    first: Moment | None
    last: Moment | None


class Ledger(BaseModel):
    """The loss ledger."""

    rows: list[LedgerRow]


class RefusedSample(BaseModel):
    """A sample that a sink refused; of a long text or of many bytes the first thousand."""

    tag: str
    time: Moment
    value: JsonValue
    quality: int


class DeadLetter(BaseModel):
    """Samples of one batch that a sink refused for one reason; ``samples`` are the first of ``count``."""

    id: int
    reader: str
    source: str
    time: Moment
    reason: str
    count: int
    samples: list[RefusedSample]


class DeadLetters(BaseModel):
    """What sinks refused, the newest first."""

    letters: list[DeadLetter]


class ChosenLetters(BaseModel):
    """Which letters."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: list[Annotated[int, Field(ge=1, le=2**63 - 1)]] = Field(min_length=1, max_length=1_000)


class Decided(BaseModel):
    """About how many letters it was decided."""

    letters: int


class AuditRecord(BaseModel):
    """One link of the audit chain."""

    number: int
    time: Moment
    event: Event
    who: str
    role: str
    tag: str
    value: JsonValue
    id: str
    detail: str
    hash: str


class AuditRecords(BaseModel):
    """The newest audit records first."""

    records: list[AuditRecord]


class Verification(BaseModel):
    """What a walk along the audit chain found."""

    records: int
    intact: bool
    broken: int | None
    detail: str
    head: str


class Permissions(BaseModel):
    """Everything that may be written."""

    commands: list[Permission]


class NewCommand(BaseModel):
    """A value to be written once."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tag: str = Field(min_length=1, max_length=255)
    value: Any = Field(
        description='true, false, a number, text, or {"int": "…"}, {"float": "…"}, {"bytes": "…"} (docs/api.md).',
        json_schema_extra={
            "anyOf": [
                {"type": "boolean"},
                {"type": "number"},
                {"type": "string"},
                {"type": "object", "minProperties": 1, "maxProperties": 1},
                {"type": "null"},
            ]
        },
    )
    id: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Carried out once, however often sent.")
    expires: float | None = Field(None, gt=0, le=3_600_000, description="ms after which it must not be carried out.")


class Outcome(BaseModel):
    """What became of a command; ``done`` null: unknown, a person has to look."""

    id: str
    tag: str
    value: JsonValue
    done: bool | None
    detail: str


class Alive(BaseModel):
    """The process runs its event loop."""

    status: Literal["alive"]
    version: str


class NotReady(BaseModel):
    """A required component that does not run."""

    name: str
    state: State
    reason: str


class Readiness(BaseModel):
    """Whether every required component runs."""

    ready: bool
    waiting: list[NotReady]
