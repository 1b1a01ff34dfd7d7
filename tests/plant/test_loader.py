"""Any file at all gives a plant or a PlantError that says what to do; nothing else, and nothing hangs."""

import contextlib
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings, strategies as st

from shopfloor.plant import Plant, PlantError, load, parse
from tests.plant.components import PlcConfig, StoreConfig

FOLDER = Path(__file__).parent
WHOLE = (FOLDER / "cases" / "whole" / "plant.yaml").read_text("utf-8")
ENVIRONMENT = {"PLC_PASSWORD": "hunter2", "RACK": "2"}
# The types of tests/plant/components.py stay installed between Hypothesis's examples.
INSTALLED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def plant_or_problems(text: str) -> Plant | list[str]:
    """What comes of the text; fails on any error but PlantError, and on a problem without line or words."""
    try:
        return parse(text, "plant.yaml", FOLDER, ENVIRONMENT)
    except PlantError as error:
        problems, said = error.problems, str(error)
    assert problems
    assert all(1 <= problem.line <= len(text.splitlines()) + 1 and problem.text for problem in problems)
    assert said.encode(), "it can be printed"
    assert all(str(problem).isprintable() for problem in problems), "on one line, nothing that moves the cursor"
    return [str(problem) for problem in problems]


def file_with(folder: Path, text: str) -> Path:
    file = folder / "plant.yaml"
    file.write_text(text, "utf-8")
    return file


@INSTALLED
@example("a: [\n")
@example("\u2028a: [")
@example("x: \ud800")
@example("? [a]\n: b")
@example("&a [*a]")
@example("- &a b\n- *a")
@example("*a")
@example("*a : b")
@example("!!int x")
@example('"\\e[2J\\n": 1')
@example('plant: {"\\e[2J": "\\e", "a\\nb": 1}')
@example('machines: [{id: "\\e[2J\\n"}]\nshifts: [{days: "\\n"}]')
@example("--- |\n a\n...\n--- b")
@given(st.text(st.characters(codec=None), max_size=200))
def test_any_text_gives_a_plant_or_a_plant_error(text: str) -> None:
    plant_or_problems(text)


@INSTALLED
@given(st.text(st.sampled_from("{}[]:,-&*!|>'\"%@`#?~=<$ \n\t.01e+xabtruenl${A}"), max_size=120))
def test_any_text_of_yamls_own_characters_gives_a_plant_or_a_plant_error(text: str) -> None:
    plant_or_problems(text)
    plant_or_problems(f"plant: {{site: bremen}}\nmachines: {text}")


@INSTALLED
@given(st.data())
def test_a_plant_file_with_pieces_cut_out_or_put_in_gives_a_plant_or_a_plant_error(data: st.DataObject) -> None:
    text = WHOLE
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 20)))
        text = text[:begin] + data.draw(st.text(string.printable, max_size=10)) + text[end:]
    plant_or_problems(text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["plc", "5 s", "a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "type", "tags", "tag", "node", "id", "from", "to", "days", "allow", "security"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@INSTALLED
@given(st.dictionaries(st.sampled_from(list(Plant.model_fields)), VALUES))
def test_any_values_in_any_section_give_a_plant_or_a_plant_error(sections: dict[str, object]) -> None:
    plant_or_problems(yaml.safe_dump({"plant": {"site": "bremen"}} | sections))


@INSTALLED
@given(st.binary(max_size=100))
def test_any_bytes_in_a_file_give_a_plant_or_a_plant_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "plant.yaml"
    file.write_bytes(raw)
    with contextlib.suppress(PlantError):
        load(file, {})


@pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "? ", "[{a: ["])
def test_a_hundred_thousand_levels_are_refused_without_running_out_of_stack(opened: str) -> None:
    problems = plant_or_problems(opened * 100_000)
    assert isinstance(problems, list)
    assert "levels deep" in problems[-1]


def test_a_plant_of_a_hundred_thousand_tags_is_read(tmp_path: Path) -> None:
    """10 MB is a large plant, not a fault."""
    tags = "".join(
        f'      - {{tag: press-{i // 10}/PV{i % 10}, node: "ns=2;s=Channel1.Device{i}.PressureValue", unit: bar}}\n'
        for i in range(100_000)
    )
    text = f"plant: {{site: x}}\nsources:\n  - name: k\n    type: plc\n    endpoint: plc://h\n    tags:\n{tags}"
    text += "# " + "x" * (10_000_000 - len(text)) + "\n"
    plant = load(file_with(tmp_path, text))
    declared = plant.sources[0].declared()
    assert declared is not None
    assert len(declared) == 100_000


def test_a_hundred_thousand_faults_name_the_first_ones_and_count_the_rest(tmp_path: Path) -> None:
    machines = "".join(f"  - {{id: press-{i}, lin: stamping, good: press-{i}/good}}\n" for i in range(100_000))
    with pytest.raises(PlantError) as caught:
        load(file_with(tmp_path, f"plant: {{site: x}}\nmachines:\n{machines}"))
    lines = str(caught.value).splitlines()
    assert "plant.yaml:3: machines[0].lin: is not known here; did you mean 'line'?; known: id, title, line" in lines[0]
    assert lines[-1] == "… and 99950 more"


