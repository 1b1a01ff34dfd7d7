"""The short way from messages to columns: for the messages of a topic that are as most are.

What an entry of `topics` says is looked up once (``short_way``): where the values are, of which type. A message that
is unusual in any respect (a value that is null or not what it must be, a time that cannot be read) is left to
``Meaning.readings``, the long way, which gives the same for all others too, only slower.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Quality, Sample, Value
from shopfloor.sources.mqtt_payload import (
    ABSENT,
    DataType,
    Payload,
    Unreadable,
    at_path,
    converted,
    parse_time,
    plain,
)

_GOOD: Final = int(Quality.GOOD)
_AS_IT_IS: Final[dict[DataType, frozenset[type]]] = {
    "auto": frozenset((float, str, bool)),
    "float": frozenset((float,)),
    "bool": frozenset((bool,)),
    "text": frozenset((str,)),
    "int": frozenset(),
    "bytes": frozenset(),
}
"""The types of JSON values that need no conversion."""
_WHOLE: Final = ("auto", "int")
"""Where integers need none either, within 64 bits."""
_MILLISECONDS: Final = (10**11, 10**14)
"""Numbers from the first and below the second are times in ms where the plant file names no unit: ``parse_time``."""

_Object = dict[str, Any]

UNUSUAL: Final = (Unreadable, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a short way raises for a message that is not for it."""

ShortWay = Callable[[bytes, Sequence[str], "Columns"], None]
"""Adds the values of a payload to columns, under the tags that its topic has (``Meaning.tags``).

Raises one of ``UNUSUAL`` for a message that is not for it; the columns must ``forget`` then what it began.
"""


class Columns:
    """A batch that grows; tags and values come first, times and qualities complete them."""

    __slots__ = ("qualities", "received", "tags", "times", "values")

    def __init__(self, received: int) -> None:
        """``received`` is in ns UTC."""
        self.received = received
        self.tags: list[str] = []
        self.values: list[Value] = []
        self.times: list[int] = []
        self.qualities: list[int] = []

    def add(self, sample: Sample) -> None:
        """One more sample."""
        self.tags.append(sample.tag)
        self.values.append(sample.value)
        self.times.append(sample.time)
        self.qualities.append(sample.quality)

    def forget(self) -> None:
        """Take back what was begun and not completed."""
        del self.tags[len(self.times) :]
        del self.values[len(self.times) :]

    def batch(self, source: str) -> Batch:
        """What has grown; nothing may be added any more."""
        return Batch(source, self.received, self.tags, self.times, self.values, self.qualities)


def short_way(config: Payload) -> ShortWay | None:
    """The short way for the messages of an entry of `topics`; None when they have none."""
    if config.payload == "plain":
        return _plain(config.data_type)
    return _json(config) if config.payload == "json" and config.values else None


def _plain(data_type: DataType) -> ShortWay:
    def way(payload: bytes, tags: Sequence[str], into: Columns) -> None:
        into.values.append(plain(payload, data_type))
        into.tags.append(tags[0])
        into.times.append(into.received)
        into.qualities.append(_GOOD)

    return way


def _json(config: Payload) -> ShortWay:
    decode = msgspec.json.Decoder(_Object).decode
    time_of, quality_of = _time_of(config), _quality_of(config)
    wanted: list[tuple[Callable[[_Object], Any], frozenset[type], bool, DataType]] = [
        (_finder(value.path), _AS_IT_IS[value.data_type], value.data_type in _WHOLE, value.data_type)
        for value in config.values
    ]

    def way(payload: bytes, tags: Sequence[str], into: Columns) -> None:
        said = decode(payload)
        time = time_of(said, into.received)
        quality = quality_of(said)
        for tag, (find, as_it_is, whole, data_type) in zip(tags, wanted, strict=True):
            value = find(said)
            if type(value) not in as_it_is and not (whole and type(value) is int and INT_MIN <= value <= INT_MAX):
                if value is ABSENT:
                    continue
                value = _converted(value, data_type)
            into.tags.append(tag)
            into.values.append(value)
        new = len(into.values) - len(into.times)
        if not new:
            raise Unreadable
        into.times += [time] * new
        into.qualities += [quality] * new

    return way


def _finder(path: str) -> Callable[[_Object], Any]:
    """A function that finds what is at the path, or ``ABSENT``."""
    parts = path.split(".")
    if len(parts) > 1:
        return lambda said: at_path(said, parts)
    return lambda said: said.get(path, ABSENT)


def _time_of(config: Payload) -> Callable[[_Object, int], int]:
    """A function that finds the time in ns UTC, else gives that of reception."""
    if config.time is None:
        return lambda _said, received: received
    find, time_format = _finder(config.time), config.time_format
    low, high = _MILLISECONDS if time_format == "auto" else (0, 0)

    def time_of(said: _Object, received: int) -> int:
        found = find(said)
        if type(found) is int and low <= found < high:
            return found * 1_000_000
        if found is None or found is ABSENT or found == "":
            return received
        return parse_time(found, time_format)

    return time_of


def _quality_of(config: Payload) -> Callable[[_Object], int]:
    if config.quality is None:
        return lambda _said: _GOOD
    find = _finder(config.quality)

    def quality_of(said: _Object) -> int:
        found = find(said)
        if type(found) is int and 0 <= found <= 255:  # noqa: PLR2004  # a byte
            return found
        raise Unreadable

    return quality_of


def _converted(value: object, data_type: DataType) -> Value:
    found = converted(value, data_type)
    if found is None:
        raise Unreadable
    return found
