"""Samples as columns for a bulk path: one block for each kind of value, in the order of ``tables.HISTORY``.

``blocks`` goes by whole batches where all values are of one type (arrays are taken over as they are) and by single
samples only where a batch mixes types. Rows of a block are in the order of the journal; over several blocks (entry,
place) tells the order.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, Literal, cast

import numpy as np

from shopfloor.samples import INT_MAX, INT_MIN, Batch, Rejected, Value
from shopfloor.sinks.sql.tables import LONGEST_TAG

ValueKind = Literal["double", "bigint", "numeric", "bool", "text", "bytes", "none"]
"""The column of HISTORY that holds the value, without ``_value``; ``none``: all of them are NULL."""

VALUE_COLUMNS: Final[Mapping[ValueKind, int]] = {
    "double": 0, "bigint": 1, "numeric": 2, "bool": 3, "text": 4, "bytes": 5,
}  # fmt: skip
"""Their places among the value columns of HISTORY."""
_SIGNED_MAX: Final = 2**63 - 1
_KINDS: Final[Mapping[type, ValueKind]] = {
    float: "double", int: "bigint", bool: "bool", str: "text", bytes: "bytes", type(None): "none",
}  # fmt: skip


@dataclass(slots=True)
class Block:
    """Rows of one kind of value; columns of equal length."""

    kind: ValueKind
    tags: "array[int]" = field(default_factory=lambda: array("i"))
    """Ids of TAG."""
    times: "array[int]" = field(default_factory=lambda: array("q"))
    """ns UTC."""
    received: "array[int]" = field(default_factory=lambda: array("q"))
    """ns UTC."""
    entries: "array[int]" = field(default_factory=lambda: array("q"))
    """Journal offsets."""
    places: "array[int]" = field(default_factory=lambda: array("i"))
    """Of the sample in its journal entry as it was offered."""
    qualities: "array[int]" = field(default_factory=lambda: array("H"))
    statuses: "array[int]" = field(default_factory=lambda: array("I"))
    """0: there is none, the column is NULL."""
    server_times: "array[int]" = field(default_factory=lambda: array("q"))
    """ns UTC; 0: there is none, the column is NULL."""
    values: "Any" = None
    """array 'd' of doubles, array 'q' of bigints, else a list; of ``none`` a list of None."""

    def __post_init__(self) -> None:
        self.values = array({"double": "d", "bigint": "q"}[self.kind]) if self.kind in ("double", "bigint") else []

    def __len__(self) -> int:
        return len(self.tags)

    def take(self, offset: int, batch: Batch, tags: "array[int]", values: Sequence[Value]) -> None:
        """Add a whole batch, whose values are all of this kind."""
        size = len(batch)
        self.tags.extend(tags)
        self.times.extend(batch.times)
        self.received.extend(array("q", (batch.received,)) * size)
        self.entries.extend(array("q", (offset,)) * size)
        self.places.extend(array("i", range(size)))
        self.qualities.extend(batch.qualities)
        self.statuses.extend(array("I", bytes(4 * size)) if batch.statuses is None else batch.statuses)
        self.server_times.extend(array("q", bytes(8 * size)) if batch.server_times is None else batch.server_times)
        self.values.extend(values)

    def take_some(self, offset: int, batch: Batch, tags: "array[int]", places: Sequence[int]) -> None:
        """Add some samples of a batch, whose values are all of this kind."""
        self.tags.extend([tags[i] for i in places])
        self.times.extend([batch.times[i] for i in places])
        self.received.extend(repeat(batch.received, len(places)))
        self.entries.extend(repeat(offset, len(places)))
        self.places.extend(places)
        self.qualities.extend([batch.qualities[i] for i in places])
        self.statuses.extend(repeat(0, len(places)) if batch.statuses is None else [batch.statuses[i] for i in places])
        self.server_times.extend(
            repeat(0, len(places)) if batch.server_times is None else [batch.server_times[i] for i in places]
        )
        self.values.extend([batch.values[i] for i in places])

    def select(self, places: Sequence[int]) -> "Block":
        """Only these rows."""
        part = Block(self.kind)
        for name in ("tags", "times", "received", "entries", "places", "qualities", "statuses", "server_times"):
            mine = getattr(self, name)
            getattr(part, name).extend([mine[i] for i in places])
        part.values.extend([self.values[i] for i in places])
        return part

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows as tuples in the order of ``HISTORY.columns``; times are µs since 1970, UTC.

        For drivers that take rows; NULL is None. An own bulk format goes by the columns instead.
        """
        at = VALUE_COLUMNS.get(self.kind)
        before = (None,) * (at or 0)
        after = (None,) * (5 - (at or 0))
        values = repeat((None,) * 6) if at is None else ((*before, value, *after) for value in self.values)
        for tag, time, received, entry, place, quality, status, server, value in zip(
            self.tags, self.times, self.received, self.entries, self.places, self.qualities, self.statuses,
            self.server_times, values, strict=False,
        ):  # fmt: skip
            micros, nanos = divmod(time, 1000)
            seen, seen_nanos = divmod(server, 1000) if server else (None, None)
            yield tag, micros, nanos, received // 1000, entry, place, quality, status or None, seen, seen_nanos, *value


