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
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.samples import TagInfo
from shopfloor.seams import Connection, Processor, Sink, Source

if TYPE_CHECKING:
    from shopfloor.plant.model import Plant

Kind = Literal["sources", "processors", "sinks", "historians"]

Role = Literal["viewer", "operator", "engineer", "admin"]
"""From the least to the most."""

VARIABLE: Final = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
"""``${NAME}``: the environment variable NAME stands here."""


class Form:
    """What text must look like: in an ``Annotated``, a pattern and how to say it to a person.

    The error then says the words; pydantic's own would show the regular expression.
    """

    def __init__(self, pattern: str, words: str) -> None:
        """``pattern`` covers the whole text; ``words`` complete the sentence "it must be …"."""
        self.pattern = f"^(?:{pattern})$"
        self.words = words

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Text of the form, checked by pydantic itself."""
        return core_schema.custom_error_schema(
            core_schema.str_schema(pattern=self.pattern),
            custom_error_type="form",
            custom_error_message="must be {words}",
            custom_error_context={"words": self.words},
        )


Name = Annotated[
    str, Form(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "letters, digits, `_`, `.` and `-`, at most 64, no spaces")
]
"""Letters, digits, ``_``, ``.``, ``-``; at most 64 characters."""

TagName = Annotated[
    str,
    Form(
        r"[^\s*?\[\]$\x00-\x1f][^*?\[\]\x00-\x1f]{0,254}",
        "a tag's name: 1 to 255 characters, none of `* ? [ ]`, and neither `$` nor a space at the beginning",
    ),
]
"""``machine/signal``: 1 to 255 characters, no ``* ? [ ]``, not starting with ``$`` or a space."""


class FromEnvironment(str):  # noqa: SLOT000  # str subclasses cannot have non-empty slots; this one has no state
    """A string of the plant file that came, at least in part, from ``${VAR}``."""


def _from_environment(value: object) -> object:
    if not isinstance(value, FromEnvironment | SecretStr | None):
        # The text of this error never shows the value, so it is not one that quotes its input.
        raise PydanticCustomError(
            "secret", "a secret must not stand in the plant file; write ${NAME} here and set NAME"
        )
    return str(value) if isinstance(value, str) else value


Secret = Annotated[
    SecretStr,
    BeforeValidator(_from_environment),
    WithJsonSchema({"type": "string", "pattern": VARIABLE, "writeOnly": True}),
]
"""A password or token: only by ``${VAR}``, never printed."""


class Strict(BaseModel):
    """A part of the plant file: unknown keys are refused, values are not changed afterwards."""

    # Defaults are not validated: they are written in code's units (nanoseconds, bytes), a file's values with theirs.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_identity(certificate_file: object, key_file: object, key_password: object) -> None:
    """Raise ValueError unless our certificate and its key are both given, or neither; a password needs a key."""
    if (certificate_file is None) != (key_file is None):
        raise ValueError("`certificate_file` and `key_file` belong together; give both")
    if key_password is not None and key_file is None:
        raise ValueError("`key_password` needs `key_file`")


class ComponentConfig(Strict):
    """A source, processor or sink as the plant file declares it.

    Relative paths in its own fields become absolute, from the plant file's folder, when the file is
    loaded; paths in models inside it are its own to resolve.
    """

    name: Name = Field(description="Its name in the console, the ledger and the logs; unique in the plant file.")
    type: str = Field(description="Which connector it is.")
    required: bool = Field(default=True, description="Whether `/ready` waits for it.")

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong with the files that it names, as (field, text); paths are absolute by now.

        Reading a plant file calls it, so a wrong path is found before anything starts. No network.
        """
        return ()


class SourceConfig(ComponentConfig, ABC):
    """Where samples come from."""

    address_key: ClassVar[str] = "address"
    """Under which key each of its `tags` says where the tag is; `shopfloor browse` writes it."""

    def probe(self) -> Connection:
        """What ``shopfloor probe`` enters and leaves: the source, unless one that is running would be disturbed."""
        return self.build()

    @abstractmethod
    def build(self) -> Source:
        """The source itself; opens nothing and reads no files yet."""

    def declared(self) -> Sequence[TagInfo] | None:
        """The tags that it gives, or None when only the other side knows them (a wildcard topic)."""
        return None


