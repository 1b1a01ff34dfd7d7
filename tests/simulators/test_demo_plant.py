"""The demo's plant file is one that a newcomer can copy: it holds, and it fits the simulated press."""

from importlib.resources import files
from pathlib import Path

import pytest

from shopfloor.plant import Plant, PlantError, parse
from shopfloor.simulators.press import TAGS

TEXT = (files("shopfloor.simulators") / "demo.yaml").read_text("utf-8")
ENVIRONMENT = {"PRESS_ENDPOINT": "opc.tcp://127.0.0.1:4840", "MQTT_PORT": "1883", "CONSOLE": "127.0.0.1:8080"}


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return parse(TEXT, "demo.yaml", tmp_path, ENVIRONMENT)


def test_it_reads_every_tag_of_the_press(plant: Plant) -> None:
    declared = {info.tag: info for info in plant.sources[0].declared() or ()}
    assert {tag.removeprefix("press-1/") for tag in declared} == set(TAGS)
    for name, tag in TAGS.items():
        info = declared[f"press-1/{name}"]
        assert info.address == f"ns=2;s=Channel1.Device1.{name}"
        assert info.unit == tag.unit


def test_everything_can_be_built(plant: Plant) -> None:
    built = [
        *(source.build() for source in plant.sources),
        *(processor.build() for processor in plant.processors),
        *(sink.build() for sink in plant.sinks),
    ]
    assert len(built) == 3


def test_what_may_be_written_is_what_the_press_lets_be_written(plant: Plant) -> None:
    assert {allow.tag.removeprefix("press-1/") for allow in plant.commands.allow} == {
        name for name, tag in TAGS.items() if tag.writable
    }
    assert {allow.tag for allow in plant.commands.allow if allow.momentary} == {"press-1/Start", "press-1/Stop"}


def test_without_its_variables_it_says_which_are_missing(tmp_path: Path) -> None:
    with pytest.raises(PlantError) as wrong:
        parse(TEXT, "demo.yaml", tmp_path, {})
    assert all(name in str(wrong.value) for name in ENVIRONMENT)


def test_a_missing_certificate_file_is_found_with_its_line(tmp_path: Path) -> None:
    text = TEXT.replace('servers: "mqtt:', 'ca_file: ca.pem, servers: "mqtts:')
    with pytest.raises(PlantError, match=r"demo\.yaml:\d+: sinks\[0\]\.ca_file: there is no file .*ca\.pem"):
        parse(text, "demo.yaml", tmp_path, ENVIRONMENT)
