"""Samples into Parquet or CSV files in a folder, each file whole and each sample in exactly one.

What is held and not in a file yet stands in a small database in the folder; `files_spool` says how a file comes of it.
"""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

import pyarrow as pa
from pydantic import Field, PrivateAttr, model_validator

from shopfloor.plant import Plant
from shopfloor.plant.components import Form, SinkConfig
from shopfloor.plant.units import DURATION_UNITS, Duration, Size
from shopfloor.samples import Batch, Misconfigured, Rejected, Unavailable
from shopfloor.seams import Connection, Sink
from shopfloor.sinks.files_spool import Spool
from shopfloor.sinks.files_writing import Compression, Layout, to_disk, write
from shopfloor.sinks.tag_facts import TagFacts
from shopfloor.sinks.text import is_unicode

LOOK_EVERY: Final = 2.0
"""Seconds after which it is looked whether the folder is there, and whether a file is due."""
TIDY_EVERY: Final = 3600.0
"""Seconds after which it is looked for files that are older than `keep`."""
ANSWERS_WITHIN: Final = 60.0
"""Seconds in which a disk takes what is written; a share that hangs does not."""
WRITTEN_WITHIN: Final = 600.0
"""The same for a whole file."""
LEAVES_WITHIN: Final = 5.0
_MINUTE: Final = DURATION_UNITS["min"]
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_A_PERSON: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR})

_T = TypeVar("_T")


class FilesSinkConfig(SinkConfig):
    """Puts samples into Parquet or CSV files, one after another, for DuckDB, pandas, Spark or Excel."""

    type: Literal["files"] = "files"
    folder: Path = Field(description="Where to; made where it is not there, but not the folder that it is in.")
    format: Literal["parquet", "csv"] = Field(default="parquet", description="What kind of files.")
    prefix: Annotated[str, Form(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "letters, digits, `_`, `.`, `-`")] | None = Field(
        default=None, description="What the names of the files begin with; by default this sink's name."
    )
    rotate_every: Duration = Field(
        default=15 * _MINUTE, ge=DURATION_UNITS["s"],
        description="A file is closed so long after its first sample came.",
    )  # fmt: skip
    rotate_size: Size = Field(
        default=64 * 10**6, ge=10**3, description="It is closed before, when so much waits, counted uncompressed."
    )
    partition: Literal["day", "none"] = Field(
        default="day",
        description="`day`: a folder for each day of the site's calendar, `day=2026-01-31`; late samples go to theirs.",
    )
    compression: Compression = Field(
        default="auto", description="`auto` is zstd for Parquet and none for CSV; snappy is for Parquet only."
    )
    keep: Annotated[Duration, Field(gt=0)] | None = Field(
        default=None, description="Files older than this are deleted; by default none is."
    )

    _facts: TagFacts = PrivateAttr(default_factory=TagFacts)
    _zone: str = PrivateAttr(default="UTC")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.format == "csv" and self.compression == "snappy":
            raise ValueError("`compression: snappy` is for Parquet; write gzip, zstd or none")
        return self

    def place(self, plant: Plant) -> None:
        """Remember the site's time zone, and which units the tags have."""
        self._facts = TagFacts(plant)
        self._zone = plant.plant.timezone

    def problems(self) -> Iterable[tuple[str, str]]:
        """Whether something else is in the folder's place."""
        if self.folder.exists() and not self.folder.is_dir():
            yield "folder", f"{self.folder} is no folder; name one"

    def build(self) -> "FilesSink":
        """The sink; opens nothing yet."""
        return FilesSink(self, self._facts)

    def probe(self) -> Connection:
        """Only whether files can be put there: the sink itself may be at work."""
        return _Probe(self.folder)

    @property
    def layout(self) -> Layout:
        """How the files look."""
        return Layout(
            self.folder, self.prefix or self.name, self.format, self.compression, self.partition == "day",
            ZoneInfo(self._zone),
        )  # fmt: skip


