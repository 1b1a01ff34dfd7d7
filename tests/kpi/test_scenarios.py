"""`shopfloor test`: scenarios as plant engineers write them, ours among them; mistakes are said with their line."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shopfloor.cli import shopfloor
from shopfloor.samples import Misconfigured
from shopfloor.scenarios import notation, playing
from shopfloor.scenarios.notation import BAD, ScenarioError

OURS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
HEAD = """plant:
  machines: [{id: press-1, state: press-1/state, good: press-1/good, ideal_cycle: 10 s}]
scenario A quiet hour
start 2026-01-05 06:00
load 1m
  press-1/state 6x60
  press-1/good 0 +5x59
eval at 07:00
  press-1 hour 06:00: """


def run(text: str) -> playing.Played:
    return playing.play(notation.parse(text, "a.txt", Path("/nowhere")))


def command(*arguments: object) -> Result:
    return CliRunner().invoke(shopfloor, ["test", *map(str, arguments)])


@pytest.mark.parametrize("file", OURS, ids=[file.stem for file in OURS])
def test_ours(file: Path) -> None:
    played = playing.play(notation.read(file))
    assert played.figures
    assert not played.failures, "\n".join(map(str, played.failures))


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """What docs/scenarios.md shows comes true with the plant file of docs/connectors/machine.md's kind."""
    page = Path(__file__).parents[2] / "docs" / "scenarios.md"
    text = next(part for part in page.read_text("utf-8").split("```") if part.strip().startswith("plant: plant.yaml"))
    (tmp_path / "plant.yaml").write_text(
        """
plant: {site: bremen, timezone: Europe/Berlin}
shifts: [{name: early, days: mon-fri, from: "06:00", to: "14:00"}]
machines:
  - {id: press-1, ideal_cycle: 10 s, state: press-1/state, good: press-1/good, scrap: press-1/scrap,
     fault: press-1/fault, reasons: {17: machine/hydraulics}}
sources: [{name: plc, type: mqtt, servers: ["mqtt://127.0.0.1"], topics: [{topic: "#"}]}]
""",
        "utf-8",
    )
    (tmp_path / "press.txt").write_text(text, "utf-8")
    done = command(tmp_path / "press.txt")
    assert (done.exit_code, done.output) == (0, "1 scenario, 5 figures: all as expected\n")


def test_the_example_with_orders_of_the_documentation() -> None:
    page = Path(__file__).parents[2] / "docs" / "scenarios.md"
    (text,) = (part for part in page.read_text("utf-8").split("```") if "scenario The second order is slower" in part)
    played = run(text)
    assert played.figures > 5
    assert not played.failures, "\n".join(map(str, played.failures))


