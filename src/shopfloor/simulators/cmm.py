"""A coordinate measuring machine in a workshop that warms and cools: its measurements as CSV files in a folder.

Aluminium 6061 grows by 23.6 µm for each metre and kelvin, so what the machine measures at 24 °C is not what the
drawing says at 20 °C. The machine's own scales are held at 20 °C; the part has the temperature of the room, with a lag.
"""

import asyncio
import csv
import io
import math
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from shopfloor.samples import Misconfigured
from shopfloor.simulators.pace import Pace

CTE: Final = 23.6e-6
"""Thermal expansion of aluminium 6061, 1/K."""
REFERENCE: Final = 20.0
"""°C at which drawings hold (ISO 1)."""
PROBE_NOISE: Final = 0.0008
"""mm, standard deviation of a measurement."""
SENSOR_NOISE: Final = 0.05
"""°C, standard deviation of the temperature that is shown."""

_DAY: Final = 86_400.0
_MEAN: Final = 22.0
_SWING: Final = 2.5
"""°C by which the room is warmer in the afternoon and colder before sunrise."""
_DRIFT: Final = 0.8
"""°C, standard deviation of what doors, sun and machines add."""
_DRIFTING: Final = 1800.0
"""Seconds in which that is forgotten."""
_SOAKING: Final = 1200.0
"""Seconds: time constant with which a part follows the room."""
_PAUSE: Final = 0.05
"""Seconds between two pieces of a file that is written slowly."""


class Feature(NamedTuple):
    """What is measured of each part."""

    name: str
    nominal: float
    """mm at 20 °C."""
    spread: float
    """mm, standard deviation from part to part."""


FEATURES: Final = (
    Feature("length", 250.0, 0.010),
    Feature("width", 120.0, 0.008),
    Feature("height", 40.0, 0.005),
    Feature("bore", 32.0, 0.004),
)


class Measurement(msgspec.Struct, frozen=True):
    """One part, measured."""

    time: int
    """ns UTC."""
    serial: str
    temperature: float
    """°C, as the sensor at the part shows it."""
    measured: tuple[float, ...]
    """mm, in the order of FEATURES."""
    true_temperature: float
    """°C; in no file."""
    true: tuple[float, ...]
    """mm at 20 °C; in no file."""


def measurements(seed: int, begin: int, every: float) -> Iterator[Measurement]:
    """Part after part, one every so many seconds from ``begin`` (ns UTC) on; the same for the same seed, endless."""
    chance = random.Random(seed)  # noqa: S311  # a machine's whims, no secret
    drift = chance.gauss(0, _DRIFT)
    part = None
    number = 0
    while True:
        time = begin + round(number * every * 1000) * 10**6
        daily = _SWING * math.sin(2 * math.pi * (time / 1e9 / _DAY - 9 / 24))  # warmest at 15:00 UTC
        room = _MEAN + daily + drift
        part = room if part is None else room + (part - room) * math.exp(-every / _SOAKING)
        true = tuple(chance.gauss(feature.nominal, feature.spread) for feature in FEATURES)
        growth = 1 + CTE * (part - REFERENCE)
        number += 1
        yield Measurement(
            time, f"{number:06}", round(part + chance.gauss(0, SENSOR_NOISE), 2),
            tuple(round(length * growth + chance.gauss(0, PROBE_NOISE), 4) for length in true), part, true,
        )  # fmt: skip
        kept = math.exp(-every / _DRIFTING)
        drift = drift * kept + chance.gauss(0, _DRIFT * math.sqrt(1 - kept * kept))


def table(machine: str, parts: Sequence[Measurement], *, decimal_comma: bool = False) -> str:
    """The parts as CSV: with commas and decimal points, or with semicolons and decimal commas."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";" if decimal_comma else ",", lineterminator="\r\n")
    writer.writerow(("timestamp", "machine", "serial", "temperature", *(feature.name for feature in FEATURES)))
    for part in parts:
        moment = datetime.fromtimestamp(part.time / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        numbers = [f"{part.temperature:.2f}", *(f"{length:.4f}" for length in part.measured)]
        written = [number.replace(".", ",") for number in numbers] if decimal_comma else numbers
        writer.writerow((moment, machine, part.serial, *written))
    return text.getvalue()


async def serve(  # noqa: PLR0913  # each is an option of `shopfloor simulate cmm`
    folder: Path,
    pace: Pace,
    parts: Iterator[Measurement],
    *,
    machine: str = "cmm-1",
    per_file: int = 1,
    slow: bool = False,
    decimal_comma: bool = False,
    written: Callable[[Path], None] | None = None,
) -> None:
    """Put the files into ``folder`` as their parts are measured, until ``parts`` ends.

    A file is written under another name and renamed. With ``slow`` it is written under its own name, piece by piece,
    in the middle of rows, as careless machines do. ``written`` is called with each. Raises Misconfigured when the
    folder cannot be written to.
    """
    try:
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        together: list[Measurement] = []
        for part in parts:
            await pace.until(part.time)
            together.append(part)
            if len(together) == per_file:
                path = await _write(folder, machine, together, slow=slow, decimal_comma=decimal_comma)
                together = []
                if written is not None:
                    written(path)
        if together:
            await _write(folder, machine, together, slow=slow, decimal_comma=decimal_comma)
    except OSError as error:
        raise Misconfigured(
            f"{folder} cannot be written to: {error.strerror or error}; choose another by --folder"
        ) from error


async def _write(folder: Path, machine: str, parts: Sequence[Measurement], *, slow: bool, decimal_comma: bool) -> Path:
    content = table(machine, parts, decimal_comma=decimal_comma).encode()
    moment = datetime.fromtimestamp(parts[0].time / 1e9, UTC)
    path = folder / f"{machine}_{moment:%Y%m%dT%H%M%S}_{parts[0].serial}.csv"
    if not slow:
        hidden = path.with_name(f".{path.name}")
        await asyncio.to_thread(hidden.write_bytes, content)
        return hidden.rename(path)
    with path.open("wb", buffering=0) as file:
        for begin in range(0, len(content), max(1, len(content) // 7)):
            file.write(content[begin : begin + max(1, len(content) // 7)])
            await asyncio.sleep(_PAUSE)
    return path
