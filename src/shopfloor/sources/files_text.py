"""Text files as records, each with the place behind it: encodings, lines, CSV, JSON lines.

Everything here blocks and runs in a thread. A file is opened for a piece and closed again, so nothing is held open
on a network share, and the same code goes on in the middle of a file after a piece and after a restart.
"""

import codecs
import csv
import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import msgspec

DELIMITERS: Final = (";", "\t", ",", "|")
"""What is tried, in this order, when the plant file names none."""
LONGEST_LINE: Final = 2**20
"""Bytes; what is longer is no row of a table."""
_SAMPLE: Final = 4096
"""Bytes at the beginning and before the place by which a file is known again."""
_SHOWN: Final = 2000
"""Characters of a row that are kept with the reason why it was rejected."""
_ZEROS: Final = 8
"""One byte of so many is zero in what is no text of one byte a character; fewer are damage in some rows."""
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8", 1),
    (codecs.BOM_UTF16_LE, "utf-16-le", 2),
    (codecs.BOM_UTF16_BE, "utf-16-be", 2),
)


class BadFile(Exception):
    """The file as a whole is not what the plant file says; the text says what to do."""


class Changed(Exception):
    """The file is another one than that which was begun."""


class Encoding(NamedTuple):
    """How bytes become text."""

    codec: str
    """Python's name; empty: each line UTF-8, or Windows-1252 where it is none."""
    width: int
    """Bytes of a line feed."""
    mark: int
    """Bytes of the byte order mark at the beginning."""


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a file was read, and by what it is known again; part of the checkpoint."""

    name: str
    offset: int = 0
    line: int = 0
    """Lines before ``offset``."""
    digest: str = ""
    """Of the first bytes and of those before ``offset``."""
    last: int | None = None
    """The time of the last row, ns UTC."""
    rejects: str = ""
    """The name of the file for its rejected rows."""
    finished: bool = False
    modified: int = 0
    """The file's modification time, ns, once it is finished."""


class Record(NamedTuple):
    """A row."""

    line: int
    """Its number, from 1."""
    text: str
    """Its first line, as far as it is kept with a reason."""
    fields: Mapping[str, object]
    """Values by the names of the columns; empty when there is a problem."""
    problem: str = ""


class Layout(NamedTuple):
    """What the beginning of a file tells about the rest."""

    encoding: Encoding
    delimiter: str
    """Empty: JSON lines."""
    names: tuple[str, ...]
    begin: int
    """Byte offset of the first row."""
    line: int
    """Lines before it."""


class Piece(NamedTuple):
    """Some rows of a file."""

    records: list[Record]
    offset: int
    line: int
    digest: str
    """Of the file up to ``offset``."""
    size: int
    """Bytes of the file when it was read."""
    modified: int
    """Its modification time, ns."""


def known_encoding(name: str) -> str:
    """The name as Python has it; raises ValueError for one that is unknown or in which lines cannot be told apart."""
    try:
        codec = codecs.lookup(name).name
        fits = codec in ("utf-16-le", "utf-16-be") or "a\n;,".encode(codec) == b"a\n;,"
    except (LookupError, UnicodeError):
        raise ValueError(f"{name!r} is no known encoding; write `auto`, `utf-8`, `cp1252` …") from None
    if codec == "utf-8-sig":
        return "utf-8"
    if not fits:
        raise ValueError(f"files in {name!r} cannot be read; `utf-16-le` and `utf-16-be` can, and all of one byte")
    return codec


def encoding_of(head: bytes, wanted: str) -> Encoding:
    """By the byte order mark, else as ``wanted`` (``auto`` or a known encoding). Raises BadFile for what is no text."""
    for mark, codec, width in _BOMS:
        if head.startswith(mark):
            return Encoding(codec, width, len(mark))
    if wanted.startswith("utf-16"):
        return Encoding(wanted, 2, 0)
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise BadFile("is an Excel workbook or another archive, not text; save it as CSV")
    if head.count(0) * _ZEROS > len(head):
        raise BadFile(
            "is not text (it has zero bytes): it was not written to its end, or it is UTF-16; then set "
            "`encoding: utf-16-le`"
        )
    return Encoding("" if wanted == "auto" else wanted, 1, 0)


