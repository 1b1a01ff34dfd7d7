"""What machines and people do to files: each row is read once, or put aside with the line and what to change."""

import csv
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from shopfloor.pipeline.probe import Probed, probe
from shopfloor.plant import parse
from shopfloor.samples import Unavailable
from tests.sources.test_files import config, drop, read, table

HEADER = "time,length,serial\n"
GOOD = "2026-01-31T12:00:00Z,100.5,A\n"
COLUMNS = [{"column": "length", "data_type": "float"}, {"column": "serial", "data_type": "text"}]


def rejected(folder: Path) -> Iterator[list[str]]:
    """The rows that were put aside: line, reason, text."""
    for path in sorted((folder / "failed").glob("*.rejected.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            yield from list(csv.reader(file))[1:]


async def probed(folder: Path, options: str = "required: true") -> Probed:
    """What a probe says of this folder."""
    plant = f"""
        plant: {{site: test}}
        sources:
          - {{name: cmm, type: files, folder: {folder}, time: time, {options}}}
        console: null
    """
    (said,) = [one async for one in probe(parse(plant, "plant.yaml", folder))]
    return said


ROWS = {
    "a decimal comma": ("2026-01-31T12:00:01Z,100,5,B\n", "a ',' inside a value, as in a decimal comma, needs quotes"),
    "a quoted decimal comma": ('2026-01-31T12:00:01Z,"100,5",B\n', 'set `decimal: ","`'),
    "half a row": ("2026-01-31T12:00:01Z,100\n", "has 2 columns, the header has 3; it was cut off"),
    "no number": ("2026-01-31T12:00:01Z,n/a,B\n", "'n/a': it is no float; change `data_type`"),
    "zero bytes": ("2026-01-31T12:00:01Z,7,B\0\0\n", "has zero bytes: it was damaged"),
    "a German time": ("31.01.2026 12:00,7,B\n", "set `time_format`"),
    "no time": (",7,B\n", "it has no time in 'time'"),
    "an open quote": ('2026-01-31T12:00:01Z,7,"B\n', "its quotes are not closed"),
    "a line without end": ("x" * (2**20 + 1) + "\n", "let the machine end its lines"),
}


@pytest.mark.parametrize("kind", ROWS)
async def test_a_bad_row_is_put_aside_with_its_line_and_what_to_change(kind: str, tmp_path: Path) -> None:
    row, reason = ROWS[kind]
    drop(tmp_path, "a.csv", HEADER + GOOD + row + GOOD.replace("100.5", "7"))
    source = config(tmp_path, columns=COLUMNS).build()
    async with source:
        found = await read(source, 4)
    assert [s.value for s in found if s.tag == "length"] == [100.5, 7.0]
    ((line, said, text),) = rejected(tmp_path)
    assert line == "3"
    assert reason in said
    assert row.startswith(text[:1000])


async def test_a_table_with_nothing_but_its_header_is_done(tmp_path: Path) -> None:
    drop(tmp_path, "a.csv", HEADER)
    drop(tmp_path, "b.csv", HEADER + GOOD)
    source = config(tmp_path, columns=COLUMNS).build()
    async with source:
        assert len(await read(source, 2)) == 2
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == ["a.csv", "b.csv"]
    assert not (tmp_path / "failed").exists()


async def test_a_file_that_is_renamed_while_it_is_read_is_gone_on_with(tmp_path: Path) -> None:
    """Also after a restart; a second file that begins alike is another one."""
    path = drop(tmp_path, "a.csv", table(0, 3500))
    source = config(tmp_path).build()
    async with source, aclosing(source.batches()) as batches:
        found = [*(await anext(batches)).values]
        path = path.rename(tmp_path / "b.csv")
        batch = await anext(batches)
        found += batch.values
        checkpoint = batch.checkpoint or b""
    path.rename(tmp_path / "c.csv")
    drop(tmp_path, "d.csv", table(0, 10))
    source = config(tmp_path).build()
    source.resume(checkpoint)
    async with source:
        found += [s.value for s in await read(source, 1510)]
    assert sorted(found) == sorted([*range(3500), *range(10)])  # type: ignore[type-var]  # they are numbers


async def test_two_on_one_folder_do_not_read_the_same_files(tmp_path: Path) -> None:
    """The second says so and waits; it reads once the first has ended. Other files of the folder are its own."""
    drop(tmp_path, "a.csv", table(0, 2))
    first, second = config(tmp_path).build(), config(tmp_path).build()
    other = config(tmp_path, format="jsonl", time=[]).build()
    async with first, aclosing(first.batches()) as batches:
        assert [*(await anext(batches)).values] == [0, 1]
        with pytest.raises(Unavailable, match="another source or another Shopfloor reads these files"):
            await second.__aenter__()
        drop(tmp_path, "a.jsonl", '{"x": 5}\n')
        async with other:
            assert [s.value for s in await read(other, 1)] == [5]
        assert (await probed(tmp_path)).result == "ok"  # a probe disturbs nobody, and is not disturbed
    async with second:
        assert [s.value for s in await read(second, 2)] == [0, 1]  # the first did not finish it
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


async def test_a_lock_that_a_killed_one_left_behind_does_not_count(tmp_path: Path) -> None:
    source = config(tmp_path).build()
    async with source, aclosing(source.batches()) as batches:
        drop(tmp_path, "a.csv", table(0, 1))
        await anext(batches)
        (lock,) = (path for path in tmp_path.iterdir() if path.name.endswith(".lock"))
    lock.touch()
    async with source:
        assert [s.value for s in await read(source, 1)] == [0]
    assert not lock.exists()


async def test_a_probe_says_what_would_be_put_aside_and_moves_nothing(tmp_path: Path) -> None:
    drop(tmp_path, "good.csv", HEADER + GOOD)
    drop(tmp_path, "rows.csv", HEADER + GOOD + "31.01.2026,7,B\n31.01.2026,8,B\n" + GOOD)
    drop(tmp_path, "names.csv", "time;len\n")
    said = await probed(tmp_path, "columns: [{column: length}]")
    assert said.result == "incomplete"
    lines = sorted(said.detail.splitlines())
    assert lines[0].startswith("names.csv has no column 'length'; its columns are: time, len")
    assert lines[1].startswith("rows.csv line 3: its time '31.01.2026' is not as expected")
    assert lines[1].endswith("(and 1 more of the first 4 rows)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.csv", "names.csv", "rows.csv"]
