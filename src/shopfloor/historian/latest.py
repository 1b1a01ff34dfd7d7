"""The newest sample of every tag, kept beside the stored rows so that asking for it reads no disk."""

import threading
from collections.abc import Iterable

import numpy as np

from shopfloor.historian.rows import COLUMNS, Int64, Rows
from shopfloor.samples import Sample

_NEVER = np.iinfo(np.int64).min


class Latest:
    """The newest row of each tag by its own time; of equal times the one that came last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows = _blank(0)
        self._known = np.zeros(0, np.bool_)

    def take(self, tags: Int64, rows: Rows) -> None:
        """Note rows in the order of their arrival; ``tags`` are their tags' ids."""
        if not len(rows):
            return
        order = np.arange(len(rows)) if bool((np.diff(rows.time) >= 0).all()) else np.argsort(rows.time, kind="stable")
        with self._lock:
            self._grow(int(tags.max()) + 1)
            newest = np.full(len(self._known), -1, np.int64)
            newest[tags[order]] = order  # of several rows of one tag NumPy keeps the last
            touched = np.flatnonzero(newest >= 0)
            candidates = newest[touched]
            wins = ~self._known[touched] | (rows.time[candidates] >= self._rows.time[touched])
            touched, candidates = touched[wins], candidates[wins]
            for name in COLUMNS:
                getattr(self._rows, name)[touched] = getattr(rows, name)[candidates]
            if self._rows.data is not None:
                self._rows.data[touched] = None if rows.data is None else rows.data[candidates]
            self._known[touched] = True

    def samples(self, names: Iterable[tuple[int, str]]) -> list[Sample]:
        """The newest sample of these tags (id, name), without those that have none."""
        with self._lock:
            chosen = [(tag, name) for tag, name in names if tag < len(self._known) and self._known[tag]]
            rows = self._rows.take(np.array([tag for tag, _ in chosen], np.int64))
        return samples([name for _, name in chosen], rows)

    def row(self, tag: int) -> Rows:
        """The newest row of a tag; none when it has none."""
        with self._lock:
            known = tag < len(self._known) and bool(self._known[tag])
            return self._rows.take(np.array([tag] if known else [], np.int64))

    def snapshot(self) -> tuple[Int64, Rows]:
        """Every tag that has a sample, and its newest row."""
        with self._lock:
            tags = np.flatnonzero(self._known)
            return tags, self._rows.take(tags)

    def _grow(self, size: int) -> None:
        if size > len(self._known):
            more = max(size, 2 * len(self._known)) - len(self._known)
            self._rows = Rows.joined([self._rows, _blank(more)])
            self._known = np.concatenate([self._known, np.zeros(more, np.bool_)])


def samples(names: Iterable[str], rows: Rows) -> list[Sample]:
    """Rows as samples; ``names`` are their tags."""
    return list(
        map(
            Sample,
            names,
            rows.time.tolist(),
            rows.values(),
            rows.quality.tolist(),
            rows.status.tolist(),
            rows.server.tolist(),
        )
    )


def _blank(size: int) -> Rows:
    zero = np.zeros(size, np.int64)
    return Rows(
        zero.copy(), np.full(size, _NEVER, np.int64), zero.astype(np.uint8), zero.copy(), zero.astype(np.uint16),
        zero.astype(np.uint32), zero.copy(), np.full(size, None, np.object_),
    )  # fmt: skip
