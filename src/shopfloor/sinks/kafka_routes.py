"""Which topic a tag's records go to, and under which key: names are templates, the first pattern that fits decides."""

import re
from collections.abc import Iterable, Sequence
from string import Formatter
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, StringConstraints

from shopfloor.plant.components import Strict, passes
from shopfloor.plant.kafka import topic_name
from shopfloor.sinks.tag_facts import TagFacts

_FIELDS: Final = ("site", "line", "machine")
_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST: Final = 249
_NO_NAMES: Final = (".", "..")
"""What Kafka takes for folders."""


def _template(text: str) -> str:
    try:
        fields = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError:
        fields = [("", "", None)]
    if any(field not in {(name, "", None) for name in _FIELDS} for field in fields):
        raise ValueError("only {site}, {line} and {machine} can stand in braces; write plant.{machine}")
    topic_name(text.format(**dict.fromkeys(_FIELDS, "x")))
    return text


TopicTemplate = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST), AfterValidator(_template)]
Key = Literal["machine", "tag"]


class KafkaRoute(Strict):
    """Tags that go to another topic than the others."""

    tags: list[str] = Field(
        min_length=1, description="Which tags: names or patterns in which `*` matches any run of characters."
    )
    topic: TopicTemplate = Field(description="Their topic, a template as `topic` is.")


class Place(NamedTuple):
    """Where a tag's records go."""

    topic: str
    key: bytes


class Routes:
    """Finds the place of each tag; remembers what it found."""

    def __init__(self, routes: Sequence[KafkaRoute], topic: str, key: Key, facts: TagFacts) -> None:
        """The first route whose patterns fit decides; ``topic`` is for all others."""
        self._routes = [(route.tags, route.topic) for route in routes] + [(None, topic)]
        self._key = key
        self._facts = facts
        self._known: dict[str, Place] = {}

    def of(self, tag: str) -> Place:
        """The place of a tag. Raises UnicodeEncodeError for a tag that is not Unicode."""
        found = self._known.get(tag)
        if found is None:
            where = self._facts.where(tag)
            key = (where.machine if self._key == "machine" else tag).encode()
            found = self._known[tag] = Place(self._topic(tag), key)
        return found

    def topics(self, tags: Iterable[str], machines: Iterable[str]) -> list[str]:
        """Every topic that is known before anything came: of these tags, of these machines, and without a machine."""
        found = {template for _, template in self._routes if "{line}" not in template and "{machine}" not in template}
        names = {_named(template, site=self._facts.site) for template in found}
        names |= {self._topic(tag) for tag in tags}
        for machine in machines:  # what its tags are called is not known: each topic that one of them may go to
            fits = [template for tags, template in self._routes if tags is None or may_be_of(machine, tags)]
            names |= {self._filled(template, machine) for template in fits}
        return sorted(names)

    def of_machines(self) -> list[str]:
        """The templates that are a topic for each machine or line."""
        return sorted({template for _, template in self._routes if "{line}" in template or "{machine}" in template})

    def _topic(self, tag: str) -> str:
        template = next(template for tags, template in self._routes if tags is None or passes(tag, tags))
        return self._filled(template, tag)

    def _filled(self, template: str, tag: str) -> str:
        where = self._facts.where(tag)
        return _named(template, site=self._facts.site, line=where.line, machine=where.machine)


def may_be_of(machine: str, patterns: Iterable[str]) -> bool:
    """Whether a tag of this machine can match one of the patterns."""
    return any(passes(machine, [text.partition("/")[0]]) for text in patterns)


def _named(template: str, **parts: str) -> str:
    name = template.format(**{field: _fit(text) for field, text in parts.items()})
    return name.replace(".", "_") if name in _NO_NAMES else name[:_LONGEST]


def _fit(text: str) -> str:
    """What a topic's name cannot have becomes `_`; what is not known is `_` as well."""
    return _OTHER.sub("_", text) or "_"
