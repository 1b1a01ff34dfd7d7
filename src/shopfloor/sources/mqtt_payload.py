"""What a message means: which tags, which values, which times. Pure: bytes in, readings out.

MQTT's and Kafka's: a topic is levels between slashes here.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from string import Formatter
from typing import Annotated, Any, Final, Literal, NamedTuple, cast

import msgspec
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import Strict
from shopfloor.samples import INT_MAX, INT_MIN, Quality, TagInfo, Value

DataType = Literal["auto", "int", "float", "bool", "text", "bytes"]
TimeFormat = Literal["auto", "iso", "s", "ms", "us", "ns"]

_LONGEST_TAG: Final = 255
_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,20}")
_WHOLE: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,19})")
"""A number that is written as numbers are; what begins with a nought is the number of a part, thus text."""
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_BROKEN: Final = re.compile(r"[+-]?(?=[^eE]*\.|[0-9]+[eE])((0|[1-9][0-9]*)\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_FRACTION: Final = re.compile(r"[.,]([0-9]+)")
_UNFIT: Final = re.compile(r"[*?\[\]\x00-\x1f]|^[\s$]")
"""What a tag's name cannot have."""
_UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TRUE: Final = ("true", "on", "1")
_FALSE: Final = ("false", "off", "0")


class Unreadable(Exception):
    """A payload, or a part of it, is not what the plant file says; the text says why."""


class Reading(NamedTuple):
    """A value of a tag."""

    tag: str
    time: int | None
    """ns UTC; None where the payload gives none."""
    value: Value
    quality: int = Quality.GOOD


def template_fields(template: str) -> list[str]:
    """What stands in its braces. Raises ValueError for what cannot."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError("a brace is missing; write {topic} or {1}/{2}") from error
    fields = [part[1] for part in parts if part[1] is not None]
    for field, part in zip(fields, (part for part in parts if part[1] is not None), strict=True):
        if not (field in ("topic", "machine", "key") or re.fullmatch(r"[1-9][0-9]?", field)) or part[2] or part[3]:
            raise ValueError(
                "only {topic}, {1}, {2} … for the topic's levels and, for telemetry, {machine} can stand in braces"
            )
    return fields


def _template(text: str) -> str:
    template_fields(text)
    if re.search(r"[*?\[\]\x00-\x1f]|^[\s$]", text):
        raise ValueError("a tag's name has none of * ? [ ], and begins with neither $ nor a space")
    return text


def _filter(text: str) -> str:
    levels = text.split("/")
    if "\0" in text or any(("#" in level and (level != "#" or i < len(levels) - 1)) or ("+" in level and level != "+")
                           for i, level in enumerate(levels)):  # fmt: skip
        raise ValueError(f"{text!r} is no topic filter; `+` stands for a whole level, `#` for all at the end")
    return text


Template = Annotated[str, StringConstraints(min_length=1, max_length=_LONGEST_TAG), AfterValidator(_template)]
Filter = Annotated[str, StringConstraints(min_length=1, max_length=65_535), AfterValidator(_filter)]


class MqttValue(Strict):
    """A value in a JSON payload."""

    path: str = Field(min_length=1, description="Where it is: `data.pv`; a number is a place in a list, from 0.")
    tag: Template | None = Field(
        default=None, description="Its tag, a template like that of the topic; by default that one, `/` and the path."
    )
    data_type: DataType = Field(default="auto", description="What it must be; `auto` takes it as it comes.")
    unit: str = Field(default="", description="The unit of its values.")


class Payload(Strict):
    """What the messages of a topic mean."""

    payload: Literal["plain", "json", "telemetry", "csv"] = Field(
        default="plain",
        description="`plain`: the value as text. `json`: values at paths. `telemetry`: JSON objects with `machine`, "
        "`timestamp` and values. `csv`: a row or more with a value in each column.",
    )
    tag: Template | None = Field(
        default=None,
        description="Which tag it is: `{topic}` is the whole topic, `{1}`, `{2}` … its levels from the first. "
        "By default `{topic}`; for telemetry `{machine}`.",
    )
    data_type: DataType = Field(
        default="auto", description="For `plain`, what the value must be; `auto` finds out whether it is a number, "
        "`true` or `false`, or text."
    )  # fmt: skip
    values: list[MqttValue] = Field(
        default=[], description="For `json`, the values; without any, each value of the payload gets a tag by its path."
    )
    columns: list[str] = Field(
        default=[], description="For `csv`, the columns in order, an empty name leaves one out; "
        "without any, the first line of a message names them."
    )  # fmt: skip
    separator: str = Field(
        default=",", min_length=1, max_length=1, description="For `csv`, what separates the columns."
    )
    time: str | None = Field(
        default=None, min_length=1,
        description="The path or column of the time; without it, the time of reception. For telemetry `timestamp`.",
    )  # fmt: skip
    time_format: TimeFormat = Field(
        default="auto", description="`iso`: ISO 8601, UTC where it names no zone. Else the unit since 1970; "
        "`auto` tells it by its size."
    )  # fmt: skip
    quality: str | None = Field(
        default=None, min_length=1, description="For `json`, the path of the OPC quality; without it, good."
    )
    unit: str = Field(default="", description="For `plain`, the unit of the values.")

    @property
    def template(self) -> str:
        """The tag's template, written or by default."""
        return self.tag or ("{machine}" if self.payload == "telemetry" else "{topic}")

    @property
    def templates(self) -> list[str]:
        """All templates of tags, written or by default."""
        return [self.template, *(value.tag for value in self.values if value.tag)]

    @model_validator(mode="after")
    def _consistent(self) -> "Payload":
        only = {"values": "json", "quality": "json", "columns": "csv"}
        for name, payload in only.items():
            if getattr(self, name) and self.payload != payload:
                raise ValueError(f"`{name}` belongs to `payload: {payload}`; take it out or change `payload`")
        if self.time and self.payload == "plain":
            raise ValueError("a `plain` payload has no `time`; take it out, or use json or csv")
        if any(value.data_type == "bytes" for value in self.values):
            raise ValueError("JSON has no bytes; use `data_type: text`, or `payload: plain`")
        if self.payload != "telemetry" and any("machine" in template_fields(template) for template in self.templates):
            raise ValueError("{machine} needs `payload: telemetry`; use the topic's levels, {1}, {2} …")
        return self


