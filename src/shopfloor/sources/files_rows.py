"""What a row of a file means: its time, its tags, their values. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, StringConstraints

from shopfloor.plant.components import Strict
from shopfloor.samples import TagInfo, Value
from shopfloor.sources.files_time import Clock, When
from shopfloor.sources.mqtt_payload import DataType, Unreadable, converted, untyped

Decimal = Literal[".", ","]

_TAG: Final = re.compile(r"[^\s*?\[\]$\x00-\x1f][^*?\[\]\x00-\x1f]{0,254}")
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_COMMA: Final = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d{1,3})?")
_POINT: Final = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d{1,3})?")
_GROUPED: Final = re.compile(r"[+-]?\d{1,3}([.,' ]\d{3})+([.,]\d+)?")
"""12,345.6: a number with separators of thousands."""
_REMEMBERED: Final = 100_000
"""Tags that are remembered."""


def _template(text: str) -> str:
    rest = _PLACE.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError("a brace is missing; write {column}, {file}, or a column's name in braces")
    if "{}" in text:
        raise ValueError("there is nothing in the braces; write {column}, {file}, or a column's name in braces")
    if not _TAG.fullmatch(_PLACE.sub("x", text)):
        raise ValueError("a tag's name has none of * ? [ ], and begins with neither $ nor a space")
    return text


Template = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_template)]


class FileColumn(Strict):
    """A column that becomes a tag."""

    column: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="Its name in the header; for JSON lines the path, `data.pv`."
    )
    tag: Template | None = Field(default=None, description="Its tag, a template as the source's; by default that one.")
    data_type: Literal["auto", "int", "float", "bool", "text"] = Field(
        default="auto",
        description="What its values must be; `auto` finds out whether each is a number, `true` or `false`, or text.",
    )
    unit: str = Field(default="", description="The unit of its values.")
    description: str = Field(default="", description="What it is.")


class Readings(NamedTuple):
    """What a row says."""

    when: When | None
    """None: it names no time."""
    tags: list[str]
    values: list[Value]


class Meaning:
    """What the rows of a source's files mean."""

    def __init__(
        self,
        template: str,
        columns: Sequence[FileColumn],
        time: Sequence[str],
        clock: Clock,
        decimal: Decimal | None,
    ) -> None:
        """``template`` is the source's, ``columns`` may be empty: all but those of the time and of the templates.

        ``decimal`` None says that values have types of their own (JSON), so text is text.
        """
        self._template = template
        self._columns = {column.column: column for column in columns}
        self._time = tuple(time)
        self._clock = clock
        self._decimal = decimal
        self._tags: dict[tuple[str, ...], str] = {}
        templates = {column.tag or template for column in columns} or {template}
        self._parts = {one: _PLACE.split(one) for one in {template, *templates}}
        places = {place for one in templates for place in self._parts[one][1::2]} - {"column", "file"}
        self._apart = {*time, *places}
        self.needed = {*self._apart, *self._columns}
        """The columns that a table must have."""

    def declared(self) -> list[TagInfo] | None:
        """The tags, where the plant file alone tells them; else None."""
        found: list[TagInfo] = []
        for column in self._columns.values():
            text = column.tag or self._template
            if set(self._parts[text][1::2]) - {"column"}:
                return None
            tag = self._tag(text, column.column, "", {})
            found.append(TagInfo(tag, column.column, unit=column.unit, description=column.description, writable=False))
        return found or None

    def readings(self, fields: Mapping[str, object], file: str, last: int | None = None) -> Readings:
        """The values of a row of this file (its name without suffix); ``last`` is the time of the row before.

        Raises Unreadable when one of them is not what it must be: the row is then rejected as a whole.
        """
        when = self._when(fields, last)
        tags: list[str] = []
        values: list[Value] = []
        for name in self._columns or fields:
            if not name or (name in self._apart and name not in self._columns):
                continue
            value = self._value(name, fields.get(name))
            if value is not None:
                column = self._columns.get(name)
                tags.append(self._tag((column and column.tag) or self._template, name, file, fields))
                values.append(value)
        return Readings(when, tags, values)

    def _when(self, fields: Mapping[str, object], last: int | None) -> When | None:
        if not self._time:
            return None
        if len(self._time) == 1:
            said = fields.get(self._time[0])
            if said is None or said == "":
                raise Unreadable(f"it has no time in {self._time[0]!r}")
            return self._clock.read(said, last)
        return self._clock.read(" ".join(str(fields.get(name, "")).strip() for name in self._time), last)

    def _value(self, name: str, said: object) -> Value:
        column = self._columns.get(name)
        data_type = column.data_type if column else "auto"
        try:
            if not isinstance(said, str) or self._decimal is None:
                return _as(said, data_type)
            text = said.strip()
            if not text:
                return None
            if data_type == "text":
                return text
            text = self._with_point(text)
            return _as(untyped(text) if data_type == "auto" else text, data_type)
        except Unreadable as error:
            raise Unreadable(f"in column {name!r} {str(said)[:60]!r}: {error}") from error

    def _with_point(self, text: str) -> str:
        """A number with a decimal point. Raises Unreadable for one that would be misread."""
        comma = _COMMA.fullmatch(text) is not None
        if self._decimal == "," and comma:
            return text.replace(",", ".")
        if comma:
            raise Unreadable('a comma in a number; set `decimal: ","`, or `data_type: text` if it is none')
        if self._decimal == "," and _POINT.fullmatch(text):
            raise Unreadable('a point in a number; set `decimal: "."`, or `data_type: text` if it is none')
        if _GROUPED.fullmatch(text) and not _POINT.fullmatch(text):
            raise Unreadable("separators of thousands cannot be told from decimal ones; let the machine leave them out")
        return text

    def _tag(self, template: str, column: str, file: str, fields: Mapping[str, object]) -> str:
        parts = self._parts[template]
        key = (template, *(self._place(place, column, file, fields) for place in parts[1::2]))
        known = self._tags.get(key)
        if known is not None:
            return known
        tag = "".join(key[1 + i // 2] if i % 2 else part for i, part in enumerate(parts))
        if not _TAG.fullmatch(tag):
            raise Unreadable(f"its tag would be {tag[:80]!r}: 1 to 255 characters, none of * ? [ ], no $ first")
        if len(self._tags) >= _REMEMBERED:
            self._tags.clear()
        self._tags[key] = tag
        return tag

    def _place(self, place: str, column: str, file: str, fields: Mapping[str, object]) -> str:
        if place == "column":
            return column
        if place == "file":
            return file
        said = fields.get(place)
        if said is None or isinstance(said, dict | list) or str(said).strip() == "":
            raise Unreadable(f"it has nothing in {place!r}, which its tags need")
        return str(said).strip()


def _as(value: object, data_type: DataType) -> Value:
    try:
        return converted(value, data_type)
    except Unreadable as error:
        raise Unreadable(f"{error}; change `data_type`, or what the machine writes") from error