class _Probe(Connection):
    """Looks and writes nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(_look, self._folder)
        return self


class FilesSink(Sink):
    """Writes files; enter it to open the folder."""

    def __init__(self, config: FilesSinkConfig, facts: TagFacts, clock: Callable[[], int] = time.time_ns) -> None:
        """Built by ``FilesSinkConfig.build``; ``clock`` gives ns UTC."""
        self._config = config
        self._facts = facts
        self._layout = config.layout
        self._clock = clock
        self._folder = _Folder(config.folder)
        self._spool: Spool | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._caring: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Open the folder, and finish the file that was cut off. Raises Unavailable, Misconfigured."""
        self._thread = ThreadPoolExecutor(1, f"files {self._config.name}")
        try:
            await self._run(self._open, WRITTEN_WITHIN)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self._caring = asyncio.create_task(self._care(), name=f"{self._config.name}: files")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        caring, self._caring = self._caring, None
        if caring is not None:
            caring.cancel()
            await asyncio.gather(caring, return_exceptions=True)  # what it failed of, `lost` has said
        if self._thread is not None:
            with suppress(Unavailable, Misconfigured):  # a share that hangs keeps its thread
                await self._run(self._close, LEAVES_WITHIN)
            self._thread.shutdown(wait=False)
            self._thread = None

    async def held(self) -> int:
        """The last offset that is in a file, or waits for one on disk."""
        return await self._run(lambda: self._opened().held(), ANSWERS_WITHIN)

    async def lost(self) -> None:
        """Raise Unavailable when the folder is gone or a file cannot be written."""
        if self._caring is None:
            raise Unavailable("not open")
        await asyncio.shield(self._caring)

    async def write(self, offset: int, batch: Batch) -> None:
        """Hold the batch; see ``write_many``."""
        unwritable = [
            i
            for i, sample in enumerate(batch)
            if not is_unicode(sample.tag) or (isinstance(sample.value, str) and not is_unicode(sample.value))
        ]
        if unwritable:
            raise Rejected("the text is not Unicode, so it cannot be written as UTF-8", unwritable)
        await self._hold([(offset, batch)])

    async def write_many(self, entries: Sequence[tuple[int, Batch]]) -> None:
        """Hold the batches in one transaction, and close the file when it is large enough.

        Raises Rejected for text that is not Unicode, Unavailable when the folder is gone or there is no room.
        """
        await self._hold(entries)

    async def _hold(self, entries: Sequence[tuple[int, Batch]]) -> None:
        await self._run(lambda: self._put(entries), ANSWERS_WITHIN)
        await self._run(self._rotate_if_due, WRITTEN_WITHIN)

    async def finish(self) -> None:
        """Put all that waits into files now."""
        await self._run(self._rotate, WRITTEN_WITHIN)

    async def _care(self) -> None:
        """Close files in time, look after the folder and after old files, until it fails."""
        tidied = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._run(self._rotate_if_due, WRITTEN_WITHIN)
            if self._config.keep is not None and (not tidied or loop.time() - tidied > TIDY_EVERY):
                await self._run(self._tidy, WRITTEN_WITHIN)
                tidied = loop.time()

    async def _run(self, work: Callable[[], _T], within: float) -> _T:
        """Do something that blocks, in the one thread of this sink, with errors as the pipeline knows them.

        Its time, in seconds, begins once what was begun before has ended: a whole file has more of it.
        """
        if self._thread is None:
            raise Unavailable("not open")
        try:
            async with self._busy, asyncio.timeout(within):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise Unavailable(f"the disk of {self._config.folder} does not answer within {within:g} s") from error
        except (OSError, sqlite3.Error, pa.ArrowException) as error:
            raise _meaning(self._config.folder, error) from error
        except UnicodeEncodeError as error:
            raise Rejected(f"cannot be written as UTF-8: {error.reason}") from error

    # ---- in the thread -------------------------------------------------------------------------------

    def _open(self) -> None:
        _look(self._config.folder)
        self._folder.enter()
        self._spool = Spool(self._config.folder / f".{self._layout.name}.spool")
        for path in self._layout.unfinished():
            path.unlink()
        if not self._spool.held():  # it was deleted, or is new: then the names of the files tell
            self._spool.raise_held(max((last for _, _, last in self._layout.finished()), default=0))
        if self._spool.waiting().last is not None:
            self._rotate()

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _opened(self) -> Spool:
        if self._spool is None:
            raise Unavailable("not open")
        self._folder.check()
        return self._spool

    def _put(self, entries: Sequence[tuple[int, Batch]]) -> None:
        spool = self._opened()
        spool.put(entries, self._clock())

    def _rotate_if_due(self) -> None:
        begun, size, _ = self._opened().waiting()
        if begun is None:
            return
        since = self._clock() - begun
        # A clock that was set back must not hold a file open for long.
        if size >= self._config.rotate_size or since >= self._config.rotate_every or since < -_MINUTE:
            self._rotate()

    def _rotate(self) -> None:
        spool = self._opened()
        again = spool.waiting().last is not None
        span = spool.begin()
        if span is None:
            return
        first, last = span
        if again:  # what was finished of it before a kill may be of another format
            for path, *offsets in self._layout.finished():
                if offsets == [first, last]:
                    path.unlink(missing_ok=True)
        units = self._facts.units
        write(self._layout, lambda: spool.batches(last), first, last, lambda tag: units.get(tag, ""))
        spool.finish(last, self._clock())

    def _tidy(self) -> None:
        """Delete the files that are older than `keep`."""
        if self._config.keep is None:
            return
        oldest = self._clock() - self._config.keep
        for path, _, _ in list(self._layout.finished()):
            with suppress(FileNotFoundError):  # somebody else has deleted it meanwhile
                if path.stat().st_mtime_ns >= oldest:
                    continue
                path.unlink()
                if path.parent != self._config.folder:
                    with suppress(OSError):  # not empty
                        path.parent.rmdir()