class _Line(NamedTuple):
    number: int
    end: int
    text: str
    problem: str = ""


class _Text:
    """An open file as numbered lines, from any of them on."""

    def __init__(self, file: BinaryIO, encoding: Encoding, offset: int, line: int) -> None:
        self._file = file
        self._encoding = encoding
        self.offset = offset
        self.line = line
        file.seek(offset)

    def go(self, offset: int, line: int) -> None:
        self._file.seek(offset)
        self.offset, self.line = offset, line

    def lines(self) -> Iterator[_Line]:
        """To the end of the file; a last line that no line feed ends is one, too."""
        codec = self._encoding.codec
        while raw := self._raw():
            self.offset += len(raw)
            self.line += 1
            if len(raw) > LONGEST_LINE:
                self._skip()
                yield _Line(self.line, self.offset, _decoded(raw[:_SHOWN], codec, "replace"),
                            f"is longer than {LONGEST_LINE} bytes; let the machine end its lines")  # fmt: skip
                continue
            yield self._line(raw, codec)

    def _line(self, raw: bytes, codec: str) -> _Line:
        try:
            text = _decoded(raw, codec)
        except UnicodeDecodeError as error:
            wanted = codec or "UTF-8 nor Windows-1252"
            problem = f"is not {wanted} (byte {raw[error.start]:#04x}); set `encoding` to what the machine writes"
            return _Line(self.line, self.offset, _decoded(raw, codec, "replace"), problem)
        zeros = "has zero bytes: it was damaged or not written to its end; correct it and put it there again"
        return _Line(self.line, self.offset, text, zeros if "\0" in text else "")

    def _skip(self) -> None:
        """To the end of a line that is too long."""
        while raw := self._raw():
            self.offset += len(raw)
            if self._ends(raw):
                return

    def _ends(self, raw: bytes) -> bool:
        feed = "\n".encode(self._encoding.codec or "utf-8")
        return raw.endswith(feed) and not len(raw) % self._encoding.width

    def _raw(self) -> bytes:
        raw = self._file.readline(LONGEST_LINE + 1)
        if self._encoding.width == 1:
            return raw
        while raw and not self._ends(raw) and len(raw) <= LONGEST_LINE:  # 0x0A is half of many characters, too
            more = self._file.read(1) if len(raw) % 2 else self._file.readline(LONGEST_LINE)
            if not more:
                break
            raw += more
        return raw


def _decoded(raw: bytes, codec: str, errors: str = "strict") -> str:
    if codec:
        return raw.decode(codec, errors)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors)


class _Unfit(Exception):
    """Raised through the CSV reader: a line of the row cannot be read."""


def _csv(text: _Text, delimiter: str, most_lines: int | None = None) -> Iterator[tuple[list[_Line], list[str], str]]:
    """Rows as (their lines, fields, problem). A bad row is its first line alone; the next one begins anew."""
    pulled: list[_Line] = []

    def feed() -> Iterator[str]:
        for line in text.lines():
            pulled.append(line)
            if line.problem:
                raise _Unfit(line.problem)
            yield line.text

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while most_lines is None or text.line < most_lines:
        pulled.clear()
        try:
            fields = next(reader, None)
        except (csv.Error, _Unfit) as error:
            first = pulled[0]
            problem = str(error) if first.problem else f"its quotes are not closed or misplaced ({error})"
            pulled[1:] = []
            text.go(first.end, first.number)
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
            yield pulled, [], problem
            continue
        if fields is None:
            return
        yield pulled, fields, ""


def _json(text: _Text) -> Iterator[Record]:
    for line in text.lines():
        shown = line.text[:_SHOWN].rstrip("\r\n")
        if line.problem:
            yield Record(line.number, shown, {}, line.problem)
            continue
        if not line.text.strip():
            continue
        try:
            said = msgspec.json.decode(line.text)
        except (msgspec.DecodeError, RecursionError) as error:
            yield Record(line.number, shown, {}, f"is no JSON: {error}")
            continue
        if isinstance(said, dict):
            yield Record(line.number, shown, dict(_leaves(cast("dict[str, object]", said))))
        else:
            yield Record(line.number, shown, {}, "is no JSON object; each line must be one, `{…}`")


