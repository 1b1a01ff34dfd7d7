"""The pages of a journal file that SQLite may refuse, read one by one as they are asked for."""

import heapq
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from shopfloor.journal.file import PAGE

_WAL_HEAD: Final = struct.Struct(">8I")
_FRAME_HEAD: Final = struct.Struct(">6I")


class Pages:
    """The file's pages by number, with the committed pages of the WAL laid over them; read when they are asked for.

    Not mapped into memory: there, a sector that cannot be read would end the process, not cost its page.
    """

    def __init__(self, path: Path) -> None:
        """Use it in ``with``."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._wal: int | None = None
        wal = path.with_name(f"{path.name}-wal")
        try:
            self._wal = os.open(wal, os.O_RDONLY | os.O_CLOEXEC) if wal.exists() else None
            self._committed = {} if self._wal is None else _committed(self._wal, PAGE)
            count = -(-os.fstat(self._file).st_size // PAGE)
        except BaseException:
            self.close()
            raise
        self._in_file = range(1, count + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for handle in (self._file, self._wal):
            if handle is not None:
                os.close(handle)

    def __iter__(self) -> Iterator[int]:
        """The numbers, ascending."""
        return heapq.merge(self._in_file, sorted(number for number in self._committed if number not in self._in_file))

    def __contains__(self, number: int) -> bool:
        return number in self._in_file or number in self._committed

    def __getitem__(self, number: int) -> bytes:
        """The page; what cannot be read of it is missing at its end."""
        at = self._committed.get(number)
        if at is not None and self._wal is not None:
            return _read(self._wal, PAGE, at)
        return _read(self._file, PAGE, (number - 1) * PAGE)


def _read(handle: int, size: int, at: int) -> bytes:
    try:
        return os.pread(handle, size, at)
    except OSError:  # the disk cannot
        return b""


def _committed(wal: int, size: int) -> dict[int, int]:
    """Where the pages of the WAL are, up to its last whole commit: salts must fit, a frame with a size commits."""
    head = _read(wal, _WAL_HEAD.size, 0)
    if len(head) < _WAL_HEAD.size:
        return {}
    salts = _WAL_HEAD.unpack(head)[4:6]
    pages: dict[int, int] = {}
    open_pages: dict[int, int] = {}
    step = _FRAME_HEAD.size + size
    for at in range(_WAL_HEAD.size, os.fstat(wal).st_size - step + 1, step):
        head = _read(wal, _FRAME_HEAD.size, at)
        if len(head) < _FRAME_HEAD.size:
            break
        number, commit, *rest = _FRAME_HEAD.unpack(head)
        if tuple(rest[:2]) != salts:
            break
        open_pages[number] = at + _FRAME_HEAD.size
        if commit:
            pages.update(open_pages)
            open_pages.clear()
    return pages
