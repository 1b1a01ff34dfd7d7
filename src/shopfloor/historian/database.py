"""The DuckDB file of the historian: the newest rows in arrival order, and what stands where.

Constraints. Rows, the journal position and new tag names commit in one transaction, so a row is
there if and only if the position says so. The newest rows are in one *generation* (a table); when it
is full the next one begins, and compaction turns the whole closed generation into segments, which
take its place in one transaction. Hence each journal entry is either in one generation or in
segments, never in both. Generations are dropped as a whole, so the file's space is used again.

Tables. ``about`` (format, position) · ``tag`` · ``generation`` (its entries come after ``after``) ·
``hot_N`` and ``entry_N`` of generation N · ``segment`` (the catalogue) · ``garbage`` (files to be
deleted) · ``latest`` (the newest row of each tag when the last generation was compacted).

Recovery. At opening: DuckDB replays its write-ahead log; a ``.part`` that the catalogue names was
committed and gets its name, any other ``.part`` goes; garbage goes; a segment that the catalogue does
not know (the database was lost, or an older copy was put back) is taken into it. A database that
cannot be read is moved aside, never deleted, and a new one starts from the segments; the journal
then offers all it still holds, and entries that the segments already contain count once.
"""

import json
import os
import shutil
import threading
import time
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import structlog

from shopfloor.historian.errors import first_line, is_damage, is_unreadable, translated
from shopfloor.historian.latest import Latest
from shopfloor.historian.rows import Int64, Rows, of_batch
from shopfloor.historian.segment import PART, SUFFIX, Entries, Range, Segment, merged, sync_folder
from shopfloor.historian.tables import (
    FORMAT,
    HOT,
    SCHEMA,
    Generation,
    Snapshot,
    Stored,
    arrow,
    arrow_table,
    drop,
    entries_arrow,
    fetched,
    insert_arrow,
    insert_segment,
    read_latest,
    rows_of,
    tags_of,
    transaction,
    write_latest,
)
from shopfloor.samples import Batch, Misconfigured, Rejected, Unavailable

GROUP: Final = 100_000
"""The most rows of one transaction, unless one batch alone has more."""
GENERATION: Final = 2_000_000
"""Rows after which the next generation begins: what a query of the newest rows has to look through."""
WAITING: Final = 8
"""Closed generations that may wait for compaction before writing has to wait too."""
CHECKPOINT: Final = "4MB"
"""Write-ahead log after which DuckDB checkpoints: replaying it takes some tens of milliseconds."""

_log: Final = structlog.get_logger(__name__)


