"""The measuring machine: its physics by statistics, its files by the source that reads them."""

import asyncio
import csv
import io
import math
import re
import statistics
from itertools import islice
from pathlib import Path

import pytest

from shopfloor import plant
from shopfloor.pipeline import Pipeline
from shopfloor.samples import Misconfigured
from shopfloor.simulators.cmm import (
    CTE,
    FEATURES,
    PROBE_NOISE,
    REFERENCE,
    SENSOR_NOISE,
    Measurement,
    measurements,
    serve,
    table,
)
from shopfloor.simulators.pace import Pace
from shopfloor.testing.contracts import until

BEGIN = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z"""
ROOT = Path(__file__).parents[2]


def some(number: int, seed: int = 1, every: float = 60.0) -> list[Measurement]:
    return list(islice(measurements(seed, BEGIN, every), number))


def plant_of_the_docs() -> str:
    page = (ROOT / "docs" / "simulators.md").read_text("utf-8")
    found: str = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "type: files" in block)
    return found


def test_the_same_seed_measures_the_same() -> None:
    assert some(100) == some(100)
    assert some(100) != some(100, seed=2)


def test_what_is_measured_grows_with_the_temperature_as_aluminium_does() -> None:
    """The slope over the true temperature, by least squares, is the expansion of aluminium 6061."""
    parts = some(5000)
    kelvins = [part.true_temperature - REFERENCE for part in parts]
    for i, feature in enumerate(FEATURES):
        growths = [part.measured[i] / part.true[i] - 1 for part in parts]
        slope = statistics.linear_regression(kelvins, growths).slope
        error = PROBE_NOISE / feature.nominal / (statistics.pstdev(kelvins) * math.sqrt(len(parts)))
        assert abs(slope - CTE) < 5 * error


def test_compensated_lengths_are_the_true_ones_but_for_noise() -> None:
    parts = some(5000)
    for i in range(len(FEATURES)):
        left = [part.measured[i] / (1 + CTE * (part.true_temperature - REFERENCE)) - part.true[i] for part in parts]
        assert statistics.pstdev(left) == pytest.approx(PROBE_NOISE, rel=0.1)
        assert abs(statistics.mean(left)) < 5 * PROBE_NOISE / math.sqrt(len(parts))


def test_the_workshop_warms_by_day_and_drifts() -> None:
    parts = some(14 * 1440)
    by_hour = [
        statistics.mean(part.true_temperature for part in parts if part.time // (3600 * 10**9) % 24 == hour)
        for hour in (4, 16)
    ]
    assert by_hour[1] - by_hour[0] > 3
    assert 15 < min(part.temperature for part in parts) < max(part.temperature for part in parts) < 30


def test_times_and_serials_count_on() -> None:
    parts = some(1000, every=0.5)
    assert [part.time for part in parts] == [BEGIN + i * 500_000_000 for i in range(1000)]
    assert [part.serial for part in parts] == [f"{i:06}" for i in range(1, 1001)]


@pytest.mark.parametrize("comma", [False, True])
def test_the_table_says_what_was_measured(comma: bool) -> None:  # noqa: FBT001  # a parameter
    parts = some(3)
    rows = list(
        csv.DictReader(io.StringIO(table("cmm-7", parts, decimal_comma=comma)), delimiter=";" if comma else ",")
    )
    for part, row in zip(parts, rows, strict=True):
        assert (row["machine"], row["serial"]) == ("cmm-7", part.serial)
        numbers = [float(row[name].replace(",", ".")) for name in ("temperature", *(f.name for f in FEATURES))]
        assert numbers == [part.temperature, *part.measured]


@pytest.mark.parametrize(("slow", "comma"), [(False, False), (True, True)])
async def test_every_part_comes_into_the_historian_by_the_plant_file_of_the_docs(
    slow: bool, comma: bool, tmp_path: Path  # noqa: FBT001  # parameters
) -> None:  # fmt: skip
    """Also of files that are written in pieces, in the middle of rows."""
    text = plant_of_the_docs()
    options = "    settle: 500 ms\n    poll: 50 ms\n" + ('    decimal: ","\n' if comma else "")
    described = plant.parse(text.replace("    folder:", options + "    folder:"), "docs.yaml", tmp_path, {})
    (tmp_path / "measurements").mkdir()
    parts = some(35)
    async with Pipeline(described) as pipeline:
        await serve(
            tmp_path / "measurements", Pace(BEGIN, 1e9), iter(parts), per_file=10, slow=slow, decimal_comma=comma
        )

        async def stored(name: str) -> list[object]:
            if pipeline.historian is None:
                return []
            series = await pipeline.historian.history(f"cmm-1/{name}", 0, 2**62)
            return list(zip(series.times, series.values, strict=True))

        async def all_there() -> bool:
            return [len(await stored(name)) for name in ("serial", "bore")] == [35, 35]

        await until(all_there, "all parts are in the historian", 20)
        assert await stored("serial") == [(part.time, part.serial) for part in parts]
        assert await stored("length") == [(part.time, part.measured[0]) for part in parts]
        assert await stored("temperature") == [(part.time, part.temperature) for part in parts]


async def test_compensated_lengths_stay_while_the_measured_ones_drift_with_the_day(tmp_path: Path) -> None:
    """Files, source, journal, processor, historian: four days of parts; what is right is what the simulator made.

    What is measured is off by up to 25 µm and grows with the temperature as aluminium does. What is left after
    compensation is the noise of the probe and of the temperature sensor, and no longer depends on the temperature.
    """
    text = plant_of_the_docs().replace("    folder:", "    settle: 0 s\n    poll: 50 ms\n    folder:")
    parts = some(400, every=900)
    (tmp_path / "measurements").mkdir()
    async with Pipeline(plant.parse(text, "docs.yaml", tmp_path, {})) as pipeline:
        await serve(tmp_path / "measurements", Pace(BEGIN, 1e9), iter(parts), per_file=40)

        async def stored(name: str) -> list[float]:
            if pipeline.historian is None:
                return []
            series = await pipeline.historian.history(f"cmm-1/{name}", 0, 2**62)
            assert list(series.times) == [part.time for part in parts][: len(series.times)]
            return [float(value) for value in series.values]  # type: ignore[arg-type]  # numbers and truth values

        async def all_there() -> bool:
            return [len(await stored(name)) for name in ("bore/compensated", "bore/ok")] == [400, 400]

        await until(all_there, "all parts are compensated", 60)
        measured, compensated = await stored("length"), await stored("length/compensated")
        uncertainties, ok = await stored("length/uncertainty"), await stored("length/ok")
    length = FEATURES[0].nominal
    warmth = [part.true_temperature - REFERENCE for part in parts]
    off = [value - part.true[0] for value, part in zip(measured, parts, strict=True)]
    left = [value - part.true[0] for value, part in zip(compensated, parts, strict=True)]
    noise = math.hypot(PROBE_NOISE, CTE * length * SENSOR_NOISE)
    error = noise / (statistics.pstdev(warmth) * math.sqrt(len(parts)))
    assert max(off) > 0.02
    assert abs(statistics.linear_regression(warmth, off).slope - CTE * length) < 5 * error
    assert abs(statistics.linear_regression(warmth, left).slope) < 5 * error
    assert statistics.pstdev(left) == pytest.approx(noise, rel=5 / math.sqrt(2 * len(parts)))
    assert statistics.mean(compensated) == pytest.approx(length, abs=5 * FEATURES[0].spread / math.sqrt(len(parts)))
    assert uncertainties == pytest.approx([CTE * length * SENSOR_NOISE] * len(parts), rel=0.01)
    assert [bool(found) for found in ok] == [abs(value - length) <= 0.03 for value in compensated]


async def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="choose another by --folder"):
        await serve(tmp_path / "file" / "folder", Pace(BEGIN, 1e9), iter(some(1)))


async def test_the_pace_runs_through_the_past_and_then_with_the_clock() -> None:
    clock = [1000 * 10**9]
    pace = Pace(900 * 10**9, 11.0, lambda: clock[0])
    told = []
    for _ in range(5):
        told.append(pace.now() // 10**9)
        clock[0] += 4 * 10**9
    assert told == [900, 944, 988, 1012, 1016]
    await asyncio.wait_for(pace.until(1020 * 10**9), 30)
    for begin, speed in ((2000 * 10**9, 1.0), (0, 0.0)):
        with pytest.raises(ValueError, match=r"future|above 0"):
            Pace(begin, speed, lambda: clock[0])