def test_a_hundred_thousand_unknown_tags_are_found(tmp_path: Path) -> None:
    show = ", ".join(f"press-{i}/x" for i in range(100_000))
    text = f"""plant: {{site: x}}
machines: [{{id: press, show: [{show}]}}]
sources: [{{name: k, type: plc, endpoint: "plc://h", tags: [{{tag: press-1/PV, node: a}}]}}]
"""
    with pytest.raises(PlantError) as caught:
        load(file_with(tmp_path, text))
    assert len(caught.value.problems) == 100_000


def test_a_chain_of_a_thousand_processors_is_no_circle(tmp_path: Path) -> None:
    chain = "".join(f"  - {{name: p{i}, type: rename, from: t{i}, to: t{i + 1}}}\n" for i in range(1000))
    text = f"""plant: {{site: x}}
sources: [{{name: k, type: plc, endpoint: "plc://h", tags: [{{tag: t0, node: a}}]}}]
processors:
{chain}"""
    assert len(load(file_with(tmp_path, text)).processors) == 1000


def test_a_file_that_is_no_plant_file_is_refused_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "disk.img"
    with file.open("wb") as sparse:
        sparse.truncate(10 * 2**30)
    with pytest.raises(PlantError, match="more than 64 MiB; a plant file is smaller"):
        load(file)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="only where there is /dev/zero")
def test_a_device_that_never_ends_is_refused() -> None:
    with pytest.raises(PlantError, match="more than 64 MiB"):
        load(Path("/dev/zero"))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlantError, match="cannot be read: Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["missing.yaml", "a\0b", "x" * 300])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(PlantError, match=":1: cannot be read: "):
        load(tmp_path / name)


def test_a_problem_carries_file_line_path_and_text(tmp_path: Path) -> None:
    file = file_with(tmp_path, "plant:\n  site: bremen\n  zone: UTC\n")
    with pytest.raises(PlantError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == (str(file), 3, "plant.zone")
    assert str(caught.value) == f"{file}:3: plant.zone: is not known here; known: site, timezone"


def test_the_whole_file_arrives_in_the_models(tmp_path: Path) -> None:
    plant = load(file_with(tmp_path, WHOLE), ENVIRONMENT)
    (plc,) = plant.sources
    assert isinstance(plc, PlcConfig)
    assert plc.rack == 2
    assert plc.password is not None
    assert plc.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(plant)
    assert plant.machines[0].ideal_cycle == 1_200_000_000
    assert plant.shifts[0].start == "06:00"
    assert plant.console is not None
    assert plant.console.listen == "[::1]:8080"
    assert isinstance(plant.historian, StoreConfig)
    assert plant.historian.keep == 30 * 86_400 * 10**9


def test_paths_are_relative_to_the_plant_file(tmp_path: Path) -> None:
    plant = load(file_with(tmp_path, WHOLE), ENVIRONMENT)
    assert plant.journal.path == tmp_path / "data" / "journal.db"
    assert isinstance(plant.historian, StoreConfig)
    assert plant.historian.path == tmp_path / "data" / "store.db"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("x", "x"),
        ('"5"', "5"),
        ("06:30", "06:30"),
        ("on", "on"),
        ("1.2.3", "1.2.3"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
    ],
)
def test_scalars_are_read_by_yaml_1_2(written: str, value: str) -> None:
    """YAML 1.1's sexagesimal numbers, on/off booleans and the like stay text."""
    plant = parse(f"plant: {{site: x}}\nmachines: [{{id: a, title: {written}}}]", "plant.yaml", FOLDER, {})
    assert plant.machines[0].title == value


@pytest.mark.parametrize("written", ["5", "0x10", "0o17", "1.5", "1e3", "true", "null", "~", ""])
def test_a_number_where_text_belongs_is_refused_with_the_remedy(written: str) -> None:
    with pytest.raises(PlantError, match=r"machines\[0\].title: needs text; put it in quotes"):
        parse(f"plant: {{site: x}}\nmachines: [{{id: a, title: {written}}}]", "plant.yaml", FOLDER, {})


def test_an_environment_variable_stands_for_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds is not read as YAML and not searched for further variables."""
    monkeypatch.setenv("TITLE", "a: [${TITLE}, *b]")
    plant = parse("plant: {site: x}\nmachines: [{id: a, title: 'Line ${TITLE}'}]", "plant.yaml", FOLDER)
    assert plant.machines[0].title == "Line a: [${TITLE}, *b]"


def test_an_error_does_not_show_what_a_variable_holds() -> None:
    text = "plant: {site: '${PLC_PASSWORD} x', timezone: '${PLC_PASSWORD}'}\nconsole: {listen: '${PLC_PASSWORD}'}"
    problems = plant_or_problems(text)
    assert isinstance(problems, list)
    assert len(problems) == 3
    assert "hunter2" not in str(problems)


def test_a_components_fault_does_not_make_its_tags_unknown() -> None:
    problems = plant_or_problems("""
plant: {site: x}
machines: [{id: a, good: a/good}]
sources: [{name: k, type: plc, endpont: "plc://h", tags: [{tag: a/good, node: x}]}]
""")
    assert isinstance(problems, list)
    assert all("no source gives" not in problem for problem in problems)


def test_empty_sections_count_as_absent() -> None:
    plant = parse("plant: {site: x}\nmachines:\nsources:\nhistorian:\njournal:\n", "plant.yaml", FOLDER, {})
    assert (plant.machines, plant.historian) == ([], None)
    assert plant.console is not None


def test_a_plant_can_run_without_a_console() -> None:
    assert parse("plant: {site: x}\nconsole: null\n", "plant.yaml", FOLDER, {}).console is None
