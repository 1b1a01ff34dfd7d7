"""The filler's day for tests of the API: five hours into its second shift, with all that can happen."""

from functools import cache
from typing import Any, Final

from shopfloor.plant import Plant
from shopfloor.samples import Batch, Sample
from tests.console.fakes import FakeSource
from tests.console.worked import (
    INFOS,
    LINES,
    MACHINE,
    MINUTE,
    REASONS,
    RUNS,
    SECOND,
    SHIFT,
    batches,
    processor,
    said,
    shifts,
)

BEGIN: Final = 1_767_589_200 * SECOND
"""Monday 2026-01-05, 06:00 in Berlin."""
NOW: Final = BEGIN + SHIFT + 302 * MINUTE
"""Some five hours into the second shift."""
MS: Final = 10**6
HELD_BACK: Final = (BEGIN + 440 * MINUTE, BEGIN + SHIFT)
"""What the filler said then came an hour after the end of its shift."""
LOST: Final = (BEGIN + SHIFT + 280 * MINUTE, BEGIN + SHIFT + 285 * MINUTE)


class Filler(FakeSource):
    """Declares the filler's tags."""

    def declared(self) -> list[Any]:
        return INFOS


PLANT: Final = Plant.model_validate(
    {
        "plant": {"site": "bremen", "timezone": "Europe/Berlin"},
        "shifts": shifts(6),
        "reasons": REASONS,
        "machines": [MACHINE, {"id": "dumb-1"}],
        "lines": LINES,
    }
)


@cache
def journalled() -> list[Batch]:
    """The filler's day so far, with late samples and five minutes without its PLC, and what is made of it."""
    _, oee = processor(PLANT)
    samples = [
        (BEGIN + SHIFT + 60 * MINUTE if HELD_BACK[0] <= sample.time < HELD_BACK[1] else sample.time, sample)
        for sample in said(BEGIN, NOW)
        if not LOST[0] <= sample.time < LOST[1]
    ]
    samples.append((LOST[1], Sample("filler-1/state", LOST[1], RUNS)))  # what a source says anew when it is back
    fed = [*batches(samples, BEGIN, NOW)]
    for number, time in enumerate(LOST):
        there = Batch.of("$source", time, [Sample("$source/plc/connected", time, number == 1)])
        fed.insert(next(place for place, batch in enumerate(fed) if batch.received > time), there)
    return [each for batch in fed for each in (batch, Batch.of("oee", batch.received, oee.process(batch)))]
