"""``shopfloor replay``: what the historian's samples give is what was stored, or the difference is shown."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from shopfloor import plant
from shopfloor.cli import shopfloor
from shopfloor.historian.base import Historian
from shopfloor.samples import Batch, Sample
from tests.processors import test_machine_lines
from tests.processors.test_machine import PLANT, at, batches, day, given

STORED = PLANT + "historian: {type: duckdb, path: history.duckdb, keep: 36500 d}\n"


def written(folder: Path, fed: Sequence[Batch], extra: Sequence[Sample] = (), text: str = STORED) -> Path:
    """A plant file whose historian holds what was fed, what the processor made of it, and ``extra``."""
    file = folder / "plant.yaml"
    file.write_text(text)
    loaded = plant.load(file, {})
    output = given(loaded.processors[0].build(), fed)
    everything = [batch for batch in fed if not batch.source.startswith("$clock")]
    everything += [Batch.of("oee", at("15:00"), output), Batch.of("late", at("15:00"), extra)]
    asyncio.run(_store(loaded, [batch for batch in everything if len(batch)]))
    return file


async def _store(loaded: plant.Plant, fed: Sequence[Batch]) -> None:
    assert loaded.historian is not None
    async with loaded.historian.build() as historian:
        assert isinstance(historian, Historian)
        await historian.write_many(list(enumerate(fed, start=1)))


def replay(file: Path, *more: str) -> tuple[int, str]:
    arguments = ["replay", str(file), "--from", "2026-01-05", "--to", "2026-01-05T14:59", *more]
    result = CliRunner().invoke(shopfloor, arguments)
    wrong = "" if isinstance(result.exception, SystemExit | None) else str(result.exception)
    return result.exit_code, result.output + wrong


def test_nothing_differs_when_all_is_well(tmp_path: Path) -> None:
    code, said = replay(written(tmp_path, batches(list(day()))))
    assert (code, said.splitlines()[-1].split(": ")[1]) == (0, "none differ from what is stored.")


def test_lines_are_replayed_with_their_machines(tmp_path: Path) -> None:
    """Line, area and site are among the windows; a stop that nobody stored makes the line differ, too."""
    text = test_machine_lines.PLANT.replace("POLICY", "policy: first_down, bottleneck: filler")
    text += "historian: {type: duckdb, path: history.duckdb, keep: 36500 d}\n"
    fed = batches(test_machine_lines.shift())
    code, said = replay(written(tmp_path, fed, text=text))
    assert (code, said.splitlines()[-1].split(": ")[1]) == (0, "none differ from what is stored.")
    late = [Sample("capper/state", at("08:00"), 9), Sample("capper/state", at("08:20"), 6)]
    (tmp_path / "late").mkdir()
    code, said = replay(written(tmp_path / "late", fed, late, text))
    assert code == 1
    assert [line.split()[:2] for line in said.splitlines() if "shift" in line.split()] == [
        [name, "shift"] for name in ("bottling", "bremen", "capper", "hall")
    ]


def test_an_outage_and_its_end_are_replayed_as_they_were(tmp_path: Path) -> None:
    fed = batches([(time, sample) for time, sample in day() if not at("10:00") <= time < at("11:00")])
    for clock, connected in (("10:00", False), ("11:00", True)):
        place = next(i for i, batch in enumerate(fed) if batch.times[0] > at(clock))
        presence = Sample("$source/plc/connected", at(clock), connected)
        fed.insert(place, Batch.of("$source", at(clock), [presence]))
    code, said = replay(written(tmp_path, fed))
    assert (code, said.splitlines()[-1].split(": ")[1]) == (0, "none differ from what is stored.")


def test_what_people_said_counts_also_where_they_said_it_later(tmp_path: Path) -> None:
    """The replay ends at 14:59; half a minute behind it somebody says why the machine stood at 07:00."""
    fed = batches(list(day()))
    edit = {"start": at("07:10"), "end": None, "reason": "machine/tool", "by": "anna"}
    said_at = at("14:59:30")
    fed.insert(len(fed) - 1, Batch.of("$edit", said_at, [Sample("$edit/press-1", said_at, json.dumps(edit))]))
    fed.append(Batch.of("$clock", at("15:00"), [Sample("$clock/tick", at("15:00"), at("15:00"))]))
    code, said = replay(written(tmp_path, fed))
    assert (code, said.splitlines()[-1].split(": ")[1]) == (0, "none differ from what is stored.")


def test_a_sample_that_came_too_late_for_the_processor_shows(tmp_path: Path) -> None:
    """The historian has it, the record does not know of it: the hour and the shift are shown with what differs."""
    late = [Sample("press-1/state", at("07:20"), 6)]
    code, said = replay(written(tmp_path, batches(list(day())), late))
    lines = said.splitlines()
    assert code == 1
    assert [line.split()[:3] for line in lines[1:-1]] == [
        ["press-1", "shift", "2026-01-05T06:00:00+00:00"],
        ["press-1", "hour", "2026-01-05T07:00:00+00:00"],
    ]
    assert "availability" in lines[1]
    assert lines[-1].endswith("2 differ from what is stored.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "yesterday"], "'yesterday' is no time; write 2026-11-20 or 2026-11-20T06:00"),
        (["--from", "2026-02-01"], "there is nothing between these times"),
        (["--processor", "x"], "the plant file has no processor 'x' of type `machine`"),
    ],
)
def test_what_cannot_be_replayed_is_said(tmp_path: Path, arguments: list[str], said: str) -> None:
    code, output = replay(written(tmp_path, []), *arguments)
    assert code != 0
    assert said in output
