"""Planned orders, as the plant file says them."""

import datetime as dt
from collections.abc import Collection
from typing import Annotated

from pydantic import BeforeValidator, Field

from shopfloor.plant.components import Form, Name, Strict
from shopfloor.plant.machine import Cycle


def _moment(value: object) -> object:
    try:
        return dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        msg = "must be a day and a time of day, `2026-12-01 14:00`"
        raise ValueError(msg) from error


class Order(Strict):
    """What is to be made, and how much of it."""

    id: Annotated[str, Form(r"[^\x00-\x1f]{1,60}", 'text of at most 60 characters in quotes, like `"4711"`')] = Field(
        description="What a machine's tag `order` says while it is made."
    )
    product: str = Field(default="", description="What is made; where the machine names no tag `product`.")
    quantity: Annotated[float, Field(gt=0)] | None = Field(default=None, description="How many good units are wanted.")
    ideal_cycle: Cycle | None = Field(
        default=None, description="The shortest time that one unit takes, instead of the product's."
    )
    machine: Name | None = Field(default=None, description="The machine that makes it; by default any may.")
    line: Name | None = Field(default=None, description="Or the line that makes it.")
    due: Annotated[dt.datetime, BeforeValidator(_moment)] | None = Field(
        default=None, description="When it is to be ready, `2026-12-01 14:00`; site time where no offset is written."
    )

    def concerns(self, machine: str, lines: Collection[str]) -> bool:
        """Whether a machine of these lines may make it."""
        return self.machine in (None, machine) and (self.line is None or self.line in lines)
