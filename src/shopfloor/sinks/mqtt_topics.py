"""Topics that are published to: a template with the tag in it, and a tag's own topic."""

from functools import lru_cache
from string import Formatter
from typing import Final

_FORBIDDEN: Final = str.maketrans({"%": "%25", "+": "%2B", "#": "%23", "\0": "%00"})


def topic_template(text: str) -> str:
    """The text, when it is a topic in which only ``{tag}`` and ``{machine}`` stand for something; else ValueError."""
    if any(character in text for character in "+#\0"):
        raise ValueError("a topic that is published to has no wildcards; take `+` and `#` out")
    try:
        fields = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError:
        fields = [("", "", None)]
    if any(field not in (("tag", "", None), ("machine", "", None)) for field in fields):
        raise ValueError("only {tag} and {machine} can stand in braces; write shopfloor/{tag}")
    if text.startswith("$"):
        raise ValueError("topics that start with `$` belong to the broker; choose another first level")
    return text


@lru_cache(65536)
def for_tag(template: str, tag: str) -> bytes:
    """The topic of a tag; what MQTT forbids in a topic is percent-encoded, and so is the percent sign."""
    safe = tag.translate(_FORBIDDEN)
    return template.format(tag=safe, machine=safe.partition("/")[0]).encode()
