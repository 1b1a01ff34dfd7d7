"""The documents of the API about stops and what happened: what OpenAPI shows, as ``models`` for the rest."""

from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from shopfloor.console.models import JsonValue, Moment

Kind = Literal["stop", "correction", "edit", "loss", "unknown_state"]
"""Kinds of events."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Number = Annotated[str, Field(pattern=r"^[0-9]{1,19}$", description="Of what was said, as `edits` gives it.")]


class StopPart(BaseModel):
    """A part of a stop for which one reason counts, and who said so: "" where it is the machine."""

    reason: str
    start: Moment
    seconds: float
    by: str
    comment: str


class Stop(BaseModel):
    """A stop as a whole; its end is null while it lasts."""

    start: Moment
    end: Moment | None
    class_: Literal["minor_stop", "unplanned_stop"] = Field(alias="class")
    state: Literal["idle", "down"]
    unexplained: bool
    reasons: list[StopPart]


class Undone(BaseModel):
    """Who took it back, and when."""

    time: Moment
    by: str


class Edit(BaseModel):
    """What somebody said; ``to`` is null for the end of the stop, whenever that is."""

    model_config = ConfigDict(populate_by_name=True)
    id: Number
    time: Moment
    from_: Moment = Field(alias="from")
    to: Moment | None
    reason: str
    by: str
    comment: str
    undone: Undone | None


class Stops(BaseModel):
    """The stops that reach into a time, and what was said of them."""

    model_config = ConfigDict(populate_by_name=True)
    machine: str
    from_: Moment = Field(alias="from")
    to: Moment
    now: Moment
    stops: list[Stop]
    edits: list[Edit]
    truncated: bool


class KnownReason(BaseModel):
    """A reason of the plant file; ``used``: how often it was given for this machine in the last 30 days."""

    id: str
    title: str
    comment: bool
    used: int


class Reasons(BaseModel):
    """The reasons that can be given, in the order of the plant file."""

    machine: str
    reasons: list[KnownReason]


class NewReason(BaseModel):
    """Why a machine stood between two times."""

    model_config = ConfigDict(extra="forbid", strict=True)
    from_: Moment = Field(alias="from", description="Begin, ms UTC.")
    to: Moment | None = Field(description="End, ms UTC; null: the end of the stop, also of one that lasts.")
    reason: str = Field(
        pattern=r"^([^/\x00-\x1f]{1,60}(/[^/\x00-\x1f]{1,60}){0,3})?$",
        description='Of the plant file\'s `reasons`; "": what the machine says.',
    )
    comment: str = Field("", max_length=1000)


class ReasonGiven(BaseModel):
    """A reason that was taken in; the figures follow within a second or two."""

    model_config = ConfigDict(populate_by_name=True)
    id: Number
    machine: str
    from_: Moment = Field(alias="from")
    to: Moment | None
    reason: str
    by: str


class Undo(BaseModel):
    """What was said and shall count no more."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: Number


class Event(BaseModel):
    """Something that happened."""

    time: Moment
    kind: Kind


class StopEvent(Event):
    """A machine stood."""

    kind: Literal["stop"]
    machine: str
    end: Moment | None
    class_: Literal["minor_stop", "unplanned_stop"] = Field(alias="class")
    state: Literal["idle", "down"]
    unexplained: bool
    reasons: list[StopPart]


class CorrectionEvent(Event):
    """The figures of a closed window were corrected."""

    model_config = ConfigDict(populate_by_name=True)
    kind: Literal["correction"]
    machine: str
    window: Literal["hour", "shift", "day"]
    shift: str
    start: Moment
    end: Moment
    revision: int
    was: dict[str, float | None]
    is_: dict[str, float | None] = Field(alias="is")
    why: str


class EditEvent(Edit, Event):
    """Somebody said why a machine stood."""

    kind: Literal["edit"]
    machine: str


class LossEvent(Event):
    """A source was away; ``until`` is null while it is, ``complete``: it had kept what happened."""

    kind: Literal["loss"]
    source: str
    machines: list[str]
    until: Moment | None
    complete: bool


class UnknownStateEvent(Event):
    """A machine gave a state that no mapping knows."""

    kind: Literal["unknown_state"]
    machine: str
    tag: str
    value: JsonValue


class Events(BaseModel):
    """What happened, the newest first; ``next`` is the `to` that goes on behind them, null at the end."""

    model_config = ConfigDict(populate_by_name=True)
    from_: Moment = Field(alias="from")
    to: Moment
    now: Moment
    reasons: dict[str, str]
    events: list[StopEvent | CorrectionEvent | EditEvent | LossEvent | UnknownStateEvent]
    next: str | None