class MqttTopic(Payload):
    """A topic filter to subscribe to, and what its messages mean."""

    topic: Filter = Field(description="The topic; `+` stands for any one level, `#` at the end for all that follow.")
    qos: Literal[0, 1] = Field(
        default=1, description="1: acknowledged once it is durable. 0: the broker may lose messages."
    )

    @model_validator(mode="after")
    def _levels(self) -> "MqttTopic":
        levels = self.topic.split("/")
        for template in self.templates:
            fields = template_fields(template)
            if "key" in fields:
                raise ValueError("an MQTT message has no {key}; use the topic's levels, {1}, {2} …")
            if levels[-1] != "#" and any(field.isdigit() and int(field) > len(levels) for field in fields):
                raise ValueError(f"{template!r} names a level that {self.topic} does not have; {{1}} is the first")
        return self


class Meaning:
    """What the messages of a topic mean."""

    def __init__(self, config: Payload) -> None:
        """Raises nothing: the configuration is valid."""
        self.config = config
        self._paths = [(value, value.path.split(".")) for value in config.values]
        self._time = config.time.split(".") if config.time else None
        self._quality = config.quality.split(".") if config.quality else None
        self._read: Callable[[str, bytes], list[Reading]] = {
            "plain": self._plain, "json": self._json, "telemetry": self._telemetry, "csv": self._csv,
        }[config.payload]  # fmt: skip

    def readings(self, topic: str, payload: bytes) -> list[Reading]:
        """The values of a message; raises Unreadable when there is none to be had."""
        try:
            return self._read(topic, payload)
        except (msgspec.DecodeError, UnicodeDecodeError, csv.Error) as error:
            raise Unreadable(f"it is no {self.config.payload}: {error}") from error
        except RecursionError as error:
            raise Unreadable("it is nested too deeply") from error

    def tags(self, topic: str) -> list[str]:
        """The tags that a message of this topic is known to have, whatever it says; raises Unreadable."""
        config = self.config
        if config.payload == "plain":
            return [_tag(config.template, topic)]
        if config.payload == "json":
            return [self._tag_of(value, topic) for value in config.values]
        if config.payload == "csv":
            prefix = _tag(config.template, topic)
            return [_fit(f"{prefix}/{name}") for name in config.columns if name and name != config.time]
        return []

    def declared(self, topic: str) -> list[TagInfo] | None:
        """The tags of this topic, where the plant file alone tells them; else None."""
        config = self.config
        open_ended = config.payload == "telemetry" or (
            config.payload != "plain" and not (config.values or config.columns)
        )
        if open_ended:
            return None
        units = [value.unit for value in config.values] or [config.unit] * max(1, len(config.columns))
        return [TagInfo(tag, topic, unit=unit) for tag, unit in zip(self.tags(topic), units, strict=False)]

    # ---- payloads -----------------------------------------------------------------------------------

    def _plain(self, topic: str, payload: bytes) -> list[Reading]:
        return [Reading(_tag(self.config.template, topic), None, plain(payload, self.config.data_type))]

    def _json(self, topic: str, payload: bytes) -> list[Reading]:
        said = msgspec.json.decode(payload)
        if self._paths:
            found = [(value, at_path(said, path)) for value, path in self._paths]
            return self._found(topic, said, [one for one in found if one[1] is not ABSENT])
        return self._all(topic, said)

    def of_record(self, topic: str, said: object) -> list[Reading]:
        """The values of a record that has a schema: all of its fields are there, and those that say nothing are null.

        So of several paths with one tag the first counts that has a value. Raises Unreadable.
        """
        if self.config.payload == "telemetry":
            return self._of_telemetry(topic, said)
        if not self._paths:
            return [reading for reading in self._all(topic, said) if reading.value is not None]
        first: dict[str, tuple[MqttValue, object]] = {}
        for value, path in self._paths:
            tag, leaf = self._tag_of(value, topic), at_path(said, path)
            if leaf is not ABSENT and (tag not in first or first[tag][1] is None):
                first[tag] = (value, leaf)
        return self._found(topic, said, list(first.values()))

    def _found(self, topic: str, said: object, found: Sequence[tuple[MqttValue, object]]) -> list[Reading]:
        """What is at the paths of ``values``."""
        if not found:
            raise Unreadable("it has none of the paths of `values`")
        time, quality = self._stamp(said)
        return [_reading(self._tag_of(value, topic), time, leaf, quality, value.data_type) for value, leaf in found]

    def _all(self, topic: str, said: object) -> list[Reading]:
        """Everything in it, by its path."""
        time, quality = self._stamp(said)
        prefix = _tag(self.config.template, topic)
        apart = {self.config.time, self.config.quality}
        readings = [
            _reading(_fit(prefix + "".join(f"/{part}" for part in path)), time, leaf, quality)
            for path, leaf in _leaves(said)
            if not path or ".".join(path) not in apart
        ]
        if not readings:
            raise Unreadable("it has no values")
        return readings

    def _stamp(self, said: object) -> tuple[int | None, int]:
        """Its time, where it has one, and its quality."""
        time, quality = self._time_of(said, self._time)
        return time, min(quality, self._quality_of(said)) if quality < Quality.GOOD else self._quality_of(said)

    def _telemetry(self, topic: str, payload: bytes) -> list[Reading]:
        return self._of_telemetry(topic, msgspec.json.decode(payload))

    def _of_telemetry(self, topic: str, said: object) -> list[Reading]:
        readings: list[Reading] = []
        several = cast("list[object]", said) if isinstance(said, list) else [said]
        for one in several:
            machine = cast("dict[str, Any]", one).get("machine") if isinstance(one, dict) else None
            if not isinstance(machine, str | int) or isinstance(machine, bool) or machine == "":
                raise Unreadable("it names no `machine`")
            values = cast("dict[str, Any]", one)
            key = self.config.time or "timestamp"
            time, quality = self._time_of(values, [key])
            prefix = _tag(self.config.template, topic, str(machine))
            readings += [
                _reading(_fit(f"{prefix}/{name}"), time, value, quality)
                for name, value in values.items()
                if name not in ("machine", key)
            ]
        if not readings:
            raise Unreadable("it has no values")
        return readings

    def _csv(self, topic: str, payload: bytes) -> list[Reading]:
        rows = [row for row in csv.reader(payload.decode().splitlines(), delimiter=self.config.separator) if row]
        columns = self.config.columns or (rows.pop(0) if rows else [])
        if not rows:
            raise Unreadable("it has no row")
        prefix = _tag(self.config.template, topic)
        tags = {name: _fit(f"{prefix}/{name}") for name in columns if name and name != self.config.time}
        readings: list[Reading] = []
        for row in rows:
            if len(row) != len(columns):
                readings += [Reading(tag, None, None, Quality.BAD) for tag in tags.values()]
                continue
            said = dict(zip(columns, row, strict=True))
            time, quality = self._time_of(said, [self.config.time] if self.config.time else None)
            readings += [_reading(tag, time, untyped(said[name].strip()), quality) for name, tag in tags.items()]
        return readings

    # ---- parts --------------------------------------------------------------------------------------

    def _tag_of(self, value: MqttValue, topic: str) -> str:
        if value.tag is not None:
            return _tag(value.tag, topic)
        return _fit(f"{_tag(self.config.template, topic)}/{value.path.replace('.', '/')}")

    def _time_of(self, said: object, path: Sequence[str] | None) -> tuple[int | None, int]:
        """The time, and the quality that it allows: a time that cannot be read leaves the values uncertain."""
        found = None if path is None else at_path(said, path)
        if found is None or found is ABSENT or found == "":
            return None, Quality.GOOD
        try:
            return parse_time(found, self.config.time_format), Quality.GOOD
        except Unreadable:
            return None, Quality.UNCERTAIN

    def _quality_of(self, said: object) -> int:
        if self._quality is None:
            return Quality.GOOD
        found = at_path(said, self._quality)
        good = isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 255  # noqa: PLR2004  # a byte
        return found if good else Quality.UNCERTAIN


