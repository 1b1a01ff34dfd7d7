"""InfluxDB's line protocol: samples as lines, every character of them where it belongs.

    shopfloor,machine=press-1,tag=press-1/PV,unit=bar value=41.5,quality=192i 1767592800123456789

The protocol has no way to write some names (a line break; a backslash at the end or before a character that is
escaped by one): those are refused here, since servers would read them each in their own way.
"""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Final, Literal

from shopfloor.samples import Sample, Value
from shopfloor.sinks.tag_facts import TagFacts

INT64_MAX: Final = 2**63 - 1
TagKey = Literal["source", "unit", "machine", "signal", "line", "site"]
PLACES: Final = ("tag", "machine", "signal", "line", "source", "site")
"""What may stand in the template of a measurement."""
REPEAT: Final = "repeat"
"""The tag that tells values of one series and time apart: absent for the first, 1 for the second."""

_NAME: Final = str.maketrans({",": r"\,", " ": r"\ "})
_KEY: Final = str.maketrans({",": r"\,", " ": r"\ ", "=": r"\="})
_TEXT: Final = str.maketrans({'"': r"\"", "\\": r"\\"})
_UNWRITABLE: Final = re.compile(r"[\n\r\x00]|\\$|\\[, =]")
_FIELDS: Final[Mapping[type, str]] = {
    float: "value", int: "value_int", bool: "value_bool", str: "value_text", bytes: "value_base64",
}  # fmt: skip
"""The field of each type of value: in InfluxDB a field has one type for ever."""


class Unwritable(ValueError):
    """A sample that line protocol cannot say; the text says why."""


def measurement_template(text: str) -> str:
    """The text, when only names of PLACES stand in braces; else ValueError."""
    try:
        fields = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError:
        fields = [("", "", None)]
    if any(field not in [(place, "", None) for place in PLACES] for field in fields):
        raise ValueError(f"only {', '.join(f'{{{place}}}' for place in PLACES)} can stand in braces")
    if text.startswith("#") or _UNWRITABLE.search(text):
        raise ValueError("a measurement begins with no `#` and has no line break, and no backslash at its end")
    return text


class Lines:
    """Makes lines of samples."""

    def __init__(  # each says a part of a line
        self,
        facts: TagFacts,
        *,
        measurement: str,
        tag_set: Sequence[TagKey],
        labels: Mapping[str, str],
        by_type: bool,
        unsigned: bool,
    ) -> None:
        """``by_type``: a field for each type of value; ``unsigned``: whether the server knows unsigned integers."""
        self._facts = facts
        self._measurement = measurement
        self._tag_set = tag_set
        self._labels = labels
        self._by_type = by_type
        self._unsigned = unsigned
        self._series: dict[tuple[str, str], str] = {}

    def line(self, sample: Sample, source: str, repeat: int) -> bytes:
        """The line of a sample; ``repeat`` counts those of its series and time before it. Raises Unwritable."""
        series = self._series.get((sample.tag, source))
        if series is None:
            series = self._series[sample.tag, source] = self._key(sample.tag, source)
        again = f",{REPEAT}={repeat}" if repeat else ""
        status = f",status={sample.status}i" if sample.status else ""
        fields = f"{self._field(sample.value)}quality={int(sample.quality)}i{status}"
        try:
            return f"{series}{again} {fields} {sample.time}".encode()
        except UnicodeEncodeError as error:
            raise Unwritable("the text is not Unicode, so it cannot be written as UTF-8") from error

    def _key(self, tag: str, source: str) -> str:
        """Measurement and tags, in the order that InfluxDB sorts them into anyway."""
        where = self._facts.where(tag)
        known = {
            "tag": tag, "source": source, "site": self._facts.site, "machine": where.machine, "signal": where.signal,
            "line": where.line, "unit": self._facts.units.get(tag, ""),
        }  # fmt: skip
        name = self._measurement.format(**known)
        tags = dict(self._labels) | {"tag": tag} | {key: known[key] for key in self._tag_set}
        if name.startswith("#") or not name:
            raise Unwritable(f"a measurement cannot be called {name!r}")
        for text in (name, *tags.values()):
            if _UNWRITABLE.search(text):
                raise Unwritable(f"line protocol has no way to write the name {text!r}")
        said = "".join(f",{k.translate(_KEY)}={v.translate(_KEY)}" for k, v in sorted(tags.items()) if v)
        return name.translate(_NAME) + said

    def _field(self, value: Value) -> str:
        """The field of a value with a comma behind it; nothing where there is no value."""
        if value is None:
            return ""
        said = self._said(value)
        if self._by_type:
            return f"{_FIELDS[type(value)]}={said},"
        encoding = 'encoding="base64",' if isinstance(value, bytes) else ""
        return f"value={said},{encoding}"

    def _said(self, value: bool | float | str | bytes) -> str:  # noqa: FBT001  # a value of a sample
        match value:
            case bool():
                return "true" if value else "false"
            case int():
                if value <= INT64_MAX:
                    return f"{value}i"
                if self._unsigned:
                    return f"{value}u"
                raise Unwritable(f"InfluxDB 1 has no integers above {INT64_MAX}")
            case float():
                if math.isfinite(value):
                    return repr(value)
                raise Unwritable(f"InfluxDB has no {value}: not a finite number")
            case str():
                return f'"{value.translate(_TEXT)}"'
            case bytes():
                return f'"{base64.b64encode(value).decode()}"'
