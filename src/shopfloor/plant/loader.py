"""Reads a plant file and says everything that is wrong with it at once: file, line, path, what to do.

PyYAML parses; this module keeps the line of every node, reads scalars by YAML 1.2 (so ``06:00`` and
``on`` stay text), puts ``${VAR}`` in, lets the models validate, and checks what crosses sections.
Nothing here touches the network.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shopfloor.plant.components import (
    ComponentConfig,
    FromEnvironment,
    Kind,
    ProcessorConfig,
    SourceConfig,
    config_class,
    passes,
    types,
)
from shopfloor.plant.model import Plant
from shopfloor.samples import Misconfigured

LARGEST: Final = 64 * 2**20
"""Bytes; a file above it is surely not a plant file (100,000 tags take about 8 MB)."""
MOST_NODES: Final = 5_000_000
"""Values after aliases are expanded: a file that multiplies itself is refused."""
SHOWN: Final = 50

_INT: Final = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[Mapping[str, object]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KINDS: Final[tuple[Kind, ...]] = ("sources", "processors", "sinks")

Path_ = tuple[str | int, ...]


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a plant file."""

    file: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'{self.path}: ' if self.path else ''}{self.text}"


class PlantError(Misconfigured):
    """The plant file cannot be used; ``problems`` says why, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """At least one problem."""
        self.problems = sorted(problems, key=lambda p: p.line)
        more = len(self.problems) - SHOWN
        lines = [str(p) for p in self.problems[:SHOWN]] + ([f"… and {more} more"] if more > 0 else [])
        super().__init__("\n".join(lines))


class _Reader:
    """One plant file as Python values, with the line of every value and the problems found on the way."""

    def __init__(self, file: str, environment: Mapping[str, str]) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._environment = environment
        self._lines: dict[Path_, int] = {}
        self._nodes = 0

    def complain(self, path: Path_, text: str, line: int | None = None) -> None:
        self.problems.append(Problem(self.file, line or self.line(path), _dotted(path), text))

    def line(self, path: Path_) -> int:
        """The line of the value at the path, or of the nearest value around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def read(self, text: str) -> object:
        try:
            node = yaml.compose(text, Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            source = text.splitlines()[line - 1] if line <= text.count("\n") + 1 and text.splitlines() else ""
            advice = (
                "; indent with spaces, not with tabs"
                if "\t" in source[: len(source) - len(source.lstrip())] or "\\t" in str(error.problem)
                else "; is the indentation right, and is text with special characters in quotes?"
            )
            self.complain((), f"not valid YAML: {error.problem or error.context}{advice}", line)
            return None
        except (yaml.YAMLError, ValueError) as error:
            self.complain((), f"not valid YAML: {error}", 1)
            return None
        if node is None:
            self.complain((), "the file is empty; `shopfloor demo --show` prints one to start from", 1)
            return None
        return self._value(node, (), frozenset())

    def _value(self, node: yaml.Node, path: Path_, around: frozenset[int]) -> object:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise PlantError(
                [Problem(self.file, node.start_mark.line + 1, _dotted(path), "more than 5 million values")]
            )
        if id(node) in around:
            raise PlantError([Problem(self.file, node.start_mark.line + 1, _dotted(path), "an alias contains itself")])
        self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        inside = around | {id(node)}
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, i), inside) for i, item in enumerate(node.value)]
        result: dict[str, object] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.complain(path, "a key must be a word", key.start_mark.line + 1)
            elif key.value in result:
                self.complain(path, f"{key.value!r} stands here twice; keep one", key.start_mark.line + 1)
            else:
                result[key.value] = self._value(item, (*path, key.value), inside)
                self._lines[(*path, key.value)] = key.start_mark.line + 1
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path_) -> object:
        text: str = node.value
        if node.style is None:
            if text in _WORDS:
                return _WORDS[text]
            if _INT.fullmatch(text) and len(text) < 40:
                return int(text, 0) if text.lstrip("+-")[:2].lower() in ("0x", "0o") else int(text)
            if _FLOAT.fullmatch(text):
                return float(text)
        if "${" not in text:
            return text
        missing = [name for name in _VARIABLE.findall(text) if name not in self._environment]
        for name in missing:
            self.complain(
                path, f"the environment variable {name} is not set; set it before starting, e.g. export {name}=…"
            )
        if missing:
            return FromEnvironment(text)
        return FromEnvironment(_VARIABLE.sub(lambda found: self._environment[found[1]], text))