def _leaves(said: dict[str, object]) -> Iterator[tuple[str, object]]:
    """Everything in objects that is no object itself, by its path; iterative, so that depth costs no stack."""
    left: list[tuple[str, object]] = list(reversed(said.items()))
    while left:
        path, one = left.pop()
        if isinstance(one, dict) and one:
            inner = cast("dict[str, object]", one)
            left += [(f"{path}.{name}", value) for name, value in reversed(list(inner.items()))]
        else:
            yield path, one


def _table(text: _Text, layout: Layout) -> Iterator[Record]:
    names = layout.names
    width = len(names)
    for lines, fields, problem in _csv(text, layout.delimiter):
        first = lines[0]
        if not problem and not any(fields):
            continue
        if not problem and len(fields) != width:
            # Rows often end with a delimiter that the header does not have.
            if len(fields) > width and not any(fields[width:]):
                fields = fields[:width]  # noqa: PLW2901  # without what is empty
            else:
                problem = _misfit(len(fields), width, layout.delimiter)  # noqa: PLW2901  # it is one now
                if len(lines) > 1:
                    text.go(first.end, first.number)
        shown = first.text[:_SHOWN].rstrip("\r\n")
        yield Record(first.number, shown, {} if problem else dict(zip(names, fields, strict=True)), problem)


def _misfit(number: int, width: int, delimiter: str) -> str:
    """What may be wrong with a row that has not as many columns as the header."""
    why = (
        f"a {delimiter!r} inside a value, as in a decimal comma, needs quotes or another `delimiter`"
        if number > width
        else "it was cut off, or its `delimiter` is another than the header's"
    )
    return f"has {number} columns, the header has {width}; {why}"


def examine(  # what the plant file may say about it
    path: Path,
    *,
    table: bool,
    encoding: str,
    delimiter: str,
    header: Sequence[str],
    skip: int,
    needed: Collection[str],
) -> Layout:
    """What the beginning of the file tells: encoding, delimiter, columns.

    ``table`` is CSV, else JSON lines. ``delimiter`` may be ``auto``: the one with which the header has the
    ``needed`` columns, else most columns. ``header`` replaces the file's own, ``skip`` lines before it are left
    out. Raises BadFile, OSError.
    """
    with path.open("rb") as file:
        head = file.read(_SAMPLE)
        found = encoding_of(head, encoding)
        if table:
            _check_lines(head, found)
        begin = _Text(file, found, found.mark, 0)
        for _ in zip(range(skip), begin.lines(), strict=False):
            pass
        rest = Layout(found, "", (), begin.offset, begin.line)
        if not table:
            return rest
        choices: list[Layout] = []
        trouble = ""
        for one in DELIMITERS if delimiter == "auto" else (delimiter,):
            layout, problem = _headed(file, rest._replace(delimiter=one), header)
            trouble = trouble or problem
            if layout is not None and not (header and delimiter == "auto" and len(layout.names) < len(header)):
                choices.append(
                    layout._replace(names=tuple(header), begin=rest.begin, line=rest.line) if header else layout
                )
        if not choices:
            expected = f"of {len(header)} columns" if header else "that names the columns"
            raise BadFile(
                f"has no first row {expected}{trouble}; set `delimiter`, `header` or `skip` as the file has it"
            )
        return _best(choices, needed)


def _check_lines(head: bytes, encoding: Encoding) -> None:
    """Raises BadFile for what has no lines at all."""
    if len(head) == encoding.mark:
        raise BadFile("is empty; where the machine fills it only later, set `settle` longer than that takes")
    if b"\r" in head and b"\n" not in head:
        raise BadFile("ends its lines by CR alone; let the machine end them by LF or CR LF")


