"""A segment: an immutable file of chunks sorted by tag and time, complete in itself.

Constraints: a segment is written once under a name that ends in ``.part``, made durable, and only
then counted; nothing is ever changed in it. It carries the names of its tags and which journal
entries it came from, so the historian can be put together again from segments alone.

Format, little-endian: the 8 bytes of ``MAGIC``; the chunks one after the other; the index, one
``INDEX`` record a chunk, sorted by tag and first time; the footer, msgpack of ``Footer``; the
trailer, ``TRAILER``: place of index and footer, CRC-32 of both, ``MAGIC`` again.

Recovery: a file without its trailer, or whose trailer, index or footer fails its checksum, is not a
segment (``Damaged``). A chunk that fails its own checksum is lost alone; everything else reads on.
"""

import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from shopfloor.historian import chunk
from shopfloor.historian.chunk import Damaged
from shopfloor.historian.rows import Int64, Rows

MAGIC: Final = b"SHOPSEG1"
SUFFIX: Final = ".segment"
PART: Final = ".part"
INDEX: Final = np.dtype(
    [("tag", "<u4"), ("rows", "<u4"), ("first", "<i8"), ("last", "<i8"), ("place", "<u8"), ("size", "<u4"),
     ("check", "<u4")]
)  # fmt: skip
TRAILER: Final = struct.Struct("<QIQII8s")
"""Index: place, records; footer: place, bytes; CRC-32 of both; magic."""

Range = tuple[int, int]
"""Journal offsets: after the first, up to and with the second."""


