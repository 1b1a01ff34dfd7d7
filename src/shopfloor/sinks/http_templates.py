"""Bodies and addresses as templates: Jinja2 in its sandbox, with every value escaped as the content wants it.

In JSON ``{{ sample.value }}`` becomes a JSON value: text with its quotes, ``null`` for nothing and for what JSON
has no word for. In XML it becomes text with ``<`` and ``&`` escaped, in an address it is percent-encoded. So a
template cannot be broken by what a machine says.
"""

import base64
import json
import math
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import msgspec
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shopfloor.samples import Batch, Sample, Value
from shopfloor.sinks.text import iso

_FILE: Final = "<template>"
"""How Jinja2 names the template in its tracebacks."""
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INDICES: Final = {"tag": "press-1/PV", "machine": "press-1", "signal": "PV", "source": "plc", "site": "bremen"}
_EXAMPLES: Final[Sequence[tuple[str, Value]]] = (("press-1/PV", 41.5), ("press-1/Count", 7))
_ODD: Final[Sequence[tuple[str, Value]]] = (
    ('oven "2"/<T> & C', 'Grüße, "world" \\ <&>\n'), ("a", None), ("b", True), ("c", math.nan), ("d", b"\x00"),
)  # fmt: skip
"""What a template must bear, too."""


class CannotFill(ValueError):
    """A template that cannot be filled in with these samples; the text says why."""


class Raw(str):
    """Text that stands in the result as it is."""

    __slots__ = ()


def described(sample: Sample, batch: Batch, unit: str, key: str) -> Mapping[str, object]:
    """A sample as templates see it."""
    machine, _, signal = sample.tag.partition("/")
    value, encoding, special = sample.value, "", ""
    if isinstance(value, bytes):
        value, encoding = base64.b64encode(value).decode(), "base64"
    elif isinstance(value, float) and not math.isfinite(value):
        special = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        value = None
    return {
        "tag": sample.tag, "machine": machine, "signal": signal or machine, "source": batch.source, "unit": unit,
        "value": value, "encoding": encoding, "special": special, "quality": int(sample.quality), "good": sample.good,
        "status": sample.status, "time": iso(sample.time), "time_ms": sample.time // 10**6, "time_ns": sample.time,
        "received": iso(batch.received), "key": key,
    }  # fmt: skip


class BodyTemplate:
    """The body of a request."""

    def __init__(self, text: str, content_type: str) -> None:
        """Raises ValueError for what is no template, with the line in it."""
        self._kind = "json" if "json" in content_type else "xml" if "xml" in content_type else "text"
        self._template = _compiled(text, self._kind)

    def fill(self, samples: Sequence[Mapping[str, object]], site: str, key: str) -> bytes:
        """The body for these samples. Raises CannotFill."""
        text = _filled(self._template, {"samples": samples, "sample": samples[0], "site": site, "key": key})
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise CannotFill(f"is no Unicode text: {error.reason}") from error

    def check(self, most: int) -> None:
        """Fill in samples of each kind and read the result. Raises ValueError with the line and what to do."""
        usual = [_example(tag, value) for tag, value in _EXAMPLES[:most]]
        self._read(self.fill(usual, "bremen", "k"))
        for tag, value in _ODD:
            try:
                filled = self.fill([_example(tag, value)], "bremen", "k")
            except CannotFill:
                continue  # arithmetic with a text: such samples become dead letters
            self._read(filled)

    def _read(self, filled: bytes) -> None:
        text = filled.decode()
        try:
            if self._kind == "json":
                json.loads(text)
            elif self._kind == "xml":
                ET.fromstring(text)  # noqa: S314  # our own text, filled in with examples
        except ValueError as error:  # JSON
            raise ValueError(
                f"is no JSON once it is filled in: {error}: {_line_of(text, getattr(error, 'lineno', 1))!r}; write "
                "{{ sample.value }} without quotes round it, they come by themselves"
            ) from error
        except ET.ParseError as error:
            line = error.position[0]
            raise ValueError(f"is no XML once it is filled in: {error}: {_line_of(text, line)!r}") from error


class UrlTemplate:
    """The address of a request, from what is known of a tag."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no template."""
        self.constant = "{{" not in text and "{%" not in text
        self._text = text
        self._template = None if self.constant else _compiled(text, "url")
        self.of = lru_cache(65536)(self._of)

    def _of(self, tag: str, source: str, site: str) -> str:
        """The address for a tag of a source. Raises CannotFill."""
        if self._template is None:
            return self._text
        machine, _, signal = tag.partition("/")
        known = {"tag": tag, "machine": machine, "signal": signal or machine, "source": source, "site": site}
        return _filled(self._template, known)

    def example(self) -> str:
        """The address for an example; raises ValueError when it cannot be filled in."""
        return self._of(_INDICES["tag"], _INDICES["source"], _INDICES["site"])


def _example(tag: str, value: Value) -> Mapping[str, object]:
    sample = Sample(tag, 1_767_592_800_123_456_789, value)
    return described(sample, Batch.of("plc", 1_767_592_800_200_000_000, [sample]), "bar", "k")


def _compiled(text: str, kind: str) -> Any:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_FINALIZE[kind], autoescape=False, keep_trailing_newline=True
    )
    environment.filters["raw"] = Raw
    try:
        return environment.from_string(text)
    except TemplateSyntaxError as error:
        raise ValueError(f"is no template: {error.message} (line {error.lineno} of it)") from error


def _filled(template: Any, known: Mapping[str, object]) -> str:
    try:
        text: str = template.render(known)
    except Exception as error:  # a template can do whatever Python's operators can
        raise CannotFill(f"cannot be filled in: {_said(error)}{_where(error)}") from error
    return text


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, TemplateError | ValueError) else f"{type(error).__name__}: {error}"


def _where(error: Exception) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
    return f" (line {lines[-1]} of it)" if lines else ""


def _line_of(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1].strip()[:80] if 0 < number <= len(lines) else ""


def _defined(value: object) -> object:
    # str raises, naming what is not there; of an `if` without `else` it is nothing.
    return Raw(str(value)) if isinstance(value, Undefined) else value


def _json(value: object) -> str:
    value = _defined(value)
    if isinstance(value, Raw):
        return value
    return msgspec.json.encode(value).decode()


def _xml(value: object) -> str:
    text = _text(value)
    if isinstance(value, Raw):
        return text
    if _NOT_XML.search(text):
        raise ValueError("XML cannot hold a control character")
    return escape(text, {'"': "&quot;", "'": "&apos;"})


def _text(value: object) -> str:
    value = _defined(value)
    if value is None:
        return ""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _url(value: object) -> str:
    return str(value) if isinstance(value, Raw) else quote(_text(value), safe="")


_FINALIZE: Final[Mapping[str, Callable[[object], str]]] = {"json": _json, "xml": _xml, "text": _text, "url": _url}
