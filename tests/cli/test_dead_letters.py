"""`shopfloor dead-letters`, of a stopped plant by its file and of a running one by its console."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shopfloor.cli import shopfloor
from shopfloor.console import serve
from shopfloor.journal import SqliteJournal, Tally
from shopfloor.samples import Batch, Misconfigured, Unavailable
from shopfloor.testing.programs import free_port
from tests.console.fakes import FakeRuntime

BEGIN = 1_767_592_800_000_000_000
PLANT = """
plant: {site: bremen}
journal: {path: journal.db}
sources:
  - {name: plc, type: opcua, endpoint: "opc.tcp://127.0.0.1:4840", tags: [{tag: a/x, node: "ns=2;s=x"}]}
"""


def told(*words: str) -> Result:
    return CliRunner().invoke(shopfloor, ["dead-letters", *words], standalone_mode=False)


async def refused(path: Path) -> None:
    """Two letters of the sink `db`, one of `mqtt`."""
    journal = await SqliteJournal.open(path)
    for name, value in (("db", "long"), ("db", "longer"), ("mqtt", "x" * 500)):
        reader = await journal.reader(name)
        batch = Batch("plc", BEGIN, ["a/x"], [BEGIN], [value])
        offset = await journal.append(batch)
        await reader.commit(offset, [Tally(offset, "plc", "rejected", 1, BEGIN, "no")], dead=[(offset, "no", batch)])
    await journal.close()


@pytest.fixture
def plant(tmp_path: Path) -> str:
    (tmp_path / "plant.yaml").write_text(PLANT)
    return str(tmp_path / "plant.yaml")


def ids(plant: str) -> list[int]:
    return [letter["id"] for letter in json.loads(told("list", "--json", "--plant", plant).output)]


def test_of_a_stopped_plant(plant: str, tmp_path: Path) -> None:
    asyncio.run(refused(tmp_path / "journal.db"))
    shown = told("list", "--plant", plant).output
    assert "2026-01-05 06:00" not in shown, "when it was refused, not when it was measured"
    assert [line.split()[0] for line in shown.splitlines() if line.strip()[:1].isdigit()] == ["3", "2", "1"]
    assert 'a/x = "xxxx' in shown
    assert "dead-letters retry" in shown
    assert "1 dead letter will be offered again" in told("retry", "2", "--plant", plant).output
    assert ids(plant) == [3, 1]
    assert "1 dead letter thrown away" in told("drop", "--all", "--reader", "db", "--plant", plant).output
    assert ids(plant) == [3]
    assert told("drop", "--all", "--plant", plant).output == "1 dead letter thrown away.\n"
    assert "There are none" in told("list", "--plant", plant).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retry",), "or --all"),
        (("drop", "1", "--all"), "or --all"),
        (("drop", "1", "77"), "there is no dead letter 77; nothing was done"),
        (("drop", "1", "--reader", "mqtt"), "there is no dead letter 1"),
    ],
)
def test_a_wrong_wish_changes_nothing(plant: str, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    asyncio.run(refused(tmp_path / "journal.db"))
    assert said in str(told(*words, "--plant", plant).exception)
    assert ids(plant) == [3, 2, 1]


def test_a_plant_that_never_ran(plant: str) -> None:
    found = told("list", "--plant", plant).exception
    assert isinstance(found, Misconfigured)
    assert "there is no journal" in str(found)


async def test_of_a_running_plant(tmp_path: Path) -> None:
    runtime, ready, listen = FakeRuntime(tmp_path), asyncio.Event(), f"127.0.0.1:{free_port()}"
    async with runtime.commands:
        serving = asyncio.create_task(serve(runtime, listen, ready))
        async with asyncio.timeout(30):
            await ready.wait()
            shown = await asyncio.to_thread(told, "list", "--url", listen)
            assert "too long" in shown.output
            done = await asyncio.to_thread(told, "retry", "--all", "--url", listen)
            assert done.output.startswith("2 dead letters offered again")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    assert runtime.decided == [("retry", (2, 1))]


def test_where_no_plant_answers_the_other_way_is_said() -> None:
    said = told("list", "--url", f"http://127.0.0.1:{free_port()}").exception
    assert isinstance(said, Unavailable)
    assert "is the plant running" in str(said)
    assert "--plant plant.yaml" in str(said)