class ProcessorConfig(ComponentConfig, ABC):
    """What is worked out of samples."""

    def place(self, plant: "Plant") -> None:  # most need to know nothing of the plant
        """Told in which plant it is, before anything else is asked."""

    @abstractmethod
    def build(self) -> Processor:
        """The processor itself, in its first state."""

    @abstractmethod
    def inputs(self) -> Sequence[str]:
        """The tags that it reads; ``*`` matches any run of characters."""

    @abstractmethod
    def outputs(self) -> Sequence[TagInfo]:
        """The tags that it gives."""


class ByMessage(Strict):
    """Commands that come as messages from whoever the other side lets in."""

    role: Role = Field(
        default="operator",
        description="What the senders may: the broker decides who they are, so all of them have this role.",
    )
    who: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        default=None, description="Under which name the audit record keeps them; by default the sink's."
    )
    max_age: Annotated[Duration, Field(gt=0)] = Field(
        default=10 * DURATION_UNITS["s"],
        description="A message whose own time differs more than this from this computer's clock is refused.",
    )


class SinkConfig(ComponentConfig, ABC):
    """Where samples go."""

    tags: list[str] = Field(
        default=["*"],
        min_length=1,
        description="Which tags it gets: names or patterns in which `*` matches any run of characters.",
    )

    def place(self, plant: "Plant") -> None:  # most need to know nothing of the plant
        """Told in which plant it is (its site, machines, units of tags), before anything else is asked."""

    @abstractmethod
    def build(self) -> Sink:
        """The sink itself; opens nothing yet."""

    def probe(self) -> Connection:
        """What ``shopfloor probe`` enters and leaves: the sink, unless one that is running would be disturbed."""
        return self.build()

    def commanded(self) -> ByMessage | None:
        """How who gets the samples may ask for values to be written; None: not at all."""
        return None


@cache
def types(kind: Kind) -> dict[str, str]:
    """The types of this kind that are installed here, by name: ``module:Class``, nothing is imported."""
    return {point.name: point.value for point in sorted(entry_points(group=f"shopfloor.{kind}"))}


@cache
def config_class(kind: Kind, name: str) -> type[ComponentConfig]:
    """The config model of a type.

    Raises KeyError for one that is not installed, ImportError for one that cannot be loaded or that
    two packages give: the text says what to do.
    """
    points = {point.value: point for point in entry_points(group=f"shopfloor.{kind}", name=name)}
    if not points:
        raise KeyError(name)
    if len(points) > 1:
        msg = f"two packages give the type {name!r} ({', '.join(sorted(points))}); uninstall one of them"
        raise ImportError(msg)
    try:
        loaded = next(iter(points.values())).load()
    except Exception as error:  # an outsider's module may raise anything while it is imported
        msg = f"the type {name!r} is installed but cannot be loaded ({error}); install what it needs, or repair it"
        raise ImportError(msg) from error
    if not (isinstance(loaded, type) and issubclass(loaded, ComponentConfig)):
        msg = f"the type {name!r} is registered as {loaded!r}, which is no config model; repair the package"
        raise ImportError(msg)  # noqa: TRY004  # callers react to "cannot be loaded", whatever the reason
    return loaded


@cache
def tag_pattern(text: str) -> re.Pattern[str]:
    """A tag name in which ``*`` matches any run of characters, ``/`` included; use ``fullmatch``."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


def passes(tag: str, patterns: Iterable[str]) -> bool:
    """Whether the tag matches one of the patterns; Shopfloor's own ``$…`` tags only one that starts with ``$``."""
    own = tag.startswith("$")
    return any(tag_pattern(text).fullmatch(tag) for text in patterns if not own or text.startswith("$"))