class FilterMeaning(Meaning):
    """What the messages of one topic filter of MQTT mean."""

    def __init__(self, config: MqttTopic) -> None:
        """Raises nothing: the configuration is valid."""
        super().__init__(config)
        self._filter = config.topic
        levels = config.topic.split("/")
        pattern = "/".join("[^/]*" if level == "+" else re.escape(level) for level in levels if level != "#")
        if levels[-1] == "#":
            pattern = f"{pattern}(/.*)?" if len(levels) > 1 else ".*"
        self._pattern = re.compile(("" if config.topic.startswith("$") else r"(?!\$)") + pattern, re.DOTALL)

    def covers(self, topic: str) -> bool:
        """Whether the topic is one of them."""
        return self._pattern.fullmatch(topic) is not None

    def of_filter(self) -> list[TagInfo] | None:
        """Its tags, where the plant file alone tells them; else None."""
        return None if "+" in self._filter or self._filter.endswith("#") else self.declared(self._filter)


ABSENT: Final = object()
"""What is found where there is nothing."""


def at_path(said: object, path: Sequence[str]) -> Any:
    """What is at the path; ``ABSENT`` when there is nothing."""
    for part in path:
        if isinstance(said, dict):
            said = cast("dict[str, object]", said).get(part, ABSENT)
        elif isinstance(said, list) and part.isdecimal() and int(part) < len(cast("list[object]", said)):
            said = cast("list[object]", said)[int(part)]
        else:
            return ABSENT
    return said


