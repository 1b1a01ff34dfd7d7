"""The JSON Schema says yes to what the loader takes and no to what it refuses, as far as a schema can."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from shopfloor.plant import schema

CASES = Path(__file__).parent / "cases"
REFUSED = ["unknown-keys", "wrong-types", "units", "sizes", "listen", "no-plant", "secrets-in-clear-text", "commands"]


class Yaml12(yaml.SafeLoader):
    """Like an editor's: 06:00 is text."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12.add_constructor("tag:yaml.org,2002:int", lambda loader, node: _number(loader.construct_scalar(node)))  # type: ignore[arg-type]  # PyYAML's types leave the node open


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def errors(case: str) -> list[str]:
    text = (CASES / case / "plant.yaml").read_text("utf-8-sig")
    return [error.message for error in Draft202012Validator(schema()).iter_errors(yaml.load(text, Yaml12))]


def test_the_schema_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("case", ["whole", "tags-of-a-wildcard-source"])
def test_what_the_loader_takes_the_schema_takes(case: str) -> None:
    assert errors(case) == []


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_loader_refuses_by_form_the_schema_refuses(case: str) -> None:
    assert errors(case) != []


def test_every_type_has_its_own_options() -> None:
    found: dict[str, Any] = schema()
    options = found["properties"]["sources"]["items"]["oneOf"]
    types = [found["$defs"][option["$ref"].rpartition("/")[2]]["properties"]["type"]["const"] for option in options]
    assert types == ["plc", "topic"], "a type whose module cannot be loaded is left out"


def test_defaults_carry_their_units() -> None:
    properties = schema()["$defs"]["PlcConfig"]["properties"]
    assert properties["every"]["default"] == "1 s"
    assert schema()["$defs"]["JournalConfig"]["properties"]["keep"]["default"] == "20 GB"


def test_every_reference_leads_somewhere() -> None:
    found = schema()
    text = yaml.safe_dump(found)
    for line in text.splitlines():
        if "$ref:" in line:
            assert line.rpartition("/")[2].strip("'") in found["$defs"]


def test_every_option_is_described() -> None:
    for name, part in schema()["$defs"].items():
        for key, option in part.get("properties", {}).items():
            assert option.get("description") or "$ref" in option or key == "type", f"{name}.{key}"
