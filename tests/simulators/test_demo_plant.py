"""The demo's plant file is one that a newcomer can copy: it holds, and it fits the simulated machines."""

from importlib.resources import files
from pathlib import Path

import pytest

from shopfloor.plant import Plant, PlantError, parse
from shopfloor.samples import TagInfo
from shopfloor.simulators import press, s7_filler, s7_press
from shopfloor.simulators.logix_plant import plant_program
from shopfloor.simulators.s7_signals import Tag

TEXT = (files("shopfloor.simulators") / "demo.yaml").read_text("utf-8")
ENVIRONMENT = {
    "OPCUA_PORT": "4840", "S7_PORT": "1102", "LOGIX_PORT": "44818", "MQTT_PORT": "1883", "MQTT_VERSION": "auto",
    "SCADA_PORT": "4841", "CONSOLE": "127.0.0.1:8080",
}  # fmt: skip


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return parse(TEXT, "demo.yaml", tmp_path, ENVIRONMENT)


def declared(plant: Plant, source: str) -> dict[str, TagInfo]:
    found = next(one for one in plant.sources if one.name == source).declared()
    return {info.tag: info for info in found or ()}


def test_it_reads_every_tag_of_the_press_by_opcua(plant: Plant) -> None:
    tags = declared(plant, "opcua")
    assert {tag.removeprefix("press-1/") for tag in tags} == set(press.TAGS)
    for name, tag in press.TAGS.items():
        assert tags[f"press-1/{name}"].address == f"ns=2;s=Channel1.Device1.{name}"
        assert tags[f"press-1/{name}"].unit == tag.unit


@pytest.mark.parametrize(
    ("machine", "simulated"), [("press-2", s7_press.TAGS), ("filler-1", s7_filler.TAGS)], ids=["press", "filler"]
)
def test_its_s7_addresses_are_those_of_the_simulator(plant: Plant, machine: str, simulated: dict[str, Tag]) -> None:
    by_place = {tag.address: (name, tag) for name, tag in simulated.items()}
    renamed = {"Temperature": "Oil"} if machine == "press-2" else {}
    tags = [info for tag, info in declared(plant, "s7").items() if tag.startswith(f"{machine}/")]
    assert len(tags) > 15
    for info in tags:
        name, tag = by_place[info.address]
        asked = info.tag.partition("/")[2]
        assert name == renamed.get(asked, asked)
        assert info.unit == tag.unit


def test_its_logix_tags_are_those_of_the_controller(plant: Plant) -> None:
    program = plant_program()
    tags = declared(plant, "logix")
    assert len(tags) > 35
    for info in tags.values():
        if info.address != "Order":  # a STRING is a structure, which `get` does not read
            program.get(info.address)


def test_it_shows_the_same_of_the_s7_and_the_logix_machines(plant: Plant) -> None:
    s7, logix = declared(plant, "s7"), declared(plant, "logix")
    twins = {"press-2": "press-3", "filler-1": "filler-2"}
    assert {twins[tag.partition("/")[0]] + "/" + tag.partition("/")[2] for tag in s7} == set(logix)


def test_each_machine_says_what_an_oee_needs(plant: Plant) -> None:
    sources = {info.tag for source in plant.sources for info in source.declared() or ()}
    producing = [machine for machine in plant.machines if machine.id != "cmm-1"]
    assert len(producing) == 9
    for machine in producing:
        assert {machine.state, machine.good, machine.scrap} <= sources
        assert machine.ideal_cycle
    derived = {info.tag for processor in plant.processors for info in processor.outputs()}
    for machine in plant.machines:
        assert set(machine.show) <= sources | derived


def test_everything_can_be_built(plant: Plant) -> None:
    built = [
        *(source.build() for source in plant.sources),
        *(processor.build() for processor in plant.processors),
        *(sink.build() for sink in plant.sinks),
    ]
    assert len(built) == 9


def test_what_may_be_written_is_what_the_machines_let_be_written(plant: Plant) -> None:
    allowed = {allow.tag: allow for allow in plant.commands.allow}
    presses = {f"press-{n}/{name}" for n in (1, 2, 3) for name, tag in press.TAGS.items() if tag.writable}
    fillers = {f"filler-{n}/{name}" for n in (1, 2) for name, tag in s7_filler.TAGS.items() if tag.writable}
    assert set(allowed) == presses | fillers
    assert {tag for tag, allow in allowed.items() if allow.momentary} == {
        tag for tag in allowed if tag.endswith(("/Start", "/Stop"))
    }


def test_without_its_variables_it_says_which_are_missing(tmp_path: Path) -> None:
    with pytest.raises(PlantError) as wrong:
        parse(TEXT, "demo.yaml", tmp_path, {})
    assert all(name in str(wrong.value) for name in ENVIRONMENT)


def test_a_missing_certificate_file_is_found_with_its_line(tmp_path: Path) -> None:
    text = TEXT.replace('servers: "mqtt:', 'ca_file: ca.pem, servers: "mqtts:')
    with pytest.raises(PlantError, match=r"demo\.yaml:\d+: sinks\[0\]\.ca_file: there is no file .*ca\.pem"):
        parse(text, "demo.yaml", tmp_path, ENVIRONMENT)
