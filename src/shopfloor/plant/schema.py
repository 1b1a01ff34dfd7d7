"""The plant file's JSON Schema, with the options of every connector that is installed here."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shopfloor.plant.components import VARIABLE, ComponentConfig, Kind, config_class, types
from shopfloor.plant.model import Plant
from shopfloor.plant.reader import Raw
from shopfloor.plant.units import DURATION_FORMAT, SIZE_FORMAT, format_duration, format_size

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_KINDS: Final[tuple[Kind, ...]] = ("sources", "processors", "sinks")
_FORMATS: Final = {DURATION_FORMAT: format_duration, SIZE_FORMAT: format_size}

Schema: TypeAlias = dict[str, Any]


def schema() -> Schema:
    """The JSON Schema (2020-12) of a plant file: editors complete and check by it.

    A connector whose module cannot be imported here is left out.
    """
    found = {kind: _installed(kind) for kind in (*_KINDS, "historians")}
    models: list[type[BaseModel]] = [Plant, *(model for pairs in found.values() for _, model in pairs)]
    references, definitions = models_json_schema([(model, "validation") for model in dict.fromkeys(models)])
    for pairs in found.values():
        for name, model in pairs:
            _fix_type(_resolve(references[model, "validation"], definitions), name)
    plant = definitions["$defs"].pop("Plant")
    for kind in _KINDS:
        plant["properties"][kind]["items"] = _one_of(found[kind], references)
    historian = plant["properties"]["historian"]
    historian["anyOf"] = [_one_of(found["historians"], references), {"type": "null"}]
    for _, model in found["historians"]:
        definition = _resolve(references[model, "validation"], definitions)
        definition["required"] = [key for key in definition["required"] if key != "name"]
    for part in (plant, *definitions["$defs"].values()):
        _readable(part)
    for unused in ("SourceConfig", "ProcessorConfig", "SinkConfig", "HistorianConfig"):
        definitions["$defs"].pop(unused, None)
    definitions["$defs"]["Variable"] = {
        "type": "string",
        "pattern": VARIABLE,
        "description": "The value of an environment variable, `${NAME}`.",
    }
    return {"$schema": DIALECT, **plant, "title": "Shopfloor plant file", "$defs": definitions["$defs"]}


def _installed(kind: Kind) -> Sequence[tuple[str, type[ComponentConfig]]]:
    found: list[tuple[str, type[ComponentConfig]]] = []
    for name in types(kind):
        try:
            found.append((name, config_class(kind, name)))
        except ImportError:
            continue
    return found


def _resolve(reference: Schema, definitions: Schema) -> Schema:
    """What ``{"$ref": "#/$defs/…"}`` points to."""
    definition: Schema = definitions["$defs"][reference["$ref"].rpartition("/")[2]]
    return definition


def _fix_type(definition: Schema, name: str) -> None:
    """``type`` says which connector it is, and must be there."""
    description = definition["properties"].get("type", {}).get("description")
    definition["properties"]["type"] = {"const": name} | ({"description": description} if description else {})
    definition["required"] = list(dict.fromkeys(["name", "type", *definition.get("required", [])]))


def _one_of(pairs: Sequence[tuple[str, type[ComponentConfig]]], references: dict[Any, Schema]) -> Schema:
    """One of these components; nothing fits where none is installed."""
    return {"oneOf": [references[model, "validation"] for _, model in pairs]} if pairs else {"not": {}}


def _readable(part: Raw) -> None:
    """Defaults with their units, ``${NAME}`` wherever a number or a form is asked for, no made-up titles."""
    if isinstance(part, list):
        for item in part:
            _readable(item)
        return
    if not isinstance(part, dict):
        return
    unit = next((_FORMATS[name] for name in _formats(part) if name in _FORMATS), None)
    default = part.get("default")
    if unit and isinstance(default, int):
        part["default"] = unit(default)
    if isinstance(part.get("title"), str):
        part.pop("title")
    for key, value in part.items():
        if key not in ("default", "examples", "enum", "const"):
            _readable(value)
    if part.get("type") in ("integer", "number", "boolean") or part.get("pattern", VARIABLE) != VARIABLE:
        kept: dict[str, Raw] = {key: part.pop(key) for key in ("default", "description") if key in part}
        inner = dict(part)
        part.clear()
        part["anyOf"] = [inner, {"$ref": "#/$defs/Variable"}]
        part |= kept


def _formats(part: dict[str, Raw]) -> list[str]:
    """The formats that the schema, or one of its alternatives, asks for."""
    options = part.get("anyOf")
    inner = [option for option in options if isinstance(option, dict)] if isinstance(options, list) else []
    return [name for option in (part, *inner) if isinstance(name := option.get("format"), str)]
