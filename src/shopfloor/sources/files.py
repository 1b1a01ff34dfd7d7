"""Files that machines put into a folder, CSV or JSON lines, as samples with the rows' own times.

A file counts as done, and is moved away, once its last batch is durable. How far each file was read is in the
checkpoint, which becomes durable with the batch: a restart in the middle of a file goes on behind the last durable row.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import structlog
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from shopfloor.plant.components import Form, SourceConfig
from shopfloor.plant.units import DURATION_UNITS, Duration
from shopfloor.samples import Batch, Quality, TagInfo, Unavailable, Value
from shopfloor.seams import Source
from shopfloor.sources.files_folder import Folder, Found
from shopfloor.sources.files_rows import Decimal, FileColumn, Meaning, Readings, Template
from shopfloor.sources.files_text import (
    BadFile,
    Changed,
    Layout,
    Piece,
    Position,
    Record,
    examine,
    is_begun,
    is_same,
    known_encoding,
    piece,
    rejects_name,
)
from shopfloor.sources.files_time import Clock, known_format
from shopfloor.sources.mqtt_payload import Unreadable

_SECOND: Final = DURATION_UNITS["s"]
_ROWS: Final = 1000
"""Rows of which a batch is made at most."""
_VALUES: Final = 20_000
"""Values of which a batch is made at most, about."""
_PATIENCE: Final = 30.0
"""Seconds in which a file system must have answered."""
_KNOWN: Final = 1000
"""Files whose place is remembered although they have gone."""
_EXAMINED: Final = 20
"""Files that are looked into when the folder is probed."""
_COMPLAINTS: Final = 1000
"""Things that are said once."""

logger: Final = structlog.get_logger("shopfloor.sources.files")

_T = TypeVar("_T")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("must be a time zone of the IANA's list; write one like Europe/Berlin or UTC") from error
    return name


def _encoding(name: str) -> str:
    return name if name == "auto" else known_encoding(name)


def _delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if text != "auto" and (len(text) != 1 or text in '\r\n"'):
        raise ValueError("is one character, like `;`, or `tab`, or `auto`")
    return text


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


_FolderName = Annotated[str, Form(r"[^/\\\x00.][^/\\\x00]{0,99}", "the name of a folder inside `folder`, not a path")]
_Text = Annotated[str, StringConstraints(min_length=1)]


class FilesConfig(SourceConfig):
    """CSV and JSON lines that machines put into a folder, each row with its own time."""

    type: Literal["files"] = "files"
    folder: Path = Field(description="Where the files come into; a folder of this computer or a mounted share.")
    format: Literal["csv", "jsonl"] = Field(default="csv", description="`csv`: tables. `jsonl`: a JSON object a line.")
    files: Annotated[str, Form(r"[^/\\\x00]{1,200}", "a name of files without a folder, `*` is any text")] | None = (
        Field(default=None, description="Which files; `*` is any text. By default `*.csv`, or `*.jsonl`.")
    )
    tag: Template = Field(
        default="{file}/{column}",
        description="The tag of a value. `{column}` is the column's name, `{file}` the file's without suffix, any "
        "other name in braces the row's value in that column: `{machine}/{column}`.",
    )
    columns: list[FileColumn] = Field(
        default=[],
        description="The columns that become tags; without any, all but those of the time and in braces.",
    )
    time: Annotated[list[_Text], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])] = Field(
        default=[],
        description="The column of the time, or those of date and time of day; "
        "without it, when the file was changed last.",
    )
    time_format: Annotated[str, AfterValidator(known_format)] = Field(
        default="auto",
        description="`iso`: ISO 8601. `s`, `ms`, `us`, `ns`: since 1970. Or a pattern, `%d.%m.%Y %H:%M:%S`. "
        "`auto`: ISO 8601 or a number, whose unit its size tells.",
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="IANA time zone of times that name none."
    )
    decimal: Decimal = Field(default=".", description="For `csv`, the decimal sign.")
    delimiter: Annotated[str, AfterValidator(_delimiter)] = Field(
        default="auto", description="For `csv`, what separates columns; `auto` finds out, `tab` is one, too."
    )
    encoding: Annotated[str, AfterValidator(_encoding)] = Field(
        default="auto",
        description="A byte order mark decides. Without it this: `auto` takes a line as UTF-8, or as Windows-1252 "
        "where it is none.",
    )
    header: list[str] = Field(
        default=[], description="For `csv` without a line of names: the columns in order, an empty name leaves one out."
    )
    skip: int = Field(default=0, ge=0, le=10_000, description="Lines to leave out at the beginning of each file.")
    poll: Duration = Field(default=_SECOND, ge=_SECOND // 100, description="How often the folder is looked through.")
    settle: Duration = Field(
        default=2 * _SECOND, ge=0,
        description="A file is complete when size and time of change stayed for so long; longer than the writer "
        "pauses. `0 s` for writers that rename what is complete.",
    )  # fmt: skip
    done: Literal["move", "rename"] = Field(
        default="move",
        description="What becomes of a file that was read: `move` into `done_folder`, or `rename` to …`.done`.",
    )
    done_folder: _FolderName = Field(default="done", description="For `move`: a folder inside `folder`.")
    failed_folder: _FolderName = Field(
        default="failed",
        description="A folder inside `folder` for files that cannot be read at all, and for rejected rows.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = {"delimiter": self.delimiter != "auto", "header": bool(self.header), "decimal": self.decimal != "."}
        wrong = next((name for name, is_given in given.items() if is_given), None)
        if self.format == "jsonl" and wrong is not None:
            raise ValueError(f"`{wrong}` belongs to `format: csv`; take it out")
        names = [column.column for column in self.columns]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"`columns` has {twice} twice; take one out")
        if self.header:
            named = [name for name in self.header if name]
            twice = next((name for name in named if named.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"`header` has {twice} twice; name columns differently")
            absent = sorted(self.meaning().needed - set(self.header))
            if absent:
                raise ValueError(f"`header` has no {absent[0]!r}, which the other options name")
        return self

    def meaning(self) -> Meaning:
        """What its rows mean."""
        clock = Clock(self.time_format, self.timezone)
        return Meaning(self.tag, self.columns, self.time, clock, self.decimal if self.format == "csv" else None)

    def declared(self) -> Sequence[TagInfo] | None:
        """The tags, where the plant file alone tells them."""
        return self.meaning().declared()

    def build(self) -> "FilesSource":
        """The source; reads nothing yet."""
        return FilesSource(self)

    def probe(self) -> "FilesSource":
        """One that looks on while another may be reading."""
        return FilesSource(self, looks_on=True)


class FilesSource(Source):
    """Files of a folder."""

    def __init__(self, config: FilesConfig, *, looks_on: bool = False) -> None:
        """Prepare; nothing is read yet. One that ``looks_on`` has no batches to give."""
        self._config = config
        self._looks_on = looks_on
        self._meaning = config.meaning()
        suffix = "*.csv" if config.format == "csv" else "*.jsonl"
        self._folder = Folder(
            config.folder, config.files or suffix, config.settle / _SECOND, config.done, config.done_folder,
            config.failed_folder,
        )  # fmt: skip
        self._known: dict[str, Position] = {}
        """Every file that was begun and is not moved away yet, as far as it is durable."""
        self._bad_rows = 0
        self._said: deque[tuple[str, str]] = deque(maxlen=_COMPLAINTS)
        # A thread of its own: a share that hangs must not take the threads that everybody else needs.
        self._thread = ThreadPoolExecutor(1, f"files {config.name}")

    async def __aenter__(self) -> Self:
        """Be the only reader. Raises Unavailable when the folder is not there, or somebody else reads its files."""
        await self._do(self._folder.settled)
        if not self._looks_on:
            await self._do(self._folder.claim)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Let others read; nothing else is open between two looks."""
        with suppress(Unavailable):
            await self._do(self._folder.release)

    def resume(self, checkpoint: bytes) -> None:
        """Go on in the middle of the files that were begun."""
        self._known = {known.name: known for known in msgspec.json.decode(checkpoint, type=list[Position])}

    async def batches(self) -> AsyncGenerator[Batch]:
        """The rows of each complete file, one file after the other; those that were begun come first."""
        while True:
            ready = await self._do(self._folder.settled)
            for found in sorted(ready, key=lambda found: found.name not in self._known):
                async with aclosing(self._file(found)) as batches:
                    async for batch in batches:
                        yield batch
            await asyncio.sleep(self._config.poll / _SECOND)

    async def examine(self) -> AsyncIterator[str]:
        """What of the files that are there now would be rejected, and why; nothing is moved."""
        there = await self._do(self._folder.there)
        for found in sorted(there, key=lambda found: -found.modified)[:_EXAMINED]:
            trouble = await self._do(lambda: self._look_into(found))  # noqa: B023  # done by then
            if trouble:
                yield f"{found.name} {trouble}"

    def _look_into(self, found: Found) -> str:
        """Why its first rows could not be read; empty: they could."""
        path = self._folder.file(found.name)
        try:
            layout = self._examine(path)
            read = piece(path, layout, Position(found.name), _ROWS, found.size)
        except BadFile as error:
            return str(error)
        except OSError as error:
            return f"may not be read ({error.strerror or error}); give this user the right to"
        bad: list[tuple[int, str]] = []
        for record in read.records:
            try:
                self._readings(record, Path(found.name).stem, None)
            except Unreadable as error:
                bad.append((record.line, str(error)))
        many = f" (and {len(bad) - 1} more of the first {len(read.records)} rows)" if len(bad) > 1 else ""
        return f"line {bad[0][0]}: {bad[0][1]}{many}" if bad else ""

    # ---- a file -------------------------------------------------------------------------------------

    async def _file(self, found: Found) -> AsyncGenerator[Batch]:
        """What is left of a file; when that is durable, the file is moved away."""
        name = found.name
        try:
            async with aclosing(self._rows(found)) as batches:
                async for batch in batches:
                    yield batch
            self._well(name)
        except BadFile as error:
            await self._fail(name, str(error))
        except Changed:
            self._say(
                name, "another file came under this name before it was read to its end; it is read from its beginning"
            )
            self._known.pop(name, None)
        except FileNotFoundError:
            self._say(name, "it vanished before it was read to its end")
        except OSError as error:
            await self._do(self._folder.settled)  # Unavailable, when it is the whole folder
            self._say(name, f"it cannot be read or moved ({error.strerror or error}); it is tried again")

    async def _rows(self, found: Found) -> AsyncGenerator[Batch]:
        name, path = found.name, self._folder.file(found.name)
        known = self._known.get(name) or await self._renamed(found)
        if known is not None and known.finished:
            whole = known
            if await self._do(lambda: is_same(path, whole)):
                await self._finish(name)
                return
            known = None  # a new file of that name
        layout = await self._do(lambda: self._examine(path))
        if known is None:
            known = Position(name, rejects=await self._do(lambda: rejects_name(path)))
        before = known
        await self._do(lambda: self._folder.keep_rejects(before.rejects, before.line))
        while True:
            position = known
            rows = max(1, min(_ROWS, _VALUES // max(1, len(layout.names))))
            read = await self._do(lambda: piece(path, layout, position, rows, found.size))  # noqa: B023  # done by then
            batch, known = await self._batch(read, position, found)
            if len(batch):
                batch.checkpoint = self._checkpoint(known)
                yield batch
            self._known[name] = known
            if known.finished:
                await self._finish(name)
                return
            if known.offset == position.offset:
                return  # somebody writes to it again; it has to settle anew

    async def _renamed(self, found: Found) -> Position | None:
        """How far the file was read when it had another name; None where it is a new one."""
        gone = [one for one in self._known.values() if not one.finished and one.offset <= found.size]
        for one in gone:
            if await self._do(lambda: self._is_renamed(found, one)):  # noqa: B023  # done by then
                self._say(found.name, f"it was called {one.name} when its first rows were read; it is gone on with")
                self._known.pop(one.name)
                return msgspec.structs.replace(one, name=found.name)
        return None

    def _is_renamed(self, found: Found, position: Position) -> bool:
        was = self._folder.file(position.name)
        return not was.exists() and is_begun(self._folder.file(found.name), position)

    async def _batch(self, read: Piece, position: Position, found: Found) -> tuple[Batch, Position]:
        """The samples of some rows, and the place behind them; rejected rows are written down by then."""
        received = time.time_ns()
        tags: list[str] = []
        times: list[int] = []
        values: list[Value] = []
        qualities: list[int] = []
        rejected: list[Record] = []
        last = position.last
        stem = Path(found.name).stem
        for record in read.records:
            try:
                when, its_tags, its_values = self._readings(record, stem, last)
            except Unreadable as error:
                rejected.append(record._replace(problem=str(error)))
                continue
            moment, quality = (found.modified, Quality.GOOD) if when is None else when
            last = moment
            tags += its_tags
            values += its_values
            times += [moment] * len(its_tags)
            qualities += [quality] * len(its_tags)
        if rejected:
            await self._reject(position, rejected)
            tags.append(f"$source/{self._config.name}/bad_rows")
            times.append(received)
            values.append(self._bad_rows)
            qualities.append(Quality.GOOD)
        finished = read.offset == read.size == found.size and read.modified == found.modified
        return Batch(self._config.name, received, tags, times, values, qualities), Position(
            found.name, read.offset, read.line, read.digest, last, position.rejects, finished,
            read.modified if finished else 0,
        )  # fmt: skip

    def _readings(self, record: Record, stem: str, last: int | None) -> Readings:
        if record.problem:
            raise Unreadable(record.problem)
        return self._meaning.readings(record.fields, stem, last)

    def _examine(self, path: Path) -> Layout:
        config = self._config
        return examine(
            path, table=config.format == "csv", encoding=config.encoding, delimiter=config.delimiter,
            header=config.header, skip=config.skip, needed=self._meaning.needed,
        )  # fmt: skip

    async def _finish(self, name: str) -> None:
        await self._do(lambda: self._folder.finish(name))
        self._known.pop(name, None)

    async def _fail(self, name: str, reason: str) -> None:
        """A file that cannot be read as a whole goes aside, so that a person sees it."""
        try:
            there = await self._do(lambda: self._folder.fail(name, reason))
        except OSError as error:
            self._say(name, f"{reason} It cannot be put aside ({error.strerror or error}); it is tried again")
        else:
            logger.warning("a file cannot be read", component=self._config.name, file=str(there), reason=reason)
            self._known.pop(name, None)

    async def _reject(self, position: Position, records: Sequence[Record]) -> None:
        there = await self._do(lambda: self._folder.reject(position.rejects, records))
        self._bad_rows += len(records)
        first = records[0]
        self._say(
            position.name, "rows are rejected", rejects=str(there), line=first.line, reason=first.problem
        )  # fmt: skip

    def _checkpoint(self, position: Position) -> bytes:
        """How far each file was read once this is; also of those that have gone: a share may bring them back."""
        known = [*(one for one in self._known.values() if one.name != position.name), position]
        return msgspec.json.encode(known[-_KNOWN:])

    # ---- trouble ------------------------------------------------------------------------------------

    def _say(self, name: str, text: str, **more: object) -> None:
        """Say it once of each file."""
        if (name, text) not in self._said:
            self._said.append((name, text))
            logger.warning(text, component=self._config.name, file=name, **more)

    def _well(self, name: str) -> None:
        """The file could be read: the next trouble with one of this name is news."""
        if any(one == name for one, _ in self._said):
            self._said = deque((said for said in self._said if said[0] != name), maxlen=_COMPLAINTS)

    async def _do(self, work: Callable[[], _T]) -> _T:
        """Do something with files in the thread. Raises Unavailable when the file system does not answer."""
        doing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        doing.add_done_callback(lambda done: done.cancelled() or done.exception())  # also when nobody waits any more
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(doing)
        raise Unavailable(f"{self._config.folder} does not answer within {_PATIENCE:g} s; is its share away?")
