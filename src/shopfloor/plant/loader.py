"""Reads a plant file and says everything that is wrong with it at once: file, line, path, what to do.

``reader`` makes values of the text, the models validate them, ``crosscheck`` sees what crosses
sections. Nothing here touches the network.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from shopfloor.plant.components import ComponentConfig, Kind, config_class, types
from shopfloor.plant.crosscheck import crosscheck
from shopfloor.plant.model import Plant
from shopfloor.plant.reader import Place, PlantError, Problem, Raw, Reader
from shopfloor.plant.units import WRITTEN
from shopfloor.plant.wording import meant, present, said

LARGEST: Final = 64 * 2**20
"""Bytes; a file above it is surely not a plant file (100,000 tags take about 8 MB)."""
_KINDS: Final[tuple[Kind, ...]] = ("sources", "processors", "sinks")

_Model = TypeVar("_Model", bound=BaseModel)


def load(file: Path, environment: Mapping[str, str] | None = None) -> Plant:
    """The plant that ``file`` describes, with relative paths made absolute from the file's folder.

    ``environment`` gives ``${VAR}`` (the process's own by default). Raises PlantError with every
    problem that can be found without the network.
    """
    shown = str(file)
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise PlantError([Problem(shown, 1, "", f"more than {LARGEST // 2**20} MiB; a plant file is smaller")])
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PlantError([Problem(shown, line, "", "is not UTF-8 text; save it as UTF-8")]) from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        start = "; `shopfloor demo --show` prints one to start from" if isinstance(error, FileNotFoundError) else ""
        raise PlantError([Problem(shown, 1, "", f"cannot be read: {reason}{start}")]) from error
    return parse(text, shown, file.resolve().parent, environment)


def parse(text: str, file: str, folder: Path, environment: Mapping[str, str] | None = None) -> Plant:
    """The plant that this text describes; ``file`` is the name that problems carry. Raises PlantError."""
    reader = Reader(file, os.environ if environment is None else environment)
    raw = reader.read(text)
    if raw is None and not reader.problems:
        reader.complain((), "the file is empty; `shopfloor demo --show` prints one to start from", 1)
    elif not isinstance(raw, dict) and not reader.problems:
        reader.complain((), "a plant file starts with sections: `plant:`, `sources:`, …", 1)
    if not isinstance(raw, dict):
        raise PlantError(reader.problems)
    plant = _validated(reader, Plant, _sections(reader, raw), ())
    if plant is not None and not reader.problems:  # a component that is missing would make others look wrong
        crosscheck(reader, plant)
    if plant is None or reader.problems:
        raise PlantError(reader.problems)
    plant = _absolute(plant, folder)
    _files(reader, plant)
    if reader.problems:
        raise PlantError(reader.problems)
    return plant


def _files(reader: Reader, plant: Plant) -> None:
    """Complain about what components find wrong with the files that they name."""
    for kind in _KINDS:
        configs: Sequence[ComponentConfig] = getattr(plant, kind)
        for i, config in enumerate(configs):
            for field, text in config.problems():
                reader.complain((kind, i, field), text)
    for field, text in plant.historian.problems() if plant.historian else ():
        reader.complain(("historian", field), text)


def _sections(reader: Reader, raw: Mapping[str, Raw]) -> dict[str, object]:
    """The file's sections, with each component validated by the model of its type.

    A section that is empty (all of its lines are comments) counts as absent; ``console: null`` says no console.
    """
    sections: dict[str, object] = {key: value for key, value in raw.items() if value is not None or key == "console"}
    for kind in _KINDS:
        if kind in sections:
            sections[kind] = _components(reader, kind, raw[kind])
    if (historian := raw.get("historian")) is not None:
        named: Raw = {"name": "historian", **historian} if isinstance(historian, dict) else historian
        sections["historian"] = _component(reader, "historians", ("historian",), named)
    return sections


def _components(reader: Reader, kind: Kind, raw: Raw) -> Sequence[ComponentConfig]:
    if not isinstance(raw, list):
        reader.complain((kind,), "is a list: start each entry with `- name: …`")
        return []
    found = [_component(reader, kind, (kind, i), item) for i, item in enumerate(raw)]
    return [config for config in found if config is not None]


def _component(reader: Reader, kind: Kind, place: Place, raw: Raw) -> ComponentConfig | None:
    if not isinstance(raw, dict):
        reader.complain(place, "needs `type: …` and, in a list, `name: …`")
        return None
    name = raw.get("type")
    known = types(kind)
    if not isinstance(name, str) or name not in known:
        wrong = f"there is no type {name!r}" if isinstance(name, str) else "`type` is missing or no word"
        reader.complain((*place, "type"), f"{wrong}; known here: {', '.join(known) or 'none'}{meant(str(name), known)}")
        return None
    try:
        model = config_class(kind, name)
    except ImportError as error:
        reader.complain((*place, "type"), str(error))
        return None
    return _validated(reader, model, raw, place)


def _validated(reader: Reader, model: type[_Model], raw: Mapping[str, object], place: Place) -> _Model | None:
    try:
        return model.model_validate(raw, context={WRITTEN: True})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            there = (*place, *present(detail["loc"], raw))
            if there not in reader.unreadable:
                reader.complain(there, said(detail, model))
        return None


def _absolute(plant: Plant, folder: Path) -> Plant:
    """The plant with the paths of the journal and of every component made absolute."""

    def anchored(model: _Model) -> _Model:
        fields = {name: getattr(model, name) for name in type(model).model_fields}
        paths = {name: folder / value for name, value in fields.items() if isinstance(value, Path)}
        return model.model_copy(update=paths) if paths else model

    return plant.model_copy(
        update={
            "sources": [anchored(config) for config in plant.sources],
            "processors": [anchored(config) for config in plant.processors],
            "sinks": [anchored(config) for config in plant.sinks],
            "historian": plant.historian and anchored(plant.historian),
            "journal": anchored(plant.journal),
        }
    )