def _headed(file: BinaryIO, layout: Layout, header: Sequence[str]) -> tuple[Layout | None, str]:
    """With the names that the first row has, or why there is none."""
    text = _Text(file, layout.encoding, layout.begin, layout.line)
    trouble = ""
    for lines, fields, problem in _csv(text, layout.delimiter, layout.line + 1):
        if not problem:
            names = tuple(fields) if header else tuple(name.strip() for name in fields)
            return layout._replace(names=names, begin=text.offset, line=text.line), ""
        trouble = f" (line {lines[0].number} {problem})"
    return None, trouble


def _best(choices: Sequence[Layout], needed: Collection[str]) -> Layout:
    best = max(choices, key=lambda layout: (len(set(needed) & set(layout.names)), len(layout.names)))
    if not any(best.names):
        raise BadFile("begins with a blank line where the names of its columns should be; leave it out by `skip`")
    absent = sorted(set(needed) - set(best.names))
    shown = ", ".join(best.names[:30])
    if absent:
        do = (
            "set `delimiter` to what separates columns" if len(best.names) == 1 else "change the plant file or the file"
        )
        raise BadFile(f"has no column {absent[0]!r}; its columns are: {shown}; {do}")
    named = [name for name in best.names if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise BadFile(
            f"has two columns called {twice!r}; name the columns by `header` (and leave its own out by `skip`)"
        )
    return best


def piece(path: Path, layout: Layout, position: Position, rows: int, settled: int) -> Piece:
    """At most so many rows from ``position`` on.

    A last line without an end is a row only if the file still has its ``settled`` size. Raises Changed when the file
    is not the one that was begun, OSError.
    """
    with path.open("rb") as file:
        if position.digest != digest(file, position.offset):
            raise Changed
        size = os.fstat(file.fileno()).st_size
        text = _Text(file, layout.encoding, max(position.offset, layout.begin), max(position.line, layout.line))
        records: list[Record] = []
        place = (text.offset, text.line)
        last = -1 if size == settled else _last_end(file, layout.encoding, size)
        file.seek(text.offset)
        for record in _table(text, layout) if layout.delimiter else _json(text):
            if last >= 0 and text.offset > last:
                break
            records.append(record)
            place = (text.offset, text.line)
            if len(records) == rows:
                break
        else:
            place = (text.offset, text.line)
        return Piece(records, *place, digest(file, place[0]), size, os.fstat(file.fileno()).st_mtime_ns)


def _last_end(file: BinaryIO, encoding: Encoding, size: int) -> int:
    """Where the last whole line ends, as far as that can be told from the last bytes; 0: nowhere."""
    begin = max(0, size - LONGEST_LINE)
    file.seek(begin)
    place = file.read(size - begin).rfind("\n".encode(encoding.codec or "utf-8"))
    return 0 if place < 0 else begin + place + encoding.width


def digest(file: BinaryIO, offset: int) -> str:
    """By what a file is known again that was read up to ``offset``; empty for one that was not read yet."""
    if not offset:
        return ""
    file.seek(0)
    known = hashlib.sha256(file.read(min(_SAMPLE, offset)))
    begin = max(0, offset - _SAMPLE)
    file.seek(begin)
    known.update(file.read(offset - begin))
    return known.hexdigest()[:32]


def is_begun(path: Path, position: Position) -> bool:
    """Whether this is the file that was read up to there; raises OSError."""
    with path.open("rb") as file:
        return position.offset > 0 and position.digest == digest(file, position.offset)


def is_same(path: Path, position: Position) -> bool:
    """Whether the finished file is still this one, not a new one of its name; raises OSError."""
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        return (stat.st_size, stat.st_mtime_ns) == (position.offset, position.modified) and position.digest == digest(
            file, position.offset
        )


_UNSAFE: Final = re.compile(r"[^\w.-]+")


def rejects_name(path: Path) -> str:
    """The name of the file for rejected rows: the same for the same file, another for another of the same name."""
    with path.open("rb") as file:
        known = hashlib.sha256(file.read(_SAMPLE))
        known.update(str(os.fstat(file.fileno()).st_mtime_ns).encode())
    return f"{_UNSAFE.sub('_', path.name)}.{known.hexdigest()[:8]}.rejected.csv"