def _leaves(said: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Everything in objects that is no object itself, with its path; iterative, so that depth costs no stack."""
    left: list[tuple[tuple[str, ...], object]] = [((), said)]
    while left:
        path, one = left.pop()
        if isinstance(one, dict):
            inner = cast("Mapping[str, object]", one)
            left += [((*path, name), value) for name, value in reversed(list(inner.items()))]
        else:
            yield path, one


@lru_cache(4096)
def _tag(template: str, topic: str, machine: str = "") -> str:
    levels = topic.split("/")
    try:
        return _fit(template.format("", *levels, topic=topic, machine=machine))
    except IndexError as error:
        raise Unreadable(f"its topic has only {len(levels)} levels") from error


@lru_cache(4096)
def _fit(tag: str) -> str:
    """The name with what a tag cannot have percent-encoded; raises Unreadable when it is too long or empty."""
    fit = _UNFIT.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), tag)
    if not 0 < len(fit) <= _LONGEST_TAG:
        raise Unreadable(f"its tag would have {len(fit)} characters, {_LONGEST_TAG} at most can be")
    return fit


def _reading(tag: str, time: int | None, value: object, quality: int, data_type: DataType = "auto") -> Reading:
    """The reading; bad, without a value, when the value is null or not what it must be."""
    try:
        typed = converted(value, data_type)
    except Unreadable:
        return Reading(tag, time, None, Quality.BAD)
    return Reading(tag, time, typed, Quality.BAD if typed is None else quality)


def plain(payload: bytes, data_type: DataType) -> Value:
    """The value of a plain payload; raises Unreadable, UnicodeDecodeError."""
    if data_type == "bytes":
        return payload
    text = payload.decode()
    value = converted(untyped(text) if data_type == "auto" else text, data_type)
    if value is None:
        raise Unreadable("it is empty")
    return value


def untyped(text: str) -> Value:
    """Text as the value that it most likely is."""
    if text == "":
        return None
    if _WHOLE.fullmatch(text):
        return int(text)
    if _BROKEN.fullmatch(text):
        return float(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def converted(value: object, data_type: DataType) -> Value:
    """A value as this type; raises Unreadable when it is none, None stays None."""
    if value is None:
        return None
    if isinstance(value, dict | list):
        if data_type not in ("auto", "text"):
            raise Unreadable(f"it is no {data_type}")
        return msgspec.json.encode(cast("object", value)).decode()
    found = _converters[data_type](value)
    if found is None or (isinstance(found, int) and not INT_MIN <= found <= INT_MAX):
        raise Unreadable(f"it is no {data_type}" if found is None else "it is beyond 64 bits")
    return found


def _int(value: object) -> Value:
    if isinstance(value, str):
        return int(value) if _DIGITS.fullmatch(value) else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: object) -> Value:
    if isinstance(value, str) and not _NUMBER.fullmatch(value) and value.lower() not in {"nan", "inf", "-inf"}:
        return None
    if isinstance(value, bool):
        return None
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except OverflowError:
        return None


def _bool(value: object) -> Value:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _text(value: object) -> Value:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _as_it_is(value: object) -> Value:
    return cast("Value", value)


_converters: Final[dict[str, Callable[[object], Value]]] = {
    "auto": _as_it_is, "int": _int, "float": _float, "bool": _bool, "text": _text, "bytes": _as_it_is,
}  # fmt: skip


def parse_time(said: object, time_format: TimeFormat) -> int:
    """A time of a payload in ns UTC; raises Unreadable for what is none."""
    if isinstance(said, str):
        said = said if time_format == "iso" else said.strip()
        if time_format != "iso" and ":" not in said:  # what has a colon is no number
            said = untyped(said)
    if isinstance(said, str) and time_format in ("auto", "iso"):
        time = _iso(said)
    elif isinstance(said, int | float) and not isinstance(said, bool) and time_format != "iso":
        size = abs(said)
        if size != size or size > INT_MAX:  # noqa: PLR0124  # NaN differs from itself
            raise Unreadable("its time is out of range")
        unit = time_format if time_format != "auto" else _unit(size)
        whole = int(said)
        # Of a moment of our days a float tells no more than microseconds; the digits behind are its own noise.
        time = whole * _UNITS[unit] + round((said - whole) * _UNITS[unit] / 1000) * 1000
    else:
        raise Unreadable("its time cannot be read")
    if not -(2**63) <= time < 2**63:
        raise Unreadable("its time is out of range")
    return time


def _unit(size: float) -> Literal["s", "ms", "us", "ns"]:
    """The unit in which a number of this size lies between 1973 and 5138."""
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"  # noqa: PLR2004


def _iso(text: str) -> int:
    """ISO 8601 to the nanosecond."""
    fraction = _FRACTION.search(text)
    if fraction is None:
        return _whole_second(text)
    whole = _whole_second(text[: fraction.start()] + text[fraction.end() :])
    return whole + int(fraction[1][:9].ljust(9, "0"))


@lru_cache(4096)
def _whole_second(text: str) -> int:
    """Most messages of a second name the same one."""
    try:
        moment = datetime.fromisoformat(text)
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError) as error:
        raise Unreadable("its time cannot be read") from error
    return (since.days * 86_400 + since.seconds) * 10**9
