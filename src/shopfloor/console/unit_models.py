"""The documents of the API about units: what OpenAPI shows, as ``models`` for the rest."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shopfloor.console.models import Moment


class NewJudgement(BaseModel):
    """Units made between two times that are good, or scrap, after all."""

    model_config = ConfigDict(extra="forbid", strict=True)
    from_: Moment = Field(alias="from", description="Begin, ms UTC.")
    to: Moment = Field(description="End, ms UTC.")
    quantity: float = Field(gt=0, le=1e9, allow_inf_nan=False, description="How many.")
    into: Literal["good", "scrap"] = Field(description="What they are.")
    reason: str = Field(
        "",
        pattern=r"^([^/\x00-\x1f]{1,60}(/[^/\x00-\x1f]{1,60}){0,3})?$",
        description="Why they are scrap, `QUALITY/scratch`.",
    )
    comment: str = Field("", max_length=1000)


class UnitsJudged(BaseModel):
    """What was taken in; the figures follow within a second or two."""

    model_config = ConfigDict(populate_by_name=True)
    machine: str
    from_: Moment = Field(alias="from")
    to: Moment
    quantity: float
    into: Literal["good", "scrap"]
    reason: str
    by: str
