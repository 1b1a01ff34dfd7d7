"""A watched folder: which files are complete, and where they go afterwards.

It is looked through again and again rather than watched by inotify: what another computer writes on a network share
is not announced by the kernel, and whether a file has settled needs a second look in any case. Everything here blocks
and runs in a thread.
"""

import csv
import fcntl
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, NamedTuple

from shopfloor.plant.components import tag_pattern
from shopfloor.samples import Unavailable
from shopfloor.sources.files_text import Record

_DONE: Final = ".done"
_BEGUN: Final = ("line", "reason", "row")


class Found(NamedTuple):
    """A file that nobody writes to any more."""

    name: str
    size: int
    modified: int
    """ns."""


class Folder:
    """The files of a folder whose names match a pattern."""

    def __init__(self, path: Path, pattern: str, settle: float, done: Literal["move", "rename"], done_folder: str,
                 failed_folder: str) -> None:  # fmt: skip
        """``settle`` is in seconds."""
        self._path = path
        self._fits = re.compile(tag_pattern(pattern).pattern, re.DOTALL | re.IGNORECASE).fullmatch
        self._settle = settle
        self._done: Literal["move", "rename"] = done
        self._done_folder = path / done_folder
        self._failed_folder = path / failed_folder
        mine = sha256(pattern.lower().encode()).hexdigest()[:8]
        self._claim = path / f".shopfloor-{mine}.lock"
        self._claimed: int | None = None
        self._seen: dict[str, tuple[Found, float]] = {}
        """Every file as it was when it changed last, and when that was seen."""

    def file(self, name: str) -> Path:
        """Where a file is."""
        return self._path / name

    def claim(self) -> None:
        """Be the only reader of these files until ``release``. Raises Unavailable when somebody else is.

        The operating system gives the lock back when a process ends, however it ends. A folder that cannot be
        written to, or a share that knows no locks, is read without it.
        """
        while self._claimed is None:
            try:
                handle = os.open(self._claim, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError:
                return
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                raise Unavailable(
                    f"another source or another Shopfloor reads these files of {self._path} already; stop it, or give "
                    "each its own `folder` or `files`: each row must be read once"
                ) from None
            except OSError:
                os.close(handle)
                return
            with suppress(OSError):
                if os.fstat(handle).st_ino == self._claim.stat().st_ino:
                    self._claimed = handle
                    return
            os.close(handle)  # who had it took it away meanwhile

    def release(self) -> None:
        """Let others read these files."""
        handle, self._claimed = self._claimed, None
        if handle is not None:
            with suppress(OSError):  # the folder may have gone
                if os.fstat(handle).st_ino == self._claim.stat().st_ino:
                    self._claim.unlink()
            os.close(handle)

    def settled(self) -> list[Found]:
        """The complete files, the oldest first. Raises Unavailable when the folder is not there."""
        now = time.monotonic()
        seen: dict[str, tuple[Found, float]] = {}
        for found in self.there():
            before = self._seen.get(found.name)
            seen[found.name] = before if before is not None and before[0] == found else (found, now)
        self._seen = seen
        ready = [found for found, since in seen.values() if now - since >= self._settle]
        return sorted(ready, key=lambda found: (found.modified, found.name))

    def there(self) -> list[Found]:
        """All files, also those that somebody still writes to. Raises Unavailable when the folder is not there."""
        try:
            with os.scandir(self._path) as entries:
                names = [entry.name for entry in entries if self._wanted(entry.name)]
        except FileNotFoundError:
            raise Unavailable(
                f"the folder {self._path} is not there; make it, or mount the share that it is on"
            ) from None
        except NotADirectoryError:
            raise Unavailable(f"{self._path} is no folder; set `folder` to the one the files come into") from None
        except PermissionError:
            raise Unavailable(f"the folder {self._path} may not be read; give this user the right to") from None
        except OSError as error:
            raise Unavailable(f"the folder {self._path} cannot be read: {error.strerror or error}") from error
        found: list[Found] = []
        for name in names:
            with suppress(OSError):  # it vanished, or may not be looked at: the next look tells
                stat = (self._path / name).stat()
                if (self._path / name).is_file():
                    found.append(Found(name, stat.st_size, stat.st_mtime_ns))
        return found

    def _wanted(self, name: str) -> bool:
        return self._fits(name) is not None and not name.startswith((".", "~$")) and not name.endswith(_DONE)

    def finish(self, name: str) -> None:
        """A file was read to its end and all of it is durable. Raises OSError when it cannot be moved."""
        if self._done == "rename":
            self._move(name, self._path, name + _DONE)
        else:
            self._move(name, self._done_folder, name)

    def fail(self, name: str, reason: str) -> Path:
        """Put a file aside that cannot be read as a whole, the reason beside it; where it is. Raises OSError."""
        there = self._move(name, self._failed_folder, name)
        there.with_name(f"{there.name}.reason.txt").write_text(f"{name} {reason}\n", "utf-8")
        return there

    def _move(self, name: str, folder: Path, new: str) -> Path:
        folder.mkdir(exist_ok=True)
        target = _free(folder / new)
        (self._path / name).rename(target)
        for one in {folder, self._path}:
            _flush(one)
        self._seen.pop(name, None)
        return target

    # ---- rejected rows ------------------------------------------------------------------------------

    def keep_rejects(self, name: str, before: int) -> None:
        """Of the rejected rows keep those before this line: what follows is going to be read (again)."""
        path = self._failed_folder / name
        if not path.exists():
            return
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row and row[0].isdecimal() and int(row[0]) <= before]
        fresh = path.with_name(f".{path.name}")
        self._write(fresh, "w", [_BEGUN, *rows])
        if rows:
            fresh.replace(path)
        else:
            fresh.unlink()
            path.unlink()

    def reject(self, name: str, records: Iterable[Record]) -> Path:
        """Write rejected rows down, durably; where. Raises OSError."""
        self._failed_folder.mkdir(exist_ok=True)
        path = self._failed_folder / name
        rows = [(str(one.line), one.problem, one.text) for one in records]
        self._write(path, "a", rows if path.exists() else [_BEGUN, *rows])
        return path

    def _write(self, path: Path, mode: Literal["a", "w"], rows: Iterable[Iterable[str]]) -> None:
        with path.open(mode, encoding="utf-8", errors="backslashreplace", newline="") as file:
            csv.writer(file).writerows(rows)
            file.flush()
            os.fsync(file.fileno())


def _free(path: Path) -> Path:
    """The path, or with a number before its suffix where there is such a file already."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _flush(folder: Path) -> None:
    """Let a change of names outlive a power cut, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