def blocks(entries: Iterable[tuple[int, Batch]], ids: Mapping[str, int], before: Sequence[Block] = ()) -> list[Block]:
    """The rows of these entries; ``ids`` has every tag of them. ``fit`` has said that they can be held.

    ``before``: the blocks of the entries before these, which are gone on with.
    """
    found = {block.kind: block for block in before}
    for offset, batch in entries:
        if not len(batch):
            continue
        tags = array("i", map(ids.__getitem__, batch.tags))
        for kind, places in _by_kind(batch.values):
            block = found.get(kind)
            if block is None:
                block = found[kind] = Block(kind)
            if places is None:
                block.take(offset, batch, tags, batch.values)
            else:
                block.take_some(offset, batch, tags, places)
    return list(found.values())


def _by_kind(values: Sequence[Value]) -> Iterator[tuple[ValueKind, list[int] | None]]:
    """The kinds of a batch's values, each with its places; None: all of them."""
    if isinstance(values, array):
        yield ("double" if values.typecode == "d" else "bigint"), None
        return
    types = list(map(type, values))
    kinds = set(types)
    if len(kinds) == 1 and int not in kinds:
        yield _KINDS[kinds.pop()], None
        return
    places: dict[ValueKind, list[int]] = {}
    for i, (kind, value) in enumerate(zip(types, values, strict=True)):
        large = kind is int and cast("int", value) > _SIGNED_MAX
        places.setdefault("numeric" if large else _KINDS[kind], []).append(i)
    yield from places.items()


def latest(found: Iterable[Block]) -> list[Block]:
    """Of each tag only the newest row (of equal times the one that came last), in the order of the tags' ids.

    So two writers lock the rows of ``LATEST`` in the same order.
    """
    newest: dict[int, tuple[int, int, int, Block, int]] = {}
    for block in found:
        tags, times = np.frombuffer(block.tags, np.int32), np.frombuffer(block.times, np.int64)
        best = np.full(int(tags.max()) + 1, np.iinfo(np.int64).min)
        np.maximum.at(best, tags, times)
        rows = np.flatnonzero(times == best[tags]).tolist()  # in the order of the journal: the last of a tag stays
        for tag, row in dict(zip((block.tags[row] for row in rows), rows, strict=True)).items():
            one = (block.times[row], block.entries[row], block.places[row], block, row)
            if tag not in newest or one[:3] > newest[tag][:3]:
                newest[tag] = one
    kept: dict[ValueKind, tuple[Block, list[int]]] = {}
    for tag in sorted(newest):
        *_, block, row = newest[tag]
        kept.setdefault(block.kind, (block, []))[1].append(row)
    return [block.select(rows) for block, rows in kept.values()]


def tags_of(entries: Iterable[tuple[int, Batch]]) -> set[str]:
    """Every tag of these entries."""
    found: set[str] = set()
    for _, batch in entries:
        found.update(batch.tags)
    return found


def fit(batch: Batch, *, nul: bool, longest: int) -> None:
    """Raise Rejected with the places of samples that no database of this make can hold, and why.

    ``nul``: whether text may have the character NUL; ``longest``: bytes of a text or bytes value.
    """
    unfit: dict[int, str] = {}
    for tag in set(batch.tags):
        reason = _unfit_tag(tag, nul=nul)
        if reason:
            unfit.update((i, reason) for i, other in enumerate(batch.tags) if other == tag)
    if not isinstance(batch.values, array):
        for i, value in enumerate(batch.values):
            if isinstance(value, float | bool | None):
                continue
            reason = _unfit_value(value, nul=nul, longest=longest)
            if reason:
                unfit.setdefault(i, reason)
    if unfit:
        raise Rejected("; ".join(sorted(set(unfit.values()))), sorted(unfit))


def _unfit_tag(tag: str, *, nul: bool) -> str:
    if len(tag) > LONGEST_TAG:
        return f"a tag's name is longer than {LONGEST_TAG} characters"
    return _unfit_value(tag, nul=nul, longest=4 * LONGEST_TAG).replace("the text", "a tag's name")


def _unfit_value(value: int | str | bytes, *, nul: bool, longest: int) -> str:
    """Why it cannot be held; empty: it can."""
    if isinstance(value, int):
        return "" if INT_MIN <= value <= INT_MAX else "the number is beyond 64 bits"
    if isinstance(value, str):
        if not nul and "\x00" in value:
            return "the text has the character NUL, which the database cannot hold"
        try:
            value = value if value.isascii() else value.encode()
        except UnicodeEncodeError:
            return "the text is not valid Unicode"
    return f"the value is longer than {longest} bytes" if len(value) > longest else ""
