"""Report by exception: of the columns that a read gives, what is worth a sample.

A read gives values in columns, one for tags that were read together, because an object for each value would cost more
than reading it.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from shopfloor.samples import Batch, Quality, Value, column


class Column(NamedTuple):
    """What a read gave for tags that have one quality.

    A reader that gives the very same column again says that nothing in it has changed.
    """

    places: Sequence[int]
    """Which tags: their places in the configuration's list."""
    values: Sequence[Value]
    """As long as ``places``; None with a bad quality where a tag could not be read."""
    quality: int = Quality.GOOD
    status: int = 0
    """The protocol's own status code; 0: none."""


class Reading(NamedTuple):
    """What a read gave for one tag, of protocols that answer tag by tag; ``grouped`` makes columns of them."""

    value: Value
    quality: int = Quality.GOOD
    status: int = 0


def grouped(places: Sequence[int], readings: Iterable[Reading]) -> list[Column]:
    """The readings of the tags at these places as columns."""
    found: defaultdict[tuple[int, int], tuple[list[int], list[Value]]] = defaultdict(lambda: ([], []))
    for place, (value, quality, status) in zip(places, readings, strict=True):
        members, values = found[quality, status]
        members.append(place)
        values.append(value)
    return [Column(*members, *mark) for mark, members in found.items()]


def by_place(columns: Iterable[Column]) -> dict[int, Reading]:
    """The other way round: each tag's reading by its place."""
    return {
        place: Reading(value, one.quality, one.status)
        for one in columns
        for place, value in zip(one.places, one.values, strict=True)
    }


def changed(before: Value, after: Value, deadband: float | None = None) -> bool:
    """Whether a value differs from the one reported last.

    ``deadband`` is absolute: a number must move by more than it. Another type is a change (1, 1.0 and true are
    three values), NaN after NaN is none.
    """
    if type(before) is not type(after):
        return True
    if before == after:
        return False
    if deadband is not None and isinstance(after, int | float) and isinstance(before, int | float):
        return not (_both_nan(before, after) or abs(after - before) <= deadband)  # also when one of them is NaN
    return not _both_nan(before, after)


def _both_nan(before: Value, after: Value) -> bool:
    return before != before and after != after  # noqa: PLR0124  # only NaN is unlike itself; of any type at once


_FINE: Final = (int(Quality.GOOD), 0)


class Changes:
    """What was reported last of every tag of a source, and so what is new."""

    def __init__(
        self,
        source: str,
        names: Sequence[str],
        *,
        deadbands: Mapping[int, float],
        scales: Mapping[int, Callable[[Value], Value]],
        heartbeat: int | None,
    ) -> None:
        """``deadbands`` (engineering units) and ``scales`` (from raw) by a tag's place, ``heartbeat`` in ns."""
        self._source = source
        self._names = names
        self._deadbands = deadbands
        self._scales = scales
        self._heartbeat = heartbeat
        self._values: list[Any] = [_NEVER] * len(names)
        """As they were read."""
        self._odd: dict[int, tuple[int, int]] = {}
        """Quality and status of the tags that are not simply good."""
        self._said_at = array("q", [0]) * (len(names) if heartbeat is not None else 0)

    def of(self, columns: Sequence[Column], before: Collection[Column], now: int) -> Batch:
        """What is new in the columns of a read at ``now`` (ns UTC); ``before`` are those of the last one."""
        known = set(map(id, before))
        places: list[int] = []
        values: list[Value] = []
        marks: list[tuple[int, int, int]] = []
        for one in columns:
            silent = self._silent(one, now)
            if id(one) in known and not silent:
                continue
            news = sorted({*self._news(one), *silent}) if silent else self._news(one)
            whole = len(news) == len(one.places)
            mine = one.places if whole else [one.places[i] for i in news]
            read = one.values if whole else [one.values[i] for i in news]
            self._remember(mine, read, (one.quality, one.status), now)
            places += mine
            values += read
            marks.append((len(mine), one.quality, one.status))
        if self._scales:
            values = [self._scaled(place, value) for place, value in zip(places, values, strict=True)]
        qualities, statuses = array("H"), array("I")
        for count, quality, status in marks:
            qualities.extend(array("H", (quality,)) * count)
            statuses.extend(array("I", (status,)) * count)
        return Batch(
            self._source, now, [self._names[place] for place in places], array("q", (now,)) * len(places),
            column(values), qualities, statuses=statuses if any(status for _, _, status in marks) else None,
        )  # fmt: skip

    def _silent(self, one: Column, now: int) -> Sequence[int]:
        """Where in the column a tag is that was last reported a heartbeat ago."""
        if self._heartbeat is None:
            return ()
        beat = now - self._heartbeat
        return [i for i, place in enumerate(one.places) if self._said_at[place] <= beat]

    def _news(self, one: Column) -> Sequence[int]:
        """Where in the column something differs from what was reported last."""
        old = [self._values[place] for place in one.places]
        news = [
            i
            for i, (a, b) in enumerate(zip(old, one.values, strict=True))
            if (a != b and (a == a or b == b)) or type(a) is not type(b)  # noqa: PLR0124  # as in ``changed``, for many
        ]
        if self._deadbands:
            news = [i for i in news if self._leaves_deadband(one.places[i], old[i], one.values[i])]
        mark = (one.quality, one.status)
        if mark != _FINE or self._odd:
            others = [i for i, place in enumerate(one.places) if self._odd.get(place, _FINE) != mark]
            news = sorted({*news, *others}) if others else news
        return news

    def _leaves_deadband(self, place: int, before: Value, after: Value) -> bool:
        deadband = self._deadbands.get(place)
        if deadband is None or before is _NEVER:
            return True
        return changed(self._scaled(place, before), self._scaled(place, after), deadband)

    def _scaled(self, place: int, value: Value) -> Value:
        scale = self._scales.get(place)
        return value if scale is None else scale(value)

    def _remember(self, places: Sequence[int], values: Sequence[Value], mark: tuple[int, int], now: int) -> None:
        for place, value in zip(places, values, strict=True):
            self._values[place] = value
        if mark != _FINE:
            self._odd |= dict.fromkeys(places, mark)
        elif self._odd:
            for place in places:
                self._odd.pop(place, None)
        if self._heartbeat is not None:
            for place in places:
                self._said_at[place] = now


_NEVER: Final[Any] = object()
"""Stands for the value of a tag that was not reported yet."""
