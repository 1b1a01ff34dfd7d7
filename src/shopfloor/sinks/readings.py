"""Samples as JSON in messages: one of a sample, or one of all that changed of a machine."""

import math
from typing import Final, Literal

import msgspec

from shopfloor.samples import Quality, Sample, Value
from shopfloor.sinks.text import iso

MESSAGE_SIZE: Final = 128 * 1024
"""A machine's message that would grow above this many bytes is closed and the next one begun."""
Precision = Literal["ns", "us", "ms"]
_DIGITS: Final = {"ns": 9, "us": 6, "ms": 3}
_encode: Final = msgspec.json.Encoder().encode


class Reading(msgspec.Struct, omit_defaults=True):
    """The JSON of one sample."""

    value: Value
    time: str
    """ISO 8601, UTC."""
    quality: int
    good: bool
    encoding: Literal["", "base64"] = ""
    """``base64``: the value is bytes, written so."""
    special: Literal["", "NaN", "Infinity", "-Infinity"] = ""
    """The float that JSON cannot write; the value is null then."""
    status: int = 0
    """The protocol's own status code where there is one."""
    tag: str = ""
    """Where the message does not name it otherwise."""


def reading(sample: Sample, precision: Precision, *, tag: bool = False) -> bytes:
    """The JSON of a sample, with or without its tag. Raises UnicodeEncodeError, OverflowError."""
    value = sample.value
    said = Reading(value, iso(sample.time, _DIGITS[precision]), sample.quality, sample.quality >= Quality.GOOD)
    if isinstance(value, bytes):
        said.encoding = "base64"
    elif isinstance(value, float) and not math.isfinite(value):
        said.value = None
        said.special = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    said.status = sample.status
    if tag:
        said.tag = sample.tag
    return _encode(said)


class MachineMessage:
    """A message with what changed of a machine, while it grows: each tag at most once."""

    def __init__(self, most: int = MESSAGE_SIZE) -> None:
        """Nothing in it yet; it grows up to so many bytes, unless the first sample alone has more."""
        self._most = most
        self.indices: list[int] = []
        """Of the samples in it, within their batch."""
        self.readings: dict[str, bytes] = {}
        self.newest = 0
        """The newest time in it, ns UTC."""
        self.size = 0

    def takes(self, tag: str, payload: bytes) -> bool:
        """Whether a sample of the tag with this JSON can be put into it."""
        return tag not in self.readings and self.size + _grows(tag, payload) <= self._most

    def add(self, index: int, sample: Sample, payload: bytes) -> None:
        """Put a sample with its JSON into it."""
        self.newest = max(self.newest, sample.time) if self.indices else sample.time
        self.indices.append(index)
        self.readings[sample.tag] = payload
        self.size += _grows(sample.tag, payload)

    def payload(self, precision: Precision) -> bytes:
        """The JSON of the message."""
        body = b",".join(_encode(tag) + b":" + said for tag, said in self.readings.items())
        return b'{"time":"%b","tags":{%b}}' % (iso(self.newest, _DIGITS[precision]).encode(), body)


def _grows(tag: str, payload: bytes) -> int:
    return len(_encode(tag)) + len(payload) + 2
