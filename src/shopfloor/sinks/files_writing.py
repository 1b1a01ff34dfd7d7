"""Parquet and CSV files: each is there as a whole, under its name, or not at all.

A file is written under a hidden name, brought to disk, renamed, and its folder brought to disk. Every call blocks.
"""

import csv
import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Literal, cast
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from shopfloor.samples import Batch, Sample, Value
from shopfloor.sinks.text import iso
from shopfloor.turns import give_way, giving_way

Compression = Literal["auto", "none", "zstd", "gzip", "snappy"]
INT64_MAX: Final = 2**63 - 1
ROWS: Final = 100_000
"""Rows of a group in a Parquet file."""
WAITING: Final = 2 * ROWS
"""Rows that wait in memory for their groups, of all files that are open together."""
OPEN: Final = 32
"""Files that are open at once: an import of years has a day's file for each of a thousand."""
PIECE: Final = 1000
"""Rows that are made columns at once: Arrow holds Python's lock meanwhile, some milliseconds."""
_QUARTER: Final = 900 * 10**9
"""ns: days begin at a full quarter of an hour of UTC in every time zone of today."""
_ENDINGS: Final = {"none": "", "gzip": ".gz", "zstd": ".zst"}

SCHEMA: Final[Any] = pa.schema([
    pa.field("time", pa.timestamp("ns", "UTC"), nullable=False),
    pa.field("tag", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("type", pa.dictionary(pa.int8(), pa.string()), nullable=False),
    pa.field("value", pa.float64()),
    pa.field("integer", pa.int64()),
    pa.field("unsigned", pa.uint64()),
    pa.field("text", pa.string()),
    pa.field("binary", pa.binary()),
    pa.field("quality", pa.uint16(), nullable=False),
    pa.field("status", pa.uint32(), nullable=False),
    pa.field("unit", pa.dictionary(pa.int32(), pa.string())),
    pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("received", pa.timestamp("ns", "UTC"), nullable=False),
])  # fmt: skip
"""The columns of a Parquet file; docs/connectors/files-sink.md says what they mean."""
CSV_COLUMNS: Final = ("time", "tag", "type", "value", "quality", "status", "unit", "source", "received")


class Layout(msgspec.Struct, frozen=True):
    """How the files look."""

    folder: Path
    name: str
    """What their names begin with."""
    format: Literal["parquet", "csv"]
    compression: Compression
    by_day: bool
    zone: ZoneInfo
    """Of the days."""

    @property
    def kind(self) -> Literal["none", "zstd", "gzip", "snappy"]:
        """How they are compressed."""
        if self.compression == "auto":
            return "zstd" if self.format == "parquet" else "none"
        return self.compression

    @property
    def ending(self) -> str:
        """The end of their names."""
        return ".parquet" if self.format == "parquet" else f".csv{_ENDINGS[self.kind]}"

    def file(self, day: str, first: int, last: int) -> Path:
        """The file of a day with what stands in the journal from ``first`` to ``last``."""
        folder = self.folder / f"day={day}" if day else self.folder
        return folder / f"{self.name}-{first}-{last}{self.ending}"

    def finished(self) -> Iterator[tuple[Path, int, int]]:
        """Every file of ours, with its first and last offset, whatever its format."""
        named = re.compile(rf"{re.escape(self.name)}-(\d+)-(\d+)\.(parquet|csv(\.\w+)?)")
        for pattern in ("*", "day=*/*"):
            for path in self.folder.glob(pattern):
                if match := named.fullmatch(path.name):
                    yield path, int(match[1]), int(match[2])

    def unfinished(self) -> Iterator[Path]:
        """What a process left that was killed while it wrote."""
        yield from self.folder.glob(f".{self.name}-*.part")


def write(
    layout: Layout,
    entries: Callable[[], Iterable[tuple[int, Batch]]],
    first: int,
    last: int,
    unit: Callable[[str], str],
) -> None:
    """Put entries into files named after these offsets, one a day where that is wanted; the same gives the same.

    ``entries`` gives them as often as it is asked: many days are written in groups, each in a pass of its own.
    Raises OSError; nothing is left behind then but files that are whole.
    """
    made: dict[str, Path] = {}
    days = _Days(layout.zone)
    try:
        while _write_some(layout, entries(), f"{layout.name}-{first}-{last}", made, days, unit):
            pass
        for day, hidden in sorted(made.items()):
            final = layout.file(day, first, last)
            if not final.parent.is_dir():
                final.parent.mkdir(exist_ok=True)
                to_disk(final.parent.parent)
            hidden.replace(final)
            to_disk(final.parent)
    except BaseException:
        for hidden in made.values():
            with suppress(OSError):
                hidden.unlink(missing_ok=True)
        raise


def _write_some(
    layout: Layout,
    entries: Iterable[tuple[int, Batch]],
    name: str,
    made: dict[str, Path],
    days: "_Days",
    unit: Callable[[str], str],
) -> bool:
    """Write the hidden files of the first days that are not in ``made``, and note them there; whether more are left."""
    done, parts, more, waiting = frozenset(made), dict[str, _Part](), False, 0
    with ExitStack() as closing:
        for _, batch in entries:
            give_way()
            of = [days.of(time) for time in batch.times] if layout.by_day else [""] * len(batch)
            if done.issuperset(of):
                continue
            for day, sample in zip(of, batch, strict=True):
                part = parts.get(day)
                if part is None:
                    if day in done or len(parts) == OPEN:
                        more = more or day not in done
                        continue
                    made[day] = layout.folder / f".{name}-{day}.part"
                    part = parts[day] = _PARTS[layout.format](made[day], layout.kind)
                    closing.callback(part.abandon)
                part.add(sample, batch, unit(sample.tag))
                waiting += 1
                if waiting >= WAITING:
                    waiting = _relieved(parts.values())
        for part in parts.values():
            part.finish()
    return more


def _relieved(parts: Collection["_Part"]) -> int:
    """How many rows wait in memory, after those of the fullest part were written if they were too many."""
    if sum(part.waiting for part in parts) >= WAITING:
        max(parts, key=lambda part: part.waiting).flush()
    return sum(part.waiting for part in parts)


def to_disk(path: Path) -> None:
    """Have what is in a file, or the names that are in a folder, on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Days:
    """Which day a time belongs to, each quarter of an hour looked up once."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._known: dict[int, str] = {}

    def of(self, time: int) -> str:
        quarter = time // _QUARTER
        day = self._known.get(quarter)
        if day is None:
            moment = datetime.fromtimestamp(quarter * (_QUARTER // 10**9), self._zone)
            day = self._known[quarter] = moment.date().isoformat()
        return day


class _Part(ABC):
    """A file while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = path.open("wb")

    @abstractmethod
    def add(self, sample: Sample, batch: Batch, unit: str) -> None:
        """Write a sample."""

    @property
    def waiting(self) -> int:
        """Rows that wait in memory and are too many to wait in each of the files that are open."""
        return 0

    @abstractmethod
    def flush(self) -> None:
        """Write what waits."""

    @abstractmethod
    def end(self) -> None:
        """Write what is to stand at the end of the file."""

    def finish(self) -> None:
        """Have all of it on disk."""
        self.end()
        self._file.close()  # what compresses has closed it already
        to_disk(self.path)

    def abandon(self) -> None:
        """Close it, however far it got."""
        with suppress(OSError):
            self._file.close()


class _ParquetPart(_Part):
    def __init__(self, path: Path, compression: Any) -> None:
        super().__init__(path)
        self._rows: list[tuple[Any, ...]] = []
        self._writer = pq.ParquetWriter(self._file, SCHEMA, compression=compression)

    @property
    def waiting(self) -> int:
        return len(self._rows)

    def add(self, sample: Sample, batch: Batch, unit: str) -> None:
        kind, number, integer, unsigned, text, binary = _columns(sample.value)
        self._rows.append((
            sample.time, sample.tag, kind, number, integer, unsigned, text, binary, sample.quality, sample.status,
            unit or None, batch.source, batch.received,
        ))  # fmt: skip
        if len(self._rows) >= ROWS:
            self.flush()

    def end(self) -> None:
        self.flush()
        self._writer.close()

    def abandon(self) -> None:
        if not self._file.closed:
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
        super().abandon()

    def flush(self) -> None:
        if not self._rows:
            return
        pieces = [_arrow(self._rows[at : at + PIECE]) for at in giving_way(range(0, len(self._rows), PIECE))]
        self._rows.clear()
        self._writer.write_table(pa.Table.from_batches(pieces, SCHEMA).unify_dictionaries().combine_chunks())


class _CsvPart(_Part):
    def __init__(self, path: Path, compression: Any) -> None:
        super().__init__(path)
        self._packed: Any = (
            pa.CompressedOutputStream(cast("Any", self._file), compression) if compression != "none" else None
        )
        self._said = io.StringIO(newline="")
        self._csv = csv.writer(self._said)
        self._csv.writerow(CSV_COLUMNS)

    def add(self, sample: Sample, batch: Batch, unit: str) -> None:
        kind, *_ = _columns(sample.value)
        self._csv.writerow((
            iso(sample.time), sample.tag, kind, _text(sample.value), int(sample.quality), sample.status, unit,
            batch.source, iso(batch.received),
        ))  # fmt: skip
        if self._said.tell() > 2**20:
            self.flush()

    def end(self) -> None:
        self.flush()
        if self._packed is not None:
            self._packed.close()

    def flush(self) -> None:
        (self._packed or self._file).write(self._said.getvalue().encode())
        self._said.seek(0)
        self._said.truncate()


_PARTS: Final = {"parquet": _ParquetPart, "csv": _CsvPart}


def _arrow(rows: Sequence[tuple[Any, ...]]) -> "pa.RecordBatch":
    kinds: list[Any] = [field.type for field in SCHEMA]
    columns = zip(*rows, strict=True)
    arrays: list[Any] = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    made: pa.RecordBatch = cast("Any", pa.RecordBatch).from_arrays(arrays, schema=SCHEMA)
    return made


def _columns(value: Value) -> tuple[Any, ...]:
    """Type, number, integer, unsigned, text and bytes of a value; None where it has no such."""
    match value:
        case bool():
            return "bool", float(value), None, None, None, None
        case int():
            small = value <= INT64_MAX
            return "int", float(value), value if small else None, None if small else value, None, None
        case float():
            return "float", value, None, None, None, None
        case str():
            return "text", None, None, None, value, None
        case bytes():
            return "bytes", None, None, None, None, value
        case None:
            return "none", None, None, None, None, None


def _text(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.hex()
        case float():
            return repr(value)
        case _:
            return str(value)