def load(file: Path, environment: Mapping[str, str] | None = None) -> Plant:
    """The plant that ``file`` describes, with relative paths made absolute from the file's folder.

    ``environment`` gives ``${VAR}`` (the process's own by default). Raises PlantError with every
    problem that can be found without the network.
    """
    shown = str(file)
    try:
        if file.stat().st_size > LARGEST:
            raise PlantError(
                [Problem(shown, 1, "", f"{file.stat().st_size} bytes; a plant file has at most {LARGEST}")]
            )
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PlantError([Problem(shown, 1, "", f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PlantError([Problem(shown, line, "", "is not UTF-8 text; save it as UTF-8")]) from error
    return parse(text, shown, file.resolve().parent, environment)


def parse(text: str, file: str, folder: Path, environment: Mapping[str, str] | None = None) -> Plant:
    """The plant that this text describes; ``file`` is the name that problems carry. Raises PlantError."""
    reader = _Reader(file, os.environ if environment is None else environment)
    raw = reader.read(text)
    if raw is not None and not isinstance(raw, dict):
        reader.complain((), "a plant file starts with sections: `plant:`, `sources:`, …", 1)
    if not isinstance(raw, dict):
        raise PlantError(reader.problems)
    sections: dict[str, Any] = dict(raw)
    components = {kind: _components(reader, kind, sections.pop(kind, None)) for kind in _KINDS}
    historian = sections.pop("historian", None)
    if historian is not None:
        named = {"name": "historian", **historian} if isinstance(historian, dict) else historian
        sections["historian"] = _component(reader, "historians", ("historian",), named)
    plant = _validated(reader, Plant, {**sections, **components}, ())
    if isinstance(plant, Plant):
        _crosscheck(reader, plant)
    if reader.problems or not isinstance(plant, Plant):
        raise PlantError(reader.problems)
    journal = plant.journal.model_copy(update={"path": folder / plant.journal.path})
    return plant.model_copy(update={"journal": journal, **_resolved(plant, folder)})


def _resolved(plant: Plant, folder: Path) -> dict[str, object]:
    """Components whose own fields are paths, with those made absolute."""

    def absolute(config: ComponentConfig) -> ComponentConfig:
        paths = {
            name: folder / value
            for name in type(config).model_fields
            if isinstance(value := getattr(config, name), Path) and not value.is_absolute()
        }
        return config.model_copy(update=paths) if paths else config

    return {
        "sources": [absolute(c) for c in plant.sources],
        "processors": [absolute(c) for c in plant.processors],
        "sinks": [absolute(c) for c in plant.sinks],
        "historian": plant.historian and absolute(plant.historian),
    }


def _components(reader: _Reader, kind: Kind, raw: object) -> list[ComponentConfig]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        reader.complain((kind,), "is a list: start each entry with `- name: …`")
        return []
    found = [_component(reader, kind, (kind, i), item) for i, item in enumerate(raw)]
    return [c for c in found if c is not None]


def _component(reader: _Reader, kind: Kind, path: Path_, raw: object) -> ComponentConfig | None:
    if not isinstance(raw, dict):
        reader.complain(path, "needs `type: …` and, in a list, `name: …`")
        return None
    name = raw.get("type")
    known = types(kind)
    if not isinstance(name, str) or name not in known:
        said = "`type` is missing" if name is None else f"there is no type {name!r}"
        reader.complain((*path, "type"), f"{said}; known here: {', '.join(known) or 'none'}{_meant(str(name), known)}")
        return None
    model = config_class(kind, name)
    config = _validated(reader, model, raw, path)
    return config if isinstance(config, ComponentConfig) else None


def _validated(reader: _Reader, model: type[BaseModel], raw: Mapping[str, object], path: Path_) -> BaseModel | None:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            reader.complain((*path, *_present(detail["loc"], raw)), _said(detail, model))
        return None


def _present(loc: Path_, raw: object) -> Path_:
    """The part of a pydantic location that stands in the file: union branches and the like left out."""
    kept: list[str | int] = []
    here = raw
    for step in loc:
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        elif step != loc[-1]:
            continue
        kept.append(step)
    return tuple(kept)


def _said(detail: ErrorDetails, model: type[BaseModel]) -> str:
    if detail["type"] == "missing":
        return "is missing and has no default"
    if detail["type"] == "extra_forbidden":
        key = str(detail["loc"][-1])
        place = _model_at(model, detail["loc"][:-1])
        known = [field.alias or name for name, field in place.model_fields.items()] if place else []
        return f"is not known here{_meant(key, known)}" + (f"; known: {', '.join(known)}" if known else "")
    text = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    shown = (
        repr(given) if isinstance(given, str | int | float | bool) and not isinstance(given, FromEnvironment) else ""
    )
    return f"{text}{f' (here: {shown[:80]})' if shown and shown not in text else ''}"


def _model_at(model: type[BaseModel], loc: Path_) -> type[BaseModel] | None:
    """The model that validates the place ``loc``, when it can be told from the annotations."""
    here: type[BaseModel] | None = model
    for step in loc:
        if isinstance(step, int) or here is None:
            continue
        field = next((f for n, f in here.model_fields.items() if step in (n, f.alias)), None)
        if field is None:
            continue
        here = next(_models(field.annotation), None)
    return here


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _dotted(path: Path_) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _crosscheck(reader: _Reader, plant: Plant) -> None:
    """What no single section can see: names and tags used twice, tags that nothing gives, circles."""
    _names(reader, plant)
    declared = _declared(reader, plant)
    _circles(reader, plant)
    wildcard = any(source.declared() is None for source in plant.sources)
    if wildcard:
        return
    for i, machine in enumerate(plant.machines):
        for field in ("state", "good", "scrap"):
            tag = getattr(machine, field)
            if tag is not None and tag not in declared:
                reader.complain(("machines", i, field), f"no source gives the tag {tag!r}{_meant(tag, declared)}")
        for j, tag in enumerate(machine.show):
            if tag not in declared:
                reader.complain(("machines", i, "show", j), f"no source gives the tag {tag!r}{_meant(tag, declared)}")
    for i, allow in enumerate(plant.commands.allow):
        if allow.tag not in declared:
            reader.complain(
                ("commands", "allow", i, "tag"), f"no source gives the tag {allow.tag!r}{_meant(allow.tag, declared)}"
            )
    for i, processor in enumerate(plant.processors):
        for pattern in processor.inputs():
            if not any(passes(tag, [pattern]) for tag in ([pattern] if pattern in declared else declared)):
                reader.complain(("processors", i), f"no source gives the tag {pattern!r}{_meant(pattern, declared)}")


def _names(reader: _Reader, plant: Plant) -> None:
    seen: dict[str, Path_] = {"historian": ("historian",)} if plant.historian else {}
    for kind, configs in (("sources", plant.sources), ("processors", plant.processors), ("sinks", plant.sinks)):
        for i, config in enumerate(configs):
            if config.name in seen:
                reader.complain(
                    (kind, i, "name"),
                    f"the name {config.name!r} is taken by line {reader.line(seen[config.name])}; choose another",
                )
            seen.setdefault(config.name, (kind, i, "name"))
    ids: dict[str, int] = {}
    for i, machine in enumerate(plant.machines):
        if machine.id in ids:
            reader.complain(("machines", i, "id"), f"the id {machine.id!r} is taken by machines[{ids[machine.id]}]")
        ids.setdefault(machine.id, i)
    allowed: set[str] = set()
    for i, allow in enumerate(plant.commands.allow):
        if allow.tag in allowed:
            reader.complain(("commands", "allow", i, "tag"), f"{allow.tag!r} is allowed twice; keep one")
        allowed.add(allow.tag)


def _declared(reader: _Reader, plant: Plant) -> dict[str, str]:
    """Every declared tag and the component that gives it."""
    givers: list[tuple[str, int, SourceConfig | ProcessorConfig]] = [
        *(("sources", i, c) for i, c in enumerate(plant.sources)),
        *(("processors", i, c) for i, c in enumerate(plant.processors)),
    ]
    declared: dict[str, str] = {}
    for kind, i, config in givers:
        infos = config.declared() if isinstance(config, SourceConfig) else config.outputs()
        for j, info in enumerate(infos or ()):
            if info.tag in declared:
                reader.complain(
                    (kind, i, "tags", j), f"the tag {info.tag!r} is given by {declared[info.tag]!r} already; rename one"
                )
            declared.setdefault(info.tag, config.name)
    return declared


def _circles(reader: _Reader, plant: Plant) -> None:
    """Processors that feed each other in a circle would never come to rest."""
    feeds = {
        p.name: [
            q.name for q in plant.processors if any(passes(info.tag, q.inputs()) for info in p.outputs())
        ]
        for p in plant.processors
    }  # fmt: skip
    done: set[str] = set()
    for i, processor in enumerate(plant.processors):
        trail: list[str] = []
        circle = _circle(processor.name, feeds, trail, done)
        if circle:
            reader.complain(("processors", i), f"feeds itself in a circle: {' → '.join(circle)}; take one input away")


def _circle(name: str, feeds: Mapping[str, list[str]], trail: list[str], done: set[str]) -> list[str]:
    if name in trail:
        return [*trail[trail.index(name) :], name]
    if name in done:
        return []
    trail.append(name)
    for following in feeds.get(name, ()):
        if circle := _circle(following, feeds, trail, done):
            return circle
    trail.pop()
    done.add(name)
    return []