class Entries(msgspec.Struct, frozen=True):
    """The journal entries whose samples are here: ascending offsets, time of reception (ns UTC), source."""

    offset: Int64
    received: Int64
    source: list[str]

    @classmethod
    def joined(cls, parts: Iterable["Entries"]) -> "Entries":
        """All of them, each once."""
        listed = list(parts)
        offset, places = np.unique(np.concatenate([part.offset for part in listed]), return_index=True)
        sources = [source for part in listed for source in part.source]
        received = np.concatenate([part.received for part in listed])[places]
        return cls(offset, received, [sources[i] for i in places.tolist()])


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """What a segment says of itself."""

    rows: int
    first: int
    last: int
    window: int | None
    """The number of its window of time, or None for stray rows of many windows."""
    ranges: list[Range]
    """Every sample of these journal entries is in a segment that says so."""
    replaces: list[str]
    """Names of segments that were merged into this one."""
    names: bytes
    """msgpack {tag id: name}, zstd."""
    entries: int
    offsets: chunk.Column
    received: chunk.Column
    sources: bytes
    """msgpack [distinct names, position per entry], zstd."""


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Where one chunk of a tag stands."""

    rows: int
    first: int
    last: int
    place: int
    size: int
    check: int


class SegmentWriter:
    """Writes one segment; tags must come in ascending ids, their rows in time order."""

    def __init__(self, path: Path) -> None:
        """``path`` ends in ``.part``. Raises OSError."""
        self.path = path
        self.rows = 0
        self._file = path.open("wb", buffering=2**20)
        self._file.write(MAGIC)
        self._place = len(MAGIC)
        self._index: list[tuple[int, int, int, int, int, int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Give the file up unless ``finish`` was called."""
        if not self._file.closed:
            with suppress(OSError):  # a full disk refuses what is still buffered; the file goes anyway
                self._file.close()
            self.path.unlink(missing_ok=True)

    def add(self, tag: int, rows: Rows) -> None:
        """Append rows of a tag."""
        for piece in chunk.pieces(rows):
            content = chunk.encode(piece)
            span = (int(piece.time[0]), int(piece.time[-1]))
            self._index.append((tag, len(piece), *span, self._place, len(content), zlib.crc32(content)))
            self._file.write(content)
            self._place += len(content)
            self.rows += len(piece)

    def finish(
        self,
        names: Mapping[int, str],
        entries: Entries,
        ranges: Sequence[Range],
        window: int | None,
        replaces: Sequence[str] = (),
    ) -> Footer:
        """Write what stands behind the chunks and make the file durable. Raises OSError."""
        index = np.array(self._index, INDEX)
        distinct = {name: i for i, name in enumerate(dict.fromkeys(entries.source))}
        sources = (list(distinct), [distinct[name] for name in entries.source])
        footer = Footer(
            self.rows,
            int(index["first"].min()) if self.rows else 0,
            int(index["last"].max()) if self.rows else 0,
            window,
            merged(ranges),
            list(replaces),
            chunk.squeezed(msgspec.msgpack.encode({tag: names[tag] for tag in np.unique(index["tag"]).tolist()})),
            len(entries.offset),
            chunk.packed(entries.offset),
            chunk.packed(entries.received),
            chunk.squeezed(msgspec.msgpack.encode(sources)),
        )
        end = index.tobytes() + msgspec.msgpack.encode(footer)
        self._file.write(end)
        self._file.write(
            TRAILER.pack(
                self._place, len(index), self._place + index.nbytes, len(end) - index.nbytes, zlib.crc32(end), MAGIC
            )
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        sync_folder(self.path.parent)
        return footer


class Segment:
    """A segment as readers see it; opened at the first look, safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None
        self._index: NDArray[np.void] = np.zeros(0, INDEX)
        self._tags: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._footer: Footer | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def footer(self) -> Footer:
        """What the segment says of itself. Raises Damaged, OSError."""
        self._open()
        if self._footer is None:
            raise Damaged("no footer")
        return self._footer

    def _open(self) -> mmap.mmap:
        with self._lock:
            if self._map is None:
                with self.path.open("rb") as file:
                    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if _size(file.fileno()) else None
                if content is None:
                    raise Damaged("the file is empty")
                self._index, self._footer = _ends(content)
                self._tags = np.ascontiguousarray(self._index["tag"])
                self._map = content
            return self._map

    def close(self) -> None:
        """Let go of the file; a later look opens it again."""
        with self._lock:
            content, self._map = self._map, None
            self._index, self._tags = np.zeros(0, INDEX), np.zeros(0, np.uint32)
        if content is not None:
            content.close()

    def tags(self) -> list[int]:
        """The ids of its tags, ascending. Raises Damaged, OSError."""
        self._open()
        ids: list[int] = np.unique(self._tags).tolist()
        return ids

    def names(self) -> dict[int, str]:
        """Its tags' names by id. Raises Damaged, OSError."""
        try:
            return msgspec.msgpack.decode(chunk.unsqueezed(self.footer.names), type=dict[int, str])
        except (msgspec.MsgspecError, OSError) as error:
            raise Damaged(str(error)) from error

    def entries(self) -> Entries:
        """The journal entries that it came from. Raises Damaged, OSError."""
        footer = self.footer
        names, places = msgspec.msgpack.decode(
            chunk.unsqueezed(footer.sources), type=tuple[list[str], list[int]]
        )  # fmt: skip
        return Entries(
            chunk.unpacked(footer.offsets, footer.entries),
            chunk.unpacked(footer.received, footer.entries),
            [names[i] for i in places],
        )

    def pieces(self, tag: int, start: int, end: int) -> Iterator[Piece]:
        """The chunks of a tag that may hold rows with start <= time < end, by first time. Raises Damaged, OSError."""
        self._open()
        low, high = np.searchsorted(self._tags, np.array([tag, tag + 1], np.uint64).astype(np.uint32))
        for record in self._index[low:high].tolist():
            piece = Piece(*record[1:])
            if piece.first < end and piece.last >= start:
                yield piece

    def rows(self, piece: Piece) -> Rows:
        """The rows of a chunk. Raises Damaged, OSError."""
        content = self._open()[piece.place : piece.place + piece.size]
        if zlib.crc32(content) != piece.check:
            raise Damaged(f"{self.path}: the chunk at byte {piece.place} fails its checksum")
        return chunk.decode(content)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The ranges in order, those that touch as one."""
    result: list[Range] = []
    for after, upto in sorted(ranges):
        if result and after <= result[-1][1]:
            result[-1] = (result[-1][0], max(upto, result[-1][1]))
        else:
            result.append((after, upto))
    return result


def _ends(content: mmap.mmap) -> tuple[NDArray[np.void], Footer]:
    """Index and footer. Raises Damaged."""
    if len(content) < len(MAGIC) + TRAILER.size or content[: len(MAGIC)] != MAGIC:
        raise Damaged("the file does not begin like a segment")
    place, count, foot, size, check, magic = TRAILER.unpack(content[-TRAILER.size :])
    end = content[place : foot + size] if place <= foot <= len(content) else b""
    if magic != MAGIC or foot - place != count * INDEX.itemsize or zlib.crc32(end) != check:
        raise Damaged("the file does not end like a segment")
    try:
        footer = msgspec.msgpack.decode(end[foot - place :], type=Footer)
    except msgspec.MsgspecError as error:
        raise Damaged(str(error)) from error
    return np.frombuffer(end[: foot - place], INDEX), footer


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable, where the system knows how (POSIX)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
