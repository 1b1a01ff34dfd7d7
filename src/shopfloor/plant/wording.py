"""Pydantic's errors in words that say what to do, and where in the file they belong."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final, cast

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from shopfloor.plant.components import FromEnvironment
from shopfloor.plant.reader import Place

_LONGEST: Final = 80
_ALIKE: Final = 0.75
_COMPARED: Final = 500
"""The most words among which a similar one is looked for: looking is slow."""

_WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "missing": lambda _: "is missing and has no default",
    "string_type": lambda _: "needs text; put it in quotes",
    "list_type": lambda _: "must be a list: start each entry with `- `",
    "tuple_type": lambda _: "must be a list: [first, second]",
    "dict_type": lambda _: "must have entries of its own, `key: value`, one level deeper",
    "model_type": lambda _: "must have options of its own, `key: value`, one level deeper",
    "bool_type": lambda _: "must be `true` or `false`",
    "bool_parsing": lambda _: "must be `true` or `false`",
    "int_type": lambda _: "needs a whole number",
    "int_parsing": lambda _: "needs a whole number",
    "int_from_float": lambda _: "needs a whole number",
    "float_type": lambda _: "needs a number",
    "float_parsing": lambda _: "needs a number",
    "finite_number": lambda _: "needs a number that is not infinite",
    "literal_error": lambda context: f"must be one of {context['expected']}",
    "greater_than": lambda context: f"must be above {context['gt']}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than": lambda context: f"must be below {context['lt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "union_tag_not_found": lambda context: (
        f"needs {context['discriminator'].replace(chr(39), '`')}, which says the kind"
    ),
    "union_tag_invalid": lambda context: (
        f"{context['discriminator'].replace(chr(39), '`')} must be one of {context['expected_tags']}"
    ),
    "string_too_short": lambda context: (
        "must not be empty" if context["min_length"] == 1 else f"needs at least {context['min_length']} characters"
    ),
    "string_too_long": lambda context: f"has at most {context['max_length']} characters",
    "too_short": lambda context: (
        "must not be empty" if context["min_length"] == 1 else f"needs at least {context['min_length']} entries"
    ),
    "too_long": lambda context: f"has at most {context['max_length']} entries",
    "path_type": lambda _: "needs the path of a file",
    "string_unicode": lambda _: "has characters that are no Unicode text",
}
"""What an error's type means to the writer of a plant file, from its context."""


def said(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong and what to do; shows what was given unless it may be a secret."""
    kind, loc, given = detail["type"], detail["loc"], detail["input"]
    if kind == "missing":
        return "has too few entries" if isinstance(loc[-1], int) else _WORDS[kind]({})
    if kind == "extra_forbidden":
        place = _model_at(model, loc[:-1])
        known = [field.alias or name for name, field in place.model_fields.items()] if place else []
        return f"is not known here{meant(str(loc[-1]), known)}" + (f"; known: {', '.join(known)}" if known else "")
    field = _field_at(model, loc)
    if kind == "string_pattern_mismatch" and field is not None and field.description:
        text = f"does not have the right form. {field.description}"
    elif kind in _WORDS:
        text = _WORDS[kind](detail.get("ctx", {}))
    else:
        text = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if isinstance(given, FromEnvironment) and given:  # what a variable holds may be secret
        text = text.replace(str(given), "…")
    shown = _shown(given) if kind != "secret" and not _is_secret(field) else ""
    return text if not shown or "(here: " in text else f"{text} (here: {shown})"


def _shown(given: object) -> str:
    if isinstance(given, FromEnvironment):
        return "from the environment"
    if not isinstance(given, str | int | float):
        return ""
    text = repr(given[:_LONGEST] if isinstance(given, str) else given)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _is_secret(field: FieldInfo | None) -> bool:
    return field is not None and SecretStr in _parts(field.annotation)


def present(loc: Place, raw: object) -> Place:
    """The part of a pydantic location that stands in the file: union branches and the like left out."""
    kept: list[str | int] = []
    here: object = raw
    for i, step in enumerate(loc):
        try:
            here = cast("Any", here)[step]
        except (KeyError, IndexError, TypeError):
            if i < len(loc) - 1 or not isinstance(here, dict):
                continue  # what remains in a mapping is a key that is missing
        kept.append(step)
    return tuple(kept)


def meant(word: str, known: Collection[str]) -> str:
    """``; did you mean …?`` when one of the known words is close, else nothing."""
    near: Collection[str] = known
    if len(known) > _COMPARED:  # tags: look at those of the same machine only
        machine = word.partition("/")[0]
        near = list(islice((other for other in known if other.startswith(machine)), _COMPARED))
    close = _closest(word[:_LONGEST], tuple(near))
    return f"; did you mean {close!r}?" if close else ""


@lru_cache(maxsize=1000)  # the same slip often stands on thousands of lines
def _closest(word: str, known: tuple[str, ...]) -> str:
    return next(iter(difflib.get_close_matches(word, known, 1, _ALIKE)), "")


def _field_at(model: type[BaseModel], loc: Place) -> FieldInfo | None:
    """The field that validates the place ``loc``, when it can be told from the annotations."""
    field: FieldInfo | None = None
    here: type[BaseModel] | None = model
    for step in loc:
        fields = here.model_fields.items() if here else ()
        found = next((field for name, field in fields if step in (name, field.alias)), None)
        if found is not None:
            field = found
            here = next(_models(found.annotation), None)
    return field


def _model_at(model: type[BaseModel], loc: Place) -> type[BaseModel] | None:
    """The model that validates the place ``loc``, when it can be told from the annotations."""
    field = _field_at(model, loc)
    return model if not loc else next(_models(field.annotation), None) if field else None


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


def _parts(annotation: object) -> Iterator[object]:
    """The annotation and everything inside its brackets."""
    yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _parts(argument)
