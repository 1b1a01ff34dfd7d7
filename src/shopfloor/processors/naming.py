"""How a processor names the tag that it makes of another: a template in which `{tag}` is the one that is read."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from shopfloor.plant.components import TagName

_LONGEST: Final = 255


def _template(text: str) -> str:
    for word in re.findall(r"\{[^{}]*\}", text):
        if word != "{tag}":
            raise ValueError(f"{word} means nothing here; only {{tag}} does, the tag that is read")
    return text


Template = Annotated[TagName, AfterValidator(_template)]
"""A tag's name, or a template of one: ``{tag}/compensated``."""


def named(template: str, tag: str) -> str:
    """The template filled in. Raises ValueError when nothing but ``tag`` comes out, or a name that is too long."""
    name = template.replace("{tag}", tag)
    if name == tag:
        raise ValueError(f"the result would have the name of the tag that is read, {tag!r}; give it one of its own")
    if len(name) > _LONGEST:
        raise ValueError(f"the result's name would have more than {_LONGEST} characters; give it a shorter one")
    return name