def test_a_failure_is_said_with_line_and_record(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(HEAD + "good 295, oee 80 %, production 1 h, quality 99.9 % ± 0.1", "utf-8")
    done = command(file)
    assert done.exit_code == 1
    assert f"{file}:9: press-1 hour 06:00: expected oee 80 %, got 81.9444 %" in done.output
    assert "    in: A quiet hour" in done.output
    assert "seconds: production 3600.0" in done.output
    assert done.output.endswith("1 scenario, 4 figures: 1 is not as expected\n")


@pytest.mark.parametrize(
    ("expected", "holds"),
    [
        ("oee 81.9 %", True),
        ("oee 82 %", True),
        ("oee 81.95 %", False),
        ("oee 0.819", True),
        ("oee 82.5 % ± 0.6", True),
        ("oee 82.5 % +- 0.5", False),
        ("production 60 min", True),
        ("production 3599 s", False),
        ("production 1 h", True),
        ("mtbf none", True),
        ("mtbf —", True),
        ("oee none", False),
        ("oee down", False),
        ("good 295", True),
        ("revision 0", True),
        ("why none", True),
        ("loss machine/hydraulics 0 min", True),
        ("loss none 1 min", False),
    ],
)
def test_what_agrees(expected: str, *, holds: bool) -> None:
    assert (not run(HEAD + expected).failures) is holds


def test_a_window_that_is_not_closed_is_a_failure() -> None:
    text = HEAD.replace("eval at 07:00", "eval at 06:30") + "good 295"
    [failure] = run(text).failures
    assert "expected a record, got none" in str(failure)


def test_values() -> None:
    words = "6 6x2 +1x2 _x2 bad 1.5 running*2 -1 true"
    [series] = (
        notation.parse(
            HEAD.replace("press-1/state 6x60", "press-1/state " + words) + "good 1", "a.txt", Path("/nowhere")
        )
        .scenarios[0]
        .loads[0]
        .series[:1]
    )
    assert series.values == [
        (0, 6), (1, 6), (2, 6), (3, 7), (4, 8), (7, BAD), (8, 1.5), (9, "running"), (10, "running"), (11, -1),
        (12, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (("scenario A quiet hour", "szenario A quiet hour"), 3, "known: plant, scenario, start, load, lost, eval"),
        (("scenario A quiet hour", "scenario"), 3, "has no title"),
        (("start 2026-01-05 06:00", "start 06:00"), 4, "needs a date"),
        (("start 2026-01-05 06:00", "start 2026-02-30 06:00"), 4, "a day that does not exist"),
        (("start 2026-01-05 06:00", "start 2026-01-05 25:00"), 4, "a time of day"),
        (("start 2026-01-05 06:00", "# no start"), 3, "has no beginning"),
        (("load 1m", "load"), 5, "needs the time from one value to the next"),
        (("load 1m", "load 0 s"), 5, "longer than 0"),
        (("load 1m", "load 1"), 5, "needs a number and a unit"),
        (("load 1m", "load 1m late 1h arrives 09:00"), 5, "one of them"),
        (("6x60", ""), 6, "gives 'press-1/state' no values"),
        (("6x60", "6x9999999"), 6, "more than 1,000,000 values"),
        (("6x60", "+1x60"), 6, "from nothing"),
        (("  press-1/state 6x60", "  press-2/state 6x60"), 6, "no machine reads the tag 'press-2/state'"),
        (("eval at 07:00", "eval 07:00"), 8, "needs `at`"),
        (("eval at 07:00", "eval at 05:00"), 9, "before the scenario has started"),
        (("press-1 hour 06:00", "press-7 hour 06:00"), 9, "there is no machine or line 'press-7'"),
        (("press-1 hour 06:00", "press-1 week"), 9, "is no expectation"),
        (("press-1 hour 06:00", "press-1 shift"), 9, "does not say which shift"),
        (("good 295", "goods 295"), 9, "there is no figure 'goods'"),
        (("good 295", "production 295"), 9, "is a time; write it with its unit"),
        (("good 295", "good 295 %"), 9, "without a unit"),
        (("good 295", "oee 80 min"), 9, "in per cent"),
        (("good 295", "oee 80 % ± 1 min"), 9, "in another unit"),
        (("good 295", "295"), 9, "expects '295'"),
        (("press-1 hour 06:00", "press-1 product"), 9, "does not say which product"),
        (("press-1 hour 06:00", "press-1 cycle 6"), 9, "a time of day"),
        (("ideal_cycle: 10 s", "ideal_cycle: 10"), 2, "ideal_cycle"),
        (("plant:\n", "plant: nowhere.yaml\n"), 1, "cannot be read"),
        (("plant:\n", "# nothing\n"), 1, "names no plant"),
    ],
)
def test_bad_input_is_said_with_its_line(change: tuple[str, str], line: int, says: str) -> None:
    text = HEAD + "good 295"
    assert change[0] in text
    with pytest.raises(ScenarioError) as caught:
        run(text.replace(*change))
    assert any(problem.line == line and says in problem.text + problem.path for problem in caught.value.problems)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x00" * 100, b"plant:", b"\n \n  x y\n"])
def test_what_is_no_scenario_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(Misconfigured, match=r"a\.txt:\d+: "):
        notation.read(file)


def test_several_files_and_every_problem_of_each(tmp_path: Path) -> None:
    """All files are read before any is played, and all that is wrong is said at once."""
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text(HEAD.replace("load 1m", "load 1") + "good x", "utf-8")
    other.write_text("scenario x\nstart now\n", "utf-8")
    done = command(one, other)
    assert isinstance(done.exception, Misconfigured)
    assert f"{one}:5: " in str(done.exception)
    assert f"{other}:2: " in str(done.exception)
    assert f"{other}:1: " in str(done.exception)
