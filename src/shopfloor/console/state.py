"""What every request needs, as FastAPI dependencies."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request

from shopfloor.console.lines import Lines
from shopfloor.console.live import Stream
from shopfloor.console.person import Person
from shopfloor.console.view import Catalogue, Runtime, View
from shopfloor.kpi.calendar import calendar_of


class ConsoleState:
    """The running plant and what is made of it once for all requests."""

    def __init__(self, runtime: Runtime, now: Callable[[], int]) -> None:
        """``now`` gives ns UTC."""
        self.runtime = runtime
        self.now = now
        self.catalogue = Catalogue(runtime.plant)
        self.lines = Lines(runtime.plant, self.catalogue)
        self.view = View(runtime, self.catalogue, now)
        self.stream = Stream(runtime.live, self.catalogue, now)
        plant = runtime.plant
        self.calendar = calendar_of(plant.plant.timezone, plant.shifts, plant.exceptions)


def _console(request: Request) -> ConsoleState:
    state: ConsoleState = request.app.state.console
    return state


def _me(request: Request) -> Person:
    person: Person = request.app.state.identify(request)
    return person


Console = Annotated[ConsoleState, Depends(_console)]
Me = Annotated[Person, Depends(_me)]
