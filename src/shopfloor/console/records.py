"""Figures as the processor `machine` gave them (docs/connectors/machine.md), read back for the API."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec

from shopfloor.historian.base import Series
from shopfloor.pipeline.live import Live
from shopfloor.samples import Value

Record = dict[str, Any]

SUMMARY: Final = (
    "state", "oee", "availability", "performance", "quality", "good", "scrap", "coverage", "unexplained", "until",
    "target",
)  # fmt: skip
"""What a list of machines shows of each."""

_ALWAYS: Final = frozenset({"window", "start", "end", "day", "shift", "seconds"})
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


def live_tag(machine: str) -> str:
    """The tag of a machine's running figures."""
    return f"{machine}/kpi/live"


def running(live: Live, machine: str) -> Record | None:
    """All figures of a machine's running shift; None while there are none."""
    sample = live.get(live_tag(machine))
    return None if sample is None else record(sample.value)


def summary(live: Live, machine: str) -> Record | None:
    """The main figures of a machine's running shift; None while there are none."""
    found = running(live, machine)
    return None if found is None else {name: found.get(name) for name in SUMMARY}


def closed(series: Series) -> list[Record]:
    """The newest record of each window: of several with one beginning the last that was given.

    Of a series that was cut the last window is left out: a correction of it may be behind the cut.
    """
    newest: dict[int, Value] = dict(zip(series.times, series.values, strict=True))
    if series.truncated and newest:
        del newest[series.times[-1]]
    return list(_readable(newest.values()))


def _readable(values: Iterable[Value]) -> Iterable[Record]:
    return (found for found in map(record, values) if found is not None)


def record(value: Value) -> Record | None:
    """A record with its times in ms; None for what is none: another program may give a tag of this name."""
    try:
        found = _decode(value if isinstance(value, str) else "")
        for name in {"start", "end", "until"} & found.keys():
            found[name] = round(datetime.fromisoformat(found[name]).timestamp()) * 1000
    except (msgspec.DecodeError, ValueError, TypeError):
        return None
    return found if found.keys() >= _ALWAYS else None
