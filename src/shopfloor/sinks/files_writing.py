"""Parquet and CSV files: each is there as a whole, under its name, or not at all.

A file is written under a hidden name, brought to disk, renamed, and its folder brought to disk. Every call blocks.
"""

import csv
import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
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

Compression = Literal["auto", "none", "zstd", "gzip", "snappy"]
INT64_MAX: Final = 2**63 - 1
ROWS: Final = 100_000
"""Rows of a group in a Parquet file."""
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
    layout: Layout, entries: Iterable[tuple[int, Batch]], first: int, last: int, unit: Callable[[str], str]
) -> None:
    """Put entries into files named after these offsets, one a day where that is wanted; the same gives the same.

    Raises OSError; nothing is left behind then but files that are whole.
    """
    parts: dict[str, _Part] = {}
    days = _Days(layout.zone)
    try:
        with ExitStack() as closing:
            for _, batch in entries:
                for sample in batch:
                    day = days.of(sample.time) if layout.by_day else ""
                    part = parts.get(day)
                    if part is None:
                        hidden = layout.folder / f".{layout.name}-{first}-{last}-{day}.part"
                        part = parts[day] = _PARTS[layout.format](hidden, layout.kind)
                        closing.callback(part.abandon)
                    part.add(sample, batch, unit(sample.tag))
            for part in parts.values():
                part.finish()
        for day, part in sorted(parts.items()):
            final = layout.file(day, first, last)
            if not final.parent.is_dir():
                final.parent.mkdir(exist_ok=True)
                to_disk(final.parent.parent)
            part.path.replace(final)
            to_disk(final.parent)
    except BaseException:
        for part in parts.values():
            with suppress(OSError):
                part.path.unlink(missing_ok=True)
        raise


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

    def add(self, sample: Sample, batch: Batch, unit: str) -> None:
        kind, number, integer, unsigned, text, binary = _columns(sample.value)
        self._rows.append((
            sample.time, sample.tag, kind, number, integer, unsigned, text, binary, sample.quality, sample.status,
            unit or None, batch.source, batch.received,
        ))  # fmt: skip
        if len(self._rows) >= ROWS:
            self._flush()

    def end(self) -> None:
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        if not self._file.closed:
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
        super().abandon()

    def _flush(self) -> None:
        columns = list(zip(*self._rows, strict=True))
        self._rows.clear()
        if columns:
            kinds: list[Any] = [field.type for field in SCHEMA]
            arrays: list[Any] = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))


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
            self._flush()

    def end(self) -> None:
        self._flush()
        if self._packed is not None:
            self._packed.close()

    def _flush(self) -> None:
        (self._packed or self._file).write(self._said.getvalue().encode())
        self._said.seek(0)
        self._said.truncate()


_PARTS: Final = {"parquet": _ParquetPart, "csv": _CsvPart}


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