class Database:
    """The DuckDB file and its folder of segments. One thread writes, any number read."""

    def __init__(self, path: Path, memory: int, threads: int, generation: int = GENERATION) -> None:
        """``memory`` in bytes and ``threads`` bound DuckDB; ``generation`` is rows."""
        self.path = path
        self.folder = path.with_name(f"{path.name}.segments")
        self.tags: dict[str, int] = {}
        self.latest = Latest()
        self.position = -1
        self.hot_rows = 0
        """Rows of the generation that is being written."""
        self.damaged = False
        """Set when DuckDB found its file damaged; the next ``open`` moves it aside."""
        self._dropped = False
        self._memory = memory
        self._threads = threads
        self._generation_rows = generation
        self._turn = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._generations: tuple[Generation, ...] = ()
        self._stored: tuple[Stored, ...] = ()
        self._covered: list[Range] = []

    # -- opening ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Open or create. Raises Unavailable, Misconfigured."""
        with translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(exist_ok=True)
            if self.damaged:
                self._set_aside("its content failed DuckDB's checksums")
            try:
                self._start()
                self._tidy()
            except duckdb.Error as error:
                self.close()
                if not is_unreadable(error):
                    raise
                self._set_aside(first_line(str(error)))
                self._start()
                self._tidy()

    def _start(self) -> None:
        """Connect and read the small tables."""
        connection = duckdb.connect(
            str(self.path),
            config={
                "threads": self._threads,
                "memory_limit": f"{self._memory // 2**20}MiB",
                "checkpoint_threshold": CHECKPOINT,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._connection = connection
        if not connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'about'").fetchall():
            if connection.execute("SELECT 1 FROM duckdb_tables()").fetchall():
                raise Misconfigured(f"{self.path} is a DuckDB database of something else: set another `path`")
            with transaction(connection):
                connection.execute(SCHEMA)
        ((version, position),) = connection.execute("SELECT format, position FROM about").fetchall()
        if version > FORMAT:
            raise Misconfigured(
                f"{self.path} was written by a newer Shopfloor (format {version}); start that, or set another `path`"
            )
        self.position = position
        self.tags = {name: number for number, name in connection.execute("SELECT id, name FROM tag").fetchall()}
        self._generations = tuple(
            Generation(*line) for line in connection.execute("SELECT id, after FROM generation ORDER BY id").fetchall()
        )
        self._stored = tuple(
            Stored(Segment(self.folder / name), slot, first, last, rows, size, [(a, b) for a, b in json.loads(ranges)])
            for name, slot, first, last, rows, size, ranges in connection.execute(
                "SELECT name, slot, first, last, rows, size, ranges FROM segment ORDER BY last"
            ).fetchall()
        )

    def _set_aside(self, reason: str) -> None:
        """Move the database and its write-ahead log out of the way, and say where to."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        moved: list[str] = []
        for suffix in ("", ".wal"):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                target = self.path.with_name(f"{self.path.name}.damaged-{stamp}{suffix}")
                shutil.move(file, target)
                moved.append(str(target))
        self.damaged = False
        _log.error(
            "The historian's database was damaged and has been moved aside; a new one starts from the compressed "
            "segments, and the journal gives again what it still holds. Nothing needs to be done; keep the moved "
            "file if you want it examined.",
            reason=reason,
            moved=moved,
        )

    def _tidy(self) -> None:
        """Bring the folder and the catalogue together (see Recovery)."""
        connection = self._connected()
        files = {entry.name: entry for entry in os.scandir(self.folder)}
        listed = {line.segment.name for line in self._stored}
        for name in [name for name in files if name.endswith(PART)]:
            final = name.removesuffix(PART)
            if final in listed and final not in files:
                (self.folder / name).replace(self.folder / final)
                files[final] = files.pop(name)
            else:
                (self.folder / name).unlink()
        garbage = {name for (name,) in connection.execute("SELECT name FROM garbage").fetchall()}
        for name in garbage & files.keys():
            (self.folder / name).unlink()
        lost = [line for line in self._stored if line.segment.name not in files]
        for line in lost:
            _log.error("A segment of the historian is gone", file=str(line.segment.path), rows=line.rows)
        unknown = [name for name in files if name.endswith(SUFFIX) and name not in listed and name not in garbage]
        if garbage or lost or unknown:
            with transaction(connection):
                connection.execute("DELETE FROM garbage")
                for line in lost:
                    connection.execute("DELETE FROM segment WHERE name = ?", [line.segment.name])
                self._stored = tuple(line for line in self._stored if line not in lost)
                if unknown:
                    self._adopt(connection, unknown)
        self._covered = [
            span for span in merged(span for line in self._stored for span in line.ranges) if span[1] > self.position
        ]

    def _adopt(self, connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
        """Take segments into the catalogue that it does not know."""
        adopted: list[Stored] = []
        known = {number: name for name, number in self.tags.items()}
        for name in sorted(names):
            segment = Segment(self.folder / name)
            try:
                footer, tags = segment.footer, segment.names()
            except Exception as error:  # noqa: BLE001  # whatever a damaged file raises, it is moved aside and told
                self._quarantine(segment, error)
                continue
            if any(known.get(number, tag) != tag for number, tag in tags.items()):
                _log.error(
                    "A segment of another historian lies in the folder; it is left alone", file=str(segment.path)
                )
                continue
            known.update(tags)
            size = segment.path.stat().st_size
            adopted.append(
                Stored(segment, footer.window, footer.first, footer.last, footer.rows, size, footer.ranges)
            )  # fmt: skip
        replaced = {name for line in adopted for name in line.segment.footer.replaces}
        kept = [line for line in adopted if line.segment.name not in replaced]
        gone = [line for line in self._stored if line.segment.name in replaced]
        for line in gone:
            connection.execute("DELETE FROM segment WHERE name = ?", [line.segment.name])
        for name in replaced & ({line.segment.name for line in adopted} | {line.segment.name for line in gone}):
            (self.folder / name).unlink(missing_ok=True)
        for line in kept:
            insert_segment(connection, line)
        fresh = {number: name for number, name in known.items() if name not in self.tags}
        connection.executemany("INSERT INTO tag VALUES (?, ?)", [*fresh.items()]) if fresh else None
        self.tags |= {name: number for number, name in fresh.items()}
        self._stored = tuple(sorted([*(s for s in self._stored if s not in gone), *kept], key=lambda s: s.last))
        self._drop_covered(connection)
        self._newest_of(connection, kept)
        _log.warning("The historian took up segments that its database did not know", segments=len(kept))

    def _drop_covered(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Drop generations whose entries are all in segments (an older database was put back)."""
        spans = merged(span for line in self._stored for span in line.ranges)
        ends = [*(g.after for g in self._generations), self.position][1:]
        for generation, end in zip(self._generations, ends, strict=True):
            if any(after <= generation.after and end <= upto for after, upto in spans):
                drop(connection, generation)
        self._generations = tuple(
            Generation(*line) for line in connection.execute("SELECT id, after FROM generation ORDER BY id").fetchall()
        )

    def _newest_of(self, connection: duckdb.DuckDBPyConnection, adopted: Sequence[Stored]) -> None:
        """Note the newest row of each tag of these segments."""
        newest: dict[int, tuple[int, Segment, Any]] = {}
        for line in adopted:
            for tag in line.segment.tags():
                for piece in line.segment.pieces(tag, -(2**63), 2**63 - 1):
                    if tag not in newest or newest[tag][0] <= piece.last:
                        newest[tag] = (piece.last, line.segment, piece)
        found = read_latest(connection)
        for tag, (_, segment, piece) in newest.items():
            try:
                rows = segment.rows(piece)
            except (ValueError, OSError) as error:
                _log.warning("A chunk of the historian is damaged", error=str(error))
                continue
            found.take(np.array([tag], np.int64), rows.take(slice(len(rows) - 1, len(rows))))
        write_latest(connection, found)

    # -- closing ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; DuckDB checkpoints it when it can."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        for line in self._stored:
            line.segment.close()
        self._stored, self._generations = (), ()

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise Unavailable("the historian is not open")
        return self._connection

    # -- reading ---------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that is held now, unmoved by what is written or compacted meanwhile."""
        with self._turn:
            cursor = self._connected().cursor()
            cursor.begin()
            cursor.execute("SELECT position FROM about").fetchall()  # DuckDB takes its snapshot at the first look
            return Snapshot(cursor, self._generations, self._stored)

    @property
    def stored(self) -> tuple[Stored, ...]:
        """The catalogue, oldest last time first."""
        return self._stored

    @property
    def closed_generations(self) -> int:
        """How many generations wait for compaction."""
        return max(0, len(self._generations) - 1)

    def file_size(self) -> int:
        """Bytes of the database and its write-ahead log."""
        files = (self.path, self.path.with_name(self.path.name + ".wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    # -- writing ---------------------------------------------------------------------------------

    def load_latest(self) -> None:
        """Work out the newest row of every tag; to be called once before the first write."""
        connection = self._connected().cursor()
        self.latest = read_latest(connection)
        for generation in self._generations:
            table = f"hot_{generation.id}"
            newest = f"SELECT arg_max(rowid, time::HUGEINT * 1099511627776 + rowid) FROM {table} GROUP BY tag"  # noqa: S608  # own text
            found = fetched(connection, f"SELECT {HOT} FROM {table} WHERE rowid IN ({newest})")  # noqa: S608  # own text
            self.latest.take(tags_of(found), rows_of(found))
        if self._generations:
            last = self._generations[-1].id
            ((self.hot_rows,),) = connection.execute(f"SELECT count(*) FROM hot_{last}").fetchall()  # noqa: S608  # own text
        connection.close()

    def write(self, entries: Sequence[tuple[int, Batch]]) -> bool:
        """Hold the entries; say whether a generation was closed. Raises Rejected, Unavailable, Misconfigured."""
        turned = False
        for group in _groups([entry for entry in entries if entry[0] > self.position]):
            turned |= self._write(group)
        return turned

    def _write(self, group: Sequence[tuple[int, Batch]]) -> bool:
        fresh = [(offset, batch) for offset, batch in group if not self._is_covered(offset)]
        names: dict[str, int] = {}
        tags, rows = self._columns(fresh, names)
        connection = self._connected()
        turned = bool(self._generations) and self.hot_rows >= self._generation_rows
        begins = turned or not self._generations
        # only what changes the list of generations has to keep snapshots waiting
        with self.guarded(), self._turn if begins else nullcontext():
            with transaction(connection):
                generation = self._begin(connection) if begins else self._generations[-1]
                if names:
                    insert_arrow(
                        connection, "tag", arrow_table({"id": pa.array(names.values(), pa.int32()), "name": [*names]})
                    )
                if len(rows):
                    insert_arrow(connection, f"hot_{generation.id}", arrow(tags, rows))
                    insert_arrow(connection, f"entry_{generation.id}", entries_arrow(fresh))
                connection.execute("UPDATE about SET position = ?", [group[-1][0]])
            if begins:
                self._generations = (*self._generations, generation)
        self.tags |= names
        self.position = group[-1][0]
        self.hot_rows = len(rows) + (0 if begins else self.hot_rows)
        self.latest.take(tags, rows)
        return turned

    def turn(self) -> None:
        """Begin the next generation, so that the rows of this one can be compacted."""
        if not self.hot_rows:
            return
        connection = self._connected()
        with self.guarded(), self._turn:
            with transaction(connection):
                generation = self._begin(connection)
            self._generations = (*self._generations, generation)
            self.hot_rows = 0

    def _begin(self, connection: duckdb.DuckDBPyConnection) -> Generation:
        ((number,),) = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM generation").fetchall()
        connection.execute(f"CREATE TABLE hot_{number} AS SELECT * FROM latest LIMIT 0")  # noqa: S608  # an integer
        connection.execute(f'CREATE TABLE entry_{number} ("offset" BIGINT, received BIGINT, source VARCHAR)')
        connection.execute("INSERT INTO generation VALUES (?, ?)", [number, self.position])
        return Generation(number, self.position)

    def _columns(self, entries: Sequence[tuple[int, Batch]], names: dict[str, int]) -> tuple[Int64, Rows]:
        """The rows of all entries, and their tags' ids; tags not known yet get ids in ``names``."""
        known = self.tags
        ids: list[Int64] = []
        parts: list[Rows] = []
        for offset, batch in entries:
            if not len(batch):
                continue
            try:
                found = [*map(known.__getitem__, batch.tags)]
            except KeyError:
                for tag in batch.tags:
                    if tag not in known and tag not in names:
                        names[_storable(tag, batch)] = len(known) + len(names) + 1
                found = [known[tag] if tag in known else names[tag] for tag in batch.tags]
            ids.append(np.array(found, np.int64))
            parts.append(of_batch(offset, batch))
        return (np.concatenate(ids) if ids else np.zeros(0, np.int64)), Rows.joined(parts)

    def _is_covered(self, offset: int) -> bool:
        """Whether segments already hold this entry, though the position does not say so (a new database)."""
        if not self._covered:
            return False
        i = bisect_left(self._covered, offset, key=lambda span: span[1])
        return i < len(self._covered) and self._covered[i][0] < offset

    # -- compaction's side -----------------------------------------------------------------------

    def closed(self) -> tuple[Generation, Range] | None:
        """The oldest closed generation and the journal entries that it holds."""
        generations = self._generations
        if len(generations) < 2:  # noqa: PLR2004  # the last one is being written
            return None
        return generations[0], (generations[0].after, generations[1].after)

    def sorted_rows(self, generation: Generation, since: int) -> tuple[Int64, Rows, Entries]:
        """All rows of a generation from ``since`` on: tags' ids, rows by tag and time, journal entries."""
        cursor = self._connected().cursor()
        with self.guarded():
            table = fetched(
                cursor,
                f"SELECT {HOT} FROM hot_{generation.id} WHERE time >= ? ORDER BY tag, time, entry, rowid",  # noqa: S608  # own text
                [since],
            )
            lines = fetched(cursor, f'SELECT "offset", received, source FROM entry_{generation.id} ORDER BY "offset"')  # noqa: S608  # own text
        cursor.close()
        entries = Entries(
            lines.column("offset").to_numpy(),
            lines.column("received").to_numpy(),
            [str(source) for source in lines.column("source").to_pylist()],
        )
        return tags_of(table), rows_of(table), entries

    def replace(self, old: Sequence[Stored], new: Sequence[Stored], generation: Generation | None = None) -> None:
        """Let new segments (still ``.part``) stand for old ones or for a generation, in one transaction."""
        connection = self._connected().cursor()
        names = [line.segment.name for line in old]
        with self.guarded(), self._turn:
            with transaction(connection):
                for name in names:
                    connection.execute("DELETE FROM segment WHERE name = ?", [name])
                    connection.execute("INSERT INTO garbage VALUES (?)", [name])
                for line in new:
                    insert_segment(connection, line)
                if generation is not None:
                    write_latest(connection, self.latest)
                    drop(connection, generation)
            kept = [line for line in self._stored if line.segment.name not in names]
            self._stored = tuple(sorted([*kept, *new], key=lambda line: line.last))
            if generation is not None:
                self._generations = self._generations[1:]
                self._dropped = True
            for line in new:
                line.segment.path.with_name(line.segment.name + PART).replace(line.segment.path)
        connection.close()
        sync_folder(self.folder)
        self._sweep(names)

    def _sweep(self, names: Sequence[str]) -> None:
        """Delete files that no line of the catalogue names any more."""
        gone: list[str] = []
        for name in names:
            # where an open file cannot be deleted (Windows, a query under way) the next opening does it
            with suppress(PermissionError):
                (self.folder / name).unlink(missing_ok=True)
                gone.append(name)
        connection = self._connected().cursor()
        with self.guarded(), self._turn, transaction(connection):
            for name in gone:
                connection.execute("DELETE FROM garbage WHERE name = ?", [name])
        connection.close()

    def shrink(self) -> None:
        """Checkpoint, so that space of dropped generations at the end of the file goes back to the system."""
        if not self._dropped:
            return
        connection = self._connected().cursor()
        try:
            with self.guarded(), self._turn:
                connection.execute("CHECKPOINT")
            self._dropped = False
        except Unavailable as error:
            if not isinstance(error.__cause__, duckdb.TransactionException):
                raise
            # someone writes or reads just now: the next time will do
        finally:
            connection.close()

    def quarantine(self, line: Stored, error: Exception) -> None:
        """Move a segment that cannot be read aside, take it out of the catalogue, say what is lost."""
        connection = self._connected().cursor()
        with self.guarded(), self._turn:
            with transaction(connection):
                connection.execute("DELETE FROM segment WHERE name = ?", [line.segment.name])
            self._stored = tuple(other for other in self._stored if other is not line)
        connection.close()
        self._quarantine(line.segment, error, rows=line.rows, first=line.first, last=line.last)

    def _quarantine(self, segment: Segment, error: Exception, **lost: int) -> None:
        target = segment.path.with_name(segment.name + ".damaged")
        segment.close()
        segment.path.replace(target)
        _log.error(
            "A segment of the historian is damaged and has been moved aside; its rows are lost unless the file can be "
            "restored from a backup",
            moved=str(target),
            error=str(error),
            **lost,
        )

    # -- small parts -----------------------------------------------------------------------------

    @contextmanager
    def guarded(self) -> Generator[None]:
        """Errors as what the pipeline can act on; damage is noted, so that the next ``open`` moves the file aside."""
        try:
            with translated(self.path):
                yield
        except Unavailable as error:
            if error.__cause__ is not None and is_damage(error.__cause__):
                self.damaged = True
            raise


def _groups(entries: Sequence[tuple[int, Batch]]) -> Iterator[list[tuple[int, Batch]]]:
    """Entries in ascending offsets, cut into transactions."""
    group: list[tuple[int, Batch]] = []
    rows = 0
    for offset, batch in entries:
        if group and rows + len(batch) > GROUP:
            yield group
            group, rows = [], 0
        group.append((offset, batch))
        rows += len(batch)
    if group:
        yield group


def _storable(tag: str, batch: Batch) -> str:
    """The tag's name, if a database can hold it. Raises Rejected with where it stands in the batch."""
    if not tag.isascii() and any("\ud800" <= letter <= "\udfff" for letter in tag):
        raise Rejected(
            f"the tag name {tag!r} is not valid Unicode", [i for i, other in enumerate(batch.tags) if other == tag]
        )
    return tag
