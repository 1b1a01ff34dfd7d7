"""What every component's configuration has in common, and how a ``type`` finds its class.

A connector's config model is its parser, its validation, its documentation and its factory at once:
every field has a description, ``build`` makes the component. Types are found by entry point, the
product's own and outsiders' alike: ``shopfloor.sources``, ``shopfloor.processors``, ``shopfloor.sinks``
and ``shopfloor.historians``.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, StringConstraints

from shopfloor.samples import TagInfo
from shopfloor.seams import Processor, Sink, Source

Kind = Literal["sources", "processors", "sinks", "historians"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Letters, digits, ``_``, ``.``, ``-``; at most 64 characters."""

TagName = Annotated[str, StringConstraints(pattern=r"^[^\s*?\[\]$\x00-\x1f][^*?\[\]\x00-\x1f]{0,254}$")]
"""``machine/signal``: 1 to 255 characters, no ``* ? [ ]``, not starting with ``$`` or a space."""


class FromEnvironment(str):  # noqa: SLOT000  # str subclasses cannot have non-empty slots; this one has no state
    """A string of the plant file that came, at least in part, from ``${VAR}``."""


def _from_environment(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, FromEnvironment):
        msg = "a secret must not stand in the plant file; write ${NAME} and set NAME in the environment"
        raise ValueError(msg)
    return str(value) if isinstance(value, str) else value


Secret = Annotated[SecretStr, BeforeValidator(_from_environment)]
"""A password or token: only by ``${VAR}``, never printed."""


class Strict(BaseModel):
    """A part of the plant file: unknown keys are refused, values are not changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class ComponentConfig(Strict):
    """A source, processor or sink as the plant file declares it."""

    name: Name = Field(description="Its name in the console, the ledger and the logs; unique in the plant file.")
    type: str = Field(description="Which connector it is.")
    required: bool = Field(default=True, description="Whether `/ready` waits for it.")


class SourceConfig(ComponentConfig, ABC):
    """Where samples come from."""

    @abstractmethod
    def build(self) -> Source:
        """The source itself; opens nothing and reads no files yet."""

    def declared(self) -> Sequence[TagInfo] | None:
        """The tags that it gives, or None when only the other side knows them (a wildcard topic)."""
        return None


class ProcessorConfig(ComponentConfig, ABC):
    """What is worked out of samples."""

    @abstractmethod
    def build(self) -> Processor:
        """The processor itself, in its first state."""

    @abstractmethod
    def inputs(self) -> Sequence[str]:
        """The tags that it reads; ``*`` matches any run of characters."""

    @abstractmethod
    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives."""


class SinkConfig(ComponentConfig, ABC):
    """Where samples go."""

    tags: list[str] = Field(
        default=["*"],
        min_length=1,
        description="Which tags it gets: names or patterns in which `*` matches any run of characters.",
    )

    @abstractmethod
    def build(self) -> Sink:
        """The sink itself; opens nothing yet."""


@cache
def types(kind: Kind) -> dict[str, str]:
    """The types of this kind that are installed here, by name: ``module:Class``, nothing is imported."""
    return {point.name: point.value for point in sorted(entry_points(group=f"shopfloor.{kind}"))}


@cache
def config_class(kind: Kind, name: str) -> type[ComponentConfig]:
    """The config model of a type. Raises KeyError for one that is not installed."""
    (point,) = entry_points(group=f"shopfloor.{kind}", name=name) or (None,)
    if point is None:
        raise KeyError(name)
    loaded: type[ComponentConfig] = point.load()
    return loaded


@cache
def tag_pattern(text: str) -> re.Pattern[str]:
    """A tag name in which ``*`` matches any run of characters, ``/`` included; use ``fullmatch``."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


def passes(tag: str, patterns: Iterable[str]) -> bool:
    """Whether the tag matches one of the patterns."""
    return any(tag_pattern(text).fullmatch(tag) for text in patterns)
