"""A plant file's text as Python values, with the line of each: YAML 1.2 words, ``${VAR}`` put in.

PyYAML's parser gives the events, this module builds the values. It builds them from events rather
than from PyYAML's tree because that is four times faster for 100,000 tags, has no limit of nesting at
which the process dies, and lets an alias share its value: a file that multiplies itself by aliases is
counted, never expanded.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import yaml

from shopfloor.plant.components import FromEnvironment
from shopfloor.samples import Misconfigured

Raw: TypeAlias = "dict[str, Raw] | list[Raw] | str | int | float | bool | None"
"""What a YAML file can say."""

Place = tuple[str | int, ...]
"""Where a value stands: keys and positions from the top."""

SHOWN: Final = 50
"""The most problems that an error's text lists."""
DEEPEST: Final = 64
"""Levels; a plant file has about six."""
MOST_VALUES: Final = 5_000_000
"""Values in all; 100,000 tags make about half a million."""
MOST_SHARED: Final = 1_000_000
"""Values that stand in the file by aliases; more is a file that multiplies itself."""

_INT: Final = re.compile(r"[-+]?[0-9]{1,40}|0x[0-9a-fA-F]{1,32}|0o[0-7]{1,40}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Final[Mapping[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_YAML: Final = "tag:yaml.org,2002:"
_NO_TAGS: Final = (None, "!")
_TEXT_TAGS: Final = (*_NO_TAGS, f"{_YAML}str")
_ADVICE: Final = (
    ("mapping values are not allowed", "is the indentation right, and is text with `: ` in it in quotes?"),
    ("expected alphabetic or numeric", "put text that begins with `*` or `&` in quotes"),
    ("cannot start any token", "put text that begins with a special character in quotes"),
    ("quoted scalar", "a quotation mark is not closed"),
    ("flow", "a bracket is not closed, or a comma is missing"),
    ("escape", "in double quotes a backslash begins an escape; use single quotes"),
)
"""What PyYAML says, and what a person can do about it; the first that fits."""


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


class _Key:
    """Stands for a key that cannot be used; what follows it is read and dropped."""


class _Open:
    """A mapping or a list whose end is still to come."""

    __slots__ = ("anchor", "key", "lines", "start", "value", "weight")

    def __init__(self, value: dict[str, Raw] | list[Raw], anchor: str | None, start: int) -> None:
        self.value = value
        self.anchor = anchor
        self.start = start
        self.lines: list[tuple[str, int]] = []
        self.key: str | _Key | None = None
        self.weight = 1


class Reader:
    """One plant file as Python values, with the line of every value and the problems found so far."""

    def __init__(self, file: str, environment: Mapping[str, str]) -> None:
        """``file`` is the name that problems carry; ``environment`` gives ``${VAR}``."""
        self.file = file
        self.problems: list[Problem] = []
        self.root: Raw = None
        self.unreadable: set[Place] = set()
        """Where a value stands that is not what the file meant: no more needs to be said about it."""
        self._environment = environment
        # By the id of a container, which root keeps alive: the line of each of its values.
        self._lines: dict[int, dict[str, int] | list[int]] = {}
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Raw, int]] = {}
        self._shared = 0
        self._first = 1

    def complain(self, place: Place, text: str, line: int | None = None) -> None:
        """Note a problem at the place; its line is that of the value, unless another one is given."""
        self.problems.append(Problem(self.file, line or self.line(place), dotted(place), text))

    def line(self, place: Place) -> int:
        """The line of the value at the place, or of the nearest value around it."""
        here: Any = self.root
        line = self._first
        for step in place:
            lines: Any = self._lines.get(id(here))
            try:
                here, line = here[step], lines[step]
            except (KeyError, IndexError, TypeError):  # the file does not go that deep
                break
        return line

    def read(self, text: str) -> Raw:
        """The values; what is wrong with the text as YAML becomes a problem. Raises PlantError where reading ends."""
        documents = 0
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._give_up(event, "a plant file is one document; take this `---` and what follows away")
                self._take(event)
        except yaml.MarkedYAMLError as error:
            self._syntax(error, text)
        except (yaml.YAMLError, UnicodeEncodeError) as error:
            self.complain((), f"not text that YAML allows: {str(error).splitlines()[0]}", 1)
        return self.root

    def _syntax(self, error: yaml.MarkedYAMLError, text: str) -> None:
        line = error.problem_mark.line if error.problem_mark else 0
        said = f"{error.problem or ''} {error.context or ''}"
        lines = text.split("\n")
        source = lines[line] if line < len(lines) else ""
        advice = next((advice for needle, advice in _ADVICE if needle in said), "is the indentation right?")
        if "\t" in source[: len(source) - len(source.lstrip())]:
            advice = "indent with spaces, not with tabs"
        self.complain((), f"not valid YAML: {error.problem or error.context}; {advice}", line + 1)

    def _take(self, event: Any) -> None:  # the union of PyYAML's events, which its types do not spell out
        if isinstance(event, yaml.ScalarEvent):
            self._put(self._scalar(event), event, 1)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)

    def _begin(self, event: Any) -> None:
        self._tag(event, _NO_TAGS)
        if len(self._open) >= DEEPEST:
            self._give_up(event, f"more than {DEEPEST} levels deep")
        line = _line(event)
        if not self._open:
            self._first = line
        self._open.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor, line))

    def _end(self) -> None:
        ended = self._open.pop()
        lines = [line for _, line in ended.lines]
        self._lines[id(ended.value)] = dict(ended.lines) if isinstance(ended.value, dict) else lines
        if ended.anchor is not None:
            self._anchors[ended.anchor] = (ended.value, ended.weight)
        self._store(ended.value, ended.start, ended.weight)

    def _put(self, value: Raw, event: Any, weight: int) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, weight)
        self._store(value, _line(event), weight, key=event.value)

    def _alias(self, event: Any) -> None:
        name: str = event.anchor
        if any(around.anchor == name for around in self._open):
            self._give_up(event, f"the alias *{name} contains itself")
        if name not in self._anchors:
            self._complain_here(event, f"nothing is called &{name}; put text that begins with `*` in quotes")
        value, weight = self._anchors.get(name, (None, 1))
        self._shared += weight
        if self._shared > MOST_SHARED:
            self._give_up(event, f"aliases multiply this file to more than {MOST_SHARED:,} values; write them out")
        self._store(value, _line(event), weight, key=value if isinstance(value, str) else None)

    def _store(self, value: Raw, line: int, weight: int, key: str | None = None) -> None:
        """Put a complete value where it stands; ``key`` is its text, in case a key is what stands there."""
        if not self._open:
            self.root = value
            return
        around = self._open[-1]
        around.weight += weight
        if around.weight > MOST_VALUES:
            raise PlantError([Problem(self.file, line, "", f"more than {MOST_VALUES:,} values")])
        if isinstance(around.value, list):
            around.value.append(value)
            around.lines.append(("", line))
        elif around.key is None:
            around.key = self._usable(key, line, around.value)
            if isinstance(around.key, str):
                around.lines.append((around.key, line))
        else:
            if isinstance(around.key, str):
                around.value[around.key] = value
            around.key = None

    def _usable(self, key: str | None, line: int, mapping: Mapping[str, Raw]) -> str | _Key:
        """The key, unless there is something wrong with it."""
        if key is None:
            text = "a key must be a word; is a value with `{` or `[` not in quotes?"
        elif key in mapping:
            text = f"{key!r} stands here twice; keep one"
        elif key == "<<":
            text = "merge keys (`<<`) are no longer part of YAML; write the keys out"
        else:
            return key
        self.complain(self._here()[:-1], text, line)
        self.unreadable.add(self._here()[:-1])
        return _Key()

    def _scalar(self, event: Any) -> Raw:
        text: str = event.value
        self._tag(event, _TEXT_TAGS)
        if event.implicit[0]:  # neither quoted nor tagged
            if text in _WORDS:
                return _WORDS[text]
            if _INT.fullmatch(text):
                return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
            if _FLOAT.fullmatch(text):
                return float(text)
        return self._with_variables(text, event) if "${" in text else text

    def _tag(self, event: Any, meaningful: Collection[str | None]) -> None:
        if event.tag not in meaningful:
            tag = f"!!{event.tag.removeprefix(_YAML)}" if event.tag.startswith(_YAML) else event.tag
            self._complain_here(event, f"the YAML tag {tag} means nothing here; take it away")

    def _with_variables(self, text: str, event: Any) -> str:
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            return text  # a key
        names = _VARIABLE.findall(text)
        if len(names) < text.count("${"):
            self._complain_here(event, "`${` begins the name of an environment variable: ${NAME}, letters, digits, _")
            return FromEnvironment(text)
        missing = [name for name in dict.fromkeys(names) if name not in self._environment]
        for name in missing:
            self._complain_here(
                event, f"the environment variable {name} is not set; set it before starting: export {name}=…"
            )
        if missing:
            return FromEnvironment(text)
        return FromEnvironment(_VARIABLE.sub(lambda found: self._environment[found[1]], text))

    def _here(self) -> Place:
        """Where the value that is being read stands."""
        return tuple(
            len(around.value) if isinstance(around.value, list) else around.key if isinstance(around.key, str) else ""
            for around in self._open
        )

    def _complain_here(self, event: Any, text: str) -> None:
        here = self._here()
        self.unreadable.add(here)
        self.complain(here, text, _line(event))

    def _give_up(self, event: Any, text: str) -> None:
        self.complain(self._here()[:4], text, _line(event))
        raise PlantError(self.problems)


def dotted(place: Place) -> str:
    """The place as a person writes it, on one line: ``sources[0].tags[3].node``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_visible(step)}" for step in place if step != "")
    return "".join(steps).removeprefix(".")


def _visible(key: str) -> str:
    return key if key.isprintable() else repr(key)


def _line(event: Any) -> int:
    line: int = event.start_mark.line + 1
    return line
