"""Turns closed generations into segments, merges segments, and drops what is too old or too much.

Windows of time (UTC days, or hours when little is kept) bound what merges and what is dropped at
once. A generation gives one segment for each window in which it has many rows; stray rows of many
windows (a wrong clock) share one segment without a window, so that no clock can make thousands of
files. Late rows are simply rows of a newer segment of an older window, found by queries at once and
merged later. Work is done tag by tag in generators, so it stops and goes on between any two tags.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from shopfloor.historian.chunk import Damaged
from shopfloor.historian.database import Database
from shopfloor.historian.rows import Int64, Rows
from shopfloor.historian.segment import PART, SUFFIX, Entries, Footer, Piece, Range, Segment, SegmentWriter, merged
from shopfloor.historian.tables import Stored, names_by_id

HOUR: Final = 3600 * 10**9
DAY: Final = 24 * HOUR
OWN_SEGMENTS: Final = 32
"""The most windows of one generation that get segments of their own."""
ALIKE: Final = 8
"""So many segments of one window and about one size are merged."""
LATE_SHARE: Final = 8
"""A closed window is merged again when late rows make up an eighth of it."""
SLICE: Final = 1_000_000
"""Rows of one tag that a merge holds in memory at once."""

_log: Final = structlog.get_logger(__name__)


def window_length(keep: int) -> int:
    """How long a window is, so that dropping whole windows is at most a tenth too late."""
    return DAY if keep >= 10 * DAY else HOUR


def compact(database: Database, window: int, since: int) -> Generator[None]:
    """Turn the oldest closed generation into segments, without rows before ``since``; yields between tags."""
    closed = database.closed()
    if closed is None:
        return
    generation, span = closed
    tags, rows, entries = database.sorted_rows(generation, since)
    names = names_by_id(database.tags)
    made: list[Stored] = []
    parts: list[Path] = []
    try:
        for number, chosen in _by_window(rows.time // window):
            name = f"{span[1]:016d}-{generation.id:08d}-{'stray' if number is None else number}{SUFFIX}"
            part = database.folder / (name + PART)
            parts.append(part)
            with SegmentWriter(part) as writer:
                yield from _write(writer, tags if chosen is None else tags[chosen],
                                  rows if chosen is None else rows.take(chosen))  # fmt: skip
                footer = writer.finish(names, entries, [span], number)
            made.append(_stored(database.folder / name, footer))
    except BaseException:
        for part in parts:
            part.unlink(missing_ok=True)
        raise
    database.replace([], made, generation)


def _by_window(windows: Int64) -> Iterator[tuple[int | None, Int64 | None]]:
    """Windows and the positions of their rows; strays last, as None. All rows: positions None."""
    numbers, counts = np.unique(windows, return_counts=True)
    if len(numbers) == 1:
        yield int(numbers[0]), None
        return
    own = numbers[np.argsort(-counts, kind="stable")[:OWN_SEGMENTS]]
    for number in np.sort(own).tolist():
        yield number, np.flatnonzero(windows == number)
    stray = np.flatnonzero(~np.isin(windows, own))
    if len(stray):
        yield None, stray


def _write(writer: SegmentWriter, tags: Int64, rows: Rows) -> Iterator[None]:
    if not len(tags):
        return
    starts = [0, *(np.flatnonzero(np.diff(tags)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(tags)], strict=True):
        writer.add(int(tags[start]), rows.take(slice(start, end)))
        yield


def due(stored: Sequence[Stored], window: int, now: int) -> list[Stored]:
    """The segments that should be merged next; fewer than two mean none."""
    windows: dict[int | None, list[Stored]] = defaultdict(list)
    for line in stored:
        windows[line.window].append(line)
    for number, lines in sorted(windows.items(), key=lambda item: (item[0] is None, item[0])):
        sizes: dict[int, list[Stored]] = defaultdict(list)
        for line in lines:
            sizes[int(math.log(max(line.rows, 1), ALIKE))].append(line)
        for _, alike in sorted(sizes.items()):
            if len(alike) >= ALIKE:
                return alike
        if number is not None and (number + 1) * window + HOUR < now and len(lines) > 1:
            *small, large = sorted(lines, key=lambda line: line.rows)
            if sum(line.rows for line in small) * LATE_SHARE >= large.rows:
                return lines
            if len(small) > 1:
                return small
    return []


def merge(database: Database, lines: Sequence[Stored], since: int) -> Generator[None]:
    """Make one segment of several, without rows before ``since``; yields between tags.

    A chunk that fails its checksum is left out and named in the log. Raises Damaged when a whole
    segment cannot be read, OSError.
    """
    first = min(lines, key=lambda line: line.segment.name)
    stem = f"{max(upto for line in lines for _, upto in line.ranges):016d}-m{_merge_number(database):08d}"
    number = first.window
    path = database.folder / f"{stem}-{'stray' if number is None else number}{SUFFIX}"
    segments = [line.segment for line in lines]
    names = {tag: name for segment in segments for tag, name in segment.names().items()}
    with SegmentWriter(path.with_name(path.name + PART)) as writer:
        for tag in sorted({tag for segment in segments for tag in segment.tags()}):
            for rows in _merged_rows(segments, tag):
                kept = rows.between(since, 2**63 - 1) if since > rows.time[0] else rows
                if len(kept):
                    writer.add(tag, kept)
                yield
        entries = Entries.joined(segment.entries() for segment in segments)
        spans: list[Range] = merged(span for line in lines for span in line.ranges)
        footer = writer.finish(names, entries, spans, number, [segment.name for segment in segments])
    database.replace(lines, [_stored(path, footer)])


def _merge_number(database: Database) -> int:
    """One more than the highest merge so far: names are never used twice while a file of that name may exist."""
    taken = [int(path.name[18:26]) for path in database.folder.glob(f"*-m*{SUFFIX}*") if path.name[18:26].isdigit()]
    return max(taken, default=0) + 1


def _merged_rows(segments: Sequence[Segment], tag: int) -> Iterator[Rows]:
    """All rows of a tag in time order, in slices of bounded size."""
    pieces = sorted(
        ((segment, piece) for segment in segments for piece in segment.pieces(tag, -(2**63), 2**63 - 1)),
        key=lambda item: item[1].first,
    )
    waiting: list[Rows] = []
    for i, (segment, piece) in enumerate(pieces):
        rows = read_chunk(segment, piece)
        if rows is not None:
            waiting.append(rows)
        is_last = i + 1 == len(pieces)
        if waiting and (is_last or sum(map(len, waiting)) >= SLICE):
            joined = Rows.joined(waiting).ordered()
            boundary = len(joined) if is_last else int(np.searchsorted(joined.time, pieces[i + 1][1].first))
            if boundary:
                yield joined.take(slice(0, boundary))
            waiting = [joined.take(slice(boundary, len(joined)))] if boundary < len(joined) else []


_told: set[tuple[str, int]] = set()


def read_chunk(segment: Segment, piece: Piece) -> Rows | None:
    """The rows of a chunk, or None when it is damaged, which is logged once."""
    try:
        return segment.rows(piece)
    except Damaged as error:
        mark = (str(segment.path), piece.place)
        if mark not in _told:
            _told.add(mark)
            _log.error(
                "A chunk of the historian is damaged; its rows are lost, everything else is read",
                file=str(segment.path), rows=piece.rows, first=piece.first, last=piece.last, error=str(error),
            )  # fmt: skip
        return None


def _stored(path: Path, footer: Footer) -> Stored:
    size = path.with_name(path.name + PART).stat().st_size
    return Stored(Segment(path), footer.window, footer.first, footer.last, footer.rows, size, footer.ranges)


def expired(stored: Iterable[Stored], since: int, room: int | None) -> list[Stored]:
    """The segments that must go: all older than ``since``, and the oldest until the rest fits in ``room`` bytes."""
    ordered = sorted(stored, key=lambda line: line.last)
    total = sum(line.size for line in ordered)
    gone: list[Stored] = []
    for line in ordered:
        if line.last < since or (room is not None and total > room):
            gone.append(line)
            total -= line.size
    return gone


def driven(work: Iterable[None], proceed: Callable[[], bool]) -> bool:
    """Go on with the work while ``proceed`` says so; whether it is finished."""
    return all(proceed() for _ in work)