class _Folder:
    """Whether it is still the folder that was opened: a share may have gone from its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was: tuple[int, int] | None = None

    def enter(self) -> None:
        """Make it where it is not there, and remember which one it is."""
        if not self._path.exists():
            self._path.mkdir()
            to_disk(self._path.parent)
        self._was = self._is()

    def check(self) -> None:
        """Raise Unavailable when it is another one, or none."""
        if self._is() != self._was:
            raise Unavailable(f"{self._path} has gone, or another folder is in its place; is the share mounted?")

    def _is(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def _look(folder: Path) -> None:
    """Raise Unavailable or Misconfigured when no files can be put there."""
    try:
        there = folder if folder.exists() else folder.parent
        if not there.exists():
            raise Unavailable(f"there is no folder {there}; make it, or mount the share that it is on")
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
    except OSError as error:
        raise _meaning(folder, error) from error


def _meaning(folder: Path, error: Exception) -> Unavailable | Misconfigured:
    """What an error of the disk means."""
    said = str(error)
    number = error.errno if isinstance(error, OSError) else None
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if number in _NO_ROOM or code == sqlite3.SQLITE_FULL or "No space left" in said:
        return Unavailable(f"no room on the disk of {folder}: free some, or set or lower `keep`: {said}")
    if number in _A_PERSON or code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY):
        return Misconfigured(f"{folder} may not be written by this user (chown it), or is no folder: {said}")
    if code == sqlite3.SQLITE_BUSY:
        return Unavailable(
            f"another Shopfloor or sink writes these files into {folder}; stop it, or give each its own `prefix` "
            "(after a restart of this sink it may be its own last file, which is still being written)"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Misconfigured(
            f"what waits in {folder} for the next file cannot be read ({said}): move the hidden .spool away; what was "
            "in it comes again as far as the journal still has it"
        )
    return Unavailable(f"the disk of {folder} fails: {said}")
